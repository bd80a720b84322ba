"""The verdicts of a run, as lines that survive a kill: code that was run once is not run again.

A line of `verdicts.jsonl`: index `k`, candidate number `i`, `of` (a hash of everything the verdict depends on),
`row` (the row's name), level, status, reason, evidence, and the tests where there are any.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from pathlib import Path

from selfinstruct.dataset import run_directory_of
from selfinstruct.errors import InputError
from selfinstruct.records import JSON, Candidate, row_id
from selfinstruct.store import AppendLog
from selfinstruct.verify.verdict import Level, Verdict

VERDICTS = "verdicts.jsonl"


class VerdictLog:
    """The log of one run, opened for writing; close it in the end. Each index belongs to one thread at a time.

    Args:
        path: the file; made if it is not there.
        first: verdicts on earlier indices are not needed any more.
        again: statuses of verdicts that are made once more.
        anywhere: a verdict holds for its texts whatever the index: rows of a file that is edited move.

    Raises:
        InputError: the file cannot be opened, or a line of it is no verdict.
    """

    def __init__(
        self, path: Path, first: int = 0, again: Collection[str] = (), *, anywhere: bool = False
    ) -> None:
        self._log = AppendLog(path)
        self._anywhere = anywhere
        self._known: dict[int, dict[str, Verdict]] = {}
        try:
            for line in self._log.read():
                if line["k"] >= first and line["status"] not in again:
                    verdict = Verdict(line["level"], line["status"], line["reason"], line["evidence"])
                    self._of(line["k"])[line["of"]] = verdict
        except (KeyError, TypeError):
            self.close()
            raise InputError(
                f"{path}: a line that is no verdict; move the file away, code is then run again"
            ) from None

    def _of(self, k: int) -> dict[str, Verdict]:
        return self._known.setdefault(0 if self._anywhere else k, {})

    def once(
        self,
        k: int,
        number: int,
        candidate: Candidate,
        check: Callable[[], Verdict],
        *,
        tests: str | None = None,
        level: Level = "run",
    ) -> Verdict:
        """The verdict on a candidate (with its tests, where they are what is checked), from the log if it is there.

        Args:
            k: the index.
            number: the candidate's number in it.
            candidate: as it is checked.
            check: makes the verdict.
            tests: the text of the tests, or None.
            level: `syntax` for a verdict on the syntax alone; what runs says more.
        """
        name = _digest(candidate, tests, level)
        known = self._of(k)
        if name not in known:
            verdict = check()
            line: dict[str, JSON] = {"k": k, "i": number, "of": name, "row": row_id(candidate.row)}
            line |= {"level": verdict.level, "status": verdict.status, "reason": verdict.reason}
            line["evidence"] = verdict.evidence
            if tests is not None:
                line["tests"] = tests
            self._log.append(line)
            known[name] = verdict
        return known[name]

    def forget(self, k: int) -> None:
        """Index k is worked through in this sitting: nobody will ask again."""
        if not self._anywhere:
            self._known.pop(k, None)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._log.close()


def verdict_folder(dataset: Path) -> Path:
    """Where the verdicts on a dataset stand: in its run directory, which it may be itself; else beside it."""
    return dataset if dataset.suffix == ".run" and dataset.is_dir() else run_directory_of(dataset)


def _digest(candidate: Candidate, tests: str | None, level: Level) -> str:
    seen: list[JSON] = [
        candidate.instruction,
        candidate.input,
        candidate.output,
        candidate.language,
        candidate.kind,
        tests,
    ]
    if level == "syntax":
        seen.append(level)
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:16]
