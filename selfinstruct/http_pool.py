"""Connections to one server: kept open, bounded in time and bytes, and woken when all is to end.

It knows nothing of the protocol above HTTP; errors of `httpx2` come out as they are.
"""

from __future__ import annotations

import contextlib
import functools
import math
import queue
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from selfinstruct.errors import RequestRefused, Transient

if TYPE_CHECKING:
    import httpx2

MAX_BODY = 8 * 1024 * 1024  # bytes; the longest honest answers are a hundred times smaller
MAX_FILE = 4 * 1024**3  # bytes of a batch's answers; one batch has at most 50,000
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class HttpPool:
    """Clients with one connection each, lent to one thread at a time; safe to share between threads.

    A client with many connections looks at all of them whenever one is taken or given back, and all threads wait
    for it meanwhile. `front` is for others who need one client to ask: it lends those out, too, and streams over
    connections of its own. What was used last is lent first; connections that are not needed any more stay open until
    they are used again, the server ends them or all is closed.

    Args:
        url: any address of the server; requests bring their own.
        login: user and password of basic authentication.
        timeout: seconds without a byte from the server, and for the whole body once it has begun.
        most: requests at a time, and streams; further ones wait.
        on_headers: called from the requesting thread with the headers of each answer, before its body is read.

    Raises:
        ImportError, ValueError, httpx2.InvalidURL: a proxy in the environment cannot be used.
    """

    def __init__(
        self,
        url: str,
        login: tuple[str, str] | None,
        timeout: float,
        most: int,
        on_headers: Callable[[httpx2.Headers], None],
    ) -> None:
        import httpx2

        self._login, self._timeout, self._on_headers = login, timeout, on_headers
        # A server on this very machine is not reached through a proxy.
        self._trust_env = not (url.startswith("http:") and urlsplit(url).hostname in LOOPBACK)
        self._certificates = httpx2.create_ssl_context(trust_env=self._trust_env)  # slow to load: once
        self._lock = threading.Lock()
        self._sockets: weakref.WeakSet[Any] = weakref.WeakSet()
        self.closed = False
        self.front = front_class()(self.send, **self._options(most))
        self._idle: queue.LifoQueue[httpx2.Client | None] = queue.LifoQueue()
        for _ in range(most):
            self._idle.put(None)  # becomes a client when all that are there are busy

    def _options(self, connections: int) -> dict[str, Any]:
        import httpx2

        return {
            "auth": self._login,
            "verify": self._certificates,
            "timeout": httpx2.Timeout(self._timeout, connect=min(self._timeout, 10.0), pool=None),
            "limits": httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
            # Compressed answers could not be held to a size by counting their bytes.
            "headers": {"Accept-Encoding": "identity"},
            # A POST that is redirected may silently become a GET: say where it leads instead.
            "follow_redirects": False,
            "trust_env": self._trust_env,
            "event_hooks": {"request": [self._watch], "response": [self._receive]},
        }

    def send(self, request: httpx2.Request) -> httpx2.Response:
        """The answer, read to its end, over a connection that is idle or new.

        Raises:
            Transient: the body came too slowly to its end.
            RequestRefused: the body is too long.
            httpx2.RequestError: see there.
            RuntimeError: the pool is closed.
        """
        http = self._idle.get()
        try:
            http = http or self._new()
            return http.send(request)
        except BaseException:
            # A connection whose encryption failed behind a proxy is never free again: its client would wait for it.
            if http is not None:
                http.close()
                http = None
            raise
        finally:
            self._idle.put(http)
            if self.closed:
                self._close_idle()

    def _new(self) -> httpx2.Client:
        import httpx2

        if self.closed:
            raise RuntimeError("the pool is closed")
        return httpx2.Client(**self._options(1))

    def close(self) -> None:
        """End all connections; requests under way fail. May be called twice."""
        self.closed = True
        # Closing a socket does not wake a thread that waits on it; shutting it down does.
        with self._lock:
            sockets = list(self._sockets)
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self.front.close()
        self._close_idle()

    def _close_idle(self) -> None:
        for http in list(self._idle.queue):
            if http is not None:
                http.close()

    def _watch(self, request: httpx2.Request) -> None:
        request.extensions = {**request.extensions, "trace": self._trace}

    def _trace(self, event: str, info: dict[str, Any]) -> None:
        """Note each new socket, so that `close` can wake the threads that wait on one."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            sock = info["return_value"].get_extra_info("socket")
            with self._lock:
                self._sockets.add(sock)
            if self.closed:  # meanwhile
                sock.shutdown(socket.SHUT_RDWR)

    def _receive(self, response: httpx2.Response) -> None:
        """Look at an answer before its body is read: no body without an end."""
        self._on_headers(response.headers)
        # A compressed body (against our word) can grow a thousandfold when it is read.
        most = MAX_BODY // 64 if response.headers.get("content-encoding") else MAX_BODY
        until = time.monotonic() + self._timeout
        if response.request.url.path.endswith("/content"):  # a file of many answers, read line by line
            most, until = MAX_FILE, math.inf
        response.stream = capped_stream()(response.stream, most, until)


@functools.cache
def front_class() -> Callable[..., httpx2.Client]:
    """The class of a client that has others send what is not read piece by piece.

    It and the next are made on first use because their bases stand in a package that is slow to import.
    """
    import httpx2

    class Front(httpx2.Client):
        def __init__(self, send: Callable[[httpx2.Request], httpx2.Response], **options: Any) -> None:
            super().__init__(**options)
            self._send_whole = send

        def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
            if stream:
                return super().send(request, stream=True, **options)
            answer = self._send_whole(request)
            self.cookies.extract_cookies(answer)  # those of a load balancer, say
            return answer

    return Front


@functools.cache
def capped_stream() -> Callable[[Any, int, float], httpx2.SyncByteStream]:
    """The class of a body that ends with one of our errors after so many bytes, or at a deadline."""
    import httpx2

    class Capped(httpx2.SyncByteStream):
        def __init__(self, stream: httpx2.SyncByteStream, most: int, deadline: float) -> None:
            self.stream, self.most, self.deadline = stream, most, deadline

        def __iter__(self) -> Iterator[bytes]:
            size = 0
            for chunk in self.stream:
                size += len(chunk)
                if size > self.most:
                    raise RequestRefused(f"the answer is longer than {self.most:,} bytes", "reply_too_large")
                if time.monotonic() > self.deadline:
                    raise Transient("an answer came too slowly to its end", kind="timeout")
                yield chunk

        def close(self) -> None:
            self.stream.close()

    return Capped
