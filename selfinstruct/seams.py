"""The Protocols at the edges: what a backend, a novelty rule and a recipe must offer.

A plain function or a small class that fits is enough; nothing has to be inherited.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from selfinstruct.records import JSON, Candidate, Rejection, Reply, Request, Seed, Source


class Backend(Protocol):
    """Where replies come from. `complete` is called from several threads at once."""

    def complete(self, key: str, request: Request) -> Reply:
        """Answer one request.

        Args:
            key: the name of the request in the run, "k.step" (only a replay looks at it).
            request: what to ask.

        Raises:
            Transient: it may work later; the caller retries.
            RequestRefused: this request will never be taken; the run goes on without it.
            BackendError: nothing will work (key, model, address); the run ends.
            StoppedEarly: there are no more replies (replay).
        """

    def close(self) -> None:
        """Release everything; requests still under way may fail. May be called twice."""


class Match(Protocol):
    """The nearest earlier task: where it stands in the pool, and how alike the two are."""

    @property
    def entry(self) -> int:
        """Its entry number in the pool."""

    @property
    def score(self) -> float:
        """ROUGE-L F1, from 0 to 1."""

    @property
    def why(self) -> str:
        """The part of the rule that was met (`instruction`, `output`, ...)."""


class Novelty(Protocol):
    """A pool of tasks and the rule by which a new one counts as a duplicate of one of them.

    One thread adds; several may ask at the same time.
    """

    def __len__(self) -> int: ...

    def add(self, instruction: str, input_: str, output: str, language: str | None = None) -> int:
        """Put a task into the pool; returns its entry number (0, 1, 2, ...)."""

    def duplicate_of(
        self,
        instruction: str,
        input_: str,
        output: str,
        language: str | None = None,
        limit: int | None = None,
    ) -> Match | None:
        """The nearest of the first `limit` entries (all if None) when it is too near, else None.

        An empty `output` means that only the instruction (and input) is known yet.
        """

    def evidence(self, instruction: str) -> dict[str, JSON]:
        """What the profile records with an accepted task (the historic similarity fields); may be empty."""


class PoolView(Protocol):
    """What a recipe may see when it plans index k: the pool as it stood after commit k - lookahead."""

    @property
    def tasks(self) -> Sequence[Candidate]:
        """The accepted tasks, oldest first."""

    def judge_instruction(self, candidate: Candidate) -> Candidate | None:
        """The candidate with its rejection, if its instruction alone is bound to fail, else None."""

    def refuse(self, candidate: Candidate, shots: Sequence[Seed]) -> Rejection | None:
        """Why the candidate is bound to fail without its code being run, None if nothing is known against it."""

    def verify(self, candidate: Candidate) -> Rejection | None:
        """What the verification of the run's level has against the candidate's output; None if nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for at index k: the examples to show, and what the new task shall be about."""

    k: int
    shots: tuple[Seed, ...]
    language: str | None = None
    kind: str | None = None
    topic: str | None = None
    with_input: bool = False
    seed: int = 0  # for the model's own sampling; differs for every k
    derived_from: tuple[str, ...] = ()  # ids of the shots that a model wrote, or of the source
    source: Source | None = None  # what a job over given data works on


class Planner(Protocol):
    """Where plans come from: seeds are sampled, or given data are worked through."""

    def plan(self, k: int, view: PoolView) -> Plan:
        """The plan of index `k`, given the pool as it stood `lookahead` commits before."""


Complete = Callable[[Request], Reply]
Recipe = Callable[[Plan, PoolView, Complete], list[Candidate]]
