"""`--verify syntax`: whether the code of an answer can be parsed. Nothing is ever run here."""

from __future__ import annotations

import ast
import json
import re
import textwrap
import warnings

from selfinstruct.records import Candidate, Rejection
from selfinstruct.verify.code import find_code


def check_syntax(candidate: Candidate) -> Rejection | None:
    """Reject an answer with code that cannot be parsed: reason `syntax_error`, with language and message."""
    found = find_code(
        candidate.instruction, candidate.input, candidate.output, candidate.language, candidate.kind
    )
    for block in found.blocks:
        problem = syntax_problem(block.language, block.text) if block.language else None
        if problem:
            return Rejection("syntax_error", {"language": block.language, "message": problem})
    return None


def syntax_problem(language: str, code: str) -> str | None:
    """What is wrong with a piece of code ("line 3: ..."), or None: it parses, or nobody here can tell.

    Args:
        language: a canonical name of `vocabulary.LANGUAGES`.
        code: the text; anything at all.
    """
    if language == "python":
        return _python_problem(code)
    return _json_problem(code) if language == "json" else None


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
