"""`selfinstruct dedup` on files of every accepted form, and the streaming reader beneath it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, invented_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfinstruct.dataset import read_dataset, stream_dataset
from selfinstruct.errors import InputError

Cli = Callable[..., Ended]
TEXTS = st.text(max_size=40)
ROWS = st.lists(st.fixed_dictionaries({"instruction": TEXTS, "input": TEXTS, "output": TEXTS}), max_size=6)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, st.integers(1, 30), st.sampled_from([None, 2, 6]), st.booleans())
def test_an_array_is_read_in_pieces_of_any_size(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: list[dict[str, str]],
    piece: int,
    indent: int | None,
    ascii_: bool,
) -> None:
    monkeypatch.setattr("selfinstruct.dataset._PIECE", piece)
    file = tmp_path / "rows.json"
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii_)
    file.write_bytes(text.encode("utf-8", "replace"))
    assert list(stream_dataset(file)) == json.loads(file.read_bytes())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS.filter(bool), st.data())
def test_an_array_that_was_cut_or_goes_on_is_one_line(
    tmp_path: Path, rows: list[dict[str, str]], data: Any
) -> None:
    text = json.dumps(rows)
    file = tmp_path / "rows.json"
    place = data.draw(st.integers(1, len(text) - 1))
    file.write_text(text[:place])
    with pytest.raises(InputError, match=r"rows\.json"):
        list(stream_dataset(file))
    file.write_text(text + " x")
    with pytest.raises(InputError, match="after the end"):
        list(stream_dataset(file))


def test_dedup_reads_every_form_and_says_what_it_dropped(cli: Cli, tmp_path: Path) -> None:
    rows = invented_rows(30)
    array, lines, output = tmp_path / "a.json", tmp_path / "b.jsonl", tmp_path / "out.json"
    array.write_text(json.dumps([{**row, "avg_similarity_score": 0.1} for row in rows[:20]]))
    lines.write_text("\n".join(json.dumps(row) for row in [*rows[20:], rows[3], rows[21]]))
    ended = cli("dedup", array, lines, "-o", output)
    assert ended.status == 0, ended.err
    assert read_dataset(output) == rows
    assert "32 rows read, 30 kept" in ended.err
    record = [
        json.loads(line)
        for line in output.with_suffix(".run").joinpath("dedup.jsonl").read_text().splitlines()
    ]
    assert {(line["number"], line["alike"][0][0]) for line in record if line.get("row")} == {
        (30, 3),
        (31, 21),
    }
    assert all(line["alike"][0][1] == 1.0 for line in record if line.get("row"))


def test_rethreshold_compares_nothing_and_gives_the_same(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = invented_rows(12)
    rows = base + [
        row | {"instruction": row["instruction"] + " Then stop the timer and report twice."} for row in base
    ]
    source, one, two = tmp_path / "in.json", tmp_path / "one.json", tmp_path / "two.json"
    source.write_text(json.dumps(rows))
    assert cli("dedup", source, "-o", one, "--threshold", "0.5").status == 0
    assert len(read_dataset(one)) == 12
    assert cli("dedup", source, "-o", two, "--threshold", "0.95").status == 0
    monkeypatch.setattr("selfinstruct.dedup.judge", None)
    assert cli("dedup", "--rethreshold", "--threshold", "0.95", "-o", one).status == 0
    assert one.read_bytes() == two.read_bytes()


def test_dedup_usage(cli: Cli, tmp_path: Path) -> None:
    for words, part in (
        (["-o", tmp_path / "x.json"], "at least one dataset"),
        ([tmp_path / "none.json", "-o", tmp_path / "x.json"], "none.json"),
        ([tmp_path / "none.json"], "-o"),
        (["--rethreshold", "-o", tmp_path / "x.json"], "x.json"),
    ):
        ended = cli("dedup", *words)
        assert ended.status == 2
        assert part in ended.err
        assert len(ended.err.splitlines()) == 1
