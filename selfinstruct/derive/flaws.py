"""Breaks correct code by one small change, seeded, so that the flaw in it is known; and looks for it in words.

Pure. Places are taken from the syntax tree (Python's own, tree-sitter's for other languages), so strings and
comments are never changed. A change may happen to alter nothing that a caller can see; nobody can tell in
general. Whether a critique names the flaw is told by its words alone, which errs on both sides.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from selfinstruct.parsing import SENTENCE_ENDS
from selfinstruct.records import JSON
from selfinstruct.verify.formats import python_tree

if TYPE_CHECKING:
    from tree_sitter import Node

OPERATORS: Final = {
    "<": ("<=", ">"), "<=": ("<",), ">": (">=", "<"), ">=": (">",), "==": ("!=",), "!=": ("==",),
    "===": ("!==",), "!==": ("===",),
    "+": ("-",), "-": ("+",), "*": ("+",), "//": ("%",), "/": ("*",), "%": ("/",),
    "and": ("or",), "or": ("and",), "&&": ("||",), "||": ("&&",),
}  # fmt: skip
COMPARISON, ARITHMETIC, LOGIC = "comparison", "arithmetic", "logic"
OFF_BY_ONE, DROPPED_RETURN, SWAPPED = "off_by_one", "dropped_return", "swapped_arguments"
# Words by which a sentence of a critique speaks of a flaw of the kind without quoting it, if it blames something.
WORDS: Final = {
    COMPARISON: r"compar|off[- ]by[- ]one|boundar|inclusive|exclusive|(?:less|greater|smaller|larger) than|equal",
    ARITHMETIC: r"subtract|minus|plus\b|multipl|divid|division|modulo|remainder|addition|arithmetic|operator"
    r"|\badd(?:s|ing)\b|\bdifference\b|\bsum\b",
    LOGIC: r"\b(?:and|or)\b[`'\"]|[`'\"](?:and|or|&&|\|\|)|logical|operator|both conditions|either condition",
    OFF_BY_ONE: r"off[- ]by[- ]one|boundar|out of (?:range|bounds)|one (?:too|more|less|fewer)"
    r"|(?:first|last) (?:element|item|value|number|character|index)|wrong index",
    DROPPED_RETURN: r"(?:n.t|not|never|nothing is|missing|without|lacks|no|forgets?)\b[^.]{0,20}\breturn"
    r"|(?:returns|returning|(?:will|may|would) return) (?:none|nothing|null|undefined)",
    SWAPPED: r"(?:argument|parameter)s?\b.*\b(?:swap|switch|revers|order|place|mixed)"
    r"|\b(?:swap|switch|revers|order|place|mixed).*\b(?:argument|parameter)s?\b",
}
_BLAMES: Final = re.compile(
    r"n.t\b|\b(?:not|never|no|cannot|without|wrong\w*|incorrect\w*|instead|should|must|bug|errors?|mistakes?|missing|lacks?|"
    r"forgets?|fails?|flaws?|faults?|faulty|too|unexpected\w*|unnecessary|opposite|inverted|reversed|swapped)\b"
)
SYMMETRIC: Final = {
    "max",
    "min",
    "print",
    "zip",
    "gcd",
    "hypot",
    "lcm",
    "add",
    "println",
    "printf",
    "format",
    "log",
}
_BINARY: Final = re.compile(
    r"binary|infix|compar|boolean|logical|additive|multiplicative|equality|relational|conjunction|disjunction"
)
_RETURNS: Final = {"return_statement", "return_expression", "return"}
_ARGUMENTS: Final = {"argument_list", "arguments", "value_arguments", "list_expression"}
_INTEGERS: Final = {
    "number", "integer", "int_literal", "integer_literal", "number_literal", "decimal_integer_literal",
}  # fmt: skip
_ORDINALS: Final = (
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
)
_LONGEST: Final = 120  # characters of an expression that is kept

Parse = Callable[[str, str], "Node | None"]


@dataclass(frozen=True, slots=True)
class Flaw:
    """One change: what was right, and what stands there now. Lines are numbered from 1, the same in both."""

    kind: str
    line: int
    right: str  # the expression or statement as it was
    wrong: str
    right_line: str
    wrong_line: str

    def notes(self) -> dict[str, JSON]:
        """What the journal tells of it."""
        return {"kind": self.kind, "line": self.line, "right": self.right, "wrong": self.wrong}


@dataclass(frozen=True, slots=True)
class _Change:
    """Bytes `start` to `end` become `text`; the expression around them goes from `left` to `right`."""

    kind: str
    start: int
    end: int
    text: bytes
    left: int
    right: int


def break_code(code: str, language: str, seed: int, parse: Parse) -> tuple[str, Flaw] | None:
    """The code with one flaw, or None where no change is known for it.

    Kinds are drawn first and then places, so that rare kinds come as often as frequent ones.

    Args:
        code: correct code.
        language: canonical name.
        seed: the same seed makes the same flaw.
        parse: gives the tree-sitter root of code in a language other than Python, None without a grammar.
    """
    code = code.replace("\r\n", "\n").replace("\r", "\n")
    data = code.encode("utf-8", "replace")
    changes = sorted(
        set(_python_changes(data) if language == "python" else _tree_changes(data, language, parse)),
        key=lambda change: (change.kind, change.start, change.text),
    )
    rng = random.Random(seed)
    broken = b""
    while changes and not broken:
        kind = rng.choice(sorted({change.kind for change in changes}))
        change = rng.choice([each for each in changes if each.kind == kind])
        changes.remove(change)
        broken = data[: change.start] + change.text + data[change.end :]
        # A dropped `return` may leave what is no statement: such a flaw would be found by any parser.
        broken = broken if _parses(broken, language, parse) else b""
    if not broken:
        return None
    shift = len(broken) - len(data)
    number = data.count(b"\n", 0, change.start)
    flaw = Flaw(
        kind,
        number + 1,
        _cut(data[change.left : change.right]),
        _cut(broken[change.left : change.right + shift]),
        _squeezed(code.split("\n")[number]),
        _squeezed(broken.decode().split("\n")[number]),
    )
    return broken.decode(), flaw


def finds_flaw(critique: str, flaw: Flaw) -> str | None:
    """How a critique names the flaw: by its `line`, by its `code`, by `words` of its kind; None if it does not."""
    text = critique.lower()
    ordinal = rf"|\b{_ORDINALS[flaw.line - 1]} line\b" if flaw.line <= len(_ORDINALS) else ""
    if re.search(rf"\blines?\W{{0,3}}(?:\d+\W{{1,5}}(?:and|to)?\W{{0,3}})?{flaw.line}\b{ordinal}", text):
        return "line"
    squeezed = _squeezed(text)
    # Without its `return` an expression is named by whoever speaks of its value.
    quoted = (flaw.right,) if flaw.kind == DROPPED_RETURN else (flaw.right, flaw.wrong)
    if any(len(part) > 2 and _squeezed(part.lower()) in squeezed for part in quoted):
        return "code"
    sentences = SENTENCE_ENDS.split(text)
    blamed = any(re.search(WORDS[flaw.kind], one) and _BLAMES.search(one) for one in sentences)
    return "words" if blamed else None


def mends_flaw(revised: str, broken: str, flaw: Flaw) -> bool:
    """Whether the line that was broken does not stand in the revision as often as in the broken code."""
    return _count(revised, flaw.wrong_line) < _count(broken, flaw.wrong_line)


def _count(code: str, line: str) -> int:
    return sum(_squeezed(each) == line for each in code.split("\n"))


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _cut(data: bytes) -> str:
    return " ".join(data.decode("utf-8", "replace").split())[:_LONGEST]


def _parses(data: bytes, language: str, parse: Parse) -> bool:
    tree = python_tree(data.decode()) if language == "python" else _tree(data, language, parse)
    return tree is not None


def _kind_of(operator: str) -> str:
    if operator in {"and", "or", "&&", "||"}:
        return LOGIC
    return COMPARISON if operator[0] in "<>=!" else ARITHMETIC


# --- Python -------------------------------------------------------------------------------------------


def _python_changes(data: bytes) -> Iterator[_Change]:
    tree = python_tree(data.decode())
    if tree is None:
        return
    starts = [0]
    for line in data.split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)

    def span(node: ast.expr | ast.stmt) -> tuple[int, int]:
        last = node.end_lineno or node.lineno
        return starts[node.lineno - 1] + node.col_offset, starts[last - 1] + (node.end_col_offset or 0)

    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and not _is_main(node.left):
            yield from _between(data, span(node), span(node.left), span(node.comparators[0]))
        elif isinstance(node, ast.BinOp) and not (_is_text(node.left) or _is_text(node.right)):
            yield from _between(data, span(node), span(node.left), span(node.right))
        elif isinstance(node, ast.BoolOp):
            yield from _between(data, span(node), span(node.values[0]), span(node.values[1]))
        elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
            start, end = span(node)
            yield _Change(DROPPED_RETURN, start, span(node.value)[0], b"", start, end)
        elif isinstance(node, ast.Call):
            yield from _python_call(data, node, span)
        elif isinstance(node, ast.Subscript) and _is_number(node.slice):
            start, end = span(node.slice)
            yield from _next(data, (start, end), span(node))


def _python_call(
    data: bytes, node: ast.Call, span: Callable[[ast.expr | ast.stmt], tuple[int, int]]
) -> Iterator[_Change]:
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    if any(isinstance(argument, ast.Starred) for argument in node.args):
        return
    if name == "range" and node.args:
        place = span(node.args[min(1, len(node.args) - 1)])
        yield _Change(OFF_BY_ONE, place[1], place[1], b" - 1", *span(node))
    elif len(node.args) > 1 and name not in SYMMETRIC:
        yield from _swap(data, span(node.args[0]), span(node.args[1]), span(node))


def _is_main(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "__name__"


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    )


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int


def _next(data: bytes, place: tuple[int, int], whole: tuple[int, int]) -> Iterator[_Change]:
    """An index that is one more, where it is written in plain digits."""
    digits = data[slice(*place)]
    if digits.isdigit() and len(digits) < 9:
        yield _Change(OFF_BY_ONE, *place, b"%d" % (int(digits) + 1), *whole)


def _between(
    data: bytes, whole: tuple[int, int], left: tuple[int, int], right: tuple[int, int]
) -> Iterator[_Change]:
    """Changes of the operator between two operands; brackets around these may stand beside it."""
    found = re.fullmatch(rb"[ \t)]*([<>=!]=?|[-+*/%]|//|and|or)[ \t(]*", data[left[1] : right[0]])
    operator = found[1].decode() if found else ""
    if found:
        for instead in OPERATORS.get(operator, ()):
            start = left[1] + found.start(1)
            yield _Change(_kind_of(operator), start, start + len(operator), instead.encode(), *whole)


def _swap(
    data: bytes, first: tuple[int, int], second: tuple[int, int], whole: tuple[int, int]
) -> Iterator[_Change]:
    one, other = data[slice(*first)], data[slice(*second)]
    if b"".join(one.split()) != b"".join(other.split()) and b"\n" not in data[first[0] : second[1]]:
        between = data[first[1] : second[0]]
        yield _Change(SWAPPED, first[0], second[1], other + between + one, *whole)


# --- other languages ----------------------------------------------------------------------------------


def _tree(data: bytes, language: str, parse: Parse) -> Node | None:
    """The root of the tree of code without errors."""
    root = parse(language, data.decode("utf-8", "replace"))
    return None if root is None or root.has_error else root


def _tree_changes(data: bytes, language: str, parse: Parse) -> Iterator[_Change]:
    root = _tree(data, language, parse)
    waiting = [root] if root is not None else []
    while waiting:
        node = waiting.pop()
        waiting += reversed(node.children)
        place = (node.start_byte, node.end_byte)
        if _BINARY.search(node.type) and node.child_count == 3:
            left, _, right = node.children
            if "string" not in left.type + right.type:
                yield from _between_nodes(data, place, left, right)
        elif node.type in _RETURNS and node.named_child_count:
            value = node.named_children[0]
            yield _Change(DROPPED_RETURN, place[0], value.start_byte, b"", *place)
        elif node.type in _ARGUMENTS and len(arguments := node.named_children) > 1:
            yield from _tree_call(data, node, arguments)
        elif node.type in _INTEGERS and node.parent is not None and "subscript" in node.parent.type:
            yield from _next(data, place, (node.parent.start_byte, node.parent.end_byte))


def _between_nodes(data: bytes, whole: tuple[int, int], left: Node, right: Node) -> Iterator[_Change]:
    found = re.fullmatch(
        rb"\s*([<>=!]=?=?|[-+*/%]|&&|\|\||and|or)\s*", data[left.end_byte : right.start_byte]
    )
    operator = found[1].decode() if found else ""
    if found:
        for instead in OPERATORS.get(operator, ()):
            start = left.end_byte + found.start(1)
            yield _Change(_kind_of(operator), start, start + len(operator), instead.encode(), *whole)


def _tree_call(data: bytes, node: Node, arguments: Sequence[Node]) -> Iterator[_Change]:
    name = re.search(rb"(\w+)[!?]?\s*\(?\s*$", data[max(0, node.start_byte - 40) : node.start_byte])
    if name is None or name[1].decode("utf-8", "replace").lower() in SYMMETRIC:
        return
    first, second = arguments[:2]
    whole = (node.start_byte - len(name[0]), node.end_byte)
    if "comment" not in first.type + second.type and not (_is_named(first) or _is_named(second)):
        yield from _swap(
            data, (first.start_byte, first.end_byte), (second.start_byte, second.end_byte), whole
        )


def _is_named(argument: Node) -> bool:
    """Whether an argument is given by its name: then its place says nothing."""
    between = argument.children[1].type if argument.child_count > 1 else ""
    return argument.type in {"pair", "named_argument"} or between in {":", "="}
