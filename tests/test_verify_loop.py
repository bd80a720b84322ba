"""Verification in the loop: real programs in a real sandbox, replayed replies, kills, what is missing."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, invented_rows, numbered
from kill_harness import Case, Series, Stub, command
from sandbox_user import needs_sandbox
from scripted import PLAN, Pool, Script

from selfinstruct.errors import InputError, RequestRefused
from selfinstruct.records import Candidate, Reply, Request
from selfinstruct.seams import PoolView
from selfinstruct.settings import make_settings
from selfinstruct.verify.loop import Verification, verified
from selfinstruct.verify.syntax import syntax_verdict
from selfinstruct.verify.verdict import Verdict, rejection_of
from selfinstruct.verify.verdict_log import VerdictLog
from selfinstruct.verify.verifier import Verifier

Cli = Callable[..., Ended]


def python(code: str) -> str:
    return f"This will do:\n```python\n{code}\n```"


def journal(output: Path) -> list[dict[str, Any]]:
    text = (output.with_suffix(".run") / "journal.jsonl").read_text()
    return [decision for line in text.splitlines() for decision in json.loads(line)["decisions"]]


def verdicts(output: Path) -> list[dict[str, Any]]:
    text = (output.with_suffix(".run") / "verdicts.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def both(output: Path) -> tuple[bytes, bytes]:
    return output.read_bytes(), (output.with_suffix(".run") / "journal.jsonl").read_bytes()


def write_replies(file: Path, groups: Iterable[list[str]], *more: dict[str, object]) -> Path:
    """A run's replies: index k brings a task with each of the outputs of group k."""
    tasks = iter(invented_rows(200))
    lines: list[dict[str, object]] = [
        {"key": f"{k}.0", "text": numbered([next(tasks) | {"output": output} for output in outputs])}
        for k, outputs in enumerate(groups)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in [*lines, *more]))
    return file


def words(file: Path, output: Path, num: int, *more: object) -> list[str]:
    start = ("generate", "--backend", "replay", "--model", file, "-o", output, "-n", num)
    return [str(word) for word in (*start, *more)]


GROUPS = [
    [
        python(f"print(sum(range({k})))"),
        python(f"import sys\nsys.exit({k + 1})"),
        python(f"def f{k}(:"),
        python(f"print(sum(range({k})))"),  # the first task again: nobody runs it
    ]
    for k in range(4)
]


@needs_sandbox
def test_the_same_bytes_at_every_concurrency(cli: Cli, tmp_path: Path) -> None:
    file = write_replies(tmp_path / "in.jsonl", GROUPS)
    seen = set()
    for concurrency in (1, 4, 16):
        output = tmp_path / f"{concurrency}.json"
        ended = cli(*words(file, output, 99, "--verify", "run", "--concurrency", concurrency))
        assert ended.status == 3, ended.err
        seen.add(both(output))
    assert len(seen) == 1
    decided = journal(tmp_path / "4.json")
    reasons = Counter(decision.get("reason") for decision in decided)
    assert reasons["run_failed"] == 4
    assert reasons["syntax_error"] == 4
    failed = next(decision for decision in decided if decision.get("reason") == "run_failed")
    assert failed["evidence"]["language"] == "python"
    for decision in decided:
        if decision["accepted"]:
            assert decision["evidence"]["verification"] == "passed"
    status = json.loads(cli("status", tmp_path / "4.json", "--json").out)
    assert status["verification"] == {"passed": status["accepted"]}
    assert "verification" in cli("status", tmp_path / "4.json").out


@needs_sandbox
def test_a_duplicate_is_not_run(cli: Cli, tmp_path: Path) -> None:
    task = invented_rows(1)[0] | {"output": python("print(1)")}
    file = tmp_path / "in.jsonl"
    lines = [{"key": f"{k}.0", "text": numbered([task])} for k in range(4)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    output = tmp_path / "x.json"
    assert cli(*words(file, output, 9, "--verify", "run", "--lookahead", 1)).status == 3
    assert [line["k"] for line in verdicts(output)] == [0]
    assert Counter(decision.get("reason") for decision in journal(output)) == {None: 1, "too_similar": 3}


@needs_sandbox
def test_killed_while_code_runs_nothing_is_run_twice(tmp_path: Path, cli: Cli) -> None:
    groups = [
        [python(f"import time\ntime.sleep(0.1)\nprint({k})"), python(f"exit({k % 2})")] for k in range(9)
    ]
    file = write_replies(tmp_path / "in.jsonl", groups)
    calm, killed = tmp_path / "calm.json", tmp_path / "killed.json"
    flags = ("--verify", "run", "--concurrency", 4)
    assert cli(*words(file, calm, 99, *flags)).status == 3
    log = killed.with_suffix(".run") / "verdicts.jsonl"
    for least in (1, 6, 12):
        with command(words(file, killed, 99, *flags), tmp_path / "errors") as run:
            while not (log.exists() and log.read_bytes().count(b"\n") >= least):
                assert run.poll() is None, (tmp_path / "errors").read_text()
                time.sleep(0.01)
            run.send_signal(signal.SIGKILL)
            run.wait()
    assert cli(*words(file, killed, 99, *flags)).status == 3
    assert both(killed) == both(calm)
    made = Counter(line["of"] for line in verdicts(killed))
    assert len(made) == 18
    assert set(made.values()) == {1}


@pytest.mark.slow
@needs_sandbox
@pytest.mark.parametrize(
    "flags", [("--verify", "run"), ("--verify", "tests", "--repair", "1")], ids=["run", "tests"]
)
def test_kills_while_a_server_answers(tmp_path: Path, flags: tuple[str, ...]) -> None:
    with Stub() as stub:
        Series(tmp_path, Case(60 if "run" in flags else 12, 0, 4, flags), random.Random(1)).run(stub, 6)
    made = Counter((line["k"], line["of"]) for line in verdicts(tmp_path / "killed.json"))
    assert set(made.values()) == {1}


def test_without_a_sandbox_verification_is_unavailable(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_replies(
        tmp_path / "in.jsonl", [[python("print(1)")], ["There is nothing to run in this sentence."]]
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = cli(*words(file, tmp_path / "x.json", 2, "--verify", "run"))
    assert ended.status == 0, ended.err
    assert any("no code is run" in line for line in ended.err.splitlines())
    decided = journal(tmp_path / "x.json")
    assert [decision["evidence"]["verification"] for decision in decided] == ["unavailable", "skipped"]
    ended = cli(*words(file, tmp_path / "y.json", 2, "--verify", "run", "--require-verification"))
    assert ended.status == 2
    assert ended.err.count("\n") == 1
    assert ended.err.startswith("selfinstruct: --require-verification: ")


def test_no_sandbox_at_all_is_only_taken_by_name_and_warned_of(cli: Cli, tmp_path: Path) -> None:
    file = write_replies(tmp_path / "in.jsonl", [[python("print(1)")]])
    ended = cli(*words(file, tmp_path / "x.json", 1, "--verify", "run", "--sandbox", "none"))
    assert ended.status == 0, ended.err
    assert "--sandbox none: what a model wrote runs as you" in ended.err
    assert journal(tmp_path / "x.json")[0]["evidence"] == {"verification": "passed"}


# --- self-tests -----------------------------------------------------------------------------------------

DOUBLE = "def double(n):\n    return 2 * n"
SHOUT = "def shout(text):\n    print(text.upper())"


@needs_sandbox
def test_answers_are_held_to_the_models_own_tests(cli: Cli, tmp_path: Path) -> None:
    answers = [DOUBLE, DOUBLE, DOUBLE, DOUBLE, SHOUT, "print(2 * 4)", DOUBLE]
    tests = [
        "assert double(2) == 4\nassert double(0) == 0",
        "assert double(2) == 5",
        "assert True",
        "assert double(2) ==",
        "assert shout('a') is None",
    ]
    asked: list[dict[str, object]] = [
        {"key": f"{k}.1", "text": python(text), "usage": {"prompt": 50, "completion": 10}}
        for k, text in enumerate(tests)
    ]
    file = write_replies(tmp_path / "in.jsonl", [[python(answer)] for answer in answers], *asked)
    seen = set()
    for concurrency in (1, 8):
        output = tmp_path / f"{concurrency}.json"
        ended = cli(
            *words(file, output, 9, "--verify", "tests", "--concurrency", concurrency, "--threshold", 1)
        )
        assert ended.status == 3, ended.err
        seen.add(both(output))
    assert len(seen) == 1
    told = [
        decision.get("reason") or (decision["evidence"]["verification"], decision["evidence"].get("why"))
        for decision in journal(output)
    ]
    assert told == [
        ("passed", None),
        "tests_failed",
        "weak_tests",
        "bad_tests",
        ("skipped", "nothing_returned"),
        ("skipped", "no_function"),
        ("unavailable", "not_in_replay"),
    ]
    assert {
        line.get("tests", "").splitlines()[0] for line in verdicts(output) if line["level"] == "tests"
    } >= {"assert double(2) == 4"}
    assert "assert" not in output.read_text()
    status = json.loads(cli("status", output, "--json").out)
    assert status["tests"]["candidates"] == 5
    assert status["tests"]["tokens"] == 300


# --- repair ---------------------------------------------------------------------------------------------


@needs_sandbox
def test_a_failed_answer_is_rewritten_as_often_as_allowed(cli: Cli, tmp_path: Path) -> None:
    usage = {"prompt": 90, "completion": 10}
    broken = [python(f"print(missing_{k})") for k in range(3)]
    more: list[dict[str, object]] = [
        {"key": "0.1", "text": python("print('mended')"), "usage": usage},
        {"key": "1.1", "text": broken[1], "usage": usage},  # the same again
        {"key": "1.2", "text": python("print('mended'"), "usage": usage},
        {"key": "2.1", "text": python("print(still_missing)"), "usage": usage},
        {"key": "2.2", "text": python("print('at', 'last')"), "usage": usage},
    ]
    file = write_replies(tmp_path / "in.jsonl", [[text] for text in broken], *more)
    output = tmp_path / "x.json"
    ended = cli(*words(file, output, 9, "--verify", "run", "--repair", 2))
    assert ended.status == 3, ended.err
    first, second, third = journal(output)
    assert first["accepted"]
    assert first["evidence"] == {"verification": "passed", "repair": {"tries": 1, "tokens": 100}}
    assert first["output"] == python("print('mended')")
    assert second["reason"] == "run_failed"
    assert second["output"] == broken[1]
    assert "missing_1" in str(second["evidence"])
    assert second["evidence"]["repair"] == {"tries": 2, "tokens": 200}
    assert third["output"] == python("print('at', 'last')")
    status = json.loads(cli("status", output, "--json").out)
    assert status["repair"] == {"candidates": 3, "accepted": 2, "tokens": 500}
    assert status["repaired_per_1000_tokens"] == 4.0
    assert "2 of 3 candidates accepted; 500 tokens, 4 accepted for 1,000" in cli("status", output).out
    again = tmp_path / "again.json"  # the run's own replies hold all that was asked
    assert cli(*words(output.with_suffix(".run"), again, 9, "--verify", "run", "--repair", 2)).status == 3
    assert again.read_bytes() == output.read_bytes()


@needs_sandbox
def test_an_answer_without_code_is_no_repair(cli: Cli, tmp_path: Path) -> None:
    more: list[dict[str, object]] = [
        {"key": "0.1", "text": "The name is missing, so the program cannot work as it stands here."},
        {"key": "0.2", "text": python("fun main() {}").replace("python", "kotlin")},
    ]
    file = write_replies(tmp_path / "in.jsonl", [[python("print(missing)")]], *more)
    assert cli(*words(file, tmp_path / "x.json", 1, "--verify", "run", "--repair", 2)).status == 3
    (only,) = journal(tmp_path / "x.json")
    assert only["reason"] == "run_failed"
    assert only["evidence"]["repair"]["tries"] == 2
    assert "missing" in only["output"]


@needs_sandbox
def test_logs_cut_anywhere_lead_to_the_same_bytes(cli: Cli, tmp_path: Path) -> None:
    """Tests and repair are requests like any other: what is there is used, what is not is asked again."""
    answers = [DOUBLE, "def double(n):\n    return n", "print(missing)", DOUBLE]
    usage = {"prompt": 50, "completion": 10}
    tests = python("assert double(2) == 4\nassert double(1) == 2")
    more: list[dict[str, object]] = [
        {"key": "0.1", "text": tests, "usage": usage},
        {"key": "1.1", "text": tests, "usage": usage},
        {"key": "1.2", "text": python(DOUBLE.replace("2 * n", "n + n")), "usage": usage},
        {"key": "2.1", "text": python("print('mended')"), "usage": usage},
        {"key": "3.1", "text": tests, "usage": usage},
    ]
    file = write_replies(tmp_path / "in.jsonl", [[python(answer)] for answer in answers], *more)
    flags = ("--verify", "tests", "--repair", 2, "--threshold", 1, "--concurrency", 2)
    calm, cut = tmp_path / "calm.json", tmp_path / "cut.json"
    assert cli(*words(file, calm, 9, *flags)).status == 3
    told = [decision.get("reason") or decision["evidence"]["verification"] for decision in journal(calm)]
    assert told == ["passed", "passed", "skipped", "passed"]
    rng = random.Random(5)
    for _ in range(3):
        shutil.rmtree(cut.with_suffix(".run"), ignore_errors=True)
        shutil.copytree(calm.with_suffix(".run"), cut.with_suffix(".run"))
        cut.unlink(missing_ok=True)
        (cut.with_suffix(".run") / "published.json").unlink()
        for name in ("journal.jsonl", "verdicts.jsonl", "replies.jsonl"):
            log = cut.with_suffix(".run") / name
            data = log.read_bytes()
            log.write_bytes(data[: rng.randrange(len(data) // (2 if name == "journal.jsonl" else 1))])
        assert cli(*words(file, cut, 9, *flags)).status == 3
        assert both(cut) == both(calm)


def test_a_dry_run_shows_what_verifying_asks(cli: Cli, tmp_path: Path) -> None:
    start = ("generate", "--backend", "openai", "--model", "m", "--dry-run", "-o", tmp_path / "x.json")
    told = cli(*start, "--verify", "tests", "--repair", 2).out
    assert "You write tests for the answer" in told
    assert "You correct answers" in told
    assert "a request for tests" in told
    assert "up to 2 requests" in told
    assert "verify_" not in cli(*start).out


def test_syntax_errors_are_repaired_without_a_sandbox(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    file = write_replies(
        tmp_path / "in.jsonl", [[python("def f(:")]], {"key": "0.1", "text": python("def f():\n    return 1")}
    )
    assert cli(*words(file, tmp_path / "x.json", 1, "--repair", 1)).status == 0
    (only,) = journal(tmp_path / "x.json")
    assert only["evidence"] == {"verification": "passed", "repair": {"tries": 1, "tokens": 0}}


def test_the_default_level_tells_what_nobody_parsed(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfinstruct.verify.syntax.has_grammar", lambda name: name != "kotlin")
    kotlin = python('fun main() { println("x") }').replace("python", "kotlin")
    many = "".join(f"print({k}, 'and {k * k}')\n" for k in range(1500))
    outputs = [python("print(1)"), kotlin, "A list keeps its order, and a set does not.", python(many)]
    file = write_replies(tmp_path / "in.jsonl", [[text] for text in outputs])
    output = tmp_path / "x.json"
    assert cli(*words(file, output, 9)).status == 3
    told = {line["output"]: line.get("evidence", {}) for line in journal(output) if line["accepted"]}
    known = [{"verification": "passed"}, {"verification": "unavailable", "why": "no_parser"}]
    known += [{"verification": "skipped", "why": "no_code"}]
    assert [told[text] for text in outputs[:3]] == known
    verification = json.loads(cli("status", output, "--json").out)["verification"]
    assert verification["passed"] == verification["skipped"] == 1
    long = Candidate("Print numbers in Python.", output=python(many))
    assert syntax_verdict(long) == Verdict("syntax", "unavailable", "too_long", {"language": "python"})
    off = tmp_path / "off.json"
    assert cli(*words(file, off, 9, "--verify", "off")).status == 3
    assert not any("verification" in line.get("evidence", {}) for line in journal(off))


def test_repair_needs_verification(cli: Cli, tmp_path: Path) -> None:
    file = write_replies(tmp_path / "in.jsonl", [[python("print(1)")]])
    for flags, name in ((("--repair", 1), "repair"), (("--require-verification",), "require-verification")):
        ended = cli(*words(file, tmp_path / "x.json", 1, "--verify", "off", *flags))
        assert ended.status == 2
        assert f"{name}: nothing is verified with --verify off" in ended.err


def test_the_model_sees_what_went_wrong(tmp_path: Path) -> None:
    settings = make_settings({"backend": "openai", "model": "m", "repair": 1, "output": tmp_path / "x.json"})
    script = Script(python("def f():\n    return 1"))
    log = VerdictLog(tmp_path / "verdicts.jsonl")
    recipe = verified(
        lambda *_: [Candidate("Write f.", "x = 1", "def f(", language="python")],
        Verification(settings, Verifier(None), log),
    )
    (candidate,) = recipe(PLAN, Pool(), script)
    log.close()
    assert candidate.verdict == Verdict("syntax", "passed", evidence={"language": "python"})
    for shown in ("Write f.", "x = 1", "def f(", "line 1: '(' was never closed"):
        assert shown in script.text(0)


def test_a_request_that_is_refused_costs_only_its_own_candidate(tmp_path: Path) -> None:
    settings = make_settings({"backend": "openai", "model": "m", "repair": 2, "output": tmp_path / "x.json"})

    def complete(_: Request) -> Reply:
        raise RequestRefused("too long")

    log = VerdictLog(tmp_path / "verdicts.jsonl")
    recipe = verified(
        lambda *_: [Candidate("a", output="def f(", language="python"), Candidate("b", output="good")],
        Verification(settings, Verifier(None), log),
    )
    bad, good = recipe(PLAN, Pool(), complete)
    log.close()
    assert bad.verdict is not None
    assert (bad.verdict.level, bad.verdict.status) == ("syntax", "failed")
    assert good.verdict == Verdict("syntax", "skipped", "no_code")


@pytest.mark.parametrize("required", [False, True])
def test_a_recipe_may_ask_for_itself(tmp_path: Path, required: bool) -> None:
    """As `revise` does, whose candidates are no answers to be run: only what it asks about is verified."""
    given = {"backend": "openai", "model": "m", "verify": "run", "require_verification": required}
    settings = make_settings({**given, "output": tmp_path / "x.json"})
    found: list[str | None] = []

    def recipe(_: object, view: PoolView, __: object) -> list[Candidate]:
        words = "Because the list is sorted, half of it can be left out at every step."
        for output, kind in ((python("print(1)"), "write"), (python("def f(:"), "write"), (words, "explain")):
            rejection = view.verify(Candidate("Do it.", output=output, language="python", kind=kind))
            found.append(rejection.reason if rejection else None)
        assert list(view.tasks) == []
        assert view.judge_instruction(Candidate("known")) is not None
        assert view.refuse(Candidate("known"), ()) is not None
        return [Candidate("Critique.", output=python("exit(1)"))]

    log = VerdictLog(tmp_path / "verdicts.jsonl")
    run = verified(recipe, Verification(settings, Verifier(None), log), checked=False)
    (candidate,) = run(PLAN, Pool("known"), Script())
    log.close()
    assert candidate.verdict is None
    assert found == ["unverified" if required else None, "syntax_error", None]


# --- the log of verdicts ----------------------------------------------------------------------------------


def test_verdicts_are_kept_by_what_they_depend_on(tmp_path: Path) -> None:
    made: list[str] = []

    def check(name: str) -> Callable[[], Verdict]:
        def make() -> Verdict:
            made.append(name)
            return Verdict("run", "failed", "exit", {"code": 1})

        return make

    one, other = Candidate("a", output="1", language="python"), Candidate("a", output="2", language="python")
    log = VerdictLog(tmp_path / "v")
    for candidate in (one, other, one):
        assert log.once(3, 0, candidate, check(candidate.output)).status == "failed"
    log.once(3, 0, one, check("tests"), tests="assert 1")
    log.close()
    assert made == ["1", "2", "tests"]
    (tmp_path / "v").write_bytes((tmp_path / "v").read_bytes() + b'{"k":3,"i"')
    log = VerdictLog(tmp_path / "v", 3)
    assert log.once(3, 0, other, check("never")) == Verdict("run", "failed", "exit", {"code": 1})
    log.forget(3)
    log.once(3, 0, other, check("forgotten"))
    log.close()
    log = VerdictLog(tmp_path / "v", 4)
    log.once(3, 0, other, check("decided before"))
    log.close()
    assert made == ["1", "2", "tests", "forgotten", "decided before"]
    log = VerdictLog(tmp_path / "v", anywhere=True)
    log.once(9, 0, other, check("another index"))
    log.forget(9)
    log.once(8, 0, other, check("another index"))
    log.once(8, 0, other, check("syntax"), level="syntax")
    log.close()
    assert made[5:] == ["syntax"]
    (tmp_path / "v").write_text('{"k": 1}\n{"k": 2}\n')
    with pytest.raises(InputError, match="no verdict"):
        VerdictLog(tmp_path / "v")


def test_what_follows_from_a_verdict() -> None:
    def reason(*words: str, required: bool = False) -> str | None:
        found = rejection_of(Verdict(*words), required=required)  # type: ignore[arg-type]
        return found.reason if found else None

    assert reason("syntax", "failed") == "syntax_error"
    assert reason("run", "failed", "timeout") == "run_failed"
    assert reason("tests", "failed", "exit") == "tests_failed"
    assert reason("tests", "failed", "bad_tests") == "bad_tests"
    assert reason("tests", "failed", "weak_tests") == "weak_tests"
    for status in ("passed", "skipped", "unavailable"):
        assert reason("run", status) is None
    assert reason("run", "unavailable", "no_toolchain", required=True) == "unverified"
    assert reason("run", "skipped", "nothing_to_run", required=True) is None
