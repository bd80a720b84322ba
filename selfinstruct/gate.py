"""When the next request may go: slots that adapt to the server, requests and tokens a minute.

A state machine without lock, thread or clock: the caller brings the time, in seconds of any monotonic clock.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

MINUTE = 60.0
FIRST_WIDTH = 16  # slots to begin with; doubled in each round trip until the server refuses
SLACK = 1.0  # seconds by which a start may lag behind the even pace and be caught up with
FIRST_GUESS = 0.25  # seconds of a reply, before there is one
FULL = 0.15  # of the calls of a window may be refused before it counts as overload: a few strays are no sign
WINDOW = 40  # calls, or as many as there are slots
HOLD = 10  # windows without a new try, after the limit of the server was found
SAMPLE = 10  # replies after which their mean is trusted more than the worst case
LONGEST_HINT = 600.0  # seconds; a header that asks for more is left to the server's own refusal
RESET = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


@dataclass(eq=False, slots=True)
class Start:
    """A request that was let in."""

    at: float
    number: int  # requests let in before it
    before: int  # tokens reserved by those
    tokens: int  # of its own, at worst
    in_window: bool = True  # not older than a minute
    used: int | None = None  # as billed, when the reply is there


class Gate:
    """Slots and rates of one run.

    The slots follow the server: doubled in each round trip to begin with, then added step by step, and cut to
    what the server was at work on when too many calls of a window were refused. A refused call keeps its slot
    cold for as long as a reply takes, so that refusals that come back at once do not outnumber the replies.

    Args:
        most: slots at most.
        rpm: requests that may start in any minute, evenly spread.
        tpm: tokens that may be used in any minute; those of requests in flight are estimated from the
            replies so far.
    """

    def __init__(self, most: int, rpm: int | None = None, tpm: int | None = None) -> None:
        self.most = most
        self.width = float(min(most, FIRST_WIDTH))
        self.busy = 0
        self._rpm, self._tpm = rpm, tpm
        self._next_start = -math.inf  # by the even pace
        self._window: deque[Start] = deque()  # the last minute's
        self._settled = self._open = self._open_count = 0  # tokens (and requests) in that window
        self._number = self._reserved = 0
        self._mean = Running()
        self._allowed: dict[str, Allowance] = {}
        self._seconds = 0.0  # of a usual reply
        self._cold: deque[float] = deque()  # when the slots of refused calls may be used again
        self._growing = True
        self._step, self._hold = 1.0, 0
        self._seen = self._refused = 0
        self._floor = math.inf  # requests that the server was at work on when it refused one more
        self._cut_at = -math.inf

    # --- the way in and out ---------------------------------------------------------------------------

    def wait(self, now: float, tokens: int) -> float | None:
        """Seconds until it is worth asking again: 0 = go now, None = when a request ends."""
        while self._cold and self._cold[0] <= now:
            self._cold.popleft()
        if self.busy + len(self._cold) >= int(self.width):
            return max(0.0, self._cold[0] - now) if self._cold else None
        self._forget(now)
        waits = [0.0]
        if self._rpm is not None:
            waits.append(self._next_start - now)
            if len(self._window) >= self._rpm:
                waits.append(self._window[0].at + MINUTE - now)
        if self._tpm is not None and self._window and self._in_use(tokens) > self._tpm:
            waits.append(self._window[0].at + MINUTE - now)
        waits += [allowed.wait(now, self._need(kind, tokens)) for kind, allowed in self._allowed.items()]
        return max(waits)

    def enter(self, now: float, tokens: int) -> Start:
        """Take a slot."""
        start = Start(now, self._number, self._reserved, tokens)
        self.busy += 1
        self._number += 1
        self._reserved += tokens
        if self._rpm is not None:
            self._next_start = max(self._next_start, now - SLACK) + MINUTE / self._rpm
        if self._rpm is not None or self._tpm is not None:
            self._window.append(start)
            self._open += tokens
            self._open_count += 1
        for kind, allowed in self._allowed.items():
            allowed.take(now, self._need(kind, tokens))
        return start

    def leave(self, start: Start, now: float, used: int, *, served: bool, refused: bool) -> None:
        """Give the slot back.

        Args:
            start: what `enter` returned.
            now: the time.
            used: tokens that the request took, of prompt and reply.
            served: whether there was a reply.
            refused: whether the server was too busy for it.
        """
        self.busy -= 1
        start.used = used
        if start.in_window and self._window:
            self._open -= start.tokens
            self._open_count -= 1
            self._settled += used
        if served:
            seconds = now - start.at
            self._seconds += (seconds - self._seconds) * (0.1 if self._seconds else 1.0)
            self._mean.add(min(1.0, used / max(1, start.tokens)))
        if refused:
            self._cold.append(now + (self._seconds or FIRST_GUESS))
        if start.at >= self._cut_at:  # what was sent before a cut tells nothing of the width after it
            self._learn(now, served=served, refused=refused)

    # --- slots ----------------------------------------------------------------------------------------

    def _learn(self, now: float, *, served: bool, refused: bool) -> None:
        self._seen += 1
        self._refused += refused
        if self._growing and served and not self._refused:
            self.width = min(float(self.most), self.width + 1)
        if refused:
            self._floor = min(self._floor, self.busy)
        # Refusals come back long before replies: only when a reply is there, too, is a small sample a fair one.
        flooded = served and self._refused >= 8 and self._refused * 2 > self._seen
        if self._seen < max(WINDOW, self.width) and not flooded:
            return
        share = self._refused / self._seen
        if share > FULL:
            self._growing = False
            self._hold, self._step = HOLD, 1.0
            self._cut_at = now
            self.width = max(1.0, min(self.width - 1, self._floor))
        elif self._hold:
            self._hold -= 1
        else:
            self.width = min(float(self.most), self.width + self._step)
            self._step = 1.0 if self._refused else 2 * self._step
        self._seen = self._refused = 0
        self._floor = math.inf

    # --- rates ----------------------------------------------------------------------------------------

    def _forget(self, now: float) -> None:
        while self._window and self._window[0].at + MINUTE <= now:  # the very sum that `wait` compares with
            start = self._window.popleft()
            start.in_window = False
            if start.used is None:
                self._open -= start.tokens
                self._open_count -= 1
            else:
                self._settled -= start.used

    def _in_use(self, tokens: int) -> float:
        """Tokens of the last minute with one more request; those in flight by the mean and two deviations."""
        likely = self._mean.mean + 2 * self._mean.deviation / math.sqrt(self._open_count + 1)
        return self._settled + (self._open + tokens) * min(1.0, likely)

    def _need(self, kind: str, tokens: int) -> int:
        return tokens if kind == "tokens" else 1

    def hear(self, start: Start, headers: Mapping[str, str]) -> None:
        """Take in the limits that an answer to `start` told in its headers (x-ratelimit-..., lower case)."""
        for kind, taken in (
            ("requests", self._number - start.number),
            ("tokens", self._reserved - start.before),
        ):
            told = [headers.get(f"x-ratelimit-{name}-{kind}", "") for name in ("limit", "remaining")]
            reset = read_reset(headers.get(f"x-ratelimit-reset-{kind}", ""))
            if reset is None or not all(number.isascii() and number.isdigit() for number in told):
                continue
            most, left = map(int, told)
            before = self._allowed.get(kind)
            if reset <= 0 or most <= left or (before is not None and before.heard >= start.at):
                continue  # nothing is used up yet, or a later request has told more
            self._allowed[kind] = Allowance(most, (most - left) / reset, left, start.at, start.at)
            self._allowed[kind].left -= taken - self._need(
                kind, start.tokens
            )  # `start` itself is counted there


@dataclass(slots=True)
class Allowance:
    """A bucket of the server that holds `most` and is filled by `rate` a second; `left` stood in it at `at`."""

    most: int
    rate: float
    left: float
    at: float
    heard: float  # when the request started that brought the news

    def _now(self, now: float) -> float:
        return min(self.most, self.left + (now - self.at) * self.rate)

    def wait(self, now: float, need: int) -> float:
        """Seconds until `need` is there."""
        seconds = (min(need, self.most) - self._now(now)) / self.rate
        return 0.0 if seconds > LONGEST_HINT else max(0.0, seconds)

    def take(self, now: float, need: int) -> None:
        """Use it."""
        self.left = self._now(now) - need
        self.at = now


@dataclass(slots=True)
class Running:
    """Mean and deviation of the latest values, weighted by age; 1 and 0 before there are enough."""

    count: int = 0
    value: float = 0.0
    square: float = 0.0

    def add(self, value: float) -> None:
        """Take in a value."""
        self.count += 1
        weight = max(0.02, 1 / self.count)
        self.value += (value - self.value) * weight
        self.square += (value * value - self.square) * weight

    @property
    def mean(self) -> float:
        """The mean."""
        return self.value if self.count >= SAMPLE else 1.0

    @property
    def deviation(self) -> float:
        """The standard deviation."""
        return math.sqrt(max(0.0, self.square - self.value**2)) if self.count >= SAMPLE else 0.0


def read_reset(text: str) -> float | None:
    """Seconds in a header such as `1s`, `6m0s`, `20ms` or a plain number; None if it is none (or a date)."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        seconds = float(text)
        return seconds if seconds < 10 * 86400 else None
    found = RESET.fullmatch(text)
    if not text or found is None:
        return None
    parts = [float(part or 0) for part in found.groups()]
    return sum(part * unit for part, unit in zip(parts, (86400, 3600, 60, 1, 0.001), strict=True))
