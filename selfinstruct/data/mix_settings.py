"""What a mix is made of, as its user writes it: a TOML file of sources, checked. Settings only; reads no rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from selfinstruct.data.pipeline import Step, StrictSettings, make_steps
from selfinstruct.data.rows import Form
from selfinstruct.errors import InputError
from selfinstruct.toml_files import read_toml, told


class Source(StrictSettings):
    """A file or folder of rows and how much of it the mix takes.

    One of `probability` (its share of the mix's `rows`), `fraction` (of its own rows) and `count` says how many
    rows are for training; without any of them all are. Everything counts what is left after the steps, the
    duplicates and the validation rows.
    """

    name: str = Field(min_length=1, pattern=r"^[\w.+-]+( [\w.+-]+)*$")
    path: tuple[Path, ...] = Field(min_length=1)
    form: Form | None = None
    split: str | None = None
    licence: str = "unknown"
    probability: float | None = Field(default=None, gt=0)
    fraction: float | None = Field(default=None, gt=0)
    count: int | None = Field(default=None, ge=0)
    cap: int | None = Field(default=None, ge=0)  # rows for training at most
    repeats: int = Field(default=1, ge=1)  # how often a row may be there
    validation: float = Field(default=0.0, ge=0, lt=1)  # share of the rows
    validation_cap: int | None = Field(default=None, ge=0)
    chunk: int | None = Field(default=None, ge=1)  # characters of a piece of a document at most
    steps: tuple[Step, ...] = ()

    @field_validator("path", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _sensible(self) -> Source:
        given = [name for name in ("probability", "fraction", "count") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other; give one")
        if self.fraction is not None and self.fraction > self.repeats:
            raise ValueError(f"fraction {self.fraction:g} needs repeats of as many, not {self.repeats}")
        return self


class Mix(StrictSettings):
    """A mix.

    `rows` is how many training rows the sources with a probability give together; without it as many as they
    have, in these proportions. Probabilities need not add up to 1.
    """

    rows: int | None = Field(default=None, ge=1)
    seed: int = 0
    order: Literal["shuffled", "sources"] = "shuffled"
    duplicates: Literal["exact", "near", "off"] = "exact"  # the first source that has a row keeps it
    tokenizer: Path | None = None  # of the token budget
    sources: tuple[Source, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _sensible(self) -> Mix:
        names = [source.name for source in self.sources]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two sources have the name {twice[0]!r}")
        if self.rows is not None and not any(source.probability for source in self.sources):
            raise ValueError("rows: is shared out by probability, which no source has")
        return self


def ready_mixes() -> dict[str, Path]:
    """The mixes that come with the package, by name."""
    return {file.stem: file for file in sorted((Path(__file__).parent / "mixes").glob("*.toml"))}


def read_mix(
    given: str, paths: Mapping[str, Path] | None = None, more: Mapping[str, Any] | None = None
) -> Mix:
    """The mix of a TOML file, or one that comes with the package.

    Args:
        given: a path, or the name of a ready mix. Paths in a file start from its folder, those of a ready mix
            from the current one.
        paths: where sources are, by name, in place of what the file says.
        more: settings of the mix, in place of what the file says.

    Raises:
        InputError: it is neither, or a setting is wrong; says which source, step and key.
    """
    file, folder = Path(given), Path(given).parent
    if not file.exists() and file.suffix != ".toml":
        if given not in ready_mixes():
            raise InputError(f"{given}: no such file, and no ready mix; there are {', '.join(ready_mixes())}")
        file, folder = ready_mixes()[given], Path()
    table = read_toml(file)
    sources = table.pop("source", [])
    if not isinstance(sources, list) or not all(isinstance(source, dict) for source in sources):
        raise InputError(f"{given}: source: write each source as a table [[source]]")
    if not sources:
        raise InputError(f"{given}: no sources; begin one with [[source]], a name and a path")
    made = tuple(_source(source, number, given, folder) for number, source in enumerate(sources, 1))
    try:
        mix = Mix.model_validate({**table, **(more or {}), "sources": _moved(made, paths or {}, given)})
    except ValidationError as error:
        raise InputError(f"{given}: {told(error)}") from None
    if mix.tokenizer is not None and not (more or {}).get("tokenizer"):
        return mix.model_copy(update={"tokenizer": folder / mix.tokenizer})
    return mix


def _source(table: dict[str, Any], number: int, given: str, folder: Path) -> Source:
    table = dict(table)
    where = f"source {number}" + (f" ({name})" if isinstance(name := table.get("name"), str) else "")
    steps = make_steps(table.pop("step", []), given, folder, f"{where}: ")
    try:
        source = Source.model_validate({**table, "steps": steps})
    except ValidationError as error:
        raise InputError(f"{given}: {where}: {told(error)}") from None
    return source.model_copy(update={"path": tuple(folder / path for path in source.path)})


def _moved(sources: tuple[Source, ...], paths: Mapping[str, Path], given: str) -> tuple[Source, ...]:
    names = [source.name for source in sources]
    if unknown := sorted(set(paths) - set(names)):
        raise InputError(f"{given}: no source has the name {unknown[0]!r}; there are {', '.join(names)}")
    return tuple(
        source.model_copy(update={"path": (paths[source.name],)}) if source.name in paths else source
        for source in sources
    )
