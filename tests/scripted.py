"""What the tests of recipes share: seeds, a plan, a model that answers by a script, a pool that knows tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from selfinstruct.recipes import make_recipe
from selfinstruct.records import Candidate, Choice, Rejection, Reply, Request, Seed
from selfinstruct.seams import Plan
from selfinstruct.settings import Settings, make_settings

SHOTS = (
    Seed("s1", "Sort a list\nin Python.", "", "sorted(x)", "python", "write", topic="sorting"),
    Seed("s2", "Mend this query.", "SELEC 1", "SELECT 1", "sql", "fix"),
    Seed("s3", "Say what it does:", "int x;", "It declares x."),
)
PLAN = Plan(7, SHOTS, "go", "write", "maps", seed=11)


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

    def verify(self, candidate: Candidate) -> Rejection | None:
        return Rejection("syntax_error") if candidate.output in self.known else None

    def refuse(self, candidate: Candidate, _: Sequence[Seed]) -> Rejection | None:
        return Rejection("too_similar") if candidate.instruction in self.known else None


class Script:
    """A `complete` that gives (or raises) the next reply and keeps what was asked."""

    def __init__(self, *replies: str | tuple[str, str] | Reply | Exception) -> None:
        self.replies = list(replies)
        self.asked: list[Request] = []

    def __call__(self, request: Request) -> Reply:
        self.asked.append(request)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
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
    """What the recipe makes of the script, which has to be used up."""
    found = make_recipe(settings)(plan, pool or Pool(), script)
    assert not script.replies
    return found
