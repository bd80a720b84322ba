"""The job `judge`: a model rates each row by a rubric, or says which of two answers to the same task is better.

Rows come out as they went in, those that pass; the ratings stand in the journal. What a judge says is an
opinion: how far it agrees with running the code is told by `agreement`.

Source: rating by a rubric and the bias for the first answer are described in Zheng et al. 2023 ("Judging
LLM-as-a-Judge"): a preference that turns with the order of the answers is none, so both orders are asked for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import model_validator

from selfinstruct.derive.inputs import read_rows
from selfinstruct.derive.rubric import REASON_LENGTH, Rating, Rubric, read_objects, read_rating, read_rubric
from selfinstruct.derive.worklist import Derivation, DeriveSettings, read_inputs
from selfinstruct.errors import InputError
from selfinstruct.recipes import ask, is_cut, seed_of_choice
from selfinstruct.records import JSON, Candidate, Choice, Rejection, Request, Source
from selfinstruct.seams import Complete, Plan, PoolView
from selfinstruct.settings import SHAPING_ALL, RunSettings, default

IN, RIVAL, TIE = "in", "versus", "tie"  # whose answer is better, in the journal
PAIR_SCHEMA: Final[dict[str, JSON]] = {
    "type": "object",
    "properties": {
        "reason": {"type": "string"},
        "better": {"type": "string", "enum": ["first", "second", "tie"]},
    },
    "required": ["reason", "better"],
    "additionalProperties": False,
}
_BETTER = re.compile(r"\b(first|second|tie)\b", re.IGNORECASE)
_WORDS = {"first": "first", "1": "first", "a": "first", "second": "second", "2": "second", "b": "second"}
_WORDS |= {"tie": TIE, "both": TIE, "equal": TIE, "neither": TIE}


class JudgeSettings(DeriveSettings):
    """What `judge` can be told."""

    job: ClassVar[str] = "judge"
    shaping: ClassVar[tuple[str, ...]] = (*SHAPING_ALL, "min_score")

    rubric: Path | None = None
    min_score: float | None = None
    versus: Path | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> JudgeSettings:
        if self.versus is not None and self.min_score is not None:
            raise ValueError("min_score: rows have no score with --versus, one of two answers is kept")
        return self

    @classmethod
    def completed(cls, given: dict[str, Any]) -> dict[str, Any]:
        """`given` with a temperature of 0: the same row shall get the same rating."""
        default(given, "temperature", 0.0)
        default(given, "verify", "off")
        return super().completed(given)

    @cached_property
    def criteria(self) -> Rubric:
        """The rubric.

        Raises:
            InputError: its file cannot be used.
        """
        return read_rubric(self.rubric)

    @cached_property
    def rivals(self) -> Mapping[str, Source]:
        """The rows of --versus by the name of their task; of several answers the first."""
        found: dict[str, Source] = {}
        for source in read_rows([self.versus]) if self.versus else []:
            found.setdefault(task_name(source), source)
        return found

    def digests(self) -> dict[str, str]:
        """Of the rubric, and of the other answers."""
        told = {"rubric": self.criteria.model_dump_json()}
        if self.versus is not None:
            told["versus"] = repr(sorted((name, source.output) for name, source in self.rivals.items()))
        return {
            name: hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
            for name, text in told.items()
        }


def task_name(source: Source) -> str:
    """What two answers have in common that answer the same task: instruction and input, spaces aside."""
    text = repr((source.instruction.split(), source.input.split()))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def read_tasks(settings: JudgeSettings) -> list[Source]:
    """The rows to judge; with --versus those whose task it answers, too.

    Raises:
        InputError: a file cannot be read, no task has two answers, or --min-score is outside of the scale.
    """
    rubric, least = settings.criteria, settings.min_score
    if least is not None and not rubric.lowest <= least <= rubric.highest:
        raise InputError(
            f"--min-score {least:g}: the rubric's scale goes from {rubric.lowest} to {rubric.highest}"
        )
    rows = read_inputs(settings)
    if settings.versus is None:
        return rows
    paired = [row for row in rows if task_name(row) in settings.rivals]
    if rows and not paired:
        raise InputError(
            f"{settings.versus}: answers none of the tasks; it needs the same instructions and inputs"
        )
    return paired


def judge(settings: JudgeSettings, plan: Plan, _: PoolView, complete: Complete) -> list[Candidate]:
    """The row of the plan with what the judge says of it, rejected where that is too little."""
    assert plan.source is not None  # noqa: S101 - jobs over given data have one
    if settings.versus is not None:
        return [_compare(settings, plan, plan.source, complete)]
    row = _row(plan.source)
    request = rating_request(settings, settings.criteria, row, seed_of_choice(plan, 0))
    choice = complete(request).choices[0]
    rating = read_rating(choice.text, settings.criteria)
    if rating is None:
        return [_unreadable(row, choice)]
    found = _noted(row, {"judge": rating.notes()})
    if settings.min_score is not None and rating.score < settings.min_score:
        return [replace(found, rejection=Rejection("low_score", {"least": settings.min_score}))]
    return [found]


def rating_request(settings: RunSettings, rubric: Rubric, row: Candidate, seed: int) -> Request:
    """Asks for the rating of a row; `read_rating` reads the answer."""
    local = settings.backend == "local"
    system = settings.prompt(
        "judge_rows",
        lowest=str(rubric.lowest),
        highest=str(rubric.highest),
        criteria=rubric.describe(),
        form=rubric.form(),
    )
    return _structured(
        settings,
        system,
        f"{_task(row)}\n\nANSWER:\n{row.output}",
        seed,
        rubric.answer_schema(longest=REASON_LENGTH // 2 if local else None),
    )


def rate(
    settings: RunSettings, rubric: Rubric, row: Candidate, seed: int, complete: Complete
) -> Rating | None:
    """What the model says of a row by the rubric; None where that cannot be read."""
    return read_rating(complete(rating_request(settings, rubric, row, seed)).text, rubric)


def _compare(settings: JudgeSettings, plan: Plan, source: Source, complete: Complete) -> Candidate:
    """The better of two rows, or that of IN where neither is; both orders are asked for."""
    row, rival = _row(source), _row(settings.rivals[task_name(source)])
    if row.output == rival.output:
        return _noted(row, {"pair": {"winner": TIE, "consistent": True, "same": True}})
    said, better, reasons = [], [], []
    for step, (first, second) in enumerate(((row, rival), (rival, row))):
        choice = complete(_pair_request(settings, plan, step, first, second)).choices[0]
        read = read_preference(choice.text)
        if read is None:
            return _unreadable(row, choice)
        order = {"first": IN, "second": RIVAL} if step == 0 else {"first": RIVAL, "second": IN}
        said.append(order.get(read[0], TIE))
        better.append(read[0])
        reasons.append(read[1])
    winner = said[0] if said[0] == said[1] else TIE
    pair = {
        "winner": winner,
        "consistent": said[0] == said[1],
        "said": said,
        "better": better,
        "reasons": reasons,
    }
    return _noted(rival if winner == RIVAL else row, {"pair": pair})


def _pair_request(
    settings: JudgeSettings, plan: Plan, step: int, first: Candidate, second: Candidate
) -> Request:
    system = settings.prompt("judge_pairs", criteria=settings.criteria.describe())
    user = f"{_task(first)}\n\nFIRST ANSWER:\n{first.output}\n\nSECOND ANSWER:\n{second.output}"
    return _structured(settings, system, user, seed_of_choice(plan, step), PAIR_SCHEMA)


def read_preference(text: str) -> tuple[str, str] | None:
    """`first`, `second` or `tie` with the reason for it: of JSON anywhere in the text, else its last such word."""
    for value in read_objects(text):
        word = value.get("better", value.get("winner"))
        if isinstance(word, str) and (found := _WORDS.get(word.strip().lower().removesuffix(" answer"))):
            reason = value.get("reason", "")
            return found, reason[:REASON_LENGTH] if isinstance(reason, str) else ""
    if words := _BETTER.findall(text):
        return words[-1].lower(), text.strip()[:REASON_LENGTH]
    return None


def _structured(settings: RunSettings, system: str, user: str, seed: int, schema: dict[str, JSON]) -> Request:
    """A question that is answered with an object of the schema, where the server can hold a model to one."""
    tokens = settings.max_output_tokens or 640
    temperature = settings.temperature or 0.0
    request = ask(settings, system, user, "", max_tokens=tokens, temperature=temperature, seed=seed)
    return replace(request, schema=schema)


def _task(row: Candidate) -> str:
    given = f"\n\nINPUT:\n{row.input}" if row.input else ""
    return f"TASK:\n{row.instruction}{given}"


def _row(source: Source) -> Candidate:
    return Candidate(
        source.instruction, source.input, source.output, language=source.language, system=source.system
    )


def _noted(row: Candidate, notes: dict[str, JSON]) -> Candidate:
    return replace(row, notes={**row.notes, **notes})


def _unreadable(row: Candidate, choice: Choice) -> Candidate:
    reason = "cut_off" if is_cut(choice) else "unreadable_judgement"
    return replace(row, rejection=Rejection(reason, {"said": choice.text[:REASON_LENGTH]}))


JOB: Final = Derivation(
    JudgeSettings,
    judge,
    checked=False,
    read=read_tasks,
    samples=('{"better": "first"}',),  # leads through both orders; of a rating there is one step
)
