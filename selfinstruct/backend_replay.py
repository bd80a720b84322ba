"""Replies from a file instead of a model: another run's `replies.jsonl`, or one written by hand.

The file is read, checked and indexed once when it is opened; texts stay on the disk until they are
asked for. Whether a reply suits the request is not looked at: the key alone decides.
"""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

from selfinstruct.errors import InputError, RequestRefused, StoppedEarly
from selfinstruct.records import Choice, Reply, Request, Usage

KEY = re.compile(r"(\d+)\.(\d+)")


class ReplayBackend:
    """A `Backend` that answers from a JSONL file, by key ("k.step"); safe to share between threads.

    Two forms are told apart by their first row. In a run's `replies.jsonl` every row has a "key";
    of rows with the same key the last one counts, and notes of failed calls are passed over. In the
    plain form, rows of {"text", "finish_reason"}, row k (from 0, blank lines not counted) answers
    key "k.0". A last line without its line end that cannot be read was cut off by a kill: it is
    passed over too.

    Args:
        path: the file, or a run directory that holds a `replies.jsonl`.

    Raises:
        InputError: the file cannot be read, holds no reply, or has a bad line; names the line.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            self.path /= "replies.jsonl"
        self._offsets: dict[str, int] = {}  # of each key's row, in bytes
        self._is_keyed = False
        self._lock = threading.Lock()
        try:
            self._file = self.path.open("rb")
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot read the replies: {error.strerror}; check --model"
            ) from None
        try:
            self._index()
        except BaseException:
            self._file.close()
            raise
        self._last = max(int(key.partition(".")[0]) for key in self._offsets)

    def _index(self) -> None:
        rows = offset = 0
        for number, line in enumerate(self._file, 1):
            start, offset = offset, offset + len(line)
            if not line.strip():
                continue
            try:
                row = read_row(line)
                if rows == 0:
                    self._is_keyed = "key" in row
                key = self._key_of(row, rows)
                if "failed" not in row and "refused" not in row:
                    reply_of(row)
            except ValueError as error:
                if not line.endswith(b"\n") and rows > 0:
                    break
                raise InputError(f"{self.path}, line {number}: {error}; mend or remove the line") from None
            rows += 1
            if "failed" not in row:
                self._offsets[key] = start
        if not self._offsets:
            raise InputError(
                f'{self.path}: holds no replies; name a replies.jsonl or rows of {{"text": ...}}'
            )

    def _key_of(self, row: dict[str, Any], rows: int) -> str:
        if not self._is_keyed:
            if "key" in row:
                raise ValueError('has a "key", which the first row has not')
            return f"{rows}.0"
        key = row.get("key")
        if not isinstance(key, str) or not KEY.fullmatch(key):
            raise ValueError('has no "key" of the form "12.0", which the first row has')
        return key

    def complete(self, key: str, request: Request) -> Reply:  # noqa: ARG002 - what is asked makes no difference
        """The stored reply of `key`.

        Raises:
            StoppedEarly: the file ends before this index.
            RequestRefused: the run that wrote the file has no reply for this step (`not_in_replay`),
                or the server refused it then (its reason).
            InputError: a later step is asked of a plain file, or the file changed since it was opened.
        """
        k, _, step = key.partition(".")
        if not self._is_keyed and step != "0":
            raise InputError(
                f"{self.path}: plain replies answer one request per index; a recipe of several steps (staged)"
                " needs the replies.jsonl of a run"
            )
        offset = self._offsets.get(key)
        if offset is None:
            if int(k) > self._last:
                raise StoppedEarly(
                    f"{self.path}: used up after index {self._last}; all tasks so far are kept"
                )
            raise RequestRefused(f"{self.path} has no reply for {key}", "not_in_replay")
        with self._lock:
            if self._file.closed:
                raise RequestRefused(f"{self.path} was closed", "not_in_replay")
            self._file.seek(offset)
            line = self._file.readline()
        try:
            row = read_row(line)
            if "refused" not in row:
                return reply_of(row)
        except ValueError:
            row = None
        if row is None:
            raise InputError(f"{self.path}: changed while it was being read; run the same command again")
        raise RequestRefused(str(row.get("message", "refused in the earlier run")), str(row["refused"]))

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._lock:
            self._file.close()


def read_row(line: bytes) -> dict[str, Any]:
    """One line as an object.

    Raises:
        ValueError: it is none; says why.
    """
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(row, dict):
        raise ValueError('is no object like {"text": ...}')  # noqa: TRY004 - told as a bad line
    return row


def reply_of(row: dict[str, Any]) -> Reply:
    """The reply in a row.

    Raises:
        ValueError: a field is missing or of the wrong kind; says which.
    """
    others = row.get("others") or []
    if not isinstance(others, list):
        raise ValueError('has an "others" that is no list')  # noqa: TRY004 - told as a bad line
    usage = row.get("usage") or {}
    names = ("prompt", "completion", "cached")
    if not isinstance(usage, dict) or not all(isinstance(usage.get(name, 0), int) for name in names):
        raise ValueError('has a "usage" that does not hold token counts')
    cost, seconds = row.get("cost"), row.get("seconds") or 0.0
    if not isinstance(cost, int | float | None) or not isinstance(seconds, int | float):
        raise ValueError('has a "cost" or "seconds" that is no number')  # noqa: TRY004 - told as a bad line
    return Reply(
        choices=tuple(choice_of(choice) for choice in [row, *others]),
        usage=Usage(**{name: usage.get(name, 0) for name in names}),
        model=str(row.get("model") or ""),
        seconds=float(seconds),
        cost=None,  # it was paid by the run that bought it
    )


def choice_of(data: Any) -> Choice:
    """The text and finish reason in a row or one of its "others"; "stop" where no reason is told.

    Raises:
        ValueError: there is no text, or one of the two is not a string.
    """
    text = data.get("text") if isinstance(data, dict) else None
    if not isinstance(text, str):
        raise ValueError('has no "text"')  # noqa: TRY004 - told as a bad line
    reason = data.get("finish_reason")
    if not isinstance(reason, str | None):
        raise ValueError('has a "finish_reason" that is no string')  # noqa: TRY004 - told as a bad line
    # JSON can spell half of a surrogate pair, which no UTF-8 file takes.
    sound = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Choice(sound, reason or "stop")
