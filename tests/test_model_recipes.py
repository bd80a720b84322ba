"""Recipes on the real embedded model, which is too weak to write well: the forms hold, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import selfinstruct
from selfinstruct import weights
from selfinstruct.self_instruct import _MAKES

pytestmark = pytest.mark.model
REPOSITORY = Path(selfinstruct.__file__).parents[1]
SMALL = "smollm2-135m"
ROWS = [
    {
        "instruction": "Write a Python function that adds two numbers.",
        "input": "",
        "output": "def add(a, b): return a + b",
    },
]


def run(tmp_path: Path, *words: object) -> tuple[list[dict[str, Any]], str]:
    """The journal of a run, and what it wrote to stdout."""
    weights.pull(SMALL)
    output = tmp_path / "out.json"
    asked = [
        *map(str, words),
        "-o",
        str(output),
        "--model",
        SMALL,
        "--concurrency",
        "2",
        "--max-output-tokens",
        "160",
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "selfinstruct", *asked],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=600,
        check=False,
    )
    assert ended.returncode in {0, 3}, ended.stderr
    lines = output.with_suffix(".run").joinpath("journal.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], ended.stdout


def decisions(journal: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [decision for line in journal for decision in line["decisions"]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "in.json"
    path.write_text(json.dumps(ROWS))
    return path


def test_self_instruct(tmp_path: Path) -> None:
    words = ("--recipe", "self-instruct", "-n", 1, "--max-requests", 15, "--only-kind", "choose")
    journal, _ = run(tmp_path, "generate", *words)
    # The grammars hold: whether it is a classification, and its labels, can always be read.
    assert decisions(journal)
    assert "unreadable" not in {found.get("reason") for found in decisions(journal)}
    replies = (tmp_path / "out.run" / "replies.jsonl").read_text().splitlines()
    texts = {one["key"]: one["text"] for one in map(json.loads, replies)}
    assert all(texts.values())
    # What begins with "Write" is not asked about; of the others every one is, and the grammar allows two answers.
    asked = [line["k"] for line in journal if not _MAKES.match(line["decisions"][0]["instruction"])]
    kinds = [texts[f"{k}.1"] for k in asked if f"{k}.1" in texts]
    assert kinds
    assert set(kinds) <= {"Yes", "No"}


def test_judge(tmp_path: Path, data: Path) -> None:
    journal, told = run(tmp_path, "judge", data)
    rated = [
        found["evidence"]["judge"]["scores"] for found in decisions(journal) if "judge" in found["evidence"]
    ]
    assert all(set(scores) == {"helpfulness", "correctness", "clarity"} for scores in rated)
    # The schema holds the model to the form; only a reply that is cut has none.
    assert {found["reason"] for found in decisions(journal) if not found["accepted"]} <= {"cut_off"}
    assert f"judged      {len(rated)} rows" in told


def test_evolve(tmp_path: Path, data: Path) -> None:
    journal, _ = run(tmp_path, "evolve", data, "--rounds", 2)
    found = [one["evidence"]["evolved"] for one in decisions(journal)]
    assert [one["round"] for one in found] == [1, 2]
    assert len({one["operation"] for one in found}) == 2


def test_from_code(tmp_path: Path) -> None:
    journal, _ = run(tmp_path, "from-code", REPOSITORY / "selfinstruct", "--snippets", 1)
    assert all(line["origin"]["licence"] == "Apache-2.0" for line in journal)
    assert all(line["origin"]["place"].startswith("selfinstruct/") for line in journal)
    assert len(decisions(journal)) == 1
