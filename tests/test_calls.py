from __future__ import annotations

import contextlib
import errno
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct import calls as module
from selfinstruct.calls import ATTEMPTS, TIME_IS_OVER, WINDOW, Calls, Limits, Stopping, estimate_tokens
from selfinstruct.errors import BackendError, InputError, RequestRefused, StoppedEarly, Transient
from selfinstruct.records import Choice, Reply, Request, Usage
from selfinstruct.rundir import RunDirectory
from selfinstruct.settings import make_settings
from selfinstruct.store import read_log

ASK = Request(prompt="p" * 100, max_tokens=60)
WORST = sum(estimate_tokens(ASK))
ANSWER = Reply((Choice("text"),), Usage(40, 30))
PATIENCE = 20.0  # seconds until a test that hangs is called failed


class Fake:
    """A backend that answers with what `answer(key, attempt)` returns or raises, and keeps count."""

    def __init__(self, answer: Callable[[str, int], Reply] = lambda _, __: ANSWER) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.times: list[float] = []
        self.open = self.most = 0
        self.mutex = threading.Lock()

    def complete(self, key: str, request: Request) -> Reply:
        assert request == ASK
        with self.mutex:
            self.asked.append(key)
            self.times.append(time.monotonic())
            attempt = self.asked.count(key)
            self.open += 1
            self.most = max(self.most, self.open)
        try:
            return self.answer(key, attempt)
        finally:
            with self.mutex:
                self.open -= 1

    def close(self) -> None: ...


@contextmanager
def opened(folder: Path) -> Iterator[RunDirectory]:
    run = RunDirectory(make_settings({"output": folder / "data.json"}), {})
    try:
        assert list(run.replay()) == []
        yield run
    finally:
        run.close()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    with opened(tmp_path) as run:
        yield run


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT", 0.0)


def logged(run: RunDirectory) -> list[dict[str, object]]:
    return list(read_log(run.path / "replies.jsonl"))


def in_threads(keys: list[str], calls: Calls) -> dict[str, Reply | BaseException]:
    """What each key's call returned or raised, all of them called at once."""
    results: dict[str, Reply | BaseException] = {}

    def ask(key: str) -> None:
        try:
            results[key] = calls.complete(key, ASK)
        except Exception as error:
            results[key] = error

    threads = [threading.Thread(target=ask, args=(key,), daemon=True) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(results) == len(keys), "a call hangs"
    assert calls.in_flight == 0
    return results


def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread to come so far."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def waiting(calls: Calls) -> int:
    """How many threads wait for their turn or for the time of a retry."""
    pausing = len(getattr(calls._stopped, "_cond")._waiters)  # noqa: B009 - the type stub does not know it
    return pausing + sum(ask.ready is not None for ask in (*calls._due, *calls._fresh))


def busy(_: str, __: int) -> Reply:
    raise Transient("busy", "http_500")


def flaky(failures: int, error: Transient) -> Callable[[str, int], Reply]:
    def answer(_: str, attempt: int) -> Reply:
        if attempt <= failures:
            raise error
        return ANSWER

    return answer


# --- the log ------------------------------------------------------------------------------------------


def test_a_stored_reply_is_given_back_without_a_call(tmp_path: Path) -> None:
    several = Reply((Choice("a \ud83d", "length"), Choice("b")), Usage(1, 2, 1), "m", 0.25, 0.5)
    with opened(tmp_path) as run:
        first = Calls(Fake(lambda _, __: several), run, Limits()).complete("0.0", ASK)
        assert replace(first, seconds=0.25) == several
    with opened(tmp_path) as run:
        backend = Fake()
        calls = Calls(backend, run, Limits(max_requests=1))
        calls.stop("stored replies are given even then")
        assert calls.complete("0.0", ASK) == several
        assert backend.asked == []
        assert run.totals.cost == 0.5
        assert len(logged(run)) == 1


def test_a_stored_reply_to_another_request_is_an_error(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        Calls(Fake(), run, Limits()).complete("0.0", replace(ASK))
    with (
        opened(tmp_path) as run,
        pytest.raises(InputError, match=r"stored reply 0\.0 answers another request"),
    ):
        Calls(Fake(), run, Limits()).complete("0.0", replace(ASK, seed=1))


def test_a_reply_is_logged_before_it_is_used(run: RunDirectory) -> None:
    calls = Calls(Fake(), run, Limits(), price=lambda prompt, completion, _: prompt + 2.0 * completion)
    reply = calls.complete("7.1", ASK)
    (line,) = logged(run)
    assert (line["key"], line["request"], line["text"], line["cost"]) == ("7.1", ASK.digest(), "text", 100.0)
    assert reply.cost == 100.0
    assert reply.usage == ANSWER.usage


def test_the_backends_own_bill_counts(run: RunDirectory) -> None:
    bill = replace(ANSWER, cost=0.125)
    calls = Calls(Fake(lambda _, __: bill), run, Limits(), price=lambda *_: 1.0)
    assert calls.complete("0.0", ASK).cost == 0.125
    assert run.totals.cost == 0.125


def test_a_full_disk_at_the_log_frees_the_slot(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    calls = Calls(Fake(lambda key, _: busy(key, 1) if key == "1.0" else ANSWER), run, Limits())
    monkeypatch.setattr(os, "write", full)
    for key in ("0.0", "1.0"):
        with pytest.raises(StoppedEarly, match="No space left"):
            calls.complete(key, ASK)
        assert calls.in_flight == 0


# --- failures -----------------------------------------------------------------------------------------


def test_a_transient_failure_is_tried_again_and_logged(run: RunDirectory) -> None:
    backend = Fake(flaky(3, Transient("busy", "http_503")))
    calls = Calls(backend, run, Limits())
    assert calls.complete("0.0", ASK).text == "text"
    assert backend.asked == ["0.0"] * 4
    assert [line.get("failed") for line in logged(run)] == ["http_503"] * 3 + [None]
    assert run.totals.failures == {"http_503": 3}
    assert (calls.retries, run.totals.requests) == (3, 1)


def test_a_failure_of_the_last_attempt_is_raised(run: RunDirectory) -> None:
    backend = Fake(busy)
    calls = Calls(backend, run, Limits())
    with pytest.raises(Transient, match="busy"):
        calls.complete("0.0", ASK)
    assert len(backend.asked) == ATTEMPTS == len(logged(run))
    assert calls.in_flight == 0


def test_a_failure_is_no_stored_reply(tmp_path: Path) -> None:
    with opened(tmp_path) as run, pytest.raises(Transient):
        Calls(Fake(busy), run, Limits()).complete("0.0", ASK)
    with opened(tmp_path) as run:
        backend = Fake()
        assert Calls(backend, run, Limits()).complete("0.0", ASK).text == "text"
        assert backend.asked == ["0.0"]


def test_waits_double_with_jitter_up_to_the_longest(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT", 1.0)
    monkeypatch.setattr(module, "LONGEST_WAIT", 20.0)
    waits: list[float] = []

    class Noting(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            waits.append(timeout)
            return False

    calls = Calls(Fake(busy), run, Limits())
    calls._stopped = Noting()
    for key in ("0.0", "1.0"):
        with pytest.raises(Transient):
            calls.complete(key, ASK)
    for number, wait in enumerate(waits):
        middle = min(20.0, 2.0 ** (number % (ATTEMPTS - 1)))
        assert 0.5 * middle <= wait <= 1.5 * middle
    first, second = waits[: ATTEMPTS - 1], waits[ATTEMPTS - 1 :]
    assert len(first) == len(second) == ATTEMPTS - 1
    assert first != second


def test_the_time_a_server_asks_for_is_kept(run: RunDirectory) -> None:
    backend = Fake(flaky(2, Transient("busy", retry_after=0.15)))
    Calls(backend, run, Limits()).complete("0.0", ASK)
    gaps = [after - before for before, after in zip(backend.times, backend.times[1:], strict=False)]
    assert len(gaps) == 2
    assert min(gaps) >= 0.15


@pytest.mark.parametrize("kind", ["timeout", "connection", "bad_reply", "http_429"])
def test_what_was_lost_may_be_on_the_bill(run: RunDirectory, kind: str) -> None:
    price = dict.fromkeys(["timeout", "connection", "bad_reply"], 1.0).get(kind, 0.0)
    Calls(Fake(flaky(1, Transient("lost", kind))), run, Limits(), price=lambda *_: 1.0).complete("0.0", ASK)
    assert run.totals.cost == price + 1.0


def test_a_refused_request_is_not_tried_again_not_even_by_the_next_run(tmp_path: Path) -> None:
    def refuse(_: str, __: int) -> Reply:
        raise RequestRefused("too long", "context_length")

    for sitting in range(3):
        backend = Fake(refuse)
        with opened(tmp_path) as run:
            with pytest.raises(RequestRefused, match="too long") as error:
                Calls(backend, run, Limits()).complete("4.2", ASK)
            assert error.value.reason == "context_length"
            assert backend.asked == (["4.2"] if sitting == 0 else [])
            assert len(logged(run)) == 1


@pytest.mark.parametrize("error", [BackendError("no such model"), StoppedEarly("used up"), KeyError("a bug")])
def test_other_errors_pass_at_once(run: RunDirectory, error: Exception) -> None:
    def fail(_: str, __: int) -> Reply:
        raise error

    backend = Fake(fail)
    calls = Calls(backend, run, Limits())
    with pytest.raises(type(error)) as raised:
        calls.complete("0.0", ASK)
    assert raised.value is error
    assert backend.asked == ["0.0"]
    assert calls.in_flight == 0
    assert logged(run) == []


def test_a_server_that_only_fails_ends_the_run(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    backend = Fake(busy)
    calls = Calls(backend, run, Limits())
    for k in range(WINDOW // ATTEMPTS - 1):
        with pytest.raises(Transient):
            calls.complete(f"{k}.0", ASK)
    words = f"{WINDOW} of the last {WINDOW} calls failed, the last with: busy"
    with pytest.raises(BackendError, match=words):
        calls.complete("last.0", ASK)
    assert len(backend.asked) == WINDOW


def test_a_server_that_often_answers_does_not_end_the_run(run: RunDirectory) -> None:
    calls = Calls(Fake(flaky(3, Transient("busy"))), run, Limits())
    for k in range(WINDOW):
        assert calls.complete(f"{k}.0", ASK).text == "text"  # three of four calls fail


# --- slots --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3, 8])
def test_all_slots_are_used_and_never_one_more(run: RunDirectory, limit: int) -> None:
    together = threading.Barrier(limit)

    def answer(_: str, attempt: int) -> Reply:
        if attempt == 1:
            together.wait(PATIENCE)
            raise Transient("busy")
        return ANSWER

    backend = Fake(answer)
    calls = Calls(backend, run, Limits(concurrency=limit))
    results = in_threads([f"{k}.0" for k in range(3 * limit)], calls)
    assert all(isinstance(result, Reply) for result in results.values())
    assert backend.most == limit
    assert len(backend.asked) == 6 * limit


def test_due_retries_go_before_new_requests(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    doors = {key: threading.Event() for key in ("a", "b")}

    def answer(key: str, attempt: int) -> Reply:
        if key in doors:
            assert doors[key].wait(PATIENCE)
        if key == "a" and attempt == 1:
            doors["a"].set()
            raise Transient("busy")
        return ANSWER

    backend = Fake(answer)
    calls = Calls(backend, run, Limits(concurrency=1))

    def ask(key: str) -> threading.Thread:
        thread = threading.Thread(target=calls.complete, args=(key, ASK), daemon=True)
        thread.start()
        return thread

    threads = [ask("a")]
    until(lambda: backend.asked == ["a"])
    threads.append(ask("b"))
    until(lambda: waiting(calls) == 1)
    monkeypatch.setattr(calls._stopped, "wait", lambda _: until(lambda: backend.asked == ["a", "b"]))
    doors["a"].set()  # it fails, b takes the slot, and the retry is due
    until(lambda: len(calls._due) == 1)
    threads += [ask(key) for key in ("c", "d")]
    until(lambda: waiting(calls) == 3)
    doors["b"].set()
    for thread in threads:
        thread.join(PATIENCE)
    assert backend.asked[:3] == ["a", "b", "a"]
    assert sorted(backend.asked[3:]) == ["c", "d"]


class Clock:
    """The time, for a test that cannot wait for a minute."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(module, "monotonic", lambda: self.now)


# --- budgets ------------------------------------------------------------------------------------------


class Ledger:
    """The other side's book: what was used, and what requests in flight may still use."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.mutex = threading.Lock()
        self.requests = self.tokens = self.in_flight = 0
        self.highest = 0

    def answer(self, _: str, __: int) -> Reply:
        with self.mutex:
            self.requests += 1
            self.in_flight += WORST
            self.highest = max(self.highest, self.tokens + self.in_flight)
            fails = self.rng.random() < 0.2
            prompt, completion = (self.rng.randint(0, worst) for worst in estimate_tokens(ASK))
        time.sleep(0.0005)
        with self.mutex:
            self.in_flight -= WORST
            if fails:
                raise Transient("busy", "http_429")
            self.tokens += prompt + completion
        return Reply((Choice(""),), Usage(prompt, completion))


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["max_requests", "max_tokens", "max_cost"]),
    st.integers(1, 20),
    st.integers(1, 6),
    st.integers(0, 10**6),
)
def test_no_limit_is_passed_whatever_is_in_flight(name: str, size: int, width: int, seed: int) -> None:
    limit = size if name == "max_requests" else size * WORST // 2
    limits = {
        "max_requests": Limits(width, max_requests=limit),
        "max_tokens": Limits(width, max_tokens=limit),
        "max_cost": Limits(width, max_cost=limit / 1000),
    }[name]
    ledger = Ledger(seed)
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as run:
        calls = Calls(
            Fake(ledger.answer), run, limits, lambda prompt, completion, _: (prompt + completion) / 1000
        )
        results = in_threads([f"{k}.0" for k in range(60)], calls)
        assert run.totals.cost == pytest.approx(ledger.tokens / 1000)
    stopped = [result for result in results.values() if isinstance(result, Stopping)]
    flag = "--" + name.replace("_", "-")
    assert all(str(result).startswith(flag) for result in stopped)
    if name == "max_requests":
        assert ledger.requests == limit
    else:
        assert ledger.highest <= limit
        assert not stopped or ledger.tokens + WORST > limit  # nor is it stopped too early
        assert stopped or ledger.tokens + WORST <= limit + WORST


def test_cost_counts_for_all_sittings_and_tokens_for_this_one(tmp_path: Path) -> None:
    for sitting in range(3):
        with opened(tmp_path) as run:
            calls = Calls(
                Fake(), run, Limits(max_cost=460.0), lambda prompt, completion, _: prompt + completion
            )
            if sitting < 2:
                calls.complete(f"{sitting}.0", ASK)  # 70 dollars each, 260 at worst
            else:
                calls.complete("2.0", ASK)
                with pytest.raises(Stopping, match="--max-cost 460"):
                    calls.complete("3.0", ASK)
    with opened(tmp_path) as run:
        calls = Calls(Fake(), run, Limits(max_tokens=WORST, max_requests=1))
        assert calls.complete("3.0", ASK).text == "text"


def test_a_request_that_might_fit_waits_for_what_is_in_flight(run: RunDirectory) -> None:
    door = threading.Event()

    def answer(_: str, __: int) -> Reply:
        assert door.wait(PATIENCE)
        return Reply((Choice(""),), Usage(1, 1))

    calls = Calls(Fake(answer), run, Limits(4, max_tokens=WORST + 10))
    threads = [threading.Thread(target=calls.complete, args=(f"{k}.0", ASK), daemon=True) for k in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: waiting(calls) == 3)
    assert calls.in_flight == 1
    door.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert run.totals.requests == 4
    assert calls.why_stopped is None


# --- the end ------------------------------------------------------------------------------------------


def test_stop_wakes_whoever_waits_and_its_first_reason_counts(run: RunDirectory) -> None:
    door = threading.Event()

    def answer(key: str, _: int) -> Reply:
        if key == "pausing":
            raise Transient("busy", retry_after=500.0)
        assert door.wait(PATIENCE)
        return ANSWER

    backend = Fake(answer)
    calls = Calls(backend, run, Limits(concurrency=1))
    results: dict[str, Reply | Stopping] = {}

    def ask(key: str) -> None:
        try:
            results[key] = calls.complete(key, ASK)
        except Stopping as error:
            results[key] = error

    threads: list[threading.Thread] = []
    for key in ("pausing", "open", "waiting", "waiting too"):
        threads.append(threading.Thread(target=ask, args=(key,), daemon=True))
        threads[-1].start()
        until(lambda: waiting(calls) + calls.in_flight == len(threads))
    assert (calls.in_flight, waiting(calls)) == (1, 3)
    calls.stop("first")
    calls.stop("second")
    until(lambda: len(results) == 3)
    assert calls.in_flight == 1  # what is at the backend may end
    door.set()
    for thread in threads:
        thread.join(PATIENCE)
    answered = results.pop("open")
    assert isinstance(answered, Reply)
    assert replace(answered, seconds=0.0) == ANSWER
    assert {str(result) for result in results.values()} == {"first"}
    with pytest.raises(Stopping, match="first"):
        calls.complete("late", ASK)
    assert backend.asked == ["pausing", "open"]


def test_stop_wakes_whoever_waits_for_the_minute(run: RunDirectory) -> None:
    calls = Calls(Fake(), run, Limits(rpm=1))
    calls.complete("0.0", ASK)

    def stop() -> None:
        until(lambda: waiting(calls) == 1)
        calls.stop("enough")

    timer = threading.Thread(target=stop)
    timer.start()
    with pytest.raises(Stopping, match="enough"):
        calls.complete("1.0", ASK)
    timer.join()


def test_nothing_is_sent_after_the_deadline(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    calls = Calls(Fake(), run, Limits(deadline=1010.0))
    calls.complete("0.0", ASK)
    clock.now = 1009.9
    calls.check_time()
    assert calls.why_stopped is None
    clock.now = 1010.0
    with pytest.raises(Stopping, match=TIME_IS_OVER):
        calls.complete("1.0", ASK)
    later = Calls(Fake(), run, Limits(deadline=1010.0))
    later.check_time()
    assert later.why_stopped == TIME_IS_OVER


@given(st.text(max_size=200), st.integers(1, 1000), st.integers(1, 20))
def test_an_estimate_is_the_worst_case_in_completions(text: str, tokens: int, n: int) -> None:
    raw = estimate_tokens(Request(prompt=text, max_tokens=tokens, n=n))
    chat = estimate_tokens(Request(messages=(("user", text),), max_tokens=tokens, n=n))
    assert raw == chat
    assert raw[1] == tokens * n
    assert raw[0] >= len(text.encode(errors="replace"))


# --- what a limit must not lose ---------------------------------------------------------------------


def test_a_server_that_asks_for_too_much_patience_ends_the_run(run: RunDirectory) -> None:
    backend = Fake(flaky(1, Transient("busy", "http_429", retry_after=601.0)))
    calls = Calls(backend, run, Limits())
    with pytest.raises(BackendError, match=r"^busy and asks to wait 10 minutes; all replies are kept"):
        calls.complete("0.0", ASK)
    with pytest.raises(Stopping):
        calls.complete("1.0", ASK)
    assert backend.asked == ["0.0"]


def test_a_restart_of_the_server_is_no_reason_to_end(run: RunDirectory) -> None:
    """All slots fail at once, several times, and then it is there again."""
    calls = Calls(Fake(flaky(5, Transient("lost"))), run, Limits(8))
    results = in_threads([f"{k}.0" for k in range(40)], calls)
    assert all(isinstance(result, Reply) for result in results.values())
    assert run.totals.failures == {"connection": 200}


def test_a_key_that_is_refused_is_asked_with_no_more_than_the_slots(run: RunDirectory) -> None:
    def refuse(_: str, __: int) -> Reply:
        time.sleep(0.01)
        raise BackendError("refuses the key")

    backend = Fake(refuse)
    results = in_threads([f"{k}.0" for k in range(64)], Calls(backend, run, Limits(4)))
    assert len(backend.asked) <= 4
    assert {str(error) for error in results.values()} == {"refuses the key"}


def test_replies_without_counts_cost_the_worst(run: RunDirectory) -> None:
    calls = Calls(
        Fake(lambda _, __: Reply((Choice("text"),))), run, Limits(max_tokens=2 * WORST), lambda p, c, _: p + c
    )
    assert calls.complete("0.0", ASK).cost == WORST
    assert calls.complete("1.0", ASK).cost == WORST
    with pytest.raises(Stopping, match="--max-tokens"):
        calls.complete("2.0", ASK)


def test_tokens_of_lost_calls_count_at_their_worst(run: RunDirectory) -> None:
    backend = Fake(flaky(9, Transient("lost", "timeout")))
    with pytest.raises(Stopping, match="--max-tokens"):
        Calls(backend, run, Limits(max_tokens=3 * WORST)).complete("0.0", ASK)
    assert len(backend.asked) == 3


def test_what_is_given_up_at_the_end_is_on_the_bill_once(run: RunDirectory) -> None:
    door = threading.Event()

    def answer(key: str, _: int) -> Reply:
        assert door.wait(PATIENCE)
        if key == "lost":
            raise Transient("closed", "connection")
        return ANSWER

    calls = Calls(Fake(answer), run, Limits(4), lambda prompt, completion, _: prompt + completion)
    ended: list[str] = []

    def ask(key: str) -> None:
        with contextlib.suppress(Stopping):
            calls.complete(key, ASK)
        ended.append(key)

    threads = [threading.Thread(target=ask, args=(key,), daemon=True) for key in ("kept", "lost")]
    for thread in threads:
        thread.start()
    until(lambda: calls.in_flight == 2)
    calls.stop("enough")
    calls.give_up()
    assert run.totals.failures == {"given_up": 2}
    door.set()
    until(lambda: len(ended) == 2)
    assert run.totals.cost == 2 * WORST
    assert run.totals.requests == 1


def test_requests_under_way_at_a_kill_are_on_the_bill(tmp_path: Path) -> None:
    """The process is gone while two requests are at the server: nothing is logged of them but that they went."""
    door = threading.Event()

    def answer(key: str, attempt: int) -> Reply:
        if key == "2.0" and attempt == 1:
            raise Transient("busy", "http_500")
        if key in {"1.0", "2.0"}:
            door.wait(PATIENCE)
        return ANSWER

    def price(prompt: int, completion: int, _: int) -> float:
        return prompt + completion

    with opened(tmp_path) as run:
        calls = Calls(Fake(answer), run, Limits(4), price)
        calls.complete("0.0", ASK)
        threads = [
            threading.Thread(target=calls.complete, args=(key, ASK), daemon=True) for key in ("1.0", "2.0")
        ]
        for thread in threads:
            thread.start()
        until(lambda: len(list(read_log(run.path / "sent.jsonl"))) == 5)
        files = {path: path.read_bytes() for path in run.path.iterdir() if path.suffix == ".jsonl"}
        calls.stop("end of the test")
        door.set()
        for thread in threads:
            thread.join(PATIENCE)
    for path, content in files.items():
        path.write_bytes(content)  # as it was at that moment
    for _ in range(2):  # and no second time
        with opened(tmp_path) as run:
            assert run.totals.cost == 70 + 2 * WORST
            assert run.totals.failures == {"http_500": 1, "killed": 2}
            calls = Calls(Fake(), run, Limits(max_cost=2 * WORST + 70 + 1.0), price)
            with pytest.raises(Stopping, match="--max-cost"):
                calls.complete("3.0", ASK)


class Bill:
    """A provider that bills what it worked on, whether or not the answer arrived."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.mutex = threading.Lock()
        self.dollars = 0.0

    def answer(self, _: str, __: int) -> Reply:
        with self.mutex:
            fate = self.rng.choice(
                ["fine", "fine", "fine", "http_429", "http_500", "timeout", "connection", "refused"]
            )
            prompt, completion = (self.rng.randint(0, worst) for worst in estimate_tokens(ASK))
            if fate in {"fine", "timeout", "connection"}:
                self.dollars += (prompt + 3 * completion) / 1000
        if fate == "refused":
            raise RequestRefused("too long")
        if fate != "fine":
            raise Transient("lost", fate, retry_after=0.0)
        return Reply((Choice("text"),), Usage(prompt, completion))


@settings(max_examples=25, deadline=None)
@given(st.floats(0.1, 8.0), st.integers(1, 8), st.integers(1, 3), st.integers(0, 10**6))
def test_the_bill_never_passes_the_limit_over_all_sittings(
    limit: float, width: int, sittings: int, seed: int
) -> None:
    bill = Bill(seed)
    with tempfile.TemporaryDirectory() as folder:
        for sitting in range(sittings):
            with opened(Path(folder)) as run:
                calls = Calls(
                    Fake(bill.answer),
                    run,
                    Limits(width, max_cost=limit),
                    lambda prompt, completion, _: (prompt + 3 * completion) / 1000,
                )
                in_threads([f"{20 * sitting + k}.0" for k in range(20)], calls)
                assert bill.dollars <= run.totals.cost + 1e-9
            assert bill.dollars <= limit + 1e-9
