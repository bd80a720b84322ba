"""What the commands do beyond one call: the run with its progress and summary, the dry run, the views.

Talk goes to stderr, data to stdout.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from selfinstruct import display, report
from selfinstruct.dataset import read_dataset, run_directory_of
from selfinstruct.errors import InputError, SelfInstructError, StoppedEarly
from selfinstruct.metrics import MetricsFile
from selfinstruct.pool import Pool
from selfinstruct.prices import estimate, find_price
from selfinstruct.records import Candidate, Reply, Request, row_id
from selfinstruct.session import Session, expected_indices, load_seeds, make_pool, open_backend, open_session
from selfinstruct.settings import Settings, make_settings
from selfinstruct.talk import Talk, facts, warnings_told


def generate(flags: dict[str, Any], config: Path | None, *, dry_run: bool) -> None:
    """`selfinstruct generate`: settings from flags and a file, then the run or its plan.

    Raises:
        SelfInstructError: with the exit status. With `--log-format json` it is told here, as the last event.
        SystemExit: then.
    """
    talk = Talk(as_json=flags.get("log_format") == "json")
    try:
        settings = make_settings(flags, config)
        if dry_run:
            show_plan(settings)
        else:
            talk = Talk(as_json=settings.log_format == "json", heartbeat=settings.heartbeat)
            with warnings_told(talk):
                _run(settings, talk)
    except SelfInstructError as error:
        if not talk.as_json:
            raise
        if not talk.ended:
            talk.end_event(error, " ".join(str(error).split()))
        sys.exit(error.status)
    except Exception as error:
        if not talk.as_json:
            raise
        talk.say(f"a bug: {error!r}", "failed", status=1, traceback=traceback.format_exc())
        sys.exit(1)


def _run(settings: Settings, talk: Talk) -> None:
    """Work to the target, tell how it goes, end with a summary."""
    signals = _Signals(talk)
    with _handling(signals), open_session(settings) as session:
        metrics = MetricsFile(settings.metrics_file, session, talk.say)
        if session.run.size >= settings.num:
            done = f"{settings.output}: holds {session.run.size} tasks, the target is {settings.num}: nothing to do"
            talk.end_event(None, done, **facts(session))
            metrics.end(0)
            return
        if session.run.size:
            talk.say(f"{settings.output}: going on after {session.run.size} tasks")
        status = 1  # whatever is not told below is a bug
        try:
            signals.opening = True
            with open_backend(settings, talk.say) as backend:
                signals.session = session
                talk.begin(session)
                for commit in session.events(backend, talk.say):
                    metrics.progress(decided=commit is not None)
                    talk.progress(session)
                talk.progress(session)
            status = 0
        except SelfInstructError as error:
            status = error.status
            talk.end()
            if (
                session.run.totals.requests or talk.as_json
            ):  # where nothing was answered, the error says it all
                _summarise(talk, session, error)
            raise
        finally:
            talk.end()
            metrics.end(status)
        _summarise(talk, session, None)


def _summarise(talk: Talk, session: Session, error: SelfInstructError | None) -> None:
    settings, totals = session.settings, session.run.totals
    seconds = monotonic() - session.began
    rejected = sum(session.rejected.values())
    why = (
        f" ({display.counts(dict(sorted(session.rejected.items(), key=lambda item: -item[1])))})"
        if rejected
        else ""
    )
    lines = [
        (
            f"accepted   {session.accepted} tasks in {display.duration(seconds)}; "
            f"the dataset holds {session.run.size} of {settings.num}"
        ),
        f"rejected   {rejected} candidates{why}",
        f"tokens     {totals.usage.prompt} read, {totals.usage.completion} written in {totals.requests} replies"
        + (f"; cost ${totals.cost:.4f}" if totals.cost else ""),
        f"dataset    {settings.output}",
        f"run        {session.run.path}",
    ]
    if totals.failures:
        lines.insert(
            2, f"failed     {sum(totals.failures.values())} calls ({display.counts(totals.failures)})"
        )
    if error is None:
        lines.append(
            f"next       selfinstruct show {settings.output}; selfinstruct show {settings.output} --rejected; "
            f"selfinstruct generate -n {2 * settings.num} ... to go on"
        )
    if talk.as_json:
        held = f"{settings.output}: holds {session.run.size} tasks"
        talk.end_event(error, " ".join(str(error or held).split()), **facts(session))
        return
    for line in lines:
        talk.say(line)


class _Signals:
    """What a signal does: while the run is being opened it ends the command with status 3.

    Later the first one drains the run, and a second one ends the process at once with 128 + its number.
    """

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.opening = False  # whether a backend is coming up: it may have children to end
        self.session: Session | None = None  # from the moment on that requests are sent
        self.seen = 0

    def __call__(self, number: int, _: FrameType | None) -> None:
        self.seen += 1
        why = f"stopped by {signal.Signals(number).name}; run the same command again to go on"
        if self.session is None and not self.opening:
            # No exception: raised inside an import or a callback it might be swallowed. A kill is safe here.
            self.talk.last_words(why)
            os._exit(StoppedEarly.status)
        if self.seen > 1:
            os._exit(128 + number)  # every reply and decision is on the disk already
        if self.session is None:
            raise StoppedEarly(why)
        # Not here: the main thread may hold the very lock that stopping needs.
        threading.Thread(target=self.session.stop, args=(why,), daemon=True).start()


@contextmanager
def _handling(handler: _Signals) -> Iterator[None]:
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # What the caller chose to ignore stays ignored: that is how nohup works.
    before = {
        number: signal.signal(number, handler)
        for number in numbers
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class _Asked(Exception):
    def __init__(self, request: Request) -> None:
        super().__init__()
        self.request = request


def show_plan(settings: Settings) -> None:
    """`--dry-run`: the settings, the first prompt, and what the target may take. Writes nothing."""
    from selfinstruct.recipes import make_recipe

    seeds, sampler = load_seeds(settings)
    pool: Pool = make_pool(settings, seeds)
    view = pool.view(-1)
    plan = sampler.plan(0, view)

    def complete(request: Request) -> Reply:
        raise _Asked(request)

    try:
        make_recipe(settings)(plan, view, complete)
    except _Asked as asked:
        request = asked.request
    shown = settings.model_dump(mode="json", exclude_none=True, exclude={"base_url"})
    if settings.base_url:
        shown["base_url"] = _without_secrets(settings.base_url)
    out = [
        f"{name.replace('_', '-')} = {json.dumps(value)}"
        for name, value in shown.items()
        if value not in ([], {})
    ]
    out += ["", f"--- the first prompt ({settings.endpoint}) ---"]
    out += [f"[{role}]\n{content}" for role, content in request.messages] or [request.prompt or ""]
    out += ["--- estimate ---"]
    out += estimate(settings, expected_indices(settings), request, find_price(settings))
    print(display.printable("\n".join(out)))  # noqa: T201 - data


def _without_secrets(address: str) -> str:
    """An address without user, password and query."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "(not an address)"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def show_tasks(output: Path, row: str | None, limit: int) -> None:
    """Print tasks of a dataset: one by number or id, else the last ones."""
    rows = read_dataset(output)
    chosen = list(enumerate(rows))[-limit:] if row is None else [_find(output, rows, row)]
    directory = output if output.is_dir() else run_directory_of(output)
    entries: dict[str, report.Entry] = {}
    if (directory / "run.json").is_file():
        wanted = {row_id(found) for _, found in chosen}
        for entry in report.read_decisions(directory):
            identity = row_id(entry.decision.candidate.row) if entry.decision.accepted else ""
            if identity in wanted:
                entries[identity] = entry
    screen = display.console()
    for number, found in chosen:
        origin = entries.get(row_id(found))
        candidate = (
            origin.decision.candidate
            if origin
            else Candidate(found["instruction"], found["input"], found["output"])
        )
        notes = display.rejection_notes(origin) if origin else "taken over"
        screen.print(display.task_panel(candidate, f"row {number} · {row_id(found)}", notes))


def _find(output: Path, rows: list[dict[str, str]], wanted: str) -> tuple[int, dict[str, str]]:
    for number, row in enumerate(rows):
        if wanted in {str(number), row_id(row)}:
            return number, row
    raise InputError(f"{output}: no row {wanted!r}; it has the rows 0 to {len(rows) - 1}")


def show_rejected(output: Path, reason: str | None, number: str | None, limit: int) -> None:
    """Print rejected candidates, the latest last."""
    entries = [
        entry
        for entry in report.read_decisions(output)
        if entry.decision.rejection is not None and reason in {None, entry.decision.rejection.reason}
    ]
    if not entries:
        found = display.counts(report.read_report(output).reasons) or "none"
        raise InputError(
            f"{output}: nothing was rejected{f' for {reason!r}' if reason else ''}; reasons: {found}"
        )
    numbered = list(enumerate(entries))
    if number is not None:
        numbered = [pair for pair in numbered if str(pair[0]) == number]
        if not numbered:
            raise InputError(f"{output}: no rejection {number!r}; there are 0 to {len(entries) - 1}")
    screen = display.console()
    for place, entry in islice(numbered, max(0, len(numbered) - limit), None):
        notes = display.rejection_notes(entry)
        screen.print(display.task_panel(entry.decision.candidate, f"rejection {place}", notes))


def list_models() -> list[dict[str, Any]]:
    """The catalogue with the place of each model on this machine (None if it is not there)."""
    from selfinstruct import weights

    rows = []
    for model in weights.catalogue().values():
        path = weights.cached(model.alias)
        rows.append(
            {
                "alias": model.alias,
                "size": model.size,
                "licence": model.licence,
                "note": model.note,
                "path": str(path) if path else None,
            }
        )
    return rows


def model_path(alias: str) -> Path:
    """Where the weights are.

    Raises:
        InputError: they are not there, or there is no such alias.
    """
    from selfinstruct import weights

    path = weights.cached(alias)
    if path is None:
        raise InputError(f"{alias}: not on this machine; fetch it with `selfinstruct models pull {alias}`")
    return path
