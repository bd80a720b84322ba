"""What a scheduler, a log reader, a monitor and a backup see of a run, and the ready examples for them."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Ended, invented_rows
from kill_harness import journal_of
from prometheus_client.parser import text_string_to_metric_families
from stub_server import StubServer

import selfinstruct
from selfinstruct import metrics
from selfinstruct.settings import Settings
from selfinstruct.talk import Talk, warnings_told, write_line

Cli = Callable[..., Ended]
REPOSITORY = Path(selfinstruct.__file__).parents[1]
EXAMPLES = REPOSITORY / "docs" / "examples"
STATUSES = {0, 1, 2, 3, 4, 5}

COUNTS = {"rows", "target", "accepted", "requests", "prompt_tokens", "completion_tokens", "in_flight"}
TABLES, NUMBERS = {"rejected", "failures", "verified"}, {"cost", "seconds"}
FIGURES = COUNTS | TABLES | NUMBERS
ALWAYS = {"event", "time", "message"}


def check_event(line: str, *, opened: bool = True) -> dict[str, Any]:
    """One line of a JSON log against the table in docs/operations.md."""
    event: dict[str, Any] = json.loads(line)
    kind = event["event"]
    wanted = ALWAYS | (FIGURES if kind != "note" and opened else set())
    wanted |= {"status"} if kind in {"complete", "stopped", "failed"} else set()
    assert set(event) == wanted | ({"traceback"} if event.get("status") == 1 else set())
    assert kind in {"note", "progress", "complete", "stopped", "failed"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"])
    datetime.fromisoformat(event["time"].replace("Z", "+00:00"))
    assert isinstance(event["message"], str)
    for name in COUNTS & set(event):
        assert type(event[name]) is int
        assert event[name] >= 0
    for name in TABLES & set(event):
        assert all(type(count) is int and count > 0 for count in event[name].values())
    for name in NUMBERS & set(event):
        assert isinstance(event[name], int | float)
        assert event[name] >= 0
    if kind in {"complete", "stopped", "failed"}:
        assert event["status"] in {"complete": {0}, "stopped": {3}, "failed": {1, 2, 4, 5}}[kind]
    return event


def check_log(ended: Ended, *, opened: bool = True) -> list[dict[str, Any]]:
    """Every line of a log; the last one, and no other, is the end, and it tells the exit status."""
    lines = ended.err.splitlines()
    events = [check_event(line, opened=opened) for line in lines]
    assert [event["event"] in {"note", "progress"} for event in events] == [True] * (len(events) - 1) + [
        False
    ]
    assert events[-1]["status"] == ended.status
    assert ended.out == ""
    return events


def openai_words(stub: StubServer, output: Path, *more: object) -> tuple[object, ...]:
    words = ("generate", "--backend", "openai", "--model", "m", "--base-url", stub.url, "-o", output)
    return (*words, "--log-format", "json", *more)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-for-the-test")


def test_every_line_of_a_json_log_is_an_event(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with faults, warnings and a heartbeat; one that stops; the end of both; nothing to do."""
    monkeypatch.setattr("selfinstruct.calls.FIRST_WAIT", 0.01)
    monkeypatch.setattr("selfinstruct.runner.TICK", 0.02)
    output = tmp_path / "x.json"
    faults = {"500": 0.2, "context_length": 0.1, "no_usage": 0.1, "length": 0.1}
    with StubServer(faults=faults, refuses=("seed",), latency=0.03) as stub:
        limited = cli(*openai_words(stub, output, "-n", 60, "--max-requests", 8, "--heartbeat", 0.01))
        events = check_log(limited)
        assert limited.status == 3
        assert "--max-requests 8" in events[-1]["message"]
        assert any("seed" in event["message"] for event in events if event["event"] == "note")  # a warning
        assert any(event["event"] == "progress" for event in events)
        whole = check_log(cli(*openai_words(stub, output, "-n", 60)))
    last = whole[-1]
    assert (last["event"], last["rows"], last["target"]) == ("complete", 60, 60)
    assert last["accepted"] + events[-1]["accepted"] == 60
    assert last["requests"] > events[-1]["requests"]
    assert set(last["failures"]) >= {"http_500"}
    report = json.loads(cli("status", output, "--json").out)
    assert {name: report[name] for name in ("rows", "requests", "prompt_tokens", "failures")} == {
        name: last[name] for name in ("rows", "requests", "prompt_tokens", "failures")
    }
    done = check_log(cli(*openai_words(stub, output, "-n", 60)))
    assert len(done) == 1
    assert done[0]["event"] == "complete"


def test_errors_are_events_too(cli: Cli, tmp_path: Path) -> None:
    output = tmp_path / "x.json"
    with StubServer(key="another") as stub:
        assert check_log(cli(*openai_words(stub, output, "-n", 5)))[-1]["status"] == 4
    with StubServer() as stub:
        check_log(cli(*openai_words(stub, output, "-n", 1)))
        wrong = check_log(cli(*openai_words(stub, output, "-n", 5, "--seed", 7)), opened=False)
        assert wrong[-1]["status"] == 2
        assert "seed: 0 -> 7" in wrong[-1]["message"]
        check_log(cli(*openai_words(stub, output, "-n", 0)), opened=False)
        check_log(cli(*openai_words(stub, output, "-n", 5, "--heartbeat", 0)), opened=False)


def test_a_bug_is_an_event_with_its_traceback(
    cli: Cli, tmp_path: Path, replies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a bug for the test")

    monkeypatch.setattr("selfinstruct.rundir.RunDirectory.commit", broken)
    words = ("generate", "--backend", "replay", "--model", replies, "-o", tmp_path / "x.json")
    ended = cli(*words, "--log-format", "json")
    assert ended.status == 1
    last = check_event(ended.err.splitlines()[-1], opened=False)
    assert "a bug for the test" in last["message"]
    assert "rundir.py" in last["traceback"] or "runner.py" in last["traceback"]
    with pytest.raises(KeyError, match="a bug for the test"):
        cli(*words)


def test_a_line_now_and_then_where_there_is_no_terminal(cli: Cli, tmp_path: Path) -> None:
    with StubServer(latency=0.05) as stub:
        words = openai_words(stub, tmp_path / "x.json", "-n", 30, "--concurrency", 1, "--log-format", "text")
        ended = cli(*words, "--heartbeat", 0.01)
        assert len(re.findall(r"^\d+ of 30 tasks, \d+ rejected, \d+ in flight$", ended.err, re.MULTILINE)) > 2
        quiet = cli(*words[:-2], "-n", 60, "--heartbeat", 1000)
        assert "progress" not in quiet.err


def test_warnings_of_libraries_are_notes(capsys: pytest.CaptureFixture[str]) -> None:
    import logging
    import warnings

    with warnings_told(Talk(as_json=True)), warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.getLogger("selfinstruct.somewhere").warning("two\nlines %s", 1)
        logging.captureWarnings(capture=True)
        warnings.warn("from a library", stacklevel=1)
        logging.captureWarnings(capture=False)
    first, second = (check_event(line) for line in capsys.readouterr().err.splitlines())
    assert first["message"] == "two lines 1"
    assert "from a library" in second["message"]


def test_a_log_whose_reader_has_gone_ends_nothing(tmp_path: Path, replies: Path) -> None:
    words = [
        "generate",
        "--backend",
        "replay",
        "--model",
        str(replies),
        "-o",
        str(tmp_path / "x.json"),
        "-n",
        "90",
    ]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "selfinstruct", *words, "--heartbeat", "0.0001"],
            stderr=writer,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            check=False,
        )
    finally:
        os.close(writer)
    assert ended.returncode == 0
    assert len(json.loads((tmp_path / "x.json").read_text())) == 90


def start(words: list[str], **pipes: Any) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen([sys.executable, "-m", "selfinstruct", *words], env=environment, **pipes)


def test_a_reader_that_has_gone_ends_any_command_quietly(tmp_path: Path) -> None:
    rows = [{**row, "output": row["output"] * 40} for row in invented_rows(300)]
    file, exam = tmp_path / "rows.json", tmp_path / "exam.jsonl"
    file.write_text(json.dumps(rows))
    exam.write_text("".join(json.dumps({"prompt": row["instruction"]}) + "\n" for row in rows))
    commands = [
        ["show", str(file), "--limit", "300"],  # through rich
        ["decontaminate", str(file), "--against", str(exam)],  # line by line, flushed
        ["verify", str(file), "--level", "syntax", "--json"],  # at once, before the end
        ["seeds", "list"],
        ["models", "list"],  # less than a buffer, all of it written at the end
        ["generate", "--dry-run", "--log-format", "json"],
    ]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        runs = [start(words, stdout=writer, stderr=subprocess.PIPE) for words in commands]
    finally:
        os.close(writer)
    for run, words in zip(runs, commands, strict=True):
        _, told = run.communicate()
        assert (run.returncode, told) == (141, b""), words


def test_head_takes_a_line_and_the_shell_hears_of_it(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([{**row, "output": row["output"] * 40} for row in invented_rows(300)]))
    with start(["show", str(file), "--limit", "300"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        taken = subprocess.run(["head", "-1"], stdin=run.stdout, capture_output=True, check=True)
        assert run.stdout is not None
        run.stdout.close()  # head was the other reader
        assert run.stderr is not None
        told = run.stderr.read()
    assert taken.stdout.count(b"\n") == 1
    assert (run.returncode, told) == (141, b"")


def test_an_error_is_told_though_nobody_reads_the_data(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with start(["show", str(tmp_path / "none.json")], stdout=writer, stderr=subprocess.PIPE) as run:
        os.close(writer)
        _, told = run.communicate()
    assert run.returncode == 2
    assert b"none.json" in told


def test_a_closed_stderr_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path(os.devnull).open("w", encoding="utf-8") as closed:
        pass
    monkeypatch.setattr(sys, "stderr", closed)
    write_line("nobody hears this")


# --- metrics ----------------------------------------------------------------------------------------


def samples(path: Path) -> dict[tuple[str, str], float]:
    """(name, the label besides `dataset`) to value, as Prometheus itself would read the file."""
    found = {}
    for family in text_string_to_metric_families(path.read_text(encoding="utf-8")):
        assert family.documentation
        assert family.type in {"counter", "gauge"}
        for sample in family.samples:
            assert sample.name.startswith("selfinstruct_")
            assert (family.type == "counter") == sample.name.endswith("_total")
            assert not math.isnan(sample.value)
            labels = dict(sample.labels)
            del labels["dataset"]
            key = (sample.name.removeprefix("selfinstruct_"), next(iter(labels.values()), ""))
            assert key not in found
            found[key] = sample.value
    return found


def test_metrics_tell_the_figures_of_the_log(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfinstruct.calls.FIRST_WAIT", 0.01)
    file = tmp_path / "run.prom"
    config = tmp_path / "prices.toml"
    config.write_text("[prices]\ninput = 1\noutput = 2\n")
    more = ("--metrics-file", file, "--config", config)
    with StubServer(faults={"500": 0.2, "context_length": 0.2}) as stub:
        limited = cli(*openai_words(stub, tmp_path / "x.json", "-n", 80, "--max-requests", 12, *more))
        assert limited.status == 3
        assert samples(file)["exit_status", ""] == 3
        ended = cli(*openai_words(stub, tmp_path / "x.json", "-n", 80, *more))
    last = json.loads(ended.err.splitlines()[-1])
    found = samples(file)
    assert found["rows", ""] == found["target_rows", ""] == 80
    assert found["accepted_total", ""] == last["accepted"] < 80
    assert {reason: value for (name, reason), value in found.items() if name == "rejected_total"} == last[
        "rejected"
    ]
    assert {kind: value for (name, kind), value in found.items() if name == "failures_total"} == last[
        "failures"
    ]
    assert last["failures"]
    assert found["replies_total", ""] == last["requests"]
    assert found["tokens_total", "prompt"] == last["prompt_tokens"] > 0
    assert found["tokens_total", "completion"] == last["completion_tokens"] > 0
    assert found["cost_dollars_total", ""] == last["cost"] > 0
    assert (found["running", ""], found["exit_status", ""], found["requests_in_flight", ""]) == (0, 0, 0)
    assert abs(found["last_progress_timestamp_seconds", ""] - (tmp_path / "x.json").stat().st_mtime) < 60
    assert [path.name for path in tmp_path.iterdir() if "prom" in path.name] == ["run.prom"]


def test_metrics_while_it_runs(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replies: Path
) -> None:
    monkeypatch.setattr(metrics, "EVERY", 0.0)
    written: list[str] = []
    monkeypatch.setattr(metrics, "write_atomically", lambda _, data: written.append(data.decode()))
    words = ("generate", "--backend", "replay", "--model", replies, "-o", tmp_path / "x.json", "-n", 50)
    assert cli(*words, "--metrics-file", tmp_path / "m.prom").status == 0
    rows = [int(found[1]) for text in written if (found := re.search(r"_rows\{[^}]*\} (\d+)\n", text))]
    assert rows == sorted(rows)
    assert (rows[0], rows[-1]) == (0, 50)
    assert len(written) > 3
    assert all("selfinstruct_running{" in text and "exit_status" not in text for text in written[:-1])


def test_a_metrics_file_that_cannot_be_written(cli: Cli, tmp_path: Path, replies: Path) -> None:
    """At the begin it is an error; later it is told once, and the run goes on."""
    words = ("generate", "--backend", "replay", "--model", replies, "-o", tmp_path / "x.json", "-n", 50)
    ended = cli(*words, "--metrics-file", tmp_path / "nowhere" / "m.prom")
    assert ended.status == 2
    assert "nowhere" in ended.err
    folder = tmp_path / "metrics"
    folder.mkdir()
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch, StubServer():
        patch.setattr(metrics, "EVERY", 0.0)
        patch.setattr(metrics, "facts", lambda _: {"prompt_tokens": 0, "completion_tokens": 0})

        class Session:
            settings = Settings(num=1, output=tmp_path / "y.json")

        file = metrics.MetricsFile(folder / "m.prom", Session(), said.append)  # type: ignore[arg-type]
        shutil.rmtree(folder)
        for _ in range(3):
            file.progress(decided=True)
        file.end(0)
    assert len(said) == 1
    assert said[0].startswith("no metrics: ")


def test_labels_are_escaped(tmp_path: Path) -> None:
    fields = {"prompt_tokens": 0, "completion_tokens": 0, "rows": 1, "rejected": {'a"b\\c\nd': 2}}
    file = tmp_path / "m.prom"
    file.write_text(metrics.render('odd"name\\\n.json', fields), encoding="utf-8")
    assert samples(file)["rejected_total", 'a"b\\c\nd'] == 2


# --- moving and restoring ---------------------------------------------------------------------------


def test_a_run_moves_to_another_machine(cli: Cli, tmp_path: Path, replies: Path) -> None:
    def run(output: Path, num: int) -> None:
        assert cli("generate", "--backend", "replay", "--model", replies, "-o", output, "-n", num).status == 0

    here, there, whole = (tmp_path / name / "tasks.json" for name in ("here", "there", "whole"))
    for path in (here, there, whole):
        path.parent.mkdir()
    run(whole, 60)
    run(here, 23)
    shutil.copy(here, there)
    shutil.copytree(here.with_suffix(".run"), there.with_suffix(".run"))
    run(there, 60)
    assert there.read_bytes() == whole.read_bytes()


def test_a_copy_of_the_run_directory_alone_restores_the_dataset(
    cli: Cli, tmp_path: Path, replies: Path
) -> None:
    """The copy is older than the dataset was, and cut in the middle of a line, as while a run goes on."""
    words = ("generate", "--backend", "replay", "--model", replies, "-n", 60, "-o")
    whole, restored = tmp_path / "whole.json", tmp_path / "restored.json"
    assert cli(*words, whole).status == 0
    shutil.copytree(whole.with_suffix(".run"), restored.with_suffix(".run"))
    (restored.with_suffix(".run") / "published.json").unlink()
    journal = journal_of(restored).read_bytes()
    journal_of(restored).write_bytes(journal[: len(journal) * 2 // 3])
    assert cli(*words, restored).status == 0
    assert restored.read_bytes() == whole.read_bytes()
    assert journal_of(restored).read_bytes() == journal


# --- the examples -----------------------------------------------------------------------------------


def generate_flags(words: list[str]) -> None:
    """What an example hands to `selfinstruct generate` is understood by it."""
    known = subprocess.run(
        [sys.executable, "-m", "selfinstruct", "generate", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert words[0] == "generate"
    for word in words:
        if word.startswith("--"):
            assert re.search(rf"{word}\b", known), word


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_scripts_are_bash() -> None:
    for script in sorted(EXAMPLES.glob("*.sh")):
        subprocess.run(["bash", "-n", str(script)], check=True)
        assert os.access(script, os.X_OK)
        if shutil.which("shellcheck"):
            subprocess.run(["shellcheck", "--exclude=SC1091", str(script)], check=True)


def stand_in(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
    (folder / name).chmod(0o755)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_nightly_script_is_silent_unless_somebody_must_look(tmp_path: Path) -> None:
    stand_in(
        tmp_path / "bin",
        "selfinstruct",
        'echo "$*" "$OPENAI_API_KEY" >>seen; echo "told $WILL" >&2; exit "$WILL"',
    )
    place = tmp_path / "tasks"
    place.mkdir()
    (place / "key.env").write_text("OPENAI_API_KEY=of-the-file\n")
    for status in sorted(STATUSES):
        ended = subprocess.run(
            ["bash", str(EXAMPLES / "nightly.sh"), str(place)],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "WILL": str(status)},
        )
        well = status in {0, 3, 5}
        assert ended.returncode == (0 if well else status)
        assert ended.stdout + ended.stderr == "" if well else f"told {status}" in ended.stderr
    *words, key = (place / "seen").read_text().splitlines()[0].split()
    assert key == "of-the-file"
    generate_flags(words)
    assert (place / "logs" / "run.jsonl").read_text().count("told") == len(STATUSES)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("status", "restarts", "requeued"), [(0, 0, False), (3, 0, True), (3, 20, False), (4, 0, False)]
)
def test_the_slurm_script_goes_back_into_the_queue_when_it_was_stopped(
    tmp_path: Path, status: int, restarts: int, requeued: bool
) -> None:
    stand_in(tmp_path / "bin", "srun", f'echo "$*" >"{tmp_path}/srun"; exit {status}')
    stand_in(tmp_path / "bin", "scontrol", f'echo "$*" >"{tmp_path}/scontrol"')
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    environment |= {"SLURM_RESTART_COUNT": str(restarts), "SELFINSTRUCT_SERVER": "http://node:8000/v1"}
    script = EXAMPLES / "slurm.sh"
    assert subprocess.run(["bash", str(script)], check=False, env=environment).returncode == status
    assert (tmp_path / "scontrol").exists() == requeued
    if requeued:
        assert (tmp_path / "scontrol").read_text() == "requeue 7\n"
    command, *words = (tmp_path / "srun").read_text().split()
    assert command == "selfinstruct"
    generate_flags(words)
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script.read_text(), re.MULTILINE))
    hours, minutes, _ = map(int, options["time"].split(":"))
    signal_name, seconds = options["signal"].split("@")
    assert signal_name == "TERM"
    slot, stop = 60 * hours + minutes, int(words[words.index("--max-minutes") + 1])
    assert stop + 1 < slot - int(seconds) / 60  # the run's own limit and its grace come first
    assert "requeue" in options


def cron_field(text: str, least: int, most: int) -> bool:
    for part in text.split(","):
        found = re.fullmatch(r"(\*|\d+(?:-\d+)?)(?:/(\d+))?", part)
        if not found or any(not least <= int(number) <= most for number in re.findall(r"\d+", found[1])):
            return False
    return True


CRON_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def test_the_crontab() -> None:
    jobs = 0
    for line in (EXAMPLES / "crontab").read_text().splitlines():
        if not line.strip() or line.startswith("#") or re.match(r"[A-Z_]+=", line):
            continue
        *fields, command = line.split(None, 5)
        assert len(fields) == 5
        for field, (least, most) in zip(fields, CRON_RANGES, strict=True):
            assert cron_field(field, least, most), line
        assert "%" not in command.replace(r"\%", "")  # cron would cut the command there
        script, *_ = command.split()
        assert (EXAMPLES / Path(script).name).is_file()
        jobs += 1
    assert jobs == 1


@pytest.mark.parametrize("name", ["selfinstruct.service", "selfinstruct.timer"])
def test_the_systemd_units(tmp_path: Path, name: str) -> None:
    units = {path.name: path.read_text() for path in EXAMPLES.glob("selfinstruct.*")}
    assert set(units) == {"selfinstruct.service", "selfinstruct.timer"}
    command = re.search(r"^ExecStart=(\S+) (.*)$", units["selfinstruct.service"], re.MULTILINE)
    assert command is not None
    generate_flags(command[2].split())
    assert "SuccessExitStatus=3\n" in units["selfinstruct.service"]
    wait = re.search(r"^TimeoutStopSec=(\d+)$", units["selfinstruct.service"], re.MULTILINE)
    assert wait is not None
    assert int(wait[1]) > 60
    if shutil.which("systemd-analyze"):
        for unit, text in units.items():  # verify looks for the program: name one that is there
            (tmp_path / unit).write_text(text.replace(command[1], sys.executable))
        verified = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)],
            capture_output=True,
            text=True,
            check=False,
        )
        told = [line for line in verified.stderr.splitlines() if name.partition(".")[0] in line]
        assert (verified.returncode, told) == (0, []), verified.stderr


def test_the_kubernetes_cron_job() -> None:
    job = yaml.safe_load((EXAMPLES / "kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    spec = job["spec"]
    assert len(spec["schedule"].split()) == 5
    assert all(cron_field(f, *r) for f, r in zip(spec["schedule"].split(), CRON_RANGES, strict=True))
    assert spec["concurrencyPolicy"] == "Forbid"
    work = spec["jobTemplate"]["spec"]
    pod = work["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy asks for it
    assert pod["terminationGracePeriodSeconds"] > 60
    assert container["command"][0] == "selfinstruct"
    generate_flags(container["command"][1:])
    rule = work["podFailurePolicy"]["rules"][0]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert {3, 5} & set(rule["onExitCodes"]["values"]) == set()
    assert set(rule["onExitCodes"]["values"]) <= STATUSES - {0}
    minutes = int(container["command"][container["command"].index("--max-minutes") + 1])
    assert work["activeDeadlineSeconds"] > 60 * minutes
    (key,) = container["env"]
    assert key["name"] == "OPENAI_API_KEY"
    assert "value" not in key
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


def test_the_page_names_every_example_field_and_metric() -> None:
    page = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
    for path in EXAMPLES.iterdir():
        assert f"(examples/{path.name})" in page
    for link in re.findall(r"\]\(([^)]+)\)", page):
        assert (REPOSITORY / "docs" / link).exists(), link
    for name in FIGURES | ALWAYS | {"status", "traceback"}:
        assert f"`{name}`" in page, name
    for family, _, _, _, label in metrics.FAMILIES:
        assert f"`{family}{{{label}}}`" if label else f"`{family}`" in page, family
    for status in STATUSES:
        assert re.search(rf"^\| {status} \|", page, re.MULTILINE)
