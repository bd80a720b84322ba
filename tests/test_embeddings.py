"""Embeddings: the forward pass against a plain one, the weight file's form, and the real model."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from selfinstruct import weights
from selfinstruct.data import embeddings
from selfinstruct.data.embeddings import DIMENSIONS, embed
from selfinstruct.errors import InputError

Array = npt.NDArray[Any]


def random_model(seed: int) -> embeddings._Model:
    rng = np.random.default_rng(seed)

    def pair(*shape: int, mean: float = 0.0) -> tuple[Any, Any]:
        scale = 0.05 if len(shape) == 2 else 0.1
        return (
            rng.normal(mean, scale, shape).astype(np.float32),
            rng.normal(0, 0.1, shape[-1]).astype(np.float32),
        )

    layers = tuple(
        embeddings._Layer(
            pair(384, 1152),
            pair(384, 384),
            pair(384, mean=1),
            pair(384, 1536),
            pair(1536, 384),
            pair(384, mean=1),
        )
        for _ in range(6)
    )
    words = rng.normal(0, 1, (50, 384)).astype(np.float32)
    places = rng.normal(0, 0.1, (64, 384)).astype(np.float32)
    return embeddings._Model(words, places, pair(384, mean=1), layers, None)


def plainly(model: embeddings._Model, ids: list[int]) -> Array:
    """One sequence in double precision, head by head, with the exact error function."""

    def norm(x: Array, by: tuple[Any, Any]) -> Array:
        centred = x - x.mean(1, keepdims=True)
        return np.asarray(centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-12) * by[0] + by[1])

    erf = np.vectorize(math.erf)
    x = norm(
        np.array([model.words[t].astype(float) + model.places[p] for p, t in enumerate(ids)]), model.norm
    )
    for layer in model.layers:
        query, key, value = np.split(x @ layer.qkv[0] + layer.qkv[1], 3, axis=1)
        heads = []
        for head in range(12):
            part = slice(32 * head, 32 * head + 32)
            scores = query[:, part] @ key[:, part].T / math.sqrt(32)
            shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
            heads.append(shares @ value[:, part])
        x = norm(x + np.concatenate(heads, 1) @ layer.joined[0] + layer.joined[1], layer.norm_joined)
        wide = x @ layer.wide[0] + layer.wide[1]
        wide = wide * (1 + np.asarray(erf(wide / math.sqrt(2)))) / 2
        x = norm(x + wide @ layer.narrow[0] + layer.narrow[1], layer.norm_narrow)
    mean = x.mean(0)
    return np.asarray(mean / np.linalg.norm(mean))


def test_a_padded_batch_is_what_each_text_is_alone() -> None:
    model = random_model(1)
    rng = np.random.default_rng(2)
    batch = [rng.integers(0, 50, length).tolist() for length in (1, 2, 5, 5, 17, 40)]
    found = embeddings._forward(model, batch)
    expected = np.array([plainly(model, ids) for ids in batch])
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 2e-6


def test_the_weight_file_is_read_by_its_head() -> None:
    values = np.arange(6, dtype="<f4")
    head = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "ids": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]},
            "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [8, 32]},
        }
    ).encode()
    data = len(head).to_bytes(8, "little") + head + bytes(8) + values.tobytes()
    found = embeddings._tensors(data)
    assert list(found) == ["w"]
    assert found["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_embeddings_are_no_model_that_writes() -> None:
    with pytest.raises(InputError, match="writes no text"):
        weights.resolve("minilm-l6")


@pytest.mark.model
def test_the_real_model_knows_what_is_alike() -> None:
    texts = [
        "Write a Python function that reverses a list.",
        "Reverse the elements of an array in Python.",
        "What is the capital of France?",
        "",
        "a lone surrogate \ud800 does no harm",
    ]
    found = embed(texts)
    assert found.shape == (5, DIMENSIONS)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    alike = found @ found.T
    assert alike[0, 1] > 0.7
    assert alike[0, 2] < 0.2
    assert np.abs(embed(texts[::-1])[::-1] - found).max() < 1e-5
    assert embed([]).shape == (0, DIMENSIONS)


@pytest.mark.model
def test_the_real_model_says_what_its_reference_implementation_says() -> None:
    # Of sentence-transformers on torch 2.13.
    reference = [0.0080585489, 0.0619131885, -0.0232753195, -0.0180915091, -0.0112521630, 0.0660241693]
    found = embed(["What are the distinct values from the given list?"])
    assert np.abs(found[0, :6] - reference).max() < 1e-6
