"""How a program of each language is laid out and started: its files, the words to compile and to run it.

Tables, and a little looking at the text. Where the tools are is `toolchains`; running is `run`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from selfinstruct.verify.sandbox import LIMITS, Limits

# A reader of SQL, run by Python in the sandbox: the first file sets up, the second is the program.
_SQL = """import sqlite3, sys
connection = sqlite3.connect(":memory:", isolation_level=None)
for name in sys.argv[1:]:
    text, statement = open(name, encoding="utf-8", errors="replace").read(), ""
    try:
        for piece in text.split(";"):
            statement += piece + ";"
            if sqlite3.complete_statement(statement):
                for row in connection.execute(statement):
                    print(row)
                statement = ""
        if statement.strip(" \\t\\r\\n;"):
            for row in connection.execute(statement):
                print(row)
    except sqlite3.Error as error:
        print("sqlite3:", error, file=sys.stderr)
        if name == sys.argv[-1]:
            sys.exit(1)
"""
# What compiled packages are found by: they must be the same where the library is compiled.
GO_SETTINGS = {"GO111MODULE": "off", "GOFLAGS": "", "GOTOOLCHAIN": "local"}
_C_PRELUDE = "".join(
    f"#include <{name}.h>\n"
    for name in "stdio stdlib string math ctype stdbool stdint limits float assert errno time".split()  # noqa: SIM905
)
_CPP_PRELUDE = "#include <bits/stdc++.h>\nusing namespace std;\n"
_MANY = replace(LIMITS, address_bytes=None)  # runtimes that reserve much more than they use
_BUILD = replace(LIMITS, seconds=40.0, cpu_seconds=20.0)  # the compiler's time counts too
_GO = replace(_BUILD, address_bytes=None, disk_bytes=256 << 20, file_bytes=128 << 20)


@dataclass(frozen=True, slots=True)
class Layout:
    """A program ready to run.

    Attributes:
        files: names and contents.
        run: the words that start it; `{tool}` is the toolchain's program, `{beside}` its folder.
        compile: words that come first, () if none.
        limits: what it may use.
        env: variables of its own.
    """

    files: Mapping[str, bytes]
    run: tuple[str, ...]
    compile: tuple[str, ...] = ()
    limits: Limits = LIMITS
    env: Mapping[str, str] = field(default_factory=dict)


# Languages whose program is one file that its interpreter reads: file and words.
_SCRIPTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "python": ("main.py", ("{tool}", "-s", "main.py")),
    "bash": ("main.sh", ("{tool}", "main.sh")),
    "ruby": ("main.rb", ("{tool}", "main.rb")),
    "php": ("main.php", ("{tool}", "main.php")),
    "perl": ("main.pl", ("{tool}", "main.pl")),
    "lua": ("main.lua", ("{tool}", "main.lua")),
    "r": ("main.R", ("{tool}", "--vanilla", "main.R")),
}
# Order counts: code that comes first (from the task's input) can be put before a program in these.
JOINABLE = frozenset({"python", "javascript", "typescript", "bash", "ruby", "perl", "lua", "r", "sql"})
NO_PROGRAMS = frozenset({"html", "css", "json", "yaml", "regex", "docker", "make", "text"})
RUNNABLE = frozenset({*_SCRIPTS, "javascript", "typescript", "sql", "c", "cpp", "java", "go", "rust"})

_MODULE = re.compile(r"^[ \t]*(import\s.*['\"]|import\s*\{|export\s)", re.MULTILINE)
_STATEMENT = re.compile(r"^(?:for|while|if|switch|do|return)\b", re.MULTILINE)  # at the left: in no function
_METHOD = re.compile(
    r"^(?:async |static |get |set )?(?!(?:if|for|while|switch|with|function|catch)\b)\w+ ?\([^()\n]*\) ?\{",
    re.MULTILINE,
)
_MAIN = {
    "c": re.compile(r"\bmain\s*\("),
    "cpp": re.compile(r"\bmain\s*\("),
    "java": re.compile(r"\bstatic\s+(?:final\s+)?void\s+main\s*\("),
    "go": re.compile(r"^func\s+main\s*\(", re.MULTILINE),
    "rust": re.compile(r"\bfn\s+main\s*\("),
}
_JAVA_TYPE = re.compile(
    r"^(?P<head>(?:@\w+\s+)*(?:(?:public|final|abstract|sealed|static|strictfp)\s+)*)"
    r"(?:class|interface|enum|record)\s+(?P<name>\w+)",
    re.MULTILINE,
)
_JAVA_METHOD = re.compile(
    r"^[ \t]*(?=[\w<@])(?!(?:if|for|while|switch|else|try|do|return|catch|new|throw)\b)(?:@\w+\s+)?"
    r"[\w<>\[\],.? ]+[ >\]]\w+\s*\([^;{}()]*\)\s*(?:throws[\w., ]+)?\{",
    re.MULTILINE,
)
_JAVA_IMPORT = re.compile(r"^[ \t]*import\s[^;]*;", re.MULTILINE)
_JAVA_PRELUDE = "".join(
    f"import java.{name}.*;\n"
    for name in "util util.function util.stream util.concurrent io math text time nio.file".split()  # noqa: SIM905
)
_GO_STANDARD = {
    name.rpartition("/")[2]: name
    for name in """bufio bytes context container/heap container/list encoding/csv encoding/hex encoding/json errors
    fmt io log math math/rand net/http net/url os path/filepath reflect regexp sort strconv strings sync
    sync/atomic testing time unicode unicode/utf8""".split()  # noqa: SIM905
}
_LONGEST_NAME = 100  # characters of a Java class that may name a file
_JAVA_PACKAGE = re.compile(r"^[ \t]*package\s+([\w.]+)\s*;", re.MULTILINE)


def lay_out(language: str, code: str, setup: str = "") -> Layout | None:
    """The layout of a program.

    Args:
        language: canonical name.
        code: the whole program, or functions without a main program: these are compiled or loaded only. In C,
            C++, Go and Java they get the usual includes and imports if they come with none.
        setup: SQL that makes the tables.

    Returns:
        None where there is nothing to run: the language is not run, or the code is a piece of a file.
    """
    if script := _SCRIPTS.get(language):
        file, words = script
        if language == "php" and "<?" not in code:
            code = f"<?php\n{code}"
        env = {"PYTHONHASHSEED": "0", "MPLBACKEND": "Agg"} if language == "python" else {}
        return Layout({file: _bytes(code)}, words, env=env)
    special = {
        "javascript": _javascript, "typescript": _typescript, "java": _java, "go": _go, "rust": _rust,
        "c": _c, "cpp": _cpp,
    }.get(language)  # fmt: skip
    if language == "sql":
        files = {"read.py": _SQL.encode(), "setup.sql": _bytes(setup), "main.sql": _bytes(code)}
        return Layout(files, ("{tool}", "read.py", "setup.sql", "main.sql"))
    return special(code) if special else None


def _bytes(text: str) -> bytes:
    return (text.rstrip("\n") + "\n").encode("utf-8", "replace")


def _javascript(code: str) -> Layout | None:
    if _METHOD.search(code):
        return None  # of an object or class that is not here
    file = "main.mjs" if _MODULE.search(code) else "main.js"
    return Layout({file: _bytes(code)}, ("{tool}", "--max-old-space-size=512", file), limits=_MANY)


def _typescript(code: str) -> Layout:
    file = "main.mts" if _MODULE.search(code) else "main.ts"
    words = ("{tool}", "--max-old-space-size=512", "--experimental-strip-types", "--no-warnings", file)
    return Layout({file: _bytes(code)}, words, limits=_MANY)


def _c(code: str) -> Layout | None:
    compiler = ("{tool}", "-std=gnu17", "-w", "-o", "main", "main.c")
    if _MAIN["c"].search(code):
        return Layout({"main.c": _bytes(code)}, ("./main",), (*compiler, "-lm", "-lpthread"), _BUILD)
    if _STATEMENT.search(code):
        return None
    if "#include" not in code:
        code = _C_PRELUDE + code
    return Layout({"main.c": _bytes(code)}, (), (*compiler, "-fsyntax-only"), _BUILD)


def _cpp(code: str) -> Layout | None:
    compiler = ("{tool}", "-std=gnu++20", "-w", "-o", "main", "main.cpp")
    if _MAIN["cpp"].search(code):
        return Layout({"main.cpp": _bytes(code)}, ("./main",), (*compiler, "-lpthread"), _BUILD)
    if _STATEMENT.search(code):
        return None
    if "#include" not in code:
        code = _CPP_PRELUDE + code
    return Layout({"main.cpp": _bytes(code)}, (), (*compiler, "-fsyntax-only"), _BUILD)


def _java(code: str) -> Layout | None:
    types = list(_JAVA_TYPE.finditer(code))
    if not types:
        if _STATEMENT.search(code) or not _JAVA_METHOD.search(code):
            return None
        imports = "\n".join(_JAVA_IMPORT.findall(code))
        body = _JAVA_IMPORT.sub("", code)
        return _java(f"{_JAVA_PRELUDE}{imports}\nclass Methods {{\n{body}\n}}")
    public = next((found["name"] for found in types if "public" in found["head"]), None)
    main = _MAIN["java"].search(code)
    holder = [found["name"] for found in types if main and found.start() < main.start()][-1:]
    name = public or (holder or [types[0]["name"]])[0]
    if not (name.isascii() and len(name) <= _LONGEST_NAME):
        return None  # its file has to have its name
    quick = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xmx384m")
    compiler = ("{tool}", *(f"-J{word}" for word in quick), "-nowarn", "-d", ".", f"{name}.java")
    package = _JAVA_PACKAGE.search(code)
    main_class = ".".join([*([package[1]] if package else []), *holder])
    run = ("{beside}/java", *quick, "-cp", ".", main_class) if holder else ()
    return Layout({f"{name}.java": _bytes(code)}, run, compiler, _BUILD)


def _go(code: str) -> Layout | None:
    package = re.search(r"^package\s+(\w+)", code, re.MULTILINE)
    if package is None:
        if not re.search(r"^(?:func|type|import)\s", code, re.MULTILINE):
            return None  # statements, which stand in no function
        return _go(f"package main\n\n{_go_imports(code)}\n{code}")
    files = {"main.go": _bytes(code)}
    runs = package[1] == "main"
    if runs and not _MAIN["go"].search(code):
        files["only.go"] = b"package main\n\nfunc main() {}\n"
    env = {**GO_SETTINGS, "GOCACHE": "/tmp/go"}  # noqa: S108 - in the sandbox, and only if there is no better
    compiler = ("{tool}", "build", "-o", "main", *files)
    return Layout(files, ("./main",) if runs else (), compiler, _GO, env)


def _go_imports(code: str) -> str:
    """Imports of the library's packages that functions without a file's head use."""
    if re.search(r"^import\b", code, re.MULTILINE):
        return ""
    used = sorted({name for name in re.findall(r"\b([a-z0-9]+)\.[A-Z]", code) if name in _GO_STANDARD})
    return "".join(f'import "{_GO_STANDARD[name]}"\n' for name in used)


def _rust(code: str) -> Layout:
    compiler = ("{tool}", "--edition", "2021", "--cap-lints", "allow", "-C", "debuginfo=0")
    if _MAIN["rust"].search(code):
        return Layout({"main.rs": _bytes(code)}, ("./main",), (*compiler, "-o", "main", "main.rs"), _BUILD)
    words = (*compiler, "--crate-type", "lib", "--emit", "metadata", "-o", "main", "main.rs")
    return Layout({"main.rs": _bytes(code)}, (), words, _BUILD)
