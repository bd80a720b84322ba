"""What the commands over datasets refuse to write over, whose a run directory is, and that rows stay whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, invented_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfinstruct.data.outputs import OWNER, owner_of
from selfinstruct.data.reading import read_examples
from selfinstruct.dataset import stream_rows

Cli = Callable[..., Ended]
ROWS = invented_rows(8)
ARRAYS = {  # what writes a .json file, and the words behind IN and -o OUT
    "dedup": (),
    "decontaminate": ("--against", "bench.jsonl"),
    "verify": ("--level", "syntax"),
    "curate": ("--exact",),
    "converse": ("--likeness", "words"),
    "export": (),
    "mix": (),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.json").write_text(json.dumps(ROWS))
    (tmp_path / "bench.jsonl").write_text(json.dumps({"id": 1, "prompt": "Count the boats in a harbour."}))
    (tmp_path / "mix.toml").write_text('[[source]]\nname = "a"\npath = "in.json"\n')
    return tmp_path


def words_of(command: str, output: object) -> list[object]:
    source = "mix.toml" if command == "mix" else "in.json"
    return [command, source, "-o", output, *ARRAYS[command]]


def everything(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refused(ended: Ended, *parts: str) -> None:
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.count("\n") == 1
    for part in parts:
        assert part in ended.err


def test_no_command_writes_over_the_dataset_of_a_run(cli: Cli, folder: Path, replies: Path) -> None:
    run = ["generate", "--backend", "replay", "--model", replies, "-o", "tasks.json"]
    assert cli(*run, "-n", 5).status == 0
    before = everything(folder)
    for command in ARRAYS:
        refused(
            cli(*words_of(command, "tasks.json")), "tasks.json: is the dataset", "`generate`", "another -o"
        )
    refused(cli("dedup", "--rethreshold", "-o", "tasks.json"), "is the dataset of a run")
    refused(cli("export", "in.json", "-o", "tasks.run/journal.jsonl"), "in the run directory")
    assert everything(folder) == before
    (folder / "tasks.json").rename(
        folder / "away"
    )  # the journal alone would take what is new for all there is
    refused(cli(*words_of("dedup", "tasks.json")), "is the dataset of a run")
    (folder / "away").rename(folder / "tasks.json")
    assert cli(*run, "-n", 9).status == 0
    assert '"deleted"' not in (folder / "tasks.run" / "journal.jsonl").read_text()
    assert (
        cli("export", "tasks.json", "-o", "tasks.jsonl").status == 0
    )  # has no records, so it shares nothing
    refused(cli(*words_of("curate", "tasks.jsonl")), "its run directory tasks.run is that of tasks.json")


def test_nor_over_that_of_a_job_over_rows(cli: Cli, folder: Path) -> None:
    answers = "".join(
        json.dumps({"text": f"The answer is {k}.", "finish_reason": "stop"}) + "\n" for k in range(8)
    )
    (folder / "replies.jsonl").write_text(answers)
    job = ["respond", "in.json", "-o", "new.json", "--backend", "replay", "--model", "replies.jsonl"]
    assert cli(*job, "--verify", "off").status == 0
    before = (folder / "new.json").read_bytes()
    refused(cli(*words_of("verify", "new.json")), "new.json: is the dataset of a run of `respond`")
    assert (folder / "new.json").read_bytes() == before


def test_a_dry_run_writes_nothing_and_is_not_refused(cli: Cli, folder: Path, replies: Path) -> None:
    run = ["generate", "--backend", "replay", "--model", replies, "-o", "tasks.json"]
    assert cli(*run, "-n", 3).status == 0
    before = everything(folder)
    ended = cli(*words_of("converse", "tasks.json"), "--turns", 1, "--dry-run", *run[1:5])
    assert ended.status == 0, ended.err
    assert "the first prompt" in ended.out
    refused(cli("converse", "in.json", "-o", "in.json", "--turns", 1, "--dry-run"), "what is read")
    assert everything(folder) == before


@pytest.mark.parametrize("command", [name for name in ARRAYS if name != "export"])
def test_a_command_replaces_its_own_output_and_no_other_one(cli: Cli, folder: Path, command: str) -> None:
    assert cli(*words_of(command, "out.json")).status == 0
    assert cli(*words_of(command, "out.json")).status == 0
    before = everything(folder)
    for other in {"dedup", "curate", "export"} - {command}:
        refused(cli(*words_of(other, "out.json")), f"out.json: was written by `{command}`", "out.run")
    assert everything(folder) == before
    (folder / "out.json").unlink()
    assert cli(*words_of("dedup", "out.json")).status == 0  # what was deleted is nobody's


def test_a_run_directory_is_that_of_one_file(cli: Cli, folder: Path, replies: Path) -> None:
    run = ["generate", "--backend", "replay", "--model", replies, "-n", 3, "-o", "out.json"]
    assert cli(*words_of("curate", "out.jsonl")).status == 0
    before = everything(folder)
    for words in (words_of("curate", "out.json"), words_of("dedup", "out.json"), run):
        refused(cli(*words), "out.json: its run directory out.run is that of out.jsonl")
    assert everything(folder) == before
    assert cli("export", "out.jsonl", "-o", "out.json").status == 0
    (folder / "out.jsonl").unlink()
    assert cli(*run).status == 0  # takes the rows over


def test_a_file_and_its_run_directory_may_be_renamed(cli: Cli, folder: Path, replies: Path) -> None:
    run = ["generate", "--backend", "replay", "--model", replies]
    assert cli(*run, "-n", 3, "-o", "one.json").status == 0
    assert cli(*words_of("curate", "rows.jsonl")).status == 0
    for old, new in (("one", "two"), ("rows", "lines")):
        for file in (*folder.glob(f"{old}.json*"), folder / f"{old}.run"):
            file.rename(folder / (new + file.suffix))
    assert cli(*run, "-n", 4, "-o", "two.json").status == 0
    refused(cli(*words_of("dedup", "two.json")), "is the dataset")
    assert cli(*words_of("curate", "lines.jsonl")).status == 0


def test_what_came_to_nothing_or_says_nothing_binds_to_nothing(cli: Cli, folder: Path) -> None:
    (folder / "out.json").write_text("[]")
    (folder / "broken.json").write_text('[{"instruction": "a", "output"')
    refused(cli("dedup", "broken.json", "-o", "out.json"), "broken.json")
    assert owner_of(folder / "out.run") is None
    assert cli(*words_of("curate", "out.json")).status == 0
    for text in ("", "[]", "{", '{"output": "../in.json", "command": "x"}', '{"output": 1, "command": "x"}'):
        (folder / "out.run" / OWNER).write_text(text)
        assert owner_of(folder / "out.run") is None
    assert cli(*words_of("dedup", "out.json")).status == 0


def test_rows_kept_aside_do_not_take_the_place_of_the_input(cli: Cli, folder: Path) -> None:
    (folder / "out.json.bad.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    before = everything(folder)
    for words in (("curate", "--exact"), ("export",)):
        refused(cli(*words, "out.json.bad.jsonl", "-o", "out.json", "--skip-bad"), "what is read")
    assert everything(folder) == before


@pytest.mark.parametrize("words", [("curate", "--exact"), ("export",), ("mix",)], ids=lambda words: words[0])
def test_bad_rows_of_an_earlier_time_are_gone_after_a_good_one(
    cli: Cli, folder: Path, words: tuple[str, ...]
) -> None:
    command, *more = words
    source = "mix.toml" if command == "mix" else "in.json"
    run = [command, source, "-o", "out.jsonl", *more, "--skip-bad"]
    bad = folder / "out.jsonl.bad.jsonl"
    (folder / "in.json").write_text(json.dumps([*ROWS, {"instruction": 1, "output": "x"}]))
    assert cli(*run).status == 0
    assert json.loads(bad.read_text())["row"] == len(ROWS)
    (folder / "in.json").write_text("[{")
    refused(cli(*run), "in.json")
    assert bad.exists()
    (folder / "in.json").write_text(json.dumps(ROWS))
    assert cli(*run).status == 0
    assert not bad.exists()


WHOLE: list[dict[str, Any]] = [
    {**ROWS[0], "system": "Be brief.", "language": "python", "id": 7, "score": 3, "tags": ["a", {"b": None}]},
    {"id": "x", "output": ROWS[1]["output"], "instruction": ROWS[1]["instruction"], "input": "", "system": "",
     "note": None, "history": [], "score": "4.5"},
    {**ROWS[2], "score": None, "language": "de", "weight": 0.25, "dropped": False},
]  # fmt: skip


@pytest.mark.parametrize("command", ["dedup", "decontaminate", "verify", "curate"])
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_rows_that_stay_come_out_with_all_their_keys(
    cli: Cli, folder: Path, command: str, suffix: str
) -> None:
    source = folder / f"whole{suffix}"
    lines = "".join(json.dumps(row) + "\n" for row in WHOLE)
    source.write_text(json.dumps(WHOLE) if suffix == ".json" else lines)
    ended = cli(command, source, "-o", "out.json", *ARRAYS[command])
    assert ended.status == 0, ended.err
    found = json.loads((folder / "out.json").read_text())
    assert found == WHOLE
    assert [list(row)[:3] for row in found] == [["instruction", "input", "output"]] * 3
    assert type(found[0]["score"]) is int


@pytest.mark.parametrize("command", ["dedup", "decontaminate", "verify"])
def test_rows_of_other_forms_come_out_as_from_curate(cli: Cli, folder: Path, command: str) -> None:
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Say a word."},
             {"role": "assistant", "content": "Beacon."}]  # fmt: skip
    rows: list[dict[str, Any]] = [
        {"messages": turns, "id": 1, "meta": {"set": "x"}},
        {"conversations": [{"from": "human", "value": "Sort my list."}, {"from": "gpt", "value": "[1]"}], "lang": "en"},
        {"prompt": "Name a falcon.", "completion": "Kestrel.", "rank": 2},
    ]  # fmt: skip
    for number, row in enumerate(rows):
        (folder / "chat.jsonl").write_text(json.dumps(row) + "\n")
        for one in ("curate", command):
            ended = cli(one, "chat.jsonl", "-o", f"{one}{number}.json", *ARRAYS[one])
            assert ended.status == 0, ended.err
        found = (folder / f"{command}{number}.json").read_bytes()
        assert found == (folder / f"curate{number}.json").read_bytes()
        rest = {name: value for name, value in row.items() if name in {"id", "meta", "lang", "rank"}}
        assert rest.items() <= json.loads(found)[0].items()


def test_what_is_dropped_keeps_its_keys_and_comes_back_with_them(cli: Cli, folder: Path) -> None:
    near = {**ROWS[0], "instruction": ROWS[0]["instruction"] + " Then stop the timer and report twice."}
    rows = [{**ROWS[0], "id": 0}, {**near, "id": 1, "tags": ["late"]}, {**ROWS[1], "id": 2}]
    (folder / "ids.json").write_text(json.dumps(rows))
    assert cli("dedup", "ids.json", "-o", "out.json", "--threshold", 0.5, "--profile", "alpaca").status == 0
    assert [row["id"] for row in json.loads((folder / "out.json").read_text())] == [0, 2]
    assert cli("dedup", "--rethreshold", "--threshold", 0.95, "-o", "out.json").status == 0
    assert json.loads((folder / "out.json").read_text()) == rows
    (folder / "exam.jsonl").write_text(json.dumps({"prompt": near["instruction"]}))
    ended = cli("decontaminate", "ids.json", "--against", "exam.jsonl")
    assert rows[1] in [json.loads(line)["row"] for line in ended.out.splitlines()]


def test_a_programming_language_that_a_row_tells_counts_for_dedup(cli: Cli, folder: Path) -> None:
    ask = {"instruction": "Reverse the string that a beacon sends.", "input": "", "output": "x"}
    for told, kept in (
        (("python", "java"), 2),
        (("python", "Python"), 1),
        (("en", "de"), 1),
        ((1, ["a"]), 1),
    ):
        (folder / "in.json").write_text(json.dumps([{**ask, "language": one} for one in told]))
        assert cli("dedup", "in.json", "-o", "out.json").status == 0
        assert len(json.loads((folder / "out.json").read_text())) == kept


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
NAMES = st.sampled_from(["id", "lang", "meta", "kind", "source", "topic"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(NAMES, VALUES),
    st.sampled_from([{}, {"score": 3}, {"score": 0.5}, {"score": None}, {"score": "7"}, {"score": ""}]),
    st.sampled_from([{}, {"system": ""}, {"system": "s"}, {"system": None}, {"history": []}]),
)
def test_any_row_of_texts_and_other_keys_is_streamed_whole(
    tmp_path: Path, other: dict[str, Any], score: dict[str, Any], system: dict[str, Any]
) -> None:
    row = {**other, "output": "a", **score, "instruction": "b", "input": "c", **system}
    file = tmp_path / "row.json"
    file.write_text(json.dumps([row]))
    (found,) = stream_rows(file)
    assert found == row
    assert list(found)[:3] == ["instruction", "input", "output"]
    file.write_text(json.dumps([found]))
    assert list(stream_rows(file)) == [row]
    (example,) = read_examples(file)
    assert example.score == (float(score["score"]) if score.get("score") else None)
