"""Parses what is no programming language in the narrow sense: JSON, YAML, SQL, regular expressions, and Python.

Each by a real parser: Python by the compiler of the interpreter that runs this, JSON by the standard library,
YAML by PyYAML, SQL by sqlglot. What sqlglot does not know it takes as it is, and so do we.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import textwrap
from collections.abc import Callable
from typing import Final

from selfinstruct.verify.grammars import grammar_problem, has_grammar, html_problem, without_warnings

SQL_DIALECTS: Final = (None, "mysql", "postgres", "tsql", "sqlite", "oracle", "bigquery")
_COMMENT_LINE = re.compile(r"^([ \t]*)#.*$", re.MULTILINE)
# What later versions brought: 3.11 `except*`, 3.12 type parameters and free f-strings, 3.14 t-strings.
_NEWER = re.compile(
    r"^\s*(?:except\s*\*|type\s+\w+\s*(?:\[.*\])?\s*=|(?:async\s+)?def\s+\w+\[|class\s+\w+\[|except\s+\w+\s*,\s*\w+\s*:)|"
    r"\b(?:[rR]?[fFtT]|[fFtT][rR])(?:\"[^\"\n]*\{[^}\n]*[\"\\\\]|'[^'\n]*\{[^}\n]*['\\\\])|\b[tT][rR]?[\"']",
    re.MULTILINE,
)
_PLACEHOLDER = re.compile(r"<[A-Za-z_][\w -]*>|\{\{?\s*\w+\s*\}?\}|\[[a-z]+ [a-z ]+\]|\.\.\.|\u2026")
_PROCEDURE = re.compile(
    r"^\s*(?:delimiter\b|declare\b|begin\s*$|do\s+\$|create\s+(?:or\s+(?:replace|alter)\s+)?(?:procedure|function|trigger|event|package)\b)",
    re.IGNORECASE | re.MULTILINE,
)
_STATEMENT = re.compile(
    r"\b(?:from|into|set|table)\b", re.IGNORECASE
)  # a column or an alias has none of these
_SQL_LONG = 5_000  # characters from which on not every dialect is tried
_SQL_HEADS = ("SELECT x FROM x", "SELECT")  # what a clause or an expression may be cut out from behind
_SQL_TEXT = re.compile(r"'[^'\u2018\u2019]*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)
_TYPOGRAPHIC = re.compile("[\u2018\u2019\u201c\u201d]")
_COMMENT = re.compile(r"^\s*(?://.*|/\*.*\*/)\s*$", re.MULTILINE)


def python_problem(code: str) -> str | None:
    """What the compiler says against the code.

    A piece cut out of a function or a loop is compiled inside one, a body of comments alone gets a `pass`, and so
    does a lone head. Syntax that only later versions of Python know passes in an earlier one.
    """
    code = textwrap.dedent(code).replace("\r\n", "\n")
    problem = _compile_problem(code)
    if problem is None or (sys.version_info < (3, 14) and _NEWER.search(code)):
        return None
    body = textwrap.indent(code, "  ")
    tries = [f"async def x():\n{body}", f"async def x():\n while x:\n{body}"]
    if "indented block" in problem:
        filled = _COMMENT_LINE.sub(r"\1pass", code)
        tries += [filled, f"async def x():\n{textwrap.indent(filled, '  ')}"]
        if re.match(r"(?:async )?(?:def|class)\b", code) and "\n" not in code.strip():
            tries.append(f"{code.rstrip()} pass")
    return problem if all(_compile_problem(text) for text in tries) else None


def _compile_problem(code: str) -> str | None:
    try:
        with without_warnings():  # of escapes and comparisons: such code runs
            compile(code, "answer", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return str(error) or type(error).__name__
    return None


def python_tree(code: str) -> ast.Module | None:
    """The syntax tree of Python's own parser, None where the code cannot be parsed."""
    try:
        with without_warnings():
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def json_problem(code: str) -> str | None:
    """What is wrong with JSON. Comments, a line of JSON each, and members without their braces may be."""
    problem = _loads_problem(code)
    if problem is None:
        return None
    lines = [line for line in code.splitlines() if line.strip()]
    if len(lines) > 1 and all(_loads_problem(line) is None for line in lines):
        return None
    bare = _COMMENT.sub("", code)
    return (
        problem if all(_loads_problem(text) for text in (bare, f"{{{bare.strip().rstrip(',')}}}")) else None
    )


def _loads_problem(text: str) -> str | None:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return f"line {error.lineno}: {error.msg}"
    except ValueError as error:  # a number that is too long
        return str(error)
    except RecursionError:
        return "nested too deeply"
    return None


def yaml_problem(code: str) -> str | None:
    """What is wrong with YAML; templates in braces are taken as plain values."""
    import yaml

    code = re.sub(r"\{\{.*?\}\}|\{%.*?%\}", "x", code)
    try:
        for _ in yaml.parse(code, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            pass
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        return f"line {mark.line + 1 if mark else 1}: {error.problem}"
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        return str(error).partition("\n")[0] or type(error).__name__
    return None


def sql_problem(code: str) -> str | None:
    """What is wrong with SQL in every dialect that is tried; a clause is tried behind a beginning."""
    import logging

    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import ParseError, TokenError

    if _PROCEDURE.search(code):
        return None  # a language of its own, which this parser does not read
    if found := _TYPOGRAPHIC.search(_SQL_TEXT.sub(lambda text: re.sub(r"[^\n]", " ", text[0]), code)):
        return f"line {code.count(chr(10), 0, found.start()) + 1}: {found[0]} is no quotation mark of SQL"
    logging.getLogger("sqlglot").setLevel(logging.CRITICAL)  # it tells of each statement it does not know
    first = None
    dialects = SQL_DIALECTS if len(code) < _SQL_LONG else SQL_DIALECTS[:2]
    heads = _SQL_HEADS[: 1 if _STATEMENT.search(code) else 2]
    for text in dict.fromkeys((code, _PLACEHOLDER.sub("x", code), *(f"{head} {code}" for head in heads))):
        for dialect in dialects:
            try:
                parsed = sqlglot.parse(text, dialect=dialect)
            except ParseError as error:
                known = error.errors[0] if error.errors else {}
                first = first or f"line {known.get('line', 1)}: {known.get('description', error)}"
            except (TokenError, RecursionError) as error:
                first = first or (str(error).partition("\n")[0] or "nested too deeply")
            except Exception:  # noqa: BLE001 - a bug of the parser is no error of the code
                return None
            else:
                if not (
                    _STATEMENT.search(text)
                    and any(isinstance(one, (exp.Alias, exp.Column)) for one in parsed)
                ):
                    return None
                first = first or "line 1: no statement of SQL"
    return first


def regex_problem(code: str) -> str | None:
    """What is wrong with a regular expression, be it one of Python or of JavaScript (by a grammar)."""
    pattern = code.strip()
    slashed = re.fullmatch(r"/(.+)/[a-z]*", pattern, re.DOTALL)
    pattern = slashed[1] if slashed else pattern
    pattern = re.sub(r"(\\[wds])-(?=\\?[^\]])", r"\1\\-", pattern)  # `[\w-.]` is an error in Python alone
    try:
        with without_warnings():
            re.compile(pattern, re.VERBOSE if "\n" in pattern else 0)
    except (re.error, RecursionError, OverflowError) as error:
        known = has_grammar("regex") and grammar_problem("regex", pattern) is None
        return None if known else str(error) or type(error).__name__
    return None


FORMATS: Final[dict[str, Callable[[str], str | None]]] = {
    "python": python_problem,
    "html": html_problem,
    "json": json_problem,
    "yaml": yaml_problem,
    "sql": sql_problem,
    "regex": regex_problem,
}
