"""ROUGE-L as the historic scorer computes it: its tokens, its float expression, its thresholds.

Only the arithmetic, of one pair or of one sequence with many; pools and duplicates are elsewhere. Pure.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import LCSseq

Ints: TypeAlias = npt.NDArray[np.int64]
_WORD = 64  # bits of the machine word that holds the places of an entry


def tokenize(text: str) -> list[str]:
    """The tokens of `text` as rouge_score makes them without a stemmer: its own function defines them.

    Lower case, then every run of a-z and 0-9; anything else only separates.
    """
    from rouge_score.tokenize import tokenize as historic_tokens

    tokens: list[str] = historic_tokens(text, None)
    return tokens


def fmeasure(common: int, length: int, other: int) -> float:
    """ROUGE-L F of two sequences of `length` and `other` tokens with a common subsequence of `common`.

    The expression is that of rouge_score 0.1.2 (precision and recall first, then 2PR/(P+R)), so the
    result is equal to the last bit; 2*common/(length+other) is not. Symmetric in the two lengths.
    """
    if common == 0:  # also where a sequence is empty
        return 0.0
    precision = common / length
    recall = common / other
    return 2 * precision * recall / (precision + recall)


def lcs_length(one: Sequence[int], two: Sequence[int]) -> int:
    """The length of the longest common subsequence (bit-parallel, from rapidfuzz)."""
    return int(LCSseq.similarity(one, two))


def needed_common(length: int | Ints, others: Ints, threshold: float) -> Ints:
    """The least common subsequence that lifts F above `threshold`, for one length against many.

    Args:
        length: tokens of one sequence, or of as many as there are others; at least 1.
        others: tokens of the other sequences, each at least 1.
        threshold: any number; F must be greater than it.

    Returns:
        An array like `others`. Where not even a full match is enough, one more than the shorter length.
    """
    shorter = np.minimum(length, others)
    # In exact arithmetic the answer is floor(t*(a+b)/2) + 1; rounding can move it by one either way,
    # because the float F of a true tie may fall on either side of the threshold.
    guess = np.floor(threshold * (length + others) / 2).astype(np.int64) - 1
    needed = shorter + 1
    for step in (3, 2, 1, 0):
        common = guess + step
        inside = (common >= 0) & (common <= shorter)
        enough = fmeasures(common, length, others) > threshold
        needed = np.where(inside & enough, common, needed)
    if threshold < 0:
        needed = np.zeros_like(others)
    return needed


def fmeasures(
    common: Ints, length: int | Ints, others: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[np.float64]:
    """`fmeasure` for one length against many, with the same bits."""
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = common / length
        recall = common / others
        return np.where(common > 0, 2 * precision * recall / (precision + recall), 0.0)


class Occurrences:
    """A growing list of token sequences that is compared with one sequence as a whole: F with each.

    For each token: the entries that have it, and at which places, as bits of one machine word. The
    recurrence of Hyyro 2004 then runs over the query, one step a token, with the state on the entries'
    side: so a step touches only the entries that have the token. Entries of more than 64 tokens take
    the same steps one by one, in Python's integers. One thread at a time: the state is kept.
    """

    def __init__(self) -> None:
        self._postings: dict[int, tuple[array[int], array[int]]] = {}  # of a token: entries, places
        self._views: dict[int, tuple[Ints, npt.NDArray[np.uint64]]] = {}  # the same as numpy sees it
        self._rows = array("q")  # of each entry: where its length begins in `_scores_of`
        self._long: dict[int, int] = {}  # entries with more tokens than a word has bits, and how many
        self._long_postings: dict[int, list[tuple[int, int]]] = {}  # of a token: such entry, places
        self._state = np.empty(0, np.uint64)  # kept, as fresh memory costs more than what is done in it

    def __len__(self) -> int:
        return len(self._rows)

    def append(self, tokens: Sequence[int]) -> None:
        """Add an entry, given as token numbers of at least 0."""
        entry, places = len(self._rows), dict[int, int]()
        for place, token in enumerate(tokens):
            places[token] = places.get(token, 0) | 1 << place
        if len(tokens) > _WORD:
            for token, bits in places.items():
                self._long_postings.setdefault(token, []).append((entry, bits))
            self._long[entry] = len(tokens)
            self._rows.append(0)
            return
        for token, bits in places.items():
            self._views.pop(token, None)  # an array that numpy looks into cannot grow
            posting = self._postings.get(token)
            if posting is None:
                posting = self._postings[token] = array("q"), array("Q")
            posting[0].append(entry)
            posting[1].append(bits)
        self._rows.append(len(tokens) * (_WORD + 1))

    def scores(self, query: Sequence[int]) -> npt.NDArray[np.float64]:
        """F of `query` with every entry, in their order; token numbers below 0 match nothing."""
        count = len(self._rows)
        if count > len(self._state):
            self._state = np.empty(count + count // 8, np.uint64)
        state = self._state[:count]
        state.fill(np.iinfo(np.uint64).max)
        for token in query:
            view = self._views.get(token) or self._view(token)
            if view is not None:
                entries, places = view
                running = state.take(entries)
                hit = running & places
                rest = running - hit
                running += hit
                running |= rest
                state[entries] = running
        common = np.bitwise_count(np.invert(state, out=state))
        rows = np.add(common, np.frombuffer(self._rows, np.int64), out=state.view(np.int64))
        scores: npt.NDArray[np.float64] = _scores_of(len(query)).take(rows)
        for entry, long in self._common_with_long(query):
            scores[entry] = fmeasure(long, len(query), self._long[entry])
        return scores

    def _common_with_long(self, query: Sequence[int]) -> Iterator[tuple[int, int]]:
        states = {entry: (1 << size) - 1 for entry, size in self._long.items()}
        for token in query:
            for entry, places in self._long_postings.get(token, ()):
                state = states[entry]
                hit = state & places
                states[entry] = (state + hit) | (state - hit)
        for entry, size in self._long.items():
            yield entry, (~states[entry] & ((1 << size) - 1)).bit_count()

    def _view(self, token: int) -> tuple[Ints, npt.NDArray[np.uint64]] | None:
        posting = self._postings.get(token)
        if posting is None:
            return None
        view = np.frombuffer(posting[0], np.int64), np.frombuffer(posting[1], np.uint64)
        self._views[token] = view
        return view


@lru_cache(maxsize=128)
def _scores_of(length: int) -> npt.NDArray[np.float64]:
    """F of `length` tokens with 0 to 64 others, row by row, for 0 to 64 in common."""
    others, common = np.divmod(np.arange((_WORD + 1) ** 2), _WORD + 1)
    return fmeasures(common, length, others)
