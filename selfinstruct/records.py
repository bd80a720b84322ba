"""The words of the project as frozen records: seed, request, reply, candidate, decision, task.

Nothing here reads a file, asks a model or decides anything.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from selfinstruct.verify.verdict import Verdict

JSON: TypeAlias = Any  # a value that `json.dumps` takes
Row: TypeAlias = dict[str, str]  # the keys instruction, input, output; and system, where it has one


@dataclass(frozen=True, slots=True)
class Seed:
    """A task written by a person, shown to the model as an example.

    `language`, `kind`, `difficulty` and `topic` are None where the seed file does not tell them
    (the historic JSONL form).
    """

    id: str
    instruction: str
    input: str
    output: str
    language: str | None = None
    kind: str | None = None
    difficulty: str | None = None
    topic: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """What a job over given data works on at one index: a row of a dataset, or a piece of code.

    `id` is the row's `row_id`, or a hash of the code; `origin` tells where it stood, in words that hold
    no more of a path than the user gave. A piece of code is the `output` of a task without instruction.
    """

    id: str
    instruction: str = ""
    input: str = ""
    output: str = ""
    system: str = ""
    origin: str = ""
    licence: str | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent to the model: a raw `prompt` to go on with, or chat `messages` of (role, content).

    `schema` is a JSON schema that the answer shall follow, where the server can; `extra` holds
    fields only some servers know (llama.cpp's `repeat_penalty`, say).
    """

    prompt: str | None = None
    messages: tuple[tuple[str, str], ...] = ()
    max_tokens: int = 1024
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1
    schema: dict[str, JSON] | None = None
    extra: dict[str, JSON] = field(default_factory=dict)

    def digest(self) -> str:
        """A 16-digit hex hash of everything that is asked; equal requests have equal digests."""
        asked: list[JSON] = [
            self.prompt,
            self.messages,
            self.max_tokens,
            self.temperature,
            self.top_p,
            self.stop,
        ]
        asked = [*asked, self.seed, self.n, self.schema, self.extra]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the server counted them; `cached` is the part of `prompt` it had already read."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt + other.prompt, self.completion + other.completion, self.cached + other.cached
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer: its text and why it ended (`stop`, `length`, `content_filter`, ...)."""

    text: str
    finish_reason: str = "stop"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for a request: at least one choice, the bill, the model that says it answered."""

    choices: tuple[Choice, ...]
    usage: Usage = Usage()
    model: str = ""
    seconds: float = 0.0
    cost: float | None = None  # dollars; None where no price is known

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self.choices[0].text

    @property
    def finish_reason(self) -> str:
        """The first choice's reason."""
        return self.choices[0].finish_reason


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a candidate is refused: one named reason, and the evidence for it."""

    reason: str
    evidence: dict[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instruction/input/output triple parsed from a reply.

    `raw` is the text it was read from. A candidate that could not be read, or that the recipe
    gave up on, carries its `rejection` from there. `verdict` is what running its code came to, where that
    is asked for; `notes` go into the evidence of whatever is decided. `instance` numbers
    the instances of one task, from 0: they have their instruction in common, and a later one is new if the
    task is. `system` is the system message it was answered under.
    """

    instruction: str = ""
    input: str = ""
    output: str = ""
    raw: str = ""
    language: str | None = None
    kind: str | None = None
    rejection: Rejection | None = None
    verdict: Verdict | None = None
    notes: dict[str, JSON] = field(default_factory=dict)
    instance: int = 0
    system: str = ""

    @property
    def row(self) -> Row:
        """What the dataset holds of it."""
        row = {"instruction": self.instruction, "input": self.input, "output": self.output}
        return row | {"system": self.system} if self.system else row


@dataclass(frozen=True, slots=True)
class Decision:
    """Accepted (`rejection` is None) or rejected, with evidence such as the nearest task and its score."""

    candidate: Candidate
    rejection: Rejection | None = None
    evidence: dict[str, JSON] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Whether the candidate becomes a task."""
        return self.rejection is None


def row_id(row: Row) -> str:
    """The 16-digit hex name of a dataset row: a hash of its texts, so it survives reordering."""
    instruction, input_, output = row["instruction"], row["input"], row["output"]
    lengths = f"{len(instruction)},{len(input_)}"
    if system := row.get("system", ""):
        lengths += f",{len(output)}"
    text = f"{lengths}:{instruction}{input_}{output}{system}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
