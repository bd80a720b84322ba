"""Files that survive a kill: an append-only log of JSON lines, an atomic write, a lock.

It knows nothing of tasks or datasets. `OSError` of a full or read-only disk is turned into one line.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import sleep
from typing import BinaryIO

from selfinstruct.errors import InputError, LockedError, SelfInstructError, StoppedEarly
from selfinstruct.records import JSON

_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode  # made once: it is called often
LOCK_TRIES = 10  # a hundredth of a second apart


class DiskFull(StoppedEarly):
    """No room is left: what is bought from now on could not be kept."""


def disk_error(path: Path, error: OSError) -> SelfInstructError:
    """The one line for a failed write: a full disk stops the run (status 3), a closed folder is status 2."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return DiskFull(
            f"{path}: {error.strerror}; all that was written before is kept: make room, run the same command again"
        )
    return InputError(f"{path}: cannot write: {error.strerror}; choose another --output or change its rights")


class AppendLog:
    """JSON lines that are only ever appended; a line is there whole or not at all.

    A last line torn by a kill or a power cut is cut off when the log is opened. Appending is safe from
    several threads.

    Raises:
        InputError: the file cannot be opened, or a line before the last is not JSON.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mutex = threading.Lock()
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise disk_error(path, error) from None
        self._end = 0

    def read(self) -> Iterator[JSON]:
        """Every whole line as a value, in order; afterwards the log is ready to be appended to."""
        self._end = 0
        with os.fdopen(os.dup(self._fd), "rb") as file:
            file.seek(0)
            for value, end in _lines(self.path, file):
                yield value
                self._end = end
        self._cut()

    def _cut(self) -> None:
        """Go on behind the last whole line, and leave out what stands there."""
        os.lseek(self._fd, self._end, os.SEEK_SET)  # first: what cannot be left out is written over
        if os.fstat(self._fd).st_size != self._end:
            os.ftruncate(self._fd, self._end)

    def append(self, *values: JSON) -> None:
        """Write a line for each value; it survives a kill of the process at once, a power cut after `sync`."""
        line = b"".join(_encode(value).encode() + b"\n" for value in values)
        with self._mutex:
            try:
                written = 0
                while written < len(line):
                    written += os.write(self._fd, line[written:])
            except OSError as error:
                with contextlib.suppress(OSError):
                    self._cut()
                raise disk_error(self.path, error) from None
            self._end += len(line)

    def sync(self) -> None:
        """Wait until the disk has it."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise disk_error(self.path, error) from None

    def clear(self) -> None:
        """Begin anew with no line."""
        with self._mutex:
            try:
                os.ftruncate(self._fd, 0)
                os.lseek(self._fd, 0, os.SEEK_SET)
            except OSError as error:
                raise disk_error(self.path, error) from None
            self._end = 0

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._mutex:  # a worker that comes too late must not write to whatever gets this number next
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


def read_log(path: Path) -> Iterator[JSON]:
    """The whole lines of a log that another process may be writing; a torn last line is left out.

    Raises:
        InputError: a line before the last is not JSON.
    """
    try:
        with path.open("rb") as file:
            for value, _ in _lines(path, file):
                yield value
    except FileNotFoundError:
        return


def _lines(path: Path, file: BinaryIO) -> Iterator[tuple[JSON, int]]:
    """(value, offset behind its line) for each line; stops before a last line that is torn."""
    end = 0
    bad: int | None = None
    for number, line in enumerate(file, 1):
        if bad is not None:
            raise InputError(
                f"{path}: line {bad} is not JSON; restore the file from a backup or cut it there"
            )
        if not line.endswith(b"\n"):
            return  # what follows, if a writer adds it just now, is the rest of this line
        end += len(line)
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            bad = number  # only a last line may be torn
            continue
        yield value, end


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: a reader sees the old bytes or the new ones, never a part.

    There may be one writer only (see `Lock`); what a killed writer left is overwritten by the next.
    """
    temporary = part_of(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            put_in_place(file, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise disk_error(path, error) from None


def part_of(path: Path) -> Path:
    """The hidden name beside `path` under which its next version is written."""
    return path.with_name(f".{path.name}.part")


def put_in_place(file: BinaryIO, path: Path) -> None:
    """Bring `file`, open at `part_of(path)`, to the disk and let it replace `path`."""
    file.flush()
    os.fsync(file.fileno())
    if path.exists():
        shutil.copymode(path, part_of(path))
    part_of(path).replace(path)
    if os.name == "posix":  # without this a power cut may undo the renaming
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def replacing(*paths: Path) -> Iterator[Sequence[BinaryIO]]:
    """Files that grow under hidden names and take their places together when the block ends well.

    Raises:
        InputError, DiskFull: one of them cannot be written; the old files are still there, whole.
    """
    try:
        with contextlib.ExitStack() as stack:
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
            files = [stack.enter_context(part_of(path).open("wb")) for path in paths]
            yield files
            for file, path in zip(files, paths, strict=True):
                put_in_place(file, path)
    except OSError as error:
        names = {str(part_of(path)): path for path in paths}
        raise disk_error(names.get(error.filename) or Path(error.filename or paths[0]), error) from None
    finally:
        for path in paths:
            with contextlib.suppress(OSError):
                part_of(path).unlink(missing_ok=True)


class Lock:
    """One writer for a folder: an advisory lock that the system drops when the process ends, however it ends.

    Raises:
        LockedError: another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise disk_error(path, error) from None
        try:
            held = _try_lock(self._file.fileno())
            for _ in range(LOCK_TRIES):  # `is_locked` of another process holds it for an instant
                if held:
                    break
                sleep(0.01)
                held = _try_lock(self._file.fileno())
            if held:
                self._file.truncate(0)
                os.write(self._file.fileno(), f"process {os.getpid()} on {_host()}".encode())
        except OSError as error:
            self._file.close()
            raise disk_error(path, error) from None
        if not held:
            self._file.seek(0)
            owner = " ".join(self._file.read(100).decode(errors="replace").split()) or "another process"
            self._file.close()
            raise LockedError(
                f"{path}: held by {owner}; wait for that run to end, or choose another --output"
            )

    def release(self) -> None:
        """Let the next one in."""
        self._file.close()


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock now (to know it, it is taken for an instant)."""
    try:
        with path.open("r+") as file:
            return not _try_lock(file.fileno())
    except OSError:
        return False


def _host() -> str:
    import socket

    return socket.gethostname()


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, 4096, os.SEEK_SET)  # behind the text, which others must be able to read
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
