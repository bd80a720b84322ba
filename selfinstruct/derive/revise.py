"""The job `revise`: a critique of given code, a revision that follows it, a summary of the flaws; three rows.

Each of the three becomes a row in the layout that code-revise models are trained on. The three stand or fall
together: where there is no revision that differs and verifies, nobody knows whether the critique was right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar, Final

from selfinstruct import filters
from selfinstruct.derive.inputs import read_rows_or_code
from selfinstruct.derive.worklist import Derivation, DeriveSettings
from selfinstruct.parsing import RAW_LIMIT
from selfinstruct.recipes import ask, is_cut, open_fence, seed_of_choice, whole
from selfinstruct.records import Candidate, Choice, Rejection, Request, Seed, Source
from selfinstruct.seams import Complete, Plan, PoolView
from selfinstruct.settings import SHAPING_ALL
from selfinstruct.verify.code import Code, find_code
from selfinstruct.vocabulary import LANGUAGES

# A format: the models that read it were trained on these very texts, blanks and all.
CRITIQUE: Final = "Please critique the following codes based on their requirements: \n\nORIGINAL:\n{ORIGINAL}"
REVISION: Final = (
    "Please revise the following codes based on their requirement and comment: \n\nORIGINAL:\n{ORIGINAL}"
    "\n\nCOMMENT:\n{CRITIQUE}"
)
SUMMARY: Final = (
    "Please summarise the flaws of the code by comparing the original code and its revise: \n\nORIGINAL:\n"
    "{ORIGINAL}\n\nREVISED:\n{REVISED}"
)
_SLOT = re.compile(r"\{(ORIGINAL|CRITIQUE|REVISED)\}")
_WORDS_TOKENS = 400  # of a critique or a summary
_CODE_TEMPERATURE = 0.3  # a revision shall be right rather than surprising


class ReviseSettings(DeriveSettings):
    """What `revise` can be told."""

    job: ClassVar[str] = "revise"
    shaping: ClassVar[tuple[str, ...]] = (*SHAPING_ALL, "with_requirement")

    with_requirement: bool = False


def layout(form: str, **texts: str) -> str:
    """One of the three forms with its slots filled; slots inside the texts stay as they are."""
    return _SLOT.sub(lambda slot: texts[slot[1]], form)


def revise(settings: ReviseSettings, plan: Plan, view: PoolView, complete: Complete) -> list[Candidate]:
    """Three candidates, or one that says why there are none."""
    source = plan.source
    assert source is not None  # noqa: S101 - the work list gives it
    program = _program(source, source.output, source.language)
    if program is None:
        return [_given_up(source, "no_code", "original", source.output)]
    language, original = program.language, program.text
    requirement = _requirement(source, language)
    shown = {"requirement": requirement, "original": fenced(original, language)}

    choice = complete(_words(settings, plan, "revise_critique", 0, shown)).choices[0]
    critique = choice.text.strip()
    if (rejected := _unusable(source, "critique", choice)) is not None:
        return [rejected]

    choice = complete(_code(settings, plan, shown | {"critique": critique}, language)).choices[0]
    answer = whole(choice.text, open_fence(settings, language))
    if (rejected := _unusable(source, "revision", choice)) is not None:
        return [rejected]
    found = _program(source, answer, language)
    revised = found.text if found else ""
    if (rejected := _not_kept(source, original, revised, answer, language, view)) is not None:
        return [rejected]

    shown = {"original": shown["original"], "revised": fenced(revised, language)}
    choice = complete(_words(settings, plan, "revise_summary", 2, shown)).choices[0]
    if (rejected := _unusable(source, "summary", choice)) is not None:
        return [rejected]
    texts = {"ORIGINAL": original, "CRITIQUE": critique, "REVISED": revised}
    given = requirement if settings.with_requirement else ""
    rows = (
        (CRITIQUE, critique, "review"),
        (REVISION, revised, "revise"),
        (SUMMARY, choice.text.strip(), "summarise"),
    )
    return [
        Candidate(layout(form, **texts), given, output, language=language, kind=kind)
        for form, output, kind in rows
    ]


def _program(source: Source, answer: str, language: str | None) -> Code | None:
    """The code of an answer to the source's task; a file of code is one from its first line to its last."""
    if not source.instruction and answer is source.output:
        return Code(language, answer, "bare")
    return find_code(source.instruction, source.input, answer, language).program


def _requirement(source: Source, language: str | None) -> str:
    """What the code was written for: the task it answers, or what can be told of a file."""
    if source.instruction:
        return f"{source.instruction}\n\n{source.input}".strip()
    name = LANGUAGES[language].display if language in LANGUAGES else "code"
    return f"A file of a program in {name}. Its purpose is told by the code itself, its names and comments."


def fenced(text: str, language: str | None) -> str:
    """The text as a fenced block; the fence is longer than any inside."""
    marks = "`" * max([3, *(len(run) + 1 for run in re.findall("`{3,}", text))])
    return f"{marks}{language or ''}\n{text}\n{marks}"


def _words(settings: ReviseSettings, plan: Plan, prompt: str, step: int, shown: dict[str, str]) -> Request:
    return ask(
        settings,
        "",
        settings.prompt(prompt, **shown),
        "",
        max_tokens=min(_WORDS_TOKENS, settings.max_output_tokens or _WORDS_TOKENS),
        temperature=settings.temperature or 0.0,
        seed=seed_of_choice(plan, step),
    )


def _code(settings: ReviseSettings, plan: Plan, shown: dict[str, str], language: str | None) -> Request:
    return ask(
        settings,
        "",
        settings.prompt("revise_revision", **shown),
        open_fence(settings, language),
        max_tokens=settings.max_output_tokens or 1024,
        temperature=min(settings.temperature or 0.0, _CODE_TEMPERATURE),
        seed=seed_of_choice(plan, 1),
    )


def _unusable(source: Source, part: str, choice: Choice) -> Candidate | None:
    """The rejection of an answer that was cut off or says nothing."""
    if is_cut(choice):
        return _given_up(source, "cut_off", part, choice.text)
    return None if choice.text.strip() else _given_up(source, "empty_reply", part, choice.text)


def _not_kept(
    source: Source, original: str, revised: str, answer: str, language: str | None, view: PoolView
) -> Candidate | None:
    """Why a revision is not kept: it holds no code, is the original again, or does not verify."""
    if not revised.strip():
        return _given_up(source, "no_code", "revision", answer)
    if revised.split() == original.split():
        return _given_up(source, "unchanged", "revision", answer)
    found = view.verify(
        Candidate(source.instruction, source.input, fenced(revised, language), language=language)
    )
    if found is None:
        return None
    return _given_up(source, found.reason, "revision", answer, found.evidence)


def _given_up(
    source: Source, reason: str, part: str, raw: str, evidence: dict[str, object] | None = None
) -> Candidate:
    return Candidate(
        source.instruction,
        source.input,
        raw=raw[:RAW_LIMIT],
        language=source.language,
        rejection=Rejection(reason, {"part": part, **(evidence or {})}),
    )


def refuse(candidate: Candidate, _: Sequence[Seed]) -> Rejection | None:
    """The filters, for the answer alone: the rest of the row is a format around somebody else's code."""
    return filters.first_of(FILTERS, Candidate(output=candidate.output), ())


FILTERS: Final = (
    filters.control_characters, filters.empty_output, filters.output_too_long, filters.placeholder_leak,
    filters.refusal, filters.unanswered, filters.degenerate_repetition, filters.unfinished_code,
)  # fmt: skip
JOB = Derivation(
    ReviseSettings,
    revise,
    refuse=refuse,
    expected_yield=2.0,
    samples=(
        "The second line returns the wrong sign.",
        "```python\ndef f(x):\n    return -x\n```",
        "The sign of the result was wrong; it is turned round now.",
    ),
    checked=False,
    read=lambda settings: read_rows_or_code(settings.inputs),
)
