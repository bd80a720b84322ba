"""An exact index of token sequences: which of them have ROUGE-L F above a threshold with a new one.

It knows tokens, not texts: how a text becomes tokens, and what a match means, is the rule's affair.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from selfinstruct.rouge import Ints, Occurrences, fmeasure, lcs_length, needed_common
from selfinstruct.rouge_postings import (
    WIDE,
    Batch,
    Bits,
    Needs,
    Postings,
    Query,
    Words,
    allowed_of,
    build,
    compare,
    differing,
    half_of,
    near,
    needs_of,
    pooled,
    search,
    search_many,
    signature,
    signatures,
    slack_of,
    slacks_of,
    words_of,
)

_T = TypeVar("_T", bound=np.generic)
_SCANNED = 32768  # newest entries that are looked through one by one; more only as the index grows
_PENDING = 4096  # entries whose signatures are made at once at most
_FEW, _MANY = 8, 2  # how much larger than the newer ones postings must be to be left as they are


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry of the index, the length of its common subsequence with the query, and F."""

    entry: int
    common: int
    score: float


class RougeIndex:
    """A growing list of token sequences that finds all with F > `threshold`, losing none.

    Three facts let it pass over nearly everything before a common subsequence is computed. With
    `needed` the least common subsequence of a and b tokens that is enough:

    - Prefixes (as in set-similarity joins): order all tokens from rare to common. Two sequences that
      match share one of the a - needed + 1 rarest tokens of the one and b - needed + 1 of the other. So
      only these are posted, and the more common the token, the fewer lengths have to be looked at.
    - Parity signatures: every token flips one of 256 bits. Matching sequences differ in at most
      a + b - 2*needed tokens, hence in at most that many bits.
    - The lengths alone bound F.

    The newest entries are not posted yet; their signatures are scanned, which for a small index is the
    faster way anyhow. One thread adds, several may ask; a lock keeps them apart.
    """

    def __init__(self, threshold: float, scanned: int = _SCANNED) -> None:
        self._threshold = threshold
        self._scanned = scanned
        self._lock = threading.RLock()
        self._ids: defaultdict[str, int] = defaultdict(count().__next__)  # numbers as tokens first appear
        self._pending: list[list[int]] = []  # the newest entries, not in the arrays yet
        self._count = 0
        self._longest = 0
        self._fold: Words = np.empty(1024, np.uint64)  # the words of a wide signature, xored
        self._wide: Words = np.empty((1024, WIDE), np.uint64)
        self._slack: Bits = np.empty(1024, np.int8)  # bits that an entry's length allows
        self._length: npt.NDArray[np.int32] = np.empty(1024, np.int32)
        self._start: Ints = np.zeros(1025, np.int64)
        self._tokens: npt.NDArray[np.int32] = np.empty(16384, np.int32)
        self._needs: dict[int, Needs] = {}
        self._postings: list[Postings] = []
        self._occurrences = Occurrences()  # of the entries that were there when all were last scored

    def __len__(self) -> int:
        return self._count

    def add(self, tokens: Sequence[str]) -> int:
        """Append a sequence; returns its entry number. Time: proportional to its length."""
        with self._lock:
            self._pending.append(list(map(self._ids.__getitem__, tokens)))
            self._longest = max(self._longest, len(tokens))
            self._count += 1
            if len(self._pending) >= _PENDING:
                self._settle()
            return self._count - 1

    def _settle(self) -> None:
        """Bring the entries that were added since the last search into the arrays."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        if len(pending) == 1:
            self._put(self._count - 1, pending[0])
            return
        first, start = self._count - len(pending), int(self._start[self._count - len(pending)])
        sizes = np.fromiter(map(len, pending), np.int64, len(pending))
        ends = start + np.cumsum(sizes)
        self._reserve(self._count, int(ends[-1]))
        new, ids = slice(first, self._count), slice(start, int(ends[-1]))
        self._tokens[ids] = np.fromiter(chain.from_iterable(pending), np.int32, int(ends[-1]) - start)
        self._start[first + 1 : self._count + 1] = ends
        self._length[new] = sizes
        self._slack[new] = slacks_of(sizes, self._threshold)
        self._fold[new], self._wide[new] = signatures(self._tokens[ids], sizes)

    def _put(self, entry: int, ids: list[int]) -> None:
        """One entry; arrays of one element would take five times as long."""
        start, size = int(self._start[entry]), len(ids)
        self._reserve(entry + 1, start + size)
        self._tokens[start : start + size] = ids
        self._start[entry + 1] = start + size
        self._length[entry] = size
        self._slack[entry] = slack_of(size, self._threshold)
        self._fold[entry], wide = signature(ids)
        self._wide[entry] = words_of(wide)

    def find(self, tokens: Sequence[str], limit: int | None = None) -> list[Hit]:
        """All of the first `limit` entries whose F with `tokens` is above the threshold, in order."""
        with self._lock:
            self._settle()
            known = self._count if limit is None else min(limit, self._count)
            size = len(tokens)
            if not size or not known:
                return []
            get = self._ids.get
            ids = [number for token in tokens if (number := get(token)) is not None]
            needs = self._needed(size)
            if len(ids) < needs.least:
                return []
            allowed = allowed_of(size, size - len(ids), self._threshold)
            query = Query(size, ids, *signature(ids), needs, allowed)
            parts, posted = [], 0
            for postings in self._fresh_postings(_FEW):
                some = search(postings, query)
                parts.append(self._scan(posted, postings.end, query) if some is None else some)
                posted = postings.end
            if known > posted:
                parts.append(self._scan(posted, known, query))
            found = np.concatenate(parts)
            return self._verify(found[found < known] if known < posted else found, query)

    def find_earlier(self, first: int) -> list[list[Hit]]:
        """For each entry from `first` on what `find` finds among the entries before it.

        Much faster than asking one by one; best with some thousand entries at a time.
        """
        with self._lock:
            self._settle()
            end, starts = self._count, self._start
            fold = self._fold[first:end]
            sizes = self._length[first:end]
            allowed = np.array([allowed_of(size, 0, self._threshold) for size in sizes.tolist()], np.int8)
            batch = Batch(
                first, end, self._tokens, starts, fold, half_of(self._wide[first:end]), allowed, self._needed
            )
            found: list[dict[int, Hit]] = [{} for _ in range(first, end)]
            for query, entry in pooled(self._candidates(batch)):
                self._verify_pairs(query + first, entry, first, found)
            return [[hits[entry] for entry in sorted(hits)] for hits in found]

    def _candidates(self, batch: Batch) -> Iterator[tuple[Ints, Ints]]:
        posted = 0
        for postings in self._fresh_postings(_MANY) if batch.first < batch.last else ():
            yield from search_many(postings, batch)
            posted = postings.end
        newest = compare(
            batch.fold, batch.allowed, self._fold[posted : batch.last], self._slack[posted : batch.last]
        )
        for query, entry in newest:
            yield query, entry + posted

    def common(self, entry: int, tokens: Sequence[str]) -> int:
        """The length of the longest common subsequence of one entry and `tokens`."""
        with self._lock:
            self._settle()
            return lcs_length(
                [self._ids[token] for token in tokens if token in self._ids], self._entry(entry)
            )

    def common_of(self, entry: int, other: int, first: int) -> int:
        """The length of the longest common subsequence of an entry's `first` tokens and another entry."""
        with self._lock:
            self._settle()
            return lcs_length(self._entry(entry)[:first], self._entry(other))

    def _entry(self, entry: int) -> list[int]:
        tokens: list[int] = self._tokens[self._start[entry] : self._start[entry + 1]].tolist()
        return tokens

    def scores(self, tokens: Sequence[str]) -> npt.NDArray[np.float64]:
        """F of `tokens` with every entry, in order of entry."""
        with self._lock:
            self._settle()
            for entry in range(len(self._occurrences), self._count):
                self._occurrences.append(self._entry(entry))
            return self._occurrences.scores([self._ids.get(token, -1) for token in tokens])

    def _scan(self, first: int, end: int, query: Query) -> Ints:
        return near(self._fold[first:end], self._slack[first:end], query) + first

    def _verify(self, found: Ints, query: Query) -> list[Hit]:
        lengths = self._length[found]
        inside = (lengths >= query.needs.low) & (lengths <= query.needs.high)
        found, lengths = found[inside], lengths[inside]
        if not len(found):
            return []
        bits = differing(self._wide[found], words_of(query.wide))
        least = query.needs.table[lengths]
        alike = bits <= len(query.ids) + lengths - 2 * least
        found, ids, tokens = found[alike], query.ids, self._tokens
        starts, sizes, enough = self._start[found].tolist(), lengths[alike].tolist(), least[alike].tolist()
        hits = []
        for entry, start, size, needed in zip(found.tolist(), starts, sizes, enough, strict=True):
            common = lcs_length(ids, tokens[start : start + size].tolist())
            if common >= needed:
                hits.append(Hit(entry, common, fmeasure(common, query.size, size)))
        return hits

    def _verify_pairs(self, query: Ints, entry: Ints, first: int, found: list[dict[int, Hit]]) -> None:
        """Put the pairs that match, of a query that stands in the index and an earlier entry, into `found`."""
        earlier = np.flatnonzero(entry < query)
        query, entry = query[earlier], entry[earlier]
        bits = differing(self._wide[entry], self._wide[query])
        allowed = (1 - self._threshold) * (self._length[query] + self._length[entry]) + 1e-9
        alike = (bits <= allowed) & (self._length[query] > 0) & (self._length[entry] > 0)
        # One of each pair: it is found once for every rare token that the two share.
        pairs = np.unique((query[alike] << 32) | entry[alike])
        query, entry = pairs >> 32, pairs & 0xFFFFFFFF
        one, other = self._length[query].astype(np.int64), self._length[entry].astype(np.int64)
        needed = needed_common(one, other, self._threshold)
        able = needed <= np.minimum(one, other)
        before, ids, tokens, start = -1, [], self._tokens, self._start
        for asker, there, size, length, enough in zip(
            *(values[able].tolist() for values in (query, entry, one, other, needed)), strict=True
        ):
            if asker != before:
                before, ids = asker, tokens[start[asker] : start[asker] + size].tolist()
            common = lcs_length(ids, tokens[start[there] : start[there] + length].tolist())
            if common >= enough:
                found[asker - first][there] = Hit(there, common, fmeasure(common, size, length))

    def _needed(self, size: int) -> Needs:
        kept = self._needs.get(size)
        if kept is None or kept.longest < self._longest:
            self._needs[size] = kept = needs_of(size, self._threshold, self._longest)
        return kept

    def _fresh_postings(self, ratio: int) -> list[Postings]:
        """The postings, with the entries outside posted once they have become too many to scan.

        Older postings are built anew together with them unless they are more than `ratio` times larger:
        a high ratio makes few postings, which is best for single queries, a low one cheap additions.
        """
        first = self._postings[-1].end if self._postings else 0
        new = self._count - first
        # A batch scans them for each of its thousands of queries: there postings pay sooner.
        bearable = self._scanned // 4 if ratio == _MANY else max(self._scanned, first // 8)
        if new > bearable:
            while self._postings and self._postings[-1].end - self._postings[-1].first <= ratio * (
                self._count - first
            ):
                first = self._postings.pop().first
            sizes = np.flatnonzero(np.bincount(self._length[first : self._count]))
            posted = np.zeros(self._longest + 1, np.int64)
            posted[sizes] = [len(self._needed(int(size)).reach) if size else 0 for size in sizes]
            args = (
                self._tokens,
                self._start,
                self._fold,
                self._wide,
                self._slack,
                posted,
                first,
                self._count,
                len(self._ids),
            )
            self._postings.append(build(*args))
        return self._postings

    def _reserve(self, entries: int, tokens: int) -> None:
        if entries > len(self._fold):
            room = max(entries, len(self._fold) * 3 // 2)
            self._fold = _grown(self._fold, room)
            self._wide = _grown(self._wide, room)
            self._slack = _grown(self._slack, room)
            self._length = _grown(self._length, room)
            self._start = _grown(self._start, room + 1)
        if tokens > len(self._tokens):
            self._tokens = _grown(self._tokens, max(tokens, len(self._tokens) * 3 // 2))


def _grown(array: npt.NDArray[_T], room: int) -> npt.NDArray[_T]:
    bigger = np.empty((room, *array.shape[1:]), array.dtype)
    bigger[: len(array)] = array
    return bigger
