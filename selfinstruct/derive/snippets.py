"""Pieces of a file of code: whole functions, classes or statements by its syntax tree, else a run of lines."""

from __future__ import annotations

import ast
import random
from dataclasses import dataclass
from typing import Final

from selfinstruct.verify.formats import python_tree

LEAST, MOST = 4, 40  # lines of a piece
_CHARACTERS: Final = 3000  # that a piece has at most
_TOLD = 0.5  # share of the lines that have to say something: no brackets, no comments, no imports
_NODES = 20_000  # of a tree that are looked at
_NAMED: Final = ("function", "method", "class", "impl", "struct", "interface", "trait", "module", "object")
_SILENT = (
    "#",
    "//",
    "/*",
    "*",
    "--",
    "import ",
    "from ",
    "use ",
    "using ",
    "package ",
    "include",
    "require",
    "@import",
)


@dataclass(frozen=True, slots=True)
class Snippet:
    """A piece of a file: its text, and its first and last line (from 1)."""

    text: str
    first: int
    last: int


def find_snippets(code: str, language: str | None, rng: random.Random) -> list[Snippet]:
    """The pieces of a file that may inspire a task, in random order; functions and classes before others.

    Args:
        code: the file.
        language: canonical; where it has no parser here, runs of lines are taken.
        rng: draws the order, and where runs of lines begin.
    """
    lines = code.split("\n")
    spans = _python_spans(code) if language == "python" else _tree_spans(code, language)
    if spans is None:
        spans = _line_spans(lines, rng)
    named = sorted({span[:2] for span in spans if span[2]})
    others = sorted({span[:2] for span in spans if not span[2]} - set(named))
    rng.shuffle(named)
    rng.shuffle(others)
    found = [_cut(lines, first, last) for first, last in [*named, *others]]
    return [snippet for snippet in found if snippet is not None]


Spans = list[tuple[int, int, bool]]  # first line, last line, whether it is a function, a class or the like


def _cut(lines: list[str], first: int, last: int) -> Snippet | None:
    """The lines without the indent that they have in common; None where they are too many or say too little."""
    chosen = lines[first - 1 : last]
    telling = [line for line in chosen if _tells(line)]
    if not LEAST <= len(chosen) <= MOST or len(telling) < max(LEAST - 1, _TOLD * len(chosen)):
        return None
    indent = min(len(line) - len(line.lstrip()) for line in chosen if line.strip())
    text = "\n".join(line[indent:].rstrip() for line in chosen)
    return Snippet(text, first, last) if len(text) <= _CHARACTERS else None


def _tells(line: str) -> bool:
    line = line.strip()
    return any(map(str.isalnum, line)) and not line.startswith(_SILENT)


def _python_spans(code: str) -> Spans | None:
    tree = python_tree(code)
    if tree is None:
        return None
    spans: Spans = []
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and node.end_lineno is not None:
            named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
            spans.append((first, node.end_lineno, named))
    return spans


def _tree_spans(code: str, language: str | None) -> Spans | None:
    """Nodes that begin and end with their lines; None where there is no grammar, or it cannot read the file."""
    from selfinstruct.verify.grammars import parse_tree

    root = parse_tree(language or "", code)
    if root is None or root.has_error:
        return None
    lines = code.encode("utf-8", "replace").split(b"\n")
    spans: Spans = []
    waiting, seen = [root], 0
    while waiting and seen < _NODES:
        node = waiting.pop()
        seen += 1
        (first, column), (last, _) = node.start_point, node.end_point
        if last - first + 1 < LEAST:
            continue
        if node is not root and node.is_named and not lines[first][:column].strip():
            spans.append((first + 1, last + 1, any(word in node.type for word in _NAMED)))
        waiting += node.children
    return spans


def _line_spans(lines: list[str], rng: random.Random) -> Spans:
    """Runs of lines; they begin behind a blank line where there is one."""
    begins = [place for place in range(len(lines)) if lines[place].strip()]
    begins = [place for place in begins if not place or not lines[place - 1].strip()] or begins[:1]
    spans: Spans = []
    for begin in begins:
        last = min(len(lines), begin + rng.randint(LEAST, MOST))
        while last > begin + 1 and not lines[last - 1].strip():
            last -= 1
        spans.append((begin + 1, last, False))
    return spans
