"""What a run of `judge` came to, and how far the judge agrees with what verification said of the same rows.

Read from run directories alone; nobody is asked.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from selfinstruct.derive.judge import IN, RIVAL, TIE, JudgeSettings
from selfinstruct.derive.rubric import Rubric
from selfinstruct.records import JSON, Candidate, row_id
from selfinstruct.report import read_decisions
from selfinstruct.settings import make_run_settings
from selfinstruct.store import read_log
from selfinstruct.verify.code import find_code
from selfinstruct.verify.syntax import check_syntax
from selfinstruct.verify.verdict_log import VERDICTS, verdict_folder

CORRECTNESS: Final = "correctness"  # the criterion that is compared with verification
LEVELS: Final = ("syntax", "run", "tests")
Verdicts = Mapping[str, Mapping[str, bool]]  # of a row, by its name: whether it passed a level


def summarise(output: Path, inputs: Iterable[Path], rubric: Rubric) -> dict[str, JSON]:
    """The figures of a finished or unfinished run of `judge`.

    Args:
        output: its dataset.
        inputs: what it judged; verdicts are looked for in their run directories.
        rubric: by which it judged.

    Returns:
        `rows` (judged), `kept`, `unreadable`; with ratings `score` and `criteria` (means) and `agreement`
        (by level: a table of four counts, the share of equal opinions, Cohen's kappa); with pairs `pairs`.

    Raises:
        InputError: there is no run, or a file of it is damaged.
    """
    verdicts = read_verdicts(inputs)
    ratings: list[tuple[Candidate, dict[str, JSON]]] = []
    pairs: list[dict[str, JSON]] = []
    kept = unreadable = 0
    for entry in read_decisions(output):
        decision = entry.decision
        evidence = decision.rejection.evidence if decision.rejection else decision.evidence
        kept += decision.accepted
        if "judge" in evidence:
            ratings.append((decision.candidate, evidence["judge"]))
        elif "pair" in evidence:
            pairs.append(evidence["pair"])
        else:
            unreadable += 1
    found: dict[str, JSON] = {"rows": len(ratings) or len(pairs), "kept": kept, "unreadable": unreadable}
    if pairs:
        found["pairs"] = _preferences(pairs)
    if ratings:
        found["score"] = _mean(rating["score"] for _, rating in ratings)
        names = [criterion.name for criterion in rubric.criteria]
        found["criteria"] = {name: _mean(rating["scores"][name] for _, rating in ratings) for name in names}
        found["agreement"] = _agreement(ratings, verdicts, rubric)
    return found


def _mean(numbers: Iterable[float]) -> float:
    values = list(numbers)
    return round(sum(values) / len(values), 3)


def _preferences(pairs: list[dict[str, JSON]]) -> dict[str, JSON]:
    """How often each side won, and how much of that held when the order was turned."""
    winners = Counter(pair["winner"] for pair in pairs)
    asked = [pair for pair in pairs if "said" in pair]
    better = Counter(word for pair in asked for word in pair["better"])
    chosen = better["first"] + better["second"]
    return {
        **{name: winners[name] for name in (IN, RIVAL, TIE)},
        "same_answer": len(pairs) - len(asked),
        "consistent": round(sum(pair["consistent"] for pair in asked) / len(asked), 4) if asked else None,
        # One half where the order means nothing to the judge.
        "first_preferred": round(better["first"] / chosen, 4) if chosen else None,
    }


def read_verdicts(inputs: Iterable[Path]) -> Verdicts:
    """What the run directories of datasets have of verdicts; those that could not be told are left out."""
    found: dict[str, dict[str, bool]] = {}
    for path in inputs:
        for line in read_log(verdict_folder(path) / VERDICTS):
            if line.get("status") in {"passed", "failed"} and line.get("level") in LEVELS:
                found.setdefault(str(line.get("row")), {})[line["level"]] = line["status"] == "passed"
    return found


def _agreement(
    ratings: list[tuple[Candidate, dict[str, JSON]]], verdicts: Verdicts, rubric: Rubric
) -> dict[str, JSON]:
    """A table for each level that some row has a verdict of."""
    tables: dict[str, Counter[tuple[bool, bool]]] = {}
    for candidate, rating in ratings:
        good = rating["scores"].get(CORRECTNESS, rating["score"]) > rubric.middle
        for level, passed in _verdicts_of(candidate, verdicts):
            tables.setdefault(level, Counter())[passed, good] += 1
    return {level: _table(tables[level]) for level in LEVELS if level in tables}


def _verdicts_of(candidate: Candidate, verdicts: Verdicts) -> Iterator[tuple[str, bool]]:
    known = verdicts.get(row_id(candidate.row), {})
    yield from known.items()
    if "syntax" not in known:
        texts = candidate.instruction, candidate.input, candidate.output
        if any(known.values()):
            yield "syntax", True  # what ran could be parsed
        elif find_code(*texts, candidate.language, candidate.kind).blocks:
            yield "syntax", check_syntax(candidate) is None


def _table(counts: Counter[tuple[bool, bool]]) -> dict[str, JSON]:
    """The four counts, the share of equal opinions, and kappa: how far that is above chance (None: undefined)."""
    total = sum(counts.values())
    equal = (counts[True, True] + counts[False, False]) / total
    passed = (counts[True, True] + counts[True, False]) / total
    good = (counts[True, True] + counts[False, True]) / total
    chance = passed * good + (1 - passed) * (1 - good)
    return {
        "passed": {"good": counts[True, True], "poor": counts[True, False]},
        "failed": {"good": counts[False, True], "poor": counts[False, False]},
        "agree": round(equal, 4),
        "kappa": round((equal - chance) / (1 - chance), 4) if chance < 1 else None,
    }


def tell_run(flags: Mapping[str, Any], config: Path | None) -> str:
    """The figures of the run that these flags belong to: lines of text, or JSON with `log_format` json.

    Raises:
        InputError: there is no run, or a file of it is damaged.
    """
    settings = make_run_settings(JudgeSettings, dict(flags), config)
    summary = summarise(settings.output, settings.inputs, settings.criteria)
    return json.dumps(summary) if settings.log_format == "json" else "\n".join(_tell(summary))


def _tell(summary: Mapping[str, JSON]) -> list[str]:
    """The figures as lines of text."""
    lines = [
        f"judged      {summary['rows']} rows, {summary['kept']} kept, {summary['unreadable']} without a judgement"
    ]
    if (pairs := summary.get("pairs")) is not None:
        lines.append(
            f"better      the input {pairs[IN]}, --versus {pairs[RIVAL]}, neither {pairs[TIE]} "
            f"({pairs['same_answer']} of them the same answer)"
        )
        if pairs["consistent"] is not None:
            lines.append(f"consistent  {pairs['consistent']:.0%} of the pairs, asked for in both orders")
        if pairs["first_preferred"] is not None:
            lines.append(
                f"position    the first answer is preferred in {pairs['first_preferred']:.0%}; 50% is no bias"
            )
    if "score" in summary:
        criteria = ", ".join(f"{name} {mean:.2f}" for name, mean in summary["criteria"].items())
        lines.append(f"score       {summary['score']:.2f} ({criteria})")
        for level, table in summary["agreement"].items():
            kappa = "" if table["kappa"] is None else f", kappa {table['kappa']:.2f}"
            lines.append(
                f"{level:<11} passed: {table['passed']['good']} rated right, {table['passed']['poor']} wrong; "
                f"failed: {table['failed']['good']} right, {table['failed']['poor']} wrong; "
                f"agreement {table['agree']:.0%}{kappa}"
            )
    return lines
