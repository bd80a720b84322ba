"""What the commands do beyond one call: the run with its progress and summary, the dry run, the views.

Talk goes to stderr, data to stdout.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from selfinstruct import display, report
from selfinstruct.calls import estimate_tokens
from selfinstruct.dataset import read_dataset, run_directory_of
from selfinstruct.errors import InputError, SelfInstructError, StoppedEarly
from selfinstruct.pool import Pool
from selfinstruct.records import Candidate, Reply, Request, row_id
from selfinstruct.session import Session, expected_indices, load_seeds, make_pool, open_backend, open_session
from selfinstruct.settings import Settings

HEARTBEAT = 30.0  # seconds between lines of progress where there is no terminal


class Talk:
    """Progress for a person (a bar on a terminal, a line now and then elsewhere) or a machine (JSON lines)."""

    def __init__(self, settings: Settings) -> None:
        self._json = settings.log_format == "json"
        self._bar: tqdm[Any] | None = None
        self._terminal = sys.stderr.isatty()
        self._spoke = monotonic()

    def say(self, text: str, event: str = "note", **facts: object) -> None:
        """One line, above the bar if there is one."""
        told = {"event": event, "message": text, **facts}
        text = json.dumps(told) if self._json else display.printable(text)
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)  # noqa: T201 - talk

    def begin(self, session: Session) -> None:
        """Open the bar."""
        self._spoke = monotonic()
        if self._terminal and not self._json:
            self._bar = tqdm(total=session.settings.num, initial=session.run.size, unit="task", smoothing=0.1)

    def progress(self, session: Session) -> None:
        """Tell where the run stands; called at least twice a second."""
        rejected = sum(session.rejected.values())
        in_flight = session.calls.in_flight if session.calls else 0
        usage = session.run.totals.usage
        if self._bar is not None:
            self._bar.n = session.run.size
            self._bar.set_postfix_str(
                f"{rejected} rejected, {in_flight} in flight, {usage.prompt + usage.completion} tokens"
            )
        elif monotonic() >= self._spoke + HEARTBEAT:
            self._spoke = monotonic()
            self.say(
                f"{session.run.size} of {session.settings.num} tasks, {rejected} rejected, {in_flight} in flight",
                "progress",
                **facts(session),
            )

    def end(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def facts(session: Session) -> dict[str, object]:
    """The state of a session as JSON fields; the names are stable."""
    totals = session.run.totals
    return {
        "rows": session.run.size,
        "target": session.settings.num,
        "accepted": session.accepted,
        "rejected": session.rejected,
        "requests": totals.requests,
        "failures": dict(totals.failures),
        "prompt_tokens": totals.usage.prompt,
        "completion_tokens": totals.usage.completion,
        "cost": round(totals.cost, 6),
        "seconds": round(monotonic() - session.began, 1),
    }


def run(settings: Settings) -> None:
    """`selfinstruct generate`: work to the target, tell how it goes, end with a summary.

    Raises:
        SelfInstructError: with the exit status; the summary has been told before.
    """
    talk = Talk(settings)
    with _signals_end_the_setup(), open_session(settings) as session:
        if session.run.size >= settings.num:
            talk.say(
                f"{settings.output}: holds {session.run.size} tasks, the target is {settings.num}: nothing to do"
            )
            return
        if session.run.size:
            talk.say(f"{settings.output}: going on after {session.run.size} tasks")
        try:
            with open_backend(settings, talk.say) as backend:
                talk.begin(session)
                with _signals_stop(session):
                    for _ in session.events(backend):
                        talk.progress(session)
                talk.progress(session)
        except SelfInstructError as error:
            talk.end()
            _summarise(talk, session, error)
            raise
        finally:
            talk.end()
        _summarise(talk, session, None)


def _summarise(talk: Talk, session: Session, error: SelfInstructError | None) -> None:
    settings, totals = session.settings, session.run.totals
    seconds = monotonic() - session.began
    event = "complete" if error is None else "stopped" if isinstance(error, StoppedEarly) else "failed"
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
    if talk._json:  # noqa: SLF001 - the same module
        talk.say("" if error is None else str(error), event, **facts(session))
        return
    for line in lines:
        talk.say(line)


@contextmanager
def _signals_end_the_setup() -> Iterator[None]:
    """Before anything is asked, a signal simply ends the command, with status 3."""

    def handler(number: int, _: FrameType | None) -> None:
        raise StoppedEarly(f"stopped by {signal.Signals(number).name}; run the same command again to go on")

    with _handling(handler):
        yield


@contextmanager
def _signals_stop(session: Session) -> Iterator[None]:
    """The first signal drains the run, the second ends the process at once with 128 + its number."""
    seen = 0

    def handler(number: int, _: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            os._exit(128 + number)  # every reply and decision is on the disk already
        name = signal.Signals(number).name
        # Not here: the main thread may hold the very lock that stopping needs.
        threading.Thread(
            target=session.stop,
            args=(f"stopped by {name}; run the same command again to go on",),
            daemon=True,
        ).start()

    with _handling(handler):
        yield


@contextmanager
def _handling(handler: Any) -> Iterator[None]:
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), handler) for name in names}
    try:
        yield
    finally:
        for name, old in before.items():
            signal.signal(getattr(signal, name), old)


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
    if settings.base_url:  # without a user and password that it may hold
        address = urlsplit(settings.base_url)
        shown["base_url"] = address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()
    out = [
        f"{name.replace('_', '-')} = {json.dumps(value)}"
        for name, value in shown.items()
        if value not in ([], {})
    ]
    out += ["", f"--- the first prompt ({settings.endpoint}) ---"]
    out += [f"[{role}]\n{content}" for role, content in request.messages] or [request.prompt or ""]
    prompt, completion = estimate_tokens(request)
    indices = expected_indices(settings)
    calls = indices * (2.5 if settings.recipe == "staged" else 1)
    out += [
        "--- estimate ---",
        (
            f"about {calls:.0f} requests for {settings.num} tasks; at most {round(calls * prompt)} tokens read "
            f"and {round(calls * completion)} written"
        ),
    ]
    print(display.printable("\n".join(out)))  # noqa: T201 - data


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
