"""Strings that a text must hold for a pattern to be found in it: a cheap look that spares most searches.

It reads the part of the syntax of `re` that tables of patterns are written in, and knows no table itself. What it
cannot tell it leaves out, so a pattern may be searched for in vain, but is never missed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

Choice: TypeAlias = frozenset[str]  # at least one of these must be there
MOST: Final = 16  # strings of a choice that is put together
_TOKEN = re.compile(
    r"(?P<chars>\[\^?\]?(?:\\.|[^\]\\])*\])|(?P<open>\((?:\?(?:[a-z]*:|<?[=!]))?)|(?P<close>\))|(?P<either>\|)"
    r"|(?P<repeat>(?:[*+?]|\{\d+(?:,\d*)?\})\??)|(?P<place>[\^$]|\\[AbBZ])|(?P<any>\.)|(?P<sign>\\.|.)",
    re.DOTALL,
)
_SIGN = re.compile(r"\\.|.", re.DOTALL)
_CONTROLS = {"\\n": "\n", "\\t": "\t"}
_EMPTY: Choice = frozenset({""})
# `re.IGNORECASE` takes these for an i or an s, `str.lower` does not.
_FOLDED = str.maketrans({"\u0130": "i", "\u0131": "i", "\u017f": "s"})


def folded(text: str) -> str:
    """The text in the form in which literals are looked for in it: small letters, as `re.IGNORECASE` sees them."""
    return text.translate(_FOLDED).lower()


def literals_of(pattern: str) -> Choice | None:
    """Strings of which one stands in `folded(text)` wherever the pattern is found in `text`; None if none is known.

    Args:
        pattern: for any flags but VERBOSE; has no named groups, references, conditions, comments or flags of its own
            but those of a group (`(?i:...)`).
    """
    return _group((found.lastgroup or "", found[0]) for found in _TOKEN.finditer(pattern)).needed


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a pattern: all that it fits, if that is a few strings, and a choice that it cannot do without."""

    exact: Choice | None = None
    needed: Choice | None = None


def _group(tokens: Iterator[tuple[str, str]]) -> _Part:
    """What comes up to the closing parenthesis, or to the end."""
    ways: list[list[_Part]] = [[]]
    for kind, text in tokens:
        if kind == "close":
            break
        if kind == "either":
            ways.append([])
        elif kind == "repeat":
            ways[-1][-1] = _repeated(ways[-1][-1], text)
        elif kind == "open":
            inner = _group(tokens)
            looks_around = text[-1] in "=!"
            ways[-1].append(_Part(_EMPTY, inner.needed if text == "(?=" else None) if looks_around else inner)
        else:
            ways[-1].append(_single(kind, text))
    parts = [_sequence(way) for way in ways]
    return _Part(_union(part.exact for part in parts), _union(part.needed for part in parts))


def _sequence(parts: list[_Part]) -> _Part:
    """One part after the other; neighbours that are known exactly make longer strings."""
    choices: list[Choice] = []
    run, is_exact = _EMPTY, True
    for part in parts:
        if part.needed and part.exact in {None, _EMPTY}:
            choices.append(part.needed)
        if part.exact and len(run) * len(part.exact) <= MOST:
            run = frozenset(begun + more for begun in run for more in part.exact)
        else:
            choices.append(run)
            run, is_exact = part.exact or _EMPTY, False
    # The one that rules out most texts, by its looks: of long strings, and few.
    possible = [choice for choice in (*choices, run) if "" not in choice]
    best = max(possible, key=lambda choice: (min(map(len, choice)), -len(choice)), default=None)
    return _Part(run if is_exact else None, best)


def _union(choices: Iterable[Choice | None]) -> Choice | None:
    """What one way or the other needs; None if nothing is known of one of them."""
    found = list(choices)
    known = [choice for choice in found if choice is not None]
    return frozenset().union(*known) if len(known) == len(found) else None


def _single(kind: str, text: str) -> _Part:
    """A sign, a class of signs, or a place between them."""
    if kind == "place":
        return _Part(_EMPTY)
    inside = _SIGN.findall(text[1:-1] if kind == "chars" else text)
    signs = [_letter(one) for one in inside]
    if kind == "any" or (kind == "chars" and (inside[0] == "^" or "-" in inside[1:-1])):
        return _Part()
    choice = frozenset(sign for sign in signs if sign is not None)
    return _Part(choice, choice) if None not in signs else _Part()


def _letter(sign: str) -> str | None:
    """The one character that a sign stands for, in `folded` form; None where it stands for several."""
    if len(sign) == 2:
        return _CONTROLS.get(sign) or (None if sign[1].isalnum() else sign[1])
    return sign.lower() if sign.isascii() else None


def _repeated(part: _Part, times: str) -> _Part:
    if times[0] == "?":
        return _Part(part.exact and part.exact | _EMPTY)
    return _Part() if times[0] == "*" or times.startswith("{0") else _Part(None, part.needed)
