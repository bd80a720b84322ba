"""Syntax checks for the seed tasks that need nothing but Python (and PyYAML, where it is there).

They find slips such as an element that is never closed; they are no validators.
"""

from __future__ import annotations

import html.parser
import importlib
import json
import re
import warnings
from collections.abc import Callable
from typing import Any

_VOID = "area base br col embed hr img input link meta source track wbr"
_OPTIONAL = "body colgroup dd dt head html li option p tbody td tfoot th thead tr"
_DOCKER = (
    "ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL ONBUILD RUN SHELL STOPSIGNAL USER "
    "VOLUME WORKDIR"
)


class _Tags(html.parser.HTMLParser):
    """Raises ValueError where tags are closed that were not opened last."""

    void = frozenset(_VOID.split())
    # Elements whose end tag HTML lets one leave out.
    optional = frozenset(_OPTIONAL.split())

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """`<path/>` in SVG opens nothing."""

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open[-1] != tag and self.open[-1] in self.optional:
            self.open.pop()
        if not self.open or self.open.pop() != tag:
            raise ValueError(f"</{tag}> closes nothing, line {self.getpos()[0]}")


def _parse_html(text: str) -> bool:
    tags = _Tags()
    tags.feed(text)
    tags.close()
    left = [tag for tag in tags.open if tag not in tags.optional]
    if left:
        raise ValueError(f"never closed: {', '.join(left)}")
    return True


def _parse_css(text: str) -> bool:
    bare = re.sub(r"/\*.*?\*/|\"[^\"\n]*\"|'[^'\n]*'", "", text, flags=re.DOTALL)
    depth = 0
    for char in bare:
        depth += (char == "{") - (char == "}")
        if depth < 0:
            raise ValueError("a } too many")
    if depth or "/*" in bare or "*/" in bare:
        raise ValueError("a block or a comment is not closed")
    return True


def _parse_docker(text: str) -> bool:
    joined = re.sub(r"\\\n", " ", "\n".join(line for line in text.split("\n") if not line.startswith("#")))
    joined = re.sub(r"(<<-?\"?(\w+)\"?[^\n]*)\n.*?\n\2(?=\n|$)", r"\1", joined, flags=re.DOTALL)
    lines = [line.split()[0] for line in joined.split("\n") if line.strip()]
    unknown = [word for word in lines if word not in _DOCKER.split()]
    if unknown or not lines or lines[0] not in ("FROM", "ARG"):
        raise ValueError(f"not a Dockerfile: {unknown or lines[:1]}")
    return True


def _parse_yaml(text: str) -> bool:
    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        return False
    try:
        list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    return True


def _parse_python(text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            compile(text, "seed", "exec", dont_inherit=True)
    except (SyntaxError, Warning) as error:
        raise ValueError(str(error)) from None
    return True


def _parse_regex(text: str) -> bool:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(str(error)) from None
    return True


def _parse_json(text: str) -> bool:
    json.loads(text)
    return True


# Grammars whose wheels carry them compiled; the function of the module that gives the grammar.
GRAMMARS = {
    "csharp": ("c_sharp", "language"),
    "dart": ("dart", "language"),
    "haskell": ("haskell", "language"),
    "kotlin": ("kotlin", "language"),
    "powershell": ("powershell", "language"),
    "rust": ("rust", "language"),
    "scala": ("scala", "language"),
    "swift": ("swift", "language"),
    "typescript": ("typescript", "language_typescript"),
}


def parse_by_grammar(language: str, text: str) -> bool:
    """Whether a tree-sitter grammar is there for the language; it finds no error in the text."""
    module, function = GRAMMARS.get(language, ("", ""))
    try:
        engine = importlib.import_module("tree_sitter")
        grammar = getattr(importlib.import_module(f"tree_sitter_{module}"), function)
    except (ImportError, AttributeError):
        return False
    root = engine.Parser(engine.Language(grammar())).parse(text.encode()).root_node
    if root.has_error:
        raise ValueError(f"the {language} grammar finds an error: {_error_line(root)}")
    return True


def _error_line(node: Any) -> str:
    while broken := next((child for child in node.children if child.has_error), None):
        node = broken
    return f"line {node.start_point[0] + 1}: {node.text.decode(errors='replace')[:60]!r}"


# Each returns False when it cannot tell on this machine, and raises ValueError for wrong text.
PARSERS: dict[str, Callable[[str], bool]] = {
    "css": _parse_css,
    "docker": _parse_docker,
    "html": _parse_html,
    "json": _parse_json,
    "python": _parse_python,
    "regex": _parse_regex,
    "yaml": _parse_yaml,
}
