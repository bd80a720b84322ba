"""`selfinstruct verify` over a dataset: every verdict, kills, tests by a model, what is missing."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended
from kill_harness import command
from sandbox_user import needs_sandbox

from selfinstruct.verify import loop, run
from selfinstruct.verify.toolchains import find_toolchain

Cli = Callable[..., Ended]


def row(output: str, instruction: str = "Write a program.", input_: str = "") -> dict[str, str]:
    return {"instruction": instruction, "input": input_, "output": output}


def block(language: str, code: str) -> str:
    return f"```{language}\n{code}\n```"


ROWS = [
    row(block("python", "print('right')")),
    row(block("python", "print(nothing_of_this_name)")),
    row(block("python", "def f(:")),
    row("Because the list is sorted already.", "Explain why binary search may be used here."),
    row(block("bash", "echo $((6 * 7))")),
    row(block("kotlin", 'fun main() { println("nobody here can run it") }')),
    row(block("html", "<p>There is nothing to run.</p>")),
    row(block("python", "print(input())"), input_="a line"),
]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(ROWS))
    return file


def verdicts(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()]


@needs_sandbox
def test_every_row_gets_its_verdict(cli: Cli, dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "kept.json"
    ended = cli("verify", dataset, "-o", output, "--json")
    assert ended.status == 0, ended.err
    told = json.loads(ended.out)
    assert told["rows"] == 8
    assert told["kept"] == 6
    assert told["languages"]["python"] == {"passed": 2, "failed": 2}
    assert told["languages"]["kotlin"] == {"unavailable": 1}
    assert told["languages"]["html"] == {"skipped": 1}
    assert told["reasons"]["run_failed"] == told["reasons"]["syntax_error"] == 1
    assert json.loads(output.read_text()) == [ROWS[k] for k in (0, 3, 4, 5, 6, 7)]
    kept = {line["k"]: line["status"] for line in verdicts(output.with_suffix(".run"))}
    assert kept[0] == kept[4] == kept[7] == "passed"
    assert kept[1] == kept[2] == "failed"
    assert len(kept) == 8
    again = cli("verify", dataset, "-o", output)
    assert again.status == 0
    header, *lines = again.out.splitlines()
    assert header.split() == ["language", "rows", "passed", "failed", "unavailable", "skipped"]
    assert any(line.split() == ["all", "8", "3", "2", "1", "2"] for line in lines)
    assert not dataset.with_suffix(".run").exists()


@needs_sandbox
def test_only_what_could_not_be_told_is_tried_again(
    cli: Cli, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "bash")
    first = cli("verify", dataset, "--json")
    assert json.loads(first.out)["languages"]["bash"] == {"unavailable": 1}
    monkeypatch.undo()
    before = len(verdicts(dataset.with_suffix(".run")))
    monkeypatch.setattr("selfinstruct.verify.verifier.run_program", _only("bash"))
    again = cli("verify", dataset, "--json")
    assert json.loads(again.out)["languages"]["bash"] == {"passed": 1}
    assert len(verdicts(dataset.with_suffix(".run"))) == before + 2  # bash, and Kotlin as ever


def without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    """As if these languages had no toolchain here."""
    for module in (loop, run):
        monkeypatch.setattr(
            module, "find_toolchain", lambda box, name: None if name in missing else find_toolchain(box, name)
        )


@needs_sandbox
@pytest.mark.parametrize(
    "words", [("verify",), ("respond",), ("revise",), ("evolve",), ("from-code",)], ids=" ".join
)
def test_toolchains_that_rows_need_are_missed_at_the_start(
    cli: Cli, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.sh").write_text("greet() {\n  name=$1\n  echo $name\n  echo $((6 * 7))\n}\n")
    (tmp_path / "code" / "b.lua").write_text("function f(x)\n  local y = x\n  y = y + 1\n  return y\nend\n")
    (tmp_path / "code" / "c.kt").write_text("fun f(x: Int): Int {\n  val y = x\n  val z = y\n  return z\n}\n")
    rows = [
        *ROWS,
        row("puts 1\nputs [2, 3].sum", "Write it in Ruby."),
        row("", "Write a program in Lua that greets."),
        row("", "Explain how a loop of Perl ends."),
    ]
    dataset.write_text(json.dumps(rows))
    without(monkeypatch, "bash", "lua", "perl", "rust")
    output = tmp_path / "out.json"
    asking = ("--backend", "replay", "--model", tmp_path / "replies.jsonl", "--verify", "run")
    (tmp_path / "replies.jsonl").write_text('{"key": "0.0", "text": "No."}\n')
    given = tmp_path / "code" if words == ("from-code",) else dataset
    more = () if words == ("verify",) else asking
    ended = cli(*words, given, "-o", output, *more, "--require-verification")
    assert ended.status == 2, ended.err
    lacking = "bash" if words == ("verify",) else "bash, lua"
    assert f"no toolchain that works in the sandbox for {lacking}; install it" in ended.err
    assert ended.err.count("\n") == 1
    assert not output.exists()
    assert not (output.with_suffix(".run") / "verdicts.jsonl").exists()
    if words != ("verify",):
        assert (output.with_suffix(".run") / "journal.jsonl").read_text() == ""
        assert cli(*words, given, "-o", tmp_path / "other.json", *more).status != 2


def _only(language: str) -> Callable[..., Any]:
    def run_program(found: Any, *_: object) -> Any:
        from selfinstruct.verify.verdict import Verdict

        assert found.language in {language, "kotlin"}
        if found.language == "kotlin":
            return Verdict("run", "unavailable", "no_runner", {"language": "kotlin"})
        return Verdict("run", "passed", evidence={"language": language})

    return run_program


@needs_sandbox
def test_killed_and_run_again_it_goes_on(tmp_path: Path, cli: Cli) -> None:
    rows = [
        row(block("python", f"import time\ntime.sleep(0.1)\nprint({k})\nexit({k % 3})")) for k in range(15)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in rows))
    output, errors = tmp_path / "out.json", tmp_path / "errors"
    log = output.with_suffix(".run") / "verdicts.jsonl"
    words = ["verify", str(file), "-o", str(output), "--jobs", "3"]
    for least, number in ((1, signal.SIGKILL), (6, signal.SIGTERM)):
        with command(words, errors) as process:
            while not (log.exists() and log.read_bytes().count(b"\n") >= least):
                assert process.poll() is None, errors.read_text()
                time.sleep(0.01)
            process.send_signal(number)
            assert process.wait(60) == (-number if number == signal.SIGKILL else 3), errors.read_text()
        assert not output.exists()
    assert errors.read_text().splitlines()[-1].startswith("selfinstruct: stopped by a signal; run the same")
    assert cli(*words).status == 0
    assert json.loads(output.read_text()) == [each for k, each in enumerate(rows) if k % 3 == 0]
    assert Counter(line["k"] for line in verdicts(log.parent)) == Counter(range(15))


@needs_sandbox
def test_a_model_writes_tests_for_any_dataset(cli: Cli, tmp_path: Path) -> None:
    right, wrong = "def double(n):\n    return 2 * n", "def double(n):\n    return n ** 2 + 1"
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([row(block("python", right)), row("No code."), row(block("python", wrong))]))
    replies = tmp_path / "replies.jsonl"
    tests = block("python", "assert double(2) == 4")
    lines = [{"key": f"{k}.0", "text": tests, "usage": {"prompt": 9, "completion": 9}} for k in range(3)]
    replies.write_text("".join(json.dumps(line) + "\n" for line in lines))
    output = tmp_path / "out.json"
    words = ("verify", file, "-o", output, "--level", "tests", "--backend", "replay", "--model", replies)
    ended = cli(*words, "--max-requests", 1)
    assert ended.status == 3
    assert "--max-requests 1 is reached" in ended.err
    assert not output.exists()
    ended = cli(*words, "--json")
    assert ended.status == 0, ended.err
    assert json.loads(ended.out)["reasons"]["tests_failed"] == 1
    assert len(json.loads(output.read_text())) == 2
    bought = (output.with_suffix(".run") / "verify-replies.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["key"] for line in bought) == ["0.0", "2.0"]
    assert any(line.get("tests") == "assert double(2) == 4" for line in verdicts(output.with_suffix(".run")))


def test_syntax_alone_needs_no_sandbox(cli: Cli, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    told = json.loads(cli("verify", dataset, "--level", "syntax", "--json").out)
    assert told["languages"]["python"] == {"passed": 3, "failed": 1}
    assert told["languages"]["no code"] == {"skipped": 1}
    lines = verdicts(dataset.with_suffix(".run"))
    assert [line["k"] for line in lines if line["status"] == "failed"] == [2]
    assert "line 1" in next(line["evidence"]["message"] for line in lines if line["k"] == 2)
    assert {line["level"] for line in lines} == {"syntax"}


def test_rows_that_moved_keep_their_verdicts(
    cli: Cli, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfinstruct.verify.verdict import Verdict

    def run_program(found: Any, *_: object) -> Verdict:
        ran.append(found.program.text if found.program else "")
        return Verdict("run", "passed", evidence={"language": "python"})

    ran: list[str] = []
    monkeypatch.setattr("selfinstruct.verify.verifier.run_program", run_program)
    assert cli("verify", dataset, "--sandbox", "none", "--level", "syntax").status == 0
    assert not ran
    assert cli("verify", dataset, "--sandbox", "none").status == 0
    assert len(ran) == 7  # all but the one that cannot be parsed
    dataset.write_text(json.dumps([row(block("python", "print('new')")), *ROWS[1:], ROWS[0]]))
    assert cli("verify", dataset, "--sandbox", "none").status == 0
    assert ran[7:] == ["print('new')"]


def test_what_is_missing_is_said_in_a_line(
    cli: Cli, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words, part in (
        (("verify",), "name the dataset"),
        (("verify", dataset, "-o", tmp_path / "x.jsonl"), "must end in .json"),
        (("verify", tmp_path / "none.json"), "none.json"),
    ):
        ended = cli(*words)
        assert ended.status == 2
        assert part in ended.err
        assert ended.err.count("\n") == 1
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = cli("verify", dataset, "--require-verification")
    assert ended.status == 2
    assert ended.err.startswith("selfinstruct: --require-verification: ")
    ended = cli("verify", dataset, "--json")
    assert ended.status == 0
    assert "no code is run" in ended.err
    assert json.loads(ended.out)["languages"]["python"] == {"unavailable": 3, "failed": 1}
    assert cli("verify", "--toolchains").status == 2


@needs_sandbox
def test_toolchains_are_listed(cli: Cli) -> None:
    listed = json.loads(cli("verify", "--toolchains", "--json").out)
    assert listed["sandbox"] == "bwrap"
    assert "python" in {one["language"] for one in listed["toolchains"]}
    assert "Python 3" in cli("verify", "--toolchains").out
