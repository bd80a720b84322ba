"""Asking the backend: turns, retries, budgets. Knows nothing of tasks; when the next may go is `gate.py`'s.

`Calls.complete` is what recipes call from worker threads. A reply that was already bought is given back at
once; a new one is logged before it is used.
"""

from __future__ import annotations

import json
import random
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic

from selfinstruct.errors import BackendError, InputError, RequestRefused, StoppedEarly, Transient
from selfinstruct.gate import Gate, Start
from selfinstruct.records import JSON, Reply, Request
from selfinstruct.reply_log import ReplyLog, reply_of
from selfinstruct.seams import Backend
from selfinstruct.store import DiskFull

ATTEMPTS = 10  # for one request; with the waits between them about three minutes
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds; doubled from one to the other, with jitter
LONGEST_RETRY = 600.0  # seconds that a server may ask to wait before the run rather ends
WINDOW, TOO_MANY = 40, 0.8  # of the last 40 calls, this share may fail ...
PATIENCE = 30.0  # ... for so many seconds: a server that is started anew fails all calls for a while
MARGIN = 100  # tokens that a server's own frame around a prompt may take
OVERLOADED = {"http_429", "http_503"}
LOST = {"timeout", "connection", "bad_reply"}  # may have been worked on, and so be on the bill
TIME_IS_OVER = "the time of --max-minutes is over"


class Stopping(StoppedEarly):
    """No new request is sent any more; the index stays undecided."""


class Noted(Stopping):
    """The request goes into a batch (`batch.py`); its index is tried again when the reply is there."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the run may use; None is no limit. Tokens and requests count for this sitting, cost for all."""

    concurrency: int = 1
    rpm: int | None = None
    tpm: int | None = None
    max_requests: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    deadline: float | None = None  # on the monotonic clock


@dataclass(eq=False, slots=True)
class _Ask:
    """A request on its way. What it may need at worst is set aside while it is under way."""

    key: str
    digest: str
    prompt: int  # tokens
    completion: int
    cost: float  # dollars
    start: Start | None = None
    ready: threading.Condition | None = None  # its thread alone waits here: no other is woken in vain
    until: float | None = None  # when it is its turn by the clock

    @property
    def tokens(self) -> int:
        return self.prompt + self.completion


class Calls:
    """The way to the backend, shared by all workers.

    `price` gives the dollars for (prompt, completion, cached prompt) tokens; None where no price is known.
    """

    def __init__(
        self,
        backend: Backend,
        run: ReplyLog,
        limits: Limits,
        price: Callable[[int, int, int], float] | None = None,
    ) -> None:
        self._backend = backend
        self._run = run
        self._limits = limits
        self._price = price
        self._mutex = threading.Lock()
        self._gate = Gate(limits.concurrency, limits.rpm, limits.tpm)
        self._due: deque[_Ask] = deque()  # retries whose time has come go before ...
        self._fresh: deque[_Ask] = deque()  # ... new requests
        self._under_way: dict[str, _Ask] = {}
        self._reserved_tokens = 0
        self._reserved_cost = 0.0
        self._used_requests = 0
        self._used_tokens = 0
        self._outcomes: deque[bool] = deque(maxlen=WINDOW)
        self._failing_since: float | None = None
        self._here = threading.local()
        self._stopped = threading.Event()
        self.retries = 0
        self.why_stopped: str | None = None

    @property
    def in_flight(self) -> int:
        """Requests at the backend now."""
        return self._gate.busy

    def stop(self, why: str) -> None:
        """Send nothing more; whoever waits for a slot or a retry gives up. The first reason counts."""
        with self._mutex:
            self._stop(why)

    def _stop(self, why: str) -> None:
        self.why_stopped = self.why_stopped or why
        self._stopped.set()
        for ask in (*self._due, *self._fresh):
            if ask.ready is not None:
                ask.ready.notify()

    def check_time(self) -> None:
        """Stop when the deadline has come while all workers wait for the backend."""
        if self._limits.deadline is not None and monotonic() >= self._limits.deadline:
            self.stop(TIME_IS_OVER)

    def hear(self, headers: Mapping[str, str]) -> None:
        """Take in the rate-limit headers of an answer; called on the thread whose request is answered."""
        start: Start | None = getattr(self._here, "start", None)
        if start is not None:
            with self._mutex:
                self._gate.hear(start, headers)

    def complete(self, key: str, request: Request) -> Reply:
        """Answer a request from the log, else from the backend.

        Raises:
            RequestRefused: the server will never take it.
            Stopping: the run is coming to its end.
            Transient, BackendError: the backend does not work.
            InputError: the stored reply belongs to another request.
        """
        digest = request.digest()
        stored = self._run.stored.pop(key, None)
        if stored is not None:
            return stored_reply(self._run, stored, digest)
        prompt, completion = estimate_tokens(request)
        cost = self._price(prompt, completion, 0) if self._price else 0.0
        jitter = random.Random(key)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._try(_Ask(key, digest, prompt, completion, cost), request, retry=attempt > 1)
            except Transient as error:
                self._look_at_failures(error)
                if attempt == ATTEMPTS:
                    raise
                wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1)) * (0.5 + jitter.random())
                self._stopped.wait(max(wait, error.retry_after or 0.0))
        raise AssertionError("not reached: the last attempt returns or raises")

    def _try(self, ask: _Ask, request: Request, *, retry: bool) -> Reply:
        """One attempt: wait for its turn, ask, log what came of it, leave."""
        self._enter(ask, retry=retry)
        self._here.start = ask.start
        used, served, failure = 0, False, ""
        try:
            reply = self._backend.complete(ask.key, request)
            used, cost = self._bill(ask, reply)
            served = True
            assert ask.start is not None  # noqa: S101 - set by `_enter`
            seconds = reply.seconds or monotonic() - ask.start.at
            cost = cost if self._under_way.get(ask.key) is ask else 0.0  # given up, and counted at its worst
            reply = Reply(reply.choices, reply.usage, reply.model, seconds, cost)
            self._run.keep_reply(ask.key, ask.digest, reply)
        except (Transient, RequestRefused) as error:
            failure = error.kind if isinstance(error, Transient) else ""
            lost = failure in LOST
            used = ask.tokens if lost else 0
            if self._under_way.get(ask.key) is ask:
                self._run.keep_failure(ask.key, ask.digest, error, ask.cost if lost else 0.0)
            raise
        except (BackendError, DiskFull) as error:
            self.stop(str(error))  # at once: the workers that wait would all ask in vain
            raise
        finally:
            self._leave(ask, used, served=served, failure=failure)
        return reply

    def _bill(self, ask: _Ask, reply: Reply) -> tuple[int, float | None]:
        """(tokens, dollars) of a reply; at worst where the server reports no counts."""
        usage = reply.usage
        if not usage.completion and any(choice.text for choice in reply.choices):
            return ask.tokens, ask.cost if self._price is not None and reply.cost is None else reply.cost
        cost = reply.cost
        if cost is None and self._price is not None:
            cost = self._price(usage.prompt, usage.completion, usage.cached)
        return usage.prompt + usage.completion, cost

    def give_up(self) -> None:
        """The run ends although requests are under way: count them at their worst; somebody may bill them."""
        with self._mutex:
            given_up = list(self._under_way.values())
            self._under_way.clear()
        for ask in given_up:
            if ask.cost:
                error = Transient("given up at the end of the run", "given_up")
                self._run.keep_failure(ask.key, ask.digest, error, ask.cost)

    # --- turns ----------------------------------------------------------------------------------------

    def _enter(self, ask: _Ask, *, retry: bool) -> None:
        """Wait for a slot within the rates and budgets; due retries go before new requests."""
        line = self._due if retry else self._fresh
        with self._mutex:
            line.append(ask)
            self._admit()
            while ask.start is None:
                if self.why_stopped is not None:
                    line.remove(ask)
                    raise Stopping(self.why_stopped)
                ask.ready = ask.ready or threading.Condition(self._mutex)
                ask.ready.wait(None if ask.until is None else max(0.0, ask.until - monotonic()))
                if ask.start is None:
                    ask.until = None
                    self._admit()
        if self._price is not None:
            self._run.note_sent(ask.key, ask.digest, ask.cost)

    def _admit(self) -> None:
        """Let in whoever is first in the line, as long as that is allowed; else set its alarm."""
        while self.why_stopped is None and (line := self._due or self._fresh):
            ask, now = line[0], monotonic()
            over = self._over_budget(ask, now)
            if over is not None:
                if not self._gate.busy:  # nobody in flight who might give back what is set aside for it
                    self._stop(over)
                return
            wait = self._gate.wait(now, ask.tokens)
            if wait is None:
                return
            if wait == 0:
                line.popleft()
                ask.start = self._gate.enter(now, ask.tokens)
                self._under_way[ask.key] = ask
                self._used_requests += 1
                self._reserved_tokens += ask.tokens
                self._reserved_cost += ask.cost
            elif ask.until is None or now + wait < ask.until:
                ask.until = now + wait
            if ask.ready is not None:
                ask.ready.notify()
            if wait:
                return

    def _over_budget(self, ask: _Ask, now: float) -> str | None:
        """Which limit the request, with those in flight at their worst, might pass."""
        limits = self._limits
        if limits.deadline is not None and now >= limits.deadline:
            return TIME_IS_OVER
        if limits.max_requests is not None and self._used_requests >= limits.max_requests:
            return f"--max-requests {limits.max_requests} is reached"
        worst = self._used_tokens + self._reserved_tokens + ask.tokens
        if limits.max_tokens is not None and worst > limits.max_tokens:
            return f"--max-tokens {limits.max_tokens}: one more request might need {ask.tokens}"
        if limits.max_cost is not None:
            spent = self._run.totals.cost
            if spent + self._reserved_cost + ask.cost > limits.max_cost:
                return (
                    f"--max-cost {limits.max_cost:g}: ${spent:.4f} are spent, and one more request might cost "
                    f"${ask.cost:.4f}"
                )
        return None

    def _leave(self, ask: _Ask, used: int, *, served: bool, failure: str) -> None:
        with self._mutex:
            assert ask.start is not None  # noqa: S101 - set by `_enter`
            if self._under_way.get(ask.key) is ask:
                del self._under_way[ask.key]
            self._reserved_tokens -= ask.tokens
            self._reserved_cost -= ask.cost
            self._used_tokens += used
            overloaded = failure in OVERLOADED
            self._gate.leave(ask.start, monotonic(), used, served=served, refused=overloaded)
            # A server that is too busy for many slots is not broken: it gets fewer.
            if not overloaded or self._gate.width < 2:
                self._outcomes.append(not failure)
            self._admit()

    def _look_at_failures(self, error: Transient) -> None:
        """End the run when the server asks for too much patience."""
        if error.retry_after is not None and error.retry_after > LONGEST_RETRY:
            why = f"{error} and asks to wait {error.retry_after / 60:.0f} minutes; all replies are kept: "
            raise self._hopeless(why + "run the same command again after that time")
        with self._mutex:
            self.retries += 1
            failed, now = self._outcomes.count(False), monotonic()
            if len(self._outcomes) < WINDOW or failed <= WINDOW * TOO_MANY:
                self._failing_since = None
                return
            self._failing_since = now if self._failing_since is None else self._failing_since
            if now - self._failing_since < PATIENCE:
                return
        raise self._hopeless(
            f"{failed} of the last {WINDOW} calls failed, the last with: {error}; "
            "all replies are kept: mend the server, then run the same command again"
        )

    def _hopeless(self, why: str) -> BackendError:
        self.stop(why)
        return BackendError(why)


def stored_reply(run: ReplyLog, stored: JSON, digest: str) -> Reply:
    """The reply of a line in the replies log, if it answers the request with this digest.

    Raises:
        RequestRefused: the server had refused the request.
        InputError: it belongs to another request.
    """
    if stored["request"] != digest:
        raise InputError(
            f"{run.path}: the stored reply {stored['key']} answers another request (made by another version "
            "of selfinstruct?); go on with that version, or move the folder away to begin anew"
        )
    return reply_of(stored)


def estimate_tokens(request: Request) -> tuple[int, int]:
    """(prompt, completion) tokens that a request may need at most, without a tokenizer.

    A token of a byte-level tokenizer is at least one byte. Usual text has four in a token, but a limit on
    money is held by the worst case, and most of that is the reply.
    """
    size = sum(len(content.encode(errors="replace")) for _, content in request.messages)
    size += len((request.prompt or "").encode(errors="replace"))
    if request.schema is not None:
        size += len(json.dumps(request.schema))
    return size + MARGIN, request.max_tokens * request.n
