from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import selfinstruct
from selfinstruct import store
from selfinstruct.errors import InputError, LockedError, StoppedEarly
from selfinstruct.reply_log import ReplyLog
from selfinstruct.store import AppendLog, Lock, disk_error, is_locked, part_of, read_log, write_atomically

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
VALUES: list[Any] = [
    {"k": 0, "text": "a\nb \u2028 \ud83d"},
    {"k": 12},
    12345,
    [],
    "\u00fc\x00",
    {"k": 3, "deep": [[{}]]},
]
REPOSITORY = Path(selfinstruct.__file__).parents[1]


def lines(values: list[Any]) -> bytes:
    return b"".join(json.dumps(value, separators=(",", ":")).encode() + b"\n" for value in values)


def whole(data: bytes) -> list[Any]:
    """What stands in the whole lines of `data`."""
    return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def told(error: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def python(code: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )


def test_a_log_cut_at_every_byte_keeps_its_whole_lines_and_goes_on(tmp_path: Path) -> None:
    data = lines(VALUES)
    assert whole(data) == VALUES
    path = tmp_path / "log"
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        kept = whole(data[:cut])
        assert list(read_log(path)) == kept
        assert path.read_bytes() == data[:cut]  # reading alone changes nothing
        log = AppendLog(path)
        assert list(log.read()) == kept
        log.append({"new": cut})
        log.append("second")
        log.close()
        assert path.read_bytes() == lines([*kept, {"new": cut}, "second"])


@settings(max_examples=50)
@given(st.lists(JSON, max_size=5), st.binary(max_size=30))
def test_a_torn_end_of_any_kind_is_cut_off(values: list[Any], tail: bytes) -> None:
    tail = tail.replace(b"\n", b"")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        path.write_bytes(lines(values) + tail)
        log = AppendLog(path)
        assert list(log.read()) == values
        log.append([])
        log.close()
        assert path.read_bytes() == lines([*values, []])


@pytest.mark.parametrize(
    "torn", [b"{\n", b"\n", b"\x00\x00\x00\n", b'{"a": "\xff"}\n', b"[" * 100_000 + b"\n"], ids=range(5)
)
def test_a_last_line_that_is_garbage_up_to_its_line_end_is_cut_off_too(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(lines([1, 2]) + torn)
    assert list(read_log(path)) == [1, 2]
    log = AppendLog(path)
    assert list(log.read()) == [1, 2]
    log.append(3)
    log.close()
    assert path.read_bytes() == lines([1, 2, 3])


@pytest.mark.parametrize(
    "bad", [b"{", b"", b"\x00\xff", b'{"k": 1', b"nonsense", b"[" * 100_000, b"1" * 5000], ids=range(7)
)
def test_garbage_in_the_middle_is_one_error_that_names_the_line(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "log"
    data = lines([{"k": 0}]) + bad + b"\n" + lines([{"k": 2}, {"k": 3}])
    path.write_bytes(data)
    log = AppendLog(path)
    for reader in (log.read, lambda: read_log(path)):
        with pytest.raises(InputError) as error:
            list(reader())
        assert f"{path}: line 2 " in told(error)
    log.close()
    assert path.read_bytes() == data


def test_appending_from_eight_threads_loses_and_mixes_nothing(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "log")
    assert list(log.read()) == []

    def write(who: int) -> None:
        for number in range(100):
            log.append({"who": who, "number": number, "filling": "x" * (number * who)})

    threads = [threading.Thread(target=write, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.sync()
    log.close()
    log.close()
    found = list(read_log(log.path))
    assert len(found) == 800
    for who in range(8):
        assert [line["number"] for line in found if line["who"] == who] == list(range(100))


def test_what_a_full_disk_tore_is_taken_back_and_the_log_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AppendLog(tmp_path / "log")
    assert list(log.read()) == []
    log.append({"k": 0})
    write = os.write
    room = 7

    def full(descriptor: int, data: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(descriptor, data[:room])
        room -= written
        return written

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(StoppedEarly) as error:
            log.append({"k": 1, "long": "x" * 100})
    assert "No space left" in told(error)
    assert str(log.path) in told(error)
    assert log.path.read_bytes() == lines([{"k": 0}])
    log.append({"k": 2})
    log.close()
    assert log.path.read_bytes() == lines([{"k": 0}, {"k": 2}])


def test_what_cannot_be_taken_back_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AppendLog(tmp_path / "log.jsonl")
    log.append({"k": 0})
    write = os.write

    def torn(file: int, data: bytes) -> int:
        if len(data) > 9:
            return write(file, data[:9])
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", torn)
        patched.setattr(os, "ftruncate", failing(errno.EIO))
        with pytest.raises(InputError):
            log.append({"k": "a line"})
    log.append({"k": "the next one"})
    log.close()
    assert list(read_log(tmp_path / "log.jsonl")) == [{"k": 0}, {"k": "the next one"}]


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:3]))
    log = AppendLog(tmp_path / "log")
    assert list(log.read()) == []
    for value in VALUES:
        log.append(value)
    log.close()
    assert log.path.read_bytes() == lines(VALUES)


def test_sync_tells_of_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AppendLog(tmp_path / "log")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing(errno.EDQUOT))
        with pytest.raises(StoppedEarly):
            log.sync()
    log.sync()
    log.close()


def test_a_log_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        AppendLog(tmp_path)
    assert str(tmp_path) in told(error)
    assert list(read_log(tmp_path / "not there")) == []


def test_a_line_that_is_being_written_is_left_to_the_next_reader(tmp_path: Path) -> None:
    # What a file gives whose writer adds the rest of a line between two reads at its end.
    growing = [b'{"k":0}\n', b'{"k":', b"1}\n", b'{"k":2}\n']
    found = store._lines(tmp_path, cast("BinaryIO", iter(growing)))
    assert list(found) == [({"k": 0}, 8)]
    unended = [b'{"k":0}\n', b'{"k":1}', b"\n", b'{"k":2}\n']
    found = store._lines(tmp_path, cast("BinaryIO", iter(unended)))
    assert list(found) == [({"k": 0}, 8)]


def test_a_reader_sees_a_beginning_of_the_log_while_it_is_written(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "log")
    assert list(log.read()) == []
    written = 300

    def write() -> None:
        for number in range(written):
            log.append({"number": number, "filling": "x" * (50 * number % 9000)})

    thread = threading.Thread(target=write)
    thread.start()
    seen = 0
    while seen < written:
        found = [line["number"] for line in read_log(log.path)]
        assert found == list(range(len(found)))
        assert len(found) >= seen
        seen = len(found)
    thread.join()
    log.close()


def failing(code: int) -> Any:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("where", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_failed_write_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, code: int
) -> None:
    path = tmp_path / "data.json"
    write_atomically(path, b"old")
    with monkeypatch.context() as patched:
        patched.setattr(os if where == "fsync" else Path, where, failing(code))
        with pytest.raises(StoppedEarly if code == errno.ENOSPC else InputError) as error:
            write_atomically(path, b"new content")
    assert told(error).startswith(f"{path}: ")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["data.json"]
    write_atomically(path, b"new content")
    assert path.read_bytes() == b"new content"


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes there")
def test_a_disk_that_takes_no_more_bytes(tmp_path: Path) -> None:
    path, log = tmp_path / "data.json", tmp_path / "log"
    write_atomically(path, b"old")
    log.write_bytes(lines([1]))
    code = """if True:
        import resource, sys
        from pathlib import Path
        from selfinstruct.errors import SelfInstructError
        from selfinstruct.store import AppendLog, write_atomically
        log = AppendLog(Path(sys.argv[2]))
        assert list(log.read()) == [1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        for write in (lambda: write_atomically(Path(sys.argv[1]), b"x" * 5000), lambda: log.append("y" * 5000)):
            try:
                write()
            except SelfInstructError as error:
                print(error.status, str(error).count("\\n"))
        log.append(2)
    """
    process = python(code, path, log)
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("3 0\n3 0\n", "")
    assert path.read_bytes() == b"old"
    assert not part_of(path).exists()
    assert list(read_log(log)) == [1, 2]


def test_a_new_version_keeps_the_rights_of_the_file_and_overwrites_what_a_kill_left(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    part_of(path).write_bytes(b"left by a kill, longer than what follows")
    write_atomically(path, b"one")
    path.chmod(0o640)
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o640
    assert names(tmp_path) == ["data.json"]


def test_a_folder_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for attempt in (lambda path: write_atomically(path, b""), AppendLog, Lock):
        with pytest.raises(InputError) as error:
            attempt(tmp_path / "file" / "x")
        assert str(tmp_path / "file" / "x") in told(error)


@given(st.sampled_from(sorted(errno.errorcode)))
def test_every_disk_error_is_one_line_with_the_path(code: int) -> None:
    error = disk_error(Path("there/x.json"), OSError(code, os.strerror(code)))
    assert str(error).startswith("there/x.json: ")
    assert os.strerror(code) in str(error)
    assert "\n" not in str(error)
    assert error.status == (3 if code in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG} else 2)


def test_a_lock_is_given_once_and_again_after_its_release(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    lock = Lock(path)
    assert is_locked(path)
    with pytest.raises(LockedError) as error:
        Lock(path)
    assert f"process {os.getpid()} on " in told(error)
    assert is_locked(path)  # asking and failing took nothing away
    lock.release()
    assert not is_locked(path)
    again = Lock(path)
    assert path.read_text().count("process") == 1
    again.release()


HOLD = """if True:
    import sys
    from pathlib import Path
    from selfinstruct.store import Lock
    lock = Lock(Path(sys.argv[1]))
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = python(HOLD, tmp_path / "lock")
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_another_process_holds_the_lock_until_it_is_killed(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    path = tmp_path / "lock"
    assert is_locked(path)
    with pytest.raises(LockedError) as error:
        Lock(path)
    assert f"process {holder.pid} on " in told(error)
    assert error.value.status == 5
    holder.send_signal(signal.SIGKILL)
    holder.wait(timeout=30)
    assert not is_locked(path)
    lock = Lock(path)
    assert f"process {os.getpid()} on " in path.read_text()
    lock.release()


def test_a_lock_file_with_garbage_in_it_is_a_lock_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_bytes(b"\xff\xfe\x00\n\n")
    with path.open("rb") as held:
        assert store._try_lock(held.fileno())
        with pytest.raises(LockedError):
            Lock(path)
    Lock(path).release()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSPC])
def test_a_disk_that_gives_no_lock_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    if code == errno.ENOLCK:
        monkeypatch.setattr(store, "_try_lock", failing(code))
    else:
        monkeypatch.setattr(os, "write", failing(code))
    with pytest.raises((InputError, StoppedEarly)) as error:
        Lock(tmp_path / "lock")
    assert os.strerror(code) in told(error)
    monkeypatch.undo()
    Lock(tmp_path / "lock").release()


@settings(max_examples=20)
@given(st.binary(max_size=2000), st.binary(max_size=2000))
def test_what_is_written_is_what_is_there(first: bytes, second: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        write_atomically(path, first)
        assert path.read_bytes() == first
        write_atomically(path, second)
        assert path.read_bytes() == second
        assert names(Path(folder)) == ["x"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("replies.jsonl", {}),
        ("replies.jsonl", 5),
        ("replies.jsonl", {"key": "a.b", "text": "x"}),
        ("replies.jsonl", {"key": "0.0", "text": "x", "finish_reason": "stop"}),
        ("replies.jsonl", {"key": "0.0", "request": "d", "text": "x", "usage": {"tokens": 1}}),
        ("sent.jsonl", "x"),
        ("sent.jsonl", [1, 2]),
    ],
)
def test_a_damaged_log_of_replies_is_told_in_a_line(tmp_path: Path, name: str, line: object) -> None:
    (tmp_path / "sent.jsonl").write_text("0\n" if name.startswith("sent") else "")
    with (tmp_path / name).open("a") as file:
        file.write(json.dumps(line) + "\n")
    (tmp_path / "replies.jsonl").touch()
    log = ReplyLog(tmp_path)
    with pytest.raises(InputError, match=f"{name}: a line that is none of ours"):
        log.read_replies()
    log.close_replies()
