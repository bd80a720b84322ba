"""The recipe `self-instruct`: the whole pipeline of the paper, an instruction and then instances of it.

A new instruction is asked for as `staged` does it. Then the model says whether it is a classification task.
If it is, the labels come first, and then an input for each label (output first): asked the other way round a
model writes inputs that nearly all have the same answer. If it is none, the input comes first and the output
after it. A task that works on an input gets several instances, each of them a row; one that needs no input
has one right answer and gets one.

Source: Self-Instruct (Wang et al. 2022, section 2.2). Other than there each part is asked for in a call of
its own, so that small models keep to the form, and an instruction that is not new is dropped before its
instances are paid for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from selfinstruct.errors import RequestRefused
from selfinstruct.recipes import ask, is_cut, seed_of_choice
from selfinstruct.records import Candidate, Choice, Rejection, Request
from selfinstruct.seams import Complete, Plan, PoolView
from selfinstruct.settings import Settings
from selfinstruct.staged import (
    answered,
    ask_input,
    given_up,
    output_request,
    with_language,
    write_instruction,
)

CLASSIFICATION = "choose"  # the kind of task that answers with one of several labels
MOST_LABELS = 8
LONGEST_LABEL, LABEL_WORDS = 60, 6  # characters, words: a longer one is an explanation
SHOWN = 300  # characters of an input that is there already
_LINES = f'root ::= line{{2,{MOST_LABELS}}}\nline ::= [^\\n\\r]{{1,{LONGEST_LABEL}}} "\\n"'


@dataclass(frozen=True, slots=True)
class _Part:
    """What is asked about an instruction before there are instances; `step` counts an index's requests."""

    prompt: str
    step: int
    max_tokens: int
    grammar: str


_KIND = _Part("self_instruct_kind", 1, 16, 'root ::= "Yes" | "No"')
_LABELS = _Part("self_instruct_labels", 2, 120, _LINES)
_FIRST_STEP = 3  # of the instances
_ANSWER = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
_FIXED = frozenset({"yes", "no", "true", "false", "valid", "invalid"})
# What begins so asks for something that has to be made or told: no model need be asked for that.
_MAKES = re.compile(
    r"\A\W*(?:please\s+)?(?:write|create|implement|build|develop|design|define|generate|make|add|complete|fill|extend|fix|"
    r"mend|port|convert|translate|rewrite|refactor|optimi[sz]e|simplify|set\s+up|configure|annotate|document|explain|"
    r"describe|summari[sz]e|review|why|how)\b(?!\s+(?:many|often|long|much)\b)",
    re.IGNORECASE,
)
_BULLET = re.compile(r"^\s*(?:[-*\u2022]\s+|\d{1,2}[.)]\s+)?")


def self_instruct(settings: Settings, plan: Plan, view: PoolView, complete: Complete) -> list[Candidate]:
    """One task and its instances, as many as the settings ask for where the task works on an input."""
    candidate, points = write_instruction(settings, plan, view, complete, name_language=False)
    if candidate.rejection is not None:
        return [candidate]
    found = [] if _MAKES.match(candidate.instruction) else _labels(settings, plan, candidate, complete)
    if isinstance(found, Candidate):
        return [found]
    if labels := found:
        candidate, plan = replace(candidate, kind=CLASSIFICATION), replace(plan, kind=CLASSIFICATION)
    if labels or points:
        return _instances(settings, plan, candidate, labels, complete)
    candidate = with_language(candidate, plan)
    (choice, *_) = complete(output_request(settings, plan, candidate, _FIRST_STEP)).choices
    return [answered(settings, plan, candidate, choice)]


def _labels(
    settings: Settings, plan: Plan, candidate: Candidate, complete: Complete
) -> list[str] | Candidate:
    """The labels of a task that is a classification, none of another, or the candidate where a reply is unreadable.

    The models of the embedded engine call nearly everything a classification: there its labels have to be named.
    """
    choice = complete(_question(settings, plan, candidate, _KIND)).choices[0]
    answer = _ANSWER.match(choice.text)
    if answer is None:
        return _unreadable(candidate, "classification", choice)
    if answer[1].lower() == "no":
        return []
    choice = complete(_question(settings, plan, candidate, _LABELS)).choices[0]
    labels = read_labels(choice.text, cut=is_cut(choice))
    if settings.backend == "local":
        text = candidate.instruction.casefold()
        labels = [label for label in labels if label.casefold() in _FIXED or label.casefold() in text]
        return labels if len(labels) > 1 else []
    return labels if len(labels) > 1 else _unreadable(candidate, "labels", choice)


def _instances(
    settings: Settings, plan: Plan, candidate: Candidate, labels: list[str], complete: Complete
) -> list[Candidate]:
    """Inputs with their outputs; what is wrong with one of them does not end the others."""
    found: list[Candidate] = []
    inputs: list[str] = []
    for number in range(settings.instances or 1):
        label = labels[number % len(labels)] if labels else ""
        step = _FIRST_STEP + 2 * number
        one = replace(candidate, instance=number)
        try:
            one = ask_input(settings, plan, one, complete, wanted=_wanted(label, inputs), step=step)
            one = _checked(one, label, inputs)
            if one.rejection is None:
                inputs.append(" ".join(one.input.split()))
                if label:
                    one = replace(one, output=label)
                else:
                    choice = complete(output_request(settings, plan, one, step + 1)).choices[0]
                    one = answered(settings, plan, one, choice)
        except RequestRefused as refusal:
            one = replace(one, rejection=Rejection(refusal.reason, {"message": str(refusal)}))
        found.append(one)
    return found


def _checked(one: Candidate, label: str, inputs: list[str]) -> Candidate:
    """The instance, rejected if its input was there before, or is missing where only it tells the label."""
    if one.rejection is None and " ".join(one.input.split()) in inputs:
        return replace(one, rejection=Rejection("repeated_input", {"instance": one.instance}))
    if one.rejection is None and label and not one.input:
        return replace(one, rejection=Rejection("no_input_for_label", {"label": label}))
    return one


def _wanted(label: str, inputs: list[str]) -> str:
    """What is said of the next input: the answer it shall have, and what it must not be like."""
    text = f"\n\nIn this case the right answer has to be: {label}" if label else ""
    if inputs:
        text += "\n\nIt must not be like these, which are there already:"
        text += "".join(f"\n- {known[:SHOWN]}" for known in inputs)
    return text


def _question(settings: Settings, plan: Plan, candidate: Candidate, part: _Part) -> Request:
    """Ask something about the instruction; where the engine is ours the answer follows a grammar."""
    request = ask(
        settings,
        settings.prompt(part.prompt),
        candidate.instruction,
        "",
        max_tokens=part.max_tokens,
        temperature=0.0,
        seed=seed_of_choice(plan, part.step),
    )
    if settings.backend != "local":
        return request
    return replace(request, extra={**request.extra, "grammar": part.grammar})


def read_labels(text: str, *, cut: bool = False) -> list[str]:
    """The labels of an answer in their order, each once: one a line, or in one line with commas.

    The last one of an answer that is `cut` is left out, and so is what is too long for a label.
    """
    lines = [line for line in text.splitlines() if line.strip(" `\t")]
    if len(lines) == 1:
        lines = lines[0].split(",")
    lines = lines[:-1] if cut else lines
    labels: dict[str, str] = {}
    for line in lines:
        label = _BULLET.sub("", line, count=1).strip(" \t\"'`*.,;")
        if label and len(label) <= LONGEST_LABEL and len(label.split()) <= LABEL_WORDS:
            labels.setdefault(label.casefold(), label)
    return list(labels.values())[:MOST_LABELS]


def _unreadable(candidate: Candidate, part: str, choice: Choice) -> Candidate:
    candidate = replace(candidate, raw=choice.text)
    if is_cut(choice):
        return given_up(candidate, part)
    return replace(candidate, rejection=Rejection("unreadable", {"part": part, "found": choice.text[:80]}))
