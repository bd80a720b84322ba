"""TOML files that a user writes: read, checked against a model, and what is wrong with them in one line.

What the keys mean is the matter of the models.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from selfinstruct.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

__all__ = ["read_model", "read_toml", "told", "tomllib"]

M = TypeVar("M", bound="BaseModel")


def read_toml(path: Path, what: str = "it") -> dict[str, Any]:
    """The table of a TOML file.

    Args:
        path: the file.
        what: it is, for the message that it cannot be read ("the settings").

    Raises:
        InputError: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot read {what}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a TOML file: {error}") from None
    except RecursionError:
        raise InputError(f"{path}: not a TOML file: nested too deeply") from None


def read_model(kind: type[M], path: Path, what: str = "it") -> M:
    """What a TOML file says, as a model.

    Raises:
        InputError: see `read_toml`; or it says something else, with every problem and its key.
    """
    from pydantic import ValidationError

    try:
        return kind.model_validate(read_toml(path, what))
    except ValidationError as error:
        raise InputError(f"{path}: {told(error)}") from None


def told(error: ValidationError, hidden: Collection[str] = ()) -> str:
    """The problems in one line, each with its key and what was given, but for the values of `hidden` keys."""
    return "; ".join(_problems(error, hidden))


def _problems(error: ValidationError, hidden: Collection[str]) -> Iterator[str]:
    for problem in error.errors():
        place, kind, value = problem["loc"], problem["type"], problem["input"]
        name = ".".join(str(part) for part in place).replace("_", "-")
        if kind == "extra_forbidden":  # its value may be a key
            text = "no such key"
        elif kind == "missing":
            text = "is missing"
        else:
            text = problem["msg"].removeprefix("Value error, ")
            text = (text[:1].lower() + text[1:]).replace("a valid tuple", "a list")
            text = text.replace("tuple should", "list should").removesuffix(" after validation, not 0")
            if place and name not in hidden:
                text += f" (given: {str(value) if isinstance(value, Path) else value!r})"
        yield f"{name}: {text}" if name else text
