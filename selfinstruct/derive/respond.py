"""The job `respond`: the instructions of a dataset answered anew, under system messages drawn by weight.

The system message of a row depends on the seed and the row alone, so it stays the same wherever the row stands.
Best-of-N asks several times and keeps one answer; what makes it the best is said by `--pick`.

Source: answers under a mix of system messages that ask for explanations are the way of Orca (Mukherjee et al.
2023); the messages here are our own.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from selfinstruct import filters
from selfinstruct.derive.judge import rate
from selfinstruct.derive.rubric import read_rubric
from selfinstruct.derive.worklist import Derivation, DeriveSettings
from selfinstruct.errors import RequestRefused
from selfinstruct.parsing import RAW_LIMIT
from selfinstruct.recipes import ask, is_cut, seed_of_choice
from selfinstruct.records import Candidate, Rejection, Request, Seed, Source
from selfinstruct.seams import Complete, Plan, PoolView
from selfinstruct.settings import SHAPING_ALL
from selfinstruct.toml_files import read_model
from selfinstruct.verify.code import find_code

FILTERS: Final = (
    filters.control_characters, filters.empty_output, filters.output_too_long, filters.placeholder_leak,
    filters.prompt_leak, filters.refusal, filters.unanswered, filters.degenerate_repetition,
    filters.unfinished_code,
)  # fmt: skip
ECHOES: Final = (  # these compare the answer with the rest of the row
    filters.input_repeated_as_output, filters.instruction_repeated_as_output,
)  # fmt: skip


class Message(BaseModel):
    """A system message of the file; an empty text is none."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    name: str = Field(min_length=1)
    text: str
    weight: float = Field(default=1.0, ge=0)


class Messages(BaseModel):
    """The file of system messages."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    message: tuple[Message, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _sound(self) -> Messages:
        names = [each.name for each in self.message]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"the name {min(twice)!r} stands there twice")
        if not any(each.weight for each in self.message):
            raise ValueError("one weight must be above 0")
        return self


class RespondSettings(DeriveSettings):
    """What `respond` can be told."""

    job: ClassVar[str] = "respond"
    shaping: ClassVar[tuple[str, ...]] = (*SHAPING_ALL, "samples", "pick")

    system_messages: Path | None = None
    samples: int = Field(default=1, ge=1, le=64)
    pick: Literal["tests", "judge", "longest"] = "tests"

    @model_validator(mode="after")
    def _can_pick(self) -> RespondSettings:
        if self.samples > 1 and self.pick == "tests" and self.verify == "off":
            raise ValueError("pick: tests picks by --verify, which is off; turn it on, or pick otherwise")
        return self

    @cached_property
    def messages(self) -> tuple[Message, ...]:
        """The system messages; read once."""
        return read_messages(self.system_messages)

    def digests(self) -> dict[str, str]:
        """Hashes of the system messages, and of what a judge goes by where there is one."""
        told = repr(self.messages).encode("utf-8", "surrogatepass")
        found = {"system_messages": hashlib.sha256(told).hexdigest()[:16]}
        if self.samples > 1 and self.pick == "judge":
            rubric = read_rubric().model_dump_json().encode("utf-8", "surrogatepass")
            found |= {"rubric": hashlib.sha256(rubric).hexdigest()[:16]}
            found |= {"judge_prompts": self.prompts_digest("judge_")}
        return found


def read_messages(path: Path | None = None) -> tuple[Message, ...]:
    """The system messages of a TOML file, or our own.

    Raises:
        InputError: the file cannot be read, or is no such list; says where.
    """
    file = path or Path(__file__).with_name("system_messages.toml")
    return read_model(Messages, file, "the system messages").message


def draw_message(messages: Sequence[Message], seed: int, source: Source) -> Message:
    """The message that a row is answered under: by its id, so it is the same in every run and at every place."""
    rng = random.Random(f"{seed}:{source.id}:system message")
    (drawn,) = rng.choices(messages, weights=[each.weight for each in messages])
    return drawn


def respond(settings: RespondSettings, plan: Plan, view: PoolView, complete: Complete) -> list[Candidate]:
    """The row with its new answer, or why there is none."""
    source = plan.source
    assert source is not None  # noqa: S101 - the work list gives it
    message = draw_message(settings.messages, settings.seed, source)

    def answer(number: int) -> Candidate:
        known = Candidate(
            source.instruction,
            source.input,
            language=source.language,
            system=message.text,
            notes={"system_message": message.name},
        )
        try:
            choice = complete(_request(settings, plan, message, number)).choices[0]
        except RequestRefused as refusal:  # the other samples are asked for all the same
            return replace(known, rejection=Rejection(refusal.reason, {"message": str(refusal)}))
        found = replace(known, output=choice.text.strip("\n").rstrip(), raw=choice.text[:RAW_LIMIT])
        if is_cut(choice):
            return replace(found, rejection=Rejection("cut_off", {"part": "output"}))
        return replace(found, rejection=Rejection("no_code") if _lost_its_code(source, found) else None)

    if not source.instruction.strip():
        return [Candidate(output=source.output, rejection=Rejection("no_instruction"))]
    if settings.samples == 1:
        return [answer(0)]
    if settings.pick == "tests":
        return [_first_that_passes(settings.samples, answer, view)]
    answers = [answer(number) for number in range(settings.samples)]
    usable = [number for number, each in enumerate(answers) if _objection(each, view) is None]
    if settings.pick == "longest":
        scores: dict[int, float] = {number: len(answers[number].output) for number in usable}
    else:
        scores = _rated(settings, plan, {number: answers[number] for number in usable}, complete)
    if not scores:
        none = answers[usable[0] if usable else 0]
        unread = Rejection("unreadable_judgement") if usable else none.rejection
        return [replace(none, rejection=unread, notes={**none.notes, "samples": settings.samples})]
    best = max(scores, key=lambda number: (scores[number], -number))
    return [
        _noted(answers[best], picked=best, samples=settings.samples, usable=len(usable), score=scores[best])
    ]


def _lost_its_code(source: Source, found: Candidate) -> bool:
    """Whether the row was answered with code, is not a matter of words, and is not answered with code any more."""
    code = find_code(found.instruction, found.input, found.output)
    if code.blocks or code.prose or not found.output:
        return False
    return bool(find_code(source.instruction, source.input, source.output).blocks)


def _first_that_passes(samples: int, answer: Callable[[int], Candidate], view: PoolView) -> Candidate:
    """Answers are asked for until one passes; where none does, the last one is to be rejected."""
    for number in range(samples):
        found = answer(number)
        if _objection(found, view) is None and view.verify(found) is None:
            break
    return _noted(found, picked=number, samples=number + 1)


def _objection(candidate: Candidate, view: PoolView) -> Rejection | None:
    """Why an answer would be rejected, as far as that can be told without running it."""
    return candidate.rejection or view.refuse(candidate, ())


def _rated(
    settings: RespondSettings, plan: Plan, answers: Mapping[int, Candidate], complete: Complete
) -> dict[int, float]:
    """What the judge gives each answer; those whose rating is refused or cannot be read are left out."""
    rubric, scores = read_rubric(), dict[int, float]()
    for number, each in answers.items():
        rating = None
        with suppress(RequestRefused):
            rating = rate(settings, rubric, each, seed_of_choice(plan, settings.samples + number), complete)
        if rating is not None:
            scores[number] = rating.score
    return scores


def _noted(candidate: Candidate, **notes: float) -> Candidate:
    return replace(candidate, notes={**candidate.notes, **notes})


def _request(settings: RespondSettings, plan: Plan, message: Message, number: int) -> Request:
    assert plan.source is not None  # noqa: S101 - the work list gives it
    text = settings.prompt("respond_task", instruction=plan.source.instruction, input=plan.source.input)
    return ask(
        settings,
        message.text,
        text.strip(),
        "",
        max_tokens=settings.max_output_tokens or 2048,
        temperature=settings.temperature or 0.0,
        seed=seed_of_choice(plan, number),
    )


def refuse(candidate: Candidate, _: Sequence[Seed]) -> Rejection | None:
    """The filters for the new answer: what the user's row asks is not judged here."""
    answer = Candidate(output=candidate.output)
    return filters.first_of(FILTERS, answer, ()) or filters.first_of(ECHOES, candidate, ())


JOB = Derivation(RespondSettings, respond, refuse=refuse, expected_yield=0.9)
