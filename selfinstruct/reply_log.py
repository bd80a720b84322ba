"""What was bought, as logs that survive a kill: every reply, every call that brought none, what is under way.

It knows nothing of tasks; what a reply is worth others decide. Workers call `keep_reply`, `keep_failure` and
`note_sent`, the rest happens on the main thread.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any

from selfinstruct.errors import InputError, RequestRefused, Transient
from selfinstruct.records import JSON, Choice, Reply, Usage
from selfinstruct.store import AppendLog


@dataclass(slots=True)
class Totals:
    """What the run has cost so far, all its sittings together."""

    lines: int = 0
    requests: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    usage: Usage = field(default_factory=Usage)
    cost: float = 0.0

    def add(self, line: JSON) -> None:
        """Count a line of the replies log."""
        self.lines += 1
        self.requests += "text" in line
        if "text" not in line:
            self.failures[line.get("failed") or line.get("refused") or "unknown"] += 1
        self.usage += Usage(**line.get("usage", {}))
        self.cost += line.get("cost") or 0.0


class ReplyLog:
    """The replies of one run, opened for writing.

    Args:
        path: the folder, which must be there.
        prefix: of the names `replies.jsonl` and `sent.jsonl` in it.

    Raises:
        InputError: a file of it cannot be opened.
    """

    def __init__(self, path: Path, prefix: str = "") -> None:
        self.path = path
        self.totals = Totals()
        self.stored: dict[str, JSON] = {}
        self._counting = threading.Lock()
        self._replies = AppendLog(path / f"{prefix}replies.jsonl")
        try:
            self._sent = AppendLog(path / f"{prefix}sent.jsonl")
        except BaseException:
            self._replies.close()
            raise

    def read_replies(self, first: int = 0) -> None:
        """Count what is there, once, before anything is kept; replies from index `first` on are `stored` then.

        Raises:
            InputError: a file of it is damaged.
        """
        log = self._sent
        try:
            known, *sent = list(log.read()) or [0]
            unsettled = [(str(key), str(digest), float(cost)) for key, digest, cost in sent]
            answered: Counter[str] = Counter()
            log = self._replies
            for number, line in enumerate(log.read()):
                self.totals.add(line)
                if number >= int(known):
                    answered[line["key"]] += 1
                if "failed" not in line and int(line["key"].partition(".")[0]) >= first:
                    _look_at(line)
                    self.stored[line["key"]] = line
        except (KeyError, TypeError, ValueError, AttributeError):
            raise InputError(f"{log.path}: a line that is none of ours; restore it from a backup") from None
        self._settle(unsettled, answered)

    def _settle(self, sent: list[tuple[str, str, float]], answered: Counter[str]) -> None:
        """Count requests that were under way when the process was killed as spent: they may be on the bill."""
        for key, digest, cost in sent:
            if answered[key]:
                answered[key] -= 1
            else:
                error = Transient("the process was killed while the request was under way", "killed")
                self.keep_failure(key, digest, error, cost)
        self._sent.clear()
        self._sent.append(self.totals.lines)

    def keep_reply(self, key: str, digest: str, reply: Reply) -> JSON:
        """Log what was bought and return the line. Safe from any thread."""
        first, *others = (
            {"text": choice.text, "finish_reason": choice.finish_reason} for choice in reply.choices
        )
        line: dict[str, Any] = {"key": key, "request": digest, **first}
        if others:
            line["others"] = others
        usage = reply.usage
        counts = {"prompt": usage.prompt, "completion": usage.completion, "cached": usage.cached}
        line |= {"usage": counts, "model": reply.model, "seconds": round(reply.seconds, 3)}
        line |= {"cost": reply.cost, "time": int(time())}
        return self._log(line)

    def _log(self, line: JSON) -> JSON:
        with self._counting:
            self._replies.append(line)
            self.totals.add(line)
        return line

    def note_sent(self, key: str, digest: str, cost: float) -> None:
        """Log that a request goes out, which at worst costs so much: a kill must not make it free."""
        self._sent.append([key, digest, cost])

    def sync_replies(self) -> None:
        """Wait until the disk has all replies."""
        self._replies.sync()

    def keep_failure(self, key: str, digest: str, error: Transient | RequestRefused, cost: float) -> JSON:
        """Log a call that brought nothing, with what it may have cost, and return the line.

        Safe from any thread.
        """
        name = {"failed": error.kind} if isinstance(error, Transient) else {"refused": error.reason}
        line = {
            "key": key,
            "request": digest,
            **name,
            "message": str(error),
            "cost": cost,
            "time": int(time()),
        }
        return self._log(line)

    def close_replies(self) -> None:
        """Close the files; a second call does nothing."""
        self._replies.close()
        self._sent.close()


def _look_at(line: JSON) -> None:
    """Raise what is raised for a line that `reply_of` could not read."""
    line["request"].encode()
    with contextlib.suppress(RequestRefused):
        reply_of(line)


def reply_of(line: JSON) -> Reply:
    """The reply that a line of the replies log tells of.

    Raises:
        RequestRefused: the line says that the server would not take the request.
    """
    if "refused" in line:
        raise RequestRefused(line["message"], line["refused"])
    others = tuple(Choice(**choice) for choice in line.get("others", ()))
    return Reply(
        (Choice(line["text"], line["finish_reason"]), *others),
        Usage(**line["usage"]),
        line["model"],
        line["seconds"],
        line["cost"],
    )
