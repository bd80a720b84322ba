"""The settings of a run: read from flags and a TOML file, checked, completed with defaults, fingerprinted.

Nothing here opens a run directory or asks a model.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from selfinstruct.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_LOCAL_MODEL = "qwen2.5-coder-1.5b"
MOST_SHOTS = 19  # a list of 20 tasks has to leave room for a new one

# What the data depends on. A run directory refuses to go on when one of these differs. `base_url` is not
# among them: a scheduler starts the same server on another node every night.
SHAPING = (
    "backend", "model", "recipe", "profile", "threshold", "language_cap", "verify", "against", "seed", "shots",
    "machine_shots", "temperature", "top_p", "max_output_tokens", "choices", "instances", "answer", "endpoint",
    "lookahead", "only_language", "only_kind", "weights", "repair", "require_verification",
)  # fmt: skip

# `staged` asks for these less often than the seeds have them: they need an input of several parts, or a
# judgement that small models are poor at. A weight of the user's own replaces this table.
STAGED_KINDS = {"revise": 0.1, "summarise": 0.1, "predict": 0.3, "review": 0.5, "choose": 0.5, "design": 0.5}


class Prices(BaseModel):
    """Dollars per million tokens, where the user knows them better than any table."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached: float | None = Field(default=None, ge=0)


class Settings(BaseModel):
    """Everything `generate` can be told; the names are those of the flags and of the TOML file.

    Fields that are None when given are completed from the backend and the recipe.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    num: int = Field(default=100, ge=1)
    output: Path = Path("output/code_alpaca.json")
    seeds: Path | None = None
    backend: Literal["local", "openai", "replay"] = "local"
    model: str | None = None
    base_url: str | None = None
    recipe: Literal["code-alpaca", "staged", "self-instruct"] | None = None
    profile: Literal["code", "alpaca"] = "code"
    threshold: float = Field(default=0.7, ge=0, le=1)
    language_cap: int = Field(default=3, ge=1)
    verify: Literal["off", "syntax", "run", "tests"] | None = None
    sandbox: Literal["auto", "bwrap", "container", "none"] = "auto"
    repair: int = Field(default=0, ge=0, le=9)
    require_verification: bool = False
    against: tuple[str, ...] = ()
    seed: int = 0
    shots: int = Field(default=3, ge=1, le=20)
    machine_shots: int = Field(default=0, ge=0, le=20)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_output_tokens: int | None = Field(default=None, ge=16)
    choices: int = Field(default=1, ge=1, le=128)
    instances: int | None = Field(default=None, ge=1, le=20)
    answer: Literal["text", "json"] = "text"
    endpoint: Literal["chat", "completions"] | None = None
    only_language: tuple[str, ...] = ()
    only_kind: tuple[str, ...] = ()
    weights: dict[Literal["language", "kind"], dict[str, float]] = Field(default_factory=dict)
    lookahead: int | None = Field(default=None, ge=1, le=100_000)

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
        return _with_defaults(dict(given)) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
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

    def fingerprint(self) -> dict[str, Any]:
        """The settings the data depends on, as JSON values (the seeds' digest is added by the run)."""
        return self.model_dump(mode="json", include=set(SHAPING))


def _with_defaults(given: dict[str, Any]) -> dict[str, Any]:
    """Complete what depends on the backend and the recipe."""

    def default(name: str, value: object) -> None:
        if given.get(name) is None:
            given[name] = value

    backend = given.get("backend") or "local"
    local = backend == "local"
    if local:
        default("model", DEFAULT_LOCAL_MODEL)
    default("recipe", "staged" if local and given.get("profile") != "alpaca" else "code-alpaca")
    staged = given["recipe"] in ("staged", "self-instruct")  # part by part
    if given["recipe"] == "self-instruct":
        default("instances", 2)
        default("shots", 6)  # and 2 that the model wrote, as in the paper
        default("machine_shots", 2)
    default("verify", "off" if given.get("profile") == "alpaca" else "syntax")
    default("endpoint", "completions" if local else "chat")
    default("temperature", 0.8 if staged or local else 1.0)
    default("top_p", 0.95 if staged or local else 1.0)
    default("max_output_tokens", (640 if staged else 1024) if local else 2048 if staged else 3072)
    if staged and not given.get("only_kind"):
        default("weights", {})
        if isinstance(given["weights"], dict):
            given["weights"] = {"kind": STAGED_KINDS, **given["weights"]}
    # Small: `staged` looks for duplicates before it spends more, and sees only what is this far behind.
    # Where no request depends on an earlier task nothing is gained by that, and a retry holds up the others.
    independent = not staged and not given.get("machine_shots") and backend == "openai"
    default("lookahead", 8 if local else 2000 if given.get("batch") or independent else 256)
    default("concurrency", {"local": 4, "openai": 16}.get(str(backend), 1))
    return given


def read_config(path: Path) -> dict[str, Any]:
    """The table of a TOML settings file; names may be written with dashes or underscores.

    Raises:
        InputError: the file cannot be read, is no TOML, or has a name that no setting has.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read the settings: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a TOML file: {error}") from None
    named = {name.replace("-", "_"): value for name, value in table.items()}
    unknown = sorted(set(named) - set(Settings.model_fields))
    if unknown:
        known = ", ".join(name.replace("_", "-") for name in Settings.model_fields)
        raise InputError(f"{path}: no such setting: {', '.join(unknown)}; there are: {known}")
    return named


def make_settings(flags: dict[str, Any], config: Path | None = None) -> Settings:
    """Merge the TOML file with the flags that were given (a flag wins) and check the result.

    Args:
        flags: by field name; None and empty lists count as not given.
        config: a TOML file, or None.

    Raises:
        InputError: with every problem in one line.
    """
    given = read_config(config) if config else {}
    given.update({name: value for name, value in flags.items() if value is not None and value != []})
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            name = ".".join(str(part) for part in problem["loc"]).replace("_", "-")
            text = problem["msg"].removeprefix("Value error, ")
            text = text[:1].lower() + text[1:]
            # An address may hold a password, and an unknown name may be that of a key.
            secret = name == "base-url" or problem["type"] == "extra_forbidden"
            given_as = "" if secret else f" (given: {problem['input']!r})"
            problems.append(f"{name}: {text}{given_as}" if name else text)
        raise InputError("settings: " + "; ".join(problems)) from None
