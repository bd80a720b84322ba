"""What a run tells while it goes on: a bar or lines for a person, or one JSON event a line for a program.

Everything goes to stderr. A log that cannot be written (its disk is full, its reader has gone) never ends a
run. The events are documented in docs/operations.md; names of events and fields are stable.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from time import monotonic
from typing import Any

from tqdm import tqdm

from selfinstruct import display
from selfinstruct.errors import SelfInstructError, StoppedEarly
from selfinstruct.session import Session

HEARTBEAT = 30.0  # seconds between lines of progress where there is no terminal


def facts(session: Session) -> dict[str, Any]:
    """The state of a session as JSON fields; the names are stable.

    `accepted`, `rejected` and `seconds` are of this sitting, the rest of the whole run.
    """
    totals, inputs = session.run.totals, session.work.indices
    through = {} if inputs is None else {"inputs": inputs, "worked_through": session.work.pool.decided}
    return through | {
        "rows": session.run.size,
        "target": session.settings.num,
        "accepted": session.accepted,
        "rejected": dict(session.rejected),
        "verified": dict(session.verified),
        "requests": totals.requests,
        "failures": dict(totals.failures),
        "prompt_tokens": totals.usage.prompt,
        "completion_tokens": totals.usage.completion,
        "cost": round(totals.cost, 6),
        "in_flight": session.calls.in_flight if session.calls else 0,
        "seconds": round(monotonic() - session.began, 1),
    }


def event_line(event: str, message: str, **fields: object) -> str:
    """One event as a line of JSON, with the time in UTC."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"event": event, "time": now, "message": message, **fields})


def write_line(text: str) -> None:
    """A line on stderr; what cannot be written is left out."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


class Talk:
    """The voice of one command.

    Args:
        as_json: one event a line instead of words and a bar.
        heartbeat: seconds between lines of progress where there is no bar.
    """

    def __init__(self, *, as_json: bool, heartbeat: float = HEARTBEAT) -> None:
        self.as_json = as_json
        self.ended = False  # whether the last event was told
        self._heartbeat = heartbeat
        self._bar: tqdm[Any] | None = None
        self._spoke = monotonic()
        self._stop_told = False
        self._writing = threading.Lock()

    def say(self, text: str, event: str = "note", **fields: object) -> None:
        """One line, above the bar if there is one; `fields` are for the JSON event."""
        self.ended = event in {"complete", "stopped", "failed"}
        with self._writing:
            if self.as_json:
                write_line(event_line(event, text, **fields))
            elif self._bar is None:
                write_line(display.printable(text))
            else:
                with self._terminal_may_go():
                    self._bar.write(display.printable(text), file=sys.stderr)

    def last_words(self, text: str) -> None:
        """The end, told from a signal handler: past all buffers and locks, which the main thread may hold."""
        line = event_line("stopped", text, status=3) if self.as_json else f"selfinstruct: {text}"
        with contextlib.suppress(OSError):
            os.write(2, f"{line}\n".encode())

    def end_event(self, error: SelfInstructError | None, message: str, **fields: object) -> None:
        """The last event of a run: complete, stopped or failed, with the exit status."""
        event = "complete" if error is None else "stopped" if isinstance(error, StoppedEarly) else "failed"
        self.say(message, event, status=error.status if error else 0, **fields)

    def begin(self, session: Session) -> None:
        """Open the bar."""
        self._spoke = monotonic()
        if sys.stderr.isatty() and not self.as_json:
            total, done, unit = _course(session)
            self._bar = tqdm(total=total, initial=done, unit=unit, smoothing=0.1)

    def progress(self, session: Session) -> None:
        """Tell where the run stands; called at least twice a second."""
        rejected = sum(session.rejected.values())
        in_flight = session.calls.in_flight if session.calls else 0
        usage = session.run.totals.usage
        if session.stop_reason and not self._stop_told:
            self._stop_told = True
            self.say(f"stopping: {in_flight} requests in flight get some time; a second signal ends at once")
        if self._bar is not None:
            with self._terminal_may_go():
                self._bar.n = _course(session)[1]
                self._bar.set_postfix_str(
                    f"{rejected} rejected, {in_flight} in flight, {usage.prompt + usage.completion} tokens"
                )
        elif monotonic() >= self._spoke + self._heartbeat:
            self._spoke = monotonic()
            total, done, unit = _course(session)
            self.say(
                f"{done} of {total} {unit}s, {rejected} rejected, {in_flight} in flight",
                "progress",
                **facts(session),
            )

    def end(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            with self._terminal_may_go():
                self._bar.close()
            self._bar = None

    @contextmanager
    def _terminal_may_go(self) -> Iterator[None]:
        try:
            yield
        except OSError:  # a bar that nobody sees is no reason to end
            self._bar = None


def _course(session: Session) -> tuple[int, int, str]:
    """(all, done, of what): rows where a number is asked for, else the inputs that are worked through."""
    if session.settings.num is None:
        return session.work.indices or 0, session.work.pool.decided, "input"
    return session.settings.num, session.run.size, "task"


class LogLines(logging.Handler):
    """Warnings of the program's own loggers as notes, so that a JSON log holds nothing but events."""

    def __init__(self, talk: Talk) -> None:
        super().__init__(logging.WARNING)
        self.talk = talk

    def emit(self, record: logging.LogRecord) -> None:
        """Tell the message alone."""
        self.talk.say(" ".join(record.getMessage().split()))


@contextmanager
def warnings_told(talk: Talk) -> Iterator[None]:
    """Warnings that are logged, or raised by Python's `warnings`, are told by `talk`."""
    handler = LogLines(talk)
    loggers = [logging.getLogger("selfinstruct")]
    if talk.as_json:
        loggers.append(logging.getLogger("py.warnings"))
        logging.captureWarnings(capture=True)
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        if talk.as_json:
            logging.captureWarnings(capture=False)
