"""The sandbox by bubblewrap: which words it is called with. What it covers stands in `sandbox`.

There are two ways to hold a program apart from us. An ordinary user gets a user namespace, and further ones
are forbidden in it. Root needs none and could not use one: the kernel does not count root's processes, and a
home folder closed to others could not be opened from there. So root builds the sandbox itself, and the
program changes to a user of its own before it starts.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from selfinstruct.verify.sandbox import (
    FOLDER,
    Call,
    Ending,
    Limits,
    Result,
    SandboxUnavailable,
    on_path,
)
from selfinstruct.verify.syscalls import MACHINES, make_filter
from selfinstruct.verify.watch import Watched, watch

_INSTALL = "install bubblewrap 0.8 or newer (`apt install bubblewrap`), or use --sandbox container"
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# What programs and libraries cannot do without. Of the Java and PHP folders the files that are open to all.
_ETC = (
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "alternatives",
    "localtime",
    "mime.types",
    "php",
    "perl",
    "R",
)
_ETC_PATTERNS = ("java*",)
_PLACE = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": FOLDER, "TMPDIR": "/tmp", "LANG": "C.UTF-8"}  # noqa: S108
_USER = 1000  # inside a user namespace
_FIRST_USER = 1 << 30  # of the numbers that root hands out: far from those of people and containers
_turns = itertools.count()
_WRAPPERS = 4  # processes of bwrap's own that the kernel counts for the same user, with some room

# The sandbox's first process. It makes the system take the program first when memory runs out, and waits for
# it: bwrap's own first process would do so too, but its processor time, and so the program's, gets lost.
# It starts nothing before we have answered: were we killed while bwrap was still at work, nobody would tell
# it, and the program would have no one to end it. (`read` takes no more from a pipe than the line.)
_GREETING, _ANSWER = b"#", b"go\n"
_LAUNCH = 'echo 1000 >/proc/self/oom_score_adj; printf "#"; read -r REPLY && "$@"; exit $?'


def open_bwrap() -> Bwrap:
    """The sandbox, after a trial.

    Raises:
        SandboxUnavailable: bubblewrap is missing, old, or not allowed to work.
    """
    if sys.platform != "linux":
        raise SandboxUnavailable("sandbox bwrap: works on Linux only; use --sandbox container")
    missing = [name for name in ("bwrap", "prlimit", "setpriv") if shutil.which(name) is None]
    if missing:
        what = _INSTALL if "bwrap" in missing else "install util-linux"
        raise SandboxUnavailable(f"sandbox bwrap: {missing[0]} is not installed; {what}")
    if platform.machine() not in MACHINES:
        raise SandboxUnavailable(
            f"sandbox bwrap: no filter of system calls is known for {platform.machine()}; use --sandbox container"
        )
    said = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=False).stdout
    version = tuple(int(part) for part in re.findall(r"\d+", said)[:2])
    if version < (0, 8):
        raise SandboxUnavailable(f"sandbox bwrap: {said.strip() or 'bwrap'} is too old; {_INSTALL}")
    if not Path("/proc/thread-self/children").exists():
        raise SandboxUnavailable(
            "sandbox bwrap: this kernel does not tell a process's children (PROC_CHILDREN)"
        )
    sandbox = Bwrap()
    sandbox.run(Call(["/bin/true"]))
    return sandbox


class Bwrap:
    """See `sandbox.Sandbox`. Has no state of its own."""

    name = "bwrap"

    def find(self, program: str) -> tuple[str, ...]:
        """Its paths on this machine: what is there can be shown to a program."""
        return on_path(program)

    def run(self, call: Call) -> Result:
        """Run one program to its end; see `sandbox.Sandbox`."""
        limits = call.limits
        root = _is_root()
        user = _FIRST_USER + (os.getpid() << 7) % _FIRST_USER + next(_turns) % 128 if root else _USER
        with contextlib.ExitStack() as open_files:
            kept = [open_files.enter_context(_in_memory(content)) for content in call.files.values()]
            passwd = open_files.enter_context(_in_memory(f"box:x:{user}:{user}::{FOLDER}:/bin/sh\n".encode()))
            group = open_files.enter_context(_in_memory(f"box:x:{user}:\n".encode()))
            rules = open_files.enter_context(_in_memory(make_filter(platform.machine())))
            words = [*_namespaces(root), *_view(limits, call.folders)]
            for name, number in zip(call.files, kept, strict=True):
                words += ["--perms", "0666", "--file", str(number), f"{FOLDER}/{name}"]
            words += ["--perms", "0444", "--file", str(passwd), "/etc/passwd"]
            words += ["--perms", "0444", "--file", str(group), "/etc/group"]
            # Only now: bwrap makes its mount points in these two.
            words += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", FOLDER, "--seccomp", str(rules)]
            for variable, value in {**_PLACE, **call.env}.items():
                words += ["--setenv", variable, value]
            command = [_path("bwrap"), *words, "--", *_launch(limits, user if root else None), *call.argv]
            ended = watch(
                command, _ANSWER + call.stdin, limits, end=_kill, env={}, greeting=_GREETING, own_network=True,
                descriptors=(*kept, passwd, group, rules),
            )  # fmt: skip
        return _result(ended)


def _is_root() -> bool:
    """Whether we are root of the whole machine, and not of a container's users only."""
    if os.geteuid() != 0:
        return False
    fields = Path("/proc/self/uid_map").read_text(encoding="ascii").split()
    return fields[:3] == ["0", "0", "4294967295"]


def _namespaces(root: bool) -> list[str]:
    words = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    words += ["--hostname", "box", "--die-with-parent", "--as-pid-1", "--new-session", "--clearenv"]
    if root:  # the two are given up with the change of user, see _launch
        return [*words, "--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    return [*words, "--unshare-user", "--disable-userns", "--uid", str(_USER), "--gid", str(_USER)]


def _view(limits: Limits, folders: Sequence[str]) -> list[str]:
    """The files that the program sees."""
    words = ["--proc", "/proc", "--dev", "/dev"]
    for place in ("/tmp", "/dev/shm"):  # noqa: S108 - the sandbox's own
        words += ["--perms", "1777", "--size", str(limits.disk_bytes), "--tmpfs", place]
    words += ["--perms", "0755", "--dir", "/etc", *_system(), "--perms", "0777", "--dir", FOLDER]
    for folder in folders:
        if not folder.startswith(("/usr/", "/lib", "/bin/")):
            for parent in reversed(Path(folder).parents):
                words += ["--perms", "0755", "--dir", str(parent)]  # where it is not there yet: open to all
            words += ["--ro-bind", folder, folder]
    return words


@functools.cache
def _system() -> tuple[str, ...]:
    """Programs, libraries and what they read in /etc, as this machine has them."""
    words: list[str] = []
    for place in map(Path, _SYSTEM):
        if place.is_symlink():  # to below /usr, in most systems
            words += ["--symlink", str(place.readlink()), str(place)]
        elif place.is_dir():
            words += ["--ro-bind", str(place), str(place)]
    etc = Path("/etc")
    for place in [*(etc / name for name in _ETC), *(path for p in _ETC_PATTERNS for path in etc.glob(p))]:
        words += ["--ro-bind-try", str(place), str(place)]
    return tuple(words)


def _launch(limits: Limits, user: int | None) -> list[str]:
    """What comes before the program inside the sandbox: limits of the kernel, and root's change of user."""
    command = [_path("prlimit"), "--core=0", "--nofile=256", f"--fsize={limits.file_bytes}"]
    command += [f"--cpu={round(limits.cpu_seconds) + 1}", f"--nproc={limits.processes + _WRAPPERS}"]
    if limits.address_bytes is not None:
        command.append(f"--as={limits.address_bytes}")
    command += ["--", "/bin/sh", "-c", _LAUNCH, "sh"]
    if user is not None:
        command += [_path("setpriv"), f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        command += ["--inh-caps=-all", "--no-new-privs", "--"]
    return command


@functools.cache
def _path(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise SandboxUnavailable(f"sandbox bwrap: {program} is not there any more; {_INSTALL}")
    return found


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[int]:
    """A file without a name, to be read from its start."""
    number = os.memfd_create("box")
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(number, rest) :]
        os.lseek(number, 0, os.SEEK_SET)
        yield number
    finally:
        os.close(number)


def _kill(process: int) -> None:
    """The kernel ends the program's processes with bwrap."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def _result(ended: Watched) -> Result:
    """How bwrap ended, as our words.

    Raises:
        SandboxUnavailable: it never came to run the program.
    """
    if not ended.greeted:
        said = ended.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise SandboxUnavailable(f"sandbox bwrap: {''.join(said) or 'it does not start'}; {_advice()}")
    if ended.met is not None:
        return Result(ended.met, None, ended.stdout, ended.stderr, ended.seconds, ended.cpu, ended.listening)
    code = ended.returncode
    if code == 128 + signal.SIGXCPU:
        return Result("cpu", None, ended.stdout, ended.stderr, ended.seconds, ended.cpu)
    signalled = code > 128 and code - 128 in set(signal.Signals)
    how: Ending = "ok" if code == 0 else "signal" if signalled else "exit"
    return Result(
        how, code - 128 if signalled else code, ended.stdout, ended.stderr, ended.seconds, ended.cpu
    )


def _advice() -> str:
    if os.geteuid() == 0:
        return "it needs to make namespaces, which a container often forbids; use --sandbox container or none"
    return "if user namespaces are switched off here, switch them on, or use --sandbox container"
