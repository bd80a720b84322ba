"""Mixes: what is asked for is given to the row, the same every time, from files of any size."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, invented_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfinstruct.data.mix import cut_up, mix
from selfinstruct.data.mix_plan import TooFew, Wish, keys, share_out, shuffled
from selfinstruct.data.mix_settings import read_mix, ready_mixes
from selfinstruct.data.reading import read_examples
from selfinstruct.data.rows import Example, Message

Cli = Callable[..., Ended]
CALM = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]  # of no meaning on a busy machine


def test_the_numbers_of_a_seed_are_the_same_everywhere() -> None:
    assert keys(0, "rows of a", 2).tolist() == [285093333430830258, 14618229341561349352]
    assert shuffled(7, "order", 8).tolist() == [3, 4, 0, 6, 1, 5, 7, 2]
    assert sorted(shuffled(1, "x", 1000).tolist()) == list(range(1000))
    # No visible order: the mean of the first half is that of the whole.
    assert abs(shuffled(1, "x", 10_000)[:5000].mean() - 5000) < 150


WISHES = st.lists(
    st.builds(
        lambda how, value, cap, repeats, validation, validation_cap: Wish(
            "", **{how: value if how != "count" else int(value * 10)}, cap=cap,
            repeats=max(repeats, int(value + 1)), validation=validation, validation_cap=validation_cap,
        ),
        st.sampled_from(["probability", "fraction", "count"]), st.floats(0.01, 3), st.none() | st.integers(0, 60),
        st.integers(1, 4), st.sampled_from([0, 0.1, 0.5]), st.none() | st.integers(0, 9),
    ),
    min_size=1,
    max_size=4,
)  # fmt: skip


@settings(max_examples=400, deadline=None, suppress_health_check=CALM)
@given(WISHES, st.lists(st.integers(0, 80), min_size=4, max_size=4), st.none() | st.integers(1, 100))
def test_every_share_is_what_was_asked_for(wishes: list[Wish], sizes: list[int], rows: int | None) -> None:
    wishes = [Wish(str(number), *_fields(wish)) for number, wish in enumerate(wishes)]
    sizes = sizes[: len(wishes)]
    try:
        shares = share_out(wishes, sizes, rows, seed=3)
    except TooFew:
        assert any(wish.count or wish.probability for wish in wishes)
        return
    for wish, size, share in zip(wishes, sizes, shares, strict=True):
        held = round(wish.validation * size)
        held = held if wish.validation_cap is None else min(held, wish.validation_cap)
        assert len(set(share.validation.tolist())) == len(share.validation) == held
        assert not set(share.validation.tolist()) & set(share.training.tolist())
        times = Counter(share.training.tolist())
        assert all(0 <= place < size for place in times)
        assert max(times.values(), default=0) <= wish.repeats
        if times and len(times) == size - held:
            assert max(times.values()) - min(times.values()) <= 1
        assert wish.cap is None or len(share.training) <= wish.cap
        if wish.count is not None:
            assert len(share.training) == wish.count
    sharing = [at for at, wish in enumerate(wishes) if wish.probability]
    if sharing:
        taken = [len(shares[at].training) for at in sharing]
        assert rows is None or sum(taken) == rows
        total = sum(wishes[at].probability or 0 for at in sharing)
        for at, count in zip(sharing, taken, strict=True):
            assert abs(count - sum(taken) * (wishes[at].probability or 0) / total) < 1


def _fields(wish: Wish) -> tuple[Any, ...]:
    return (
        wish.probability, wish.fraction, wish.count, wish.cap, wish.repeats, wish.validation, wish.validation_cap,
    )  # fmt: skip


def test_as_many_as_the_scarcest_source_allows() -> None:
    shares = share_out([Wish("a", 0.75), Wish("b", 0.25)], [1000, 10], None, 0)
    assert [len(share.training) for share in shares] == [30, 10]
    shares = share_out([Wish("a", 0.75), Wish("b", 0.25, repeats=3)], [1000, 10], None, 0)
    assert [len(share.training) for share in shares] == [90, 30]
    assert set(Counter(shares[1].training.tolist()).values()) == {3}
    with pytest.raises(TooFew, match=r"source b: has 10 rows .* asks for 25 of 100; lower rows to 40"):
        share_out([Wish("a", 0.75), Wish("b", 0.25)], [1000, 10], 100, 0)
    with pytest.raises(TooFew, match="source b: has no rows"):
        share_out([Wish("a", 0.75), Wish("b", 0.25)], [1000, 0], None, 0)


@settings(deadline=None, suppress_health_check=CALM)
@given(st.text(alphabet="ab \n", max_size=200), st.integers(1, 60))
def test_the_pieces_of_a_document_are_the_document(text: str, most: int) -> None:
    document = Example((Message("text", text),), "", None, {"x": 1}, "f", 3)
    pieces = list(cut_up(document, most))
    assert "".join(piece.messages[0].content for piece in pieces) == text
    assert all(len(piece.messages[0].content) <= most for piece in pieces)
    assert all(piece.messages[0].content for piece in pieces) or not text
    assert {(piece.source, piece.number, piece.extra["x"]) for piece in pieces} == {("f", 3, 1)}


def test_a_conversation_is_not_cut() -> None:
    talk = Example((Message("user", "a" * 50), Message("assistant", "b" * 50)))
    assert list(cut_up(talk, 10)) == [talk]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


THREE = """
seed = 11
rows = 60

[[source]]
name = "a"
path = "a.jsonl"
licence = "MIT"
probability = 3
validation = 0.1
validation-cap = 4

[[source]]
name = "b"
path = ["b1.jsonl", "b2.jsonl"]
probability = 1
repeats = 2

[[source.step]]
kind = "match"
drop = ["number 7\\\\."]

[[source]]
name = "c"
path = "c.jsonl"
count = 5
"""


@pytest.fixture
def three(tmp_path: Path) -> Path:
    rows = invented_rows(100)
    write(tmp_path / "a.jsonl", rows[:60])
    write(tmp_path / "b1.jsonl", rows[5:12])  # all but the step's in a, too
    write(tmp_path / "b2.jsonl", rows[60:70])
    write(tmp_path / "c.jsonl", rows[70:])
    (tmp_path / "mix.toml").write_text(THREE)
    return tmp_path / "mix.toml"


def owner(row: dict[str, Any]) -> str:
    number = int(row["instruction"].rstrip(".").rpartition(" ")[2])
    return "a" if number < 60 else "b" if number < 70 else "c"


def test_a_mix_holds_what_its_settings_say(three: Path) -> None:
    output = three.parent / "out" / "mix.jsonl"
    report = mix(read_mix(str(three)), output)
    training, held = rows_of(output), rows_of(output.with_suffix(".validation.jsonl"))
    assert Counter(map(owner, training)) == {"a": 45, "b": 15, "c": 5}
    assert Counter(map(owner, held)) == {"a": 4}
    texts = Counter(row["instruction"] for row in training)
    assert not set(texts) & {row["instruction"] for row in held}
    assert max(texts.values()) == 2
    assert [owner(row) for row in training[:9]] != ["a"] * 9  # shuffled

    manifest = json.loads(report.manifest.read_text())
    a, b, c = manifest["sources"]
    assert (a["licence"], b["licence"]) == ("MIT", "unknown")
    assert [step["reasons"] for step in b["steps"]] == [{"matched": 1}, {"exact_duplicate": 6}]
    assert (b["rows"], b["available"], b["training"]["rows"]) == (17, 10, 15)
    assert (a["validation"]["rows"], c["training"]["rows"]) == (4, 5)
    assert a["files"][0]["sha256"] == hashlib.sha256((three.parent / "a.jsonl").read_bytes()).hexdigest()
    assert manifest["outputs"]["training"]["sha256"] == hashlib.sha256(output.read_bytes()).hexdigest()
    said = sum(len(row[name]) for row in training for name in ("instruction", "input", "output"))
    assert sum(one["training"]["characters"] for one in manifest["sources"]) == said
    assert manifest["settings"]["seed"] == 11

    dropped = list(read_examples(output.with_suffix(".run") / "dropped.jsonl"))
    why = [row.extra["dropped"] for row in dropped]
    assert Counter((one["mix_source"], one["reason"]) for one in why) == {
        ("b", "matched"): 1, ("b", "exact_duplicate"): 6,
    }  # fmt: skip
    first = next(one for one in why if one["reason"] == "exact_duplicate")
    assert first["evidence"]["source"].endswith("a.jsonl")
    assert {path.name for path in output.with_suffix(".run").iterdir()} == {
        "dropped.jsonl",
        "lock",
        "manifest.json",
        "owner.json",
    }


def test_a_mix_repeats_to_the_byte(three: Path) -> None:
    outputs = [three.parent / name / "mix.json" for name in ("one", "two", "other")]
    for output in outputs[:2]:
        mix(read_mix(str(three)), output)
    mix(read_mix(str(three), more={"seed": 12}), outputs[2])
    one, two, other = (
        [path.read_bytes() for path in (output, output.with_suffix(".validation.json"))] for output in outputs
    )
    assert one == two
    assert one[0] != other[0]
    assert one[1] != other[1]
    manifests = [output.with_suffix(".run").joinpath("manifest.json").read_text() for output in outputs[:2]]
    assert manifests[0].replace("/one/", "/two/") == manifests[1]


def test_a_source_does_not_change_what_others_give(three: Path) -> None:
    one, two = three.parent / "one.jsonl", three.parent / "two.jsonl"
    mix(read_mix(str(three)), one)
    text = THREE.replace("rows = 60", "rows = 100").replace(
        "[[source]]",
        '[[source]]\nname = "d"\npath = "d.jsonl"\nprobability = 8\nrepeats = 99\n\n[[source]]',
        1,
    )
    write(three.parent / "d.jsonl", [{"instruction": "d 999", "output": "d"}])
    three.write_text(text)
    mix(read_mix(str(three)), two)
    less = Counter(row["instruction"] for row in rows_of(two))
    more = Counter(row["instruction"] for row in rows_of(one))
    del less["d 999"]
    assert less
    assert not less - more


def test_the_order_of_the_sources(three: Path) -> None:
    output = three.parent / "out.jsonl"
    mix(read_mix(str(three), more={"order": "sources"}), output)
    rows = rows_of(output)
    assert [owner(row) for row in rows] == ["a"] * 45 + ["b"] * 15 + ["c"] * 5
    numbers = [int(row["instruction"].rstrip(".").rpartition(" ")[2]) for row in rows[:45]]
    assert numbers == sorted(numbers)


def test_near_duplicates_across_sources(three: Path) -> None:
    rows = invented_rows(100)
    write(
        three.parent / "c.jsonl",
        [{**row, "output": row["output"] + "  # so"} for row in rows[:20]] + rows[70:],
    )
    output = three.parent / "out.jsonl"
    report = mix(read_mix(str(three), more={"duplicates": "near"}), output)
    c = report.sources[2]
    assert (c.rows, len(c.places), c.tallies[-1].reasons) == (50, 30, {"near_duplicate": 20})
    assert all("# so" not in row["output"] for row in rows_of(output))
    dropped = rows_of(output.with_suffix(".run") / "dropped.jsonl")
    assert sum(row["dropped"]["reason"] == "near_duplicate" for row in dropped) == 26
    report = mix(read_mix(str(three), more={"duplicates": "off"}), output)
    assert len(report.sources[2].places) == 50


def test_the_ready_mix_of_longllama(tmp_path: Path) -> None:
    """On sources of the right shapes: proportions to the row, length bands, patterns, languages."""
    write(
        tmp_path / "math.json", [{"instruction": f"m {n}", "output": "1", "source": "x"} for n in range(800)]
    )
    question = [*(10 + n for n in range(300)), *(5001 + 20 * n for n in range(300)), 5000, 12000, 40000]
    orca = [
        {"id": str(n), "system_prompt": "", "question": f"q {n} ".ljust(size, "x"), "response": "Yes."}
        for n, size in enumerate(question)
    ]
    orca += [
        {**orca[350], "response": "The text DOES NOT MENTION it."},
        {**orca[351], "response": "No answer."},
    ]
    write(tmp_path / "orca.jsonl", orca)
    sizes = [*(100 + n for n in range(60)), *(6001 + 50 * n for n in range(60))]
    chats = [
        {
            "lang": "en",
            "conversations": [
                {"from": "human", "value": f"h {n}"},
                {"from": "gpt", "value": "y" * (size - len(f"h {n}"))},
            ],
        }
        for n, size in enumerate(sizes)
    ]
    spoilt = ["I apologize, no.", "As a very large language model I", "OpenAI", "you are DAN now", "fine"]
    chats += [
        {"lang": "en" if text != "fine" else "de", "conversations": [
            {"from": "human", "value": f"s {text}"}, {"from": "gpt", "value": text}]}
        for text in spoilt
    ]  # fmt: skip
    write(tmp_path / "chat.jsonl", chats)
    paths = {
        "mathinstruct": tmp_path / "math.json", "openorca-short": tmp_path / "orca.jsonl",
        "openorca-long": tmp_path / "orca.jsonl", "sharegpt-short": tmp_path / "chat.jsonl",
        "sharegpt-long": tmp_path / "chat.jsonl",
    }  # fmt: skip
    output = tmp_path / "out.jsonl"
    report = mix(read_mix("longllama-code-instruct", paths, {"rows": 980}), output)
    assert [one.training["rows"] for one in report.sources] == [710, 160, 80, 20, 10]
    assert [len(one.places) for one in report.sources] == [800, 300, 300, 60, 60]
    rows = list(read_examples(output))
    assert len(rows) == 980
    for row in rows:
        size = len(row.instruction) if row.instruction.startswith("q") else len(row.instruction + row.output)
        assert size < 12000
        assert size not in {5000, 6000}
        assert "DAN" not in row.output
        assert row.output not in {*spoilt, "No answer."}
    long = [row for row in rows if row.instruction.startswith("q") and len(row.instruction) > 5000]
    assert len(long) == 80


def test_the_ready_mix_of_orca_8k(tmp_path: Path) -> None:
    chat = [{"instruction": f"o {n}", "output": f"answer {n}"} for n in range(25_200)]
    write(tmp_path / "orca.jsonl", chat)
    stories = [{"text": f"f {n}"} for n in range(5_100)]
    long = "".join(f"line {n}\n" for n in range(20_000))
    write(tmp_path / "fanfics.jsonl", [*stories, {"text": long}])
    write(tmp_path / "pajama.jsonl", [{"text": f"r {n}", "meta": {"n": n}} for n in range(5_200)])
    names = {"orca-chat": "orca", "fanfics": "fanfics", "red-pajama": "pajama"}
    paths = {name: tmp_path / f"{file}.jsonl" for name, file in names.items()}
    output = tmp_path / "out.jsonl"
    report = mix(read_mix("oasst-orca-8k", paths), output)
    pieces = -(-len(long) // 65535)
    fanfics = 5_100 + pieces
    assert report.sources[1].pieces == fanfics
    assert [one.validation["rows"] for one in report.sources] == [5000, 1000, 1000]
    assert [one.training["rows"] for one in report.sources] == [20_200, fanfics - 1000, 1050]
    rows = list(read_examples(output))
    assert len(rows) == report.rows
    cut = [row.output for row in [*rows, *read_examples(report.validation or output)] if "line" in row.output]
    assert sum(map(len, cut)) == len(long)
    assert all(len(piece) <= 65535 and piece.endswith("\n") for piece in cut)


def test_the_command(cli: Cli, three: Path) -> None:
    output = three.parent / "out.json"
    ended = cli("mix", three, "-o", output, "--seed", 3)
    assert ended.status == 0, ended.err
    assert ended.out == ""
    assert "65 rows in" in ended.err
    assert "estimate: characters / 3.6" in ended.err
    assert "MIT" in ended.err
    ended = cli("mix", three, "-o", output, "--seed", 3, "--rows", 20, "--log-format", "json")
    told = json.loads(ended.err)
    assert sum(one["training"]["rows"] for one in told["sources"]) == 25
    ended = cli("mix", "oasst-orca-8k", "--show")
    assert ended.out == ready_mixes()["oasst-orca-8k"].read_text()


def test_tokens_by_a_tokenizer(three: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(three.parent / "tokenizer.json"))
    three.write_text('tokenizer = "."\n' + THREE)
    output = three.parent / "out.jsonl"
    report = mix(read_mix(str(three)), output)
    words = sum(
        len(row[name].split()) for row in rows_of(output) for name in ("instruction", "input", "output")
    )
    assert sum(one.training["tokens"] for one in report.sources) == words


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("rows = 60", "rows = 600", "lower rows to"),
        ("rows = 60", "rows = 0", "rows: input should be"),
        ("rows = 60", "row = 60", "row: no such key"),
        ("count = 5", "count = 500", "source c: has 30 rows to give, and count asks for 500"),
        ("count = 5", "count = 5\nfraction = 1.0", "source 3 (c): fraction and count exclude each other"),
        ("count = 5", "fraction = 1.5", "source 3 (c): fraction 1.5 needs repeats"),
        ("count = 5", "cuont = 5", "source 3 (c): cuont: no such key"),
        ('name = "c"', 'name = "a"', "two sources have the name 'a'"),
        ('path = "c.jsonl"', "", "source 3 (c): path: is missing"),
        ('path = "c.jsonl"', 'path = "none.jsonl"', "none.jsonl: no such file; source c needs it"),
        ('kind = "match"', 'kind = "mach"', "source 2 (b): step 1: 'mach' is no kind"),
        ('kind = "match"', 'kind = "length"\nmni = 3', "source 2 (b): step 1 (length): "),
        (THREE, "seed = 1", "no sources"),
        (THREE, "source = 1", "write each source as a table"),
    ],
)
def test_what_is_wrong_is_one_line(cli: Cli, three: Path, old: str, new: str, part: str) -> None:
    assert old in THREE
    three.write_text(THREE.replace(old, new))
    output = three.parent / "out.json"
    ended = cli("mix", three, "-o", output)
    assert ended.status == 2
    assert part in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not output.exists()
    assert not list(three.parent.glob("out.run/.*"))


def test_usage(cli: Cli, three: Path) -> None:
    for words, part in (
        (["mix", three], "-o"),
        (["mix", three, "-o", "x.parquet"], ".json or .jsonl"),
        (["mix", "none", "-o", "x.json"], "longllama-code-instruct, oasst-orca-8k"),
        (["mix", three, "-o", "x.json", "--source", "a"], "NAME=PATH"),
        (["mix", three, "-o", "x.json", "--source", "z=a.json"], "no source has the name 'z'"),
        (["mix", "none.toml", "-o", "x.json"], "none.toml"),
        (["mix", "none.toml", "--show"], "longllama-code-instruct, oasst-orca-8k"),
    ):
        ended = cli(*words)
        assert ended.status == 2, words
        assert part in ended.err
        assert len(ended.err.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory by RLIMIT_DATA")
def test_files_larger_than_the_memory(tmp_path: Path) -> None:
    """600 MB of rows are curated and mixed by a process that may hold 200 MB."""
    source = tmp_path / "large.jsonl"
    body = json.dumps({"instruction": "@", "input": "", "output": "word " * 4000})
    with source.open("w") as file:
        for number in range(30_000):
            file.write(body.replace("@", f"task {number}") + "\n")
    assert source.stat().st_size > 600e6
    toml = tmp_path / "mix.toml"
    toml.write_text('[[source]]\nname = "large"\npath = "large.jsonl"\nfraction = 0.5\nvalidation = 0.01\n')
    script = f"""
        import resource, sys
        resource.setrlimit(resource.RLIMIT_DATA, (200_000_000, 200_000_000))
        from selfinstruct.cli import main
        sys.argv = ["selfinstruct", "curate", {str(source)!r}, "-o", {str(tmp_path / "kept.jsonl")!r},
            "--exact", "--drop-pattern", "task 77", "--top-k", "1"]
        main_ended = None
        try:
            main()
        except SystemExit as end:
            main_ended = end.code
        assert not main_ended, main_ended
        sys.argv = ["selfinstruct", "mix", {str(toml)!r}, "-o", {str(tmp_path / "mixed.jsonl")!r}]
        main()
    """
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], check=False, env=env, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "30000 rows read, 29889 kept" in ended.stderr
    assert "14850 rows in" in ended.stderr
    with (tmp_path / "mixed.jsonl").open() as mixed:
        assert sum(1 for _ in mixed) == 14_850
