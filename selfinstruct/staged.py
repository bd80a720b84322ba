"""The recipe `staged`: a task part by part, which is what makes small models useful.

The instruction comes first and is judged before more is spent on it; then the input, if the instruction
points at one; then the output, begun inside a code fence where code is wanted. On a server's completions
endpoint the model goes on with a list or a fence, on a chat endpoint it is asked for the part alone.

Source: instruction first, then its instance, is the way of Self-Instruct (Wang et al. 2022).
"""

from __future__ import annotations

import re
from dataclasses import replace

from selfinstruct import filters, parsing
from selfinstruct.recipes import ask, is_cut, open_fence, seed_of_choice, whole
from selfinstruct.records import Candidate, Choice, Rejection, Request
from selfinstruct.seams import Complete, Plan, PoolView
from selfinstruct.settings import Settings
from selfinstruct.vocabulary import KINDS, LANGUAGES, find_language

INSTRUCTION_TOKENS = 120
INPUT_TOKENS = 280
INPUT_TEMPERATURE = 0.7
OUTPUT_TEMPERATURE = 0.3  # an answer shall be right rather than surprising

# llama.cpp's own sampling fields; the cache keeps the beginning that prompts have in common.
_LLAMA = {"cache_prompt": True, "repeat_penalty": 1.05, "min_p": 0.05}
# One line that begins like a sentence: without it a small model opens a fence or answers at once.
_ONE_LINE = 'root ::= " " [A-Z] [^\\n\\r`]{20,400} "\\n"'
_CODE_KINDS = {
    "write", "complete", "fix", "refactor", "optimise", "translate", "document", "test", "revise", "query", "configure",
}  # fmt: skip
_NOT_CODE = {"text", "regex", "json"}  # an answer in them needs no sentence that names the language
_ENGLISH = {
    "go",
    "make",
    "c",
    "r",
    "rust",
    "ruby",
    "swift",
    "dart",
}  # names that are words of a sentence, too
_BOLD = re.compile(r"\*\*(.+)\*\*\s*$")
_LABEL = re.compile(r"^\s*(?:\d+[.)]\s*)?(?:\[[^\]\n]{0,120}\]\s*)?")
_POINTS = re.compile(r"\b(?:this|these|below)\b", re.IGNORECASE)
_FROM_NOTHING = re.compile(
    r"(?:write|create|implement|define|build|design|make|develop|generate|construct)\b", re.IGNORECASE
)


def staged(settings: Settings, plan: Plan, view: PoolView, complete: Complete) -> list[Candidate]:
    """Instruction, input where one is due, output; one candidate for each answer to the last request."""
    candidate, points = write_instruction(settings, plan, view, complete)
    if candidate.rejection is not None:
        return [candidate]
    if points:
        candidate = ask_input(settings, plan, candidate, complete)
        if candidate.rejection is not None:
            return [candidate]
    answers = complete(output_request(settings, plan, candidate)).choices
    return [answered(settings, plan, candidate, answer) for answer in answers]


def write_instruction(
    settings: Settings, plan: Plan, view: PoolView, complete: Complete, *, name_language: bool = True
) -> tuple[Candidate, bool]:
    """A new instruction, rejected if it is cut or bound to fail; and whether it needs an input.

    `name_language` has the language named in one that needs none; see `with_language`.
    """
    opening = list_opening(settings.prompt("staged_instruction"), plan)
    choice = complete(_instruction_request(settings, plan, opening)).choices[0]
    candidate = Candidate(
        _clean_instruction(choice.text), raw=choice.text, language=plan.language, kind=plan.kind
    )
    if is_cut(choice):
        return given_up(candidate, "instruction"), False
    points = _points_at_input(candidate, plan)
    if name_language and not points:
        candidate = with_language(candidate, plan)
    return view.judge_instruction(candidate) or candidate, points


def ask_input(
    settings: Settings,
    plan: Plan,
    candidate: Candidate,
    complete: Complete,
    *,
    wanted: str = "",
    step: int = 1,
) -> Candidate:
    """The candidate with an input that the model is asked for, or given up where that was cut.

    Args:
        settings: the run's.
        plan: of the index.
        candidate: has an instruction.
        complete: asks.
        wanted: what more is said of the input that shall be written.
        step: the number of the request in its index, for its seed.
    """
    fence = _fence(settings, plan, begins_in=plan.kind != "translate")
    choice = complete(_input_request(settings, plan, candidate.instruction + wanted, fence, step)).choices[0]
    candidate = replace(candidate, input=parsing.no_input(_first_block(whole(choice.text, fence))))
    return given_up(replace(candidate, raw=choice.text), "input") if is_cut(choice) else candidate


def _points_at_input(candidate: Candidate, plan: Plan) -> bool:
    """Whether the task needs code or data: its instruction speaks of some, or it was asked for and fits."""
    if filters.missing_input(candidate, ()) is not None:
        return True
    text = candidate.instruction
    return plan.with_input and (_FROM_NOTHING.match(text) is None or _POINTS.search(text) is not None)


def answered(settings: Settings, plan: Plan, candidate: Candidate, answer: Choice) -> Candidate:
    """The candidate with the output that the model gave."""
    fence = _output_fence(settings, plan)
    output, language = parsing.strip_fence(whole(answer.text, fence).rstrip())
    found = candidate.language or find_language(language or "")
    finished = replace(candidate, output=output, raw=answer.text, language=found)
    return given_up(finished, "output") if is_cut(answer) else finished


def given_up(candidate: Candidate, part: str) -> Candidate:
    """The candidate, rejected because the reply with this part of it was cut."""
    return replace(candidate, rejection=Rejection("cut_off", {"part": part}))


def list_opening(head: str, plan: Plan) -> str:
    """The list of instructions up to the place where the new one begins, below a head that never changes."""
    lines = [head, ""]
    for number, shot in enumerate(plan.shots, 1):
        label = _brackets(shot.language, shot.kind, shot.topic, with_input=bool(shot.input))
        lines.append(" ".join([f"{number}.", *filter(None, [label]), *shot.instruction.split()]))
    label = _brackets(plan.language, plan.kind, plan.topic, with_input=plan.with_input)
    return "\n".join([*lines, f"{len(plan.shots) + 1}. {label}".rstrip()])


def _brackets(language: str | None, kind: str | None, topic: str | None, *, with_input: bool) -> str:
    """`[Rust, fix a bug, rate limiter, in the code below]`, or nothing where nothing is known."""
    words = [LANGUAGES[language].display] if language in LANGUAGES else []
    words += [KINDS[kind].display.lower()] if kind in KINDS else []
    words += [topic] if topic else []
    if not words:
        return ""
    return f"[{', '.join(words)}{', about the code or data given below it' if with_input else ''}]"


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


def _input_request(settings: Settings, plan: Plan, instruction: str, fence: str, step: int) -> Request:
    """Asked apart from the list: with the examples in sight a small model writes an input for one of them."""
    about = f" about {plan.topic}" if plan.topic else ""
    return ask(
        settings,
        settings.prompt("staged_input"),
        f"A programmer asks{about}:\n{instruction}",
        fence,
        max_tokens=INPUT_TOKENS,
        temperature=min(settings.temperature or 0.0, INPUT_TEMPERATURE),
        seed=seed_of_choice(plan, step),
    )


def output_request(settings: Settings, plan: Plan, candidate: Candidate, step: int = 2) -> Request:
    """Asks for the answer to a candidate that has its instruction and input."""
    given = f"\n\n```\n{candidate.input}\n```" if candidate.input else ""
    return ask(
        settings,
        settings.prompt("staged_output"),
        candidate.instruction + given,
        _output_fence(settings, plan),
        max_tokens=settings.max_output_tokens or 1024,
        temperature=min(settings.temperature or 0.0, OUTPUT_TEMPERATURE),
        seed=seed_of_choice(plan, step),
        n=settings.choices,
    )


def _fence(settings: Settings, plan: Plan, *, begins_in: bool = True) -> str:
    """`open_fence` in the plan's language, or in none where the input is in another one."""
    return open_fence(settings, plan.language if begins_in else None)


def _output_fence(settings: Settings, plan: Plan) -> str:
    code = plan.kind in _CODE_KINDS and plan.language not in {None, "text"}
    return _fence(settings, plan) if code else ""


def _clean_instruction(text: str) -> str:
    """One line without number, bracket, quotes or bold marks."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    line = _LABEL.sub("", line, count=1).strip()
    if bold := _BOLD.match(line):
        line = bold[1].strip()
    if len(line) > 1 and line[0] == line[-1] == '"' and '"' not in line[1:-1]:
        line = line[1:-1]
    return line


def with_language(candidate: Candidate, plan: Plan) -> Candidate:
    """Name the language in a sentence of its own where nothing else tells it to whom the row is shown."""
    name = plan.language
    if name is None or name in _NOT_CODE or not candidate.instruction:
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
