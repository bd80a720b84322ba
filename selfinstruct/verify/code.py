"""Finds the code of an answer: which parts of it are code, in which language, and what would be run.

It looks at fences, what is known of the task, its words, and the content. Nothing is parsed here, that is
`syntax`; nothing is run.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal

from selfinstruct.verify.fences import Segment, split_fences
from selfinstruct.verify.guess import SURE, rank_languages
from selfinstruct.verify.mentions import FOREIGN, Wish, read_wish
from selfinstruct.verify.passages import cut_passages, has_prose
from selfinstruct.vocabulary import LANGUAGES, find_language

Origin = Literal["fence", "bare", "part"]
LONGEST: Final = 100_000  # characters of an answer that is looked at
PROSE_KINDS: Final = frozenset({"explain", "review", "summarise", "predict", "choose", "design"})
CODE_KINDS: Final = frozenset(
    {"write", "complete", "fix", "refactor", "optimise", "translate", "test", "revise", "query"}
)
# Labels of fences that hold no code of a language: what a program prints, a session, a picture.
_NO_CODE = frozenset(
    """
    text txt plaintext plain output console stdout terminal log none markdown md mermaid diff patch csv
    shell-session bash-session pycon irb math latex
    """.split()  # noqa: SIM905 - a list of words reads best as one
)
_LABELS = {
    "vue": "html",
    "jsx": "javascript",
    "mjs": "javascript",
    "tsx": "typescript",
    "jsonc": "json",
    "console": "bash",
}
_DATA = frozenset(
    {"yaml", "json", "regex"}
)  # plain values look like them, so they are found only where expected
_STATED, _NAMED, _ALSO_NAMED, _INPUT, _USUAL = 6, 5, 3, 2, 1  # what is known, in points of `rank_languages`
_MARKUP = frozenset(
    {"html", "php", "typescript", "docker", "yaml"}
)  # what is asked for in others may come as a page
_TAG = re.compile(r"\s*<(?:!doctype|html|head|body|style|script|link|div|form|p|h1|button)\b", re.IGNORECASE)
_MUCH = 12  # points of content that count at most
_NEAR = 4  # points behind the best within which a language is a rival
_SESSION = re.compile(
    r"^(?:>>>[ ]|%%?[a-z]\w*\b|![a-z]\w*\b|In[ ]\[\d+\]:[ ]|irb\(.*>[ ]|(?:\w+@[\w.-]+[:~/\w]*)?[$][ ]\S"
    r"|(?:mysql|sqlite|ghci|scala|jshell)>[ ])",
    re.MULTILINE,
)
_BULLET = re.compile(r"(?:[-*\u2022]|\d{1,2}[.)])[ ]")
_DIFF = re.compile(r"\A(?:diff --git |Index: |--- \S+.*\n\+\+\+ |@@ )|^@@ -\d+(?:,\d+)? \+\d+", re.MULTILINE)
_GAP = re.compile(r"(?<![\w.)\]])(?:\.\.\.|\u2026)(?![\w.$({\[*@])")


@dataclass(frozen=True, slots=True)
class Code:
    """A piece of code.

    Attributes:
        language: its canonical language, None where nobody can tell.
        text: the code.
        origin: `fence` (a fenced block), `bare` (the whole answer), `part` (cut out of prose without fences).
        guessed: nobody names the language, it was told from the text alone.
        rivals: other languages that the text may just as well be in.
    """

    language: str | None
    text: str
    origin: Origin
    guessed: bool = False
    rivals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What was found in an answer.

    Attributes:
        blocks: every piece of code, in order.
        language: the language that the answer's code is in, or should be; canonical, None if unknown.
        prose: the task asks for words (an explanation, a choice, ...), so an answer without code is right.
        program: what one would run: the blocks of the answer's language joined, None where there is none.
        fragment: the code is no whole program and need not be one (a clause, a session, a diff, `...`).
    """

    blocks: tuple[Code, ...] = ()
    language: str | None = None
    prose: bool = False
    program: Code | None = None
    fragment: bool = False


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of the language before the answer is looked at: points for each, and the stated one."""

    points: dict[str, int]
    stated: str | None
    code_wanted: bool


@lru_cache(maxsize=64)  # an answer is checked, perhaps run, and then told of
def find_code(
    instruction: str, input_: str, output: str, language: str | None = None, kind: str | None = None
) -> Found:
    """Find the code of an answer.

    Args:
        instruction: the task.
        input_: the code or data it speaks of, or "".
        output: the answer; any text at all. In one of more than `LONGEST` characters nothing is looked for.
        language: the task's language in any spelling, where it is known.
        kind: the task's kind (`vocabulary.KINDS`), where it is known.
    """
    language = find_language(language or "")
    wish = read_wish(instruction)
    prose = kind in PROSE_KINDS or (kind is None and wish.prose)
    known = _known(wish, input_, language, kind)
    segments = split_fences(output) if len(output) <= LONGEST else []
    fenced = [piece for piece in segments if piece.fenced]
    if fenced:
        blocks = [_block(piece, known) for piece in fenced if piece.closed and piece.text.strip()]
    else:
        blocks = [] if language == "text" or not segments else _bare(output, known, prose=prose)
    program = _program(blocks, known, input_)
    spoken = program.language if program else known.stated
    sketch = any(is_sketch(block.text) for block in blocks)
    fragment = sketch or wish.fragment or kind == "complete" or (prose and bool(blocks))
    return Found(tuple(blocks), None if spoken == "text" else spoken, prose, program, fragment)


def is_sketch(text: str) -> bool:
    """Whether code is no program by its looks: a session at a prompt, a diff, a text with gaps (`...`)."""
    flush = textwrap.dedent(text)
    return any(mark.search(flush) for mark in (_SESSION, _DIFF, _GAP))


def _known(wish: Wish, input_: str, language: str | None, kind: str | None) -> _Known:
    points: dict[str, int] = {}
    if language and language != "text":
        points[language] = _STATED if kind != "configure" else _ALSO_NAMED
    for place, name in enumerate(wish.languages):
        points[name] = max(points.get(name, 0), _ALSO_NAMED if place else _NAMED)
    if wish.target:
        points[wish.target] = _STATED + 1
    if input_.strip() and not wish.target:
        given = rank_languages(input_)
        if given and given[0][1] >= SURE and given[0][0] in LANGUAGES:
            points[given[0][0]] = points.get(given[0][0], 0) + _INPUT
    points["python"] = points.get("python", 0) + _USUAL
    stated = (
        wish.target
        or (language if kind != "configure" else None)
        or (wish.languages[0] if wish.languages else None)
    )
    if stated == FOREIGN and (wish.target or len(wish.languages) == 1):
        points = {FOREIGN: 3 * _MUCH}
    return _Known(points, stated if stated in LANGUAGES else None, kind in CODE_KINDS and not wish.prose)


def _guess(text: str, known: _Known, origin: Origin) -> Code | None:
    """A piece of code in the language that its text and what is known point to; None where nothing does."""
    content = {name: min(score, _MUCH) for name, score in rank_languages(text)}
    if known.stated not in _MARKUP and _TAG.match(text) and content.get("html", 0) >= SURE:
        return Code("html", text, origin, guessed=True, rivals=("javascript",))
    total = dict(content)
    for name, points in known.points.items():
        total[name] = total.get(name, 0) + points
    for name in _DATA - known.points.keys():
        total.pop(name, None)
    best = max(total, key=lambda name: total[name])
    if best not in LANGUAGES or (known.stated is None and content.get(best, 0) < SURE):
        return None
    if best == known.stated:
        near = [name for name, score in content.items() if score >= SURE and score > content.get(best, 0) + 1]
    else:
        near = [name for name, score in total.items() if name != best and score > total[best] - _NEAR]
    rivals = tuple(name for name in near if name in LANGUAGES)
    return Code(best, text, origin, guessed=best != known.stated, rivals=rivals)


def _block(piece: Segment, known: _Known) -> Code:
    words = piece.info.strip("{}. \t").lower().split()
    label = re.split(r"[,{:]", words[0])[0] if words else ""
    named = find_language(_LABELS.get(label, label))
    if label in _NO_CODE or (label and named is None):
        return Code(None, piece.text, "fence")
    if named is None or named == "text":
        return _guess(piece.text, known, "fence") or Code(None, piece.text, "fence")
    content = dict(rank_languages(piece.text))
    other, score = max(content.items(), key=lambda pair: pair[1], default=("", 0))
    if score >= 2 * SURE and content.get(named, 0) <= 1 and other in LANGUAGES:
        return Code(other, piece.text, "fence", guessed=True, rivals=(named,))  # the label is wrong
    return Code(named, piece.text, "fence")


def _bare(output: str, known: _Known, *, prose: bool) -> list[Code]:
    """The code of an answer without fences. An open fence leaves nothing that could be relied on."""
    if not output.strip() or "```" in output:
        return []
    passages = [output] if _SESSION.search(output) else cut_passages(output)
    if not passages:
        scores = rank_languages(output)
        expected = any(score >= SURE and name in known.points for name, score in scores)
        expected = expected or any(score >= 2 * SURE and name not in _DATA for name, score in scores)
        if (expected and not has_prose(output)) or (known.code_wanted and known.stated):
            passages = [output.strip("\n").rstrip()]
    origin: Origin = "bare" if len(passages) == 1 and passages[0].strip() == output.strip() else "part"
    if origin == "part":
        passages = [passage for passage in passages if not _BULLET.match(passage) or "yaml" in known.points]
    found = [code for passage in passages if (code := _guess(passage, known, origin)) is not None]
    return [code for code in found if not prose or _is_sure(code.text, code.language)]


def _is_sure(text: str, language: str | None) -> bool:
    return dict(rank_languages(text)).get(language or "", 0) >= SURE


def _program(blocks: list[Code], known: _Known, input_: str) -> Code | None:
    """The blocks in the answer's language, one after the other, without those that only quote the input."""
    spoken = [block for block in blocks if block.language]
    if not spoken:
        return None
    names = {block.language for block in spoken}
    size = {name: sum(len(block.text) for block in spoken if block.language == name) for name in names}
    language = known.stated if known.stated in names else max(size, key=lambda name: size[name])
    own = [block for block in spoken if block.language == language]
    squeezed = "".join(input_.split())
    fresh = [block for block in own if not squeezed or "".join(block.text.split()) not in squeezed] or own
    return replace(fresh[0], text="\n".join(block.text for block in fresh)) if len(fresh) > 1 else fresh[0]
