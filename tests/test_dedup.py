from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct import dedup
from selfinstruct.dataset import read_dataset
from selfinstruct.errors import InputError
from selfinstruct.novelty import make
from selfinstruct.records import Row

LONG = "def walk(node):\n    if node is None:\n        return []\n    return walk(node.left) + [node]\n" * 2


def row(instruction: str, output: str = "x", input_: str = "") -> Row:
    return {"instruction": instruction, "input": input_, "output": output}


ASKS = [
    "sort the numbers of a list quickly",
    "sort the numbers of a long list quickly",
    "sort all numbers of a long list quickly please now",
    "sort the names of a long list quickly please",
    "reverse a string",
    "reverse a string in Java",
    "reverse a string in Rust",
    "reverse a string in Go code",
    "walk a tree",
    "",
]
ROWS = st.lists(
    st.builds(row, st.sampled_from(ASKS), st.sampled_from(["x", "xyz", LONG, LONG + "#"])), max_size=14
)


def expected(rows: list[Row], profile: str, threshold: float, keep: str) -> list[Row]:
    """What a pool that only takes what is new keeps."""
    order = list(range(len(rows)))
    if keep == "longest":
        order.sort(key=lambda number: -sum(map(len, rows[number].values())))
    rule, kept = make(profile, threshold, 2), []
    for number in order:
        task = rows[number]["instruction"], rows[number]["input"], rows[number]["output"]
        if rule.duplicate_of(*task) is None:
            rule.add(*task)
            kept.append(number)
    return [rows[number] for number in sorted(kept)]


@given(
    ROWS,
    st.sampled_from(["alpaca", "code"]),
    st.sampled_from(["first", "longest"]),
    st.sampled_from([0.5, 0.6, 0.7]),
)
@settings(max_examples=50, deadline=None)
def test_keeps_what_a_pool_would_take_and_rethresholds_exactly(
    rows: list[Row], profile: str, keep: Any, threshold: float
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(dedup, "_BATCH", 5)
        output, record = Path(folder) / "out.json", Path(folder) / "out.run" / "dedup.jsonl"
        made = dedup.dedup(
            rows, output, record, profile=profile, threshold=threshold, language_cap=2, keep=keep
        )
        assert read_dataset(output) == expected(rows, profile, threshold, keep)
        assert (made.rows, made.kept) == (len(rows), len(read_dataset(output)))
        for other in (0.9, 0.75, threshold):
            again = dedup.rethreshold(read_dataset(output), output, record, other)
            assert read_dataset(output) == expected(rows, profile, other, keep)
            assert (again.threshold, again.lowest, again.kept) == (
                other,
                threshold,
                len(read_dataset(output)),
            )


def test_the_record_names_the_nearest_kept_row(tmp_path: Path) -> None:
    rows = [
        row("Reverse a string"),
        row("Walk a tree"),
        row("Reverse the string"),
        row("Reverse a string!", "other"),
    ]
    seen: list[tuple[int, int]] = []
    dedup.dedup(rows, tmp_path / "o.json", tmp_path / "r.jsonl", progress=lambda *at: seen.append(at))
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [(line["number"], line["nearest"], line["score"]) for line in lines[:-1]] == [
        (2, 0, 1.0),
        (3, 0, 1.0),
    ]
    assert lines[0]["row"] == rows[2]
    assert lines[-1]["summary"]["kept"] == 2
    assert seen == [(1, 0), (2, 0), (3, 1), (4, 2)]


def test_the_language_a_row_tells_counts(tmp_path: Path) -> None:
    rows = [row("Reverse a string") | {"language": language} for language in ("python", "java", "python")]
    made = dedup.dedup(rows, tmp_path / "o.json", tmp_path / "r.jsonl")
    assert made.kept == 2


def test_rows_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup, "_BATCH", 100)
    written: list[int] = []

    def rows() -> Any:
        for number in range(2000):
            written.append(sum(path.stat().st_size for path in tmp_path.glob(".*.part")))
            yield row(f"word{number} thing{number} what{number}", "y" * 100)

    dedup.dedup(rows(), tmp_path / "o.json", tmp_path / "r.jsonl")
    assert written[-1] > 100_000  # most of it was on the disk before the last row was asked for


def test_nothing_is_left_or_replaced_when_the_rows_break_off(tmp_path: Path) -> None:
    (tmp_path / "o.json").write_text("[]")

    def rows() -> Any:
        yield row("one")
        raise InputError("in.json: row 1: broken")

    with pytest.raises(InputError, match="row 1"):
        dedup.dedup(rows(), tmp_path / "o.json", tmp_path / "r.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["o.json"]
    assert (tmp_path / "o.json").read_text() == "[]"


def test_wrong_use_ends_in_one_line(tmp_path: Path) -> None:
    output, record = tmp_path / "o.json", tmp_path / "r.jsonl"
    with pytest.raises(InputError, match="threshold 1"):
        dedup.dedup([], output, record, threshold=1)
    with pytest.raises(InputError, match="no record"):
        dedup.rethreshold([], output, record, 0.8)
    dedup.dedup([row("a b c"), row("d e f")], output, record, threshold=0.6)
    with pytest.raises(InputError, match=r"from 0\.6 to below 1"):
        dedup.rethreshold(read_dataset(output), output, record, 0.5)
    for rows in ([row("a b c")], [row("a b c")] * 3):
        with pytest.raises(InputError, match="not the 2 rows"):
            dedup.rethreshold(rows, output, record, 0.7)
    (tmp_path / "a file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        dedup.dedup([], tmp_path / "a file" / "o.json", record)


def test_an_empty_dataset(tmp_path: Path) -> None:
    dedup.dedup([], tmp_path / "o.json", tmp_path / "r.jsonl")
    assert read_dataset(tmp_path / "o.json") == []
