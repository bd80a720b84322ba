"""The embedded model: starts llama.cpp in a child process, asks it over HTTP, and ends it.

What the child does is in `llama_child`; the requests go through `backend_openai`; where the weights come
from is in `weights`. Replies of more than one slot are not repeatable bit by bit: the engine adds numbers
in another order when it answers several requests at once. One slot is repeatable for the same requests
in the same order; in another order other beginnings of prompts come from memory, which changes sums, too.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from selfinstruct.backend_openai import OpenAIBackend
from selfinstruct.errors import BackendError, InputError, SelfInstructError, Transient
from selfinstruct.records import Reply, Request

MAX_SLOTS = 4  # more bring nothing on the few cores of a usual machine, and each costs memory
SLOT_TOKENS = 2048
REQUEST_SECONDS = 1800.0  # a slow machine may need many minutes for a long answer, and says nothing before
_START_SECONDS = 300.0
_CLOSE_SECONDS = 5.0
_MISSING = "the engine of the local backend is not installed: pip install 'selfinstruct[local]'"


def check_engine() -> None:
    """See that the engine is there, before a gigabyte of weights is fetched for it.

    Raises:
        InputError: it is not installed.
    """
    if find_spec("xllamacpp") is None:
        raise InputError(_MISSING)


class LocalServer:
    """llama.cpp's OpenAI-compatible server in a child process; ready when the constructor returns.

    The child ends when it is closed, when this process ends, however it ends, and at the end of a `with`
    block. Ctrl-C in the terminal does not reach it: the caller closes it when its own work is in order.

    Args:
        model: the GGUF file.
        alias: the model's name in replies; the file's name if None.
        slots: requests answered at once; more wait.
        ctx: tokens of prompt and answer together that one slot holds.
        threads: processor threads; as many as this process may use cores if None.
        log: a file to which the engine's talk is added; silent if None.
        start_seconds: how long loading may take.

    Raises:
        InputError: the engine or a library of the system is missing, or the file is no model.
        BackendError: it does not start: memory, processor, time.
    """

    def __init__(
        self,
        model: Path,
        *,
        alias: str | None = None,
        slots: int = MAX_SLOTS,
        ctx: int = SLOT_TOKENS,
        threads: int | None = None,
        log: Path | None = None,
        start_seconds: float = _START_SECONDS,
    ) -> None:
        self.model = model.absolute()
        self.name = alias or model.name
        self.key = secrets.token_urlsafe(24)
        self._closing = threading.Lock()
        self._stderr = _open_log(log)
        self._log_start = self._stderr.seek(0, os.SEEK_END)
        self._child = self._spawn()
        atexit.register(self.close)
        settings = {"model": str(self.model), "alias": self.name, "slots": slots, "ctx": ctx}
        settings |= {"threads": threads or usable_cores(), "key": self.key, "log": log is not None}
        try:
            self.url = self._await_address(settings, start_seconds)
        except BaseException:  # Ctrl-C while it loads, too
            self.close()
            raise

    def _spawn(self) -> subprocess.Popen[bytes]:
        detached: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            detached = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        return subprocess.Popen(
            [sys.executable, "-m", "selfinstruct.llama_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            # From here, not from the user's folder, where a file may be named like one of our imports.
            cwd=Path(__file__).resolve().parents[1],
            # Threads that spin while they wait lose three quarters of their speed next to one other busy
            # process. On a crash the engine would call a debugger, if there is one.
            env=os.environ | {"OMP_WAIT_POLICY": "passive", "GGML_NO_BACKTRACE": "1"},
            **detached,
        )

    def _await_address(self, settings: dict[str, Any], seconds: float) -> str:
        stdin, stdout = self._child.stdin, self._child.stdout
        assert stdin is not None  # noqa: S101 - both are pipes
        assert stdout is not None  # noqa: S101
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._child.kill()

        timer = threading.Timer(seconds, give_up)
        timer.daemon = True
        timer.start()
        try:
            stdin.write(json.dumps(settings).encode() + b"\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            timer.cancel()
        if late.is_set():
            raise BackendError(f"{self.model}: the model was not loaded after {seconds:g} s")
        if not line:
            raise self._failure()
        told = json.loads(line)
        if "url" not in told:
            raise self._explain(told["kind"], told["error"])
        return f"{told['url']}/v1"

    def _explain(self, kind: str, error: str) -> SelfInstructError:
        """What a child that could not load the model said, as one line for the user."""
        if kind == "ModuleNotFoundError":
            return InputError(_MISSING)
        if kind == "ImportError" and "libgomp" in error:
            return InputError(
                "the local backend needs the system library libgomp:"
                " apt-get install libgomp1 (Debian, Ubuntu) or dnf install libgomp (Fedora)"
            )
        if kind == "ImportError":
            return InputError(f"the engine of the local backend does not load here: {error}")
        talk = self._last_lines()
        if any("failed to allocate" in line for line in talk):
            return self._out_of_memory()
        why = next((line for line in talk if "error loading model" in line), talk[-1] if talk else error)
        return InputError(f"{self.model}: the engine cannot load this file: {why.split('model: ')[-1]}")

    def _out_of_memory(self) -> BackendError:
        return BackendError(
            f"{self.model}: not enough memory for this model; close other programs, lower --concurrency or"
            " take a smaller model"
        )

    def _failure(self) -> BackendError:
        """Why the child died, in one line."""
        code = self._child.wait()
        killed, illegal = getattr(signal, "SIGKILL", None), getattr(signal, "SIGILL", None)
        if code in (-illegal if illegal else None, 0xC000001D):
            return BackendError(
                "the local backend's engine needs a processor with AVX2: use --backend openai"
            )
        if killed and code == -killed:
            return BackendError(
                f"{self.model}: the model's process was killed, most likely by the system for lack of memory;"
                " close other programs, lower --concurrency or take a smaller model"
            )
        talk = self._last_lines()
        if any(sign in line for line in talk for sign in ("bad_alloc", "failed to allocate", "MemoryError")):
            return self._out_of_memory()
        last = talk[-1] if talk else "no message"
        return BackendError(f"{self.model}: the model's process ended with status {code}: {last}")

    def _last_lines(self) -> list[str]:
        end = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(self._log_start, end - 10_000))
        return [line for line in self._stderr.read().decode(errors="replace").splitlines() if line.strip()]

    def failure(self) -> BackendError | None:
        """Why the child is dead, or None while it lives or after `close`."""
        with self._closing:
            if self._stderr.closed or self._child.poll() is None:
                return None
            return self._failure()

    def close(self) -> None:
        """End the child; requests under way fail. May be called twice."""
        with self._closing:
            if self._stderr.closed:
                return
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):  # it died with our settings unread
                        pipe.close()
            try:
                self._child.wait(_CLOSE_SECONDS)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
            self._stderr.close()
        atexit.unregister(self.close)

    def __enter__(self) -> LocalServer:  # noqa: PYI034 - Self is not in Python 3.10
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LocalBackend:
    """A `Backend` on the embedded model.

    Args:
        model: the GGUF file.
        alias: the model's name in replies.
        concurrency: requests that will be in flight; decides the number of slots.
        log: a file for the engine's talk, or None.

    Raises:
        InputError, BackendError: as `LocalServer`.
    """

    def __init__(
        self, model: Path, *, alias: str | None = None, concurrency: int = MAX_SLOTS, log: Path | None = None
    ) -> None:
        slots = max(1, min(MAX_SLOTS, concurrency))
        self.server = LocalServer(model, alias=alias, slots=slots, log=log)
        self._client = OpenAIBackend(
            self.server.name,
            self.server.url,
            api_key=self.server.key,
            timeout=REQUEST_SECONDS,
            max_connections=max(1, concurrency),
        )

    def complete(self, key: str, request: Request) -> Reply:
        """Answer one request; see `seams.Backend`.

        Raises:
            BackendError: the child died; trying again cannot help.
            Transient, RequestRefused: as `OpenAIBackend`.
        """
        try:
            return self._client.complete(key, request)
        except (Transient, BackendError):
            failure = self.server.failure()
            if failure is None:
                raise
        raise failure

    def close(self) -> None:
        """End the child; requests under way fail. May be called twice."""
        self.server.close()
        self._client.close()


def usable_cores() -> int:
    """Cores this process may use: its affinity, without hyper-threads, within its container's quota.

    Hyper-threads share the units that multiply, so a second one per core slows the model down.
    """
    if not hasattr(os, "sched_getaffinity"):
        return max(1, os.cpu_count() or 1)
    cpus = os.sched_getaffinity(0)
    cores = {_read(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") or cpu for cpu in cpus}
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    if not quota:  # the older form of control groups
        quota = _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
        period = _read("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    limited = ceil(int(quota) / int(period)) if quota.isdigit() and period.isdigit() else len(cores)
    return max(1, min(len(cores), limited))


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _open_log(log: Path | None) -> IO[bytes]:
    if log is None:
        return tempfile.TemporaryFile()
    try:
        return log.open("a+b")
    except OSError as error:
        raise InputError(f"{log}: cannot write the engine's log here: {error.strerror}") from None
