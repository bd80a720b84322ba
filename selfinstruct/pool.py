"""The pool a candidate must be new against, and the judgement: filters, novelty, syntax, in this order.

Pure: no file, clock, thread or model. `judge` looks, `apply` changes; folding the journal's decisions with
`apply` gives the same pool as the live run had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from selfinstruct.records import Candidate, Decision, Rejection, Row, Seed, row_id
from selfinstruct.seams import Novelty
from selfinstruct.verify.verdict import Verdict, notes_of, rejection_of

Filter = Callable[[Candidate, Sequence[Seed]], Rejection | None]
Check = Callable[[Candidate], Rejection | None]


def accept(_: Candidate, __: Sequence[Seed] = ()) -> Rejection | None:
    """The filter and the check that has nothing against any candidate."""
    return None


@dataclass(frozen=True, slots=True)
class Rules:
    """What a profile and `--verify` ask of a candidate.

    `refuse` is the profile's filters, `refuse_instruction` those of them that need the instruction only, `check`
    what else counts against an output whatever its code is. Verdicts on code come from `look` when a candidate is
    decided; where they take long, `late`, they are made where the recipe is (`verify.loop`), and come with the
    candidate. `object` says what a verdict counts for. `verify` is for a recipe that asks itself, about code that
    is not the output of its candidates.
    """

    refuse: Filter
    refuse_instruction: Filter
    check: Check = accept
    look: Callable[[Candidate], Verdict] | None = None
    late: bool = False
    object: Callable[[Verdict], Rejection | None] = rejection_of
    verify: Check = accept


class Pool:
    """Seeds, rows taken over and accepted tasks, with the rules for the next one.

    The state after each commit is remembered by its size, so that a `View` of an earlier state costs nothing.
    """

    def __init__(self, seeds: Sequence[Seed], rules: Rules, novelty: Novelty) -> None:
        self.seeds = seeds
        self.tasks: list[Candidate] = []
        self.rules = rules
        self.novelty = novelty
        self._names = [f"seed {seed.id}" for seed in seeds]
        self._sizes: list[tuple[int, int]] = []
        for seed in seeds:
            novelty.add(seed.instruction, seed.input, seed.output, seed.language)
        self._begin = (len(novelty), 0)

    def adopt(self, row: Row) -> None:
        """Take in a row that the user's dataset held; it is not judged."""
        self.novelty.add(row["instruction"], row["input"], row["output"])
        self._names.append(f"row {row_id(row)}")
        if not self._sizes:
            self._begin = (len(self.novelty), 0)

    def judge(self, candidate: Candidate, shots: Sequence[Seed]) -> Decision:
        """Accept or reject a candidate against the pool as it is now."""
        verdict, rejection = None, candidate.rejection or self.rules.refuse(candidate, shots)
        if rejection is None:
            rejection = self._duplicate(candidate, self._before_index(candidate)) or self.rules.check(
                candidate
            )
        if rejection is None and (verdict := self._verdict(candidate)) is not None:
            rejection = self.rules.object(verdict)
        if rejection is not None:
            rejection = Rejection(rejection.reason, rejection.evidence | candidate.notes)
            return Decision(replace(candidate, rejection=None), rejection)
        told = notes_of(verdict) if verdict else {}
        evidence = self.novelty.evidence(candidate.instruction) | told | candidate.notes
        return Decision(candidate, evidence=evidence)

    def _verdict(self, candidate: Candidate) -> Verdict | None:
        """The verdict on the candidate's code; None where nobody asks for one."""
        if not self.rules.late:
            return self.rules.look(candidate) if self.rules.look else None
        # What is no duplicate now was none in any earlier view; else code that nobody ran would be taken for right.
        assert candidate.verdict is not None  # noqa: S101
        return candidate.verdict

    def _before_index(self, candidate: Candidate) -> int | None:
        """For a further instance of a task the entries that were there before its index; else all count."""
        if not candidate.instance:
            return None
        return (self._sizes[-1] if self._sizes else self._begin)[0]

    def _duplicate(self, candidate: Candidate, limit: int | None) -> Rejection | None:
        match = self.novelty.duplicate_of(
            candidate.instruction, candidate.input, candidate.output, candidate.language, limit
        )
        if match is None:
            return None
        evidence = {"nearest": self._names[match.entry], "score": match.score, "compared": match.why}
        return Rejection("too_similar", evidence)

    def apply(self, decision: Decision) -> None:
        """Take in a decision: an accepted task joins the pool."""
        if decision.accepted:
            task = decision.candidate
            self.novelty.add(task.instruction, task.input, task.output, task.language)
            self._names.append(f"row {row_id(task.row)}")
            self.tasks.append(task)

    def finish(self, k: int) -> None:
        """Note that all of index k is decided; indices come in order."""
        assert k == len(self._sizes)  # noqa: S101 - else the journal has a hole, and nothing may go on
        self._sizes.append((len(self.novelty), len(self.tasks)))

    @property
    def decided(self) -> int:
        """How many indices are wholly decided; the next one's number."""
        return len(self._sizes)

    def view(self, k: int) -> View:
        """The pool as it stood after commit `k` (before the first one if `k` is negative)."""
        entries, tasks = self._sizes[k] if k >= 0 else self._begin
        return View(self, entries, tasks)


@dataclass(frozen=True, slots=True)
class View:
    """An earlier state of the pool; may be read by several threads while the pool grows."""

    pool: Pool
    entries: int
    task_count: int

    @property
    def tasks(self) -> Sequence[Candidate]:
        """The accepted tasks of then, oldest first."""
        return self.pool.tasks[: self.task_count]

    def judge_instruction(self, candidate: Candidate) -> Candidate | None:
        """The candidate with its rejection, if its instruction alone is already bound to fail, else None."""
        rejection = self.pool.rules.refuse_instruction(candidate, ()) or self.pool._duplicate(  # noqa: SLF001
            candidate, self.entries
        )
        return None if rejection is None else replace(candidate, rejection=rejection)

    def refuse(self, candidate: Candidate, shots: Sequence[Seed]) -> Rejection | None:
        """Why the candidate is bound to fail without its code being run, None if nothing is known against it."""
        pool = self.pool
        return (
            pool.rules.refuse(candidate, shots)
            or pool._duplicate(candidate, self.entries)  # noqa: SLF001
            or pool.rules.check(candidate)
        )

    def verify(self, candidate: Candidate) -> Rejection | None:
        """What the verification has against the candidate's output."""
        return self.pool.rules.verify(candidate)
