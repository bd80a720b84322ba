"""The three rules of the house: size, layers, exports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import selfinstruct

PACKAGE = Path(selfinstruct.__file__).parent
PARTS = ("", "verify", "data", "derive")  # the package and its parts; each is flat
MODULES = sorted(PACKAGE.rglob("*.py"))
MODULE_LINES, FUNCTION_LINES, MODULE_COUNT = 400, 60, 60


def name_of(module: Path) -> str:
    """A module's dotted name below the package: `pool`, `verify.syntax`."""
    return ".".join(module.relative_to(PACKAGE).with_suffix("").parts)


# Pure: no clock, file, thread, network or global random state; they import only each other and these.
PURE = {
    "alpaca", "data.clusters", "data.forms", "data.mix_plan", "data.oasst", "data.rows", "data.templates", "errors",
    "filters", "gate", "journal", "labels",
    "novelty", "novelty_code", "parsing", "pool", "records", "repetition", "rouge",
    "rouge_index", "rouge_postings", "sampling", "seams", "verify.code", "verify.fences", "verify.syntax", "vocabulary",
    "verify.stubs", "verify.verdict", "verify.normal_forms", "verify.overlap", "derive.conversations", "derive.flaws",
    "verify.lacking", "verify.syscalls",
    "verify.formats", "verify.grammars", "verify.guess", "verify.literals", "verify.marks", "verify.mentions",
    "verify.passages",
}  # fmt: skip
PURE_IMPORTS = {
    "__future__", "array", "ast", "bisect", "builtins", "collections", "contextlib", "dataclasses",
    "functools", "hashlib", "heapq",
    "itertools", "json", "keyword", "math", "random", "re", "string", "struct", "textwrap", "typing", "unicodedata",
    "warnings",
    "numpy", "rapidfuzz", "rouge_score", "threading",
    "importlib", "logging", "sqlglot", "sqlglot.errors", "sys", "tree_sitter", "yaml",
}  # fmt: skip
LOCKS_ONLY = {
    "rouge_index",
    "novelty",
    "novelty_code",
    "verify.grammars",
}  # may import threading: for a lock, never for a thread


def imports(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.name}: a relative import"
            yield node.module or ""
            if (node.module or "").partition("selfinstruct")[2].lstrip(".") in PARTS:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_size(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    assert len(text.splitlines()) < MODULE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[-1].end_lineno or 0
            assert body - node.body[0].lineno + 1 < FUNCTION_LINES, f"{module.name}: {node.name} is too long"


def test_number_of_modules() -> None:
    """A part that has grown beyond reading is to be simplified or split; `cli_*` only parse, one for a command."""
    for part in PARTS:
        names = [module.stem for module in (PACKAGE / part).glob("*.py")]
        assert sum(not name.startswith("cli_") for name in names) <= MODULE_COUNT, part
    assert {module.parent.relative_to(PACKAGE).as_posix() for module in MODULES} <= {*PARTS, "."}


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules_import_only_pure_modules(name: str) -> None:
    for found in imports(PACKAGE / f"{name.replace('.', '/')}.py"):
        top, _, rest = found.partition(".")
        if top == "selfinstruct":
            own = rest in {"", *PARTS} or any(f"{rest}.".startswith(f"{pure}.") for pure in PURE)
            assert own, f"{name} imports {found}"
        else:
            assert top in PURE_IMPORTS, f"{name} imports {found}"
            assert top != "threading" or name in LOCKS_ONLY, f"{name} imports threading"


def test_only_the_named_modules_start_threads() -> None:
    starters = {name_of(m) for m in MODULES if "threading.Thread(" in m.read_text(encoding="utf-8")}
    assert starters <= {"runner", "commands", "llama_child", "backend_local", "weights", "weight_sources"}


def test_every_module_says_its_job() -> None:
    for module in MODULES:
        assert ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))), module.name


def test_exports_are_complete() -> None:
    assert sorted(selfinstruct.__all__) == list(selfinstruct.__all__)
    for name in selfinstruct.__all__:
        assert getattr(selfinstruct, name) is not None
    with pytest.raises(AttributeError, match="no attribute"):
        _ = selfinstruct.nothing_of_this_name
