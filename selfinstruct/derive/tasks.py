"""What recipes share that have a model write a task from something else: reading it, and asking for its answer."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from rapidfuzz.distance import Indel

from selfinstruct import filters, parsing
from selfinstruct.derive.revise import PARTS, fenced
from selfinstruct.recipes import ask, is_cut
from selfinstruct.records import Candidate, Choice, Rejection, Request
from selfinstruct.seams import Complete
from selfinstruct.settings import RunSettings
from selfinstruct.verify.fences import split_fences
from selfinstruct.vocabulary import find_language

ANSWER_TEMPERATURE: Final = 0.3  # an answer shall be right rather than surprising
# The embedded engine writes one paragraph that says what to do: small models would rather talk, or answer at once.
_BEGINNINGS = (
    "Write", "Create", "Implement", "Design", "Define", "Develop", "Build", "Add", "Extend", "Change", "Modify",
    "Fix", "Find", "Refactor", "Rewrite", "Optimise", "Optimize", "Simplify", "Convert", "Translate", "Parse",
    "Compute", "Calculate", "Count", "Generate", "Print", "Return", "Sort", "Use", "Test", "Make", "Set",
    "Explain", "Describe", "Compare", "Review", "Suggest", "Given", "Suppose", "You are given", "You have",
    "In", "What", "Which", "Why", "How", "When",
)  # fmt: skip
_BEHIND = ("This", "The", "A")  # where code follows; without any they speak of what nobody sees
_CODE = r' "\n```" [a-z]* "\n" [^`]{20,1500} "\n```"'
_LEAD = re.compile(
    r"\A(?:(?:sure|certainly|of course|okay)[!,.][^\n]{0,120}?\b)?here(?:['\u2019]s| is)[^\n.]{0,60}"
    r"\b(?:task|version|exercise|prompt|problem|example|one)\b[^\n.]{0,80}:\s*\n\s*",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"\A[\s#*_>\"']{0,9}(?:the |a )?(?:(?:new|rewritten|evolved|harder|created|given)\s)?"
    r"(?:programming\s)?(?:task|prompt|instruction|problem|exercise)[\s#*_\"']{0,9}:[\s*_]{0,9}",
    re.IGNORECASE,
)
_EXAMPLE = re.compile(r"\AAn example of [^:]*:")
REPEATED: Final = 0.7  # ROUGE-L above which a text is one that was shown or said before
_WORD = re.compile(r"\w+")
_QUOTES = re.compile(r"\A\"([^\"]*)\"\Z")
# Words of the prompts: a task that has them speaks of how it was made.
_LEAK = re.compile(
    r"\b(?:rewritten|evolved|harder|original|above) (?:prompts?|instructions?|tasks?)\b"
    r"|\bthe new task (?:must|should|is)\b|\b(?:new|harder|modified) version of the (?:\w+ )?task\b"
    r"|\b(?:snippet|piece) (?:above|shown)\b|\binspired by the\b|#(?:given|rewritten|created) prompt#"
    r"|\bnames that only this project\b|^old task:|\ban old task\b|\bre(?:write|phrase) the task\b"
    r"|\A(?:in )?the new task\b|\bnever seen the (?:old|piece)\b",
    re.IGNORECASE | re.MULTILINE,
)
# The model speaks of itself or answers: no task begins so, or has such a paragraph.
_CHATTER = re.compile(
    r"\A(?:sure|certainly|of course|okay)\b[!,.]|\Ai(?:['\u2019]ll| will)\b"
    r"|\Ai(?:['\u2019]m| am) (?:ready|sorry|happy|glad|here)\b"
    r"|^here(?:['\u2019]s| is) (?:a|an|the|your|one) (?:\w+ )?"
    r"(?:answer|solution|response|implementation)\b"
    r"|^this (?:function|code|program|script|query|class|solution|implementation) (?:works by|first)\b"
    r"|\bhere(?:['\u2019]s| is) (?:how|(?:an?|the) (?:\w+ ){0,2}implementation|an example (?:of how|in \w+ using))\b"
    r"|\byou can (?:implement|solve|use) (?:this|the) (?:task|problem|following)\b"
    r"|^[\s#*_]{0,9}(?:solution|implementation|answer)[\s#*_]{0,9}:",
    re.IGNORECASE | re.MULTILINE,
)


def show_task(instruction: str, input_: str) -> str:
    """A task as a prompt shows it."""
    return f"{instruction}\n\n{fenced(input_, None)}" if input_ else instruction


def beginning(words: Iterable[str]) -> str:
    """The part of a grammar that has a text begin with one of these."""
    return "(" + " | ".join(f'"{word} "' for word in words) + ")"


def draw_in_turn(names: Sequence[str], count: int, seed: str) -> list[str]:
    """So many of the names by the seed: each of them once before one comes again."""
    rng, drawn = random.Random(seed), list[str]()
    while len(drawn) < count:
        drawn += rng.sample(names, len(names))
    return drawn[:count]


def task_request(settings: RunSettings, prompt: str, seed: int, *, code: bool = False) -> Request:
    """Asks for the text of a task; `task_of` reads it.

    Args:
        settings: of the run.
        prompt: the whole of it.
        seed: of the model's sampling.
        code: whether code has to come with the task. The embedded engine writes some then, and none else.
    """
    request = ask(
        settings,
        "",
        prompt,
        "",
        max_tokens=settings.max_output_tokens or 1024,
        temperature=settings.temperature or 0.0,
        seed=seed,
    )
    if settings.backend != "local":
        return request
    begun = beginning((*_BEGINNINGS, *(_BEHIND if code else ())))
    grammar = f"root ::= {begun} part{{0,4}} last{_CODE if code else ''}{PARTS}"
    return replace(request, extra={**request.extra, "grammar": grammar})


def read_task(text: str) -> tuple[str, str]:
    """Instruction and input of a task that stands in a reply: what is fenced is the input."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    pieces = split_fences(text)
    words = "\n\n".join(piece.text.strip() for piece in pieces if not piece.fenced)
    blocks = "\n\n".join(piece.text.strip("\n") for piece in pieces if piece.fenced)
    words = _LABEL.sub("", _LEAD.sub("", words, count=1), count=1).strip()
    if quoted := _QUOTES.match(words):
        words = quoted[1].strip()
    return words, parsing.no_input(blocks)


def task_of(choice: Choice, known: Candidate, prompt: str = "") -> Candidate:
    """The task of a reply, with what is known of it; rejected where it is none.

    Reasons are `cut_off`, `empty_instruction`, `refused` (the model declines), `no_task` (it speaks of itself,
    or answers) and `prompt_leak` (the text speaks of how it was made, or is an example of the prompt).

    Args:
        choice: of the reply.
        known: the candidate so far.
        prompt: what the model was shown, without the task or the code that is worked on.
    """
    instruction, input_ = read_task(choice.text)
    found = replace(known, instruction=instruction, input=input_, output="", raw=choice.text)
    if is_cut(choice):
        return replace(found, rejection=Rejection("cut_off", {"part": "instruction"}))
    if not any(map(str.isalnum, instruction)):
        return replace(found, rejection=Rejection("empty_instruction", {"found": choice.text[:80]}))
    if (declined := filters.refusal(Candidate(output=instruction), ())) is not None:
        return replace(found, rejection=Rejection("refused", declined))
    if (chatter := _CHATTER.search(instruction)) is not None:
        return replace(found, rejection=Rejection("no_task", {"found": instruction[chatter.start() :][:80]}))
    if (leak := _LEAK.search(instruction)) is not None:
        return replace(found, rejection=Rejection("prompt_leak", {"field": "instruction", "found": leak[0]}))
    shown = (_EXAMPLE.sub("", line) for line in prompt.splitlines())
    if (line := repeated(instruction, shown)) is not None:
        return replace(found, rejection=Rejection("prompt_leak", {"field": "instruction", "found": line}))
    return found


def repeated(text: str, others: Iterable[str]) -> str | None:
    """The first of the others that the text says again, by ROUGE-L over words; None if it is none of them."""
    words = _WORD.findall(text.lower())
    for other in others:
        # 2 LCS / (both lengths), which is ROUGE-L
        if text == other or (
            words and Indel.normalized_similarity(words, _WORD.findall(other.lower())) > REPEATED
        ):
            return other
    return None


def answer(settings: RunSettings, prompt: str, task: Candidate, seed: int, complete: Complete) -> Candidate:
    """The task with the model's answer to it, rejected where that is cut.

    Args:
        settings: of the run.
        prompt: name of the prompt file.
        task: has an instruction and perhaps an input.
        seed: of the model's sampling.
        complete: asks.
    """
    request = ask(
        settings,
        settings.prompt(prompt),
        show_task(task.instruction, task.input),
        "",
        max_tokens=settings.max_output_tokens or 1024,
        temperature=min(settings.temperature or 0.0, ANSWER_TEMPERATURE),
        seed=seed,
    )
    choice = complete(request).choices[0]
    output, fenced = parsing.strip_fence(choice.text.strip())
    language = find_language(fenced or "") or task.language
    found = replace(task, output=output, raw=choice.text, language=language)
    if fenced is not None or output != choice.text.strip():
        found = replace(found, kind=found.kind or "write")  # nothing but code
    return replace(found, rejection=Rejection("cut_off", {"part": "output"})) if is_cut(choice) else found
