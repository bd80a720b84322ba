"""A run over the Batch API, at half the price: requests are noted, sent as a file, collected when answered.

`BatchCalls` takes the place of `calls.Calls` in the loop. It decides nothing about candidates: a request
that is not answered yet makes the loop put its index aside (`Noted`); when nothing else moves, the loop
calls `settle`, which collects what is there, sends what is missing, and waits or ends the sitting.

Whatever the moment of a kill, no batch is lost and no request is sent twice: see `batch_log.py` for the
order of the records. A batch carries a random name in its metadata, by which it is found again when the
process ended between its creation and the record of that.
"""

from __future__ import annotations

import logging
import random
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic, time
from typing import IO, TypeVar

from selfinstruct import batch_api
from selfinstruct.backend_openai import OpenAIBackend
from selfinstruct.batch_answers import Answers
from selfinstruct.batch_api import BatchState
from selfinstruct.batch_log import MOST_REQUESTS, QUEUE_IS_FULL, Batch, BatchLog, plan_of
from selfinstruct.calls import TIME_IS_OVER, Limits, Noted, Stopping, estimate_tokens, stored_reply
from selfinstruct.errors import BackendError, RequestRefused, StoppedEarly, Transient
from selfinstruct.openai_wire import OFFICIAL_URL, request_body
from selfinstruct.records import Reply, Request, Usage
from selfinstruct.reply_log import ReplyLog
from selfinstruct.store import disk_error

log = logging.getLogger(__name__)
T = TypeVar("T")

DISCOUNT = 0.5
TRIES = 4  # batches that a request may go through without an answer
CALL_TRIES = 6  # for one call of the endpoints
FIRST_WAIT = 0.5  # seconds before the second of them; doubled each time
SETTLE = 30.0  # seconds after which a creation whose answer was lost is sure to be in the list of batches
FIRST_POLL, LONGEST_POLL = 5.0, 120.0  # seconds between two looks at a batch
QUEUE_WAIT = 300.0  # seconds after which a full queue may have room again
OUTAGE = 30  # looks in a row that may fail
TICK = 0.5  # seconds after which the caller gets a sign of life
DAY = 86400.0

Prices = Callable[[int, int, int], float]


class BatchCalls:
    """The way to the backend in a run with `--batch`; fits `runner.Asking`.

    Args:
        backend: whose client is used.
        run: where replies are kept, opened and replayed.
        limits: requests and tokens count for this sitting, cost for all; what is in open batches counts
            at its worst. Rates do not apply.
        price: the dollars of a request outside of batches, or None where no price is known.
        wait: whether `settle` stays until a batch has ended.
        say: is told what happens.
    """

    def __init__(
        self,
        backend: OpenAIBackend,
        run: ReplyLog,
        limits: Limits,
        price: Prices | None,
        *,
        wait: bool,
        say: Callable[[str], None],
    ) -> None:
        self._backend, self._run, self._limits, self._price = backend, run, limits, price
        self._wait, self._say = wait, say
        self._log = BatchLog(run.path)
        self._known = self._log.known
        self._noted: dict[str, Request] = {}
        self._states: dict[str, BatchState] = {}
        self._ours: set[str] = set()  # names of the batches sent in this sitting
        self._used_requests = self._used_tokens = 0
        self._stopped = threading.Event()
        self._paused_until = 0.0
        self.why_stopped: str | None = None
        backend.leave_out(self._known.left_out)
        if backend.url == OFFICIAL_URL:  # its newer models take only `max_completion_tokens`, all others both
            backend.leave_out(["max_tokens"])

    @property
    def in_flight(self) -> int:
        """Requests in open batches."""
        return sum(len(batch.requests) for batch in self._known.open.values())

    def stop(self, why: str) -> None:
        """Send nothing more. The first reason counts."""
        self.why_stopped = self.why_stopped or why
        self._stopped.set()

    def check_time(self) -> None:
        """Stop when the deadline has come."""
        if self._limits.deadline is not None and monotonic() >= self._limits.deadline:
            self.stop(TIME_IS_OVER)

    def close(self) -> None:
        """Close the log; batches go on at the server."""
        self._log.close()

    def complete(self, key: str, request: Request) -> Reply:
        """Answer a request from the log, else note it for the next batch.

        Raises:
            Noted: the reply is not there yet.
            RequestRefused: the server will never take it.
            InputError: the stored reply belongs to another request.
        """
        # Not taken out: a recipe of several steps begins anew when its next reply has come.
        stored = self._run.stored.get(key)
        if stored is not None:
            return stored_reply(self._run, stored, request.digest())
        self._noted[key] = request
        raise Noted("waits for a batch")

    # --- one round ----------------------------------------------------------------------------------

    def settle(self) -> Iterator[None]:
        """Collect what is there, else send what is missing and, with `wait`, stay until a batch has ended.

        Yields:
            None now and then while it waits. Afterwards new replies are in `run.stored`.

        Raises:
            StoppedEarly: without `wait`, with what is pending; or at a limit.
            BackendError: the server does not work, or refuses a batch.
        """
        try:
            self._look_up_lost_batches()
            if not self._collect_ended():
                self._send_missing()
                if not self._wait:
                    raise StoppedEarly(f"{self._pending()}; run the same command again later")
                yield from self._wait_for_an_end()
        except Stopping as end:
            raise StoppedEarly(f"{end}; {self._pending()}" if self.in_flight else str(end)) from None
        except Transient as error:
            raise BackendError(f"{error}; nothing is lost: run the same command again") from None
        self._noted.clear()

    def _pending(self) -> str:
        told = []
        for name, batch in self._known.open.items():
            state = self._states.get(name)
            done = f", {state.done} done" if state and state.done else ""
            hours = (time() - batch.begun) / 3600
            told.append(f"{batch.id}: {state.status if state else '?'}{done}, sent {hours:.1f} h ago")
        count = self.in_flight
        return (
            f"{count} request{'s are' if count > 1 else ' is'} pending in "
            f"{'a batch' if len(told) == 1 else f'{len(told)} batches'}, which may take 24 h ({'; '.join(told)})"
        )

    def _wait_for_an_end(self) -> Iterator[None]:
        pause, failures = FIRST_POLL, 0
        while True:
            until = monotonic() + pause
            while (left := until - monotonic()) > 0:
                self._pause(min(TICK, left))
                yield None
            pause = min(LONGEST_POLL, 1.5 * pause)
            try:
                if self._collect_ended():
                    return
                if 0 < self._paused_until <= monotonic():
                    self._paused_until = 0.0  # the queue may have room again
                    return
                failures = 0
            except Transient as error:
                failures += 1
                log.warning("%s", error)
                if failures == OUTAGE:
                    raise

    def _pause(self, seconds: float) -> None:
        self.check_time()
        if self._stopped.wait(seconds):
            raise Stopping(self.why_stopped or "stopped")

    def _patiently(self, call: Callable[[], T]) -> T:
        """What the call brings, after some tries; only for calls that may be repeated."""
        for attempt in range(CALL_TRIES):
            try:
                return call()
            except Transient as error:
                if attempt == CALL_TRIES - 1:
                    raise
                wait = FIRST_WAIT * 2**attempt * random.uniform(0.5, 1.5)
                self._pause(max(wait, error.retry_after or 0.0))
            except RequestRefused as error:
                raise BackendError(f"{self._backend.url} refuses the batch ({error})") from None
        raise AssertionError("not reached: the last attempt returns or raises")

    # --- sending ------------------------------------------------------------------------------------

    def _look_up_lost_batches(self) -> None:
        """Find out what became of batches whose creation was not recorded."""
        for batch in [batch for batch in self._known.open.values() if batch.id is None]:
            found = self._find(batch) if batch.file else None
            if found is not None:
                self._created(batch, found)
            else:  # at the server is at most a file, which costs nothing and expires
                self._end(batch, "abandoned")

    def _find(self, batch: Batch) -> BatchState | None:
        """Look for a batch by its name, not before the server had the time to make it."""
        age = time() - batch.touched
        if age < SETTLE:
            self._pause(min(SETTLE, SETTLE - age))
        return self._patiently(lambda: batch_api.find(self._backend, batch.name, batch.begun - DAY))

    def _created(self, batch: Batch, state: BatchState) -> None:
        self._log.note({"batch": batch.name, "state": "created", "id": state.id})
        self._states[batch.name] = state

    def _send_missing(self) -> None:
        """Send the noted requests that are in no batch yet, as far as the limits allow."""
        if monotonic() < self._paused_until:
            return
        under_way = {key for batch in self._known.open.values() for key in batch.requests}
        missing = sorted((key for key in self._noted if key not in under_way), key=_order)
        self._look_at_tries(missing)
        chosen, limit = self._within_limits(missing)
        if limit and not chosen and not under_way:
            raise StoppedEarly(limit)
        by_endpoint: dict[str, list[str]] = {}
        for key in chosen:
            path, _ = request_body("", self._noted[key], frozenset())
            by_endpoint.setdefault(path, []).append(key)
        for path, keys in by_endpoint.items():
            left = self._send(path, keys)
            while left and self._known.most == MOST_REQUESTS:  # else the queue was full: one at a time
                left = self._send(path, left)

    def _look_at_tries(self, keys: list[str]) -> None:
        for key in keys:
            if self._known.tries[key] >= TRIES:
                self._log.note({"state": "gave_up", "key": key})  # so that the next call begins anew
                raise BackendError(
                    f"request {key} was in {TRIES} batches without an answer; all other replies are kept: see "
                    "the failures in `selfinstruct status`, then run the same command again"
                )

    def _within_limits(self, keys: list[str]) -> tuple[list[str], str | None]:
        """The first of `keys` that may be sent, and the limit that keeps back the others."""
        limits = self._limits
        open_tokens = {name: self._worst(batch) for name, batch in self._known.open.items()}
        ours = [tokens for name, tokens in open_tokens.items() if name in self._ours]
        requests, used = self._used_requests, self._used_tokens + sum(map(sum, ours))
        cost = self._run.totals.cost + sum(self._cost(*tokens) for tokens in open_tokens.values())
        for place, key in enumerate(keys):
            tokens = estimate_tokens(self._noted[key])
            requests, used, cost = requests + 1, used + sum(tokens), cost + self._cost(*tokens)
            limit = None
            if limits.max_requests is not None and requests > limits.max_requests:
                limit = f"--max-requests {limits.max_requests} is reached"
            elif limits.max_tokens is not None and used > limits.max_tokens:
                limit = f"--max-tokens {limits.max_tokens}: one more request might need {sum(tokens)}"
            elif limits.max_cost is not None and cost > limits.max_cost:
                limit = (
                    f"--max-cost {limits.max_cost:g}: one more request might cost {self._cost(*tokens):.4f}"
                )
            if limit:
                return keys[:place], limit
        return keys, None

    @staticmethod
    def _worst(batch: Batch) -> tuple[int, int]:
        tokens = [sent.tokens for sent in batch.requests.values()]
        return sum(prompt for prompt, _ in tokens), sum(completion for _, completion in tokens)

    def _cost(self, prompt: int, completion: int, cached: int = 0) -> float:
        return DISCOUNT * self._price(prompt, completion, cached) if self._price else 0.0

    def _cost_of(self, usage: Usage) -> float:
        return self._cost(usage.prompt, usage.completion, usage.cached)

    def _send(self, path: str, keys: list[str]) -> list[str]:
        """Send the first of `keys` as one batch; returns those that were too many for it."""
        self._pause(0)
        left_out = self._backend.left_out
        name, endpoint = secrets.token_hex(8), f"/v1{path}"
        requests = {key: (self._noted[key].digest(), self._noted[key]) for key in keys[: self._known.most]}
        try:
            with tempfile.TemporaryFile(dir=self._run.path) as file:
                count = batch_api.write(file, self._backend.model, requests, left_out)
                requests = {key: requests[key] for key in keys[:count]}
                self._log.note(plan_of(name, endpoint, left_out, requests))
                self._ours.add(name)
                self._used_requests += count
                self._create(self._known.open[name], file)
        except OSError as error:
            raise disk_error(self._run.path, error) from None
        self._say(f"batch {self._known.open[name].id}: sent, requests: {count}")
        return keys[count:]

    def _create(self, batch: Batch, file: IO[bytes]) -> None:
        """Upload and create; a creation whose answer is lost is looked for before it is tried again."""
        identity = self._patiently(lambda: batch_api.upload(self._backend, batch.name, file))
        for attempt in range(CALL_TRIES):
            self._pause(FIRST_WAIT * 2**attempt * random.uniform(0.5, 1.5) if attempt else 0)
            self._log.note({"batch": batch.name, "state": "uploaded", "file": identity})
            try:
                self._created(batch, batch_api.create(self._backend, batch.name, identity, batch.endpoint))
            except Transient as error:
                if attempt == CALL_TRIES - 1:
                    raise
                if error.kind == "http_429":
                    self._pause(error.retry_after or 0.0)
                elif (found := self._find(batch)) is not None:
                    self._created(batch, found)
                    return
            except RequestRefused as error:  # a file that was sent just now may be unknown for some seconds
                if attempt == CALL_TRIES - 1 or "file" not in str(error).lower():
                    raise BackendError(f"{self._backend.url} refuses the batch ({error})") from None
            else:
                return

    # --- collecting ---------------------------------------------------------------------------------

    def _collect_ended(self) -> bool:
        """Look at all open batches and take in those that have ended; whether there was one."""
        ended = False
        for name, batch in list(self._known.open.items()):
            identity = batch.id
            if identity is None:
                continue
            self._pause(0)
            state = self._patiently(partial(batch_api.look, self._backend, identity))
            self._states[name] = state
            if state.ended:
                self._collect(batch, state)
                ended = True
        return ended

    def _collect(self, batch: Batch, state: BatchState) -> None:
        """Put the answers of a batch into the replies log, then end it."""
        answers = Answers(self._backend, self._run, batch, self._cost_of if self._price else lambda _: None)
        for file in state.files:
            self._patiently(partial(batch_api.fetch, self._backend, file, answers.take))
        self._run.sync_replies()
        if batch.name in self._ours:
            self._used_tokens += answers.tokens
        if answers.unknown:
            log.warning("batch %s: %d answers belong to none of its requests", state.id, answers.unknown)
        unanswered = [key for key in batch.requests if key not in self._run.stored]
        self._say(
            f"batch {state.id}: {state.status}, {len(batch.requests) - len(unanswered)} of "
            f"{len(batch.requests)} requests answered"
        )
        message = self._backend.clean(state.message)
        self._end(batch, state.status, [key for key in unanswered if key not in answers.to_ask_anew], state)
        if answers.failure is not None:
            raise answers.failure
        if QUEUE_IS_FULL in state.codes:
            if not self._wait:
                raise StoppedEarly(
                    f"{message or 'the queue for batches is full'}; run the same command again later"
                )
            self._paused_until = monotonic() + QUEUE_WAIT
        elif state.status == "failed":
            raise BackendError(
                f"{self._backend.url} refuses batch {state.id} ({message or 'no reason given'})"
            )
        elif state.status == "cancelled" and unanswered:
            self.stop(
                f"batch {state.id} was cancelled with {len(unanswered)} requests open; run the same command "
                "again to send them anew"
            )

    def _end(
        self, batch: Batch, status: str, unanswered: list[str] | None = None, state: BatchState | None = None
    ) -> None:
        self._log.note(
            {
                "batch": batch.name,
                "state": "ended",
                "status": status,
                "codes": list(state.codes) if state else [],
                "unanswered": unanswered or [],
                "left_out": sorted(self._backend.left_out),
            }
        )


def _order(key: str) -> tuple[int, int]:
    index, _, step = key.partition(".")
    return int(index), int(step)
