"""Asking the backend: slots, rate limits, retries, budgets. Knows nothing of tasks.

`Calls.complete` is what recipes call from worker threads. A reply that was already bought is given back at
once; a new one is logged before it is used.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from selfinstruct.errors import BackendError, InputError, RequestRefused, StoppedEarly, Transient
from selfinstruct.records import Reply, Request
from selfinstruct.rundir import RunDirectory, reply_of
from selfinstruct.seams import Backend

ATTEMPTS = 8  # for one request
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds; doubled from one to the other, with jitter
WINDOW, TOO_MANY = 40, 0.8  # of the last 40 calls, this share may fail before the run ends
TIME_IS_OVER = "the time of --max-minutes is over"


class Stopping(StoppedEarly):
    """No new request is sent any more; the index stays undecided."""


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


class Calls:
    """The way to the backend, shared by all workers.

    `price` gives the dollars for (prompt tokens, completion tokens), or None where no price is known.
    """

    def __init__(
        self,
        backend: Backend,
        run: RunDirectory,
        limits: Limits,
        price: Callable[[int, int, int], float] | None = None,
    ) -> None:
        self._backend = backend
        self._run = run
        self._limits = limits
        self._price = price
        self._changed = threading.Condition()
        self._busy = 0
        self._due_retries = 0
        self._starts: deque[float] = deque()
        self._tokens: deque[tuple[float, int]] = deque()
        self._reserved_tokens = 0
        self._reserved_cost = 0.0
        self._used_requests = 0
        self._used_tokens = 0
        self._outcomes: deque[bool] = deque(maxlen=WINDOW)
        self.retries = 0
        self.why_stopped: str | None = None

    @property
    def in_flight(self) -> int:
        """Requests at the backend now."""
        return self._busy

    def stop(self, why: str) -> None:
        """Send nothing more; whoever waits for a slot or a retry gives up. The first reason counts."""
        with self._changed:
            self.why_stopped = self.why_stopped or why
            self._changed.notify_all()

    def check_time(self) -> None:
        """Stop when the deadline has come while all workers wait for the backend."""
        if self._limits.deadline is not None and monotonic() >= self._limits.deadline:
            self.stop(TIME_IS_OVER)

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
            if stored["request"] != digest:
                raise InputError(
                    f"{self._run.path}: the stored reply {key} answers another request (made by another version "
                    "of selfinstruct?); go on with that version, or move the folder away to begin anew"
                )
            return reply_of(stored)
        return self._ask(key, digest, request)

    def _ask(self, key: str, digest: str, request: Request) -> Reply:
        tokens = estimate_tokens(request)
        jitter = random.Random(key)
        for attempt in range(1, ATTEMPTS + 1):
            self._enter(tokens, retry=attempt > 1)
            began = monotonic()
            try:
                reply = self._backend.complete(key, request)
            except Transient as error:
                # What was lost on the way may be on the bill all the same.
                cost = self._cost(*tokens) if error.kind in {"timeout", "connection", "bad_reply"} else 0.0
                try:
                    self._run.keep_failure(key, digest, error, cost)
                finally:
                    self._leave(tokens, failed=True)
                self._look_at_failures(error)
                if attempt == ATTEMPTS:
                    raise
                wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1)) * (0.5 + jitter.random())
                self._pause(max(wait, error.retry_after or 0.0))
            except RequestRefused as error:
                try:
                    self._run.keep_failure(key, digest, error, 0.0)
                finally:
                    self._leave(tokens, failed=False)
                raise
            except BaseException:
                self._leave(tokens, failed=False)
                raise
            else:
                return self._keep(key, digest, reply, tokens, monotonic() - began)
        raise AssertionError("not reached: the last attempt returns or raises")

    def _keep(self, key: str, digest: str, reply: Reply, tokens: tuple[int, int], seconds: float) -> Reply:
        usage = reply.usage
        cost = reply.cost
        if cost is None and self._price is not None:
            cost = self._price(usage.prompt, usage.completion, usage.cached)
        reply = Reply(reply.choices, usage, reply.model, reply.seconds or seconds, cost)
        try:
            self._run.keep_reply(key, digest, reply)
        finally:
            self._leave(tokens, failed=False, used=usage.prompt + usage.completion)
        return reply

    def _cost(self, prompt: int, completion: int) -> float:
        return self._price(prompt, completion, 0) if self._price else 0.0

    def _enter(self, tokens: tuple[int, int], *, retry: bool) -> None:
        """Wait for a slot within the rate limits; due retries go before new requests."""
        with self._changed:
            self._due_retries += retry
            try:
                while True:
                    if self.why_stopped is not None:
                        raise Stopping(self.why_stopped)
                    over = self._over_budget(tokens)
                    if over and not self._busy:  # nobody in flight who might give back what is held for it
                        self.why_stopped = over
                        self._changed.notify_all()
                        continue
                    wait = None if over else self._wait_for_turn(tokens, retry=retry)
                    if wait == 0:
                        break
                    self._changed.wait(wait)
            finally:
                if retry:
                    self._due_retries -= 1
                    self._changed.notify_all()  # new requests waited for it and may go now
            now = monotonic()
            self._busy += 1
            self._used_requests += 1
            self._starts.append(now)
            self._tokens.append((now, sum(tokens)))
            self._reserved_tokens += sum(tokens)
            self._reserved_cost += self._cost(*tokens)

    def _wait_for_turn(self, tokens: tuple[int, int], *, retry: bool) -> float | None:
        """Seconds until it is worth looking again: 0 = go, None = when something changes."""
        if self._busy >= self._limits.concurrency or (self._due_retries and not retry):
            return None
        now = monotonic()
        minute = now - 60
        while self._starts and self._starts[0] <= minute:
            self._starts.popleft()
        while self._tokens and self._tokens[0][0] <= minute:
            self._tokens.popleft()
        waits = [0.0]
        if self._limits.rpm is not None and len(self._starts) >= self._limits.rpm:
            waits.append(self._starts[0] - minute)
        spent = sum(count for _, count in self._tokens) if self._limits.tpm else 0
        if self._limits.tpm is not None and self._tokens and spent + sum(tokens) > self._limits.tpm:
            waits.append(self._tokens[0][0] - minute)
        return max(waits)

    def _over_budget(self, tokens: tuple[int, int]) -> str | None:
        """Which limit the request, with those in flight at their worst, might pass."""
        limits = self._limits
        if limits.deadline is not None and monotonic() >= limits.deadline:
            return TIME_IS_OVER
        if limits.max_requests is not None and self._used_requests >= limits.max_requests:
            return f"--max-requests {limits.max_requests} is reached"
        worst = self._used_tokens + self._reserved_tokens + sum(tokens)
        if limits.max_tokens is not None and worst > limits.max_tokens:
            return f"--max-tokens {limits.max_tokens}: one more request might need {sum(tokens)}"
        cost = self._run.totals.cost + self._reserved_cost + self._cost(*tokens)
        if limits.max_cost is not None and cost > limits.max_cost:
            return f"--max-cost {limits.max_cost:g}: one more request might cost {self._cost(*tokens):.4f}"
        return None

    def _leave(self, tokens: tuple[int, int], *, failed: bool, used: int = 0) -> None:
        with self._changed:
            self._busy -= 1
            self._reserved_tokens -= sum(tokens)
            self._reserved_cost -= self._cost(*tokens)
            self._used_tokens += used
            self._outcomes.append(not failed)
            self._changed.notify_all()

    def _look_at_failures(self, error: Transient) -> None:
        with self._changed:
            self.retries += 1
            if len(self._outcomes) == WINDOW and self._outcomes.count(False) > WINDOW * TOO_MANY:
                raise BackendError(
                    f"{self._outcomes.count(False)} of the last {WINDOW} calls failed, the last with: {error}; "
                    "all replies are kept: mend the server, then run the same command again"
                )

    def _pause(self, seconds: float) -> None:
        until = monotonic() + seconds
        with self._changed:
            while self.why_stopped is None and (left := until - monotonic()) > 0:
                self._changed.wait(left)


def estimate_tokens(request: Request) -> tuple[int, int]:
    """(prompt, completion) tokens that a request may need at most, without a tokenizer.

    A token is at least 2.5 bytes in text and code of the usual tokenizers, on the average of a prompt.
    """
    text = request.prompt or "".join(content for _, content in request.messages)
    return int(len(text.encode(errors="replace")) / 2.5) + 8, request.max_tokens * request.n
