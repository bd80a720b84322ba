"""A run's figures as a Prometheus text file, for the textfile collector of node_exporter or any other reader.

It is replaced in one step, so a reader never sees half of it. Counts nothing itself: `talk.facts` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic, time
from typing import Any

from selfinstruct.errors import SelfInstructError
from selfinstruct.session import Session
from selfinstruct.store import write_atomically
from selfinstruct.talk import facts

EVERY = 10.0  # seconds; a scrape comes every 15 or more

# (name, kind, what it tells, the field of `talk.facts`, the label under which a table of it stands)
FAMILIES: tuple[tuple[str, str, str, str, str | None], ...] = (
    ("rows", "gauge", "Rows that the dataset holds.", "rows", None),
    ("target_rows", "gauge", "Rows that it shall hold in the end.", "target", None),
    ("inputs", "gauge", "Inputs of a job over given data.", "inputs", None),
    ("inputs_worked_through", "gauge", "Those that are wholly decided.", "worked_through", None),
    ("accepted_total", "counter", "Tasks accepted since this command began.", "accepted", None),
    ("rejected_total", "counter", "Candidates rejected since this command began.", "rejected", "reason"),
    ("replies_total", "counter", "Requests answered, all sittings together.", "requests", None),
    ("failures_total", "counter", "Requests that brought nothing, all sittings.", "failures", "kind"),
    ("tokens_total", "counter", "Tokens on the bill, all sittings.", "tokens", "direction"),
    ("cost_dollars_total", "counter", "Dollars, all sittings, where prices are known.", "cost", None),
    ("requests_in_flight", "gauge", "Requests at the backend now.", "in_flight", None),
    ("run_seconds", "gauge", "Seconds since this command began.", "seconds", None),
    (
        "last_progress_timestamp_seconds",
        "gauge",
        "When an index was last decided, or the command began.",
        "last",
        None,
    ),
    ("running", "gauge", "1 while the command works, 0 after its end.", "running", None),
    ("exit_status", "gauge", "The exit status, after the end.", "status", None),
)


def render(dataset: str, fields: Mapping[str, Any]) -> str:
    """The text of the file: `fields` is `talk.facts` with `last`, `running` and, at the end, `status`.

    Every sample carries the label `dataset`, so files of several runs can stand in one folder.
    """
    tokens = {"prompt": fields["prompt_tokens"], "completion": fields["completion_tokens"]}
    fields = {**fields, "tokens": tokens}
    lines = []
    for family, kind, told, field, label in FAMILIES:
        if fields.get(field) is None:
            continue
        name = f"selfinstruct_{family}"
        lines += [f"# HELP {name} {told}", f"# TYPE {name} {kind}"]
        value = fields[field]
        if label is None:
            lines.append(f"{name}{_labels(dataset=dataset)} {value}")
        else:
            lines += [
                f"{name}{_labels(dataset=dataset, **{label: key})} {value[key]}" for key in sorted(value)
            ]
    return "\n".join(lines) + "\n"


def _labels(**labels: str) -> str:
    escaped = (
        (name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n"))
        for name, value in labels.items()
    )
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"


class MetricsFile:
    """The file of one command; does nothing when there is no path.

    Raises:
        InputError, StoppedEarly: it cannot be written at the begin. Later that is only told.
    """

    def __init__(self, path: Path | None, session: Session, say: Callable[[str], None]) -> None:
        self._path = path
        self._session = session
        self._say = say
        self._due = 0.0
        self._last = time()
        self._unsaid = True
        self._write({"running": 1})

    def progress(self, *, decided: bool) -> None:
        """Note whether an index was decided; write when it is time."""
        if decided:
            self._last = time()
        if monotonic() >= self._due:
            self._try({"running": 1})

    def end(self, status: int) -> None:
        """The last figures, with the exit status."""
        self._try({"running": 0, "status": status})

    def _try(self, state: dict[str, int]) -> None:
        try:
            self._write(state)
        except SelfInstructError as error:
            self._due = monotonic() + EVERY
            if self._unsaid:
                self._unsaid = False
                self._say(f"no metrics: {error}")

    def _write(self, state: dict[str, int]) -> None:
        if self._path is None:
            return
        self._due = monotonic() + EVERY
        fields = {**facts(self._session), "last": round(self._last, 3), **state}
        dataset = str(self._session.settings.output)
        write_atomically(self._path, render(dataset, fields).encode(errors="replace"))
