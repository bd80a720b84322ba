"""The filters that let an exact search pass over nearly all pairs: what a length needs, signatures, postings.

They only ever rule out; whether a pair is alike is for its common subsequence to say. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt

from selfinstruct.rouge import Ints, needed_common

Words = npt.NDArray[np.uint64]
Bits = npt.NDArray[np.int8]

WIDE = 4  # 64-bit words of the wide signature
_LOW = (1 << 64) - 1
_BIT = [1 << place for place in range(64 * WIDE)]
_CHUNK = 1 << 17  # entries sorted at a time when postings are built
# A posting's sort key: token, then the entry's length (clipped), then the entry.
_LENGTH_BITS, _ENTRY_BITS = 12, 28
_LENGTH_MAX = (1 << _LENGTH_BITS) - 1
_PAIRS = 1 << 17  # pairs of signatures compared at a time: what fits the cache
_PASS = 1 << 15  # pairs looked at closer in one pass
_RARE = 1024  # postings of a token that are gathered rather than compared as a block


@dataclass(frozen=True, slots=True)
class Needs:
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
class Query:
    """A sequence to look for: its length, its known tokens, their signatures, what it needs.

    `allowed` bits, and what an entry's own length allows, may differ between folded signatures.
    """

    size: int
    ids: list[int]
    fold: int
    wide: int
    needs: Needs
    allowed: int


@dataclass(frozen=True, slots=True)
class Postings:
    """The entries from `first` to `end` by their rare tokens: sorted keys, signatures in the same order.

    `rank[token]` orders the tokens from rare to common as they were when this was built.
    """

    first: int
    end: int
    rank: npt.NDArray[np.int32]
    keys: Ints  # token and length
    entries: npt.NDArray[np.int32]
    fold: Words
    half: Words
    slack: Bits


def needs_of(size: int, threshold: float, longest: int) -> Needs:
    """The needs of a sequence of `size` tokens among entries of up to `longest`."""
    reach = longest
    # F <= 2*size/(size + b) <= threshold for longer entries; a tiny threshold must not divide.
    if threshold * longest > 2 * size:
        reach = min(reach, int(size * (2 - threshold) / threshold) + 2)
    lengths = np.arange(1, reach + 1, dtype=np.int64)
    table = np.concatenate(([size + 1], needed_common(size, lengths, threshold)))
    able = np.flatnonzero(table[1:] <= np.minimum(size, lengths)) + 1
    if not len(able):
        return Needs(longest, table, 1, 0, size + 1, [])
    low, high = int(able[0]), int(able[-1])
    least = int(table[low])
    left = size - np.arange(size - least + 1)  # tokens left from the j-th on
    reaches = np.searchsorted(table[low : high + 1], left, side="right") + low - 1
    return Needs(longest, table, low, high, least, reaches.tolist())


def signature(ids: Iterable[int]) -> tuple[int, int]:
    """The parity signature: 256 bits folded into 64, and the 256.

    Numbers are given in order of first appearance, so the commonest tokens have bits of their own. A token
    that stands there twice leaves no trace, so two sequences differ in at most as many bits as tokens.
    """
    wide = 0
    for number in ids:
        wide ^= _BIT[number & 255]
    half = wide ^ (wide >> 128)
    return (half ^ (half >> 64)) & _LOW, wide


def signatures(ids: npt.NDArray[np.int32], sizes: Ints) -> tuple[Words, Words]:
    """`signature` of many sequences at once.

    Args:
        ids: the sequences, one behind the other.
        sizes: (n,) how long each is.

    Returns:
        The folded signatures (n,) and the wide ones (n, `WIDE`).
    """
    wide = np.zeros((len(sizes), WIDE), np.uint64)
    some = np.flatnonzero(sizes)
    if len(some):
        starts = (np.cumsum(sizes) - sizes)[some]
        bit = np.uint64(1) << (ids & 63).astype(np.uint64)
        for word in range(WIDE):
            here = np.where((ids >> 6) % WIDE == word, bit, np.uint64(0))
            wide[some, word] = np.bitwise_xor.reduceat(here, starts)
    return np.bitwise_xor.reduce(wide, axis=1), wide


def words_of(wide: int) -> Words:
    """A wide signature as an array of `WIDE` words."""
    return np.frombuffer(wide.to_bytes(8 * WIDE, "little"), np.uint64)


def half_of(wide: Words) -> Words:
    """Of wide signatures folded into 128 bits the first 64; xored with the folded 64 they give the others."""
    return wide[:, 0] ^ wide[:, 2]


def slack_of(size: int, threshold: float) -> int:
    """How many differing bits an entry's length allows, rounded down; `allowed_of` rounds up for both.

    With the floor in `allowed_of` the bound for a clipped slack is 64 or more: it rules out nothing.
    """
    return min(127, int((1 - threshold) * size))


def slacks_of(sizes: Ints, threshold: float) -> Bits:
    """`slack_of` of many lengths."""
    slacks: Bits = np.minimum(127, (1 - threshold) * sizes).astype(np.int8)
    return slacks


def allowed_of(size: int, strange: int, threshold: float) -> int:
    """How many differing bits a query's length allows; each of its `strange` tokens surely differs.

    floor(x) + floor(y) + 1 >= floor(x + y), and 1e-9 covers ties that rounding lets pass.
    """
    return max(-63, min(127, int((1 - threshold) * size + 1e-9) + 1 - strange))


def near(fold: Words, slack: Bits, query: Query) -> Ints:
    """Where a folded signature differs from the query's in no more bits than the lengths allow."""
    bits = np.bitwise_count(fold ^ np.uint64(query.fold)).view(np.int8)
    bits -= slack
    return np.flatnonzero(bits <= np.int8(query.allowed))


def differing(one: Words, other: Words) -> npt.NDArray[np.uint32]:
    """In how many bits wide signatures differ, modulo 256 (all different counts as none: it is kept)."""
    counts = np.bitwise_count(one ^ other).view(np.uint32).reshape(-1)
    summed: npt.NDArray[np.uint32] = (counts * np.uint32(0x01010101)) >> np.uint32(24)
    return summed


def _ranked(
    tokens: npt.NDArray[np.int32],
    starts: Ints,
    rank: npt.NDArray[np.int32],
    posted: Ints,
    first: int,
    last: int,
) -> tuple[Ints, Ints, Ints]:
    """The posted tokens of the entries first..last: (entry - first, rank of the token, place in the entry)."""
    sized = np.diff(starts[first : last + 1])
    local = np.repeat(np.arange(last - first, dtype=np.int64), sized)
    keys = (local << 32) | rank[tokens[starts[first] : starts[last]]]
    keys.sort()
    local = keys >> 32
    place = np.arange(len(keys)) - (starts[first:last] - starts[first])[local]
    use = place < posted[sized[local]]
    use[1:] &= keys[1:] != keys[:-1]
    return local[use], keys[use] & 0xFFFFFFFF, place[use]


def build(
    tokens: npt.NDArray[np.int32],
    starts: Ints,
    fold: Words,
    wide: Words,
    slack: Bits,
    posted: Ints,
    first: int,
    end: int,
    vocabulary: int,
) -> Postings:
    """Post the entries from `first` to `end`: of an entry of n tokens the `posted[n]` rarest."""
    frequency = np.bincount(tokens[starts[first] : starts[end]], minlength=vocabulary)
    rank = np.empty(vocabulary, np.int32)
    rank[np.argsort(frequency, kind="stable")] = np.arange(vocabulary, dtype=np.int32)
    sizes = np.diff(starts[: end + 1])
    parts = []
    for begin in range(first, end, _CHUNK):
        local, ranks, _ = _ranked(tokens, starts, rank, posted, begin, min(begin + _CHUNK, end))
        local += begin
        ranks = (ranks << _LENGTH_BITS) | np.minimum(sizes[local], _LENGTH_MAX)
        parts.append((ranks << _ENTRY_BITS) | local)
    keys = np.concatenate(parts)
    del parts
    keys.sort()
    entries = (keys & ((1 << _ENTRY_BITS) - 1)).astype(np.int32)
    keys >>= _ENTRY_BITS
    return Postings(first, end, rank, keys, entries, fold[entries], half_of(wide)[entries], slack[entries])


def search(postings: Postings, query: Query) -> Ints | None:
    """The posted entries that may match, in order; None when looking at all of them is cheaper."""
    needs, rank = query.needs, postings.rank
    posted = sorted(rank[[token for token in query.ids if token < len(rank)]].tolist())
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
    if sum(span.stop - span.start for span in spans) > postings.end - postings.first:
        return None
    fold = np.concatenate([postings.fold[span] for span in spans])
    slack = np.concatenate([postings.slack[span] for span in spans])
    entries = np.concatenate([postings.entries[span] for span in spans])
    found = entries[near(fold, slack, query)].astype(np.int64)
    found.sort()
    first = np.ones(len(found), bool)
    np.not_equal(found[1:], found[:-1], out=first[1:])
    different: Ints = found[first]
    return different


@dataclass(frozen=True, slots=True)
class Batch:
    """The entries from `first` to `last` as queries, with the arrays of the index they stand in."""

    first: int
    last: int
    tokens: npt.NDArray[np.int32]
    starts: Ints
    fold: Words  # of the batch
    half: Words  # of the batch
    allowed: Bits  # of the batch
    needs: Callable[[int], Needs]


def search_many(postings: Postings, batch: Batch) -> Iterator[tuple[Ints, Ints]]:
    """Pairs (query - batch.first, entry) that may match, with repetitions, in pieces.

    The queries that look for the same token are compared with its postings as a block.
    """
    sizes = np.diff(batch.starts[batch.first : batch.last + 1])
    kinds, kind = np.unique(sizes, return_inverse=True)
    needs = [batch.needs(int(size)) for size in kinds]
    reach = [one.reach if size else [] for one, size in zip(needs, kinds, strict=True)]
    posted = np.zeros(int(kinds[-1]) + 1, np.int64)
    posted[kinds] = [len(one) for one in reach]
    offset = np.cumsum([0, *(len(one) for one in reach)])
    flat = np.array([high for one in reach for high in one], np.int64)
    lows = np.array([one.low for one in needs], np.int64)
    rank = postings.rank
    if int(batch.tokens[batch.starts[batch.first] : batch.starts[batch.last]].max(initial=-1)) >= len(rank):
        rank = np.concatenate((rank, np.full(1, -1, np.int32)))  # strange tokens are the rarest
    tokens = np.minimum(batch.tokens[batch.starts[batch.first] : batch.starts[batch.last]], len(rank) - 1)
    starts = batch.starts[batch.first : batch.last + 1] - batch.starts[batch.first]
    query, token, place = _ranked(tokens, starts, rank + 1, posted, 0, batch.last - batch.first)
    known = token > 0
    query, token, place = query[known], token[known] - 1, place[known]
    base = token << _LENGTH_BITS
    high = flat[offset[kind[query]] + place]
    order = np.argsort(base, kind="stable")
    base, query, high = base[order], query[order], high[order]
    start = np.searchsorted(postings.keys, base + np.minimum(lows[kind[query]], _LENGTH_MAX))
    end = np.searchsorted(postings.keys, base + np.minimum(high, _LENGTH_MAX) + 1)
    rare = (end - start <= _RARE) & (end > start)
    common = end - start > _RARE
    found = chain(
        _gathered(postings, batch, query[rare], start[rare], end[rare]),
        _blocks(postings, batch, base[common], query[common], start[common], end[common]),
    )
    for asker, posting in pooled(found):
        half = postings.half[posting] ^ batch.half[asker]
        bits = np.bitwise_count(half) + np.bitwise_count(postings.fold[posting] ^ batch.fold[asker] ^ half)
        slack, allowed = postings.slack[posting], batch.allowed[asker]
        use = (bits <= slack.astype(np.int16) + allowed) | (slack == 127) | (allowed == 127)  # 127: clipped
        yield asker[use], postings.entries[posting[use]].astype(np.int64)


def _gathered(
    postings: Postings, batch: Batch, query: Ints, start: Ints, end: Ints
) -> Iterator[tuple[Ints, Ints]]:
    step = _PAIRS // _RARE
    for at in range(0, len(query), step):
        begin, count = start[at : at + step], end[at : at + step] - start[at : at + step]
        total = np.cumsum(count)
        posting = np.repeat(begin - total + count, count) + np.arange(int(total[-1]))
        asker = np.repeat(query[at : at + step], count)
        bits = np.bitwise_count(postings.fold[posting] ^ batch.fold[asker]).view(np.int8)
        bits -= postings.slack[posting]
        use = np.flatnonzero(bits <= batch.allowed[asker])
        yield asker[use], posting[use]


def _blocks(
    postings: Postings, batch: Batch, base: Ints, query: Ints, start: Ints, end: Ints
) -> Iterator[tuple[Ints, Ints]]:
    heads = np.flatnonzero(np.diff(base, prepend=-1)).tolist()
    for head, tail in pairwise([*heads, len(base)]):
        low, high = int(start[head:tail].min()), int(end[head:tail].max())
        for asker, posting in compare(
            batch.fold[query[head:tail]],
            batch.allowed[query[head:tail]],
            postings.fold[low:high],
            postings.slack[low:high],
        ):
            yield query[head:tail][asker], posting + low


def compare(fold: Words, allowed: Bits, others: Words, slack: Bits) -> Iterator[tuple[Ints, Ints]]:
    """Pairs (place in `fold`, place in `others`) whose signatures are near enough, block by block."""
    width = min(len(others), 4096)
    height = max(1, _PAIRS // max(1, width))
    for left in range(0, len(others), max(1, width)):
        piece, loose = others[left : left + width], slack[left : left + width]
        for top in range(0, len(fold), height):
            bits = np.bitwise_count(fold[top : top + height, None] ^ piece).view(np.int8)
            bits -= loose
            found = np.flatnonzero(bits <= allowed[top : top + height, None])
            if len(found):
                row, column = np.divmod(found, len(piece))
                yield row + top, column + left


def pooled(pieces: Iterable[tuple[Ints, Ints]]) -> Iterator[tuple[Ints, Ints]]:
    """The same pairs in pieces large enough to be worth a pass over arrays."""
    one: list[Ints] = []
    other: list[Ints] = []
    waiting = 0
    for left, right in pieces:
        one.append(left)
        other.append(right)
        waiting += len(left)
        if waiting > _PASS:
            yield np.concatenate(one), np.concatenate(other)
            one, other, waiting = [], [], 0
    if waiting:
        yield np.concatenate(one), np.concatenate(other)
