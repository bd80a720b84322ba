"""An exact index of token sequences: which of them have ROUGE-L F above a threshold with a new one.

It knows tokens, not texts: how a text becomes tokens, and what a match means, is the rule's affair.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from selfinstruct.rouge import Columns, fmeasure, fmeasures, lcs_length, needed_common, query_masks

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
_T = TypeVar("_T", bound=np.generic)

_WIDE = 4  # 64-bit words of the wide signature
_LOW = (1 << 64) - 1
_SCANNED = 32768  # newest entries that are looked through one by one; more only as the index grows
_CHUNK = 1 << 17  # entries sorted at a time when postings are built
_BLOCK = 32768  # entries laid out together for scores with all
_LOOSE = 64  # newest entries that are not laid out yet
# A posting's sort key: token, then the entry's length (clipped), then the entry.
_LENGTH_BITS, _ENTRY_BITS = 12, 28
_LENGTH_MAX = (1 << _LENGTH_BITS) - 1


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry of the index, the length of its common subsequence with the query, and F."""

    entry: int
    common: int
    score: float


@dataclass(frozen=True, slots=True)
class _Needs:
    """What a sequence of one length needs to match any other.

    `table[b]` is the common subsequence needed with b tokens, known up to entries of `longest` tokens;
    only lengths from `low` to `high` can match, and none with less than `least` in common. `reach[j]` is
    the longest entry that can still match when the j rarest tokens have no partner in it.
    """

    longest: int
    table: Ints
    low: int
    high: int
    least: int
    reach: list[int]


@dataclass(frozen=True, slots=True)
class _Query:
    """A sequence to look for: its length, its known tokens, their signatures, what it needs."""

    size: int
    ids: list[int]
    fold: int
    wide: int
    needs: _Needs


@dataclass(frozen=True, slots=True)
class _Postings:
    """The first `count` entries by their rare tokens: sorted keys, and the signatures in the same order.

    `rank[token]` orders the tokens from rare to common as they were when this was built.
    """

    count: int
    rank: Sequence[int]
    keys: Ints  # token and length
    entries: npt.NDArray[np.int32]
    fold: Words
    slack: npt.NDArray[np.int8]


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
        self._ids: dict[str, int] = {}
        self._count = 0
        self._longest = 0
        self._fold: Words = np.empty(1024, np.uint64)  # the words of a wide signature, xored
        self._wide: Words = np.empty((1024, _WIDE), np.uint64)
        self._slack: npt.NDArray[np.int8] = np.empty(1024, np.int8)  # bits that an entry's length allows
        self._length: npt.NDArray[np.int32] = np.empty(1024, np.int32)
        self._start: Ints = np.zeros(1025, np.int64)
        self._tokens: npt.NDArray[np.int32] = np.empty(16384, np.int32)
        self._needs: dict[int, _Needs] = {}
        self._postings: _Postings | None = None
        self._columns: list[Columns] = []
        self._laid = 0  # entries in them

    def __len__(self) -> int:
        return self._count

    def add(self, tokens: Sequence[str]) -> int:
        """Append a sequence; returns its entry number. Time: proportional to its length."""
        with self._lock:
            known = self._ids
            ids = [known.setdefault(token, len(known)) for token in tokens]
            entry, size = self._count, len(ids)
            start = int(self._start[entry])
            self._reserve(entry + 1, start + size)
            fold, wide = _signature(ids)
            self._fold[entry] = fold
            self._wide[entry] = _words(wide)
            self._slack[entry] = min(64, int((1 - self._threshold) * size))
            self._length[entry] = size
            self._tokens[start : start + size] = ids
            self._start[entry + 1] = start + size
            self._longest = max(self._longest, size)
            self._count = entry + 1
            return entry

    def find(self, tokens: Sequence[str], limit: int | None = None) -> list[Hit]:
        """All of the first `limit` entries whose F with `tokens` is above the threshold, in order."""
        with self._lock:
            count = self._count if limit is None else min(limit, self._count)
            size = len(tokens)
            if not size or not count:
                return []
            ids = [self._ids[token] for token in tokens if token in self._ids]
            needs = self._needed(size)
            if len(ids) < needs.least:
                return []
            query = _Query(size, ids, *_signature(ids), needs)
            postings = self._fresh_postings()
            if postings is None:
                found = self._scan(0, count, query)
            else:
                found = self._search(postings, query)
                found = found[found < count]
                if count > postings.count:
                    found = np.concatenate((found, self._scan(postings.count, count, query)))
            return self._verify(found, query) if len(found) else []

    def common(self, entry: int, tokens: Sequence[str]) -> int:
        """The length of the longest common subsequence of one entry and `tokens`."""
        with self._lock:
            ids = [self._ids[token] for token in tokens if token in self._ids]
            return lcs_length(ids, self._tokens[self._start[entry] : self._start[entry + 1]].tolist())

    def scores(self, tokens: Sequence[str]) -> npt.NDArray[np.float64]:
        """F of `tokens` with every entry, in order of entry."""
        with self._lock:
            count, size = self._count, len(tokens)
            ids = [self._ids.get(token, -1) for token in tokens]
            masks = query_masks(ids, len(self._ids))
            laid = self._laid_out() if masks is not None else 0
            parts = [block.common(ids, masks) for block in self._columns] if masks is not None else []
            starts, lengths = self._start[laid:count].tolist(), self._length[laid:count].tolist()
            rest = [
                lcs_length(ids, self._tokens[start : start + length].tolist())
                for start, length in zip(starts, lengths, strict=True)
            ]
            common = np.concatenate((*parts, np.array(rest, np.int64)))
            return fmeasures(common, size, self._length[:count])

    def _laid_out(self) -> int:
        """Lay the entries out in blocks of columns, but for the newest few; returns how many are."""
        if self._count - self._laid > _LOOSE:
            if self._laid % _BLOCK:
                self._columns.pop()  # the last block was not full
            for first in range(self._laid - self._laid % _BLOCK, self._count, _BLOCK):
                last = min(first + _BLOCK, self._count)
                block = Columns(self._tokens, self._start[first:last], self._length[first:last])
                self._columns.append(block)
            self._laid = self._count
        return self._laid

    def _near(self, fold: Words, slack: npt.NDArray[np.int8], query: _Query) -> Ints:
        """Where a folded signature differs from the query's in no more bits than the lengths allow."""
        # floor(x) + floor(y) + 1 >= floor(x + y): the entry's part is stored rounded down. 1e-9 covers
        # ties that rounding lets pass. A token the index does not know surely has no partner.
        allowed = int((1 - self._threshold) * query.size + 1e-9) + 1 - (query.size - len(query.ids))
        bits = np.bitwise_count(fold ^ np.uint64(query.fold)).view(np.int8)
        bits -= slack
        return np.flatnonzero(bits <= np.int8(max(-128, min(127, allowed))))

    def _scan(self, first: int, end: int, query: _Query) -> Ints:
        return self._near(self._fold[first:end], self._slack[first:end], query) + first

    def _search(self, postings: _Postings, query: _Query) -> Ints:
        """The posted entries that may match, in order."""
        needs, rank = query.needs, postings.rank
        posted = sorted([rank[token] for token in query.ids if token < len(rank)])
        strange = query.size - len(posted)  # rarest of all: they stand before the others
        bounds, before = [], -1
        for place, token in enumerate(posted[: max(0, len(needs.reach) - strange)], strange):
            if token != before:
                base = token << _LENGTH_BITS
                bounds.append(base + min(needs.low, _LENGTH_MAX))
                bounds.append(base + min(needs.reach[place], _LENGTH_MAX) + 1)
                before = token
        ends = np.searchsorted(postings.keys, np.array(bounds, np.int64)).tolist()
        spans = [slice(start, end) for start, end in zip(ends[::2], ends[1::2], strict=True) if start < end]
        if not spans:
            return np.empty(0, np.int64)
        if sum(span.stop - span.start for span in spans) > postings.count:
            return self._scan(0, postings.count, query)
        fold = np.concatenate([postings.fold[span] for span in spans])
        slack = np.concatenate([postings.slack[span] for span in spans])
        entries = np.concatenate([postings.entries[span] for span in spans])
        found = entries[self._near(fold, slack, query)].astype(np.int64)
        found.sort()
        first = np.ones(len(found), bool)
        np.not_equal(found[1:], found[:-1], out=first[1:])
        return found[first]

    def _verify(self, found: Ints, query: _Query) -> list[Hit]:
        table, known = query.needs.table, len(query.ids)
        lengths = self._length[found]
        inside = (lengths >= query.needs.low) & (lengths <= query.needs.high)
        found, lengths = found[inside], lengths[inside]
        if not len(found):
            return []
        bits = np.bitwise_count(self._wide[found] ^ _words(query.wide)).sum(axis=1, dtype=np.int64)
        least = table[lengths]
        near = bits <= known + lengths - 2 * least
        found = found[near]
        starts, sizes, tokens, ids = (
            self._start[found].tolist(),
            lengths[near].tolist(),
            self._tokens,
            query.ids,
        )
        hits = []
        for entry, start, size, enough in zip(
            found.tolist(), starts, sizes, least[near].tolist(), strict=True
        ):
            length = lcs_length(ids, tokens[start : start + size].tolist())
            if length >= enough:
                hits.append(Hit(entry, length, fmeasure(length, query.size, size)))
        return hits

    def _needed(self, size: int) -> _Needs:
        kept = self._needs.get(size)
        if kept is None or kept.longest < self._longest:
            self._needs[size] = kept = _needs_of(size, self._threshold, self._longest)
        return kept

    def _fresh_postings(self) -> _Postings | None:
        """The postings, built anew once the entries outside have become too many to scan."""
        posted = 0 if self._postings is None else self._postings.count
        if self._count - posted > max(self._scanned, posted // 8):
            self._postings = self._built_postings()
        return self._postings

    def _built_postings(self) -> _Postings:
        count, lengths, starts = self._count, self._length[: self._count], self._start[: self._count + 1]
        frequency = np.bincount(self._tokens[: starts[count]], minlength=len(self._ids))
        rank = np.empty(len(frequency), np.int64)
        rank[np.argsort(frequency, kind="stable")] = np.arange(len(frequency))
        sizes = np.flatnonzero(np.bincount(lengths))
        posted = np.zeros(self._longest + 1, np.int64)
        posted[sizes] = [len(self._needed(int(size)).reach) if size else 0 for size in sizes]
        parts = []
        for first in range(0, count, _CHUNK):
            last = min(first + _CHUNK, count)
            sized = lengths[first:last].astype(np.int64)
            local = np.repeat(np.arange(last - first, dtype=np.int64), sized)
            keys = (local << 32) | rank[self._tokens[starts[first] : starts[last]]]
            keys.sort()
            local = keys >> 32
            place = np.arange(len(keys)) - (starts[first:last] - starts[first])[local]
            use = place < posted[sized[local]]
            use[1:] &= keys[1:] != keys[:-1]
            keys, local = keys[use] & 0xFFFFFFFF, local[use]
            keys = (keys << _LENGTH_BITS) | np.minimum(sized[local], _LENGTH_MAX)
            parts.append((keys << _ENTRY_BITS) | (local + first))
        keys = np.concatenate(parts)
        del parts
        keys.sort()
        entries = (keys & ((1 << _ENTRY_BITS) - 1)).astype(np.int32)
        keys >>= _ENTRY_BITS
        return _Postings(count, rank.tolist(), keys, entries, self._fold[entries], self._slack[entries])

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


def _needs_of(size: int, threshold: float, longest: int) -> _Needs:
    reach = longest
    # F <= 2*size/(size + b) <= threshold for longer entries; a tiny threshold must not divide.
    if threshold * longest > 2 * size:
        reach = min(reach, int(size * (2 - threshold) / threshold) + 2)
    lengths = np.arange(1, reach + 1, dtype=np.int64)
    table = np.concatenate(([size + 1], needed_common(size, lengths, threshold)))
    able = np.flatnonzero(table[1:] <= np.minimum(size, lengths)) + 1
    if not len(able):
        return _Needs(longest, table, 1, 0, size + 1, [])
    low, high = int(able[0]), int(able[-1])
    least = int(table[low])
    left = size - np.arange(size - least + 1)  # tokens left from the j-th on
    reaches = np.searchsorted(table[low : high + 1], left, side="right") + low - 1
    return _Needs(longest, table, low, high, least, reaches.tolist())


def _signature(ids: Sequence[int]) -> tuple[int, int]:
    """The parity signature: 256 bits folded into 64, and the 256.

    Numbers are given in order of first appearance, so the commonest tokens have bits of their own. The
    second and later occurrences of a token have other bits, lest they cancel.
    """
    wide = 0
    if len(set(ids)) == len(ids):
        for number in ids:
            wide ^= 1 << (number & 255)
    else:
        times: dict[int, int] = {}
        for number in ids:
            again = times.get(number, 0)
            times[number] = again + 1
            wide ^= 1 << ((number + 89 * again) & 255)
    half = wide ^ (wide >> 128)
    return (half ^ (half >> 64)) & _LOW, wide


def _words(wide: int) -> Words:
    return np.frombuffer(wide.to_bytes(8 * _WIDE, "little"), np.uint64)


def _grown(array: npt.NDArray[_T], room: int) -> npt.NDArray[_T]:
    bigger = np.empty((room, *array.shape[1:]), array.dtype)
    bigger[: len(array)] = array
    return bigger
