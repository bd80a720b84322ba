"""Jobs that work through given data: index k is input k. What such a job is made of, and how it enters the loop.

The loop, the run directory, limits, verification and resume are those of `generate`; nothing here asks a
model or decides on a candidate.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import Field, model_validator

from selfinstruct import novelty
from selfinstruct.dataset import dataset_of
from selfinstruct.derive.inputs import read_rows
from selfinstruct.errors import InputError
from selfinstruct.pool import Filter, Pool, accept
from selfinstruct.records import Candidate, Source
from selfinstruct.rules import benchmarks_digest, make_rules
from selfinstruct.seams import Complete, Plan, PoolView
from selfinstruct.session import Work
from selfinstruct.settings import SHAPING_ALL, RunSettings, default
from selfinstruct.verify.loop import runs_code
from selfinstruct.verify.verifier import language_to_run

S = TypeVar("S", bound="DeriveSettings")


class DeriveSettings(RunSettings):
    """What every job over given data can be told. A job's own settings are a subclass in its file."""

    shaping: ClassVar[tuple[str, ...]] = SHAPING_ALL

    inputs: tuple[Path, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _elsewhere(self) -> DeriveSettings:
        output = os.path.realpath(self.output)
        for path in self.inputs:
            read = dataset_of(path) if path.suffix == ".run" else path
            if os.path.realpath(read) == output:
                raise ValueError(f"output: {self.output} is what is read; choose another file to write")
        return self

    @classmethod
    def completed(cls, given: dict[str, Any]) -> dict[str, Any]:
        """`given` with what follows from the backend."""
        if not given.get("inputs"):
            raise ValueError("name what to work on: a dataset (code_alpaca JSON, JSONL, a run directory)")
        if not given.get("output"):
            raise ValueError("output: name the dataset to write: -o OUT.json")
        backend = given.get("backend") or "local"
        local = backend == "local"
        default(given, "temperature", 0.7)
        default(given, "top_p", 0.95)
        default(given, "max_output_tokens", 640 if local else 2048)
        default(given, "lookahead", 8 if local else 2000 if backend == "openai" else 256)
        return super().completed(given)

    def digests(self) -> dict[str, str]:
        """Hashes of files that the job reads beside its inputs and prompts, for the run's fingerprint.

        Raises:
            InputError: one of them cannot be read.
        """
        return {}


def read_inputs(settings: DeriveSettings) -> list[Source]:
    """The rows of all inputs, in their order."""
    return read_rows(settings.inputs)


@dataclass(frozen=True, slots=True)
class Derivation(Generic[S]):
    """A job over given data: its settings, and the plain function that makes candidates of one input.

    Attributes:
        settings: the class; its `job` is the command's name and the beginning of its prompt files' names.
        recipe: `(settings, plan, view, complete) -> candidates`; the input is `plan.source`.
        refuse: the filters that each candidate has to pass.
        refuse_instruction: those of them that need the instruction alone, for a recipe that asks
            `view.judge_instruction` before it has the output.
        expected_yield: rows that an input usually brings.
        samples: replies that lead through every step of the recipe, for a dry run.
        novel: whether a candidate must be new by the rule of profile `code`; else only an exact repetition
            is refused. A job with it has the settings `threshold` and `language_cap`.
        checked: whether `--verify` looks at every candidate; else the recipe asks `view.verify` itself.
        read: what the inputs are.
    """

    settings: type[S]
    recipe: Callable[[S, Plan, PoolView, Complete], list[Candidate]]
    refuse: Filter = accept
    refuse_instruction: Filter = accept
    expected_yield: float = 1.0
    samples: tuple[str, ...] = ()
    novel: bool = False
    checked: bool = True
    read: Callable[[S], list[Source]] = read_inputs


def find_job(name: str) -> Derivation[Any]:
    """The job of that name; its module is imported only now."""
    job: Derivation[Any] = import_module(f"selfinstruct.derive.{name.replace('-', '_')}").JOB
    return job


@dataclass(frozen=True, slots=True)
class WorkList:
    """The inputs as a planner: the plan of index k is made of input k and the seed alone."""

    sources: Sequence[Source]
    seed: int = 0

    def plan(self, k: int, _: PoolView) -> Plan:
        """The plan of index `k`."""
        source = self.sources[k]
        drawn = hashlib.sha256(f"{self.seed}:{k}".encode()).digest()
        return Plan(
            k,
            (),
            source.language,
            seed=int.from_bytes(drawn[:4], "big") >> 1,
            derived_from=(source.id,),
            source=source,
        )


def open_work(settings: RunSettings) -> Work:
    """What the job of the settings brings to the loop.

    Raises:
        InputError: an input, a prompt or another file cannot be read, or there is no input in them.
    """
    assert isinstance(settings, DeriveSettings)  # noqa: S101 - `generate` has its own
    job = find_job(settings.job)
    sources: list[Source] = job.read(settings)
    if not sources:
        named = ", ".join(map(str, settings.inputs))
        raise InputError(f"{named}: nothing in it that {settings.job} could work on")
    rules = make_rules(settings, job.refuse, job.refuse_instruction, checked=job.checked)
    rule = (
        novelty.make("code", getattr(settings, "threshold", 0.7), getattr(settings, "language_cap", 3))
        if job.novel
        else novelty.ExactNovelty()
    )
    digests = {"inputs": _digest(sources), "prompts": settings.prompts_digest(_prefix(settings.job))}
    return Work(
        planner=WorkList(sources, settings.seed),
        pool=Pool((), rules, rule),
        recipe=partial(job.recipe, settings),
        expected_yield=job.expected_yield,
        digests=digests | benchmarks_digest(settings) | settings.digests(),
        indices=len(sources),
        samples=job.samples,
        checked=job.checked,
        languages=_languages(settings, sources),
    )


def _languages(settings: RunSettings, sources: Sequence[Source]) -> frozenset[str]:
    """The languages that programs will be in, where that has to be known: to find the code of rows takes time."""
    if not (settings.require_verification and runs_code(settings)):
        return frozenset()
    named = (
        source.language
        or language_to_run(Candidate(source.instruction, source.input, source.output), anew=True)
        for source in sources
    )
    return frozenset(language for language in named if language)


def _prefix(job: str) -> str:
    return job.replace("-", "_") + "_"


# What makes a source what it is, in the order in which runs that are there have hashed it. Neither its name, which
# follows from its texts, nor the place where it stood: a folder may be moved.
_DIGESTED = ("instruction", "input", "output", "system", "licence", "language")


def _digest(sources: Sequence[Source]) -> str:
    """A hash of all inputs in their order."""
    total = hashlib.sha256()
    for source in sources:
        texts = [getattr(source, name) for name in _DIGESTED]
        total.update(repr(texts).encode("utf-8", "surrogatepass"))
    return total.hexdigest()[:16]
