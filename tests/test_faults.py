"""The whole run against a server that fails in every way it can."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended
from stub_server import Answer, Asked, StubServer, alpaca_answer, error_answer

Cli = Callable[..., Ended]
FAULTS = {
    "429": 0.03, "429_after": 0.02, "500": 0.01, "503": 0.01, "reset_before": 0.004, "reset_in": 0.003,
    "reset_after": 0.003, "hang": 0.01,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-for-the-test")


def generate(cli: Cli, stub: StubServer, output: Path, num: int, *words: object) -> Ended:
    return cli(
        "generate",
        "--backend",
        "openai",
        "--model",
        "stub",
        "--base-url",
        stub.url,
        "-o",
        output,
        "-n",
        num,
        *words,
    )


def status(cli: Cli, output: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(cli("status", output, "--json").out)
    return report


def digests(output: Path) -> list[str]:
    files = (output, output.with_suffix(".run") / "journal.jsonl")
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


@pytest.mark.parametrize(
    ("requests", "width", "timeout"),
    [(300, 32, 2.0), pytest.param(2000, 64, 5.0, marks=pytest.mark.slow)],
)
def test_a_run_through_all_faults_ends_with_the_bytes_of_a_calm_one(
    cli: Cli, tmp_path: Path, requests: int, width: int, timeout: float
) -> None:
    tasks = int(requests * 4.4)  # the stub writes four or five a reply
    calm, stormy = tmp_path / "calm.json", tmp_path / "stormy.json"
    with StubServer() as stub:
        assert generate(cli, stub, calm, tasks, "--concurrency", width).status == 0
    with StubServer(faults=FAULTS, retry_after=0.3) as stub:
        ended = generate(cli, stub, stormy, tasks, "--concurrency", width, "--timeout", timeout)
        assert ended.status == 0, ended.err
        asked = Counter(one.body for one in stub.requests)
        met = Counter(fault for one in stub.requests if (fault := stub.fault_of(one)) is not None)
    assert digests(calm) == digests(stormy)
    rows = json.loads(stormy.read_bytes())
    assert len(rows) == tasks == len({json.dumps(row) for row in rows})
    failures = status(cli, stormy)["failures"]
    assert failures["http_429"] == met["429"] + met["429_after"]
    assert failures["http_500"] == met["500"]
    assert failures["http_503"] == met["503"]
    assert failures["timeout"] >= met["hang"] > 0
    assert failures["connection"] >= met["reset_before"] + met["reset_in"]
    assert sum(asked.values()) <= len(asked) + sum(failures.values()) + met["reset_after"]
    for name in ("http_429", "timeout"):
        assert name in ended.err  # the summary tells them


def test_a_request_that_is_never_taken_is_one_rejection_and_the_run_goes_on(cli: Cli, tmp_path: Path) -> None:
    output = tmp_path / "refused.json"
    with StubServer(faults={"context_length": 0.1, "content_policy": 0.1, "400": 0.05}) as stub:
        ended = generate(cli, stub, output, 150, "--concurrency", 8)
        assert ended.status == 0, ended.err
        asked = Counter(one.body for one in stub.requests)
    assert set(asked.values()) == {1}  # none is tried again
    report = status(cli, output)
    refused = {
        name: report["reasons"][name] for name in ("context_length", "content_filter", "request_refused")
    }
    assert all(refused.values())
    assert report["rows"] == 150


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("401", "refuses the key"),
        ("403", "refuses the key"),
        ("404", "has no model 'stub'"),
        ("429_quota", "out of credit"),
    ],
)
def test_what_no_waiting_mends_ends_the_run_at_once(cli: Cli, tmp_path: Path, fault: str, words: str) -> None:
    with StubServer(faults={fault: 1.0}, latency=0.02) as stub:
        ended = generate(cli, stub, tmp_path / "x.json", 1000, "--concurrency", 8)
        assert ended.status == 4
        assert words in ended.err.splitlines()[-1]
        assert "planted" not in ended.err
        assert len(stub.requests) <= 8


def test_a_key_that_is_withdrawn_in_the_middle_keeps_everything(cli: Cli, tmp_path: Path) -> None:
    output = tmp_path / "x.json"
    with StubServer() as stub:
        assert generate(cli, stub, tmp_path / "calm.json", 300).status == 0

        def answer(body: dict[str, Any], asked: Asked) -> list[str] | Answer:
            if len(stub.requests) > 30:
                return error_answer(401, "invalid_api_key", "Withdrawn.")
            return alpaca_answer(body, asked)

        stub.requests.clear()
        stub.answer = answer
        ended = generate(cli, stub, output, 300, "--concurrency", 4)
        assert ended.status == 4
        assert 30 < len(stub.requests) <= 34
        assert status(cli, output)["requests"] == 30
        stub.answer = alpaca_answer
        assert generate(cli, stub, output, 300, "--concurrency", 4).status == 0
    assert digests(output) == digests(tmp_path / "calm.json")


def test_a_server_that_only_fails_ends_the_run_with_the_reason(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfinstruct.calls.FIRST_WAIT", 0.01)
    monkeypatch.setattr("selfinstruct.calls.LONGEST_WAIT", 0.1)
    monkeypatch.setattr("selfinstruct.calls.PATIENCE", 0.1)
    output = tmp_path / "x.json"
    with StubServer() as stub:
        assert generate(cli, stub, output, 20).status == 0
        stub.faults = {"500": 1.0}
        ended = generate(cli, stub, output, 500, "--concurrency", 8)
        assert ended.status == 4
        assert "of the last 40 calls failed, the last with: " in ended.err.splitlines()[-1]
        assert "HTTP 500" in ended.err.splitlines()[-1]
        assert status(cli, output)["rows"] >= 20
        stub.faults = {}
        assert generate(cli, stub, output, 60).status == 0


def test_a_server_that_asks_for_an_hour_ends_the_run_with_that(cli: Cli, tmp_path: Path) -> None:
    with StubServer(faults={"429_after": 1.0}, retry_after=3600) as stub:
        ended = generate(cli, stub, tmp_path / "x.json", 100, "--concurrency", 4)
        assert ended.status == 4
        assert "asks to wait 60 minutes" in ended.err.splitlines()[-1]
        assert len(stub.requests) <= 4


def test_the_limit_in_dollars_holds_through_faults_and_sittings(cli: Cli, tmp_path: Path) -> None:
    """What the server worked on, at its own count, never costs more than the limit; a higher one goes on."""
    config = tmp_path / "prices.toml"
    config.write_text("[prices]\ninput = 1.0\noutput = 10.0\n")
    output = tmp_path / "dear.json"
    faults = {"429": 0.05, "500": 0.05, "reset_in": 0.05, "reset_after": 0.05}
    with StubServer(faults=faults) as stub:

        def billed() -> float:
            total = 0.0
            for asked in stub.requests:
                if stub.fault_of(asked) not in {"429", "500"}:
                    text = alpaca_answer(asked.json, asked)[0]
                    total += len(json.dumps(asked.json["messages"])) // 4 * 1e-6 + len(text) // 4 * 1e-5
            return total

        words = ("--config", config, "--concurrency", 8, "--max-output-tokens", 1000)
        for limit in (0.05, 0.1, 0.15):
            ended = generate(cli, stub, output, 5000, *words, "--max-cost", limit)
            assert ended.status == 3, ended.err
            assert f"--max-cost {limit:g}" in ended.err.splitlines()[-1]
            cost = status(cli, output)["cost"]
            assert billed() <= cost + 1e-9  # sums of floats, in another order
            assert cost <= limit
            assert cost > limit - 0.02


def test_later_requests_have_the_form_of_the_first(cli: Cli, tmp_path: Path) -> None:
    with StubServer(headers={"Set-Cookie": "session=of-the-first; Path=/"}) as stub:
        assert generate(cli, stub, tmp_path / "x.json", 40, "--concurrency", 1).status == 0
        first, *others = stub.requests
    assert others
    for one in others:
        left = {name: value for name, value in one.headers.items() if name != "content-length"}
        assert left == {name: value for name, value in first.headers.items() if name != "content-length"}
        assert one.path == first.path
        assert one.json.keys() == first.json.keys()


def test_limits_that_headers_tell_slow_a_run_down_before_it_is_refused(cli: Cli, tmp_path: Path) -> None:
    """The server lets 20 requests in at once and then 40 a second.

    Where the machine lets the client starve between two requests it is refused more often: it has three tries.
    """
    state: dict[str, float] = {}
    told = ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests")

    def answer(body: dict[str, Any], asked: Asked, names: tuple[str, ...]) -> Answer:
        del body
        now = time.monotonic()
        state["level"] = min(20.0, state["level"] + (now - state["at"]) * 40)
        state["at"] = now
        if state["level"] < 1:
            return error_answer(429, "rate_limit_exceeded", "Rate limit reached.")
        state["level"] -= 1
        text = alpaca_answer(asked.json, asked)[0]
        data = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "model": "stub"}
        limits = ("20", str(int(state["level"])), f"{(20 - state['level']) / 40 * 1000:.1f}ms")
        head = (("Content-Type", "application/json"), *zip(names, limits, strict=False))
        return Answer(200, json.dumps(data).encode(), head)

    def refused(name: str, names: tuple[str, ...]) -> int:
        state.update(level=20.0, at=time.monotonic())
        output = tmp_path / name
        with StubServer(partial(answer, names=names), latency=0.02) as stub:
            ended = generate(cli, stub, output, 400, "--concurrency", 16)
            assert ended.status == 0, ended.err
            assert len(stub.requests) > 80
        number = status(cli, output)["failures"].get("http_429", 0)
        assert isinstance(number, int)
        return number

    fewest = next((found for k in range(3) if (found := refused(f"told{k}.json", told)) <= 10), None)
    assert fewest is not None
    assert fewest < refused("untold.json", ())
