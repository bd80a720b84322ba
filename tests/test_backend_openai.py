from __future__ import annotations

import gc
import json
import logging
import re
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stub_server import Answer, Asked, StubServer, json_answer

from selfinstruct.backend_openai import OpenAIBackend
from selfinstruct.errors import BackendError, InputError, RequestRefused, SelfInstructError, Transient
from selfinstruct.openai_wire import (
    Refusal,
    clean_line,
    error_of_status,
    read_reply,
    refused_field,
    retry_after,
)
from selfinstruct.records import Choice, Request, Usage
from selfinstruct.seams import Backend

KEY = "sk-planted-0123456789abcdef"
CHAT = Request(messages=(("system", "be brief"), ("user", "List of tasks:\n1. Instruction:")), seed=7)
RAW = Request(prompt="List of tasks:\n4. Instruction:", stop=("\n20.", "20."), max_tokens=500)
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
Opener = Callable[..., OpenAIBackend]


@pytest.fixture
def opened() -> Iterator[Opener]:
    """Makes backends for a stub server and closes them in the end."""
    backends: list[OpenAIBackend] = []

    def open_backend(stub: StubServer, **settings: Any) -> OpenAIBackend:
        backends.append(OpenAIBackend("stub", stub.url, **{"api_key": KEY, "timeout": 10.0, **settings}))
        return backends[-1]

    yield open_backend
    for backend in backends:
        backend.close()
        backend.close()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def chat_body(content: object = "fine", **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    usage = {"prompt_tokens": 11, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    return {"model": "stub-2", "choices": [choice], "usage": usage, **fields}


def said(content: object = "fine", **fields: Any) -> Callable[[dict[str, Any], Asked], dict[str, Any]]:
    return lambda _body, _asked: chat_body(content, **fields)


def failure(backend: OpenAIBackend, request: Request = CHAT) -> SelfInstructError:
    """The error of a request, after a look that it is one line, unchained and free of secrets."""
    with pytest.raises(SelfInstructError) as caught:
        backend.complete("0.0", request)
    error = caught.value
    message = str(error)
    assert "\n" not in message
    assert len(message) < 700
    assert error.__context__ is None
    assert error.__cause__ is None
    assert KEY not in "".join(traceback.format_exception(error))
    return error


# --- what is sent -----------------------------------------------------------------------------------


def test_messages_go_to_the_chat_endpoint(opened: Opener) -> None:
    with StubServer(said()) as stub:
        backend: Backend = opened(stub)
        reply = backend.complete("0.0", Request(messages=(("user", "é"),), n=2, stop=("###",), seed=0))
    assert reply.choices == (Choice("fine", "stop"),)
    assert reply.usage == Usage(11, 3, 4)
    assert reply.model == "stub-2"
    assert 0 < reply.seconds < 10
    assert reply.cost is None
    asked = stub.requests[0]
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.json == {
        "model": "stub",
        "messages": [{"role": "user", "content": "é"}],
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 1024,
        "n": 2,
        "stop": ["###"],
        "seed": 0,
    }


def test_a_prompt_goes_to_the_completion_endpoint(opened: Opener) -> None:
    with StubServer() as stub:
        reply = opened(stub).complete("0.0", RAW)
    asked = stub.requests[0]
    assert asked.path == "/v1/completions"
    assert asked.json["prompt"] == RAW.prompt
    assert asked.json.keys() == {"model", "prompt", "temperature", "top_p", "max_tokens", "stop"}
    assert re.search(r"\n4\. Input:\n(.|\n)+\n4\. Output:\n(.|\n)+\n###\n5\. Instruction:", reply.text)


def test_schema_goes_where_each_endpoint_takes_it(opened: Opener) -> None:
    with StubServer() as stub:
        backend = opened(stub)
        for asked in (Request(messages=(("user", "x"),), schema=SCHEMA), Request(prompt="x", schema=SCHEMA)):
            backend.complete("0.0", asked)
    chat, raw = (asked.json for asked in stub.requests)
    wrapped = {"name": "reply", "schema": SCHEMA, "strict": True}
    assert chat["response_format"] == {"type": "json_schema", "json_schema": wrapped}
    assert raw["json_schema"] == SCHEMA
    assert "response_format" not in raw


def test_extra_fields_go_in_and_win(opened: Opener) -> None:
    with StubServer() as stub:
        opened(stub).complete("0.0", Request(prompt="x", extra={"repeat_penalty": 1.1, "top_p": 0.5}))
    assert stub.requests[0].json["repeat_penalty"] == 1.1
    assert stub.requests[0].json["top_p"] == 0.5


def test_several_choices_come_back_in_order(opened: Opener) -> None:
    with StubServer(lambda _body, _asked: ["one", "two", "three"]) as stub:
        reply = opened(stub).complete("0.0", Request(prompt="x", n=3))
    assert [choice.text for choice in reply.choices] == ["one", "two", "three"]


def test_connections_are_kept_and_shared(opened: Opener) -> None:
    with StubServer(latency=0.01) as stub:
        backend = opened(stub, max_connections=4)
        with ThreadPoolExecutor(16) as threads:
            asked = [Request(prompt=str(k)) for k in range(64)]
            assert len(list(threads.map(lambda one: backend.complete("0.0", one), asked))) == 64
    assert len(stub.requests) == 64
    assert stub.connections <= 4


# --- servers that take less than others -------------------------------------------------------------


@pytest.mark.parametrize("field", ["response_format", "seed", "stop"])
def test_a_refused_field_is_left_out_for_good(
    opened: Opener, caplog: pytest.LogCaptureFixture, field: str
) -> None:
    asked = Request(messages=(("user", "x"),), schema=SCHEMA, seed=3, stop=("END",))
    with StubServer(said("one END two"), refuses=(field,)) as stub:
        backend = opened(stub)
        for _ in range(3):
            reply = backend.complete("0.0", asked)
    assert len(stub.requests) == 4
    assert [field in one.json for one in stub.requests] == [True, False, False, False]
    assert [one.levelname for one in caplog.records if f"`{field}`" in one.message] == ["WARNING"]
    assert reply.choices == (Choice("one " if field == "stop" else "one END two", "stop"),)


def test_a_refused_schema_of_a_completion_is_left_out(opened: Opener) -> None:
    with StubServer(refuses=("json_schema",)) as stub:
        assert opened(stub).complete("0.0", Request(prompt="x", schema=SCHEMA)).text
    assert [("json_schema" in one.json) for one in stub.requests] == [True, False]


def test_new_models_get_max_completion_tokens(opened: Opener) -> None:
    with StubServer(refuses=("max_tokens",)) as stub:
        backend = opened(stub)
        for _ in range(2):
            backend.complete("0.0", Request(messages=(("user", "x"),), max_tokens=77))
    assert [one.json.get("max_tokens") for one in stub.requests] == [77, None, None]
    assert [one.json.get("max_completion_tokens") for one in stub.requests] == [None, 77, 77]


def test_default_sampling_is_left_out_but_chosen_sampling_is_not_dropped(opened: Opener) -> None:
    with StubServer(refuses=("temperature", "top_p")) as stub:
        backend = opened(stub)
        assert backend.complete("0.0", CHAT).text
        error = failure(backend, Request(messages=(("user", "x"),), top_p=0.9))
    assert isinstance(error, BackendError)
    assert "set --top-p 1" in str(error)
    assert stub.requests[2].json.keys().isdisjoint({"temperature", "top_p"})
    assert stub.requests[3].json["top_p"] == 0.9


def test_chosen_sampling_that_is_refused_ends_the_run_with_the_flag_named(opened: Opener) -> None:
    with StubServer(refuses=("temperature",)) as stub:
        error = failure(opened(stub), Request(messages=(("user", "x"),), temperature=0.7))
    assert isinstance(error, BackendError)
    assert "set --temperature 1" in str(error)
    assert len(stub.requests) == 1


def test_everything_refused_at_once_by_many_threads(opened: Opener, caplog: pytest.LogCaptureFixture) -> None:
    refuses = ("response_format", "seed", "stop", "max_tokens", "temperature", "top_p")
    with StubServer(said(), refuses=refuses) as stub:
        backend = opened(stub)
        with ThreadPoolExecutor(8) as threads:
            asked = [
                Request(messages=(("user", str(k)),), schema=SCHEMA, seed=k, stop=("x",)) for k in range(32)
            ]
            replies = list(threads.map(lambda one: backend.complete("0.0", one), asked))
    assert [reply.text for reply in replies] == ["fine"] * 32
    assert len(caplog.records) == len(refuses)


def test_a_field_of_the_user_is_never_left_out(opened: Opener) -> None:
    with StubServer(refuses=("seed",)) as stub:
        error = failure(opened(stub), Request(prompt="x", extra={"seed": 5}))
    assert isinstance(error, RequestRefused)
    assert len(stub.requests) == 1


# --- what goes wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("429", "http_429"),
        ("429_after", "http_429"),
        ("500", "http_500"),
        ("503", "http_503"),
        ("reset_before", "connection"),
        ("reset_in", "connection"),
        ("invalid_json", "bad_reply"),
        ("no_choices", "bad_reply"),
        ("error_in_200", "bad_reply"),
    ],
)
@pytest.mark.parametrize("request_", [CHAT, RAW])
def test_what_may_pass_is_transient(opened: Opener, fault: str, kind: str, request_: Request) -> None:
    with StubServer(faults={fault: 1.0}, fault_attempts=1, retry_after=12) as stub:
        backend = opened(stub)
        error = failure(backend, request_)
        assert backend.complete("0.0", request_).text
    assert isinstance(error, Transient)
    assert error.kind == kind
    assert error.retry_after == (12 if fault == "429_after" else None)


@pytest.mark.parametrize(("fault", "expected"), [("429_after", 90), ("429_ms", 90), ("429_date", 90)])
def test_the_wait_the_server_asks_for_is_read(opened: Opener, fault: str, expected: float) -> None:
    with StubServer(faults={fault: 1.0}, retry_after=90) as stub:
        error = failure(opened(stub))
    assert isinstance(error, Transient)
    assert error.retry_after == pytest.approx(expected, abs=5)


@pytest.mark.parametrize("fault", ["hang", "slow"])
def test_no_answer_in_time_is_transient(opened: Opener, fault: str) -> None:
    with StubServer(faults={fault: 1.0}, fault_attempts=1, slow_seconds=3) as stub:
        backend = opened(stub, timeout=0.3)
        error = failure(backend, RAW)
        assert opened(stub).complete("0.0", RAW).text
    assert isinstance(error, Transient)
    assert error.kind == "timeout"


def test_a_reset_after_the_answer_does_not_cost_the_answer(opened: Opener) -> None:
    with StubServer(faults={"reset_after": 1.0}) as stub:
        for k in range(5):  # a new connection each: an old one may or may not know yet that it is gone
            assert opened(stub).complete("0.0", Request(prompt=str(k))).text
    assert len(stub.requests) == 5


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("400", "request_refused"),
        ("context_length", "context_length"),
        ("content_policy", "content_filter"),
        ("huge", "reply_too_large"),
    ],
)
def test_what_never_works_for_one_request_is_refused(opened: Opener, fault: str, reason: str) -> None:
    with StubServer(faults={fault: 1.0}, fault_attempts=1) as stub:
        backend = opened(stub)
        error = failure(backend)
        assert backend.complete("0.0", CHAT).text
    assert isinstance(error, RequestRefused)
    assert error.reason == reason


def test_a_huge_body_without_a_length_is_cut_off() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    sent = 0

    def serve() -> None:
        nonlocal sent
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 500 Bad\r\nContent-Type: application/json\r\n\r\n")
            try:
                for _ in range(1000):
                    connection.sendall(b" " * 100_000)
                    sent += 100_000
            except OSError:
                return

    thread = threading.Thread(target=serve)
    thread.start()
    host, port = listener.getsockname()
    backend = OpenAIBackend("m", f"http://{host}:{port}/v1", api_key=KEY)
    error = failure(backend)
    backend.close()
    thread.join()
    listener.close()
    assert isinstance(error, RequestRefused)
    assert error.reason == "reply_too_large"
    assert sent < 40_000_000


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("401", "OPENAI_API_KEY"),
        ("403", "OPENAI_API_KEY"),
        ("404", "--model"),
        ("429_quota", "out of credit"),
        ("html", "--base-url"),
    ],
)
def test_what_never_works_at_all_ends_the_run(opened: Opener, fault: str, words: str) -> None:
    with StubServer(faults={fault: 1.0}) as stub:
        error = failure(opened(stub))
    assert isinstance(error, BackendError)
    assert words in str(error)
    assert stub.url in str(error)


def test_a_web_page_later_on_is_transient(opened: Opener) -> None:
    with StubServer(said()) as stub:
        backend = opened(stub)
        backend.complete("0.0", CHAT)
        stub.answer = lambda _body, _asked: Answer(200, b"<html>", (("Content-Type", "text/html"),))
        error = failure(backend)
    assert isinstance(error, Transient)
    assert error.kind == "bad_reply"


def test_a_wrong_path_and_a_redirect_are_told(opened: Opener) -> None:
    with StubServer() as stub:
        wrong = OpenAIBackend("m", stub.url.removesuffix("/v1"), api_key=KEY)
        assert "often ends in /v1" in str(failure(wrong))
        wrong.close()
        away = (("Location", "https://me:secret@elsewhere.example/v1?token=secret"),)
        stub.answer = lambda _body, _asked: Answer(301, b"", away)
        error = failure(opened(stub))
    assert isinstance(error, BackendError)
    assert "leads to elsewhere.example/v1" in str(error)
    assert "secret" not in str(error)


def test_a_key_that_the_server_repeats_is_not_shown(opened: Opener, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with StubServer(key="sk-the-right-one-1234") as stub:
        error = failure(opened(stub))
    assert "refuses the key" in str(error)
    assert "***" in str(error)
    assert KEY not in caplog.text
    with StubServer(key="sk-the-right-one-1234") as stub:
        backend = OpenAIBackend("m", stub.url)
        assert "set OPENAI_API_KEY" in str(failure(backend))
        backend.close()


def test_login_in_the_address_is_used_and_never_shown(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with StubServer(faults={"500": 1.0}) as stub:
        backend = OpenAIBackend("m", stub.url.replace("://", "://user:pass%20word@"), timeout=5)
        error = failure(backend)
        backend.close()
    assert stub.requests[0].headers["authorization"] == "Basic dXNlcjpwYXNzIHdvcmQ="
    everything = str(error) + repr(backend) + caplog.text + "".join(capfd.readouterr())
    assert "pass" not in everything
    assert stub.url in str(error)


def test_nothing_is_logged_by_the_client(opened: Opener, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with StubServer() as stub:
        opened(stub).complete("0.0", CHAT)
    assert caplog.records == []


def test_nothing_answers_at_first_and_later(opened: Opener) -> None:
    with StubServer() as stub:
        backend = opened(stub)
        backend.complete("0.0", CHAT)
    error = failure(backend)
    assert isinstance(error, Transient)
    assert error.kind == "connection"
    first = failure(opened(stub))
    assert isinstance(first, BackendError)
    assert f"nothing answers at {stub.url}" in str(first)
    nowhere = OpenAIBackend("m", "http://host.invalid:1/v1")
    assert "nothing answers at http://host.invalid:1/v1" in str(failure(nowhere))
    nowhere.close()


def test_close_wakes_requests_under_way(opened: Opener) -> None:
    with StubServer(faults={"hang": 1.0}) as stub, ThreadPoolExecutor(4) as threads:
        backend = opened(stub, timeout=300)
        waiting = [threads.submit(failure, backend, Request(prompt=str(k))) for k in range(4)]
        while len(stub.requests) < 4:
            time.sleep(0.01)
        backend.close()
        errors = [one.result(timeout=20) for one in waiting]
        assert all(isinstance(error, Transient) for error in errors)
        assert isinstance(failure(backend), Transient)


def test_every_fault_at_once_under_threads_loses_nothing(opened: Opener) -> None:
    names = (
        "429_after",
        "500",
        "503",
        "reset_before",
        "reset_in",
        "reset_after",
        "invalid_json",
        "no_choices",
    )
    with StubServer(faults=dict.fromkeys(names, 0.06), fault_seed=3) as stub:
        backend = opened(stub, max_connections=16)
        texts: dict[int, str] = {}
        retries = 0

        def ask(k: int) -> None:
            nonlocal retries
            while k not in texts:
                try:
                    texts[k] = backend.complete(f"{k}.0", Request(prompt=f"{k}")).text
                except Transient:
                    retries += 1

        with ThreadPoolExecutor(16) as threads:
            list(threads.map(ask, range(200)))
    assert len(texts) == 200
    assert retries > 40
    with StubServer() as calm:
        backend = opened(calm)
        assert {k: backend.complete("0.0", Request(prompt=f"{k}")).text for k in range(200)} == texts


# --- odd answers ------------------------------------------------------------------------------------


def test_odd_answers_of_honest_servers(opened: Opener) -> None:
    shapes: list[tuple[Mapping[str, Any], Choice]] = [
        ({"message": {"content": None}, "finish_reason": "content_filter"}, Choice("", "content_filter")),
        (
            {"message": {"content": None, "refusal": "no"}, "finish_reason": "stop"},
            Choice("", "content_filter"),
        ),
        ({"message": {"content": [{"type": "text", "text": "a"}, {"text": "b"}]}}, Choice("ab", "stop")),
        ({"message": {}, "finish_reason": "max_tokens"}, Choice("", "length")),
        ({"text": "raw", "finish_reason": "eos_token"}, Choice("raw", "stop")),
        ({"text": "raw", "finish_reason": None}, Choice("raw", "stop")),
        ({"text": "a\ud800b", "finish_reason": "stop"}, Choice("a\ufffdb", "stop")),
    ]
    with StubServer() as stub:
        backend = opened(stub)
        for shape, expected in shapes:
            stub.answer = lambda _body, _asked, shape=shape: {"choices": [shape]}  # type: ignore[misc]
            reply = backend.complete("0.0", CHAT)
            assert reply.choices == (expected,)
            assert reply.usage == Usage()


def test_an_untold_reason_at_the_token_limit_is_length(opened: Opener) -> None:
    body = {"choices": [{"text": "abc"}], "usage": {"prompt_tokens": 1, "completion_tokens": 500}}
    with StubServer(lambda _body, _asked: body) as stub:
        assert opened(stub).complete("0.0", RAW).finish_reason == "length"


@pytest.mark.parametrize("fault", ["no_usage", "odd_usage"])
def test_missing_token_counts_are_warned_of_once(
    opened: Opener, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    with StubServer(faults={fault: 1.0}) as stub:
        backend = opened(stub)
        replies = [backend.complete("0.0", Request(prompt=str(k))) for k in range(3)]
    assert all(reply.usage == Usage() and reply.text for reply in replies)
    assert [one.levelname for one in caplog.records] == ["WARNING"]
    assert "no token counts" in caplog.text


def test_rate_limit_headers_reach_the_callback_and_no_others(opened: Opener) -> None:
    seen: list[dict[str, str]] = []
    headers = {"X-RateLimit-Remaining-Tokens": "9", "x-ratelimit-limit-requests": "3", "Set-Cookie": "a=b"}
    with StubServer(faults={"429_after": 1.0}, fault_attempts=1, headers=headers) as stub:
        backend = opened(stub, on_headers=lambda limits: seen.append(dict(limits)))
        failure(backend)
        backend.complete("0.0", CHAT)
    limits = {"x-ratelimit-remaining-tokens": "9", "x-ratelimit-limit-requests": "3"}
    assert seen == [{"retry-after": "1", **limits}, limits]


def test_half_a_surrogate_pair_in_the_request_is_refused(opened: Opener) -> None:
    with StubServer() as stub:
        assert isinstance(failure(opened(stub), Request(prompt="a\ud800")), RequestRefused)


# --- settings ---------------------------------------------------------------------------------------


def test_a_key_is_needed_only_by_openai_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"^no key: set OPENAI_API_KEY, or name a server"):
        OpenAIBackend("m")
    OpenAIBackend("m", "http://127.0.0.1:1/v1").close()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    backend = OpenAIBackend("m")
    assert backend.url == "https://api.openai.com/v1"
    backend.close()


@pytest.mark.parametrize("key", ["sk-two words", "sk-two\nlines", "sk-é"])
def test_a_key_that_cannot_be_one_is_told_without_showing_it(key: str) -> None:
    with pytest.raises(InputError, match=r"^OPENAI_API_KEY holds") as error:
        OpenAIBackend("m", api_key=key)
    assert "sk-" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "ftp://h/v1", "http:///v1", "http://h:port/v1", "http://[::1/v1"]
)
def test_an_address_that_is_none_is_told_without_showing_it(url: str) -> None:
    with pytest.raises(InputError, match="--base-url") as error:
        OpenAIBackend("m", url)
    assert url not in str(error.value)


def test_addresses_are_shown_without_login_and_query() -> None:
    backend = OpenAIBackend("m", "https://me:secret@[::1]:8443/openai/v1/?token=secret#secret")
    assert backend.url == "https://[::1]:8443/openai/v1"
    backend.close()


def test_proxies_come_from_the_environment_but_not_for_this_machine(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StubServer() as stub:
        proxy = stub.url.removesuffix("/v1")
        monkeypatch.setenv("HTTP_PROXY", proxy)
        far = OpenAIBackend("m", "http://far.invalid/v1", api_key=KEY)
        assert "does not offer the OpenAI API" in str(failure(far))
        far.close()
        assert stub.requests[0].path == "http://far.invalid/v1/chat/completions"
        assert opened(stub).complete("0.0", CHAT).text
        assert stub.requests[1].path == "/v1/chat/completions"
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@127.0.0.1:1")
    far = OpenAIBackend("m", "http://far.invalid/v1", api_key=KEY)
    assert "nothing answers at http://far.invalid/v1" in str(failure(far))
    assert "secret" not in str(failure(far))
    far.close()
    monkeypatch.setenv("HTTP_PROXY", "nonsense://me:secret@h")
    with pytest.raises(InputError, match="a proxy in the environment cannot be used") as error:
        OpenAIBackend("m", "http://far.invalid/v1", api_key=KEY)
    assert "secret" not in str(error.value)


def test_a_handshake_that_fails_behind_a_proxy_takes_no_connection_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def tunnels() -> None:
            for _ in range(3):
                with listener.accept()[0] as line:
                    while not line.recv(4096).endswith(b"\r\n\r\n"):
                        pass
                    line.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    line.recv(1)  # the handshake begins, and that was it

        threading.Thread(target=tunnels, daemon=True).start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{listener.getsockname()[1]}")
        far = OpenAIBackend("m", "https://far.invalid/v1", api_key=KEY, timeout=5, max_connections=1)
        with ThreadPoolExecutor(1) as pool:
            for _ in range(3):
                assert "nothing answers" in str(pool.submit(failure, far).result(timeout=20))
        far.close()


def test_a_cookie_of_the_server_stays_with_the_official_client(opened: Opener) -> None:
    with StubServer(headers={"Set-Cookie": "node=7; Path=/"}) as stub:
        backend = opened(stub)
        for _ in range(2):
            with pytest.raises(BackendError):
                backend.ask(lambda client: client.files.retrieve("file-1"), "has no files")
        assert [one.headers.get("cookie") for one in stub.requests] == [None, "node=7"]


def test_importing_the_module_does_not_import_the_client() -> None:
    import subprocess
    import sys

    code = (
        "import sys, selfinstruct.backend_openai; sys.exit(bool({'openai', 'httpx2'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- the words of other servers ---------------------------------------------------------------------


LENGTH, REFUSED = "context_length", "request_refused"


def refusal_of(status: int, body: object) -> Refusal:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Refusal.read(status, content, (KEY,))


@pytest.mark.parametrize(
    ("status", "body", "kind", "reason"),
    [
        (400, {"message": "This model's maximum context length is 4096 tokens."}, RequestRefused, LENGTH),
        (400, {"message": "You requested 9 tokens. Please reduce the length."}, RequestRefused, LENGTH),
        (400, {"error": {"message": "exceeds the available context size"}}, RequestRefused, LENGTH),
        (400, {"error": {"message": "max_tokens is too large: 50000."}}, RequestRefused, LENGTH),
        (500, {"error": {"message": "the prompt is too long"}}, RequestRefused, LENGTH),
        (413, b"<html>413 Request Entity Too Large</html>", RequestRefused, LENGTH),
        (403, {"error": {"message": "flagged by moderation"}}, RequestRefused, "content_filter"),
        (400, {"error": {"message": "filtered", "code": "content_filter"}}, RequestRefused, "content_filter"),
        (422, {"detail": [{"loc": ["x"], "msg": "bad", "input": {"a": 1}}]}, RequestRefused, REFUSED),
        (451, {"error": "not in your country"}, RequestRefused, REFUSED),
        (400, {"error": {"message": "API key not valid. Please pass a valid API key."}}, BackendError, None),
        (400, {"error": {"message": "model 'x' not found, try pulling it first"}}, BackendError, None),
        (402, {"error": {"message": "Insufficient Balance"}}, BackendError, None),
        (404, b"404 page not found", BackendError, None),
        (405, {"detail": "Method Not Allowed"}, BackendError, None),
        (501, b"", BackendError, None),
        (409, {"error": None}, Transient, None),
        (529, {"error": {"type": "overloaded_error", "message": "Overloaded"}}, Transient, None),
    ],
)
def test_the_words_of_other_servers(status: int, body: object, kind: type, reason: str | None) -> None:
    refusal = refusal_of(status, body)
    assert (
        refused_field(refusal, {"model": "m", "max_tokens": 5, "temperature": 0.5, "stop": ["x"]}, RAW)
        is None
    )
    error = error_of_status(refusal, {}, "http://h/v1", "m", has_key=True)
    assert type(error) is kind
    assert getattr(error, "reason", None) == reason


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, "seed"),
        ({"error": {"message": "No support for response format `json_schema` here."}}, "response_format"),
        ({"error": {"message": "Invalid 'stop': array too long.", "param": "stop"}}, "stop"),
        ({"error": {"message": "top_p is not supported", "param": None, "code": None}}, "top_p"),
        ({"error": {"message": "Stop by our offices, please"}}, None),
        ({"error": {"message": "temperature must be below 2", "param": "temperature"}}, None),
    ],
)
def test_the_field_that_a_server_refuses(body: object, field: str | None) -> None:
    sent = {"model": "m", "response_format": {}, "seed": 1, "stop": ["x"], "temperature": 3.0, "top_p": 1.0}
    assert refused_field(refusal_of(400, body), sent, RAW) == field


def test_messages_are_cleaned_of_control_signs_and_keys() -> None:
    dirty = f"a\x1b[31mb\r\nc\u202ed\x00 {KEY} sk-another-key-000 Bearer abc.def " + "x" * 9000
    clean = clean_line(dirty, (KEY,))
    assert clean.startswith("a [31mb c d *** *** *** xxx")
    assert clean.isprintable()
    assert len(clean) == 300


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 99 Oct 2015 07:28:00 GMT"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["error", "message", "detail", "choices", "text", "content", "usage", "code", "loc"]
            )
            | st.sampled_from(
                ["prompt_tokens", "completion_tokens", "prompt_tokens_details", "finish_reason", "model"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=200))
def test_any_body_is_a_reply_or_one_of_our_errors(content: bytes) -> None:
    try:
        reply = read_reply(content, RAW, {"stop"}, seconds=0.0, secrets=())
    except Transient as error:
        kind = error.kind
    else:
        kind = "bad_reply"
        assert "".join(choice.text for choice in reply.choices).encode() is not None
    assert kind == "bad_reply"
    for status in (301, 400, 401, 403, 404, 413, 422, 429, 500):
        refusal = Refusal.read(status, content, ())
        assert refusal.message.isprintable()
        assert isinstance(error_of_status(refusal, {}, "u", "m", has_key=False), SelfInstructError)
        refused_field(refusal, {"seed": 1, "stop": [], "temperature": 1.0}, RAW)


def test_nested_bodies_are_no_crash() -> None:
    for content in (
        b"[" * 200_000,
        b'{"choices":' * 100_000,
        b'{"error":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ):
        assert Refusal.read(400, content, ()).message
        with pytest.raises(Transient):
            read_reply(content, RAW, (), seconds=0.0, secrets=())


def test_a_closed_backend_leaves_no_socket_open() -> None:
    with StubServer(lambda _body, _asked: json_answer(chat_body())) as stub:
        backend = OpenAIBackend("m", stub.url)
        backend.complete("0.0", CHAT)
        backend.close()
        del backend
        gc.collect()  # an unclosed socket would warn, and warnings are errors here
