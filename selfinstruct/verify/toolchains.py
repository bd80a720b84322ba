"""Finds the compilers and interpreters by which programs can be run, and tries each inside the sandbox.

Nothing is installed, and no program of a stranger's is run here.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from selfinstruct.verify.programs import GO_SETTINGS
from selfinstruct.verify.sandbox import Call, Limits, Sandbox, SandboxUnavailable
from selfinstruct.weights import cache_folder

_ASK_SECONDS = 20.0
_TRIAL = Limits(seconds=60.0, address_bytes=None)

# By language: names of the program, and the words that make it tell its version.
_PROGRAMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "python": (("python3", "python"), ("--version",)),
    "javascript": (("node", "nodejs"), ("--version",)),
    "typescript": (("node", "nodejs"), ("--experimental-strip-types", "--version")),
    "bash": (("bash",), ("--version",)),
    "sql": (("python3", "python"), ("-c", "import sqlite3; print('SQLite', sqlite3.sqlite_version)")),
    "c": (("gcc", "clang", "cc"), ("--version",)),
    "cpp": (("g++", "clang++", "c++"), ("--version",)),
    "java": (("javac",), ("-version",)),
    "go": (("go",), ("version",)),
    "rust": (("rustc",), ("--version",)),
    "ruby": (("ruby",), ("--version",)),
    "php": (("php",), ("--version",)),
    "perl": (("perl",), ("-e", "print qq(Perl $^V)")),
    "lua": (("lua", "lua5.4", "lua5.3", "luajit"), ("-v",)),
    "r": (("Rscript",), ("--version",)),
}
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")

# Go no longer comes with its library compiled: what programs use most is compiled once, into a folder of ours.
_GO_COMPILES_LIBRARY = (1, 20)
_GO_LIBRARY = """bufio bytes container/heap container/list context crypto/md5 crypto/rand crypto/sha256
encoding/base64 encoding/csv encoding/hex encoding/json encoding/xml errors flag fmt io log math math/big
math/bits math/rand net/http net/url os os/signal path/filepath reflect regexp runtime sort strconv
strings sync sync/atomic testing text/template time unicode unicode/utf8""".split()  # noqa: SIM905


@dataclass(frozen=True, slots=True)
class Toolchain:
    """What runs programs of a language: path, version as it tells it, folders and variables it needs."""

    language: str
    path: str
    version: str
    folders: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()


def toolchains(sandbox: Sandbox) -> list[Toolchain]:
    """Every toolchain that works in this sandbox, by language."""
    found = (find_toolchain(sandbox, language) for language in sorted(_PROGRAMS))
    return [toolchain for toolchain in found if toolchain is not None]


def languages() -> list[str]:
    """The languages whose programs are run where their toolchain is found."""
    return sorted(_PROGRAMS)


@functools.cache
def find_toolchain(sandbox: Sandbox, language: str) -> Toolchain | None:
    """The first toolchain of the language that works in the sandbox; None if there is none."""
    if language not in _PROGRAMS:
        return None
    words = _PROGRAMS[language][1]
    for path in dict.fromkeys(_candidates(sandbox, language)):
        folders = () if sandbox.name == "container" else _folders(path)
        try:
            said = sandbox.run(Call([path, *words], limits=_TRIAL, folders=folders))
        except SandboxUnavailable:  # it worked before: it is this path that it cannot show
            continue
        if said.status == "ok":
            text = (said.stdout + said.stderr).decode("utf-8", "replace").strip()
            toolchain = Toolchain(language, path, text.partition("\n")[0], folders)
            return _with_library(toolchain) if language == "go" and sandbox.name != "container" else toolchain
    return None


def _candidates(sandbox: Sandbox, language: str) -> Iterator[str]:
    """Paths of programs that may do, the best first."""
    here = sandbox.name != "container"
    if here and language in {"python", "sql"} and sys.executable:
        yield str(Path(sys.executable).resolve())
    for name in _PROGRAMS[language][0]:
        for path in sandbox.find(name):
            if here and language == "rust" and (root := _ask(path, "--print", "sysroot")):
                yield f"{root}/bin/rustc"  # what stands on PATH may be rustup's, which wants the home folder
            yield _real(path) if here else path


def _real(path: str) -> str:
    """The path itself in the system's folders, else where links lead: only that folder can be bound."""
    return path if _is_system(path) else str(Path(path).resolve())


def _is_system(path: str) -> bool:
    return any(path == top or path.startswith(f"{top}/") for top in _SYSTEM)


def _folders(path: str) -> tuple[str, ...]:
    """What a program outside the system's folders needs to see: the folder above its `bin`, else itself."""
    if _is_system(path):
        return ()
    program = Path(path)
    top = program.parent.parent
    shared = top in Path.home().parents or top == Path.home() or top == Path("/")
    return (str(top),) if program.parent.name == "bin" and not shared else (path,)


def _ask(*words: str) -> str:
    """What one of the user's own tools answers, "" if it does not."""
    try:
        said = subprocess.run(
            words, capture_output=True, text=True, timeout=_ASK_SECONDS, check=False, stdin=subprocess.DEVNULL
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.stdout.strip() if said.returncode == 0 else ""


def _with_library(go: Toolchain) -> Toolchain:
    """Go with a folder of compiled library packages, where it needs one."""
    version = tuple(int(part) for part in re.findall(r"go(\d+)\.(\d+)", go.version)[0])
    if version < _GO_COMPILES_LIBRARY:
        return go
    folder = cache_folder().with_name("go") / re.sub(r"[^\w.]+", "-", go.version)
    if not folder.is_dir():
        compile_go_library(go.path, folder)
    return replace(go, folders=(*go.folders, str(folder)), env=(("GOCACHE", str(folder)),))


def compile_go_library(go: str, folder: Path) -> None:
    """Have Go compile the common packages of its library into a folder: some 20 s of processor time, once.

    Args:
        go: path of the program.
        folder: is there afterwards, and whole.

    Raises:
        SandboxUnavailable: it cannot be made.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            place = {"PATH": os.defpath, "HOME": work, "GOCACHE": f"{work}/cache", "GO111MODULE": "off"}
            subprocess.run(
                [go, "build", *_GO_LIBRARY], env={**place, **GO_SETTINGS}, cwd=work, check=True,
                capture_output=True, text=True, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            if not folder.is_dir():  # else another process was faster
                Path(work, "cache").rename(folder)
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()[-1:]
        raise SandboxUnavailable(f"{go}: cannot compile Go's library: {''.join(said)[:200]}") from None
    except OSError as error:
        raise SandboxUnavailable(
            f"{folder}: cannot keep Go's compiled library here: {error.strerror}"
        ) from None
