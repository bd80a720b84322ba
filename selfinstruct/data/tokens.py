"""From rendered pieces to token ids and labels of a fixed length at most: encoding, truncation, padding, packing.

Repeatable: the same rows, tokenizer and seed give the same ids. Reading a tokenizer happens here; writing what
comes out is the matter of `token_files`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from selfinstruct.data.rows import Example, FormError, check_whole
from selfinstruct.data.templates import Control, Piece, Template
from selfinstruct.errors import InputError
from selfinstruct.records import JSON

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Padding = Literal["none", "left", "right", "random"]
IGNORED = -100  # the label of a token that is not learned, as PyTorch's loss has it
_BATCH = 256  # rows that are encoded at once


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer with the ids of its begin, end and padding; None where it has none."""

    name: str
    sha256: str
    tokenizer: Tokenizer
    begin: int | None
    end: int | None
    padding: int
    special: tuple[str, ...]  # texts of its special tokens


@dataclass(frozen=True, slots=True)
class Shape:
    """How long sequences are: `most` tokens, how shorter ones are filled up, whether rows share a sequence."""

    most: int
    padding: Padding = "none"
    pack: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TokenRow:
    """Token ids of one or several rows; `labels`, `mask` and `positions` are as long."""

    ids: list[int]
    labels: list[int]
    mask: list[int]
    positions: list[int]


@dataclass(slots=True)
class TokenCounts:
    """What was made. `empty` rows had nothing left to learn within the length and were left out."""

    rows: int = 0
    sequences: int = 0
    tokens: int = 0
    learned: int = 0
    padding: int = 0
    truncated: int = 0
    lost: int = 0  # tokens behind the length
    empty: int = 0
    refused: int = 0
    missing: list[str] = field(default_factory=list)  # marks of the template that are no single token


def load_vocabulary(path: Path, begin: str | None = None, end: str | None = None) -> Vocabulary:
    """A tokenizer from a `tokenizer.json` or a folder that holds one; nothing is fetched.

    Args:
        path: the file or folder.
        begin: the text of the token that begins a text, where the folder does not tell it.
        end: the same for the end.

    Raises:
        InputError: the package tokenizers is missing, the file cannot be read, or a token is unknown.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise InputError("token ids need the package tokenizers: pip install 'selfinstruct[data]'") from None
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot read the tokenizer: {error.strerror}") from None
    try:
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:  # noqa: BLE001 - the package raises plain Exception
        raise InputError(f"{file}: not a tokenizer.json: {' '.join(str(error).split())[:120]}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    named = _named_tokens(file.parent)
    special = sorted(
        {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    )
    ids = {
        "begin": _id_of(tokenizer, file, begin, named.get("bos_token")),
        "end": _id_of(tokenizer, file, end, named.get("eos_token")),
        "padding": _id_of(tokenizer, file, None, named.get("pad_token") or named.get("unk_token")),
    }
    # Padding is told by the mask, never by the id, so that any id will do.
    padding = next((each for each in (ids["padding"], ids["end"]) if each is not None), 0)
    return Vocabulary(
        str(path), sha256(data).hexdigest(), tokenizer, ids["begin"], ids["end"], padding, tuple(special)
    )


def _named_tokens(folder: Path) -> dict[str, str]:
    """The texts of bos_token, eos_token, ... as the files beside the tokenizer tell them."""
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        try:
            told = json.loads((folder / name).read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        for key, value in told.items() if isinstance(told, dict) else ():
            text = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(text, str):
                found[key] = text
    return found


def _id_of(tokenizer: Tokenizer, file: Path, wanted: str | None, told: str | None) -> int | None:
    text = wanted or told
    number = tokenizer.token_to_id(text) if text else None
    if wanted and number is None:
        raise InputError(f"{file}: the tokenizer has no token {wanted!r}")
    return number


def fit_template(template: Template, vocabulary: Vocabulary) -> tuple[Template, list[str]]:
    """The template with the tokenizer's special tokens among its marks, and those marks that are no single token."""
    tokens = tuple(sorted({*template.tokens, *vocabulary.special}))
    missing = [
        mark for mark in template.tokens if mark.isascii() and vocabulary.tokenizer.token_to_id(mark) is None
    ]
    return replace(template, tokens=tokens), missing


@dataclass(frozen=True, slots=True)
class Job:
    """How rows become sequences."""

    vocabulary: Vocabulary
    template: Template
    shape: Shape
    control: Control = "refuse"


Refuse = Callable[[Example, str], None]
Progress = Callable[[int], None]


def encode(
    job: Job,
    examples: Iterable[Example],
    counts: TokenCounts,
    refuse: Refuse,
    progress: Progress = lambda _: None,
) -> Iterator[TokenRow]:
    """The sequences of the rows, in their order.

    Answers are encoded apart from what stands before them, as they are when the model is asked: no token
    reaches from a prompt into its answer.

    Args:
        job: template, tokenizer, shape.
        examples: the rows.
        counts: added to.
        refuse: told of a row the template has no place for, and why.
        progress: told the number of rows now and then.

    Raises:
        InputError: the template needs an end of text, and the tokenizer has none.
    """
    encoded = _encoded(job, examples, counts, refuse, progress)
    shape, padding = job.shape, job.vocabulary.padding
    rows = _packed(encoded, shape.most) if shape.pack else encoded
    for number, row in enumerate(rows):
        counts.sequences += 1
        counts.tokens += len(row.ids)
        counts.learned += sum(label != IGNORED for label in row.labels)
        room = shape.most - len(row.ids)
        if shape.padding == "none" or not room:
            yield row
            continue
        counts.padding += room
        yield _filled(row, padding, room, _left_part(shape, number, room))


def _left_part(shape: Shape, number: int, room: int) -> int:
    if shape.padding == "random":
        return random.Random(f"{shape.seed}:{number}").randint(0, room)
    return room if shape.padding == "left" else 0


def _filled(row: TokenRow, padding: int, room: int, left: int) -> TokenRow:
    right = room - left
    return TokenRow(
        [padding] * left + row.ids + [padding] * right,
        [IGNORED] * left + row.labels + [IGNORED] * right,
        [0] * left + row.mask + [0] * right,
        [0] * left + row.positions + [0] * right,
    )


def _encoded(
    job: Job, examples: Iterable[Example], counts: TokenCounts, refuse: Refuse, progress: Progress
) -> Iterator[TokenRow]:
    rows = iter(examples)
    while batch := list(islice(rows, _BATCH)):
        runs: list[list[Piece]] = []
        for example in batch:
            try:
                pieces = job.template.render(job.template.guard(example, job.control))
                check_whole("".join(piece.text for piece in pieces), "text")
            except FormError as error:
                refuse(example, str(error))
                continue
            runs.append(_runs(pieces))
        texts = [piece.text for run in runs for piece in run if piece.text]
        ids = iter(job.vocabulary.tokenizer.encode_batch_fast(texts, add_special_tokens=False))
        for run in runs:
            counts.rows += 1
            row = _joined(job, run, ids)
            if len(row.ids) > job.shape.most:
                counts.truncated += 1
                counts.lost += len(row.ids) - job.shape.most
                row = _cut(row, job.shape.most)
            if all(label == IGNORED for label in row.labels):
                counts.empty += 1
            else:
                yield row
        progress(counts.rows)


def _runs(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces with neighbours joined that are learned alike; an end of text stays alone."""
    runs: list[Piece] = []
    for piece in pieces:
        if not piece.text and not piece.end:
            continue
        last = runs[-1] if runs else None
        if last is not None and not piece.end and not last.end and last.learn == piece.learn:
            runs[-1] = Piece(last.text + piece.text, piece.learn)
        else:
            runs.append(piece)
    return runs


def _joined(job: Job, run: Sequence[Piece], encoded: Iterator[JSON]) -> TokenRow:
    vocabulary = job.vocabulary
    ids: list[int] = []
    labels: list[int] = []
    if job.template.begin and vocabulary.begin is not None:
        ids, labels = [vocabulary.begin], [IGNORED]
    for piece in run:
        if piece.end:
            if vocabulary.end is None:
                raise InputError(f"{vocabulary.name}: tells no end-of-text token; name it with --end-token")
            new = [vocabulary.end]
        else:
            new = next(encoded).ids
        ids += new
        labels += new if piece.learn else [IGNORED] * len(new)
    return TokenRow(ids, labels, [1] * len(ids), list(range(len(ids))))


def _cut(row: TokenRow, most: int) -> TokenRow:
    return TokenRow(row.ids[:most], row.labels[:most], row.mask[:most], row.positions[:most])


def _packed(rows: Iterable[TokenRow], most: int) -> Iterator[TokenRow]:
    """Whole rows one after the other as long as they fit; no row's first token is learned from the row before."""
    pack = TokenRow([], [], [], [])
    for row in rows:
        if pack.ids and len(pack.ids) + len(row.ids) > most:
            yield pack
            pack = TokenRow([], [], [], [])
        pack.ids.extend(row.ids)
        pack.labels.extend([IGNORED, *row.labels[1:]])
        pack.mask.extend(row.mask)
        pack.positions.extend(row.positions)
    if pack.ids:
        yield pack
