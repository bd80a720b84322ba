"""ROUGE-L as the historic scorer computes it: its tokens, its float expression, its thresholds.

Only the arithmetic of a pair of texts; pools and duplicates are elsewhere. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import LCSseq

Ints: TypeAlias = npt.NDArray[np.int64]

_HISTORIC_TOKEN = re.compile(r"[a-z0-9]+")


def tokenize(text: str) -> list[str]:
    """The tokens of `text` as rouge_score 0.1.2 makes them without a stemmer.

    Lower case, then every run of a-z and 0-9; anything else only separates.
    """
    return _HISTORIC_TOKEN.findall(text.lower())


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


def needed_common(length: int, others: Ints, threshold: float) -> Ints:
    """The least common subsequence that lifts F above `threshold`, for one length against many.

    Args:
        length: tokens of one sequence, at least 1.
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


def fmeasures(common: Ints, length: int, others: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float64]:
    """`fmeasure` for one length against many, with the same bits."""
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = common / length
        recall = common / others
        return np.where(common > 0, 2 * precision * recall / (precision + recall), 0.0)


def lcs_lengths(
    query: Sequence[int],
    tokens: npt.NDArray[np.int32],
    starts: Ints,
    lengths: npt.NDArray[np.int32],
    vocabulary: int,
) -> Ints:
    """The longest common subsequence of one sequence with each of many.

    Args:
        query: token numbers; negative ones stand for tokens that are in no sequence.
        tokens: the token numbers of all sequences, one after the other.
        starts: where in `tokens` each sequence begins.
        lengths: how many tokens each has.
        vocabulary: one more than the highest token number.
    """
    ends = (starts + lengths).tolist()
    query = list(query)
    found = [
        lcs_length(query, tokens[start:end].tolist())
        for start, end in zip(starts.tolist(), ends, strict=True)
    ]
    return np.array(found, np.int64)
