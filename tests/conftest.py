"""What holds for every test: no key in the environment, no connection that leaves this machine."""

from __future__ import annotations

import ipaddress
import json
import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from selfinstruct.cli import main

# No test is timed, and an example that takes long on a busy machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A shell starts background jobs with Ctrl-C ignored, and processes started by the tests would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

KEYS = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "SELFINSTRUCT_ENGINE_LOG")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _stay_on_this_machine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.get_closest_marker("model"):
        yield  # fetches its weights
        return
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in {socket.AF_INET, socket.AF_INET6}:
            host = address[0]
            assert host == "localhost" or ipaddress.ip_address(host).is_loopback, f"a test called {host}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    yield


@pytest.fixture(scope="session")
def real_rows() -> Path | None:
    """A real Code Alpaca file, where there is one; tests have data of their own besides."""
    folder = Path(os.environ.get("SELFINSTRUCT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    file = folder / "code_alpaca_2k.json"
    return file if file.is_file() else None


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    status: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs the command line in this process: `cli("status", path)`."""

    def call(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["selfinstruct", *map(str, words)])
        capsys.readouterr()
        status: object = 0
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        said = capsys.readouterr()
        assert isinstance(status, int)
        return Ended(status, said.out, said.err)

    return call


def numbered(rows: Iterable[dict[str, str]], first: int = 4) -> str:
    """Rows as the text of a reply that goes on after `4. Instruction:`."""
    parts = []
    for number, row in enumerate(rows, first):
        label = "" if number == first else f"{number}. Instruction:"
        text = row["input"] or "<noinput>"
        parts.append(
            f"{label} {row['instruction']}\n{number}. Input:\n{text}\n{number}. Output:\n{row['output']}\n"
        )
    return "###\n".join(parts)


WORDS = """
alpha beacon cobalt dynamo ember falcon garnet harbor iguana jasmine kestrel lantern marble nectar onyx
pebble quartz ripple saffron tundra umber velvet walnut xenon yonder zephyr anchor bramble cinder drizzle
eclipse fathom glacier hollow inlet jungle kernel lagoon meadow nimbus orchard prairie quiver ridge
summit
""".split()  # noqa: SIM905 - reads best as text


def invented_rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Rows unlike each other, made of words that say nothing."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        words = rng.sample(WORDS, 7)
        rows.append(
            {
                "instruction": f"Write a function {words[0]} that turns {' '.join(words[1:])} number {number}.",
                "input": f"{words[2]} = {number}" if number % 2 else "",
                "output": f"def {words[0]}({words[1]}):\n    return {words[1]} * {number} + len('{words[3]}')",
            }
        )
    return rows


@pytest.fixture
def replies(tmp_path: Path) -> Path:
    """40 replies of 5 tasks each, one of them a repetition and one without an output."""
    rows = invented_rows(160)
    file = tmp_path / "replies-in.jsonl"
    with file.open("w", encoding="utf-8") as out:
        for k in range(40):
            group = [
                *rows[4 * k : 4 * k + 3],
                rows[0],
                rows[4 * k + 3] | {"output": "" if k % 3 == 0 else "x = 1"},
            ]
            out.write(json.dumps({"text": numbered(group), "finish_reason": "stop"}) + "\n")
    return file
