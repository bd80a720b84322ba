"""Runs one command to its end under watch: time, memory, processes and output of it and all it starts.

It decides when to end a command, and leaves to the caller how: a sandbox has its own way to take all
processes of a program with it. Nothing here confines anything.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from selfinstruct.verify.sandbox import Ending, Limits

_CENSUS_SECONDS = 0.04  # between two looks at memory: a program fills some 100 MB in that time
_START_SECONDS = 30.0  # for a command that greets, until it does
_IDLE_SECONDS = 0.005  # between two looks whether it has ended, once nobody can print any more
_CHUNK = 1 << 16
_SHARE_OF_MEMORY = re.compile(
    rb"(?:RssAnon|RssShmem|VmSwap):\s*(\d+)"
)  # pages of files are not the program's
_TICKS = os.sysconf("SC_CLK_TCK")
_LINUX = sys.platform == "linux"


@dataclass(slots=True)
class _Streams:
    """The three pipes of a process: feeds its input, keeps its output up to a limit."""

    process: subprocess.Popen[bytes]
    stdin: memoryview
    room: int  # bytes of output that may still come
    greeting: bytes  # that still has to be printed before anything is fed
    out: dict[str, bytearray] = field(default_factory=lambda: {"stdout": bytearray(), "stderr": bytearray()})
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def __post_init__(self) -> None:
        process, selector = self.process, self.selector
        assert process.stdin is not None  # noqa: S101 - all three are pipes
        assert process.stdout is not None  # noqa: S101
        assert process.stderr is not None  # noqa: S101
        for stream in (process.stdin, process.stdout, process.stderr):
            os.set_blocking(stream.fileno(), False)
        selector.register(process.stdout, selectors.EVENT_READ, "stdout")
        selector.register(process.stderr, selectors.EVENT_READ, "stderr")
        if not self.greeting:
            self._open_input()

    @property
    def printing(self) -> bool:
        """Whether more output may come."""
        return any(key.data != "stdin" for key in self.selector.get_map().values())

    def move(self, seconds: float) -> int:
        """Wait at most that long for bytes to move, and move them; the number that were printed."""
        printed = 0
        for key, _ in self.selector.select(seconds):
            if key.data == "stdin":
                self._feed(key)
            else:
                printed += self._read(key)
        return printed

    def _open_input(self) -> None:
        assert self.process.stdin is not None  # noqa: S101 - a pipe
        if self.stdin:
            self.selector.register(self.process.stdin, selectors.EVENT_WRITE, "stdin")
        else:
            self.process.stdin.close()

    def _feed(self, key: selectors.SelectorKey) -> None:
        try:
            self.stdin = self.stdin[os.write(key.fd, self.stdin[:_CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # it does not want to read
            self.stdin = self.stdin[:0]
        if not self.stdin:
            self._drop(key)

    def _read(self, key: selectors.SelectorKey) -> int:
        try:
            chunk = os.read(key.fd, _CHUNK)
        except BlockingIOError:
            return 0
        if not chunk:
            self._drop(key)
        if self.greeting and chunk.startswith(self.greeting) and key.data == "stdout":
            chunk, self.greeting = chunk[len(self.greeting) :], b""
            self._open_input()
        self.out[key.data] += chunk[: max(self.room, 0)]
        self.room -= len(chunk)
        return len(chunk)

    def _drop(self, key: selectors.SelectorKey) -> None:
        self.selector.unregister(key.fileobj)
        if not isinstance(key.fileobj, int):
            key.fileobj.close()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Close all that is still open."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        for key in list(self.selector.get_map().values()):
            self._drop(key)
        self.selector.close()


@dataclass(frozen=True, slots=True)
class Watched:
    """How the command ended.

    Attributes:
        greeted: whether it printed the greeting it should.
        met: the limit that it met, None if it ended by itself.
        returncode: its status; the number of a signal is negative.
        stdout: what it printed after the greeting.
        stderr: what it printed there.
        seconds: wall time since the greeting.
        cpu: processor time in seconds, of all its processes.
        listening: when its time was up a child of the command was waiting for connections.
    """

    greeted: bool
    met: Ending | None
    returncode: int
    stdout: bytes
    stderr: bytes
    seconds: float
    cpu: float
    listening: bool


def watch(
    argv: Sequence[str],
    stdin: bytes,
    limits: Limits,
    *,
    end: Callable[[int], None],
    env: Mapping[str, str],
    folder: str = "/",
    descriptors: Sequence[int] = (),
    census: bool = True,
    greeting: bytes = b"",
    own_network: bool = False,
) -> Watched:
    """Run a command until it ends or meets a limit.

    Args:
        argv: the command, by full path.
        stdin: what it can read.
        limits: `seconds`, `output_bytes`, and with `census` `cpu_seconds`, `memory_bytes`, `processes`.
        end: ends the command of this process number and all that belongs to it.
        env: its whole environment.
        folder: where it starts.
        descriptors: open files that it inherits.
        census: whether to count what its processes use (where the system tells it: Linux).
        greeting: what the command prints first of all; it is fed nothing before, and its time begins then.
        own_network: whether its children have a network of their own.

    Raises:
        OSError: the command cannot be started.
    """
    began = time.monotonic()
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
        env=dict(env), cwd=folder, pass_fds=tuple(descriptors), start_new_session=True,
    )  # fmt: skip
    streams = _Streams(process, memoryview(stdin), limits.output_bytes, greeting)
    ended: tuple[int, float] | None = None
    met: Ending | None = None
    used = 0.0
    looked = began
    try:
        while met is None and (ended := _reap(process)) is None:
            streams.move(_CENSUS_SECONDS if streams.printing else _IDLE_SECONDS)
            now = time.monotonic()
            if streams.greeting and now - began < _START_SECONDS:
                continue
            if greeting and not streams.greeting:
                began, greeting = now, b""
            if streams.room < 0:
                met = "output"
            elif now - began > limits.seconds:
                met = "timeout"
            elif census and _LINUX and now - looked >= _CENSUS_SECONDS:
                looked = now
                met, used = _look(process.pid, limits)
        if met is None:
            while streams.printing and streams.room >= 0 and streams.move(0):
                pass  # what was printed last
            met = "output" if streams.room < 0 else None
        listening = met == "timeout" and own_network and _listens(process.pid)
    finally:
        if ended is None:
            end(process.pid)
            ended = _reap(process, block=True)
        streams.close()
    assert ended is not None  # noqa: S101 - waited for
    out, seconds = streams.out, time.monotonic() - began
    cpu = max(ended[1], used)
    return Watched(
        not streams.greeting, met, ended[0], bytes(out["stdout"]), bytes(out["stderr"]), seconds, cpu, listening
    )  # fmt: skip


def _reap(process: subprocess.Popen[bytes], *, block: bool = False) -> tuple[int, float] | None:
    """The status and processor time of the process once it has ended, else None."""
    number, status, usage = os.wait4(process.pid, 0 if block else os.WNOHANG)
    if not number:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)  # or Popen would wait for it again
    return process.returncode, usage.ru_utime + usage.ru_stime


def _look(process: int, limits: Limits) -> tuple[Ending | None, float]:
    """The limit that the process and its children have met, and the processor time they have used."""
    memory, ticks, count = 0, 0, 0
    for number in tree(process):
        fields = _read(f"/proc/{number}/stat").rpartition(b")")[2].split()
        if not fields:  # it has just ended
            continue
        ticks += sum(map(int, fields[11:15]))  # its own, and of children it has waited for
        count += int(fields[17])  # threads
        for value in _SHARE_OF_MEMORY.findall(_read(f"/proc/{number}/status")):
            memory += int(value) << 10
    used = ticks / _TICKS
    if memory > limits.memory_bytes:
        return "memory", used
    if used > limits.cpu_seconds:
        return "cpu", used
    # The wrappers of a sandbox are among them, and the kernel has held the number already.
    return ("processes" if count > limits.processes + 8 else None), used


def tree(process: int) -> Iterator[int]:
    """A process and all that descend from it and have not been orphaned, as numbers. Linux only."""
    found = [process]
    while found:
        process = found.pop()
        yield process
        with contextlib.suppress(OSError):  # it has just ended
            for thread in os.listdir(f"/proc/{process}/task"):  # noqa: PTH208 - many times a second
                found += map(int, _read(f"/proc/{process}/task/{thread}/children").split())


def _listens(process: int) -> bool:
    """Whether a child of the process has a socket that waits for connections (state 0A)."""
    for number in list(tree(process))[1:]:
        for name in ("tcp", "tcp6"):
            lines = _read(f"/proc/{number}/net/{name}").splitlines()[1:]
            if any(line.split()[3:4] == [b"0A"] for line in lines):
                return True
    return False


def _read(file: str) -> bytes:
    """A small file of /proc; empty if its process has just ended."""
    try:
        number = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(number, _CHUNK)
    except OSError:
        return b""
    finally:
        os.close(number)
