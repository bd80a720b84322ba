"""Which rows of which source go where: validation, training, how often, in which order. Numbers only.

Everything follows from the seed by an own generator, so that a mix is the same on every machine and version.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Keys: TypeAlias = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of a source; fields as in the settings."""

    name: str
    probability: float | None = None
    fraction: float | None = None
    count: int | None = None
    cap: int | None = None
    repeats: int = 1
    validation: float = 0.0
    validation_cap: int | None = None


class TooFew(Exception):
    """A source has fewer rows than the mix asks of it; the message is for the user."""


@dataclass(frozen=True, slots=True)
class Share:
    """The rows of one source by their places: for validation, and for training, repeated ones many times."""

    validation: Ints
    training: Ints


def keys(seed: int, use: str, count: int) -> Keys:
    """`count` random 64-bit numbers: SplitMix64 (Steele, Lea and Flood 2014), begun by a hash of seed and use."""
    begin = int.from_bytes(hashlib.blake2b(f"{seed}\0{use}".encode(), digest_size=8).digest(), "little")
    state = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(begin)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(state ^ (state >> np.uint64(31)), np.uint64)


def shuffled(seed: int, use: str, count: int) -> Ints:
    """The numbers below `count` in a random order."""
    return np.asarray(np.argsort(keys(seed, use, count), kind="stable"), np.int64)


def share_out(wishes: Sequence[Wish], available: Sequence[int], rows: int | None, seed: int) -> list[Share]:
    """Choose rows of each source.

    The validation rows are taken first; those beyond the cap go back to training. Probabilities are met to the
    row (largest remainders), not by chance.

    Args:
        wishes: of each source.
        available: the rows that each has.
        rows: for training, of all sources with a probability together; None for as many as they have.
        seed: two sources of different names do not depend on each other.

    Raises:
        TooFew: a source cannot give what is asked of it.
    """
    held = [_held_out(wish, count) for wish, count in zip(wishes, available, strict=True)]
    rest = [count - out for count, out in zip(available, held, strict=True)]
    wanted = _wanted(wishes, rest, rows)
    shares = []
    for wish, count, out, train in zip(wishes, available, held, wanted, strict=True):
        order = shuffled(seed, f"rows of {wish.name}", count)
        pool = order[out:]
        whole, more = divmod(train, len(pool)) if len(pool) else (0, 0)
        shares.append(Share(order[:out], np.concatenate([np.tile(pool, whole), pool[:more]])))
    return shares


def _held_out(wish: Wish, available: int) -> int:
    wanted = round(wish.validation * available)
    return wanted if wish.validation_cap is None else min(wanted, wish.validation_cap)


def _wanted(wishes: Sequence[Wish], rest: Sequence[int], rows: int | None) -> list[int]:
    """Training rows of each source."""
    most = [
        left * wish.repeats if wish.cap is None else min(left * wish.repeats, wish.cap)
        for wish, left in zip(wishes, rest, strict=True)
    ]
    wanted = []
    for wish, left, limit in zip(wishes, rest, most, strict=True):
        if wish.count is not None and wish.count > limit:
            raise TooFew(f"source {wish.name}: has {limit} rows to give, and count asks for {wish.count}")
        if wish.probability is not None:
            wanted.append(0)
        elif wish.count is not None:
            wanted.append(wish.count)
        else:
            fraction = 1.0 if wish.fraction is None else wish.fraction
            wanted.append(min(limit, math.floor(fraction * left + 0.5)))
    sharing = [number for number, wish in enumerate(wishes) if wish.probability is not None]
    weights, limits = [wishes[at].probability or 0 for at in sharing], [most[at] for at in sharing]
    for at, part, limit in zip(sharing, _quotas(weights, limits, rows), limits, strict=True):
        if not limit:
            raise TooFew(f"source {wishes[at].name}: has no rows to give, so nothing is in proportion to it")
        if part > limit:
            raise TooFew(
                f"source {wishes[at].name}: has {limit} rows to give, and its probability asks for {part} of "
                f"{rows}; lower rows to {sum(_quotas(weights, limits, None))}, or allow it more repeats"
            )
        wanted[at] = part
    return wanted


def _quotas(weights: Sequence[float], most: Sequence[int], rows: int | None) -> list[int]:
    """`rows` in proportion to the weights; without it as many as all sources can give in this proportion."""
    total = sum(weights)
    if rows is None:
        if not weights:
            return []
        able = min(limit * total / weight for weight, limit in zip(weights, most, strict=True))
        rows = math.floor(able + 1e-9)
        while any(part > limit for part, limit in zip(_quotas(weights, most, rows), most, strict=True)):
            rows -= 1  # by rounding, a few times at most
    exact = [rows * weight / total for weight in weights]
    parts = [math.floor(value + 1e-9) for value in exact]
    by_remainder = sorted(range(len(parts)), key=lambda at: (parts[at] - exact[at], at))
    for at in by_remainder[: rows - sum(parts)]:
        parts[at] += 1
    return parts
