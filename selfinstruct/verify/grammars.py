"""Parses code by compiled tree-sitter grammars and says where the first error is.

A grammar is loaded on its first use; one that is not installed makes its language unavailable, never wrong.
A grammar recovers from errors and goes on, so an error is a node that it marks as such. Code that is a piece
of a program is tried inside what it may have been cut out of. What the grammars do not see: names, types, and
whatever else a compiler does after parsing.
"""

from __future__ import annotations

import importlib
import itertools
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tree_sitter import Language, Node

_FILTERS = threading.Lock()
# Package (behind `tree_sitter_`) and its function that gives the grammar; several where one will do.
GRAMMARS: Final = {
    "bash": (("bash", "language"),),
    "c": (("c", "language"), ("cpp", "language")),
    "cpp": (("cpp", "language"),),
    "csharp": (("c_sharp", "language"),),
    "css": (("css", "language"), ("scss", "language")),
    "dart": (("dart", "language"),),
    "docker": (("containerfile", "language"),),
    "go": (("go", "language"),),
    "haskell": (("haskell", "language"),),
    "html": (("html", "language"),),
    "java": (("java", "language"),),
    "javascript": (("javascript", "language"), ("typescript", "language_tsx")),
    "kotlin": (("kotlin", "language"),),
    "lua": (("lua", "language"),),
    "make": (("make", "language"),),
    "perl": (("perl", "language"),),
    "php": (("php", "language_php"),),
    "powershell": (("powershell", "language"),),
    "regex": (("regex", "language"),),
    "ruby": (("ruby", "language"),),
    "rust": (("rust", "language"),),
    "scala": (("scala", "language"),),
    "swift": (("swift", "language"),),
    "typescript": (("typescript", "language_typescript"), ("typescript", "language_tsx")),
}
_CLASS, _BODY, _METHOD = ("class X {", "\n}"), ("void x() {", "\n}"), ("class X { void x() {", "\n}}")
# What a piece may have been cut out of: text before (on its first line, so that line numbers hold) and behind.
_AROUND: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "c": (_BODY, ("int x[] = {", "};"), ("int x = ", ";")),
    "cpp": (_BODY, ("class X {", "\n};"), ("int x = ", ";")),
    "csharp": (_CLASS, _METHOD, ("var x = ", ";")),
    "css": (("x {", "\n}"), ("", "{}")),
    "dart": (_CLASS, _BODY, ("var x = ", ";")),
    "go": (("func x() {", "\n}"), ("var x = ", "\n"), ("type x struct {", "\n}")),
    "haskell": (("x = do { ", "\n}"), ("x = ", "\n")),
    "java": (_CLASS, _METHOD, ("class X { Object x = ", ";}")),
    "javascript": (("class X {", "\n}"), ("x = ", "\n"), ("x = {", "\n}"), ("async function* x() {", "\n}")),
    "kotlin": (("class X {", "\n}"), ("val x = ", "\n"), ("fun x() {", "\n}"), ("enum class X {", "\n}")),
    "lua": (("return ", "\n"), ("x = {", "\n}")),
    "perl": (("sub x {", "\n}"),),
    "php": (("<?php ", "\n"), ("<?php class X {", "\n}"), ("<?php $x = ", ";")),
    "powershell": (("$x = ", "\n"),),
    "ruby": (("x = ", "\n"), ("def x\n", "\nend")),
    "rust": (("impl X {", "\n}"), ("fn x() {", "\n}"), ("const x: X = ", ";"), ("fn x() { match x {", "\n}}")),
    "scala": (("class X {", "\n}"), ("val x = ", "\n"), ("x match {", "\n}")),
    "swift": (("class X {", "\n}"), ("let x = ", "\n"), ("switch x {", "\n}")),
    "typescript": (
        ("class X {", "\n}"), ("x = ", "\n"), ("type X = ", "\n"), ("interface X {", "\n}"), ("x = {", "\n}"),
        ("async function* x() {", "\n}"),
    ),
}  # fmt: skip


# How often a grammar may report that it is still at it: for good code once in some 60 characters. Mending a text
# that is wrong throughout takes time by the square of its length.
_STEPS: Final = 300
# What a grammar does not know although it is right, and what to put in its place; never across a line break.
_UNKNOWN: Final[dict[str, tuple[tuple[re.Pattern[str], str], ...]]] = {
    "css": ((re.compile(r"@(?:media|container)\b[^{};\n]*(?=\{)"), "@media x "),),
    "html": ((re.compile(r"&(?!#?\w+;)"), "&amp;"),),
    "bash": (
        (re.compile(r"\bfor\(\("), "for (("),
        (re.compile(r"(\d)<>"), r"\1< "),
        (re.compile(r"(\$\{\w+:)\$(\w+)"), r"\1\2"),
        (re.compile(r"\bfor (\w+)(?=(?:[ \t]*[;\n]\s*|[ \t]+)do\b)"), r"for \1 in x"),
    ),
}


# The scanner of bash looks up any sign behind a `{` in a table of 256, and a far one brings the process down.
_TOO_FAR: Final = {"bash": re.compile(r"[^\x00-\xff]")}


def _tamed(language: str, code: str) -> str:
    """The code with what crashes the language's grammar replaced by as many bytes of a letter."""
    far = _TOO_FAR.get(language)
    return code if far is None else far.sub(lambda sign: "x" * len(sign[0].encode("utf-8", "replace")), code)


def html_problem(code: str) -> str | None:
    """The first error in a page; one with PHP in it is parsed as PHP, an XML declaration is left out."""
    if "<?php" in code or "<?=" in code:
        return grammar_problem("php", code)
    return grammar_problem("html", re.sub(r"<\?xml[^>\n]*\?>", "", code))


def grammar_problem(language: str, code: str) -> str | None:
    """The first error that a grammar finds ("line 3: unexpected `}`"), or None.

    None is also the answer where no grammar of the language is installed (see `has_grammar`).
    """
    grammars = [grammar for name in GRAMMARS.get(language, ()) if (grammar := _load(*name)) is not None]
    if not grammars:
        return None
    code = "\n".join(
        line.rstrip() for line in code.split("\n")
    )  # some grammars stumble over blanks at the end
    for known, instead in _UNKNOWN.get(language, ()):
        code = known.sub(instead, code)
    code = _tamed(language, code)
    first = None
    around = (("", ""), *_AROUND.get(language, ()))
    if language == "php":  # without its mark all of it would be the text of a page
        around = around[:1] if "<?" in code else around[1:]
    for before, behind in around:
        for grammar in grammars:
            problem = _first_error(grammar, before, code, behind)
            if problem is None:
                return None
            first = first or problem
    return first


def has_grammar(language: str) -> bool:
    """Whether the language's first grammar is installed."""
    return language in GRAMMARS and _load(*GRAMMARS[language][0]) is not None


def parse_tree(language: str, code: str) -> Node | None:
    """The root of the tree of a piece of code, by its language's first grammar; None where that is not installed."""
    grammar = _load(*GRAMMARS[language][0]) if language in GRAMMARS else None
    if grammar is None:
        return None
    from tree_sitter import Parser

    return Parser(grammar).parse(_tamed(language, code).encode("utf-8", "replace")).root_node


@contextmanager
def without_warnings() -> Iterator[None]:
    """No warnings meanwhile. Their filters belong to the process, so only one thread at a time may change them."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def _load(package: str, function: str) -> Language | None:
    try:
        engine = importlib.import_module("tree_sitter")
        give = getattr(importlib.import_module(f"tree_sitter_{package}"), function)
        with without_warnings():  # older packages give their grammar as a number
            grammar: Language = engine.Language(give())
    except (ImportError, AttributeError, TypeError, ValueError):  # the last two: made for another engine
        return None
    return grammar


def _first_error(grammar: Language, before: str, code: str, behind: str) -> str | None:
    """The first error, or None. None, too, if the grammar takes too many steps: such a text is not judged."""
    from tree_sitter import Parser

    text = f"{before}{code}\n{behind}".encode("utf-8", "replace")
    steps = itertools.count()
    most = _STEPS + len(text) // 40

    def read(start: int, _: object) -> bytes:
        return text[start : start + 65_536]

    def is_too_long(_: int, __: bool) -> bool:
        return next(steps) > most

    try:
        root = Parser(grammar).parse(read, progress_callback=is_too_long).root_node
    except ValueError:  # stopped
        return None
    node = _find_error(root) if root.has_error else None
    if node is None:
        return None
    line = node.start_point[0] + 1
    if node.is_missing:
        return f"line {line}: missing {node.type!r}"
    piece = text[node.start_byte : node.end_byte].decode("utf-8", "replace").strip().partition("\n")[0]
    return f"line {line}: unexpected {piece[:40]!r}" if piece else f"line {line}: unexpected end"


def _find_error(root: Node) -> Node | None:
    """The first node that is an error or a missing sign. None if all that is missing is a line break or the like."""
    error = None
    stack = [root]
    while stack:
        node = stack.pop()
        if node.is_error or node.is_missing:
            error = node
            stack = []  # what is wrong inside it tells more
        stack.extend(child for child in reversed(node.children) if child.has_error or child.is_missing)
    return error
