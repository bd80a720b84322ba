"""The lines of the journal: decisions as JSON, and back. Reads and writes no file.

Journal lines, in order:
    {"adopted": {row}}                 a row that stood in the dataset before (or that the user wrote)
    {"deleted": "id"}                  a row that the user took out of the dataset
    {"k": 0, "from": 0, ...}           the decisions on index k, from its candidate number `from` on
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from selfinstruct.errors import InputError
from selfinstruct.records import JSON, Candidate, Decision, Rejection, row_id


@dataclass(frozen=True, slots=True)
class Commit:
    """The decisions on (a part of) index k, as the journal has them."""

    k: int
    start: int  # candidates before this one were decided in an earlier line
    decisions: tuple[Decision, ...]
    done: bool  # whether all candidates of index k are decided
    seeds: tuple[str, ...] = ()
    derived_from: tuple[str, ...] = ()
    origin: dict[str, str] = field(default_factory=dict)  # where the source stood, and its licence

    def line(self) -> JSON:
        """The journal line."""
        line: dict[str, JSON] = {"k": self.k, "from": self.start, "done": self.done, "seeds": self.seeds}
        if self.derived_from:
            line["derived_from"] = self.derived_from
        if self.origin:
            line["origin"] = self.origin
        line["decisions"] = [_decision_line(decision) for decision in self.decisions]
        return line


def _decision_line(decision: Decision) -> JSON:
    candidate = decision.candidate
    line: dict[str, JSON] = {"accepted": decision.accepted}
    if decision.accepted:
        line["id"] = row_id(candidate.row)
    else:
        assert decision.rejection is not None  # noqa: S101 - that is what not accepted means
        line["reason"] = decision.rejection.reason
    line |= candidate.row
    line |= {name: value for name in ("language", "kind") if (value := getattr(candidate, name))}
    if not decision.accepted and not candidate.output:
        line["raw"] = candidate.raw
    evidence = decision.rejection.evidence if decision.rejection else decision.evidence
    if evidence:
        line["evidence"] = evidence
    return line


def decision_of(line: JSON) -> Decision:
    """The decision that a journal line's entry tells of."""
    candidate = Candidate(
        line["instruction"],
        line["input"],
        line["output"],
        line.get("raw", ""),
        line.get("language"),
        line.get("kind"),
        system=line.get("system", ""),
    )
    evidence = line.get("evidence", {})
    if line["accepted"]:
        return Decision(candidate, evidence=evidence)
    return Decision(candidate, Rejection(line["reason"], evidence))


def commit_of(line: JSON) -> Commit:
    """The commit that a journal line tells of.

    Raises:
        InputError: it is no such line.
    """
    try:
        return Commit(
            line["k"],
            line["from"],
            tuple(decision_of(entry) for entry in line["decisions"]),
            line["done"],
            tuple(line["seeds"]),
            tuple(line.get("derived_from", ())),
            dict(line.get("origin", {})),
        )
    except (KeyError, TypeError, AttributeError):
        told = json.dumps(line)[:80]
        raise InputError(
            f"journal.jsonl: a line that is no decision: {told}; restore it from a backup"
        ) from None
