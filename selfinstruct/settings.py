"""The settings of a run: read from flags and a TOML file, checked, completed with defaults, fingerprinted.

Nothing here opens a run directory or asks a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from selfinstruct import prompt_files
from selfinstruct.errors import InputError
from selfinstruct.toml_files import read_toml, told

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_LOCAL_MODEL = "qwen2.5-coder-1.5b"
MOST_SHOTS = 19  # a list of 20 tasks has to leave room for a new one

# What the data of any job depends on. A run directory refuses to go on when one of these differs. `base_url`
# is not among them: a scheduler starts the same server on another node every night.
SHAPING_ALL = (
    "backend", "model", "verify", "against", "seed", "temperature", "top_p", "max_output_tokens", "endpoint",
    "lookahead", "repair", "require_verification",
)  # fmt: skip
# The same for `generate`.
SHAPING = (
    *SHAPING_ALL, "recipe", "profile", "threshold", "language_cap", "shots", "machine_shots", "choices",
    "instances", "answer", "only_language", "only_kind", "weights",
)  # fmt: skip

# `staged` asks for these less often than the seeds have them: they need an input of several parts, or a
# judgement that small models are poor at. A weight of the user's own replaces this table.
STAGED_KINDS = {"revise": 0.1, "summarise": 0.1, "predict": 0.3, "review": 0.5, "choose": 0.5, "design": 0.5}
# The embedded model tends to give the mended code as the code to mend: of 53 such candidates 28 were rejected, most
# for an output that repeats its input, and of the rest hardly any was right when read (docs/verification.md).
LOCAL_KINDS = STAGED_KINDS | {"fix": 0.2, "refactor": 0.2, "optimise": 0.2, "translate": 0.5, "test": 0.5}


S = TypeVar("S", bound="RunSettings")


class Prices(BaseModel):
    """Dollars per million tokens, where the user knows them better than any table."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached: float | None = Field(default=None, ge=0)


class RunSettings(BaseModel):
    """What every job that asks a model can be told; the names are those of the flags and of the TOML file.

    Fields that are None when given are completed from the backend and the job. `job` is the command's name,
    `shaping` the names of what the data depends on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    job: ClassVar[str]
    shaping: ClassVar[tuple[str, ...]] = SHAPING_ALL

    num: int | None = Field(default=None, ge=1)
    output: Path
    backend: Literal["local", "openai", "replay"] = "local"
    model: str | None = None
    base_url: str | None = None
    verify: Literal["off", "syntax", "run", "tests"] | None = None
    sandbox: Literal["auto", "bwrap", "container", "none"] = "auto"
    repair: int = Field(default=0, ge=0, le=9)
    require_verification: bool = False
    against: tuple[str, ...] = ()
    seed: int = 0
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_output_tokens: int | None = Field(default=None, ge=16)
    endpoint: Literal["chat", "completions"] | None = None
    lookahead: int | None = Field(default=None, ge=1, le=100_000)
    prompts: Path | None = None

    concurrency: int | None = Field(default=None, ge=1, le=4096)
    rpm: int | None = Field(default=None, ge=1)
    tpm: int | None = Field(default=None, ge=1)
    timeout: float = Field(default=600.0, gt=0)
    max_requests: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_cost: float | None = Field(default=None, gt=0)
    max_minutes: float | None = Field(default=None, gt=0)
    stall: int = Field(default=200, ge=1)
    prices: Prices | None = None
    log_format: Literal["text", "json"] = "text"
    batch: bool = False
    wait: bool = False
    heartbeat: float = Field(default=30.0, gt=0)
    metrics_file: Path | None = None

    @field_validator("output")
    @classmethod
    def _file(cls, value: Path) -> Path:
        if value.suffix.lower() != ".json":
            raise ValueError(
                "must end with .json, for it will be a JSON array (its run directory ends with .run)"
            )
        return value

    @field_validator("base_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        return cls.completed(dict(given)) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _agreed(self) -> Self:
        if self.backend != "local" and not self.model:
            needs = "the model's name" if self.backend == "openai" else "the replies file"
            raise ValueError(f"model: the backend {self.backend} needs it: --model with {needs}")
        if self.base_url and self.backend != "openai":
            raise ValueError(f"base_url: only the backend openai has one, this is {self.backend}")
        if self.batch and self.backend != "openai":
            raise ValueError(f"batch: only the backend openai has batches, this is {self.backend}")
        if self.wait and not self.batch:
            raise ValueError("wait: it waits for batches: it goes with --batch only")
        if self.verify == "off" and (self.repair or self.require_verification):
            name = "repair" if self.repair else "require-verification"
            raise ValueError(f"{name}: nothing is verified with --verify off: choose syntax, run or tests")
        return self

    @classmethod
    def completed(cls, given: dict[str, Any]) -> dict[str, Any]:
        """`given` with what follows from the backend, for all jobs; a job adds its own."""
        local = (given.get("backend") or "local") == "local"
        if local:
            default(given, "model", DEFAULT_LOCAL_MODEL)
        default(given, "verify", "syntax")
        default(given, "endpoint", "completions" if local else "chat")
        default(given, "concurrency", {"local": 4, "openai": 16}.get(str(given.get("backend") or "local"), 1))
        return given

    def fingerprint(self) -> dict[str, Any]:
        """The settings the data depends on, as JSON values (digests of what is read are added by the run)."""
        return self.model_dump(mode="json", include=set(self.shaping))

    @cached_property
    def _prompts(self) -> Mapping[str, str]:
        return prompt_files.read_prompts(self.prompts)

    def prompt(self, name: str, **values: str) -> str:
        """The text of a prompt file (the user's where --prompts has one) with its {placeholders} filled.

        Raises:
            InputError: a file of the user's folder cannot be used; see `prompt_files.read_prompts`.
        """
        return prompt_files.fill(self._prompts[name], values)

    def prompts_digest(self, *prefixes: str) -> str:
        """A hash of the prompts whose names begin so; part of a run's fingerprint."""
        return prompt_files.digest(self._prompts, prefixes)


class Settings(RunSettings):
    """Everything `generate` can be told."""

    job: ClassVar[str] = "generate"
    shaping: ClassVar[tuple[str, ...]] = SHAPING

    num: int = Field(default=100, ge=1)
    output: Path = Path("output/code_alpaca.json")
    seeds: Path | None = None
    recipe: Literal["code-alpaca", "staged", "self-instruct"] | None = None
    profile: Literal["code", "alpaca"] = "code"
    threshold: float = Field(default=0.7, ge=0, le=1)
    language_cap: int = Field(default=3, ge=1)
    shots: int = Field(default=3, ge=1, le=20)
    machine_shots: int = Field(default=0, ge=0, le=20)
    choices: int = Field(default=1, ge=1, le=128)
    instances: int | None = Field(default=None, ge=1, le=20)
    answer: Literal["text", "json"] = "text"
    only_language: tuple[str, ...] = ()
    only_kind: tuple[str, ...] = ()
    weights: dict[Literal["language", "kind"], dict[str, float]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for table in self.weights.values():
            if any(weight < 0 for weight in table.values()) or not any(table.values()):
                raise ValueError("weights: no weight may be negative, and one must be above 0")
        if self.recipe == "code-alpaca" and self.shots + self.machine_shots > MOST_SHOTS:
            raise ValueError(f"shots: with machine-shots at most {MOST_SHOTS} in the list of 20 tasks")
        if self.instances is not None and self.recipe != "self-instruct":
            raise ValueError(f"instances: only the recipe self-instruct has them, this is {self.recipe}")
        if self.recipe == "self-instruct" and self.choices > 1:
            raise ValueError(
                "choices: the recipe self-instruct has one answer to each input; see --instances"
            )
        if self.profile == "alpaca" and (self.recipe != "code-alpaca" or self.answer != "text"):
            raise ValueError("profile: alpaca judges numbered text: it goes with --recipe code-alpaca only")
        return self

    @classmethod
    def completed(cls, given: dict[str, Any]) -> dict[str, Any]:
        """`given` with what depends on the backend and the recipe."""
        backend = given.get("backend") or "local"
        local = backend == "local"
        default(given, "recipe", "staged" if local and given.get("profile") != "alpaca" else "code-alpaca")
        staged = given["recipe"] in ("staged", "self-instruct")  # part by part
        if given["recipe"] == "self-instruct":
            default(given, "instances", 2)
            default(given, "shots", 6)  # and 2 that the model wrote, as in the paper
            default(given, "machine_shots", 2)
        default(given, "verify", "off" if given.get("profile") == "alpaca" else "syntax")
        default(given, "temperature", 0.8 if staged or local else 1.0)
        default(given, "top_p", 0.95 if staged or local else 1.0)
        default(given, "max_output_tokens", (640 if staged else 1024) if local else 2048 if staged else 3072)
        if staged and not given.get("only_kind"):
            default(given, "weights", {})
            if isinstance(given["weights"], dict):
                given["weights"] = {"kind": LOCAL_KINDS if local else STAGED_KINDS, **given["weights"]}
        # Small: `staged` looks for duplicates before it spends more, and sees only what is this far behind.
        # Where no request depends on an earlier task nothing is gained by that, and a retry holds up the others.
        independent = not staged and not given.get("machine_shots") and backend == "openai"
        default(given, "lookahead", 8 if local else 2000 if given.get("batch") or independent else 256)
        return super().completed(given)


def default(given: dict[str, Any], name: str, value: object) -> None:
    """Give a setting its value where the user did not."""
    if given.get(name) is None:
        given[name] = value


def read_config(path: Path, kind: type[RunSettings] = Settings) -> dict[str, Any]:
    """The table of a TOML settings file; names may be written with dashes or underscores.

    Raises:
        InputError: the file cannot be read, is no TOML, or has a name that no setting has.
    """
    table = read_toml(path, "the settings")
    named = {name.replace("-", "_"): value for name, value in table.items()}
    unknown = sorted(set(named) - set(kind.model_fields))
    if unknown:
        known = ", ".join(name.replace("_", "-") for name in kind.model_fields)
        raise InputError(f"{path}: no such setting: {', '.join(unknown)}; there are: {known}")
    return named


def make_settings(flags: dict[str, Any], config: Path | None = None) -> Settings:
    """The settings of `generate`; see `make_run_settings`."""
    return make_run_settings(Settings, flags, config)


def make_run_settings(kind: type[S], flags: dict[str, Any], config: Path | None = None) -> S:
    """Merge the TOML file with the flags that were given (a flag wins) and check the result.

    Args:
        kind: the settings of the job.
        flags: by field name; None and empty lists count as not given.
        config: a TOML file, or None.

    Raises:
        InputError: with every problem in one line.
    """
    given = read_config(config, kind) if config else {}
    given.update({name: value for name, value in flags.items() if value is not None and value != []})
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        # An address may hold a password.
        raise InputError(f"settings: {told(error, hidden={'base-url'})}") from None
