"""Repair: an answer that failed goes back to the model with what went wrong. Makes the request, reads the reply.

Whether the new answer is any better is for the verifier to say.
"""

from __future__ import annotations

from dataclasses import replace

from selfinstruct.parsing import strip_fence
from selfinstruct.recipes import ask, is_cut, open_fence, seed_of_choice, whole
from selfinstruct.records import Candidate, Choice, Rejection, Request
from selfinstruct.seams import Plan
from selfinstruct.settings import RunSettings

MOST_TOKENS = 1536
TEMPERATURE = 0.4
FIRST_STEP = 1000  # added to the plan's seed, away from the steps of recipes and tests
_SHOWN = 1500  # characters of an error; what matters stands at its end


def repair_request(
    settings: RunSettings,
    plan: Plan,
    step: int,
    candidate: Candidate,
    rejection: Rejection,
    language: str | None,
) -> Request:
    """Ask for the answer anew; `step` differs for every try of an index."""
    given = f"\n\nInput:\n```\n{candidate.input}\n```" if candidate.input else ""
    answer = f"\n\nThe answer:\n```{language or ''}\n{candidate.output}\n```"
    return ask(
        settings,
        settings.prompt("verify_repair"),
        f"{candidate.instruction}{given}{answer}\n\nWhat went wrong:\n{_told(rejection)}",
        open_fence(settings, language),
        max_tokens=min(settings.max_output_tokens or MOST_TOKENS, MOST_TOKENS),
        temperature=min(settings.temperature or 0.0, TEMPERATURE),
        seed=seed_of_choice(plan, FIRST_STEP + step),
    )


def read_repair(
    settings: RunSettings, candidate: Candidate, choice: Choice, language: str | None
) -> Candidate | None:
    """The candidate with its new answer; None where that was cut off, is empty or is the old one."""
    output, _ = strip_fence(whole(choice.text, open_fence(settings, language)).rstrip())
    if is_cut(choice) or not output.strip() or output.strip() == candidate.output.strip():
        return None
    return replace(candidate, output=output, raw=choice.text)


def _told(rejection: Rejection) -> str:
    parts = [rejection.reason.replace("_", " ")]
    for name, value in rejection.evidence.items():
        parts.append(f"{name}: {value}" if "\n" not in str(value) else f"{name}:\n{value}")
    text = "\n".join(parts)
    return text if len(text) <= _SHOWN else f"{parts[0]}\n[...]{text[-_SHOWN:]}"
