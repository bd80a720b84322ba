"""Makes a mix: reads the sources one after the other, takes of each what the plan says, writes it in its order.

What a source gives is the matter of `mix_plan`; what it may hold, of its steps. Rows wait on the disk, so the
sources may be larger than the memory: some 200 bytes a row stand in it, most of them for finding duplicates.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from time import process_time
from typing import BinaryIO, TypeAlias

import numpy as np

from selfinstruct import __version__, dedup
from selfinstruct.data.curate import (
    BATCH,
    Pipeline,
    Progress,
    Tally,
    dropped_of,
    dropped_row,
    in_batches,
    judged,
)
from selfinstruct.data.mix_plan import Ints, Share, TooFew, Wish, share_out, shuffled
from selfinstruct.data.mix_settings import Mix, Source
from selfinstruct.data.outputs import check_outputs, owned
from selfinstruct.data.parts import CHARACTERS_A_TOKEN, compared, count_characters, texts_of, token_counter
from selfinstruct.data.pipeline import ExactDuplicates
from selfinstruct.data.reading import BadRows, digest_of, files_of, read_examples
from selfinstruct.data.rows import Example, Message
from selfinstruct.data.spool import Spool
from selfinstruct.data.steps import make_judge
from selfinstruct.data.writing import RowWriter, check_output, encode, row_of
from selfinstruct.errors import InputError
from selfinstruct.records import JSON, Rejection
from selfinstruct.store import replacing, write_atomically

Budget: TypeAlias = dict[str, int]  # rows, characters, tokens
_Count: TypeAlias = Callable[[Sequence[Example]], list[tuple[int, int]]]  # characters and tokens of each
_NOTHING: Budget = {"rows": 0, "characters": 0, "tokens": 0}
DUPLICATES = "duplicates"  # the step that every mix has
_CUT = 0.1  # of a piece, at its end, is searched for a good place to cut


@dataclass(slots=True)
class Gathered:
    """What was found in a source: its rows on the disk, and how they came about."""

    source: Source
    spool: Spool
    rows: int = 0  # as read
    pieces: int = 0  # after documents were cut up
    bad: int = 0
    tallies: list[Tally] = field(default_factory=list)
    places: Ints = field(default_factory=lambda: np.empty(0, np.int64))  # of the rows that no step dropped
    training: Budget = field(default_factory=lambda: dict(_NOTHING))
    validation: Budget = field(default_factory=lambda: dict(_NOTHING))


@dataclass(slots=True)
class MixReport:
    """How a mix came out; `seconds` of CPU are told by part of the work."""

    output: Path
    validation: Path | None
    manifest: Path
    sources: list[Gathered]
    counted_by: str
    seconds: dict[str, float]

    @property
    def rows(self) -> int:
        """For training."""
        return sum(one.training["rows"] for one in self.sources)


def mix(
    settings: Mix, output: Path, *, bad: BadRows | None = None, progress: Progress | None = None
) -> MixReport:
    """Write the training rows to `output`, and the validation rows, where sources hold some out, beside it.

    The run directory of `output` gets `manifest.json` and `dropped.jsonl`. The same settings on the same files
    give the same bytes.

    Args:
        settings: the mix.
        output: ends in `.json` or `.jsonl`; with `.validation` before that for the rows held out.
        bad: keeps rows that cannot be read; without it the first of them is an error.
        progress: told now and then how many more rows were read or written.

    Raises:
        InputError: a source cannot be read, or has fewer rows than is asked of it; or the output is another
            command's.
        LockedError: another run writes there.
    """
    check_output(output)
    for source in settings.sources:  # before hours go into the first of them
        for path in source.path:
            if not path.exists():
                raise InputError(
                    f"{path}: no such file; source {source.name} needs it (--source {source.name}=PATH)"
                )
    held_out = any(source.validation for source in settings.sources)
    validation = output.with_suffix(f".validation{output.suffix}") if held_out else None
    outputs = [output, dropped_of(output), *([validation] if validation else [])]
    beside = [*outputs[1:], *([bad.path] if bad else [])]
    for source in settings.sources:
        check_outputs(output, beside, source.path, "mix", source.split)
    with ExitStack() as stack:
        folder = stack.enter_context(owned(output, "mix"))
        out, dropped, *rest = stack.enter_context(replacing(*outputs))
        clock = [process_time()]
        sources = _gather(settings, folder, dropped, stack, bad, progress)
        clock.append(process_time())
        shares = _shares(settings, sources)
        writing = partial(_write, settings, sources, count=_counter(settings), progress=progress)
        given = writing([share.training for share in shares], RowWriter(out, output.suffix), "training")
        for one, budget in zip(sources, given, strict=True):
            one.training = budget
        for file in rest:
            given = writing(
                [share.validation for share in shares], RowWriter(file, output.suffix), "validation"
            )
            for one, budget in zip(sources, given, strict=True):
                one.validation = budget
    clock.append(process_time())
    report = MixReport(output, validation, folder / "manifest.json", sources, _counted_by(settings), {})
    write_atomically(report.manifest, json.dumps(_manifest(settings, report), indent=2).encode() + b"\n")
    clock.append(process_time())
    spent = [round(after - before, 3) for before, after in pairwise(clock)]
    report.seconds = dict(zip(("gathering", "writing", "hashing"), spent, strict=True))
    return report


def _gather(
    settings: Mix,
    folder: Path,
    dropped: BinaryIO,
    stack: ExitStack,
    bad: BadRows | None,
    progress: Progress | None,
) -> list[Gathered]:
    """Read every source through its steps and the search for duplicates, to the disk."""
    pipelines = [Pipeline(source.steps, folder) for source in settings.sources]
    exact = make_judge(ExactDuplicates()) if settings.duplicates == "exact" else None
    sources = []
    for number, (source, pipeline) in enumerate(zip(settings.sources, pipelines, strict=True), 1):
        spool = Spool(folder / f".source-{number}.rows")
        stack.callback(spool.close)
        one = Gathered(source, spool, tallies=list(pipeline.tallies))

        def drop(tally: Tally, example: Example, why: Rejection, name: str = source.name) -> None:
            row = dropped_row(tally, example, why)
            row["dropped"]["mix_source"] = name
            dropped.write(encode(row).encode() + b"\n")

        batches = pipeline.run(in_batches(_examples(one, bad, progress)), drop)
        if exact is not None:
            one.tallies.append(Tally(len(one.tallies) + 1, DUPLICATES))
            batches = judged(batches, exact, one.tallies[-1], drop)
        for batch in batches:
            spool.extend(batch)
        one.places = np.arange(len(spool))
        sources.append(one)
    if settings.duplicates == "near":
        _drop_near(sources, dropped)
    return sources


def _examples(one: Gathered, bad: BadRows | None, progress: Progress | None) -> Iterator[Example]:
    source, before = one.source, bad.count if bad else 0
    rows = (read_examples(path, form=source.form, split=source.split, skip_bad=bad) for path in source.path)
    for example in chain.from_iterable(rows):
        one.rows += 1
        if progress is not None and one.rows % BATCH == 0:
            progress(BATCH)
        for piece in cut_up(example, source.chunk):
            one.pieces += 1
            yield piece
    one.bad = bad.count - before if bad else 0


def cut_up(example: Example, most: int | None) -> Iterator[Example]:
    """A document in pieces of at most `most` characters, which together are the document; others as they are.

    A piece ends at a blank line, else a line's end, else a space, if there is one in its last tenth.
    """
    if most is None or not example.is_document or len(example.output) <= most:
        yield example
        return
    text = example.messages[0].content
    start = 0
    while start < len(text):
        end = start + most
        if end < len(text):
            least = end - int(most * _CUT)
            for mark in ("\n\n", "\n", " "):
                if (found := text.rfind(mark, least, end)) >= 0:
                    end = found + len(mark)
                    break
        piece = (Message("text", text[start:end]),)
        yield Example(piece, "", example.score, example.extra, example.source, example.number)
        start = end


def _drop_near(sources: Sequence[Gathered], dropped: BinaryIO) -> None:
    """Take out what is too like a row of an earlier source, or an earlier row, by the rule of `dedup`."""
    begins = np.cumsum([0, *(len(one.spool) for one in sources)])
    gone: set[int] = set()
    for one in sources:
        one.tallies.append(Tally(len(one.tallies) + 1, DUPLICATES, len(one.spool), len(one.spool)))

    def find(place: int) -> tuple[Gathered, Example]:
        number = int(np.searchsorted(begins, place, side="right")) - 1
        return sources[number], sources[number].spool[place - int(begins[number])]

    rows = (compared(example) for one in sources for example in one.spool)
    for verdict in dedup.judge(rows, "code", 0.7, 3, "first"):
        if (hit := verdict.dropped) is not None:
            (one, example), (_, first) = find(verdict.number), find(hit.entry)
            evidence = {"source": first.source, "row": first.number, "score": round(hit.score, 4)}
            why = Rejection("near_duplicate", evidence)
            tally = one.tallies[-1]
            tally.kept -= 1
            tally.reasons[why.reason] += 1
            gone.add(verdict.number)
            row = dropped_row(tally, example, why)
            row["dropped"]["mix_source"] = one.source.name
            dropped.write(encode(row).encode() + b"\n")
    for one, begin in zip(sources, begins.tolist(), strict=False):
        kept = [place for place in range(len(one.spool)) if place + begin not in gone]
        one.places = np.array(kept, np.int64)


def _shares(settings: Mix, sources: Sequence[Gathered]) -> list[Share]:
    """The places in the spools of what each source gives."""
    wishes = [
        Wish(
            source.name, source.probability, source.fraction, source.count, source.cap, source.repeats,
            source.validation, source.validation_cap,
        )
        for source in settings.sources
    ]  # fmt: skip
    try:
        shares = share_out(wishes, [len(one.places) for one in sources], settings.rows, settings.seed)
    except TooFew as error:
        raise InputError(f"mix: {error}") from None
    return [
        Share(one.places[share.validation], one.places[share.training])
        for one, share in zip(sources, shares, strict=True)
    ]


def _write(
    settings: Mix,
    sources: Sequence[Gathered],
    chosen: Sequence[Ints],
    writer: RowWriter,
    name: str,
    *,
    count: _Count,
    progress: Progress | None,
) -> list[Budget]:
    """Write the chosen rows of all sources; returns what each of them gave."""
    which = np.repeat(np.arange(len(sources), dtype=np.int32), [len(places) for places in chosen])
    if settings.order == "shuffled":
        where = np.concatenate(chosen)
        order = shuffled(settings.seed, f"order of {name}", len(where))
        which, where = which[order], where[order]
    else:
        where = np.concatenate([np.sort(places) for places in chosen])
    budgets: list[Budget] = [{**_NOTHING, "rows": len(places)} for places in chosen]
    for start in range(0, len(where), BATCH):
        owners = which[start : start + BATCH].tolist()
        places = where[start : start + BATCH].tolist()
        batch = [sources[owner].spool[place] for owner, place in zip(owners, places, strict=True)]
        writer.write(map(row_of, batch))
        for owner, (characters, tokens) in zip(owners, count(batch), strict=True):
            budgets[owner]["characters"] += characters
            budgets[owner]["tokens"] += tokens
        if progress is not None:
            progress(len(batch))
    writer.finish()
    return budgets


def _counter(settings: Mix) -> _Count:
    tokens_of = token_counter(settings.tokenizer) if settings.tokenizer else None

    def count(batch: Sequence[Example]) -> list[tuple[int, int]]:
        texts = [texts_of(example, "whole") for example in batch]
        characters = count_characters(texts)
        tokens = tokens_of(texts) if tokens_of else [round(size / CHARACTERS_A_TOKEN) for size in characters]
        return list(zip(characters, tokens, strict=True))

    return count


def _counted_by(settings: Mix) -> str:
    return str(settings.tokenizer) if settings.tokenizer else f"estimate: characters / {CHARACTERS_A_TOKEN}"


def _manifest(settings: Mix, report: MixReport) -> JSON:
    """All that the mix follows from, and what came of it; no time and no duration, so that it repeats."""
    asked = settings.model_dump(mode="json", exclude={"sources"})
    written = {"training": report.output, "validation": report.validation}
    return {
        "selfinstruct": __version__,
        "settings": asked,
        "tokens_counted_by": report.counted_by,
        "outputs": {name: _file(path) for name, path in written.items() if path is not None},
        "sources": [_source_entry(one) for one in report.sources],
    }


def _source_entry(one: Gathered) -> JSON:
    source = one.source
    paths = chain.from_iterable(files_of(path, source.split) for path in source.path)
    steps = [tally.as_json() for tally in one.tallies]
    for step in steps:
        del step["cpu_seconds"]
    return {
        "name": source.name,
        "licence": source.licence,
        "files": [_file(path) for path in paths],
        "settings": source.model_dump(mode="json", exclude={"name", "licence"}),
        "rows": one.rows,
        "bad": one.bad,
        "pieces": one.pieces,
        "steps": steps,
        "available": len(one.places),
        "training": one.training,
        "validation": one.validation,
    }


def _file(path: Path) -> JSON:
    return {"path": str(path), "sha256": digest_of(path), "bytes": path.stat().st_size}
