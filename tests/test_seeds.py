import itertools
import json
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import seed_runner
from hypothesis import given
from hypothesis import strategies as st
from seed_runner import Case, Result

from selfinstruct import seeds
from selfinstruct.errors import InputError
from selfinstruct.records import Seed

FOLDER = seeds.bundled()
ALL = seeds.load()


@pytest.fixture(scope="module")
def results() -> list[Result]:
    return seed_runner.run_all(seed_runner.read_cases(FOLDER))


# --- the answers -------------------------------------------------------------------------------------


def test_no_answer_is_wrong(results: list[Result], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        states = Counter(result.state for result in results)
        told = [", ".join(f"{count} {state}" for state, count in sorted(states.items()))]
        told += [f"not run, {line}" for line in seed_runner.unchecked(results)]
        sys.stdout.write("\nseed tasks: " + "\n  ".join(told) + "\n")
    failed = [f"{result.case.id}: {result.note}" for result in results if result.state == "failed"]
    assert not failed, "\n".join(failed)


def test_python_sql_and_patterns_always_run(results: list[Result]) -> None:
    left = [r.case.id for r in results if r.case.language in {"python", "sql", "regex"} and r.case.run]
    ran = [r.case.id for r in results if r.case.id in left and r.state == "passed"]
    assert ran == left
    assert len(ran) >= 60


@pytest.mark.slow
def test_no_answer_is_wrong_where_compiling_is_slow() -> None:
    cases = [case for case in seed_runner.read_cases(FOLDER) if case.language in seed_runner.SLOW]
    failed = [f"{r.case.id}: {r.note}" for r in seed_runner.run_all(cases, slow=True) if r.state == "failed"]
    assert not failed, "\n".join(failed)


def test_code_to_fix_fails_the_check_of_its_fix() -> None:
    cases = [
        replace(case, run="input")
        for case in seed_runner.read_cases(FOLDER)
        if case.kind == "fix" and case.run == "output" and case.input
        if case.language not in seed_runner.SLOW and not seed_runner.why_not(case.language)
    ]
    assert len(cases) >= 8
    passing = [result.case.id for result in seed_runner.run_all(cases) if result.state == "passed"]
    assert not passing, "the check does not notice the fault"


def test_predicted_output_is_always_run() -> None:
    for case in seed_runner.read_cases(FOLDER):
        if case.kind == "predict" and case.language not in {"css", "html", "text"}:
            assert case.expect, case.id
            assert case.run == "input", case.id


# --- the runner itself -------------------------------------------------------------------------------


def a_case(language: str = "python", **fields: str) -> Case:
    texts = dict.fromkeys(["input", "output", "setup", "check", "expect"], "")
    texts |= {"id": f"{language}-x", "kind": "write", "run": "output", **fields}
    return Case(language=language, **texts)


@pytest.mark.parametrize(
    ("case", "state"),
    [
        (a_case(output="x = 1", check="assert x == 1"), "passed"),
        (a_case(output="x = 2", check="assert x == 1"), "failed"),
        (a_case(output="print('a')", expect="a"), "passed"),
        (a_case(output="print('a', 'b')", expect="a"), "failed"),
        (a_case("sql", output="SELECT 1, NULL, 'x';", expect="1||x"), "passed"),
        (a_case("sql", output="SELECT 1;", expect="2"), "failed"),
        (a_case("sql", output="SELEKT 1;"), "failed"),
        (a_case("sql", output="SELECT 1", expect="1"), "failed"),
        (a_case("regex", output="^a+$", check="import re\nassert re.search(pattern, 'aa')"), "passed"),
        (a_case("regex", output="^a$", check="import re\nassert re.search(pattern, 'aa')"), "failed"),
        (a_case(kind="explain", input="x = 2", check="assert x == 1", run="input"), "failed"),
        (a_case(input="x = 2", output="x = 1", check="assert x == 1", run="both"), "failed"),
        (a_case(kind="predict", input="print(5)", output="4", expect="5", run="input"), "failed"),
        (a_case(output="x = ", run=""), "failed"),
        (a_case(output="x = 1", run=""), "parsed"),
        (a_case("html", output="<ul><li>a<li>b</ul><br>", run=""), "parsed"),
        (a_case("html", output="<p><b>a</p>", run=""), "failed"),
        (a_case("css", output="a { b: '}'; }", run=""), "parsed"),
        (a_case("css", output="a { b: c; ", run=""), "failed"),
        (a_case("json", output="{'a': 1}", run=""), "failed"),
        (a_case("docker", output="FROM a\nRUN b \\\n  c", run=""), "parsed"),
        (a_case("docker", output="RUM b", run=""), "failed"),
        (a_case("regex", output="(a", run=""), "failed"),
        (a_case(kind="review", output="Fine.", run=""), "prose"),
        (a_case("cobol", output="DISPLAY 1"), "unchecked"),
    ],
)
def test_the_runner_tells_right_from_wrong(case: Case, state: str) -> None:
    assert seed_runner.run_case(case).state == state


def test_what_was_not_run_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    seed_runner.why_not.cache_clear()
    try:
        result = seed_runner.run_case(a_case("ruby", output="exit 1"))
    finally:
        seed_runner.why_not.cache_clear()
    assert seed_runner.unchecked([result]) == ["no ruby on this machine (1): ruby-x"]


# --- the collection ----------------------------------------------------------------------------------


def test_every_task_is_complete() -> None:
    for seed in ALL:
        assert seed.language, seed.id
        assert seed.kind, seed.id
        assert seed.difficulty, seed.id
        assert seed.id.startswith(f"{seed.language}-{seed.kind}-"), seed.id
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+){2,}", seed.id), seed.id
        assert seed.topic, seed.id
        assert len(seed.topic.split()) in (1, 2, 3, 4), seed.id
        assert not re.search(r"^```", seed.output, re.MULTILINE), seed.id


def test_run_keys_make_sense() -> None:
    for case in seed_runner.read_cases(FOLDER):
        assert case.run in {"", "output", "input", "both"}, case.id
        assert case.run or not case.setup, f"{case.id}: a setup that nothing runs"


def test_the_collection_is_wide_enough() -> None:
    languages = Counter(seed.language for seed in ALL)
    kinds = Counter(seed.kind for seed in ALL)
    levels = Counter(seed.difficulty for seed in ALL)
    assert len(ALL) >= 240
    assert len(languages) >= 18
    assert set(kinds) == set(seeds.KINDS)
    assert min(kinds.values()) >= 5
    assert max(languages.values()) <= 0.2 * len(ALL)
    assert max(kinds.values()) <= 0.2 * len(ALL)
    assert min(levels[level] for level in seeds.DIFFICULTIES) >= 0.15 * len(ALL)


def test_half_of_the_tasks_have_an_input() -> None:
    assert 0.4 <= sum(bool(seed.input) for seed in ALL) / len(ALL) <= 0.6


def test_no_opening_word_is_too_common() -> None:
    openings = Counter(seed.instruction.split()[0].lower().strip(",:") for seed in ALL)
    word, count = openings.most_common(1)[0]
    assert count <= 0.08 * len(ALL), word
    assert sum("?" in seed.instruction for seed in ALL) >= 0.2 * len(ALL)


def words_of(text: str) -> list[str]:
    """Lower-case words; C++ and C# are words of their own."""
    return re.findall(r"c\+\+|[cf]#|\w+", text.lower())


def rouge_l(left: list[str], right: list[str]) -> float:
    """The F-measure of the longest common subsequence of two word lists."""
    above = [0] * (len(right) + 1)
    for word in left:
        row = [0]
        for at, other in enumerate(right):
            row.append(above[at] + 1 if word == other else max(row[at], above[at + 1]))
        above = row
    return 2 * above[-1] / (len(left) + len(right)) if left or right else 1.0


def test_rouge_l_on_known_pairs() -> None:
    assert rouge_l(words_of("Sort in C++"), words_of("sort in c")) == pytest.approx(2 / 3)
    assert rouge_l(words_of("a b c d"), words_of("a c d b")) == pytest.approx(0.75)
    assert rouge_l(words_of("a"), words_of("b")) == 0.0


def test_no_two_instructions_are_alike() -> None:
    bags = [(seed.id, words_of(seed.instruction)) for seed in ALL]
    counts = [Counter(words) for _, words in bags]
    alike = []
    for first, second in itertools.combinations(range(len(bags)), 2):
        (left_id, left), (right_id, right) = bags[first], bags[second]
        # Words in common, in any order, are the most a common subsequence can have.
        most = 2 * (counts[first] & counts[second]).total() / (len(left) + len(right))
        if most >= 0.6 and rouge_l(left, right) >= 0.6:
            alike.append((left_id, right_id))
    assert not alike


# --- the loader --------------------------------------------------------------------------------------

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
    assert [each.where.rpartition(":")[2] for each in placed] == ["1", "5"]
    assert [problem.where.rpartition(":")[2] for problem in problems] == ["2", "3", "4", "4", "4", "4"]
    assert str(tmp_path / "a.jsonl:1") in problems[1].what


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
        input=TEXT.map(lambda text: text if text.strip() else ""),
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
    path = write(tmp_path_factory.getbasetemp(), "round.jsonl", seeds.to_historic(before))
    after = seeds.load(path)
    assert after == before
    assert seeds.digest(after) == seeds.digest(before)


@given(SEEDS.map(lambda made: [no_breaks_at_the_end(seed) for seed in made]))
def test_the_toml_form_gives_the_same_seeds_back(
    tmp_path_factory: pytest.TempPathFactory, before: list[Seed]
) -> None:
    path = write(tmp_path_factory.getbasetemp(), "round.toml", seeds.to_toml(before))
    assert seeds.load(path) == before


def test_our_own_seeds_survive_both_forms(tmp_path: Path) -> None:
    assert seeds.load(write(tmp_path, "a.jsonl", seeds.to_historic(ALL))) == ALL
    assert seeds.load(write(tmp_path, "a.toml", seeds.to_toml(ALL))) == ALL
    for line in seeds.to_historic(ALL).splitlines():
        row = json.loads(line)
        assert row["instances"][0]["output"]
        assert isinstance(row["is_classification"], bool)
