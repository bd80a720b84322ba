"""The loop: plan ahead, ask in parallel, decide in order. The only module that owns threads.

Index k is planned from the pool as it stood after commit k - lookahead, workers finish in any order, and
decisions are made in order of k on the calling thread. So what is accepted depends on the settings and the
replies alone, never on timing.
"""

from __future__ import annotations

import math
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Protocol

from selfinstruct.calls import ATTEMPTS, Noted, Stopping
from selfinstruct.errors import BackendError, RequestRefused, StoppedEarly, Transient
from selfinstruct.journal import Commit
from selfinstruct.pool import Pool
from selfinstruct.records import Candidate, Rejection, Reply, Request, Source
from selfinstruct.rundir import RunDirectory
from selfinstruct.seams import Plan, Planner, Recipe
from selfinstruct.store import DiskFull

GROUP = 16  # indices that are decided before new ones are planned, lest the slots run empty
COMMIT_SHARE = 0.1  # of the time may go into bringing decisions to the disk
LONGEST_REST = 0.1  # seconds between two commits because of that
MANY = 16  # threads of workers from which on outcomes are taken in together,
REST = 0.01  # so many seconds apart, and
SWITCH = 0.0003  # no thread works for longer while others wait for their turn; in Python that is 0.005
TICK = 0.5  # seconds after which the caller gets a sign of life


class Asking(Protocol):
    """The way to the backend, as the loop sees it: `calls.Calls`, or `batch.BatchCalls`."""

    why_stopped: str | None

    def complete(self, key: str, request: Request) -> Reply:
        """Answer a request; called from worker threads."""

    def stop(self, why: str) -> None:
        """Send nothing more."""

    def check_time(self) -> None:
        """Stop when the deadline has come."""


def _nothing_to_settle() -> Iterator[None]:
    raise AssertionError("only a run in batches has requests that wait for one")


@dataclass(frozen=True, slots=True)
class Job:
    """What the loop works with; everything is open and ready."""

    target: int  # rows that the dataset shall hold in the end
    lookahead: int
    concurrency: int
    grace: float  # seconds that requests in flight get when the run stops
    stall: int  # indices in a row without an accepted task that end the run
    # Tasks per index, to begin with; None where replies cost nothing: then all slots are kept full.
    expected_yield: float | None
    planner: Planner
    pool: Pool
    recipe: Recipe
    run: RunDirectory
    calls: Asking
    settle: Callable[[], Iterator[None]] = _nothing_to_settle  # brings the replies that `Noted` tells of
    spare: int = 0  # indices beyond what the target is expected to need: a round of batches may take a day
    works: bool = False  # whether recipes do more than ask: their threads then outnumber the slots
    barren: int = 0  # decided indices in a row without an accepted task, before this sitting
    indices: int | None = None  # how many there are; None: as many as the target takes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a worker brings back for an index."""

    k: int
    candidates: list[Candidate] = field(default_factory=list)
    error: BaseException | None = None


def resume(run: RunDirectory, pool: Pool) -> int:
    """Fold what the run directory tells into the pool.

    Returns:
        How many candidates of the next index are already decided (a target may fall in the middle).
    """
    start = 0
    for event in run.replay():
        if isinstance(event, dict):
            pool.adopt(event)
            continue
        for decision in event.decisions:
            pool.apply(decision)
        start = 0 if event.done else event.start + len(event.decisions)
        if event.done:
            pool.finish(event.k)
    return start


def generate(job: Job, start: int) -> Iterator[Commit | None]:
    """Work until the dataset holds `job.target` rows, or all of `job.indices` are decided.

    Args:
        job: what to work with.
        start: candidates of the first open index that were decided before.

    Yields:
        Each commit, and None now and then while nothing happens.

    Raises:
        StoppedEarly: at a limit, a stall, or after `job.calls.stop`; everything is kept.
        BackendError: the backend does not work.
    """
    inbox: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    work: queue.SimpleQueue[Plan | None] = queue.SimpleQueue()
    # A worker whose retry waits holds a thread, but no slot; on this machine nothing has to be retried.
    waits = job.expected_yield is not None or job.works
    width = min(job.lookahead, job.concurrency * (2 if waits else 1))
    interval = sys.getswitchinterval()
    if width >= MANY:
        sys.setswitchinterval(min(SWITCH, interval))
    for _ in range(width):
        threading.Thread(target=_work, args=(job, work, inbox), daemon=True).start()
    try:
        yield from _loop(_Line(job, start), width, work, inbox)
    finally:
        sys.setswitchinterval(interval)
        job.calls.stop("closed")
        for _ in range(width):
            work.put(None)


def _work(job: Job, work: queue.SimpleQueue[Plan | None], inbox: queue.SimpleQueue[Outcome]) -> None:
    while (plan := work.get()) is not None:
        inbox.put(_run_recipe(job, plan))


def _run_recipe(job: Job, plan: Plan) -> Outcome:
    """All that happens off the main thread: the recipe with its calls. Whatever it raises is brought back."""
    step = 0

    def complete(request: Request) -> Reply:
        nonlocal step
        step += 1
        return job.calls.complete(f"{plan.k}.{step - 1}", request)

    view = job.pool.view(plan.k - job.lookahead)
    try:
        return Outcome(plan.k, job.recipe(plan, view, complete))
    except RequestRefused as refusal:
        rejection = Rejection(refusal.reason, {"message": str(refusal), "step": step - 1})
        return Outcome(plan.k, [Candidate(language=plan.language, kind=plan.kind, rejection=rejection)])
    except BaseException as error:  # noqa: BLE001 - it is raised again on the main thread
        return Outcome(plan.k, error=error)


class _Line:
    """The indices between planning and commit, and how the run comes to its end."""

    def __init__(self, job: Job, start: int) -> None:
        self.job = job
        self.start = start
        self.plans: dict[int, Plan] = {}
        self.done: dict[int, Outcome] = {}
        self.unfinished = 0
        self.failure: BaseException | None = None
        self.stalled = False
        self.noted: list[Plan] = []  # wait for a reply that comes in a batch
        self.barren = job.barren  # decided indices in a row without an accepted task
        self.decided = self.accepted = 0
        self.group: list[Commit] = []  # decided, and not on the disk yet
        self.waiting = 0  # accepted tasks in it
        self.rest_until = 0.0  # the disk has some peace until then; replies are safe already

    @property
    def following(self) -> int:
        """The next index to plan."""
        return self.job.pool.decided + len(self.plans)

    @property
    def stopping(self) -> bool:
        """Whether nothing new is planned; what is under way may still come in."""
        return self.failure is not None or self.job.calls.why_stopped is not None

    @property
    def complete(self) -> bool:
        """Whether everything is decided that was asked for."""
        return self.size >= self.job.target or self.job.pool.decided == self.job.indices

    def _closed(self) -> bool:
        return self.stalled or self.size >= self.job.target

    def wanted(self, width: int) -> int:
        """How many indices should be under way: no more than the target still needs, where replies cost."""
        job = self.job
        if job.expected_yield is not None:
            per_index = (self.accepted + 5 * job.expected_yield) / (self.decided + 5)
            missing = math.ceil(1.2 * (job.target - self.size) / max(per_index, 0.05)) + job.spare
            # What is answered and waits for its turn counts too: one slow reply must not buy many others.
            width = min(width, missing - len(self.noted) - len(self.done))
        if job.indices is not None:
            width = min(width, job.indices - self.following + self.unfinished)
        return min(width, job.lookahead - (self.following - job.pool.decided) + self.unfinished)

    def receive(self, outcome: Outcome) -> None:
        """Take in what a worker brings; an error of it ends the run."""
        self.unfinished -= 1
        if outcome.error is None:
            self.done[outcome.k] = outcome
        elif isinstance(outcome.error, Noted):
            self.noted.append(self.plans[outcome.k])
        elif not isinstance(outcome.error, Stopping):
            self.failure = self.failure or outcome.error
            # Replies that ran out did so for later indices only; others may still be asked for.
            if isinstance(outcome.error, DiskFull) or not isinstance(outcome.error, StoppedEarly):
                self.job.calls.stop(str(outcome.error))

    @property
    def size(self) -> int:
        """Rows that the dataset has when all that is decided is on the disk."""
        return self.job.run.size + self.waiting

    @property
    def ready(self) -> bool:
        """Whether there is an index to decide."""
        return not self._closed() and self.job.pool.decided in self.done

    @property
    def patience(self) -> float:
        """Seconds that the loop may wait for an outcome before it has something else to do."""
        if self.ready:
            return 0.0
        return min(TICK, max(0.0, self.rest_until - monotonic())) if self.group else TICK

    def decide(self) -> None:
        """Decide indices whose turn it is."""
        job, missing = self.job, self.job.target - self.size
        for _ in range(GROUP):
            if missing <= 0 or self.stalled or job.pool.decided not in self.done:
                return
            outcome = self.done.pop(job.pool.decided)
            commit = self._decide(outcome, self.plans.pop(outcome.k), missing)
            got = sum(decision.accepted for decision in commit.decisions)
            self.group.append(commit)
            self.waiting += got
            missing -= got
            self.decided += 1
            self.accepted += got
            self.barren = 0 if got else self.barren + 1
            if self.barren >= job.stall:
                job.calls.stop("stalled")
                self.stalled = True  # deciding what else is ready would make the journal depend on timing

    def commits(self) -> Iterator[Commit]:
        """Bring decisions to the disk: at once where replies take their time, else many together."""
        began = monotonic()
        if not self.group or (began < self.rest_until and not self.stopping):
            return
        group, self.group, self.waiting = self.group, [], 0
        self.job.run.commit(*group)
        now = monotonic()
        self.rest_until = now + min(LONGEST_REST, (now - began) / COMMIT_SHARE)
        yield from group

    def _decide(self, outcome: Outcome, plan: Plan, missing: int) -> Commit:
        job, decisions = self.job, []
        for candidate in outcome.candidates[self.start :]:
            decision = job.pool.judge(candidate, plan.shots)
            job.pool.apply(decision)
            decisions.append(decision)
            missing -= decision.accepted
            if not missing:
                break
        done = self.start + len(decisions) == len(outcome.candidates)
        seeds = tuple(shot.id for shot in plan.shots if shot.id not in plan.derived_from)
        commit = Commit(
            outcome.k, self.start, tuple(decisions), done, seeds, plan.derived_from, _origin(plan.source)
        )
        if done:
            job.pool.finish(outcome.k)
        self.start = 0
        return commit


def _loop(
    line: _Line, width: int, work: queue.SimpleQueue[Plan | None], inbox: queue.SimpleQueue[Outcome]
) -> Iterator[Commit | None]:
    job = line.job
    until: float | None = None
    while True:
        line.decide()
        if line.complete:
            job.calls.stop("all is decided")
        yield from line.commits()
        if line.stopping:
            until = until or monotonic() + job.grace
            if not line.unfinished or monotonic() >= until:
                break
        else:
            while line.unfinished < line.wanted(width):
                k = line.following
                line.plans[k] = job.planner.plan(k, job.pool.view(k - job.lookahead))
                work.put(line.plans[k])
                line.unfinished += 1
            if line.noted and not line.unfinished:  # nothing moves before the batch is there
                yield from job.settle()
                for plan in line.noted:
                    work.put(plan)
                line.unfinished, line.noted = len(line.noted), []
        if width >= MANY and not line.ready:  # waking up for each reply would cost a tenth of it
            sleep(REST)
        try:
            line.receive(inbox.get(timeout=line.patience))
            while not inbox.empty():
                line.receive(inbox.get())
        except queue.Empty:
            job.calls.check_time()
            yield None
    while line.ready:
        line.decide()
    yield from line.commits()
    if line.complete:
        return
    if line.stalled:
        given = "seeds" if job.indices is None else "input"
        raise StoppedEarly(
            f"--stall {job.stall}: that many replies in a row brought no new task; "
            f"see why with `selfinstruct status`, then change the {given} or the model"
        )
    if line.failure is not None:
        raise _outcome_of(line.failure)
    raise StoppedEarly(job.calls.why_stopped or "stopped")


def _origin(source: Source | None) -> dict[str, str]:
    """What the journal tells of where a source came from."""
    if source is None:
        return {}
    return {"place": source.origin} | ({"licence": source.licence} if source.licence else {})


def _outcome_of(failure: BaseException) -> BaseException:
    """A request that failed to the last attempt ends the run like a backend that refuses."""
    if isinstance(failure, Transient):
        return BackendError(
            f"{failure} (tried {ATTEMPTS} times); all replies are kept: run the same command again"
        )
    return failure
