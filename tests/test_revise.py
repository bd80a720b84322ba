"""The job `revise`: the historic layout, what is kept and why not, code that is broken first."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended
from hypothesis import given
from hypothesis import strategies as st
from scripted import Pool, Script

from selfinstruct.derive.flaws import (
    ARITHMETIC,
    COMPARISON,
    DROPPED_RETURN,
    SWAPPED,
    Flaw,
    break_code,
    finds_flaw,
    mends_flaw,
)
from selfinstruct.derive.revise import (
    CRITIQUE,
    REVISION,
    SUMMARY,
    ReviseSettings,
    fenced,
    layout,
    refuse,
    revise,
    shape_of,
)
from selfinstruct.derive.worklist import WorkList
from selfinstruct.records import Candidate, Source
from selfinstruct.seams import Plan
from selfinstruct.settings import make_run_settings
from selfinstruct.verify.grammars import has_grammar, parse_tree

Cli = Callable[..., Ended]
SOURCE = Source(
    "ab",
    "Write a Python function that adds two numbers.",
    "",
    "```python\ndef add(a, b):\n    return a - b\n```",
)
GOOD = "```python\ndef add(a, b):\n    return a + b\n```"


def made(**flags: Any) -> ReviseSettings:
    given = {"inputs": ["in.json"], "output": "x.json", "backend": "openai", "model": "m"}
    return make_run_settings(ReviseSettings, given | flags)


def plan_of(source: Source, seed: int = 0) -> Plan:
    return WorkList([source], seed).plan(0, Pool())


def run(script: Script, source: Source = SOURCE, pool: Pool | None = None, **flags: Any) -> list[Candidate]:
    found = revise(made(**flags), plan_of(source), pool or Pool(), script)
    assert not script.replies
    return found


def reason(found: list[Candidate]) -> tuple[str, str]:
    (one,) = found
    assert one.rejection is not None
    return one.rejection.reason, str(one.rejection.evidence["part"])


# --- the layout -------------------------------------------------------------------------------------


def test_the_three_rows_have_the_historic_layout_to_the_letter() -> None:
    rows = [found.row for found in run(Script("It subtracts.", GOOD, "It subtracted."))]
    original, revised = "def add(a, b):\n    return a - b", "def add(a, b):\n    return a + b"
    assert rows == [
        {
            "instruction": "Please critique the following codes based on their requirements: \n\nORIGINAL:\n"
            + original,
            "input": "",
            "output": "It subtracts.",
        },
        {
            "instruction": "Please revise the following codes based on their requirement and comment: \n\nORIGINAL:\n"
            + original
            + "\n\nCOMMENT:\nIt subtracts.",
            "input": "",
            "output": revised,
        },
        {
            "instruction": "Please summarise the flaws of the code by comparing the original code and its revise: \n\n"
            "ORIGINAL:\n" + original + "\n\nREVISED:\n" + revised,
            "input": "",
            "output": "It subtracted.",
        },
    ]


LONG = "\n".join(f"x{number} = {number}" for number in range(1_500))


@pytest.mark.parametrize(
    ("replies", "told"),
    [
        (("It subtracts:\n```python\na + b",), ("unfinished_code", "critique")),
        (("It subtracts.", LONG), ("output_too_long", "revision")),
        (("It subtracts.", GOOD, "I'm sorry, but I cannot help with that request."), ("refusal", "summary")),
    ],
)
def test_a_part_that_a_filter_refuses_takes_the_others_with_it(
    replies: tuple[str, ...], told: tuple[str, str]
) -> None:
    assert reason(run(Script(*replies))) == told


def test_slots_inside_the_texts_stay() -> None:
    texts = {"ORIGINAL": "print('{REVISED}')", "REVISED": "{ORIGINAL}", "CRITIQUE": "{CRITIQUE} {x}"}
    assert layout(SUMMARY, **texts).endswith("ORIGINAL:\nprint('{REVISED}')\n\nREVISED:\n{ORIGINAL}")
    assert layout(REVISION, **texts).endswith("COMMENT:\n{CRITIQUE} {x}")
    assert layout(CRITIQUE, **texts).endswith("ORIGINAL:\nprint('{REVISED}')")


def test_the_requirement_may_be_the_input() -> None:
    source = replace(SOURCE, input="Use {original} braces.")
    script = Script("It subtracts.", GOOD, "It subtracted.")
    found = run(script, source, with_requirement=True)
    assert {each.input for each in found} == {f"{SOURCE.instruction}\n\nUse {{original}} braces."}
    assert "Use {original} braces." in script.text(0)  # a slot in somebody's text is text


@given(st.text(st.characters(codec="utf-8")))
def test_a_fence_holds_any_text(text: str) -> None:
    marks, _, rest = fenced(text, "python").partition("python\n")
    assert rest == f"{text}\n{marks}"
    assert marks not in text


# --- what is kept -----------------------------------------------------------------------------------


def test_what_is_given_up_has_its_reason() -> None:
    same = SOURCE.output.replace("    ", "\t")
    cases: list[tuple[list[Any], tuple[str, str]]] = [
        (["It subtracts.", same], ("unchanged", "revision")),
        (["It subtracts.", "I would add them."], ("no_code", "revision")),
        ([("It sub", "length")], ("cut_off", "critique")),
        ([" \n"], ("empty_reply", "critique")),
        (["It subtracts.", (GOOD, "content_filter")], ("cut_off", "revision")),
        (["It subtracts.", GOOD, ("It", "length")], ("cut_off", "summary")),
    ]
    for replies, expected in cases:
        assert reason(run(Script(*replies))) == expected
    prose = replace(SOURCE, output="A sum is what one gets by adding.", instruction="What is a sum?")
    assert reason(run(Script(), prose)) == ("no_code", "original")


def test_a_revision_that_does_not_verify_is_not_kept() -> None:
    pool = Pool(GOOD)
    assert reason(run(Script("It subtracts.", GOOD), pool=pool)) == ("syntax_error", "revision")


def test_the_local_model_goes_on_inside_a_fence() -> None:
    settings = make_run_settings(ReviseSettings, {"inputs": ["in.json"], "output": "x.json"})
    script = Script("It subtracts.", "def add(a, b):\n    return a + b\n", "It subtracted.")
    rows = revise(settings, plan_of(SOURCE), Pool(), script)
    assert script.asked[1].messages[-1] == ("assistant", "```python\n")
    assert rows[1].output == "def add(a, b):\n    return a + b"


def test_filters_judge_the_answer_and_not_the_code_that_was_given() -> None:
    given = layout(CRITIQUE, ORIGINAL="1. Instruction: {input}\n\x00" + "```")
    assert refuse(Candidate(given, "", "It leaks."), ()) is None
    for output in ("", "Sorry, I can't help with that.", "a\x1b[31m", "loop on " * 40, "x" * 17_000):
        assert refuse(Candidate(given, "", output), ()) is not None


# --- files and folders ------------------------------------------------------------------------------


def test_a_folder_of_code_is_worked_through_file_by_file(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "code"
    (folder / "deep" / ".git").mkdir(parents=True)
    (folder / "a.py").write_text("def add(a, b):\n    return a - b\n")
    (folder / "deep" / "b.go").write_text("package b\n\nfunc Add(a, b int) int { return a - b }\n")
    (folder / "deep" / ".git" / "c.py").write_text("hidden = 1\n")
    (folder / "notes.txt").write_text("no code")
    (folder / "long.py").write_text("x = 1\n" * 9000)
    (folder / "binary.py").write_bytes(b"\xff\xfe\x00")
    (folder / "key.py").write_text("password = 'q8Zr1Tx0vLw9Ks7Jd3'\n")
    (folder / "LICENSE").write_text("SPDX-License-Identifier: MIT\n")
    (folder / "loop").symlink_to(folder)
    (folder / "link.py").symlink_to(folder / "a.py")
    replies = tmp_path / "replies.jsonl"
    answers = [
        ("It subtracts.", GOOD, "It subtracted."),
        (
            "So does this.",
            "```go\npackage b\n\nfunc Add(a, b int) int { return a + b }\n```",
            "It subtracted, too.",
        ),
    ]
    with replies.open("w") as out:
        for k, texts in enumerate(answers):
            for step, text in enumerate(texts):
                out.write(json.dumps({"key": f"{k}.{step}", "text": text}) + "\n")
    output = tmp_path / "out.json"
    ended = cli("revise", folder, "-o", output, "--backend", "replay", "--model", replies)
    assert ended.status == 0, ended.err
    journal = (output.with_suffix(".run") / "journal.jsonl").read_text().splitlines()
    places = [json.loads(line)["origin"]["place"] for line in journal]
    assert places == [str(folder / "a.py"), str(folder / "deep" / "b.go")]
    assert json.loads(journal[0])["origin"]["licence"] == "MIT"
    assert "1 files are left out" in ended.err
    assert len(json.loads(output.read_text())) == 6
    single = cli("revise", folder / "a.py", "-o", tmp_path / "one.json", "--dry-run")
    assert "A file of a program in Python." in single.out
    ended = cli("revise", folder / "notes.txt", "-o", tmp_path / "none.json", "--dry-run")
    assert (ended.status, "notes.txt: neither" in ended.err) == (2, True)


# --- known flaws ------------------------------------------------------------------------------------

CODE = '''def find(items, wanted):
    """Where wanted is: a - b < c"""
    for i in range(len(items)):
        if items[i] == wanted and i < 10:  # a == b
            return i
    return -1


print("ä", find([1, 2], 2) * 3, "x == y")
'''


@pytest.mark.parametrize("seed", range(40))
def test_one_change_breaks_python_and_nothing_else(seed: int) -> None:
    found = break_code(CODE, "python", seed, parse_tree)
    assert found == break_code(CODE, "python", seed, parse_tree)
    assert found is not None
    broken, flaw = found
    ast.parse(broken)
    differing = [
        number
        for number, pair in enumerate(zip(CODE.split("\n"), broken.split("\n"), strict=True), 1)
        if pair[0] != pair[1]
    ]
    assert differing == [flaw.line]
    assert flaw.line not in {1, 2}
    assert flaw.right != flaw.wrong
    assert mends_flaw(CODE, broken, flaw)
    assert not mends_flaw(broken, broken, flaw)


def test_every_kind_of_flaw_is_drawn() -> None:
    drawn = [break_code(CODE, "python", seed, parse_tree) for seed in range(200)]
    kinds = {found[1].kind for found in drawn if found}
    assert kinds == {"comparison", "arithmetic", "logic", "off_by_one", "dropped_return", "swapped_arguments"}


C_LIKE = "{head} {{\n  if (a < b && b > 0) {{\n    return g(a, b);\n  }}\n  return a + b;\n}}\n"
OTHERS = {
    "javascript": C_LIKE.format(head="function f(a, b)"),
    "typescript": C_LIKE.format(head="function f(a: number, b: number): number"),
    "go": "package p\n\n" + C_LIKE.format(head="func f(a, b int) int").replace(";", ""),
    "java": "class A {\n" + C_LIKE.format(head="int f(int a, int b)") + "}\n",
    "csharp": "class A {\n" + C_LIKE.format(head="int f(int a, int b)") + "}\n",
    "c": C_LIKE.format(head="int f(int a, int b)"),
    "cpp": C_LIKE.format(head="int f(int a, int b)"),
    "rust": C_LIKE.format(head="fn f(a: i32, b: i32) -> i32"),
    "php": "<?php\n" + re.sub(r"\b([ab])\b", r"$\1", C_LIKE.format(head="function f(a, b)")),
    "kotlin": C_LIKE.format(head="fun f(a: Int, b: Int): Int").replace(";", ""),
    "swift": C_LIKE.format(head="func f(a: Int, b: Int) -> Int").replace(";", ""),
    "scala": C_LIKE.format(head="def f(a: Int, b: Int): Int =").replace(";", ""),
    "dart": C_LIKE.format(head="int f(int a, int b)"),
    "ruby": "def f(a, b)\n  if a < b && b > 0\n    return g(a, b)\n  end\n  a + b\nend\n",
    "lua": "function f(a, b)\n  if a < b and b > 0 then\n    return g(a, b)\n  end\n  return a + b\nend\n",
    "perl": "sub f {\n  if ($a < $b && $b > 0) {\n    return g($a, $b);\n  }\n  return $a + $b;\n}\n",
}


@pytest.mark.parametrize("language", OTHERS)
def test_other_languages_are_broken_by_their_tree(language: str) -> None:
    if not has_grammar(language):
        pytest.skip(f"no grammar of {language} is installed")
    drawn = [break_code(OTHERS[language], language, seed, parse_tree) for seed in range(60)]
    flaws = [found[1] for found in drawn if found]
    assert {flaw.kind for flaw in flaws} >= {"comparison", "arithmetic", "logic", "swapped_arguments"}
    assert len(flaws) == 60
    for broken, _ in filter(None, drawn):
        tree = parse_tree(language, broken)
        assert tree is not None
        assert not tree.has_error


def test_what_has_nothing_to_break_is_told() -> None:
    for code, language in (
        ("x = 'a < b'", "python"),
        ("x = a[0x10]", "python"),  # no plain digits: there is no next one
        ("f(x[1:], x[ 1: ])", "python"),  # the same but for spaces
        ("def f(:", "python"),
        ("SELECT 1", "sql"),
        ("", "python"),
    ):
        assert break_code(code, language, 0, parse_tree) is None


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("ruby", "foo(a: 1, b: 2)\n"),
        ("kotlin", "fun f() { foo(a = 1, b = 2) }\n"),
        ("php", "<?php foo(a: 1, b: 2);\n"),
        ("csharp", "class A { void F() { Foo(a: 1, b: 2); } }\n"),
        ("scala", "object A { foo(a = 1, b = 2) }\n"),
        ("dart", "void f() { foo(a: 1, b: 2); }\n"),
    ],
)
def test_named_arguments_may_stand_anywhere(language: str, code: str) -> None:
    if not has_grammar(language):
        pytest.skip(f"no grammar of {language} is installed")
    assert break_code(code, language, 0, parse_tree) is None


@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_lines_of_any_end_are_broken(end: str) -> None:
    coding = "# -*- coding: latin-1 -*-\n"
    for seed in range(20):
        assert break_code((coding + CODE).replace("\n", end), "python", seed, parse_tree) == break_code(
            coding + CODE, "python", seed, parse_tree
        )


BITS = [
    "a < b",
    "f(a, b)",
    "return x",
    "'ä'",
    "\r",
    "\r\n",
    "\n",
    " ",
    "\x0c",
    "\u2028",
    "if",
    ":",
    "    ",
    "x[0]",
]


@given(
    st.text() | st.lists(st.sampled_from(BITS), max_size=12).map("".join),
    st.sampled_from(["python", "javascript", "text"]),
    st.integers(0, 9),
)
def test_no_text_makes_it_raise(text: str, language: str, seed: int) -> None:
    found = break_code(text, language, seed, parse_tree)
    if found is not None:
        assert finds_flaw(f"Line {found[1].line} is wrong.", found[1]) == "line"


FLAW = Flaw(
    "comparison", 4, "i < len(items)", "i <= len(items)", "while i < len(items):", "while i <= len(items):"
)


@pytest.mark.parametrize(
    ("critique", "how"),
    [
        ("On line 4 the loop runs too far.", "line"),
        ("Lines 3 and 4 are fine but for the bound.", "line"),
        ("The fourth line goes too far.", "line"),
        ("Line 14 is too long, and 4 names are bad.", None),
        ("`i<=len(items)` lets i pass the end.", "code"),
        ("There is an off-by-one error in the loop.", "words"),
        ("The code works well. Add a docstring.", None),
    ],
)
def test_whether_a_critique_names_the_flaw(critique: str, how: str | None) -> None:
    assert finds_flaw(critique, FLAW) == how


@pytest.mark.parametrize(
    ("kind", "critique", "how"),
    [
        (COMPARISON, "It filters out numbers less than 10, and sorts them. It works correctly.", None),
        (COMPARISON, "It keeps numbers less than 10, which is wrong.", "words"),
        (SWAPPED, "It is not secure: a parameterized query does not escape the input.", None),
        (SWAPPED, "The arguments of the call are in the wrong order.", "words"),
        (DROPPED_RETURN, "Otherwise, it should return null.", None),
        (DROPPED_RETURN, "This will cause the function to return nothing, for it lacks a return.", "words"),
        (DROPPED_RETURN, "It works out `total` and should check it.", None),
        (
            ARITHMETIC,
            "The method returns the difference of two numbers, which is not what is asked for.",
            "words",
        ),
        (ARITHMETIC, "The method returns the difference of two numbers.", None),
    ],
)
def test_words_of_the_kind_have_to_blame_something(kind: str, critique: str, how: str | None) -> None:
    flaw = Flaw(kind, 40, "return total", "total", "return total", "total")
    assert finds_flaw(critique, flaw) == how


def test_code_is_broken_first_and_the_critique_has_to_find_it() -> None:
    source = replace(SOURCE, output=GOOD)
    broken, flaw = break_code(
        "def add(a, b):\n    return a + b", "python", plan_of(source).seed, parse_tree
    ) or ("", FLAW)
    script = Script(f"Line {flaw.line} is wrong.", GOOD, "It was wrong.")
    found = run(script, source, break_code=True)
    assert broken in script.text(0)
    assert found[0].instruction == layout(CRITIQUE, ORIGINAL=broken)
    assert found[1].output == "def add(a, b):\n    return a + b"
    for each in found:
        assert each.notes == {"flaw": flaw.notes(), "found_by": "line"}
    assert reason(run(Script("All is well."), source, break_code=True)) == ("flaw_not_found", "critique")
    other = fenced(f"# new\n{broken}", "python")
    assert reason(run(Script("Line 2.", other), source, break_code=True)) == ("flaw_not_mended", "revision")
    assert reason(run(Script(), source, Pool(GOOD), break_code=True)) == ("original_fails", "original")
    nothing = replace(SOURCE, output="```python\nx = 'a'\n```")
    assert reason(run(Script(), nothing, break_code=True)) == ("not_breakable", "original")


@pytest.mark.parametrize(
    ("language", "one", "other", "same"),
    [
        ("c", "int f(int a,int b)\n{ return a; }", "int f(int a, int b) {\n    return a;\n}", True),
        ("c", "int f(int a)", "int f(int *a)", False),
        ("python", "if a:\n  b\n  c", "if a:\n    b\n\n    c\n", True),
        ("python", "if a:\n    b\n    c", "if a:\n    b\nc", False),
        ("yaml", "a:\n  b: 1", "a:\nb: 1", False),
        (None, "a b", "ab", False),
    ],
)
def test_white_space_is_no_change_unless_it_nests(
    language: str | None, one: str, other: str, same: bool
) -> None:
    assert (shape_of(one, language) == shape_of(other, language)) is same
