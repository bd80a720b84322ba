"""Writes token sequences where trainers read them: Arrow as `datasets` saves it, Parquet, NumPy memory maps.

Everything stands in one folder, with its settings, its figures and ready configuration files; the folder appears
when it is whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from io import SEEK_SET
from itertools import islice
from pathlib import Path
from typing import Any

from selfinstruct.data.containers import draft_folder
from selfinstruct.data.reading import digest_of, need_arrow
from selfinstruct.data.tokens import Job, TokenCounts, TokenRow
from selfinstruct.data.trainers import Configured, Store, configure
from selfinstruct.errors import InputError
from selfinstruct.records import JSON

_GROUP = 2000  # sequences that are written at once
# The column of each part, and its type in Arrow and NumPy.
_COLUMNS = {"input_ids": ("ids", "int32"), "attention_mask": ("mask", "int8"), "labels": ("labels", "int32"),
            "position_ids": ("positions", "int32")}  # fmt: skip


def check_store(output: Path, store: Store, job: Job) -> None:
    """Refuse what does not go together, before a row is read.

    Raises:
        InputError: the folder is there; arrays of unequal length.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output}: is already there; name a new folder, or delete it first")
    if store == "npy" and job.shape.padding == "none":
        raise InputError("NumPy arrays hold sequences of one length: add --pad right, left or random")
    if job.shape.pack and job.shape.padding in {"left", "random"}:
        raise InputError("packed sequences are filled up on the right: use --pad right")


def columns_of(job: Job) -> tuple[str, ...]:
    """The columns: the place of a token within its row only where rows share a sequence."""
    return tuple(_COLUMNS) if job.shape.pack else ("input_ids", "attention_mask", "labels")


def write_tokens(
    output: Path, store: Store, job: Job, rows: Iterable[TokenRow], counts: TokenCounts
) -> Configured:
    """Write the folder.

    Args:
        output: the folder, absent or empty.
        store: what to write.
        job: what the rows were made with.
        rows: the sequences.
        counts: as it stands when `rows` is used up.

    Returns:
        The configuration files that were written, and why others were not.

    Raises:
        InputError: pyarrow is missing.
        InputError, StoppedEarly: the disk does not take it; nothing is left behind.
    """
    check_store(output, store, job)
    with draft_folder(output) as folder:
        _WRITERS[store](folder, columns_of(job), job.shape.most, rows)
        made = configure(job.shape, store, job.vocabulary.name)
        for name, text in made.files.items():
            (folder / name).write_text(text, encoding="utf-8")
        (folder / "tokens.json").write_text(
            json.dumps(_told(store, job, counts), indent=2) + "\n", encoding="utf-8"
        )
    return made


def _told(store: Store, job: Job, counts: TokenCounts) -> dict[str, JSON]:
    vocabulary = job.vocabulary
    return {
        "store": store,
        "columns": list(columns_of(job)),
        "tokenizer": {"name": Path(vocabulary.name).name, "sha256": vocabulary.sha256, "begin": vocabulary.begin,
                      "end": vocabulary.end, "padding": vocabulary.padding},
        "template": job.template.name,
        "control": job.control,
        **{"max_tokens" if name == "most" else name: value for name, value in asdict(job.shape).items()},
        "counts": asdict(counts),
    }  # fmt: skip


def _groups(rows: Iterable[TokenRow]) -> Iterator[list[TokenRow]]:
    following = iter(rows)
    while group := list(islice(following, _GROUP)):
        yield group


def _batches(arrow: Any, schema: Any, columns: Sequence[str], rows: Iterable[TokenRow]) -> Iterator[Any]:
    for group in _groups(rows):
        parts = [[getattr(row, _COLUMNS[name][0]) for row in group] for name in columns]
        arrays = [arrow.array(part, kind.type) for part, kind in zip(parts, schema, strict=True)]
        yield arrow.record_batch(arrays, schema=schema)


def _schema(arrow: Any, columns: Sequence[str]) -> Any:
    return arrow.schema([(name, arrow.list_(getattr(arrow, _COLUMNS[name][1])())) for name in columns])


def _write_parquet(folder: Path, columns: Sequence[str], _: int, rows: Iterable[TokenRow]) -> None:
    arrow = need_arrow(folder)
    from pyarrow import parquet

    schema = _schema(arrow, columns)
    with parquet.ParquetWriter(folder / "train.parquet", schema, compression="zstd") as writer:
        for batch in _batches(arrow, schema, columns, rows):
            writer.write_batch(batch)


def _write_arrow(folder: Path, columns: Sequence[str], _: int, rows: Iterable[TokenRow]) -> None:
    """The layout of `DatasetDict.save_to_disk`, with one split."""
    arrow = need_arrow(folder)
    schema = _schema(arrow, columns)
    split, name = folder / "train", "data-00000-of-00001.arrow"
    split.mkdir()
    with arrow.ipc.new_stream(str(split / name), schema) as sink:
        for batch in _batches(arrow, schema, columns, rows):
            sink.write_batch(batch)
    features = {
        column: {"feature": {"dtype": _COLUMNS[column][1], "_type": "Value"}, "_type": "List"}
        for column in columns
    }
    state: dict[str, JSON] = {
        "_data_files": [{"filename": name}], "_fingerprint": digest_of(split / name)[:16], "_split": "train",
        "_format_columns": None, "_format_kwargs": {}, "_format_type": None, "_output_all_columns": False,
    }  # fmt: skip
    for path, value in (
        (split / "state.json", state),
        (split / "dataset_info.json", {"citation": "", "description": "", "features": features}),
        (folder / "dataset_dict.json", {"splits": ["train"]}),
    ):
        path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def _write_npy(folder: Path, columns: Sequence[str], most: int, rows: Iterable[TokenRow]) -> None:
    """One array (sequences, tokens) for each column, for `np.load(..., mmap_mode="r")`."""
    import numpy as np

    npy: Any = np.lib.format  # typed in some releases of numpy only

    def head(file: Any, kind: str, count: int) -> None:
        facts = {
            "descr": npy.dtype_to_descr(np.dtype(kind)),
            "fortran_order": False,
            "shape": (count, most),
        }
        file.seek(0, SEEK_SET)
        npy.write_array_header_1_0(file, facts)  # leaves room for a first axis that grows

    with ExitStack() as opened:
        files = {name: opened.enter_context((folder / f"{name}.npy").open("wb")) for name in columns}
        for name, file in files.items():
            head(file, _COLUMNS[name][1], 0)
        count = 0
        for group in _groups(rows):
            count += len(group)
            for name, file in files.items():
                part, kind = _COLUMNS[name]
                file.write(np.array([getattr(row, part) for row in group], dtype=kind).tobytes())
        for name, file in files.items():
            head(file, _COLUMNS[name][1], count)


_WRITERS: dict[Store, Callable[[Path, Sequence[str], int, Iterable[TokenRow]], None]] = {
    "arrow": _write_arrow,
    "parquet": _write_parquet,
    "npy": _write_npy,
}
