"""Stubs of an answer: the same functions with the same parameters, which do nothing. Nothing is run here.

Tests that hold for a stub as well as for the answer say nothing about it. A stub keeps imports, definitions and
plain constants, and leaves out what the answer does when it is started, lest it fail before any test is come to.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfinstruct.verify.formats import python_tree
from selfinstruct.verify.grammars import parse_tree

if TYPE_CHECKING:
    from tree_sitter import Node

_KEPT_DECORATORS = {"property", "staticmethod", "classmethod", "setter", "dataclass", "abstractmethod"}
_TAG = "<?php\n"
_MADE_UP = re.compile(
    r"(?:const|let|var)\b[^;\n]*\brequire\(\s*[\"']\.|import\b|require_relative\b|require\s*[\"'(]*\."
)
_MAIN = re.compile(r"__name__\s*==\s*[\"']__main__[\"']")


@dataclass(frozen=True, slots=True)
class Outline:
    """What there is to test in a program.

    Attributes:
        stub: its definitions with empty bodies.
        program: the program itself, without the part that only runs when it is started (Python).
        names: of the functions and classes at its top level.
        returns: whether any of its functions gives a value back.
    """

    stub: str
    program: str
    names: frozenset[str]
    returns: bool


@dataclass(frozen=True, slots=True)
class _Grammar:
    """The node types of a language's tree that a stub depends on; see `_outline_tree`."""

    functions: frozenset[str]
    kept: frozenset[str]  # at the top level: always
    constants: frozenset[str]  # at the top level: if nothing is called there
    calls: frozenset[str]
    classes: frozenset[str]
    empty: dict[str, str]  # by the type of the body
    otherwise: str  # what an expression as body becomes
    returns: frozenset[str]  # statements that give something back where they hold something


def _types(text: str) -> frozenset[str]:
    return frozenset(text.split())


_GRAMMARS = {
    "javascript": _Grammar(
        functions=_types(
            "function_declaration generator_function_declaration method_definition arrow_function "
            "function_expression generator_function"
        ),
        kept=_types(
            "function_declaration generator_function_declaration class_declaration import_statement comment"
        ),
        constants=_types("lexical_declaration variable_declaration expression_statement export_statement"),
        calls=_types("call_expression new_expression await_expression"),
        classes=_types("class_declaration class"),
        empty={"statement_block": "{}"},
        otherwise="undefined",
        returns=_types("return_statement yield_expression"),
    ),
    "ruby": _Grammar(
        functions=_types("method singleton_method"),
        kept=_types("method singleton_method class module comment"),
        constants=_types("assignment"),
        calls=_types("call"),
        classes=_types("class module"),
        empty={"body_statement": "nil"},
        otherwise="nil",
        returns=_types("body_statement"),  # the last value is given back
    ),
    "php": _Grammar(
        functions=_types("function_definition method_declaration arrow_function anonymous_function"),
        kept=_types(
            "php_tag namespace_definition namespace_use_declaration const_declaration function_definition "
            "class_declaration interface_declaration trait_declaration enum_declaration declare_statement comment"
        ),
        constants=_types("expression_statement"),
        calls=_types(
            "function_call_expression object_creation_expression member_call_expression scoped_call_expression "
            "print_intrinsic exit_statement require_expression require_once_expression include_expression"
        ),
        classes=_types("class_declaration interface_declaration trait_declaration enum_declaration"),
        empty={"compound_statement": "{}"},
        otherwise="null",
        returns=_types("return_statement yield_expression"),
    ),
    "lua": _Grammar(
        functions=_types("function_declaration function_definition"),
        kept=_types("function_declaration comment"),
        constants=_types("variable_declaration assignment_statement"),
        calls=_types("function_call"),
        classes=frozenset(),
        empty={"block": ""},
        otherwise="nil",
        returns=_types("return_statement"),
    ),
}
LANGUAGES = frozenset({"python", *_GRAMMARS})
_IMPORTS = {"require", "require_relative"}  # calls that a constant may hold


def outline(language: str, text: str) -> Outline | None:
    """The stub of a program and what there is to test in it; None where its syntax tree cannot be made.

    Args:
        language: one of `LANGUAGES`.
        text: the program.
    """
    try:
        if language == "python":
            return _outline_python(text)
        root = parse_tree(language, _tagged(text) if language == "php" else text)
        return None if root is None or root.has_error else _outline_tree(_GRAMMARS[language], root)
    except RecursionError:  # nested deeper than any code that a person would read
        return None


def without_names(language: str, text: str, names: frozenset[str]) -> str | None:
    """Tests without their own versions of the functions that they test; None where they cannot be parsed.

    A model likes to repeat the function it was asked to test, and its own copy would then be what is tested; or to
    import it from a file that it makes up.
    """
    try:
        if language == "python":
            return _python_without(text, names)
        root = parse_tree(language, _tagged(text) if language == "php" else text)
        if root is None or root.has_error:
            return None
        cut = [
            (node.start_byte, node.end_byte, "")
            for node in root.named_children
            if set(_names(_GRAMMARS[language], node)) & names or _MADE_UP.match((node.text or b"").decode())
        ]
        return _replaced(root, cut).removeprefix(_TAG)
    except RecursionError:
        return None


def _tagged(text: str) -> str:
    """PHP with the tag that its grammar begins at."""
    return text if "<?" in text else _TAG + text


# --- Python -----------------------------------------------------------------------------------------


_LINE = re.compile(r"[^\n]*\n|[^\n]+")


def _lines(text: str) -> list[str]:
    """The lines as Python counts them: `str.splitlines` knows ends of lines that no parser does."""
    return _LINE.findall(text.replace("\r\n", "\n").replace("\r", "\n"))


def _outline_python(text: str) -> Outline | None:
    tree = python_tree(text)
    if tree is None:
        return None
    names = frozenset(node.name for node in tree.body if isinstance(node, _DEFINITIONS))
    program = [node for node in tree.body if not _is_main(node)]
    returns = any(
        isinstance(node, ast.Yield | ast.YieldFrom)
        or (isinstance(node, ast.Return) and _is_value(node.value))
        for node in ast.walk(tree)
    )
    lines = _lines(text)
    for node in reversed(tree.body):
        if _is_main(node):
            lines[node.lineno - 1 : node.end_lineno] = ["\n"]
    kept = [node for node in program if _is_kept(node)]
    stub = _Emptied().visit(ast.Module(kept, []))
    return Outline(ast.unparse(ast.fix_missing_locations(stub)), "".join(lines), names, returns)


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _is_main(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and _MAIN.search(ast.unparse(node.test)) is not None


def _is_value(value: ast.expr | None) -> bool:
    return value is not None and not (isinstance(value, ast.Constant) and value.value is None)


def _is_kept(node: ast.stmt) -> bool:
    if isinstance(node, (*_DEFINITIONS, ast.Import, ast.ImportFrom)):
        return True
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return False
    return not any(isinstance(part, ast.Call | ast.Await) for part in ast.walk(node))


class _Emptied(ast.NodeTransformer):
    """Functions do nothing, and have no decorators but those that say what kind of function they are."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.body = [ast.Pass()]
        node.decorator_list = [
            found for found in node.decorator_list if _decorator(found) in _KEPT_DECORATORS
        ]
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AsyncFunctionDef:
        node.body = [ast.Pass()]
        node.decorator_list = []
        return node


def _decorator(node: ast.expr) -> str:
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _python_without(text: str, names: frozenset[str]) -> str | None:
    tree = python_tree(text)
    if tree is None:
        return None
    lines = _lines(text)
    called = [
        f"{node.name}()\n"  # else nobody would
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test") and not node.args.args
    ]
    for node in reversed(tree.body):
        repeated = isinstance(node, _DEFINITIONS) and node.name in names
        imported = isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} <= names | {"*"}
        if repeated or imported or _is_main(node):
            first = min([node.lineno, *(found.lineno for found in getattr(node, "decorator_list", ()))])
            lines[first - 1 : node.end_lineno] = ["\n"]
    return "".join([*lines, "\n", *called])


# --- the others ---------------------------------------------------------------------------------------


def _outline_tree(grammar: _Grammar, root: Node) -> Outline:
    cut: list[tuple[int, int, str]] = []
    names: list[str] = []
    for node in root.named_children:
        names += _names(grammar, node)
        if node.type in grammar.kept or (node.type in grammar.constants and not _calls(grammar, node)):
            cut += _emptied(grammar, node)
        elif not _is_import(node):
            cut.append((node.start_byte, node.end_byte, ""))
    # What a Lua module gives back ends its file: nothing could stand behind it.
    ends = [
        (node.start_byte, node.end_byte, "")
        for node in root.named_children
        if node.type == "return_statement"
    ]
    return Outline(
        _replaced(root, cut), _replaced(root, ends), frozenset(names), _returns(grammar, root, inside=False)
    )


def _names(grammar: _Grammar, node: Node) -> Iterator[str]:
    """The functions and classes that a node at the top level defines."""
    if node.type in grammar.functions | grammar.classes:
        name = node.child_by_field_name("name")
        if name is not None and name.text is not None:
            yield name.text.decode()
        return
    for child in node.named_children:
        value = child.child_by_field_name("value")
        if child.type == "variable_declarator" and value is not None and value.type in grammar.functions:
            name = child.child_by_field_name("name")
            yield (name.text or b"").decode() if name is not None else ""
        elif node.type in {"export_statement", "variable_declaration", "assignment_statement"}:
            yield from _names(grammar, child)


def _calls(grammar: _Grammar, node: Node) -> bool:
    """Whether something is called when the node is come to."""
    if node.type in grammar.functions:
        return False
    if node.type in grammar.calls and not _is_import(node):
        return True
    return any(_calls(grammar, child) for child in node.named_children)


def _is_import(node: Node) -> bool:
    name = node.child_by_field_name("function") or node.child_by_field_name("method")
    name = name or (node.child_by_field_name("name") if node.type == "function_call" else None)
    return name is not None and (name.text or b"").decode() in _IMPORTS


def _emptied(grammar: _Grammar, node: Node) -> Iterator[tuple[int, int, str]]:
    """What has to be replaced (from, to, by) so that the functions in a node do nothing."""
    if node.type in grammar.functions:
        body = node.child_by_field_name("body")
        if body is None:
            return
        kind = node.child_by_field_name("return_type")
        parameters = node.child_by_field_name("parameters")
        if kind is not None and parameters is not None:  # a stub gives back nothing, whatever was promised
            yield parameters.end_byte, kind.end_byte, ""
        empty = grammar.empty.get(body.type, grammar.otherwise)
        if b"super(" in (body.text or b"") and (node.text or b"").startswith(b"constructor"):
            empty = "{ super(...arguments); }"  # JavaScript: without it no object of the class can be made
        yield body.start_byte, body.end_byte, empty
        return
    for child in node.named_children:
        yield from _emptied(grammar, child)


def _returns(grammar: _Grammar, node: Node, *, inside: bool) -> bool:
    if inside and node.type in grammar.returns and node.named_child_count:
        return True
    body = node.child_by_field_name("body") if node.type in grammar.functions else None
    if body is not None and body.type not in grammar.empty:
        return True  # an expression
    inside = inside or body is not None
    return any(_returns(grammar, child, inside=inside) for child in node.named_children)


def _replaced(root: Node, cut: list[tuple[int, int, str]]) -> str:
    """The text of a tree with pieces (from, to, in bytes) replaced."""
    text, parts, end = root.text or b"", [], 0
    offset = root.start_byte  # a tree may begin behind white space
    for start, stop, new in sorted(cut):
        parts += [text[end : start - offset], new.encode()]
        end = stop - offset
    return b"".join([*parts, text[end:]]).decode()
