"""Deduplicates a dataset of any size in one pass, and decides again under another threshold without one.

Reads rows and writes two files; what a duplicate is, novelty decides. It parses no dataset form and
prints nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias

from selfinstruct.data.writing import RowWriter
from selfinstruct.dataset import FIELDS
from selfinstruct.errors import InputError
from selfinstruct.novelty import LANGUAGE_CAP, Duplicate, Likeness, decide, make
from selfinstruct.records import JSON
from selfinstruct.store import read_log, replacing
from selfinstruct.vocabulary import find_language

Row: TypeAlias = dict[
    str, JSON
]  # instruction, input and output are texts; the others come out as they went in
Keep: TypeAlias = Literal["first", "longest"]
_BATCH = 8192  # rows compared together
SAME = "same words"  # the rule sees no difference at all
Progress: TypeAlias = Callable[[int, int], None]  # rows seen, rows dropped


@dataclass(frozen=True, slots=True)
class Summary:
    """How a deduplication came out: its settings, the rows seen and the rows kept.

    `lowest` is the lowest threshold for which its record can decide again.
    """

    profile: str
    threshold: float
    lowest: float
    language_cap: int
    keep: str
    rows: int
    kept: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """A row by its number in the input, all earlier ones that are alike, and why it is dropped, if it is.

    `alike` and `dropped` name rows by number. "Earlier" is in the order of judging: that of the input, or
    from the longest to the shortest.
    """

    number: int
    row: Row
    alike: list[Likeness]
    dropped: Duplicate | None


def dedup(
    rows: Iterable[Row],
    output: Path,
    record: Path,
    *,
    profile: str = "code",
    threshold: float = 0.7,
    language_cap: int = LANGUAGE_CAP,
    keep: Keep = "first",
    progress: Progress | None = None,
) -> Summary:
    """Write the rows that are no duplicates to `output`, in their order, and all about the others to `record`.

    With `keep="first"` the rows are streamed. With `longest` the row with the most characters of a group
    of duplicates stays; that needs all of them in memory. Both files appear when all is done.

    Args:
        rows: the dataset, instruction, input and output each; other keys stay as they are, and one of them,
            `language`, may tell the programming language.
        output: the dataset to write, a JSON array.
        record: JSON lines: every row that is like an earlier one, dropped or not; a summary is the last.
        profile: `code` or `alpaca`.
        threshold: F above which tasks are alike; the record serves for every higher one too.
        language_cap: languages in which the code rule keeps the same request.
        keep: which row of a group stays.
        progress: told after each row.

    Raises:
        InputError: a setting is out of range, or the files cannot be written.
    """
    if threshold >= 1:
        raise InputError(
            f"threshold {threshold}: nothing is more alike than 1; give a number below it, like 0.7"
        )
    verdicts = judge(rows, profile, threshold, language_cap, keep)
    settings = Summary(profile, threshold, threshold, language_cap, keep, 0, 0)
    return _write(verdicts, output, record, settings, progress)


def rethreshold(rows: Iterable[Row], output: Path, record: Path, threshold: float) -> Summary:
    """Decide again, under a threshold not below the recorded one, from the two files `dedup` wrote.

    Nothing is compared anew, and the result is what `dedup` would have written with this threshold.

    Args:
        rows: what `output` holds now.
        output: the dataset, replaced.
        record: its record, replaced; it goes on to serve from its first threshold upwards.
        threshold: the new one.

    Raises:
        InputError: there is no whole record, the threshold is below its own, or the dataset is not the one
            it belongs to.
    """
    before = read_summary(record)
    if not before.lowest <= threshold < 1:
        raise InputError(
            f"threshold {threshold}: {record} can answer from {before.lowest} to below 1; "
            "for a lower one run dedup on the input again"
        )
    verdicts = _decided_again(rows, output, record, before, threshold)
    return _write(verdicts, output, record, replace(before, threshold=threshold), None)


def judge(
    rows: Iterable[Row], profile: str, threshold: float, language_cap: int, keep: Keep
) -> Iterator[Verdict]:
    """The verdict on each row, in the order of judging.

    Every row is compared with dropped ones too: under a higher threshold they may be back. Only a row in
    which the rule sees exactly what it saw in an earlier one shares that one's fate and is not stored.
    """
    rule = make(profile, threshold, language_cap)
    numbered: Iterable[tuple[int, Row]] = enumerate(rows)
    if keep == "longest":
        numbered = sorted(numbered, key=lambda one: -sum(len(one[1][name]) for name in FIELDS))
    numbers: list[int] = []  # of the rule's entries
    seen: dict[bytes, int] = {}
    dropped: dict[int, Duplicate] = {}
    numbered = iter(numbered)
    while batch := list(islice(numbered, _BATCH)):
        start = len(rule)
        firsts = []  # for each row the number of the first one with the same words
        for number, row in batch:
            task, language = (row["instruction"], row["input"], row["output"]), _language_of(row)
            first = _first_of(rule.reading(*task), language, number, seen)
            if first == number:
                rule.add(*task, language)
                numbers.append(number)
            firsts.append(first)
        found = iter(rule.alike_earlier(start))
        for (number, row), first in zip(batch, firsts, strict=True):
            if first != number:
                alike = [Likeness(first, 1.0, SAME)]
            else:
                alike = [replace(one, entry=numbers[one.entry]) for one in next(found)]
            hit = _decide(alike, dropped, threshold, language_cap)
            if hit is not None:
                dropped[number] = hit
            yield Verdict(number, row, alike, hit)


def _language_of(row: Row) -> str | None:
    """The programming language that a row tells; others mean the language of its words, or something else."""
    told = row.get("language")
    return find_language(told) if isinstance(told, str) else None


def _first_of(reading: Hashable | None, language: str | None, number: int, seen: dict[bytes, int]) -> int:
    """The number of the first row in which the rule saw the same, kept in `seen`; 16 bytes of hash a row."""
    if reading is None:
        return number
    text = repr((reading, language)).encode("utf-8", "surrogatepass")
    return seen.setdefault(hashlib.blake2b(text, digest_size=16).digest(), number)


def _decide(
    alike: list[Likeness], dropped: dict[int, Duplicate], threshold: float, language_cap: int
) -> Duplicate | None:
    """Decide with the rows that are still there; a row of the same words shares the fate of its first."""
    if alike and alike[0].why == SAME:
        first = alike[0].entry
        return dropped.get(first, Duplicate(first, 1.0, SAME))
    return decide((one for one in alike if one.entry not in dropped), threshold, language_cap)


def read_summary(record: Path) -> Summary:
    """The summary at the end of a record.

    Raises:
        InputError: there is no such record, or it is not whole.
    """
    lines = deque(read_log(record), maxlen=1)
    last = lines[0] if lines else None
    if not isinstance(last, dict) or "summary" not in last:
        raise InputError(f"{record}: no record of a finished dedup; run dedup on the input first")
    return Summary(**last["summary"])


def _decided_again(
    rows: Iterable[Row], output: Path, record: Path, before: Summary, threshold: float
) -> Iterator[Verdict]:
    """The rows that are like no earlier one, and then the others in their old order of judging."""
    away: dict[int, Row] = {}
    alike: dict[int, list[Likeness]] = {}
    for line in read_log(record):
        if "number" in line:
            alike[line["number"]] = [Likeness(*one) for one in line["alike"]]
            if "row" in line:
                away[line["number"]] = line["row"]
    left = iter(rows)
    there: dict[int, Row] = {}
    for number in range(before.rows):
        row = away.get(number) or next(left, None)
        if row is None:
            break
        there[number] = row
    if len(there) < before.rows or next(left, None) is not None:
        raise InputError(
            f"{output}: not the {before.kept} rows that {record} tells of; run dedup on the input again"
        )
    dropped: dict[int, Duplicate] = {}
    for number, found in alike.items():
        hit = _decide(found, dropped, threshold, before.language_cap)
        if hit is not None:
            dropped[number] = hit
        yield Verdict(number, there.pop(number), found, hit)
    for number, row in there.items():
        yield Verdict(number, row, [], None)


def _write(
    verdicts: Iterable[Verdict], output: Path, record: Path, settings: Summary, progress: Progress | None
) -> Summary:
    """Write both files from verdicts in any order; rows that cannot be written yet wait in memory."""
    waiting: dict[int, Row | None] = {}
    dropped = written = 0
    with replacing(output, record) as (dataset, log):
        writer = RowWriter(dataset, ".json")
        for seen, verdict in enumerate(verdicts, 1):
            dropped += verdict.dropped is not None
            waiting[verdict.number] = verdict.row if verdict.dropped is None else None
            if verdict.alike:
                log.write(_line(verdict))
            while written in waiting:
                row = waiting.pop(written)
                written += 1
                if row is not None:
                    writer.write([row])
            if progress is not None:
                progress(seen, dropped)
        writer.finish()
        summary = replace(settings, rows=written, kept=writer.count)
        log.write(json.dumps({"summary": asdict(summary)}).encode() + b"\n")
    return summary


def _line(verdict: Verdict) -> bytes:
    line: dict[str, JSON] = {"number": verdict.number}
    if verdict.dropped is not None:
        line |= {"nearest": verdict.dropped.entry, "score": verdict.dropped.score, "why": verdict.dropped.why}
        line["row"] = verdict.row
    line["alike"] = [[one.entry, one.score, one.why, one.language] for one in verdict.alike]
    return json.dumps(line).encode() + b"\n"
