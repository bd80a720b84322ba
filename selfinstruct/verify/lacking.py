"""Tells from what a program printed that it failed for want of something the sandbox does not offer.

A package that is not installed, a network, a file, an argument: then nobody knows whether the program is
right. Pure tables of the messages that interpreters, compilers and libraries print; nothing is run here.
"""

from __future__ import annotations

import re

PACKAGE, NETWORK, FILE, ENVIRONMENT = "missing_package", "needs_network", "needs_file", "needs_environment"
INPUT, ARGUMENTS, DISPLAY, BROWSER = "needs_input", "needs_arguments", "needs_display", "needs_browser"
TABLE, DIALECT, VERSION, CONTEXT = "missing_table", "other_dialect", "other_version", "needs_context"

_ANY: list[tuple[str, str]] = [
    (NETWORK, r"(?i)network is unreachable|temporary failure in name resolution|name or service not known"),
    (
        NETWORK,
        r"(?i)could not resolve host|no address associated with hostname|getaddrinfo|connection refused",
    ),
    (FILE, r"^(?!.*fatal error: ).*No such file or directory|Read-only file system"),
]
_BY_LANGUAGE: dict[str, list[tuple[str, str]]] = {
    "python": [
        (INPUT, r"^EOFError: EOF when reading a line"),
        (INPUT, r"\binput\(.*\n(?:\s*[~^]+\s*\n)?ValueError: (?:invalid literal|could not convert|not enough values)"),
        (TABLE, r"^sqlite3\.OperationalError: no such table"),
        (NETWORK, r"^(?:urllib\.error\.URLError|socket\.gaierror|ConnectionRefusedError)\b"),
        (DISPLAY, r"^_tkinter\.TclError: (?:no display name|couldn't connect)"),
        (FILE, r"^FileNotFoundError:|^PermissionError:|^NotADirectoryError:"),
        (ARGUMENTS, r"sys\.argv\[.*\n(?:\s*[~^]+\n)?IndexError: list index out of range"),
        (ENVIRONMENT, r"\bos(?:\.py)?\W*, line \d+, in __getitem__\n(?:.*\n){0,2}KeyError: "),
    ],
    "javascript": [
        (FILE, r"Cannot find module '[./]"),
        (PACKAGE, r"Cannot find (?:module|package) '"),
        (BROWSER, r"ReferenceError: (?:document|window|alert|prompt|confirm|(?:local|session)Storage) is not defined"),
        (BROWSER, r"ReferenceError: (?:\$|jQuery|React|Vue|angular|d3|chrome|browser) is not defined"),
        (BROWSER, r"ReferenceError: (?:XMLHttpRequest|HTMLElement|Image|FileReader|requestAnimationFrame) is not"),
        (BROWSER, r"SyntaxError: Unexpected token '<'"),  # JSX
        (BROWSER, r"TypeError: Failed to parse URL"),  # relative to a page
        (CONTEXT, r"ReferenceError: db is not defined"),  # a database's own shell
        (NETWORK, r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENETUNREACH|fetch failed"),
        (FILE, r"ENOENT|EROFS|EACCES"),
    ],
    "bash": [(PACKAGE, r": command not found$"), (FILE, r": cannot (?:access|open|stat|create)")],
    "sql": [
        (TABLE, r"no such table: |no such view: "),
        (DIALECT, r"no such (?:function|module|collation)|unknown database"),
        (DIALECT, r"near \".*\": syntax error|unrecognized token|incomplete input"),
    ],
    # A header of C has a suffix; one without is of C++, and the program is not C.
    "c": [(PACKAGE, r"fatal error: \S+\.h: No such file or directory|'\S+\.h' file not found|cannot find -l")],
    "cpp": [(PACKAGE, r"fatal error: .*No such file or directory|file not found|cannot find -l")],
    "java": [
        (PACKAGE, r"error: package (?!java\.|javax\.(?:swing|crypto|xml|net|sql)\b)[\w.]+ does not exist"),
        (INPUT, r"java\.util\.InputMismatchException"),
        (INPUT, r"java\.util\.NoSuchElementException(?:: No line found)?$(?=[\s\S]*java\.util\.Scanner)"),
        (DISPLAY, r"java\.awt\.HeadlessException|NoClassDefFoundError: .*awt|UnsatisfiedLinkError: .*awt"),
        (NETWORK, r"java\.net\.(?:UnknownHost|Connect|Socket)Exception"),
        (PACKAGE, r"No suitable driver found"),
        (FILE, r"java\.(?:io\.FileNotFound|nio\.file\.NoSuchFile)Exception"),
        (ARGUMENTS, r"ArrayIndexOutOfBoundsException: Index 0 out of bounds for length 0\s+at .*\.main\("),
    ],
    "go": [
        (PACKAGE, r"(?:cannot find package|no required module provides package|package) \"?[\w-]+\.[\w.-]+/"),
        (FILE, r"no such file or directory|read-only file system"),
        (ARGUMENTS, r"index out of range \[1\] with length 1"),
    ],
    "rust": [
        (PACKAGE, r"unresolved import `(?!std|core|alloc|crate|self|super)\w+|can't find crate for"),
        (PACKAGE, r"use of (?:undeclared crate or module|unresolved module or unlinked crate) `\w+`"),
        (FILE, r"kind: NotFound"),
    ],
    "ruby": [
        (PACKAGE, r"cannot load such file -- [^./]"),
        (INPUT, r"undefined method `(?:chomp|strip|to_i|to_f|split|downcase)' for nil"),
        (FILE, r"Errno::ENOENT|Errno::EROFS|Errno::EACCES"),
        (NETWORK, r"SocketError|Errno::ECONNREFUSED"),
    ],
    "php": [
        (PACKAGE, r"Failed opening required '.*vendor/|could not find driver|Class \"\w+\\.*\" not found"),
        (PACKAGE, r"Call to undefined function (?:mb_|curl_|mysqli?_|image|pg_|gd_|sqlite_|simplexml_|intl|bc|gmp_)"),
        (PACKAGE, r"Class \"(?:mysqli|PDO|DOMDocument|SimpleXMLElement|ZipArchive|Imagick|Redis)\" not found"),
        (NETWORK, r"php_network_getaddresses|failed to open stream: (?:php_network|Connection)"),
        (FILE, r"Failed to open stream: No such file|Failed opening required"),
    ],
    "perl": [(PACKAGE, r"Can't locate \S+\.pm in @INC")],
    "lua": [(PACKAGE, r"module '[\w.-]+' not found")],
    "r": [(PACKAGE, r"there is no package called"), (FILE, r"cannot open (?:the connection|file)")],
}  # fmt: skip
_BY_LANGUAGE["typescript"] = _BY_LANGUAGE["javascript"]
_RULES = {
    language: [(reason, re.compile(pattern, re.MULTILINE)) for reason, pattern in [*rules, *_ANY]]
    for language, rules in _BY_LANGUAGE.items()
}
_NO_MODULE = re.compile(
    r"^ModuleNotFoundError: No module named '([\w.]+)'(; '[\w.]+' is not a package)?", re.MULTILINE
)
_USAGE = re.compile(r"(?:^|: )usage\b", re.IGNORECASE | re.MULTILINE)
_TAKES_ARGUMENTS = re.compile(
    r"\bargv\b|\bargparse\b|\bargs\b|\bARGV\b|\$#|\$\{?[1-9@*]|\bos\.Args\b|\bflag\.|commandArgs|\barg\["
)
# Messages that name what is not defined.
_UNDEFINED = {
    "python": r"^NameError: (?:name|free variable) '(\w+)'",
    "javascript": r"^ReferenceError: ([\w$]+) is not defined",
    "typescript": r"^ReferenceError: ([\w$]+) is not defined",
    "ruby": r"undefined (?:local variable or )?method [`'](\w+)' for main|uninitialized constant (\w+)",
    "php": r"Call to undefined function (\w+)\(|Class \"(\w+)\" not found|Undefined (?:constant \"|variable \$)(\w+)",
    "perl": r"Undefined subroutine &main::(\w+)|Global symbol \"[$@%](\w+)\"",
    "lua": r"nil value \((?:global|field|upvalue) '(\w+)'\)",
    "r": r"object '([\w.]+)' not found|could not find function \"([\w.]+)\"",
    "c": r"error: '(\w+)' undeclared|undefined type '(?:struct |union |enum )?(\w+)'|unknown type name '(\w+)'|"
    r"undefined reference to [`'](\w+)'",
    "cpp": r"error: '([\w:]+)' (?:was|has) not (?:been )?declared|'(\w+)' does not name a type|'(\w+)' is not a class|"
    r"undefined reference to [`'](\w+)",
    "java": r"symbol: +(?:class|variable|method) (\w+)",
    "go": r"undefined: (\w+)",
    "rust": r"cannot find (?:type|value|function|trait|macro|struct[\w ,/]*|tuple struct[\w ,/]*) `(\w+)`|"
    r"use of undeclared type `(\w+)`",
}
_QUOTES = {0x2018: "'", 0x2019: "'"}  # of compilers that know typography
_NAMES = {language: re.compile(pattern, re.MULTILINE) for language, pattern in _UNDEFINED.items()}


_CONVENTIONAL = ("TreeNode", "ListNode", "Node")  # exercises on trees and lists take these for given


def needs_context(language: str, printed: str, task: str) -> bool:
    """Whether all the names that are not defined stand in the task, which so takes them for given.

    Args:
        language: canonical name.
        printed: what the failed program or its compiler printed.
        task: the instruction and the input.
    """
    rule = _NAMES.get(language)
    names = (
        {next(filter(None, groups.groups())) for groups in rule.finditer(printed.translate(_QUOTES))}
        if rule
        else set()
    )
    words = {*re.findall(r"\w+", task), *_CONVENTIONAL}
    lower = {word.lower() for word in words}
    return bool(names) and all(
        name in words or f"{name.lower()}s" in lower for name in names
    )  # orders: `Order`


def what_is_lacking(language: str, code: str, printed: str, library: frozenset[str]) -> str | None:
    """What the failed program wanted, None if its failure is its own.

    Args:
        language: canonical name.
        code: the program.
        printed: the end of what it printed, standard error last.
        library: names of the modules of Python's standard library.
    """
    if language == "python" and (missing := _NO_MODULE.search(printed)):
        top, _, rest = missing[1].partition(".")
        if top not in library:
            return PACKAGE
        return None if rest else VERSION  # a module that this version or build of Python is without
    for reason, rule in _RULES.get(language, ()):
        if rule.search(printed):
            return reason
    if _USAGE.search(printed) and _TAKES_ARGUMENTS.search(code):
        return ARGUMENTS
    return None
