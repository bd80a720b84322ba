"""What jobs over given data work on: rows of datasets, and files of code, as sources. Judges nothing."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from selfinstruct.data.reading import SUFFIXES
from selfinstruct.dataset import stream_dataset
from selfinstruct.derive.code_files import find_files, language_of, read_code
from selfinstruct.derive.licences import nearest_licence, stated_licence
from selfinstruct.errors import InputError
from selfinstruct.records import Source, row_id
from selfinstruct.seed_secrets import find_secrets

MOST_CODE: Final = 12_000  # characters of a file of code; a longer one leaves no room for the answer
# Files that only the folder of a dataset has.
_MARKS: Final = {"run.json", "dataset_info.json", "dataset_dict.json", "state.json"}
log = logging.getLogger(__name__)


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
    """Rows where a path is a dataset (a file or a folder of one), else its code: of a file, or of a whole folder.

    Code that is ignored, vendored, generated, too long, or holds a secret is left out; so are links.

    Raises:
        InputError: a file cannot be read, or a single one is no code; says which.
    """
    found: list[Source] = []
    for path in paths:
        if is_dataset(path):
            found += read_rows([path])
            continue
        skipped: Counter[str] = Counter()
        pieces = _read_files(path, skipped)
        if not pieces and not path.is_dir():
            why = f" ({next(iter(skipped))})" if skipped else ""
            raise InputError(
                f"{path}: neither a dataset nor a file of code that can be used{why}; it takes at most "
                f"{MOST_CODE} characters in a language that selfinstruct knows"
            )
        if skipped["secret"]:
            log.warning("%d files are left out, for they hold what looks like a secret", skipped["secret"])
        found += pieces
    return found


def is_dataset(path: Path) -> bool:
    """Whether a path is a dataset by its name, or by what stands in the folder.

    Raises:
        InputError: it is a folder that cannot be read.
    """
    if path.is_dir() and path.suffix != ".run":
        try:
            names = os.listdir(path)  # noqa: PTH208 - names are all that is looked at
        except OSError as error:
            raise InputError(f"{path}: cannot read it: {error.strerror}") from None
        return any(name in _MARKS or name.endswith((".parquet", ".arrow")) for name in names)
    return path.suffix == ".run" or Path(path.name.removesuffix(".gz")).suffix.lower() in SUFFIXES


def _read_files(path: Path, skipped: Counter[str]) -> list[Source]:
    licences: dict[Path, str] = {}
    found = []
    for file in find_files(path, skipped):
        language, text = language_of(file), read_code(file)
        if language is None or text is None or len(text) > MOST_CODE:
            skipped["no code, generated, or too long"] += 1
        elif find_secrets(text):
            skipped["secret"] += 1
        else:
            text = text.strip("\n")
            found.append(
                Source(
                    hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16],
                    output=text,
                    origin=str(file),
                    licence=stated_licence(text) or nearest_licence(file.resolve().parent, licences),
                    language=language,
                )
            )
    return found
