"""The job `respond`: system messages by weight, the same for a row wherever it stands; the best of several."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, invented_rows
from scripted import Pool, Script

from selfinstruct.derive.respond import Message, RespondSettings, draw_message, read_messages, refuse, respond
from selfinstruct.derive.worklist import WorkList
from selfinstruct.errors import InputError, RequestRefused
from selfinstruct.records import Candidate, Rejection, Source
from selfinstruct.settings import make_run_settings

Cli = Callable[..., Ended]
SOURCE = Source("ab", "Add two numbers in Python.", "1 and 2", "old")
MESSAGES = read_messages()


def made(**flags: Any) -> RespondSettings:
    given = {"inputs": ["in.json"], "output": "x.json", "backend": "openai", "model": "m"}
    return make_run_settings(RespondSettings, given | flags)


def run(script: Script, source: Source = SOURCE, pool: Pool | None = None, **flags: Any) -> Candidate:
    settings = made(**flags)
    (found,) = respond(settings, WorkList([source]).plan(0, Pool()), pool or Pool(), script)
    assert not script.replies
    return found


def test_sixteen_messages_of_our_own() -> None:
    assert len(MESSAGES) == 16
    assert [each.name for each in MESSAGES if not each.text] == ["none"]
    assert len({each.text for each in MESSAGES}) == 16
    assert all(len(each.text) < 400 for each in MESSAGES)


def test_messages_are_drawn_by_row_and_weight() -> None:
    sources = [Source(f"{number:x}") for number in range(4000)]
    drawn = [draw_message(MESSAGES, 0, source).name for source in sources]
    again = [draw_message(MESSAGES, 0, source).name for source in reversed(sources)]
    assert drawn == again[::-1]
    assert drawn != [draw_message(MESSAGES, 1, source).name for source in sources]
    seen, whole = Counter(drawn), sum(each.weight for each in MESSAGES)
    for each in MESSAGES:
        share = each.weight / whole
        assert abs(seen[each.name] / 4000 - share) < 4 * (share / 4000) ** 0.5
    never = (Message(name="a", text="a", weight=0), Message(name="b", text="b"))
    assert {draw_message(never, 0, source).name for source in sources} == {"b"}


def test_the_row_carries_its_system_message(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text('[[message]]\nname = "one"\ntext = "Say why."\n')
    script = Script("It is 3, because 1 + 2 = 3.")
    found = run(script, system_messages=file)
    assert script.asked[0].messages == (
        ("system", "Say why."),
        ("user", "Add two numbers in Python.\n\n1 and 2"),
    )
    assert found.row == {
        "instruction": SOURCE.instruction,
        "input": "1 and 2",
        "output": "It is 3, because 1 + 2 = 3.",
        "system": "Say why.",
    }
    assert found.notes == {"system_message": "one"}
    file.write_text('[[message]]\nname = "none"\ntext = ""\n')
    script = Script("3")
    assert "system" not in run(script, replace(SOURCE, system="Of before."), system_messages=file).row
    assert script.asked[0].messages[0][0] == "user"


@pytest.mark.parametrize(
    ("instruction", "before", "answer", "refused"),
    [
        ("Add two numbers in Python.", "print(1 + 2)", "The task asks for a sum of two numbers.", True),
        ("Add two numbers in Python.", "print(1 + 2)", "The sum:\n```python\nprint(1 + 2)\n```", False),
        ("Add two numbers in Python.", "It is 3, the sum of both.", "The sum of both numbers is 3.", False),
        ("Explain how Python adds two numbers.", "print(1 + 2)", "It takes the sum of both.", False),
        ("Add two numbers in Python.", "print(1 + 2)", "", False),  # a filter has its own name for that
    ],
)
def test_an_answer_that_lost_its_code_is_refused(
    instruction: str, before: str, answer: str, refused: bool
) -> None:
    found = run(Script(answer), Source("ab", instruction, "", before))
    assert found.rejection == (Rejection("no_code") if refused else None)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[[message]]\nname = 'a'\n", "text"),
        ("[[message]]\nname = 'a'\ntext = 'x'\nwieght = 2\n", "wieght"),
        ("[[message]]\nname = 'a'\ntext = 'x'\nweight = -1\n", "weight"),
        ("[[message]]\nname = 'a'\ntext = 'x'\nweight = 0\n", "above 0"),
        ("[[message]]\nname = 'a'\ntext = 'x'\n" * 2, "twice"),
        ("", "message"),
        ("[[message", "not a TOML file"),
        (None, "cannot read"),
    ],
)
def test_a_file_that_is_no_list_of_messages_is_one_line(tmp_path: Path, text: str | None, part: str) -> None:
    file = tmp_path / "m.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError) as error:
        read_messages(file)
    assert "\n" not in str(error.value)
    assert "m.toml" in str(error.value)
    assert part in str(error.value)


def test_the_first_answer_that_passes_is_picked_and_no_more_are_asked_for() -> None:
    pool = Pool("bad", "worse")
    found = run(Script("bad", ("cu", "length"), "good"), pool=pool, samples=5)
    assert (found.output, found.notes["picked"], found.notes["samples"]) == ("good", 2, 3)
    last = run(Script("bad", "worse"), pool=pool, samples=2)
    assert (last.output, last.notes["picked"]) == ("worse", 1)
    with pytest.raises(InputError, match="--verify"):
        made(samples=2, verify="off")
    assert made(samples=2, verify="off", pick="longest").pick == "longest"


def test_the_longest_that_can_be_kept_is_picked() -> None:
    found = run(Script("aaa", ("aaaaaaaaa", "length"), "bbbb", "cccc"), samples=4, pick="longest")
    assert (found.output, found.notes) == (
        "bbbb",
        {"system_message": found.notes["system_message"], "picked": 2, "samples": 4, "usable": 3, "score": 4},
    )
    none = run(Script(("a", "length"), ("b", "length")), samples=2, pick="longest")
    assert none.rejection is not None
    assert none.rejection.reason == "cut_off"


def test_the_answer_a_judge_rates_highest_is_picked() -> None:
    rating = '{{"helpfulness": {0}, "correctness": {0}, "clarity": {0}}}'
    script = Script("first", "second", "third", rating.format(2), rating.format(5), "no number at all")
    found = run(script, samples=3, pick="judge")
    assert (found.output, found.notes["picked"], found.notes["usable"]) == ("second", 1, 3)
    none = run(Script("first", ("sec", "length"), "well"), samples=2, pick="judge")
    assert none.rejection is not None
    assert (none.output, none.rejection.reason) == ("first", "unreadable_judgement")
    assert made(samples=3, pick="judge").digests().keys() == {"system_messages", "rubric", "judge_prompts"}


def test_a_refused_request_costs_its_own_sample_alone() -> None:
    refused = RequestRefused("filtered", "content_filter")
    found = run(Script("aaa", refused, "bb"), samples=3, pick="longest")
    assert (found.output, found.notes["usable"]) == ("aaa", 2)
    rating = '{"helpfulness": 3, "correctness": 3, "clarity": 3}'
    found = run(Script("aaa", "bb", refused, rating), samples=2, pick="judge")
    assert (found.output, found.rejection) == ("bb", None)
    alone = run(Script(refused))
    assert alone.rejection == Rejection("content_filter", {"message": "filtered"})
    assert alone.instruction == SOURCE.instruction


def test_the_users_instruction_is_not_judged_but_echoes_are() -> None:
    assert refuse(Candidate("Why?", "", "Because it is so."), ()) is None
    assert refuse(
        Candidate("Write a function that sorts a list.", "", "# Write a function that sorts a list."), ()
    )
    code = "def f(x):\n    return x + 1  # one more than x"
    assert refuse(Candidate("Mend it, please.", code, code), ())
    assert refuse(Candidate("Why?", "", "I cannot help with that request."), ())


def test_a_whole_run(cli: Cli, tmp_path: Path) -> None:
    rows = invented_rows(20)
    rows[3]["system"] = "Of before."
    source, replies = tmp_path / "in.jsonl", tmp_path / "r.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = [f"def answer(number):\n    return number + {k}" for k in range(20)]
    replies.write_text("".join(json.dumps({"text": text}) + "\n" for text in answers))
    seen = set()
    for concurrency in (1, 16):
        output = tmp_path / f"{concurrency}.json"
        words = ("respond", source, "-o", output, "--backend", "replay", "--model", replies)
        ended = cli(*words, "--concurrency", concurrency)
        assert ended.status == 0, ended.err
        seen.add(output.read_bytes())
    assert len(seen) == 1
    made_rows = json.loads(output.read_text())
    assert [row["output"] for row in made_rows] == answers
    texts = {each.text for each in MESSAGES if each.text}
    assert {row["system"] for row in made_rows if "system" in row} <= texts
    assert len({row.get("system") for row in made_rows}) > 5
    again = tmp_path / "again.json"
    ended = cli("respond", output, "-o", again, "--backend", "replay", "--model", replies)
    assert ended.status == 0, ended.err  # what it wrote can be read again, system messages and all
    assert "System" in cli("show", output, 0).out + cli("show", output, 1).out + cli("show", output, 2).out
    messages = tmp_path / "m.toml"
    messages.write_text('[[message]]\nname = "one"\ntext = "Say why."\n')
    ended = cli(*words, "--system-messages", messages)
    assert (ended.status, "system_messages" in ended.err or "system-messages" in ended.err) == (2, True)
