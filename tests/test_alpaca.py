"""The historic rules, decision for decision against the oracle."""

from __future__ import annotations

import random
from typing import Any

import pytest
from alpaca_oracle import FILTERED, SIMILAR, SKIPPED, Oracle, Row, made_rows, real_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct import alpaca, novelty
from selfinstruct.records import Candidate, Seed
from selfinstruct.seams import Novelty

ROWS = real_rows() + made_rows()
POOL = [
    "Write a Python function that reverses a string.",
    "Explain what a hash table is.",
    "Explain what a hash table is.",
]


def decide(text: str, finish_reason: str, first: int, pool: Novelty) -> list[Any]:
    """The project's outcomes in the oracle's words."""
    outcomes: list[Any] = []
    for candidate in alpaca.parse(text, finish_reason, first):
        if candidate.rejection is not None:
            if candidate.rejection.reason != "empty_reply":
                outcomes.append(SKIPPED)
        elif alpaca.refuse(candidate) is not None:
            outcomes.append(FILTERED)
        elif pool.duplicate_of(candidate.instruction, candidate.input, candidate.output) is not None:
            outcomes.append(SIMILAR)
        else:
            outcomes.append({**candidate.row, **pool.evidence(candidate.instruction)})
            pool.add(candidate.instruction, candidate.input, candidate.output)
    return outcomes


def expected(text: str, finish_reason: str, first: int, oracle: Oracle) -> list[Any]:
    outcomes = oracle.decide(text, finish_reason, first)
    return outcomes if text.strip() else []


def fresh() -> tuple[Oracle, Novelty]:
    pool = novelty.make("alpaca")
    for text in POOL:
        pool.add(text, "", "")
    return Oracle(POOL), pool


def item(number: int, row: Row, first: bool) -> str:
    label = "" if first else f"{number}. Instruction: "
    return (
        f"{label}{row['instruction']}\n{number}. Input:\n{row['input'] or '<noinput>'}\n"
        f"{number}. Output:\n{row['output']}\n"
    )


MANGLINGS = (
    lambda text, _: text,
    lambda text, _: text + "###\n",
    lambda text, rng: text.replace("\n", "\n###\n", rng.randrange(3)),
    lambda text, rng: text.replace(
        ". Output:", rng.choice([". output:", ".Output:", ".\tOutput:", ".\n\u00a0Output:"])
    ),
    lambda text, rng: text.replace("5. ", rng.choice(["15. ", "1. ", "\u0665. ", "**5. "])),
    lambda text, _: text.replace("<noinput>", "<NoInput>"),
    lambda text, _: text.replace("<noinput>", "< noinput >"),
    lambda text, rng: text[: rng.randrange(len(text) + 1)],
    lambda text, _: text.replace("6. Input:", "6. Input:\n6. Input:"),
    lambda text, rng: text.replace(" ", rng.choice(["  ", "\u2003", " ### "]), 1),
    lambda text, _: "4. Instruction: " + text,
    lambda text, rng: "".join(rng.sample(text.splitlines(keepends=True), text.count("\n"))),
)


@settings(max_examples=120, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(st.integers(0, len(MANGLINGS) - 1), max_size=3),
    st.sampled_from([1, 4, 9]),
)
def test_decides_as_the_original_on_rows(seed: int, manglings: list[int], first: int) -> None:
    rng = random.Random(seed)
    oracle, pool = fresh()
    for _ in range(2):
        rows = rng.sample(ROWS, rng.randrange(1, 9))
        text = "###\n".join(item(n, row, n == first) for n, row in enumerate(rows, first))
        for which in manglings:
            text = MANGLINGS[which](text, rng)
        finish = rng.choice(["stop", "length", "content_filter"])
        assert decide(text, finish, first, pool) == expected(text, finish, first, oracle)


PIECES = st.sampled_from(
    [
        "###",
        "4.",
        "5. ",
        " Instruction:",
        "Input:",
        "Output:",
        "\n",
        "20.",
        "14. Input:",
        "Sort the list of names",
        "<noinput>",
    ]
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.one_of(PIECES, st.text(st.characters(exclude_categories=["Cs"]), max_size=6))).map("".join)
)
def test_decides_as_the_original_on_anything(text: str) -> None:
    oracle, pool = fresh()
    assert decide(text, "stop", 4, pool) == expected(text, "stop", 4, oracle)


def test_runs_of_real_size_agree() -> None:
    """A pool that grows: what was accepted decides what is new."""
    rng = random.Random(7)
    oracle, pool = fresh()
    seen: list[Any] = []
    for _ in range(12):
        rows = rng.sample(ROWS, 16)
        text = "###\n".join(item(n, row, n == 4) for n, row in enumerate(rows, 4))
        outcomes = decide(text, "stop", 4, pool)
        assert outcomes == oracle.decide(text, "stop", 4)
        seen += outcomes
    accepted = [outcome for outcome in seen if isinstance(outcome, dict)]
    assert len(accepted) > 20
    assert {FILTERED, SIMILAR} <= {outcome for outcome in seen if isinstance(outcome, str)}
    assert list(accepted[-1]) == [
        "instruction",
        "input",
        "output",
        "most_similar_instructions",
        "avg_similarity_score",
    ]
    assert len(accepted[-1]["most_similar_instructions"]) == 10


@settings(max_examples=200)
@given(st.text(), st.sampled_from(["stop", "length"]), st.integers(1, 99))
def test_parse_never_raises_and_keeps_the_text(text: str, finish_reason: str, first: int) -> None:
    found = alpaca.parse(text, finish_reason, first)
    assert found or text.strip()
    for candidate in found:
        "".join([candidate.raw, *candidate.row.values()]).encode()
        assert candidate.rejection is None or candidate.raw or not text.strip()


def test_layout() -> None:
    shots = [
        Seed("a", "  Sort\n the   list: ", "x = [2, 1]", "x.sort()"),
        Seed("b", "What is a heap?", "", "A tree."),
    ]
    assert alpaca.layout("List of 20 tasks:", shots) == (
        "List of 20 tasks:\n"
        "###\n1. Instruction: Sort the list\n1. Input:\nx = [2, 1]\n1. Output:\nx.sort()\n"
        "###\n2. Instruction: What is a heap?\n2. Input:\n<noinput>\n2. Output:\nA tree.\n"
        "###\n3. Instruction:"
    )


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("Sort this list.", "too_short"),
        ("Sort this list quickly.", None),
        ("a " * 150, None),
        ("a " * 151, "too_long"),
        ("Read the FILE line by line.", "blacklist"),
        ("Read the profile line by line.", None),
        ("Go to the next line now.", "blacklist"),
        ("Write a program to sort numbers.", "write_a_program"),
        ("write a program to sort numbers.", None),
        ("`print` does what exactly here?", "punctuation"),
        ("Ändere den Namen der Variable.", "non_ascii"),
        ("Write a program to map numbers.", "blacklist"),
    ],
)
def test_filters(instruction: str, reason: str | None) -> None:
    rejection = alpaca.refuse(Candidate(instruction=instruction))
    assert (rejection and rejection.reason) == reason


def test_reasons_of_what_the_original_dropped() -> None:
    text = " Do a thing here now\n4. Input:\n4. Output:\nx\n###\n5. Instruction: half\n###\n6. Instr"
    reasons = [c.rejection and c.rejection.reason for c in alpaca.parse(text, "length")]
    assert reasons == [None, "unreadable", "cut_off"]
    assert [c.rejection and c.rejection.reason for c in alpaca.parse(" \n")] == ["empty_reply"]
    assert alpaca.parse("a \ud800 b")[0].raw == "4. Instruction:a \ufffd b"
