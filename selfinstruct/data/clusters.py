"""Groups unit vectors around centroids (k-means), and chooses some of each group. Repeatable by its seed.

It knows vectors only; `embeddings` makes them of texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Ints: TypeAlias = npt.NDArray[np.int64]
_ROUNDS = 50
_BLOCK = 8192  # vectors compared with all centroids at once


@dataclass(frozen=True, slots=True)
class Clusters:
    """The outcome: (k, d) centroids of unit length, and for each vector its cluster and how near it is (cosine)."""

    centroids: Floats
    cluster: Ints
    nearness: Floats


def find_clusters(vectors: Floats, count: int, seed: int = 0) -> Clusters:
    """Spherical k-means (Dhillon and Modha 2001), begun by k-means++ (Arthur and Vassilvitskii 2007).

    Args:
        vectors: (n, d), each of unit length; may be a memory map.
        count: clusters wanted, at least 1; fewer where there are fewer vectors.
        seed: of the first centroids.
    """
    rng = np.random.default_rng(seed % 2**64)  # numpy takes no negative ones
    centroids = _first_centroids(vectors, min(count, len(vectors)), rng)
    before: Ints | None = None
    for _ in range(_ROUNDS):
        cluster, nearness = _assigned(vectors, centroids)
        if before is not None and np.array_equal(cluster, before):
            break
        before = cluster
        centroids = _means(vectors, cluster, nearness, centroids)
    cluster, nearness = _assigned(vectors, centroids)
    return Clusters(centroids, cluster, nearness)


def _first_centroids(vectors: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Each of them a vector, chosen the likelier the farther it is from those there are."""
    centroids = np.empty((count, vectors.shape[1]), np.float32)
    distance = np.full(len(vectors), np.inf)
    for number in range(count):
        if number == 0:
            chosen = int(rng.integers(len(vectors)))
        else:
            reach = np.cumsum(distance)
            chosen = int(np.searchsorted(reach, rng.random() * reach[-1], side="right"))
        centroids[number] = vectors[min(chosen, len(vectors) - 1)]
        for start in range(0, len(vectors), _BLOCK):
            part = slice(start, start + _BLOCK)
            away = np.maximum(0, 1 - (vectors[part] @ centroids[number]).astype(np.float64))
            distance[part] = np.minimum(distance[part], away)
    return centroids


def _assigned(vectors: Floats, centroids: Floats) -> tuple[Ints, Floats]:
    cluster = np.empty(len(vectors), np.int64)
    nearness = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), _BLOCK):
        near = vectors[start : start + _BLOCK] @ centroids.T
        best = near.argmax(axis=1)
        cluster[start : start + _BLOCK] = best
        nearness[start : start + _BLOCK] = near[np.arange(len(best)), best]
    return cluster, nearness


def _means(vectors: Floats, cluster: Ints, nearness: Floats, centroids: Floats) -> Floats:
    """The centroid of each cluster; one that lost all its vectors moves to the one farthest from its own."""
    sums = np.zeros(centroids.shape, np.float64)
    for start in range(0, len(vectors), _BLOCK):
        np.add.at(sums, cluster[start : start + _BLOCK], vectors[start : start + _BLOCK])
    empty = np.flatnonzero(np.bincount(cluster, minlength=len(centroids)) == 0)
    if len(empty):
        sums[empty] = vectors[np.argsort(nearness, kind="stable")[: len(empty)]]
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.asarray(sums / np.maximum(lengths, 1e-12), np.float32)


def choose_nearest(nearness: Floats, members: Ints, wanted: int) -> Ints:
    """The `wanted` members nearest to their centroid, nearest first; of equal ones the first."""
    return members[np.argsort(-nearness[members], kind="stable")[:wanted]]


def choose_spread(vectors: Floats, nearness: Floats, members: Ints, wanted: int) -> Ints:
    """`wanted` members far from each other: the farthest from the centroid, then the farthest from all chosen.

    The greedy rule of Gonzalez 1985.
    """
    own = np.asarray(vectors[members])
    nearest = np.asarray(nearness[members], np.float32).copy()  # to the centroid, later to what is chosen
    chosen: list[int] = []
    for _ in range(min(wanted, len(members))):
        farthest = int(nearest.argmin())
        alike = own @ own[farthest]
        nearest = np.maximum(nearest, alike) if chosen else alike
        chosen.append(farthest)
        nearest[chosen] = np.inf
    return members[np.array(chosen, np.int64)]
