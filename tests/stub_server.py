"""An OpenAI-compatible server for tests: real sockets, made-up answers, faults on order.

Standard library only. Whatever it says is a function of the request body (and, for faults, of how
often that body was seen), never of time or of the order of arrival. It is no model and judges nothing.

As a library: `with StubServer(faults={"429": 0.05}) as stub: ... stub.url, stub.requests`.
As a program: `python tests/stub_server.py --port 0 --latency 0.2 --faults '{"500": 0.1}'`.
"""

from __future__ import annotations

import argparse
import contextlib
import email.utils
import hashlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO

from stub_text import alpaca_texts

# Every name stands for one way in which servers fail; a table {name: share of requests} picks them.
STATUS_FAULTS: dict[str, tuple[int, str, str]] = {
    "400": (400, "invalid_request_error", "The request could not be read."),
    "401": (401, "invalid_api_key", "Incorrect API key provided."),
    "403": (403, "forbidden", "This project may not use the model."),
    "404": (404, "model_not_found", "The model `stub` does not exist."),
    "429": (429, "rate_limit_exceeded", "Rate limit reached."),
    "429_after": (429, "rate_limit_exceeded", "Rate limit reached."),
    "429_ms": (429, "rate_limit_exceeded", "Rate limit reached."),
    "429_date": (429, "rate_limit_exceeded", "Rate limit reached."),
    "429_quota": (429, "insufficient_quota", "You exceeded your current quota."),
    "500": (500, "server_error", "The server had an error."),
    "503": (503, "overloaded", "The engine is overloaded."),
    "context_length": (400, "context_length_exceeded", "The maximum context length is 64 tokens."),
    "content_policy": (400, "content_policy_violation", "The prompt was flagged."),
}
BODY_FAULTS: tuple[str, ...] = ("invalid_json", "html", "no_choices", "null_content", "other_model")
BODY_FAULTS += ("no_usage", "odd_usage", "length", "content_filter")
BODY_FAULTS += ("huge", "lone_surrogate", "error_in_200")
WIRE_FAULTS = ("reset_before", "reset_in", "reset_after", "hang", "slow")
FAULTS = (*STATUS_FAULTS, *BODY_FAULTS, *WIRE_FAULTS)

HUGE = 50 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it arrived: `attempt` counts from 0 how often this very body came before."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    attempt: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer, for tests that want more than a text."""

    status: int
    payload: bytes
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)


Answerer = Callable[[dict[str, Any], Asked], "str | list[str] | dict[str, Any] | Answer"]


def alpaca_answer(body: dict[str, Any], asked: Asked) -> list[str]:
    """The stub's own words: see `stub_text.alpaca_texts`; a function of the body's bytes."""
    return alpaca_texts(body, hashlib.sha256(asked.body).hexdigest())


# --- the server -------------------------------------------------------------------------------------


class StubServer:
    """Listens on a loopback port from `with` on and until its end.

    Args:
        answer: what to say: a text (or one per choice), a whole JSON body, or an `Answer`.
        faults: share (0..1) of requests that meet each of `FAULTS`; the pick is a hash of
            (fault_seed, body, attempt), so every client meets the same ones.
        fault_attempts: only the first so many attempts of one body may meet a fault (None: all).
        latency: seconds before each answer; `retry_after`: seconds announced with "429_after",
            "429_ms" and "429_date"; `slow_seconds`: how long the body of "slow" takes.
        key: the bearer key that is required, if any.
        models: the only models that are known, if given.
        refuses: request fields that get a 400 which names them.
        headers: sent with each answer.
    """

    def __init__(
        self,
        answer: Answerer = alpaca_answer,
        *,
        faults: Mapping[str, float] | None = None,
        fault_seed: int = 0,
        fault_attempts: int | None = None,
        latency: float = 0.0,
        retry_after: float = 1.0,
        slow_seconds: float = 1.0,
        key: str | None = None,
        models: tuple[str, ...] = (),
        refuses: tuple[str, ...] = (),
        headers: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.faults = dict(faults or {})
        if unknown := set(self.faults) - set(FAULTS):
            raise ValueError(f"unknown faults {sorted(unknown)}; known: {', '.join(FAULTS)}")
        self.answer = answer
        self.fault_seed, self.fault_attempts = fault_seed, fault_attempts
        self.latency, self.retry_after, self.slow_seconds = latency, retry_after, slow_seconds
        self.key, self.models, self.refuses = key, models, refuses
        self.headers = tuple((headers or {}).items())
        self.requests: list[Asked] = []
        self.connections = 0
        self._seen: dict[bytes, int] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server((host, port), backlog=512)
        self._address = self._listener.getsockname()[:2]
        self.url = f"http://{self._address[0]}:{self._address[1]}/v1"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> StubServer:  # noqa: PYI034 - Self is not in Python 3.10
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):  # wakes the accepting thread
            socket.create_connection(self._address, timeout=1).close()
        self._threads[0].join()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._closing.is_set():
                connection.close()
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            with self._lock:
                self.connections += 1
                self._open.add(connection)
                self._threads = [t for t in self._threads if t.is_alive()] + [thread]
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        """Answer the requests of one connection until it ends."""
        with connection, connection.makefile("rb") as reader, contextlib.suppress(OSError):
            while not self._closing.is_set():
                asked = self._read(reader)
                if asked is None or not self._reply(connection, asked):
                    break
        with self._lock:
            self._open.discard(connection)

    def _read(self, reader: BinaryIO) -> Asked | None:
        start = reader.readline(65536).decode("latin-1").split()
        if len(start) != 3:
            return None
        headers = {}
        while (line := reader.readline(65536).decode("latin-1").strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        size = int(headers.get("content-length", 0))
        body = reader.read(size)
        if len(body) < size:  # the client was killed while it spoke
            return None
        digest = hashlib.sha256(body).digest()
        with self._lock:
            attempt = self._seen.get(digest, 0)
            self._seen[digest] = attempt + 1
            asked = Asked(start[0], start[1], headers, body, attempt)
            self.requests.append(asked)
        return asked

    def _reply(self, connection: socket.socket, asked: Asked) -> bool:
        """Send the answer to one request; False when the connection is over."""
        fault = self.fault_of(asked)
        if fault == "hang" or (self.latency and self._closing.wait(self.latency)):
            self._closing.wait()
            return False
        if fault == "reset_before":
            return reset(connection)
        answer = self._answer(asked, fault)
        data = b"".join(wire_parts(answer, self.headers))
        if fault == "reset_in":
            connection.sendall(data[: -max(1, len(answer.payload) // 2)])
            return reset(connection)
        if fault == "slow":
            head, body = data[: -len(answer.payload)], answer.payload
            connection.sendall(head)
            for part in pieces(body, 20):
                if self._closing.wait(self.slow_seconds / 20):
                    return False
                connection.sendall(part)
            return True
        connection.sendall(data)
        return reset(connection) if fault == "reset_after" else True

    def fault_of(self, asked: Asked) -> str | None:
        """The fault that this request meets, or None: a function of (fault_seed, body, attempt)."""
        if not self.faults or (self.fault_attempts is not None and asked.attempt >= self.fault_attempts):
            return None
        mark = f"{self.fault_seed}/{asked.attempt}/".encode() + asked.body
        drawn = int.from_bytes(hashlib.sha256(mark).digest()[:8], "big") / 2**64
        for name, share in self.faults.items():
            if drawn < share:
                return name
            drawn -= share
        return None

    def _answer(self, asked: Asked, fault: str | None) -> Answer:
        if asked.path == "/v1/models":
            return json_answer({"data": [{"id": name} for name in self.models or ("stub",)]})
        is_chat = asked.path == "/v1/chat/completions"
        if asked.method != "POST" or not (is_chat or asked.path == "/v1/completions"):
            return Answer(404, b"404 page not found", (("Content-Type", "text/plain"),))
        if fault in STATUS_FAULTS:
            return self._status_answer(fault)
        if self.key is not None and asked.headers.get("authorization") != f"Bearer {self.key}":
            return error_answer(401, "invalid_api_key", f"Wrong key: {asked.headers.get('authorization')}")
        body = asked.json
        if self.models and body.get("model") not in self.models:
            return error_answer(404, "model_not_found", f"The model `{body.get('model')}` does not exist.")
        for name in self.refuses:
            if name in body:
                told = f"Unsupported parameter: '{name}' is not supported with this model."
                told += " Use 'max_completion_tokens' instead." if name == "max_tokens" else ""
                return error_answer(400, "unsupported_parameter", told, param=name)
        said = self.answer(body, asked)
        if isinstance(said, Answer):
            return said
        data = said if isinstance(said, dict) else completion(body, said, is_chat=is_chat)
        return spoil(data, fault) if fault else json_answer(data)

    def _status_answer(self, fault: str) -> Answer:
        answer = error_answer(*STATUS_FAULTS[fault])
        announced = {
            "429_after": ("Retry-After", f"{self.retry_after:g}"),
            "429_ms": ("retry-after-ms", f"{self.retry_after * 1000:g}"),
            "429_date": ("Retry-After", email.utils.formatdate(time.time() + self.retry_after, usegmt=True)),
        }
        extra = (announced[fault],) if fault in announced else ()
        return Answer(answer.status, answer.payload, answer.headers + extra)


def completion(body: dict[str, Any], said: str | list[str], *, is_chat: bool) -> dict[str, Any]:
    """The JSON of a good answer; stop strings and max_tokens (4 characters each) cut the texts."""
    budget = 4 * int(body.get("max_tokens") or body.get("max_completion_tokens") or 10**6)
    stops = body.get("stop") or []
    choices: list[dict[str, Any]] = []
    used = 0
    for index, whole in enumerate([said] if isinstance(said, str) else said):
        cuts = [
            at for stop in ([stops] if isinstance(stops, str) else stops) if (at := whole.find(stop)) >= 0
        ]
        text = whole[: min(cuts)] if cuts else whole
        reason = "length" if len(text) > budget else "stop"
        text = text[:budget]
        used += len(text) // 4
        shown = {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
        choices.append({"index": index, "finish_reason": reason, **shown})
    asked = len(json.dumps(body.get("messages") or body.get("prompt") or "")) // 4
    return {
        "id": "stub",
        "object": "chat.completion" if is_chat else "text_completion",
        "created": 0,
        "model": body.get("model", "stub"),
        "choices": choices,
        "usage": {"prompt_tokens": asked, "completion_tokens": used, "total_tokens": asked + used},
    }


def spoil(data: dict[str, Any], fault: str) -> Answer:
    """A good answer made bad in one of the ways of `BODY_FAULTS` (wire faults leave it as it is)."""
    first = data["choices"][0]
    if fault == "invalid_json":
        return Answer(200, json.dumps(data).encode()[:-7])
    if fault == "html":
        return Answer(200, b"<!doctype html><title>Sign in</title>", (("Content-Type", "text/html"),))
    if fault == "error_in_200":
        return json_answer({"error": {"code": 502, "message": "The provider had an error."}})
    if fault == "no_choices":
        data["choices"] = []
    elif fault in ("length", "content_filter"):
        first["finish_reason"] = fault
    elif fault == "other_model":
        data["model"] = "another-model"
    elif fault == "no_usage":
        del data["usage"]
    elif fault == "odd_usage":
        data["usage"] = {"prompt_tokens": "many", "completion_tokens": -3, "prompt_tokens_details": []}
    elif fault in ("null_content", "huge", "lone_surrogate"):
        text = {"null_content": None, "huge": "x" * HUGE, "lone_surrogate": "a\ud800b"}[fault]
        if "message" in first:
            first["message"]["content"] = text
        else:
            first["text"] = text
    return json_answer(data)


def json_answer(data: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(data).encode())


def error_answer(status: int, code: str, message: str, param: str | None = None) -> Answer:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return json_answer({"error": {"message": message, "type": kind, "param": param, "code": code}}, status)


def wire_parts(answer: Answer, extra: tuple[tuple[str, str], ...]) -> Iterator[bytes]:
    yield f"HTTP/1.1 {answer.status} Stub\r\n".encode()
    for name, value in (*answer.headers, *extra, ("Content-Length", str(len(answer.payload)))):
        yield f"{name}: {value}\r\n".encode("latin-1")
    yield b"\r\n"
    yield answer.payload


def pieces(data: bytes, count: int) -> Iterator[bytes]:
    step = max(1, -(-len(data) // count))
    for start in range(0, len(data), step):
        yield data[start : start + step]


def reset(connection: socket.socket) -> bool:
    """End the connection with a reset instead of an orderly close; always False."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--faults", type=json.loads, default={}, help=f"JSON, shares of: {', '.join(FAULTS)}")
    parser.add_argument("--fault-seed", type=int, default=0)
    parser.add_argument("--fault-attempts", type=int)
    parser.add_argument("--retry-after", type=float, default=1.0)
    parser.add_argument("--refuses", nargs="*", default=[])
    parser.add_argument("--key")
    given = vars(parser.parse_args())
    with StubServer(**{**given, "refuses": tuple(given["refuses"])}) as stub:
        print(stub.url, flush=True)  # noqa: T201 - the address is the program's output
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
