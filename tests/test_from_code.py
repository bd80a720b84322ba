from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import WORDS, Ended
from scripted import Pool, Script

from selfinstruct.derive.from_code import FromCodeSettings, copied, draw_snippets, from_code
from selfinstruct.records import Candidate, Source
from selfinstruct.seams import Plan
from selfinstruct.settings import make_run_settings

Cli = Callable[..., Ended]
PIECE = "def walk(tree):\n    for node in tree:\n        yield node.name\n        yield from walk(node)"
SOURCE = Source("id", output=PIECE, origin="src/a.py:1-4", licence="MIT", language="python")
PLAN = Plan(3, (), "python", seed=5, source=SOURCE)
TASK = "Write a generator in Python that gives all files below a folder, the deepest ones first."
ANSWER = "```python\ndef files(folder):\n    yield folder\n```"


def settings(*folders: Path, **flags: Any) -> FromCodeSettings:
    made = {"inputs": folders or ["src"], "output": "out.json", "backend": "openai", "model": "m"}
    return make_run_settings(FromCodeSettings, {**made, **flags})


def test_the_piece_inspires_the_task_and_is_not_shown_for_the_answer() -> None:
    script = Script(TASK, ANSWER)
    (found,) = from_code(settings(), PLAN, Pool(), script)
    assert found.row == {"instruction": TASK, "input": "", "output": "def files(folder):\n    yield folder"}
    assert (found.rejection, found.notes, found.language) == (None, {}, "python")
    assert f"```python\n{PIECE}\n```" in script.text(0)
    assert "fifty lines of Python" in script.text(0)
    assert script.text(1) == TASK
    assert "walk" not in str(script.asked[1].messages)


def test_a_task_that_is_none_or_known_is_not_answered() -> None:
    for reply, known in (("I'm sorry, but I can't.", ""), (TASK, TASK), (("Write", "length"), "")):
        script = Script(reply)
        (found,) = from_code(settings(), PLAN, Pool(known), script)
        assert found.rejection is not None
        assert len(script.asked) == 1


def test_what_is_copied_word_for_word_is_noted() -> None:
    script = Script(TASK, f"```python\nimport os\n\n\n{PIECE}\n```")
    (found,) = from_code(settings(), PLAN, Pool(), script)
    assert found.rejection is None
    assert found.notes["copied"] == {"field": "output", "lines": 4, "of": 4}
    indented = "\n".join(f"    {line}" for line in PIECE.split("\n"))
    assert copied(PIECE, Candidate("a", indented, "b"))["copied"]["field"] == "input"
    assert copied(PIECE, Candidate("a", "", "        yield node.name")) == {}
    assert copied("x\ny\nz", Candidate("a", "", "x\ny\nz")) == {}  # too short to say anything
    assert copied("", Candidate()) == {}


# --- drawing ------------------------------------------------------------------------------------------


def function(name: str, other: str) -> str:
    return (
        f"def {name}(x):\n    total = 0\n    for {other} in x:\n        total += {other}\n    return total\n"
    )


def project(folder: Path) -> Path:
    """A repository of 12 files with three functions each, one of them under a licence of its own."""
    root = folder / "project"
    for number in range(12):
        names = WORDS[3 * number : 3 * number + 3]
        path = root / "src" / f"m{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("import os\n\n\n" + "\n\n".join(function(name, name[:3]) for name in names))
    (root / "src" / "m0.py").write_text("# SPDX-License-Identifier: ISC\n" + function("first", "one"))
    (root / "LICENSE").write_text(
        "Permission is hereby granted, free of charge, to any person obtaining a copy of this software"
    )
    (root / ".git").mkdir()
    return root


def test_pieces_are_drawn_by_the_seed_one_of_each_file_first(tmp_path: Path) -> None:
    root = project(tmp_path)
    drawn = draw_snippets(settings(root, snippets=12))
    assert drawn == draw_snippets(settings(root, snippets=12))
    assert len({source.origin.partition(":")[0] for source in drawn}) == 12
    assert [one.id for one in drawn] != [one.id for one in draw_snippets(settings(root, snippets=12, seed=1))]
    everything = draw_snippets(settings(root))
    assert len(everything) == 11 * 3 + 1
    assert everything[:12] == drawn
    assert all(source.language == "python" for source in everything)


def test_place_and_licence_are_known(tmp_path: Path) -> None:
    root = project(tmp_path)
    by_file = {source.origin.partition(":")[0]: source for source in draw_snippets(settings(root))}
    assert by_file["project/src/m0.py"].licence == "ISC"
    assert by_file["project/src/m0.py"].origin == "project/src/m0.py:2-6"
    assert by_file["project/src/m1.py"].licence == "MIT"
    (alone,) = draw_snippets(settings(root / "src" / "m0.py"))
    assert alone.origin == "m0.py:2-6"  # no more of the path than was given


def test_files_with_secrets_are_left_out_whole_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = project(tmp_path)
    secret = "AKIA" + "QX7JN4RZ2WLT6VKB"
    (root / "src" / "m1.py").write_text(function("good", "g") + f'\n\nKEY = "{secret}"\n')
    with caplog.at_level(logging.WARNING):
        drawn = draw_snippets(settings(root))
    assert not any("m1.py" in source.origin for source in drawn)
    assert caplog.messages == ["1 files are left out, for they hold what looks like a secret"]
    assert secret not in str(drawn)


def test_the_same_piece_in_two_files_is_drawn_once(tmp_path: Path) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(function("same", "s"))
    assert len(draw_snippets(settings(tmp_path))) == 1


def test_only_one_language(tmp_path: Path) -> None:
    root = project(tmp_path)
    (root / "x.js").write_text("function f(x) {\n  let y = x\n  y += 1\n  return y\n}\n")
    assert [source.language for source in draw_snippets(settings(root, only_language=["JS"]))] == [
        "javascript"
    ]
    assert draw_snippets(settings(root, only_language=["rust"])) == []


def test_a_name_of_odd_bytes_has_a_place_that_can_be_written(tmp_path: Path) -> None:
    with open(bytes(tmp_path) + b"/\xff\x1b[31m\n.py", "w") as file:  # noqa: PTH123 - bytes
        file.write(function("odd", "o"))
    (source,) = draw_snippets(settings(tmp_path))
    assert source.origin.endswith("/\ufffd\x1b[31m\n.py:1-5")
    source.origin.encode()


# --- the whole run ------------------------------------------------------------------------------------


def answers(folder: Path, count: int) -> Path:
    lines = []
    for k in range(count):
        a, b, c, d = WORDS[k : k + 4]
        task = f"Write a function in Python that turns a {a} {b} into a {c}, and tell how a {d} is refused."
        code = "def f(:" if k % 5 == 4 else f"def {a}({b}):\n    return {c!r}, {d!r}, {k}"
        lines += [{"key": f"{k}.0", "text": task}, {"key": f"{k}.1", "text": f"```python\n{code}\n```"}]
    path = folder / "replies.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_run_is_the_same_at_any_concurrency_and_when_it_goes_on(cli: Cli, tmp_path: Path) -> None:
    root = project(tmp_path)
    words = ["from-code", root, "--snippets", 20, "--backend", "replay", "--model", answers(tmp_path, 20)]
    seen = set()
    for concurrency, nums in ((1, [None]), (16, [1, 5, None])):
        output = tmp_path / f"{concurrency}.json"
        for num in nums:
            ended = cli(*words, "-o", output, "--concurrency", concurrency, *(["-n", num] if num else []))
            assert ended.status == 0, ended.err
        seen.add((output.read_bytes(), (output.with_suffix(".run") / "journal.jsonl").read_bytes()))
    assert len(seen) == 1
    assert json.loads(cli("status", output, "--json").out)["reasons"]["syntax_error"] == 4
    lines = [json.loads(line) for line in (tmp_path / "1.run" / "journal.jsonl").read_text().splitlines()]
    assert all(line["origin"]["licence"] in {"MIT", "ISC"} for line in lines)
    assert all(line["origin"]["place"].startswith("project/src/m") for line in lines)
    assert all(len(line["derived_from"]) == 1 for line in lines)
    # Code that changes is other input; that a licence is found elsewhere is not.
    (root / "src" / "m3.py").write_text(function("changed", "c"))
    ended = cli(*words, "-o", output)
    assert ended.status == 2
    assert "inputs: " in ended.err


def test_what_is_wrong_is_one_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words, part in (
        ([tmp_path / "none"], "cannot read it"),
        ([tmp_path / "empty"], "nothing in it that from-code could work on"),
        ([], "name the folder"),
        ([tmp_path, "--only-language", "klingon"], "no language that selfinstruct knows: klingon"),
    ):
        ended = cli("from-code", *words, "-o", tmp_path / "o.json")
        assert ended.status == 2
        (line,) = ended.err.splitlines()
        assert part in line


def test_this_project_can_be_drawn_from() -> None:
    drawn = draw_snippets(settings(Path(__file__).parents[1] / "selfinstruct", snippets=60))
    assert len(drawn) == 60
    assert all(source.origin.startswith("selfinstruct/") for source in drawn)
    assert {source.licence for source in drawn} == {"Apache-2.0"}
