"""Writes rows that are ready, dicts of JSON values, into the files others read: an array, lines, Parquet.

A file takes its place when it is whole, never before. What the rows are is the matter of `export`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from selfinstruct.data.reading import need_arrow
from selfinstruct.data.writing import RowWriter
from selfinstruct.records import JSON
from selfinstruct.store import disk_error, part_of, replacing

Rows = Iterable[dict[str, JSON]]
GROUP_BYTES = 64 << 20  # text in a Parquet row group at most, more or less
SHARD_BYTES = 512 << 20  # text in a file of a dataset folder
_BATCH = 2000  # rows that are encoded at once

# Parquet columns by name; all others are text.
_LISTS = {"history"}
_TURNS = {"messages": ("role", "content"), "conversations": ("from", "value")}


def write_rows(path: Path, rows: Rows) -> None:
    """A JSON array laid out as code_alpaca's, or JSON lines, as the name tells.

    Raises:
        InputError, StoppedEarly: the disk does not take it; what was there before still is.
    """
    with replacing(path) as (file,):
        writer, following = RowWriter(file, path.suffix), iter(rows)
        while batch := list(islice(following, _BATCH)):
            writer.write(batch)
        writer.finish()


def write_parquet(path: Path, rows: Rows, columns: Sequence[str]) -> None:
    """One Parquet file with these columns.

    Raises:
        InputError: pyarrow is missing.
        InputError, StoppedEarly: the disk does not take it; what was there before still is.
    """
    need_arrow(path)
    with replacing(path) as (file,):
        _fill_parquet(file, _groups(rows), columns)


def write_shards(folder: Path, rows: Rows, columns: Sequence[str], split: str = "train") -> list[Path]:
    """Parquet files of a split as the hub names them, `train-00000-of-00002.parquet`, in a folder of ours.

    Raises:
        InputError, StoppedEarly: the disk does not take it; what was written then is for the caller to remove.
    """
    need_arrow(folder)
    files: list[Path] = []
    groups = _groups(rows)
    following = next(groups, [])
    try:
        while following or not files:
            shard, following = following, []

            def groups_of_shard(first: list[dict[str, JSON]] = shard) -> Iterator[list[dict[str, JSON]]]:
                nonlocal following
                taken = _size(first)
                yield first
                for group in groups:
                    taken += _size(group)
                    if taken > SHARD_BYTES:
                        following = group
                        return
                    yield group

            files.append(folder / f"{split}-{len(files):05d}.parquet")
            with files[-1].open("wb") as file:
                _fill_parquet(file, groups_of_shard(), columns)
        named = [folder / f"{split}-{at:05d}-of-{len(files):05d}.parquet" for at in range(len(files))]
        return [file.rename(name) for file, name in zip(files, named, strict=True)]
    except OSError as error:
        raise disk_error(folder, error) from None


@contextmanager
def draft_folder(output: Path) -> Iterator[Path]:
    """A hidden folder to fill, which takes the place of `output` (absent or empty) when all went well.

    Raises:
        InputError, StoppedEarly: the disk does not take it; nothing is left behind.
    """
    draft = part_of(output)
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        yield draft
        with suppress(FileNotFoundError):
            output.rmdir()  # an empty one
        draft.rename(output)
    except OSError as error:
        raise disk_error(output, error) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _fill_parquet(file: BinaryIO, groups: Iterable[list[dict[str, JSON]]], columns: Sequence[str]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([(name, _type_of(pa, name)) for name in columns])
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in groups:
            arrays = [pa.array([row.get(field.name) for row in group], field.type) for field in schema]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def _type_of(arrow: Any, name: str) -> JSON:
    if name in _TURNS:
        return arrow.list_(arrow.struct([(part, arrow.string()) for part in _TURNS[name]]))
    return arrow.list_(arrow.list_(arrow.string())) if name in _LISTS else arrow.string()


def _groups(rows: Rows) -> Iterator[list[dict[str, JSON]]]:
    """The rows in groups of about `GROUP_BYTES`."""
    group: list[dict[str, JSON]] = []
    taken = 0
    following = iter(rows)
    while batch := list(islice(following, _BATCH)):
        group += batch
        taken += _size(batch)
        if taken > GROUP_BYTES:
            yield group
            group, taken = [], 0
    if group:
        yield group


def _size(rows: Sequence[dict[str, JSON]]) -> int:
    return sum(len(value) if isinstance(value, str) else 200 for row in rows for value in row.values())
