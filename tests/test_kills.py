"""What a kill, a full disk, a closed folder and a torn line may do to a run: nothing that is lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import Ended
from kill_harness import Case, Figures, Series, Stub, command, ended, journal_of, read_rows, replies_of
from stub_server import StubServer

from selfinstruct.commands import _handling, _Signals
from selfinstruct.talk import Talk

Cli = Callable[..., Ended]
CASES = [
    Case(num=110),
    Case(num=80, concurrency=1, flags=("--machine-shots", "1", "--lookahead", "3")),
    Case(num=200, concurrency=16),
    Case(num=110, concurrency=6, flags=("--profile", "alpaca", "--choices", "2")),
]


def kill_again_and_again(folder: Path, cases: list[Case], kills: int, seed: int) -> Figures:
    """Series after series, each case with another seed, until so many kills are done."""
    rng = random.Random(seed)
    figures = Figures()
    number = 0
    with Stub() as stub:
        while (done := figures.killed) < kills:
            case = cases[number % len(cases)]
            place = folder / f"{number}"
            place.mkdir(parents=True)
            varied = Case(case.num, number, case.concurrency, case.flags)
            figures.add(Series(place, varied, rng).run(stub, min(30, kills - done)))
            number += 1
    return figures


def test_twenty_kills_lose_nothing(tmp_path: Path) -> None:
    total = Figures()
    with ThreadPoolExecutor(2) as both:
        halves = [
            both.submit(kill_again_and_again, tmp_path / f"{half}", CASES[half : half + 1], 10, half)
            for half in (0, 1)
        ]
        for half in halves:
            total.add(half.result())
    assert total.killed == 20
    assert total.looks > 20
    print(total)  # noqa: T201 - read with `pytest -s`


@pytest.mark.slow
def test_three_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    figures = kill_again_and_again(tmp_path, CASES, 300, 42)
    assert figures.killed == 300
    assert {"SIGKILL", "SIGTERM"} <= set(figures.kills)
    print(figures)  # noqa: T201 - read with `pytest -s`


# --- signals ----------------------------------------------------------------------------------------


def test_a_signal_drains_the_run(tmp_path: Path) -> None:
    """No new request, the replies on their way are kept, and nothing is asked again afterwards."""
    output, errors = tmp_path / "drained.json", tmp_path / "errors"
    case = Case(num=30)
    with Stub(latency=0.6) as stub:
        with command(case.words(stub, output), errors) as run:
            assert stub.wait(4, run)
            run.send_signal(signal.SIGTERM)
            assert run.wait(60) == 3
        assert len(stub.seen) == 4
        assert len(replies_of(output).read_text().splitlines()) == 4
        said = errors.read_text().splitlines()
        assert any(line.startswith("stopping: ") for line in said)
        assert said[-1] == "selfinstruct: stopped by SIGTERM; run the same command again to go on"
        accepted = sum(
            decision["accepted"]
            for line in journal_of(output).read_text().splitlines()
            for decision in json.loads(line)["decisions"]
        )
        assert len(read_rows(output)) == accepted > 0
        assert ended(case.words(stub, output), errors)[0] == 0
        assert len(set(stub.seen)) == len(stub.seen)
    assert len(read_rows(output)) == 30


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(tmp_path: Path, second: signal.Signals) -> None:
    if signal.getsignal(second) is signal.SIG_IGN:
        pytest.skip("the caller of this test ignores it")
    errors = tmp_path / "errors"
    with Stub(latency=600) as stub, command(Case().words(stub, tmp_path / "x.json"), errors) as run:
        assert stub.wait(4, run)
        run.send_signal(signal.SIGTERM)
        while "stopping: 4 requests in flight" not in errors.read_text():
            assert run.poll() is None, errors.read_text()
            time.sleep(0.02)
        run.send_signal(second)
        assert run.wait(60) == 128 + second


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a worker's socket, cut off
def test_requests_in_flight_get_their_grace_and_no_more(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-for-the-test")
    monkeypatch.setattr("selfinstruct.session.GRACE", {"openai": 0.2})
    output = tmp_path / "grace.json"
    with StubServer(faults={"hang": 1.0}) as stub:

        def stop_when_asked() -> None:
            while len(stub.requests) < 3:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=stop_when_asked, daemon=True).start()
        words = ("generate", "--backend", "openai", "--model", "m", "--base-url", stub.url)
        said = cli(*words, "-o", output, "-n", 60, "--concurrency", 3)
        assert len(stub.requests) == 3
    assert said.status == 3
    assert said.err.splitlines()[-1].startswith("selfinstruct: stopped by SIGTERM")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="has no SIGHUP")
def test_a_signal_that_the_caller_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with _handling(_Signals(Talk(as_json=False))):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


# --- disks ------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a disk at a folder: `small_disk("size=64k")`; called again, it changes it."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = False

    def mount(options: str) -> Path:
        nonlocal mounted
        options = f"remount,{options}" if mounted else options
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", str(place)], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("this user may not mount a disk")
        mounted = True
        return place

    if shutil.which("mount") is None or sys.platform != "linux":
        pytest.skip("needs to mount a disk")
    yield mount
    if mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


def openai_words(stub: StubServer, output: Path, num: int) -> tuple[object, ...]:
    words = ("generate", "--backend", "openai", "--model", "m", "--base-url", stub.url, "-o", output)
    return (*words, "-n", num, "--concurrency", 4)


@pytest.fixture
def calm(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[StubServer, Path]]:
    """A server, and a dataset of 60 tasks that was made from it without any trouble."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-for-the-test")
    output = tmp_path / "calm.json"
    with StubServer() as stub:
        assert cli(*openai_words(stub, output, 60)).status == 0
        yield stub, output


def same_bytes(one: Path, other: Path) -> bool:
    return (one.read_bytes(), journal_of(one).read_bytes()) == (
        other.read_bytes(),
        journal_of(other).read_bytes(),
    )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a worker's socket, cut off
def test_a_full_disk_at_any_size(
    cli: Cli, calm: tuple[StubServer, Path], small_disk: Callable[[str], Path]
) -> None:
    stub, truth = calm
    stops = 0
    for size in (4, 12, 20, 28, 40, 52, 64, 76, 88, 100, 120, 140, 160, 200, 400):
        output = small_disk(f"size={size}k") / "full.json"
        said = cli(*openai_words(stub, output, 60))
        if output.exists():
            rows = read_rows(output)
            assert rows == read_rows(truth)[: len(rows)]
        if said.status == 0:
            break
        stops += 1
        assert said.status == 3, said.err
        last = said.err.splitlines()[-1]
        assert last.startswith("selfinstruct: ")
        assert "No space left on device" in last
        assert "make room" in last
    assert said.status == 0
    assert stops > 4
    assert same_bytes(output, truth)


def test_a_log_on_the_full_disk_changes_no_status(
    calm: tuple[StubServer, Path], small_disk: Callable[[str], Path]
) -> None:
    stub, truth = calm
    disk = small_disk("size=64k")
    words = [str(word) for word in openai_words(stub, disk / "full.json", 60)]
    status, _ = ended([*words, "--log-format", "json", "--heartbeat", "0.01"], disk / "log")
    assert status == 3
    assert (disk / "log").stat().st_size >= 0
    small_disk("size=1m")
    assert ended(words, disk / "log")[0] == 0
    assert same_bytes(disk / "full.json", truth)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs ulimit")
def test_a_limit_on_the_size_of_files_is_a_full_disk(tmp_path: Path, calm: tuple[StubServer, Path]) -> None:
    stub, truth = calm
    output = tmp_path / "limited.json"
    words = [str(word) for word in openai_words(stub, output, 60)]
    program = [sys.executable, "-m", "selfinstruct", *words]
    limited = subprocess.run(
        ["bash", "-c", 'ulimit -f 20; exec "$@"', "bash", *program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert limited.returncode == 3, limited.stderr
    assert "File too large" in limited.stderr.splitlines()[-1]
    assert "Traceback" not in limited.stderr
    assert ended(words, tmp_path / "errors")[0] == 0
    assert same_bytes(output, truth)


def test_a_folder_that_may_only_be_read(
    cli: Cli, calm: tuple[StubServer, Path], small_disk: Callable[[str], Path]
) -> None:
    stub, _ = calm
    output = small_disk("size=1m") / "closed.json"
    small_disk("ro")
    said = cli(*openai_words(stub, output, 10))
    assert said.status == 2
    assert said.err.count("\n") == 1
    assert "Read-only file system" in said.err
    small_disk("rw")
    assert cli(*openai_words(stub, output, 10)).status == 0
    before, asked = output.read_bytes(), len(stub.requests)
    small_disk("ro")
    said = cli(*openai_words(stub, output, 20))
    assert said.status == 2
    assert said.err.count("\n") == 1
    assert (output.read_bytes(), len(stub.requests)) == (before, asked)
    assert json.loads(cli("status", output, "--json").out)["rows"] == 10


# --- torn lines -------------------------------------------------------------------------------------


def test_torn_last_lines_cost_no_more_than_what_they_held(
    cli: Cli, tmp_path: Path, calm: tuple[StubServer, Path]
) -> None:
    """Both logs cut anywhere: only replies that are not whole are bought again, and the bytes are the same."""
    stub, truth = calm
    output = tmp_path / "torn.json"
    rng = random.Random(3)
    replies = replies_of(truth).read_bytes()
    for _ in range(8):
        shutil.rmtree(output.with_suffix(".run"), ignore_errors=True)
        shutil.copytree(truth.with_suffix(".run"), output.with_suffix(".run"))
        output.unlink(missing_ok=True)
        (output.with_suffix(".run") / "published.json").unlink()
        cut = rng.randrange(len(replies))
        replies_of(output).write_bytes(replies[:cut])
        journal_of(output).write_bytes(journal_of(truth).read_bytes()[: rng.randrange(cut // 2 + 1)])
        asked = len(stub.requests)
        assert cli(*openai_words(stub, output, 60)).status == 0
        assert len(stub.requests) - asked <= replies[cut:].count(b"\n") + 4
        assert same_bytes(output, truth)
