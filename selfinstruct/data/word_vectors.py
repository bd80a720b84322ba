"""Vectors of texts by the words they have in common, without a model: hashed TF-IDF, projected at random.

For where the weights of `embeddings` are not wanted. Texts that say the same in other words are far apart.
Source: random projection keeps angles (Johnson and Lindenstrauss 1984; signs as in Achlioptas 2003).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
DIMENSIONS = 256
_WORD = re.compile(r"\w+")


def word_vectors(texts: Sequence[str]) -> Floats:
    """One unit vector for each text; the more rare words two share, the higher their product.

    Returns:
        float32, (number of texts, `DIMENSIONS`); the same on every machine but for the last digits.
    """
    counts = [Counter(map(str.lower, _WORD.findall(text))) for text in texts]
    spread = Counter(word for count in counts for word in count)
    signs = {word: _signs(word) * math.log((1 + len(texts)) / uses) for word, uses in spread.items()}
    vectors = np.zeros((len(texts), DIMENSIONS), np.float32)
    for place, count in enumerate(counts):
        for word, times in count.items():
            vectors[place] += (1 + math.log(times)) * signs[word]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[lengths[:, 0] == 0, 0] = 1  # a text without a word
    return np.asarray(vectors / np.where(lengths == 0, 1, lengths), np.float32)


def _signs(word: str) -> Floats:
    digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=DIMENSIONS // 8).digest()
    return np.unpackbits(np.frombuffer(digest, np.uint8)).astype(np.float32) * 2 - 1
