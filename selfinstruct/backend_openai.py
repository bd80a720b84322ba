"""Replies from any OpenAI-compatible server, over the official client.

One `Request` becomes one answered HTTP request, and whatever goes wrong becomes one of the errors of
this project. It does not retry what may pass, keep to a rate or count a budget: that is the caller's.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from selfinstruct.errors import BackendError, InputError, RequestRefused, SelfInstructError, Transient
from selfinstruct.http_pool import HttpPool
from selfinstruct.openai_wire import (
    OFFICIAL_URL,
    Refusal,
    clean_line,
    error_of_status,
    read_reply,
    refused_field,
    request_body,
)
from selfinstruct.records import Reply, Request

if TYPE_CHECKING:
    import httpx2
    import openai

log = logging.getLogger(__name__)
T = TypeVar("T")

QUIET_LOGGERS = ("openai", "httpx2", "httpcore2")  # below WARNING they tell addresses and headers


class OpenAIBackend:
    """A `Backend` on the chat and completion endpoints of one server; safe to share between threads.

    A server that refuses a field which only helps (a schema, a seed, stop strings, a sampling value
    that is the default anyway) or wants `max_completion_tokens` is asked again without it, and from
    then on never gets it; a warning is logged once. Stop strings are then applied here.

    Args:
        model: the name the server knows the model by.
        base_url: the server, up to and including "/v1"; `OPENAI_BASE_URL` or OpenAI's own if None.
            A user and password in it are sent as basic authentication instead of the key.
        api_key: `OPENAI_API_KEY` if None.
        timeout: seconds without a byte from the server, and for the whole body once it has begun.
        max_connections: the most requests in flight; further ones wait.
        on_headers: called from the requesting thread with the rate-limit headers of each answer
            that has some, lower-case names (`x-ratelimit-remaining-tokens`, `retry-after`, ...).

    Raises:
        InputError: no key where one is needed, or a key, address or proxy that cannot be used.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 600.0,
        max_connections: int = 64,
        on_headers: Callable[[Mapping[str, str]], None] | None = None,
    ) -> None:
        address = base_url or os.environ.get("OPENAI_BASE_URL") or ""
        key = (api_key or os.environ.get("OPENAI_API_KEY") or "").strip()
        if not key and not address:
            raise InputError("no key: set OPENAI_API_KEY, or name a server of your own with --base-url")
        if not key.isascii() or not key.isprintable() or " " in key:
            raise InputError("OPENAI_API_KEY holds a space, line break or sign that no key has; set it anew")
        url, login = split_address(address or OFFICIAL_URL)
        self.model = model
        self.url = urlunsplit(url._replace(query=""))  # what messages show: no login, no query
        self.timeout = timeout
        self._has_key = bool(key)
        basic = b64encode(":".join(login).encode()).decode() if login else ""
        # Shorter ones would blot out words of the messages that they are looked for in.
        more = os.environ.get("OPENAI_CUSTOM_HEADERS", "").splitlines()  # the client sends these, too
        hidden = (key, basic, *(login or ()), *(line.partition(":")[2].strip() for line in more))
        self._secrets = tuple(secret for secret in hidden if len(secret) >= 4)
        self.on_headers = on_headers
        self._lock = threading.Lock()
        self._left_out: frozenset[str] = frozenset()
        self._told: set[str] = set()
        self._answered = self._replied = False
        self._patterns: dict[str, httpx2.Request] = {}
        self._pool, self._client = self._open(urlunsplit(url), key or "no-key", login, max_connections)

    def _open(
        self, url: str, key: str, login: tuple[str, str] | None, max_connections: int
    ) -> tuple[HttpPool, openai.OpenAI]:
        import httpx2
        import openai

        for name in QUIET_LOGGERS:
            logger = logging.getLogger(name)
            logger.setLevel(max(logger.level, logging.WARNING))
        try:
            pool = HttpPool(url, login, self.timeout, max_connections, self._hear)
        except (ImportError, ValueError, httpx2.InvalidURL):
            pool = None
        if pool is None:
            raise InputError(
                "a proxy in the environment cannot be used: HTTP_PROXY, HTTPS_PROXY and ALL_PROXY must look"
                " like http://host:port (for socks5:// install 'httpx2[socks]')"
            )
        return pool, openai.OpenAI(api_key=key, base_url=url, max_retries=0, http_client=pool.front)

    def complete(self, key: str, request: Request) -> Reply:  # noqa: ARG002 - only a replay needs the key
        """Answer one request; see `seams.Backend`.

        Raises:
            Transient: `kind` is http_408, http_409, http_429, http_5.., connection, timeout or bad_reply.
            RequestRefused: reason context_length, content_filter, reply_too_large or request_refused.
            BackendError: key, model, address or credit; or sampling settings the model does not take.
        """
        started = time.monotonic()
        while True:
            left_out = self._left_out
            path, body = request_body(self.model, request, left_out)
            response = self._post(path, body)
            if response.is_success:
                break
            self._learn(response.status_code, response.content, response.headers, body, request)
        if not self._replied and "text/html" in response.headers.get("content-type", ""):
            raise BackendError(f"{self.url} answers with a web page; check --base-url, it often ends in /v1")
        seconds = time.monotonic() - started
        reply = read_reply(response.content, request, left_out, seconds=seconds, secrets=self._secrets)
        self._replied = True
        if reply.usage.completion == 0 and any(choice.text for choice in reply.choices):
            self._warn("usage", f"{self.url} reports no token counts: limits and costs in tokens cannot hold")
        return reply

    @property
    def left_out(self) -> frozenset[str]:
        """The fields that the server is known not to take."""
        return self._left_out

    def leave_out(self, fields: Iterable[str]) -> None:
        """Never send these fields (learnt in an earlier sitting)."""
        with self._lock:
            self._left_out |= frozenset(fields)

    def read(self, request: Request, status: int, content: bytes, left_out: frozenset[str]) -> Reply | None:
        """An answer that came in a batch's file instead of over `complete`.

        Args:
            request: what was asked; the texts of its prompt do not matter.
            status: of the answer.
            content: its body.
            left_out: the fields that had been left out of the request.

        Returns:
            The reply, or None if the server wants a field left out: ask again, `left_out` tells it now.

        Raises:
            SelfInstructError: as `complete`.
        """
        if status == 200:
            return read_reply(content, request, left_out, seconds=0.0, secrets=self._secrets)
        self._learn(status, content, {}, request_body(self.model, request, left_out)[1], request)
        return None

    def ask(self, call: Callable[[openai.OpenAI], T], missing: str = "") -> T:
        """What `call` gets from the configured client at other endpoints; its errors become ours.

        Args:
            call: asks one thing.
            missing: what to say of a server that does not have the endpoint.
        """
        import httpx2

        answer = self._try(lambda: call(self._client))
        if not isinstance(answer, httpx2.Response):
            return answer
        refusal = Refusal.read(answer.status_code, answer.content, self._secrets)
        if missing and answer.status_code in (404, 405, 501):
            raise BackendError(f"{self.url} {missing} (HTTP {answer.status_code}: {refusal.message})")
        raise error_of_status(refusal, answer.headers, self.url, self.model, has_key=self._has_key)

    def clean(self, text: str) -> str:
        """A stranger's text as one short line without our key."""
        return clean_line(text, self._secrets)

    def close(self) -> None:
        """End all connections; requests under way fail as `Transient`. May be called twice."""
        self._pool.close()

    def _post(self, path: str, body: dict[str, Any]) -> httpx2.Response:
        """The server's answer, whatever its status.

        The official client composes a request anew each time, from options that never change here, and that
        takes as long as all the rest. So the first request that succeeds is its work, and then the pattern.
        """
        import httpx2

        pattern = self._patterns.get(path)
        if pattern is None:
            answer = self._try(lambda: self._client.post(path, body=body, cast_to=httpx2.Response))
            if answer.is_success:
                del answer.request.headers["content-length"]
                answer.request.headers.pop("cookie", None)
                self._patterns[path] = answer.request
            return answer
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return self._try(
            lambda: self._pool.send(
                httpx2.Request(
                    "POST",
                    pattern.url,
                    headers=pattern.headers,
                    content=content.encode(),
                    extensions=pattern.extensions,
                )
            )
        )

    def _try(self, call: Callable[[], T]) -> T | httpx2.Response:
        """What the call returns, or the server's refusal.

        No error of the client's is ever chained to ours: theirs hold the request with its headers.
        """
        import httpx2
        import openai

        try:
            return call()
        except openai.APIStatusError as error:
            return error.response
        except openai.APIConnectionError as error:
            failure = self._connection_failure(error.__cause__)
        except httpx2.RequestError as error:
            failure = self._connection_failure(error)
        except UnicodeEncodeError as error:
            failure = RequestRefused("the request holds half of a surrogate pair, which is no text")
            if error.encoding == "ascii":
                failure = BackendError("a header holds a sign that is not ASCII; check OPENAI_CUSTOM_HEADERS")
        except SelfInstructError:
            raise
        except Exception as error:
            if not self._pool.closed:
                raise
            failure = Transient(f"the connection was closed ({type(error).__name__})")
        raise failure

    def _connection_failure(self, cause: BaseException | None) -> SelfInstructError:
        import httpx2

        told = clean_line(str(cause or ""), self._secrets) or type(cause).__name__
        if isinstance(cause, httpx2.DecodingError):
            return Transient(f"an answer of {self.url} could not be decompressed", kind="bad_reply")
        reached_nothing = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError)
        if isinstance(cause, reached_nothing) and not (self._answered or self._pool.closed):
            hint = "is the server running, and --base-url right?"
            if "CERTIFICATE_VERIFY_FAILED" in told:
                hint = "if the certificate is your own, name its file in SSL_CERT_FILE"
            elif isinstance(cause, httpx2.ProxyError):
                hint = "check the proxy in HTTP_PROXY or HTTPS_PROXY"
            return BackendError(f"nothing answers at {self.url} ({told}); {hint}")
        if isinstance(cause, httpx2.LocalProtocolError):
            return BackendError(
                "a request could not be written (a header is not valid);"
                " check OPENAI_ORG_ID, OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS"
            )
        if isinstance(cause, httpx2.TimeoutException):
            return Transient(f"{self.url} did not answer within {self.timeout:g} s", kind="timeout")
        return Transient(f"the connection to {self.url} was lost ({told})")

    def _learn(
        self, status: int, content: bytes, headers: Mapping[str, str], body: dict[str, Any], request: Request
    ) -> None:
        """Leave out the field that the server refuses, or raise what its refusal stands for."""
        refusal = Refusal.read(status, content, self._secrets)
        field = refused_field(refusal, body, request)
        if field is None:
            raise error_of_status(refusal, headers, self.url, self.model, has_key=self._has_key)
        with self._lock:
            self._left_out |= {field}
        self._warn(field, f"{self.url} does not take `{field}` ({refusal.message}); going on without it")

    def _warn(self, topic: str, message: str) -> None:
        with self._lock:
            is_new = topic not in self._told
            self._told.add(topic)
        if is_new:
            log.warning("%s", message)

    def _hear(self, headers: Mapping[str, str]) -> None:
        """Pass on what an answer tells of limits."""
        self._answered = True
        if self.on_headers is not None:
            limits = {
                name.lower(): value
                for name, value in headers.items()
                if name.lower().startswith(("x-ratelimit-", "retry-after"))
            }
            if limits:
                self.on_headers(limits)


def split_address(address: str) -> tuple[Any, tuple[str, str] | None]:
    """A base URL as (its parts without login and fragment, the login or None)."""
    try:
        parts = urlsplit(address.strip())
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or not address.strip().isprintable():
        raise InputError("the address of the server must look like http://host:port/v1; check --base-url")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    netloc = host if port is None else f"{host}:{port}"
    login = None
    if parts.username is not None:
        login = (unquote(parts.username), unquote(parts.password or ""))
    return parts._replace(netloc=netloc, path=parts.path.rstrip("/"), fragment=""), login
