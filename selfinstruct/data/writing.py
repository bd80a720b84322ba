"""Writes rows, dicts of JSON values, as a JSON array or as JSON lines; an example so that `reading` gives it back.

For the forms of others there is `export`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from selfinstruct.data.rows import Example
from selfinstruct.errors import InputError
from selfinstruct.records import JSON

SUFFIXES = (".json", ".jsonl")
_encode = json.JSONEncoder(  # made once: it is called often
    ensure_ascii=True, allow_nan=False, separators=(", ", ": ")
).encode


def encode(value: JSON) -> str:
    """JSON text on one line; what Python reads beside JSON's numbers (NaN, Infinity) becomes null."""
    try:
        return _encode(value)
    except ValueError:
        return _encode(_finite(value))


def _finite(value: JSON) -> JSON:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def laid_out(row: dict[str, JSON]) -> str:
    """A row in a JSON array as code_alpaca has it: four spaces before its brace, eight before its keys."""
    fields = ",\n".join([f"        {encode(name)}: {encode(value)}" for name, value in row.items()])
    return f"    {{\n{fields}\n    }}"


def row_of(example: Example) -> dict[str, JSON]:
    """A row with all it came with: what `Example.row` gives, the score, the other fields as they were."""
    row = example.row()
    if example.score is not None and "score" not in example.extra:
        row["score"] = example.score
    for name, value in example.extra.items():
        row.setdefault(name, value)
    return row


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

    def write(self, rows: Iterable[dict[str, JSON]]) -> None:
        """Add rows; they are encoded together, so some at a time."""
        texts = []
        for row in rows:
            if self._array:
                texts.append(f"{',' if self.count else ''}\n{laid_out(row)}")
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
