"""`--verify run`: runs the program of an answer in a sandbox, and says what came of it.

What is put where stands in `programs`, what the program may have wanted in vain in `lacking`. Whether the
program does what its task asks for is not looked at; that takes tests.
"""

from __future__ import annotations

import re
import shlex
import sys

from selfinstruct.records import JSON
from selfinstruct.verify.code import Found, find_code
from selfinstruct.verify.lacking import CONTEXT, DIALECT, needs_context, what_is_lacking
from selfinstruct.verify.programs import JOINABLE, NO_PROGRAMS, RUNNABLE, Layout, lay_out
from selfinstruct.verify.sandbox import Call, Result, Sandbox
from selfinstruct.verify.toolchains import Toolchain, find_toolchain
from selfinstruct.verify.verdict import Status, Verdict

_COMPILE_FAILED = (
    113  # our word between the two steps; a program that says the same is misunderstood, no more
)
_MESSAGE = 600  # characters of what was printed that are kept as evidence
_LOOKED_AT = 20_000  # characters of it that are searched for a reason
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")
# Modules that some version of Python has had, for what this one is without.
_LIBRARY = frozenset(sys.stdlib_module_names) | {
    "asynchat", "asyncore", "audioop", "cgi", "cgitb", "chunk", "crypt", "distutils", "imghdr", "imp", "mailcap",
    "msilib", "nis", "nntplib", "ossaudiodev", "parser", "pipes", "smtpd", "sndhdr", "spwd", "sunau", "symbol",
    "telnetlib", "tomllib", "uu", "xdrlib", "zoneinfo", "annotationlib", "compression",
}  # fmt: skip
_LAST_WORDS_TELL = {"python", "bash", "sql"}  # the others name the error first, then where it was
_REASONS = {
    "exit": "exit_status", "signal": "signal", "timeout": "timeout", "cpu": "timeout", "memory": "memory",
    "processes": "processes", "output": "output",
}  # fmt: skip


def run_program(found: Found, input_: str, sandbox: Sandbox | None, instruction: str = "") -> Verdict:
    """Run the program of an answer; it must end by itself, and well.

    It can read the task's input as standard input and as the file `input.txt`. Where it fails and the input
    holds code of the same language, it gets a second try behind that code. Functions without a main program
    are loaded or compiled only.

    Args:
        found: what `code.find_code` found.
        input_: the task's input.
        sandbox: where to run it; several threads may use the same. None where there is none.
        instruction: the task's; what it or the input names may be taken for given by the program.

    Returns:
        `failed` with `compile_error`, `exit_status`, `signal`, `timeout`, `memory`, `processes` or `output`;
        `unavailable` with `no_sandbox`, `no_toolchain`, `no_runner` (a language that nobody runs here),
        `server` (it waited for connections when its time was up) or the thing that is lacking (`lacking`);
        `skipped` with `no_program`, `prose` (code in an explanation), `fragment`, `other_dialect` (of SQL) or
        `not_run` (what is no program: HTML, YAML, ...).

    Raises:
        SandboxUnavailable: the sandbox itself failed.
    """
    program = found.program
    if program is None or not program.text.strip():
        return Verdict("run", "skipped", "no_program")
    language = program.language or found.language
    evidence: dict[str, JSON] = {"language": language}
    if language is None or language in NO_PROGRAMS:
        return Verdict("run", "skipped", "not_run", evidence)
    if found.prose or found.fragment:
        return Verdict("run", "skipped", "prose" if found.prose else "fragment", evidence)
    if language not in RUNNABLE:
        return Verdict("run", "unavailable", "no_runner", evidence)
    if sandbox is None:
        return Verdict("run", "unavailable", "no_sandbox", evidence)
    toolchain = find_toolchain(sandbox, language)
    if toolchain is None:
        return Verdict("run", "unavailable", "no_toolchain", evidence)
    task = f"{instruction}\n{input_}"
    verdict, _ = _try(toolchain, program.text, input_, sandbox, task=task)
    if verdict.status in {"passed", "skipped"} or language not in JOINABLE:
        return verdict
    before = find_code("", "", input_, language, "write").program if input_.strip() else None
    if before is None or before.language != language or before.text.strip() in program.text:
        return verdict
    second, _ = _try(toolchain, program.text, input_, sandbox, before=before.text)
    return second if second.status == "passed" else verdict


def run_code(language: str, code: str, sandbox: Sandbox, stdin: str = "") -> tuple[Verdict, bytes]:
    """Run code as it is, with nothing before it: for tests that are put behind an answer.

    Returns:
        The verdict, and what came on standard output.

    Raises:
        SandboxUnavailable: the sandbox itself failed.
    """
    toolchain = find_toolchain(sandbox, language)
    if toolchain is None:
        return Verdict("run", "unavailable", "no_toolchain", {"language": language}), b""
    return _try(toolchain, code, stdin, sandbox)


def _try(
    toolchain: Toolchain, code: str, input_: str, sandbox: Sandbox, before: str = "", task: str = ""
) -> tuple[Verdict, bytes]:
    language = toolchain.language
    setup = before if language == "sql" else ""
    layout = lay_out(language, f"{before}\n\n{code}" if before and not setup else code, setup)
    evidence: dict[str, JSON] = {"language": language, **({"behind": "input"} if before else {})}
    if layout is None:
        return Verdict("run", "skipped", "fragment", evidence), b""
    result = _start(layout, toolchain, input_, sandbox)
    if result.status == "ok":
        return Verdict("run", "passed", "", evidence), result.stdout
    compiling = layout.compile and (not layout.run or result.code == _COMPILE_FAILED)
    printed = _printed(result)
    evidence |= {"message": _message(language, result)}
    if result.code is not None and not compiling:
        evidence |= {result.status: result.code}
    if result.listening:
        return Verdict("run", "unavailable", "server", evidence), result.stdout
    if result.status in {"exit", "signal"} and (lack := what_is_lacking(language, code, printed, _LIBRARY)):
        status: Status = "skipped" if lack == DIALECT else "unavailable"
        return Verdict("run", status, lack, evidence), result.stdout
    if result.status == "exit" and needs_context(language, printed, task):
        return Verdict("run", "unavailable", CONTEXT, evidence), result.stdout
    reason = "compile_error" if compiling and result.status == "exit" else _REASONS[result.status]
    return Verdict("run", "failed", reason, evidence), result.stdout


def _start(layout: Layout, toolchain: Toolchain, input_: str, sandbox: Sandbox) -> Result:
    places = {"tool": toolchain.path, "beside": toolchain.path.rpartition("/")[0]}
    steps = [
        [word.format_map(places) if "{" in word else word for word in words]
        for words in (layout.compile, layout.run)
        if words
    ]
    given = (input_.rstrip("\n") + "\n").encode("utf-8", "replace") if input_ else b""
    files = {**layout.files, "input.txt": given}
    argv = steps[0]
    if len(steps) > 1:
        first, second = map(shlex.join, steps)
        files["steps.sh"] = f"{first} </dev/null || exit {_COMPILE_FAILED}\nexec {second}\n".encode()
        argv = ["/bin/sh", "steps.sh"]
    env = {**layout.env, **dict(toolchain.env)}
    return sandbox.run(Call(argv, files, given, layout.limits, env, toolchain.folders))


def _printed(result: Result) -> str:
    text = (result.stdout[-_LOOKED_AT:] + b"\n" + result.stderr[-_LOOKED_AT:]).decode("utf-8", "replace")
    return text.replace("\r\n", "\n")


def _message(language: str, result: Result) -> str:
    """What tells most of what was printed; without addresses in memory, which differ from run to run."""
    text = (result.stderr.strip() or result.stdout.strip()).decode("utf-8", "replace")
    text = text[-_MESSAGE:] if language in _LAST_WORDS_TELL else text[:_MESSAGE]
    return _ADDRESS.sub("0x...", text)
