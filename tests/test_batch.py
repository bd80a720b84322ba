"""Runs over the Batch API: the same data as without, whatever becomes of batches, requests and processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stub_batch import Fate, StubBatchServer, by_content
from stub_server import Answer, Asked, StubServer, error_answer

import selfinstruct
from selfinstruct import batch, batch_api, batch_log
from selfinstruct.backend_openai import OpenAIBackend
from selfinstruct.batch_answers import Answers
from selfinstruct.calls import Limits, Noted, estimate_tokens
from selfinstruct.records import Request
from selfinstruct.rundir import RunDirectory
from selfinstruct.settings import make_settings

Cli = Callable[..., Ended]
REPOSITORY = Path(selfinstruct.__file__).parents[1]
KEY = "sk-planted-for-the-test"
NEVER = 10**9  # looks at a batch that is not to end


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name, seconds in {
        "SETTLE": 0.05,
        "FIRST_POLL": 0.01,
        "LONGEST_POLL": 0.02,
        "FIRST_WAIT": 0.001,
    }.items():
        monkeypatch.setattr(batch, name, seconds)
    monkeypatch.setattr(batch, "QUEUE_WAIT", 0.05)


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    """Few seeds: they are read anew by every command."""
    file = tmp_path / "seeds.jsonl"
    tasks = [
        {
            "instruction": f"Say what {word} means in {number} words.",
            "input": "",
            "output": f"{word} * {number}",
        }
        for number, word in enumerate("list tuple set dict loop class".split(), 3)  # noqa: SIM905
    ]
    file.write_text("".join(json.dumps(task) + "\n" for task in tasks))
    return file


@pytest.fixture
def call(cli: Cli, tmp_path: Path, seeds: Path) -> Callable[..., Ended]:
    """`generate` against a stub: `call(stub, "name", target, flags...)`."""

    def generate(stub: StubServer, name: str, num: int, *flags: object) -> Ended:
        return cli("generate", *words(stub, tmp_path / f"{name}.json", num, seeds), *flags)

    return generate


def words(stub: StubServer, output: Path, num: int, seeds: Path) -> list[object]:
    return ["--backend", "openai", "--model", "stub", "--base-url", stub.url, "-o", output, "-n", num,
            "--seeds", seeds]  # fmt: skip


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def result(tmp_path: Path, name: str) -> tuple[bytes, bytes]:
    return (tmp_path / f"{name}.json").read_bytes(), (tmp_path / f"{name}.run" / "journal.jsonl").read_bytes()


def until_done(call: Callable[[], Ended], most: int = 40) -> list[Ended]:
    ends = []
    for _ in range(most):
        ends.append(call())
        if ends[-1].status != 3:
            return ends
    raise AssertionError(ends[-1].err)


def last_line(ended: Ended) -> str:
    return ended.err.strip().splitlines()[-1]


# --- the same data ----------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [[], ["--recipe", "staged"], ["--answer", "json", "--choices", "2"]])
def test_batches_give_the_same_bytes_as_single_requests(
    call: Callable[..., Ended], tmp_path: Path, flags: list[str]
) -> None:
    with StubBatchServer(answer=staged_or_list, fates=(Fate(polls=1), Fate())) as stub:
        assert call(stub, "single", 12, "--lookahead", 2000, *flags).status == 0
        ends = until_done(lambda: call(stub, "cron", 12, "--batch", *flags))
        assert ends[-1].status == 0, ends[-1].err
        assert "pending in a batch" in last_line(ends[0])
        assert len(last_line(ends[0]).splitlines()) == 1
        cron = stub.asked_lines
        waited = call(stub, "waited", 12, "--batch", "--wait", *flags)
        assert waited.status == 0, waited.err
    assert result(tmp_path, "single") == result(tmp_path, "cron") == result(tmp_path, "waited")
    assert len(set(cron)) == len(cron)
    assert set(cron) == set(stub.asked_lines[len(cron) :])


def staged_or_list(body: dict[str, Any], asked: Any) -> list[str]:
    """What each step of a recipe asks for."""
    texts = by_content(body, asked)
    if "prompt" in body:
        return texts if "\n" in body["stop"] else ["x = 5\n"]
    content = body["messages"][-1]["content"]
    if "response_format" in body:
        shown = [text.split("\n")[0].partition(": ")[2] for text in texts]
        return [
            json.dumps({"tasks": [{"instruction": told, "input": "", "output": f"x = {len(told)}"}]})
            for told in shown
        ]
    if "Answer with its text alone" in content:
        return [texts[0].split("\n")[0].partition(":")[2]]
    if body["messages"][0]["role"] == "system":
        return [f"```python\ndef f(a):\n    return a * {len(content)} + len({content[:40]!r})\n```"]
    return texts


def test_a_raised_target_and_a_loop_of_steps_go_on(call: Callable[..., Ended], tmp_path: Path) -> None:
    with StubBatchServer() as stub:
        for target in (3, 9, 30):
            assert call(stub, "steps", target, "--batch", "--wait").status == 0
        assert call(stub, "whole", 30, "--batch", "--wait").status == 0
    assert (tmp_path / "steps.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


# --- what becomes of batches ------------------------------------------------------------------------


@pytest.fixture
def calm(call: Callable[..., Ended], tmp_path: Path) -> tuple[bytes, bytes]:
    """The result of a run without batches, to 40 tasks."""
    with StubBatchServer() as stub:
        assert call(stub, "calm", 40, "--lookahead", 2000).status == 0
    return result(tmp_path, "calm")


def some(what: Any, places: tuple[int, ...]) -> Callable[..., Any]:
    return lambda place, *_: what if place in places else None


@pytest.mark.parametrize("wait", [[], ["--wait"]], ids=["cron", "wait"])
@pytest.mark.parametrize(
    ("fate", "failures"),
    [
        (Fate("expired", line=some("expired", (0, 3))), {"batch_expired": 2}),
        (Fate("expired", line=some("missing", (0, 1, 2, 3, 4, 5, 6, 7, 8))), {}),
        (Fate("completed", line=some((500, "server_error", "Oh no."), (2,))), {"http_500": 1}),
        (Fate("completed", line=some((429, "rate_limit_exceeded", "Slowly."), (1, 2))), {"http_429": 2}),
        (Fate("completed", line=some("missing", (1,))), {}),
        (Fate("completed", extra=(b"", b"{", b"[]", b'"x"', b'{"custom_id": 5}',
                                  b'{"custom_id": "77.0-00", "response": null}')), {}),
    ],
)  # fmt: skip
def test_what_got_no_answer_is_sent_again(
    call: Callable[..., Ended],
    tmp_path: Path,
    calm: tuple[bytes, bytes],
    cli: Cli,
    fate: Fate,
    failures: dict[str, int],
    wait: list[str],
) -> None:
    with StubBatchServer(fates=(fate, Fate())) as stub:
        ends = until_done(lambda: call(stub, "run", 40, "--batch", *wait))
        assert ends[-1].status == 0, ends[-1].err
        assert result(tmp_path, "run") == calm
        asked = Counter(stub.asked_lines)
    first = len(next(iter(stub.shelf.batches.values())).requests)
    gone = sum(fate.line(place, "", {}) is not None for place in range(first))
    assert sum(asked.values()) - len(asked) == gone
    report = json.loads(cli("status", tmp_path / "run.json", "--json").out)
    assert report["failures"] == failures
    if fate.extra:
        assert "belong to none of its requests" in "".join(end.err for end in ends)


def test_a_request_that_is_refused_is_a_rejected_one(call: Callable[..., Ended], tmp_path: Path) -> None:
    refused = Fate(line=some((400, "context_length_exceeded", "The maximum context length is 9."), (1, 2)))
    with StubBatchServer(fates=(refused, Fate())) as stub:
        assert call(stub, "run", 40, "--batch", "--wait").status == 0
    journal = lines(tmp_path / "run.run" / "journal.jsonl")
    reasons = [d["reason"] for line in journal[1:3] for d in line["decisions"]]
    assert reasons == ["context_length", "context_length"]
    assert len(set(stub.asked_lines)) == len(stub.asked_lines)


def test_a_request_without_end_ends_the_run_and_may_be_tried_anew(call: Callable[..., Ended]) -> None:
    def always(_: int, custom_id: str, __: object) -> Any:
        return (503, "overloaded", "Busy.") if custom_id.startswith("0.0-") else None

    with StubBatchServer(fates=(*[Fate(line=always)] * batch.TRIES, Fate())) as stub:
        ended = call(stub, "run", 5, "--batch", "--wait")
        assert ended.status == 4
        assert "request 0.0 was in 4 batches" in last_line(ended)
        assert len(stub.shelf.batches) == batch.TRIES
        assert call(stub, "run", 5, "--batch", "--wait").status == 0


def test_a_batch_that_fails_its_validation(call: Callable[..., Ended]) -> None:
    bad = Fate("failed", refused=(("model_not_found", "The model `stub` does not exist."),))
    with StubBatchServer(fates=(bad, Fate())) as stub:
        assert call(stub, "run", 5, "--batch").status == 3
        ended = call(stub, "run", 5, "--batch")
        assert ended.status == 4
        assert "does not exist" in last_line(ended)
        assert call(stub, "run", 5, "--batch", "--wait").status == 0


@pytest.mark.parametrize("wait", [[], ["--wait"]], ids=["cron", "wait"])
def test_a_full_queue_makes_batches_smaller(
    call: Callable[..., Ended], tmp_path: Path, calm: tuple[bytes, bytes], wait: list[str]
) -> None:
    with StubBatchServer(most_queued=3) as stub:
        ends = until_done(lambda: call(stub, "run", 40, "--batch", *wait))
        assert ends[-1].status == 0, ends[-1].err
        assert result(tmp_path, "run") == calm
        answered = [made for made in stub.shelf.batches.values() if made.shown["status"] == "completed"]
        assert {len(made.requests) for made in answered} <= {1, 2, 3}


def test_a_batch_that_the_user_cancels_stops_the_wait(
    call: Callable[..., Ended], tmp_path: Path, calm: tuple[bytes, bytes]
) -> None:
    cut = Fate("cancelled", line=lambda place, *_: None if place < 2 else "missing")
    with StubBatchServer(fates=(cut, Fate())) as stub:
        ended = call(stub, "run", 40, "--batch", "--wait")
        assert ended.status == 3
        assert "cancelled" in last_line(ended)
        assert len(stub.shelf.batches) == 1
        assert len(json.loads((tmp_path / "run.json").read_text())) > 2
        assert call(stub, "run", 40, "--batch", "--wait").status == 0
        assert (
            len(set(stub.asked_lines))
            == len(stub.asked_lines) - len(stub.shelf.batches["batch-0"].requests) + 2
        )
    assert result(tmp_path, "run") == calm


@pytest.mark.parametrize("wait", [[], ["--wait"]], ids=["cron", "wait"])
def test_fields_that_the_server_does_not_take(call: Callable[..., Ended], wait: list[str]) -> None:
    with StubBatchServer(refuses=("max_tokens", "stop")) as stub:
        ends = until_done(lambda: call(stub, "run", 20, "--batch", *wait))
        assert ends[-1].status == 0
        bodies = [made.requests[0]["body"] for made in stub.shelf.batches.values()]
    assert [sorted({"max_tokens", "max_completion_tokens", "stop"} & set(body)) for body in bodies[:3]] == [
        ["max_tokens", "stop"],
        ["max_completion_tokens", "stop"],
        ["max_completion_tokens"],
    ]
    assert all("stop" not in body for body in bodies[2:])


def test_two_endpoints_and_sizes_make_several_batches(
    call: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, calm: tuple[bytes, bytes]
) -> None:
    monkeypatch.setattr(batch, "MOST_REQUESTS", 4)
    monkeypatch.setattr(batch_log, "MOST_REQUESTS", 4)
    with StubBatchServer() as stub:
        assert call(stub, "many", 40, "--batch", "--wait").status == 0
        sizes = [len(made.requests) for made in stub.shelf.batches.values()]
        assert max(sizes) == 4
        assert len(sizes) > 2
        assert result(tmp_path, "many") == calm
        monkeypatch.setattr(batch_api, "MOST_BYTES", 10_000)
        assert call(stub, "small", 40, "--batch", "--wait").status == 0
        assert all(len(data) <= 10_000 for data in stub.shelf.files.values() if b'"method"' in data[-9000:])


def test_each_endpoint_has_a_batch_of_its_own(tmp_path: Path) -> None:
    run = RunDirectory(make_settings({"output": tmp_path / "x.json"}), {})
    for _ in run.replay():
        pass
    asked = {
        "0.0": Request(prompt="One"),
        "1.0": Request(messages=(("user", "Two"),)),
        "2.0": Request(prompt="3"),
    }
    with StubBatchServer() as stub:
        backend = OpenAIBackend("stub", stub.url)
        calls = batch.BatchCalls(backend, run, Limits(), None, wait=True, say=lambda _: None)
        for key, request in asked.items():
            with pytest.raises(Noted):
                calls.complete(key, request)
        assert calls.in_flight == 0
        for _ in calls.settle():
            pass
        sent = {made.shown["endpoint"]: len(made.requests) for made in stub.shelf.batches.values()}
        assert sent == {"/v1/completions": 2, "/v1/chat/completions": 1}
        assert {
            key: bool(calls.complete(key, request).text) for key, request in asked.items()
        } == dict.fromkeys(asked, True)
        calls.close()
        backend.close()
    run.close()


# --- limits -----------------------------------------------------------------------------------------


def test_half_the_price_is_counted_and_the_limit_is_never_passed(
    call: Callable[..., Ended], tmp_path: Path, cli: Cli
) -> None:
    config = tmp_path / "prices.toml"
    config.write_text("[prices]\ninput = 2.0\noutput = 10.0\n")
    with StubBatchServer() as stub:
        flags = ("--batch", "--wait", "--config", config)
        ended = call(stub, "run", 400, *flags, "--max-cost", 0.2)
        assert ended.status == 3
        assert "--max-cost 0.2" in last_line(ended)
        report = json.loads(cli("status", tmp_path / "run.json", "--json").out)
        replies = lines(tmp_path / "run.run" / "replies.jsonl")
        right = sum(r["usage"]["prompt"] * 2 + r["usage"]["completion"] * 10 for r in replies) / 2e6
        assert report["cost"] == pytest.approx(right)
        assert 0.1 < right <= 0.2
        # What is in open batches counts at its worst, in later sittings too.
        worst = max(estimate_tokens(Request(prompt="x" * 12_000, max_tokens=3072)))
        stub.fates = (Fate(polls=NEVER),)
        assert call(stub, "open", 400, "--batch", "--config", config, "--max-cost", 0.2).status == 3
        held = len(list(stub.shelf.batches.values())[-1].requests)
        assert 1 <= held <= 0.2 / (worst * 2 / 2e6)
        count = len(stub.shelf.batches)
        assert call(stub, "open", 400, "--batch", "--config", config, "--max-cost", 0.2).status == 3
        assert len(stub.shelf.batches) == count


@pytest.mark.parametrize("limit", [["--max-requests", 7], ["--max-tokens", 40_000]])
def test_limits_of_a_sitting(call: Callable[..., Ended], limit: list[object]) -> None:
    with StubBatchServer() as stub:
        ended = call(stub, "run", 400, "--batch", "--wait", *limit)
        assert ended.status == 3
        assert str(limit[0]) in last_line(ended)
        first = len(stub.asked_lines)
        assert first == 7 if limit[0] == "--max-requests" else 2 <= first < 40
        assert call(stub, "run", 400, "--batch", "--wait", *limit).status == 3
        assert len(set(stub.asked_lines)) == len(stub.asked_lines) > first


def test_the_deadline_ends_the_wait(call: Callable[..., Ended]) -> None:
    with StubBatchServer(fates=(Fate(polls=NEVER),)) as stub:
        ended = call(stub, "run", 5, "--batch", "--wait", "--max-minutes", 0.05)
        assert ended.status == 3
        assert "--max-minutes" in last_line(ended)
        assert "pending in a batch" in last_line(ended)


def test_a_stall_is_counted_over_all_sittings(call: Callable[..., Ended]) -> None:
    with StubBatchServer(answer=lambda *_: ["nothing of use"]) as stub:
        ends = [call(stub, "run", 30, "--batch", "--stall", 12) for _ in range(6)]
    assert {end.status for end in ends} == {3}
    assert "--stall 12" in last_line(ends[-1])
    assert last_line(ends[-1]) == last_line(ends[-2])
    assert len(stub.asked_lines) < 60


# --- faults and refusals ----------------------------------------------------------------------------


def test_faults_of_the_endpoints_change_nothing(
    call: Callable[..., Ended], tmp_path: Path, calm: tuple[bytes, bytes]
) -> None:
    class Faulty(StubBatchServer):
        """Bodies hold random names and boundaries here, so faults are drawn by what is called how often."""

        def __init__(self, seed: int) -> None:
            shares = {"429": 0.15, "500": 0.15, "reset_before": 0.1, "reset_in": 0.1, "reset_after": 0.1}
            super().__init__(faults=shares, fault_seed=seed, fates=(Fate(polls=2),))
            self.calls: Counter[str] = Counter()

        def fault_of(self, asked: Asked) -> str | None:
            call = f"{asked.method} {asked.path.partition('?')[0]}"
            self.calls[call] += 1
            return super().fault_of(replace(asked, body=call.encode(), attempt=self.calls[call]))

    for seed in range(3):
        with (faulty := Faulty(seed)) as stub:
            ended = call(stub, f"run{seed}", 40, "--batch", "--wait")
            assert ended.status == 0, ended.err
            assert len(set(stub.asked_lines)) == len(stub.asked_lines)
            assert sum(faulty.calls.values()) > 12
        assert result(tmp_path, f"run{seed}") == calm


def test_a_creation_whose_answer_is_lost_is_found_again(call: Callable[..., Ended]) -> None:
    with StubBatchServer(page=1) as stub:
        stub.spoil_create = [error_answer(503, "overloaded", "Busy."), error_answer(500, "oh", "Oh.")]
        assert call(stub, "other", 5, "--batch", "--wait").status == 0
        assert call(stub, "run", 5, "--batch", "--wait").status == 0
        assert len(stub.shelf.batches) == 2


@pytest.mark.parametrize(("down", "status"), [(60, 0), (10**6, 4)])
def test_an_outage_while_waiting(call: Callable[..., Ended], down: int, status: int) -> None:
    class Away(StubBatchServer):
        looks = 0

        def _look(self, made: Any) -> Answer:
            self.looks += 1
            return error_answer(503, "overloaded", "Busy.") if 1 < self.looks < down else super()._look(made)

    with Away(fates=(Fate(polls=2),)) as stub:
        ended = call(stub, "run", 5, "--batch", "--wait")
        assert ended.status == status
        if status:
            assert "run the same command again" in last_line(ended)
        assert len(stub.shelf.batches) == 1


def test_a_file_that_is_not_known_yet_is_tried_again(call: Callable[..., Ended]) -> None:
    class Slow(StubBatchServer):
        misses = 2

        def _create(self, asked: dict[str, Any]) -> Answer:
            if self.misses:
                self.misses -= 1
                return error_answer(400, "invalid_request_error", "Cannot find file", param="file_id")
            return super()._create(asked)

    with (slow := Slow()) as stub:
        assert call(stub, "run", 5, "--batch", "--wait").status == 0
        slow.misses = 99
        ended = call(stub, "lost", 5, "--batch", "--wait")
        assert ended.status == 4
        assert "Cannot find file" in last_line(ended)


def test_a_server_without_batches_and_a_wrong_key(call: Callable[..., Ended], tmp_path: Path) -> None:
    with StubServer() as stub:
        ended = call(stub, "run", 5, "--batch")
        assert ended.status == 4
        assert "leave --batch out" in last_line(ended)
    with StubBatchServer(key="sk-the-right-one") as stub:
        ended = call(stub, "key", 5, "--batch")
        assert ended.status == 4
        assert "OPENAI_API_KEY" in last_line(ended)
    with StubBatchServer(fates=(Fate(polls=NEVER),)) as stub:
        assert call(stub, "gone", 5, "--batch").status == 3
        stub.shelf.batches.clear()
        ended = call(stub, "gone", 5, "--batch")
        assert ended.status == 4
        assert "batch-0" in last_line(ended)
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or KEY.encode() not in file.read_bytes()


def test_pending_requests_are_not_bought_a_second_time(
    call: Callable[..., Ended], cli: Cli, tmp_path: Path
) -> None:
    with StubBatchServer(fates=(Fate(polls=NEVER),)) as stub:
        assert call(stub, "run", 5, "--batch").status == 3
        report = json.loads(cli("status", tmp_path / "run.json", "--json").out)
        assert report["pending"] == {"batch-0": 4}
        assert "batch-0" in cli("status", tmp_path / "run.json").out
        ended = call(stub, "run", 5, "--lookahead", 2000)
        assert ended.status == 2
        assert "--batch" in last_line(ended)
        assert call(stub, "run", 5, "--batch").status == 3
        assert len(stub.shelf.batches) == 1
        more = call(stub, "run", 100, "--batch")
        assert "2 batches" in last_line(more)
        assert len(set(stub.asked_lines)) == len(stub.asked_lines)
        fewer = call(stub, "run", 3, "--batch")
        assert fewer.status == 3
        stub.finish()
        assert call(stub, "run", 100, "--batch", "--wait").status == 0
        assert len(set(stub.asked_lines)) == len(stub.asked_lines)


def test_usage(cli: Cli, tmp_path: Path) -> None:
    for flags in (["--batch"], ["--wait"], ["--backend", "openai", "--model", "m", "--wait"]):
        ended = cli("generate", "-o", tmp_path / "x.json", *flags)
        assert ended.status == 2
        assert "batch" in last_line(ended)


# --- kills ------------------------------------------------------------------------------------------

MOMENTS = [
    f"{moment} {when}"
    for moment in ("POST /v1/files", "POST /v1/batches", "GET /v1/batches/ID", "GET /v1/files/ID/content")
    for when in ("before", "after")
]
SCRIPT = (
    "import sys; from selfinstruct import batch; batch.SETTLE = 0.3; batch.FIRST_POLL = 0.02; "
    "from selfinstruct.cli import main; sys.argv[0] = 'selfinstruct'; main()"
)


def start(stub: StubServer, output: Path, num: int, seeds: Path, *flags: object) -> subprocess.Popen[str]:
    command = ["generate", *words(stub, output, num, seeds), "--batch", *flags]
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, command)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )


def run_with_kills(
    stub: StubBatchServer, output: Path, num: int, seeds: Path, moments: list[str], *flags: object
) -> None:
    """One command after the other, each killed -9 at its moment, until one reaches the target."""
    left = list(moments)
    for _ in range(len(moments) + 12):
        stub.at.clear()
        run = start(stub, output, num, seeds, *flags)
        if left:
            stub.at[left[0]] = run.kill
        _, said = run.communicate(timeout=60)
        if run.returncode == -signal.SIGKILL:
            left.pop(0)
        elif run.returncode == 0:
            break
        else:
            assert run.returncode == 3, said
    assert run.returncode == 0
    assert not left


def test_killed_at_the_worst_moments(tmp_path: Path, seeds: Path, calm: tuple[bytes, bytes]) -> None:
    with StubBatchServer() as stub:
        run_with_kills(
            stub, tmp_path / "killed.json", 40, seeds,
            ["POST /v1/batches after", "GET /v1/files/ID/content after"], "--wait",
        )  # fmt: skip
        assert len(set(stub.asked_lines)) == len(stub.asked_lines)
    assert result(tmp_path, "killed") == calm


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--wait"]], ids=["cron", "wait"])
def test_killed_at_every_moment(
    tmp_path: Path, seeds: Path, calm: tuple[bytes, bytes], flags: list[str]
) -> None:
    for moment in MOMENTS:
        with StubBatchServer(page=1) as stub:
            name = moment.replace("/", "").replace(" ", "-")
            run_with_kills(stub, tmp_path / f"{name}.json", 40, seeds, [moment] * 2, *flags)
            assert len(set(stub.asked_lines)) == len(stub.asked_lines)
        assert result(tmp_path, name) == calm


class Killed(BaseException):
    """Ends the command where a kill would."""


STEPS = [(batch_log.BatchLog, "note"), (RunDirectory, "keep_reply"), (RunDirectory, "keep_failure"),
         *((batch_api, name) for name in ("upload", "create", "look", "find", "fetch"))]  # fmt: skip


def dies_at(monkeypatch: pytest.MonkeyPatch, number: int, *, after: bool) -> Callable[[], bool]:
    """Let the `number`-th of all steps end the command; returns whether it has."""
    counted = [0]

    def wrap(owner: Any, name: str) -> None:
        inner = getattr(owner, name)

        def step(*args: Any, **given: Any) -> Any:
            counted[0] += 1
            mine = counted[0] == number
            if mine and not after:
                raise Killed
            answer = inner(*args, **given)
            if mine:
                raise Killed
            return answer

        monkeypatch.setattr(owner, name, step)

    for owner, name in STEPS:
        wrap(owner, name)
    return lambda: counted[0] >= number


def die_at_steps(
    call: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    calm: tuple[bytes, bytes],
    every: int,
) -> int:
    fates = (Fate(line=some((500, "oh", "Oh."), (1,))), Fate("expired", line=some("expired", (0,))), Fate())
    number = 1
    while True:
        with StubBatchServer(fates=fates) as stub:
            name = f"dead{number}"
            with monkeypatch.context() as patch:
                reached = dies_at(patch, number, after=number % 2 == 0)
                try:
                    ended: Ended | None = call(stub, name, 40, "--batch", "--wait")
                except Killed:
                    ended = None
            if ended is not None:
                assert ended.status == 0
                assert not reached()
                return number
            assert call(stub, name, 40, "--batch", "--wait").status == 0
            asked = Counter(stub.asked_lines)
            assert sum(asked.values()) - len(asked) <= 2  # those that failed
        assert result(tmp_path, name) == calm
        number += every


def test_ends_between_records(
    call: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, calm: tuple[bytes, bytes]
) -> None:
    assert die_at_steps(call, monkeypatch, tmp_path, calm, every=9) > 30


@pytest.mark.slow
def test_ends_between_all_records(
    call: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, calm: tuple[bytes, bytes]
) -> None:
    assert die_at_steps(call, monkeypatch, tmp_path, calm, every=1) > 30


def test_a_torn_last_record(call: Callable[..., Ended], tmp_path: Path) -> None:
    with StubBatchServer(fates=(Fate(polls=1),)) as stub:
        assert call(stub, "run", 10, "--batch").status == 3
        log = tmp_path / "run.run" / "batches.jsonl"
        whole = log.read_bytes()
        created = whole.splitlines(keepends=True)[-1]
        assert b"created" in created
        for cut in (1, len(created) // 2, len(created)):
            log.write_bytes(whole[:-cut])
            assert call(stub, "run", 10, "--batch").status in {0, 3}
        assert call(stub, "run", 10, "--batch").status == 0
        assert len(set(stub.asked_lines)) == len(stub.asked_lines)


def test_a_signal_ends_the_wait_with_what_is_pending(tmp_path: Path, seeds: Path) -> None:
    with StubBatchServer(fates=(Fate(polls=NEVER),)) as stub:
        run = start(stub, tmp_path / "run.json", 5, seeds, "--wait")
        while not any("/v1/batches/" in asked.path for asked in stub.requests):
            assert run.poll() is None, run.communicate()
            time.sleep(0.02)
        run.send_signal(signal.SIGTERM)
        _, said = run.communicate(timeout=60)
        assert run.returncode == 3
        assert "SIGTERM" in said.splitlines()[-1]
        assert "batch-0" in said.splitlines()[-1]


# --- what a server may write into a file ------------------------------------------------------------

JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 999) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["response", "error", "status_code", "body", "code", "message", "choices", "usage"]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(told=JSONS, response=JSONS, status=st.sampled_from([200, 400, 401, 404, 429, 500, None, "200"]))
def test_no_line_of_a_file_breaks_the_run(tmp_path: Path, told: Any, response: Any, status: Any) -> None:
    request = Request(messages=(("user", "Hello"),), stop=("x",), seed=1)
    known = batch_log.Known()
    plan = batch_log.plan_of("n", "/v1/chat/completions", frozenset(), {"0.0": ("d", request)})
    known.apply(json.loads(json.dumps(plan)) | {"time": 1.0})
    backend = OpenAIBackend("stub", "http://127.0.0.1:9/v1")
    run = RunDirectory(make_settings({"output": tmp_path / "x.json"}), {})
    try:
        for _ in run.replay():
            pass
        run.stored.clear()
        answers = Answers(backend, run, known.open["n"], lambda _: None)
        answers.take(json.dumps(told).encode())
        answers.take(json.dumps({"custom_id": "0.0-d", "response": told, "error": response}).encode())
        again = Answers(backend, run, known.open["n"], lambda _: None)
        line = {"custom_id": "0.0-d", "response": {"status_code": status, "body": response}, "error": told}
        again.take(json.dumps(line).encode())
        assert "0.0" in run.stored or run.totals.failures or again.to_ask_anew or answers.to_ask_anew
    finally:
        run.close()
        backend.close()
