"""The prompt files: those of the package, and the user's that replace them.

A prompt is a text with `{placeholders}`. Nothing here knows what a prompt is for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path

from selfinstruct.errors import InputError

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@cache
def bundled_prompts() -> Mapping[str, str]:
    """The texts of this package by name (the file's, without `.txt`)."""
    found = [item for item in (files("selfinstruct") / "prompts").iterdir() if item.name.endswith(".txt")]
    return {item.name[:-4]: item.read_text(encoding="utf-8").rstrip("\n") for item in found}


def prompt_text(name: str) -> str:
    """The text of this package's prompt file `name`."""
    return bundled_prompts()[name]


def read_prompts(folder: Path | None = None) -> Mapping[str, str]:
    """All prompts: the package's, those replaced that stand in `folder` as a file of the same name.

    Raises:
        InputError: there is no such folder, a `.txt` file in it has no counterpart, cannot be read, is empty,
            or lacks a placeholder of it.
    """
    texts = dict(bundled_prompts())
    if folder is None:
        return texts
    if not folder.is_dir():
        raise InputError(f"{folder}: no folder; name one with prompt files like revise_critique.txt")
    for path in sorted(folder.glob("*.txt")):
        before = texts.get(path.stem)
        if before is None:
            raise InputError(
                f"{path}: replaces no prompt; rename or remove it; there are: "
                f"{', '.join(f'{name}.txt' for name in sorted(texts))}"
            )
        try:
            text = path.read_text(encoding="utf-8-sig").rstrip("\n")
        except OSError as error:
            raise InputError(f"{path}: cannot read the prompt: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 at byte {error.start}; convert it") from None
        if not text.strip():
            raise InputError(f"{path}: is empty; write the prompt, or remove the file")
        if missing := placeholders(before) - placeholders(text):
            words = ", ".join(f"{{{name}}}" for name in sorted(missing))
            raise InputError(f"{path}: lacks {words}; put it where the text shall stand")
        texts[path.stem] = text
    return texts


def placeholders(text: str) -> set[str]:
    """The names in braces that a prompt has."""
    return set(_PLACEHOLDER.findall(text))


def fill(text: str, values: Mapping[str, str]) -> str:
    """The prompt with its placeholders replaced; other braces, and those inside the values, stay as they are."""
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), text) if values else text


def digest(texts: Mapping[str, str], prefixes: Iterable[str]) -> str:
    """A 16-digit hex hash of the prompts whose names begin with one of `prefixes`."""
    chosen = sorted((name, text) for name, text in texts.items() if name.startswith(tuple(prefixes)))
    return hashlib.sha256(repr(chosen).encode("utf-8", "surrogatepass")).hexdigest()[:16]
