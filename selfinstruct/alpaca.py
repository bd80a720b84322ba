"""The historic rules of Stanford Alpaca and Code Alpaca: prompt layout, parser and instruction filters.

Decision for decision what the original did, its flaws included; better rules are in `parsing` and
`filters`. What the original dropped without a word becomes a rejection here. The novelty rule that
belongs to this profile is in `novelty`.

Source of the algorithm: `generate_instruction.py` of Stanford Alpaca (Taori et al. 2023), which Code
Alpaca (Chaudhary 2023) took over.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Final

from selfinstruct.records import Candidate, Rejection, Seed

STOP: Final = ("\n20", "20.", "20.")  # the stop sequences that the original sent
RAW_LIMIT: Final = 20_000  # characters of raw text kept with a candidate; the reply log has all of it
BLACKLIST: Final = (
    *("image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps"),
    *("draw", "plot", "go to", "video", "audio", "music", "flowchart", "diagram"),
)

_LABEL = re.compile(r"(?<![0-9])([0-9]+)\.\s+(?:Instruction|Input|Output):")
_SURROGATES = re.compile("[\ud800-\udfff]")  # the decisions do not depend on them, but no file can hold them


def layout(prompt_text: str, shots: Sequence[Seed]) -> str:
    """The prompt: the text, the shots as a numbered list, and the label of the next instruction.

    Args:
        prompt_text: the head, without a line end after it.
        shots: the examples, numbered from 1.
    """
    lines = [prompt_text]
    for number, shot in enumerate(shots, 1):
        instruction = re.sub(r"\s+", " ", shot.instruction).strip().rstrip(":")
        lines += ["###", f"{number}. Instruction: {instruction}"]
        lines += [f"{number}. Input:", shot.input or "<noinput>", f"{number}. Output:", shot.output]
    return "\n".join([*lines, "###", f"{len(shots) + 1}. Instruction:"])


def parse(text: str, finish_reason: str = "stop", first: int = 4) -> list[Candidate]:
    """Read a reply as the original did: cut at every `###`, then each part must have its three labels.

    Args:
        text: the reply, which goes on right after `{first}. Instruction:`.
        finish_reason: with "length" the part after the last `###` is dropped (rejection `cut_off`).
        first: the number of the first part; part j must bear the number first + j.

    Returns:
        The candidates in order. A part that the original skipped carries the rejection `unreadable`;
        a part of white space is nothing and left out; a blank reply is one `empty_reply`.
    """
    text = _SURROGATES.sub("\ufffd", text)
    if not text.strip():
        return [Candidate(raw=text[:RAW_LIMIT], rejection=Rejection("empty_reply", {"why": "no text"}))]
    parts = f"{first}. Instruction:{text}".split("###")
    found: list[Candidate] = []
    for number, part in enumerate(parts, first):
        raw = part.strip()[:RAW_LIMIT]
        if not raw:
            continue
        digits = str(number)  # the original looks for `4.` anywhere, so `14.` has it too
        labels = [label for label in _LABEL.finditer(part) if label[1].endswith(digits)]
        if number == first + len(parts) - 1 and finish_reason == "length":
            evidence = {"why": "the reply was cut at its length limit"}
            found.append(Candidate(raw=raw, rejection=Rejection("cut_off", evidence)))
        elif len(labels) != 3:
            evidence = {"why": f"{len(labels)} labels with number {number} where 3 are needed"}
            found.append(Candidate(raw=raw, rejection=Rejection("unreadable", evidence)))
        else:
            ends = [label.end(1) - len(digits) for label in labels[1:]] + [len(part)]
            fields = zip(labels, ends, strict=True)
            instruction, input_, output = (part[label.end() : end].strip() for label, end in fields)
            input_ = "" if input_.lower() == "<noinput>" else input_
            found.append(Candidate(instruction, input_, output, raw=raw))
    return found


def refuse(candidate: Candidate, _: Sequence[Seed] = ()) -> Rejection | None:
    """The original's filters, in its order; all look at the instruction alone.

    Returns:
        A rejection named `too_short`, `too_long`, `blacklist`, `write_a_program`, `punctuation` or
        `non_ascii`, or None.
    """
    text = candidate.instruction
    words = len(text.split())
    if words <= 3:
        return Rejection("too_short", {"words": words, "more_than": 3})
    if words > 150:
        return Rejection("too_long", {"words": words, "at_most": 150})
    for word in BLACKLIST:
        if re.search(rf"\b{word}\b", text, re.IGNORECASE):
            return Rejection("blacklist", {"word": word})
    if text.startswith("Write a program"):
        return Rejection("write_a_program", {"found": text[:200]})
    if text[0] in string.punctuation:
        return Rejection("punctuation", {"found": text[0]})
    if not text[0].isascii():
        return Rejection("non_ascii", {"found": text[0]})
    return None
