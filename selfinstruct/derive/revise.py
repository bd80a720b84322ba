"""The job `revise`: a critique of given code, a revision that follows it, a summary of the flaws; three rows.

Each of the three becomes a row in the layout that code-revise models are trained on. The three stand or fall
together: where there is no revision that differs and verifies, nobody knows whether the critique was right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Final

from selfinstruct import filters
from selfinstruct.derive.flaws import Flaw, break_code, finds_flaw, mends_flaw
from selfinstruct.derive.inputs import read_rows_or_code
from selfinstruct.derive.worklist import Derivation, DeriveSettings
from selfinstruct.parsing import RAW_LIMIT
from selfinstruct.recipes import ask, is_cut, open_fence, seed_of_choice, whole
from selfinstruct.records import JSON, Candidate, Choice, Rejection, Request, Seed, Source
from selfinstruct.seams import Complete, Plan, PoolView
from selfinstruct.settings import SHAPING_ALL
from selfinstruct.verify.code import Code, find_code
from selfinstruct.verify.grammars import parse_tree
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
# The embedded engine ends with a sentence where it would go on for long, and not behind the number of a further point.
PARTS: Final = "\npart ::= [^\\n\\r.?!]{1,250} [.?!]+\nlast ::= [^\\n\\r.?!]{15,250} [.?!]+"
_SENTENCES: Final = r'root ::= (part "\n"{0,2}){0,11} last' + PARTS
_INDENTED = frozenset({"python", "yaml", "haskell", "make"})  # languages whose nesting is white space
_SIGN = re.compile(r"\w+|[^\w\s]")
_CODE_TEMPERATURE = 0.3  # a revision shall be right rather than surprising


class ReviseSettings(DeriveSettings):
    """What `revise` can be told."""

    job: ClassVar[str] = "revise"
    shaping: ClassVar[tuple[str, ...]] = (*SHAPING_ALL, "with_requirement", "break_code")

    with_requirement: bool = False
    break_code: bool = False


def layout(form: str, **texts: str) -> str:
    """One of the three forms with its slots filled; slots inside the texts stay as they are."""
    return _SLOT.sub(lambda slot: texts[slot[1]], form)


class _GivenUp(Exception):
    """There will be no rows, and this is the named reason."""

    def __init__(self, reason: str, part: str, raw: str, evidence: Mapping[str, JSON] | None = None) -> None:
        super().__init__(reason)
        self.rejection = Rejection(reason, {"part": part, **(evidence or {})})
        self.raw = raw[:RAW_LIMIT]


def revise(settings: ReviseSettings, plan: Plan, view: PoolView, complete: Complete) -> list[Candidate]:
    """Three candidates, or one that says why there are none."""
    source = plan.source
    assert source is not None  # noqa: S101 - the work list gives it
    try:
        return _rows(settings, plan, source, view, complete)
    except _GivenUp as why:
        return [
            Candidate(
                source.instruction,
                source.input,
                raw=why.raw,
                language=source.language,
                rejection=why.rejection,
            )
        ]


def _rows(
    settings: ReviseSettings, plan: Plan, source: Source, view: PoolView, complete: Complete
) -> list[Candidate]:
    code = _program(source, source.output, source.language)
    if code is None:
        raise _GivenUp("no_code", "original", source.output)
    language, original = code.language, code.text
    flaw: Flaw | None = None
    if settings.break_code:
        original, flaw = _broken(source, code, plan, view)
    requirement = _requirement(source, language)
    shown = {"requirement": requirement, "original": fenced(original, language)}

    choice = complete(_words(settings, plan, "revise_critique", 0, shown)).choices[0]
    critique = _kept(_text(choice, "critique"), "critique")
    notes: dict[str, JSON] = {}
    if flaw is not None:
        notes = {"flaw": flaw.notes(), "found_by": finds_flaw(critique, flaw)}
        if notes["found_by"] is None:
            raise _GivenUp("flaw_not_found", "critique", critique, notes)

    choice = complete(_code(settings, plan, shown | {"critique": critique}, language)).choices[0]
    _text(choice, "revision")
    answer = whole(choice.text, open_fence(settings, language))
    revised = _revised(source, original, answer, language, view)
    if flaw is not None and not mends_flaw(revised, original, flaw):
        raise _GivenUp("flaw_not_mended", "revision", answer, notes)

    shown = {"original": shown["original"], "revised": fenced(revised, language)}
    choice = complete(_words(settings, plan, "revise_summary", 2, shown)).choices[0]
    summary = _kept(_text(choice, "summary"), "summary")

    texts = {"ORIGINAL": original, "CRITIQUE": critique, "REVISED": revised}
    given = requirement if settings.with_requirement else ""
    rows = (
        (CRITIQUE, critique, "review"), (REVISION, revised, "revise"), (SUMMARY, summary, "summarise"),
    )  # fmt: skip
    return [
        Candidate(layout(form, **texts), given, output, language=language, kind=kind, notes=notes)
        for form, output, kind in rows
    ]


def _program(source: Source, answer: str, language: str | None) -> Code | None:
    """The code of an answer to the source's task; a file of code is one from its first line to its last."""
    if not source.instruction and answer is source.output:
        return Code(language, answer, "bare")
    return find_code(source.instruction, source.input, answer, language).program


def _broken(source: Source, code: Code, plan: Plan, view: PoolView) -> tuple[str, Flaw]:
    """The code with a flaw that is known; what verifies is taken for correct."""
    language = code.language or ""
    if (found := view.verify(_answer(source, code.text, code.language))) is not None:
        raise _GivenUp("original_fails", "original", code.text, {"why": found.reason, **found.evidence})
    broken = break_code(code.text, language, plan.seed, parse_tree)
    if broken is None:
        raise _GivenUp("not_breakable", "original", code.text, {"language": language})
    return broken


def _revised(source: Source, original: str, answer: str, language: str | None, view: PoolView) -> str:
    """The code of a revision that is kept: one that differs and verifies."""
    found = _program(source, answer, language)
    if found is None or not found.text.strip():
        raise _GivenUp("no_code", "revision", answer)
    if shape_of(found.text, language) == shape_of(original, language):
        raise _GivenUp("unchanged", "revision", answer)
    if (rejection := view.verify(_answer(source, found.text, language))) is not None:
        raise _GivenUp(rejection.reason, "revision", answer, rejection.evidence)
    return _kept(found.text, "revision")


def shape_of(code: str, language: str | None) -> list[tuple[int | str, ...]]:
    """What code says whatever its white space: its words and signs, and how its lines are nested where that counts."""
    lines = [(len(line) - len(line.lstrip()), line) for line in code.expandtabs().split("\n") if line.strip()]
    if language not in _INDENTED:
        return [tuple(_SIGN.findall(code))]
    depths = {width: depth for depth, width in enumerate(sorted({width for width, _ in lines}))}
    return [(depths[width], *_SIGN.findall(line)) for width, line in lines]


def _answer(source: Source, code: str, language: str | None) -> Candidate:
    """The code as an answer to the source's task, for verification."""
    return Candidate(source.instruction, source.input, fenced(code, language), language=language)


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
    request = ask(
        settings,
        "",
        settings.prompt(prompt, **shown),
        "",
        max_tokens=min(_WORDS_TOKENS, settings.max_output_tokens or _WORDS_TOKENS),
        temperature=settings.temperature or 0.0,
        seed=seed_of_choice(plan, step),
    )
    if settings.backend != "local":
        return request
    return replace(request, extra={**request.extra, "grammar": _SENTENCES})


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


def _text(choice: Choice, part: str) -> str:
    """The text of an answer that is whole and says something."""
    if is_cut(choice):
        raise _GivenUp("cut_off", part, choice.text)
    if not choice.text.strip():
        raise _GivenUp("empty_reply", part, choice.text)
    return choice.text.strip()


def _kept(text: str, part: str) -> str:
    """The text, if the filters let it pass: one part that is refused takes the others with it."""
    if (refused := refuse(Candidate(output=text), ())) is not None:
        raise _GivenUp(refused.reason, part, text, refused.evidence)
    return text


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
