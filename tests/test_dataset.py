from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct.dataset import (
    FIELDS,
    DatasetFile,
    Layout,
    check_row,
    dataset_of,
    parse_rows,
    read_dataset,
    run_directory_of,
)
from selfinstruct.errors import InputError, StoppedEarly
from selfinstruct.records import Row, row_id

TEXT = st.text(st.characters(), max_size=40)  # lone surrogates among them
ROW = st.tuples(TEXT, TEXT, TEXT).map(lambda texts: dict(zip(FIELDS, texts, strict=True)))
OLD: list[Row] = [
    {"instruction": "Say \u201chello\u201d.", "input": "", "output": 'print("hello")\n]'},
    {"instruction": "\ud83d alone", "input": "[1, 2]", "output": "\U0001f600 \u2028 end"},
]
NEW: list[Row] = [{"instruction": "New \u00fc", "input": "a\tb", "output": "}\n]\r\n"}]


def told(error: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def forms(rows: list[Row]) -> dict[str, bytes]:
    """The same rows in the layouts that datasets come in."""
    four = json.dumps(rows, indent=4).encode()
    plain = [{name: text.replace("\ud83d", "x") for name, text in row.items()} for row in rows]
    return {
        "four": four,
        "four with line end": four + b"\n",
        "six": json.dumps(rows, indent=6).encode(),
        "tab": json.dumps(rows, indent="\t").encode(),
        "one line": json.dumps(rows).encode() + b"\n",
        "compact": json.dumps(rows, separators=(",", ":")).encode(),
        "a row a line": b"[" + b",\n".join(json.dumps(row).encode() for row in rows) + b"]\n\n",
        "byte order mark": b"\xef\xbb\xbf" + four,
        "carriage returns": json.dumps(rows, indent=2).replace("\n", "\r\n").encode() + b"\r\n",
        "white space around": b" \n\t\r\n" + json.dumps(rows, indent=4).encode() + b" \n\t \r\n",
        "white space inside": b"[ \n" + four[1:-1] + b"\n\n\n\n    ]\n\n\n",
        "unescaped": json.dumps(plain, indent=4, ensure_ascii=False).encode(),
        "more fields": json.dumps(
            [{"id": 7, **row, "extra": [1, {"]": None}]} for row in rows], indent=1
        ).encode(),
        "other order": json.dumps([dict(reversed(row.items())) for row in rows], indent=4).encode(),
    }


def head(data: bytes) -> bytes:
    """All up to the end of the last row (or of the opening bracket)."""
    return data[: data.rindex(b"]")].rstrip()


def rows_of(path: Path) -> list[Any]:
    loaded: list[Any] = json.loads(path.read_bytes().decode("utf-8-sig"))
    return loaded


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("name", forms(OLD))
def test_a_file_of_any_layout_is_taken_over_with_its_old_bytes(tmp_path: Path, name: str, count: int) -> None:
    data = forms(OLD[:count])[name]
    path = tmp_path / "data.json"
    path.write_bytes(data)
    before = rows_of(path)
    file = DatasetFile(path)
    loaded = file.load()
    assert loaded == [{field: row[field] for field in ("instruction", "input", "output")} for row in before]
    assert path.read_bytes() == data
    for step in ([], NEW, [], NEW + OLD):
        before += step
        file.append(step)
        written = path.read_bytes()
        assert written.startswith(head(data))
        assert rows_of(path) == before
        assert file.unchanged()
        data = written
    assert data.endswith(b"\n]\n")
    assert DatasetFile(path).load() == parse_rows(path, data)
    assert [found.name for found in tmp_path.iterdir()] == ["data.json"]


@settings(max_examples=50, deadline=None)
@given(st.lists(ROW, max_size=3), st.lists(st.lists(ROW, max_size=3), max_size=3))
def test_rows_of_any_text_come_back_and_the_file_is_as_json_would_write_it(
    first: list[Row], more: list[list[Row]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.json"
        file = DatasetFile(path)
        assert file.load() is None
        file.create()
        everything: list[Row] = []
        for rows in [first, *more]:
            before = head(path.read_bytes())
            file.append(rows)
            everything += rows
            assert path.read_bytes().startswith(before)
            assert read_dataset(path) == everything
        if everything:
            assert path.read_bytes() == json.dumps(everything, indent=4).encode() + b"\n"
        again = DatasetFile(path)
        assert again.load() == everything
        again.append(NEW)
        assert read_dataset(path) == everything + NEW


@settings(max_examples=50, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=3), st.integers(0, 9))
def test_the_indent_that_is_there_is_gone_on_with(rows: list[Row], indent: int) -> None:
    data = json.dumps(rows, indent=indent)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.json"
        path.write_text(data)
        file = DatasetFile(path)
        file.load()
        file.append(NEW)
        assert path.read_text() == json.dumps(rows + NEW, indent=indent) + "\n"


def test_a_row_is_written_as_json_writes_it() -> None:
    assert "[\n" + Layout().render(NEW[0]) + "\n]" == json.dumps(NEW, indent=4)
    assert "[\n" + Layout(1, 2).render(NEW[0]) + "\n]" == json.dumps(NEW, indent=1)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "line 1, column 1"),
        (b"   ", "not a JSON array"),
        (b"hello", "not a JSON array (line 1, column 1"),
        (b'[\n{"instruction": "a", "inp', "line 2, column"),
        (json.dumps(OLD, indent=4).encode()[:-1], "was it cut?"),
        (b"{}", "a JSON object"),
        (b'"text"', "a JSON string"),
        (b"12", "a JSON number"),
        (b"1.5", "a JSON number"),
        (b"null", "a JSON null"),
        (b"true", "a JSON truth value"),
        (b"[1]", "row 0: a JSON number"),
        (b"[[]]", "row 0: a JSON array"),
        (b'[{"instruction": "a", "output": "b"}, null]', "row 1: a JSON null"),
        (b'[{"instruction": "a", "output": "b"}, {"instruction": "c"}]', "row 1: the field 'output'"),
        (b'[{"output": "b"}]', "row 0: the field 'instruction'"),
        (b'[{"instruction": "a", "input": null, "output": "b"}]', "row 0: the field 'input'"),
        (b'[{"instruction": "a", "output": ["b"]}]', "row 0: the field 'output'"),
        (b'["\xff"]', "not UTF-8 at byte 2"),
        (b"\xff\xfe[\x00]\x00", "not UTF-8 at byte 0"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b"[" + b"1" * 5000 + b"]", "a number"),
        (b"[] []", "not a JSON array"),
    ],
    ids=range(23),
)
def test_what_is_no_dataset_is_one_line_and_is_left_alone(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(data)
    file = DatasetFile(path)
    with pytest.raises(InputError) as error:
        file.load()
    assert told(error).startswith(str(path))
    assert words in told(error)
    assert path.read_bytes() == data
    assert not file.unchanged()


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=60) | st.text("[]{},:\"'0123456789.eE+- \n\\nulltrefas", max_size=40).map(str.encode)
)
def test_no_bytes_bring_anything_but_rows_or_an_input_error(data: bytes) -> None:
    try:
        rows = parse_rows(Path("x.json"), data)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017 - any bytes may be a dataset
    else:
        assert all(set(row) == {"instruction", "input", "output"} for row in rows)


def test_a_cut_file_is_told_wherever_it_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    data = json.dumps(OLD, indent=4).encode()
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        with pytest.raises(InputError):
            DatasetFile(path).load()


def test_a_missing_input_is_empty_and_other_fields_are_left_out() -> None:
    assert check_row({"output": "o", "instruction": "i", "id": 3}, "here") == {
        "instruction": "i",
        "input": "",
        "output": "o",
    }


def test_an_edit_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    file = DatasetFile(path)
    assert not file.unchanged()
    file.create()
    assert file.unchanged()
    file.append(OLD)
    assert file.unchanged()
    path.write_text(path.read_text().replace("hello", "bye"))
    assert not file.unchanged()
    file.load()
    assert file.unchanged()
    other = tmp_path / "other"  # the same size, put in its place as editors do
    other.write_bytes(path.read_bytes()[::-1])
    other.replace(path)
    assert not file.unchanged()
    path.unlink()
    assert not file.unchanged()
    assert file.load() is None


def test_an_edit_during_loading_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(OLD))
    read = Path.read_bytes

    def slow(self: Path) -> bytes:
        data = read(self)
        self.write_text(json.dumps(OLD + NEW))
        return data

    file = DatasetFile(path)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", slow)
        assert file.load() == OLD
    assert not file.unchanged()


@pytest.mark.parametrize("where", ["fsync", "replace", "copy"])
def test_a_full_disk_leaves_the_old_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(OLD))
    file = DatasetFile(path)
    file.load()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        if where == "copy":
            patched.setattr("selfinstruct.dataset.shutil.copyfile", full)
        else:
            patched.setattr(os if where == "fsync" else Path, where, full)
        with pytest.raises(StoppedEarly) as error:
            file.append(NEW)
    assert str(path) in told(error)
    assert path.read_text() == json.dumps(OLD)
    assert [found.name for found in tmp_path.iterdir()] == ["data.json"]
    file.append(NEW)
    assert read_dataset(path) == OLD + NEW


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n  \n"])
def test_jsonl_is_read_to_its_last_line(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\n".join(json.dumps(row).encode() for row in OLD) + end)
    assert read_dataset(path) == OLD
    named_json = tmp_path / "data.json"
    named_json.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_dataset(named_json) == OLD
    one = tmp_path / "one.jsonl"
    one.write_bytes(json.dumps(OLD[0]).encode() + end)
    assert read_dataset(one) == OLD[:1]


@pytest.mark.parametrize("bad", ['{"instruction": "a", "out', "nonsense", "[]", '{"instruction": "a"}'])
@pytest.mark.parametrize("last", [False, True])
def test_a_bad_line_of_jsonl_is_told_wherever_it_stands(tmp_path: Path, bad: str, last: bool) -> None:
    path = tmp_path / "data.jsonl"
    good = json.dumps(OLD[0])
    path.write_text("\n".join([good, bad] if last else [good, bad, good]))
    with pytest.raises(InputError) as error:
        read_dataset(path)
    assert f"{path}: line 2" in told(error)


def test_a_dataset_is_found_by_its_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my.code.json"
    path.write_text(json.dumps(OLD))
    run = run_directory_of(path)
    assert run == tmp_path / "my.code.run"
    assert dataset_of(run) == path
    run.mkdir()
    assert read_dataset(run) == OLD
    monkeypatch.chdir(run)
    assert read_dataset(Path()) == OLD


@pytest.mark.parametrize("name", ["nothing.json", "nothing.jsonl", ".", "folder", "/"])
def test_a_dataset_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        read_dataset(Path(name))
    assert (
        "cannot read the dataset" in told(error) or name == "/"
    )  # what stands there is the machine's matter


def test_a_folder_in_place_of_the_dataset_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        DatasetFile(tmp_path).load()
    assert told(error).startswith(f"{tmp_path}: cannot read")


@given(st.lists(ROW, min_size=2, max_size=6, unique_by=lambda row: tuple(row.values())))
def test_rows_are_named_by_their_texts(rows: list[Row]) -> None:
    assert len({row_id(row) for row in rows}) == len(rows)
    assert row_id(dict(reversed(rows[0].items()))) == row_id(rows[0])


def test_the_real_file_is_gone_on_with_byte_for_byte(tmp_path: Path, real_rows: Path | None) -> None:
    path = tmp_path / "data.json"
    data = real_rows.read_bytes() if real_rows else json.dumps(OLD * 500, indent=4).encode()
    path.write_bytes(data)
    file = DatasetFile(path)
    rows = file.load() or []
    file.append(NEW)
    assert path.read_bytes().startswith(head(data))
    assert read_dataset(path) == rows + NEW
