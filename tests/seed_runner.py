"""Runs the checks that stand beside the seed tasks, on whatever toolchains the machine has.

A program is setup + output + check in one file (or setup + input + check, see `run` in
seed_tasks/README.md); it has to end with status 0 and, where `expect` is given, print just that.
What cannot be run is parsed where a parser is at hand, and reported by name in any case.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from seed_parsers import PARSERS, parse_by_grammar

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Kinds whose answer is prose; all others answer with code.
PROSE = frozenset({"choose", "explain", "predict", "review", "summarise"})
TIME_LIMIT = 120.0
# Compilers that take seconds for each program; `run_all` leaves them out unless told otherwise.
# C# is among them as `dotnet run`; Mono's compiler is quick.
SLOW = frozenset({"csharp", "dart", "haskell", "kotlin", "powershell", "scala", "swift"})


@dataclass(frozen=True, slots=True)
class Case:
    """A seed task with the keys that tell how to run it; texts have no line break at the end."""

    id: str
    language: str
    kind: str
    input: str
    output: str
    setup: str
    check: str
    expect: str
    run: str  # "output", "input", "both", or "" when there is nothing to run

    def programs(self) -> list[tuple[str, str]]:
        """The (name, text) of every program that has to run well."""
        sides = {"output": ["output"], "input": ["input"], "both": ["output", "input"], "": []}[self.run]
        return [(side, self.program(side)) for side in sides]

    def program(self, side: str) -> str:
        body = self.input if side == "input" else self.output
        if self.language == "regex":  # the answer is a pattern; its check is Python that uses `pattern`
            body = f"pattern = {body!r}"
        return "\n".join(part for part in (self.setup, body, self.check) if part) + "\n"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a case: `passed`, `failed`, `parsed` (its syntax only), `prose` or `unchecked`."""

    case: Case
    state: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Toolchain:
    """How programs of a language are run: file name, commands one after the other, and a syntax check.

    `{file}` stands for the source file, `{exe}` for a file to build, both in a fresh folder.
    """

    file: str
    run: tuple[tuple[str, ...], ...]
    parse: tuple[str, ...] = ()


_GCC = ("gcc", "-std=c17", "-Wall", "-pthread")
_GXX = ("g++", "-std=c++20", "-Wall", "-pthread")
_TSC = (
    *("tsc", "--strict", "--target", "es2022", "--module", "es2022", "--moduleResolution", "bundler"),
    *("--lib", "es2023,dom", "{file}"),
)
_MONO = (
    ("mcs", "-langversion:latest", "-r:System.Core.dll", "-out:{exe}.exe", "{file}"),
    ("mono", "{exe}.exe"),
)
_JAVA = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")
TOOLCHAINS = {
    "python": Toolchain("main.py", ((sys.executable, "-W", "error", "{file}"),)),
    "regex": Toolchain("main.py", ((sys.executable, "-W", "error", "{file}"),)),
    "javascript": Toolchain("main.mjs", (("node", "{file}"),), ("node", "--check", "{file}")),
    "typescript": Toolchain("main.mts", (("node", "--experimental-strip-types", "--no-warnings", "{file}"),)),
    "bash": Toolchain("main.sh", (("bash", "{file}"),), ("bash", "-n", "{file}")),
    "c": Toolchain(
        "main.c", ((*_GCC, "{file}", "-o", "{exe}", "-lm"), ("{exe}",)), (*_GCC, "-fsyntax-only", "{file}")
    ),
    "cpp": Toolchain(
        "main.cpp", ((*_GXX, "{file}", "-o", "{exe}"), ("{exe}",)), (*_GXX, "-fsyntax-only", "{file}")
    ),
    "java": Toolchain(
        "Main.java",
        (
            ("javac", *(f"-J{flag}" for flag in _JAVA), "-proc:none", "{file}"),
            ("java", *_JAVA, "-ea", "-cp", "{folder}", "{class}"),
        ),
    ),
    "rust": Toolchain(
        "main.rs",
        (("rustc", "--edition", "2021", "-A", "warnings", "{file}", "-o", "{exe}"), ("{exe}",)),
    ),
    "go": Toolchain("main.go", (("go", "run", "{file}"),), ("gofmt", "-e", "{file}")),
    "ruby": Toolchain("main.rb", (("ruby", "{file}"),), ("ruby", "-c", "{file}")),
    "php": Toolchain("main.php", (("php", "-d", "zend.assertions=1", "{file}"),), ("php", "-l", "{file}")),
    "perl": Toolchain("main.pl", (("perl", "{file}"),), ("perl", "-c", "{file}")),
    "lua": Toolchain("main.lua", (("lua", "{file}"),), ("luac", "-p", "{file}")),
    "r": Toolchain(
        "main.R",
        (("Rscript", "--vanilla", "{file}"),),
        ("Rscript", "--vanilla", "-e", "invisible(parse(commandArgs(TRUE)[1]))", "{file}"),
    ),
    "make": Toolchain("Makefile", (("make", "-s", "-f", "{file}"),), ("make", "-n", "-f", "{file}")),
    "csharp": Toolchain("main.cs", (("dotnet", "run", "{file}"),)),  # or _MONO
    "dart": Toolchain("main.dart", (("dart", "--enable-asserts", "{file}"),)),
    "haskell": Toolchain("main.hs", (("runghc", "{file}"),)),
    "kotlin": Toolchain(
        "main.kt",
        (("kotlinc", "{file}", "-include-runtime", "-d", "{exe}.jar"), ("java", "-ea", "-jar", "{exe}.jar")),
    ),
    "powershell": Toolchain("main.ps1", (("pwsh", "-NoProfile", "-File", "{file}"),)),
    "scala": Toolchain("main.scala", (("scala", "-nc", "{file}"),)),
    "swift": Toolchain("main.swift", (("swiftc", "-Onone", "{file}", "-o", "{exe}"), ("{exe}",))),
}


def read_cases(folder: Path) -> list[Case]:
    """All tasks of the folder's TOML files as cases."""
    cases = []
    for path in sorted(folder.glob("*.toml")):
        for task in tomllib.loads(path.read_text(encoding="utf-8")).get("task", []):
            text = {key: str(value).rstrip("\n") for key, value in task.items()}
            implied = "output" if text.get("check") or text.get("expect") else ""
            cases.append(
                Case(
                    id=text.get("id", ""),
                    language=text.get("language", ""),
                    kind=text.get("kind", ""),
                    input=text.get("input", ""),
                    output=text.get("output", ""),
                    setup=text.get("setup", ""),
                    check=text.get("check", ""),
                    expect=text.get("expect", ""),
                    run=text.get("run", implied),
                )
            )
    return cases


def run_all(cases: Iterable[Case], *, slow: bool = False, workers: int = 2) -> list[Result]:
    """Run or parse every case; the results stand in the order of the cases."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(functools.partial(run_case, slow=slow), cases))


def run_case(case: Case, *, slow: bool = True) -> Result:
    """Run the case's programs if it has any and the toolchain is there, else parse its output."""
    for side, program in case.programs():
        reason = why_not(case.language)
        if not reason and is_slow(case.language) and not slow:
            reason = f"{case.language} is slow to compile and left to `pytest -m slow`"
        if reason:
            return _only_parsed(case, program, reason)
        status, printed, told = execute(case.language, program)
        if status:
            return Result(case, "failed", f"{side} ends with status {status}: {told[-600:]}")
        if case.expect and printed.rstrip() != case.expect.rstrip():
            return Result(case, "failed", f"{side} prints {printed!r}, not {case.expect!r}")
    if case.kind == "predict" and case.expect and case.expect.strip() not in case.output:
        return Result(case, "failed", "the output does not hold what the program prints")
    if case.run:
        return Result(case, "passed")
    if case.kind in PROSE or case.language == "text":
        return Result(case, "prose", "prose, nothing to run")
    return _parse(case)


def _only_parsed(case: Case, program: str, reason: str) -> Result:
    """A program that cannot run here is parsed at least, if its grammar is there."""
    try:
        parsed = parse_by_grammar(case.language, program)
    except ValueError as error:
        return Result(case, "failed", f"{reason}, and {error}")
    return Result(case, "parsed" if parsed else "unchecked", f"{reason}{', only parsed' if parsed else ''}")


def _parse(case: Case) -> Result:
    try:
        parsed = parse(case.language, case.output)
    except ValueError as error:
        return Result(case, "failed", f"does not parse: {error}")
    if parsed:
        return Result(case, "parsed", "no check of its own, only parsed")
    return Result(case, "unchecked", f"no check of its own and no {case.language} parser here")


@functools.cache
def commands_for(language: str) -> tuple[tuple[str, ...], ...]:
    """The commands that run a program of this language here."""
    if language == "typescript" and _version("node", "--version") < (22, 6):
        return (_TSC, ("node", "main.mjs"))  # older ones do not strip types
    if language == "csharp" and _version("dotnet", "--version") < (10, 0):
        return _MONO  # older ones do not run a single file
    return TOOLCHAINS[language].run


@functools.cache
def why_not(language: str) -> str:
    """Why programs of this language cannot be run here, or ""."""
    if language == "sql":
        return ""
    if language not in TOOLCHAINS:
        return f"nothing runs {language}"
    if language in ("bash", "make") and not sys.platform.startswith("linux"):
        return f"the {language} tasks are written for GNU tools"
    for command in commands_for(language):
        if not command[0].startswith("{exe}") and shutil.which(command[0]) is None:
            instead = {"tsc": ", and no node from 22.6 on", "mcs": ", and no dotnet from 10 on"}
            return f"no {command[0]} on this machine{instead.get(command[0], '')}"
    if language == "rust" and _version("rustc", "--version") == (0, 0):
        return "the rustc on this machine does not run (a rustup without a toolchain?)"
    if language == "scala" and _version("scala", "-version") < (2, 11):
        return "the scala on this machine is older than 2.11"
    return ""


def is_slow(language: str) -> bool:
    """Whether programs of this language take seconds each here."""
    return language in SLOW and commands_for(language) != _MONO


def _version(*command: str) -> tuple[int, int]:
    """Major and minor version that a command tells; (0, 0) if it is not there or fails."""
    if shutil.which(command[0]) is None:
        return (0, 0)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        return (0, 0)
    match = re.search(r"(\d+)\.(\d+)", done.stdout + done.stderr)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def execute(language: str, program: str) -> tuple[int, str, str]:
    """Run a program in a folder of its own; returns exit status, standard output, standard error."""
    if language == "sql":
        return _execute_sql(program)
    commands = commands_for(language)
    name = TOOLCHAINS[language].file
    if language == "javascript" and re.search(r"\brequire\(", program):
        name = "main.cjs"
    if language == "rust" and "#[test]" in program:
        commands = ((*commands[0], "--test"), *commands[1:])
    public = re.search(
        r"^public (?:final |abstract |sealed )*(?:class|record|enum|interface) (\w+)", program, re.MULTILINE
    )
    if language == "java" and public:
        name = f"{public[1]}.java"
    return _execute_files(commands, name, program)


def _execute_files(commands: Sequence[tuple[str, ...]], name: str, program: str) -> tuple[int, str, str]:
    # Windows keeps a running program's folder locked for a moment, hence the tolerant clean-up.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder, name)
        file.write_text(program, encoding="utf-8")
        words = {"file": str(file), "exe": str(Path(folder, "program")), "folder": folder, "class": file.stem}
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONIOENCODING": "utf-8"}
        done = None
        for command in commands:
            line = [re.sub(r"\{(file|exe|folder|class)\}", lambda m: words[m[1]], word) for word in command]
            try:
                done = subprocess.run(
                    line,
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=TIME_LIMIT,
                    check=False,
                    encoding="utf-8",
                    errors="replace",
                )
            except subprocess.TimeoutExpired:
                return 124, "", f"{line[0]} took over {TIME_LIMIT:.0f} s"
            if done.returncode:
                return done.returncode, done.stdout, done.stderr + done.stdout
        return (0, done.stdout, done.stderr) if done else (1, "", "no command")


def _execute_sql(program: str) -> tuple[int, str, str]:
    """Run SQL on an empty SQLite database and print rows as its shell does: `a|b`, NULL as nothing."""
    printed = io.StringIO()
    statement = ""
    try:
        with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
            for line in program.splitlines(keepends=True):
                statement += line
                if sqlite3.complete_statement(statement):
                    for row in database.execute(statement):
                        printed.write("|".join("" if cell is None else str(cell) for cell in row) + "\n")
                    statement = ""
    except sqlite3.Error as error:
        return 1, printed.getvalue(), f"{error} in: {statement.strip()}"
    if re.sub(r"--.*", "", statement).strip():
        return 1, printed.getvalue(), f"unfinished statement: {statement.strip()}"
    return 0, printed.getvalue(), ""


def parse(language: str, text: str) -> bool:
    """Check the syntax of a text; False when nothing here can.

    Raises:
        ValueError: the text is not of that language.
    """
    if language in PARSERS:
        return PARSERS[language](text)
    command = TOOLCHAINS[language].parse if language in TOOLCHAINS else ()
    if not command or shutil.which(command[0]) is None:
        return parse_by_grammar(language, text)
    status, _, told = _execute_files([command], TOOLCHAINS[language].file, text + "\n")
    if status:
        raise ValueError(told[-400:])
    return True


def unchecked(results: Iterable[Result]) -> list[str]:
    """The names of all seeds whose answer was not run, one line for each reason."""
    groups: dict[str, list[str]] = {}
    for result in results:
        if result.state not in ("passed", "failed"):
            groups.setdefault(result.note, []).append(result.case.id)
    return [f"{reason} ({len(ids)}): {', '.join(ids)}" for reason, ids in sorted(groups.items())]


def main() -> int:
    """Run the checks of one folder or of named seeds: seed_runner.py FOLDER [ID or language ...]."""
    folder, *names = sys.argv[1:]
    chosen = [case for case in read_cases(Path(folder)) if not names or {case.id, case.language} & set(names)]
    results = run_all(chosen, slow=bool(names))
    failed = [f"{result.case.id}: {result.note}" for result in results if result.state == "failed"]
    sys.stdout.write(
        "\n".join([*unchecked(results), *failed]) + f"\n{len(results)} run, {len(failed)} failed\n"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
