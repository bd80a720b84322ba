"""The dataset file: a code_alpaca-style JSON array that is complete and valid at every moment.

Reads what is there and appends rows without rewriting the old ones; decides nothing.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from selfinstruct.errors import InputError
from selfinstruct.records import JSON, Row
from selfinstruct.store import disk_error, part_of, put_in_place, write_atomically

if TYPE_CHECKING:
    from selfinstruct.data.rows import Example

FIELDS = ("instruction", "input", "output")
SYSTEM = "system"  # the one further key that a row may have
_PIECE = 1 << 20  # characters read at once
_LAYOUT = re.compile(rb"\[\r?\n( *)\{\r?\n( *)\"")


@dataclass(frozen=True, slots=True)
class Layout:
    """How many spaces stand before a row's brace and before its keys."""

    brace: int = 4
    key: int = 8

    def render(self, row: Row) -> str:
        """One row as `json.dumps(rows, indent=...)` would write it inside the array."""
        there = (*FIELDS, SYSTEM) if row.get(SYSTEM) else FIELDS
        fields = ",\n".join(f"{' ' * self.key}{json.dumps(name)}: {json.dumps(row[name])}" for name in there)
        return f"{' ' * self.brace}{{\n{fields}\n{' ' * self.brace}}}"


def parse_rows(path: Path, data: bytes) -> list[Row]:
    """The rows of a dataset that stands in `data`; other fields are left out.

    Raises:
        InputError: it is no JSON, no array, or a row lacks a field; says which.
    """
    try:
        values = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 at byte {error.start}; convert it, or choose another --output"
        ) from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: not a JSON array (line {error.lineno}, column {error.colno}: {error.msg}); "
            "was it cut? repair it or move it away"
        ) from None
    except RecursionError:
        raise InputError(f"{path}: not a dataset: nested too deeply") from None
    except ValueError:
        raise InputError(f"{path}: not a dataset: a number of too many digits") from None
    if not isinstance(values, list):
        raise InputError(
            f"{path}: a JSON {_kind(values)}, where an array of instruction/input/output rows is needed"
        )
    return [check_row(value, f"{path}: row {number}") for number, value in enumerate(values)]


def check_row(value: JSON, where: str) -> Row:
    """The texts of a row: the three, and a system message if it has one; a missing input counts as empty.

    Raises:
        InputError: not an object, or a field is missing or no text.
    """
    if not isinstance(value, dict):
        raise InputError(f"{where}: a JSON {_kind(value)}, where an object is needed")
    row = {"input": "", **value}
    for name in FIELDS:
        if not isinstance(row.get(name), str):
            raise InputError(f"{where}: the field {name!r} is missing or not text")
    system = row.get(SYSTEM) or ""
    if not isinstance(system, str):
        raise InputError(f"{where}: the field {SYSTEM!r} is not text")
    return {name: row[name] for name in FIELDS} | ({SYSTEM: system} if system else {})


def _kind(value: JSON) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "truth value", type(None): "null"}
    return names.get(type(value), "number")


def read_dataset(path: Path) -> list[Row]:
    """Rows of a dataset in any form that `data.reading` knows, or of a run directory.

    Raises:
        InputError: it cannot be read; says where.
    """
    return list(stream_dataset(path))


def stream_dataset(path: Path) -> Iterator[Row]:
    """The same rows as `read_dataset`, one by one, with no more than a piece of the file in memory.

    Raises:
        InputError: it cannot be read, or a row is no single task; says where.
    """
    for example in _tasks(path):
        yield check_row(example.row(), f"{example.source}: row {example.number}")


def stream_rows(path: Path) -> Iterator[dict[str, JSON]]:
    """The same rows with all they came with behind the three texts; see `data.writing.row_of`.

    Raises:
        InputError: as `stream_dataset`.
    """
    from selfinstruct.data.writing import row_of

    return map(row_of, _tasks(path))


def _tasks(path: Path) -> Iterator[Example]:
    from selfinstruct.data.reading import read_examples

    for example in read_examples(path):
        if not example.is_task:
            what = "a text without a task" if example.is_document else "a conversation of several turns"
            raise InputError(f"{example.source}: row {example.number}: {what}, where single tasks are needed")
        yield example


def stream_array(path: Path, file: BinaryIO) -> Iterator[JSON]:
    """The values of a JSON array, decoded one after the other from a buffer that is filled as needed.

    Args:
        path: for messages.
        file: the bytes.

    Raises:
        InputError: it is no array, or broken; says at which value.
    """
    decoder, text, place, number = json.JSONDecoder(), "", 0, 0
    reader = codecs.getreader("utf-8-sig")(file)
    opened = False
    while True:
        while place < len(text) and text[place] in " \t\r\n":
            place += 1
        if place < len(text):
            mark = text[place]
            if not opened and mark == "[":
                opened, place = True, place + 1
                continue
            if opened and mark == "," and number:
                place += 1
                continue
            if opened and mark == "]":
                if (text[place + 1 :] + _read_text(path, reader)).strip():
                    raise InputError(f"{path}: text after the end of the array; repair the file")
                return
            if not opened:
                raise InputError(f"{path}: no JSON array and no JSON lines; it begins with {text[:20]!r}")
            try:
                value, end = decoder.raw_decode(text, place)
            except RecursionError:
                raise InputError(f"{path}: row {number}: nested too deeply") from None
            except ValueError:
                pass  # a row that goes on behind the buffer, or is broken
            else:
                yield value
                number, place = number + 1, end
                continue
        more = _read_text(path, reader)
        if not more:
            raise InputError(f"{path}: broken or cut at row {number}; repair it or move it away")
        text, place = text[place:] + more, 0


def _read_text(path: Path, reader: codecs.StreamReader) -> str:
    try:
        return reader.read(_PIECE)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason}); convert the file") from None


def run_directory_of(output: Path) -> Path:
    """Where everything about a dataset stands: beside it, with the suffix `.run`."""
    return output.with_suffix(".run")


def dataset_of(directory: Path) -> Path:
    """The dataset that belongs to a run directory."""
    if not directory.name:  # the folder one stands in
        directory = directory.absolute()
    return directory.parent / f"{directory.stem}.json"


class DatasetFile:
    """The dataset on the disk, and what of it this process has seen.

    Appending copies the old bytes (the kernel does it) and adds the new rows behind them, so no old row is
    parsed or written anew; the copy replaces the file in one step.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.realpath(path))  # through a link: replacing the link would lose its target
        self._seen: tuple[int, int, int] | None = None
        self._layout = Layout()
        self._end = 0  # offset behind the last row's brace
        self._empty = True

    def load(self) -> list[Row] | None:
        """The rows as they are now, or None when there is no such file.

        Raises:
            InputError: the file is there and is no dataset.
        """
        try:
            seen = self._stamp()  # before reading, so that an edit between the two is seen later
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"{self.path}: cannot read the dataset: {error.strerror}") from None
        rows = parse_rows(self.path, data)
        if found := _LAYOUT.match(data.lstrip(b"\xef\xbb\xbf \r\n\t")):
            self._layout = Layout(len(found[1]), len(found[2]))
        self._empty = not rows
        self._end = len(data[: data.rindex(b"]")].rstrip())
        self._seen = seen
        return rows

    def unchanged(self) -> bool:
        """Whether the file is the one that was last loaded or written here."""
        try:
            return self._seen is not None and self._stamp() == self._seen
        except OSError:
            return False

    def create(self) -> None:
        """Write an empty dataset."""
        write_atomically(self.path, b"[\n]\n")
        self._end, self._empty, self._seen = 1, True, self._stamp()

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows behind the ones that are there.

        Raises:
            InputError, StoppedEarly: the disk does not take it; the old file is still there, whole.
        """
        temporary = part_of(self.path)
        try:
            shutil.copyfile(self.path, temporary)
            with temporary.open("r+b") as file:
                file.truncate(self._end)
                file.seek(self._end)
                file.write(self._tail(rows))
                put_in_place(file, self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise disk_error(self.path, error) from None
        self._seen = self._stamp()
        self._end = self._seen[1] - len(b"\n]\n")
        self._empty = self._empty and not rows

    def _tail(self, rows: Iterable[Row]) -> bytes:
        added = ",\n".join(self._layout.render(row) for row in rows)
        if not added:
            return b"\n]\n"
        return (("\n" if self._empty else ",\n") + added + "\n]\n").encode()

    def _stamp(self) -> tuple[int, int, int]:
        stat = self.path.stat()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
