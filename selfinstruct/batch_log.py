"""What a run directory knows of its batches: `batches.jsonl`, append-only, and the fold of it.

Asks no server. A batch is `planned` before a byte is sent, `uploaded` before the server is told to begin,
`created` when its id is known and `ended` when all its answers are in the replies log; so a kill between
any two of them leaves a batch whose fate can be looked up, never one that is unknown.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import time

from selfinstruct.calls import estimate_tokens
from selfinstruct.records import JSON, Request
from selfinstruct.store import AppendLog, read_log

FILE = "batches.jsonl"
MOST_REQUESTS = 50_000  # in one batch, by the server's rules
QUEUE_IS_FULL = "token_limit_exceeded"  # the account may not have so many tokens waiting in batches
COUNTED = ("completed", "expired")  # a request without an answer after such an end was tried


@dataclass(frozen=True, slots=True)
class Sent:
    """One request of a batch: which it is, its fields (a place in `Batch.shapes`), its tokens at worst."""

    digest: str
    shape: int
    tokens: tuple[int, int]


@dataclass(slots=True)
class Batch:
    """A batch that has not ended. `id` is None until the server's answer to its creation is known."""

    name: str
    endpoint: str
    left_out: frozenset[str]
    shapes: list[Request]
    requests: dict[str, Sent]
    begun: float
    touched: float
    file: str | None = None
    id: str | None = None

    def request(self, key: str) -> Request:
        """What was asked, without the words of the prompt."""
        return self.shapes[self.requests[key].shape]


def plan_of(
    name: str, endpoint: str, left_out: frozenset[str], requests: dict[str, tuple[str, Request]]
) -> JSON:
    """The line for a batch that is about to be sent; `requests` are (digest, request) by key."""
    shapes: list[JSON] = []
    sent: list[JSON] = []
    for key, (digest, request) in requests.items():
        # What all requests of a step have in common stands in the line once.
        bare = replace(
            request,
            prompt=None if request.messages else "",
            messages=(("user", ""),) if request.messages else (),
            seed=None if request.seed is None else 0,
        )
        shape = asdict(bare)
        if shape not in shapes:
            shapes.append(shape)
        sent.append([key, digest, shapes.index(shape), *estimate_tokens(request)])
    return {
        "batch": name,
        "state": "planned",
        "endpoint": endpoint,
        "left_out": sorted(left_out),
        "shapes": shapes,
        "requests": sent,
    }


def _shape_of(line: JSON) -> Request:
    fixed = {"messages": tuple((role, text) for role, text in line["messages"]), "stop": tuple(line["stop"])}
    return Request(**{**line, **fixed})


@dataclass(slots=True)
class Known:
    """The fold of the log."""

    open: dict[str, Batch] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)  # batches that brought a request nothing, by key
    left_out: set[str] = field(default_factory=set)  # fields that the server does not take
    most: int = field(default_factory=lambda: MOST_REQUESTS)  # requests of the next batch

    def apply(self, line: JSON) -> None:
        """Take in one line."""
        state = line["state"]
        if state == "gave_up":
            self.tries.clear()
        elif state == "planned":
            self.open[line["batch"]] = Batch(
                line["batch"],
                line["endpoint"],
                frozenset(line["left_out"]),
                [_shape_of(shape) for shape in line["shapes"]],
                {
                    key: Sent(digest, shape, (prompt, completion))
                    for key, digest, shape, prompt, completion in line["requests"]
                },
                line["time"],
                line["time"],
            )
        elif state == "uploaded":
            batch = self.open[line["batch"]]
            batch.file, batch.touched = line["file"], line["time"]
        elif state == "created":
            self.open[line["batch"]].id = line["id"]
        elif state == "ended":
            self._end(self.open.pop(line["batch"]), line)

    def _end(self, batch: Batch, line: JSON) -> None:
        self.left_out |= set(line["left_out"])
        if line["status"] in COUNTED:
            self.tries.update(line["unanswered"])
        if QUEUE_IS_FULL in line["codes"]:
            self.most = max(1, len(batch.requests) // 2)
        elif line["status"] == "completed":
            self.most = min(MOST_REQUESTS, 2 * self.most)


class BatchLog:
    """The log, open for writing, with what is known by it."""

    def __init__(self, directory: Path) -> None:
        self.known = Known()
        self._log = AppendLog(directory / FILE)
        for line in self._log.read():
            self.known.apply(line)

    def note(self, line: JSON) -> None:
        """Write a line to the disk for good, then take it in."""
        line = {**line, "time": round(time(), 3)}
        self._log.append(line)
        self._log.sync()
        self.known.apply(line)

    def close(self) -> None:
        """Close the file."""
        self._log.close()


def read_open(directory: Path) -> dict[str, Batch]:
    """The batches of a run that have not ended, by our name for them; changes nothing."""
    known = Known()
    for line in read_log(directory / FILE):
        known.apply(line)
    return known.open
