"""Files and folders of rows, whatever their form, as a stream of examples.

Finds the container (JSON, JSON lines, CSV, Parquet, Arrow, compressed or not, folders of them) by suffix and
content; what a single row means is the matter of `forms`. No more than a piece of a file is in memory.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from selfinstruct.data.cells import cells_of
from selfinstruct.data.forms import example_of, form_of
from selfinstruct.data.oasst import grow_trees
from selfinstruct.data.rows import Example, Form, FormError
from selfinstruct.dataset import dataset_of, stream_array
from selfinstruct.errors import InputError
from selfinstruct.records import JSON
from selfinstruct.store import disk_error

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow")
_RUN_FILES = ("run.json", "journal.jsonl")
_NO_DATA = {
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
    "provenance.json",
    "tokens.json",
}
_SPLIT = re.compile(
    r"(?:^|[-_./])(train|validation|valid|val|dev|test|eval)(?:ing)?(?=[-_./]|$)", re.IGNORECASE
)
_SPLITS = {"valid": "validation", "val": "validation", "dev": "validation", "eval": "test"}
_CELL = 2**31 - 1  # characters in a CSV cell at most
_BATCH = 1000  # rows of a table that are decoded at once

Numbered = tuple[int, JSON]  # a row's number, and the row or the FormError that stands in its place


class BadRows:
    """Rows that could not be read, counted and kept in a JSON lines file that exists only if there are any.

    A line is `{"source", "row" or "line", "reason", "value"}`, the value as it was found.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._file: TextIO | None = None

    def add(self, source: str, word: str, number: int, reason: str, value: JSON) -> None:
        """Keep one.

        Raises:
            InputError, StoppedEarly: the disk does not take it.
        """
        line = {"source": source, word: number, "reason": reason, "value": value}
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("w", encoding="utf-8")
            self._file.write(json.dumps(line, default=str) + "\n")
            self._file.flush()
        except OSError as error:
            raise disk_error(self.path, error) from None
        self.count += 1

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None


def bad_rows_of(output: Path) -> Path:
    """Where the rows that could not be read stand: beside what is written."""
    return output.with_name(f"{output.name}.bad.jsonl")


def read_examples(
    path: Path, *, form: Form | None = None, split: str | None = None, skip_bad: BadRows | None = None
) -> Iterator[Example]:
    """The rows of a file, a folder or a run directory, one by one.

    Args:
        path: code_alpaca JSON, regen.json, JSON lines, CSV, Parquet, Arrow, a folder of them (a Hugging Face
            dataset folder, saved or as on the hub), or a run directory.
        form: what the rows are; None to tell it by their keys.
        split: the part of a folder that has several; None for `train`, or the only one.
        skip_bad: keeps the rows that cannot be read; without it the first of them is an error.

    Raises:
        InputError: it cannot be read; says file, row and field.
    """
    for file in files_of(path, split):
        yield from _examples_of_file(file, form, skip_bad)


def read_values(path: Path) -> Iterator[tuple[str, JSON]]:
    """The rows of a file or folder as they stand there, whatever they mean, each with its place in words.

    Raises:
        InputError: a row cannot be read; says which.
    """
    for file in files_of(path):
        with _open(file) as (kind, opened), closing(_VALUES[kind](file, opened)) as found:
            word = "line" if kind in {"lines", "csv"} else "row"
            for number, value in found:
                if isinstance(value, FormError):
                    raise InputError(f"{file}: {word} {number}: {value}")
                yield f"{file}: {word} {number}", value


def _examples_of_file(file: Path, form: Form | None, bad: BadRows | None) -> Iterator[Example]:
    source = str(file)
    with _open(file) as (kind, opened), closing(_VALUES[kind](file, opened)) as found:
        word = "line" if kind in {"lines", "csv"} else "row"
        first = next(found, None)
        if first is None:
            return
        values: Iterator[Numbered] = chain([first], found)
        if form == "oasst-flat" or (form is None and _is_flat(first[1])):
            values, form = cast("Iterator[Numbered]", grow_trees(values)), "oasst"
        for number, value in values:
            try:
                if isinstance(value, FormError):
                    raise value
                row = example_of(value, form)
            except FormError as error:
                if bad is None:
                    raise InputError(f"{file}: {word} {number}: {error}") from None
                told = value.value if isinstance(value, FormError) else value
                bad.add(source, word, number, str(error), told)
                continue
            yield Example(row.messages, row.input, row.score, row.extra, source, number)


def _is_flat(value: JSON) -> bool:
    try:
        return isinstance(value, dict) and form_of(value) == "oasst-flat"
    except FormError:
        return False


@contextmanager
def _open(file: Path) -> Iterator[tuple[str, BinaryIO]]:
    """The kind of the file and its bytes, unpacked."""
    try:
        with file.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            opened = cast("BinaryIO", gzip.GzipFile(fileobj=raw) if packed else raw)
            head = opened.read(4096)
            opened.seek(0)
            yield _kind(file, head), opened
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{file}: broken or cut gzip data ({error})") from None
    except OSError as error:
        raise InputError(f"{file}: cannot read the dataset: {error.strerror or error}") from None


def _kind(file: Path, head: bytes) -> str:
    suffix = Path(file.name.removesuffix(".gz")).suffix.lower()
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    if suffix in {".csv", ".tsv"}:
        return "csv"
    if suffix in {".parquet", ".arrow"}:
        raise InputError(f"{file}: not a {suffix[1:]} file; was it cut, or only a pointer to one?")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \r\n\t")
    return "lines" if suffix in {".jsonl", ".ndjson"} or text[:1] == b"{" else "array"


def _array(file: Path, opened: BinaryIO) -> Generator[Numbered, None, None]:
    yield from enumerate(stream_array(file, opened))


def _lines(_: Path, opened: BinaryIO) -> Generator[Numbered, None, None]:
    """The rows of JSON lines; unlike a log, the last line needs no line end and may not be torn."""
    for number, line in enumerate(opened, 1):
        text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if text.strip():
            value: JSON
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                value = FormError("not JSON; was the file cut?", text.decode(errors="replace"))
            yield number, value


def _csv(file: Path, opened: BinaryIO) -> Generator[Numbered, None, None]:
    """The rows of a table with a header; a row's number is the line it ends on."""
    csv.field_size_limit(_CELL)
    text = io.TextIOWrapper(opened, encoding="utf-8-sig", newline="")
    suffix = Path(file.name.removesuffix(".gz")).suffix.lower()
    table = csv.reader(text, delimiter="\t" if suffix == ".tsv" else ",", strict=True)
    try:
        names = next(table, [])
        for cells in table:
            if len(cells) == len(names):
                yield table.line_num, dict(zip(names, cells, strict=True))
            elif cells:
                told = f"{len(cells)} cells, where the header has {len(names)}"
                yield table.line_num, FormError(told, cells)
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 ({error.reason}); convert the file") from None
    except csv.Error as error:
        raise InputError(f"{file}: line {table.line_num}: {error}; repair the file") from None
    finally:
        text.detach()  # or it would close what others opened


def _parquet(file: Path, opened: BinaryIO) -> Generator[Numbered, None, None]:
    arrow = need_arrow(file)
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(opened)
        batches = table.iter_batches(batch_size=_BATCH, use_threads=False)
        yield from _rows_of_batches(batches)
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{file}: broken Parquet data ({_short(error)})") from None


def _arrow(file: Path, opened: BinaryIO) -> Generator[Numbered, None, None]:
    """The rows of an Arrow file, in either of its two layouts; Hugging Face writes the stream."""
    arrow = need_arrow(file)
    try:
        head = opened.read(6)
        opened.seek(0)
        if head == b"ARROW1":
            table = arrow.ipc.open_file(opened)
            batches: Iterable[JSON] = map(table.get_batch, range(table.num_record_batches))
        else:
            batches = arrow.ipc.open_stream(opened)
        yield from _rows_of_batches(batches)
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{file}: broken Arrow data ({_short(error)})") from None


def _rows_of_batches(batches: Iterable[JSON]) -> Generator[Numbered, None, None]:
    number = 0
    for whole in batches:
        for start in range(0, whole.num_rows, _BATCH):
            batch = whole.slice(start, _BATCH)
            names = batch.schema.names
            columns = [cells_of(column) for column in batch.columns]
            for cells in zip(*columns, strict=True):
                # a cell without a value is a field that the row does not have
                yield (
                    number,
                    {name: cell for name, cell in zip(names, cells, strict=True) if cell is not None},
                )
                number += 1


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def need_arrow(file: Path) -> JSON:
    """The package pyarrow.

    Raises:
        InputError: it is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.ipc
    except ImportError:
        raise InputError(
            f"{file}: Parquet and Arrow files need the package pyarrow: pip install 'selfinstruct[data]'"
        ) from None
    return pa


_VALUES = {"array": _array, "lines": _lines, "csv": _csv, "parquet": _parquet, "arrow": _arrow}


def files_of(path: Path, split: str | None = None) -> list[Path]:
    """The files that a path stands for, in a fixed order.

    Raises:
        InputError: a folder holds no rows, or not the split, or several of which none is `train`.
    """
    if not path.is_dir():
        return [path]
    if path.suffix == ".run" or any((path / name).is_file() for name in _RUN_FILES):
        return [dataset_of(path)]
    splits = _saved_splits(path) or _named_splits(path)
    if not splits:
        if dataset_of(path).is_file():
            return [dataset_of(path)]
        raise InputError(
            f"{path}: cannot read the dataset: no file in this folder ends in {', '.join(SUFFIXES)}"
        )
    wanted = split or (next(iter(splits)) if len(splits) == 1 else "train")
    if wanted not in splits:
        raise InputError(
            f"{path}: has no split {wanted!r}; name one of {', '.join(sorted(splits))} with --split"
        )
    return splits[wanted]


def digest_of(file: Path) -> str:
    """The SHA-256 of a file.

    Raises:
        InputError: it cannot be read.
    """
    found = sha256()
    try:
        with file.open("rb") as opened:
            while piece := opened.read(1 << 20):
                found.update(piece)
    except OSError as error:
        raise InputError(f"{file}: cannot read the dataset: {error.strerror}") from None
    return found.hexdigest()


def _saved_splits(folder: Path) -> dict[str, list[Path]]:
    """The splits of a folder that `datasets` saved to the disk; empty if it is no such folder."""
    try:
        if (folder / "dataset_dict.json").is_file():
            names = json.loads((folder / "dataset_dict.json").read_bytes())["splits"]
            return {name: _saved_splits(folder / Path(name).name)[""] for name in names}
        if (folder / "state.json").is_file():
            files = json.loads((folder / "state.json").read_bytes())["_data_files"]
            return {"": [folder / Path(entry["filename"]).name for entry in files]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}: its dataset_dict.json or state.json cannot be read ({error!r})"
        ) from None
    return {}


def _named_splits(folder: Path) -> dict[str, list[Path]]:
    """The splits that the names of the files tell; files that tell none are `train`."""
    splits: dict[str, list[Path]] = {}
    for file in sorted(chain(folder.glob("*.*"), folder.glob("*/*.*"))):  # no deeper: `/` is a folder, too
        place = file.relative_to(folder)
        hidden = any(part.startswith(".") for part in place.parts)
        if hidden or file.name in _NO_DATA or file.name.endswith(".bad.jsonl"):
            continue
        if Path(file.name.removesuffix(".gz")).suffix.lower() in SUFFIXES and file.is_file():
            found = _SPLIT.search(place.as_posix())
            name = found[1].lower() if found else "train"
            splits.setdefault(_SPLITS.get(name, name), []).append(file)
    return splits
