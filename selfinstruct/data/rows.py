"""The one inner form of a dataset's row, whatever file it comes from: messages, and what goes with them.

A single task keeps its `input` apart, so instruction/input/output rows come out as they went in. Nothing here
reads a file; how other people's rows become this is the matter of `forms`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from selfinstruct.records import JSON, row_id

ROLES = ("system", "user", "assistant", "tool", "text")  # `text`: a document without any turn
Form = Literal[
    "alpaca", "dolphin", "orca", "openai", "sharegpt", "oasst", "oasst-flat", "prompt-completion", "text"
]
KEYS = ("instruction", "input", "output", "system", "history")  # of a row as `Example.row` gives it


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: who speaks (one of `ROLES`) and what is said."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """A row: a conversation, a single task, or a plain document (one message of the role `text`).

    `input` is the part of the last user's turn that stands in a field of its own. `score` ranks rows of the
    same prompt. `extra` holds the other fields of the row as they were. `source` and `number` (from 0) say
    where it was read.
    """

    messages: tuple[Message, ...]
    input: str = ""
    score: float | None = None
    extra: dict[str, JSON] = field(default_factory=dict)
    source: str = ""
    number: int = 0

    def last(self, role: str) -> str:
        """What the role said last; empty where it said nothing."""
        for message in reversed(self.messages):
            if message.role == role:
                return message.content
        return ""

    @property
    def instruction(self) -> str:
        """The last user's turn, without the input."""
        return self.last("user")

    @property
    def output(self) -> str:
        """The last answer; of a document, its text."""
        return self.last("assistant") or self.last("text")

    @property
    def system(self) -> str:
        """The system message; empty where there is none."""
        return self.messages[0].content if self.messages and self.messages[0].role == "system" else ""

    @property
    def is_document(self) -> bool:
        """Whether it is a text without any turn."""
        return len(self.messages) == 1 and self.messages[0].role == "text"

    @property
    def is_dialogue(self) -> bool:
        """Whether user and assistant take turns and the assistant has the last word; one system message at most."""
        roles = [message.role for message in self.messages]
        turns = roles[1:] if roles[:1] == ["system"] else roles
        return bool(turns) and turns == ["user", "assistant"] * (len(turns) // 2)

    @property
    def history(self) -> tuple[tuple[str, str], ...]:
        """The (question, answer) pairs before the last one. Only of a dialogue."""
        turns = self.messages[1:] if self.system or self.messages[0].role == "system" else self.messages
        return tuple((turns[at].content, turns[at + 1].content) for at in range(0, len(turns) - 2, 2))

    @property
    def is_task(self) -> bool:
        """Whether it is one question with its answer."""
        return self.is_dialogue and not self.history

    def chat(self) -> tuple[Message, ...]:
        """The messages with the input joined to its turn, a blank line between."""
        if not self.input:
            return self.messages
        at = max(place for place, message in enumerate(self.messages) if message.role == "user")
        turn = Message("user", join(self.messages[at].content, self.input))
        return (*self.messages[:at], turn, *self.messages[at + 1 :])

    def row(self) -> dict[str, JSON]:
        """instruction, input, output; `system` and `history` (pairs) only where there is something in them.

        A document is `{"text": ...}`, and what is no dialogue `{"messages": [...]}`; `forms.example_of` reads
        all of them back.
        """
        if self.is_document:
            return {"text": self.messages[0].content}
        if not self.is_dialogue:
            return {
                "messages": [{"role": turn.role, "content": turn.content} for turn in self.messages],
                **({"input": self.input} if self.input else {}),
            }
        row: dict[str, JSON] = {"instruction": self.instruction, "input": self.input, "output": self.output}
        if self.messages[0].role == "system":
            row["system"] = self.messages[0].content
        if history := self.history:
            row["history"] = [list(pair) for pair in history]
        return row

    def id(self) -> str:
        """16 hex digits; of a single task without a system message, `records.row_id` of its row."""
        if self.is_task and self.messages[0].role != "system":
            return row_id({"instruction": self.instruction, "input": self.input, "output": self.output})
        said = [self.input, *((message.role, message.content) for message in self.messages)]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def join(instruction: str, input_: str) -> str:
    """One text of the two: a blank line between them where both are there."""
    return f"{instruction}\n\n{input_}" if instruction and input_ else instruction or input_


def task(
    instruction: str,
    output: str,
    input_: str = "",
    system: str | None = None,
    history: Sequence[tuple[str, str]] = (),
) -> tuple[tuple[Message, ...], str]:
    """The messages and the input of an instruction/input/output row."""
    messages = [Message("system", system)] if system else []
    for question, answer in history:
        messages += [Message("user", question), Message("assistant", answer)]
    return (*messages, Message("user", instruction), Message("assistant", output)), input_


class FormError(Exception):
    """What is wrong with a row, and with which field; the reader adds the file and the row.

    `value` is what stands there, where it is not even a row.
    """

    def __init__(self, message: str, value: JSON = None) -> None:
        super().__init__(message)
        self.value = value


def text_of(row: dict[str, JSON], name: str, *, optional: bool = False) -> str:
    """The text of a field; where it is optional, null counts as empty.

    Raises:
        FormError: it is missing or no text.
    """
    value = row.get(name)
    if optional and value is None:
        return ""
    if not isinstance(value, str):
        raise FormError(f"the field {name!r} is missing or not text")
    return value


def check_whole(text: str, name: str) -> None:
    """Refuse half a surrogate pair, which JSON can spell and UTF-8 cannot hold.

    Raises:
        FormError: one stands in the text.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise FormError(f"the field {name!r} holds half a character, which this format cannot") from None


def number_of(value: JSON, name: str) -> float:
    """A number of a field, also where a table has it as text; a whole one stays whole.

    Raises:
        FormError: it is none, or not finite.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if isinstance(value, bool) or number - number != 0:
        raise FormError(f"the field {name!r} is no number")
    return value if isinstance(value, int) else number
