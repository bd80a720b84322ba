"""Writes examples as rows of a JSON array or of JSON lines, so that `reading` gives the same examples back.

For the forms of others there is `export`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from selfinstruct.data.rows import Example
from selfinstruct.errors import InputError
from selfinstruct.records import JSON

SUFFIXES = (".json", ".jsonl")
encode = json.JSONEncoder(ensure_ascii=True, separators=(", ", ": ")).encode  # made once: it is called often


def row_of(example: Example) -> dict[str, JSON]:
    """A row with all it came with: what `Example.row` gives, the score, the other fields."""
    row = example.row()
    if example.score is not None:
        row["score"] = example.score
    return {**example.extra, **row} if example.extra else row


def check_output(path: Path) -> None:
    """Refuse what is no place for rows.

    Raises:
        InputError: the suffix is another one.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: name the rows to write with -o, ending in .json or .jsonl")


class RowWriter:
    """Rows into an open file, in the form its final name tells; `finish` makes it whole.

    Args:
        file: opened for writing.
        suffix: `.json` (an array, laid out as code_alpaca's) or `.jsonl`.
    """

    def __init__(self, file: BinaryIO, suffix: str) -> None:
        self.count = 0
        self._file = file
        self._array = suffix == ".json"

    def write(self, examples: Iterable[Example]) -> None:
        """Add rows."""
        texts = []
        for example in examples:
            row = row_of(example)
            if self._array:
                fields = ",\n".join(
                    [f"        {encode(name)}: {encode(value)}" for name, value in row.items()]
                )
                texts.append(f"{',' if self.count else ''}\n    {{\n{fields}\n    }}")
            else:
                texts.append(encode(row) + "\n")
            self.count += 1
        if texts and self._array and self.count == len(texts):
            texts.insert(0, "[")
        self._file.write("".join(texts).encode())

    def finish(self) -> None:
        """Write what ends the file."""
        if self._array:
            self._file.write(b"\n]\n" if self.count else b"[\n]\n")
