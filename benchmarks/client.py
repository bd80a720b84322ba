"""The client beside the bare `openai` package: CPU, time and slots for the same requests to the same server.

    python benchmarks/client.py                     2,000 requests at 64 slots of 200 ms, without and with faults
    python benchmarks/client.py --requests 500
    python benchmarks/client.py --peer distilabel=VENV/bin/python --peer curator=VENV/bin/python

Every client is a process of its own against a server of its own (also a process: its CPU is not counted).
CPU is that of the process until it ends, less that of the same client with few requests, so that starting up
is not part of it. Ours also parses, filters, compares, checks and stores what a reply holds, so its cost grows with
the tasks in a reply; the bare client writes texts to a file. `slots` is the share of all slots that were busy between
the first and the last twentieth of the requests, as the server saw it: the steady state. Compare CPU and ratios first:
the seconds hold the start, too, and depend on what else the machine does.

Peers are other programs that fill datasets from a server. Each runs under a Python that has it (a virtual environment
of its own; what to install stands in peers/run_NAME.py), gets the prompts of the bare client and writes the texts of
the replies: it does the bare client's work, not ours. They take no part in the runs with faults.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Client = Callable[[str, Path, int, int], list[str]]

ROOT = Path(__file__).parents[1]
PEERS = {path.stem.removeprefix("run_"): path for path in (ROOT / "benchmarks" / "peers").glob("run_*.py")}
FEW = 100  # requests that stand for starting up

# What anyone writes in the first hour: threads, the official client, a file of answers.
BARE = """
import json, sys, threading
from concurrent.futures import ThreadPoolExecutor
import httpx2, openai
url, prompts, output, width = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
limits = httpx2.Limits(max_connections=width, max_keepalive_connections=width)
client = openai.OpenAI(api_key="none", base_url=url, max_retries=10,
                       http_client=openai.DefaultHttpxClient(limits=limits))
lock, out = threading.Lock(), open(output, "a")
def ask(line):
    reply = client.chat.completions.create(**json.loads(line))
    with lock:
        out.write(json.dumps({"text": reply.choices[0].message.content}) + "\\n")
        out.flush()
with ThreadPoolExecutor(width) as pool:
    list(pool.map(ask, open(prompts)))
"""


# --- the server -------------------------------------------------------------------------------------


class Server(asyncio.Protocol):
    """As little HTTP as the clients need: the cheapest server, so that it leaves the machine to them."""

    latency = 0.2
    faults = False
    replies: tuple[bytes, ...] = ()
    seen: dict[bytes, int] = {}  # noqa: RUF012 - one server in a process
    spans: list[tuple[float, float]] = []  # noqa: RUF012

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.data = transport, b""

    def data_received(self, data: bytes) -> None:
        """Take in a part of a request."""
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        if not found:
            return
        size = 0
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                size = int(value)
        if len(body) < size:
            return
        self.data = body[size:]
        if head.startswith(b"GET"):
            self.send(200, json.dumps(self.spans).encode())
            return
        digest = hashlib.sha256(body[:size]).digest()
        attempt = self.seen[digest] = self.seen.get(digest, -1) + 1
        drawn = hashlib.sha256(digest + bytes([attempt % 256])).digest()[0] / 256
        now = time.monotonic()
        asyncio.get_running_loop().call_later(self.latency, self.answer, digest, drawn, now)

    def answer(self, digest: bytes, drawn: float, began: float) -> None:
        """Answer a request when its time has come."""
        self.spans.append((began, time.monotonic()))
        if self.faults and drawn < 0.05:
            self.send(429, b'{"error": {"message": "busy"}}', b"Retry-After: 1\r\n")
        elif self.faults and drawn < 0.07:
            self.send(500, b'{"error": {"message": "fault"}}')
        elif self.faults and drawn < 0.08:
            self.transport.abort()
        else:
            self.send(200, self.replies[int.from_bytes(digest[:4], "big") % len(self.replies)])

    def send(self, status: int, body: bytes, extra: bytes = b"") -> None:
        """Write an answer."""
        if not self.transport.is_closing():
            head = b"HTTP/1.1 %d Stub\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n"
            self.transport.write(head % (status, extra, len(body)) + body)


def first_tasks(text: str, tasks: int) -> str:
    """The first so many tasks of a reply (a reply has three to six, 4.5 on the average)."""
    return "###\n".join(text.split("###\n")[:tasks])


def serve(latency: float, tasks: int, *, faults: bool) -> None:
    """Serve until killed; prints the address."""
    sys.path.insert(0, str(ROOT / "tests"))
    from stub_text import alpaca_texts

    Server.latency, Server.faults = latency, faults
    texts = [first_tasks(alpaca_texts({"messages": []}, str(number))[0], tasks) for number in range(4000)]
    Server.replies = tuple(
        json.dumps(
            {
                "id": "stub",
                "object": "chat.completion",
                "created": 0,
                "model": "stub",
                "choices": [
                    {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
                ],
                "usage": {"prompt_tokens": 500, "completion_tokens": 400, "total_tokens": 900},
            }
        ).encode()
        for text in texts
    )

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=512)
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
        await server.serve_forever()

    asyncio.run(run())


@contextmanager
def server(latency: float, tasks: int, *, faults: bool) -> Iterator[str]:
    words = [sys.executable, __file__, "--serve", "--latency", str(latency), "--tasks", str(tasks)]
    words += ["--faults"] * faults
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


# --- the clients ------------------------------------------------------------------------------------


def bare(url: str, folder: Path, requests: int, width: int) -> list[str]:
    """The command of the bare client, with the very prompts that selfinstruct sends."""
    from selfinstruct.openai_wire import request_body
    from selfinstruct.recipes import make_recipe
    from selfinstruct.records import Reply, Request
    from selfinstruct.session import load_seeds, make_pool
    from selfinstruct.settings import make_settings

    settings = make_settings({"backend": "openai", "model": "stub", "base_url": url})
    seeds, sampler = load_seeds(settings)
    view = make_pool(settings, seeds).view(-1)
    recipe, bodies = make_recipe(settings), []

    def complete(request: Request) -> Reply:
        bodies.append(json.dumps(request_body("stub", request, frozenset())[1]))
        raise LookupError

    for k in range(requests):
        try:
            recipe(sampler.plan(k, view), view, complete)
        except LookupError:
            continue
    (folder / "prompts.jsonl").write_text("\n".join(bodies) + "\n")
    return [
        sys.executable,
        "-c",
        BARE,
        url,
        str(folder / "prompts.jsonl"),
        str(folder / "out.jsonl"),
        str(width),
    ]


def ours(url: str, folder: Path, requests: int, width: int) -> list[str]:
    """The real command, ended by its limit of requests."""
    return [
        sys.executable, "-m", "selfinstruct", "generate", "--backend", "openai", "--model", "stub", "--base-url", url,
        "-n", "1000000", "-o", str(folder / "data.json"), "--concurrency", str(width),
        "--max-requests", str(requests),
    ]  # fmt: skip


def peer(python: str, program: Path) -> Client:
    """A peer's program under the Python that has the peer, with the words that the bare client gets."""

    def command(url: str, folder: Path, requests: int, width: int) -> list[str]:
        return [python, str(program), *bare(url, folder, requests, width)[3:]]

    return command


CLIENTS: dict[str, Client] = {"bare openai, threads": bare, "selfinstruct generate": ours}


def add_peer(text: str) -> str:
    """Takes NAME=PYTHON among the clients; returns NAME."""
    name, _, python = text.partition("=")
    if name not in PEERS or not Path(python).is_file():
        raise argparse.ArgumentTypeError(
            f"{text}: not NAME=PYTHON with a path and a name of {', '.join(sorted(PEERS))}"
        )
    # absolute, not resolved: the link is what puts a Python into its environment
    CLIENTS[name] = peer(str(Path(python).absolute()), PEERS[name])
    return name


def measure(
    name: str, requests: int, width: int, latency: float, tasks: int, *, faults: bool
) -> tuple[float, float, float]:
    """(CPU seconds, seconds at the server, share of the slots in use) of one run."""
    import urllib.request

    with tempfile.TemporaryDirectory() as text, server(latency, tasks, faults=faults) as url:
        words = CLIENTS[name](url, Path(text), requests, width)
        env = os.environ | {"OPENAI_API_KEY": "none", "PYTHONPATH": str(ROOT)}
        if name in PEERS:  # an empty home: no reply may come from the cache of an earlier run
            env |= {"HOME": text, "XDG_CACHE_HOME": text, "PYTHONPATH": ""}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ended = subprocess.run(
            words,
            check=False,
            capture_output=True,
            text=True,
            cwd=text,
            env=env,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert ended.returncode in {0, 3}, ended.stdout + ended.stderr
        if name in PEERS:
            rows = len((Path(text) / "out.jsonl").read_text().splitlines())
            assert rows == requests, f"{name} wrote {rows} rows of {requests}: {ended.stderr[-2000:]}"
        with urllib.request.urlopen(url) as answer:  # noqa: S310 - our own
            spans = sorted(json.load(answer))
    if not faults:  # a peer may ask something before it begins
        spans = spans[max(0, len(spans) - requests) :]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    margin = len(spans) // 20
    begin, end = spans[margin][0], spans[-margin - 1][0]
    used = sum(max(0.0, min(stop, end) - max(start, begin)) for start, stop in spans)
    return cpu, spans[-1][1] - spans[0][0], used / (end - begin) / width


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--tasks", type=int, default=6, help="tasks that a reply has at most")
    parser.add_argument("--faults", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        type=add_peer,
        metavar="NAME=PYTHON",
        help="compare this one, too",
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="of the clients, this one")
    given = parser.parse_args()
    if unknown := set(given.only or ()) - set(CLIENTS):
        parser.error(f"--only: {unknown.pop()} is not one of {', '.join(CLIENTS)}")
    if given.serve:
        serve(given.latency, given.tasks, faults=given.faults)
        return
    sys.path.insert(0, str(ROOT))
    ideal = given.requests * given.latency / given.width
    print(
        f"{given.requests} requests, {given.width} slots of {given.latency:g} s: ideal {ideal:.2f} s;",
        end=" ",
    )
    print(f"load {os.getloadavg()[0]:.1f}")
    for tasks, faults in ((1, False), (given.tasks, False), (given.tasks, True)):
        told = "5 % 429, 2 % 500, 1 % resets" if faults else "no faults"
        print(f"\n{told}; {'one task' if tasks == 1 else 'about four tasks'} in a reply")
        print(f"{'client':24} {'CPU ms/request':>14} {'ratio':>6} {'seconds':>8} {'/ideal':>7} {'slots':>6}")
        first = None
        for name in given.only or CLIENTS:
            if faults and name in PEERS:
                continue
            small, _, _ = measure(name, FEW, given.width, given.latency, tasks, faults=False)
            cpu, seconds, slots = measure(
                name, given.requests, given.width, given.latency, tasks, faults=faults
            )
            each = 1000 * (cpu - small) / (given.requests - FEW)
            first = first or each
            print(
                f"{name:24} {each:14.2f} {each / first:6.2f} {seconds:8.2f} {seconds / ideal:7.2f} {slots:6.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
