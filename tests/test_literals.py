"""The cheap look before a mark is searched for misses none: the scores are those of trying every mark."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct.seeds import load
from selfinstruct.verify.guess import LOOKED_AT, rank_languages
from selfinstruct.verify.literals import folded, literals_of
from selfinstruct.verify.marks import FOREIGN_MARKS, MARKS

TABLES = MARKS | FOREIGN_MARKS
MARKED = [
    (language, int(weight), re.compile(pattern, re.MULTILINE))
    for language, table in TABLES.items()
    for weight, pattern in (line.split(None, 1) for line in table.strip().splitlines())
]
PATTERNS = sorted({mark.pattern for _, _, mark in MARKED})


def every_mark_tried(text: str) -> list[tuple[str, int]]:
    scores = dict.fromkeys(TABLES, 0)
    for language, weight, mark in MARKED:
        scores[language] += weight * bool(mark.search(text[:LOOKED_AT]))
    return sorted(((name, n) for name, n in scores.items() if n), key=lambda pair: -pair[1])


@pytest.mark.parametrize(
    ("pattern", "literals"),
    [
        (r"\bprint\(", {"print("}),
        (r"^[ \t]*(?:let|var)\s+\w+\s*=", {"let", "var"}),
        (r"\.(?:map|Filter)\b", {".map", ".filter"}),
        (r"(?:async\s+)?def\s", {"def"}),
        (r"(?i:SELECT)|\bfrom\b", {"select", "from"}),
        (r"colou?r", {"color", "colour"}),
        (r"summari[sz]e", {"summarise", "summarize"}),
        (r"(?:a|b)*cd+e?", {"d"}),
        (r"x{2,3}y", {"x"}),
        (r"x{0,3}y", {"y"}),
        (r"[^a]b", {"b"}),
        (r"[a-z]=", {"="}),
        (r"[a-]", {"a", "-"}),
        (r"\A(?=\S*->)\S+(?!never)(?<!never)\Z", {"->"}),
        (r"\n\t\S", {"\n\t"}),
        (r"foo|\w", None),
        (r"\w+.\d", None),
        ("\u017fet", {"et"}),
        (r"(?:aa|bb|cc|dd|ee)(?:11|22|33|44)", {"11", "22", "33", "44"}),  # 20 strings would be too many
    ],
)
def test_what_a_pattern_cannot_do_without(pattern: str, literals: set[str] | None) -> None:
    assert literals_of(pattern) == literals


def test_every_mark_has_literals() -> None:
    """Else it would be searched for in every text."""
    assert [pattern for pattern in PATTERNS if not literals_of(pattern)] == []


def test_letters_are_folded_as_the_patterns_see_them() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    for letter in "abcdefghijklmnopqrstuvwxyz":
        for found in re.findall(f"(?i:{letter})", everything):
            assert letter in folded(found), (letter, found)
    assert folded("\u0130N\u017fERT") == "insert"


@settings(deadline=None)  # the first call makes the table of marks
@given(
    st.sampled_from(PATTERNS).flatmap(
        lambda pattern: st.tuples(st.just(pattern), st.from_regex(re.compile(pattern, re.MULTILINE)))
    )
)
def test_where_a_mark_is_one_of_its_literals_is(found: tuple[str, str]) -> None:
    pattern, text = found
    assert any(literal in folded(text) for literal in literals_of(pattern) or ())


PIECES = sorted({literal for pattern in PATTERNS for literal in literals_of(pattern) or ()})


@settings(deadline=None)  # the first call makes the table of marks
@given(
    st.lists(st.sampled_from([*PIECES, *"\n\n\n    xyXY019_"]) | st.text(max_size=3), max_size=40).map(
        "".join
    )
)
def test_the_scores_are_those_of_trying_every_mark(text: str) -> None:
    assert list(rank_languages(text)) == every_mark_tried(text)
    assert list(rank_languages(text.upper())) == every_mark_tried(text.upper())


def test_the_scores_of_real_texts(real_rows: Path | None) -> None:
    texts = [text for seed in load(None)[::3] for text in (seed.instruction, seed.output)]
    if real_rows is not None:
        rows = json.loads(real_rows.read_text(encoding="utf-8"))
        texts += [row["output"] for row in rows[::20]]
    for text in texts:
        assert list(rank_languages(text)) == every_mark_tried(text), text
