"""What tests share that run programs in a sandbox: `needs_sandbox` skips them where there is none, and
`open_as_nobody()` gives a sandbox whose every run is by `nobody`.

Root and ordinary users build the sandbox in two different ways; a machine where tests run as root (a
container, most often) can so try both.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from selfinstruct.verify.sandbox import Call, Result, SandboxUnavailable, on_path, open_sandbox

ROOT = Path(__file__).parents[1]
PYTHON = "/usr/bin/python3"
CHILD = """
import pickle, sys
from selfinstruct.verify.bwrap import Bwrap
sys.stdout.buffer.write(pickle.dumps(Bwrap().run(pickle.load(sys.stdin.buffer))))
"""


class AsNobody:
    """A sandbox (see `selfinstruct.verify.sandbox.Sandbox`)."""

    name = "bwrap"

    def find(self, program: str) -> tuple[str, ...]:
        return on_path(program)

    def run(self, call: Call) -> Result:
        ended = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", PYTHON, "-B", "-c", CHILD],
            input=pickle.dumps(call), capture_output=True, cwd=ROOT, check=False, timeout=120,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"},
        )  # fmt: skip
        if ended.returncode:
            raise RuntimeError(ended.stderr.decode())
        result = pickle.loads(ended.stdout)  # noqa: S301 - our own child's
        assert isinstance(result, Result)
        return result


def _missing() -> str:
    try:
        open_sandbox("bwrap")
    except SandboxUnavailable as error:
        return str(error)
    return ""


needs_sandbox = pytest.mark.skipif(bool(why := _missing()), reason=why)


def open_as_nobody() -> AsNobody | str:
    """The sandbox, or why it cannot be had here."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root can become another user"
    sandbox = AsNobody()
    try:
        sandbox.run(Call(["/bin/true"]))
    except (OSError, RuntimeError) as error:
        return f"no sandbox as another user: {str(error).strip().splitlines()[-1:]}"
    return sandbox
