"""What a curation does, as its user writes it: a list of steps from a TOML file or from flags, checked.

Settings only: `steps` and `whole_steps` make them work, `curate` runs them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from selfinstruct.errors import InputError
from selfinstruct.toml_files import read_toml, told
from selfinstruct.vocabulary import find_language

Part: TypeAlias = Literal["instruction", "input", "output", "system", "prompt", "answers", "whole"]
NO_CODE = "none"  # the "language" of a row without code


class StrictSettings(BaseModel):
    """Settings of which every key is known; names may be written with dashes or underscores."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _plain_names(cls, given: Any) -> Any:
        if isinstance(given, dict):
            return {name.replace("-", "_"): value for name, value in given.items()}
        return given


class Length(StrictSettings):
    """Keeps what is at least `min` and at most `max` long, both included."""

    kind: Literal["length"] = "length"
    field: Part = "whole"
    unit: Literal["characters", "words", "tokens"] = "characters"
    min: int | None = Field(default=None, ge=0)
    max: int | None = Field(default=None, ge=0)
    tokenizer: Path | None = None

    @model_validator(mode="after")
    def _sensible(self) -> Length:
        if self.min is None and self.max is None:
            raise ValueError("give min, max, or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}: nothing would be kept")
        if (self.unit == "tokens") != (self.tokenizer is not None):
            raise ValueError('unit "tokens" and tokenizer (a tokenizer.json or its folder) go together')
        return self


class AnswerTokens(StrictSettings):
    """Keeps rows whose answers, all turns together, have at least `min` tokens."""

    kind: Literal["answer-tokens"] = "answer-tokens"
    min: int = Field(ge=1)
    tokenizer: Path


class Match(StrictSettings):
    """Keeps rows in which one of the `keep` patterns is found (if there are any) and none of the `drop` patterns."""

    kind: Literal["match"] = "match"
    field: str = "whole"  # a part, or "extra." and the name of another field of the row
    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    ignore_case: bool = False

    @field_validator("field")
    @classmethod
    def _part(cls, value: str) -> str:
        if value not in get_args(Part) and not value.startswith("extra."):
            raise ValueError(f"{value!r} is none of {', '.join(get_args(Part))}, and not extra.NAME")
        return value

    @model_validator(mode="after")
    def _sensible(self) -> Match:
        if not self.keep and not self.drop:
            raise ValueError("give keep or drop, a list of regular expressions")
        return self


class TextLanguage(StrictSettings):
    """Keeps rows whose words are in one of the languages, or of which nobody can be sure.

    A text counts as in another language when that is at least `sure` probable.
    """

    kind: Literal["language"] = "language"
    field: Part = "prompt"
    keep: tuple[str, ...] = Field(min_length=1)
    sure: float = Field(default=0.4, ge=0, le=1)
    min_characters: int = Field(default=12, ge=0)

    @field_validator("keep")
    @classmethod
    def _codes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for code in value:
            if not (2 <= len(code) <= 3 and code.isascii() and code.isalpha() and code.islower()):
                raise ValueError(f"{code!r} is no ISO 639 code such as 'en' or 'de'")
        return value


class CodeLanguage(StrictSettings):
    """Keeps rows by the programming language of the answer's code; `none` stands for no code."""

    kind: Literal["code-language"] = "code-language"
    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()

    @field_validator("keep", "drop")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = []
        for name in value:
            known = NO_CODE if name == NO_CODE else find_language(name)
            if known is None:
                raise ValueError(f"{name!r} is no programming language that is known here")
            names.append(known)
        return tuple(names)

    @model_validator(mode="after")
    def _sensible(self) -> CodeLanguage:
        if bool(self.keep) == bool(self.drop):
            raise ValueError("give keep or drop, a list of programming languages")
        return self


class ExactDuplicates(StrictSettings):
    """Keeps the first of the rows that are the same in `field`."""

    kind: Literal["exact-duplicates"] = "exact-duplicates"
    field: Part = "whole"
    normalise: bool = False  # case and white space make no difference


class NearDuplicates(StrictSettings):
    """Keeps one of the tasks that are too alike, by the rules of `selfinstruct dedup`."""

    kind: Literal["near-duplicates"] = "near-duplicates"
    threshold: float = Field(default=0.7, ge=0, lt=1)
    profile: Literal["code", "alpaca"] = "code"
    language_cap: int = Field(default=3, ge=1)
    keep: Literal["first", "longest"] = "first"


class TopK(StrictSettings):
    """Keeps the `k` rows of the highest score among those with the same prompt."""

    kind: Literal["top-k"] = "top-k"
    k: int = Field(ge=1)
    by: str = "score"  # or another field of the row that holds a number


class Clusters(StrictSettings):
    """Groups rows by meaning and keeps `keep` rows, or a `share` of the rows, of each group.

    `nearest` takes those nearest to the centroid; `spread` begins with the row farthest from the centroid and
    goes on with the one farthest from all it has.
    """

    kind: Literal["clusters"] = "clusters"
    field: Part = "instruction"
    clusters: int | None = Field(default=None, ge=1)  # the root of half the rows, if not given
    keep: int | None = Field(default=None, ge=1)
    share: float | None = Field(default=None, gt=0, le=1)
    choose: Literal["nearest", "spread"] = "nearest"
    seed: int = 0

    @model_validator(mode="after")
    def _sensible(self) -> Clusters:
        if (self.keep is None) == (self.share is None):
            raise ValueError("give keep (rows of a cluster) or share (of its rows)")
        return self


class Decontaminate(StrictSettings):
    """Keeps rows that do not overlap with a benchmark, by the rules of `selfinstruct decontaminate`."""

    kind: Literal["decontaminate"] = "decontaminate"
    against: tuple[str, ...] = Field(min_length=1)  # humaneval, or FILE, or FILE#field,field


class Verify(StrictSettings):
    """Keeps answers whose code can be parsed (`syntax`), and ends cleanly in a sandbox (`run`).

    What cannot be told here, for want of a toolchain, stays unless it is `required` to be told.
    """

    kind: Literal["verify"] = "verify"
    level: Literal["syntax", "run"] = "syntax"
    sandbox: Literal["auto", "bwrap", "container", "none"] = "auto"
    jobs: int | None = Field(default=None, ge=1)  # programs at a time; one for each processor
    required: bool = False


Step: TypeAlias = (
    Length
    | AnswerTokens
    | Match
    | TextLanguage
    | CodeLanguage
    | Verify
    | Decontaminate
    | ExactDuplicates
    | NearDuplicates
    | TopK
    | Clusters
)
KINDS: dict[str, type[Step]] = {kind.model_fields["kind"].default: kind for kind in get_args(Step)}


def read_pipeline(path: Path) -> tuple[Step, ...]:
    """The steps of a TOML file: a `[[step]]` table each, in order. Paths in it start from the file's folder.

    Raises:
        InputError: no TOML, or a step is wrong; says which step and key.
    """
    table = read_toml(path)
    if unknown := sorted(set(table) - {"step"}):
        raise InputError(f"{path}: no such key: {', '.join(unknown)}; a pipeline has [[step]] tables only")
    steps = make_steps(table.get("step", []), path, path.parent)
    if not steps:
        raise InputError(f'{path}: no steps; begin one with [[step]] and kind = "length", say')
    return steps


def make_steps(given: Any, origin: object, folder: Path, where: str = "") -> tuple[Step, ...]:
    """Check the tables of steps.

    Args:
        given: what stands under `step`.
        origin: the file they come from, for messages.
        folder: where relative paths begin.
        where: what in the file they belong to, for messages ("source 2: ").

    Raises:
        InputError: with every problem of the first step that has one.
    """
    if not isinstance(given, list):
        raise InputError(f"{origin}: {where}step: write each step as a table [[step]]")
    steps: list[Step] = []
    for number, table in enumerate(given, 1):
        kind = table.get("kind") if isinstance(table, dict) else None
        if not isinstance(kind, str) or kind not in KINDS:
            given_as = "no kind" if kind is None else f"{kind!r} is no kind of step"
            raise InputError(f"{origin}: {where}step {number}: {given_as}; there are {', '.join(KINDS)}")
        try:
            step = KINDS[kind].model_validate(table)
        except ValidationError as error:
            raise InputError(f"{origin}: {where}step {number} ({kind}): {told(error)}") from None
        steps.append(_located(step, folder))
    return tuple(steps)


def _located(step: Step, folder: Path) -> Step:
    """The step with its paths as they are from here."""
    if isinstance(step, Decontaminate):
        files = {
            name: folder / name.rpartition("#")[0] if "#" in name else folder / name for name in step.against
        }
        against = [str(folder / name) if files[name].is_file() else name for name in step.against]
        return step.model_copy(update={"against": tuple(against)})
    tokenizer: Path | None = getattr(step, "tokenizer", None)
    return step if tokenizer is None else step.model_copy(update={"tokenizer": folder / tokenizer})
