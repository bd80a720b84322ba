from __future__ import annotations

import io
import re
import unicodedata
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from selfinstruct.display import (
    console,
    counts,
    counts_of_times,
    duration,
    printable,
    rejection_notes,
    status_table,
    task_panel,
)
from selfinstruct.records import Candidate, Decision, Rejection
from selfinstruct.report import Entry, Report

BIDI = (
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # all that have Bidi_Control
)
HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\r\b\x00\x7f" + BIDI + "\ud800 [red]not markup[/red] [/]"
REPORT = Report("data.json", "data.run", running=False, target=10)


def harmless(text: str) -> bool:
    return all(c in "\n\t" or (unicodedata.category(c) not in {"Cc", "Cs"} and c not in BIDI) for c in text)


def shown(content: RenderableType, width: int = 100) -> str:
    out = io.StringIO()
    Console(
        file=out, width=width, markup=False, highlight=False, color_system=None, force_terminal=False
    ).print(content)
    return out.getvalue()


@given(st.text(st.characters()) | st.text(st.sampled_from(HOSTILE + "ab\r\n\t")))
def test_nothing_a_terminal_obeys_gets_through(text: str) -> None:
    safe = printable(text)
    assert harmless(safe)
    safe.encode()  # no lone surrogate either
    assert printable(safe) == safe


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs"])))
def test_harmless_text_stays_as_it_is(text: str) -> None:
    assert printable(text + "\n\t" + text) == text + "\n\t" + text


def test_every_character_that_turns_the_text_is_made_visible() -> None:
    directions = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    turning = [chr(n) for n in range(0x110000) if unicodedata.bidirectional(chr(n)) in directions]
    assert set(turning) < set(BIDI)
    for char in BIDI:
        assert printable(f"a{char}b") == f"a<{ord(char):02X}>b"


def test_a_carriage_return_hides_nothing() -> None:
    assert printable("good\r\nline") == "good\nline"
    assert printable("bad\rgood") == "bad<0D>good"
    assert printable("\x1b[31m") == "<1B>[31m"


def candidate(text: str) -> Candidate:
    return Candidate(
        text, text, f"{text}\n```{text}\n{text}\n```\n```python\n{text}\n```\n{text}", text, "python", text
    )


@settings(max_examples=40, deadline=None)
@given(
    st.text(st.characters(), max_size=30),
    st.sampled_from(["python", "csharp", "make", "text", "no such", None]),
)
def test_tasks_and_rejections_are_shown_harmless(text: str, language: str | None) -> None:
    for task in (
        replace(candidate(text + HOSTILE), language=language),
        replace(candidate(text + HOSTILE), language=language, output="", input=""),
        Candidate(raw=text),
    ):
        entry = Entry(
            3, (text, HOSTILE), Decision(task, Rejection("too_similar", {"nearest": text + HOSTILE}))
        )
        assert harmless(shown(task_panel(task, text + HOSTILE, rejection_notes(entry))))


def test_the_status_is_shown_harmless_whatever_a_server_named_itself() -> None:
    report = replace(
        REPORT,
        dataset=HOSTILE,
        run_directory=HOSTILE,
        reasons={HOSTILE: 2},
        examples={HOSTILE: {"text": HOSTILE, "evidence": {HOSTILE: HOSTILE}}},
        languages={HOSTILE: 1},
        kinds={HOSTILE: 1},
        failures={HOSTILE: 1},
        models={HOSTILE: 1},
        adopted=1,
    )
    text = shown(status_table(report), 300)
    assert harmless(text)
    assert "[red]not markup[/red]" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": 3}, "data.json: 3 of 10 rows (not complete)"),
        ({"rows": 10}, "data.json: 10 of 10 rows (complete)"),
        ({"rows": 3, "running": True}, "data.json: 3 of 10 rows (running)"),
        ({"accepted": 3, "rejected": 2}, "3 of 5 candidates"),
        ({"adopted": 3, "deleted": 2}, "3 rows taken over, 2 deleted"),
        ({"languages": {"go": 2, "c": 1}, "kinds": {"fix": 3}}, "go 2, c 1"),
        (
            {"prompt_tokens": 9, "cached_tokens": 4, "completion_tokens": 5},
            "tokens: 9 read (4 from cache), 5 written",
        ),
        ({"cost": 0.5}, "$0.5000"),
        ({"cost": 0.0}, "$0.0000"),
        ({"failures": {"http_429": 2}}, "http_429 2"),
        ({"timings": {"median": 2.0, "p90": 3.25}}, "median 2, p90 3.25"),
        ({"settings": {"backend": "local", "model": "small"}}, "local: small"),
        ({"settings": {"backend": "openai"}, "models": {"a": 1, "b": 2}}, "openai: a, b"),
    ],
)
def test_the_status_tells_the_facts(changes: dict[str, Any], words: str) -> None:
    assert words in shown(status_table(replace(REPORT, **changes)))


def test_the_status_leaves_out_what_there_is_not() -> None:
    text = shown(status_table(REPORT))
    for words in ("cost", "failed", "by hand", "languages", "seconds", "rejected"):
        assert words not in text


def test_a_reason_is_shown_with_an_example() -> None:
    example = {"text": "Sort\nit.", "evidence": {"score": 0.81234, "nearest": "seed python-01"}}
    text = shown(status_table(replace(REPORT, reasons={"too_similar": 4}, examples={"too_similar": example})))
    assert re.search(r"too_similar +│ +4 +│ +Sort it\.", text)
    assert "score: 0.812; nearest: seed python-01" in text


def test_a_task_is_shown_whole() -> None:
    task = Candidate("Sort it.", "x = 1", "Use this:\n```python\nsorted(x)\n```\nDone.", language="python")
    text = shown(task_panel(task, "row 3", "taken over"))
    for words in (
        "row 3",
        "Sort it.",
        "Input",
        "x = 1",
        "Output",
        "Use this:",
        "sorted(x)",
        "Done.",
        "taken over",
    ):
        assert words in text
    assert "```" not in text
    unread = shown(task_panel(Candidate(raw="4. Inst\x1b"), "rejection 0"))
    assert "(no instruction)" in unread
    assert "4. Inst<1B>" in unread


def test_notes_tell_reason_evidence_and_place() -> None:
    refused = Entry(3, ("a", "b"), Decision(Candidate(), Rejection("too_similar", {"score": 0.75})))
    assert rejection_notes(refused) == "too_similar (score: 0.750); index 3; shown: a, b"
    assert rejection_notes(Entry(3, ("a",), Decision(Candidate()))) == "index 3; shown: a"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (61, "1 min 1 s"),
        (3599.7, "1 h 0 min"),
        (90_000, "25 h 0 min"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_counts() -> None:
    assert counts({"b": 3, "a": 1}) == "b 3, a 1"
    assert counts({}) == ""
    assert counts_of_times({"median": 2.0, "p90": 0.125}) == "median 2, p90 0.125"


def test_the_console_obeys_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    console().print("[bold]x[/bold] :smile:")
    console(stderr=True).print("[red]y")
    out, err = capsys.readouterr()
    assert (out, err) == ("[bold]x[/bold] :smile:\n", "[red]y\n")
