"""The job `converse`: follow-up turns to each row, question after question, as a programmer would go on.

Each turn is a row of the run's own dataset; that of conversations is laid out of them by `conversation_files`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import Field

from selfinstruct import filters
from selfinstruct.data.rows import Example, Message, join
from selfinstruct.derive.conversation_files import MARKS, estimate
from selfinstruct.derive.tasks import beginning, draw_in_turn, repeated
from selfinstruct.derive.worklist import Derivation, DeriveSettings
from selfinstruct.errors import RequestRefused
from selfinstruct.journal import commit_of
from selfinstruct.parsing import RAW_LIMIT, SENTENCE_ENDS
from selfinstruct.recipes import ask, is_cut, seed_of_choice
from selfinstruct.records import Candidate, Rejection, Request, Seed
from selfinstruct.seams import Complete, Plan, PoolView
from selfinstruct.settings import SHAPING_ALL
from selfinstruct.store import read_log

Said = list[tuple[str, str]]  # (role, content)
_QUESTION_TOKENS = 200
_ANSWER_TEMPERATURE = 0.3  # an answer shall be right rather than surprising
_SPEAKER: Final = {"system": "Rules", "user": "Programmer", "assistant": "Assistant"}
_LABEL = re.compile(
    r"^[\s*#>-]*(?:the )?(?:programmer|user|follow-up|question|human)[\s*]*:[\s*]*", re.IGNORECASE
)
# Thanks, assent, and talk about the programmer are no message that anybody could answer.
_NO_QUESTION = re.compile(
    r"\A\W*(?:sure|certainly|of course|okay|ok|great|understood|thanks?|thank you|i see|got it|yes|no|"
    r"you(?:'|\u2019)re welcome|perfect|sounds good)\b[^?]{0,200}\Z|\A\W*the (?:programmer|assistant)\b",
    re.IGNORECASE,
)
# What a turn is for, and how the embedded engine has it begin: small models would rather thank, or answer.
MOVES: Final = {
    "change": ("Can you change", "Could you make", "Change", "Rewrite", "Rename", "Make", "Instead of"),
    "add": ("Add", "Can you add", "Can you also", "Now add"),
    "test": ("Write a test", "Can you write a test", "Can you test", "Show me a test"),
    "reason": ("Why does", "Why do you", "Why is", "Why did you", "What is the reason for", "What does the"),
    "case": ("What happens if", "What happens when", "What does it do if", "Does it", "Will it", "What if"),
    "use": ("How do I", "How would I", "Show me how", "Can I use", "Can you show"),
    "other": ("Is there", "Can it be done", "Can this be done", "Could you do it", "How would you do it"),
}
# Up to its end; a name like `list.append` or a sign like != does not end it.
_SENTENCE = r"sign{10,250} [.?!]" + "\n" + r"sign ::= [^\n\r.?!] | [.!] [a-z0-9_(=)\"'`/]"
_OTHER = re.compile(r"^\W*(?:the )?(?:assistant|answer|response)\W*:", re.IGNORECASE | re.MULTILINE)


class ConverseSettings(DeriveSettings):
    """What `converse --turns` can be told. `length` is the flag --max-tokens: tokens of a conversation."""

    job: ClassVar[str] = "converse"
    shaping: ClassVar[tuple[str, ...]] = (*SHAPING_ALL, "turns", "length")

    turns: int = Field(default=1, ge=1, le=50)
    length: int = Field(default=8192, ge=1)


def converse(settings: ConverseSettings, plan: Plan, view: PoolView, complete: Complete) -> list[Candidate]:
    """A candidate for each further turn; one that cannot be kept is the last, for others would build on it."""
    source = plan.source
    assert source is not None  # noqa: S101 - the work list gives it
    said: Said = [("system", source.system)] if source.system else []
    said += [("user", join(source.instruction, source.input)), ("assistant", source.output)]
    turns: list[Candidate] = []
    for turn, move in enumerate(draw_in_turn(tuple(MOVES), settings.turns, f"{plan.seed}:moves")):
        known = Candidate(language=plan.language, notes={"turn": turn + 1, "move": move})
        try:
            candidate = _turn(settings, plan, said, turn, known, complete)
        except RequestRefused as refusal:  # too long for the model, say: the turns before are kept
            candidate = replace(known, rejection=Rejection(refusal.reason, {"message": str(refusal)}))
        rejection = candidate.rejection or refuse(candidate, ()) or view.verify(candidate)
        if rejection is not None:
            return [*turns, replace(candidate, rejection=rejection)]
        turns.append(candidate)
        said += [("user", candidate.instruction), ("assistant", candidate.output)]
    return turns


def _turn(
    settings: ConverseSettings, plan: Plan, said: Said, turn: int, known: Candidate, complete: Complete
) -> Candidate:
    """Question and answer; with its rejection where the model does not give one of them."""
    if _length(said) >= settings.length:
        return replace(known, rejection=Rejection("too_long", {"tokens": _length(said)}))
    move = known.notes["move"]
    prompt = partial(settings.prompt, "converse_question", how=settings.prompt(f"converse_by_{move}"))
    told = _told([one for one in said if one[0] != "system"])
    request = _question_request(settings, plan, prompt(conversation=told), turn, move)
    choice = complete(request).choices[0]
    question = clean_question(choice.text)
    candidate = replace(known, instruction=question, raw=choice.text[:RAW_LIMIT])
    if is_cut(choice):
        return replace(candidate, rejection=Rejection("cut_off", {"part": "question"}))
    if not question:
        return replace(candidate, rejection=Rejection("empty_reply", {"part": "question"}))
    if _NO_QUESTION.match(question):
        return replace(candidate, rejection=Rejection("no_question", {"found": question[:80]}))
    if (line := _leaked(question, prompt(conversation=""))) is not None:
        return replace(candidate, rejection=Rejection("prompt_leak", {"field": "instruction", "found": line}))
    asked_before = (text for role, text in said if role == "user")
    if (before := repeated(question, asked_before)) is not None:
        return replace(candidate, rejection=Rejection("repeated_question", {"before": before}))
    asked = [*said, ("user", question)]
    choice = complete(_answer_request(settings, plan, asked, turn)).choices[0]
    answer = choice.text.strip()
    candidate = replace(candidate, output=answer, raw=choice.text[:RAW_LIMIT])
    if is_cut(choice):
        return replace(candidate, rejection=Rejection("cut_off", {"part": "answer"}))
    if (tokens := _length([*asked, ("assistant", answer)])) > settings.length:
        return replace(candidate, rejection=Rejection("too_long", {"tokens": tokens}))
    return candidate


def _leaked(question: str, prompt: str) -> str | None:
    """The sentence of the prompt that is one of the question's."""
    shown = SENTENCE_ENDS.split(prompt)
    return next((found for part in SENTENCE_ENDS.split(question) if (found := repeated(part, shown))), None)


def _length(said: Said) -> int:
    """Tokens by the estimate, as the layout counts them where no tokenizer is named."""
    return estimate(tuple(text for _, text in said)) + MARKS * len(said)


def clean_question(text: str) -> str:
    """The programmer's words, without a label, quotes around all, or what the assistant says to it."""
    text = _LABEL.sub("", text.strip(), count=1)
    if (other := _OTHER.search(text)) is not None:
        text = text[: other.start()]
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def _told(said: Said) -> str:
    return "\n\n".join(f"{_SPEAKER[role]}: {text}" for role, text in said)


def _question_request(settings: ConverseSettings, plan: Plan, prompt: str, turn: int, move: str) -> Request:
    request = ask(
        settings,
        "",
        prompt,
        "",
        max_tokens=min(_QUESTION_TOKENS, settings.max_output_tokens or _QUESTION_TOKENS),
        temperature=settings.temperature or 0.0,
        seed=seed_of_choice(plan, 2 * turn),
    )
    if settings.backend != "local":
        return request
    grammar = f"root ::= {beginning(MOVES[move])} {_SENTENCE}"
    return replace(request, extra={**request.extra, "grammar": grammar})


def _answer_request(settings: ConverseSettings, plan: Plan, said: Said, turn: int) -> Request:
    """The conversation itself, for the model to go on with."""
    # The embedded model has a chat template; a server that is asked for completions may have none.
    raw = settings.endpoint == "completions" and settings.backend != "local"
    return Request(
        prompt=f"{_told(said)}\n\n{_SPEAKER['assistant']}:" if raw else None,
        messages=() if raw else tuple(said),
        max_tokens=settings.max_output_tokens or 1024,
        temperature=min(settings.temperature or 0.0, _ANSWER_TEMPERATURE),
        top_p=settings.top_p or 1.0,
        stop=(f"\n{_SPEAKER['user']}:",) if raw else (),
        seed=seed_of_choice(plan, 2 * turn + 1),
        extra={"cache_prompt": True} if settings.backend == "local" else {},
    )


def refuse(candidate: Candidate, _: Sequence[Seed]) -> Rejection | None:
    """The filters that make sense where a question may point at what was said before."""
    return filters.first_of(FILTERS, candidate, ())


def read_turns(run: Path) -> dict[int, list[tuple[str, str]]]:
    """The accepted turns of each input, by its number: (question, answer), up to the first that was refused.

    Args:
        run: the run directory of a finished `converse --turns`.
    """
    turns: dict[int, list[tuple[str, str]]] = defaultdict(list)
    broken: set[int] = set()
    lines = list(read_log(run / "journal.jsonl"))
    deleted = {line["deleted"] for line in lines if "deleted" in line}
    for commit, line in ((commit_of(line), line) for line in lines if "k" in line):
        for decision, entry in zip(commit.decisions, line["decisions"], strict=True):
            if not decision.accepted or entry["id"] in deleted:
                broken.add(commit.k)
            if commit.k not in broken:
                turns[commit.k].append((decision.candidate.instruction, decision.candidate.output))
    return turns


def extended(examples: Iterable[Example], turns: dict[int, list[tuple[str, str]]]) -> Iterable[Example]:
    """The rows with their further turns behind them; `turns` is by the row's place among `examples`."""
    for k, example in enumerate(examples):
        more = [
            Message(role, text)
            for pair in turns.get(k, ())
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
        rest: dict[str, Any] = {"source": example.source, "number": example.number, "extra": example.extra}
        yield Example((*example.chat(), *more), score=example.score, **rest) if more else example


FILTERS: Final = (
    filters.control_characters, filters.empty_instruction, filters.instruction_too_long, filters.empty_output,
    filters.output_too_long, filters.placeholder_leak, filters.refusal, filters.unanswered,
    filters.instruction_repeated_as_output, filters.degenerate_repetition, filters.unfinished_code,
)  # fmt: skip
JOB = Derivation(
    ConverseSettings,
    converse,
    refuse=refuse,
    expected_yield=1.0,
    samples=("What happens if the list is empty?", "Then it returns None."),
    checked=False,
)
