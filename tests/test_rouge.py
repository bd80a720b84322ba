from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer, tokenizers

from selfinstruct.rouge import Columns, fmeasure, fmeasures, lcs_length, needed_common, query_masks, tokenize

HISTORIC = tokenizers.DefaultTokenizer(use_stemmer=False)
TOKENS = st.lists(st.integers(0, 6), max_size=40)


@given(st.text() | st.text("aB z\u0130\u017fK9-_#\u00df\u212a", max_size=60))
@settings(deadline=None)
def test_tokens_are_those_of_rouge_score(text: str) -> None:
    assert tokenize(text) == HISTORIC.tokenize(text)


@given(TOKENS, TOKENS)
@settings(deadline=None)
def test_score_has_the_bits_of_rouge_score(one: list[int], two: list[int]) -> None:
    assert fmeasure(lcs_length(one, two), len(one), len(two)) == rouge_scorer._score_lcs(one, two).fmeasure


@given(st.integers(1, 400), st.integers(1, 400), st.data())
@settings(deadline=None)
def test_arrays_score_as_single_pairs_do(one: int, two: int, data: st.DataObject) -> None:
    common = data.draw(st.integers(0, min(one, two)))
    many = fmeasures(np.array([common]), one, np.array([two], np.int32))
    assert many.tolist() == [fmeasure(common, one, two)]


@given(st.integers(1, 150), st.floats(0, 1) | st.sampled_from([0.5, 0.6, 2 / 3, 0.7, 0.75, 0.8, 0.9]))
@settings(deadline=None)
def test_needed_common_is_the_least_that_passes(length: int, threshold: float) -> None:
    others = np.arange(1, 300)
    for other, needed in zip(others.tolist(), needed_common(length, others, threshold).tolist(), strict=True):
        most = min(length, other)
        passing = [n for n in range(most + 1) if fmeasure(n, length, other) > threshold]
        assert needed == (passing[0] if passing else most + 1)


def test_true_ties_at_seven_tenths_fall_on_both_sides() -> None:
    ties = [
        fmeasure(common, one, two)
        for one in range(1, 151)
        for two in range(one, 151)
        for common in range(1, one + 1)
        if 20 * common == 7 * (one + two)
    ]
    above = sum(score > 0.7 for score in ties)
    assert 0 < above < len(ties)


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 31, 32, 33, 63, 64])
@pytest.mark.parametrize("many", [0, 1, 63, 300])
def test_common_subsequences_with_many_equal_those_with_each(length: int, many: int) -> None:
    rng = np.random.default_rng(length)
    query = rng.integers(-1, 9, length).tolist()
    lengths = rng.integers(0, 90, many).astype(np.int32)
    starts = (np.cumsum(lengths) - lengths).astype(np.int64)
    tokens = rng.integers(0, 12, int(lengths.sum())).astype(np.int32)
    masks = query_masks(query, 12)
    assert masks is not None
    each = [tokens[start : start + size].tolist() for start, size in zip(starts, lengths, strict=True)]
    expected = [lcs_length(query, one) for one in each]
    assert Columns(tokens, starts, lengths).common(query, masks).tolist() == expected


def test_no_masks_for_a_query_longer_than_a_machine_word() -> None:
    assert query_masks(range(65), 65) is None
