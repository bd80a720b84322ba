"""Steps that need all rows before they can judge one: the best of a prompt, near duplicates, clusters.

The rows wait in a spool on the disk; in memory stand scores, tokens or vectors, not texts.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeAlias

import numpy as np

from selfinstruct import dedup
from selfinstruct.data import clusters
from selfinstruct.data.parts import compared, digest_of, texts_of
from selfinstruct.data.pipeline import Clusters, NearDuplicates, Step, TopK
from selfinstruct.data.rows import Example
from selfinstruct.data.spool import Spool
from selfinstruct.errors import InputError
from selfinstruct.records import JSON, Rejection

# What is dropped, by its place in the spool; the folder is for large arrays.
Decide: TypeAlias = Callable[[Spool, Path], dict[int, Rejection]]


def make_decide(step: Step) -> Decide:
    """The function of a step that needs all rows."""
    if isinstance(step, TopK):
        return partial(_top_k, step)
    if isinstance(step, NearDuplicates):
        return partial(_near, step)
    if isinstance(step, Clusters):
        return partial(_clusters, step)
    raise TypeError(f"{step.kind} works on a stream")


def _where(example: Example) -> dict[str, JSON]:
    return {"source": example.source, "row": example.number}


def _top_k(step: TopK, spool: Spool, folder: Path) -> dict[int, Rejection]:
    """The best k of each prompt; of equal scores the earlier row, and a row without a score comes last."""
    del folder
    best: dict[bytes, list[tuple[float, int]]] = {}
    dropped: dict[int, Rejection] = {}
    for place, example in enumerate(spool):
        if not texts_of(example, "prompt"):
            continue  # a document answers nothing
        score = _score(example, step.by)
        group = best.setdefault(digest_of(example, "prompt"), [])
        heapq.heappush(group, (score, -place))
        if len(group) > step.k:
            worst, gone = heapq.heappop(group)
            told = worst if math.isfinite(worst) else None
            dropped[-gone] = Rejection("not_among_best", {step.by: told, "k": step.k})
    return dropped


def _score(example: Example, by: str) -> float:
    value = example.score if by == "score" else example.extra.get(by)
    if value is None:
        return -math.inf
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = math.nan
    if math.isnan(score):
        raise InputError(
            f"{example.source}: row {example.number}: the field {by!r}, by which top-k ranks, is no number"
        )
    return score


def _near(step: NearDuplicates, spool: Spool, folder: Path) -> dict[int, Rejection]:
    """The engine of `dedup` on what is asked in each row."""
    del folder
    dropped = {}
    for verdict in dedup.judge(
        map(compared, spool), step.profile, step.threshold, step.language_cap, step.keep
    ):
        if (hit := verdict.dropped) is not None:
            nearest = _where(spool[hit.entry])
            evidence = {**nearest, "score": round(hit.score, 4), "alike": hit.why}
            dropped[verdict.number] = Rejection("near_duplicate", evidence)
    return dropped


def _clusters(step: Clusters, spool: Spool, folder: Path) -> dict[int, Rejection]:
    """What each cluster does not keep. The vectors stand in a file of 1.5 KB a row."""
    if not len(spool):
        return {}
    vectors = _vectors(step, spool, folder)
    count = step.clusters or max(1, round(math.sqrt(len(spool) / 2)))
    found = clusters.find_clusters(vectors, count, step.seed)
    dropped: dict[int, Rejection] = {}
    for number in range(len(found.centroids)):
        members = np.flatnonzero(found.cluster == number)
        wanted = max(1, round(step.share * len(members))) if step.share is not None else step.keep or 1
        if step.choose == "nearest":
            chosen = clusters.choose_nearest(found.nearness, members, wanted)
        else:
            chosen = clusters.choose_spread(vectors, found.nearness, members, wanted)
        for place in np.setdiff1d(members, chosen).tolist():
            evidence: dict[str, Any] = {
                "cluster": number,
                "of": len(members),
                "nearness": round(float(found.nearness[place]), 4),
            }
            dropped[place] = Rejection("not_chosen", evidence)
    return dropped


def _vectors(step: Clusters, spool: Spool, folder: Path) -> clusters.Floats:
    """The embeddings of all rows, in a file without a name."""
    from selfinstruct.data.embeddings import DIMENSIONS, embed_in_groups

    with TemporaryFile(dir=folder) as file:
        vectors = np.memmap(file, np.float32, "w+", shape=(len(spool), DIMENSIONS))
    start = 0
    for group in embed_in_groups("\n".join(texts_of(example, step.field)) for example in spool):
        vectors[start : start + len(group)] = group
        start += len(group)
    return vectors
