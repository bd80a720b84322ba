from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import WORDS, Ended
from hypothesis import given
from hypothesis import strategies as st
from scripted import Pool, Script

from selfinstruct.derive.evolve import BREADTH, DEPTH, OPERATIONS, EvolveSettings, evolve
from selfinstruct.derive.tasks import draw_in_turn, read_task, task_of
from selfinstruct.errors import InputError, RequestRefused
from selfinstruct.prompt_files import prompt_text
from selfinstruct.records import Candidate, Choice, Reply, Request, Source, row_id
from selfinstruct.seams import Plan
from selfinstruct.settings import make_run_settings

Cli = Callable[..., Ended]
TASK = "Write a function in Go that adds the numbers of a list."
SOURCE = Source("id", TASK, output="func add()", language="go")
PLAN = Plan(3, (), "go", seed=5, source=SOURCE)
HARDER = (
    "Write a function in Go that adds the numbers of a list that does not fit into memory, without overflow."
)
ANSWER = "```go\nfunc add(r io.Reader) {}\n```"


def settings(**flags: Any) -> EvolveSettings:
    made = {
        "inputs": ["in.json"],
        "output": "out.json",
        "backend": "openai",
        "model": "m",
        "operations": ["rarer"],
    }
    return make_run_settings(EvolveSettings, {**made, **flags})


def run(script: Script, *known: str, **flags: Any) -> list[Candidate]:
    found = evolve(settings(**flags), PLAN, Pool(*known), script)
    assert not script.replies
    return found


def reason(candidate: Candidate) -> str | None:
    return candidate.rejection.reason if candidate.rejection else None


def test_a_harder_task_with_its_answer() -> None:
    script = Script(f"**New task:** {HARDER}", "Harder.", ANSWER)
    (found,) = run(script)
    assert found.row == {"instruction": HARDER, "input": "", "output": "func add(r io.Reader) {}"}
    assert (found.language, found.kind, found.rejection) == ("go", "write", None)
    told = {"operation": "rarer", "round": 1, "parent": "id", "difficulty": "harder"}
    assert found.notes["evolved"] == told
    first, second, third = script.text(0), script.text(1), script.text(2)
    assert TASK in first
    assert prompt_text("evolve_by_rarer") in first
    assert f"TASK A:\n{TASK}" in second
    assert f"TASK B:\n{HARDER}" in second
    assert third == HARDER
    assert len({request.seed for request in script.asked}) == 3


def test_every_round_goes_on_from_the_last_good_one() -> None:
    two = f"{HARDER} Numbers that cannot be read are counted and told on standard error."
    four = f"{two} The reader may fail in the middle, and what was added until then is not lost."
    answers = [ANSWER.replace("{}", f"{{ return {n} }}") for n in range(3)]
    one, *others = answers
    script = Script(HARDER, "harder", one, two, "harder", others[0], HARDER, four, "harder", others[1])
    found = run(script, rounds=4)
    assert [reason(one) for one in found] == [None, None, "easier", None]
    assert [one.notes["evolved"]["round"] for one in found] == [1, 2, 3, 4]
    parents = ["id", row_id(found[0].row), row_id(found[1].row), row_id(found[1].row)]
    assert [one.notes["evolved"]["parent"] for one in found] == parents
    assert two in script.text(7)  # the fourth round was shown what the second came to
    assert [one.instance for one in found] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("replies", "why"),
    [
        ((TASK,), "unchanged"),
        ((TASK.upper() + "!",), "unchanged"),
        (("Add numbers in Go.",), "easier"),
        (("I'm sorry, but I cannot make this task harder.",), "refused"),
        (("As an AI language model, I cannot do that.",), "refused"),
        (("Sure! I can do that for you, gladly and at once.",), "no_task"),
        (("",), "empty_instruction"),
        (("```go\nfunc add()\n```",), "empty_instruction"),
        (((HARDER, "length"),), "cut_off"),
        ((f"{HARDER} This is harder than the original task was.",), "prompt_leak"),
        ((f"{HARDER}\n\nOld task:\nSort it.",), "prompt_leak"),
        ((prompt_text("evolve_by_rarer").rpartition(": ")[2],), "prompt_leak"),
        ((f"Rewrite the task: {HARDER}",), "prompt_leak"),
        ((f"{HARDER} Here is a simple implementation of it.",), "no_task"),
        ((f"{HARDER} Here's how you could do it:",), "no_task"),
        ((f"{HARDER}\n\n**Solution:**\nAdd them one by one.",), "no_task"),
        ((f"{HARDER}\n\n```go\nx\n```\nThis function works by adding them one by one.",), "no_task"),
        ((HARDER.replace(" in Go", " in Rust"),), "other_language"),
        ((HARDER, "easier", "harder"), "easier"),
        ((HARDER, "B"), "unreadable"),
        ((HARDER, "easier", "A"), "unreadable"),
        ((HARDER, ("", "length")), "cut_off"),
        ((HARDER, "harder", ("func", "length")), "cut_off"),
    ],
)
def test_what_failed_is_eliminated_and_nothing_more_is_asked(replies: tuple[Any, ...], why: str) -> None:
    (found,) = run(Script(*replies))
    assert reason(found) == why
    assert found.notes["evolved"]["operation"] == "rarer"


@pytest.mark.parametrize(
    ("verdicts", "told"),
    [(("Equal",), "equal"), (("easier", "easier"), "undecided"), (("easier", "equal"), "undecided")],
)
def test_only_what_is_easier_in_both_orders_is_eliminated(verdicts: tuple[str, ...], told: str) -> None:
    script = Script(HARDER, *verdicts, ANSWER)
    (found,) = run(script)
    assert found.rejection is None
    assert found.notes["evolved"]["difficulty"] == told
    for step, (first, second) in enumerate([(TASK, HARDER), (HARDER, TASK)][: len(verdicts)], 1):
        assert f"TASK A:\n{first}\n\nTASK B:\n{second}" in script.text(step)
    assert len({request.seed for request in script.asked}) == 2 + len(verdicts)


def test_an_answer_that_stays_the_same_was_asked_for_nothing_new() -> None:
    (found,) = run(Script(HARDER, "harder", "func  add()"))
    assert reason(found) == "same_answer"


def test_a_refused_request_ends_its_round_alone() -> None:
    replies = iter([HARDER, "harder", ANSWER])

    def complete(_: Request) -> Reply:
        text = next(replies, None)
        if text is None:
            raise RequestRefused("too long", "context_length")
        return Reply((Choice(text),))

    found = evolve(settings(rounds=2), PLAN, Pool(), complete)
    assert [reason(one) for one in found] == [None, "context_length"]


def test_a_known_task_is_not_answered() -> None:
    (found,) = run(Script(HARDER), HARDER)
    assert reason(found) == "too_similar"


def test_without_a_judge_of_difficulty() -> None:
    (found,) = run(Script(HARDER, ANSWER), difficulty="length")
    assert found.rejection is None
    assert "difficulty" not in found.notes["evolved"]


def test_breadth_need_not_be_harder_but_another_task() -> None:
    other = "Write a function in Go that tells two files apart by their first bytes."
    script = Script(other, ANSWER)
    (found,) = run(script, operations=["breadth"])
    assert found.rejection is None
    assert TASK in script.text(0)
    near = "Write a function in Go that adds the numbers of a tree."
    (found,) = run(Script(near), operations=["breadth"])
    assert reason(found) == "unchanged"


def test_code_that_misleads_is_the_input() -> None:
    text = f"{HARDER} This attempt is wrong; give a right one.\n\n```go\nfunc add() int {{ return 1 }}\n```\n"
    script = Script(text, "harder", ANSWER)
    (found,) = run(script, operations=["misleading"])
    assert found.input == "func add() int { return 1 }"
    assert found.input in script.text(2)
    (found,) = run(Script(HARDER), operations=["misleading"])
    assert reason(found) == "no_code"


def test_an_input_that_was_not_repeated_is_still_there() -> None:
    source = Source("id", "Speed this up, and say what was slow.", "for x in y:\n    z += x", "z = sum(y)")
    text = "Speed this up so that it also works where y never ends, and say what was slow."
    script = Script(text, "harder", "x")
    (found,) = evolve(settings(), Plan(0, (), source=source), Pool(), script)
    assert found.input == source.input
    assert "for x in y:" in script.text(2)


def test_the_embedded_engine_is_held_to_the_forms() -> None:
    script = Script(HARDER, "harder", ANSWER)
    run(script, backend="local")
    task, compared, answer = script.asked
    assert task.extra["grammar"].startswith('root ::= ("Write " | ')
    assert "```" not in task.extra["grammar"]
    assert compared.extra["grammar"] == 'root ::= "easier" | "equal" | "harder"'
    assert "grammar" not in answer.extra
    script = Script(HARDER)
    run(script, backend="local", operations=["misleading"])
    assert "```" in script.asked[0].extra["grammar"]


@given(st.integers(0, 2**31), st.integers(1, 20), st.sets(st.sampled_from(OPERATIONS), min_size=1))
def test_operations_come_round_before_one_comes_again(seed: int, rounds: int, names: set[str]) -> None:
    chosen = settings(rounds=rounds, operations=sorted(names))
    drawn = draw_in_turn(chosen.operations, rounds, str(seed))
    assert len(drawn) == rounds
    assert drawn == draw_in_turn(chosen.operations, rounds, str(seed))
    for start in range(0, rounds - len(names) + 1, len(names)):
        assert set(drawn[start : start + len(names)]) == names


def test_operations_have_prompts_and_unknown_ones_are_refused() -> None:
    assert all(prompt_text(f"evolve_by_{name}") for name in DEPTH)
    assert settings(operations=[BREADTH, BREADTH]).operations == (BREADTH,)
    with pytest.raises(InputError, match="no such operation: longer; there are constraints, rarer"):
        settings(operations=["longer"])


@pytest.mark.parametrize(
    ("text", "instruction", "input_"),
    [
        ("Sort it.", "Sort it.", ""),
        ("Task: Sort it.", "Sort it.", ""),
        ("### New Task:\n\nSort it.\n", "Sort it.", ""),
        ('"Sort it."', "Sort it.", ""),
        ("Here's a harder version:\n\nSort it.", "Sort it.", ""),
        ("Sure! Here is the new task:\nSort it.", "Sort it.", ""),
        ("Sure, I can help with a task. Here's an example:\n\n**Task:** Sort it.", "Sort it.", ""),
        ("Sure, here is a task that a working programmer could be given:\n\nSort it.", "Sort it.", ""),
        ("Sort this.\n```python\nx = 1\n```\nKeep it stable.", "Sort this.\n\nKeep it stable.", "x = 1"),
        ("Sort this.\n```\na\n```\nand\n```\nb\n```", "Sort this.\n\nand", "a\n\nb"),
        ("Sort this.\r\n```\r\nNone\r\n```", "Sort this.", ""),
        ("The problem: a queue that blocks.", "a queue that blocks.", ""),
        ("Here is a list of jobs. Sort it:\n1\n2", "Here is a list of jobs. Sort it:\n1\n2", ""),
    ],
)
def test_a_task_in_any_form(text: str, instruction: str, input_: str) -> None:
    assert read_task(text) == (instruction, input_)


@given(st.text(max_size=200), st.sampled_from(["stop", "length"]))
def test_reading_a_task_never_raises(text: str, end: str) -> None:
    found = task_of(Choice(text, end), Candidate())
    assert found.rejection is not None or found.instruction


@pytest.mark.parametrize(
    "text",
    [
        "Write a scheduler in which a new task waits for the old task that it depends on.",
        "I am writing a parser and want to know where it fails. Write a test for it.",
        "Write a function that copies the original list before it sorts.",
        "Here is a function that should sort. Find its fault.",
    ],
)
def test_tasks_that_only_sound_like_it_are_kept(text: str) -> None:
    assert task_of(Choice(text), Candidate()).rejection is None


# --- the whole run ------------------------------------------------------------------------------------


def data(folder: Path) -> tuple[Path, Path]:
    """12 tasks, and replies for two rounds of each: some unchanged, some that cannot be parsed."""
    rows, lines = [], []
    for k in range(12):
        a, b, c, d, e = WORDS[3 * k % 40 : 3 * k % 40 + 5]
        rows.append(
            {"instruction": f"Write a {a} that holds a {b}, number {k}.", "input": "", "output": "pass"}
        )
        one = f"{rows[-1]['instruction']} It must refuse a {c} whose {d} is not known."
        two = f"{one} When the {e} ends, everything has to be closed in the order of {a}."
        if k % 4 == 1:
            replies = [rows[-1]["instruction"], one, "harder", f"```python\n{a} = {k}\n```"]
            steps = replies
        else:
            code = "def f(:" if k % 4 == 2 else f"{a} = {k}"
            steps = [one, "harder", f"```python\n{code}\n```", two, "harder", f"```python\n{b} = {k}\n```"]
        lines += [json.dumps({"key": f"{k}.{step}", "text": text}) for step, text in enumerate(steps)]
    (folder / "in.json").write_text(json.dumps(rows))
    (folder / "replies.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "in.json", folder / "replies.jsonl"


def test_a_run_is_the_same_at_any_concurrency_and_when_it_goes_on(cli: Cli, tmp_path: Path) -> None:
    inputs, replies = data(tmp_path)
    words = ["evolve", inputs, "--rounds", 2, "--backend", "replay", "--model", replies]
    words += ["--operations", "constraints", "--operations", "reasoning"]
    seen = set()
    for concurrency, nums in ((1, [None]), (4, [None]), (16, [1, 2, 7, None])):
        output = tmp_path / f"{concurrency}.json"
        for num in nums:
            ended = cli(*words, "-o", output, "--concurrency", concurrency, *(["-n", num] if num else []))
            assert ended.status == 0, ended.err
        seen.add(output.read_bytes())
    assert len(seen) == 1
    journal = [json.loads(line) for line in (tmp_path / "1.run" / "journal.jsonl").read_text().splitlines()]
    rows = json.loads(inputs.read_text())
    assert [line["derived_from"] for line in journal] == [[row_id(row)] for row in rows]
    reasons = json.loads(cli("status", tmp_path / "1.json", "--json").out)["reasons"]
    assert reasons == {"unchanged": 3, "syntax_error": 3}
    made = json.loads(next(iter(seen)))
    assert len(made) == 24 - 6
    # Both rounds of a row stand beside each other, although they have most words in common.
    assert made[1]["instruction"].startswith(made[0]["instruction"])


def test_other_rounds_are_another_run(cli: Cli, tmp_path: Path) -> None:
    inputs, replies = data(tmp_path)
    words = ["evolve", inputs, "-o", tmp_path / "o.json", "--backend", "replay", "--model", replies]
    words += ["--operations", "constraints", "--operations", "reasoning", "-n", 1]
    assert cli(*words, "--rounds", 2).status == 0
    ended = cli(*words, "--rounds", 3)
    assert ended.status == 2
    assert "rounds: 2 -> 3" in ended.err
    ended = cli("evolve", inputs, "-o", tmp_path / "p.json", "--operations", "nothing")
    assert ended.status == 2
    assert "no such operation: nothing" in ended.err
