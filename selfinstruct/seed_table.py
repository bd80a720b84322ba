"""Picks seed tasks by language, kind and difficulty, and counts them: rows of a table, no drawing of pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from selfinstruct.records import Seed
from selfinstruct.vocabulary import KINDS, LANGUAGES

NOT_TOLD = "not told"  # in the place of a language or kind that a historic seed does not have

Counts = dict[tuple[str, str], int]


def choose(
    seeds: Iterable[Seed],
    languages: Sequence[str] = (),
    kinds: Sequence[str] = (),
    difficulties: Sequence[str] = (),
) -> list[Seed]:
    """The seeds that are of one of the (canonical) names of every list that is not empty."""
    return [
        seed
        for seed in seeds
        if (not languages or seed.language in languages)
        and (not kinds or seed.kind in kinds)
        and (not difficulties or seed.difficulty in difficulties)
    ]


def as_row(seed: Seed) -> dict[str, str | None]:
    """A seed as JSON tells it."""
    keys = ("id", "language", "kind", "difficulty", "instruction", "input", "output", "topic")
    return {key: getattr(seed, key) for key in keys}


def count(seeds: Iterable[Seed]) -> tuple[list[str], list[str], Counts]:
    """The languages and kinds that occur, in the order of the vocabulary, and the tasks of each pair."""
    counts: Counts = Counter((seed.language or NOT_TOLD, seed.kind or NOT_TOLD) for seed in seeds)
    languages = [name for name in (*LANGUAGES, NOT_TOLD) if any(pair[0] == name for pair in counts)]
    kinds = [name for name in (*KINDS, NOT_TOLD) if any(pair[1] == name for pair in counts)]
    return languages, kinds, counts


def as_text(seeds: Iterable[Seed]) -> str:
    """The counts as a table, language by kind with totals, no wider than 80 columns.

    The kinds stand letter below letter: side by side they would take 140 columns.
    """
    languages, kinds, counts = count(seeds)
    tall = max(map(len, (*kinds, "total")))
    wide = max(map(len, (*languages, "total")))
    lines = []
    for at in range(tall):
        letters = "".join(f"  {kind.rjust(tall)[at]}" for kind in kinds)
        lines.append(f"{' ' * wide}{letters}    {'total'.rjust(tall)[at]}".rstrip())
    for language in languages:
        numbers = [counts.get((language, kind), 0) for kind in kinds]
        lines.append(_line(language, [*numbers, sum(numbers)], wide))
    sums = [sum(counts.get((language, kind), 0) for language in languages) for kind in kinds]
    lines.append(_line("total", [*sums, sum(sums)], wide))
    return "\n".join(lines)


def _line(name: str, numbers: Sequence[int], wide: int) -> str:
    return name.ljust(wide) + "".join(f"{number or '.':>3}" for number in numbers[:-1]) + f"{numbers[-1]:>5}"
