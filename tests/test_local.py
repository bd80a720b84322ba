import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request as WebRequest
from urllib.request import urlopen

import pytest

from selfinstruct import backend_local, weights
from selfinstruct.backend_local import LocalBackend, LocalServer, usable_cores
from selfinstruct.backends import open_backend
from selfinstruct.errors import BackendError, InputError, Transient
from selfinstruct.records import Request
from selfinstruct.settings import make_settings

HERE = Path(__file__).resolve().parents[1]
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and process groups of POSIX")


def fake_child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> Path:
    """Puts `script` in the place of the child; returns a model path to give."""
    path = tmp_path / "child.py"
    path.write_text(textwrap.dedent(script))
    real = subprocess.Popen

    def popen(_: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return real([sys.executable, "-I", "-S", str(path)], **options)

    monkeypatch.setattr("selfinstruct.backend_local.subprocess.Popen", popen)
    return tmp_path / "toy.gguf"


def wait_until_gone(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat")
            if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":
                return True  # dead, and nobody of ours to bury it
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        (
            "import sys; sys.exit('RuntimeError: it broke')",
            BackendError,
            "ended with status 1: RuntimeError: it broke",
        ),
        ("import os; os.kill(os.getpid(), 9)", BackendError, "was killed, most likely.*memory"),
        ("import os; os.kill(os.getpid(), 4)", BackendError, "needs a processor with AVX2"),
        ("import sys; sys.exit('failed to allocate CPU buffer')", BackendError, "not enough memory"),
        ("import sys; sys.exit('std::bad_alloc')", BackendError, "not enough memory"),
        ("import time; time.sleep(60)", BackendError, r"was not loaded after 0\.5 s"),
    ],
)
@POSIX
def test_a_child_that_dies_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, kind: type[Exception], message: str
) -> None:
    model = fake_child(monkeypatch, tmp_path, script)
    with pytest.raises(kind, match=message) as error:
        LocalServer(model, start_seconds=0.5 if "sleep" in script else 30)
    assert "\n" not in str(error.value)


def test_a_missing_engine_is_told_before_weights_are_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("selfinstruct.backend_local.find_spec", lambda _: None)
    monkeypatch.setattr("selfinstruct.weights.resolve", lambda *_: pytest.fail("weights were asked for"))
    settings = make_settings({"output": tmp_path / "x.json"})
    with (
        pytest.raises(InputError, match="engine of the local backend is not installed"),
        open_backend(settings),
    ):
        pass


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (
            "ModuleNotFoundError",
            "No module named 'xllamacpp'",
            r"not installed: pip install 'selfinstruct\[local\]'",
        ),
        ("ImportError", "libgomp.so.1: cannot open shared object file", "apt-get install libgomp1"),
        ("ImportError", "DLL load failed", "does not load here: DLL load failed"),
        ("RuntimeError", "Failed to init server", "cannot load this file: Failed to init server"),
    ],
)
def test_an_engine_that_does_not_load_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, error: str, message: str
) -> None:
    line = json.dumps({"error": error, "kind": kind})
    model = fake_child(monkeypatch, tmp_path, f"import sys; sys.stdin.readline(); print({line!r})")
    with pytest.raises(InputError, match=message):
        LocalServer(model)


def test_the_key_is_neither_an_argument_nor_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: dict[str, Any] = {}
    real = subprocess.Popen
    script = 'import sys; sys.stdin.readline(); print(\'{"url": "http://127.0.0.1:1"}\', flush=True); sys.stdin.read()'

    def popen(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        seen.update(options, command=command)
        return real([sys.executable, "-I", "-S", "-c", script], **options)

    monkeypatch.setattr("selfinstruct.backend_local.subprocess.Popen", popen)
    with LocalServer(tmp_path / "x.gguf") as one, LocalServer(tmp_path / "x.gguf") as two:
        assert one.key != two.key
        assert len(one.key) >= 32
        assert not [value for value in (*seen["command"], *seen["env"].values()) if two.key in value]
        assert seen["env"]["OMP_WAIT_POLICY"] == "passive"
        assert one.url == "http://127.0.0.1:1/v1"


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write the engine's log"):
        LocalServer(tmp_path / "x.gguf", log=tmp_path / "no" / "folder.txt")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
def test_cores_respect_affinity_hyperthreads_and_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))
    files: dict[str, str] = {}
    monkeypatch.setattr(backend_local, "_read", lambda path: files.get(path, ""))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert usable_cores() == 4
    siblings = {0: "0,4", 1: "1,5", 2: "2-3", 3: "2-3"}
    files |= {
        f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": text
        for cpu, text in siblings.items()
    }
    assert usable_cores() == 3
    files["/sys/fs/cgroup/cpu.max"] = "max 100000"
    assert usable_cores() == 3
    files["/sys/fs/cgroup/cpu.max"] = "150000 100000"
    assert usable_cores() == 2
    files["/sys/fs/cgroup/cpu.max"] = "10000 100000"
    assert usable_cores() == 1
    del files["/sys/fs/cgroup/cpu.max"]
    files["/sys/fs/cgroup/cpu/cpu.cfs_quota_us"] = "-1"
    files["/sys/fs/cgroup/cpu/cpu.cfs_period_us"] = "100000"
    assert usable_cores() == 3
    files["/sys/fs/cgroup/cpu/cpu.cfs_quota_us"] = "200000"
    assert usable_cores() == 2


# The real engine


@pytest.fixture(scope="module")
def model() -> Path:
    pytest.importorskip("xllamacpp")
    return weights.pull("smollm2-135m", lambda *_: None)


@pytest.fixture(scope="module")
def backend(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBackend]:
    log = tmp_path_factory.mktemp("engine") / "log.txt"
    started = LocalBackend(model, alias="smollm2-135m", concurrency=2, log=log)
    yield started
    key = started.server.key
    started.close()
    started.close()
    text = log.read_text(errors="replace")
    assert "listening" in text
    assert key not in text


@pytest.mark.model
def test_it_answers_chat_and_completion(backend: LocalBackend) -> None:
    ask = (("user", "Write a Python function that adds two numbers."),)
    reply = backend.complete("0.0", Request(messages=ask, max_tokens=24, temperature=0.0, seed=1))
    assert reply.text.strip()
    assert reply.finish_reason == "length"
    assert reply.model == "smollm2-135m"
    assert reply.usage.completion == 24
    reply = backend.complete("0.1", Request(prompt="1. one\n2. two\n3.", max_tokens=24, stop=("\n",)))
    assert "\n" not in reply.text
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    reply = backend.complete("0.2", Request(messages=ask, max_tokens=40, temperature=0.0, schema=schema))
    assert isinstance(json.loads(reply.text)["a"], int)


@pytest.mark.model
def test_prompts_that_come_by_turns_are_read_from_memory(backend: LocalBackend) -> None:
    beginnings = [f"{word} is what this list is about. " * 20 for word in ("Trees", "Files", "Dates")]
    for turn in range(2):
        for beginning in beginnings:
            reply = backend.complete("0.0", Request(prompt=f"{beginning}{turn}", max_tokens=1))
            assert turn == 0 or reply.usage.cached > 100


@pytest.mark.model
def test_nobody_gets_an_answer_without_the_key(backend: LocalBackend) -> None:
    import openai

    with (
        openai.OpenAI(base_url=backend.server.url, api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.completions.create(model="x", prompt="x", max_tokens=1)
    bare = WebRequest(f"{backend.server.url}/completions", b"{}", {"Content-Type": "application/json"})
    with pytest.raises(HTTPError) as error:
        urlopen(bare, timeout=10)
    assert error.value.code == 401
    error.value.close()


@pytest.mark.model
def test_it_listens_on_loopback_only(backend: LocalBackend) -> None:
    host, port = backend.server.url.removeprefix("http://").removesuffix("/v1").split(":")
    assert host == "127.0.0.1"
    own = socket.gethostbyname(socket.gethostname())
    if not own.startswith("127."):
        with socket.socket() as probe:
            assert probe.connect_ex((own, int(port))) != 0


@pytest.mark.model
def test_closing_while_it_is_busy_ends_it_and_the_request(model: Path) -> None:
    backend = LocalBackend(model, concurrency=1)
    seen: list[BaseException] = []

    def ask() -> None:
        try:
            backend.complete(
                "0.0", Request(prompt="Once upon a time", max_tokens=1500, extra={"ignore_eos": True})
            )
        except BaseException as error:
            seen.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.5)
    pid = backend.server._child.pid
    backend.close()
    thread.join(10)
    assert not thread.is_alive()
    assert wait_until_gone(pid, 0.1)
    assert isinstance(seen[0], Transient | BackendError)


@pytest.mark.model
@POSIX
def test_a_child_that_is_killed_is_no_passing_fault(model: Path) -> None:
    backend = LocalBackend(model, concurrency=1)
    try:
        assert backend.complete("0.0", Request(prompt="One", max_tokens=1)).text
        backend.server._child.kill()
        backend.server._child.wait()
        with pytest.raises(BackendError, match="was killed, most likely"):
            backend.complete("0.1", Request(prompt="Two", max_tokens=1))
    finally:
        backend.close()


@pytest.mark.model
@pytest.mark.parametrize("size", [0, 1000, 50_000_000])
def test_a_file_that_is_no_whole_model_is_one_line(model: Path, tmp_path: Path, size: int) -> None:
    cut = tmp_path / "cut.gguf"
    with model.open("rb") as source:
        cut.write_bytes(source.read(size))
    with pytest.raises(InputError, match=r"cut\.gguf: the engine cannot load this file: ") as error:
        LocalServer(cut)
    assert "\n" not in str(error.value)


@pytest.mark.model
@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_a_context_beyond_memory_is_one_line(model: Path) -> None:
    # In a process that may not have the memory: without that limit the system would try to give it.
    script = f"""
        import resource
        from pathlib import Path
        from selfinstruct.backend_local import LocalServer
        from selfinstruct.errors import BackendError
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        try:
            LocalServer(Path({str(model)!r}), slots=4, ctx=100_000)
        except BackendError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True, timeout=60)
    assert "not enough memory for this model" in done.stdout
    assert done.stdout.count("\n") == 1


PARENT = """
    import os, signal, sys, threading, time
    from pathlib import Path
    from selfinstruct.backend_local import LocalBackend
    from selfinstruct.records import Request
    if __name__ == "__main__":
        backend = LocalBackend(Path(sys.argv[1]), concurrency=1)
        request = Request(prompt="Once upon a time", max_tokens=1500, extra={"ignore_eos": True})
        def ask():
            try:
                backend.complete("0.0", request)
            except Exception:
                pass
        threading.Thread(target=ask, daemon=True).start()
        time.sleep(0.3)
        if "fork" in sys.argv and os.fork() == 0:
            time.sleep(30)  # holds the other end of the child's stdin
            os._exit(0)
        print(backend.server._child.pid, flush=True)
        if "leave" not in sys.argv:
            time.sleep(60)
"""


def start_parent(model: Path, *words: str) -> tuple[subprocess.Popen[str], int]:
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), str(model), *words],
        cwd=HERE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    with parent.stdout:
        return parent, int(parent.stdout.readline())


@pytest.mark.model
@POSIX
@pytest.mark.parametrize("words", [(), ("fork",)])
def test_it_ends_when_its_busy_parent_is_killed(model: Path, words: tuple[str, ...]) -> None:
    parent, pid = start_parent(model, *words)
    parent.kill()
    parent.wait()
    try:
        assert wait_until_gone(pid, 5.0)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)  # the fork


@pytest.mark.model
@POSIX
def test_it_ends_when_its_busy_parent_ends(model: Path) -> None:
    parent, pid = start_parent(model, "leave")
    assert parent.wait(20) == 0
    assert wait_until_gone(pid, 5.0)


@pytest.mark.model
@POSIX
def test_ctrl_c_reaches_the_parent_first(model: Path) -> None:
    parent, pid = start_parent(model)
    os.killpg(parent.pid, signal.SIGINT)  # what a terminal does
    assert parent.wait(20) in (130, 1, -signal.SIGINT)
    assert wait_until_gone(pid, 5.0)


@pytest.mark.model
@POSIX
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_the_child_itself_ignores_signals(backend: LocalBackend, name: str) -> None:
    os.kill(backend.server._child.pid, getattr(signal, name))
    assert backend.complete("0.0", Request(prompt="One", max_tokens=1)).usage.completion == 1
