"""The run as a whole: order, resume, kills, the user's own edits, two runs at once."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, invented_rows, numbered
from stub_server import StubServer, alpaca_answer

import selfinstruct
from selfinstruct import StoppedEarly, generate
from selfinstruct.records import row_id

Cli = Callable[..., Ended]
REPOSITORY = Path(selfinstruct.__file__).parents[1]


def journal(output: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in (output.with_suffix(".run") / "journal.jsonl").read_text().splitlines()
    ]


def rows(output: Path) -> list[dict[str, str]]:
    loaded: list[dict[str, str]] = json.loads(output.read_text())
    return loaded


def digests(output: Path) -> tuple[str, str]:
    files = (output, output.with_suffix(".run") / "journal.jsonl")
    first, second = (hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    return first, second


def command(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "selfinstruct", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OPENAI_API_KEY": "sk-planted-for-the-test"},
    )


def replay(cli: Cli, replies: Path, output: Path, num: int, *words: object) -> Ended:
    return cli("generate", "--backend", "replay", "--model", replies, "-o", output, "-n", num, *words)


@pytest.mark.parametrize("profile", ["code", "alpaca"])
def test_the_same_bytes_at_every_concurrency(cli: Cli, replies: Path, tmp_path: Path, profile: str) -> None:
    seen = set()
    for concurrency in (1, 4, 32):
        output = tmp_path / f"{concurrency}.json"
        ended = replay(cli, replies, output, 90, "--profile", profile, "--concurrency", concurrency)
        assert ended.status == 0, ended.err
        seen.add(digests(output))
    assert len(seen) == 1
    assert len(rows(tmp_path / "1.json")) == 90


def test_dataset_holds_exactly_the_target_and_a_raised_target_goes_on(
    cli: Cli, replies: Path, tmp_path: Path
) -> None:
    steps, whole = tmp_path / "steps.json", tmp_path / "whole.json"
    for target in (1, 2, 7, 7, 50):
        assert replay(cli, replies, steps, target).status == 0
        assert len(rows(steps)) == target
    assert replay(cli, replies, whole, 50).status == 0
    assert steps.read_bytes() == whole.read_bytes()
    parts = journal(steps)
    accepted = [d["id"] for line in parts for d in line["decisions"] if d["accepted"]]
    assert accepted == [row_id(row) for row in rows(steps)]
    assert [(line["k"], line["from"]) for line in parts][:3] == [(0, 0), (0, 1), (0, 2)]


def test_replay_that_is_used_up_stops_early_with_everything(cli: Cli, replies: Path, tmp_path: Path) -> None:
    output = tmp_path / "all.json"
    ended = replay(cli, replies, output, 1000, "--concurrency", 8)
    assert ended.status == 3
    assert "used up" in ended.err.splitlines()[-1] or "no more" in ended.err.splitlines()[-1]
    report = json.loads(cli("status", output, "--json").out)
    assert report["accepted"] == len(rows(output))
    assert report["accepted"] + report["rejected"] == 200
    assert report["reasons"]["too_similar"] >= 39
    assert report["reasons"]["empty_output"] == 14


def test_a_run_replays_from_its_own_replies(cli: Cli, replies: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    replay(cli, replies, first, 60)
    replay(cli, first.with_suffix(".run") / "replies.jsonl", second, 60)
    assert rows(first) == rows(second)


def test_every_decision_says_why(cli: Cli, replies: Path, tmp_path: Path) -> None:
    output = tmp_path / "why.json"
    replay(cli, replies, output, 60)
    for line in journal(output):
        assert len(line["seeds"]) == 3
        for decision in line["decisions"]:
            assert decision["accepted"] or decision["reason"]
            if not decision["accepted"] and decision["reason"] == "too_similar":
                assert decision["evidence"]["score"] > 0.7
                assert decision["evidence"]["nearest"].split()[0] in {"row", "seed"}


def test_a_start_that_came_to_nothing_binds_to_nothing(cli: Cli, replies: Path, tmp_path: Path) -> None:
    output, none = tmp_path / "x.json", tmp_path / "none.jsonl"
    none.touch()
    words = ("generate", "--backend", "replay", "-o", output, "-n", 3, "--model")
    assert cli(*words, none).status == 2
    assert cli(*words, replies).status == 0
    fingerprint = json.loads((tmp_path / "x.run" / "run.json").read_text())["fingerprint"]
    assert fingerprint["model"] == str(replies)
    one_line = cli(*words, none)
    assert one_line.status == 2
    assert "begun with other settings" in one_line.err


def test_changed_settings_are_refused_with_the_list(cli: Cli, replies: Path, tmp_path: Path) -> None:
    output = tmp_path / "fixed.json"
    replay(cli, replies, output, 5)
    before = output.read_bytes()
    ended = replay(cli, replies, output, 9, "--seed", 5, "--threshold", "0.5", "--concurrency", 3)
    assert ended.status == 2
    (line,) = ended.err.splitlines()
    assert "seed: 0 -> 5" in line
    assert "threshold: 0.7 -> 0.5" in line
    assert "concurrency" not in line
    assert "move" in line
    assert output.read_bytes() == before
    assert replay(cli, replies, output, 9, "--concurrency", 3, "--max-requests", 50, "--stall", 9).status == 0


def test_moving_the_run_directory_away_takes_the_rows_over(cli: Cli, replies: Path, tmp_path: Path) -> None:
    output = tmp_path / "moved.json"
    replay(cli, replies, output, 12)
    before = rows(output)
    output.with_suffix(".run").rename(tmp_path / "old.run")
    ended = replay(cli, replies, output, 15, "--seed", 9)
    assert ended.status == 0, ended.err
    after = rows(output)
    assert after[:12] == before
    assert len({json.dumps(row) for row in after}) == 15


def test_a_dataset_that_was_there_is_taken_over_and_its_rows_count_as_known(
    cli: Cli, replies: Path, tmp_path: Path
) -> None:
    output = tmp_path / "old.json"
    old = invented_rows(160)[:6]
    text = json.dumps(old, indent=6)
    output.write_text(text)
    assert replay(cli, replies, output, 20).status == 0
    assert output.read_text().startswith(text.rstrip("]\n"))
    assert rows(output)[:6] == old
    assert len({row["instruction"] for row in rows(output)}) == 20
    assert "\n      {\n            " in output.read_text()[-400:]


def test_a_deleted_row_stays_deleted(cli: Cli, replies: Path, tmp_path: Path) -> None:
    output = tmp_path / "edited.json"
    replay(cli, replies, output, 20)
    kept = rows(output)
    gone = [kept.pop(17), kept.pop(3), kept.pop(0)]
    mine = {"instruction": "Describe my own addition.", "input": "", "output": "It is mine."}
    output.write_text(json.dumps([*kept, mine], indent=4))
    assert replay(cli, replies, output, 30).status == 0
    after = rows(output)
    assert len(after) == 30
    assert after[:18] == [*kept, mine]
    assert not any(row in after for row in gone)
    again = output.read_bytes()
    assert replay(cli, replies, output, 30).status == 0
    assert output.read_bytes() == again
    report = json.loads(cli("status", output, "--json").out)
    assert (report["adopted"], report["deleted"], report["rows"]) == (1, 3, 30)


def test_a_dataset_that_was_lost_is_rebuilt(cli: Cli, replies: Path, tmp_path: Path) -> None:
    output = tmp_path / "lost.json"
    replay(cli, replies, output, 20)
    before = output.read_bytes()
    output.unlink()
    assert replay(cli, replies, output, 20).status == 0
    assert output.read_bytes() == before


def test_journal_cut_at_every_byte_resumes_to_the_same_bytes(cli: Cli, replies: Path, tmp_path: Path) -> None:
    output = tmp_path / "cut.json"
    replay(cli, replies, output, 8)
    log = output.with_suffix(".run") / "journal.jsonl"
    whole, dataset = log.read_bytes(), output.read_bytes()
    places = sorted({0, 1, len(whole) - 1, *random.Random(0).sample(range(len(whole)), 12)})
    for place in places:
        log.write_bytes(whole[:place])
        output.unlink()
        (output.with_suffix(".run") / "published.json").unlink(missing_ok=True)
        assert replay(cli, replies, output, 8).status == 0
        assert (log.read_bytes(), output.read_bytes()) == (whole, dataset)


def test_a_second_run_is_kept_out(cli: Cli, tmp_path: Path) -> None:
    output = tmp_path / "busy.json"
    with StubServer(latency=0.5) as stub:
        words = ("generate", "--backend", "openai", "--model", "stub", "--base-url", stub.url, "-o", output)
        first = command(*words, "-n", 400, "--concurrency", 1)
        lock = output.with_suffix(".run") / "lock"
        while not lock.exists() or not lock.read_text():
            assert first.poll() is None, first.communicate()
            time.sleep(0.02)
        assert json.loads(cli("status", output, "--json").out)["running"] is True
        ended = cli(*words, "-n", 400)
        assert ended.status == 5
        assert f"process {first.pid}" in ended.err
        assert len(ended.err.splitlines()) == 1
        first.send_signal(signal.SIGTERM)
        _, said = first.communicate(timeout=60)
        assert first.returncode == 3, said
        assert "SIGTERM" in said.splitlines()[-1]


def test_faults_on_the_way_change_nothing(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfinstruct.calls.FIRST_WAIT", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-for-the-test")
    words = ("generate", "--backend", "openai", "--model", "stub", "-n", 200, "--concurrency", 8)
    with StubServer() as stub:
        assert cli(*words, "--base-url", stub.url, "-o", tmp_path / "calm.json").status == 0
    faults = {"429": 0.1, "500": 0.1, "reset_in": 0.1, "invalid_json": 0.1}
    with StubServer(faults=faults) as stub:
        ended = cli(*words, "--base-url", stub.url, "-o", tmp_path / "stormy.json")
        assert ended.status == 0, ended.err
    assert digests(tmp_path / "calm.json") == digests(tmp_path / "stormy.json")
    report = json.loads(cli("status", tmp_path / "stormy.json", "--json").out)
    assert set(report["failures"]) & {"http_429", "http_500", "connection", "bad_reply"}


def test_the_python_interface_is_the_same_run(tmp_path: Path, replies: Path, cli: Cli) -> None:
    mine, theirs = tmp_path / "api.json", tmp_path / "cli.json"
    made = list(generate(backend="replay", model=str(replies), num=25, output=mine))
    replay(cli, replies, theirs, 25)
    assert made == rows(mine) == rows(theirs)
    assert list(generate(backend="replay", model=str(replies), num=25, output=mine)) == []
    with pytest.raises(StoppedEarly):
        list(generate(backend="replay", model=str(replies), num=9999, output=mine))


def test_leaving_the_python_loop_early_keeps_what_was_made(tmp_path: Path, replies: Path) -> None:
    output = tmp_path / "left.json"
    for number, _ in enumerate(generate(backend="replay", model=str(replies), num=25, output=output)):
        if number == 10:
            break
    assert len(rows(output)) >= 11
    assert (
        len(list(generate(backend="replay", model=str(replies), num=25, output=output)))
        == 25
        - len(
            [d for line in journal(output)[:4] for d in line["decisions"] if d["accepted"]][
                : len(rows(output))
            ]
        )
        or len(rows(output)) == 25
    )


def test_stall_stops_at_the_same_place_at_every_concurrency(cli: Cli, tmp_path: Path) -> None:
    good = invented_rows(3)
    file = tmp_path / "stalling.jsonl"
    texts = [numbered(good), *[numbered(good[:1])] * 30]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    seen = set()
    for concurrency in (1, 16):
        output = tmp_path / f"stall{concurrency}.json"
        ended = replay(cli, file, output, 50, "--stall", 6, "--concurrency", concurrency)
        assert ended.status == 3
        assert "--stall 6" in ended.err
        seen.add(digests(output))
        assert len(journal(output)) == 7
    assert len(seen) == 1


def test_provenance_joins_rows_with_seeds(cli: Cli, replies: Path, tmp_path: Path) -> None:
    output = tmp_path / "origin.json"
    replay(cli, replies, output, 30, "--machine-shots", 2, "--lookahead", 2)
    lines = journal(output)
    ids = {row_id(row) for row in rows(output)}
    assert any(line.get("derived_from") for line in lines)
    for line in lines:
        assert set(line.get("derived_from", [])) <= ids


def test_one_slow_reply_does_not_buy_many_others(cli: Cli, tmp_path: Path) -> None:
    """While index 0 is waited for, no more is asked for than the target is expected to need."""
    slow: list[bytes] = []

    def answer(body: dict[str, Any], asked: Any) -> Any:
        if not slow or slow[0] == asked.body:
            slow[:] = [asked.body]
            time.sleep(1.5)
        return alpaca_answer(body, asked)

    with StubServer(answer=answer) as stub:
        words = ("generate", "--backend", "openai", "--model", "stub", "--base-url", stub.url)
        ended = cli(*words, "-o", tmp_path / "slow.json", "-n", 20, "--concurrency", 4)
        assert ended.status == 0, ended.err
        assert len(stub.requests) <= 12
