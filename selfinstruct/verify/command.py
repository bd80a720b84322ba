"""What `selfinstruct verify` does: opens the verdicts beside the data, the sandbox and, for tests, a model.

Talk goes to stderr, the summary to stdout.
"""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from tqdm import tqdm

from selfinstruct import display
from selfinstruct.backends import open_backend
from selfinstruct.calls import Calls
from selfinstruct.data.outputs import check_outputs, held, owned
from selfinstruct.dataset import dataset_of, run_directory_of, stream_rows
from selfinstruct.errors import InputError, StoppedEarly
from selfinstruct.prices import find_price
from selfinstruct.records import Reply, Request
from selfinstruct.reply_log import ReplyLog
from selfinstruct.seams import Complete
from selfinstruct.session import limits_of
from selfinstruct.settings import make_run_settings
from selfinstruct.talk import Talk, warnings_told
from selfinstruct.verify.loop import Verification, find_sandbox, runs_code
from selfinstruct.verify.rows import Summary, VerifySettings, candidate_of, verdicts_of, verify_rows
from selfinstruct.verify.sandbox import SandboxName, open_sandbox
from selfinstruct.verify.toolchains import toolchains
from selfinstruct.verify.verdict_log import VERDICTS, VerdictLog, verdict_folder
from selfinstruct.verify.verifier import Verifier, language_to_run

PREFIX = "verify-"  # of the logs of requests: a run of `generate` may have its own in the same folder
STATUSES = ("passed", "failed", "unavailable", "skipped")


def verify(flags: dict[str, Any], *, as_json: bool) -> None:
    """`selfinstruct verify IN`: verdicts beside the data, a summary, and the rows that did not fail.

    Raises:
        SelfInstructError: with the exit status.
    """
    dataset, output, jobs = flags.pop("dataset"), flags.pop("output"), flags.pop("jobs")
    if dataset is None:
        raise InputError("verify: name the dataset to verify, or list toolchains with --toolchains")
    if output is not None and output.suffix != ".json":
        raise InputError("verify: the dataset to write with -o must end in .json")
    if output is not None:
        check_outputs(output, [], [dataset], "verify")
    folder = run_directory_of(output) if output else verdict_folder(dataset)
    flags["verify"] = flags.pop("level")
    settings = make_run_settings(VerifySettings, {**flags, "output": dataset_of(folder)})
    talk = Talk(as_json=False)
    try:
        with warnings_told(talk), _interrupted_by_term(), ExitStack() as opened:
            summary = _verify(settings, dataset, output, folder, jobs, talk, opened)
    except KeyboardInterrupt:
        raise StoppedEarly("stopped by a signal; run the same command again to go on") from None
    if as_json:
        told = summary.as_json() | {
            "verdicts": str(folder / VERDICTS),
            "output": str(output) if output else None,
        }
        print(json.dumps(told, indent=2))  # noqa: T201 - data
        return
    print(_table(summary))  # noqa: T201 - data
    talk.say(f"verdicts   {folder / VERDICTS}")
    if output is not None:
        talk.say(f"kept       {summary.kept} of {summary.rows} rows in {output}")


def _verify(
    settings: VerifySettings,
    dataset: Path,
    output: Path | None,
    folder: Path,
    jobs: int | None,
    talk: Talk,
    opened: ExitStack,
) -> Summary:
    rows = stream_rows(dataset)
    languages = (language_to_run(candidate_of(row)) for row in stream_rows(dataset))
    sandbox = find_sandbox(settings, languages) if runs_code(settings) else None
    opened.enter_context(owned(output, "verify") if output else held(folder))
    # What was not to be told then may be by now: a toolchain has been installed.
    verdicts = VerdictLog(folder / VERDICTS, again={"unavailable"}, anywhere=True)
    opened.callback(verdicts.close)
    verifier = Verifier(sandbox, jobs)
    threads = verifier.jobs
    calls: Calls | None = None
    if settings.verify == "tests" and sandbox is not None:
        calls = _open_calls(settings, folder, talk, opened)
        threads += settings.concurrency or 1

    def complete_of(k: int) -> Complete:
        step = iter(range(sys.maxsize))

        def complete(request: Request) -> Reply:
            assert calls is not None  # noqa: S101 - only tests ask
            return calls.complete(f"{k}.{next(step)}", request)

        return complete

    bar = opened.enter_context(tqdm(unit=" rows", disable=not sys.stderr.isatty()))

    def progress(seen: int, failed: int) -> None:
        bar.update(seen - bar.n)
        bar.set_postfix_str(f"{failed} failed", refresh=False)

    found = verdicts_of(rows, Verification(settings, verifier, verdicts), complete_of, threads)
    try:
        return verify_rows(found, output, required=settings.require_verification, progress=progress)
    finally:
        if calls is not None:
            calls.stop("closed")
            calls.give_up()


def _open_calls(settings: VerifySettings, folder: Path, talk: Talk, opened: ExitStack) -> Calls:
    """The way to the model, with a log of what it is asked."""
    price, began = find_price(settings), monotonic()
    replies = ReplyLog(folder, PREFIX)
    opened.callback(replies.close_replies)
    replies.read_replies()
    backend = opened.enter_context(open_backend(settings, talk.say))
    return Calls(backend, replies, limits_of(settings, began), price)


@contextmanager
def _interrupted_by_term() -> Iterator[None]:
    """TERM ends the command as INT does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _table(summary: Summary) -> str:
    """Rows by language and status, and the reasons."""
    told = summary.as_json()
    languages: dict[str, dict[str, int]] = told["languages"]
    lines = [["language", "rows", *STATUSES]]
    for name, counts in [*languages.items(), ("all", _sum(languages.values()))]:
        lines.append([name, str(sum(counts.values())), *(str(counts.get(status, 0)) for status in STATUSES)])
    first, *others = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            [name.ljust(first), *(word.rjust(width) for word, width in zip(words, others, strict=True))]
        )
        for name, *words in lines
    ]
    if summary.reasons:
        text += ["", f"reasons: {display.counts(told['reasons'])}"]
    return display.printable("\n".join(text))


def _sum(tables: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for table in tables:
        total.update(table)
    return total


def list_toolchains(sandbox: SandboxName | None, *, as_json: bool) -> None:
    """`selfinstruct verify --toolchains`: what programs can be run with, one a line.

    Raises:
        InputError: there is no sandbox to try them in.
    """
    opened = open_sandbox(sandbox or "auto")
    found = toolchains(opened)
    if as_json:
        rows = [{"language": one.language, "version": one.version, "path": one.path} for one in found]
        print(json.dumps({"sandbox": opened.name, "toolchains": rows}, indent=2))  # noqa: T201 - data
        return
    lines = [f"{one.language:<12}{one.version}  ({one.path})" for one in found]
    print(display.printable("\n".join(lines)))  # noqa: T201 - data
    Talk(as_json=False).say(f"tried in the sandbox {opened.name}")
