from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct.rouge import fmeasure, lcs_length
from selfinstruct.rouge_index import RougeIndex
from selfinstruct.rouge_postings import signature, signatures

WORDS = st.sampled_from("a b c d e f g h i j k l".split())  # noqa: SIM905
SEQUENCES = st.lists(st.lists(WORDS, max_size=14), max_size=40)
THRESHOLDS = st.floats(0, 1) | st.sampled_from([0.0, 0.5, 2 / 3, 0.7, 0.7 - 1e-9, 0.8, 0.9, 1.0])


def compare_all(pool: list[list[str]], query: list[str], threshold: float) -> list[tuple[int, float]]:
    scores = [fmeasure(lcs_length(query, one), len(query), len(one)) for one in pool]  # type: ignore[arg-type]
    return [(entry, score) for entry, score in enumerate(scores) if score > threshold]


def zipf_sequences(count: int, seed: int) -> list[list[str]]:
    """Sequences with natural word frequencies, a third of them an earlier one with some words changed."""
    rng = np.random.default_rng(seed)
    made: list[list[str]] = []
    for _ in range(count):
        size = int(rng.integers(1, 40))
        words = [str(word) for word in rng.zipf(1.4, size) % 3000]
        if made and rng.random() < 0.33:
            words = list(made[int(rng.integers(len(made)))])
            for _ in range(int(rng.integers(0, 1 + len(words) // 3))):
                words[int(rng.integers(len(words)))] = str(rng.integers(3000))
        made.append(words)
    return made


@given(SEQUENCES, THRESHOLDS, st.sampled_from([0, 3, 1000]), st.data())
@settings(max_examples=300, deadline=None)
def test_finds_exactly_what_comparing_all_finds(
    pool: list[list[str]], threshold: float, scanned: int, data: st.DataObject
) -> None:
    index = RougeIndex(threshold, scanned)
    for entry, sequence in enumerate(pool):
        assert index.add(sequence) == entry
        if data.draw(st.booleans()):  # postings are built in the midst of adding
            index.find(sequence)
    earlier = [compare_all(pool[:entry], sequence, threshold) for entry, sequence in enumerate(pool)]
    first = data.draw(st.integers(0, len(pool)))
    assert [[(hit.entry, hit.score) for hit in hits] for hits in index.find_earlier(first)] == earlier[first:]
    query = data.draw(st.lists(WORDS | st.just("unseen"), max_size=14) | st.sampled_from([*pool, []]))
    limit = data.draw(st.none() | st.integers(0, len(pool) + 2))
    found = [(hit.entry, hit.score) for hit in index.find(query, limit)]
    assert found == compare_all(pool[:limit], query, threshold)


@pytest.mark.parametrize("threshold", [0.4, 0.7, 0.9])
def test_finds_all_among_natural_frequencies(threshold: float) -> None:
    pool = zipf_sequences(1500, seed=int(threshold * 10))
    index = RougeIndex(threshold, scanned=100)
    for entry, sequence in enumerate(pool):
        if entry % 5 == 0:
            found = [(hit.entry, hit.score) for hit in index.find(sequence)]
            assert found == compare_all(pool[:entry], sequence, threshold)
        index.add(sequence)


@pytest.mark.parametrize("scanned", [50, 100_000])
def test_finds_the_earlier_ones_batch_by_batch(scanned: int) -> None:
    pool = zipf_sequences(1200, seed=2)
    index = RougeIndex(0.6, scanned)
    found = []
    for first in range(0, len(pool), 150):
        for sequence in pool[first : first + 150]:
            index.add(sequence)
        found += [[(hit.entry, hit.score) for hit in hits] for hits in index.find_earlier(first)]
    assert found == [compare_all(pool[:entry], sequence, 0.6) for entry, sequence in enumerate(pool)]


def test_very_long_sequences() -> None:
    index = RougeIndex(0.7, scanned=0)
    long = [str(number) for number in range(9000)]
    index.add(long)
    index.add(long[:5000])
    assert [hit.entry for hit in index.find(long[:5200])] == [0, 1]
    assert [hit.entry for hit in index.find(long[:4500])] == [1]
    assert [hit.entry for hit in index.find([*long[:5000], *["new"] * 4500])] == []


@pytest.mark.parametrize("strange", [60, 80, 100, 150, 170])
def test_many_unknown_tokens_do_not_hide_a_long_match(strange: int) -> None:
    index = RougeIndex(0.7, scanned=0)
    pool = [[str(token * step) for token in range(300)] for step in (1, 1000)]
    for sequence in pool:
        index.add(sequence)
    query = [*pool[0][: 330 - strange], *(f"new{token}" for token in range(strange))]
    assert [(hit.entry, hit.score) for hit in index.find(query)] == compare_all(pool, query, 0.7)


def test_readers_with_a_limit_are_not_disturbed_by_the_adder() -> None:
    pool = zipf_sequences(600, seed=1)
    index = RougeIndex(0.7, scanned=50)
    for sequence in pool[:300]:
        index.add(sequence)
    expected = [compare_all(pool[:300], sequence, 0.7) for sequence in pool[::20]]
    wrong: list[int] = []

    def read() -> None:
        for _ in range(5):
            for number, sequence in enumerate(pool[::20]):
                if [(hit.entry, hit.score) for hit in index.find(sequence, 300)] != expected[number]:
                    wrong.append(number)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for sequence in pool[300:]:
        index.add(sequence)
    for reader in readers:
        reader.join()
    assert wrong == []
    assert len(index) == 600


def test_scores_with_all_equal_scores_with_each() -> None:
    pool = [*zipf_sequences(330, seed=4), [], ["a"] * 70]
    index = RougeIndex(0.7)
    for entry, sequence in enumerate(pool):
        index.add(sequence)
        if entry % 9 == 0 or entry > 328:
            for query in (sequence, [*sequence[::2], "unseen"], sequence * 3, []):
                each = [fmeasure(lcs_length(query, one), len(query), len(one)) for one in pool[: entry + 1]]  # type: ignore[arg-type]
                assert index.scores(query).tolist() == each


def test_a_long_query_with_very_many_unknown_tokens_is_found() -> None:
    index = RougeIndex(0.7, scanned=0)
    pool = [[f"{part}{token}" for token in range(600)] for part in "ab"]
    for sequence in pool:
        index.add(sequence)
    query = [*pool[1], *(f"new{token}" for token in range(400))]
    assert [(hit.entry, hit.score) for hit in index.find(query)] == [(1, 0.7499999999999999)]
    assert compare_all(pool, query, 0.7) == [(1, 0.7499999999999999)]


@given(st.lists(st.lists(st.integers(0, 700), max_size=30), max_size=30))
def test_signatures_of_many_are_those_of_each(sequences: list[list[int]]) -> None:
    flat = np.array([number for sequence in sequences for number in sequence], np.int32)
    fold, wide = signatures(flat, np.array([len(sequence) for sequence in sequences], np.int64))
    assert len(fold) == len(wide) == len(sequences)
    for one, words, sequence in zip(fold.tolist(), wide, sequences, strict=True):
        assert (one, int.from_bytes(words.tobytes(), "little")) == signature(sequence)
