"""Stubs of answers, tests that models write, and the programs made of both."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import PLAN

from selfinstruct.records import Candidate, Choice
from selfinstruct.settings import make_settings
from selfinstruct.verify.sandbox import SandboxUnavailable, open_sandbox
from selfinstruct.verify.selftests import (
    find_subject,
    make_trials,
    names_nothing_known,
    read_tests,
    request_tests,
)
from selfinstruct.verify.stubs import LANGUAGES, Outline, outline, without_names
from selfinstruct.verify.toolchains import find_toolchain
from selfinstruct.verify.verifier import Verifier

CHAT = make_settings({"backend": "openai", "model": "m"})
LOCAL = make_settings({})

PROGRAMS = {
    "python": """from functools import lru_cache
import os
LIMIT = 10
HERE = os.getcwd()

@lru_cache
def double(n: int) -> int:
    "Twice as much."
    return 2 * n

class Box:
    def __init__(self, size):
        self.size = size

    @property
    def area(self):
        return self.size ** 2

print(double(LIMIT))
if __name__ == "__main__":
    print(double(4))
""",
    "javascript": """const fs = require("fs");
const LIMIT = 10;
const double = (n) => 2 * n;
class Base {}
class Box extends Base {
  constructor(size) { super(); this.size = size; }
  get area() { return this.size ** 2; }
}
console.log(double(LIMIT).toFixed());
module.exports = { double, Box };
""",
    "ruby": """require "set"
LIMIT = 10
def double(n)
  2 * n
end
class Box
  attr_reader :size
  def initialize(size)
    @size = size
  end
  def area = @size**2
end
puts double(LIMIT)
""",
    "php": """<?php
const LIMIT = 10;
function double(int $n): int { return 2 * $n; }
class Box {
    public function __construct(private int $size) {}
    public function area(): int { return $this->size ** 2; }
}
echo double(LIMIT), "\\n";
?>
""",
    "lua": """local LIMIT = 10
function double(n) return 2 * n end
local Box = {}
Box.__index = Box
function Box.new(size) return setmetatable({ size = size }, Box) end
function Box:area() return self.size ^ 2 end
print(double(LIMIT))
return Box
""",
}
# For each language: tests that the program passes, tests that it fails, and tests that say nothing.
TESTS = {
    "python": (
        "assert double(2) == 4\nassert Box(3).area == 9",
        "assert double(2) == 5",
        "assert 1 + 1 == 2",
    ),
    "javascript": (
        "const assert = require('assert');\nassert.equal(double(2), 4);\nassert.equal(new Box(3).area, 9);",
        "assert.deepEqual(double(2), 5);",
        "assert.ok(true);",
    ),
    "ruby": (
        'raise "double" unless double(2) == 4\nraise "area" unless Box.new(3).area == 9',
        'raise "double" unless double(2) == 5',
        "x = 1",
    ),
    "php": (
        'if (double(2) !== 4 || (new Box(3))->area() !== 9) { throw new Exception("no"); }',
        'if (double(2) !== 5) { throw new Exception("no"); }',
        "$x = 1;",
    ),
    "lua": (
        "assert(double(2) == 4)\nassert(Box.new(3):area() == 9)",
        "assert(double(2) == 5)",
        "assert(true)",
    ),
}
SHOWN_WITHOUT = ("Twice as much", "2 * n", "2 * $n", "** 2", "print", "puts", "echo", "console.log")


@pytest.mark.parametrize("language", sorted(PROGRAMS))
def test_a_stub_has_the_functions_and_not_their_bodies(language: str) -> None:
    found = outline(language, PROGRAMS[language])
    assert found is not None
    assert found.returns
    assert "double" in found.names
    assert "double" in found.stub
    for text in SHOWN_WITHOUT:
        assert text not in found.stub, found.stub
    assert "10" in found.stub  # a plain constant stays
    again = outline(language, found.stub)
    assert again is not None
    assert again.names == found.names


@pytest.mark.parametrize("language", sorted(PROGRAMS))
def test_programs_are_held_to_tests_and_tests_to_stubs(language: str) -> None:
    try:
        sandbox = open_sandbox("bwrap")
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    if find_toolchain(sandbox, language) is None:
        pytest.skip(f"no toolchain for {language}")
    verifier = Verifier(sandbox)
    subject = find_subject(language, PROGRAMS[language])
    assert isinstance(subject, Outline)
    right, wrong, empty = (verifier.test(language, subject, tests, "") for tests in TESTS[language])
    assert right.status == "passed", right
    assert (wrong.status, wrong.level) == ("failed", "tests")
    assert wrong.reason not in {"bad_tests", "weak_tests"}
    assert (empty.status, empty.reason) == ("failed", "weak_tests")
    unknown = verifier.test(language, subject, TESTS[language][0].replace("double", "treble"), "")
    assert (unknown.status, unknown.reason) == ("failed", "bad_tests"), unknown
    broken = verifier.test(language, subject, "((((", "")
    assert (broken.status, broken.reason) == ("failed", "bad_tests")


def test_no_program_gets_by_without_its_tests() -> None:
    try:
        verifier = Verifier(open_sandbox("bwrap"))
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    wrong = "def double(n):\n    return 3 * n\n"
    tests = "assert double(2) == 4"
    for more in (
        "import os\nos._exit(0)",
        "import sys\nsys.exit(0)",
        "print(open(__file__).read())",
        "import atexit\natexit.register(lambda: print(open(__file__).read()))",
    ):
        subject = find_subject("python", wrong + more)
        assert isinstance(subject, Outline)
        assert verifier.test("python", subject, tests, "").status != "passed", more
    subject = find_subject("python", wrong)
    assert isinstance(subject, Outline)
    for ending in ("import os\nos._exit(0)\n", "raise SystemExit(0)\n"):
        assert verifier.test("python", subject, ending + tests, "").status == "failed"


def test_what_there_is_nothing_to_test_in() -> None:
    assert find_subject("python", "print(1)") == "no_function"
    assert (
        find_subject("python", "def test_it():\n    assert True\n\ndef main():\n    test_it()")
        == "no_function"
    )
    assert find_subject("python", "def (") == "no_outline"
    assert find_subject("go", "package main") == "no_tests_for_language"
    assert find_subject(None, "x") == "no_tests_for_language"
    only_prints = find_subject("python", "def shout(x):\n    print(x)\n    return")
    assert isinstance(only_prints, Outline)
    assert not only_prints.returns


def test_the_models_own_copy_of_the_function_is_left_out() -> None:
    names = frozenset({"double"})
    python = "from answer import double\n\ndef double(n):\n    return 4\n\ndef test_two():\n    assert double(2) == 4\n"
    kept = without_names("python", python, names)
    assert kept is not None
    assert "return 4" not in kept
    assert "answer" not in kept
    assert kept.rstrip().endswith("test_two()")
    script = "import { double } from './answer.js';\nconst double = (n) => 4;\nassert.equal(double(2), 4);"
    assert (without_names("javascript", script, names) or "").strip() == "assert.equal(double(2), 4);"
    assert without_names("ruby", "def double(n)\n  4\nend\n", names) == "\n"
    assert make_trials("python", Outline("", "", names, True), "def double(n):\n    return 4\n") is None


@pytest.mark.parametrize("odd", ["\u2028", "\x0c", "\x1c", "\x85", "\r"])
def test_lines_are_counted_as_python_counts_them(odd: str) -> None:
    before = f"# a{odd}# b\n"
    found = outline("python", before + "def f(x):\n    return x\nif __name__ == '__main__':\n    f(2)\n")
    assert found is not None
    assert found.program.rstrip().endswith("return x")
    kept = without_names("python", before + "def f(x):\n    return x\nassert f(1) == 1\n", frozenset({"f"}))
    assert kept is not None
    assert kept.split()[-4:] == ["assert", "f(1)", "==", "1"]
    assert "return" not in kept


@pytest.mark.filterwarnings("error")
def test_parsing_warns_nobody() -> None:
    assert outline("python", "def f(x):\n    return '\\d' is x\n") is not None


def test_a_name_that_the_answer_has_is_known() -> None:
    said = "undefined method `empty?' for nil (NoMethodError)"
    assert names_nothing_known("def f(x) = x.empty?", said) is None
    assert names_nothing_known("def f(x) = x.size", said) == "empty?"


def test_the_model_is_shown_the_functions_and_not_how_they_work() -> None:
    subject = find_subject("python", PROGRAMS["python"])
    assert isinstance(subject, Outline)
    candidate = Candidate("Write double and a box.", "10", PROGRAMS["python"], language="python")
    asked = request_tests(CHAT, PLAN, 0, candidate, subject, "python")
    text = "\n".join(content for _, content in asked.messages)
    for shown in ("Write double and a box.", "Input:\n```\n10\n```", "def double(n: int) -> int:", "assert"):
        assert shown in text
    assert "2 * n" not in text
    other = request_tests(CHAT, PLAN, 1, candidate, subject, "python")
    assert asked.seed != other.seed
    assert request_tests(LOCAL, PLAN, 0, candidate, subject, "python").messages[-1][1] == "```python\n"


@pytest.mark.parametrize(
    ("reply", "tests"),
    [
        (Choice("```python\nassert f(1)\nassert f(2)\n```"), "assert f(1)\nassert f(2)"),
        (Choice("Here:\n```python\nassert f(1)\n```\nDone."), "assert f(1)\n"),
        (Choice("assert f(1)\nassert f(2)"), "assert f(1)\nassert f(2)"),
        (Choice("```python\nassert f(1)\nassert f(2) ==", "length"), "assert f(1)"),
    ],
)
def test_tests_are_read_from_any_reply(reply: Choice, tests: str) -> None:
    assert read_tests(CHAT, "python", reply).strip() == tests.strip()
    inside = Choice(reply.text.removeprefix("```python\n"), reply.finish_reason)
    assert read_tests(LOCAL, "python", inside).strip().startswith("assert f(1)") or "Here" in inside.text


def test_php_tests_need_no_tag() -> None:
    assert read_tests(CHAT, "php", Choice("```php\n<?php\n$x = 1;\n```")).strip() == "$x = 1;"


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from(sorted(LANGUAGES)),
    st.text(max_size=200) | st.sampled_from(["(" * 900, "{" * 900, "[" * 900]),
)
def test_nothing_that_a_model_writes_breaks_it(language: str, text: str) -> None:
    found = outline(language, text)
    assert found is None or isinstance(found.stub, str)
    without_names(language, text, frozenset({"f"}))
    json.dumps(read_tests(CHAT, language, Choice(text)))
    make_trials(language, Outline("def f(): pass", "def f(): pass", frozenset({"f"}), True), text)
