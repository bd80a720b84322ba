"""Takes the rows out of a dataset that overlap with a benchmark, in one pass, and keeps them with evidence.

Reads rows and writes two files; what overlaps, `overlap` decides. It parses no dataset form and prints
nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from selfinstruct.data.writing import RowWriter
from selfinstruct.dataset import FIELDS, SYSTEM
from selfinstruct.records import JSON
from selfinstruct.store import replacing
from selfinstruct.verify.overlap import Index, Overlap

Row: TypeAlias = dict[str, JSON]  # its texts are looked at; other keys come out as they went in
Progress: TypeAlias = Callable[[int, int], None]  # rows seen, rows dropped


@dataclass(slots=True)
class Summary:
    """How a decontamination came out: rows read, rows that overlap by task of a benchmark."""

    rows: int = 0
    tasks: Counter[str] = field(default_factory=Counter)

    @property
    def dropped(self) -> int:
        """Rows that overlap with some task."""
        return self.tasks.total()

    def as_json(self) -> dict[str, JSON]:
        """For a record or a program."""
        kept = self.rows - self.dropped
        return {
            "rows": self.rows,
            "kept": kept,
            "dropped": self.dropped,
            "tasks": dict(self.tasks.most_common()),
        }


def judge(
    rows: Iterable[Row], index: Index, summary: Summary, progress: Progress | None = None
) -> Iterator[tuple[int, Row, Overlap | None]]:
    """Each row with its number and what it overlaps with, counted in `summary`."""
    for number, row in enumerate(rows):
        texts = [(name, row.get(name)) for name in (*FIELDS, SYSTEM)]
        found = index.find([(name, text) for name, text in texts if isinstance(text, str)])
        summary.rows += 1
        if found is not None:
            summary.tasks[found.task] += 1
        if progress is not None:
            progress(summary.rows, summary.dropped)
        yield number, row, found


def decontaminate(
    rows: Iterable[Row], index: Index, output: Path, record: Path, progress: Progress | None = None
) -> Summary:
    """Write the rows without an overlap to `output`, the others with their evidence to `record`.

    Both files appear when all is done. No more than a row is held in memory.

    Args:
        rows: the dataset.
        index: the benchmarks' tasks.
        output: the dataset to write, a JSON array.
        record: JSON lines: number, row and overlap of every row left out; a summary is the last.
        progress: is told how far it is.

    Raises:
        InputError, DiskFull: a file cannot be written; nothing has changed.
    """
    summary = Summary()
    with replacing(output, record) as (dataset, log):
        writer = RowWriter(dataset, ".json")
        for number, row, found in judge(rows, index, summary, progress):
            if found is None:
                writer.write([row])
            else:
                log.write(line_of(number, row, found))
        writer.finish()
        log.write(json.dumps({"summary": summary.as_json()}).encode() + b"\n")
    return summary


def line_of(number: int, row: Row, found: Overlap) -> bytes:
    """A row that overlaps, as a JSON line."""
    return json.dumps({"number": number, "overlap": found.as_json(), "row": row}).encode() + b"\n"
