"""The sandbox by a container engine, Docker or Podman: which words it is called with.

Programs run in a container made from an image, so the toolchains are those of the image, not of this
machine. Nothing is fetched here: the image must be there. What is covered stands in `sandbox`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from selfinstruct.verify.sandbox import (
    FOLDER,
    Call,
    Ending,
    Limits,
    Result,
    SandboxUnavailable,
)
from selfinstruct.verify.watch import watch

IMAGE_VARIABLE = "SELFINSTRUCT_IMAGE"
IMAGE = "docker.io/library/buildpack-deps:bookworm"  # C, C++, Python, Perl, Bash; for more name your own
_ENGINES = ("podman", "docker")
_ANSWER_SECONDS = 20.0
_START_SECONDS = 30.0  # that the engine may need on top of the program's time
_USER = 65534
_turns = itertools.count()

# The files come in a folder that cannot be written; `timeout` ends the program should we be killed.
_LAUNCH = 'cp /in/* . 2>/dev/null; exec timeout -s KILL "$0" "$@"'


def open_container() -> Container:
    """The sandbox with the first engine that answers, after a trial.

    Raises:
        SandboxUnavailable: no engine answers, or the image is missing.
    """
    image = os.environ.get(IMAGE_VARIABLE, IMAGE)
    problems = []
    for engine in _ENGINES:
        path = shutil.which(engine)
        if path is None:
            continue
        if problem := _refusal(path, image):
            problems.append(f"{engine} {problem}")
            continue
        return Container(path, image)
    why = "; ".join(problems) or "neither podman nor docker is installed"
    raise SandboxUnavailable(f"sandbox container: {why}")


def _refusal(engine: str, image: str) -> str | None:
    """Why this engine cannot serve, None if it can."""
    try:
        answer = subprocess.run(
            [engine, "image", "inspect", image],
            capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"gave no answer within {_ANSWER_SECONDS:g} s"
    if answer.returncode == 0:
        return None
    said = answer.stderr.strip().splitlines()[-1:]
    if "no such image" in answer.stderr.lower() or "not known" in answer.stderr.lower():
        return f"has no image {image}: pull it, or name one that is there in {IMAGE_VARIABLE}"
    return f"does not answer: {''.join(said)[:200]}"


class Container:
    """See `sandbox.Sandbox`.

    Attributes:
        engine: path of the engine's command.
        image: name of the image.
    """

    name = "container"

    def __init__(self, engine: str, image: str) -> None:
        self.engine = engine
        self.image = image

    def find(self, program: str) -> tuple[str, ...]:
        """Its path in the image."""
        said = self.run(Call(["/bin/sh", "-c", 'command -v "$0"', program]))
        path = said.stdout.decode("utf-8", "replace").strip()
        return (path,) if said.status == "ok" and path.startswith("/") else ()

    def run(self, call: Call) -> Result:
        """Run one program to its end; see `sandbox.Sandbox`. Folders of this machine stay out."""
        limits = call.limits
        name = f"selfinstruct-{os.getpid()}-{next(_turns)}"
        with tempfile.TemporaryDirectory(prefix="selfinstruct-") as folder:
            Path(folder).chmod(0o755)
            for file, content in call.files.items():
                Path(folder, file).write_bytes(content)
                Path(folder, file).chmod(0o644)
            words = container_words(name, folder, self.image, limits, call.env)
            program = ["/bin/sh", "-c", _LAUNCH, f"{limits.seconds:g}", *call.argv]
            ours = Limits(seconds=limits.seconds + _START_SECONDS, output_bytes=limits.output_bytes)
            ended = watch(
                [self.engine, *words, *program], call.stdin, ours,
                end=functools.partial(self._end, name), env=os.environ, census=False,
            )  # fmt: skip
        code, cpu = ended.returncode, 0.0  # the engine's client does not tell the program's
        if ended.met is not None:
            return Result(ended.met, None, ended.stdout, ended.stderr, ended.seconds, cpu)
        if code in {125, 126} and not ended.stdout:
            said = ended.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise SandboxUnavailable(f"sandbox container: {''.join(said)[:300]}")
        return _result(code, ended.stdout, ended.stderr, ended.seconds, limits)

    def _end(self, name: str, process: int) -> None:
        """Ending the engine's command leaves its container running: that goes first."""
        subprocess.run([self.engine, "rm", "-f", name], capture_output=True, check=False, timeout=60)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, 9)


def container_words(name: str, folder: str, image: str, limits: Limits, env: Mapping[str, str]) -> list[str]:
    """What the engine is told, up to the program.

    Args:
        name: of the container.
        folder: on this machine, with the program's files.
        image: to start from.
        limits: what it may use.
        env: further variables.
    """
    size = limits.disk_bytes
    words = ["run", "--rm", "--interactive", "--pull", "never", "--name", name, "--network", "none"]
    words += ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--ipc", "private"]
    words += ["--user", f"{_USER}:{_USER}", "--hostname", "box", "--log-driver", "none", "--init"]
    words += ["--memory", str(limits.memory_bytes), "--memory-swap", str(limits.memory_bytes)]
    words += ["--pids-limit", str(limits.processes + 4), "--shm-size", str(size), "--oom-score-adj", "1000"]
    words += ["--ulimit", "core=0", "--ulimit", "nofile=256", "--ulimit", f"fsize={limits.file_bytes}"]
    words += ["--ulimit", f"cpu={round(limits.cpu_seconds) + 1}"]
    words += ["--tmpfs", f"/tmp:rw,exec,nosuid,nodev,size={size},mode=1777"]  # noqa: S108 - the container's own
    words += ["--tmpfs", f"{FOLDER}:rw,exec,nosuid,nodev,size={size},mode=1777", "--workdir", FOLDER]
    words += ["--volume", f"{folder}:/in:ro,Z"]
    for variable, value in {"HOME": FOLDER, "TMPDIR": "/tmp", "LANG": "C.UTF-8", **env}.items():  # noqa: S108
        words += ["--env", f"{variable}={value}"]
    return [*words, "--entrypoint", "", image]


def _result(code: int, stdout: bytes, stderr: bytes, seconds: float, limits: Limits) -> Result:
    """The exit status of `docker run` as our words; 137 is the end by a limit of time or memory."""
    if code == 128 + 9:
        return Result(
            "timeout" if seconds >= limits.seconds else "memory", None, stdout, stderr, seconds, 0.0
        )
    if code == 128 + 24:
        return Result("cpu", None, stdout, stderr, seconds, 0.0)
    how: Ending = "ok" if code == 0 else "signal" if 128 < code <= 128 + 64 else "exit"
    return Result(how, code - 128 if how == "signal" else code, stdout, stderr, seconds, 0.0)
