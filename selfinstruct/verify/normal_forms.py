"""What is left of a text when white space, names, comments and filler words are taken out of it.

Two forms: the words of a text, and the tokens of a code. Equal forms mean the same wording and the same
code but for renaming. What overlaps with what, `overlap` decides.
"""

from __future__ import annotations

import builtins
import keyword
import re

RENAMED_WITHIN = 16  # tokens back that a name is looked for; further back it counts as a new one

# Words without which a sentence still says the same; "not", "all", "each" and the like are not among them.
_FILLER = frozenset(
    """
    a an the of to in is are be been was were this that these those it its and or for with from as by on at
    if then so such which will would should can could may must shall do does has have had there here you
    your we our i my me please
    """.split()  # noqa: SIM905 - reads best as text
)
# Parts of snake_case and camelCase are words; a Chinese or Japanese character is one by itself.
_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_SMALL = rf"[^\W\d_A-Z{_CJK}]"
_WORD = re.compile(rf"[A-Z]?{_SMALL}+|[A-Z]+(?!{_SMALL})|[{_CJK}]")
_DOCSTRING = re.compile(r'[rRuUbB]{0,2}("""|\'\'\')(.*?)(?:\1|\Z)', re.DOTALL)
_TOKEN = re.compile(
    r"""
    (?P<skip>
        \#[^\n]* | ^[ \t]*//[^\n]* | (?<=[;{}]\s)\s*//[^\n]* | /\*.*?(?:\*/|\Z)  # comments; `a // b` is none
    )
    | (?P<doc> [rRuUbB]{0,2}(?: \"\"\".*?(?:\"\"\"|\Z) | '''.*?(?:'''|\Z) ) )
    | (?P<text> [rRuUbBfF]{0,2}(?: "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' ) )
    | (?P<name> [^\W\d]\w* )
    | \d[\w.]* | [^\w\s;]
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
# Names that nobody gives to a variable. Types and keywords of other languages need not be here: where they
# stand again and again they read as one name.
_KEPT = frozenset(
    {
        *keyword.kwlist,
        *(name for name in dir(builtins) if not name.startswith("_")),
        *["function", "const", "let", "new", "null", "true", "false", "undefined", "this", "self"],
    }
)
_ROUND = frozenset("()")
_DEFINES = frozenset({"def", "function", "func", "fn"})
_OPENS_VALUE = frozenset("=(,[{:+") | {"return", "in"}  # a string behind one of these is no docstring
_CODE_LINE = re.compile(
    r"^\s*(?:@\w|(?:def|class|import|from|return|for|while|if|elif|else|try|except|with|raise|yield|assert|print|"
    r"function|public|private|static|let|const|var|fn|func|package|using|int|void|select|insert)\b.*[^.?!\w]$|"
    r"import \w|from \S+ import |return\b|[\w.\[\]]+(?:, *[\w.\[\]]+)* *[-+*/|&]?= *\S|.*[;{}]$|\#include|"
    r"[\w.]+\(.*\)$|[\])}]+,?$)",
    re.IGNORECASE,
)
_FENCED = re.compile(r"^```[^\n]*\n(.*?)(?:^```|\Z)", re.DOTALL | re.MULTILINE)
_EXAMPLES = re.compile(
    r"^\s*(?:>>>|(?:for )?examples?\b(?: \d+)?\s*:?\s*$|(?:for )?examples?\b[^\n]{0,20}:|-+ ?input|input\s*:?\s*$)",
    re.IGNORECASE | re.MULTILINE,
)
_COMMENT = re.compile(r"(?:^|(?<=\s))(?:#|//)+ ?([^\n]+)|/\*(.*?)\*/", re.DOTALL)


Spans = list[tuple[int, int]]


def words_of(text: str, spans: Spans | None = None) -> list[str]:
    """The words that carry a text, in order and in lower case: no numbers, single letters, filler words.

    Args:
        text: any text; in code the parts of names are words.
        spans: gets (start, end) of each word in `text`.
    """
    if spans is None:  # much the faster way
        return [word for word in map(str.lower, _WORD.findall(text)) if _carries(word)]
    places = [match for match in _WORD.finditer(text) if _carries(match[0].lower())]
    spans.extend(match.span() for match in places)
    return [match[0].lower() for match in places]


def _carries(word: str) -> bool:
    return (len(word) > 1 or word > "\u2fff") and word not in _FILLER


def tokens_of(code: str, spans: Spans | None = None) -> list[str]:
    """The tokens of a code without comments, docstrings, parentheses, semicolons and white space.

    A name that could be renamed becomes the number of tokens since it last occurred, so that renaming
    throughout changes nothing while another use of the same names does. Attributes, keywords and Python's
    builtins stay as they are. The idea is that of parameterised matching (Baker 1993).

    Args:
        code: code of any language, or text with some in it.
        spans: gets (start, end) of each token in `code`.
    """
    found: list[str] = []
    last: dict[str, int] = {}
    before = ""
    depth = -1  # of parentheses in the head of a function; its parameters count as new in the body
    for match in _TOKEN.finditer(code):
        kind, token = match.lastgroup, match[0]
        if kind == "skip" or (kind == "doc" and before not in _OPENS_VALUE):
            continue
        if token in _ROUND:
            if depth >= 0:
                depth = depth + (1 if token == "(" else -1) or -1  # noqa: S105 - no password
            continue
        if kind in {"text", "doc"}:
            token = f'"{token.lstrip("rRuUbBfF")[1:-1]}"'
        if kind == "name" and token not in _KEPT and before != ".":
            place = len(found)
            back = place - last.get(token, -RENAMED_WITHIN - 1)
            if depth < 0:
                last[token] = place
            found.append(f"~{back}" if back <= RENAMED_WITHIN else "~")
        else:
            found.append(token)
        if token in _DEFINES:
            depth = 0
        before = token
        if spans is not None:
            spans.append(match.span())
    return found


def split_code(text: str) -> tuple[str, str]:
    """A text as (prose, code): docstrings and comments are prose, so is all that is no code and not fenced."""
    fenced = _FENCED.findall(text)
    if fenced:
        return _FENCED.sub("\n", text), "\n".join(fenced)
    bare = _DOCSTRING.sub("", text)
    lines = [line for line in bare.splitlines() if line.strip()]
    if not lines or 2 * sum(_CODE_LINE.match(line) is not None for line in lines) < len(lines):
        return text, ""
    docs = [found[1] for found in _DOCSTRING.findall(text)]
    comments = [first or second for first, second in _COMMENT.findall(bare)]
    return "\n".join([*docs, *comments]), bare


def split_examples(prose: str) -> tuple[str, str]:
    """A description, and the examples of input and output behind it, where it has some."""
    found = _EXAMPLES.search(prose)
    return (prose, "") if found is None else (prose[: found.start()], prose[found.start() :])
