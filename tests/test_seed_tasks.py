import itertools
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import make_coverage
import pytest
import seed_runner
from seed_runner import Case, Result

from selfinstruct import seeds
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
    cases = [case for case in seed_runner.read_cases(FOLDER) if seed_runner.is_slow(case.language)]
    failed = [f"{r.case.id}: {r.note}" for r in seed_runner.run_all(cases, slow=True) if r.state == "failed"]
    assert not failed, "\n".join(failed)


def test_code_to_fix_fails_the_check_of_its_fix() -> None:
    cases = [
        replace(case, run="input")
        for case in seed_runner.read_cases(FOLDER)
        if case.kind == "fix" and case.run == "output" and case.input
        if not seed_runner.why_not(case.language) and not seed_runner.is_slow(case.language)
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


def test_tests_written_in_rust_are_run() -> None:
    if seed_runner.why_not("rust"):
        pytest.skip("no rustc on this machine")
    text = "#[test]\nfn adds() {{ assert_eq!(1 + 1, {}); }}\n"
    assert seed_runner.execute("rust", text.format(2) + "#[allow(dead_code)] fn main() {}")[0] == 0
    assert seed_runner.execute("rust", text.format(3) + "#[allow(dead_code)] fn main() {}")[0] != 0


@pytest.mark.parametrize(
    ("language", "versions", "first", "slow"),
    [
        ("csharp", {"dotnet": "10.0.100"}, "dotnet", True),
        ("csharp", {"dotnet": "8.0.404"}, "mcs", False),
        ("csharp", {}, "mcs", False),
        ("typescript", {"node": "v22.6.0"}, "node", False),
        ("typescript", {"node": "v20.20.2"}, "tsc", False),
        ("scala", {"scala": "2.11.12"}, "scala", True),
    ],
    ids=range(6),
)
def test_the_toolchain_follows_what_is_there(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    language: str,
    versions: dict[str, str],
    first: str,
    slow: bool,
) -> None:
    for name in (*versions, first):
        tool = tmp_path / name
        tool.write_text(f"#!/bin/sh\necho {versions.get(name, '1.0')}\n", encoding="utf-8")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=None)
    for cached in (seed_runner.commands_for, seed_runner.why_not):
        cached.cache_clear()
    try:
        assert seed_runner.commands_for(language)[0][0] == first
        assert seed_runner.is_slow(language) == slow
        assert ("no mono on this machine" in seed_runner.why_not(language)) == (first == "mcs")
    finally:
        for cached in (seed_runner.commands_for, seed_runner.why_not):
            cached.cache_clear()


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


def broken_rules(tasks: Sequence[Seed]) -> set[str]:
    """The rules of the collection that these tasks do not keep, each by a word."""
    total = len(tasks)
    languages, kinds, levels = (
        Counter(getattr(t, key) for t in tasks) for key in ("language", "kind", "difficulty")
    )
    openings = Counter(task.instruction.split()[0].lower().strip(",:") for task in tasks)
    rules = {
        "tasks": total >= 240,
        "languages": len(languages) >= 18,
        "kinds": len(kinds) >= 14 and set(kinds) <= set(seeds.KINDS),
        "kinds with few tasks": min(kinds.values()) >= 5,
        "one language": max(languages.values()) <= 0.2 * total,
        "one kind": max(kinds.values()) <= 0.2 * total,
        "levels": min(levels[level] for level in seeds.DIFFICULTIES) >= 0.15 * total,
        "inputs": 0.4 <= sum(bool(task.input) for task in tasks) / total <= 0.6,
        "opening word": max(openings.values()) <= 0.08 * total,
        "questions": sum("?" in task.instruction for task in tasks) >= 0.2 * total,
        "alike": not alike_pairs(tasks),
    }
    return {name for name, kept in rules.items() if not kept}


def test_the_collection_keeps_its_rules() -> None:
    assert broken_rules(ALL) == set()


@pytest.mark.parametrize(
    ("rule", "spoilt"),
    [
        ("tasks", ALL[:239]),
        ("languages", [task for task in ALL if task.language in sorted(seeds.LANGUAGES)[:17]]),
        ("kinds", [task for task in ALL if task.kind in list(seeds.KINDS)[:13]]),
        ("kinds", [replace(ALL[0], kind="sing"), *ALL[1:]]),
        ("kinds with few tasks", [task for task in ALL if task.kind != "test" or task.language == "python"]),
        ("one language", [*(replace(task, language="go") for task in ALL[:70]), *ALL[70:]]),
        ("one kind", [*(replace(task, kind="fix") for task in ALL[:70]), *ALL[70:]]),
        ("levels", [task for task in ALL if task.difficulty != "hard"]),
        ("inputs", [task for task in ALL if task.input]),
        ("inputs", [task for task in ALL if not task.input]),
        ("opening word", [*(replace(t, instruction=f"Write {t.id}: {t.instruction}") for t in ALL[:40]), *ALL[40:]]),
        ("questions", [replace(task, instruction=task.instruction.replace("?", ".")) for task in ALL]),
        ("alike", [*ALL, replace(ALL[7], id="again", instruction="Now " + ALL[7].instruction)]),
    ],
    ids=range(13),
)  # fmt: skip
def test_a_broken_rule_is_noticed(rule: str, spoilt: list[Seed]) -> None:
    assert rule in broken_rules(spoilt)


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


def alike_pairs(tasks: Sequence[Seed]) -> list[tuple[str, str]]:
    """The tasks whose instructions have a ROUGE-L of 0.6 or more, whatever languages they are in."""
    bags = [(task.id, words_of(task.instruction)) for task in tasks]
    counts = [Counter(words) for _, words in bags]
    alike = []
    for first, second in itertools.combinations(range(len(bags)), 2):
        (left_id, left), (right_id, right) = bags[first], bags[second]
        # Words in common, in any order, are the most a common subsequence can have.
        shorter = min(len(left), len(right))
        if 2 * shorter < 0.6 * (len(left) + len(right)):
            continue
        most = 2 * (counts[first] & counts[second]).total() / (len(left) + len(right))
        if most >= 0.6 and rouge_l(left, right) >= 0.6:
            alike.append((left_id, right_id))
    return alike


# --- the coverage page -------------------------------------------------------------------------------


def test_the_coverage_page_and_picture_are_up_to_date() -> None:
    told = "run python tests/make_coverage.py"
    text = make_coverage.PAGE.read_text(encoding="utf-8")
    assert make_coverage.page(text, ALL) == text, told
    assert make_coverage.PICTURE.read_text(encoding="utf-8") == make_coverage.picture(ALL), told
    assert make_coverage.page(text, ALL[1:]) != text
    assert make_coverage.picture(ALL[1:]) != make_coverage.picture(ALL)


def test_the_picture_holds_every_number() -> None:
    root = ET.fromstring(make_coverage.picture(ALL))  # noqa: S314 - our own
    texts = Counter(node.text for node in root.iter("{http://www.w3.org/2000/svg}text"))
    by_pair = Counter((seed.language, seed.kind) for seed in ALL)
    sums = [*Counter(s.language for s in ALL).values(), *Counter(s.kind for s in ALL).values(), len(ALL)]
    names = [seeds.LANGUAGES[language].display for language in {str(s.language) for s in ALL}]
    kinds = {str(seed.kind) for seed in ALL}
    assert texts == Counter([*map(str, by_pair.values()), *map(str, sums), *names, *kinds, "all", "all"])


def test_the_example_of_the_page_is_right() -> None:
    text = make_coverage.PAGE.read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.toml").write_text(example, encoding="utf-8")
        (case,) = seed_runner.read_cases(Path(folder))
    assert seed_runner.run_case(case).state == "passed"
    assert seed_runner.run_case(replace(case, run="input")).state == "failed"
    assert not broken_rules([*ALL, replace(ALL[0], id=case.id, instruction=case.id)])
