"""Every form and container of rows that is read, and one clear line for what is wrong with it."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from conftest import invented_rows
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from selfinstruct.data.forms import FORMS, example_of
from selfinstruct.data.oasst import grow_trees
from selfinstruct.data.reading import BadRows, read_examples
from selfinstruct.data.rows import Example, FormError, Message
from selfinstruct.dataset import read_dataset
from selfinstruct.errors import InputError

Q, A = Message("user", "Sort it."), Message("assistant", "sorted(x)")
SYSTEM = Message("system", "Be brief.")
SECOND = (Message("user", "And backwards?"), Message("assistant", "sorted(x)[::-1]"))
TURNS = [{"from": "human", "value": Q.content}, {"from": "gpt", "value": A.content}]
MESSAGES = [{"role": "user", "content": Q.content}, {"role": "assistant", "content": A.content}]
PLAIN = {"instruction": Q.content, "input": "", "output": A.content}


def parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text[:3]}, {"type": "text", "text": text[3:]}]


SAME: list[tuple[str, dict[str, Any]]] = [
    ("code_alpaca", PLAIN),
    ("no input", {"instruction": Q.content, "output": A.content}),
    ("null input", {**PLAIN, "input": None}),
    ("dolly", {"instruction": Q.content, "context": "", "response": A.content}),
    ("sharegpt", {"conversations": TURNS}),
    ("old sharegpt", {"items": TURNS}),
    ("sharegpt, processed", {"conversations": [{"from": turn["from"], "markdown": turn["value"]} for turn in TURNS]}),
    ("sharegpt, role and content", {"conversations": MESSAGES}),
    ("sharegpt, a table's cell", {"conversations": json.dumps(TURNS)}),
    ("openai", {"messages": MESSAGES}),
    ("openai beside a prompt", {"prompt": "Sort", "messages": MESSAGES}),
    ("openai, parts", {"messages": [{"role": m["role"], "content": parts(m["content"])} for m in MESSAGES]}),
    ("orca without system", {"system_prompt": "", "question": Q.content, "response": A.content}),
    ("prompt/completion", {"prompt": Q.content, "completion": A.content}),
    ("prompt/completion of messages", {"prompt": MESSAGES[:1], "completion": MESSAGES[1:]}),
    ("problem/solution", {"problem": Q.content, "solution": A.content}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row"), SAME, ids=[name for name, _ in SAME])
def test_the_same_task_in_every_form(name: str, row: dict[str, Any]) -> None:
    found = example_of(row)
    assert found.messages == (Q, A), name
    assert (found.input, found.is_task) == ("", True)
    assert found.row() == PLAIN


@pytest.mark.parametrize(
    "row",
    [
        {"system_prompt": "Be brief.", "question": Q.content, "response": A.content, "id": "flan.1"},
        {"system": "Be brief.", "question": Q.content, "response": A.content, "id": "flan.1"},
        {**PLAIN, "system": "Be brief.", "id": "flan.1"},
        {"messages": [{"role": "developer", "content": "Be brief."}, *MESSAGES], "id": "flan.1"},
        {"system": "Be brief.", "conversations": TURNS, "id": "flan.1"},
        {"conversations": [{"from": "system", "value": "Be brief."}, *TURNS], "id": "flan.1"},
    ],
)
def test_a_system_message_comes_first_and_other_fields_stay(row: dict[str, Any]) -> None:
    found = example_of(row)
    assert found.messages == (SYSTEM, Q, A)
    assert found.system == "Be brief."
    assert found.extra == {"id": "flan.1"}
    assert found.row() == {**PLAIN, "system": "Be brief."}


def test_dolphin_is_named_since_its_keys_mean_something_else() -> None:
    row = {"instruction": "Be brief.", "input": Q.content, "output": A.content}
    assert example_of(row, "dolphin").messages == (SYSTEM, Q, A)
    assert example_of({**row, "instruction": ""}, "dolphin").messages == (Q, A)
    read = example_of(row)
    assert (read.instruction, read.input) == ("Be brief.", Q.content)


def test_conversations_keep_their_history() -> None:
    found = example_of({**PLAIN, "instruction": "And backwards?", "output": "sorted(x)[::-1]",
                        "history": [[Q.content, A.content]], "system": "Be brief."})  # fmt: skip
    assert found.messages == (SYSTEM, Q, A, *SECOND)
    assert found.is_dialogue
    assert not found.is_task
    assert example_of(found.row()) == found


def test_what_is_no_dialogue_is_kept_as_messages() -> None:
    turns = [*MESSAGES, {"role": "tool", "content": "ok"}, {"role": "assistant", "content": "done"}]
    found = example_of({"messages": turns})
    assert not found.is_dialogue
    assert found.row() == {"messages": turns}
    document = example_of({"text": "Once upon a time", "meta": {"set": "x"}})
    assert document.is_document
    assert (document.row(), document.extra) == ({"text": "Once upon a time"}, {"meta": {"set": "x"}})


def test_regen_and_scores() -> None:
    regen = {**PLAIN, "most_similar_instructions": {"x": 0.2}, "avg_similarity_score": 0.05}
    assert set(example_of(regen).extra) == {"most_similar_instructions", "avg_similarity_score"}
    assert example_of({**PLAIN, "score": 3}).score == 3.0
    assert example_of({**PLAIN, "score": "0.5"}).score == 0.5
    assert example_of({**PLAIN, "score": ""}).score is None


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ([1], "a JSON array, where an object"),
        ({}, "no form of row has these fields: none"),
        ({"foo": 1}, "these fields: foo"),
        ({**PLAIN, "output": None}, "field 'output'"),
        ({**PLAIN, "output": 3}, "field 'output'"),
        ({**PLAIN, "input": 3}, "field 'input'"),
        ({**PLAIN, "history": [["x"]]}, "'history[0]'"),
        ({**PLAIN, "history": "[1"}, "'history'"),
        ({**PLAIN, "score": "much"}, "'score'"),
        ({**PLAIN, "score": True}, "'score'"),
        ({**PLAIN, "score": 10**400}, "'score'"),
        ({"messages": []}, "'messages'"),
        ({"messages": [{"role": "cat", "content": "x"}]}, "spoken by 'cat'"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "'messages[0]' is spoken by"),
        ({"messages": [*MESSAGES, {"role": "user"}]}, "'messages[2]' has no text"),
        ({"messages": [{"role": "assistant", "tool_calls": [1]}]}, "calls tools"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "part that is no text"),
        ({"conversations": ["hello"]}, "'conversations[0]' is a JSON string"),
        ({"system": "x", "conversations": [{"from": "system", "value": "y"}, *TURNS]}, "two system messages"),
        ({"question": "x"}, "field 'response'"),
        ({"prompt": {"replies": [], "text": "x", "role": "prompter"}}, "never answers"),
    ],
)
def test_what_is_wrong_is_named(row: Any, part: str) -> None:
    with pytest.raises(FormError) as error:
        example_of(row)
    assert part in str(error.value)


LEAF = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
NAMES = st.sampled_from(
    ["instruction", "input", "output", "system", "history", "messages", "conversations", "items", "role", "content",
     "from", "value", "prompt", "replies", "text", "rank", "labels", "completion", "question", "response", "score",
     "message_id", "message_tree_id", "parent_id"]
)  # fmt: skip
ROLES = st.sampled_from(["user", "assistant", "system", "prompter", "gpt", "human"])
ANYTHING = st.recursive(
    st.one_of(LEAF, ROLES),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=5)),
    max_leaves=20,
)


@settings(max_examples=120, deadline=None)
@example({"input": None, "output": None, "system": None}, "alpaca")
@given(st.dictionaries(NAMES, ANYTHING, max_size=6), st.sampled_from([None, *FORMS]))
def test_any_json_is_a_row_or_is_refused_in_words(value: dict[str, Any], form: Any) -> None:
    found, why = tried(value, form)
    assert (found is None) == bool(why)
    if found is not None:
        back, why = tried(json.loads(json.dumps(found.row())), None)
        assert back is not None, why
        assert (back.messages, back.input) == (found.messages, found.input)


def tried(value: Any, form: Any) -> tuple[Example | None, str]:
    try:
        return example_of(value, form), ""
    except FormError as error:
        return None, str(error)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(NAMES, ANYTHING, max_size=6), max_size=5))
def test_any_flat_export_gives_trees_or_words(rows: list[Any]) -> None:
    for _, tree in grow_trees(enumerate(rows)):
        if not isinstance(tree, FormError):
            found, why = tried(tree, "oasst")
            assert (found is None) == bool(why)


def node(text: str, role: str, rank: int | None, *replies: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"text": text, "role": role, "rank": rank, "replies": list(replies), **more}


TREE = {
    "message_tree_id": "t1",
    "tree_state": "ready_for_export",
    "prompt": node(
        "Sort it.",
        "prompter",
        None,
        node("deleted", "assistant", 0, deleted=True),
        node("refused", "assistant", 0, review_result=False),
        node("unranked", "assistant", None),
        node("second", "assistant", 2),
        node(
            "sorted(x)",
            "assistant",
            1,
            node("And backwards?", "prompter", None, node("sorted(x)[::-1]", "assistant", 0,
                 node("Thanks", "prompter", None), labels={"quality": {"value": 0.75, "count": 3}})),
        ),
        lang="en",
    ),
}  # fmt: skip


def flat(tree: dict[str, Any]) -> list[dict[str, Any]]:
    """The tree as one message a row, parents before children, as Open Assistant exports it."""
    rows: list[dict[str, Any]] = []

    def walk(at: dict[str, Any], parent: str | None) -> None:
        name = f"{tree['message_tree_id']}.{len(rows)}"
        row = {key: value for key, value in at.items() if key != "replies"}
        rows.append(
            {**row, "message_id": name, "parent_id": parent, "message_tree_id": tree["message_tree_id"]}
        )
        for reply in at["replies"]:
            walk(reply, name)

    walk(tree["prompt"], None)
    return rows


def test_the_best_path_of_a_tree_nested_and_flat(tmp_path: Path) -> None:
    found = example_of(TREE)
    assert found.messages == (Q, A, *SECOND)
    assert (found.score, found.extra["lang"]) == (0.75, "en")
    file = tmp_path / "flat.jsonl"
    more = flat({**TREE, "message_tree_id": "t2"})
    file.write_text("".join(json.dumps(row) + "\n" for row in [*flat(TREE), *more, flat(TREE)[0]]))
    bad = BadRows(tmp_path / "bad.jsonl")
    read = list(read_examples(file, skip_bad=bad))
    bad.close()
    assert [each.messages for each in read] == [found.messages] * 2
    assert [each.number for each in read] == [1, 1 + len(more)]
    assert bad.count == 1
    assert "sort by message_tree_id" in bad.path.read_text()


def test_labels_of_the_hub_form() -> None:
    tree = {"prompt": node("q", "prompter", None, node("a", "assistant", 0, labels={
        "name": ["spam", "quality"], "value": [0.0, 0.5], "count": [3, 3]}))}  # fmt: skip
    assert example_of(tree).score == 0.5


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        table.writeheader()
        table.writerows(rows)


def write_container(folder: Path, name: str, rows: list[dict[str, str]]) -> Path:
    path = folder / name
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    table = pa.Table.from_pylist(rows)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress((json.dumps(rows) if ".json." in name else lines).encode()))
    elif name.endswith(".json"):
        path.write_text(json.dumps(rows, indent=4))
    elif name.endswith((".jsonl", ".ndjson", ".txt")):
        path.write_text("\ufeff" + lines.rstrip("\n"), encoding="utf-8")
    elif name.endswith(("csv", "tsv")):
        write_csv(path, rows)
    elif name.endswith(".parquet"):
        parquet.write_table(table, path, row_group_size=7)
    else:
        new = pa.ipc.new_stream if name == "stream.arrow" else pa.ipc.new_file
        with new(str(path), table.schema) as sink:
            sink.write_table(table, max_chunksize=7)
    return path


CONTAINERS = [
    "a.json", "a.json.gz", "a.jsonl", "a.jsonl.gz", "a.ndjson", "lines.txt", "a.csv", "a.tsv", "a.parquet",
    "stream.arrow", "file.arrow",
]  # fmt: skip


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    rows = invented_rows(30)
    rows[3]["output"] = 'a,"b"\n\tc\u2028d\r\ne'
    path = write_container(tmp_path, name, rows)
    read = list(read_examples(path))
    assert [each.row() for each in read] == rows
    first = 0 if name in {"a.json", "a.json.gz", "a.parquet", "stream.arrow", "file.arrow"} else 1
    if "csv" not in name and "tsv" not in name:
        assert [each.number for each in read] == list(range(first, first + 30))
    assert {each.source for each in read} == {str(path)}
    assert read_dataset(path) == rows


@pytest.mark.parametrize("name", CONTAINERS)
def test_bad_rows_are_named_or_kept_aside(tmp_path: Path, name: str) -> None:
    rows: list[Any] = invented_rows(5)
    path = write_container(tmp_path, name, rows)
    bad = BadRows(tmp_path / "out.bad.jsonl")
    assert len(list(read_examples(path, skip_bad=bad))) == 5
    assert not bad.path.exists()
    rows = [{**row, "score": "ugly" if at == 2 else "1"} for at, row in enumerate(rows)]
    path = write_container(tmp_path, name, rows)
    with pytest.raises(InputError) as error:
        list(read_examples(path))
    assert str(path) in str(error.value)
    assert "'score'" in str(error.value)
    read = list(read_examples(path, skip_bad=bad))
    bad.close()
    assert [each.instruction for each in read] == [row["instruction"] for row in rows if row["score"] == "1"]
    (line,) = map(json.loads, bad.path.read_text().splitlines())
    assert line["value"]["instruction"] == rows[2]["instruction"]
    assert (line["source"], bad.count) == (str(path), 1)


def test_lines_and_tables_that_are_broken_in_the_middle(tmp_path: Path) -> None:
    lines, table = tmp_path / "a.jsonl", tmp_path / "a.csv"
    lines.write_bytes(
        json.dumps(PLAIN).encode() + b'\n{"instruction": "x\n\xff\xfe\n' + json.dumps(PLAIN).encode()
    )
    table.write_text("instruction,output\na,b\na,b,c\na\nd,e\n")
    bad = BadRows(tmp_path / "bad.jsonl")
    assert len(list(read_examples(lines, skip_bad=bad))) == 2
    assert [each.instruction for each in read_examples(table, skip_bad=bad)] == ["a", "d"]
    bad.close()
    kept = [json.loads(line) for line in bad.path.read_text().splitlines()]
    assert [line["line"] for line in kept] == [2, 3, 3, 4]
    assert kept[0]["value"] == '{"instruction": "x\n'
    with pytest.raises(InputError, match=r"a\.jsonl: line 2: not JSON"):
        list(read_examples(lines))
    with pytest.raises(InputError, match=r"a\.csv: line 3: 3 cells"):
        list(read_examples(table))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", b"[1, 2"),
        ("a.json.gz", gzip.compress(b"[]" * 9000, mtime=0)[:40]),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n"),
        ("a.parquet", b"PAR1 and then nothing"),
        ("a.arrow", b"ARROW1 and then nothing"),
        ("a.arrow", b"\xff\xff\xff\xff\x10\x00\x00\x00abc"),
        ("a.csv", b'instruction,output\n"a,b\n'),
        ("a.csv", b"instruction,output\n\xff,b\n"),
        ("a.txt", b"hello"),
    ],
)
def test_a_file_that_is_broken_is_one_line(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    bad = BadRows(tmp_path / "bad.jsonl")
    with pytest.raises(InputError) as error:
        list(read_examples(path, skip_bad=bad))
    bad.close()
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.tsv"])
def test_an_empty_file_of_lines_has_no_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("[]" if name == "a.json" else "")
    assert list(read_examples(path)) == []


def test_a_folder_as_it_stands_on_a_hub(tmp_path: Path) -> None:
    rows = invented_rows(12)
    (tmp_path / "data").mkdir()
    (tmp_path / ".git").mkdir()
    write_container(tmp_path / ".git", "x.json", rows)
    (tmp_path / "README.md").write_text("---\n---\n")
    for at, name in enumerate(
        ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test.jsonl.gz"]
    ):
        write_container(tmp_path / "data", name, rows[4 * at : 4 * at + 4])
    assert [each.row() for each in read_examples(tmp_path)] == rows[:8]
    assert [each.row() for each in read_examples(tmp_path, split="test")] == rows[8:]
    with pytest.raises(InputError, match="name one of test, train"):
        list(read_examples(tmp_path, split="validation"))


def test_folders_that_were_saved_to_the_disk(tmp_path: Path) -> None:
    rows = invented_rows(8)
    for at, split in enumerate(["train", "validation"]):
        (tmp_path / "set" / split).mkdir(parents=True)
        write_container(tmp_path / "set" / split, "stream.arrow", rows[4 * at : 4 * at + 4])
        (tmp_path / "set" / split / "state.json").write_text(
            '{"_data_files": [{"filename": "stream.arrow"}]}'
        )
        (tmp_path / "set" / split / "dataset_info.json").write_text("{}")
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    assert [each.row() for each in read_examples(tmp_path / "set")] == rows[:4]
    assert [each.row() for each in read_examples(tmp_path / "set" / "validation")] == rows[4:]
    assert [each.row() for each in read_examples(tmp_path / "set", split="validation")] == rows[4:]
    (tmp_path / "set" / "dataset_dict.json").write_text("[]")
    with pytest.raises(InputError, match="cannot be read"):
        list(read_examples(tmp_path / "set"))


def test_a_run_directory_is_its_dataset(tmp_path: Path) -> None:
    write_container(tmp_path, "tasks.json", invented_rows(3))
    (tmp_path / "tasks.run").mkdir()
    (tmp_path / "tasks.run" / "journal.jsonl").write_text("{}\n")
    assert [each.row() for each in read_examples(tmp_path / "tasks.run")] == invented_rows(3)


def test_single_tasks_are_wanted_where_rows_are_compared(tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"conversations": TURNS * 2}))
    with pytest.raises(InputError, match="several turns"):
        read_dataset(path)
    path.write_text(json.dumps({"text": "x"}))
    with pytest.raises(InputError, match="without a task"):
        read_dataset(path)


def test_the_real_file(real_rows: Path | None) -> None:
    if real_rows is None:
        pytest.skip("no real file here")
    assert [each.row() for each in read_examples(real_rows)] == json.loads(real_rows.read_bytes())


def test_forms_are_all_there() -> None:
    for form in FORMS:
        with pytest.raises(FormError):
            example_of({}, form)


def test_ids_and_the_chat_form() -> None:
    one = Example((SYSTEM, Q, A), "x = [2, 1]")
    assert one.chat() == (SYSTEM, Message("user", "Sort it.\n\nx = [2, 1]"), A)
    assert one.id() != Example((Q, A), "x = [2, 1]").id()
    assert Example((Q, A), "x").id() == Example((Q, A), "x", 1.0, {"id": 1}, "file", 3).id()


def test_cells_of_tables_become_values_that_json_has(tmp_path: Path) -> None:
    day, moment = dt.date(2024, 1, 31), dt.datetime(2024, 1, 31, 2, 3, 4)  # noqa: DTZ001 - as tables have it
    other = {
        "day": pa.array([day, None]),
        "moment": pa.array([moment, None]),
        "amount": pa.array([Decimal("1.50"), None]),
        "number": pa.array([float("nan"), float("inf")]),
        "text": pa.array([b"caf\xc3\xa9", b"\xff\x00"]),
        "deep": pa.array([{"when": day, "parts": [1.5, float("nan")]}, None]),
        "pairs": pa.array([[("a", 1.0)], []], pa.map_(pa.string(), pa.float64())),
        "score": pa.array([float("nan"), 2.0]),
    }
    table = pa.table({"instruction": ["a", "b"], "output": ["c", "d"], **other})
    parquet.write_table(table, tmp_path / "a.parquet")
    one, two = read_examples(tmp_path / "a.parquet")
    assert one.extra == {
        "day": "2024-01-31",
        "moment": "2024-01-31T02:03:04",
        "amount": "1.50",
        "text": "caf\u00e9",
        "deep": {"when": "2024-01-31", "parts": [1.5, None]},
        "pairs": [["a", 1.0]],
    }
    assert two.extra == {"text": "/wA=", "pairs": []}
    assert (one.score, two.score) == (None, 2.0)
    json.dumps([one.extra, two.extra], allow_nan=False)


def test_times_that_python_lacks_are_text(tmp_path: Path) -> None:
    fine, far = pa.array([1], pa.timestamp("ns")), pa.array([10**12], pa.timestamp("s"))
    parquet.write_table(pa.table({"text": ["a"], "fine": fine, "far": far}), tmp_path / "a.parquet")
    (row,) = read_examples(tmp_path / "a.parquet")
    assert row.extra["fine"] == "1970-01-01 00:00:00.000000001"
    assert "out of range" in row.extra["far"]


def test_text_in_a_table_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    text = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
    )
    parquet.write_table(pa.table({"text": text}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="broken Parquet data"):
        list(read_examples(tmp_path / "a.parquet"))
