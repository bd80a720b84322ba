"""What happened in a run: counts, reasons, tokens, times, read from the run directory alone.

Works while a run goes on. Nothing is printed and nothing is changed here.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from selfinstruct.batch_log import read_open
from selfinstruct.dataset import dataset_of, run_directory_of
from selfinstruct.errors import InputError
from selfinstruct.journal import commit_of
from selfinstruct.records import JSON, Decision, Row, row_id
from selfinstruct.reply_log import Totals
from selfinstruct.store import is_locked, read_log

_MEASURED = ("most_similar_instructions", "avg_similarity_score")
EXAMPLE_LENGTH = 200  # characters of a rejected candidate shown as an example


@dataclass(slots=True)
class Report:
    """The state of a run. Times are seconds; `seconds` are those of single replies."""

    dataset: str
    run_directory: str
    running: bool
    target: int | None  # None: whatever the inputs bring
    rows: int = 0  # in the dataset when all that is decided is published
    adopted: int = 0
    deleted: int = 0
    accepted: int = 0
    rejected: int = 0
    indices: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    examples: dict[str, JSON] = field(default_factory=dict)
    verification: dict[str, int] = field(default_factory=dict)  # of accepted tasks, by its status
    repair: dict[str, int] = field(default_factory=dict)  # candidates tried and accepted, tokens they took
    tests: dict[str, int] = field(
        default_factory=dict
    )  # candidates with tests of the model's, tokens they took
    languages: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    pending: dict[str, int] = field(default_factory=dict)  # requests in open batches, by the batch's id
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    models: dict[str, int] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    begun: int | None = None
    last_reply: int | None = None
    settings: dict[str, JSON] = field(default_factory=dict)
    job: str = "generate"
    inputs: int | None = None  # of a job over given data: how many there are; `indices` of them are decided

    @property
    def complete(self) -> bool:
        """Whether the run has come to its end."""
        enough = self.target is not None and self.rows >= self.target
        return enough or (self.inputs is not None and self.indices >= self.inputs)

    def as_json(self) -> dict[str, JSON]:
        """All fields, with the shares that are asked for most."""
        candidates = self.accepted + self.rejected
        tokens = self.prompt_tokens + self.completion_tokens
        return asdict(self) | {
            "candidates": candidates,
            "yield": round(self.accepted / candidates, 4) if candidates else None,
            "accepted_per_1000_tokens": per_1000(self.accepted, tokens),
            "repaired_per_1000_tokens": per_1000(
                self.repair.get("accepted", 0), self.repair.get("tokens", 0)
            ),
        }


def per_1000(count: int, tokens: int) -> float | None:
    """What 1,000 tokens brought, None where there were none."""
    return round(1000 * count / tokens, 3) if tokens else None


def find_run(path: Path) -> Path:
    """The run directory that belongs to a dataset, or that `path` itself is.

    Raises:
        InputError: there is none.
    """
    directory = path if path.is_dir() else run_directory_of(path)
    if not (directory / "run.json").is_file():
        raise InputError(
            f"{path}: no run directory ({directory}) for it; was the dataset made by `generate`?"
        )
    return directory


def read_report(path: Path) -> Report:
    """Fold the run directory of a dataset into a report.

    Raises:
        InputError: there is no run, or a file of it is damaged.
    """
    directory = find_run(path)
    try:
        about = json.loads((directory / "run.json").read_bytes())
        settings = about["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{directory / 'run.json'}: not readable") from None
    report = Report(
        dataset=str(dataset_of(directory)),
        run_directory=str(directory),
        running=is_locked(directory / "lock"),
        target=_target(directory, settings["num"]),
        begun=about.get("begun"),
        settings=settings,
        job=about.get("job", "generate"),
        inputs=about.get("indices"),
    )
    _fold_journal(directory, report)
    _fold_replies(directory, report)
    report.pending = {batch.id or name: len(batch.requests) for name, batch in read_open(directory).items()}
    return report


def _target(directory: Path, first: int | None) -> int | None:
    """The last target that was asked for; the settings of `run.json` are those of the first run."""
    try:
        last = json.loads((directory / "published.json").read_bytes())["target"]
        return None if last is None else int(last)
    except (OSError, ValueError, KeyError, TypeError):
        return first


def _fold_journal(directory: Path, report: Report) -> None:
    reasons: Counter[str] = Counter()
    verification: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for line in read_log(directory / "journal.jsonl"):
        report.adopted += "adopted" in line
        report.deleted += "deleted" in line
        if "k" not in line:
            continue
        commit = commit_of(line)
        report.indices += commit.done
        for decision in commit.decisions:
            _count_extra(report, decision)
            if decision.rejection is None:
                report.accepted += 1
                verification.update(
                    [decision.evidence["verification"]] if "verification" in decision.evidence else []
                )
                languages[decision.candidate.language or "unknown"] += 1
                kinds[decision.candidate.kind or "unknown"] += 1
            else:
                reasons[decision.rejection.reason] += 1
                report.examples.setdefault(decision.rejection.reason, _example(decision))
    report.rejected = reasons.total() if hasattr(reasons, "total") else sum(reasons.values())
    report.rows = report.adopted + report.accepted - report.deleted
    report.reasons = dict(reasons.most_common())
    report.verification = dict(verification.most_common())
    report.languages = dict(languages.most_common())
    report.kinds = dict(kinds.most_common())


def _count_extra(report: Report, decision: Decision) -> None:
    """What a candidate took beyond its recipe: tests, repair."""
    evidence = decision.rejection.evidence if decision.rejection else decision.evidence
    for name, table in (("repair", report.repair), ("tests", report.tests)):
        if name in evidence:
            table["candidates"] = table.get("candidates", 0) + 1
            table["accepted"] = table.get("accepted", 0) + decision.accepted
            table["tokens"] = table.get("tokens", 0) + evidence[name]["tokens"]


def _example(decision: Decision) -> JSON:
    candidate = decision.candidate
    text = candidate.instruction or candidate.raw
    evidence = decision.rejection.evidence if decision.rejection else {}
    return {"text": text[:EXAMPLE_LENGTH], "evidence": evidence}


def _fold_replies(directory: Path, report: Report) -> None:
    totals = Totals()
    models: Counter[str] = Counter()
    seconds: list[float] = []
    priced = False
    for line in read_log(directory / "replies.jsonl"):
        totals.add(line)
        report.last_reply = line.get("time", report.last_reply)
        if "text" in line:
            models[line["model"]] += 1
            seconds.append(line["seconds"])
        priced = priced or line.get("cost") is not None
    report.requests = totals.requests
    report.failures = dict(totals.failures.most_common())
    report.prompt_tokens = totals.usage.prompt
    report.cached_tokens = totals.usage.cached
    report.completion_tokens = totals.usage.completion
    report.cost = round(totals.cost, 6) if priced else None
    report.models = dict(models.most_common())
    if seconds:
        seconds.sort()
        report.timings = {
            "median": round(statistics.median(seconds), 3),
            "p90": round(seconds[math.ceil(0.9 * len(seconds)) - 1], 3),
            "longest": round(seconds[-1], 3),
        }


@dataclass(frozen=True, slots=True)
class Entry:
    """A decision with its place in the run: index, and the seeds that were shown."""

    k: int
    seeds: tuple[str, ...]
    decision: Decision


def read_decisions(path: Path) -> Iterator[Entry]:
    """All decisions of a run, oldest first."""
    for line in read_log(find_run(path) / "journal.jsonl"):
        if "k" in line:
            commit = commit_of(line)
            for decision in commit.decisions:
                yield Entry(commit.k, commit.seeds, decision)


def provenance(path: Path, row: Row) -> Entry | None:
    """The decision that brought a row into the dataset; None for a row that was taken over."""
    wanted = row_id(row)
    for entry in read_decisions(path):
        if entry.decision.accepted and row_id(entry.decision.candidate.row) == wanted:
            return entry
    return None


def regen_rows(path: Path) -> list[dict[str, JSON]]:
    """The accepted tasks of a run under the profile `alpaca` as Stanford Alpaca's `regen.json` has them.

    Returns:
        Rows with instruction, input, output, `most_similar_instructions` (text to ROUGE-L, at most ten)
        and `avg_similarity_score` (the mean over the pool as it then was).

    Raises:
        InputError: the run has another profile, which does not measure these.
    """
    rows = []
    for entry in read_decisions(path):
        if entry.decision.accepted:
            evidence = entry.decision.evidence
            if "avg_similarity_score" not in evidence:
                raise InputError(f"{path}: made with another profile; these fields need --profile alpaca")
            measured = {name: evidence[name] for name in _MEASURED}
            rows.append(entry.decision.candidate.row | measured)
    return rows
