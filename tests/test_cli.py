"""The command line as a user meets it: help, one clear line for what is wrong, views, exit statuses."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended, invented_rows, numbered
from stub_server import Answer, StubServer

import selfinstruct

Cli = Callable[..., Ended]
REPOSITORY = Path(selfinstruct.__file__).parents[1]
KEY = "sk-planted-key-0123456789abcdef"


def one_line(ended: Ended, status: int, *parts: str) -> None:
    assert ended.status == status, ended.err
    last = ended.err.strip().splitlines()[-1]
    assert last.startswith("selfinstruct: ")
    assert "Traceback" not in ended.err
    for part in parts:
        assert part in last, last


def test_version_and_help(cli: Cli) -> None:
    assert cli("--version").out == f"selfinstruct {selfinstruct.__version__}\n"
    for words in ((), ("generate",), ("status",), ("show",), ("models",), ("models", "pull")):
        ended = cli(*words, "--help")
        assert ended.status == 0
        assert "Usage:" in ended.out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['selfinstruct', 'generate', '--help']\n"
        "from selfinstruct.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'openai', 'numpy', 'rich', 'tqdm', 'xllamacpp', 'rapidfuzz', 'rouge_score'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert out.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize(
    "words",
    [
        ("dedup",),
        ("decontaminate", "--against", "benchmark.jsonl"),
        ("verify", "--level", "syntax"),
        ("curate", "--exact"),
        ("export",),
        ("mix",),
        ("converse", "--likeness", "words"),
        ("judge", "--dry-run"),
    ],
    ids=lambda words: words[0],
)
def test_what_is_read_is_never_written_over(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.json").write_text(json.dumps(invented_rows(3)))
    Path("benchmark.jsonl").write_text('{"prompt": "add two numbers", "canonical_solution": "a + b"}\n')
    Path("mix.toml").write_text('[[source]]\nname = "a"\npath = "rows.json"\n')
    Path("link.json").symlink_to("rows.json")
    before = Path("rows.json").read_bytes()
    command, *flags = words
    read = "mix.toml" if command == "mix" else "rows.json"
    for output in ("rows.json", "./rows.json", "link.json"):
        one_line(cli(command, read, "-o", output, *flags), 2, "what is read")
    assert Path("rows.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "benchmark.jsonl",
        "link.json",
        "mix.toml",
        "rows.json",
    ]


def test_the_command_reference_is_up_to_date() -> None:
    made = runpy.run_path(str(REPOSITORY / "docs" / "make_commands.py"))
    if sys.version_info >= (3, 11):  # the wrapping of older argument parsers differs
        assert (REPOSITORY / "docs" / "commands.md").read_text(encoding="utf-8") == made["reference"]()


def test_readme_begins_with_exactly_two_commands() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^```[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert block is not None
    commands = block[1].strip().splitlines()
    assert len(commands) == 2
    assert commands[0].endswith("selfinstruct generate -n 10")
    assert "pytest" in commands[1]


@pytest.mark.parametrize("flags", [["-n", "0"], ["--temperature", "9"], ["--lookahead", "0"]])
def test_settings_out_of_range(cli: Cli, tmp_path: Path, flags: list[str]) -> None:
    one_line(cli("generate", "-o", tmp_path / "x.json", *flags), 2, "settings", flags[1])
    assert list(tmp_path.iterdir()) == []


def test_usage_errors(cli: Cli) -> None:
    assert cli("generate", "--no-such-flag").status == 2
    assert cli("generate", "--backend", "cloud").status == 2
    one_line(cli("generate", "--backend", "openai"), 2, "--model")


def test_seed_files_that_are_wrong(cli: Cli, tmp_path: Path, replies: Path) -> None:
    good = json.dumps({"instruction": "Do a thing with {}.", "input": "", "output": "done"})
    lines = [good.replace("{}", str(number)) for number in range(20)]
    lines[16] = '{"instruction": "half'
    cases = {
        "broken.jsonl": ("\n".join(lines).encode(), ":17"),
        "empty.jsonl": (b"", "no seed tasks"),
        "latin.jsonl": (lines[0].replace("thing", "caf\xe9").encode("latin-1"), "UTF-8"),
        "twice.jsonl": (
            b"\n".join(json.dumps({"id": "a", **json.loads(line)}).encode() for line in lines[:2]),
            '"a"',
        ),
    }
    for name, (data, part) in cases.items():
        file = tmp_path / name
        file.write_bytes(data)
        ended = cli(
            "generate", "--seeds", file, "--backend", "replay", "--model", replies, "-o", tmp_path / "x.json"
        )
        one_line(ended, 2, name, part)
    ended = cli("generate", "--seeds", tmp_path / "nowhere", "-o", tmp_path / "x.json")
    one_line(ended, 2, "nowhere")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("hello", "not a JSON array"),
        ('{"instruction": "x"}', "object"),
        ('[{"instruction": "a", "input": "", "output": "b"}, {"instr', "cut"),
        ('[{"instruction": "a"}]', "row 0"),
        ("", "not a JSON array"),
    ],
)
def test_a_dataset_that_is_none_is_left_alone(
    cli: Cli, tmp_path: Path, replies: Path, text: str, part: str
) -> None:
    output = tmp_path / "x.json"
    output.write_text(text)
    one_line(cli("generate", "--backend", "replay", "--model", replies, "-o", output), 2, "x.json", part)
    assert output.read_text() == text


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that not even root can write to")
def test_output_folder_that_cannot_be_written(cli: Cli, replies: Path) -> None:
    ended = cli("generate", "--backend", "replay", "--model", replies, "-o", "/proc/selfinstruct/x.json")
    one_line(ended, 2, "/proc/selfinstruct", "cannot write")


def test_backends_that_refuse(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    output = tmp_path / "x.json"
    words = ("generate", "--backend", "openai", "--model", "stub", "-o", output, "-n", 5)
    with StubServer(key="another") as stub:
        ended = cli(*words, "--base-url", stub.url)
        one_line(ended, 4, "key")
        assert KEY not in ended.err
        assert len(stub.requests) <= 16
    with StubServer(models=("other",)) as stub:
        one_line(cli(*words, "--base-url", stub.url), 4, "stub")
    page = Answer(200, b"<html>Welcome</html>", (("Content-Type", "text/html"),))
    with StubServer(answer=lambda _, __: page) as stub:
        one_line(cli(*words, "--base-url", stub.url), 4)
        dead = stub.url
    one_line(cli(*words, "--base-url", dead), 4, "127.0.0.1")
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert KEY.encode() not in written


def test_no_key_is_one_line(cli: Cli, tmp_path: Path) -> None:
    ended = cli("generate", "--backend", "openai", "--model", "m", "-o", tmp_path / "x.json")
    one_line(ended, 2, "OPENAI_API_KEY")


@pytest.mark.parametrize("fault", ["huge", "context_length", "content_policy"])
def test_a_request_that_is_refused_is_a_rejection_and_the_run_goes_on(
    cli: Cli, tmp_path: Path, fault: str
) -> None:
    output = tmp_path / "x.json"
    with StubServer(faults={fault: 0.3}) as stub:
        ended = cli(
            "generate", "--backend", "openai", "--model", "m", "--base-url", stub.url,
            "-o", output, "-n", 40, "--concurrency", 2,
        )  # fmt: skip
    assert ended.status == 0, ended.err
    report = json.loads(cli("status", output, "--json").out)
    assert report["rows"] == 40
    assert set(report["reasons"]) & {"reply_too_large", "context_length", "content_filter", "request_refused"}


def test_replies_of_nothing(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "nothing.jsonl"
    file.write_text(
        '{"text": ""}\n{"text": "\\u0000"}\n' + json.dumps({"text": numbered(invented_rows(2))}) + "\n"
    )
    output = tmp_path / "x.json"
    assert cli("generate", "--backend", "replay", "--model", file, "-o", output, "-n", 2).status == 0
    assert json.loads(cli("status", output, "--json").out)["reasons"]["empty_reply"] >= 1


def test_weights_that_are_not_there(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path / "cache"))
    one_line(cli("generate", "--model", tmp_path / "no.gguf", "-o", tmp_path / "x.json"), 2, "no.gguf")
    one_line(cli("models", "path", "smollm2-135m"), 2, "models pull")
    one_line(cli("models", "path", "gpt-9"), 2, "qwen2.5-coder-1.5b")
    listed = json.loads(cli("models", "list", "--json").out)
    assert [model["path"] for model in listed] == [None, None, None]


def test_dry_run_shows_the_prompt_and_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    output = tmp_path / "x.json"
    one_call = ["--recipe", "code-alpaca"]
    for flags in ([], one_call, ["--profile", "alpaca"], [*one_call, "--answer", "json"]):
        ended = cli("generate", "-o", output, "--dry-run", *flags)
        assert ended.status == 0
        assert "the first prompt" in ended.out
        assert "estimate" in ended.out
    assert list(tmp_path.iterdir()) == []


def test_show_reads_tasks_and_rejections(cli: Cli, tmp_path: Path) -> None:
    rows = invented_rows(3)
    rows[1]["output"] = "print('\x1b[31mred\x1b[0m \u202e')"
    file = tmp_path / "r.jsonl"
    text = numbered([*rows, rows[0]])
    file.write_text(
        json.dumps({"text": text}) + "\n" + json.dumps({"text": numbered(invented_rows(2, 5))}) + "\n"
    )
    output = tmp_path / "x.json"
    assert cli("generate", "--backend", "replay", "--model", file, "-o", output, "-n", 4).status == 0
    shown = cli("show", output, 0).out
    assert " ".join(rows[0]["instruction"].split()[:5]) in shown
    rejected = cli("show", output, "--rejected").out
    assert "too_similar" in rejected
    assert "\x1b" not in rejected
    assert "\u202e" not in rejected
    assert "too_similar" not in cli("show", output, "--reason", "control_characters").out
    one_line(cli("show", output, 99), 2, "99")
    one_line(cli("show", output, "--reason", "boredom"), 2, "too_similar")
    one_line(cli("status", tmp_path / "none.json"), 2, "none.json")


def test_regen_writes_the_historic_fields(cli: Cli, tmp_path: Path, replies: Path) -> None:
    output = tmp_path / "x.json"
    words = ("generate", "--backend", "replay", "--model", replies, "-o", output, "-n", 12)
    assert cli(*words, "--profile", "alpaca").status == 0
    regen = json.loads(cli("regen", output).out)
    assert [list(row) for row in regen] == [
        ["instruction", "input", "output", "most_similar_instructions", "avg_similarity_score"]
    ] * 12
    assert all(0 < len(row["most_similar_instructions"]) <= 10 for row in regen)
    other = tmp_path / "y.json"
    assert cli(*words[:-4], "-o", other, "-n", 2).status == 0
    one_line(cli("regen", other), 2, "--profile alpaca")


def test_json_log_is_one_event_a_line(cli: Cli, tmp_path: Path, replies: Path) -> None:
    output = tmp_path / "x.json"
    ended = cli(
        "generate", "--backend", "replay", "--model", replies, "-o", output, "-n", 9, "--log-format", "json"
    )
    events = [json.loads(line) for line in ended.err.splitlines()]
    assert events[-1]["event"] == "complete"
    assert events[-1]["rows"] == 9


def test_limits_end_the_run_with_status_3(cli: Cli, tmp_path: Path) -> None:
    with StubServer() as stub:
        words = ("generate", "--backend", "openai", "--model", "m", "--base-url", stub.url, "-n", 500)
        ended = cli(*words, "-o", tmp_path / "a.json", "--max-requests", 3)
        one_line(ended, 3, "--max-requests 3")
        assert len(stub.requests) == 3
        one_line(cli(*words, "-o", tmp_path / "b.json", "--max-tokens", 20000), 3, "--max-tokens")
        report = json.loads(cli("status", tmp_path / "b.json", "--json").out)
        assert 0 < report["prompt_tokens"] + report["completion_tokens"] <= 20000
        config = tmp_path / "prices.toml"
        config.write_text("[prices]\ninput = 100\noutput = 300\n")
        ended = cli(*words, "-o", tmp_path / "c.json", "--max-cost", "2.5", "--config", config)
        one_line(ended, 3, "--max-cost 2.5")
        first = json.loads(cli("status", tmp_path / "c.json", "--json").out)["cost"]
        assert 0 < first <= 2.5
        ended = cli(*words, "-o", tmp_path / "c.json", "--max-cost", "2.5", "--config", config)
        one_line(ended, 3, "--max-cost 2.5")
        # A worker with a shorter prompt may be first in the line this time, and its request still fit.
        assert first <= json.loads(cli("status", tmp_path / "c.json", "--json").out)["cost"] <= 2.5
        one_line(cli(*words, "-o", tmp_path / "d.json", "--max-cost", "1"), 2, "price")
        one_line(cli(*words, "-o", tmp_path / "e.json", "--max-minutes", "0.0001"), 3, "--max-minutes")
