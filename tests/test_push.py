"""Uploading a dataset folder, against a hub of our own on this machine that speaks the few calls it takes."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, invented_rows

from selfinstruct.data import push
from selfinstruct.errors import BackendError, InputError

Cli = Callable[..., Ended]
NAME = "me/my-dataset"


class Hub(ThreadingHTTPServer):
    """Keeps what it is told; `status` other than 200 refuses everything."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.status = 200
        self.files: dict[str, bytes] = {}
        self.made: list[dict[str, Any]] = []
        self.keys: set[str] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.answer({"sha": "0" * 40, "id": NAME, "siblings": []})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.keys.add(self.headers.get("Authorization", ""))
        if self.path.endswith("/repos/create"):
            self.server.made.append(json.loads(body))
            self.answer({"url": f"{self.server.address}/datasets/{NAME}"})
        elif "/preupload/" in self.path:
            files = [
                {**each, "uploadMode": "regular", "shouldIgnore": False} for each in json.loads(body)["files"]
            ]
            self.answer({"files": files})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            oid = "1" * 40
            self.answer(
                {
                    "success": True,
                    "commitOid": oid,
                    "commitUrl": f"{self.server.address}/datasets/{NAME}/commit/{oid}",
                }
            )
        else:
            self.answer({})

    def answer(self, value: dict[str, Any]) -> None:
        data = json.dumps(value if self.server.status == 200 else {"error": "no"}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_folder_goes_up_whole(cli: Cli, hub: Hub, tmp_path: Path) -> None:
    source, output = tmp_path / "in.json", tmp_path / "set"
    source.write_text(json.dumps(invented_rows(5)))
    ended = cli("export", source, "-o", output, "--format", "hf", "--push", NAME)
    assert ended.status == 0, ended.err
    assert f"uploaded to {hub.address}/datasets/{NAME}" in ended.err
    assert hub.files == {
        name: (output / name).read_bytes()
        for name in ("README.md", "provenance.json", "data/train-00000-of-00001.parquet")
    }
    (made,) = hub.made
    assert (made["name"], made["organization"], made["type"]) == ("my-dataset", "me", "dataset")
    assert made.get("private", made.get("visibility") == "private")
    assert hub.keys == {"Bearer hf_planted"}
    assert not any(b"hf_planted" in data for data in hub.files.values())


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_hub_that_refuses_is_one_line_and_the_folder_stays(
    cli: Cli, hub: Hub, tmp_path: Path, status: int
) -> None:
    hub.status = status
    source, output = tmp_path / "in.json", tmp_path / "set"
    source.write_text(json.dumps(invented_rows(5)))
    ended = cli("export", source, "-o", output, "--push", NAME)
    assert ended.status == 4
    assert len(ended.err.splitlines()) == 1
    assert "hf_planted" not in ended.err
    assert (output / "README.md").is_file()


def test_a_hub_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    (tmp_path / "README.md").write_text("x")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BackendError, match="out of reach"):
        push.push(tmp_path, NAME)


@pytest.mark.parametrize("name", ["x", "a/b/c", "../x", "me/", "me/x y"])
def test_names_that_are_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "x")
    with pytest.raises(InputError, match="not OWNER/NAME"):
        push.check_repository(name)
