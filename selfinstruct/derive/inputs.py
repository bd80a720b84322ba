"""What jobs over given data work on: rows of datasets, and files of code, as sources. Judges nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from selfinstruct.dataset import stream_dataset
from selfinstruct.errors import InputError
from selfinstruct.records import Source, row_id
from selfinstruct.vocabulary import find_language

DATASETS: Final = {".json", ".jsonl", ".run", ".gz", ".parquet", ".csv"}  # suffixes; the rest is code
MOST_CODE: Final = 12_000  # characters of a file of code; a longer one leaves no room for the answer
_NAMES: Final = {"dockerfile": "docker", "makefile": "make"}
_NO_CODE: Final = {"text", "json", "yaml", "regex"}


def read_rows(paths: Iterable[Path]) -> list[Source]:
    """The rows of datasets, in their order.

    Raises:
        InputError: a file cannot be read; says where.
    """
    return [
        Source(
            row_id(row),
            row["instruction"],
            row["input"],
            row["output"],
            row.get("system", ""),
            f"{path} row {number}",
        )
        for path in paths
        for number, row in enumerate(stream_dataset(path))
    ]


def read_rows_or_code(paths: Iterable[Path]) -> list[Source]:
    """Rows where a path is a dataset or a run directory, else its code: of a file, or of a whole folder.

    Raises:
        InputError: a file cannot be read or is no code; says which.
    """
    found: list[Source] = []
    for path in paths:
        if path.suffix in DATASETS:
            found += read_rows([path])
        elif path.is_dir():
            found += [source for file in sorted(_files(path)) if (source := read_code(file)) is not None]
        elif (source := read_code(path)) is not None:
            found.append(source)
        else:
            raise InputError(
                f"{path}: neither a dataset nor code of at most {MOST_CODE} characters in a language that "
                "selfinstruct knows"
            )
    return found


def read_code(path: Path) -> Source | None:
    """A file of code; None where its name tells no language, or it is empty, too long or no text.

    Raises:
        InputError: it cannot be read.
    """
    language = find_language(path.suffix[1:]) if path.suffix else _NAMES.get(path.name.lower())
    if language is None or language in _NO_CODE:
        return None
    try:
        data = path.read_bytes() if path.stat().st_size <= 4 * MOST_CODE else b""
    except OSError as error:
        raise InputError(f"{path}: cannot read the code: {error.strerror}") from None
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n").strip("\n")
    except UnicodeDecodeError:
        return None
    if not text.strip() or len(text) > MOST_CODE:
        return None
    identity = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Source(identity, output=text, origin=str(path), language=language)


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder; hidden ones and links are left out, so there is no loop and no way out."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "node_modules"]
        for name in names:
            path = Path(place, name)
            if not name.startswith(".") and path.is_file() and not path.is_symlink():
                yield path
