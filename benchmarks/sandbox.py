"""What the sandbox costs: processor time of a run on top of the program, and what runs do to a request loop.

`python benchmarks/sandbox.py [--runs 100]`. Runs of the two kinds alternate, and medians are printed, since other
work on the machine changes everything; its load is printed with them. The time of all processes of a run is
counted, ours included; what the kernel does later to take a sandbox's namespaces apart is not.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from multiprocessing.connection import Connection

from selfinstruct.verify.bare import open_bare
from selfinstruct.verify.bwrap import open_bwrap
from selfinstruct.verify.run import run_code
from selfinstruct.verify.sandbox import Call, Sandbox
from selfinstruct.verify.toolchains import find_toolchain

PROGRAMS = {
    "nothing (/bin/true)": None,
    "python": "print(sum(range(1000)))",
    "javascript": "console.log(1)",
    "bash": "echo 1",
    "sql": "CREATE TABLE t(a); SELECT * FROM t",
    "c": '#include <stdio.h>\nint main(void) { puts("1"); }',
    "go": 'package main\nimport "fmt"\nfunc main() { fmt.Println(1) }',
    "java": "public class A { public static void main(String[] a) { System.out.println(1); } }",
}
CLIENTS, ANSWER_SECONDS = 16, 0.02


def spent() -> tuple[float, float]:
    """Milliseconds of processor time: this process, and its children that have ended."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (own.ru_utime + own.ru_stime), 1000 * (children.ru_utime + children.ru_stime)


def measure(call: Callable[[], object]) -> tuple[float, float, float]:
    """Milliseconds: our processor time, that of all processes, and wall time."""
    before, began = spent(), time.perf_counter()
    call()
    seconds, after = time.perf_counter() - began, spent()
    own, children = after[0] - before[0], after[1] - before[1]
    return own, own + children, 1000 * seconds


def start(language: str, code: str | None, sandbox: Sandbox) -> None:
    if code is None:
        ended = sandbox.run(Call(["/bin/true"], {"main.py": b"x = 1\n"}))
        assert ended.status == "ok", ended
    else:
        verdict, _ = run_code(language, code, sandbox)
        assert verdict.status == "passed", verdict


def overhead(runs: int) -> None:
    bare, bwrap = open_bare(), open_bwrap()
    print(
        f"{'program':<22}{'bare':>8}{'bwrap':>8}{'more':>8}{'ours':>8}{'wall':>8}{'bwrap':>8}   ms, medians"
    )
    for name, code in PROGRAMS.items():
        if code and not (find_toolchain(bare, name) and find_toolchain(bwrap, name)):
            print(f"{name:<22} no toolchain")
            continue
        pairs = []
        for _ in range(runs if code is None or name in {"python", "bash", "sql"} else max(5, runs // 10)):
            plain = measure(lambda code=code, name=name: start(name, code, bare))  # type: ignore[misc]
            boxed = measure(lambda code=code, name=name: start(name, code, bwrap))  # type: ignore[misc]
            pairs.append((plain, boxed))
        middle = statistics.median
        plain_all, boxed_all = middle(p[1] for p, _ in pairs), middle(b[1] for _, b in pairs)
        more = middle(b[1] - p[1] for p, b in pairs)
        own, wall = middle(b[0] for _, b in pairs), middle(p[2] for p, _ in pairs)
        boxed_wall = middle(b[2] for _, b in pairs)
        print(f"{name:<22}{plain_all:8.1f}{boxed_all:8.1f}{more:8.1f}{own:8.1f}{wall:8.1f}{boxed_wall:8.1f}")


class Answer(BaseHTTPRequestHandler):
    """Answers after a while, as a model would."""

    def do_GET(self) -> None:  # noqa: D102 - a name of the base class
        time.sleep(ANSWER_SECONDS)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:  # noqa: D102
        pass


def serve(pipe: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.request_queue_size = 128
    pipe.send(server.server_address[1])
    server.serve_forever()


def request_loop(port: int, seconds: float) -> int:
    """Requests that a pool of threads gets answered in that time."""
    end = time.perf_counter() + seconds

    def ask(_: int) -> int:
        count = 0
        while time.perf_counter() < end:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as reply:
                reply.read()
            count += 1
        return count

    with ThreadPoolExecutor(CLIENTS) as workers:
        return sum(workers.map(ask, range(CLIENTS)))


def beside_requests(rounds: int) -> None:
    """Programs that sleep take no processor from the loop: what is left is what our own threads cost it."""
    sandbox, context = open_bwrap(), get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    port = ours.recv()
    ratios, ran = [], 0
    for _ in range(rounds):
        alone = request_loop(port, 3.0)
        stop = threading.Event()

        def run(stop: threading.Event = stop) -> int:
            count = 0
            while not stop.is_set():
                sandbox.run(Call(["/bin/sleep", "0.5"], {"main.py": b"x = 1\n"}))
                count += 1
            return count

        with ThreadPoolExecutor(8) as workers:
            running = [workers.submit(run) for _ in range(8)]
            beside = request_loop(port, 3.0)
            stop.set()
            ran += sum(future.result() for future in running)
        ratios.append(beside / alone)
        print(f"requests in 3 s: alone {alone}, beside eight sandboxes {beside} ({beside / alone:.2f})")
    print(f"median {statistics.median(ratios):.3f} over {rounds} pairs, {ran} programs ran")
    server.terminate()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    words = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors")
    overhead(words.runs)
    if words.rounds:
        beside_requests(words.rounds)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
