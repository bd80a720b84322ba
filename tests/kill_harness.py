"""Kills the real command at random moments, runs it again, and checks after each kill that nothing was lost.

The stub server is a process of its own and tells each request it has read as a line, so the moments are
counted in requests; delays are shares of times that were measured on this machine just before. No clock of
its own decides whether a run is right.

As a program it is that stub: `python tests/kill_harness.py LATENCY`.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from stub_server import Asked, StubServer

import selfinstruct
from selfinstruct import report

REPOSITORY = Path(selfinstruct.__file__).parents[1]
KEY = "sk-planted-for-the-test"
PATIENCE = 300.0  # seconds after which a command that should have ended counts as hung
LATENCY = 0.03
STOPS = [signal.SIGTERM]
if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # what our caller ignores, our children ignore too
    STOPS.append(signal.SIGINT)


class TellingStub(StubServer):
    """Writes a line with the hash of each request's body when it has read it."""

    def _read(self, reader: BinaryIO) -> Asked | None:
        asked = super()._read(reader)
        if asked is not None:
            os.write(1, sha256(asked.body).hexdigest().encode() + b"\n")
        return asked


class Stub:
    """The stub's process as the harness sees it; `seen` are the hashes of the requests so far."""

    def __init__(self, latency: float = LATENCY) -> None:
        self.seen: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(latency)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self._told = threading.Condition()
        self._listener = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Stub:  # noqa: PYI034 - Self is not in Python 3.10
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            self.process.kill()
            self._listener.join()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._told:
                self.seen.append(line.strip())
                self._told.notify_all()

    def wait(self, count: int, run: subprocess.Popen[Any]) -> bool:
        """Wait until so many requests were seen; False when the command ended before that."""
        until = time.monotonic() + PATIENCE
        with self._told:
            while len(self.seen) < count:
                if run.poll() is not None:
                    return False
                assert time.monotonic() < until, "the command neither asks nor ends"
                self._told.wait(0.02)
        return True


@dataclass(frozen=True)
class Case:
    """A run: its settings, and how many requests it may have in flight."""

    num: int = 130
    seed: int = 0
    concurrency: int = 4
    flags: tuple[str, ...] = ()

    def words(self, stub: Stub, output: Path) -> list[str]:
        words = [
            "generate",
            "--backend",
            "openai",
            "--model",
            "stub",
            "--base-url",
            stub.url,
            "-o",
            str(output),
        ]
        words += ["-n", str(self.num), "--seed", str(self.seed), "--concurrency", str(self.concurrency)]
        return [*words, *self.flags]


@dataclass
class Figures:
    """What happened; of several series the sum."""

    kills: Counter[str] = field(default_factory=Counter)
    sittings: int = 0
    looks: int = 0  # of the reader at a dataset
    needed: int = 0  # requests of the runs that were never killed
    asked: int = 0  # requests of the runs that were killed
    again: int = 0  # of these, how many had been asked before
    torn: int = 0  # logs that a kill left with half a line

    @property
    def killed(self) -> int:
        return sum(self.kills.values())

    def add(self, other: Figures) -> None:
        self.kills.update(other.kills)
        for name in ("sittings", "looks", "needed", "asked", "again", "torn"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def journal_of(output: Path) -> Path:
    return output.with_suffix(".run") / "journal.jsonl"


def replies_of(output: Path) -> Path:
    return output.with_suffix(".run") / "replies.jsonl"


def read_rows(output: Path) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = json.loads(output.read_bytes())
    return rows


@contextmanager
def command(words: list[str], errors: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The real command, its talk in a file; it does not outlive the test."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OPENAI_API_KEY": KEY}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # to compile all modules at each start takes half of it
    with errors.open("wb") as talk:
        run = subprocess.Popen(
            [sys.executable, "-m", "selfinstruct", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=talk,
            env=environment,
            **options,
        )
    with run:
        try:
            yield run
        finally:
            run.kill()


def ended(words: list[str], errors: Path, **options: Any) -> tuple[int, list[str]]:
    """Run the command to its end: its status and the lines of its talk."""
    with command(words, errors, **options) as run:
        status = run.wait(PATIENCE)
    said = errors.read_text(encoding="utf-8")
    assert "Traceback" not in said, said
    return status, said.splitlines()


class Reader(threading.Thread):
    """Reads dataset and report whenever they change, as a job or a person might, and notes what is wrong."""

    def __init__(self, output: Path, truth: list[dict[str, str]]) -> None:
        super().__init__(daemon=True)
        self.output, self.truth = output, truth
        self.looks = 0
        self.wrong: str | None = None
        self._over = threading.Event()

    def run(self) -> None:
        most, seen = 0, (0, 0, 0)
        while not self._over.wait(0.002):
            try:
                now = self.output.stat()
                if (stamp := (now.st_mtime_ns, now.st_size, now.st_ino)) != seen:  # else there is nothing new
                    seen, most = stamp, self.look(most)
            except FileNotFoundError:
                assert most == 0
            except Exception as error:
                self.wrong = repr(error)
                return

    def look(self, most: int) -> int:
        rows = read_rows(self.output)
        self.looks += 1
        assert rows == self.truth[: len(rows)], "the dataset is no beginning of the one that is right"
        assert len(rows) >= most, "rows that were there are gone"
        if self.looks % 4 == 0:
            told = report.read_report(self.output)
            assert len(rows) <= told.rows <= len(self.truth)
        return len(rows)

    def end(self) -> int:
        self._over.set()
        self.join()
        assert self.wrong is None, self.wrong
        return self.looks


class Series:
    """One dataset, made by a command that is killed a number of times."""

    def __init__(self, folder: Path, case: Case, rng: random.Random) -> None:
        self.folder, self.case, self.rng = folder, case, rng
        self.output = folder / "killed.json"
        self.figures = Figures()
        self.journal = b""  # as the last sitting left it

    def run(self, stub: Stub, kills: int) -> Figures:
        """Kill so many times, less if the target comes first; then let it end and compare the bytes."""
        calm = self.folder / "calm.json"
        before, began = len(stub.seen), time.monotonic()
        with command(self.case.words(stub, calm), self.folder / "calm.err") as run:
            assert stub.wait(before + 1, run)
            self.startup = time.monotonic() - began
            assert run.wait(PATIENCE) == 0, (self.folder / "calm.err").read_text()
        self.truth = journal_of(calm).read_bytes()
        self.figures.needed = len(stub.seen) - before
        self.first = len(stub.seen)
        reader = Reader(self.output, read_rows(calm))
        reader.start()
        try:
            while not self._sit(stub, kill=self.figures.killed < kills):
                pass
        finally:
            self.figures.looks = reader.end()
        assert self.output.read_bytes() == calm.read_bytes()
        assert journal_of(self.output).read_bytes() == self.truth
        for path in self.folder.rglob("*"):
            assert not path.is_file() or KEY.encode() not in path.read_bytes()
        return self.figures

    def _sit(self, stub: Stub, *, kill: bool) -> bool:
        """Run the command once; True when it has reached the target."""
        before = len(stub.seen)
        killed_by: signal.Signals | None = None
        errors = self.folder / "killed.err"
        with command(self.case.words(stub, self.output), errors) as run:
            if kill and self._wait_for_the_moment(stub, run):
                killed_by = self.rng.choice([signal.SIGKILL, signal.SIGKILL, *STOPS])
                run.send_signal(killed_by)
            status = run.wait(PATIENCE)
        said = errors.read_text(encoding="utf-8")
        self.figures.sittings += 1
        if killed_by is not None and status:
            self.figures.kills[killed_by.name] += 1
        self._check_status(status, killed_by, said, asked=len(stub.seen) > before)
        self._check_logs(stub, hard=status == -signal.SIGKILL, drained="the dataset holds" in said)
        return status == 0

    def _wait_for_the_moment(self, stub: Stub, run: subprocess.Popen[bytes]) -> bool:
        """Before the first request, at any point of the start; else after some requests and a part of one."""
        if self.rng.random() < 0.3:
            time.sleep(self.rng.uniform(0.1, 1.1) * self.startup)
        elif not stub.wait(len(stub.seen) + self.rng.randrange(1, 5), run):
            return False
        else:
            time.sleep(self.rng.uniform(0, 2.5 * LATENCY))
        return run.poll() is None

    def _check_status(self, status: int, killed_by: signal.Signals | None, said: str, *, asked: bool) -> None:
        assert "Traceback" not in said, said
        if killed_by is None:
            assert status == 0, said
        elif killed_by is signal.SIGKILL:
            assert status in {0, -killed_by}, said
        elif status == -killed_by:  # Python had not come to our own lines yet, or had left them behind
            assert "the dataset holds" in said or not (said or asked), said
        else:
            assert status in {0, 3}, said
            assert status == 0 or said.splitlines()[-1].startswith(
                f"selfinstruct: stopped by {killed_by.name}"
            )

    def _check_logs(self, stub: Stub, *, hard: bool, drained: bool) -> None:
        if not journal_of(self.output).exists():
            return
        journal, torn = _whole_lines(journal_of(self.output))
        replies, also_torn = _whole_lines(replies_of(self.output))
        assert hard or not (torn or also_torn), "only a kill -9 may leave half a line"
        self.figures.torn += torn + also_torn
        assert journal.startswith(self.journal), "decisions that were there are gone"
        assert self.truth.startswith(journal), "decisions that a run without kills does not make"
        self.journal = journal
        if drained:
            lines = [json.loads(line) for line in journal.splitlines()]
            accepted = sum(decision["accepted"] for line in lines for decision in line["decisions"])
            rows = read_rows(self.output) if self.output.exists() else []
            assert len(rows) == accepted, "an orderly end publishes all there is"
        kept = [json.loads(line)["key"] for line in replies.splitlines()]
        assert len(kept) == len(set(kept)), "a reply was bought twice"
        asked = stub.seen[self.first :]
        self.figures.asked = len(asked)
        self.figures.again = len(asked) - len(set(asked))
        lost = len(asked) - len(kept)
        assert lost <= self.case.concurrency * self.figures.kills["SIGKILL"], "more lost than was in flight"
        assert self.figures.again <= lost


def _whole_lines(path: Path) -> tuple[bytes, bool]:
    data = path.read_bytes() if path.exists() else b""
    end = data.rfind(b"\n") + 1
    return data[:end], end < len(data)


def main() -> None:
    with TellingStub(latency=float(sys.argv[1])) as stub:
        print(stub.url, flush=True)  # noqa: T201 - the address is the program's output
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.read()  # ends when the harness does


if __name__ == "__main__":
    main()
