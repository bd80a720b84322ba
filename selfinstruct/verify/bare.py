"""The sandbox that is none: a plain process with an empty environment, a folder of its own and some limits.

It can read and write whatever the user can and use the network; `sandbox` says more. A program that
starts processes and orphans them may leave them behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path

from selfinstruct.verify.sandbox import Call, Ending, Limits, Result, on_path
from selfinstruct.verify.watch import tree, watch

# Limits of the shell's own: other systems than Linux have no `prlimit`. Sizes in units of 1024 bytes, those
# of files of 512.
_LAUNCH = 'ulimit -c 0; ulimit -t {cpu}; ulimit -f {file}; ulimit -n 256; {memory} exec "$@"'


def open_bare() -> Bare:
    """The sandbox. Who opens it warns the user."""
    return Bare()


class Bare:
    """See `sandbox.Sandbox`. Has no state of its own."""

    name = "none"

    def find(self, program: str) -> tuple[str, ...]:
        """Its paths on this machine: what is there can be shown to a program."""
        return on_path(program)

    def run(self, call: Call) -> Result:
        """Run one program to its end; see `sandbox.Sandbox`. It sees every folder anyway."""
        with tempfile.TemporaryDirectory(prefix="selfinstruct-", ignore_cleanup_errors=True) as folder:
            for name, content in call.files.items():
                Path(folder, name).write_bytes(content)
            place = {
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": folder,
                "TMPDIR": folder,
                "LANG": "C.UTF-8",
            }
            ended = watch(
                [*_launch(call.limits), *call.argv],
                call.stdin,
                call.limits,
                end=_kill,
                env={**place, **call.env},
                folder=folder,
            )
        code = ended.returncode
        if ended.met is not None or code == -signal.SIGXCPU:
            met = ended.met or "cpu"
            return Result(met, None, ended.stdout, ended.stderr, ended.seconds, ended.cpu)
        how: Ending = "ok" if code == 0 else "signal" if code < 0 else "exit"
        return Result(how, abs(code), ended.stdout, ended.stderr, ended.seconds, ended.cpu)


def _launch(limits: Limits) -> list[str]:
    memory = (
        f"ulimit -v {limits.address_bytes >> 10};" if limits.address_bytes and sys.platform == "linux" else ""
    )
    script = _LAUNCH.format(cpu=round(limits.cpu_seconds) + 1, file=limits.file_bytes >> 9, memory=memory)
    return ["/bin/sh", "-c", script, "sh"]


def _kill(process: int) -> None:
    """End its processes one by one, parents first, and its group, which orphans still belong to."""
    for number in list(tree(process)) if sys.platform == "linux" else [process]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
