"""How index k becomes candidates: `code-alpaca` (one call, many numbered tasks) and `staged` (part by part).

A recipe is a function of a plan, a view of the pool and `complete`; it knows nothing of servers, files or
threads, and calls of it are answered from the log when they were already bought.

Sources: the numbered list with shots is that of Stanford Alpaca (Taori et al. 2023) and Code Alpaca
(Chaudhary 2023); instruction first, then its instance, is the way of Self-Instruct (Wang et al. 2022).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files

from selfinstruct import alpaca, filters, parsing
from selfinstruct.records import Candidate, Choice, Rejection, Request, Seed
from selfinstruct.seams import Complete, Plan, PoolView, Recipe
from selfinstruct.settings import Settings
from selfinstruct.vocabulary import KINDS, LANGUAGES, find_kind, find_language

LIST_SIZE = 20  # tasks that one call asks for, the shots included
INSTRUCTION_TOKENS = 120
INPUT_TOKENS = 280
INPUT_TEMPERATURE = 0.7
OUTPUT_TEMPERATURE = 0.3  # an answer shall be right rather than surprising
TASKS_SCHEMA = {
    "type": "object",
    "properties": {
        "tasks": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {name: {"type": "string"} for name in ("instruction", "input", "output")},
                "required": ["instruction", "input", "output"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["tasks"],
    "additionalProperties": False,
}
# One line that begins like a sentence: without it a small model opens a fence or answers at once.
_ONE_LINE = 'root ::= " " [A-Z] [^\\n\\r`]{20,400} "\\n"'
_CODE_KINDS = {
    "write", "complete", "fix", "refactor", "optimise", "translate", "document", "test", "revise", "query", "configure",
}  # fmt: skip
_NOT_CODE = {"text", "regex", "json"}  # an answer in them needs no sentence that names the language
_CLOSED = "\n```"
_ENGLISH = {"go", "make", "c", "r", "rust", "ruby", "swift", "dart"}  # words of a sentence, too
_BOLD = re.compile(r"\*\*(.+)\*\*\s*$")
_LABEL = re.compile(r"^\s*(?:\d+[.)]\s*)?(?:\[[^\]\n]{0,120}\]\s*)?")


def prompt_text(name: str) -> str:
    """The prompt file `name` of this package."""
    return (files("selfinstruct") / "prompts" / f"{name}.txt").read_text(encoding="utf-8").rstrip("\n")


def prompts_digest() -> str:
    """A 16-digit hex hash of all prompt files; part of a run's fingerprint."""
    names = sorted(item.name for item in (files("selfinstruct") / "prompts").iterdir())
    texts = [
        (files("selfinstruct") / "prompts" / name).read_bytes() for name in names if name.endswith(".txt")
    ]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]


def make_recipe(settings: Settings) -> Recipe:
    """The recipe that the settings name."""
    if settings.recipe == "staged":
        return lambda plan, view, complete: staged(settings, plan, view, complete)
    return lambda plan, view, complete: code_alpaca(settings, plan, view, complete)


def seed_of_choice(plan: Plan, step: int) -> int:
    """The model's sampling seed for a step of an index."""
    return (plan.seed + step) & 0x7FFFFFFF


def code_alpaca(settings: Settings, plan: Plan, _: PoolView, complete: Complete) -> list[Candidate]:
    """One call that shows the shots and yields up to 20 numbered tasks (or a JSON object of them)."""
    first = len(plan.shots) + 1
    historic = settings.profile == "alpaca"
    if settings.answer == "json":
        text = _json_prompt(settings, plan.shots)
    elif historic:
        text = alpaca.layout(prompt_text("code_alpaca"), plan.shots)
    else:
        text = alpaca.layout(_with_rules(prompt_text("code_alpaca"), settings), plan.shots)
    request = Request(
        prompt=text if settings.endpoint == "completions" else None,
        messages=(("user", text),) if settings.endpoint == "chat" else (),
        max_tokens=settings.max_output_tokens or 3072,
        temperature=settings.temperature or 0.0,
        top_p=settings.top_p or 1.0,
        stop=alpaca.STOP if historic else (f"\n{LIST_SIZE + 1}. Instruction",),
        seed=seed_of_choice(plan, 0),
        n=settings.choices,
        schema=TASKS_SCHEMA if settings.answer == "json" else None,
    )
    parse = alpaca.parse if historic else parsing.parse
    return [
        found
        for choice in complete(request).choices
        for found in parse(choice.text, "length" if _is_cut(choice) else choice.finish_reason, first)
    ]


def _is_cut(choice: Choice) -> bool:
    """Whether the end of the text is missing: no room left, or a filter of the server cut in."""
    return choice.finish_reason in {"length", "content_filter"}


def _with_rules(text: str, settings: Settings) -> str:
    """The prompt with the user's wishes as a last rule, before the line that opens the list."""
    languages = [LANGUAGES[name].display for word in settings.only_language if (name := find_language(word))]
    kinds = [KINDS[name].display for word in settings.only_kind if (name := find_kind(word))]
    rules = [f"- All tasks are in or about {' or '.join(languages)}."] if languages else []
    rules += [f"- All tasks are of this kind: {' or '.join(kinds)}."] if kinds else []
    if not rules:
        return text
    head, _, last = text.rpartition("\n\n")
    return "\n".join([head, *rules]) + f"\n\n{last}"


def _json_prompt(settings: Settings, shots: Sequence[Seed]) -> str:
    rows = [{"instruction": s.instruction, "input": s.input, "output": s.output} for s in shots]
    count = str(LIST_SIZE - len(rows))
    text = _with_rules(prompt_text("code_alpaca_json").replace("{count}", count), settings)
    return "\n".join([text, "", "Examples:", *map(json.dumps, rows)])


def staged(settings: Settings, plan: Plan, view: PoolView, complete: Complete) -> list[Candidate]:
    """First the instruction, judged before more is spent on it; then an input if due; then the output."""
    opening = _staged_opening(plan)
    asked = _instruction_request(settings, plan, opening)
    choice = complete(asked).choices[0]
    instruction = _clean_instruction(choice.text)
    candidate = Candidate(instruction, raw=choice.text, language=plan.language, kind=plan.kind)
    if _is_cut(choice):
        return [_given_up(candidate, "cut_off", "instruction")]
    candidate = _with_language(candidate, plan)
    if (rejected := view.judge_instruction(candidate)) is not None:
        return [rejected]
    if not plan.with_input and (found := filters.missing_input(candidate, ())) is not None:
        return [replace(candidate, rejection=Rejection("missing_input", found))]
    if plan.with_input:
        choice = complete(_input_request(settings, plan, opening, instruction)).choices[0]
        text = _first_block(choice.text)
        if _is_cut(choice):
            return [_given_up(replace(candidate, input=text, raw=choice.text), "cut_off", "input")]
        candidate = replace(candidate, input=parsing.no_input(text))
    answers = complete(_output_request(settings, plan, candidate)).choices
    return [_answered(candidate, answer, _open_fence(settings, plan)) for answer in answers]


def _answered(candidate: Candidate, answer: Choice, fence: str) -> Candidate:
    text = answer.text.strip("\n")
    if fence:
        text = f"{fence}{text.removeprefix(fence).partition(_CLOSED)[0]}{_CLOSED}"
    output, language = parsing.strip_fence(text.rstrip())
    finished = replace(
        candidate,
        output=output,
        raw=answer.text,
        language=candidate.language or find_language(language or ""),
    )
    if _is_cut(answer):
        return _given_up(finished, "cut_off", "output")
    return finished


def _given_up(candidate: Candidate, reason: str, part: str) -> Candidate:
    return replace(candidate, rejection=Rejection(reason, {"part": part}))


def _brackets(language: str | None, kind: str | None, topic: str | None, *, with_input: bool) -> str:
    """`[Rust, fix, rate limiter, about given code] `, or nothing where nothing is known."""
    words = [LANGUAGES[language].display] if language in LANGUAGES else []
    words += [KINDS[kind].display.lower()] if kind in KINDS else []
    words += [topic] if topic else []
    if not words:
        return ""
    return f"[{', '.join(words)}{', about the code or data given below it' if with_input else ''}]"


def _staged_opening(plan: Plan) -> str:
    """The list so far, up to the place where the new instruction begins. Its head never changes."""
    lines = [prompt_text("staged_instruction"), ""]
    for number, shot in enumerate(plan.shots, 1):
        label = _brackets(shot.language, shot.kind, shot.topic, with_input=bool(shot.input))
        lines.append(f"{number}. {label} {' '.join(shot.instruction.split())}".replace(".  ", ". "))
    label = _brackets(plan.language, plan.kind, plan.topic, with_input=plan.with_input)
    return "\n".join([*lines, f"{len(plan.shots) + 1}. {label}".rstrip()])


# llama.cpp's own sampling fields; the cache keeps the beginning that prompts have in common.
_LLAMA = {"cache_prompt": True, "repeat_penalty": 1.05, "min_p": 0.05}


def _instruction_request(settings: Settings, plan: Plan, opening: str) -> Request:
    raw = settings.endpoint == "completions"
    text = f"{opening}\n\nWrite task {len(plan.shots) + 1}. Answer with its text alone, on one line."
    return Request(
        prompt=opening if raw else None,
        messages=() if raw else (("user", text),),
        max_tokens=INSTRUCTION_TOKENS,
        temperature=settings.temperature or 0.0,
        top_p=settings.top_p or 1.0,
        stop=("\n", f" {len(plan.shots) + 2}. [") if raw else (),
        seed=seed_of_choice(plan, 0),
        extra={"grammar": _ONE_LINE, **_LLAMA} if raw and settings.backend == "local" else {},
    )


def _input_request(settings: Settings, plan: Plan, opening: str, instruction: str) -> Request:
    raw = settings.endpoint == "completions"
    named = (
        plan.language not in {None, "text"} and plan.kind != "translate"
    )  # that begins in another language
    fence = f"```{plan.language if named else ''}"
    prompt = (
        f"{opening} {instruction}\n\nThe code or data that this task is about, as it is before the work is done, "
        f"short and complete:\n{fence}\n"
    )
    text = (
        f"Here is a programming task:\n{instruction}\n\nWrite the code or data that it is about, as it is before "
        "the work is done, short and complete. Answer with one fenced block and nothing else."
    )
    return Request(
        prompt=prompt if raw else None,
        messages=() if raw else (("user", text),),
        max_tokens=INPUT_TOKENS,
        temperature=min(settings.temperature or 0.0, INPUT_TEMPERATURE),
        top_p=settings.top_p or 1.0,
        stop=("```",) if raw else (),
        seed=seed_of_choice(plan, 1),
        extra=_LLAMA if raw and settings.backend == "local" else {},
    )


def _output_request(settings: Settings, plan: Plan, candidate: Candidate) -> Request:
    given = f"\n\n```\n{candidate.input}\n```" if candidate.input else ""
    messages = [("system", prompt_text("staged_output")), ("user", candidate.instruction + given)]
    fence = _open_fence(settings, plan)
    if fence:
        messages.append(("assistant", fence))
    # A server of the user's that is asked for completions may have no chat at all.
    raw = settings.endpoint == "completions" and settings.backend != "local"
    return Request(
        prompt="\n\n".join([messages[0][1], f"Task: {messages[1][1]}", f"Answer:\n{fence}"]) if raw else None,
        messages=() if raw else tuple(messages),
        max_tokens=settings.max_output_tokens or 1024,
        temperature=min(settings.temperature or 0.0, OUTPUT_TEMPERATURE),
        top_p=settings.top_p or 1.0,
        stop=("```",) if fence else ("\nTask:",) if raw else (),
        seed=seed_of_choice(plan, 2),
        n=settings.choices,
        extra={"cache_prompt": True} if settings.backend == "local" else {},
    )


def _open_fence(settings: Settings, plan: Plan) -> str:
    """How the answer begins where it is to be code: llama.cpp goes on with it, other chats would not."""
    if settings.endpoint == "chat" or plan.kind not in _CODE_KINDS or plan.language in {None, "text"}:
        return ""
    return f"```{plan.language}\n"


def _clean_instruction(text: str) -> str:
    """One line without number, bracket, quotes or bold marks."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    line = _LABEL.sub("", line, count=1).strip()
    if bold := _BOLD.match(line):
        line = bold[1].strip()
    if len(line) > 1 and line[0] == line[-1] == '"' and '"' not in line[1:-1]:
        line = line[1:-1]
    return line


def _with_language(candidate: Candidate, plan: Plan) -> Candidate:
    """Name the language in a sentence of its own where nothing else tells it to whom the row is shown."""
    name = plan.language
    if name is None or name in _NOT_CODE or plan.with_input or not candidate.instruction:
        return candidate
    term = LANGUAGES[name]
    words = [word.rstrip(".") for word in re.findall(r"[\w+#.]+", candidate.instruction)]
    spellings = {term.display.lower(), term.name, *term.aliases} - _ENGLISH
    if term.display in words[1:] or spellings & {word.lower() for word in words}:
        return candidate
    return replace(candidate, instruction=f"{candidate.instruction} Use {term.display}.")


def _first_block(text: str) -> str:
    """What stands in the first fence, or the text itself where there is none."""
    _, fence, rest = text.partition("```")
    return rest.partition("\n")[2].partition("```")[0].strip("\n") if fence else text.strip("\n")
