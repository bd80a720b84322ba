"""What the commands over datasets may write, and whose a run directory is.

Refuses outputs that would destroy something: what is read, the dataset of a run, what another command keeps a
record of. Reads no row and writes none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from selfinstruct.data.reading import files_of
from selfinstruct.dataset import dataset_of, run_directory_of
from selfinstruct.errors import InputError
from selfinstruct.store import Lock, disk_error, write_atomically

OWNER = "owner.json"
_JOURNAL = "journal.jsonl"


@dataclass(frozen=True, slots=True)
class Owner:
    """The file that a run directory is about (its name, for folders are moved), and the command that wrote it."""

    output: str
    command: str


def owner_of(folder: Path) -> Owner | None:
    """Whose a run directory is; None if it is nobody's.

    That of a run (`generate`, or a job over rows) has a journal, and its dataset is known by the folder's name, so
    that both may be renamed. The others say it in a file; one that says nothing, or of a file that is gone, is
    nobody's.
    """
    if (folder / _JOURNAL).exists():
        return Owner(dataset_of(folder).name, str(_told(folder / "run.json", "job") or "generate"))
    output, command = (_told(folder / OWNER, name) for name in ("output", "command"))
    if not (isinstance(output, str) and isinstance(command, str)) or Path(output).name != output:
        return None
    return Owner(output, command) if (folder.parent / output).exists() else None


def _told(file: Path, name: str) -> object:
    """A value of a JSON object in a file; None where there is none."""
    try:
        return json.loads(file.read_bytes())[name]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def check_outputs(
    output: Path, beside: Iterable[Path], inputs: Iterable[Path], command: str, split: str | None = None
) -> None:
    """Refuse what a command with records must not write, before anything is read or written.

    Args:
        output: what it writes; its records stand in the run directory of it.
        beside: other files that it writes.
        inputs: what it reads.
        command: its name.
        split: the part of the inputs, where they are folders with several.

    Raises:
        InputError: see `refuse_replacing`, `refuse_owned` and `refuse_shared`.
    """
    beside = list(beside)
    refuse_replacing([output, *beside], inputs, split)
    _refuse_foreign(output, command)
    for path in beside:
        refuse_owned(path, command)


def refuse_replacing(outputs: Iterable[Path], inputs: Iterable[Path], split: str | None = None) -> None:
    """Refuse outputs that would take the place of what is read: what is dropped then would be gone for good.

    Raises:
        InputError: an output is a file of an input, by whatever name or link.
    """
    written = {os.path.realpath(path): path for path in outputs}
    for file in chain.from_iterable(files_of(path, split) for path in inputs):
        if (output := written.get(os.path.realpath(file))) is not None:
            raise InputError(f"{output}: would take the place of what is read; choose another -o")


def refuse_owned(output: Path, command: str) -> None:
    """Refuse an output that is the dataset of a run, or that another command keeps a record of.

    Args:
        output: what is to be written.
        command: what is to write it; it may replace what it wrote before.

    Raises:
        InputError: in one line.
    """
    if (output.parent / _JOURNAL).exists():
        raise InputError(f"{output}: is in the run directory of a dataset; choose another -o")
    folder = run_directory_of(output)
    owner = owner_of(folder)
    if owner is None or not _is(owner, output):
        return
    if (folder / _JOURNAL).exists():
        raise InputError(
            f"{output}: is the dataset of a run of `{owner.command}`, which goes by {folder} and would take rows "
            "that are gone for deleted by you; choose another -o"
        )
    if owner.command != command:
        raise InputError(
            f"{output}: was written by `{owner.command}`, whose record in {folder} would tell of other rows; "
            "choose another -o, or delete the file first"
        )


def refuse_shared(output: Path) -> None:
    """Refuse an output whose run directory is that of another file: `x.json` and `x.jsonl` both have `x.run`.

    Raises:
        InputError: in one line.
    """
    folder = run_directory_of(output)
    owner = owner_of(folder)
    if owner is not None and not _is(owner, output):
        raise InputError(
            f"{output}: its run directory {folder} is that of {owner.output}; choose another name to write to"
        )


def _is(owner: Owner, output: Path) -> bool:
    return owner.output.casefold() == output.name.casefold()  # a run may write to x.JSON


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """A run directory, made if need be, with its lock taken.

    Raises:
        InputError: it cannot be made.
        LockedError: another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(folder, error) from None
    lock = Lock(folder / "lock")
    try:
        yield
    finally:
        lock.release()


def _refuse_foreign(output: Path, command: str) -> None:
    refuse_owned(output, command)
    refuse_shared(output)


@contextmanager
def owned(output: Path, command: str) -> Iterator[Path]:
    """The run directory of an output, locked while it is written; when that went well, it is the output's own.

    Raises:
        InputError: it is another's, see `refuse_owned` and `refuse_shared`; or the disk does not take it.
        LockedError: another process writes there.
    """
    folder = run_directory_of(output)
    _refuse_foreign(output, command)
    with held(folder):
        _refuse_foreign(output, command)  # another process may have been faster
        yield folder
        write_atomically(folder / OWNER, json.dumps(asdict(Owner(output.name, command))).encode() + b"\n")
