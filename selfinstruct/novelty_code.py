"""The code rule's reading of a task: which words of it count, and which programming languages it names.

Words only; comparing is in novelty.
"""

from __future__ import annotations

import re
import string
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

# Words that say nothing about what is asked for: they are dropped.
EMPTY = frozenset(
    """
a an the this that these those it its their his her your our my me i we us you they them he she
of to in on at by for from with as into onto is are was were be been being am do does did has have had
will would can could should shall may might must and or so if then than such which who whose where when
there here each also some any please using use uses used via about between
write create make build develop design construct generate implement compose devise produce provide
formulate craft come up give show suggest need needs want wants able
code function program method script snippet routine algorithm query statement command piece application
given following below above provided supplied specified certain particular
correct appropriate suitable simple basic small short example examples sample called named
takes take accepts accept receives input inputs parameter parameters argument arguments
""".split()  # noqa: SIM905 - a list of words reads best as one
)
# Everyday words of programming: they count once, all others twice.
EVERYDAY = frozenset(
    """
number numbers integer integers int float string strings text word words character characters letter
list lists array arrays element elements item items value values object objects data dataset variable
variables result results output outputs type order set class user users name names file files line lines
find calculate compute determine get return returns check checks test print prints display displays
perform performs handle take two all every new single whole contains contain containing
table tables column columns row rows record records field fields page element's
""".split()  # noqa: SIM905 - a list of words reads best as one
)
_NUMBER_WORDS = frozenset("two three four five six seven eight nine ten hundred thousand".split())  # noqa: SIM905
NUMBER = "0"  # stands for any number

_LANGUAGES = {
    "python": "python python2 python3 py cpython",
    "javascript": "javascript js ecmascript es6",
    "typescript": "typescript",
    "java": "java",
    "c++": "c++ cpp c++11 c++14 c++17 c++20 c++23",
    "c#": "c# csharp",
    "f#": "f# fsharp",
    "objective-c": "objective-c objc",
    "sql": "sql mysql postgresql postgres sqlite t-sql pl/sql mssql",
    "html": "html html5",
    "css": "css css3",
    "bash": "bash zsh shell",
    "powershell": "powershell",
    "go": "golang",
    "visual basic": "vba vb.net",
}
_PLAIN_NAMES = """
php perl kotlin scala haskell erlang elixir clojure matlab fortran cobol lua groovy ocaml prolog
solidity vhdl verilog racket zig nim
""".split()  # noqa: SIM905
_LANGUAGES.update({name: name for name in _PLAIN_NAMES})
_CANONICAL = {alias: name for name, aliases in _LANGUAGES.items() for alias in aliases.split()}
# Names that are words or letters too: a language only with a capital, and where a language is named.
_CAPITALS = "C|R|D|Go|Swift|Rust|Ruby|Dart|Julia|Scheme|Lisp|Pascal|Ada|Elm|Crystal|Scratch|Assembly|Basic"
_PLACES = (
    "in",
    "to",
    "from",
    "into",
    "using",
    "with",
    "and",
    "or",
    "of",
    "a",
    "an",
    "the",
    "this",
    "following",
)
# No \b in front: the search is then for its capitals alone, and much faster; `_is_language` sees to it.
_NAME = re.compile(rf"(?:{_CAPITALS})\b(?![+#]|['\u2019.]\w)")
_BEFORE = re.compile(r"\b(?:in|to|from|into|using)\s\Z")
_AFTER = re.compile(
    r"\s+(?:program|code|function|script|snippet|method|class|language|struct|application|app|library|compiler)\b"
)
_UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"  # written without spaces
# The first alternative is the usual case made fast: all others need a sign that is no letter behind the word.
_TOKEN = re.compile(
    rf"""
    \x00?[a-z]+(?=[.,:;?!)]?(?:\s|\Z))
    | c\+\+(?:\d\d)? | \b[cfj]\# | objective-c | t-sql | pl/sql | vb\.net | asp\.net | (?<!\w)\.net\b
    | \b\w+\.js\b
    | [{_UNSPACED}]
    | (?<![\w.])\d+(?:[.,:/]\d+)*(?![\w])
    | [^\W_{_UNSPACED}]+(?:['\u2019][a-z]{{1,2}}\b)?
    | (?<=[\s'"`(])(?:[+*/%=<>!&|^~]{{1,3}}|\?[?:.]|:=|--|-=|->)(?=[\s'"`).,]|$)
    """,
    re.VERBOSE,
)
_HUMPED = re.compile(r"[a-z][A-Z]")
_HUMP = re.compile(r"(?<![^\W_])([a-z]+)((?:[A-Z][a-z0-9]+)+)\b")
_CAPITAL = re.compile(r"(?=[A-Z])")
_QUOTED = re.compile(
    r"\"[^\"\n]*\"|(?<!\w)'[^'\n]*'(?!\w)|\u201c[^\u201d\n]*\u201d|\u2018[^\u2019\n]*\u2019|`[^`\n]*`"
)
_POINTING = re.compile(
    r"\b(?:this|these|following|below|above|given|provided|supplied|attached|input|statement|sentence)\b",
    re.IGNORECASE,
)
_OUTPUT_TOKEN = re.compile(r"\w+|[^\w\s]")
_ODD = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]")  # ASCII that is neither word, space nor one of ...
_SIGNS = string.punctuation.replace("_", "")

LONGEST = 512  # tokens of an input or output that are looked at
PASSAGE = 8  # words that make an input a piece of code or text, not a value to try
SAYS_MUCH = 4  # words of an instruction that stand for themselves


@dataclass(frozen=True, slots=True)
class Reading:
    """What counts of a task: the tokens of its instruction and input, and the languages it names.

    `asked` and `leaned_on` have no token in common. A word that counts twice stands as two tokens, so
    that an ordinary longest common subsequence gives the weighted one. `leaned_on` is empty where the
    instruction says enough. `languages` (joined by commas) is None where none is named.
    """

    asked: tuple[str, ...]
    leaned_on: tuple[str, ...]
    languages: str | None


@lru_cache(maxsize=64)  # a task is usually compared, and then added
def read_task(instruction: str, input_: str, language: str | None) -> Reading:
    """Read a task; `language` stands in where the instruction names none."""
    words, languages = split_words(instruction)
    telling = [word for word in words if word not in EMPTY]
    if (
        len(telling) < 2
    ):  # "What is Go?", "Convert this code from C to Java": here the names are what is asked
        named, languages = languages, ()
        telling = [*(telling if len(telling) + len(named) > 1 else words), *named]
    asked = [token for word in telling for token in _weighted(word)]
    leaned_on: tuple[str, ...] = ()
    if input_.strip() and (len(telling) < SAYS_MUCH or _POINTING.search(instruction)):
        leaned_on = input_words(input_)
    if not languages and language:
        known = language.strip().casefold()
        languages = (_CANONICAL.get(known, known),)
    return Reading(tuple(asked), leaned_on, ",".join(languages) or None)


@lru_cache(maxsize=1 << 16)
def _weighted(word: str) -> tuple[str, ...]:
    """The word once, twice or four times, each time as a token of its own."""
    if word in EVERYDAY or word in EMPTY or word == NUMBER:
        return (word,)
    if not any(sign.isalnum() for sign in word):  # an operator that stands alone is what the task is about
        return word, word + "'", word + '"', word + "'\""
    return word, word + "'"


def split_words(text: str) -> tuple[list[str], tuple[str, ...]]:
    """The words of a text in order, without the programming languages, and those languages in order.

    Lower case; camelCase and snake_case fall into their words; a run of numbers is one `0`;
    scripts without spaces are read character by character.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = text.replace("\x00", " ")  # our own mark of a language name
    named = {
        found.start(): found.group().lower() for found in _NAME.finditer(text) if _is_language(text, found)
    }
    if named:
        text = "".join(f" \x00{named[at]} " if at in named else part for at, part in _cut(text, named))
    if _HUMPED.search(text):
        text = _HUMP.sub(lambda found: found[1] + " " + " ".join(_CAPITAL.split(found[2])[1:]), text)
    words: list[str] = []
    languages: list[str] = []
    for token in _TOKEN.findall(text.lower()):
        name, word = _part(token)
        if name is not None:
            if name not in languages:
                languages.append(name)
        elif word != NUMBER or not words or words[-1] != NUMBER:
            words.append(word)
    return words, tuple(languages)


@lru_cache(maxsize=1 << 16)
def _part(token: str) -> tuple[str | None, str]:
    """(the programming language that a token names or None, the word that counts otherwise)."""
    if token[0] == "\x00":
        return token[1:], ""
    if token in _NUMBER_WORDS or (token[0].isdigit() and not token[-1].isalpha()):
        return None, NUMBER
    return _CANONICAL.get(token), token.replace("\u2019", "'")


def _is_language(text: str, name: re.Match[str]) -> bool:
    """Whether a name that is a word or a letter too stands where a language is due."""
    start = name.start()
    if start and (text[start - 1].isalnum() or text[start - 1] == "_"):
        return False
    before = _BEFORE.search(text, max(0, start - 8), start)
    return before is not None or _AFTER.match(text, name.end()) is not None


def _cut(text: str, named: dict[int, str]) -> list[tuple[int, str]]:
    """`text` in pieces, each with where it starts; every name in `named` is a piece of its own."""
    pieces, at = [], 0
    for start, name in sorted(named.items()):
        pieces += [(-1, text[at:start]), (start, name)]
        at = start + len(name)
    return [*pieces, (-1, text[at:])]


def input_words(text: str) -> tuple[str, ...]:
    """The words of an input that count, each marked as such; none if it only gives values to try.

    Numbers and quoted texts are values. An input with values and fewer than `PASSAGE` words is data for
    the task, and other data do not make another task.
    """
    bare = _QUOTED.sub(" ", text)
    words, languages = split_words(bare)
    plain = [word for word in words if word != NUMBER]
    has_values = len(plain) < len(words) or bare != text
    if has_values and len(plain) < PASSAGE:
        return ()
    return tuple("\x01" + word for word in [*languages, *plain][:LONGEST])


@lru_cache(maxsize=64)
def output_tokens(text: str) -> tuple[str, ...]:
    """The tokens of an output: words and numbers as written, every sign by itself."""
    if not text.isascii() or _ODD.search(text):
        return tuple(_OUTPUT_TOKEN.findall(text)[:LONGEST])
    for sign in _SIGNS:  # the same tokens in half the time
        if sign in text:
            text = text.replace(sign, f" {sign} ")
    return tuple(text.split(None, LONGEST)[:LONGEST])
