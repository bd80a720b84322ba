"""The parts of a row that a step can look at, by name, and their size in characters, words or tokens.

Decides nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from selfinstruct.data.pipeline import Part
from selfinstruct.data.rows import Example, Message

Texts: TypeAlias = tuple[str, ...]
CHARACTERS_A_TOKEN = 3.6  # of code and English, where no tokenizer is named


def texts_of(example: Example, part: Part) -> Texts:
    """The texts of a part of a row, empty ones left out.

    `prompt` is everything before the last answer, `answers` are all turns of the assistant; a document is its
    own `output`, `answers` and `whole`, and has no prompt.
    """
    messages = example.messages
    if part == "whole":
        texts = [example.input, *(message.content for message in messages)]
    elif part == "answers":
        texts = [message.content for message in messages if message.role in {"assistant", "text"}]
    elif part == "prompt":
        texts = [*(message.content for message in _before_answer(example)), example.input]
    elif part == "instruction":
        texts = [example.instruction]
    elif part == "input":
        texts = [example.input]
    elif part == "output":
        texts = [example.output]
    else:
        texts = [example.system]
    return tuple(filter(None, texts))


def _before_answer(example: Example) -> tuple[Message, ...]:
    answered = example.messages[-1].role in {"assistant", "text"}
    return example.messages[:-1] if answered else example.messages


def compared(example: Example) -> dict[str, str]:
    """The row that the search for near duplicates sees.

    Of a conversation all questions count, not the last one alone: "explain that" is said in many.
    """
    asked = [message.content for message in example.messages if message.role == "user"]
    return {"instruction": "\n".join(asked), "input": example.input, "output": example.output}


def digest_of(example: Example, part: Part, *, normalise: bool = False) -> bytes:
    """16 bytes of hash: equal for rows with equal texts, said by the same roles, in a part.

    With `normalise` white space and case make no difference.
    """
    if part in {"whole", "prompt"}:
        turns = _before_answer(example) if part == "prompt" else example.messages
        told = [text for message in turns for text in (message.role, message.content)]
        texts: Sequence[str] = [*told, example.input]
    else:
        texts = texts_of(example, part)
    if normalise:
        texts = [" ".join(text.casefold().split()) for text in texts]
    sizes = ",".join([str(len(text)) for text in texts])
    text = f"{sizes}:{''.join(texts)}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def count_characters(rows: Sequence[Texts]) -> list[int]:
    """Of each row."""
    return [sum(map(len, texts)) for texts in rows]


def count_words(rows: Sequence[Texts]) -> list[int]:
    """Of each row; a word is what stands between white space."""
    return [sum(len(text.split()) for text in texts) for texts in rows]


def token_counter(path: Path) -> Callable[[Sequence[Texts]], list[int]]:
    """A function that counts tokens, special ones left out, of each row.

    Args:
        path: a `tokenizer.json`, or the folder it stands in.

    Raises:
        InputError: there is none, or the package `tokenizers` is missing.
    """
    from selfinstruct.data.tokens import load_vocabulary

    tokenizer = load_vocabulary(path).tokenizer

    def count(rows: Sequence[Texts]) -> list[int]:
        flat = [text.encode("utf-8", "replace").decode() for texts in rows for text in texts]
        sizes = iter([len(one.ids) for one in tokenizer.encode_batch_fast(flat, add_special_tokens=False)])
        return [sum(next(sizes) for _ in texts) for texts in rows]

    return count
