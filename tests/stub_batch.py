"""The files and batches endpoints, on top of the stub server: real sockets, batches that end as ordered.

Standard library only. A batch ends after it was looked at `polls` times; how it ends, and what becomes of
single requests, is told by one `Fate` for each batch in the order of creation (the last one goes on).
`at` may hold a function for a moment ("POST /v1/batches after", ...): tests kill the client there.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from stub_server import (
    STATUS_FAULTS,
    Answer,
    Answerer,
    Asked,
    StubServer,
    completion,
    error_answer,
    json_answer,
)
from stub_text import alpaca_texts

# What a request's line says: nothing special (None), no line at all, "expired", or (status, code, message).
LineFate = Callable[[int, str, dict[str, Any]], "str | tuple[int, str, str] | None"]


def by_content(body: dict[str, Any], _: Asked) -> list[str]:
    """Words that depend on what is asked, not on the bytes of the body or the way it came."""
    asked = [body.get("messages"), body.get("prompt"), body.get("seed")]
    return alpaca_texts(body, hashlib.sha256(json.dumps(asked).encode()).hexdigest())


@dataclass(frozen=True, slots=True)
class Fate:
    """How a batch ends. `refused` is a list of (code, message) of a batch that fails its validation."""

    status: str = "completed"
    polls: int = 0
    line: LineFate = lambda *_: None
    refused: tuple[tuple[str, str], ...] = ()
    extra: tuple[bytes, ...] = ()  # lines of the output file that no request asked for


@dataclass(slots=True)
class Made:
    """A batch at the server."""

    shown: dict[str, Any]
    requests: list[dict[str, Any]]
    fate: Fate
    polls: int = 0


@dataclass(slots=True)
class Shelf:
    """All that the server has."""

    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, Made] = field(default_factory=dict)


class StubBatchServer(StubServer):
    """`StubServer` with /v1/files and /v1/batches; the faults of `STATUS_FAULTS` and of the wire count there too.

    Args:
        fates: how the batches end, in the order of creation.
        most_queued: requests above which a batch fails because the queue is full.
        page: batches on a page of the list.
    """

    def __init__(
        self,
        answer: Answerer = by_content,
        *,
        fates: tuple[Fate, ...] = (Fate(),),
        most_queued: int | None = None,
        page: int = 2,
        **given: Any,
    ) -> None:
        super().__init__(answer, **given)
        self.fates, self.most_queued, self.page = fates, most_queued, page
        self.shelf = Shelf()
        self.at: dict[str, Callable[[], None]] = {}
        self._shelf_lock = threading.RLock()
        self.spoil_create: list[Answer] = []  # answers that creations get although the batch is made

    def __enter__(self) -> StubBatchServer:  # noqa: PYI034 - Self is not in Python 3.10
        super().__enter__()
        return self

    @property
    def asked_lines(self) -> list[str]:
        """The custom_id of every request in every batch, in order."""
        return [line["custom_id"] for made in self.shelf.batches.values() for line in made.requests]

    def finish(self, status: str = "completed") -> None:
        """Let every open batch, and those to come, end at the next look."""
        self.fates = (Fate(status),)
        for made in self.shelf.batches.values():
            if made.fate.polls > 10**6:
                made.fate = Fate(status, 0, made.fate.line)

    def _answer(self, asked: Asked, fault: str | None) -> Answer:
        path = urlsplit(asked.path).path
        if not path.startswith(("/v1/files", "/v1/batches")):
            return super()._answer(asked, fault)
        if fault in STATUS_FAULTS:
            return self._status_answer(fault)
        if self.key is not None and asked.headers.get("authorization") != f"Bearer {self.key}":
            return error_answer(401, "invalid_api_key", "Incorrect API key provided.")
        moment = f"{asked.method} {re.sub('(file|batch)-[0-9]+', 'ID', path)}"
        self._now(f"{moment} before")
        with self._shelf_lock:
            answer = self._serve_shelf(asked, path)
        self._now(f"{moment} after")
        return answer

    def _now(self, moment: str) -> None:
        if act := self.at.pop(moment, None):
            act()

    def _serve_shelf(self, asked: Asked, path: str) -> Answer:
        parts = path.split("/")[2:]
        if asked.method == "POST" and parts == ["files"]:
            return self._upload(asked)
        if asked.method == "POST" and parts == ["batches"]:
            return self._create(asked.json)
        if asked.method == "GET" and parts == ["batches"]:
            return self._list(parse_qs(urlsplit(asked.path).query))
        if asked.method == "GET" and parts[0] == "batches" and parts[1] in self.shelf.batches:
            return self._look(self.shelf.batches[parts[1]])
        if asked.method == "GET" and parts[2:] == ["content"] and parts[1] in self.shelf.files:
            return Answer(200, self.shelf.files[parts[1]], (("Content-Type", "application/octet-stream"),))
        return error_answer(404, "not_found", f"No such thing: {path}")

    def _upload(self, asked: Asked) -> Answer:
        found = re.search("boundary=([^;]+)", asked.headers["content-type"])
        assert found is not None
        fields = {}
        for part in asked.body.split(b"--" + found[1].strip('"').encode())[1:-1]:
            head, _, data = part.strip(b"\r\n").partition(b"\r\n\r\n")
            name = re.search(rb'name="([^"]+)"', head)
            assert name is not None
            fields[name[1].decode()] = data
        assert fields["purpose"] == b"batch"
        name_ = f"file-{len(self.shelf.files)}"
        self.shelf.files[name_] = fields["file"]
        return json_answer(
            {"id": name_, "object": "file", "bytes": len(fields["file"]), "created_at": 0, "purpose": "batch",
             "filename": "x.jsonl", "status": "processed"}
        )  # fmt: skip

    def _create(self, asked: dict[str, Any]) -> Answer:
        assert asked["completion_window"] == "24h"
        data = self.shelf.files.get(asked["input_file_id"])
        if data is None:
            return error_answer(400, "invalid_request_error", "Cannot find file", param="file_id")
        requests = [json.loads(line) for line in data.splitlines()]
        assert len({line["custom_id"] for line in requests}) == len(requests)
        assert all(len(line["custom_id"]) <= 64 for line in requests)
        assert {line["url"] for line in requests} == {asked["endpoint"]}
        number = len(self.shelf.batches)
        identity = f"batch-{number}"
        fate = self.fates[min(number, len(self.fates) - 1)]
        if self.most_queued is not None and len(requests) > self.most_queued:
            fate = Fate("failed", refused=(("token_limit_exceeded", "Enqueued token limit reached."),))
        shown = {"id": identity, "object": "batch", "endpoint": asked["endpoint"], "status": "validating",
                 "completion_window": "24h", "created_at": 2_000_000_000 + number,
                 "input_file_id": asked["input_file_id"], "metadata": asked.get("metadata"),
                 "request_counts": {"total": len(requests), "completed": 0, "failed": 0}}  # fmt: skip
        self.shelf.batches[identity] = Made(shown, requests, fate)
        return self.spoil_create.pop(0) if self.spoil_create else json_answer(shown)

    def _list(self, query: dict[str, list[str]]) -> Answer:
        newest = [made.shown for made in reversed(self.shelf.batches.values())]
        if after := query.get("after"):
            place = [shown["id"] for shown in newest].index(after[0])
            newest = newest[place + 1 :]
        data = newest[: self.page]
        return json_answer({"object": "list", "data": data, "has_more": len(newest) > len(data)})

    def _look(self, made: Made) -> Answer:
        made.polls += 1
        if made.shown["status"] == "validating" and made.polls > made.fate.polls:
            self._end(made)
        elif made.shown["status"] == "validating":
            return json_answer({**made.shown, "status": "in_progress"})
        return json_answer(made.shown)

    def _end(self, made: Made) -> None:
        shown, fate = made.shown, made.fate
        shown["status"] = fate.status
        if fate.refused:
            shown["errors"] = {"data": [{"code": code, "message": told} for code, told in fate.refused]}
            return
        good: list[bytes] = list(fate.extra)
        bad: list[bytes] = []
        for place, line in enumerate(made.requests):
            status, body, error = self._do(place, line, fate)
            if status is None and error is None:
                continue
            response = None if status is None else {"status_code": status, "request_id": "r", "body": body}
            told = {"id": "x", "custom_id": line["custom_id"], "response": response, "error": error}
            (good if status == 200 else bad).append(json.dumps(told).encode())
        for name, lines in (("output_file_id", good), ("error_file_id", bad)):
            if lines:
                shown[name] = f"file-{len(self.shelf.files)}"
                self.shelf.files[shown[name]] = b"\n".join(reversed(lines)) + b"\n"
        shown["request_counts"] = {"total": len(made.requests), "completed": len(good), "failed": len(bad)}

    def _do(self, place: int, line: dict[str, Any], fate: Fate) -> tuple[int | None, Any, Any]:
        """(status, body, error) of a request; all None where the batch says nothing of it."""
        body = line["body"]
        for name in self.refuses:
            if name in body:
                told = f"Unsupported parameter: '{name}' is not supported with this model."
                told += " Use 'max_completion_tokens' instead." if name == "max_tokens" else ""
                return 400, {"error": {"message": told, "code": "unsupported_parameter", "param": name}}, None
        what = fate.line(place, line["custom_id"], body)
        if what == "missing":
            return None, None, None
        if what == "expired":
            return None, None, {"code": "batch_expired", "message": "The window was over."}
        if isinstance(what, tuple):
            return what[0], {"error": {"code": what[1], "message": what[2]}}, None
        data = json.dumps(body).encode()
        said = self.answer(body, Asked("POST", line["url"], {}, data, 0))
        assert not isinstance(said, Answer)
        is_chat = line["url"].endswith("/chat/completions")
        return 200, said if isinstance(said, dict) else completion(body, said, is_chat=is_chat), None
