from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from conftest import numbered
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from selfinstruct import alpaca
from selfinstruct.errors import RequestRefused
from selfinstruct.recipes import (
    INPUT_TEMPERATURE,
    LIST_SIZE,
    OUTPUT_TEMPERATURE,
    TASKS_SCHEMA,
    make_recipe,
    prompt_text,
    prompts_digest,
)
from selfinstruct.records import Candidate, Choice, Rejection, Reply, Request, Seed
from selfinstruct.seams import Plan
from selfinstruct.settings import Settings, make_settings

SHOTS = (
    Seed("s1", "Sort a list\nin Python.", "", "sorted(x)", "python", "write", topic="sorting"),
    Seed("s2", "Mend this query.", "SELEC 1", "SELECT 1", "sql", "fix"),
    Seed("s3", "Say what it does:", "int x;", "It declares x."),
)
PLAN = Plan(7, SHOTS, "go", "write", "maps", seed=11)
ROWS = [
    {"instruction": "Reverse a string in Go.", "input": "", "output": "func r(s string) string { return s }"},
    {"instruction": "Add the numbers.", "input": "1, 2", "output": "3"},
    {"instruction": "Name a tree in C.", "input": "", "output": "struct tree;"},
]


class Pool:
    """A pool view that rejects the instructions it is told to."""

    def __init__(self, *known: str) -> None:
        self.known = known
        self.judged: list[Candidate] = []

    @property
    def tasks(self) -> Sequence[Candidate]:
        return ()

    def judge_instruction(self, candidate: Candidate) -> Candidate | None:
        self.judged.append(candidate)
        if candidate.instruction in self.known:
            return replace(candidate, rejection=Rejection("too_similar", {"score": 1.0}))
        return None


class Script:
    """A `complete` that gives the next reply and keeps what was asked."""

    def __init__(self, *replies: str | tuple[str, str] | Reply) -> None:
        self.replies = list(replies)
        self.asked: list[Request] = []

    def __call__(self, request: Request) -> Reply:
        self.asked.append(request)
        reply = self.replies.pop(0)
        if isinstance(reply, Reply):
            return reply
        return Reply((Choice(*reply),)) if isinstance(reply, tuple) else Reply((Choice(reply),))

    def text(self, number: int) -> str:
        request = self.asked[number]
        assert (request.prompt is None) != (not request.messages)
        return request.prompt or [content for role, content in request.messages if role == "user"][-1]


def made(**flags: Any) -> Settings:
    return make_settings({"backend": "openai", "model": "m", **flags})


def run(settings: Settings, script: Script, plan: Plan = PLAN, pool: Pool | None = None) -> list[Candidate]:
    found = make_recipe(settings)(plan, pool or Pool(), script)
    assert not script.replies
    return found


def rows(candidates: list[Candidate]) -> list[dict[str, str]]:
    assert [candidate.rejection for candidate in candidates] == [None] * len(candidates)
    return [candidate.row for candidate in candidates]


# --- code-alpaca --------------------------------------------------------------------------------------


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


# --- staged -------------------------------------------------------------------------------------------

LOCAL = make_settings({"temperature": 0.9, "max_output_tokens": 500})
REMOTE = made(recipe="staged", temperature=0.9, max_output_tokens=500)
BOTH = pytest.mark.parametrize("settings", [LOCAL, REMOTE], ids=["completions", "chat"])


@BOTH
def test_instruction_then_output(settings: Settings) -> None:
    local = settings.backend == "local"  # there the answer goes on after a fence that is already open
    answer = "func vowels() {}\n" if local else "```go\nfunc vowels() {}\n```"
    script = Script(" Count the vowels of a word in Go.\n", answer)
    pool = Pool()
    (found,) = run(settings, script, pool=pool)
    assert found.rejection is None
    assert found.row == {
        "instruction": "Count the vowels of a word in Go.",
        "input": "",
        "output": "func vowels() {}",
    }
    assert (found.language, found.kind) == ("go", "write")
    assert [candidate.instruction for candidate in pool.judged] == [found.instruction]
    first, last = script.asked
    assert (first.prompt is None) == (settings.endpoint == "chat")
    assert (first.temperature, last.temperature) == (0.9, OUTPUT_TEMPERATURE)
    assert last.max_tokens == 500
    assert [role for role, _ in last.messages] == ["system", "user", "assistant"][: 3 if local else 2]
    assert script.text(1) == "Count the vowels of a word in Go."
    assert found.raw == answer
    assert first.seed != last.seed


@pytest.mark.parametrize(
    ("kind", "language", "fence"),
    [
        ("write", "go", "```go\n"),
        ("explain", "go", ""),
        ("write", "text", ""),
        ("write", None, ""),
        (None, "go", ""),
    ],
)
def test_the_embedded_engine_begins_code_within_an_open_fence(
    kind: str | None, language: str | None, fence: str
) -> None:
    plan = replace(PLAN, kind=kind, language=language)
    script = Script("Do.", f"{fence}x = 1\n")
    (found,) = run(LOCAL, script, plan)
    assert found.output == "x = 1"
    assert found.rejection is None
    request = script.asked[-1]
    assert [content for role, content in request.messages if role == "assistant"] == (
        [fence] if fence else []
    )
    assert request.stop == (("```",) if fence else ())
    (empty,) = run(LOCAL, Script("Do.", ""), plan)
    assert empty.output == ""
    (cut,) = run(LOCAL, Script("Do.", ("x = ", "length")), plan)
    assert cut.rejection == Rejection("cut_off", {"part": "output"})
    remote = Script("Do.", "x")
    run(REMOTE, remote, plan)
    assert [role for role, _ in remote.asked[-1].messages] == ["system", "user"]


@BOTH
def test_the_list_of_the_prompt_goes_on_with_what_is_planned(settings: Settings) -> None:
    script = Script("Do.", "x")
    run(settings, script)
    text = script.text(0)
    assert text.startswith(prompt_text("staged_instruction"))
    assert "\n1. [Python, write code, sorting] Sort a list in Python.\n" in text
    assert "\n2. [SQL, fix a bug, about the code or data given below it] Mend this query.\n" in text
    assert "\n3. [about" not in text
    assert "\n3. Say what it does:\n" in text
    assert "\n4. [Go, write code, maps]" in text
    if settings.endpoint == "completions":
        assert text.endswith("\n4. [Go, write code, maps]")
        assert "\n" in script.asked[0].stop
    else:
        assert script.asked[0].stop == ()


def test_grammar_and_cache_are_asked_of_the_embedded_engine_only() -> None:
    for settings, fields in ((LOCAL, {"grammar", "cache_prompt"}), (REMOTE, set[str]())):
        script = Script("Do.", "x", "y")
        run(settings, script, replace(PLAN, with_input=True))
        assert fields <= set(script.asked[0].extra)
        assert all(bool(request.extra) == bool(fields) for request in script.asked)


@BOTH
def test_a_known_instruction_costs_one_call(settings: Settings) -> None:
    script = Script("Write a known thing in Go.")
    (found,) = run(settings, script, replace(PLAN, with_input=True), Pool("Write a known thing in Go."))
    assert found.rejection == Rejection("too_similar", {"score": 1.0})
    assert len(script.asked) == 1


@BOTH
@pytest.mark.parametrize("step", ["instruction", "input", "output"])
def test_what_is_cut_off_is_given_up_at_its_step(settings: Settings, step: str) -> None:
    steps = {"instruction": "Mend this loop.", "input": "for i {", "output": "for i := 0; ; {"}
    replies: list[str | tuple[str, str]] = []
    for name, text in steps.items():
        replies.append((text, "length") if name == step else text)
        if name == step:
            break
    script = Script(*replies)
    pool = Pool()
    (found,) = run(settings, script, replace(PLAN, with_input=True), pool)
    assert found.rejection == Rejection("cut_off", {"part": step})
    assert len(script.asked) == len(replies)
    assert len(pool.judged) == (step != "instruction")
    assert found.raw == steps[step]
    assert found.instruction == "Mend this loop."


@BOTH
@pytest.mark.parametrize("reply", ["x = [1]\n", "```go\nx = [1]\n```", "Here:\n\n```\nx = [1]\n```\nDone."])
def test_an_input_is_asked_for_only_where_it_is_planned(settings: Settings, reply: str) -> None:
    script = Script("Say what the code does.", reply, "It makes a list.")
    (found,) = run(settings, script, replace(PLAN, with_input=True, kind="explain"))
    assert (found.input, found.output) == ("x = [1]", "It makes a list.")
    assert len(script.asked) == 3
    assert script.asked[1].temperature == INPUT_TEMPERATURE
    assert "Say what the code does." in script.text(1)
    assert script.text(2) == "Say what the code does.\n\n```\nx = [1]\n```"
    assert len({request.seed for request in script.asked}) == 3


def test_an_input_that_says_there_is_none_is_empty() -> None:
    script = Script("Say what Go is.", "```\nNo input\n```", "A language.")
    (found,) = run(REMOTE, script, replace(PLAN, with_input=True))
    assert found.input == ""
    assert script.text(2) == "Say what Go is."


def test_the_input_prompt_goes_on_after_the_instruction_so_that_its_beginning_is_cached() -> None:
    script = Script("Mend this loop.", "for {", "for {}")
    run(LOCAL, script, replace(PLAN, with_input=True))
    assert script.text(1).startswith(f"{script.text(0)} Mend this loop.\n")


def test_every_choice_of_the_output_is_a_candidate() -> None:
    answers = Reply((Choice("a"), Choice("b", "length"), Choice("")))
    script = Script("Write it in Go.", answers)
    settings = made(recipe="staged", choices=3)
    found = run(settings, script)
    assert [request.n for request in script.asked] == [1, 3]
    assert [candidate.output for candidate in found] == ["a", "b", ""]
    assert [candidate.rejection and candidate.rejection.reason for candidate in found] == [
        None,
        "cut_off",
        None,
    ]
    assert {candidate.instruction for candidate in found} == {"Write it in Go."}


@pytest.mark.parametrize(
    ("reply", "instruction"),
    [
        ("\n\n  Write a parser in Go.  \nAnd more.", "Write a parser in Go."),
        ("4. Write a parser in Go.", "Write a parser in Go."),
        ("4) [Go, write code] Write a parser in Go.", "Write a parser in Go."),
        ("[Go, write code, maps] Write a parser in Go.", "Write a parser in Go."),
        ("**Write a parser in Go.**", "Write a parser in Go."),
        ('"Write a parser in Go."', "Write a parser in Go."),
        ('"a" and "b": say in Go which is "first"', '"a" and "b": say in Go which is "first"'),
        ("3 ways to parse in Go", "3 ways to parse in Go"),
        ("", ""),
    ],
)
def test_an_instruction_is_one_clean_line(reply: str, instruction: str) -> None:
    pool = Pool(instruction)
    (found,) = run(REMOTE, Script(reply), pool=pool)
    assert found.instruction == instruction
    assert found.raw == reply


@pytest.mark.parametrize(
    ("language", "text", "with_input", "instruction"),
    [
        ("go", "Sort a slice.", False, "Sort a slice. Use Go."),
        ("go", "Sort a slice in Go.", False, "Sort a slice in Go."),
        ("go", "Sort a slice in Golang, fast.", False, "Sort a slice in Golang, fast."),
        ("go", "Sort a good category.", False, "Sort a good category. Use Go."),
        ("cpp", "Sort a vector.", False, "Sort a vector. Use C++."),
        ("cpp", "Sort a vector in C++.", False, "Sort a vector in C++."),
        ("csharp", "Sort with C#.", False, "Sort with C#."),
        ("c", "Sort with C#.", False, "Sort with C#. Use C."),
        ("javascript", "Sort it with Node.js.", False, "Sort it with Node.js."),
        ("go", "Mend this.", True, "Mend this."),
        ("text", "Choose a tree.", False, "Choose a tree."),
        ("json", "Describe a tree.", False, "Describe a tree."),
        (None, "Sort a slice.", False, "Sort a slice."),
    ],
)
def test_the_language_is_named_where_nothing_else_tells_it(
    language: str | None, text: str, with_input: bool, instruction: str
) -> None:
    script = Script(text, *(["x"] if with_input else []), "answer")
    (found,) = run(REMOTE, script, replace(PLAN, language=language, with_input=with_input))
    assert found.instruction == instruction
    assert script.text(len(script.asked) - 1).startswith(instruction)


def test_an_answers_fence_tells_the_language_where_the_plan_does_not() -> None:
    plan = replace(PLAN, language=None, kind=None, topic=None)
    (found,) = run(REMOTE, Script("Sort.", "```golang\nx\n```"), plan)
    assert (found.language, found.output) == ("go", "x")
    (found,) = run(REMOTE, Script("Sort.", "```nonsense\nx\n```"), plan)
    assert (found.language, found.output) == (None, "x")


@BOTH
def test_staged_prompts_share_a_long_beginning(settings: Settings) -> None:
    scripts = [Script("Do.", "x"), Script("Do.", "x")]
    for script, plan in zip(scripts, (PLAN, Plan(8, SHOTS[1:], "sql", "fix", seed=2)), strict=True):
        run(settings, script, plan)
    assert all(script.text(0).startswith(prompt_text("staged_instruction")) for script in scripts)
    systems = {script.asked[1].messages[0] for script in scripts}
    assert systems == {("system", prompt_text("staged_output"))}


@pytest.mark.parametrize("step", [0, 1])
def test_a_refusal_passes_through(step: int) -> None:
    class Refusing(Script):
        def __call__(self, request: Request) -> Reply:
            if len(self.asked) == step:
                self.replies.clear()
                raise RequestRefused("too long")
            return super().__call__(request)

    with pytest.raises(RequestRefused):
        run(REMOTE, Refusing("Do.", "x"))


# --- both ---------------------------------------------------------------------------------------------

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
SETTINGS = [made(), made(answer="json"), made(profile="alpaca"), REMOTE, LOCAL]


@examples(max_examples=100, deadline=None)
@given(PLANS, st.sampled_from(SETTINGS), st.lists(st.text(max_size=60), min_size=3, max_size=3))
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
    if settings.recipe == "staged":
        assert len(scripts[0].asked) == 2 + plan.with_input
    else:
        assert len(scripts[0].asked) == 1


def test_the_prompts_digest_is_stable_and_short() -> None:
    assert prompts_digest() == prompts_digest()
    assert len(prompts_digest()) == 16
    int(prompts_digest(), 16)
