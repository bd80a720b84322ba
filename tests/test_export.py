"""Exports: golden files of every format, round trips, rows that have no place, dataset folders and cards."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pyarrow as pa
import pytest
import yaml
from conftest import Ended, invented_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from selfinstruct.data import containers
from selfinstruct.data.chat_templates import find_template
from selfinstruct.data.export import FORMATS, Counts, Format, Plan, export, format_of
from selfinstruct.data.folder import write_folder
from selfinstruct.data.reading import BadRows, read_examples
from selfinstruct.data.rows import Example, Message, task
from selfinstruct.errors import InputError
from selfinstruct.journal import Commit
from selfinstruct.records import Candidate, Decision

Cli = Callable[..., Ended]
NAMES: dict[Format, str] = {
    "json": "o.json", "jsonl": "o.jsonl", "parquet": "o.parquet", "hf": "folder", "openai": "o.jsonl",
    "sharegpt": "o.json", "prompt-completion": "o.jsonl",
}  # fmt: skip
ROWS: list[dict[str, Any]] = [
    {"instruction": "Sort the list.", "input": "[2, 1]", "output": "[1, 2]"},
    {"instruction": "Gr\u00fc\u00dfe \U0001f600 </b>", "input": "", "output": 'print("x")\n\tif a:\r\n  b'},
    {"instruction": "And back?", "input": "x = [2]", "output": "x[::-1]", "system": "Be brief.",
     "history": [["Sort it.", "sorted(x)"]], "id": "a1", "score": 2},
]  # fmt: skip


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write(plan: Plan, bad: BadRows | None = None) -> Any:
    made = write_folder(plan, bad, lambda _: None) if plan.format == "hf" else export(plan, bad)
    if bad is not None:
        bad.close()
    return made


JSON_GOLDEN = """[
    {
        "instruction": "Sort the list.",
        "input": "[2, 1]",
        "output": "[1, 2]"
    },
    {
        "instruction": "Gr\\u00fc\\u00dfe \\ud83d\\ude00 </b>",
        "input": "",
        "output": "print(\\"x\\")\\n\\tif a:\\r\\n  b"
    }
]
"""


def test_golden_json_is_that_of_code_alpaca(tmp_path: Path) -> None:
    source = lines(tmp_path / "in.jsonl", ROWS[:2])
    write(Plan(source, tmp_path / "o.json", "json"))
    assert (tmp_path / "o.json").read_text() == JSON_GOLDEN
    assert (tmp_path / "o.json").read_text() == json.dumps(ROWS[:2], indent=4)[:-2].rstrip() + "\n]\n"
    write(Plan(lines(tmp_path / "none.jsonl", []), tmp_path / "o.json", "json"))
    assert (tmp_path / "o.json").read_text() == "[\n]\n"


def test_golden_lines(tmp_path: Path) -> None:
    source = lines(tmp_path / "in.jsonl", ROWS)
    write(Plan(source, tmp_path / "o.jsonl", "jsonl"))
    plain = {name: value for name, value in ROWS[2].items() if name not in {"id", "score"}}
    assert (tmp_path / "o.jsonl").read_text().splitlines() == [*map(json.dumps, ROWS[:2]), json.dumps(plain)]
    write(Plan(source, tmp_path / "o.jsonl", "jsonl", extra=True))
    found = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert found == ROWS


def test_golden_messages(tmp_path: Path) -> None:
    source = lines(tmp_path / "in.jsonl", ROWS)
    write(Plan(source, tmp_path / "o.jsonl", "openai"))
    assert (tmp_path / "o.jsonl").read_text().splitlines()[2] == (
        '{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Sort it."}, '
        '{"role": "assistant", "content": "sorted(x)"}, {"role": "user", "content": "And back?\\n\\nx = [2]"}, '
        '{"role": "assistant", "content": "x[::-1]"}]}'
    )
    write(Plan(source, tmp_path / "o.json", "sharegpt"))
    assert json.loads((tmp_path / "o.json").read_text())[0] == {
        "conversations": [
            {"from": "human", "value": "Sort the list.\n\n[2, 1]"},
            {"from": "gpt", "value": "[1, 2]"},
        ]
    }
    write(Plan(source, tmp_path / "s.jsonl", "sharegpt"))
    told = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert told == json.loads((tmp_path / "o.json").read_text())


def test_golden_prompt_completion(tmp_path: Path) -> None:
    source = lines(tmp_path / "in.jsonl", ROWS[:1])
    write(Plan(source, tmp_path / "o.jsonl", "prompt-completion"))
    assert json.loads((tmp_path / "o.jsonl").read_text()) == {
        "prompt": "Sort the list.\n\n[2, 1]",
        "completion": "[1, 2]",
    }
    write(Plan(source, tmp_path / "o.jsonl", "prompt-completion", find_template("oasst")))
    assert json.loads((tmp_path / "o.jsonl").read_text()) == {
        "prompt": "<|prompter|>Sort the list.\n\n[2, 1]</s><|assistant|>",
        "completion": "[1, 2]</s>",
    }


def test_templates_fill_a_text_column_and_flatten_a_history(tmp_path: Path) -> None:
    source = lines(tmp_path / "in.jsonl", ROWS)
    write(Plan(source, tmp_path / "o.parquet", "parquet", find_template("chatml")))
    (first, *_) = parquet.read_table(tmp_path / "o.parquet").to_pylist()
    assert first["text"].startswith("<|im_start|>user\nSort the list.\n\n[2, 1]<|im_end|>\n")
    write(Plan(source, tmp_path / "o.json", "json", find_template("alpaca-chat")))
    assert json.loads((tmp_path / "o.json").read_text())[2] == {
        "instruction": "Human: Sort it.\nAssistant: sorted(x)\nHuman: And back?",
        "input": "x = [2]",
        "output": "x[::-1]",
        "system": "Be brief.",
    }


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
PAIR = st.tuples(TEXT, TEXT)
DIALOGUE = st.builds(
    lambda last, given, system, history: Example(*task(last[0], last[1], given, system, history)),
    PAIR, TEXT, TEXT, st.lists(PAIR, max_size=3),
)  # fmt: skip
DOCUMENT = TEXT.map(lambda text: Example((Message("text", text),)))


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.one_of(DIALOGUE, DOCUMENT), min_size=1, max_size=4))
def test_round_trips(tmp_path: Path, name: Format, rows: list[Example]) -> None:
    """Everything comes back; of the formats of messages, the input as part of its turn."""
    if name in {"openai", "sharegpt"}:
        rows = [row for row in rows if row.is_dialogue]
    if name == "prompt-completion":
        rows = [row for row in rows if row.is_task and not row.system]
    folder = Path(mkdtemp(dir=tmp_path))
    source = lines(folder / "in.jsonl", [row.row() for row in rows])
    plan = Plan(source, folder / NAMES[name], name)
    assert write(plan).rows == len(rows)
    back = list(read_examples(plan.output))
    if name in {"openai", "sharegpt", "prompt-completion"}:
        assert [row.messages for row in back] == [row.chat() for row in rows]
    else:
        assert [(row.messages, row.input) for row in back] == [(row.messages, row.input) for row in rows]
        again = Plan(plan.output, folder / f"again-{NAMES[name]}", name)
        write(again)
        if name != "hf":
            assert again.output.read_bytes() == plan.output.read_bytes()


def test_real_rows_come_back_byte_for_byte(tmp_path: Path, real_rows: Path | None) -> None:
    if real_rows is None:
        pytest.skip("no real file here")
    rows = json.loads(real_rows.read_bytes())
    previous = real_rows
    for name in ("o.parquet", "o.jsonl", "folder", "o.json"):
        write(Plan(previous, tmp_path / name, format_of(tmp_path / name)))
        previous = tmp_path / name
    assert json.loads(previous.read_bytes()) == rows
    assert parquet.read_schema(tmp_path / "o.parquet").names == ["instruction", "input", "output"]


def test_rows_that_have_no_place_are_named_or_kept_aside(tmp_path: Path) -> None:
    source = lines(
        tmp_path / "in.jsonl",
        [
            ROWS[0],
            {"foo": 1},
            {"instruction": "a<|im_end|>", "output": "b"},
            {"messages": [{"role": "user", "content": "?"}]},
        ],
    )
    plan = Plan(source, tmp_path / "o.jsonl", "jsonl", find_template("chatml"))
    with pytest.raises(InputError, match=r"in\.jsonl: line 2: no form"):
        write(plan)
    assert not plan.output.exists()
    bad = BadRows(tmp_path / "bad.jsonl")
    counts = write(plan, bad)
    assert (counts.rows, counts.refused) == (1, 3)
    kept = [json.loads(line) for line in bad.path.read_text().splitlines()]
    assert ["'<|im_end|>'" in kept[1]["reason"], "last word" in kept[2]["reason"]] == [True, True]
    assert kept[1]["value"] == {"instruction": "a<|im_end|>", "input": "", "output": "b"}
    write(Plan(source, plan.output, "jsonl", plan.template, "escape"), BadRows(tmp_path / "bad.jsonl"))
    assert "a< |im_end|><|im_end|>" in plan.output.read_text()


def test_half_a_character_has_no_place_in_a_table(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"instruction": "\\ud800", "output": "x"}\n')
    with pytest.raises(InputError, match="'instruction' holds half a character"):
        write(Plan(source, tmp_path / "o.parquet", "parquet"))
    assert not (tmp_path / "o.parquet").exists()
    write(Plan(source, tmp_path / "o.json", "json"))
    assert json.loads((tmp_path / "o.json").read_text())[0]["instruction"] == "\ud800"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["-o", "o.csv"], "--format"),
        (["-o", "o.parquet", "--format", "json"], "ending in .json"),
        (["-o", "o.jsonl", "--format", "openai", "--template", "chatml"], "no place for a template"),
        (["-o", "o.json", "--template", "chatml"], "alpaca-chat alone"),
        (["-o", "o.json", "--template", "vicuna"], "no such template"),
        (["-o", "o.json", "--extra"], "jsonl"),
        (["-o", "o.jsonl", "--extra", "--template", "oasst"], "without a template"),
        (["-o", "in.jsonl"], "take the place"),
        (["-o", "full"], "already there"),
        (["-o", "o.json", "--public"], "--public"),
        (["-o", "o.json", "--licence", "MIT"], "--licence"),
        (["-o", "o.json", "--push", "me/x"], "--format hf"),
        (["-o", "new", "--push", "x"], "OWNER/NAME"),
        (["-o", "new", "--push", "me/x"], "HF_TOKEN"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    lines(tmp_path / "in.jsonl", ROWS[:1])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    ended = cli("export", "in.jsonl", *words)
    assert ended.status == 2
    assert part in ended.err
    assert len(ended.err.splitlines()) == 1
    assert (tmp_path / "in.jsonl").read_text() == json.dumps(ROWS[0]) + "\n"


def test_a_link_to_itself_is_one_line(cli: Cli, tmp_path: Path) -> None:
    loop = tmp_path / "loop.json"
    loop.symlink_to(loop)
    ended = cli("export", loop, "-o", tmp_path / "o.json")
    assert ended.status == 2
    assert "cannot read the dataset" in ended.err
    assert len(ended.err.splitlines()) == 1


def test_the_command_says_what_it_did(cli: Cli, tmp_path: Path) -> None:
    source = lines(tmp_path / "in.jsonl", [*ROWS, {"x": 1}])
    ended = cli("export", source, "-o", tmp_path / "o.jsonl", "--skip-bad")
    assert (ended.status, ended.out) == (0, "")
    assert "3 rows written" in ended.err
    assert "1 rows kept aside in" in ended.err
    assert (tmp_path / "o.jsonl.bad.jsonl").is_file()
    ended = cli("export", source, "-o", tmp_path / "o.jsonl", "--skip-bad", "--log-format", "json")
    assert json.loads(ended.err) == {"rows": 3, "refused": 1, "output": str(tmp_path / "o.jsonl")}
    dolphin = lines(tmp_path / "d.jsonl", [{"instruction": "Be brief.", "input": "q", "output": "a"}])
    assert cli("export", dolphin, "-o", tmp_path / "o.json", "--form", "dolphin").status == 0
    assert json.loads((tmp_path / "o.json").read_text())[0]["system"] == "Be brief."


def test_a_run_directory_does_not_overwrite_its_own_dataset(cli: Cli, tmp_path: Path) -> None:
    source = run_of(tmp_path, backend="local", model="smollm2-135m")
    before = source.read_bytes()
    assert cli("export", tmp_path / "x.run", "-o", source).status == 2
    assert source.read_bytes() == before


def front_matter(folder: Path) -> dict[str, Any]:
    text = (folder / "README.md").read_text()
    found = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def test_a_folder_of_a_run_tells_where_it_comes_from(cli: Cli, tmp_path: Path, replies: Path) -> None:
    output = tmp_path / "tasks.json"
    assert cli("generate", "--backend", "replay", "--model", replies, "-o", output, "-n", 30).status == 0
    ended = cli("export", output, "-o", tmp_path / "set", "--format", "hf")
    assert ended.status == 0, ended.err
    front = front_matter(tmp_path / "set")
    assert front["license"] == "unknown"
    assert "synthetic" in front["tags"]
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*"}]
    card = (tmp_path / "set" / "README.md").read_text()
    for part in ("| rows | 30 |", "tasks accepted", "too_similar", "under Apache-2.0", "`replies-in.jsonl`"):
        assert part in card
    assert str(tmp_path) not in card
    told = json.loads((tmp_path / "set" / "provenance.json").read_text())
    assert str(tmp_path) not in json.dumps(told)
    assert told["run"]["accepted"] == 30
    assert list(told["sources"]) == ["tasks.json"]
    assert [row.row() for row in read_examples(tmp_path / "set")] == json.loads(output.read_text())
    ended = cli("export", tmp_path / "tasks.run", "-o", tmp_path / "set2", "--licence", "cc-by-4.0")
    assert ended.status == 0, ended.err
    assert front_matter(tmp_path / "set2")["license"] == "cc-by-4.0"


def run_of(folder: Path, job: str = "generate", **settings: Any) -> Path:
    """A dataset with a run directory that says it was made so."""
    (folder / "x.json").write_text(json.dumps(ROWS[:1]))
    (folder / "x.run").mkdir(exist_ok=True)
    about = {"begun": 1, "job": job, "fingerprint": {}, "settings": {"num": 1, **settings}}
    decision = Decision(Candidate(*(ROWS[0][name] for name in ("instruction", "input", "output"))))
    lines(folder / "x.run" / "journal.jsonl", [Commit(0, 0, (decision,), done=True).line()])
    (folder / "x.run" / "run.json").write_text(json.dumps(about))
    return folder / "x.json"


@pytest.mark.parametrize(
    ("made", "licence", "note"),
    [
        ({"backend": "local", "model": "qwen2.5-coder-1.5b"}, "apache-2.0", "is under Apache-2.0"),
        ({"backend": "local", "model": "/models/mine.gguf"}, "unknown", "`mine.gguf`"),
        ({"backend": "openai", "model": "gpt-5-mini"}, "unknown", "train other models"),
        (
            {"backend": "local", "model": "smollm2-135m", "seeds": "/home/me/own.jsonl"},
            "unknown",
            "`own.jsonl`",
        ),
        ({"backend": "openai", "model": "x`\n# <script>|"}, "unknown", "x' # <script>/"),
    ],
)
def test_licence_notes_follow_from_model_and_seeds(
    tmp_path: Path, made: dict[str, Any], licence: str, note: str
) -> None:
    source = run_of(tmp_path, **made)
    write(Plan(source, tmp_path / "set", "hf"))
    assert front_matter(tmp_path / "set")["license"] == licence
    card = (tmp_path / "set" / "README.md").read_text()
    assert note in card
    assert "/home/me" not in card
    assert "\n# <script>" not in card


EMBEDDED = {"backend": "local", "model": "qwen2.5-coder-1.5b"}


def test_rows_of_others_have_no_licence_that_is_known(tmp_path: Path) -> None:
    source = run_of(tmp_path, **EMBEDDED)
    source.write_text(json.dumps([ROWS[0], {"instruction": "By hand", "input": "", "output": "x"}]))
    write(Plan(source, tmp_path / "set", "hf"))
    assert front_matter(tmp_path / "set")["license"] == "unknown"
    assert "1 rows were taken over or added by hand" in (tmp_path / "set" / "README.md").read_text()
    assert json.loads((tmp_path / "set" / "provenance.json").read_text())["run"]["rows_of_others"] == 1


def test_rows_made_of_given_rows_have_no_licence_that_is_known(tmp_path: Path) -> None:
    write(Plan(run_of(tmp_path, job="judge", **EMBEDDED), tmp_path / "set", "hf"))
    assert front_matter(tmp_path / "set")["license"] == "unknown"
    card = (tmp_path / "set" / "README.md").read_text()
    assert "made by `judge` of rows or code that were given" in card
    assert "seed tasks" not in card


def test_a_file_named_like_a_dataset_is_not_of_its_run(tmp_path: Path) -> None:
    run_of(tmp_path, **EMBEDDED)
    write(Plan(lines(tmp_path / "x.jsonl", ROWS[:1]), tmp_path / "set", "hf"))
    assert front_matter(tmp_path / "set")["license"] == "unknown"
    assert "No run directory stands beside the rows" in (tmp_path / "set" / "README.md").read_text()


def test_lengths_of_two_rows() -> None:
    counts = Counts()
    for length in (10, 30):
        counts.add(Example(*task("q", "x" * length)))
    assert counts.lengths()["answers"] == {"median": 20, "p90": 30, "longest": 30}


def test_licences_that_rows_tell_count(tmp_path: Path) -> None:
    source = lines(tmp_path / "in.jsonl", [{**ROWS[0], "license": "MIT"}])
    write(Plan(source, tmp_path / "set", "hf"))
    assert "1 rows say of themselves: `MIT`" in (tmp_path / "set" / "README.md").read_text()


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    source = lines(tmp_path / "in.jsonl", [*ROWS, {"x": 1}])
    with pytest.raises(InputError, match="line 4"):
        write(Plan(source, tmp_path / "set", "hf"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


def test_a_large_folder_has_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "SHARD_BYTES", 5000)
    monkeypatch.setattr(containers, "GROUP_BYTES", 1000)
    monkeypatch.setattr(containers, "_BATCH", 5)
    rows = invented_rows(90)
    write(Plan(lines(tmp_path / "in.jsonl", rows), tmp_path / "set", "hf"))
    names = sorted(path.name for path in (tmp_path / "set" / "data").iterdir())
    assert len(names) > 2
    assert names == [f"train-{at:05d}-of-{len(names):05d}.parquet" for at in range(len(names))]
    assert [row.row() for row in read_examples(tmp_path / "set")] == rows


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("pyarrow", ["export", "in.json", "-o", "o.parquet"]),
        ("pyarrow", ["export", "in.json", "-o", "folder"]),
        ("pyarrow", ["export", "in.parquet", "-o", "o.json"]),
        ("jinja2", ["export", "in.json", "-o", "o.jsonl", "--template", "t.jinja"]),
        ("huggingface_hub", ["export", "in.json", "-o", "folder", "--push", "me/x"]),
        ("tokenizers", ["tokenize", "in.json", "-o", "o", "--tokenizer", "t.json", "--template", "oasst"]),
    ],
)
def test_a_package_that_is_missing_is_one_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "x")
    (tmp_path / "in.json").write_text(json.dumps(ROWS[:1]))
    (tmp_path / "t.jinja").write_text("{{ messages }}")
    parquet.write_table(pa.table({"instruction": ["a"], "output": ["b"]}), tmp_path / "in.parquet")
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    ended = cli(*words)
    assert (ended.status, len(ended.err.splitlines())) == (2, 1)
    assert "selfinstruct[data]" in ended.err
