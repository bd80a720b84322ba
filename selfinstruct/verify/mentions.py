"""What the words of a task say about its answer: the languages it names, whether prose or a fragment will do.

Only the instruction is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from selfinstruct.vocabulary import find_language

FOREIGN: Final = "other"  # a language that is named and is none of the project's

# How each language shows in a sentence. A name that is an English word, too, needs its capital and its place.
_NAMES = {
    "python": r"python ?[23]?(?:\.\d+)?|cpython|django|flask|fastapi|pandas|numpy|pytest|matplotlib|pytorch|"
    r"tensorflow|keras|scikit-learn|sklearn|beautifulsoup",
    "typescript": r"typescript|tsconfig|(?<=in )ts",
    "javascript": r"javascript|java script|js|node\.?js|node:\w+|ecmascript|es6|jquery|react(?:\.?js)?|vue(?:\.?js)?|"
    r"express\.js|ajax|npm package",
    "java": r"java|spring boot|junit ?\d?|jdbc|javafx",
    "cpp": r"c\+\+(?:\d\d)?|cpp",
    "csharp": r"c#|csharp|c sharp|\.net|asp\.net|linq|xunit",
    "sql": r"(?:my|postgre|ms|t-|pl/)?sql(?:ite)?(?: server)?|postgres|mariadb",
    "bash": r"bash|zsh|shell(?:[- ]scripts?)?|(?:unix|linux|terminal|shell|command[- ]line) (?:shell|command|script)s?",
    "powershell": r"powershell|pwsh|cmdlet",
    "html": r"x?html ?5?|web ?page",
    "css": r"css ?3?|scss|stylesheet|style sheet",
    "php": r"php ?\d?|laravel|wordpress",
    "ruby": r"ruby on rails|rails|rspec|minitest",
    "kotlin": r"kotlin",
    "perl": r"perl",
    "lua": r"lua",
    "scala": r"scala",
    "haskell": r"haskell|ghci",
    "dart": r"flutter",
    "yaml": r"yaml|github actions|kubernetes|docker[- ]compose|compose file|ansible|openapi",
    "docker": r"dockerfiles?",
    "make": r"makefiles?|gnu make",
    "json": r"json",
    "regex": r"regex(?:es|p)?|regular expressions?",
    "go": r"golang|goroutines?",
    "rust": r"rustc|cargo",
    FOREIGN: r"objective-c|matlab|vba|visual basic|vb\.net|assembly|fortran|cobol|julia|lisp|clojure|f#|ocaml|prolog|"
    r"verilog|vhdl|erlang|elixir|groovy|latex|xml|toml|graphql|solidity|pseudo-?code|pascal|delphi|applescript|xpath|"
    r"terraform|cypher|protobuf",
}
_CAPITALS = {"Go": "go", "Rust": "rust", "Ruby": "ruby", "Swift": "swift", "Dart": "dart", "C": "c", "R": "r"}
_NAME = re.compile(
    rf"(?<![\w/.+#-])(?:{'|'.join(f'(?P<{name}>{words})' for name, words in _NAMES.items())})(?![\w+#])",
    re.IGNORECASE,
)
_CAPITAL = re.compile(rf"(?<![\w'.+#-])(?:{'|'.join(_CAPITALS)}|C(?:99|11|17|23))(?![\w+#'\u2019]|\.\w)")
_PLACE_BEFORE = re.compile(
    r"(?:\b(?:in|to|from|into|using|of|a|an|the|this|our|my|with|these|following|simple|and)\s|^)\Z"
)
_PLACE_AFTER = re.compile(
    r"\s+(?:\d[\d.]*\s+)?(?:programs?|code|functions?|scripts?|snippets?|methods?|class(?:es)?|struct|library|compiler|"
    r"programmer|parser|modules?|vectors?|data frames?|test|tests|app|package|service|types?|iterators?|error|server|"
    r"handler|macro|trait|enum|slices?|channels?|generics?|header|pointer|array|loop|change|widget|actor|package|command)\b"
)
_STRONG_BEFORE = re.compile(r"\b(?:in|into|to|from|using)\s\Z")
_TRANSLATES = re.compile(
    r"\b(?:convert|translate|re-?format|switch|recode|port|rewrite|transform|transcribe|re-?implement|turn|express|change|migrate|put|bring|carry)",
    re.IGNORECASE,
)
_TARGET = re.compile(
    r"\b(?:to|into|as|in|over to)\s+(?:an?\s+|the\s+|valid\s+|equivalent\s+|idiomatic\s+|plain\s+|modern\s+)*\Z",
    re.IGNORECASE,
)
_PROSE = re.compile(
    r"""
    ^\W*(?:please\s+)?(?:
        explain|describe|discuss|compare|summari[sz]e|outline|list|name|identify|state|tell|predict|choose|
        define\s+(?:the\s+(?:term|word|concept)|what)|
        suggest|analy[sz]e|evaluate|elaborate|clarify|interpret|recommend|review|critique|classify|categori[sz]e|
        what|why|which|
        (?:who|when|where|is|are|does|do|did|can|could|should|would|will|has|have)\b[^?]*\?|
        how(?!\s+(?:would|do|can|could|should)\s+(?:you|i|one|we)\s+(?:write|create|implement|code|declare))|
        provide\s+(?:an?\s+)?(?:explanation|description|summary|list|overview|reasons?)|
        give\s+(?:an?\s+|me\s+)*(?:explanation|description|summary|list|overview|reasons?|definition)|
        read\s+(?:the|this)\s+(?:given\s+|following\s+)?(?:code|program|function|query)|spot|point\s+out|
        find\s+(?:the|any|all)\s+(?:errors?|bugs?|mistakes?|problems?|issues?)|
        calculate|compute|determine|estimate|work\s+out|trace|in\s+(?:your|one|two|a\s+few)
    )(?!\w)
    | \b(?:explain|describe|justify|say\s+why|tell\s+why|what\s+is\s+(?:wrong|the\s+output|printed))\b
    | (?:[.!?:;,]\s+|\n\s*)(?:and\s+|but\s+|so\s+)?  # a question later on: other words than these may ask for code
      (?:why\b(?!\s+not\b)|what\s+(?:was|went|goes|(?:could|can|may|might)\s+(?:be|have\s+gone))\s+wrong\b)[^.!?]*\?
    """,
    re.IGNORECASE | re.VERBOSE,
)
_FRAGMENT = re.compile(
    r"\b(?:snippets?|fragments?|clause|expression|one[- ]liner|single\s+line|line\s+of\s+code|statement|diff|patch|"
    r"repl|session|fill\s+in|body|just\s+the|only\s+the|condition|declaration|excerpt|selector|"
    r"command|loop|part|rule)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What an instruction asks for: `languages` it names (in order), the one to translate to, and two licences."""

    languages: tuple[str, ...]
    target: str | None
    prose: bool
    fragment: bool


@lru_cache(maxsize=64)
def read_wish(instruction: str) -> Wish:
    """Read an instruction. Languages are canonical names or `FOREIGN`."""
    text = instruction[:4000]
    named: list[tuple[int, str]] = [(found.start(), found.lastgroup or "") for found in _NAME.finditer(text)]
    for found in _CAPITAL.finditer(text):
        language = _CAPITALS.get(found[0]) or find_language(found[0])
        before = text[max(0, found.start() - 16) : found.start()]
        placed = _STRONG_BEFORE.search(before) or (
            _PLACE_AFTER.match(text, found.end()) and _PLACE_BEFORE.search(before)
        )
        if language and placed:
            named.append((found.start(), language))
    named.sort()
    targets: list[str] = []
    if len({name for _, name in named}) > 1 and _TRANSLATES.search(text):
        targets = [name for at, name in named if _TARGET.search(text[max(0, at - 40) : at])]
    return Wish(
        tuple(dict.fromkeys(name for _, name in named)),
        targets[-1] if targets else None,
        _PROSE.search(text) is not None,
        _FRAGMENT.search(text) is not None,
    )
