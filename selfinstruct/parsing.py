"""Reads candidates out of a model's reply, whatever shape it came in; loses nothing and never raises.

Two shapes are known: text with labels (split by `labels`) and JSON (an object, an array, lines of
objects, whole or cut). What cannot be read becomes a candidate that carries its rejection and the raw
text. Whether a candidate is any good is not asked here, that is `filters`; the historic way to read a
reply is in `alpaca`.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Final

from selfinstruct.labels import FENCE, split
from selfinstruct.records import JSON, Candidate, Rejection

RAW_LIMIT: Final = 20_000  # characters of raw text kept with a candidate; the reply log has all of it
SENTENCE_ENDS: Final = re.compile(r"(?<=[.?!])\s+|\n+")  # what stands between two sentences

_SURROGATES = re.compile("[\ud800-\udfff]")
_NO_INPUT = re.compile(
    r"no[ _-]?inputs?(?:[ ](?:is|was|required|needed|necessary|provided|given|available|applicable|specified"
    r"|for|this|the|task|instruction)){0,6}|none(?:[ ](?:required|needed|provided|given|specified))?"
    r"|n/?a|n\.a|not[ ]applicable"
)
_BRACKETED_ONLY = {"empty", "blank", "nothing", "input", "left blank", "leave blank", "empty string"}

_INSTRUCTION_KEYS = ("instruction", "instructions", "prompt", "question", "problem", "task", "query")
_INPUT_KEYS = ("input", "inputs", "context")
_OUTPUT_KEYS = ("output", "outputs", "response", "answer", "completion", "solution", "result", "code")
_KEY = re.compile(rf'"\s{{0,3}}(?:{"|".join(_INSTRUCTION_KEYS)})\s{{0,3}}"\s{{0,3}}:', re.IGNORECASE)
_OPENING = re.compile(r"\{\s{0,99}[\"}]")
_LINE_OPENING = re.compile(r"[\s\[,`\d.)-]{0,20}(?:\{\s{0,9}\"\w{1,30}\"\s{0,9}:\s{0,9}\[?\s{0,9}){0,9}")
_BROKEN = "broken JSON"
_DEEP = 100_000  # what an object that is nested too deeply counts against the budget, in characters


def parse(text: str, finish_reason: str = "stop", first: int = 4) -> list[Candidate]:
    """Read all candidates of one reply, in their order.

    Args:
        text: the reply; it may go on right after `{first}. Instruction:` or bring its own labels.
        finish_reason: "length" means that the reply was cut: its last candidate is then a rejection
            `cut_off`, however complete it looks (but a JSON object that is closed is not cut).
        first: the number under which the prompt let the model begin.

    Returns:
        At least one candidate. Unreadable parts carry the rejection `unreadable`, a reply of
        nothing the rejection `empty_reply`. Lone surrogates are U+FFFD, line ends are newlines, `raw`
        holds at most `RAW_LIMIT` characters. Takes time linear in the length of the text.
    """
    text = _clean(text).replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")
    if not text.strip():
        return [_refused("empty_reply", text, "the reply holds only white space" if text else "no text")]
    cut = finish_reason == "length"
    return _read_json(text, cut=cut) or _read_labels(text, first, cut=cut)


def strip_fence(text: str) -> tuple[str, str | None]:
    """Take the fence off a text that is exactly one fenced block.

    Returns:
        The code without its fence, and the language the fence names (lower case, None without one).
        Any other text comes back as it is, with None.
    """
    body = text.strip()
    opening = FENCE.match(body)
    lines = body.split("\n")
    if opening is None or opening.end() != len(lines[0]) or len(lines) < 2:
        return text, None
    ticks = opening["ticks"]
    closing = [
        i
        for i, line in enumerate(lines)
        if i and len(line.strip()) >= len(ticks) and not line.strip(ticks[0] + " ")
    ]
    if closing != [len(lines) - 1]:
        return text, None
    words = opening["info"].strip(" \t{}.").lower().split()
    return "\n".join(lines[1:-1]).strip("\n").rstrip(), words[0] if words else None


def no_input(text: str) -> str:
    """The text of an input field, or "" where it only says that there is none.

    `<noinput>`, `< noinput >`, `No input`, `N/A`, `None`, `(none)` and `-` say so; `[]`, `""`, `0`
    or `null` are real inputs and stay.
    """
    bare = text.strip()
    if bare in {"", "-", "--", "---", "\u2013", "\u2014"}:
        return ""
    if len(bare) > 80:
        return text
    inner = bare.strip("<>()[]{}`*_/ \t\n").rstrip(".").rstrip().casefold()
    if _NO_INPUT.fullmatch(inner) or (inner in _BRACKETED_ONLY and bare[0] in "<(["):
        return ""
    return text


def _clean(text: str) -> str:
    return _SURROGATES.sub("\ufffd", text)


def _refused(reason: str, raw: str, why: str, known: Candidate | None = None) -> Candidate:
    evidence: dict[str, JSON] = {"why": why}
    if len(raw) > RAW_LIMIT:
        evidence["characters"] = len(raw)
    known = known or Candidate()
    return Candidate(
        known.instruction,
        known.input,
        known.output,
        raw[:RAW_LIMIT],
        known.language,
        rejection=Rejection(reason, evidence),
    )


def _made(instruction: str, input_: str, output: str, raw: str, language: str | None = None) -> Candidate:
    output, fenced = strip_fence(output)
    input_, _ = strip_fence(input_)
    return Candidate(instruction.strip(), no_input(input_), output, raw[:RAW_LIMIT], language or fenced)


# --- labels -------------------------------------------------------------------------------------------


def _read_labels(text: str, first: int, *, cut: bool) -> list[Candidate]:
    found: list[Candidate] = []
    for item in split(text, first):
        made = _made(item.instruction, item.input, item.output or "", item.raw)
        if item.output is None:
            made = _refused("unreadable", item.raw, "an instruction without an output label", made)
        found.append(made)
    if not found:
        found = [_refused("unreadable", text, "no label and no JSON task found")]
    if cut:
        found[-1] = _refused("cut_off", found[-1].raw, "the reply was cut at its length limit", found[-1])
    return found


# --- JSON ---------------------------------------------------------------------------------------------


def _read_json(text: str, *, cut: bool) -> list[Candidate]:
    """The candidates of a JSON reply; none where the reply is something else."""
    key = _KEY.search(text)
    if key is None:
        return []
    opening = text.rfind("{", 0, key.start())
    if opening < 0:
        return []
    # JSON after a label with something in its field is that field's text: code, not the reply's form.
    # So is JSON inside a line, where labels follow.
    if any(item.instruction or item.input for item in split(text[:opening], 0)):
        return []
    line = text[text.rfind("\n", 0, opening) + 1 : opening]
    if not _LINE_OPENING.fullmatch(line) and any(item.output is not None for item in split(text, 0)):
        return []
    found: list[Candidate] = []
    reached = 0
    for start, end, value in _objects(text):
        tasks = list(_tasks(value))
        if tasks:
            found += _leftover(text[reached:start])
            found += [_from_object(task, text[start:end]) for task in tasks]
            reached = end
    found += _leftover(text[reached:], final=True)
    if cut and found[-1].rejection is not None and found[-1].rejection.evidence["why"] == _BROKEN:
        found[-1] = _refused("cut_off", found[-1].raw, "the reply was cut inside this JSON object")
    return found


def _objects(text: str) -> Iterator[tuple[int, int, JSON]]:
    """All outermost JSON objects that can be decoded, with their places.

    A failed try costs what it read; when failures have read four times the text, the rest is given up,
    so that no text takes more than linear time.
    """
    decoder = json.JSONDecoder(strict=False, parse_int=_number)
    budget = 4 * len(text) + 4 * _DEEP
    opening = _OPENING.search(text)
    while opening is not None and budget > 0:
        start = end = opening.start()
        try:
            value, end = decoder.raw_decode(text, start)
            yield start, end, value
        except json.JSONDecodeError as error:
            # What was read, and a little for the error, which counts the lines before it.
            budget -= error.pos - start + error.pos // 64 + 1
        except RecursionError:
            budget -= _DEEP
        opening = _OPENING.search(text, max(end, start + 1))


def _number(digits: str) -> int | str:
    return int(digits) if len(digits) < 400 else digits  # a longer one may not be turned into an int


def _tasks(value: JSON) -> Iterator[dict[str, JSON]]:
    """The objects that hold an instruction, in the order of the text, however deep they lie."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            named = {key.strip().lower().replace(" ", "_"): inner for key, inner in one.items()}
            if isinstance(_first(named, _INSTRUCTION_KEYS), str):
                yield named
                continue
            one = list(one.values())
        if isinstance(one, list):
            waiting += reversed(one)


def _first(named: dict[str, JSON], keys: tuple[str, ...]) -> JSON:
    return next((named[key] for key in keys if key in named), None)


def _from_object(named: dict[str, JSON], raw: str) -> Candidate:
    fields = [_first(named, keys) for keys in (_INSTRUCTION_KEYS, _INPUT_KEYS, _OUTPUT_KEYS)]
    try:
        instruction, input_, output = (_text(value) for value in fields)
    except RecursionError:
        return _refused("unreadable", raw, "a JSON object that is nested too deeply")
    language = named.get("language")
    made = _made(instruction, input_, output, raw, language.lower() if isinstance(language, str) else None)
    if fields[2] is None and not any(key in named for key in _OUTPUT_KEYS):
        return _refused("unreadable", raw, "a JSON object without an output", made)
    return made


def _text(value: JSON) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = _clean(text).replace("\r\n", "\n").replace("\r", "\n")
    return text.strip("\n").rstrip() if text.strip() else ""


def _leftover(rest: str, *, final: bool = False) -> list[Candidate]:
    """What stands between decoded objects: nothing, chat, or tasks that could not be decoded."""
    begins: list[int] = []
    before = 0
    for key in _KEY.finditer(rest):
        at = rest.rfind("{", before, key.start())
        before = key.end()
        if at >= 0 or not begins:
            begins.append(max(at, 0))
    if not begins and final and rest.strip(" \t\n,[]`").startswith("{"):
        begins = [rest.index("{")]
    pieces = (rest[a:b].strip(" \t\n,") for a, b in itertools.pairwise([*begins, len(rest)]))
    return [_refused("unreadable", piece, _BROKEN) for piece in pieces]
