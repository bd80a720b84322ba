"""The gate in simulated time: a server of our own making, events in order, no thread and no clock."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct.gate import FIRST_WIDTH, LONGEST_HINT, Gate, Start, read_reset

WORST = 4000  # tokens that a request may need


@dataclass
class Answer:
    seconds: float
    refused: bool = False
    used: int = 800
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Run:
    """What happened: when each request started, and what came of it."""

    starts: list[tuple[float, int]] = field(default_factory=list)  # time, tokens used
    refused: int = 0
    busy: list[tuple[float, int]] = field(default_factory=list)  # time, requests that the server works on


def simulate(gate: Gate, serve: Callable[[float, int], Answer], until: float, most: float = math.inf) -> Run:
    """Push requests through the gate without end; those refused come again after a second, first in line."""
    run = Run()
    now, working = 0.0, 0
    events: list[tuple[float, int, Start | None, Answer | None]] = []  # time, number, and what ends then
    due, number = 0, 0
    while now < until and len(run.starts) < most:
        wait = gate.wait(now, WORST)
        if wait == 0:
            due = max(0, due - 1)
            start, answer = gate.enter(now, WORST), serve(now, working)
            working += not answer.refused
            number += 1
            heapq.heappush(events, (now + answer.seconds, number, start, answer))
            run.starts.append((now, 0 if answer.refused else answer.used))
            run.refused += answer.refused
            run.busy.append((now, working))
            continue
        alarm = math.inf if wait is None else now + wait
        if not events or alarm < events[0][0]:
            assert alarm < math.inf, "everything waits for ever"
            now = max(alarm, math.nextafter(now, math.inf))
            continue
        now, _, ended, got = heapq.heappop(events)
        if ended is not None and got is not None:
            working -= not got.refused
            gate.hear(ended, got.headers)
            gate.leave(
                ended,
                now,
                0 if got.refused else got.used,
                served=not got.refused,
                refused=got.refused,
            )
    return run


def limited(
    slots: int, seconds: float = 0.2, strays: float = 0.0, seed: int = 0
) -> Callable[[float, int], Answer]:
    """A server that works on so many requests at once and refuses others at once, and some for no reason."""
    rng = random.Random(seed)

    def serve(_: float, working: int) -> Answer:
        if working >= slots or rng.random() < strays:
            return Answer(0.001, refused=True)
        return Answer(seconds * rng.uniform(0.7, 1.3))

    return serve


def mean_busy(run: Run, since: float) -> float:
    """Requests that the server worked on, by time."""
    area = total = 0.0
    for (at, working), (after, _) in zip(run.busy, run.busy[1:], strict=False):
        if at >= since:
            area += working * (after - at)
            total += after - at
    return area / total


# --- slots ------------------------------------------------------------------------------------------


def test_a_server_without_a_limit_gets_all_slots_within_a_few_round_trips() -> None:
    gate = Gate(64)
    run = simulate(gate, lambda *_: Answer(0.2), until=1.0)
    assert gate.width == 64
    assert run.busy[0][1] == 1
    assert max(working for at, working in run.busy if at < 0.2) == FIRST_WIDTH
    assert max(working for at, working in run.busy if at < 0.5) == 64


@pytest.mark.parametrize("slots", [3, 8, 20, 40, 64])
def test_the_limit_of_a_server_that_does_not_tell_it_is_found(slots: int) -> None:
    gate = Gate(64)
    run = simulate(gate, limited(slots), until=60.0)
    assert mean_busy(run, 10.0) >= 0.85 * slots
    later = [at for at, _ in run.starts if at > 10.0]
    assert run.refused <= 0.06 * len(run.starts), f"{run.refused} refusals"
    assert len(later) >= 0.85 * slots * 50 / 0.2


@pytest.mark.parametrize("slots", [4, 10, 30])
def test_a_server_that_loses_slots_and_gets_them_back_is_followed(slots: int) -> None:
    state = {"slots": 50}

    def serve(now: float, working: int) -> Answer:
        state["slots"] = slots if 30 < now < 60 else 50
        return Answer(0.001, refused=True) if working >= state["slots"] else Answer(0.2)

    gate = Gate(64)
    run = simulate(gate, serve, until=120.0)
    assert mean_busy(Run(busy=[entry for entry in run.busy if 40 < entry[0] < 60]), 40) >= 0.85 * slots
    assert mean_busy(run, 90.0) >= 0.85 * 50
    assert run.refused <= 0.08 * len(run.starts)


@pytest.mark.parametrize("width", [4, 16, 64, 256])
def test_a_few_stray_refusals_do_not_make_it_collapse(width: int) -> None:
    run = simulate(Gate(width), limited(10**6, strays=0.05), until=60.0)
    assert mean_busy(run, 5.0) >= 0.85 * width


def test_a_flood_of_refusals_is_bounded() -> None:
    """Refusals come back 200 times faster than replies; they must not outnumber them."""
    run = simulate(Gate(64), limited(2), until=20.0)
    assert run.refused <= 150
    assert mean_busy(run, 10.0) >= 1.7


def test_one_slot_is_always_left() -> None:
    gate = Gate(8)
    run = simulate(gate, lambda *_: Answer(0.01, refused=True), until=300.0)
    assert gate.width == 1
    assert 100 < len(run.starts) < 1500  # one in a quarter of a second


# --- rates ------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 64), st.floats(0.05, 20.0), st.integers(0, 99))
def test_requests_a_minute_are_kept_and_used(rpm: int, width: int, seconds: float, seed: int) -> None:
    rng = random.Random(seed)
    run = simulate(Gate(width, rpm=rpm), lambda *_: Answer(seconds * rng.uniform(0.5, 1.5)), until=200.0)
    times = [at for at, _ in run.starts]
    behind = 0
    for number, at in enumerate(times):
        while times[behind] <= at - 60 + 1e-6:
            behind += 1
        assert number - behind + 1 <= rpm
    able = width / seconds / 1.5 * 60
    if able > 2 * rpm:  # the rate is the limit, not the slots
        assert len([at for at in times if 60 <= at < 180]) >= math.floor(2 * rpm * 0.98) - 1


def test_starts_are_spread_over_the_minute() -> None:
    run = simulate(Gate(64, rpm=600), lambda *_: Answer(0.2), until=60.0)
    for second in range(2, 59):
        assert 9 <= len([at for at, _ in run.starts if second <= at < second + 1]) <= 12


@pytest.mark.parametrize("tpm", [10_000, 90_000, 2_000_000])
def test_tokens_a_minute_are_kept_and_used(tpm: int) -> None:
    """The worst case is five times of what is used: reservations are corrected, and learnt from."""
    rng = random.Random(5)
    run = simulate(
        Gate(64, tpm=tpm), lambda *_: Answer(rng.uniform(1, 4), used=rng.randrange(300, 1300)), until=400.0
    )
    for begin, _ in run.starts[:: max(1, len(run.starts) // 400)]:
        window = sum(used for at, used in run.starts if begin <= at < begin + 60 - 1e-6)
        assert window <= tpm * 1.02
    spent = sum(used for at, used in run.starts if 100 <= at < 340) / 4
    could = 64 / 2.5 * 60 * 800
    assert spent >= min(tpm * 0.98 - WORST * 0.4, could * 0.95)


def test_a_request_larger_than_the_minutes_tokens_goes_alone() -> None:
    run = simulate(Gate(4, tpm=100), lambda *_: Answer(1.0, used=4000), until=200.0)
    assert [round(at) for at, _ in run.starts] == [0, 60, 120, 180]


class Bucket:
    """A server with a token bucket that tells its state in headers, and refuses when it is empty."""

    def __init__(self, most: int, period: float, kind: str, cost: int, seconds: float) -> None:
        self.most, self.rate, self.kind, self.cost, self.seconds = most, most / period, kind, cost, seconds
        self.level, self.at = float(most), 0.0

    def __call__(self, now: float, _: int) -> Answer:
        self.level = min(self.most, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level < self.cost:
            return Answer(0.01, refused=True)
        self.level -= self.cost
        told = {
            "limit": str(self.most),
            "remaining": str(int(self.level)),
            "reset": f"{(self.most - self.level) / self.rate:.3f}s",
        }
        headers = {f"x-ratelimit-{name}-{self.kind}": value for name, value in told.items()}
        return Answer(self.seconds, headers=headers)


@pytest.mark.parametrize("seconds", [0.2, 3.0])
@pytest.mark.parametrize(("kind", "most", "cost"), [("requests", 120, 1), ("tokens", 600_000, WORST)])
def test_limits_that_headers_tell_are_kept_without_refusals(
    kind: str, most: int, cost: int, seconds: float
) -> None:
    run = simulate(Gate(64), Bucket(most, 60.0, kind, cost, seconds), until=240.0)
    assert run.refused <= 0.02 * len(run.starts)
    served = len([at for at, used in run.starts if at >= 120 and used])
    assert served >= 0.93 * 2 * most / cost


def test_headers_that_make_no_sense_are_not_heard() -> None:
    gate = Gate(4)
    start = gate.enter(0.0, 10)
    for told in (
        {"limit": "10", "remaining": "0"},
        {"limit": "10", "remaining": "-1", "reset": "1s"},
        {"limit": "x", "remaining": "0", "reset": "1s"},
        {"limit": "0", "remaining": "0", "reset": "1s"},
        {"limit": "10", "remaining": "0", "reset": "soon"},
        {"limit": "10", "remaining": "0", "reset": "1764000000"},
        {"limit": "10", "remaining": "0", "reset": str(11 * LONGEST_HINT)},  # one in eleven minutes
    ):
        gate.hear(start, {f"x-ratelimit-{name}-requests": value for name, value in told.items()})
        assert gate.wait(1.0, 10) == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0), ("20ms", 0.02), ("6m0s", 360.0), ("1h2m3.5s", 3723.5), ("2m59.56s", 179.56), ("7.66s", 7.66),
        ("1d", 86400.0), ("0", 0.0), ("59.7", 59.7), ("", None), ("1.2.3s", None), ("soon", None),
        ("1764000000", None), ("2026-01-01T00:00:00Z", None), ("-5", None), ("5s ", None),
    ],
)  # fmt: skip
def test_reset_times(text: str, seconds: float | None) -> None:
    assert read_reset(text) == (None if seconds is None else pytest.approx(seconds))


@given(st.text("0123456789.dhms- ", max_size=12))
def test_a_reset_time_is_never_an_error(text: str) -> None:
    found = read_reset(text)
    assert found is None or found >= 0
