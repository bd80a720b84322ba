"""`--verify syntax`: whether the code of an answer can be parsed. Nothing is ever run here.

Python is checked by the interpreter's own compiler, JSON by its parser; other languages pass unchecked.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
import warnings

from selfinstruct.records import Candidate, Rejection

_FENCE = re.compile(r"```([\w+#.-]*)[^\n]*\n(.*?)```", re.DOTALL)
_PROSE_KINDS = {"explain", "review", "summarise", "predict", "choose", "design", "configure"}
_PYTHON = {"python", "py", "python3"}


def check_syntax(candidate: Candidate) -> Rejection | None:
    """Reject an answer with Python or JSON code that cannot be parsed.

    Looked at are fenced blocks that name the language, and a bare answer where the language of the task is
    known and its kind asks for code.
    """
    for language, code in _code_of(candidate):
        problem = _python_problem(code) if language in _PYTHON else _json_problem(code)
        if problem:
            return Rejection("syntax_error", {"language": language, "message": problem})
    return None


def _code_of(candidate: Candidate) -> list[tuple[str, str]]:
    blocks = [(name.lower(), code) for name, code in _FENCE.findall(candidate.output)]
    if not blocks and "```" not in candidate.output and candidate.kind not in _PROSE_KINDS:
        blocks = [(candidate.language or "", candidate.output)] if candidate.kind else []
    return [(name, code) for name, code in blocks if name in _PYTHON or name == "json"]


def _python_problem(code: str) -> str | None:
    code = textwrap.dedent(code)  # a block may stand in a list, a body without its head
    if re.search(r"^(>>>|\$|%|!) ?", code, re.MULTILINE):
        return None  # a session or a notebook cell, which the compiler does not read
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes and comparisons: such code runs
            ast.parse(code)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return str(error) or type(error).__name__
    return None


def _json_problem(code: str) -> str | None:
    try:
        json.loads(code)
    except ValueError as error:
        return str(error)
    except RecursionError:
        return "nested too deeply"
    return None
