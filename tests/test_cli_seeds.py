"""`selfinstruct seeds list`, `check` and `convert`, as a user meets them."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import seed_runner
from conftest import Ended

from selfinstruct import seeds

Cli = Callable[..., Ended]
ALL = seeds.load()
STANFORD = [
    {
        "id": "seed_task_0",
        "name": "trip",
        "instruction": "What should I pack for two days in the hills?",
        "instances": [{"input": "", "output": "Boots, a map, a rain coat."}],
        "is_classification": False,
    },
    {
        "id": "seed_task_1",
        "name": "mood",
        "instruction": "Tell whether the note is friendly.",
        "instances": [{"input": "Well done!", "output": "friendly"}, {"input": "Go away.", "output": "unfriendly"}],
        "is_classification": True,
    },
]  # fmt: skip


def lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def stanford(tmp_path: Path) -> Path:
    file = tmp_path / "seed_tasks.jsonl"
    file.write_text(lines(STANFORD), encoding="utf-8")
    return file


# --- list --------------------------------------------------------------------------------------------


def test_list_counts_languages_by_kinds(cli: Cli) -> None:
    ended = cli("seeds", "list")
    assert (ended.status, ended.err) == (0, "")
    printed = ended.out.splitlines()
    assert max(map(len, printed)) <= 80
    tall = max(map(len, seeds.KINDS))
    names = [
        "".join(column).strip() for column in zip(*(row.ljust(80) for row in printed[:tall]), strict=True)
    ]
    assert [name for name in names if name] == [*seeds.KINDS, "total"]
    table = {
        row.split()[0]: [int(cell.replace(".", "0")) for cell in row.split()[1:]] for row in printed[tall:]
    }
    assert table.pop("total") == [*(sum(s.kind == kind for s in ALL) for kind in seeds.KINDS), len(ALL)]
    for language, numbers in table.items():
        of_it = [seed.kind for seed in ALL if seed.language == language]
        assert numbers == [*(of_it.count(kind) for kind in seeds.KINDS), len(of_it)]
    assert set(table) == {seed.language for seed in ALL}


def test_list_as_json_has_the_agreed_keys(cli: Cli) -> None:
    rows = json.loads(cli("seeds", "list", "--json").out)
    keys = {"id", "language", "kind", "difficulty", "instruction", "input", "output", "topic"}
    assert all(set(row) == keys for row in rows)
    assert [row["id"] for row in rows] == [seed.id for seed in ALL]
    assert [row["output"] for row in rows] == [seed.output for seed in ALL]


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--language", "C++"], {"language": {"cpp"}}),
        (["--language", "golang", "--language", "rust"], {"language": {"go", "rust"}}),
        (["--kind", "optimize", "--kind", "debug"], {"kind": {"optimise", "fix"}}),
        (["--difficulty", "hard"], {"difficulty": {"hard"}}),
        (["--language", "sql", "--kind", "query"], {"language": {"sql"}, "kind": {"query"}}),
    ],
)
def test_list_filters(cli: Cli, flags: list[str], wanted: dict[str, set[str]]) -> None:
    rows = json.loads(cli("seeds", "list", "--json", *flags).out)
    for key, names in wanted.items():
        assert {row[key] for row in rows} == names
    expected = [s for s in ALL if all(getattr(s, key) in names for key, names in wanted.items())]
    assert len(rows) == len(expected) < len(ALL)
    assert cli("seeds", "list", *flags).out.split()[-1] == str(len(rows))


@pytest.mark.parametrize("flag", ["language", "kind", "difficulty"])
def test_list_refuses_unknown_words(cli: Cli, flag: str) -> None:
    ended = cli("seeds", "list", f"--{flag}", "klingon")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith(f'selfinstruct: unknown {flag} "klingon"; known are ')
    assert ended.err.count("\n") == 1


def test_list_shows_historic_seeds(cli: Cli, stanford: Path) -> None:
    assert cli("seeds", "list", stanford).out.splitlines()[-2:] == ["not told  2    2", "total     2    2"]
    assert json.loads(cli("seeds", "list", stanford, "--json").out)[1] == {
        "id": "seed_task_1",
        "language": None,
        "kind": None,
        "difficulty": None,
        "instruction": "Tell whether the note is friendly.",
        "input": "Well done!",
        "output": "friendly",
        "topic": None,
    }
    assert cli("seeds", "list", stanford, "--language", "python", "--json").out == "[]\n"
    assert cli("seeds", "list", stanford, "--language", "python").out.split()[-1] == "0"


def test_list_tells_a_broken_file_in_one_line(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("{\n", encoding="utf-8")
    ended = cli("seeds", "list", file)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith(f"selfinstruct: {file}:1: not JSON")


# --- check -------------------------------------------------------------------------------------------


def test_check_is_content_with_our_own_seeds(cli: Cli) -> None:
    ended = cli("seeds", "check")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == f"{seeds.bundled()}: {len(ALL)} seed tasks, nothing wrong\n"


def test_check_prints_a_line_for_each_problem(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    rows: list[dict[str, object]] = [
        {"instruction": "Do", "output": "x", "language": "kling\x1bon\n"},
        {"instruction": "", "output": ""},
    ]
    file.write_text(lines(rows) + "{", encoding="utf-8")
    ended = cli("seeds", "check", file)
    assert ended.status == 2
    assert [line.removeprefix(f"{file}:")[:2] for line in ended.out.splitlines()] == ["1:", "2:", "2:", "3:"]
    assert "\x1b" not in ended.out
    assert ended.err == "4 problems in 2 seed tasks\n"


def test_check_ends_with_status_2_for_a_missing_file(cli: Cli, tmp_path: Path) -> None:
    ended = cli("seeds", "check", tmp_path / "none.toml")
    assert ended.status == 2
    assert ended.out == f"{tmp_path / 'none.toml'}: cannot be read (No such file or directory)\n"


def test_check_takes_stanfords_form_as_it_is(cli: Cli, stanford: Path) -> None:
    assert cli("seeds", "check", stanford).out == f"{stanford}: 2 seed tasks, nothing wrong\n"


# --- convert -----------------------------------------------------------------------------------------


def test_convert_there_and_back_keeps_everything_of_ours(cli: Cli, tmp_path: Path) -> None:
    there, back = tmp_path / "all.jsonl", tmp_path / "all.toml"
    for source, target in ((seeds.bundled(), there), (there, back)):
        ended = cli("seeds", "convert", source, "-o", target)
        assert (ended.status, ended.out) == (0, "")
        assert ended.err == f"{target}: {len(ALL)} seed tasks written\n"
        assert seeds.load(target) == ALL
    assert seed_runner.read_cases(tmp_path) == seed_runner.read_cases(seeds.bundled())
    for line in there.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        assert {"id", "name", "instruction", "instances", "is_classification"} <= set(row)
        assert set(row["instances"][0]) == {"input", "output"}


def test_convert_tells_what_is_lost(cli: Cli, tmp_path: Path) -> None:
    rows = [STANFORD[0] | {"colour": "red"}, STANFORD[1] | {"topic": "moods"}]
    rows[0]["instances"] = [{"input": "a\n", "output": "b"}]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.toml"
    source.write_text(lines(rows), encoding="utf-8")
    assert cli("seeds", "convert", source, "-o", target).err.splitlines() == [
        f"{target}: 2 seed tasks written",
        "lost: the key `colour` (1 task)",
        "lost: the key `name`, where it is not the id (2 tasks)",
        "lost: line breaks at the end of a text (1 task)",
        "lost: instances after the first (1 task)",
        "lost: the key `is_classification`, where it does not go with the kind (1 task)",
    ]
    first, second = seeds.load(target)
    assert (first.id, first.input, second.topic) == ("seed_task_0", "a", "moods")


def test_multi_line_code_stands_as_code_in_toml(cli: Cli, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.toml"
    source.write_text('{"instruction": "Do", "output": "a = 1\\n\\tb = \'\\\\n\'\\nc"}', encoding="utf-8")
    assert cli("seeds", "convert", source, "-o", target).status == 0
    text = target.read_bytes().decode()
    assert text == "[[task]]\nid = \"seed-1\"\ninstruction = \"Do\"\noutput = '''\na = 1\n\tb = '\\n'\nc'''\n"


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("out.json", "give a name that ends in .toml or .jsonl"),
        ("out", "give a name that ends in .toml or .jsonl"),
        ("seed_tasks.jsonl", "is already there"),
        ("no/folder.toml", "cannot be written (No such file or directory)"),
    ],
)
def test_convert_refuses_other_targets(cli: Cli, stanford: Path, target: str, told: str) -> None:
    before = stanford.read_bytes()
    ended = cli("seeds", "convert", stanford, "-o", stanford.parent / target)
    assert (ended.status, ended.out) == (2, "")
    assert told in ended.err
    assert ended.err.count("\n") == 1
    assert stanford.read_bytes() == before


def test_convert_refuses_a_source_with_problems(cli: Cli, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.toml"
    source.write_text('{"instruction": "Do"}\n{\n', encoding="utf-8")
    ended = cli("seeds", "convert", source, "-o", target)
    assert ended.status == 2
    assert f"{source}:1: `output` is missing or empty (and 1 more)" in ended.err
    assert not target.exists()


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, selfinstruct.cli_seeds; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "selfinstruct.cli_seeds" in loaded
    assert not loaded & {"numpy", "rapidfuzz", "openai", "pydantic", "selfinstruct.novelty", "rich.syntax"}
