"""What the commands do beyond one call: the run with its progress and summary, the dry run, the views.

Talk goes to stderr, data to stdout.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from selfinstruct import display, report
from selfinstruct.backends import open_backend
from selfinstruct.dataset import read_dataset, run_directory_of
from selfinstruct.errors import InputError, SelfInstructError, StoppedEarly
from selfinstruct.metrics import MetricsFile
from selfinstruct.prices import estimate, find_price
from selfinstruct.records import Candidate, Choice, Reply, Request, row_id
from selfinstruct.session import Session, Work, open_session, open_work
from selfinstruct.settings import RunSettings, Settings, make_run_settings
from selfinstruct.talk import Talk, facts, warnings_told
from selfinstruct.verify.loop import verify_prompts


def generate(flags: dict[str, Any], config: Path | None, *, dry_run: bool) -> None:
    """`selfinstruct generate`; see `run`."""
    run(Settings, flags, config, dry_run=dry_run)


def derive(name: str, flags: dict[str, Any], config: Path | None, *, dry_run: bool) -> None:
    """A job over given data (`revise`, `respond`, ...); see `run`."""
    from selfinstruct.derive.worklist import find_job

    run(find_job(name).settings, flags, config, dry_run=dry_run)


def run(kind: type[RunSettings], flags: dict[str, Any], config: Path | None, *, dry_run: bool) -> None:
    """A command that asks a model: settings from flags and a file, then the run or its plan.

    Raises:
        SelfInstructError: with the exit status. With `--log-format json` it is told here, as the last event.
        SystemExit: then.
    """
    talk = Talk(as_json=flags.get("log_format") == "json")
    try:
        settings = make_run_settings(kind, flags, config)
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
        if not talk.as_json or isinstance(error, BrokenPipeError):  # nobody reads what is told
            raise
        talk.say(f"a bug: {error!r}", "failed", status=1, traceback=traceback.format_exc())
        sys.exit(1)


def _run(settings: RunSettings, talk: Talk) -> None:
    """Work to the target, tell how it goes, end with a summary."""
    signals = _Signals(talk)
    with _handling(signals), open_session(settings) as session:
        metrics = MetricsFile(settings.metrics_file, session, talk.say)
        if session.complete:
            goal = (
                f"the target is {settings.num}"
                if settings.num is not None and session.run.size >= settings.num
                else "all of the input is worked through"
            )
            done = f"{settings.output}: holds {session.run.size} tasks, {goal}: nothing to do"
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
    indices = session.work.indices
    inputs = "" if indices is None else f", from {session.work.pool.decided} of {indices} inputs"
    lines = [
        (
            f"accepted   {session.accepted} tasks in {display.duration(seconds)}; "
            f"the dataset holds {display.goal(session.run.size, settings.num)}{inputs}"
        ),
        f"rejected   {rejected} candidates{why}",
        f"tokens     {totals.usage.prompt} read, {totals.usage.completion} written in {totals.requests} replies"
        + (f"; cost ${totals.cost:.4f}" if totals.cost else ""),
        f"dataset    {settings.output}",
        f"run        {session.run.path}",
    ]
    if session.verified:
        lines.insert(1, f"verified   {display.counts(session.verified)}")
    if totals.failures:
        lines.insert(
            len(lines) - 3,
            f"failed     {sum(totals.failures.values())} calls ({display.counts(totals.failures)})",
        )
    if error is None:
        following = (
            f"next       selfinstruct show {settings.output}; selfinstruct show {settings.output} --rejected"
        )
        if settings.num is not None and indices is None:
            following += f"; selfinstruct generate -n {2 * settings.num} ... to go on"
        lines.append(following)
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


class _NoMore(Exception):
    pass


def show_plan(settings: RunSettings) -> None:
    """`--dry-run`: the settings, the first prompt of every step, and what the run may take. Writes nothing."""
    work = open_work(settings)
    requests = _first_requests(work)
    shown = settings.model_dump(mode="json", exclude_none=True, exclude={"base_url"})
    if settings.base_url:
        shown["base_url"] = _without_secrets(settings.base_url)
    out = [
        f"{name.replace('_', '-')} = {json.dumps(value)}"
        for name, value in shown.items()
        if value not in ([], {})
    ]
    for step, request in enumerate(requests):
        name = f"prompt of step {step}, after a made-up reply" if step else "the first prompt"
        out += ["", f"--- {name} ({settings.endpoint}) ---"]
        out += [f"[{role}]\n{content}" for role, content in request.messages] or [request.prompt or ""]
    for name in verify_prompts(settings):
        out += ["", f"--- {name}: what comes before the task ---", settings.prompt(name)]
    indices = math.inf if settings.num is None else settings.num / work.expected_yield
    indices = min(indices, math.inf if work.indices is None else work.indices)
    out += ["--- estimate ---"]
    rows = settings.num if work.indices is None else indices * work.expected_yield
    out += estimate(settings, indices, rows or 0, requests, find_price(settings))
    print(display.printable("\n".join(out)))  # noqa: T201 - data


def _first_requests(work: Work) -> list[Request]:
    """What the recipe asks at the first index that asks anything, as far as made-up replies lead it."""
    view, requests, samples = work.pool.view(-1), list[Request](), iter(work.samples)

    def complete(request: Request) -> Reply:
        requests.append(request)
        text = next(samples, None)
        if text is None:
            raise _NoMore
        return Reply((Choice(text),) * request.n)

    for k in range(1 if work.indices is None else work.indices):
        with suppress(_NoMore):
            work.recipe(work.planner.plan(k, view), view, complete)
        if requests:
            return requests
    raise InputError("nothing in the input leads to a request; is it what the job works on?")


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
            else Candidate(
                found["instruction"], found["input"], found["output"], system=found.get("system", "")
            )
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
