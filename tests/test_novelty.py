from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer, tokenizers

from selfinstruct.errors import InputError
from selfinstruct.novelty import decide, make
from selfinstruct.novelty_code import split_words

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HISTORIC = tokenizers.DefaultTokenizer(use_stemmer=False)
PHRASES = [
    "Write a function to",
    "sort the list",
    "in C++",
    "in C#",
    "reverse a string",
    "of numbers.",
    "given",
    "用Python",
    "",
]
INSTRUCTIONS = st.lists(st.sampled_from(PHRASES), min_size=1, max_size=4).map(" ".join)


def historic_scores(instruction: str, pool: list[str]) -> list[float]:
    new = HISTORIC.tokenize(instruction)
    return [rouge_scorer._score_lcs(new, HISTORIC.tokenize(one)).fmeasure for one in pool]


def real_rows() -> list[dict[str, str]]:
    folder = os.environ.get("SELFINSTRUCT_DATA") or Path(__file__).parents[2] / "shared" / "data"
    path = Path(folder) / "code_alpaca_2k.json"
    if path.exists():
        rows: list[dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
        return rows
    rng = np.random.default_rng(0)
    words = ["write", "sort", "list", "tree", "Java", "reverse", "string", "of", "a", "the", "graph", "sum"]
    return [
        {"instruction": " ".join(rng.choice(words, rng.integers(3, 12))), "input": "", "output": str(row)}
        for row in range(2000)
    ]


@given(
    st.lists(INSTRUCTIONS, max_size=14), INSTRUCTIONS, st.sampled_from([0.0, 0.5, 0.7, 0.8, 1.0]), st.data()
)
@settings(max_examples=200, deadline=None)
def test_alpaca_decides_as_the_original(
    pool: list[str], new: str, threshold: float, data: st.DataObject
) -> None:
    limit = data.draw(st.none() | st.integers(0, len(pool)))
    rule = make("alpaca", threshold)
    for one in pool:
        rule.add(one, "", "")
    scores = historic_scores(new, pool[:limit])
    match = rule.duplicate_of(new, "", "", limit=limit)
    if scores and max(scores) > threshold:
        assert match is not None
        assert (match.entry, match.score) == (scores.index(max(scores)), max(scores))
    else:
        assert match is None


def test_alpaca_evidence_is_that_of_the_original() -> None:
    instructions = [row["instruction"] for row in real_rows()[:700]]
    rule = make("alpaca")
    for count, instruction in enumerate(instructions):
        if count % 40 == 0 and count:
            scores = historic_scores(instruction, instructions[:count])
            order = np.argsort(scores)[-10:][::-1]
            expected = {instructions[entry]: scores[entry] for entry in order}
            found = rule.evidence(instruction)
            assert list(found["most_similar_instructions"].items()) == list(expected.items())
            assert found["avg_similarity_score"] == float(np.mean(scores))
            assert json.loads(json.dumps(found)) == found
        rule.add(instruction, "", "")


def test_evidence_of_an_empty_pool() -> None:
    assert make("alpaca").evidence("Sort") == {"most_similar_instructions": {}, "avg_similarity_score": 0.0}


def test_code_rule_imports_no_rouge_score() -> None:
    import subprocess

    program = (
        "import sys; from selfinstruct.novelty import make; rule = make('code'); rule.add('Sort a list', '', '');"
        "assert rule.duplicate_of('Sort a list', '', ''); assert 'rouge_score' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("profile", ["alpaca", "code"])
def test_a_limit_shows_the_pool_as_it_was(profile: str) -> None:
    rows = real_rows()[:400]
    now, before = make(profile), make(profile)
    for row in rows:
        now.add(row["instruction"], row["input"], row["output"])
    for entry, row in enumerate(rows):
        task = (row["instruction"], row["input"], row["output"])
        assert now.duplicate_of(*task, limit=entry) == before.duplicate_of(*task)
        assert before.add(*task) == entry
    assert len(before) == len(rows)


@pytest.mark.parametrize("profile", ["alpaca", "code"])
def test_a_batch_is_judged_as_one_by_one(profile: str) -> None:
    rule = make(profile, 0.6, 2)
    found = []
    tasks = [(row["instruction"], row["input"], row["output"]) for row in real_rows()[:900]]
    for first in range(0, len(tasks), 300):
        for task in tasks[first : first + 300]:
            rule.add(*task)
        found += [decide(alike, 0.6, 2) for alike in rule.alike_earlier(first)]
    assert found == [rule.duplicate_of(*task, limit=entry) for entry, task in enumerate(tasks)]
    assert len({one and one.why for one in found}) >= 2


def test_several_readers_and_one_adder() -> None:
    rows = real_rows()[:600]
    rule = make("code")
    for row in rows[:300]:
        rule.add(row["instruction"], row["input"], row["output"])

    def ask() -> list[Any]:
        asked = rows[250:350]
        return [
            rule.duplicate_of(row["instruction"], row["input"], row["output"], limit=300) for row in asked
        ]

    expected = ask()
    answers: list[list[Any]] = []
    readers = [threading.Thread(target=lambda: answers.append(ask())) for _ in range(4)]
    for reader in readers:
        reader.start()
    for row in rows[300:]:
        rule.add(row["instruction"], row["input"], row["output"])
    for reader in readers:
        reader.join()
    assert answers == [expected] * 4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"profile": "codex"}, "unknown profile 'codex'"),
        ({"profile": "code", "threshold": 1.5}, "threshold 1.5"),
        ({"profile": "code", "threshold": float("nan")}, "threshold nan"),
        ({"profile": "code", "language_cap": 0}, "language cap 0"),
    ],
)
def test_wrong_settings_end_in_one_line(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        make(**settings)
    assert "\n" not in str(error.value)


def read_pairs() -> list[dict[str, Any]]:
    text = Path(__file__).with_name("novelty_pairs.toml").read_text(encoding="utf-8")
    pairs: list[dict[str, Any]] = tomllib.loads(text)["pair"]
    return pairs


@pytest.mark.parametrize("pair", read_pairs(), ids=lambda pair: pair["second"][0][:40])
def test_judged_pairs(pair: dict[str, Any]) -> None:
    rule = make("code")
    first, second = ([*task, "", ""][:3] for task in (pair["first"], pair["second"]))
    rule.add(*first)
    found = rule.duplicate_of(*second)
    assert (found is not None) == pair["duplicate"], f"{pair['why']}: {found}"


def test_there_are_judged_pairs_of_both_kinds() -> None:
    verdicts = [pair["duplicate"] for pair in read_pairs()]
    assert len(verdicts) >= 40
    assert min(verdicts.count(True), verdicts.count(False)) >= 15


def test_the_language_cap() -> None:
    for cap in (1, 2, 3):
        rule = make("code", language_cap=cap)
        accepted = []
        for name in ("Python", "Java", "C++", "C#", "Rust", "Java"):
            task = f"Write a function in {name} to reverse a linked list"
            if rule.duplicate_of(task, "", "") is None:
                rule.add(task, "", "")
                accepted.append(name)
        assert accepted == ["Python", "Java", "C++", "C#", "Rust"][:cap]


def test_the_language_cap_counts_languages_not_tasks() -> None:
    rule = make("code", language_cap=2)
    for task in ("Reverse a linked list in Java", "Reverse the linked list using Java"):
        rule.add(task, "", "")
    assert rule.duplicate_of("Reverse a linked list in Python", "", "") is None
    rule.add("Reverse a linked list in Go", "", "")
    assert rule.duplicate_of("Reverse a linked list in Python", "", "") is not None


def test_why_a_task_is_a_duplicate() -> None:
    rule = make("code", language_cap=1)
    code = "for line in file:\n    total += int(line.split()[0])\nprint(total / count, total, count, line)"
    rule.add("Explain the code", code, "It averages the first column.", "python")
    rule.add("Reverse a string in Java", "", code)
    asked = [
        ("Reverse the string in Java", "", ""),
        ("Explain the code below", code, ""),
        ("Reverse a string in Rust", "", ""),
        ("Average a column", "", code),
    ]
    found = [rule.duplicate_of(*task) for task in asked]
    assert [one and (one.entry, one.why) for one in found] == [
        (1, "instruction"),
        (0, "instruction and input"),
        (1, "language cap"),
        (1, "output"),
    ]


def test_the_language_given_stands_in_for_the_one_not_named() -> None:
    rule = make("code")
    rule.add("Reverse a linked list", "", "", "Python")
    assert rule.duplicate_of("Reverse a linked list", "", "", "python") is not None
    assert rule.duplicate_of("Reverse a linked list in Python", "", "") is not None
    assert rule.duplicate_of("Reverse a linked list", "", "", "go") is None
    assert rule.duplicate_of("Reverse a linked list", "", "") is not None


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=200), st.none() | st.text(max_size=8))
@settings(max_examples=300, deadline=None)
def test_the_code_rule_reads_anything_and_knows_what_it_has_seen(
    instruction: str, input_: str, output: str, language: str | None
) -> None:
    rule = make("code")
    rule.add(instruction, input_, output, language)
    if rule.reading(instruction, input_, output) is not None:
        found = rule.duplicate_of(instruction, input_, output, language)
        assert found is not None
        assert (found.entry, found.score) == (0, 1.0)


@pytest.mark.parametrize(
    ("text", "words", "languages"),
    [
        ("in C#, C++ or .NET", ["in", "or", ".net"], ("c#", "c++")),
        ("a Node.js server", ["a", "node.js", "server"], ()),
        ("vitamin C and plan D", ["vitamin", "c", "and", "plan", "d"], ()),
        ("Go to the file; write it in Go.", ["go", "to", "the", "file", "write", "it", "in"], ("go",)),
        ("getUserName of user_name", ["get", "user", "name", "of", "user", "name"], ()),
        ("1, 2.5 and 3/4", ["0", "and", "0"], ()),
        ("base64 of 2 bytes", ["base64", "of", "0", "bytes"], ()),
        ("a && b", ["a", "&&", "b"], ()),
        ("反转 list", ["反", "转", "list"], ()),
        ("C++17 und Größe", ["und", "größe"], ("c++",)),
    ],
)
def test_words(text: str, words: list[str], languages: tuple[str, ...]) -> None:
    assert split_words(text) == (words, languages)


@given(
    st.sampled_from(["code", "alpaca"]),
    st.lists(
        st.tuples(
            INSTRUCTIONS, st.sampled_from(["", "x = 1"]), st.sampled_from(["python", "sql", "c", None])
        ),
        max_size=12,
    ),
    st.tuples(INSTRUCTIONS, st.sampled_from(["", "x = 1"]), st.sampled_from(["python", "sql", "c", None])),
    st.sampled_from([0.3, 0.7, 0.9]),
)
def test_a_duplicate_of_an_earlier_pool_is_one_of_every_later_pool(
    profile: str,
    tasks: list[tuple[str, str, str | None]],
    new: tuple[str, str, str | None],
    threshold: float,
) -> None:
    """Verification relies on it: what is new when its turn comes was new in every view before, and so was run."""
    rule = make(profile, threshold, 2)
    output = "def f(xs):\n    return sorted(set(xs), key=lambda x: (-x, str(x)))[:10]"
    for number, (instruction, input_, language) in enumerate(tasks):
        rule.add(instruction, input_, output if number % 3 else "", language)
    found = [
        rule.duplicate_of(new[0], new[1], output, new[2], limit) is not None
        for limit in range(len(tasks) + 1)
    ]
    assert found == sorted(found)
    assert found[-1] == (rule.duplicate_of(new[0], new[1], output, new[2]) is not None)
