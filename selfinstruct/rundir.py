"""The run directory: the truth of a run as append-only logs, and the dataset that follows from them.

Decides nothing about candidates; `pool.py` does. Everything here happens on the main thread.
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import count
from time import monotonic, time

from selfinstruct import __version__
from selfinstruct.batch_log import FILE as BATCHES
from selfinstruct.data.outputs import refuse_shared
from selfinstruct.dataset import DatasetFile, run_directory_of
from selfinstruct.errors import InputError
from selfinstruct.journal import Commit, commit_of
from selfinstruct.records import JSON, Row, row_id
from selfinstruct.reply_log import ReplyLog
from selfinstruct.settings import RunSettings
from selfinstruct.store import AppendLog, Lock, disk_error, read_log, write_atomically

PUBLISH_SHARE = 0.05  # of the run's time at most goes into copying the dataset
ADOPTED = 1000  # rows taken over that are noted at once


class RunDirectory(ReplyLog):
    """One run, opened for writing; close it in the end.

    Args:
        settings: of the run.
        extra_fingerprint: digests of what the job reads.
        indices: how many there are, for a job that works through given data; for reports only.

    Raises:
        InputError: a file of it cannot be read, or the settings differ from those it was begun with.
        LockedError: another run is writing here.
    """

    def __init__(
        self, settings: RunSettings, extra_fingerprint: Mapping[str, JSON], indices: int | None = None
    ) -> None:
        self._indices = indices
        self.path = run_directory_of(settings.output)
        refuse_shared(settings.output)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(self.path, error) from None
        self._settings = settings
        self._dataset = DatasetFile(settings.output)
        self.barren = 0  # decided indices in a row without an accepted task, at the end of the journal
        self._rows: list[Row] = []  # as the logs have it, oldest first
        self._noted = False  # whether this run's target is on the disk
        self._published = 0  # how many of them the dataset has, or had
        self._publish_after = 0.0
        with ExitStack() as opened:
            opened.callback(Lock(self.path / "lock").release)
            # Read before anything is written: a dataset that is none changes nothing here.
            self._there = self._dataset.load()
            self._check_settings(settings.fingerprint() | dict(extra_fingerprint))
            self._journal = AppendLog(self.path / "journal.jsonl")
            opened.callback(self._journal.close)
            super().__init__(self.path)
            opened.callback(self.close_replies)
            self._opened = opened.pop_all()

    @property
    def size(self) -> int:
        """The number of rows that the dataset has when all that is decided is published."""
        return len(self._rows)

    def _check_settings(self, fingerprint: dict[str, JSON]) -> None:
        path = self.path / "run.json"
        if path.exists():
            try:
                before = dict(json.loads(path.read_bytes())["fingerprint"])
            except (ValueError, KeyError, TypeError):
                raise InputError(f"{path}: not readable; move {self.path} away to begin anew") from None
            changed = [
                f"{name.replace('_', '-')}: {before.get(name)!r} -> {fingerprint.get(name)!r}"
                for name in sorted(before.keys() | fingerprint.keys())
                if before.get(name) != fingerprint.get(name)
            ]
            if changed and self._is_begun():
                raise InputError(
                    f"{self.path}: begun with other settings ({'; '.join(changed)}); go on with those, "
                    f"choose another --output, or move {self.path} away: a new run then takes the rows over"
                )
            if not changed:
                return
        about = {
            "selfinstruct": __version__,
            "python": platform.python_version(),
            "begun": int(time()),
            "fingerprint": fingerprint,
            "settings": self._settings.model_dump(mode="json", exclude={"base_url"}),
            "job": self._settings.job,
            "indices": self._indices,
        }
        write_atomically(path, json.dumps(about, indent=2).encode() + b"\n")

    def _is_begun(self) -> bool:
        """Whether anything was decided, answered or sent as a batch: a start that came to nothing binds to nothing."""
        logs = (self.path / "journal.jsonl", self.path / BATCHES)
        return any(log.exists() and log.stat().st_size for log in logs) or any(
            "text" in line for line in read_log(self.path / "replies.jsonl")
        )

    def replay(self) -> Iterator[Row | Commit]:
        """Everything that was decided, in order: rows taken over, and commits.

        Afterwards the replies of undecided indices are in `stored` and the dataset is up to date. To be
        read to the end, once, before anything is committed.
        """
        following = 0
        for line in self._journal.read():
            if "adopted" in line:
                self._rows.append(line["adopted"])
                yield line["adopted"]
            elif "deleted" in line:
                self._forget(line["deleted"])
            else:
                commit = commit_of(line)
                self._rows += [decision.candidate.row for decision in commit.decisions if decision.accepted]
                following = commit.k + commit.done
                self.barren = 0 if any(d.accepted for d in commit.decisions) else self.barren + 1
                yield commit
        self.read_replies(following)
        yield from self._reconcile()

    def _forget(self, identity: str) -> None:
        for number, row in enumerate(self._rows):
            if row_id(row) == identity:
                del self._rows[number]
                return

    def _reconcile(self) -> Iterator[Row]:
        """Bring dataset and journal together: publish what is missing, note what the user changed."""
        published = self._read_published()
        there, self._there = self._there, None
        if there is None or not self._dataset.unchanged():
            there = self._dataset.load()
        if there is None:
            if self._rows:
                self._dataset.create()
                self._dataset.append(self._rows)
        else:
            now = Counter(map(row_id, there))
            had = Counter(map(row_id, self._rows[:published]))
            unnoted = now - had  # published, and then the process was killed before it could note that
            missing = [row for row in self._rows[published:] if not _take(unnoted, row)]
            extra = now - Counter(map(row_id, self._rows))
            deleted = had - now
            if missing:
                self._dataset.append(missing)
            for identity in deleted.elements():
                self._journal.append({"deleted": identity})
                self._forget(identity)
            adopted = [row for row in there if _take(extra, row)] if extra else []
            for start in range(0, len(adopted), ADOPTED):
                self._journal.append(*({"adopted": row} for row in adopted[start : start + ADOPTED]))
            self._rows += adopted
            self._journal.sync()
            yield from adopted
        if self._rows or there is not None:
            self._note_published()

    def _read_published(self) -> int:
        try:
            return int(json.loads((self.path / "published.json").read_bytes())["rows"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def _note_published(self) -> None:
        self._noted = True
        self._published = len(self._rows)
        write_atomically(
            self.path / "published.json",
            json.dumps({"rows": self._published, "target": self._settings.num}).encode() + b"\n",
        )

    def commit(self, *commits: Commit) -> None:
        """Make decisions durable, then let the dataset follow (at once, or soon when it has grown large)."""
        self.sync_replies()
        self._journal.append(*(commit.line() for commit in commits))
        self._journal.sync()
        for commit in commits:
            self._rows += [decision.candidate.row for decision in commit.decisions if decision.accepted]
        if commit.done:
            for step in count():  # replies that a run in batches reads more than once
                if self.stored.pop(f"{commit.k}.{step}", None) is None:
                    break
        if monotonic() >= self._publish_after:
            self.publish()

    def publish(self) -> None:
        """Write all accepted rows that the dataset does not have yet."""
        began = monotonic()
        if not self._dataset.unchanged():
            for _ in self._reconcile():
                pass  # rows the user wrote meanwhile; the pool learns of them at the next start
        elif len(self._rows) > self._published or not self._noted:
            self._dataset.append(self._rows[self._published :])
            self._note_published()
        now = monotonic()
        self._publish_after = now + (now - began) / PUBLISH_SHARE

    def finish(self) -> None:
        """All is decided: there is a dataset now, be it an empty one."""
        self.publish()
        if not self._rows and not self._dataset.path.exists():
            self._dataset.create()
            self._note_published()

    def close(self) -> None:
        """Release files and lock."""
        self._opened.close()


def _take(counts: Counter[str], row: Row) -> bool:
    """Whether `row` is still among `counts`; takes it out of them."""
    identity = row_id(row)
    if counts[identity] <= 0:
        return False
    counts[identity] -= 1
    return True
