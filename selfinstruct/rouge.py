"""ROUGE-L as the historic scorer computes it: its tokens, its float expression, its thresholds.

Only the arithmetic, of one pair or of one sequence with many; pools and duplicates are elsewhere. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import LCSseq

Ints: TypeAlias = npt.NDArray[np.int64]


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
    longest = int(others.max(initial=0))
    if isinstance(length, int) and (longest + 1) * (length + 1) < len(
        others
    ):  # fewer combinations than pairs: score each once
        table = fmeasures(
            np.tile(np.arange(length + 1), longest + 1), length, np.arange(longest + 1).repeat(length + 1)
        )
        return table.take(others * np.int64(length + 1) + common)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = common / length
        recall = common / others
        return np.where(common > 0, 2 * precision * recall / (precision + recall), 0.0)


class Columns:
    """A fixed block of token sequences, laid out to compare one sequence with all of them at once.

    The layout is column by column (all first tokens, then all second ones, ...), longest sequence
    first, so that the sequences still running are always a prefix.
    """

    def __init__(self, tokens: npt.NDArray[np.int32], starts: Ints, lengths: npt.NDArray[np.int32]) -> None:
        """Lay out the sequences `tokens[starts[i] : starts[i] + lengths[i]]`."""
        order = np.argsort(-lengths.astype(np.int64), kind="stable")
        # A column costs about as much as three single comparisons, however few sequences reach it: the
        # longest are compared one by one as long as that saves time.
        tall = lengths[order]
        few = int(np.argmin(np.arange(len(order)) + 3 * tall)) if len(order) else 0
        self._long = [
            (entry, tokens[starts[entry] : starts[entry] + lengths[entry]].tolist())
            for entry in order[:few].tolist()
        ]
        self._order = order[few:]
        begins, running = starts[self._order], tall[few:][::-1]
        tallest = int(running[-1]) if len(running) else 0
        counts = len(running) - np.searchsorted(running, np.arange(tallest), side="right")
        self._counts: list[int] = counts.tolist()
        columns = [tokens[begins[:count] + place] for place, count in enumerate(self._counts)]
        self._tokens = np.concatenate(columns) if columns else np.empty(0, np.int32)

    def common(self, query: list[int], masks: npt.NDArray[Any]) -> Ints:
        """The longest common subsequence with each sequence of the block, in their order.

        Bit-parallel over the query (Hyyro 2004), one machine word a sequence, all sequences at a time.

        Args:
            query: at most as many token numbers as `masks` has bits; negative ones match nothing.
            masks: `query_masks(query, ...)`.
        """
        word = masks.dtype
        matches = masks.take(self._tokens, out=np.empty(len(self._tokens), word), mode="clip")
        state = np.full(len(self._order), np.iinfo(word).max, word)
        hits, rest = np.empty_like(state), np.empty_like(state)
        at = 0
        for count in self._counts:
            running, hit, left = state[:count], hits[:count], rest[:count]
            np.bitwise_and(running, matches[at : at + count], out=hit)
            np.subtract(running, hit, out=left)
            np.add(running, hit, out=running)
            np.bitwise_or(running, left, out=running)
            at += count
        found = np.empty(len(self._order) + len(self._long), np.int64)
        found[self._order] = np.bitwise_count(~state)
        for entry, tokens in self._long:
            found[entry] = lcs_length(query, tokens)
        return found


def query_masks(query: Sequence[int], vocabulary: int) -> npt.NDArray[Any] | None:
    """For each token number below `vocabulary` the places where `query` has it, as bits.

    None when the query is longer than the longest machine word, 64.
    """
    if len(query) > 64:
        return None
    masks = np.zeros(
        vocabulary, np.uint16 if len(query) <= 16 else np.uint32 if len(query) <= 32 else np.uint64
    )
    for place, token in enumerate(query):
        if token >= 0:
            masks[token] |= masks.dtype.type(1 << place)
    return masks
