"""Jobs over given data, as whole runs: order, resume, kills, changed inputs, limits, prompt folders."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, invented_rows
from hypothesis import given
from hypothesis import strategies as st
from stub_batch import StubBatchServer
from stub_server import Asked, StubServer

import selfinstruct
from selfinstruct import batch, commands, prompt_files, weights
from selfinstruct.derive.worklist import _digest
from selfinstruct.novelty import ExactNovelty
from selfinstruct.prompt_files import prompt_text
from selfinstruct.records import Candidate, Source, row_id

Cli = Callable[..., Ended]
REPOSITORY = Path(selfinstruct.__file__).parents[1]


def fenced(code: str) -> str:
    return f"```python\n{code}\n```"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-for-the-test")


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """30 rows whose outputs are code."""
    rows = [row | {"output": fenced(row["output"])} for row in invented_rows(30)]
    path = tmp_path / "in.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture
def replies(inputs: Path, tmp_path: Path) -> Path:
    """Replies for them: every fifth revision is the original again, every seventh cannot be parsed."""
    path = tmp_path / "replies.jsonl"
    with path.open("w") as out:
        for k, row in enumerate(json.loads(inputs.read_text())):
            code = row["output"].replace("return", "return 1 +")
            code = row["output"] if k % 5 == 0 else fenced("def f(:") if k % 7 == 0 else code
            for step, text in enumerate((f"It lacks {k}.", code, f"It lacked {k}.")):
                out.write(json.dumps({"key": f"{k}.{step}", "text": text}) + "\n")
    return path


def test_the_hash_of_the_inputs_is_that_of_runs_that_are_there() -> None:
    row = Source("1", "Do it.", "x = 1", "print(x)", "Be brief.", "a.json row 0")
    code = Source("2", output="int x;\u00e9\udc80", origin="src/a.c", licence="MIT", language="c")
    assert _digest([row, code]) == "8fd157dbe0289a21"
    assert _digest([row, replace(code, id="3", origin="elsewhere/a.c")]) == "8fd157dbe0289a21"
    for change in ({"output": "int y;"}, {"licence": None}, {"language": "cpp"}):
        assert _digest([row, replace(code, **change)]) != "8fd157dbe0289a21"


def revise(cli: Cli, inputs: Path, replies: Path, output: Path, *words: object) -> Ended:
    return cli("revise", inputs, "-o", output, "--backend", "replay", "--model", replies, *words)


def files(output: Path) -> tuple[str, str]:
    paths = (output, output.with_suffix(".run") / "journal.jsonl")
    first, second = (hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
    return first, second


def journal(output: Path) -> list[dict[str, Any]]:
    lines = (output.with_suffix(".run") / "journal.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def one_line(ended: Ended, status: int, *parts: str) -> None:
    assert ended.status == status, ended.err
    (line,) = ended.err.splitlines()
    for part in parts:
        assert part in line


def test_the_same_bytes_at_every_concurrency(cli: Cli, inputs: Path, replies: Path, tmp_path: Path) -> None:
    seen = set()
    for concurrency in (1, 4, 16):
        output = tmp_path / f"{concurrency}.json"
        ended = revise(cli, inputs, replies, output, "--concurrency", concurrency)
        assert ended.status == 0, ended.err
        seen.add(files(output))
    assert len(seen) == 1
    report = json.loads(cli("status", output, "--json").out)
    assert (report["inputs"], report["indices"], report["target"]) == (30, 30, None)
    assert report["reasons"] == {"unchanged": 6, "syntax_error": 4}
    assert len(json.loads(output.read_text())) == 3 * 20
    assert "complete" in cli("status", output).out
    ended = revise(cli, inputs, replies, output, "--concurrency", 16)
    assert (ended.status, "nothing to do" in ended.err) == (0, True)


def test_every_row_tells_what_it_was_made_of(cli: Cli, inputs: Path, replies: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    assert revise(cli, inputs, replies, output).status == 0
    rows = json.loads(inputs.read_text())
    for line in journal(output):
        assert line["derived_from"] == [row_id(rows[line["k"]])]
        assert line["origin"] == {"place": f"{inputs} row {line['k']}"}
        assert line["seeds"] == []


def test_a_number_of_rows_may_end_the_run_and_be_raised(
    cli: Cli, inputs: Path, replies: Path, tmp_path: Path
) -> None:
    whole, steps = tmp_path / "whole.json", tmp_path / "steps.json"
    assert revise(cli, inputs, replies, whole).status == 0
    for num in (1, 7, 7, 8):
        assert revise(cli, inputs, replies, steps, "-n", num).status == 0
        assert len(json.loads(steps.read_text())) == num
    assert revise(cli, inputs, replies, steps).status == 0
    assert steps.read_bytes() == whole.read_bytes()
    assert json.loads(cli("status", steps, "--json").out)["target"] is None


def test_the_journal_cut_anywhere_resumes_to_the_same_bytes(
    cli: Cli, inputs: Path, replies: Path, tmp_path: Path
) -> None:
    output = tmp_path / "cut.json"
    assert revise(cli, inputs, replies, output).status == 0
    log = output.with_suffix(".run") / "journal.jsonl"
    whole, dataset = log.read_bytes(), output.read_bytes()
    for place in (0, 1, len(whole) // 3, len(whole) // 2 + 7, len(whole) - 1):
        log.write_bytes(whole[:place])
        output.unlink()
        (output.with_suffix(".run") / "published.json").unlink()
        assert revise(cli, inputs, replies, output).status == 0
        assert (log.read_bytes(), output.read_bytes()) == (whole, dataset)


def test_changed_inputs_settings_and_prompts_are_refused(
    cli: Cli, inputs: Path, replies: Path, tmp_path: Path
) -> None:
    output = tmp_path / "fixed.json"
    assert revise(cli, inputs, replies, output, "-n", 3).status == 0
    one_line(revise(cli, inputs, replies, output, "--temperature", "0.1"), 2, "temperature: 0.7 -> 0.1")
    one_line(revise(cli, inputs, replies, output, "--with-requirement"), 2, "with-requirement: False -> True")
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "staged_input.txt").write_text("Of another recipe.")
    assert revise(cli, inputs, replies, output, "-n", 4, "--prompts", folder).status == 0
    (folder / "revise_summary.txt").write_text("Compare {original} with {revised}.")
    one_line(revise(cli, inputs, replies, output, "--prompts", folder), 2, "prompts: ")
    moved = tmp_path / "elsewhere.json"
    inputs.rename(moved)
    assert revise(cli, moved, replies, output, "-n", 5).status == 0
    moved.write_text(json.dumps(json.loads(moved.read_text())[1:]))
    one_line(revise(cli, moved, replies, output), 2, "inputs: ")


def test_a_folder_of_prompts_replaces_those_of_the_same_name(cli: Cli, inputs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "revise_critique.txt").write_text("\ufeffMine: {original} for {requirement}, {not_ours}\n")
    (folder / "notes.md").write_text("not a prompt")
    words = ("revise", inputs, "-o", tmp_path / "x.json", "--dry-run", "--prompts", folder)
    shown = cli(*words)
    assert shown.status == 0, shown.err
    assert "Mine: ```python\ndef" in shown.out
    assert ", {not_ours}\n" in shown.out
    assert shown.out.count("prompt of step") == 2
    assert not (tmp_path / "x.run").exists()
    cases = {
        "revise_critique.txt": (b"Only {original}.", "{requirement}"),
        "revise_nothing.txt": (b"x", "revise_critique.txt"),
        "revise_summary.txt": (b" \n", "empty"),
        "revise_revision.txt": (b"\xff", "UTF-8"),
    }
    for name, (data, part) in cases.items():
        for old in folder.glob("*.txt"):
            old.unlink()
        (folder / name).write_bytes(data)
        one_line(cli(*words), 2, name, part)
    one_line(cli(*words[:-1], tmp_path / "none"), 2, "none")


def test_generate_takes_prompts_too(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "staged_output.txt").write_text("Answer in rhymes.")
    shown = cli("generate", "--dry-run", "--prompts", folder, "-o", tmp_path / "x.json")
    assert "Answer in rhymes." in shown.out
    assert prompt_text("staged_input") in shown.out


def test_bad_input_is_one_line(cli: Cli, inputs: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.json"
    one_line(cli("revise", "-o", output), 2, "name what to work on")
    one_line(cli("revise", inputs), 2, "-o OUT.json")
    one_line(cli("revise", inputs, "-o", inputs), 2, "is what is read")
    one_line(cli("revise", tmp_path / "none.json", "-o", output), 2, "none.json")
    empty = tmp_path / "empty.json"
    empty.write_text("[]")
    one_line(cli("revise", empty, "-o", output, "--dry-run"), 2, "nothing in it")
    odd = tmp_path / "odd.jsonl"
    odd.write_text('{"instruction": "a", "output": "b", "system": 3}\n')
    one_line(cli("revise", odd, "-o", output), 2, "odd.jsonl", "system")
    config = tmp_path / "c.toml"
    config.write_text("shots = 3\n")
    one_line(cli("revise", inputs, "-o", output, "--config", config), 2, "shots", "with-requirement")
    assert not output.exists()


def test_limits_stop_and_the_next_sitting_goes_on(cli: Cli, inputs: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.json"
    with StubServer(answer=say) as stub:
        words = (
            "revise",
            inputs,
            "-o",
            output,
            "--backend",
            "openai",
            "--model",
            "m",
            "--base-url",
            stub.url,
        )
        ended = cli(*words, "--max-requests", 4, "--concurrency", 1)
        assert (ended.status, "--max-requests 4" in ended.err.splitlines()[-1]) == (3, True)
        assert len(stub.requests) == 4
        ended = cli(*words)
        assert ended.status == 0, ended.err
        assert len(stub.requests) == 90
    assert len(json.loads(output.read_text())) == 90


def say(body: dict[str, Any], _: Asked) -> list[str]:
    """What a good model would say, by the prompt."""
    text = body["messages"][-1]["content"]
    if "Answer with the code alone" not in text:
        return [f"It lacks {hashlib.sha256(text.encode()).hexdigest()[:6]}."]
    code = text.split("```python\n")[1].split("\n```")[0]
    return [fenced(code.replace("return", "return 1 +"))]


def test_killed_twice_it_ends_with_the_same_bytes(cli: Cli, inputs: Path, tmp_path: Path) -> None:
    calm, stormy = tmp_path / "calm.json", tmp_path / "stormy.json"
    with StubServer(answer=say, latency=0.02) as stub:
        words = ("revise", inputs, "--backend", "openai", "--model", "m", "--base-url", stub.url)
        assert cli(*words, "-o", calm).status == 0
        kills = 0
        while True:
            before = len(stub.requests)
            run = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "selfinstruct",
                    *map(str, words),
                    "-o",
                    str(stormy),
                    "--concurrency",
                    "2",
                ],
                env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
                stderr=subprocess.PIPE,
                text=True,
            )
            while kills < 2 and run.poll() is None and len(stub.requests) < before + 9:
                time.sleep(0.005)
            if kills < 2 and run.poll() is None:
                run.send_signal(signal.SIGKILL)
                kills += 1
            _, said = run.communicate(timeout=60)
            if run.returncode == 0:
                break
            assert run.returncode == -signal.SIGKILL, said
    assert kills == 2
    assert files(calm) == files(stormy)


def test_a_row_with_a_system_message_keeps_it_and_has_an_id_of_its_own() -> None:
    plain = Candidate("a", "b", "c")
    spoken = Candidate("a", "b", "c", system="s")
    assert list(spoken.row) == ["instruction", "input", "output", "system"]
    assert row_id(plain.row) != row_id(spoken.row)
    assert row_id(plain.row) == row_id(plain.row | {"system": ""})


def test_the_example_of_the_page_is_a_whole_job(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (REPOSITORY / "docs" / "recipes.md").read_text()
    code = page.split('```python\n"""The job `title`')[1].split("\n```")[0]
    prompt = page.split("with `prompts/title_ask.txt`\n\n```text\n")[1].split("\n```")[0]
    module = types.ModuleType("selfinstruct.derive.title")
    exec(f'"""The job `title`{code}', module.__dict__)  # noqa: S102 - our own page
    monkeypatch.setitem(sys.modules, module.__name__, module)
    bundled = prompt_files.bundled_prompts()
    monkeypatch.setattr(prompt_files, "bundled_prompts", lambda: {**bundled, "title_ask": prompt})
    output = tmp_path / "titles.json"
    with StubServer(answer=lambda body, _: body["messages"][0]["content"][-9:]) as stub:
        flags = {
            "inputs": [inputs],
            "output": output,
            "backend": "openai",
            "model": "m",
            "base_url": stub.url,
        }
        commands.derive("title", flags | {"words": 3}, None, dry_run=False)
    rows = json.loads(output.read_text())
    assert len(rows) == 30
    assert rows[0]["output"] == rows[0]["input"][-9:]
    assert "at most 3 words" in json.loads(stub.requests[0].body)["messages"][0]["content"]


def test_a_revision_that_does_not_run_is_not_kept(cli: Cli, tmp_path: Path) -> None:
    rows = [
        {"instruction": f"Print {k}.", "input": "", "output": fenced(f"print({k} + 0)")} for k in range(4)
    ]
    source, replies = tmp_path / "in.json", tmp_path / "replies.jsonl"
    source.write_text(json.dumps(rows))
    with replies.open("w") as out:
        for k in range(4):
            code = f"print({k})" if k % 2 else f"print({k} / 0)"
            for step, text in enumerate((f"Adds nothing, {k}.", fenced(code), f"It added nothing, {k}.")):
                out.write(json.dumps({"key": f"{k}.{step}", "text": text}) + "\n")
    seen = set()
    for concurrency in (1, 4):
        output = tmp_path / f"{concurrency}.json"
        words = ("--verify", "run", "--sandbox", "none", "--concurrency", concurrency)
        ended = revise(cli, source, replies, output, *words)
        assert ended.status == 0, ended.err
        seen.add(output.read_bytes())  # the journal quotes the place where the code ran
    assert len(seen) == 1
    assert json.loads(cli("status", output, "--json").out)["reasons"] == {"run_failed": 2}
    assert len(json.loads(output.read_text())) == 6
    kept = (output.with_suffix(".run") / "verdicts.jsonl").read_text().splitlines()
    assert [json.loads(line)["status"] for line in kept].count("failed") == 2


def test_the_best_of_several_runs(cli: Cli, tmp_path: Path) -> None:
    source, replies = tmp_path / "in.json", tmp_path / "replies.jsonl"
    source.write_text(
        json.dumps([{"instruction": "Print the quotient in Python.", "input": "", "output": "x"}])
    )
    answers = ["print(1 / 0)", "print(1 /", "print(1 / 2)", "print(3)"]
    replies.write_text(
        "".join(
            json.dumps({"key": f"0.{step}", "text": fenced(text)}) + "\n" for step, text in enumerate(answers)
        )
    )
    output = tmp_path / "out.json"
    words = ("--samples", 4, "--verify", "run", "--sandbox", "none")
    ended = cli("respond", source, "-o", output, "--backend", "replay", "--model", replies, *words)
    assert ended.status == 0, ended.err
    assert json.loads(output.read_text())[0]["output"] == fenced("print(1 / 2)")
    (line,) = journal(output)
    assert line["decisions"][0]["evidence"]["picked"] == 2


def test_batches_bring_the_same_rows(
    cli: Cli, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SETTLE", "FIRST_POLL", "LONGEST_POLL", "FIRST_WAIT"):
        monkeypatch.setattr(batch, name, 0.01)
    with StubBatchServer(answer=say) as stub:
        words = ("revise", inputs, "--backend", "openai", "--model", "m", "--base-url", stub.url)
        assert cli(*words, "-o", tmp_path / "one.json").status == 0
        singly = len(stub.requests)
        ended = cli(*words, "-o", tmp_path / "batch.json", "--batch", "--wait")
        assert ended.status == 0, ended.err
        assert len(stub.requests) - singly < 90  # three batches, not ninety requests
    assert files(tmp_path / "one.json") == files(tmp_path / "batch.json")


def test_a_job_that_brings_nothing_stalls(cli: Cli, inputs: Path, tmp_path: Path) -> None:
    replies = tmp_path / "none.jsonl"
    lines = (json.dumps({"key": f"{k}.0", "text": ""}) + "\n" for k in range(30))
    replies.write_text("".join(lines))
    seen = set()
    for concurrency in (1, 16):
        output = tmp_path / f"{concurrency}.json"
        ended = revise(cli, inputs, replies, output, "--stall", 7, "--concurrency", concurrency)
        assert (ended.status, "change the input or the model" in ended.err) == (3, True)
        seen.add((output.with_suffix(".run") / "journal.jsonl").read_bytes())
    assert len(seen) == 1
    assert len(journal(output)) == 7
    ended = revise(cli, inputs, replies, tmp_path / "all.json")
    assert ended.status == 0, ended.err
    assert (tmp_path / "all.json").read_text() == "[\n]\n"
    assert cli("status", tmp_path / "all.json").status == 0
    ended = revise(cli, inputs, replies, tmp_path / "all.json")
    assert (ended.status, "nothing to do" in ended.err) == (0, True)


def test_progress_is_told_in_inputs(cli: Cli, inputs: Path, replies: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.json"
    ended = revise(cli, inputs, replies, output, "--log-format", "json")
    last = json.loads(ended.err.splitlines()[-1])
    assert (last["event"], last["inputs"], last["worked_through"]) == ("complete", 30, 30)
    assert last["target"] is None
    prom = tmp_path / "x.prom"
    ended = revise(cli, inputs, replies, tmp_path / "y.json", "--metrics-file", prom)
    assert "selfinstruct_inputs{" in prom.read_text()
    assert "selfinstruct_target_rows" not in prom.read_text()
    assert "from 30 of 30 inputs" in ended.err


ROWS = st.tuples(*[st.text(max_size=2)] * 3)


@given(st.lists(ROWS, max_size=20), ROWS, st.integers(0, 20))
def test_only_an_exact_repetition_is_one(
    rows: list[tuple[str, str, str]], asked: tuple[str, str, str], limit: int
) -> None:
    pool = ExactNovelty()
    assert [pool.add(*row) for row in rows] == list(range(len(rows))) == list(range(len(pool)))
    found = pool.duplicate_of(*asked, limit=limit)
    known = rows[:limit]
    expected = known.index(asked) if asked in known and asked[2] else None
    assert (found.entry if found else None) == expected
    assert pool.duplicate_of(asked[0], asked[1], "") is None


@given(st.text("{}abc_ \n"), st.dictionaries(st.sampled_from(["a", "b", "c"]), st.text("{}abc")))
def test_placeholders_are_filled_once(text: str, values: dict[str, str]) -> None:
    filled = prompt_files.fill(text, values)
    naive = text
    for name in values:  # marks that stand in no text, so that nothing is filled twice
        naive = naive.replace("{" + name + "}", f"\x00{name}\x01")
    for name, value in values.items():
        naive = naive.replace(f"\x00{name}\x01", value)
    assert filled == naive


@pytest.mark.model
@pytest.mark.parametrize("job", [("respond", "--samples", 2, "--pick", "longest"), ("revise", "--break")])
def test_the_real_small_model_works_through_rows(cli: Cli, tmp_path: Path, job: tuple[object, ...]) -> None:
    """What it says is mostly wrong; here it only has to come to decisions, and to the same ones again."""
    weights.pull("smollm2-135m")
    source = tmp_path / "in.json"
    code = "def larger(a, b):\n    if a < b:\n        return b\n    return a"
    source.write_text(
        json.dumps(
            [
                {
                    "instruction": "Write a Python function that gives the larger of two numbers.",
                    "input": "",
                    "output": fenced(code),
                }
            ]
        )
    )
    output, again = tmp_path / "out.json", tmp_path / "again.json"
    words = (job[0], source, *job[1:], "--max-output-tokens", 150)
    ended = cli(*words, "--model", "smollm2-135m", "--concurrency", 1, "-o", output)
    assert ended.status == 0, ended.err
    (line,) = journal(output)
    assert line["decisions"]
    if job[0] == "revise":
        assert "flaw" in line["decisions"][0]["evidence"] or line["decisions"][0]["reason"] == "cut_off"
    bought = output.with_suffix(".run") / "replies.jsonl"
    replayed = ("--backend", "replay", "--model", bought, "--endpoint", "completions", "-o", again)
    assert cli(*words, *replayed).status == 0
    assert json.loads(again.read_text()) == json.loads(output.read_text())
