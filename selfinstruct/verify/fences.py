"""Splits an answer in Markdown into its fenced blocks and the text between them.

Only the marks are read (backticks or tildes, indented or not, a last fence that was never closed); what the
text inside is, and which language, is not asked here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_OPENING = re.compile(
    r"(?P<indent>[ \t]*(?:>[ ]?)*(?:[-*+]|\d{1,3}[.)])?[ \t]*)(?P<marks>`{3,}|~{3,})(?P<info>[^`]*)"
)


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of an answer: `fenced` with the words behind its fence as `info`, or what stands between.

    `closed` is False for a fence that the text ends in.
    """

    text: str
    fenced: bool = False
    info: str = ""
    closed: bool = True


def split_fences(text: str) -> list[Segment]:
    """The pieces of a text in their order, without the fence lines; text between is there only if not blank.

    A block inside a list or a quotation loses the indent of its fence.
    """
    segments: list[Segment] = []
    lines: list[str] = []
    opening: re.Match[str] | None = None
    for line in text.split("\n"):
        if opening is None:
            found = _OPENING.fullmatch(line.rstrip()) if "```" in line or "~~~" in line else None
            if found is None:
                lines.append(line)
                continue
            _add(segments, lines)
            opening, lines = found, []
        elif _closes(line, opening["marks"]):
            segments.append(Segment("\n".join(lines), fenced=True, info=opening["info"].strip()))
            opening, lines = None, []
        else:
            lines.append(_outdent(line, opening["indent"]))
    if opening is not None:
        segments.append(Segment("\n".join(lines), fenced=True, info=opening["info"].strip(), closed=False))
    else:
        _add(segments, lines)
    return segments


def _add(segments: list[Segment], lines: list[str]) -> None:
    text = "\n".join(lines)
    if text.strip():
        segments.append(Segment(text))


def _closes(line: str, marks: str) -> bool:
    bare = line.strip(" \t>")
    return len(bare) >= len(marks) and not bare.strip(marks[0])


def _outdent(line: str, indent: str) -> str:
    width = 0
    while (
        width < len(indent)
        and width < len(line)
        and (line[width] in " \t" or line[width] == indent[width] == ">")
    ):
        width += 1
    return line[width:]
