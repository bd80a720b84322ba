import itertools
import re
import sys
from collections import Counter
from dataclasses import replace

import pytest
import seed_runner
from seed_runner import Case, Result

from selfinstruct import seeds

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
