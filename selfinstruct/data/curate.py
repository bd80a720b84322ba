"""Runs a pipeline: examples through its steps in order, what stays to one file and what goes to another.

What a step is, and when it drops a row, is the matter of `pipeline`, `steps` and `whole_steps`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from time import process_time
from typing import TypeAlias

from selfinstruct.data.outputs import owned
from selfinstruct.data.pipeline import Step
from selfinstruct.data.rows import Example
from selfinstruct.data.spool import Spool
from selfinstruct.data.steps import Judge, make_judge
from selfinstruct.data.whole_steps import Decide, make_decide
from selfinstruct.data.writing import RowWriter, check_output, encode, row_of
from selfinstruct.dataset import run_directory_of
from selfinstruct.records import JSON, Rejection
from selfinstruct.store import replacing, write_atomically

BATCH = 1000  # rows that go through a step together
_MARK = {"step", "kind", "reason", "evidence"}  # of a dropped row
Progress: TypeAlias = Callable[[int], None]  # rows read since the last call
Batches: TypeAlias = Iterator[Sequence[Example]]


@dataclass(slots=True)
class Tally:
    """What a step did: rows in and out, the reasons, its CPU seconds."""

    number: int  # from 1
    kind: str
    rows: int = 0
    kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def as_json(self) -> dict[str, JSON]:
        """With the reasons from the commonest on."""
        return {
            "step": self.number,
            "kind": self.kind,
            "in": self.rows,
            "out": self.kept,
            "reasons": dict(self.reasons.most_common()),
            "cpu_seconds": round(self.seconds, 3),
        }


@dataclass(slots=True)
class Report:
    """How a curation came out."""

    output: Path
    dropped: Path
    rows: int = 0
    kept: int = 0
    steps: list[Tally] = field(default_factory=list)
    read_seconds: float = 0.0
    write_seconds: float = 0.0

    def as_json(self) -> dict[str, JSON]:
        """As it stands in `curate.json`."""
        return {
            "output": str(self.output),
            "rows": self.rows,
            "kept": self.kept,
            "dropped": str(self.dropped),
            "steps": [tally.as_json() for tally in self.steps],
            "read_cpu_seconds": round(self.read_seconds, 3),
            "write_cpu_seconds": round(self.write_seconds, 3),
        }


# Told of every row that is dropped: by which step, the row, why.
OnDrop: TypeAlias = Callable[[Tally, Example, Rejection], None]


class Pipeline:
    """Steps that are ready to run: patterns compiled, tokenizers loaded. For one stream of rows.

    Args:
        steps: the settings, in order.
        folder: where rows wait for steps that need all of them; must exist.

    Raises:
        InputError: a step lacks what it needs.
    """

    def __init__(self, steps: Sequence[Step], folder: Path) -> None:
        self.tallies = [Tally(number, step.kind) for number, step in enumerate(steps, 1)]
        self._folder = folder
        self._judging = [make_judge(step) for step in steps]
        self._deciding = [
            make_decide(step) if judge is None else None
            for step, judge in zip(steps, self._judging, strict=True)
        ]

    def run(self, batches: Batches, on_drop: OnDrop) -> Batches:
        """What stays of the batches, in order."""
        for tally, judge, decide in zip(self.tallies, self._judging, self._deciding, strict=True):
            if judge is not None:
                batches = judged(batches, judge, tally, on_drop)
            elif decide is not None:
                batches = _decided(batches, decide, tally, on_drop, self._folder)
        return batches


def judged(batches: Batches, judge: Judge, tally: Tally, on_drop: OnDrop) -> Batches:
    """What one step leaves of a stream."""
    for batch in batches:
        began = process_time()
        verdicts = judge(batch)
        tally.seconds += process_time() - began
        yield _sorted_out(batch, verdicts, tally, on_drop)


def _sorted_out(
    batch: Sequence[Example], verdicts: Sequence[Rejection | None], tally: Tally, on_drop: OnDrop
) -> Sequence[Example]:
    tally.rows += len(batch)
    kept = []
    for example, rejection in zip(batch, verdicts, strict=True):
        if rejection is None:
            kept.append(example)
        else:
            tally.reasons[rejection.reason] += 1
            on_drop(tally, example, rejection)
    tally.kept += len(kept)
    return kept


def _decided(batches: Batches, decide: Decide, tally: Tally, on_drop: OnDrop, folder: Path) -> Batches:
    spool = Spool(folder / f".step-{tally.number}.rows")
    try:
        for batch in batches:
            spool.extend(batch)
        began = process_time()
        dropped = decide(spool, folder)
        tally.seconds += process_time() - began
        place = 0
        for batch in in_batches(spool):
            verdicts = [dropped.get(place + at) for at in range(len(batch))]
            place += len(batch)
            yield _sorted_out(batch, verdicts, tally, on_drop)
    finally:
        spool.close()


def in_batches(examples: Iterable[Example]) -> Batches:
    """`BATCH` at a time."""
    rest = iter(examples)
    while batch := list(islice(rest, BATCH)):
        yield batch


def dropped_row(tally: Tally, example: Example, rejection: Rejection) -> dict[str, JSON]:
    """The row of a dropped example, which any command that reads datasets can read, and why it was dropped."""
    why: dict[str, JSON] = {"step": tally.number, "kind": tally.kind, "reason": rejection.reason}
    why |= {"evidence": rejection.evidence, "source": example.source, "row": example.number}
    return {**row_of(example), "dropped": why}


def _taken_back(example: Example) -> Example:
    """The example without the mark that an earlier curation put on it when it was dropped."""
    mark = example.extra.get("dropped") if example.extra else None
    if not (isinstance(mark, dict) and mark.keys() >= _MARK):
        return example
    return replace(example, extra={name: value for name, value in example.extra.items() if name != "dropped"})


def dropped_of(output: Path) -> Path:
    """Where the rows stand that did not come into `output`."""
    return run_directory_of(output) / "dropped.jsonl"


def curate(
    examples: Iterable[Example], steps: Sequence[Step], output: Path, progress: Progress | None = None
) -> Report:
    """Write the examples that pass all steps to `output`, the others to `dropped.jsonl` in its run directory.

    Both appear when all is done, with `curate.json`, the report. Rows stream; a step that needs all of them
    has them wait in the run directory.

    Args:
        examples: the rows.
        steps: what they must pass, in order.
        output: ends in `.json` or `.jsonl`.
        progress: told now and then how many more rows were read.

    Raises:
        InputError: a step lacks what it needs, or the output cannot be written or is another command's.
        LockedError: another run writes there.
    """
    check_output(output)
    report = Report(output, dropped_of(output))
    with owned(output, "curate") as folder:
        pipeline = Pipeline(steps, folder)
        report.steps = pipeline.tallies
        with replacing(report.output, report.dropped) as (kept_file, dropped_file):

            def drop(tally: Tally, example: Example, rejection: Rejection) -> None:
                dropped_file.write(encode(dropped_row(tally, example, rejection)).encode() + b"\n")

            def counted() -> Batches:
                began = process_time()
                for batch in in_batches(map(_taken_back, examples)):
                    report.read_seconds += process_time() - began
                    report.rows += len(batch)
                    if progress is not None:
                        progress(len(batch))
                    yield batch
                    began = process_time()

            writer = RowWriter(kept_file, output.suffix)
            for batch in pipeline.run(counted(), drop):
                began = process_time()
                writer.write(map(row_of, batch))
                report.write_seconds += process_time() - began
            writer.finish()
            report.kept = writer.count
        told = {**report.as_json(), "settings": [step.model_dump(mode="json") for step in steps]}
        write_atomically(folder / "curate.json", json.dumps(told, indent=2).encode() + b"\n")
    return report
