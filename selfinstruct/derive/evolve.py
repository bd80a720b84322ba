"""The job `evolve`: tasks that grow harder, or turn to something rarer, round by round, each with an answer.

All rounds of a row are one index: a round works on what the last good one came to, and what fails ends only
its round. So a run is cut and goes on between rows like any other.

Source: WizardLM (Xu et al. 2023) evolves instructions in depth and in breadth and eliminates what failed;
WizardCoder (Luo et al. 2023) does it for code, with misleading code as a reference. Prompts, operations and
the rules of elimination are our own.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Final, Literal

from pydantic import Field, field_validator
from rapidfuzz.distance import Indel

from selfinstruct import filters
from selfinstruct.derive.tasks import answer, draw_in_turn, show_task, task_of, task_request
from selfinstruct.derive.worklist import Derivation, DeriveSettings
from selfinstruct.errors import RequestRefused
from selfinstruct.recipes import ask, is_cut, seed_of_choice
from selfinstruct.records import JSON, Candidate, Choice, Rejection, Request, row_id
from selfinstruct.seams import Complete, Plan, PoolView
from selfinstruct.settings import SHAPING_ALL
from selfinstruct.verify.mentions import read_wish

DEPTH: Final = ("constraints", "rarer", "reasoning", "complexity", "misleading")
BREADTH: Final = "breadth"
OPERATIONS: Final = (*DEPTH, BREADTH)
UNCHANGED: Final = 0.9  # ROUGE-L above which a task in depth is its parent again
_STEPS = 4  # requests of a round at most: the task, the comparison and its opposite, the answer
_COMPARE_TOKENS = 16
_EASIER_OR_HARDER = 'root ::= "easier" | "equal" | "harder"'
_SAID = re.compile(r"\b(easier|equal|harder)(?:ly)?\b", re.IGNORECASE)
_WORD = re.compile(r"\w+|[^\w\s]")


class EvolveSettings(DeriveSettings):
    """What `evolve` can be told."""

    job: ClassVar[str] = "evolve"
    shaping: ClassVar[tuple[str, ...]] = (
        *SHAPING_ALL, "rounds", "operations", "difficulty", "threshold", "language_cap",
    )  # fmt: skip

    rounds: int = Field(default=1, ge=1, le=20)
    operations: tuple[str, ...] = OPERATIONS
    difficulty: Literal["judge", "length"] = "judge"
    threshold: float = Field(default=0.7, ge=0, le=1)
    language_cap: int = Field(default=3, ge=1)

    @field_validator("operations")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(names) - set(OPERATIONS))
        if unknown or not names:
            raise ValueError(f"no such operation: {', '.join(unknown)}; there are {', '.join(OPERATIONS)}")
        return tuple(dict.fromkeys(names))


def evolve(settings: EvolveSettings, plan: Plan, view: PoolView, complete: Complete) -> list[Candidate]:
    """One candidate for each round; the next round goes on from the last that was not rejected here."""
    assert plan.source is not None  # noqa: S101 - jobs over given data have one
    source = plan.source
    parent = Candidate(source.instruction, source.input, source.output, language=source.language)
    name, found = source.id, []
    drawn = draw_in_turn(settings.operations, settings.rounds, f"{plan.seed}:operations")
    for turn, operation in enumerate(drawn):
        notes: dict[str, JSON] = {"operation": operation, "round": turn + 1, "parent": name}
        known = Candidate(language=parent.language, notes={"evolved": notes}, instance=turn)
        try:
            child = _one_round(settings, plan, view, complete, parent, known)
        except RequestRefused as refusal:  # the rounds before are kept
            child = replace(known, rejection=Rejection(refusal.reason, {"message": str(refusal)}))
        if child.rejection is None:
            parent, name = child, row_id(child.row)
        found.append(child)
    return found


def _one_round(
    settings: EvolveSettings,
    plan: Plan,
    view: PoolView,
    complete: Complete,
    parent: Candidate,
    known: Candidate,
) -> Candidate:
    """The task that a round makes of its parent; nothing more is asked once it is bound to fail."""
    operation, step = known.notes["evolved"]["operation"], _STEPS * known.instance
    task = show_task(parent.instruction, parent.input)
    shown = partial(settings.prompt, "evolve_breadth")
    if operation != BREADTH:
        shown = partial(settings.prompt, "evolve_depth", how=settings.prompt(f"evolve_by_{operation}"))
    misleading = operation == "misleading"
    request = task_request(settings, shown(task=task), seed_of_choice(plan, step), code=misleading)
    child = task_of(complete(request).choices[0], known, shown(task=""))
    if child.rejection is not None:
        return child
    if operation != BREADTH and parent.input and not child.input:
        child = replace(child, input=parent.input)  # what did not change was left out, against the order
    rejection = eliminate(parent, child, settings.threshold if operation == BREADTH else UNCHANGED)
    if rejection is not None:
        return replace(child, rejection=rejection)
    if (refused := view.judge_instruction(child)) is not None:
        return refused
    if operation != BREADTH and settings.difficulty == "judge":
        child = _compared(settings, plan, step + 1, complete, parent, child)
        if child.rejection is not None:
            return child
    child = answer(settings, "evolve_answer", child, seed_of_choice(plan, step + 3), complete)
    if child.rejection is None and child.output.split() == parent.output.split():
        return replace(child, rejection=Rejection("same_answer"))  # then nothing new was asked for
    return child


def eliminate(parent: Candidate, child: Candidate, threshold: float) -> Rejection | None:
    """What can be said against an evolved task without asking.

    It is the same again (`unchanged`), became shorter (`easier`), turned to another programming language
    (`other_language`), or shall mislead without any code of its own (`no_code`).

    Args:
        parent: the task before.
        child: the task after; its notes tell the operation.
        threshold: ROUGE-L over all words and signs above which it counts as the same.
    """
    before, after = _words(parent), _words(child)
    alike = Indel.normalized_similarity(before, after)  # 2 LCS / (a + b), which is ROUGE-L's F
    if alike > threshold:
        return Rejection("unchanged", {"score": round(alike, 4)})
    operation = child.notes["evolved"]["operation"]
    if operation != BREADTH and len(after) < len(before):  # every operation in depth adds something
        return Rejection("easier", {"why": "shorter", "words": [len(before), len(after)]})
    if operation == "misleading" and child.input == parent.input:
        return Rejection("no_code", {"operation": operation})
    old, new = (read_wish(task.instruction).languages for task in (parent, child))
    if old and new and not set(old) & set(new):
        return Rejection("other_language", {"before": list(old), "after": list(new)})
    return None


def _words(task: Candidate) -> list[str]:
    return _WORD.findall(f"{task.instruction}\n{task.input}".lower())


def _compared(
    settings: EvolveSettings, plan: Plan, step: int, complete: Complete, parent: Candidate, child: Candidate
) -> Candidate:
    """The child with what the model says of its difficulty; rejected if it got easier.

    Models prefer a place in the prompt, so `easier` counts only if they say the same with both tasks exchanged.
    """
    tasks = [show_task(one.instruction, one.input) for one in (parent, child)]
    choice = complete(_compare_request(settings, plan, step, *tasks)).choices[0]
    said = _difficulty(choice)
    if said == "easier":
        choice = complete(_compare_request(settings, plan, step + 1, *tasks[::-1])).choices[0]
        other = _difficulty(choice)
        said = said if other == "harder" else other and "undecided"
    if said is None:
        reason = "cut_off" if is_cut(choice) else "unreadable"
        return replace(child, rejection=Rejection(reason, {"part": "comparison", "found": choice.text[:80]}))
    child = replace(child, notes={"evolved": child.notes["evolved"] | {"difficulty": said}})
    return replace(child, rejection=Rejection("easier", {"why": "judged"})) if said == "easier" else child


def _compare_request(settings: EvolveSettings, plan: Plan, step: int, before: str, after: str) -> Request:
    request = ask(
        settings,
        "",
        settings.prompt("evolve_compare", before=before, after=after),
        "",
        max_tokens=_COMPARE_TOKENS,
        temperature=0.0,
        seed=seed_of_choice(plan, step),
    )
    if settings.backend != "local":
        return request
    return replace(request, extra={**request.extra, "grammar": _EASIER_OR_HARDER})


def _difficulty(choice: Choice) -> str | None:
    """`easier`, `equal` or `harder`; None if the reply says none of them."""
    found = _SAID.search(choice.text)
    return found[1].lower() if found else None


JOB: Final[Derivation[Any]] = Derivation(
    EvolveSettings,
    evolve,
    refuse=filters.refuse,
    refuse_instruction=filters.refuse_instruction,
    expected_yield=0.5,
    novel=True,
    samples=(
        "Write a function that merges overlapping intervals in one pass, and prove that it ends.",
        "harder",
        "x",
    ),
)
