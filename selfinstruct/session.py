"""A run from settings to finished dataset: opens what the loop needs, in the right order, and closes it.

The public `generate` lives here. Nothing is printed; a caller that wants a progress bar reads the events.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from selfinstruct import novelty, seeds
from selfinstruct.backends import Say, open_backend
from selfinstruct.calls import Calls, Limits
from selfinstruct.errors import InputError
from selfinstruct.journal import Commit
from selfinstruct.pool import Pool
from selfinstruct.prices import find_price
from selfinstruct.recipes import PROMPTS, SAMPLES, YIELDS, make_recipe
from selfinstruct.records import Row, Seed
from selfinstruct.rules import benchmarks_digest, rules_of_profile
from selfinstruct.rundir import RunDirectory
from selfinstruct.runner import Job, resume
from selfinstruct.runner import generate as run_loop
from selfinstruct.sampling import Sampler
from selfinstruct.seams import Backend, Planner, Recipe
from selfinstruct.settings import RunSettings, Settings, make_settings
from selfinstruct.verify.loop import Verification, open_verification, prompts_of, runs_code, verified
from selfinstruct.vocabulary import find_kind, find_language

if TYPE_CHECKING:
    from selfinstruct.batch import BatchCalls

SPARE = 3  # indices that a round of batches asks for beyond what is expected to be needed
GRACE = {"local": 0.0, "openai": 30.0, "replay": 60.0}  # seconds for requests in flight when a run stops


@dataclass(frozen=True, slots=True)
class Work:
    """What a job brings to the loop.

    `indices` is how many there are (None: as many as the target takes), `expected_yield` how many rows one
    is expected to bring; `digests` are of what the job reads and belong to the run's fingerprint; `samples`
    stand in for replies so that a dry run can show the prompts of later steps. With `checked` every candidate
    is verified, else the recipe sees to that; `languages` are those that are asked for, as far as is known.
    """

    planner: Planner
    pool: Pool
    recipe: Recipe
    expected_yield: float
    digests: Mapping[str, str]
    indices: int | None = None
    samples: tuple[str, ...] = ()
    checked: bool = True
    languages: frozenset[str] = frozenset()


@dataclass(slots=True)
class Session:
    """An open run. `events` works on it; `counts` is about this sitting only."""

    settings: RunSettings
    run: RunDirectory
    work: Work
    start: int
    began: float
    verification: Verification | None = None
    calls: Calls | BatchCalls | None = None
    stop_reason: str | None = None
    accepted: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    verified: dict[str, int] = field(default_factory=dict)  # accepted tasks by what verification came to
    before: int = 0  # rows when it was opened

    @property
    def complete(self) -> bool:
        """Whether the dataset holds the rows that were asked for, or all that was given is worked through."""
        target, indices = self.settings.num, self.work.indices
        return (target is not None and self.run.size >= target) or (
            indices is not None and self.work.pool.decided >= indices
        )

    def stop(self, why: str) -> None:
        """End the run as soon as what is under way is safe. May be called from a signal handler's thread."""
        self.stop_reason = self.stop_reason or why
        if self.calls is not None:
            self.calls.stop(why)

    def events(self, backend: Backend, say: Say = lambda _: None) -> Iterator[Commit | None]:
        """Work until the target is reached; yields commits, and None now and then.

        Args:
            backend: answers requests.
            say: is told what happens to batches.

        Raises:
            InputError: requests of the run are in a batch, and the settings have none.
            StoppedEarly, BackendError: see `runner.generate`.
        """
        settings, work = self.settings, self.work
        in_batches = self._batch_calls(backend, say) if settings.batch else None
        self.calls = in_batches or self._calls(backend)
        if self.stop_reason is not None:
            self.calls.stop(self.stop_reason)
        job = Job(
            target=settings.num or sys.maxsize,
            indices=work.indices,
            lookahead=settings.lookahead or 1,
            concurrency=settings.concurrency or 1,
            grace=GRACE[settings.backend],
            stall=settings.stall,
            expected_yield=work.expected_yield if settings.backend == "openai" else None,
            planner=work.planner,
            pool=work.pool,
            recipe=verified(work.recipe, self.verification, checked=work.checked)
            if self.verification
            else work.recipe,
            run=self.run,
            calls=self.calls,
            works=runs_code(settings),
        )
        if in_batches is not None:
            job = replace(job, settle=in_batches.settle, spare=SPARE, barren=self.run.barren)
        try:
            for commit in run_loop(job, self.start):
                self._count(commit)
                yield commit
            self.run.finish()
        finally:
            if in_batches is not None:
                in_batches.close()
            elif isinstance(self.calls, Calls):
                self.calls.give_up()
            self.run.publish()

    def _calls(self, backend: Backend) -> Calls:
        from selfinstruct.batch_log import read_open

        if pending := read_open(self.run.path):
            raise InputError(
                f"{self.run.path}: {sum(len(batch.requests) for batch in pending.values())} requests are pending "
                "in a batch and would be paid twice; go on with --batch (or give them up: move batches.jsonl away)"
            )
        calls = Calls(backend, self.run, limits_of(self.settings, self.began), find_price(self.settings))
        if self.settings.backend == "openai":
            from selfinstruct.backend_openai import OpenAIBackend

            if isinstance(backend, OpenAIBackend):
                backend.on_headers = calls.hear
        return calls

    def _batch_calls(self, backend: Backend, say: Say) -> BatchCalls:
        from selfinstruct.backend_openai import OpenAIBackend
        from selfinstruct.batch import BatchCalls

        assert isinstance(backend, OpenAIBackend)  # noqa: S101 - the settings see to it
        limits, price = limits_of(self.settings, self.began), find_price(self.settings)
        return BatchCalls(backend, self.run, limits, price, wait=self.settings.wait, say=say)

    def _count(self, commit: Commit | None) -> None:
        for decision in commit.decisions if commit else ():
            if decision.rejection is None:
                self.accepted += 1
                if (status := decision.evidence.get("verification")) is not None:
                    self.verified[status] = self.verified.get(status, 0) + 1
            else:
                reason = decision.rejection.reason
                self.rejected[reason] = self.rejected.get(reason, 0) + 1


def limits_of(settings: RunSettings, began: float) -> Limits:
    """What a sitting may use that began at this time of the monotonic clock."""
    return Limits(
        concurrency=settings.concurrency or 1,
        rpm=settings.rpm,
        tpm=settings.tpm,
        max_requests=settings.max_requests,
        max_tokens=settings.max_tokens,
        max_cost=settings.max_cost,
        deadline=None if settings.max_minutes is None else began + 60 * settings.max_minutes,
    )


def load_seeds(settings: Settings) -> tuple[list[Seed], Sampler]:
    """The seeds of a run and the sampler over them.

    Raises:
        InputError: the seeds cannot be read, or the settings leave none of them.
    """
    loaded = seeds.load(settings.seeds)
    return loaded, Sampler(
        loaded,
        settings.seed,
        settings.shots,
        settings.machine_shots,
        tuple(_canonical(name, find_language, "language") for name in settings.only_language),
        tuple(_canonical(name, find_kind, "kind") for name in settings.only_kind),
        {
            "language": _factors(settings, "language", find_language),
            "kind": _factors(settings, "kind", find_kind),
        },
        seeds.load_topics(settings.seeds) if settings.seeds is None or settings.seeds.is_dir() else {},
    )


def _factors(
    settings: Settings, axis: Literal["language", "kind"], find: Callable[[str], str | None]
) -> dict[str, float]:
    return {_canonical(name, find, axis): weight for name, weight in settings.weights.get(axis, {}).items()}


def _canonical(name: str, find: Callable[[str], str | None], axis: str) -> str:
    found = find(name)
    if found is None:
        raise InputError(f"{name!r}: no {axis} that selfinstruct knows; see `selfinstruct seeds list`")
    return found


def make_pool(settings: Settings, loaded: Sequence[Seed]) -> Pool:
    """The pool of a run before its first decision: the seeds."""
    return Pool(
        loaded,
        rules_of_profile(settings),
        novelty.make(settings.profile, settings.threshold, settings.language_cap),
    )


def open_work(settings: RunSettings) -> Work:
    """What the job of the settings brings to the loop, before its first decision.

    Raises:
        InputError: seeds, inputs or prompts cannot be read.
    """
    if not isinstance(settings, Settings):
        from selfinstruct.derive import worklist

        return worklist.open_work(settings)
    loaded, sampler = load_seeds(settings)
    recipe = settings.recipe or "code-alpaca"
    prompts = settings.prompts_digest(*PROMPTS[recipe])
    return Work(
        planner=sampler,
        pool=make_pool(settings, loaded),
        recipe=make_recipe(settings),
        expected_yield=YIELDS[recipe] * (settings.instances or 1) * settings.choices,
        digests={"seeds": seeds.digest(loaded), "prompts": prompts} | benchmarks_digest(settings),
        samples=SAMPLES.get(recipe, ()),
        languages=sampler.languages,
    )


@contextmanager
def open_session(settings: RunSettings) -> Iterator[Session]:
    """Open the run directory and bring the pool to where it was; no model is started yet.

    Raises:
        InputError, LockedError: see `RunDirectory`.
    """
    began = monotonic()
    work = open_work(settings)
    find_price(settings)
    run = RunDirectory(settings, {**work.digests, **prompts_of(settings)}, work.indices)
    try:
        start = resume(run, work.pool)
        with open_verification(settings, run.path, work.pool.decided, work.languages) as verification:
            yield Session(settings, run, work, start, began, verification, before=run.size)
    finally:
        run.close()


def generate(config: str | Path | None = None, **settings: Any) -> Iterator[Row]:
    """Make new tasks and yield each as it is accepted, in the order of the dataset.

    The same run as `selfinstruct generate`: it writes the dataset and the run directory, goes on where
    it was left, and ends when the dataset holds `num` rows. Leaving the loop early keeps everything.

    Args:
        config: a TOML file with settings.
        **settings: the names of the flags, with underscores (`num=10, backend="openai", model="..."`).

    Yields:
        `{"instruction": ..., "input": ..., "output": ...}` of each new task.

    Raises:
        SelfInstructError: its subclasses tell what is wrong, each in one line (`errors.py`).
    """
    chosen = make_settings(settings, Path(config) if config else None)
    with open_session(chosen) as session:
        if session.complete:
            return
        with open_backend(chosen) as backend:
            for commit in session.events(backend):
                for decision in commit.decisions if commit else ():
                    if decision.accepted:
                        yield decision.candidate.row
