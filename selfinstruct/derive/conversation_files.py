"""From files of rows to a file of conversations: reads, counts, finds vectors and clusters, writes what was laid out.

What goes into which conversation, `conversations` decides. Nothing is cut: a row that is too long, or is no
question with an answer, stands in the record.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from selfinstruct.data.parts import CHARACTERS_A_TOKEN, Texts, token_counter
from selfinstruct.data.rows import Example
from selfinstruct.derive.conversations import Block, Conversation, Quality, lay_out, mean_similarity, measure
from selfinstruct.errors import InputError
from selfinstruct.records import JSON
from selfinstruct.store import replacing

Layout: TypeAlias = Literal["openai", "sharegpt"]
Likeness: TypeAlias = Literal["meaning", "words"]
MARKS = 5  # tokens that a chat template puts around a message, as ChatML does
FULL = 4  # conversations that a cluster has room for, where their number is not given
MOST_CLUSTERS = 2000
_SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}


@dataclass(frozen=True, slots=True)
class Wishes:
    """What `converse` can be told about the layout; the names are those of the flags."""

    max_tokens: int = 8192
    max_turns: int | None = None
    clusters: int | None = None
    likeness: Likeness = "meaning"
    tokenizer: Path | None = None
    too_long: Literal["own", "drop"] = "own"
    layout: Layout = "openai"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """How it came out. Similarities are mean cosines: of neighbours in a conversation, and of any two rows."""

    rows: int
    conversations: int
    turns: int
    tokens: int
    tokenizer: str
    filled: float  # of `max_tokens`, the mean of all conversations
    neighbours: float | None
    by_chance: float
    clusters: tuple[Quality, ...]
    too_long: int
    left_out: int

    def as_json(self) -> dict[str, JSON]:
        """For the record or a program."""
        return asdict(self)


def converse(
    examples: Iterable[Example],
    output: Path,
    record: Path,
    wishes: Wishes,
    say: Callable[[str], None] = lambda _: None,
) -> Summary:
    """Lay rows one after another as conversations; all of them are in memory.

    Args:
        examples: rows; one of several turns stays together.
        output: JSON array of conversations.
        record: JSON lines: of each conversation its cluster, length, similarity and rows; rows that are left
            out, with the reason; a summary is the last.
        wishes: how.
        say: is told what takes time.

    Raises:
        InputError, DiskFull: a file cannot be read or written, or there is no row; nothing has changed.
    """
    rows, aside = _sorted_out(examples)
    if not rows:
        raise InputError("converse: no question with an answer in the rows that were read")
    say(f"counting the tokens of {len(rows)} rows")
    blocks = _blocks(rows, wishes)
    if wishes.too_long == "drop":
        fits = [block.tokens <= wishes.max_tokens for block in blocks]
        aside += [(row, "too_long") for row, fit in zip(rows, fits, strict=True) if not fit]
        rows = [row for row, fit in zip(rows, fits, strict=True) if fit]
        blocks = [block for block in blocks if block.tokens <= wishes.max_tokens]
        if not rows:
            raise InputError(f"converse: every row is longer than --max-tokens {wishes.max_tokens}")
    say(f"comparing {len(rows)} rows by {wishes.likeness}")
    vectors = _vectors(rows, wishes.likeness)
    cluster = _clusters(vectors, blocks, wishes)
    laid = lay_out(vectors, cluster, blocks, wishes.max_tokens, wishes.max_turns)
    near = [one.similarity * (len(one.rows) - 1) for one in laid if one.similarity is not None]
    pairs = sum(len(one.rows) - 1 for one in laid)
    summary = Summary(
        rows=len(rows),
        conversations=len(laid),
        turns=sum(one.turns for one in laid),
        tokens=sum(one.tokens for one in laid),
        tokenizer=str(wishes.tokenizer or f"estimate: {CHARACTERS_A_TOKEN} characters a token"),
        filled=round(sum(min(1.0, one.tokens / wishes.max_tokens) for one in laid) / len(laid), 4),
        neighbours=round(sum(near) / pairs, 4) if pairs else None,
        by_chance=round(mean_similarity(vectors), 4),
        clusters=tuple(measure(vectors, cluster)),
        too_long=sum(block.tokens > wishes.max_tokens for block in blocks),
        left_out=len(aside),
    )
    _write(rows, laid, aside, summary, output, record, wishes)
    return summary


def _sorted_out(examples: Iterable[Example]) -> tuple[list[Example], list[tuple[Example, str]]]:
    rows, aside = [], []
    for example in examples:
        if example.is_dialogue:
            rows.append(example)
        else:
            aside.append((example, "no_dialogue"))
    return rows, aside


def _blocks(rows: Sequence[Example], wishes: Wishes) -> list[Block]:
    texts: list[Texts] = [tuple(message.content for message in row.chat()) for row in rows]
    sizes = token_counter(wishes.tokenizer)(texts) if wishes.tokenizer else [estimate(each) for each in texts]
    return [
        Block(size + MARKS * len(each), len(row.history) + 1, row.system)
        for row, each, size in zip(rows, texts, sizes, strict=True)
    ]


def estimate(texts: Texts) -> int:
    """Tokens of some texts where no tokenizer is named."""
    return math.ceil(sum(map(len, texts)) / CHARACTERS_A_TOKEN)


def _vectors(rows: Sequence[Example], likeness: Likeness) -> Any:
    asked = ["\n".join(message.content for message in row.chat() if message.role == "user") for row in rows]
    if likeness == "words":
        from selfinstruct.data.word_vectors import word_vectors

        return word_vectors(asked)
    from selfinstruct.data.embeddings import embed

    return embed(asked)


def _clusters(vectors: Any, blocks: Sequence[Block], wishes: Wishes) -> Any:
    """The cluster of each row; if their number is not given, one for about four conversations."""
    from selfinstruct.data.clusters import find_clusters

    wanted = math.ceil(sum(block.tokens for block in blocks) / (FULL * wishes.max_tokens))
    count = wishes.clusters or min(wanted, MOST_CLUSTERS)
    return find_clusters(vectors, min(count, len(blocks)), wishes.seed).cluster


def _write(
    rows: Sequence[Example],
    laid: Sequence[Conversation],
    aside: Sequence[tuple[Example, str]],
    summary: Summary,
    output: Path,
    record: Path,
    wishes: Wishes,
) -> None:
    with replacing(output, record) as (file, log):
        file.write(b"[")
        for number, one in enumerate(laid):
            said = conversation_of([rows[row] for row in one.rows], wishes.layout)
            file.write((b",\n" if number else b"\n") + json.dumps(said).encode())
            told = {
                "tokens": one.tokens,
                "turns": one.turns,
                "cluster": one.cluster,
                "similarity": one.similarity,
            }
            named = [_named(rows[row]) for row in one.rows]
            log.write(_line({"conversation": number, **told, "rows": named}))
        for example, reason in aside:
            log.write(_line({"left_out": _named(example), "reason": reason, "row": example.row()}))
        log.write(_line({"summary": summary.as_json()}))
        file.write(b"\n]\n")


def _named(example: Example) -> list[JSON]:
    return [example.source, example.number, example.id()]


def _line(value: JSON) -> bytes:
    return json.dumps(value).encode() + b"\n"


def conversation_of(rows: Sequence[Example], layout: Layout) -> dict[str, JSON]:
    """The messages of rows, one row after the other, under the system message of the first."""
    return laid_as(list(_messages(rows)), layout)


def _messages(rows: Sequence[Example]) -> Iterator[tuple[str, str]]:
    if rows[0].system:
        yield "system", rows[0].system
    for row in rows:
        yield from ((message.role, message.content) for message in row.chat() if message.role != "system")


def laid_as(messages: Sequence[tuple[str, str]], layout: Layout) -> dict[str, JSON]:
    """(role, content) pairs as OpenAI's `messages` or ShareGPT's `conversations`."""
    if layout == "openai":
        return {"messages": [{"role": role, "content": content} for role, content in messages]}
    return {"conversations": [{"from": _SPEAKERS[role], "value": content} for role, content in messages]}
