"""What verification came to: one record, and the rejection that follows from it. Nothing is checked here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from selfinstruct.records import JSON, Rejection

Level = Literal["syntax", "run", "tests"]
Status = Literal["passed", "failed", "unavailable", "skipped"]

UNVERIFIED = "unverified"
_REASONS = {"syntax": "syntax_error", "run": "run_failed", "tests": "tests_failed"}
TESTS_ARE_BAD = {"bad_tests", "weak_tests"}  # reasons for which another answer would not help


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the highest level that was come to says of an answer.

    Attributes:
        level: that level.
        status: `unavailable` is what cannot be told here (toolchain, sandbox or a package is missing),
            `skipped` is where there is nothing to tell (prose, a fragment, no function to test).
        reason: a name for what happened; "" where it passed.
        evidence: what a person would want to see: language, exit status, message.
    """

    level: Level
    status: Status
    reason: str = ""
    evidence: dict[str, JSON] = field(default_factory=dict)


def notes_of(verdict: Verdict) -> dict[str, JSON]:
    """What the journal tells of an accepted task's verdict."""
    why = {"why": verdict.reason} if verdict.reason else {}
    return {"verification": verdict.status, **why}


def rejection_of(verdict: Verdict, *, required: bool = False) -> Rejection | None:
    """The rejection of an answer with this verdict, None if it may stay.

    Reasons are `syntax_error`, `run_failed`, `tests_failed`, `bad_tests` (they do not run), `weak_tests` (they
    hold for functions that do nothing) and `unverified`.

    Args:
        verdict: of the answer.
        required: `--require-verification`: what cannot be told here goes, too.
    """
    named = {"why": verdict.reason} if verdict.reason else {}
    if verdict.status == "failed":
        reason = verdict.reason if verdict.reason in TESTS_ARE_BAD else _REASONS[verdict.level]
        return Rejection(reason, named | verdict.evidence)
    if required and verdict.status == "unavailable":
        return Rejection(UNVERIFIED, {"level": verdict.level} | named | verdict.evidence)
    return None
