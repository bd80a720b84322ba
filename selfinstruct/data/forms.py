"""Rows as others write them, one JSON object each, and what they are in our words. Reads no file.

The form is told by the keys of the row; only Dolphin's rows must be named, since their keys are those of
code_alpaca with other meanings. Message trees of Open Assistant are the matter of `oasst`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import get_args

from selfinstruct.data.oasst import best_path
from selfinstruct.data.rows import Example, Form, FormError, Message, number_of, task, text_of
from selfinstruct.records import JSON

FORMS: tuple[Form, ...] = get_args(Form)

SPEAKERS = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
    "bard": "assistant", "bing": "assistant", "claude": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool", "function_response": "tool",
    "text": "text",
}  # fmt: skip
# The names that published datasets have for the same thing, the commonest first.
QUESTIONS = ("question", "problem", "query")
INPUTS = ("input", "context")
ANSWERS = ("output", "response", "completion", "answer", "solution")
SYSTEMS = ("system", "system_prompt")
TURNS = ("conversations", "conversation", "items")
_MAY_BE_EMPTY = {*SYSTEMS, "history"}


def example_of(value: JSON, form: Form | None = None) -> Example:
    """A row of any form as an example.

    Args:
        value: a decoded JSON value.
        form: the form it has; None to tell it by its keys.

    Raises:
        FormError: a field is missing or of the wrong kind; names it. The message is for the user.
    """
    if not isinstance(value, dict):
        raise FormError(f"a JSON {kind_of(value)}, where an object is needed")
    return _READERS[form or form_of(value)](value)


def form_of(row: dict[str, JSON]) -> Form:
    """The form of a row by its keys.

    Raises:
        FormError: no form has these keys.
    """
    if "instruction" in row and "output" in row and "messages" not in row and "conversations" not in row:
        return "alpaca"
    if "messages" in row:
        return "openai"
    if any(isinstance(row.get(name), (list, str)) for name in TURNS):
        return "sharegpt"
    if isinstance(row.get("prompt"), dict) and "replies" in row["prompt"]:
        return "oasst"
    if "message_id" in row and "parent_id" in row and "role" in row:
        return "oasst-flat"
    if "instruction" in row:
        return "alpaca"
    if "prompt" in row and _first(row, ANSWERS):
        return "prompt-completion"
    if _first(row, QUESTIONS):
        return "orca"
    if "text" in row:
        return "text"
    seen = ", ".join(sorted(map(str, row)))[:200] or "none"
    raise FormError(
        "no form of row has these fields: "
        f"{seen}; known are instruction/output, question/response, messages, conversations, prompt/completion, text"
    )


def kind_of(value: JSON) -> str:
    """What JSON calls the value."""
    names = {dict: "object", list: "array", str: "string", bool: "truth value", type(None): "null"}
    return names.get(type(value), "number")


def _first(row: dict[str, JSON], names: Iterable[str]) -> str | None:
    """The first of the names that the row has with something in it, else the first it has at all."""
    there = [name for name in names if name in row]
    return next((name for name in there if row[name] is not None), there[0] if there else None)


def _rest(row: dict[str, JSON], used: Iterable[str | None]) -> tuple[float | None, dict[str, JSON]]:
    """The score, and the other fields as they are: what an example cannot hold (an empty system message) among them."""
    taken = {name for name in used if name not in _MAY_BE_EMPTY or row.get(name)}
    score = row.get("score")
    if type(score) in {int, float}:
        taken.add("score")
    extra = {name: value for name, value in row.items() if name not in taken}
    return None if score is None or score == "" else number_of(score, "score"), extra


def _alpaca(row: dict[str, JSON]) -> Example:
    """instruction, input, output; with `system` and `history` ([question, answer] pairs) where they are."""
    if len(row) == 3 and "input" in row:  # the plain row, by far the commonest
        question, given, answer = row.get("instruction"), row["input"], row.get("output")
        if type(question) is type(given) is type(answer) is str:
            return Example((Message("user", question), Message("assistant", answer)), given)
    given_in, answer_in = _first(row, INPUTS), _first(row, ANSWERS) or "output"
    question, answer = text_of(row, "instruction"), text_of(row, answer_in)
    given = text_of(row, given_in, optional=True) if given_in else ""
    system_in = _first(row, SYSTEMS)
    system = text_of(row, system_in, optional=True) if system_in else ""
    messages, given = task(question, answer, given, system, _history(row))
    used = ("instruction", given_in, answer_in, system_in, "history")
    score, extra = _rest(row, used)
    return Example(messages, given, score, extra)


def _history(row: dict[str, JSON]) -> list[tuple[str, str]]:
    pairs = row.get("history") or []
    if isinstance(pairs, str):
        pairs = _decoded(pairs, "history")
    if not isinstance(pairs, list):
        raise FormError("the field 'history' is no list of [question, answer] pairs")
    for at, pair in enumerate(pairs):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise FormError(f"the field 'history[{at}]' is no [question, answer] pair of texts")
    return [(question, answer) for question, answer in pairs]


def _dolphin(row: dict[str, JSON]) -> Example:
    """The field instruction is the system message, input the question, output the answer."""
    system, question = text_of(row, "instruction", optional=True), text_of(row, "input")
    messages, _ = task(question, text_of(row, "output"), system=system)
    return Example(messages, "", *_rest(row, ("instruction", "input", "output")))


def _orca(row: dict[str, JSON]) -> Example:
    """system_prompt, question, response, by any of their usual names."""
    question_in, answer_in = _first(row, QUESTIONS) or "question", _first(row, ANSWERS) or "response"
    system_in = _first(row, SYSTEMS)
    system = text_of(row, system_in, optional=True) if system_in else ""
    messages, _ = task(text_of(row, question_in), text_of(row, answer_in), system=system)
    return Example(messages, "", *_rest(row, (question_in, answer_in, system_in)))


def _openai(row: dict[str, JSON]) -> Example:
    """`messages` of role and content; content may be a list of text parts."""
    messages = _turns(row.get("messages"), "messages")
    given, asked = row.get("input"), any(turn.role == "user" for turn in messages)
    if isinstance(given, str) and given and asked and not Example(messages).is_dialogue:
        return Example(messages, given, *_rest(row, ("messages", "input")))  # as `Example.row` writes it
    return Example(messages, "", *_rest(row, ("messages",)))


def _sharegpt(row: dict[str, JSON]) -> Example:
    """`conversations` of from and value (or role and content); a `system` beside them comes first."""
    name = next((name for name in TURNS if isinstance(row.get(name), (list, str))), TURNS[0])
    system_in = _first(row, SYSTEMS)
    system = text_of(row, system_in, optional=True) if system_in else ""
    turns = _turns(row.get(name), name)
    if system and turns[0].role == "system":
        raise FormError(f"two system messages: in the field {system_in!r} and in {name!r}")
    messages = (Message("system", system), *turns) if system else turns
    return Example(messages, "", *_rest(row, (name, system_in)))


def _turns(value: JSON, name: str) -> tuple[Message, ...]:
    if isinstance(value, str):
        value = _decoded(value, name)
    if not isinstance(value, list) or not value:
        raise FormError(f"the field {name!r} is no list of turns, or is empty")
    messages = [_turn(turn, f"{name}[{at}]") for at, turn in enumerate(value)]
    return tuple(turn for turn in messages if turn.role != "system" or turn.content) or tuple(messages)


def _decoded(text: str, name: str) -> JSON:
    """The value in a table's cell that holds JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise FormError(f"the field {name!r} is text that is not JSON") from None


def _turn(turn: JSON, where: str) -> Message:
    if not isinstance(turn, dict):
        raise FormError(f"the field '{where}' is a JSON {kind_of(turn)}, where an object is needed")
    if turn.get("tool_calls") or turn.get("function_call"):
        raise FormError(f"the field '{where}' calls tools, which no form here can hold")
    speaker = turn.get("role", turn.get("from"))
    role = SPEAKERS.get(speaker.lower()) if isinstance(speaker, str) else None
    if role is None:
        told = repr(speaker)[:60]
        raise FormError(f"the field '{where}' is spoken by {told}; known are {', '.join(SPEAKERS)}")
    said = next((turn[name] for name in ("content", "value", "markdown", "text") if name in turn), None)
    if isinstance(said, list):
        said = _parts(said, where)
    if not isinstance(said, str):
        raise FormError(f"the field '{where}' has no text in 'content' or 'value'")
    return Message(role, said)


def _parts(parts: list[JSON], where: str) -> str:
    texts = []
    for part in parts:
        if not (
            isinstance(part, dict)
            and part.get("type", "text") == "text"
            and isinstance(part.get("text"), str)
        ):
            raise FormError(f"the field '{where}' has a part that is no text")
        texts.append(part["text"])
    return "".join(texts)


def _prompt_completion(row: dict[str, JSON]) -> Example:
    """`prompt` and `completion`, both texts or both lists of messages."""
    answer_in = _first(row, ANSWERS) or "completion"
    if isinstance(row.get("prompt"), list):
        turns = _turns(row["prompt"], "prompt") + _turns(row.get(answer_in), answer_in)
        return Example(turns, "", *_rest(row, ("prompt", answer_in)))
    system_in = _first(row, SYSTEMS)
    system = text_of(row, system_in, optional=True) if system_in else ""
    messages, _ = task(text_of(row, "prompt"), text_of(row, answer_in), system=system)
    return Example(messages, "", *_rest(row, ("prompt", answer_in, system_in)))


def _text(row: dict[str, JSON]) -> Example:
    """A document."""
    return Example((Message("text", text_of(row, "text")),), "", *_rest(row, ("text",)))


def _flat(_: dict[str, JSON]) -> Example:
    raise FormError("a message of an Open Assistant export, which means something in its tree only")


_READERS: dict[Form, Callable[[dict[str, JSON]], Example]] = {
    "alpaca": _alpaca,
    "dolphin": _dolphin,
    "orca": _orca,
    "openai": _openai,
    "sharegpt": _sharegpt,
    "oasst": best_path,
    "oasst-flat": _flat,
    "prompt-completion": _prompt_completion,
    "text": _text,
}
