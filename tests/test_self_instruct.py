from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import WORDS, Ended
from hypothesis import given
from hypothesis import strategies as st
from scripted import PLAN, Pool, Script, made, run

from selfinstruct import novelty
from selfinstruct.errors import RequestRefused
from selfinstruct.filters import refuse, refuse_instruction
from selfinstruct.pool import Pool as RealPool
from selfinstruct.pool import Rules
from selfinstruct.prompt_files import prompt_text
from selfinstruct.recipes import make_recipe
from selfinstruct.records import Candidate, Choice, Reply, Request, Seed
from selfinstruct.self_instruct import LONGEST_LABEL, MOST_LABELS, read_labels
from selfinstruct.settings import make_settings

FLAGS: dict[str, Any] = {"recipe": "self-instruct", "temperature": 0.9, "max_output_tokens": 500}
CHAT = made(**FLAGS, instances=2)
LOCAL = make_settings({**FLAGS, "instances": 2})
SEES = replace(PLAN, with_input=True)
SEVERITY = "Give the severity of this log line: info, warning or error."


def test_a_task_without_input_has_one_instance() -> None:
    script = Script("Count the vowels of a word.", "No", "func vowels() {}")
    (found,) = run(CHAT, script)
    assert found.row == {
        "instruction": "Count the vowels of a word. Use Go.",
        "input": "",
        "output": "func vowels() {}",
    }
    assert (found.kind, found.instance, found.rejection) == ("write", 0, None)
    assert script.text(1) == "Count the vowels of a word."
    assert script.asked[1].messages[0] == ("system", prompt_text("self_instruct_kind"))
    assert (script.asked[1].temperature, script.asked[1].extra) == (0.0, {})


def test_input_first_for_what_is_no_classification() -> None:
    script = Script("Say what this code does.", "No.", "x = 1", "It sets x.", "y = 2", "It sets y.")
    first, second = run(CHAT, script, SEES)
    assert [first.row, second.row] == [
        {"instruction": "Say what this code does.", "input": "x = 1", "output": "It sets x."},
        {"instruction": "Say what this code does.", "input": "y = 2", "output": "It sets y."},
    ]
    assert (first.instance, second.instance) == (0, 1)
    assert "x = 1" not in script.text(2)
    assert script.text(4).endswith("which are there already:\n- x = 1")
    assert len({request.seed for request in script.asked}) == 6


@pytest.mark.parametrize("text", ["Write a queue.", "Please set up a loop.", "How do I list files?"])
def test_what_is_to_be_made_or_told_is_none_and_nobody_is_asked(text: str) -> None:
    (found,) = run(CHAT, script := Script(text, "x = 1"))
    assert (found.output, found.kind) == ("x = 1", "write")
    assert len(script.asked) == 2


def test_the_embedded_engine_has_to_name_labels_of_the_task() -> None:
    script = Script(SEVERITY, "Yes", "info\nfatal\nerror\n", "started\n```", "failed\n```")
    found = run(LOCAL, script, SEES)
    assert [one.output for one in found] == ["info", "error"]
    script = Script(
        "Print the time of this program.",
        "Yes",
        "late\nearly\n",
        "x = 1\n```",
        "12\n```",
        "y = 2\n```",
        "13\n```",
    )
    found = run(LOCAL, script, SEES)
    assert [one.kind for one in found] == ["write", "write"]


def test_output_first_for_a_classification() -> None:
    script = Script(SEVERITY, "Yes", "info\nwarning\nerror", "started", "disk is nearly full")
    first, second = run(CHAT, script, SEES)
    assert (first.input, first.output, first.kind) == ("started", "info", "choose")
    assert (second.input, second.output, second.instruction) == ("disk is nearly full", "warning", SEVERITY)
    assert script.asked[2].messages[0] == ("system", prompt_text("self_instruct_labels"))
    assert "the right answer has to be: info" in script.text(3)
    assert "the right answer has to be: warning" in script.text(4)
    assert "- started" in script.text(4)


def test_labels_come_round_again_and_a_cut_input_does_not_end_the_others() -> None:
    script = Script(SEVERITY, "yes", "bad, good", ("fail", "length"), "fine", "broken")
    found = run(made(**FLAGS, instances=3), script, SEES)
    assert [one.output for one in found] == ["", "good", "bad"]
    assert found[0].rejection is not None
    assert (found[0].rejection.reason, found[0].rejection.evidence) == ("cut_off", {"part": "input"})
    assert "fail" not in script.text(5)


def test_the_same_input_again_costs_no_answer() -> None:
    script = Script("Say what this code does.", "No", "x  = 1", "It sets x.", "x = 1\n")
    _, second = run(CHAT, script, SEES)
    assert second.rejection is not None
    assert second.rejection.reason == "repeated_input"


def test_a_refused_request_ends_its_instance_alone() -> None:
    texts = iter([SEVERITY, "Yes", "info\nerror", "started", None])

    def complete(_: Request) -> Reply:
        if (text := next(texts)) is None:
            raise RequestRefused("not this", "content_filter")
        return Reply((Choice(text),))

    first, second = make_recipe(CHAT)(SEES, Pool(), complete)
    assert (first.rejection, first.output) == (None, "info")
    assert second.rejection is not None
    assert second.rejection.reason == "content_filter"


def test_a_label_needs_an_input() -> None:
    script = Script(SEVERITY, "Yes", "info\nerror", "N/A", "failed")
    first, second = run(CHAT, script, SEES)
    assert first.rejection is not None
    assert (first.rejection.reason, first.rejection.evidence) == ("no_input_for_label", {"label": "info"})
    assert (second.output, second.rejection) == ("error", None)


@pytest.mark.parametrize(
    ("replies", "reason", "part"),
    [
        (("It depends.",), "unreadable", "classification"),
        ((("", "length"),), "cut_off", "classification"),
        (("Yes", "only one"), "unreadable", "labels"),
        (("Yes", ("only one\nand a half", "length")), "cut_off", "labels"),
        (("Yes", ""), "unreadable", "labels"),
    ],
)
def test_what_cannot_be_read_is_told(replies: tuple[Any, ...], reason: str, part: str) -> None:
    (found,) = run(CHAT, Script(SEVERITY, *replies), SEES)
    assert found.rejection is not None
    assert (found.rejection.reason, found.rejection.evidence["part"]) == (reason, part)


def test_a_known_instruction_costs_one_call() -> None:
    script = Script(SEVERITY)
    (found,) = run(CHAT, script, SEES, Pool(SEVERITY))
    assert found.rejection is not None
    assert len(script.asked) == 1


def test_the_embedded_engine_answers_within_a_grammar() -> None:
    script = Script(SEVERITY, "Yes", "info\nerror\n", "started", "failed")
    run(LOCAL, script, SEES)
    kind, labels, one, _ = script.asked[1:]
    assert kind.extra["grammar"] == 'root ::= "Yes" | "No"'
    assert labels.extra["grammar"].startswith("root ::= line{2,8}")
    assert "grammar" not in one.extra


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("info\nerror", ["info", "error"]),
        ("- Info\n- info\n* `error`.\n", ["Info", "error"]),
        ('1. "yes"\n2) no', ["yes", "no"]),
        ("O(n), O(n log n), O(n^2)", ["O(n)", "O(n log n)", "O(n^2)"]),
        ("It is an error if the line says that something has failed\nerror", ["error"]),
        ("", []),
    ],
)
def test_labels_in_any_form(text: str, labels: list[str]) -> None:
    assert read_labels(text) == labels


@given(st.text(max_size=400), st.booleans())
def test_labels_are_few_short_and_different(text: str, cut: bool) -> None:
    labels = read_labels(text, cut=cut)
    assert len(labels) == len({label.casefold() for label in labels}) <= MOST_LABELS
    assert all(0 < len(label) <= LONGEST_LABEL and "\n" not in label for label in labels)


# --- novelty of instances -----------------------------------------------------------------------------


def real_pool() -> RealPool:
    seeds = [Seed("s", "Name the colour of the sky.", "", "blue")]
    rules = Rules(refuse, refuse_instruction)
    return RealPool(seeds, rules, novelty.make("code", 0.7, 3))


def decided(pool: RealPool, k: int, *candidates: Candidate) -> list[str]:
    reasons = []
    for candidate in candidates:
        decision = pool.judge(candidate, ())
        pool.apply(decision)
        reasons.append(decision.rejection.reason if decision.rejection else "accepted")
    pool.finish(k)
    return reasons


def instances(instruction: str, *inputs: str) -> list[Candidate]:
    return [Candidate(instruction, text, "info", instance=i) for i, text in enumerate(inputs)]


def test_instances_stand_beside_each_other_and_the_same_instruction_is_not_new() -> None:
    pool = real_pool()
    lines = "disk 91 %", "disk 3 %", "disk 99 %"
    assert decided(pool, 0, *instances(SEVERITY, *lines)) == ["accepted"] * 3
    # Another index: its first instance is like what is there, and so are the others.
    assert decided(pool, 1, *instances(SEVERITY, "disk 4 %", "disk 5 %")) == ["too_similar"] * 2
    assert decided(pool, 2, *instances("Name the colour of the sky.", "a", "b")) == ["too_similar"] * 2


def test_without_being_instances_they_are_duplicates() -> None:
    same = [replace(one, instance=0) for one in instances(SEVERITY, "disk 91 %", "disk 3 %")]
    assert decided(real_pool(), 0, *same) == ["accepted", "too_similar"]


# --- the whole run ------------------------------------------------------------------------------------


def replies_of(folder: Path) -> Path:
    """Groups of a classification, a task on given code, one without input, and the first one again."""
    steps: list[list[str]] = []
    for group in range(6):
        a, b, c, d, e, f = WORDS[6 * group : 6 * group + 6]
        sort = f"Say which {a} {b} this {c} of {d} reports: none, lost, late."
        steps += [
            [sort, "Yes", "none\nlost\nlate", f"{a} is up {group}", f"{b} gone {group}"],
            [f"Explain how the {c} {d} given below grows.", f"{c} = grow({group})",
             f"It grows the {c} by {group}.", f"{d}.extend({group})", f"It extends the {d}, {group}."],
            [f"Write down why an {e} {f} is safe.", f"A frozen {e} is safe."],
            [sort],
        ]  # fmt: skip
    file = folder / "in.jsonl"
    lines = [
        json.dumps({"key": f"{k}.{step}", "text": text, "finish_reason": "stop"})
        for k, texts in enumerate(steps)
        for step, text in enumerate(texts)
    ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_a_run_is_the_same_at_any_concurrency_and_when_it_goes_on(
    cli: Callable[..., Ended], tmp_path: Path
) -> None:
    words = ["generate", "--backend", "replay", "--model", replies_of(tmp_path), "--recipe", "self-instruct"]
    words += ["--shots", "1", "--lookahead", "3", "--only-language", "python", "--verify", "off"]
    ended = cli(*words, "-n", 30, "-o", tmp_path / "a.json", "--concurrency", 1)
    assert ended.status == 0, ended.err
    for num in (2, 4, 9, 30):  # a target may fall between two instances
        assert cli(*words, "-n", num, "-o", tmp_path / "b.json", "--concurrency", 16).status == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    rows = json.loads((tmp_path / "a.json").read_text())
    assert [row["output"] for row in rows[:5]] == [
        "none",
        "lost",
        "It grows the cobalt by 0.",
        "It extends the dynamo, 0.",
        "A frozen ember is safe.",
    ]
    journal = [json.loads(line) for line in (tmp_path / "a.run" / "journal.jsonl").read_text().splitlines()]
    assert journal[3]["decisions"][0]["reason"] == "too_similar"
