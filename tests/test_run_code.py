from __future__ import annotations

import functools

import pytest

from selfinstruct.verify.code import Code, Found
from selfinstruct.verify.run import run_program
from selfinstruct.verify.sandbox import Sandbox, SandboxUnavailable, open_sandbox
from selfinstruct.verify.toolchains import find_toolchain, languages


@functools.cache
def opened() -> Sandbox | str:
    try:
        return open_sandbox("bwrap")
    except SandboxUnavailable as error:
        return str(error)


@pytest.fixture
def sandbox() -> Sandbox:
    found = opened()
    if isinstance(found, str):
        pytest.skip(found)
    return found


def need(sandbox: Sandbox, language: str) -> None:
    if find_toolchain(sandbox, language) is None:
        pytest.skip(f"no toolchain for {language} on this machine")


def found(language: str | None, text: str, *, fragment: bool = False) -> Found:
    program = Code(language, text, "fence")
    return Found((program,), language, program=program, fragment=fragment)


# Language, a program that reads a line, one that fails, and the reason.
JAVA = "import java.util.*;\npublic class Shop { public static void main(String[] a) { %s } }"
RUST = """fn main() {
    let mut s = String::new();
    std::io::stdin().read_line(&mut s).unwrap();
    assert_eq!(s.trim(), "hi");
}"""
PROGRAMS = [
    ("python", "assert input() == 'hi' == open('input.txt').read().strip()", "assert 1 == 2", "exit_status"),
    ("javascript", "if (require('fs').readFileSync(0, 'utf8') !== 'hi\\n') throw 1", "null.x", "exit_status"),
    ("typescript", "const n: number = 1; if (n !== 1) throw n", "throw 1", "exit_status"),
    ("bash", "read -r word; [[ $word == hi ]]", "set -e; false; true", "exit_status"),
    ("sql", "CREATE TABLE t(a); INSERT INTO t VALUES (';'); SELECT a FROM t", "CREATE TABLE t(a); SELECT b FROM t;",
     "exit_status"),
    ("c", "#include <stdio.h>\nint main(void) { return getchar() != 104; }", "int main(void) { return x; }",
     "compile_error"),
    ("cpp", '#include <iostream>\nint main() { std::string s; std::cin >> s; return s != "hi"; }',
     "int main() { return 3; }", "exit_status"),
    ("java", JAVA % 'if (!new Scanner(System.in).nextLine().equals("hi")) System.exit(1);', JAVA % "int x = 1 / 0;",
     "exit_status"),
    ("go", 'package main\nimport "fmt"\nfunc main() { var s string; fmt.Scan(&s); if s != "hi" { panic(s) } }',
     'package main\nimport "fmt"\nfunc main() {}', "compile_error"),
    ("rust", RUST, "fn main() { let v: Vec<i32> = vec![]; v[0]; }", "exit_status"),
    ("ruby", 'exit 1 unless gets == "hi\\n"', "raise 'no'", "exit_status"),
    ("php", '<?php exit(fgets(STDIN) === "hi\\n" ? 0 : 1);', "throw new Exception('no');", "exit_status"),
    ("perl", 'die unless <STDIN> eq "hi\\n"', "die", "exit_status"),
    ("lua", 'assert(io.read() == "hi")', "error('no')", "exit_status"),
    ("r", 'stopifnot(readLines(file("stdin"))[1] == "hi")', "stop('no')", "exit_status"),
]  # fmt: skip


def test_every_language_has_a_program() -> None:
    assert sorted(language for language, *_ in PROGRAMS) == languages()


@pytest.mark.parametrize(("language", "good", "bad", "reason"), PROGRAMS, ids=[p[0] for p in PROGRAMS])
def test_programs_pass_and_fail(sandbox: Sandbox, language: str, good: str, bad: str, reason: str) -> None:
    need(sandbox, language)
    verdict = run_program(found(language, good), "hi", sandbox)
    assert (verdict.status, verdict.reason) == ("passed", ""), verdict.evidence
    verdict = run_program(found(language, bad), "", sandbox)
    assert (verdict.level, verdict.status, verdict.reason) == ("run", "failed", reason), verdict.evidence
    assert verdict.evidence["language"] == language
