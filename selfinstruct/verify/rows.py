"""Verifies the rows of any dataset: several at a time, told in their order, going on where it was left.

What a verdict is made of is the same as in the loop (`loop.verified`); a row is a recipe that asks nothing.
Nothing is printed here.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, TypeAlias

from selfinstruct.data.writing import RowWriter
from selfinstruct.records import JSON, Candidate, Rejection, Seed
from selfinstruct.seams import Complete, Plan, PoolView, Recipe
from selfinstruct.settings import RunSettings
from selfinstruct.store import replacing
from selfinstruct.verify.loop import Verification, verified
from selfinstruct.verify.verdict import Verdict, rejection_of

AHEAD = 4  # rows under way for each thread, so that a slow one does not stop the others
NO_CODE = "no code"
Row: TypeAlias = dict[
    str, JSON
]  # instruction, input and output are texts; the others come out as they went in
Progress: TypeAlias = Callable[[int, int], None]  # rows seen, rows that failed


class VerifySettings(RunSettings):
    """What the command `verify` can be told. `output` names the run directory."""

    job: ClassVar[str] = "verify"


@dataclass(slots=True)
class Summary:
    """How it came out: rows by language and status, and the reasons of what did not pass."""

    rows: int = 0
    kept: int = 0
    languages: dict[str, Counter[str]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, verdict: Verdict, rejection: Rejection | None) -> None:
        """Count a row."""
        self.rows += 1
        self.kept += rejection is None
        language = str(verdict.evidence.get("language") or NO_CODE)
        self.languages.setdefault(language, Counter())[verdict.status] += 1
        if rejection is not None:
            self.reasons[rejection.reason] += 1
        elif verdict.reason:
            self.reasons[f"{verdict.status}: {verdict.reason}"] += 1

    @property
    def failed(self) -> int:
        """Rows whose code is wrong."""
        return sum(counts["failed"] for counts in self.languages.values())

    def as_json(self) -> dict[str, JSON]:
        """For a program."""
        languages = sorted(self.languages.items(), key=lambda item: (-sum(item[1].values()), item[0]))
        return {
            "rows": self.rows,
            "kept": self.kept,
            "languages": {name: dict(counts.most_common()) for name, counts in languages},
            "reasons": dict(self.reasons.most_common()),
        }


@dataclass(frozen=True, slots=True)
class _NoPool:
    """A view of no pool: nothing but its code counts against a row."""

    tasks: Sequence[Candidate] = ()

    def judge_instruction(self, _: Candidate) -> Candidate | None:
        return None

    def refuse(self, _: Candidate, __: Sequence[Seed]) -> Rejection | None:
        return None

    def verify(self, _: Candidate) -> Rejection | None:
        return None


def candidate_of(row: Row) -> Candidate:
    """A row as what is verified."""
    return Candidate(row["instruction"], row["input"], row["output"])


def verdicts_of(
    rows: Iterable[Row], verification: Verification, complete: Callable[[int], Complete], threads: int
) -> Iterator[tuple[Row, Verdict]]:
    """Each row with its verdict, in order.

    Args:
        rows: the dataset.
        verification: at which level, with what.
        complete: gives what answers requests about row k.
        threads: rows at a time.

    Raises:
        SelfInstructError: what the backend raises; rows before that are told, and all verdicts are kept.
    """

    def check(k: int, row: Row) -> tuple[Row, Verdict]:
        candidate = candidate_of(row)
        recipe: Recipe = verified(lambda *_: [candidate], verification)
        view: PoolView = _NoPool()
        (found,) = recipe(Plan(k, ()), view, complete(k))
        assert found.verdict is not None  # noqa: S101 - nothing but its code is looked at
        return row, found.verdict

    pool = ThreadPoolExecutor(threads)
    under_way: deque[Future[tuple[Row, Verdict]]] = deque()
    try:
        for k, row in enumerate(rows):
            under_way.append(pool.submit(check, k, row))
            if len(under_way) >= AHEAD * threads:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def verify_rows(
    found: Iterable[tuple[Row, Verdict]], output: Path | None, *, required: bool, progress: Progress
) -> Summary:
    """Count verdicts, and write the rows that may stay to `output`, which appears when all is done.

    Args:
        found: rows with their verdicts.
        output: the dataset to write, or None.
        required: whether a row goes that could not be verified.
        progress: is told how far it is.

    Raises:
        InputError: the file cannot be written.
        DiskFull: there is no room for it.
    """
    summary = Summary()

    def kept() -> Iterator[Row]:
        for row, verdict in found:
            rejection = rejection_of(verdict, required=required)
            summary.add(verdict, rejection)
            progress(summary.rows, summary.failed)
            if rejection is None:
                yield row

    if output is None:
        deque(kept(), maxlen=0)
        return summary
    with replacing(output) as (file,):
        writer = RowWriter(file, ".json")
        for row in kept():
            writer.write([row])
        writer.finish()
    return summary
