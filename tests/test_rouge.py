from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer, tokenizers

from selfinstruct.rouge import Occurrences, fmeasure, fmeasures, lcs_length, needed_common, tokenize

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


@given(
    st.lists(st.integers(-1, 8), max_size=150),
    st.lists(st.lists(st.integers(0, 9), max_size=70), max_size=12),
    st.integers(0, 12),
)
@settings(deadline=None)
def test_scores_with_all_have_the_bits_of_those_with_each(
    query: list[int], sequences: list[list[int]], first: int
) -> None:
    pool = Occurrences()
    assert pool.scores(query).tolist() == []
    for part in (sequences[:first], sequences[first:]):  # the list grows between two questions
        for sequence in part:
            pool.append(sequence)
        each = [rouge_scorer._score_lcs(query, one).fmeasure for one in sequences[: len(pool)]]
        assert pool.scores(query).tolist() == each


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 66, 200])
@pytest.mark.parametrize("other", [0, 1, 63, 64, 65, 66, 200])
def test_scores_at_the_edges_of_the_machine_word(length: int, other: int) -> None:
    rng = np.random.default_rng(length * 1000 + other)
    query, same = rng.integers(0, 30, length).tolist(), list(range(30, 30 + other))
    pool = Occurrences()
    for sequence in (rng.integers(0, 30, other).tolist(), same, [7] * other):
        pool.append(sequence)
        for asked in (query, same[: length + 1], [7] * length):
            each = fmeasure(lcs_length(asked, sequence), len(asked), other)
            assert pool.scores(asked).tolist()[-1] == each
