"""Conversations: the layout against its promises, the files, and the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Ended, invented_rows
from hypothesis import given
from hypothesis import strategies as st
from scripted import Pool, Script

from selfinstruct.data.reading import read_examples
from selfinstruct.data.word_vectors import DIMENSIONS, word_vectors
from selfinstruct.derive.conversation_files import MARKS, estimate
from selfinstruct.derive.conversations import Block, lay_out, mean_similarity, measure
from selfinstruct.derive.converse import (
    _NO_QUESTION,
    MOVES,
    ConverseSettings,
    clean_question,
    converse,
)
from selfinstruct.derive.tasks import repeated
from selfinstruct.derive.worklist import WorkList
from selfinstruct.errors import RequestRefused
from selfinstruct.prompt_files import prompt_text
from selfinstruct.records import Rejection, Source
from selfinstruct.settings import make_run_settings

Cli = Callable[..., Ended]


def unit(rng: np.random.Generator, count: int, width: int = 5) -> Any:
    found = rng.normal(size=(count, width)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@given(
    st.lists(
        st.tuples(st.integers(1, 40), st.integers(1, 3), st.sampled_from(["", "a", "b"]), st.integers(0, 3)),
        min_size=1,
        max_size=40,
    ),
    st.integers(10, 80),
    st.none() | st.integers(1, 6),
    st.integers(0, 99),
)
def test_every_row_is_in_one_conversation_that_keeps_to_the_limits(
    rows: list[tuple[int, int, str, int]], max_tokens: int, max_turns: int | None, seed: int
) -> None:
    vectors = unit(np.random.default_rng(seed), len(rows))
    blocks = [Block(tokens, turns, system) for tokens, turns, system, _ in rows]
    cluster = np.array([group for *_, group in rows])
    laid = lay_out(vectors, cluster, blocks, max_tokens, max_turns)
    assert sorted(row for one in laid for row in one.rows) == list(range(len(rows)))
    for one in laid:
        mine = [blocks[row] for row in one.rows]
        assert len({block.system for block in mine}) == 1
        assert {int(cluster[row]) for row in one.rows} == {one.cluster}
        assert one.tokens == sum(block.tokens for block in mine)
        assert one.turns == sum(block.turns for block in mine)
        assert len(mine) == 1 or one.tokens <= max_tokens
        assert len(mine) == 1 or max_turns is None or one.turns <= max_turns
        assert (one.similarity is None) == (len(mine) == 1)
    assert laid == lay_out(vectors, cluster, blocks, max_tokens, max_turns)


def test_the_next_row_is_the_most_similar_one_that_is_left() -> None:
    angles = [0.0, 3.0, 1.0, 0.4, 2.0]
    vectors = np.array([[np.cos(one), np.sin(one)] for one in angles], np.float32)
    (one,) = lay_out(vectors, np.zeros(5, np.int64), [Block(1)] * 5, 5)
    assert one.rows == (2, 3, 0, 4, 1)
    first, second = lay_out(vectors, np.zeros(5, np.int64), [Block(1)] * 5, 3)
    assert (first.rows, second.rows) == ((2, 3, 0), (4, 1))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(0, 99))
def test_quality_is_the_mean_over_all_pairs(groups: list[int], seed: int) -> None:
    vectors, cluster = unit(np.random.default_rng(seed), len(groups)), np.array(groups)
    cosines = vectors.astype(float) @ vectors.T.astype(float)
    for one in measure(vectors, cluster):
        mine = np.flatnonzero(cluster == one.cluster)
        assert one.rows == len(mine)
        pairs = [cosines[a, b] for a in mine for b in mine if a != b]
        assert one.inside is None if not pairs else one.inside == pytest.approx(np.mean(pairs), abs=1e-3)
        others = [
            cosines[np.ix_(mine, np.flatnonzero(cluster == other))].mean()
            for other in set(groups) - {one.cluster}
        ]
        assert one.outside is None if not others else one.outside == pytest.approx(max(others), abs=1e-3)
    pairs = [cosines[a, b] for a in range(len(groups)) for b in range(len(groups)) if a != b]
    assert mean_similarity(vectors) == pytest.approx(np.mean(pairs) if pairs else 1.0, abs=1e-4)


def test_word_vectors_are_near_where_rare_words_are_shared() -> None:
    texts = ["sort a list of numbers", "sort a list of ages", "open a socket", "", "  "]
    texts += [f"a list of {word}" for word in ("cats", "dogs", "cows")]
    found = word_vectors(texts)
    assert found.shape == (8, DIMENSIONS)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(8), abs=1e-5)
    assert found[0] @ found[1] > 0.3 > found[0] @ found[2]
    assert (found == word_vectors(texts)).all()
    assert word_vectors([]).shape == (0, DIMENSIONS)


def rows_of(path: Path) -> list[tuple[Any, ...]]:
    return [example.chat() for example in read_examples(path)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows: list[dict[str, Any]] = [*invented_rows(60)]
    rows[7]["system"] = "Answer in rhymes."
    rows[9] = {"messages": [{"role": "user", "content": "Nobody answers."}]}
    rows[11]["history"] = [["What is a beacon?", "A light."]]
    rows[13]["output"] = "long " * 1000
    path = tmp_path / "in.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_the_command_uses_every_row_once_and_says_where_it_went(
    cli: Cli, tmp_path: Path, source: Path
) -> None:
    output = tmp_path / "out.json"
    words = ("converse", source, "-o", output, "--likeness", "words", "--max-tokens", 400)
    ended = cli(*words)
    assert (ended.status, ended.out) == (0, "")
    assert "59 rows in " in ended.err
    assert "too long   1 rows" in ended.err
    assert "left out   1 rows" in ended.err
    said = json.loads(output.read_text(encoding="utf-8"))
    before = [row for row in rows_of(source) if len(row) > 1]
    spoken = [
        (one["role"], one["content"]) for talk in said for one in talk["messages"] if one["role"] != "system"
    ]
    assert sorted(spoken) == sorted(
        (message.role, message.content) for row in before for message in row if message.role != "system"
    )
    assert rows_of(output)  # it is read back as dialogues
    assert all(example.is_dialogue for example in read_examples(output))

    lines = [
        json.loads(line) for line in (tmp_path / "out.run" / "conversations.jsonl").read_text().splitlines()
    ]
    summary, left_out, told = lines[-1]["summary"], lines[-2], lines[:-2]
    assert (left_out["reason"], left_out["left_out"][1]) == ("no_dialogue", 9)
    assert summary["rows"] == 59
    assert summary["tokenizer"] == "estimate: 3.6 characters a token"
    assert sum(one["rows"] for one in summary["clusters"]) == 59
    assert sorted(row[1] for one in told for row in one["rows"]) == [n for n in range(60) if n != 9]
    inputs = list(read_examples(source))
    for talk, one in zip(said, told, strict=True):
        texts = [message["content"] for message in talk["messages"]]
        assert [texts[-1]] == [inputs[one["rows"][-1][1]].output]
        sizes = [
            estimate(tuple(each.content for each in inputs[row[1]].chat()))
            + MARKS * len(inputs[row[1]].chat())
            for row in one["rows"]
        ]
        assert one["tokens"] == sum(sizes)
        assert one["tokens"] <= 400 or len(one["rows"]) == 1
        assert all(inputs[row[1]].system == inputs[one["rows"][0][1]].system for row in one["rows"])

    first = output.read_bytes()
    assert cli(*words).status == 0
    assert output.read_bytes() == first
    assert cli(*words, "--seed", 5).status == 0


def test_forms_turns_and_rows_that_are_too_long(cli: Cli, tmp_path: Path, source: Path) -> None:
    output = tmp_path / "out.json"
    words = (
        "converse",
        source,
        "-o",
        output,
        "--likeness",
        "words",
        "--layout",
        "sharegpt",
        "--max-turns",
        3,
    )
    ended = cli(*words, "--max-tokens", 400, "--too-long", "drop", "--clusters", 3, "--log-format", "json")
    assert ended.status == 0
    told = json.loads(ended.err)
    assert (told["rows"], told["left_out"], told["too_long"]) == (58, 2, 0)
    assert len(told["clusters"]) == 3
    said = json.loads(output.read_text(encoding="utf-8"))
    assert {turn["from"] for talk in said for turn in talk["conversations"]} == {"system", "human", "gpt"}
    assert max(sum(turn["from"] == "gpt" for turn in talk["conversations"]) for talk in said) == 3
    record = (tmp_path / "out.run" / "conversations.jsonl").read_text(encoding="utf-8")
    reasons = [json.loads(line).get("reason") for line in record.splitlines()]
    assert sorted(filter(None, reasons)) == ["no_dialogue", "too_long"]


def test_tokens_are_counted_by_a_tokenizer_where_one_is_named(cli: Cli, tmp_path: Path, source: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    output = tmp_path / "out.json"
    words = ("converse", source, "-o", output, "--likeness", "words", "--log-format", "json")
    ended = cli(*words, "--tokenizer", tmp_path)
    assert ended.status == 0
    told = json.loads(ended.err)
    chats = [example.chat() for example in read_examples(source) if example.is_dialogue]
    counted = sum(len(made.encode(message.content).ids) + MARKS for chat in chats for message in chat)
    assert (told["tokens"], told["tokenizer"]) == (counted, str(tmp_path))


def test_what_cannot_be_done_is_told_in_one_line(cli: Cli, tmp_path: Path, source: Path) -> None:
    output = tmp_path / "out.json"
    empty = tmp_path / "empty.json"
    empty.write_text("[]", encoding="utf-8")
    for words, told in (
        ([source], "name the file to write with -o"),
        ([source, "-o", tmp_path / "out.jsonl"], "ending in .json"),
        ([empty, "-o", output, "--likeness", "words"], "no question with an answer"),
        ([tmp_path / "none.json", "-o", output], "none.json"),
        (
            [source, "-o", output, "--likeness", "words", "--max-tokens", 1, "--too-long", "drop"],
            "every row is longer than --max-tokens 1",
        ),
        ([source, "-o", output, "--tokenizer", tmp_path / "no"], "cannot read the tokenizer"),
    ):
        ended = cli("converse", *words, *(["--log-format", "json"] if output in words else []))
        assert ended.status == 2
        assert told in ended.err
        assert len(ended.err.splitlines()) == 1
    assert not output.exists()


@pytest.mark.model
def test_rows_are_compared_by_meaning(cli: Cli, tmp_path: Path) -> None:
    asks = ["Sort the numbers of a list.", "Order these values from low to high.", "Write a poem about rain.",
            "Compose some verses on a storm."]  # fmt: skip
    source = tmp_path / "in.json"
    source.write_text(json.dumps([{"instruction": ask, "input": "", "output": "x"} for ask in asks]))
    ended = cli("converse", source, "-o", tmp_path / "out.json", "--clusters", 2, "--max-turns", 2)
    assert ended.status == 0
    talks = json.loads((tmp_path / "out.json").read_text())
    assert {frozenset(turn["content"] for turn in talk["messages"][::2]) for talk in talks} == {
        frozenset(asks[:2]), frozenset(asks[2:])
    }  # fmt: skip


FOLLOWED = [
    ('Programmer: "What if beta is empty?"', "Then it fails."),
    ("Show how to test it.\nAssistant: Like this", "```python\nassert alpha(2) == 4\n```"),
]  # fmt: skip


def turn_replies(folder: Path, rows: int, turns: int = 2) -> Path:
    """Replies to the requests of so many rows; every fourth row's second question is its first again."""
    path = folder / "turn-replies.jsonl"
    with path.open("w", encoding="utf-8") as out:
        for k in range(rows):
            for turn in range(turns):
                question, answer = FOLLOWED[0 if turn and k % 4 == 0 else turn % 2]
                for step, text in ((2 * turn, question), (2 * turn + 1, f"{answer}\n\nCase {k}.")):
                    out.write(json.dumps({"key": f"{k}.{step}", "text": text}) + "\n")
    return path


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps(invented_rows(12)), encoding="utf-8")
    return path


def test_follow_up_turns_stand_behind_their_row(cli: Cli, tmp_path: Path, tasks: Path) -> None:
    seen = set()
    for concurrency in (1, 8):
        output = tmp_path / f"out{concurrency}.json"
        words: list[object] = ["converse", tasks, "-o", output, "--likeness", "words", "--turns", 2]
        words += ["--max-tokens", 600]
        words += ["--backend", "replay", "--model", turn_replies(tmp_path, 12), "--concurrency", concurrency]
        ended = cli(*words)
        assert ended.status == 0, ended.err
        journal = (output.with_suffix(".turns.run") / "journal.jsonl").read_bytes()
        seen.add((output.read_bytes(), journal))
    assert len(seen) == 1
    assert "rejected   3 candidates (repeated_question 3)" in ended.err
    said = json.loads(output.read_text(encoding="utf-8"))
    texts = [turn["content"] for talk in said for turn in talk["messages"]]
    for k, row in enumerate(invented_rows(12)):
        place = texts.index(row["output"])
        behind = ["What if beta is empty?", f"Then it fails.\n\nCase {k}."]
        if k % 4:
            behind += ["Show how to test it.", f"{FOLLOWED[1][1]}\n\nCase {k}."]
        assert texts[place + 1 : place + 1 + len(behind)] == behind
    assert len(texts) == 12 * 2 + 2 * (12 + 9)
    assert "nothing to do" in cli(*words).err  # the run; the layout is made again
    assert output.read_bytes() in {one for one, _ in seen}


def test_turns_that_are_too_long_or_deleted_end_the_conversation(
    cli: Cli, tmp_path: Path, tasks: Path
) -> None:
    output = tmp_path / "out.json"
    words: list[object] = ["converse", tasks, "-o", output, "--likeness", "words", "--turns", 2]
    words += ["--backend", "replay", "--model", turn_replies(tmp_path, 12)]
    assert cli(*words, "--max-tokens", 85).status == 0
    run = output.with_suffix(".turns.run")
    reasons = json.loads(cli("status", run, "--json").out)["reasons"]
    assert reasons["too_long"] > 0
    told = json.loads(cli(*words, "--max-tokens", 85, "--log-format", "json").err.splitlines()[-1])
    assert told["too_long"] == 0
    assert 12 < told["turns"] < 36

    assert cli(*words, "--max-tokens", 600).status == 2  # another length makes other turns
    made = output.with_suffix(".turns.json")
    rows = json.loads(made.read_text(encoding="utf-8"))
    made.write_text(json.dumps(rows[1:]), encoding="utf-8")
    again = json.loads(cli(*words, "--max-tokens", 85, "--log-format", "json").err.splitlines()[-1])
    assert again["turns"] == told["turns"] - 1


def test_each_turn_has_a_move_of_its_own() -> None:
    given = {"inputs": ["in.json"], "output": "x.json", "model": "qwen2.5-coder-1.5b", "turns": len(MOVES)}
    settings = make_run_settings(ConverseSettings, given)
    plan = WorkList([Source("ab", "Add two numbers.", "", "1 + 2")]).plan(0, Pool())
    script = Script(
        *(text for k in range(len(MOVES)) for text in (f"Question {k} {k * 'x'}?", f"Answer {k}."))
    )
    found = converse(settings, plan, Pool(), script)
    moves = [one.notes["move"] for one in found]
    assert sorted(moves) == sorted(MOVES)
    for move, request in zip(moves, script.asked[::2], strict=True):
        assert prompt_text(f"converse_by_{move}") in request.messages[0][1]
        assert request.extra["grammar"].startswith(f'root ::= ("{MOVES[move][0]} "')


def test_a_refused_request_leaves_the_turns_before_it() -> None:
    given = {"inputs": ["in.json"], "output": "x.json", "backend": "openai", "model": "m", "turns": 3}
    settings = make_run_settings(ConverseSettings, given)
    plan = WorkList([Source("ab", "Add two numbers.", "", "1 + 2")]).plan(0, Pool())
    script = Script(
        "What of three numbers?", "Then add the third one.", "And four?", RequestRefused("too long")
    )
    first, second = converse(settings, plan, Pool(), script)
    assert (first.output, first.rejection) == ("Then add the third one.", None)
    assert second.rejection == Rejection("request_refused", {"message": "too long"})
    assert [(one.notes["turn"], one.notes["move"] in MOVES) for one in (first, second)] == [
        (1, True),
        (2, True),
    ]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("It is one short message in the programmer's own words.", "prompt_leak"),
        (
            "Well. It does not thank, does not answer, and does not ask what was asked before. Why?",
            "prompt_leak",
        ),
        ("Sure!", "no_question"),
    ],
)
def test_a_message_that_is_none_is_not_answered(reply: str, reason: str) -> None:
    given = {"inputs": ["in.json"], "output": "x.json", "backend": "openai", "model": "m", "turns": 1}
    plan = WorkList([Source("ab", "Add two numbers.", "", "1 + 2")]).plan(0, Pool())
    (found,) = converse(make_run_settings(ConverseSettings, given), plan, Pool(), Script(reply))
    assert found.rejection is not None
    assert found.rejection.reason == reason


def test_the_dry_run_shows_both_prompts_and_stray_flags_are_refused(
    cli: Cli, tmp_path: Path, tasks: Path
) -> None:
    words = ("converse", tasks, "-o", tmp_path / "out.json")
    shown = cli(*words, "--turns", 1, "--dry-run")
    assert shown.status == 0, shown.err
    assert "Programmer: Write a function" in shown.out
    assert "What happens if the list is empty?" in shown.out
    assert not (tmp_path / "out.json").exists()
    assert not (tmp_path / "out.run").exists()
    for more in (("--model", "m"), ("--dry-run",), ("--max-requests", 3)):
        ended = cli(*words, *more)
        assert (ended.status, f"leave {more[0]} out" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("What if it is empty?", "What if it is empty?"),
        ('**Programmer:** "Add a test."', "Add a test."),
        ("User: Why?\n\nAssistant: Because.", "Why?"),
        ('Print "a" and "b".', 'Print "a" and "b".'),
        ("  \n", ""),
        ("Assistant: Because.", ""),
    ],
)
def test_a_question_is_the_programmers_words_alone(text: str, question: str) -> None:
    assert clean_question(text) == question


def test_a_question_in_almost_the_same_words_is_an_old_one() -> None:
    said = ["Sort the list of names by their length.", "Add a test, please."]
    assert repeated("Sort this list of names by their length", said) == said[0]
    assert repeated("Add a test for empty lists.", said) is None
    assert repeated("???", ["!", "", "???"]) == "???"


@pytest.mark.model
def test_the_real_model_makes_turns(cli: Cli, tmp_path: Path, tasks: Path) -> None:
    output = tmp_path / "out.json"
    tasks.write_text(json.dumps(invented_rows(3)), encoding="utf-8")
    words = ("--model", "smollm2-135m", "--turns", 1, "--max-output-tokens", 60, "--likeness", "words")
    ended = cli("converse", tasks, "-o", output, *words)
    assert ended.status == 0, ended.err
    assert sum(len(talk["messages"]) for talk in json.loads(output.read_text())) >= 6


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("Sure!", False),
        ("Understood. I will use it.", False),
        ("Thank you, that works.", False),
        ("The programmer asks whether it is safe.", False),
        ("Yes, and what if the list is empty?", True),
        ("No. Can you sort it the other way round?", True),
        ("The second line fails for me. Why?", True),
        ("Now write a test for it.", True),
    ],
)
def test_only_what_can_be_answered_is_a_message(text: str, asks: bool) -> None:
    assert (_NO_QUESTION.match(text) is None) is asks
