"""`--verify syntax`: whether the code of an answer can be parsed. Nothing is ever run here."""

from __future__ import annotations

from typing import Final

from selfinstruct.records import Candidate, Rejection
from selfinstruct.verify.code import Code, Found, find_code, is_sketch
from selfinstruct.verify.formats import FORMATS
from selfinstruct.verify.grammars import GRAMMARS, grammar_problem, has_grammar
from selfinstruct.verify.mentions import read_wish
from selfinstruct.verify.verdict import Verdict, rejection_of
from selfinstruct.vocabulary import find_language

LONGEST: Final = 20_000  # characters; what is longer is not parsed, so that no text takes long


def check_syntax(candidate: Candidate) -> Rejection | None:
    """Reject an answer with code that cannot be parsed: reason `syntax_error`, with language and message."""
    return rejection_of(syntax_verdict(candidate))


def syntax_verdict(candidate: Candidate) -> Verdict:
    """What parsing the answer's code comes to; `unavailable` where nobody here can parse it."""
    asked = _asked_and_parsed(candidate)
    output = candidate.output.strip()
    if asked and "\n" in output and _why_unparsed(asked, output) is None:
        return Verdict("syntax", "passed", evidence={"language": asked})  # a line of words may parse, too
    found = find_code(
        candidate.instruction, candidate.input, candidate.output, candidate.language, candidate.kind
    )
    return _unjudged(found) if asked else verdict_on(found)


def _asked_and_parsed(candidate: Candidate) -> str | None:
    """The language that was asked for, Python if none was named, where nothing in it speaks against the bare answer.

    The usual case, and several times cheaper than looking for marks of all languages: those are needed only
    where something does not parse.
    """
    asked = find_language(candidate.language or "")
    if asked is None:
        named = read_wish(candidate.instruction).languages or ("python",)
        asked = named[0] if len(named) == 1 else None
    if asked is None or not can_check(asked) or "```" in candidate.output:
        return None
    return asked if syntax_problem(asked, candidate.output) is None else None


def verdict_on(found: Found) -> Verdict:
    """The verdict on code that has been found. Code in passing, inside an explanation, is not judged."""
    for block in found.blocks:
        in_passing = found.prose and block.origin == "part"
        problem = None if in_passing else _block_problem(block)
        if problem:
            return Verdict("syntax", "failed", evidence={"language": block.language, "message": problem})
    return _unjudged(found)


def _unjudged(found: Found) -> Verdict:
    """The verdict on code that nothing speaks against: whether it was parsed at all."""
    code = [(block.language, block.text) for block in found.blocks if block.language not in {None, "text"}]
    if not code:
        return Verdict("syntax", "skipped", "no_code")
    for language, text in code:
        if why := _why_unparsed(language or "", text):
            return Verdict("syntax", "unavailable", why, {"language": language})
    return Verdict("syntax", "passed", evidence={"language": code[0][0]})


def _why_unparsed(language: str, code: str) -> str | None:
    """Why code is not parsed, None if it is."""
    if language not in FORMATS and not has_grammar(language):
        return "no_parser"
    return "too_long" if len(code) > LONGEST else None


def _block_problem(block: Code) -> str | None:
    if block.language is None or (
        (block.guessed or block.origin == "part") and "\n" not in block.text.strip()
    ):
        return None  # one line says too little about its language, and one among prose may be no code at all
    problem = syntax_problem(block.language, block.text)
    if problem is None or is_sketch(block.text):
        return None
    if any(can_check(rival) and syntax_problem(rival, block.text) is None for rival in block.rivals):
        return None  # nobody said which language it is, and it is right in another
    return problem


def syntax_problem(language: str, code: str) -> str | None:
    """What is wrong with a piece of code ("line 3: ..."), or None: it parses, or nobody here can tell.

    Args:
        language: a canonical name of `vocabulary.LANGUAGES`.
        code: the text; anything at all.
    """
    if len(code) > LONGEST or not code.strip():
        return None
    parse = FORMATS.get(language)
    return parse(code) if parse else grammar_problem(language, code)


def can_check(language: str) -> bool:
    """Whether there is a parser for the language; its package may still be missing."""
    return language in FORMATS or language in GRAMMARS
