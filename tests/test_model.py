"""The real embedded model, through the real command: `pytest -m model` (93 MB of weights are fetched once)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import selfinstruct
from selfinstruct import weights
from selfinstruct.backend_local import LocalServer

pytestmark = pytest.mark.model
REPOSITORY = Path(selfinstruct.__file__).parents[1]
SMALL = "smollm2-135m"


def command(*words: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "selfinstruct", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment,
    )


def children_of(pid: int) -> list[int]:
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in found.stdout.split()]


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def rows(output: Path) -> list[dict[str, str]]:
    loaded: list[dict[str, str]] = json.loads(output.read_text())
    return loaded


def test_killed_in_the_middle_and_run_again(tmp_path: Path) -> None:
    weights.pull(SMALL)
    output = tmp_path / "tasks.json"
    words: list[object] = ["generate", "--model", SMALL, "-n", 2, "-o", output]
    words += ["--only-language", "python", "--max-output-tokens", 120]
    first = command(*words)
    replies = output.with_suffix(".run") / "replies.jsonl"
    while not (replies.exists() and replies.read_bytes().count(b"\n") >= 2):
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    (server,) = children_of(first.pid)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    deadline = time.monotonic() + 10
    while alive(server):
        assert time.monotonic() < deadline, "the model outlives its parent"
        time.sleep(0.05)
    bought = {json.loads(line)["key"] for line in replies.read_text().splitlines()}
    second = command(*words)
    _, said = second.communicate(timeout=400)
    assert second.returncode == 0, said
    assert "mostly wrong" in said
    keys = [json.loads(line)["key"] for line in replies.read_text().splitlines() if '"text"' in line]
    assert len(keys) == len(set(keys))
    assert bought <= set(keys)
    assert len(rows(output)) == 2
    assert all(row["instruction"] and row["output"] for row in rows(output))


def test_interrupt_ends_the_run_and_the_model(tmp_path: Path) -> None:
    weights.pull(SMALL)
    output = tmp_path / "tasks.json"
    run = command("generate", "--model", SMALL, "-n", 50, "-o", output)
    replies = output.with_suffix(".run") / "replies.jsonl"
    while not (replies.exists() and replies.stat().st_size):
        assert run.poll() is None, run.communicate()
        time.sleep(0.05)
    (server,) = children_of(run.pid)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=30)
    assert run.returncode == 3, said
    assert not alive(server)
    assert "run the same command again" in said


@pytest.mark.parametrize(
    "flags", [["--answer", "json"], ["--endpoint", "completions"], ["--recipe", "staged"]]
)
def test_its_http_server_serves_the_openai_backend(tmp_path: Path, flags: list[str]) -> None:
    """llama.cpp as the foreign server that it is: chat with a schema, completions, staged chat.

    A task takes at most three requests, and tasks are decided in order: twelve leave room for a slow first one.
    """
    output = tmp_path / "tasks.json"
    path = weights.pull(SMALL)
    with LocalServer(path, slots=2, ctx=4096) as server:
        run = command(
            "generate", "--backend", "openai", "--model", SMALL, "--base-url", server.url, "-o", output,
            "-n", 1, "--shots", 1, "--concurrency", 2, "--max-requests", 12, "--max-output-tokens", 120, *flags,
            OPENAI_API_KEY=server.key,
        )  # fmt: skip
        _, said = run.communicate(timeout=400)
    assert run.returncode in {0, 3}, said
    report: Any = json.loads(
        subprocess.run(
            [sys.executable, "-m", "selfinstruct", "status", str(output), "--json"],
            capture_output=True,
            text=True,
            check=True,
            cwd=REPOSITORY,
        ).stdout
    )
    assert report["requests"] >= 1
    assert report["completion_tokens"] > 0
    assert report["accepted"] + report["rejected"] >= 1
    assert server.key not in said
