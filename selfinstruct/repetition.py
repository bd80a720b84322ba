"""Finds text that a model repeats without end. Whether a candidate is refused for it is told in `filters`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

LOOP: Final = 10  # that often in a row is no chance
MAX_PERIOD: Final = 60  # tokens; longer loops are seen as one line again and again
SAME_LINES: Final = 20
FEW, FEW_OF = 8, 160  # no more than 8 different words among 160 is a loop with variations
_WORD = re.compile(r"[^\W\d_]{3}")


def loop_of(text: str) -> str:
    """The unit that a text repeats without end, "" if it does not.

    Ten times the same few words in a row, one line for half of the text, or a run of few different words.
    """
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if len(lines) - len(set(lines)) >= SAME_LINES - 1:
        line, count = Counter(lines).most_common(1)[0]
        if count >= SAME_LINES and 2 * count > len(lines) and len(line) >= 20:
            return line
    # A unit that comes ten times has a word that does; most texts have none, and are spared the search.
    names = re.findall(r"\w+", text)
    often = Counter(names) if len(names) - len(set(names)) >= LOOP - 1 else {}
    looped = any(times >= LOOP and _WORD.search(name) for name, times in often.items())
    if looped and (unit := _unit(re.findall(r"\w+|[^\w\s]", text))):
        return unit
    if len(names) < FEW_OF:
        return ""
    # Numbers count as words here: rules of a style sheet or test cases say the same of different ones.
    words = re.findall(r"\w{2,}|\d", text)
    for i in range(0, len(words) - FEW_OF + 1, FEW_OF // 4):
        few = set(words[i : i + FEW_OF])
        if len(few) <= FEW and not any(map(str.isdigit, few)):
            return " ".join(sorted(few))
    return ""


def _unit(tokens: Sequence[str]) -> str:
    """The few tokens that come ten times in a row, "" if there are none."""
    for period in range(1, min(MAX_PERIOD, len(tokens) // LOOP) + 1):
        run = 0
        for i in range(period, len(tokens)):
            run = run + 1 if tokens[i] == tokens[i - period] else 0
            if run == period * (LOOP - 1):
                unit = " ".join(tokens[i - period + 1 : i + 1])
                # Numbers and marks may well come ten times: zeros of a matrix, cells of a table.
                if _WORD.search(unit) and len(unit) * LOOP >= 100:
                    return unit
    return ""
