from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.backend_replay import ReplayBackend, read_row, reply_of
from selfinstruct.errors import InputError, RequestRefused, StoppedEarly
from selfinstruct.records import Choice, Reply, Request, Usage
from selfinstruct.seams import Backend

ASK = Request(prompt="p")


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def told(error: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_plain_rows_answer_by_number(tmp_path: Path) -> None:
    path = written(tmp_path / "r.jsonl", {"text": "zero"}, {"text": "one", "finish_reason": "length"})
    backend: Backend = ReplayBackend(path)
    assert backend.complete("1.0", ASK).choices == (Choice("one", "length"),)
    assert backend.complete("0.0", ASK).choices == (Choice("zero", "stop"),)
    with pytest.raises(StoppedEarly) as error:
        backend.complete("2.0", ASK)
    assert "used up after index 1" in told(error)
    with pytest.raises(InputError) as wrong:
        backend.complete("0.1", ASK)
    assert "staged" in told(wrong)
    backend.close()
    backend.close()


def test_blank_lines_are_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text":"zero"}\r\n  \n\n{"text":"one"}')
    backend = ReplayBackend(path)
    assert [backend.complete(f"{k}.0", ASK).text for k in (0, 1)] == ["zero", "one"]
    backend.close()


def test_keyed_rows_give_back_what_was_bought(tmp_path: Path) -> None:
    usage = {"prompt": 7, "completion": 5, "cached": 3}
    row: dict[str, Any] = {
        "key": "4.1",
        "request": "abc",
        "text": "a",
        "finish_reason": "stop",
        "usage": usage,
    }
    row |= {"others": [{"text": "b", "finish_reason": "length"}], "model": "m", "seconds": 1.5, "cost": 0.25}
    path = written(tmp_path / "replies.jsonl", {**row, "key": "9.0"}, row)
    backend = ReplayBackend(tmp_path)  # the run directory
    assert backend.path == path
    expected = Reply((Choice("a"), Choice("b", "length")), Usage(7, 5, 3), "m", 1.5)
    assert backend.complete("4.1", ASK) == expected
    backend.close()


def test_keyed_rows_missing_failed_and_refused(tmp_path: Path) -> None:
    path = written(
        tmp_path / "r.jsonl",
        {"key": "0.0", "failed": "http_429", "message": "busy"},
        {"key": "0.0", "text": "old"},
        {"key": "0.0", "text": "new"},
        {"key": "1.0", "failed": "http_429", "message": "busy"},
        {"key": "2.0", "refused": "content_filter", "message": "no"},
        {"key": "3.0", "text": "three"},
    )
    backend = ReplayBackend(path)
    assert backend.complete("0.0", ASK).text == "new"
    for key, reason in (("0.1", "not_in_replay"), ("1.0", "not_in_replay"), ("2.0", "content_filter")):
        with pytest.raises(RequestRefused) as refused:
            backend.complete(key, ASK)
        assert refused.value.reason == reason
    with pytest.raises(StoppedEarly):
        backend.complete("4.0", ASK)
    backend.close()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"nonsense", "is not JSON"),
        (b'{"text": "caf\xe9"}', "is not UTF-8"),
        (b"[1]", "no object"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"finish_reason": "stop"}', 'no "text"'),
        (b'{"text": null}', 'no "text"'),
        (b'{"text": "a", "finish_reason": 3}', "finish_reason"),
        (b'{"text": "a", "others": 3}', "others"),
        (b'{"text": "a", "others": [3]}', 'no "text"'),
        (b'{"text": "a", "usage": {"prompt": "3"}}', "usage"),
        (b'{"text": "a", "cost": "3"}', "cost"),
        (b'{"text": "a", "key": "1.0"}', '"key"'),
    ],
)
def test_a_bad_line_is_named_when_the_file_is_opened(tmp_path: Path, line: bytes, complaint: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"text": "good"}\n\n' + line + b"\n" + b'{"text": "good"}\n')
    with pytest.raises(InputError) as error:
        ReplayBackend(path)
    assert f"{path}, line 3: " in told(error)
    assert complaint in told(error)


@pytest.mark.parametrize("key", [None, 3, "1", "a.0", "1.0.0", "-1.0"])
def test_a_bad_key_is_named(tmp_path: Path, key: object) -> None:
    path = written(tmp_path / "r.jsonl", {"key": "0.0", "text": "a"}, {"key": key, "text": "a"})
    with pytest.raises(InputError, match='line 2: has no "key"'):
        ReplayBackend(path)


def test_no_file_and_no_replies(tmp_path: Path) -> None:
    for path, complaint in ((tmp_path / "none", "cannot read"), (tmp_path / "empty", "holds no replies")):
        (tmp_path / "empty").write_text("\n")
        with pytest.raises(InputError) as error:
            ReplayBackend(path)
        assert complaint in told(error)


def test_a_file_cut_at_any_byte_keeps_its_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    first = b'{"text": "zero \xc3\xa9"}\n'
    whole = first + b'{"text": "one \xc3\xa9\xc3\xa8"}\n'
    for cut in range(len(first), len(whole) + 1):
        path.write_bytes(whole[:cut])
        backend = ReplayBackend(path)
        assert backend.complete("0.0", ASK).text == "zero é"
        if cut >= len(whole) - 1:
            assert backend.complete("1.0", ASK).text == "one éè"
        else:
            with pytest.raises(StoppedEarly):
                backend.complete("1.0", ASK)
        backend.close()


def test_a_file_that_changed_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "r.jsonl", {"text": "a"}, {"text": "b"})
    backend = ReplayBackend(path)
    os.truncate(path, 20)
    with pytest.raises(InputError, match="changed while"):
        backend.complete("1.0", ASK)
    backend.close()
    with pytest.raises(RequestRefused):
        backend.complete("0.0", ASK)


def test_half_a_surrogate_pair_becomes_text_that_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"text": "a\\ud800b \\ud83d\\ude00"}\n')
    backend = ReplayBackend(path)
    assert backend.complete("0.0", ASK).text == "a\ufffdb \U0001f600"
    backend.close()


def test_many_threads_read_the_right_rows(tmp_path: Path) -> None:
    path = written(tmp_path / "r.jsonl", *({"text": f"{k} " * (k % 50)} for k in range(400)))
    backend = ReplayBackend(path)
    wrong: list[int] = []

    def read(share: int) -> None:
        wrong.extend(
            k for k in range(share, 400, 8) if backend.complete(f"{k}.0", ASK).text != f"{k} " * (k % 50)
        )

    threads = [threading.Thread(target=read, args=(share,)) for share in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    backend.close()
    assert wrong == []


@given(st.lists(st.tuples(st.text(), st.sampled_from(["stop", "length"])), min_size=1))
def test_any_text_comes_back_as_it_was_kept(pairs: list[tuple[str, str]]) -> None:
    choices = tuple(Choice(text, reason) for text, reason in pairs)
    row = {"key": "0.0", **asdict(choices[0]), "others": [asdict(choice) for choice in choices[1:]]}
    assert reply_of(read_row(json.dumps(row).encode())).choices == choices


@given(st.binary())
def test_any_bytes_are_a_row_or_a_named_error(line: bytes) -> None:
    error = None
    try:
        reply_of(read_row(line))
    except ValueError as caught:
        error = caught
    assert not isinstance(error, UnicodeError)
