"""A rubric: the criteria by which a judge rates a row, as words for a prompt, and its answers read back.

It reads the rubric's file; it asks nobody. Reading an answer never raises, whatever the model wrote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from selfinstruct.records import JSON
from selfinstruct.toml_files import read_model

REASON_LENGTH = 400  # characters of a reason that are kept
_WIDEST = 100  # steps of a scale at most: a model cannot tell more apart
_MOST_OBJECTS = 50  # of an answer that are tried as JSON


class Criterion(BaseModel):
    """One question to an answer, with what some of the numbers mean."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")
    question: str = Field(min_length=1)
    weight: float = Field(default=1.0, gt=0)
    anchors: dict[int, str] = Field(default_factory=dict)


class Rubric(BaseModel):
    """Criteria on a common scale of whole numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    lowest: int = 1
    highest: int = 5
    criteria: tuple[Criterion, ...] = Field(alias="criterion", min_length=1, max_length=20)

    @model_validator(mode="after")
    def _whole(self) -> Rubric:
        if not 0 < self.highest - self.lowest <= _WIDEST:
            raise ValueError(f"highest: must be above lowest, by at most {_WIDEST}")
        names = [criterion.name for criterion in self.criteria]
        if len(set(names)) < len(names):
            raise ValueError("criterion: two of them have the same name")
        for criterion in self.criteria:
            if any(not self.lowest <= number <= self.highest for number in criterion.anchors):
                raise ValueError(f"criterion {criterion.name}: an anchor is outside of the scale")
        return self

    @property
    def middle(self) -> float:
        """The middle of the scale."""
        return (self.lowest + self.highest) / 2

    def describe(self) -> str:
        """The criteria as a prompt says them, the heavier ones first."""
        parts = []
        for criterion in sorted(self.criteria, key=lambda one: -one.weight):
            lines = [f"{criterion.name}: {criterion.question}"]
            lines += [f"  {number}: {meaning}" for number, meaning in sorted(criterion.anchors.items())]
            parts.append("\n".join(lines))
        return "\n\n".join(parts)

    def form(self) -> str:
        """The JSON object that an answer shall be, with dots for its values."""
        inner = ", ".join(
            f'"{criterion.name}": {{"reason": "...", "score": ...}}' for criterion in self.criteria
        )
        return f"{{{inner}}}"

    def answer_schema(self, *, longest: int | None = None) -> dict[str, JSON]:
        """The same as a JSON schema; `longest` bounds the reasons where the engine can hold that."""
        reason: dict[str, JSON] = {"type": "string"} | ({"maxLength": longest} if longest else {})
        numbers = list(range(self.lowest, self.highest + 1))
        one = _object({"reason": reason, "score": {"type": "integer", "enum": numbers}})
        return _object({criterion.name: one for criterion in self.criteria})


def _object(properties: dict[str, JSON]) -> dict[str, JSON]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


@dataclass(frozen=True, slots=True)
class Rating:
    """What a judge said of a row: a number and a reason for each criterion, and their weighted mean."""

    score: float
    scores: Mapping[str, int]
    reasons: Mapping[str, str]

    def notes(self) -> dict[str, JSON]:
        """The rating as the journal has it."""
        return {"score": round(self.score, 3), "scores": dict(self.scores), "reasons": dict(self.reasons)}


def read_rubric(path: Path | None = None) -> Rubric:
    """The rubric of a TOML file, or the one of this package.

    Raises:
        InputError: the file cannot be read, or says something that is no rubric.
    """
    return read_model(Rubric, path or Path(__file__).with_name("rubric.toml"), "the rubric")


def read_rating(text: str, rubric: Rubric) -> Rating | None:
    """The rating that an answer holds: JSON anywhere in it, else lines like `clarity: 4 - reads well`.

    None where a criterion has no number or one outside of the scale.
    """
    for value in read_objects(text):
        if (rating := _rating_of(value, rubric)) is not None:
            return rating
    return _rating_of(_labelled(text, rubric), rubric)


def read_objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects of a text, outermost first, each with what is in it under `scores` or the like laid open."""
    decoder, place = json.JSONDecoder(strict=False), text.find("{")
    for _ in range(_MOST_OBJECTS):
        if place < 0:
            return
        try:
            value, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            end = place + 1
        else:
            if isinstance(value, dict):
                yield value
                yield from (inner for inner in value.values() if isinstance(inner, dict))
        place = text.find("{", end)


def _rating_of(value: Mapping[str, Any], rubric: Rubric) -> Rating | None:
    named = {name.strip().lower(): inner for name, inner in value.items() if isinstance(name, str)}
    scores: dict[str, int] = {}
    reasons: dict[str, str] = {}
    for criterion in rubric.criteria:
        inner = named.get(criterion.name)
        score = inner.get("score", inner.get("rating")) if isinstance(inner, dict) else inner
        number = _number(score, rubric)
        if number is None:
            return None
        scores[criterion.name] = number
        reason = (
            inner.get("reason", "") if isinstance(inner, dict) else named.get(f"{criterion.name}_reason", "")
        )
        reasons[criterion.name] = reason.strip()[:REASON_LENGTH] if isinstance(reason, str) else ""
    weight = sum(criterion.weight for criterion in rubric.criteria)
    total = sum(criterion.weight * scores[criterion.name] for criterion in rubric.criteria)
    return Rating(total / weight, scores, reasons)


_NUMBER = re.compile(r"\s*(-?\d{1,6})(?:\.0+)?(?:\s*(?:/|out of)\s*(\d{1,6}))?\s*", re.IGNORECASE)


def _number(value: Any, rubric: Rubric) -> int | None:
    """A whole number of the scale: 4, 4.0, "4", "4/5"."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    found = _NUMBER.fullmatch(value if isinstance(value, str) else repr(value))
    if found is None or (found[2] and int(found[2]) != rubric.highest):
        return None
    number = int(found[1])
    return number if rubric.lowest <= number <= rubric.highest else None


def _labelled(text: str, rubric: Rubric) -> dict[str, Any]:
    """Lines `Clarity: 4/5 - it reads well`, also in bold or as list items, as the object they stand for."""
    found: dict[str, Any] = {}
    for criterion in rubric.criteria:
        label = re.compile(
            rf"^[\s*#>-]{{0,9}}{criterion.name}[*\s]{{0,9}}[:=][*\s]{{0,9}}"
            r"(-?\d{1,6}(?:\.0)?(?:\s?/\s?\d{1,6})?)(?!\d|\.\d)[*\s.,;:)-]{0,9}([^\n]{0,400})",
            re.IGNORECASE | re.MULTILINE,
        )
        if match := label.search(text):
            found[criterion.name] = {"score": match[1], "reason": match[2]}
    return found
