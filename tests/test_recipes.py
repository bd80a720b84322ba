from __future__ import annotations

import json
from dataclasses import replace

import pytest
from conftest import numbered
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scripted import PLAN, SHOTS, Pool, Script, made, run

from selfinstruct import alpaca
from selfinstruct.prompt_files import prompt_text
from selfinstruct.recipes import (
    LIST_SIZE,
    TASKS_SCHEMA,
    make_recipe,
)
from selfinstruct.records import Candidate, Choice, Reply
from selfinstruct.seams import Plan
from selfinstruct.settings import Settings, make_settings

ROWS = [
    {"instruction": "Reverse a string in Go.", "input": "", "output": "func r(s string) string { return s }"},
    {"instruction": "Add the numbers.", "input": "1, 2", "output": "3"},
    {"instruction": "Name a tree in C.", "input": "", "output": "struct tree;"},
]


def rows(candidates: list[Candidate]) -> list[dict[str, str]]:
    assert [candidate.rejection for candidate in candidates] == [None] * len(candidates)
    return [candidate.row for candidate in candidates]


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_one_call_yields_all_numbered_tasks(endpoint: str) -> None:
    script = Script(numbered(ROWS))
    settings = made(endpoint=endpoint, temperature=0.7, top_p=0.9, max_output_tokens=777)
    assert rows(run(settings, script)) == ROWS
    (request,) = script.asked
    assert (request.prompt is None) == (endpoint == "chat")
    assert [role for role, _ in request.messages] == (["user"] if endpoint == "chat" else [])
    text = script.text(0)
    assert text.startswith(
        prompt_text("code_alpaca") + "\n###\n1. Instruction: Sort a list in Python.\n1. Input:\n<noinput>\n"
    )
    assert text.endswith("\n4. Instruction:")
    assert (request.temperature, request.top_p, request.max_tokens, request.n) == (0.7, 0.9, 777, 1)
    assert request.schema is None
    assert request.stop == (f"\n{LIST_SIZE + 1}. Instruction",)
    assert request.seed == 11


def test_a_cut_reply_ends_in_a_rejection() -> None:
    found = run(made(), Script((numbered(ROWS), "length")))
    assert rows(found[:-1]) == ROWS[:-1]
    assert found[-1].rejection is not None
    assert found[-1].rejection.reason == "cut_off"


def test_all_choices_are_read_each_with_its_own_end() -> None:
    script = Script(
        Reply((Choice(numbered(ROWS[:1]), "stop"), Choice(numbered(ROWS[1:]), "length"), Choice("")))
    )
    found = run(made(choices=3), script)
    assert script.asked[0].n == 3
    reasons = [candidate.rejection and candidate.rejection.reason for candidate in found]
    assert reasons == [None, None, "cut_off", "empty_reply"]
    assert rows(found[:2]) == ROWS[:2]


def test_json_is_asked_for_by_a_schema_and_read() -> None:
    script = Script(json.dumps({"tasks": ROWS}))
    assert rows(run(made(answer="json"), script)) == ROWS
    assert script.asked[0].schema == TASKS_SCHEMA
    text = script.text(0)
    assert "17 new tasks" in text
    assert "{count}" not in text
    shown = [json.loads(line) for line in text.partition("Examples:\n")[2].splitlines()]
    assert shown == [{"instruction": s.instruction, "input": s.input, "output": s.output} for s in SHOTS]


@pytest.mark.parametrize("names", [["go"], ["golang", "C++"], ["py", "sql", "text"]])
def test_json_names_the_languages_in_any_spelling(names: list[str]) -> None:
    script = Script(json.dumps({"tasks": ROWS}))
    run(made(answer="json", only_language=names), script)
    (rule,) = [line for line in script.text(0).splitlines() if line.startswith("- All tasks are")]
    for name in {"go": ["Go"], "golang": ["Go", "C++"], "py": ["Python", "SQL"]}[names[0]]:
        assert f" {name}" in rule


def test_the_historic_profile_asks_and_reads_as_it_was() -> None:
    text = f" {ROWS[0]['instruction']}\n4. Input:\n<noinput>\n4. Output:\n{ROWS[0]['output']}\n"
    script = Script(text + "###\n5. Instruction: cut")
    found = run(made(profile="alpaca"), script)
    assert rows(found[:1]) == ROWS[:1]
    assert script.asked[0].stop == alpaca.STOP
    assert found == alpaca.parse(text + "###\n5. Instruction: cut", "stop", 4)


@pytest.mark.parametrize("answer", ["text", "json"])
def test_the_number_of_shots_is_the_number_the_model_goes_on_with(answer: str) -> None:
    for count in (1, 2, 19):
        shots = tuple(replace(SHOTS[0], id=str(number)) for number in range(count))
        script = Script(numbered(ROWS, count + 1) if answer == "text" else json.dumps({"tasks": ROWS}))
        assert rows(run(made(answer=answer, shots=count), script, replace(PLAN, shots=shots))) == ROWS
        assert f"{LIST_SIZE - count} new tasks" in script.text(0) or answer == "text"


@pytest.mark.parametrize("answer", ["text", "json"])
def test_prompts_of_different_indices_share_a_long_beginning(answer: str) -> None:
    scripts = [Script("x"), Script("x")]
    for script, plan in zip(scripts, (PLAN, Plan(8, SHOTS[1:], "sql", "fix", seed=2)), strict=True):
        run(made(answer=answer), script, plan)
    head = (
        prompt_text("code_alpaca_json").partition("{count}")[0]
        if answer == "json"
        else prompt_text("code_alpaca")
    )
    assert all(script.text(0).startswith(head) for script in scripts)


PLANS = st.builds(
    Plan,
    st.integers(0, 10**6),
    st.lists(st.sampled_from(SHOTS), max_size=3).map(tuple),
    st.sampled_from([None, "go", "text", "sql"]),
    st.sampled_from([None, "fix", "write"]),
    st.none() | st.text(max_size=10),
    st.booleans(),
    st.integers(0, 2**31 - 1),
)
REPLIES = st.text(max_size=60) | st.sampled_from(["Yes", "No.", "a\nb", "Say what this code does."])
SETTINGS = [
    made(),
    made(answer="json"),
    made(profile="alpaca"),
    made(endpoint="completions"),
    made(recipe="staged"),
    made(recipe="staged", endpoint="completions"),
    made(recipe="self-instruct", instances=1),
    make_settings({}),
]


@examples(max_examples=100, deadline=None)
@given(PLANS, st.sampled_from(SETTINGS), st.lists(REPLIES, min_size=5, max_size=5))
def test_any_plan_and_any_replies_make_candidates_and_repeatable_requests(
    plan: Plan, settings: Settings, replies: list[str]
) -> None:
    scripts = [Script(*replies), Script(*replies)]
    results = [make_recipe(settings)(plan, Pool(), script) for script in scripts]
    assert results[0] == results[1]
    assert results[0]
    assert [r.digest() for r in scripts[0].asked] == [r.digest() for r in scripts[1].asked]
    for request in scripts[0].asked:
        assert (request.prompt is None) != (not request.messages)
        assert 0 <= (request.seed or 0) < 2**31
    steps = {"staged": {2, 3}, "self-instruct": {2, 3, 4}}.get(settings.recipe or "", {1})
    assert len(scripts[0].asked) in steps


def test_the_prompts_digest_is_stable_and_short() -> None:
    made = make_settings({"backend": "openai", "model": "m"})
    assert made.prompts_digest("staged_") == made.prompts_digest("staged_")
    assert made.prompts_digest("staged_") != made.prompts_digest("staged_", "code_alpaca")
    assert len(made.prompts_digest("staged_")) == 16
    int(made.prompts_digest("staged_"), 16)
