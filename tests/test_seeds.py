import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct import seed_forms, seeds
from selfinstruct.errors import InputError
from selfinstruct.records import Seed

FOLDER = seeds.bundled()
ALL = seeds.load()
HISTORIC = {
    "id": "seed_task_0",
    "name": "breakfast",
    "instruction": "Is there anything I can eat?",
    "instances": [{"input": "", "output": "Yes."}, {"input": "x", "output": "y"}],
    "is_classification": False,
}


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_bundled_seeds_load_in_the_order_of_their_files() -> None:
    assert seeds.load(FOLDER) == ALL
    files = [placed.where.rpartition(":")[0] for placed in seeds.scan(FOLDER)[0]]
    assert files == sorted(files)
    assert seeds.digest(ALL) != seeds.digest(ALL[::-1])


def test_historic_lines_load(tmp_path: Path) -> None:
    rows = [HISTORIC, {**HISTORIC, "id": 7, "instances": [{"input": " <NoInput> ", "output": " z "}]}]
    path = write(tmp_path, "seed_tasks.jsonl", "\n".join(json.dumps(row) for row in rows))
    first, second = seeds.load(path)
    assert first == Seed("seed_task_0", "Is there anything I can eat?", "", "Yes.")
    assert (second.id, second.input, second.output) == ("7", "", " z ")


@pytest.mark.parametrize("layout", ["lines", "array", "indented array", "with BOM and CRLF"])
def test_plain_rows_load(tmp_path: Path, layout: str) -> None:
    rows = [{"instruction": "Add", "input": "1 2", "output": "3"}, {"instruction": "Halve 4", "output": "2"}]
    text = {
        "lines": "\n".join(json.dumps(row) for row in rows) + "\n\n",
        "array": json.dumps(rows),
        "indented array": " " + json.dumps(rows, indent=4) + "\n",
        "with BOM and CRLF": "\ufeff" + "\r\n".join(json.dumps(row) for row in rows),
    }[layout]
    loaded = seeds.load(write(tmp_path, "mine.json", text))
    assert loaded == [Seed("seed-1", "Add", "1 2", "3"), Seed("seed-2", "Halve 4", "", "2")]


def test_toml_texts_lose_the_line_breaks_at_their_end_only(tmp_path: Path) -> None:
    task = "[[task]]\nid = 'a'\nlanguage = 'C++'\nkind = 'optimize'\ninstruction = 'Do'\ncheck = 'x'\n"
    (seed,) = seeds.load(write(tmp_path, "a.toml", task + "output = '''\n  a\n\n    b \n\n'''\n"))
    assert seed.output == "  a\n\n    b "
    assert (seed.language, seed.kind, seed.difficulty) == ("cpp", "optimise", None)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.jsonl", '{"instruction": "a", "output": "b"}\n\n{"instruction": \n', "a.jsonl:3: not JSON"),
        ("a.jsonl", '"text"', "a.jsonl:1: not an object"),
        ("a.jsonl", '{"instruction": " ", "output": "b"}', "a.jsonl:1: `instruction` is missing or empty"),
        ("a.jsonl", '{"instruction": "a", "output": 5}', "a.jsonl:1: `output` must be text, not int"),
        ("a.jsonl", '{"instruction": "a", "instances": []}', "a.jsonl:1: `instances` must be"),
        ("a.jsonl", '{"instruction": "\\ud800", "output": "b"}', "a.jsonl:1: `instruction` holds half"),
        ("a.jsonl", b'{"instruction": "a", "output": "b"}\n\xff', "a.jsonl:2: not UTF-8"),
        ("a.jsonl", "\n \n", "a.jsonl: no seed tasks"),
        ("a.jsonl", "[" * 100_000, "not valid JSON (nested too deep)"),
        ("a.jsonl", '{"a":' * 100_000, "not JSON (nested too deep)"),
        ("a.json", "[]", "a.json: no seed tasks"),
        ("a.json", '[\n{"instruction": "a", "output": "b"}\n{}]', "a.json:3: not valid JSON"),
        ("a.json", '[\n\n{"instruction": "a"}]', "a.json:3: `output` is missing"),
        ("a.json", '[{"instruction": "a", "output": "b"},\nx]', "a.json:2: not valid JSON"),
        (
            "a.json",
            '[{"instruction": "a", "output": "b"}',
            'a.json:1: not valid JSON (a "," or "]" is missing)',
        ),
        ("a.json", '[{"instruction": "a", "output": "b"}]\n[]', "more text after the end"),
        ("a.toml", "[[task]]\nid = 'a'\nid = 'b'\n", "a.toml:3: not valid TOML"),
        ("a.toml", "[[task]]\nid = '''a", "a.toml:2: not valid TOML"),
        ("a.toml", "# none\n", "a.toml: no seed tasks"),
        ("a.toml", "[task]\nid = 'a'\n", "write [[task]] with two brackets"),
        ("a.toml", "title = 'a'\n", 'unknown key "title"'),
        ("a.toml", "\n[[task]]\nid = 'a'\ninstruction = 'b'\n", "a.toml:2: `output` is missing"),
        (
            "a.toml",
            "[[task]]\nid='a'\noutput='b'\ninstruction='c'\nlanguage='klingon'\n",
            'unknown language "klingon"',
        ),
        ("a.toml", "[[task]]\nid='a'\noutput='b'\ninstruction='c'\nouput='d'\n", 'unknown key "ouput"'),
        (
            "a.toml",
            "[[task]]\nid='a'\noutput='b'\ninstruction='c'\ndifficulty='epic'\n",
            'unknown difficulty "epic"',
        ),
        (
            "a.toml",
            "[[task]]\nid='a'\noutput='b'\ninstruction='c'\nrun='all'\n",
            '`run` is "all"; known are output, input, both',
        ),
        (
            "a.toml",
            "[[task]]\nid='a'\noutput='b'\ninstruction='c'\ncheck=5\n",
            "`check` must be text, not int",
        ),
    ],
)
def test_the_first_problem_is_told_in_one_line(
    tmp_path: Path, name: str, text: str | bytes, told: str
) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(InputError) as caught:
        seeds.load(path)
    assert told in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unreadable_path_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl: cannot be read"):
        seeds.load(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="no seed tasks"):
        seeds.load(tmp_path)


def test_scan_tells_all_problems_and_keeps_the_rest(tmp_path: Path) -> None:
    good = '{"id": "a", "instruction": "a", "output": "b"}'
    lines = [
        good,
        "{",
        good,
        '{"language": "x", "kind": "y"}',
        '{"id": "b", "instruction": "a", "output": "b"}',
    ]
    placed, problems = seeds.scan(write(tmp_path, "a.jsonl", "\n".join(lines)))
    assert [(each.where.rpartition(":")[2], each.sound) for each in placed] == [
        ("1", True),
        ("3", False),
        ("4", False),
        ("5", True),
    ]
    assert [problem.where.rpartition(":")[2] for problem in problems] == ["2", "3", "4", "4", "4", "4"]
    assert str(tmp_path / "a.jsonl:1") in problems[1].what


@pytest.mark.parametrize("key", ["instruction", "output", "language", "kind", "difficulty", "topic", "input"])
@pytest.mark.parametrize("value", [5, "\ud800"])
def test_an_unreadable_field_is_told_once_and_left_empty(tmp_path: Path, key: str, value: object) -> None:
    row = {"id": "a", "instruction": "Do", "output": "b", key: value}
    (placed,), problems = seeds.scan(write(tmp_path, "a.jsonl", json.dumps(row)))
    assert [f"`{key}`" in problem.what for problem in problems] == [True]
    assert not placed.sound
    assert not getattr(placed.seed, key)


def test_a_question_mark_is_a_text_like_any_other(tmp_path: Path) -> None:
    (seed,) = seeds.load(write(tmp_path, "a.jsonl", '{"instruction": "?", "output": "?"}'))
    assert (seed.instruction, seed.output) == ("?", "?")
    with pytest.raises(InputError, match=r'unknown language "\?"'):
        seeds.load(write(tmp_path, "a.jsonl", '{"instruction": "?", "output": "?", "language": "?"}'))


def test_missing_ids_are_no_equal_ids(tmp_path: Path) -> None:
    task = "[[task]]\ninstruction = 'a'\noutput = 'b'\n"
    problems = seeds.scan(write(tmp_path, "a.toml", task + task))[1]
    assert [problem.what for problem in problems] == ["`id` is missing or empty"] * 2


def test_ids_are_unique_on_one_line_too(tmp_path: Path) -> None:
    row = {"id": "a", "instruction": "Do", "output": "b"}
    with pytest.raises(InputError, match=r"a\.json:1: the id .* already used at .*a\.json:1"):
        seeds.load(write(tmp_path, "a.json", json.dumps([row, row])))


@pytest.mark.parametrize(
    "text", ["'''\n[[task]]\nx''''", '"""\n[[task]]\n\\""" """"', '"[[task]] \\" [[task]]"']
)
def test_a_header_inside_a_text_or_comment_is_none(tmp_path: Path, text: str) -> None:
    task = f"[[task]] # it's\nid = '%s'\ninstruction = {text}\n# [[task]] '''\noutput = 'b'\n"
    file = write(tmp_path, "a.toml", task % 1 + task % 2)
    lines = [int(placed.where.rpartition(":")[2]) for placed in seeds.scan(file)[0]]
    assert lines == [1, task.count("\n") + 1]


def test_ids_are_unique_over_the_files_of_a_folder(tmp_path: Path) -> None:
    task = "[[task]]\nid = 'x'\ninstruction = 'a'\noutput = 'b'\n"
    write(tmp_path, "a.toml", task)
    write(tmp_path, "b.toml", "\n" + task)
    with pytest.raises(InputError, match=r'b\.toml:2: the id "x" is already used at .*a\.toml:1'):
        seeds.load(tmp_path)


@pytest.mark.parametrize(("word", "name"), [(" C++ ", "cpp"), ("Golang", "go"), ("c#", "csharp"), ("", None)])
def test_languages_are_found_in_any_spelling(word: str, name: str | None) -> None:
    assert seeds.find_language(word) == name


def test_no_spelling_stands_for_two_words() -> None:
    for table in (seeds.LANGUAGES, seeds.KINDS):
        spellings = [{term.name, term.display.lower(), *term.aliases} for term in table.values()]
        assert sum(map(len, spellings)) == len(set().union(*spellings))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
FILLED = TEXT.filter(lambda text: bool(text.strip()))
SEEDS = st.lists(
    st.builds(
        Seed,
        id=FILLED,
        instruction=FILLED,
        input=TEXT.map(lambda text: "" if text.strip().lower() in {"", "<noinput>"} else text),
        output=FILLED,
        language=st.sampled_from([None, *seeds.LANGUAGES]),
        kind=st.sampled_from([None, *seeds.KINDS]),
        difficulty=st.sampled_from([None, *seeds.DIFFICULTIES]),
        topic=st.none() | FILLED,
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda seed: seed.id,
)


def no_breaks_at_the_end(seed: Seed) -> Seed:
    texts = {key: getattr(seed, key).rstrip("\n") for key in ("id", "instruction", "input", "output")}
    return replace(seed, **texts, topic=seed.topic and seed.topic.rstrip("\n"))


@given(SEEDS)
def test_the_historic_form_gives_the_same_seeds_back(
    tmp_path_factory: pytest.TempPathFactory, before: list[Seed]
) -> None:
    path = write(tmp_path_factory.getbasetemp(), "round.jsonl", seed_forms.to_historic(before))
    after = seeds.load(path)
    assert after == before
    assert seeds.digest(after) == seeds.digest(before)


@given(SEEDS.map(lambda made: [no_breaks_at_the_end(seed) for seed in made]))
def test_the_toml_form_gives_the_same_seeds_back(
    tmp_path_factory: pytest.TempPathFactory, before: list[Seed]
) -> None:
    path = write(tmp_path_factory.getbasetemp(), "round.toml", seed_forms.to_toml(before))
    assert seeds.load(path) == before


def test_our_own_seeds_survive_both_forms(tmp_path: Path) -> None:
    assert seeds.load(write(tmp_path, "a.jsonl", seed_forms.to_historic(ALL))) == ALL
    assert seeds.load(write(tmp_path, "a.toml", seed_forms.to_toml(ALL))) == ALL
    for line in seed_forms.to_historic(ALL).splitlines():
        row = json.loads(line)
        assert row["instances"][0]["output"]
        assert isinstance(row["is_classification"], bool)


def test_an_installed_package_has_its_seeds_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeds, "__file__", str(tmp_path / "selfinstruct" / "seeds.py"))
    with pytest.raises(InputError, match="bundled seed tasks are missing"):
        seeds.bundled()
    (tmp_path / "seed_tasks").mkdir()
    assert seeds.bundled() == (tmp_path / "seed_tasks").resolve()
    (tmp_path / "selfinstruct" / "seed_tasks").mkdir(parents=True)
    assert seeds.bundled() == (tmp_path / "selfinstruct" / "seed_tasks").resolve()


# --- topics ------------------------------------------------------------------------------------------


def test_our_topics_are_known_unique_and_many() -> None:
    topics = seeds.load_topics()
    assert set(topics) <= {"general", *seeds.LANGUAGES}
    assert len(topics["general"]) >= 150
    for name, subjects in topics.items():
        assert len(subjects) >= 12, name
        assert len({subject.casefold() for subject in subjects}) == len(subjects), name
        for subject in subjects:
            assert subject == " ".join(subject.split()), subject
            assert 1 <= len(subject.split()) <= 6, subject


def test_a_folder_without_topics_has_none(tmp_path: Path) -> None:
    assert seeds.load_topics(tmp_path) == {}


def test_topics_are_no_tasks(tmp_path: Path) -> None:
    write(tmp_path, "topics.toml", "sql = ['joins']\n")
    write(tmp_path, "a.toml", "[[task]]\nid = 'x'\ninstruction = 'a'\noutput = 'b'\n")
    assert seeds.load_topics(tmp_path) == {"sql": ["joins"]}
    assert [seed.id for seed in seeds.load(tmp_path)] == ["x"]


@pytest.mark.parametrize(
    "text", [b"sql = 'joins'", b"sql = []", b"sql = [1]", b"[sql]\na = ['b']", b"sql = [", b"\xff"]
)
def test_broken_topics_are_told(tmp_path: Path, text: bytes) -> None:
    write(tmp_path, "topics.toml", text)
    with pytest.raises(InputError, match=r"topics\.toml: ") as caught:
        seeds.load_topics(tmp_path)
    assert "\n" not in str(caught.value)
