"""Lays similar rows one after another as conversations up to a length, and measures how similar they are.

Pure: it knows vectors, lengths and numbers of rows; `conversation_files` has the texts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Block:
    """A row that goes into a conversation as a whole.

    `tokens` and `turns` (a question with its answer) are its length. Rows under different system messages
    cannot stand in one conversation, for it begins with its own.
    """

    tokens: int
    turns: int = 1
    system: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Rows by number, in the order in which they are said.

    `similarity` is the mean cosine of neighbours; None where there is one row only.
    """

    rows: tuple[int, ...]
    tokens: int
    turns: int
    cluster: int
    similarity: float | None


@dataclass(frozen=True, slots=True)
class Quality:
    """A cluster: its rows, their mean cosine with each other, and that with the rows of the nearest other one.

    `inside` is None for a single row, `outside` where there is no other cluster.
    """

    cluster: int
    rows: int
    inside: float | None
    outside: float | None


def lay_out(
    vectors: Floats,
    cluster: Ints,
    blocks: Sequence[Block],
    max_tokens: int,
    max_turns: int | None = None,
) -> list[Conversation]:
    """Put every row into exactly one conversation.

    The rows of a cluster are walked from the one in its middle, always on to the most similar one that is
    left; a new conversation begins where the next row would not fit. A row longer than `max_tokens` is a
    conversation of its own.

    Args:
        vectors: (n, d), of unit length.
        cluster: (n,) the cluster of each row.
        blocks: n lengths.
        max_tokens: of a conversation.
        max_turns: of a conversation; None for any number.

    Returns:
        Cluster after cluster, in the order of their numbers.
    """
    together: dict[tuple[int, str], list[int]] = defaultdict(list)
    for number, (group, block) in enumerate(zip(cluster.tolist(), blocks, strict=True)):
        together[group, block.system].append(number)
    found = []
    for (group, _), members in sorted(together.items()):
        begun: list[int] = []
        tokens = turns = 0
        for number in _walk(vectors, members):
            tokens += blocks[number].tokens
            turns += blocks[number].turns
            if begun and (tokens > max_tokens or (max_turns is not None and turns > max_turns)):
                found.append(_conversation(vectors, blocks, begun, group))
                begun, tokens, turns = [], blocks[number].tokens, blocks[number].turns
            begun.append(number)
        found.append(_conversation(vectors, blocks, begun, group))
    return found


def _walk(vectors: Floats, members: Sequence[int]) -> list[int]:
    """From the row nearest to the mean of all, always on to the one most similar to the last; of equals the first."""
    own = vectors[list(members)]
    left = np.ones(len(members), bool)
    place = int((own @ own.mean(axis=0)).argmax())
    order = []
    while True:
        order.append(members[place])
        left[place] = False
        if not left.any():
            return order
        place = int(np.where(left, own @ own[place], -np.inf).argmax())


def _conversation(
    vectors: Floats, blocks: Sequence[Block], rows: Sequence[int], cluster: int
) -> Conversation:
    near = [float(vectors[one] @ vectors[other]) for one, other in pairwise(rows)]
    return Conversation(
        tuple(rows),
        sum(blocks[row].tokens for row in rows),
        sum(blocks[row].turns for row in rows),
        cluster,
        round(sum(near) / len(near), 4) if near else None,
    )


def measure(vectors: Floats, cluster: Ints) -> list[Quality]:
    """How similar the rows of each cluster are among themselves and to those of the nearest other cluster.

    Mean cosines of all pairs follow from the clusters' sums, so no pair is looked at.
    """
    numbers, place, sizes = np.unique(cluster, return_inverse=True, return_counts=True)
    sums = np.zeros((len(numbers), vectors.shape[1]), np.float64)
    np.add.at(sums, place, vectors)
    pairs = np.maximum(sizes * (sizes - 1), 1)
    inside = ((sums**2).sum(axis=1) - sizes) / pairs
    means = sums / sizes[:, None]
    between = means @ means.T
    np.fill_diagonal(between, -np.inf)
    return [
        Quality(
            int(number),
            int(size),
            round(float(alike), 4) if size > 1 else None,
            round(float(other.max()), 4) if len(numbers) > 1 else None,
        )
        for number, size, alike, other in zip(numbers, sizes, inside, between, strict=True)
    ]


def mean_similarity(vectors: Floats) -> float:
    """The mean cosine of all pairs of rows: what neighbours drawn at random would have."""
    total, count = vectors.sum(axis=0, dtype=np.float64), len(vectors)
    return float((total @ total - count) / (count * (count - 1))) if count > 1 else 1.0
