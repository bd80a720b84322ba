from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scripted import PLAN, SHOTS, Pool, Script, made, run

from selfinstruct.errors import RequestRefused
from selfinstruct.parsing import no_input
from selfinstruct.prompt_files import prompt_text
from selfinstruct.recipes import make_recipe
from selfinstruct.records import Choice, Rejection, Reply, Request
from selfinstruct.seams import Plan
from selfinstruct.settings import Settings, make_settings
from selfinstruct.staged import INPUT_TEMPERATURE, INPUT_TOKENS, INSTRUCTION_TOKENS, OUTPUT_TEMPERATURE
from selfinstruct.vocabulary import KINDS

COMMON: dict[str, Any] = {"recipe": "staged", "temperature": 0.9, "top_p": 0.8, "max_output_tokens": 500}
LOCAL = make_settings(COMMON)
CHAT = made(**COMMON)
COMPLETIONS = made(endpoint="completions", **COMMON)
FORMS = {"local": LOCAL, "chat": CHAT, "completions": COMPLETIONS}
ALL = pytest.mark.parametrize("settings", FORMS.values(), ids=FORMS)
CODE = {
    "write", "complete", "fix", "refactor", "optimise", "translate", "document", "test", "revise", "query", "configure",
}  # fmt: skip
SEVEN = Plan(7, SHOTS, "go", "explain", "maps", with_input=True, seed=11)
ENDS = ["stop", "length", "content_filter"]


def raw(settings: Settings, step: str) -> bool:
    """Whether a step is one text to go on with, not a chat."""
    return settings.endpoint == "completions" and (step == "instruction" or settings.backend != "local")


def check_turn(settings: Settings, request: Request, step: str, user: str, fence: str) -> None:
    """The request is exactly a turn with the step's prompt, its answer begun where the model goes on with it."""
    system = prompt_text(f"staged_{step}")
    fence = "" if settings.endpoint == "chat" else fence
    if raw(settings, step):
        assert request.prompt == f"{system}\n\nTask: {user}\n\nAnswer:\n{fence}"
        assert request.messages == ()
        assert request.stop == (("```",) if fence else ("\nTask:",))
    else:
        assert request.prompt is None
        begun = (("assistant", fence),) if fence else ()
        assert request.messages == (("system", system), ("user", user), *begun)
        assert request.stop == (("```",) if fence else ())
    assert request.extra == ({"cache_prompt": True} if settings.backend == "local" else {})
    assert request.schema is None


# --- instruction --------------------------------------------------------------------------------------


@ALL
def test_instruction_then_output(settings: Settings) -> None:
    answer = "```go\nfunc vowels() {}\n```" if settings is CHAT else "func vowels() {}\n"
    script = Script(" Count the vowels of a word in Go.\n", answer)
    pool = Pool()
    (found,) = run(settings, script, pool=pool)
    assert found.rejection is None
    assert found.row == {
        "instruction": "Count the vowels of a word in Go.",
        "input": "",
        "output": "func vowels() {}",
    }
    assert (found.language, found.kind, found.raw) == ("go", "write", answer)
    assert [candidate.row for candidate in pool.judged] == [{**found.row, "output": ""}]
    first, last = script.asked
    assert (first.prompt is None) == (settings.endpoint == "chat")
    assert (first.temperature, first.top_p, first.max_tokens) == (0.9, 0.8, INSTRUCTION_TOKENS)
    assert (last.temperature, last.top_p, last.max_tokens) == (OUTPUT_TEMPERATURE, 0.8, 500)
    check_turn(settings, last, "output", "Count the vowels of a word in Go.", "```go\n")
    assert first.seed != last.seed


@ALL
@pytest.mark.parametrize("with_input", [False, True])
def test_the_list_of_the_prompt_goes_on_with_what_is_planned(settings: Settings, with_input: bool) -> None:
    script = Script("Write it.", "x")
    run(settings, script, replace(PLAN, with_input=with_input))
    text = script.text(0)
    assert text.startswith(prompt_text("staged_instruction"))
    assert "\n1. [Python, write code, sorting] Sort a list in Python.\n" in text
    assert "\n2. [SQL, fix a bug, about the code or data given below it] Mend this query.\n" in text
    assert "\n3. [about" not in text
    assert "\n3. Say what it does:\n" in text
    last = f"\n4. [Go, write code, maps{', about the code or data given below it' if with_input else ''}]"
    assert last in text
    assert "  " not in text
    if settings.endpoint == "completions":
        assert text.endswith(last)
        assert script.asked[0].stop == ("\n", " 5. [")
    else:
        assert text.endswith(f"{last}\n\nWrite task 4. Answer with its text alone, on one line.")
        assert script.asked[0].stop == ()
        assert [role for role, _ in script.asked[0].messages] == ["user"]


def test_a_plan_that_tells_nothing_has_no_brackets() -> None:
    script = Script("Do.", "x")
    run(COMPLETIONS, script, Plan(0, SHOTS[2:]))
    assert script.text(0) == prompt_text("staged_instruction") + "\n\n1. Say what it does:\n2."


@ALL
def test_grammar_and_penalty_are_for_the_instruction_of_the_embedded_engine_only(settings: Settings) -> None:
    script = Script("Mend this loop.", "x", "y")
    run(settings, script)
    instruction, *others = [set(request.extra) for request in script.asked]
    local = settings is LOCAL
    assert instruction == ({"grammar", "cache_prompt", "repeat_penalty", "min_p"} if local else set())
    assert others == [{"cache_prompt"} if local else set[str]()] * 2


def test_the_embedded_engine_as_a_chat_begins_nothing() -> None:
    script = Script("Mend this loop.", "```\nx\n```", "```\ny\n```")
    settings = make_settings({**COMMON, "endpoint": "chat"})
    (found,) = run(settings, script)
    assert (found.input, found.output) == ("x", "y")
    assert [[role for role, _ in request.messages] for request in script.asked] == [
        ["user"], ["system", "user"], ["system", "user"],
    ]  # fmt: skip
    assert all(request.stop == () for request in script.asked)
    assert "grammar" not in script.asked[0].extra


@ALL
@pytest.mark.parametrize("instruction", ["Write a known thing in Go.", "Say what the following code does."])
def test_a_known_instruction_costs_one_call(settings: Settings, instruction: str) -> None:
    script = Script(instruction)
    pool = Pool(instruction)
    (found,) = run(settings, script, SEVEN, pool)
    assert found.rejection == Rejection("too_similar", {"score": 1.0})
    assert len(script.asked) == len(pool.judged) == 1


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
    (found,) = run(CHAT, Script(reply), pool=pool)
    assert found.instruction == instruction
    assert found.raw == reply


@pytest.mark.parametrize(
    ("language", "text", "instruction"),
    [
        ("go", "Write a sort.", "Write a sort. Use Go."),
        ("go", "Write a sort in Go.", "Write a sort in Go."),
        ("go", "Write a sort in Golang, fast.", "Write a sort in Golang, fast."),
        ("go", "Write a good category.", "Write a good category. Use Go."),
        ("cpp", "Write a vector.", "Write a vector. Use C++."),
        ("cpp", "Write a vector in C++.", "Write a vector in C++."),
        ("csharp", "Write a sort with C#.", "Write a sort with C#."),
        ("c", "Write a sort with C#.", "Write a sort with C#. Use C."),
        ("javascript", "Write it with Node.js.", "Write it with Node.js."),
        ("text", "Design a tree.", "Design a tree."),
        ("json", "Design a tree.", "Design a tree."),
        (None, "Write a sort.", "Write a sort."),
    ],
)
@pytest.mark.parametrize("with_input", [False, True])
def test_the_language_is_named_where_nothing_else_tells_it(
    language: str | None, text: str, instruction: str, with_input: bool
) -> None:
    script = Script(text, "answer")
    pool = Pool()
    (found,) = run(CHAT, script, replace(PLAN, language=language, with_input=with_input), pool)
    assert found.instruction == instruction
    assert [candidate.instruction for candidate in pool.judged] == [instruction]
    assert script.text(1) == instruction


@pytest.mark.parametrize(("text", "with_input"), [("Mend this loop.", False), ("Mend it.", True)])
def test_an_input_tells_the_language_itself(text: str, with_input: bool) -> None:
    script = Script(text, "x", "answer")
    pool = Pool()
    (found,) = run(CHAT, script, replace(PLAN, with_input=with_input), pool)
    assert found.instruction == text
    assert [candidate.instruction for candidate in pool.judged] == [text]
    assert script.text(2) == f"{text}\n\n```\nx\n```"


# --- input --------------------------------------------------------------------------------------------

ALWAYS, PLANNED, NEVER = {False, True}, {True}, set[bool]()
POINTING = [
    # It speaks of something that is not there, and whatever the plan says, nobody could answer it.
    ("Say what the following code does.", ALWAYS),
    ("Mend this loop.", ALWAYS),
    ("Sort the numbers below.", ALWAYS),
    ("Make the provided Go code faster.", ALWAYS),
    ("Write tests for the function below.", ALWAYS),
    # It may have an input if one is planned.
    ("Mend this.", PLANNED),
    ("Sort the records by age.", PLANNED),
    ("Say what `print(1)` does.", PLANNED),
    ("Please write a parser.", PLANNED),
    ("Writers and readers wait for each other: say why.", PLANNED),
    ("Do it.", PLANNED),
    # It begins from nothing: the plan alone brings no input.
    *((f"{verb} a parser.", NEVER) for verb in (
        "Write", "Create", "Implement", "Define", "Build", "Design", "Make", "Develop", "Generate", "Construct",
        "write",
    )),
]  # fmt: skip


@ALL
@pytest.mark.parametrize("with_input", [False, True])
@pytest.mark.parametrize(("instruction", "due"), POINTING, ids=[text for text, _ in POINTING])
def test_an_input_is_asked_for_where_the_instruction_points_at_one(
    settings: Settings, with_input: bool, instruction: str, due: set[bool]
) -> None:
    asks = with_input in due
    script = Script(instruction, *(["x = 1"] if asks else []), "It is one.")
    (found,) = run(settings, script, replace(SEVEN, with_input=with_input, language="text"))
    assert len(script.asked) == 2 + asks  # and the script is used up
    assert found.row == {
        "instruction": instruction,
        "input": "x = 1" if asks else "",
        "output": "It is one.",
    }


def test_an_instruction_that_holds_what_it_points_at_needs_no_input() -> None:
    script = Script("Say in Go what this code prints: `print(1)`.", "1")
    (found,) = run(CHAT, script, replace(SEVEN, with_input=False))
    assert (found.input, found.output) == ("", "1")


@ALL
def test_the_input_is_asked_for_in_a_turn_of_its_own(settings: Settings) -> None:
    for topic, about in (("maps", " about maps"), (None, "")):
        script = Script("Say what the code below does.", "x = [1]\n", "It makes a list.")
        (found,) = run(settings, script, replace(SEVEN, topic=topic))
        first, second, last = script.asked
        user = f"A programmer asks{about}:\nSay what the code below does."
        check_turn(settings, second, "input", user, "```go\n")
        assert (second.max_tokens, second.temperature, second.top_p) == (INPUT_TOKENS, INPUT_TEMPERATURE, 0.8)
        assert second.n == 1
        user = "Say what the code below does.\n\n```\nx = [1]\n```"
        check_turn(settings, last, "output", user, "")  # prose
        assert len({first.seed, second.seed, last.seed}) == 3
        assert found.input == "x = [1]"
        # The examples are not in sight: a small model would write an input for one of them.
        asked = str((second.prompt, second.messages))
        assert not any(" ".join(shot.instruction.split()) in asked for shot in SHOTS)
        assert prompt_text("staged_instruction") not in asked


@ALL
@pytest.mark.parametrize(
    ("kind", "language", "fence"),
    [
        ("fix", "go", "```go\n"),
        ("explain", "python", "```python\n"),
        (None, "sql", "```sql\n"),
        ("translate", "go", "```\n"),  # what is given is in another language
        ("explain", "text", "```\n"),
        ("explain", None, "```\n"),
    ],
)
def test_an_input_begins_within_an_open_fence(
    settings: Settings, kind: str | None, language: str | None, fence: str
) -> None:
    plan = replace(SEVEN, kind=kind, language=language, topic=None)
    replies = ["x = 1\n", "\n\nx = 1", "x = 1\n```\nDone.", f"{fence}x = 1\n", f"{fence}x = 1\n```\nDone."]
    for reply in replies:
        script = Script("Mend this loop.", reply, "y")
        (found,) = run(settings, script, plan)
        assert found.input == "x = 1" or (settings is CHAT and reply == replies[2])
        check_turn(settings, script.asked[1], "input", "A programmer asks:\nMend this loop.", fence)


@pytest.mark.parametrize("reply", ["x = [1]\n", "```go\nx = [1]\n```", "Here:\n\n```\nx = [1]\n```\nDone."])
def test_a_chats_input_is_its_first_block_or_all_of_it(reply: str) -> None:
    script = Script("Say what this code does.", reply, "It makes a list.")
    (found,) = run(CHAT, script, SEVEN)
    assert (found.input, found.output) == ("x = [1]", "It makes a list.")


@ALL
@pytest.mark.parametrize("reply", ["No input", "N/A\n", "", "\n"])
def test_an_input_that_says_there_is_none_is_empty(settings: Settings, reply: str) -> None:
    for text in (reply, f"```\n{reply}\n```") if settings is CHAT else (reply,):
        script = Script("Say what this code does.", text, "A language.")
        (found,) = run(settings, script, SEVEN)
        assert found.input == ""
        check_turn(settings, script.asked[2], "output", "Say what this code does.", "")


# --- output -------------------------------------------------------------------------------------------


@ALL
@pytest.mark.parametrize("language", ["go", "text", None])
@pytest.mark.parametrize("kind", [*KINDS, None])
def test_code_begins_within_an_open_fence_and_prose_does_not(
    settings: Settings, kind: str | None, language: str | None
) -> None:
    fence = "```go\n" if kind in CODE and language == "go" else ""
    plan = replace(PLAN, kind=kind, language=language)
    replies = ["```go\nx = 1\n```"]
    if fence and settings is not CHAT:
        replies += [
            "x = 1\n",
            "\nx = 1",
            "x = 1\n```\nIt is one.",
            f"{fence}x = 1",
            f"{fence}x = 1\n```\nDone.",
        ]
    for reply in replies:
        script = Script("Do it in Go.", reply)
        (found,) = run(settings, script, plan)
        assert found.output == "x = 1"
        assert found.rejection is None
        check_turn(settings, script.asked[-1], "output", "Do it in Go.", fence)


@ALL
def test_an_empty_answer_stays_empty(settings: Settings) -> None:
    for reply in ("", "\n", *([] if settings is CHAT else ["```", "```go", "```go\n", "```go\n```"])):
        (found,) = run(settings, Script("Do it in Go.", reply))
        assert found.output == ""
        assert found.rejection is None


@ALL
def test_a_list_of_blocks_and_prose_is_left_as_it_is(settings: Settings) -> None:
    answer = "Use a map:\n\n```go\nx\n```\n\nIt is fast."
    script = Script("Say it in Go.", f"\n\n{answer} \n")
    (found,) = run(settings, script, replace(PLAN, kind="explain"))
    assert found.output == answer


@ALL
def test_every_choice_of_the_output_is_a_candidate(settings: Settings) -> None:
    answers = Reply((Choice("a"), Choice("b", "length"), Choice(""), Choice("d", "content_filter")))
    script = Script("Mend this loop.", "for {", answers)
    found = run(settings.model_copy(update={"choices": 4}), script)
    assert [request.n for request in script.asked] == [1, 1, 4]
    assert [candidate.output for candidate in found] == ["a", "b", "", "d"]
    cut = Rejection("cut_off", {"part": "output"})
    assert [candidate.rejection for candidate in found] == [None, cut, None, cut]
    assert {(candidate.instruction, candidate.input) for candidate in found} == {("Mend this loop.", "for {")}


def test_an_answers_fence_tells_the_language_where_the_plan_does_not() -> None:
    plan = replace(PLAN, language=None, kind=None, topic=None)
    (found,) = run(CHAT, Script("Sort.", "```golang\nx\n```"), plan)
    assert (found.language, found.output) == ("go", "x")
    (found,) = run(CHAT, Script("Sort.", "```nonsense\nx\n```"), plan)
    assert (found.language, found.output) == (None, "x")


# --- all parts ----------------------------------------------------------------------------------------


@ALL
@pytest.mark.parametrize("end", ENDS[1:])
@pytest.mark.parametrize("part", ["instruction", "input", "output"])
def test_what_is_cut_off_is_given_up_at_its_part(settings: Settings, part: str, end: str) -> None:
    parts = {"instruction": "Mend this loop.", "input": "for i {", "output": "for i := 0; ; {"}
    there = list(parts)[: list(parts).index(part) + 1]
    script = Script(*[(parts[name], end if name == part else "stop") for name in there])
    pool = Pool()
    (found,) = run(settings, script, pool=pool)
    assert found.rejection == Rejection("cut_off", {"part": part})
    assert len(script.asked) == len(there)
    assert len(pool.judged) == (part != "instruction")
    assert found.raw == parts[part]
    assert found.row == {**dict.fromkeys(parts, ""), **{name: parts[name] for name in there}}


def test_a_part_that_is_cut_inside_its_fence_keeps_what_there_is() -> None:
    (found,) = run(CHAT, Script("Mend this loop.", ("```go\nfor i {", "length")))
    assert found.input == "for i {"
    (found,) = run(LOCAL, Script("Do it in Go.", ("```go\nfor i {", "length")))
    assert found.output == "for i {"


@ALL
@pytest.mark.parametrize("temperature", [0.0, 0.2])
def test_no_part_is_hotter_than_the_user_wants(settings: Settings, temperature: float) -> None:
    script = Script("Mend this loop.", "x", "y")
    run(settings.model_copy(update={"temperature": temperature}), script)
    assert [request.temperature for request in script.asked] == [temperature] * 3


@ALL
def test_prompts_of_each_part_share_a_long_beginning(settings: Settings) -> None:
    plans = [
        SEVEN,
        Plan(8, SHOTS[1:], "sql", "fix", seed=2),
        Plan(9, SHOTS[:1], kind="translate", topic="trees"),
    ]
    scripts = [Script("Mend this loop.", "x", "y") for _ in plans]
    for script, plan in zip(scripts, plans, strict=True):
        run(settings, script, plan)
    for number, step in enumerate(["instruction", "input", "output"]):
        head = prompt_text(f"staged_{step}")
        for request in (script.asked[number] for script in scripts):
            if raw(settings, step):
                assert request.prompt is not None
                assert request.prompt.startswith(f"{head}\n\n")
            elif step == "instruction":
                assert request.messages[0][1].startswith(f"{head}\n\n")
            else:
                assert request.messages[0] == ("system", head)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_refusal_passes_through(step: int) -> None:
    class Refusing(Script):
        def __call__(self, request: Request) -> Reply:
            if len(self.asked) == step:
                raise RequestRefused("too long")
            return super().__call__(request)

    script = Refusing("Mend this loop.", "x", "y")
    with pytest.raises(RequestRefused):
        run(CHAT, script)
    assert len(script.asked) == step


# --- properties ---------------------------------------------------------------------------------------

PLANS = st.builds(
    Plan,
    st.integers(0, 10**6),
    st.lists(st.sampled_from(SHOTS), max_size=3).map(tuple),
    st.sampled_from([None, "go", "text", "sql", "json"]),
    st.sampled_from([None, *KINDS]),
    st.none() | st.text(max_size=10),
    st.booleans(),
    st.integers(0, 2**31 - 1),
)


@examples(max_examples=200, deadline=None)
@given(
    PLANS,
    st.sampled_from(list(FORMS.values())),
    st.sampled_from(POINTING),
    st.lists(st.tuples(st.text(max_size=60), st.sampled_from(ENDS)), min_size=3, max_size=3),
    st.booleans(),
)
def test_any_plan_and_any_replies_take_as_many_calls_as_they_must(
    plan: Plan,
    settings: Settings,
    pointing: tuple[str, set[bool]],
    replies: list[tuple[str, str]],
    known: bool,
) -> None:
    text, due = pointing
    parts = ["instruction", *(["input"] if plan.with_input in due else []), "output"]
    replies = [(text, replies[0][1]), *replies[1:]]
    cut = next((part for part, (_, end) in zip(parts, replies, strict=False) if end != "stop"), None)
    calls = 1 if known else parts.index(cut or "output") + 1

    class Knowing(Pool):
        def judge_instruction(self, candidate: Any) -> Any:
            self.known = (candidate.instruction,) if known else ()
            return super().judge_instruction(candidate)

    scripts = [Script(*replies), Script(*replies)]
    results = [make_recipe(settings)(plan, Knowing(), script) for script in scripts]
    assert results[0] == results[1]
    assert [r.digest() for r in scripts[0].asked] == [r.digest() for r in scripts[1].asked]
    (found,) = results[0]
    assert len(scripts[0].asked) == calls
    assert len({request.seed for request in scripts[0].asked}) == calls
    for request in scripts[0].asked:
        assert (request.prompt is None) != (not request.messages)
        assert 0 <= (request.seed or 0) < 2**31
    if known and cut != "instruction":
        assert found.rejection == Rejection("too_similar", {"score": 1.0})
    else:
        assert found.rejection == (Rejection("cut_off", {"part": cut}) if cut else None)
    assert found.instruction.startswith(text)
    assert found.kind == plan.kind
    assert found.language == plan.language or plan.language is None
    if "input" not in parts or calls == 1:
        assert found.input == ""


LINES = st.lists(st.text("xy=(){};'\" \t#1\u00e9", max_size=12), max_size=6).map("\n".join).filter(str.strip)


def continued(fence: str, code: str) -> Sequence[str]:
    """What models and servers send back for an answer that was begun with a fence."""
    begins, ends = (
        ("", "\n", fence, f"\n{fence}"),
        ("", "\n", "\n```", "\n```\n", "\n```\nIt is short.\n```go\nz\n```"),
    )
    return [f"{begin}{code}{end}" for begin, end in itertools.product(begins, ends)]


@examples(max_examples=100, deadline=None)
@given(LINES, st.sampled_from([LOCAL, COMPLETIONS]), st.sampled_from(["fix", "translate"]))
def test_code_comes_out_of_its_fence_as_it_was(code: str, settings: Settings, kind: str) -> None:
    inputs = continued("```\n" if kind == "translate" else "```go\n", code)
    for input_, output in zip(inputs, continued("```go\n", code), strict=True):
        script = Script("Mend this loop.", input_, output)
        (found,) = run(settings, script, replace(PLAN, kind=kind))
        assert found.rejection is None
        assert found.input == no_input(code.strip("\n"))
        assert found.output == code.strip("\n").rstrip()
