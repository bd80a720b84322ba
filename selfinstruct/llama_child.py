"""The child process that holds the embedded model: llama.cpp's HTTP server, on loopback, until stdin ends.

Run as `python -m selfinstruct.llama_child` with one JSON line of settings on stdin; answers with one
JSON line on stdout: `{"url": ...}` when it listens, else `{"error": ...}`. It imports nothing of the
project, asks the model nothing and decides nothing: `backend_local` starts and ends it.

Why a process of its own: inside the caller's, this server deadlocks when it is destroyed with a request
under way, crashes at exit and keeps Ctrl-C from working.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Any

# Prompts that share a beginning come by turns (a recipe has several steps), and a slot remembers only
# its last one. With this much room for the others, a trial with three kinds of prompt took 60 to 70 % of
# its prompt tokens from memory instead of none, for half of the processor time. 64 MiB did as well for
# the small model; the large one needs four times as much per token.
_PROMPT_CACHE_MIB = 256


def serve(settings: dict[str, Any]) -> Any:
    """Load the model and listen.

    Args:
        settings: `model` (path), `alias` (name in replies), `slots` (requests answered at once), `ctx`
            (tokens per slot), `threads`, `key` (what clients must send), `log` (whether to talk).

    Returns:
        The server, which listens at its `listening_address`, "http://127.0.0.1:PORT". Keep it until the
        process ends: its destructor may hang.

    Raises:
        ImportError: the engine is missing, or a system library that it needs.
        RuntimeError: the model does not load; the reason stands on stderr.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.model_alias = {settings["alias"]}
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["slots"] * settings["ctx"]  # the total: it is split evenly
    params.fit_params = False  # take these sizes or fail, do not shrink them in silence
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # any that is free
    params.api_keys = [settings["key"]]
    params.ui = False
    params.cache_ram_mib = _PROMPT_CACHE_MIB
    params.verbosity = 3 if settings["log"] else 1  # 1: errors only
    return xllamacpp.Server(params)


def end_with(parent: int) -> None:
    """End this process when its parent, process number `parent`, is gone.

    End-of-file on stdin tells that in most cases, but not when the parent forked other children that
    live on: they hold the other end of the pipe open. (On Windows the parent's number never changes,
    and there is no fork.)
    """
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


def main() -> None:
    """Serve until stdin ends. Only the parent decides when that is, so signals are ignored."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not end up in the answer
    settings = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    try:
        server = serve(settings)
        told = {"url": server.listening_address}
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent tells it
        told = {"error": str(error), "kind": type(error).__name__}
    print(json.dumps(told), file=answer, flush=True)
    if "url" in told:
        sys.stdin.buffer.read()
    sys.stderr.flush()
    os._exit(0)  # the way out without destructors, which may hang


if __name__ == "__main__":
    main()
