"""Finds the code of an answer: which parts of it are code, in which language, and what would be run.

It looks at fences, what is known of the task, its words, and the content. Nothing is parsed here, that is
`syntax`; nothing is run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from selfinstruct.verify.fences import split_fences
from selfinstruct.vocabulary import find_language

Origin = Literal["fence", "bare", "indent"]
PROSE_KINDS = frozenset({"explain", "review", "summarise", "predict", "choose", "design"})


@dataclass(frozen=True, slots=True)
class Code:
    """A piece of code: its canonical language (None where nobody can tell), its text, how it was found."""

    language: str | None
    text: str
    origin: Origin


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


def find_code(
    instruction: str, input_: str, output: str, language: str | None = None, kind: str | None = None
) -> Found:
    """Find the code of an answer.

    Args:
        instruction: the task.
        input_: the code or data it speaks of, or "".
        output: the answer.
        language: the task's language in any spelling, where it is known.
        kind: the task's kind (`vocabulary.KINDS`), where it is known.
    """
    del instruction, input_
    known = find_language(language or "")
    prose = kind in PROSE_KINDS
    segments = split_fences(output)
    blocks = [
        Code(find_language(piece.info.split(" ")[0]) if piece.info else known, piece.text, "fence")
        for piece in segments
        if piece.fenced and piece.closed
    ]
    if not any(piece.fenced for piece in segments) and not prose and kind and output.strip():
        blocks = [Code(known, output, "bare")]
    own = [block for block in blocks if block.language == known] or blocks[:1]
    program = Code(own[0].language, "\n".join(block.text for block in own), own[0].origin) if own else None
    return Found(tuple(blocks), program.language if program else known, prose, program)
