from __future__ import annotations

import functools
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.display import rejection_notes
from selfinstruct.records import Candidate, Decision
from selfinstruct.report import Entry
from selfinstruct.seeds import load
from selfinstruct.verify import programs, run
from selfinstruct.verify.code import Code, Found, find_code
from selfinstruct.verify.lacking import needs_context, what_is_lacking
from selfinstruct.verify.run import run_program
from selfinstruct.verify.sandbox import LIMITS, Call, Sandbox, SandboxUnavailable, open_sandbox
from selfinstruct.verify.toolchains import (
    Toolchain,
    compile_go_library,
    find_toolchain,
    languages,
    toolchains,
)
from selfinstruct.verify.verdict import rejection_of


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


# --- what is run, and what is not --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (Found(language="python"), "no_program"),
        (found("python", " \n"), "no_program"),
        (found("html", "<p>hi</p>"), "not_run"),
        (found(None, "x = 1"), "not_run"),
        (found("python", "for x in", fragment=True), "fragment"),
        (replace(found("python", "1 / 0"), prose=True), "prose"),
        (found("java", "for (int i = 0; i < 3; i++) { }"), "fragment"),
        (found("go", "x := 3"), "fragment"),
        (found("c", "int i;\nfor (i = 0; i < 3; i++) {}"), "fragment"),
        (found("cpp", "if (x) return y;"), "fragment"),
        (found("javascript", "handleClick(event) {\n  count++;\n}"), "fragment"),
    ],
)
def test_where_there_is_nothing_to_run(sandbox: Sandbox, given: Found, reason: str) -> None:
    if given.program is not None and given.program.language in {"java", "go", "javascript", "c", "cpp"}:
        need(sandbox, given.program.language)
    verdict = run_program(given, "", sandbox)
    assert (verdict.level, verdict.status, verdict.reason) == ("run", "skipped", reason)


FUNCTIONS = [
    ("c", 'int twice(int n) { return strlen("ab") * n; }', "int twice(int n) { return n * ; }"),
    ("cpp", "vector<int> f(vector<int> v) { sort(v.begin(), v.end()); return v; }", 'int f() { return "a"; }'),
    ("java", "static List<Integer> f(List<Integer> v) { return v.stream().sorted().toList(); }",
     'int f() { return "a"; }'),
    ("go", "func f(v []string) string {\n\treturn strings.Join(v, fmt.Sprint(1))\n}", 'func f() int { return "a" }'),
    ("go", "package shop\n\nfunc Price() int { return 3 }", 'package shop\n\nfunc Price() int { return "a" }'),
    ("rust", "fn f(v: &[i32]) -> i32 { v.iter().sum() }", 'fn f() -> i32 { "a" }'),
]  # fmt: skip


@pytest.mark.parametrize(("language", "good", "bad"), FUNCTIONS)
def test_functions_without_a_main_program_are_compiled(
    sandbox: Sandbox, language: str, good: str, bad: str
) -> None:
    need(sandbox, language)
    assert run_program(found(language, good), "", sandbox).status == "passed"
    verdict = run_program(found(language, bad), "", sandbox)
    assert (verdict.status, verdict.reason) == ("failed", "compile_error")


def test_code_of_the_input_is_put_before(sandbox: Sandbox) -> None:
    need(sandbox, "python")
    answer = found("python", "assert area(2, 3) == 6")
    code = "```python\ndef area(a, b):\n    return a * b\n```"
    passed = run_program(answer, code, sandbox)
    assert (passed.status, passed.evidence) == ("passed", {"language": "python", "behind": "input"})
    assert run_program(answer, "", sandbox).reason == "exit_status"
    table = "```sql\nCREATE TABLE t(a INT); INSERT INTO t VALUES (1);\n```"
    query = found("sql", "SELECT a FROM t")
    assert run_program(query, table, sandbox).status == "passed"
    assert run_program(query, "", sandbox).reason == "missing_table"


@pytest.mark.parametrize(
    ("language", "code", "reason"),
    [
        ("python", "import numpy_of_nowhere.linalg", "missing_package"),
        ("python", "import msilib", "other_version"),
        ("python", "name = input()\nage = input()\nlast = input()", "needs_input"),
        ("python", "import sys\nopen(sys.argv[1])", "needs_arguments"),
        ("python", "import argparse\np = argparse.ArgumentParser()\np.add_argument('x')\np.parse_args()",
         "needs_arguments"),
        ("python", "import os\nprint(os.environ['DATABASE_URL'])", "needs_environment"),
        ("python", "open('data.csv')", "needs_file"),
        ("python", "import urllib.request as r\nr.urlopen('http://example.org')", "needs_network"),
        ("python", "import socket\nsocket.create_connection(('127.0.0.1', 5432))", "needs_network"),
        ("python", "print(orders)", "needs_context"),
        ("javascript", "document.title = 1", "needs_browser"),
        ("javascript", "require('express')", "missing_package"),
        ("javascript", "db.orders.find()", "needs_context"),
        ("javascript", "fetch('/api/x')", "needs_browser"),
        ("javascript", "import express from 'express'", "missing_package"),
        ("javascript", "require('fs').readFileSync('x.json')", "needs_file"),
        ("bash", "frobnicate --all", "missing_package"),
        ("sql", "SELECT * FROM orders", "missing_table"),
        ("c", "#include <curl/nothing.h>\nint main(void) { return 0; }", "missing_package"),
        ("c", "int f(struct order *o) { return o->cents + RATE; }", "needs_context"),
        ("java", "int depth(TreeNode t) { return t == null ? 0 : 1; }", "needs_context"),
        ("java", "import org.apache.Thing;\nclass A {}", "missing_package"),
        ("go", 'package main\nimport "github.com/a/b"\nfunc main() { b.C() }', "missing_package"),
        ("rust", "use rand::Rng;\nfn main() {}", "missing_package"),
        ("ruby", "require 'nokogiri_of_nowhere'", "missing_package"),
        ("php", "<?php require 'vendor/autoload.php';", "missing_package"),
        ("perl", "use Moose::Of::Nowhere;", "missing_package"),
        ("lua", "require('socket_of_nowhere')", "missing_package"),
        ("r", "library(dplyr_of_nowhere)", "missing_package"),
    ],
)  # fmt: skip
def test_what_is_lacking_is_no_failure(sandbox: Sandbox, language: str, code: str, reason: str) -> None:
    need(sandbox, language)
    verdict = run_program(found(language, code), "", sandbox, "Sum up the orders at a RATE.")
    assert (verdict.status, verdict.reason) == ("unavailable", reason), verdict.evidence


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("python", "import collections.abcd"),
        ("python", "from math import square"),
        ("python", "print(undefined_name)"),
        ("python", "import sys\n[][0]"),
        ("python", "raise KeyError('usage')"),
        ("javascript", "undefinedName()"),
        ("go", 'package main\nimport "fmt2"\nfunc main() { fmt2.Println() }'),
        ("rust", "use std::colections::HashMap;\nfn main() {}"),
        ("java", "import java.utils.List;\nclass A {}"),
        ("c", "int f(void) { return undefined_name; }"),
    ],
)
def test_what_is_wrong_is_a_failure(sandbox: Sandbox, language: str, code: str) -> None:
    need(sandbox, language)
    assert run_program(found(language, code), "", sandbox, "Add numbers.").status == "failed"


def test_another_dialect_is_skipped(sandbox: Sandbox) -> None:
    need(sandbox, "sql")
    for text in ("CREATE TABLE t(a INT); ALTER TABLE t MODIFY a TEXT", "SELECT DATE_ADD(NOW(), 1)"):
        verdict = run_program(found("sql", text), "", sandbox)
        assert (verdict.status, verdict.reason) == ("skipped", "other_dialect")


def test_a_program_that_does_not_end(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    need(sandbox, "python")

    def hasty(language: str, code: str, setup: str) -> programs.Layout | None:
        layout = programs.lay_out(language, code, setup)
        return layout and replace(layout, limits=replace(LIMITS, seconds=1.0))

    monkeypatch.setattr(run, "lay_out", hasty)
    verdict = run_program(found("python", "while True: pass"), "", sandbox)
    assert (verdict.status, verdict.reason) == ("failed", "timeout")
    server = "import http.server as h\nh.HTTPServer(('', 8000), None).serve_forever()"
    verdict = run_program(found("python", server), "", sandbox)
    assert (verdict.status, verdict.reason) == ("unavailable", "server")


# --- evidence, toolchains ----------------------------------------------------------------------------


def test_evidence_is_repeatable_and_harmless(sandbox: Sandbox) -> None:
    need(sandbox, "python")
    code = "print('\\x1b]0;owned\\x07\\x1b[2J')\nraise ValueError(object(), '\\x1b[31m', 'a' * 5000)"
    verdicts = [run_program(found("python", code), "", sandbox) for _ in range(2)]
    assert verdicts[0] == verdicts[1]
    verdict = verdicts[0]
    assert verdict.evidence["exit"] == 1
    assert len(str(verdict.evidence["message"])) <= 600
    code = "import sys\nsys.exit('\\x1b]0;owned\\x07 \\x9b2J \\u202e object at 0x7f0000000000')"
    verdict = run_program(found("python", code), "", sandbox)
    assert "\x1b" in str(verdict.evidence["message"])
    rejection = rejection_of(verdict)
    candidate = Candidate(instruction="x", output=code)
    notes = rejection_notes(Entry(1, ("s",), Decision(candidate, rejection)))
    assert not set("\x1b\x07\x9b\u202e") & set(notes)
    assert "<1B>]0;owned" in notes
    assert "object at 0x..." in notes


@given(st.sampled_from(sorted(programs.RUNNABLE)), st.text(max_size=200))
def test_code_goes_into_files_only(language: str, text: str) -> None:
    mark = "k7Q9zz"
    layout = programs.lay_out(language, f"func import class static void main {mark} {text}", mark)
    if layout is not None:
        assert mark not in "".join((*layout.run, *layout.compile, *layout.env.values(), *layout.files))
        assert any(mark.encode() in content for content in layout.files.values())


@given(st.sampled_from(sorted(programs.RUNNABLE)), st.text(max_size=300), st.text(max_size=300))
def test_any_output_can_be_judged(language: str, code: str, printed: str) -> None:
    what_is_lacking(language, code, printed, frozenset({"os"}))
    needs_context(language, printed, code)


@pytest.mark.parametrize(
    "piece", ["\n", " ", "a.", "<a\n", "usage ", "sys.argv[\n", "\\", "import {", "public ", "("]
)
def test_hostile_output_is_judged_in_reasonable_time(piece: str) -> None:
    text = piece * (20_000 // len(piece))
    began = time.process_time()
    for language in sorted(programs.RUNNABLE):
        what_is_lacking(language, text, text, frozenset())
        needs_context(language, text, text)
        programs.lay_out(language, text, "")
    assert (
        time.process_time() - began < 10
    )  # seconds; it takes tenths, a square of the length would take minutes


@pytest.mark.usefixtures("sandbox")
def test_no_toolchain_is_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    elsewhere = open_sandbox("bwrap")  # toolchains are remembered by sandbox
    monkeypatch.setenv("PATH", str(tmp_path))
    verdict = run_program(found("ruby", "puts 1"), "", elsewhere)
    assert (verdict.status, verdict.reason) == ("unavailable", "no_toolchain")
    assert "ruby" not in [toolchain.language for toolchain in toolchains(elsewhere)]


@pytest.mark.usefixtures("sandbox")
def test_a_toolchain_that_does_not_run_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    elsewhere = open_sandbox("bwrap")
    broken, real = tmp_path / "broken", tmp_path / "real" / "bin"
    broken.mkdir()
    real.mkdir(parents=True)
    (broken / "perl").write_text("#!/bin/sh\nexit 1\n")
    (real / "perl").write_text("#!/bin/sh\necho Perl of our own\n")
    for folder in (tmp_path, tmp_path.parent, broken, real, real.parent):
        folder.chmod(0o755)
    for file in (broken / "perl", real / "perl"):
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken}:{real}")
    chosen = find_toolchain(elsewhere, "perl")
    assert chosen == Toolchain("perl", str(real / "perl"), "Perl of our own", (str(real.parent),))


def test_toolchains_are_listed(sandbox: Sandbox) -> None:
    listed = toolchains(sandbox)
    assert {"bash", "python", "sql"} <= {toolchain.language for toolchain in listed}
    assert all(Path(toolchain.path).is_absolute() and toolchain.version for toolchain in listed)


def test_go_library_is_compiled_once(sandbox: Sandbox, tmp_path: Path) -> None:
    need(sandbox, "go")
    go = find_toolchain(sandbox, "go")
    assert go is not None
    for _ in range(2):  # the second finds it
        compile_go_library(go.path, tmp_path / "go" / "1")
    assert [path.name for path in (tmp_path / "go").iterdir()] == ["1"]
    assert any((tmp_path / "go" / "1").iterdir())


@pytest.mark.slow
def test_no_answer_of_the_seeds_fails(sandbox: Sandbox) -> None:
    """All of them are right, and many are pieces that take things for given."""
    failed = []
    for seed in load():
        given = find_code(seed.instruction, seed.input, seed.output, seed.language, seed.kind)
        verdict = run_program(given, seed.input, sandbox, seed.instruction)
        if verdict.status == "failed":
            failed.append((seed.id, verdict.reason, verdict.evidence))
    assert failed == []


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        ("main.c:4:10: fatal error: queue: No such file or directory", None),
        ("main.c:1:10: fatal error: 'atomic' file not found", None),
        ("main.c:2:10: fatal error: curl/curl.h: No such file or directory", "missing_package"),
        ("main.c:2:10: fatal error: 'gtk/gtk.h' file not found", "missing_package"),
        ("fopen: data.txt: No such file or directory", "needs_file"),
    ],
)
def test_a_header_of_cpp_is_no_package_that_c_lacks(printed: str, reason: str | None) -> None:
    assert what_is_lacking("c", "int main(void) { return 0; }", printed, frozenset()) == reason


@pytest.mark.parametrize("name", ["Größe", "A" * 300, "Shop"])
def test_a_class_that_can_name_no_file_is_left_alone(name: str) -> None:
    layout = programs.lay_out("java", f"public class {name} {{ }}")
    assert (layout is not None) == (name == "Shop")
    if layout is not None:
        Call(layout.run, layout.files)
