"""Rows that wait on the disk: written once, read again as often as wanted, in order or one by its place.

The file is for this process alone and goes with it; it is no form of dataset. In memory stand eight bytes a row.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from selfinstruct.data.rows import Example, Message
from selfinstruct.records import JSON
from selfinstruct.store import disk_error

_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


class Spool:
    """Examples in a file.

    Args:
        path: the file to make; deleted by `close`.

    Raises:
        InputError, StoppedEarly: the disk does not take them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts = array("q", [0])
        try:
            self._file: BinaryIO = path.open("w+b")
        except OSError as error:
            raise disk_error(path, error) from None

    def __len__(self) -> int:
        return len(self._starts) - 1

    def extend(self, examples: Iterable[Example]) -> None:
        """Add examples; not while some are being read."""
        end = self._starts[-1]
        lines = []
        for example in examples:
            line = _encode(_packed(example)).encode() + b"\n"
            end += len(line)
            lines.append(line)
            self._starts.append(end)
        try:
            self._file.write(b"".join(lines))
        except OSError as error:
            raise disk_error(self._path, error) from None

    def __iter__(self) -> Iterator[Example]:
        """All, in order; several may go through them at once."""
        try:
            self._file.flush()
            with self._path.open("rb") as file:
                for line in file:
                    yield _unpacked(json.loads(line))
        except OSError as error:
            raise disk_error(self._path, error) from None

    def __getitem__(self, place: int) -> Example:
        """The one at a place, counted from 0."""
        self._file.seek(self._starts[place])
        line = self._file.read(self._starts[place + 1] - self._starts[place])
        self._file.seek(0, 2)
        return _unpacked(json.loads(line))

    def close(self) -> None:
        """Delete the file; a second call does nothing."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def _packed(example: Example) -> JSON:
    said = [(message.role, message.content) for message in example.messages]
    return said, example.input, example.score, example.extra, example.source, example.number


def _unpacked(value: JSON) -> Example:
    said, *rest = value
    return Example(tuple(Message(role, content) for role, content in said), *rest)
