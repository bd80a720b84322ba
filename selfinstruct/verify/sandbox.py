"""The one place where a stranger's program may run: what a sandbox offers, its limits, and which there are.

`bwrap` (bubblewrap, Linux) is the default. What it covers, each point held by a test that attacks it:

- files: the program sees the system's programs and libraries, read-only, a few files of /etc, and a small
  /tmp of its own that is gone with it. No home folder, no project, no run directory; what it leaves
  behind is never read, only what it printed.
- environment, keys: it gets an environment of ours; the kernel's key rings are shut.
- network: it has one of its own with nothing in it but its own loopback.
- processes: it sees and can signal its own only. All of them end when the program ends, when a limit is
  met, and when we are killed.
- privileges: none, and none can be gained. Started as root, it becomes a user that owns nothing, another
  one each time.
- system calls: `syscalls` tells what is denied.
- resources: wall time, processor time of all its processes together, number of processes, memory, size
  of a file and of all files, amount of output. Memory is measured some 25 times a second and may overshoot
  in between; where a runtime permits it the kernel holds each process to its address space as well.

What it does not cover: holes in the kernel; what the processor leaks between programs; memory that the
kernel uses on behalf of the program (buffers of sockets and pipes, names of many empty files), and shared
memory a process has mapped, filled and dropped without giving it back - both are bounded only by the other
limits, and the system's out-of-memory killer takes these processes first; files that any user may read
below /usr and in the folders of the toolchains; slowing the machine down within the limits.

`container` (Docker or Podman) holds the same limits by cgroups, and relies on the engine for the rest.
`none` is a plain process with an empty environment, a folder of its own and some limits: it can read and
write whatever you can, and use the network. It is there for machines that are a sandbox already, and is
never chosen by itself. Nothing here falls back to something weaker: what is missing is an error.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from selfinstruct.errors import InputError

SandboxName = Literal["auto", "bwrap", "container", "none"]
Ending = Literal["ok", "exit", "signal", "timeout", "cpu", "memory", "processes", "output"]
FOLDER = "/tmp/box"  # noqa: S108 - inside the sandbox: where the program and its files are


class SandboxUnavailable(InputError):
    """The sandbox that was asked for cannot be used here; the message says what to install or to do."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use. Sizes in bytes, times in seconds; all its processes count together.

    Attributes:
        seconds: wall time.
        cpu_seconds: processor time.
        memory_bytes: memory in use (without program files).
        address_bytes: address space of each process; None where the runtime reserves much more than it uses.
        processes: processes and threads at a time.
        file_bytes: one file.
        disk_bytes: all files; and /dev/shm as much again.
        output_bytes: standard output and standard error together.
    """

    seconds: float = 20.0
    cpu_seconds: float = 10.0
    memory_bytes: int = 1 << 30
    address_bytes: int | None = 4 << 30
    processes: int = 64
    file_bytes: int = 32 << 20
    disk_bytes: int = 64 << 20
    output_bytes: int = 1 << 20


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Call:
    """A program to be run once.

    Attributes:
        argv: the program and its words, which must be ours: a stranger's code goes into a file.
        files: put into the working folder before: plain names and contents.
        stdin: what it can read.
        limits: what it may use.
        env: variables besides PATH, HOME, TMPDIR, LANG.
        folders: of this machine, that it may read besides the system's.

    Raises:
        ValueError: a file's name is more than a plain name, and could lead out of the folder.
    """

    argv: Sequence[str]
    files: Mapping[str, bytes] = field(default_factory=dict)
    stdin: bytes = b""
    limits: Limits = LIMITS
    env: Mapping[str, str] = field(default_factory=dict)
    folders: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in self.files:
            plain = name.replace("_", "").replace("-", "").replace(".", "")
            if not (plain.isascii() and plain.isalnum()) or name.startswith("."):
                raise ValueError(f"not a plain file name: {name!r}")


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended.

    Attributes:
        status: `ok`: status 0; `exit`: another status; `signal`; else the limit it met.
        code: the exit status; the number of a signal; None where a limit ended it.
        stdout: what it printed, up to the limit; a stranger's bytes.
        stderr: the same.
        seconds: wall time.
        cpu: processor time in seconds, with the sandbox's own.
        listening: when its time was up it was waiting for connections (told by `bwrap` only).
    """

    status: Ending
    code: int | None
    stdout: bytes
    stderr: bytes
    seconds: float
    cpu: float
    listening: bool = False


class Sandbox(Protocol):
    """Runs programs. Several threads may use one at the same time; nothing has to be closed."""

    def __hash__(self) -> int: ...

    @property
    def name(self) -> str:
        """`bwrap`, `container` or `none`."""

    def find(self, program: str) -> tuple[str, ...]:
        """The paths of programs of this name, the user's first choice first."""

    def run(self, call: Call) -> Result:
        """Run one program to its end.

        Raises:
            SandboxUnavailable: the sandbox itself failed.
        """


def open_sandbox(name: SandboxName = "auto") -> Sandbox:
    """The sandbox of this name, tried out once.

    Args:
        name: `auto` is bwrap where it works, else a container engine where one answers; never `none`.

    Raises:
        SandboxUnavailable: it does not work here.
    """
    if os.name != "posix":
        raise SandboxUnavailable("no sandbox works on this system: use Linux (WSL 2 will do)")
    from selfinstruct.verify.bare import open_bare
    from selfinstruct.verify.bwrap import open_bwrap
    from selfinstruct.verify.container import open_container

    if name == "bwrap":
        return open_bwrap()
    if name == "container":
        return open_container()
    if name == "none":
        return open_bare()
    try:
        return open_bwrap()
    except SandboxUnavailable as error:
        first = str(error)
    try:
        return open_container()
    except SandboxUnavailable as error:
        raise SandboxUnavailable(f"{first}; {error}") from None


def on_path(program: str) -> tuple[str, ...]:
    """Every program of this name on this machine's PATH, in its order."""
    places = os.environ.get("PATH", os.defpath).split(os.pathsep)
    found = (shutil.which(program, path=place) for place in places if Path(place).is_absolute())
    return tuple(dict.fromkeys(path for path in found if path))
