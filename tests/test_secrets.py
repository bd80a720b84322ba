"""A planted key, login and headers must be nowhere in what a run writes, however it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from conftest import Ended
from stub_server import FAULTS, Answer, Asked, StubServer

import selfinstruct
from selfinstruct import calls

Cli = Callable[..., Ended]
REPOSITORY = Path(selfinstruct.__file__).parents[1]
KEY = "sk-planted-key-0123456789abcdef"
USER, PASSWORD = "planted-user", "planted:p@ss/word"
HEADER = "planted-header-5f3c"
QUERY = "planted-query-77aa"
FORMS = [
    KEY, PASSWORD, quote(PASSWORD, safe=""), quote(PASSWORD), HEADER, QUERY, USER,
    *(b64encode(text.encode()).decode().rstrip("=") for text in (KEY, f"{USER}:{PASSWORD}", PASSWORD, HEADER)),
]  # fmt: skip
# The beginning of a secret is one too: a message that was cut may end in the middle of it.
FORMS += [KEY[:16], PASSWORD[:12], quote(PASSWORD, safe="")[:12], HEADER[:14]]


class EchoingStub(StubServer):
    """Repeats every header of the request in what it says about an error, and plants one in each answer."""

    def _answer(self, asked: Asked, fault: str | None) -> Answer:
        answer = super()._answer(asked, fault)
        told = f"{asked.headers.get('x-team-token')} {asked.headers.get('authorization')} {asked.headers}"
        headers = (*answer.headers, ("X-Api-Key", HEADER), ("Set-Cookie", f"session={HEADER}"))
        if answer.status >= 400:
            error = json.loads(answer.payload)["error"]
            error["message"] = f"{told} {error['message']}"
            return Answer(answer.status, json.dumps({"error": error}).encode(), headers)
        if fault in {"invalid_json", "html"}:
            return Answer(200, answer.payload + told.encode(), (*answer.headers[:1], *headers[1:]))
        if fault == "error_in_200":
            return Answer(200, json.dumps({"error": {"code": 500, "message": told}}).encode(), headers)
        return Answer(answer.status, answer.payload, headers)


def with_login(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{USER}:{quote(PASSWORD, safe='')}@{parts.netloc}").geturl()


def assert_nothing_planted(folder: Path, *said: str) -> None:
    texts = {"what was said": "\n".join(said)}
    for path in folder.rglob("*"):
        texts[str(path)] = str(path)
        if path.is_file():
            texts[str(path)] += path.read_bytes().decode(errors="replace")
    for place, text in texts.items():
        for form in FORMS:
            at = text.find(form)
            assert at < 0, f"{place}: ...{text[max(0, at - 150) : at + 60]}"


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Team-Token: {HEADER}")
    for name, value in {"FIRST_WAIT": 0.001, "ATTEMPTS": 2, "PATIENCE": 0.0}.items():
        monkeypatch.setattr(calls, name, value)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a worker's socket, cut off
@pytest.mark.parametrize(("fault", "way"), list(zip(FAULTS, 20 * ["key", "login"], strict=False)))
def test_every_fault_of_a_server(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, way: str
) -> None:
    run_with_fault(cli, tmp_path, monkeypatch, fault, way, share=0.7)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("way", ["key", "login"])
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_in_every_way(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, way: str, share: float
) -> None:
    run_with_fault(cli, tmp_path, monkeypatch, fault, way, share)


def run_with_fault(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, way: str, share: float
) -> None:
    monkeypatch.setattr("selfinstruct.session.GRACE", {"openai": 0.1})
    output = tmp_path / "x.json"
    with EchoingStub(faults={fault: share}, retry_after=0.01, slow_seconds=0.05) as stub:
        url = stub.url if way == "key" else with_login(stub.url)
        ended = cli(
            "generate", "--backend", "openai", "--model", "m", "--base-url", url, "-n", 8, "-o", output,
            "--log-format", "json" if way == "key" else "text", "--metrics-file", tmp_path / "run.prom",
            "--max-requests", 3 if fault == "huge" else 12, "--timeout", 0.3, "--concurrency", 3, "--stall", 8,
        )  # fmt: skip
        assert {asked.headers.get("x-team-token") for asked in stub.requests} == {HEADER}
        sent = b64encode(f"{USER}:{PASSWORD}".encode()).decode() if way == "login" else KEY
        assert sent in stub.requests[0].headers["authorization"]
    assert ended.status in {0, 3, 4}, ended.err
    status = cli("status", output, "--json")
    assert_nothing_planted(tmp_path, ended.out, ended.err, status.out, status.err, cli("status", output).out)


@pytest.mark.parametrize(
    "address",
    [
        "http://{login}@127.0.0.1:9/v1",  # nobody listens
        "https://{login}@127.0.0.1:9/v1",
        "ftp://{login}@127.0.0.1/v1",
        "http://{login}@[::1/v1",
        "http://{login}@127.0.0.1:99999/v1",
        "http://{login}@127.0.0.1:9/v1?api-key={query}",
        "{login}@127.0.0.1",
        "http://{login}@",
        "http://{login}@127.0.0.1:9/v1\n",
    ],
)
def test_addresses_that_do_not_work(cli: Cli, tmp_path: Path, address: str) -> None:
    url = address.format(login=f"{USER}:{quote(PASSWORD, safe='')}", query=QUERY)
    words = ("generate", "--backend", "openai", "--model", "m", "-n", 8, "-o", tmp_path / "x.json")
    ended = cli(*words, "--base-url", url)
    assert ended.status in {2, 4}
    as_json = cli(*words, "--base-url", url, "--log-format", "json")
    assert as_json.status == ended.status
    plan = cli(*words, "--base-url", url, "--dry-run")
    assert_nothing_planted(tmp_path, *(text for end in (ended, as_json, plan) for text in (end.out, end.err)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_API_KEY", f"{KEY} and more"),
        ("OPENAI_API_KEY", f"{KEY}\n{KEY}"),
        ("OPENAI_API_KEY", f"{KEY}\u00e9"),
        ("OPENAI_CUSTOM_HEADERS", f"{HEADER}"),
        ("OPENAI_CUSTOM_HEADERS", f"X-A: {HEADER}\u00e9"),
        ("HTTPS_PROXY", f"http://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:9"),
        ("HTTPS_PROXY", f"socks9://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:9"),
        ("ALL_PROXY", f"{USER}:{PASSWORD}"),
        ("OPENAI_BASE_URL", f"http://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:9/v1"),
    ],
)
def test_environments_that_do_not_work(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    words = ["generate", "--backend", "openai", "--model", "m", "-n", 8, "-o", tmp_path / "x.json"]
    if name != "OPENAI_BASE_URL":
        words += ["--base-url", "https://127.0.0.1:9/v1"]
    ended = cli(*words)
    assert ended.status in {2, 4}, ended.err
    assert_nothing_planted(tmp_path, ended.out, ended.err)


def test_settings_that_hold_a_key_by_mistake(cli: Cli, tmp_path: Path) -> None:
    configs = [
        f'api_key = "{KEY}"\n',
        f'api_key = "{KEY}\n',
        f'[prices]\ninput = 1\noutput = 1\nkey = "{KEY}"\n',
    ]
    folder = tmp_path / "written"
    folder.mkdir()
    for number, text in enumerate(configs):
        config = tmp_path / f"{number}.toml"
        config.write_text(text)
        for style in ((), ("--log-format", "json")):
            ended = cli("generate", "-o", folder / "x.json", "--config", config, *style)
            assert ended.status == 2
            assert_nothing_planted(folder, ended.out, ended.err)


@pytest.mark.parametrize(
    ("place", "style"),
    [
        ("backend_openai.read_reply", "text"),
        ("backend_openai.read_reply", "json"),
        ("rundir.RunDirectory.commit", "text"),
    ],
)
def test_a_bug_shows_where_it_is_and_nothing_planted(tmp_path: Path, place: str, style: str) -> None:
    module, _, name = place.partition(".")
    code = (
        f"import selfinstruct.{module} as module\nfrom selfinstruct.cli import main\n"
        f"def broken(*args, **kwargs): raise KeyError('a bug for the test')\nmodule.{name} = broken\nmain()"
    )
    with EchoingStub() as stub:
        words = ["generate", "--backend", "openai", "--model", "m", "--base-url", with_login(stub.url)]
        words += ["-n", "8", "-o", str(tmp_path / "x.json"), "--log-format", style]
        ended = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-X", "dev", "-W", "ignore", "-c", code, *words],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        )
    assert ended.returncode == 1, ended.stderr
    assert "a bug for the test" in ended.stderr
    assert "Traceback" in ended.stderr
    if style == "json":
        assert [json.loads(line)["event"] for line in ended.stderr.splitlines()][-1] == "failed"
    assert_nothing_planted(tmp_path, ended.stdout, ended.stderr)
