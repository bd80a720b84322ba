from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import selfinstruct
from selfinstruct.records import Candidate, Rejection
from selfinstruct.verify.syntax import check_syntax


def verdict(output: str, language: str | None = "python", kind: str | None = "write") -> Rejection | None:
    return check_syntax(Candidate("Do.", "", output, language=language, kind=kind))


def fenced(code: str, name: str = "python") -> str:
    return f"Like this:\n\n```{name}\n{code}\n```\n\nThat is all."


GOOD = [
    "print(1)",
    "def f(x: int = 3) -> int:\n    return x",
    "    return x  # the body alone of a function that was given",
    "async def f():\n    await g()",
    "x = '\\d'  # an escape that only warns",
    "1 is 1",
    "yield 3",
    "def f():\n    '''>>> f()'''\n    return 'a' \\\n        % 3",
    "",
    "# nothing but a comment",
    ">>> 1 + 1\n2",
    "%timeit f()\n!ls",
    "$ pip install x",
]
BAD = [
    "def f(:",
    "print 'old'",
    "x = (1",
    "if x:\nprint(1)",
    "for i in range(3) print(i)",
    "x = 1\n  y = 2",
    "'open",
]


@pytest.mark.parametrize("code", GOOD)
def test_good_python_passes_bare_and_in_a_fence(code: str) -> None:
    assert verdict(code) is None
    assert verdict(fenced(code)) is None
    assert verdict(fenced(code, "py"), None, None) is None


@pytest.mark.parametrize("code", BAD)
def test_bad_python_is_told_with_its_line(code: str) -> None:
    for found in (verdict(code), verdict(fenced(code)), verdict(fenced(code, "Python3"), "text", "explain")):
        assert found is not None
        assert found.reason == "syntax_error"
        assert found.evidence["message"].startswith("line ")
        assert "\n" not in found.evidence["message"]


@pytest.mark.parametrize("code", GOOD)
def test_a_block_inside_a_list_is_read_without_its_indent(code: str) -> None:
    assert verdict("1. First:\n\n" + textwrap.indent(f"```python\n{code}\n```", "   ") + "\n2. Then.") is None


def test_every_block_counts() -> None:
    assert verdict(fenced(GOOD[0]) + fenced(GOOD[1])) is None
    assert verdict(fenced(GOOD[0]) + fenced(BAD[0])) is not None
    assert verdict(fenced(BAD[0], "cobol") + fenced(GOOD[0])) is None


@pytest.mark.parametrize(
    ("language", "kind"),
    [
        ("r", "write"), (None, "write"), ("python", None), (None, None), ("text", "write"),
        *[("python", kind) for kind in ("explain", "review", "summarise", "predict", "choose", "design")],
    ],
)  # fmt: skip
def test_a_bare_answer_is_read_only_where_it_has_to_be_code(language: str | None, kind: str | None) -> None:
    assert verdict("This is prose, not code.", language, kind) is None


def test_a_session_is_known_by_its_prompt_at_the_margin_only() -> None:
    assert verdict("def f(:\n    >>> f()") is not None
    assert verdict("  >>> def f(:\n  ...") is None


def test_prose_around_blocks_is_not_read() -> None:
    assert verdict("Use `x` here. " + fenced("x = 1", "text")) is None
    assert verdict("An open fence:\n```python\ndef f(:") is None


@pytest.mark.parametrize("text", ['{"a": [1, 2.5, null]}', "[]", '"text"', "12"])
def test_good_json_passes(text: str) -> None:
    assert verdict(text, "json") is None
    assert verdict(fenced(text, "json"), "python") is None


@pytest.mark.parametrize("text", ["{'a': 1}", '{"a": 1,}', '{"a": 1', "[" * 15_000])
def test_bad_json_is_told(text: str) -> None:
    for found in (verdict(text, "json"), verdict(fenced(text, "JSON"), None, None)):
        assert found is not None
        assert found.evidence["language"] == "json"
        assert found.evidence["message"]


@pytest.mark.parametrize("code", ["x = '\\d'", "1 is 1", "(1)(2)", "assert (1, 'x')"])
def test_no_warning_reaches_the_user_and_none_becomes_an_error(code: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert verdict(code) is None


DEEP = """
    "-" * 15_990 + "1", "(" * 8000, "a" + ".b" * 7990, "1" + "+1" * 7990, "not " * 3990 + "x", "f" + "()" * 7990,
    "lambda:" * 2200 + "1", "{" * 8000, "x" + "[0]" * 5000, "f'" + "{" * 8000, "\\0", "x = '\\ud800'", "\\ufeffx",
"""


def test_no_code_brings_the_interpreter_down() -> None:
    # In a process of its own, so that a crash is a failure of this test alone.
    program = f"""if True:
        from selfinstruct.records import Candidate
        from selfinstruct.verify.syntax import check_syntax
        for code in ({DEEP}):
            found = check_syntax(Candidate("Do.", "", code, language="python", kind="write"))
            assert found is None or found.evidence["message"], code[:20]
        print("done")
    """
    environment = os.environ | {"PYTHONPATH": str(Path(selfinstruct.__file__).parents[1])}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert (ended.stdout, ended.stderr) == ("done\n", "")


@given(
    st.text(),
    st.sampled_from(["python", "json", None]),
    st.sampled_from(["write", "explain", None]),
    st.booleans(),
)
def test_any_text_gets_a_verdict(text: str, language: str | None, kind: str | None, fence: bool) -> None:
    found = verdict(fenced(text, language or "") if fence else text, language, kind)
    assert found is None or set(found.evidence) == {"language", "message"}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=5,
    )
)
def test_what_python_and_json_write_is_read(value: object) -> None:
    assert verdict(f"x = {value!r}") is None
    assert verdict(json.dumps(value), "json") is None
