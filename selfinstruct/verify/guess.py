"""Guesses the language of a text from what stands in it: the marks of each language, counted once each.

Nothing is parsed, and no task is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Final, TypeAlias

from selfinstruct.verify.literals import folded, literals_of
from selfinstruct.verify.marks import FOREIGN_MARKS, MARKS

LOOKED_AT: Final = 8_000  # characters of a text that are looked at
SURE: Final = 3  # a score from which on a text is code of the language rather than anything else
_START = 3  # characters of a literal by which it is looked up
_TABLES = MARKS | FOREIGN_MARKS
_Mark: TypeAlias = tuple[
    Callable[[str], object], tuple[tuple[str, int], ...]
]  # how to search, points it gives


@cache
def _marks() -> dict[str, list[tuple[str, set[_Mark]]]]:
    """The marks by literals of which one stands in every text that has them, and those by how they begin."""
    points: dict[str, list[tuple[str, int]]] = {}
    for language, table in _TABLES.items():
        for line in table.strip().splitlines():
            weight, pattern = line.split(None, 1)
            points.setdefault(pattern, []).append((language, int(weight)))
    by_literal: dict[str, set[_Mark]] = {}
    for pattern, given in points.items():
        mark = re.compile(pattern, re.MULTILINE).search, tuple(given)
        for literal in literals_of(pattern) or {""}:
            by_literal.setdefault(literal, set()).add(mark)
    by_start: dict[str, list[tuple[str, set[_Mark]]]] = {}
    for literal, marks in by_literal.items():
        by_start.setdefault(literal[:_START] if len(literal) >= _START else "", []).append((literal, marks))
    return by_start


@lru_cache(maxsize=32)
def rank_languages(text: str) -> tuple[tuple[str, int], ...]:
    """Languages with their scores, the best first; those without a mark are left out.

    Besides canonical names there may be `toml` and `xml`. From `SURE` on a score means code. Of some 270 marks only
    those are searched for that a look at their literals does not rule out, a tenth of them.
    """
    text = text[:LOOKED_AT]
    letters, by_start = folded(text), _marks()
    starts = {letters[at : at + _START] for at in range(len(letters) - _START + 1)} | {""}
    possible: set[_Mark] = set()
    for start in by_start.keys() & starts:
        possible.update(*(marks for literal, marks in by_start[start] if literal in letters))
    scores = dict.fromkeys(_TABLES, 0)
    for search, given in possible:
        if search(text):
            for language, weight in given:
                scores[language] += weight
    return tuple(sorted(((name, n) for name, n in scores.items() if n), key=lambda pair: -pair[1]))
