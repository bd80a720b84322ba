"""Token ids and labels: what is learned, truncation, padding, packing, the files, the trainers' settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from conftest import Ended, invented_rows
from pyarrow import parquet
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from selfinstruct.data.chat_templates import find_template
from selfinstruct.data.rows import Example, Message
from selfinstruct.data.token_files import check_store
from selfinstruct.data.tokens import (
    IGNORED,
    Job,
    Padding,
    Shape,
    TokenCounts,
    TokenRow,
    encode,
    fit_template,
    load_vocabulary,
)
from selfinstruct.errors import InputError

Cli = Callable[..., Ended]
SPECIAL = [
    "<s>",
    "</s>",
    "<pad>",
    "<|im_start|>",
    "<|im_end|>",
    "<|system|>",
    "<|prompter|>",
    "<|assistant|>",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE tokenizer, trained here, in a folder as models have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([row["instruction"] + row["output"] for row in invented_rows(50)], trainer)
    path = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(path / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": "<pad>"}
    (path / "tokenizer_config.json").write_text(json.dumps(names))
    return path


def job_of(folder: Path, template: str, shape: Shape) -> Job:
    vocabulary = load_vocabulary(folder)
    return Job(vocabulary, fit_template(find_template(template), vocabulary)[0], shape)


def examples(count: int) -> list[Example]:
    return [
        Example((Message("user", row["instruction"]), Message("assistant", row["output"])), row["input"])
        for row in invented_rows(count)
    ]


def run(job: Job, rows: list[Example]) -> tuple[list[TokenRow], TokenCounts]:
    counts = TokenCounts()

    def refuse(example: Example, why: str) -> None:
        raise AssertionError((example, why))

    return list(encode(job, rows, counts, refuse)), counts


def decoded(job: Job, row: TokenRow, *, learned: bool) -> str:
    ids = [each for each, label in zip(row.ids, row.labels, strict=True) if (label != IGNORED) or not learned]
    return job.vocabulary.tokenizer.decode(ids, skip_special_tokens=False)


LEARNED = {
    "alpaca": "x = \u00e9\u4e2d\n</s>",
    "alpaca-chat": "x = \u00e9\u4e2d\n</s>",
    "chatml": "first<|im_end|>x = \u00e9\u4e2d\n<|im_end|>",
    "oasst": "first</s>x = \u00e9\u4e2d\n</s>",
    "longllama-qa": "x = \u00e9\u4e2d\n</s>",
    "longllama-chat": "first</s>x = \u00e9\u4e2d\n</s>",
}
TALK = (
    Message("user", "One?"),
    Message("assistant", "first"),
    Message("user", "Two?"),
    Message("assistant", "x = \u00e9\u4e2d\n"),
)


@pytest.mark.parametrize("name", LEARNED)
def test_exactly_the_answers_are_learned(folder: Path, name: str) -> None:
    job = job_of(folder, name, Shape(500))
    one_turn = name in {"alpaca", "longllama-qa"}
    row = Example(TALK[2:] if one_turn else TALK, "given")
    (found,), counts = run(job, [row])
    assert decoded(job, found, learned=True) == LEARNED[name]
    assert all(label in {IGNORED, each} for each, label in zip(found.ids, found.labels, strict=True))
    whole = decoded(job, found, learned=False)
    assert whole.startswith("<s>") == (name not in {"chatml", "oasst"})
    assert whole.count("</s>") == {"chatml": 0, "oasst": 4, "longllama-chat": 2}.get(name, 1)
    assert (counts.rows, counts.tokens, counts.truncated) == (1, len(found.ids), 0)
    assert found.mask == [1] * len(found.ids)


def test_a_document_is_learned_whole(folder: Path) -> None:
    job = job_of(folder, "alpaca", Shape(100))
    (found,), _ = run(job, [Example((Message("text", "Once upon a time"),))])
    assert decoded(job, found, learned=True) == "Once upon a time</s>"
    assert decoded(job, found, learned=False) == "<s>Once upon a time</s>"


def test_marks_of_the_tokenizer_in_a_text_are_refused(folder: Path) -> None:
    job = job_of(folder, "alpaca", Shape(400))
    told: list[str] = []
    rows = [Example((Message("user", "a<pad>b"), Message("assistant", "c"))), *examples(1)]
    found = list(encode(job, rows, TokenCounts(), lambda _, why: told.append(why)))
    assert len(found) == 1
    assert "'<pad>', a control token" in told[0]


def test_half_a_character_is_told(cli: Cli, folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"instruction": "\\ud800", "output": "x"}\n{"instruction": "a", "output": "b"}\n')
    words = ("tokenize", source, "--tokenizer", folder, "--template", "alpaca", "-o")
    ended = cli(*words, tmp_path / "one")
    assert ended.status == 2
    assert "row 1: the field 'text' holds half a character" in ended.err
    assert not (tmp_path / "one").exists()
    assert cli(*words, tmp_path / "two", "--skip-bad").status == 0
    assert (tmp_path / "two.bad.jsonl").is_file()


def test_too_long_rows_are_cut_and_empty_ones_left_out(folder: Path) -> None:
    whole, _ = run(job_of(folder, "alpaca", Shape(10_000)), examples(20))
    most = sorted(len(row.ids) for row in whole)[10]
    found, counts = run(job_of(folder, "alpaca", Shape(most)), examples(20))
    assert counts.truncated == sum(len(row.ids) > most for row in whole)
    assert counts.lost == sum(max(0, len(row.ids) - most) for row in whole)
    assert [row.ids for row in found] == [row.ids[:most] for row in whole]
    found, counts = run(job_of(folder, "alpaca", Shape(20)), examples(20))
    assert (found, counts.empty) == ([], 20)


@pytest.mark.parametrize("padding", ["left", "right", "random"])
def test_padding(folder: Path, padding: Padding) -> None:
    plain, _ = run(job_of(folder, "oasst", Shape(300)), examples(30))
    found, counts = run(job_of(folder, "oasst", Shape(300, padding, seed=7)), examples(30))
    pad = load_vocabulary(folder).padding
    lefts = []
    for bare, row in zip(plain, found, strict=True):
        assert len(row.ids) == len(row.labels) == len(row.mask) == len(row.positions) == 300
        left = row.mask.index(1)
        lefts.append(left / (300 - len(bare.ids)))
        inside = slice(left, left + len(bare.ids))
        assert row.ids[inside] == bare.ids
        assert row.labels[inside] == bare.labels
        assert row.mask == [0] * left + bare.mask + [0] * (300 - left - len(bare.ids))
        assert {each for each, real in zip(row.ids, row.mask, strict=True) if not real} == {pad}
        assert {label for label, real in zip(row.labels, row.mask, strict=True) if not real} == {IGNORED}
    assert counts.padding == sum(300 - len(row.ids) for row in plain)
    if padding == "random":
        assert len({round(share, 2) for share in lefts}) > 15
        assert found == run(job_of(folder, "oasst", Shape(300, padding, seed=7)), examples(30))[0]
        assert found != run(job_of(folder, "oasst", Shape(300, padding, seed=8)), examples(30))[0]
    else:
        assert set(lefts) == {1.0 if padding == "left" else 0.0}


def test_packing(folder: Path) -> None:
    plain, _ = run(job_of(folder, "oasst", Shape(300)), examples(30))
    found, counts = run(job_of(folder, "oasst", Shape(300, "right", pack=True)), examples(30))
    assert all(len(row.ids) == 300 for row in found)
    assert len(found) < 30
    real = [each for row in found for each, mask in zip(row.ids, row.mask, strict=True) if mask]
    assert real == [each for row in plain for each in row.ids]
    starts = sum(
        place == 0 for row in found for place, mask in zip(row.positions, row.mask, strict=True) if mask
    )
    assert starts == 30
    for row in found:
        for place, label in zip(row.positions, row.labels, strict=True):
            assert place or label == IGNORED
    assert counts.sequences == len(found)
    documents = [Example((Message("text", "abc"),))] * 2
    (pack,), _ = run(job_of(folder, "oasst", Shape(300, pack=True)), documents)
    assert [label == IGNORED for label in pack.labels].count(True) == 2  # the first token of each


def make(cli: Cli, folder: Path, tmp_path: Path, name: str, *words: object) -> Path:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in invented_rows(40)))
    output = tmp_path / name
    ended = cli("tokenize", source, "-o", output, "--tokenizer", folder, "--template", "oasst", *words)
    assert ended.status == 0, ended.err
    return output


def test_the_three_stores_hold_the_same(cli: Cli, folder: Path, tmp_path: Path) -> None:
    shape = ["--max-tokens", 256, "--pad", "random", "--seed", 3]
    arrow = make(cli, folder, tmp_path, "arrow", *shape)
    table = make(cli, folder, tmp_path, "parquet", *shape, "--format", "parquet")
    maps = make(cli, folder, tmp_path, "npy", *shape, "--format", "npy")
    again = make(cli, folder, tmp_path, "again", *shape, "--format", "npy")
    data = "train/data-00000-of-00001.arrow"
    with pa.ipc.open_stream(str(arrow / data)) as stream:
        told = stream.read_all()
    assert told.schema.types == [pa.list_(pa.int32()), pa.list_(pa.int8()), pa.list_(pa.int32())]
    read = parquet.read_table(table / "train.parquet")
    assert told.to_pylist() == read.to_pylist()
    for name in ("input_ids", "attention_mask", "labels"):
        mapped = np.load(maps / f"{name}.npy", mmap_mode="r")
        assert isinstance(mapped, np.memmap)
        assert mapped.shape == (40, 256)
        assert mapped.tolist() == told[name].to_pylist()
        assert (again / f"{name}.npy").read_bytes() == (maps / f"{name}.npy").read_bytes()
    facts = json.loads((maps / "tokens.json").read_text())
    assert (facts["seed"], facts["padding"], facts["max_tokens"]) == (3, "random", 256)
    assert facts["counts"]["rows"] == 40
    assert str(tmp_path) not in (maps / "tokens.json").read_text()


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["--format", "arrow"], {"trl.yaml", "axolotl.yaml", "llamafactory.yaml"}),
        (["--format", "parquet", "--pad", "right"], {"trl.yaml", "axolotl.yaml"}),
        (["--format", "arrow", "--pad", "random"], {"axolotl.yaml", "llamafactory.yaml"}),
        (["--format", "arrow", "--pack", "--pad", "right"], {"axolotl.yaml", "llamafactory.yaml"}),
        (["--format", "npy", "--pad", "left"], set()),
    ],
)
def test_settings_are_written_for_the_trainers_that_read_it_right(
    cli: Cli, folder: Path, tmp_path: Path, words: list[str], files: set[str]
) -> None:
    output = make(cli, folder, tmp_path, "out", "--max-tokens", 128, *words)
    assert {path.name for path in output.glob("*.yaml")} == files
    for name in files:
        told: dict[str, Any] = yaml.safe_load((output / name).read_text())
        length = {
            "trl.yaml": "max_length",
            "axolotl.yaml": "sequence_len",
            "llamafactory.yaml": "cutoff_len",
        }[name]
        assert told[length] == 128
        assert isinstance(told["learning_rate"], float)
        for each in told.get("datasets", []):
            assert list(output.glob(each.get("data_files") or each["path"]))


def test_a_saved_set_is_no_dataset_of_rows(cli: Cli, folder: Path, tmp_path: Path) -> None:
    output = make(cli, folder, tmp_path, "out")
    assert cli("export", output, "-o", tmp_path / "x.json").status == 2


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--format", "npy"], "of one length"),
        (["--pack", "--pad", "left"], "on the right"),
        (["--tokenizer", "nowhere"], "nowhere"),
        (["--tokenizer", "broken.json"], "not a tokenizer.json"),
        (["--end-token", "<eos>"], "no token '<eos>'"),
        (["--template", "vicuna"], "no such template"),
        (["-o", "full"], "already there"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    cli: Cli, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "broken.json").write_text("{}")
    (tmp_path / "in.json").write_text(json.dumps(invented_rows(2)))
    base = {"--tokenizer": str(folder), "--template": "alpaca", "-o": "out"}
    given = dict(zip(words[::2], words[1::2], strict=False)) if words[0] != "--pack" else {"--pad": "left"}
    flags = [word for pair in ({**base, **given}).items() for word in pair]
    ended = cli("tokenize", "in.json", *flags, *(["--pack"] if "--pack" in words else []))
    assert ended.status == 2
    assert part in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_without_an_end_is_told(cli: Cli, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps(invented_rows(2)))
    bare = tmp_path / "tokenizer.json"
    bare.write_bytes((folder / "tokenizer.json").read_bytes())
    words = [
        "tokenize",
        tmp_path / "in.json",
        "-o",
        tmp_path / "out",
        "--tokenizer",
        bare,
        "--template",
        "alpaca",
    ]
    ended = cli(*words)
    assert ended.status == 2
    assert "--end-token" in ended.err
    assert cli(*words, "--end-token", "</s>").status == 0


def test_the_command_tells_what_it_did(cli: Cli, folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    rows = [*invented_rows(3), {"instruction": "a</s>", "output": "b"}, {"x": 1}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = ["tokenize", source, "--tokenizer", folder, "--template", "longllama-qa"]
    ended = cli(*base, "-o", tmp_path / "out")
    assert (ended.status, len(ended.err.splitlines())) == (2, 1)
    ended = cli(*base, "-o", tmp_path / "out", "--skip-bad", "--log-format", "json")
    told = json.loads(ended.err)
    assert (told["rows"], told["refused"], told["missing"]) == (3, 2, [])
    ended = cli(*base, "-o", tmp_path / "o2", "--skip-bad", "--control", "escape", "--max-tokens", 16)
    assert "4 left out with nothing to learn, 1 kept aside" in ended.err


def test_tokens_that_the_tokenizer_lacks_are_told(folder: Path) -> None:
    vocabulary = load_vocabulary(folder)
    assert fit_template(find_template("chatml"), vocabulary)[1] == []
    template = find_template("oasst")
    bare = Tokenizer(models.BPE())
    assert set(fit_template(template, _with(vocabulary, bare))[1]) == set(template.tokens)


def test_a_mark_of_a_template_reaches_no_terminal_as_it_is(cli: Cli, folder: Path, tmp_path: Path) -> None:
    source, template = tmp_path / "in.json", tmp_path / "t.jinja"
    source.write_text(json.dumps(invented_rows(1)))
    template.write_text("{% for m in messages %}<|\x1b[31mx|>{{ m.content }}\n{% endfor %}")
    ended = cli("tokenize", source, "--tokenizer", folder, "--template", template, "-o", tmp_path / "out")
    assert ended.status == 0, ended.err
    assert "no single token for <|<1B>[31mx|>" in ended.err
    assert "\x1b" not in ended.err


def _with(vocabulary: Any, tokenizer: Tokenizer) -> Any:
    from dataclasses import replace

    return replace(vocabulary, tokenizer=tokenizer, special=())


def test_an_empty_folder_may_be_there(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    check_store(tmp_path / "out", "arrow", job_of(folder, "oasst", Shape(10)))
    (tmp_path / "out" / "x").touch()
    with pytest.raises(InputError, match="already there"):
        check_store(tmp_path / "out", "arrow", job_of(folder, "oasst", Shape(10)))


def test_neither_a_run_nor_the_rows_that_are_read_are_written_over(
    cli: Cli, folder: Path, tmp_path: Path
) -> None:
    source, run = tmp_path / "tokens.bad.jsonl", tmp_path / "tasks.run"
    source.write_text(json.dumps(invented_rows(1)[0]) + "\n")
    run.mkdir()
    (run / "journal.jsonl").write_text('{"k": 0, "decisions": []}\n')
    words = ("--tokenizer", folder, "--template", "chatml", "--skip-bad")
    for output, part in (("tokens", "what is read"), ("tasks.json", "is the dataset of a run")):
        ended = cli("tokenize", source, "-o", tmp_path / output, *words)
        assert (ended.status, ended.err.count("\n")) == (2, 1)
        assert part in ended.err
        assert not (tmp_path / output).exists()
    assert source.exists()
