"""The recipe `code-alpaca`: one call, many tasks. And what all recipes share: turns of a chat, seeds, cuts.

A recipe is a function of a plan, a view of the pool and `complete`; it knows nothing of servers, files or
threads, and calls of it are answered from the log when they were already bought.

Source: the numbered list with shots is that of Stanford Alpaca (Taori et al. 2023) and Code Alpaca
(Chaudhary 2023).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from selfinstruct import alpaca, parsing
from selfinstruct.records import Candidate, Choice, Request, Seed
from selfinstruct.seams import Complete, Plan, PoolView, Recipe
from selfinstruct.settings import RunSettings, Settings
from selfinstruct.vocabulary import KINDS, LANGUAGES, find_kind, find_language

_CLOSED = "\n```"
# Tasks that an index (with one answer and one instance) usually brings, as seen in trials.
YIELDS = {"code-alpaca": 10.0, "staged": 0.8, "self-instruct": 0.6}
# How the names of a recipe's prompt files begin.
PROMPTS = {
    "code-alpaca": ("code_alpaca",),
    "staged": ("staged_",),
    "self-instruct": ("self_instruct_", "staged_"),
}
# Replies that lead through every step, for a dry run.
SAMPLES = {
    "staged": ("Fix the bug in the following code.", "x = 1 +", "x = 1 + 1"),
    "self-instruct": ("Fix the bug in the following code.", "No", "x = 1 +", "x = 1 + 1"),
}
LIST_SIZE = 20  # tasks that one call asks for, the shots included
TASKS_SCHEMA = {
    "type": "object",
    "properties": {
        "tasks": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {name: {"type": "string"} for name in ("instruction", "input", "output")},
                "required": ["instruction", "input", "output"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["tasks"],
    "additionalProperties": False,
}


def make_recipe(settings: Settings) -> Recipe:
    """The recipe that the settings name."""
    if settings.recipe == "staged":
        from selfinstruct.staged import staged

        return lambda plan, view, complete: staged(settings, plan, view, complete)
    if settings.recipe == "self-instruct":
        from selfinstruct.self_instruct import self_instruct

        return lambda plan, view, complete: self_instruct(settings, plan, view, complete)
    return lambda plan, view, complete: code_alpaca(settings, plan, view, complete)


def seed_of_choice(plan: Plan, step: int) -> int:
    """The model's sampling seed for a step of an index."""
    return (plan.seed + step) & 0x7FFFFFFF


def ask(
    settings: RunSettings,
    system: str,
    user: str,
    fence: str,
    *,
    max_tokens: int,
    temperature: float,
    seed: int,
    n: int = 1,
) -> Request:
    """A turn of a chat, its answer already begun with `fence`; as one text where the server has no chat.

    An empty `system` is left out.
    """
    messages = [("system", system)] if system else []
    messages += [("user", user), *([("assistant", fence)] if fence else [])]
    # The embedded model has a chat template; a server that is asked for completions may have none.
    raw = settings.endpoint == "completions" and settings.backend != "local"
    return Request(
        prompt=f"{system}\n\nTask: {user}\n\nAnswer:\n{fence}".lstrip("\n") if raw else None,
        messages=() if raw else tuple(messages),
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=settings.top_p or 1.0,
        stop=("```",) if fence else ("\nTask:",) if raw else (),
        seed=seed,
        n=n,
        extra={"cache_prompt": True} if settings.backend == "local" else {},
    )


def whole(text: str, fence: str) -> str:
    """The answer with the fence that was opened for it, and its end. Some servers repeat the opening."""
    text = text.strip("\n")
    # The fence goes in first: an answer that closes it at once is empty, not a piece of a fence.
    return f"{fence}{text.removeprefix(fence)}".partition(_CLOSED)[0] + _CLOSED if fence else text


def open_fence(settings: RunSettings, language: str | None) -> str:
    """The fence an answer is begun with: llama.cpp and completions go on with it, other chats would not."""
    if settings.endpoint == "chat":
        return ""
    return f"```{language if language not in {None, 'text'} else ''}\n"


def code_alpaca(settings: Settings, plan: Plan, _: PoolView, complete: Complete) -> list[Candidate]:
    """One call that shows the shots and yields up to 20 numbered tasks (or a JSON object of them)."""
    first = len(plan.shots) + 1
    historic = settings.profile == "alpaca"
    if settings.answer == "json":
        text = _json_prompt(settings, plan.shots)
    elif historic:
        text = alpaca.layout(settings.prompt("code_alpaca"), plan.shots)
    else:
        text = alpaca.layout(_with_rules(settings.prompt("code_alpaca"), settings), plan.shots)
    request = Request(
        prompt=text if settings.endpoint == "completions" else None,
        messages=(("user", text),) if settings.endpoint == "chat" else (),
        max_tokens=settings.max_output_tokens or 3072,
        temperature=settings.temperature or 0.0,
        top_p=settings.top_p or 1.0,
        stop=alpaca.STOP if historic else (f"\n{LIST_SIZE + 1}. Instruction",),
        seed=seed_of_choice(plan, 0),
        n=settings.choices,
        schema=TASKS_SCHEMA if settings.answer == "json" else None,
    )
    parse = alpaca.parse if historic else parsing.parse
    return [
        found
        for choice in complete(request).choices
        for found in parse(choice.text, "length" if is_cut(choice) else choice.finish_reason, first)
    ]


def is_cut(choice: Choice) -> bool:
    """Whether the end of the text is missing: no room left, or a filter of the server cut in."""
    return choice.finish_reason in {"length", "content_filter"}


def _with_rules(text: str, settings: Settings) -> str:
    """The prompt with the user's wishes as a last rule, before the line that opens the list."""
    languages = [LANGUAGES[name].display for word in settings.only_language if (name := find_language(word))]
    kinds = [KINDS[name].display for word in settings.only_kind if (name := find_kind(word))]
    rules = [f"- All tasks are in or about {' or '.join(languages)}."] if languages else []
    rules += [f"- All tasks are of this kind: {' or '.join(kinds)}."] if kinds else []
    if not rules:
        return text
    head, _, last = text.rpartition("\n\n")
    return "\n".join([head, *rules]) + f"\n\n{last}"


def _json_prompt(settings: Settings, shots: Sequence[Seed]) -> str:
    rows = [{"instruction": s.instruction, "input": s.input, "output": s.output} for s in shots]
    count = str(LIST_SIZE - len(rows))
    text = _with_rules(settings.prompt("code_alpaca_json", count=count), settings)
    return "\n".join([text, "", "Examples:", *map(json.dumps, rows)])
