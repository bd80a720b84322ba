"""Splits a reply written with labels (`4. Instruction:`, `**Input:**`, `## Output`) into its items.

It knows lines, labels and fences, and returns texts; whether an item makes a candidate, and what a
JSON reply holds, is told in `parsing`. All steps look at a line a bounded number of times, so the time
is linear in the length of the text.
"""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

# An opening or a closing fence, up to the end of its line.
FENCE: Final = re.compile(r"(?P<ticks>`{3,}|~{3,})[ \t]*(?P<info>[^`\n]*)$", re.MULTILINE)
# Every repetition is bounded, so a line costs the same however it is filled.
_MARK = re.compile(
    r"""
    ^[ ]{0,3}(?![ \t])
    (?: (?=`{3}|~{3})
      | (?P<lead>[#>*_\[(`\- ]{0,10})
        (?: (?P<n1>\d{1,4}) [ ]?[.):\]\-]{1,2} [ ]{0,4} )?
        (?P<mid>[#*_\[(`]{0,4})
        (?: (?:task|example|exercise|item|problem|sample) [ ]{0,2}\#?[ ]?(?P<n2>\d{1,4})
            [*_\]) ]{0,4} [.:\-\u2013\u2014]{0,2} [*_\[( ]{0,4} )?
        (?P<word>instructions?|input|output|response|answer|solution)
        (?: [ ]{0,2}\#?(?P<n3>\d{1,4}) )?
        (?: [ ]\([^()\n]{0,30}\) )?
        (?P<close>[*_\])`]{0,5}) (?: [ ]{0,2}(?P<colon>[:\uff1a]) )? (?P<after>[*_\]]{0,4}) [ \t]*
      | (?P<header>[#*_\[ ]{0,8}(?:task|example|exercise|problem)[ ]{0,2}\#?[ ]?(?P<n4>\d{1,4})(?!\d)
        [*_\]) .:\-\u2013\u2014]{0,6})
      | (?P<item>(?P<n5>\d{1,4})[.)](?:[ \t]+|$))
      | (?P<bar>\#{3,}|-{3,}|={3,})[ \t]*$ )
    """,
    re.MULTILINE | re.VERBOSE | re.IGNORECASE,
)
_INLINE = re.compile(r"(?<=[^\S\n])(?:\#{3}\s{0,2})?\d{1,4}\.\s{1,2}(?:Instruction|Input|Output):")
_BARE_INLINE = re.compile(r"(?<=[.!?> ])(?:Input|Output):")
_CHAT_OPENING = re.compile(
    r"sure|certainly|of course|okay|ok\b|absolutely|great|here (?:are|is)|here's|below|these are|i['\u2019 ]",
    re.IGNORECASE,
)
_CHAT_CLOSING = re.compile(
    r"(?:i hope (?:this|these|that)|hope (?:this|these)|let me know|feel free to|please let me know"
    r"|these (?:tasks|examples|are (?:the|just|only|some))|if you (?:need|want|have|would)\b|would you like"
    r"|(?:and )?that(?:'s| is) (?:all|it)\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a reply: its texts as they stand there, `output` None where no label for it was found."""

    instruction: str
    input: str
    output: str | None
    raw: str


@dataclass(slots=True)
class _Mark:
    """A line that means something: a label, a fence, a bar between items, a title, a numbered line."""

    kind: str  # instruction, input, output, fence, wrapper, bar, header or item
    start: int  # where the line starts
    end: int  # where the text after it starts
    stop: int  # where the text that belongs to the mark itself ends (a title does, a field does not)
    number: int | None = None
    style: str = ""  # decoration: "**", "##", "[", ...
    plain: bool = False  # a label with neither number nor decoration
    synonym: bool = False  # "Response" and the like
    ticks: str = ""  # the fence that opens on this line
    info: str = ""
    blank_before: bool = False  # only white space since the mark before

    @property
    def is_field(self) -> bool:
        return self.kind in {"input", "output"}


@dataclass(slots=True)
class _Draft:
    """An item whose end is not known yet."""

    start: int
    value: int
    number: int | None
    style: str = ""
    fields: list[_Mark] = field(default_factory=list)
    answered: _Mark | None = None  # its first output label
    tail: list[_Mark] = field(default_factory=list)  # all marks inside, in order
    end: int = 0
    labelled: bool = True  # else its instruction just begins
    bold: bool = False  # the label's bold is not closed on the label


def split(text: str, first: int, *, inline: bool = True) -> list[Item]:
    """Split a labelled reply into its items.

    Args:
        text: the reply, with newlines as its only line ends.
        first: the number of the item whose instruction the text may begin with.
        inline: look for labels inside lines too, in items that have no output otherwise.

    Returns:
        The items in order; none where there is no label at all. Text before the first item and after
        the last that reads like chat is left out.
    """
    marks = _outside_fences(text, _marks(text))
    drafts = _drafts(text, marks, first)
    if inline and _is_chatter(text, drafts[0]):
        del drafts[0]
    items: list[Item] = []
    for draft in drafts:
        items += _finish(text, draft, last=draft is drafts[-1], inline=inline)
    return items


def _marks(text: str) -> list[_Mark]:
    found: list[_Mark] = []
    reached = 0
    for match in _MARK.finditer(text):
        mark = _mark(text, match)
        if mark is not None:
            mark.blank_before = not text[reached : mark.start].strip()
            reached = mark.stop
            found.append(mark)
    return found


def _mark(text: str, match: re.Match[str]) -> _Mark | None:
    start, end = match.span()
    number = next((int(n) for n in match.group("n1", "n2", "n3", "n4", "n5") if n), None)
    if match["bar"]:
        return _Mark("bar", start, end, end, style=match["bar"][0])
    if match["header"] or match["item"]:
        stop = text.find("\n", end)
        kind = "header" if match["header"] else "item"
        return _Mark(kind, start, end, len(text) if stop < 0 else stop, number)
    fence = FENCE.match(text, end)
    ticks, info = (fence["ticks"], fence["info"].strip()) if fence else ("", "")
    if not match["word"]:
        return _Mark("fence", start, fence.end(), fence.end(), ticks=ticks, info=info) if fence else None
    style = re.sub("[ -]", "", match["lead"] + match["mid"])
    if match["after"] and match["after"][0].replace("]", "[") not in style:
        end = match.start("after")  # `Output:**bold**`: that is the field's, not the label's
    plain = number is None and style in {"", "#", ">", "("}
    alone = bool(fence) or text[end : end + 1] in {"", "\n"}
    boxed = style.endswith("[") and "]" in match["close"]
    if match["colon"]:
        # `Output::write()` is code, and so is a lower-case `input:` without number or decoration.
        if text[match.end("colon") : match.end("colon") + 1] == ":" or (plain and match["word"][0].islower()):
            return None
    elif not boxed and not (alone and (style or number is not None)):
        return None
    word = match["word"].lower().rstrip("s")
    kind = word if word in {"instruction", "input"} else "output"
    stop = fence.end() if fence else end
    return _Mark(kind, start, end, stop, number, style, plain, kind == "output" != word, ticks, info)


def _outside_fences(text: str, marks: list[_Mark]) -> list[_Mark]:
    """The marks that are not code: fenced ones go, except where a fence wraps items or was never closed."""
    count = len(marks)
    following = [count] * (count + 1)  # the next instruction label
    openings = [0] * (count + 1)  # how many fences surely open before this mark
    for i in range(count - 1, -1, -1):
        following[i] = i if marks[i].kind == "instruction" else following[i + 1]
    for i, mark in enumerate(marks):
        openings[i + 1] = openings[i] + bool(mark.ticks and (mark.info or mark.kind != "fence"))
    closers: dict[tuple[str, int], int] = {}
    kept: list[_Mark] = []
    wrapped, i = False, 0
    while i < count:
        mark = marks[i]
        if mark.kind == "fence" and _wraps(text, marks, i, wrapped=wrapped):
            wrapped = not wrapped
            mark.kind, mark.ticks = "wrapper", ""
        if mark.kind != "fence":
            mark.blank_before &= i == 0 or (bool(kept) and kept[-1] is marks[i - 1])
            kept.append(mark)
        if not mark.ticks:
            i += 1
            continue
        key = mark.ticks[0], min(len(mark.ticks), 8)
        if closers.get(key, -1) <= i:
            closers[key] = next((j for j in range(i + 1, count) if _closes(marks[j], *key)), count)
        close, label = closers[key], following[i + 1]
        # A small model forgets to close: then the next fence would be taken for the end of this one.
        misread = label < close and (
            close == count
            or openings[close] > openings[label]
            or (marks[close].blank_before and marks[close - 1].is_field)
        )
        i = close + 1
        if misread:
            i = label
            while marks[i].blank_before and marks[i - 1].kind in {"bar", "header"}:
                i -= 1
    return kept


def _closes(mark: _Mark, char: str, length: int) -> bool:
    return mark.kind == "fence" and not mark.info and mark.ticks[0] == char and len(mark.ticks) >= length


def _wraps(text: str, marks: list[_Mark], i: int, *, wrapped: bool) -> bool:
    """Whether the fence at `i` stands around items instead of around code."""
    after = i + 1
    while after < len(marks) and marks[after].blank_before and marks[after].kind in {"bar", "header"}:
        after += 1
    if after == len(marks):
        return wrapped and not marks[i].info and not text[marks[after - 1].stop :].strip()
    if not marks[after].blank_before:
        return False
    if wrapped:
        return not marks[i].info and marks[after].kind in {"instruction", "fence"}
    in_field = i > 0 and marks[i].blank_before and marks[i - 1].is_field
    return marks[after].kind == "instruction" and not in_field


def _drafts(text: str, marks: Sequence[_Mark], first: int) -> list[_Draft]:
    upcoming: list[_Mark | None] = [None] * (len(marks) + 1)  # the next label
    for i in range(len(marks) - 1, -1, -1):
        upcoming[i] = marks[i] if marks[i].kind == "instruction" or marks[i].is_field else upcoming[i + 1]
    strong = any(mark.kind == "instruction" and not mark.plain for mark in marks)
    drafts = [_Draft(0, 0, first, labelled=False)]
    for i, mark in enumerate(marks):
        now, before = drafts[-1], marks[i - 1] if i else None
        barred = before is not None and before.kind in {"bar", "wrapper"} and mark.blank_before
        begins = i == 0 and mark.blank_before
        if mark.kind == "instruction" and (not mark.plain or not strong or barred or begins):
            drafts.append(_Draft(mark.start, mark.end, mark.number, mark.style))
            drafts[-1].bold = "**" in mark.style and "**" not in text[mark.start + 4 : mark.end]
        elif mark.is_field:
            now.fields.append(mark)
            now.tail.append(mark)
            if mark.kind == "output" and now.answered is None:
                now.answered = mark
        elif _starts_unlabelled(mark, now, upcoming[i + 1], barred=barred):
            number = mark.number or (now.number and now.number + 1)
            drafts.append(_Draft(mark.start, mark.end, number, labelled=False))
        else:
            now.tail.append(mark)
    for now, then in itertools.pairwise(drafts):
        now.end = _trim(text, now, then.start, last=False)
    drafts[-1].end = _trim(text, drafts[-1], len(text), last=True)
    return drafts


def _starts_unlabelled(mark: _Mark, now: _Draft, then: _Mark | None, *, barred: bool) -> bool:
    """Whether an item without an instruction label starts here: `###`, `Task 5: ...` or `5. ...`.

    Its fields must come in the style of the item before, else it is just a line of that item's output.
    """
    done = now.answered
    opens = then is not None and then.is_field
    alike = done is not None and then is not None and opens and then.style == done.style
    alike = alike and (then.number is None) == (done.number is None)  # type: ignore[union-attr]
    if mark.kind == "bar":
        return alike and mark.style == "#"
    if mark.kind == "header":
        return alike or (opens and not now.fields and now.start == now.value == 0)
    if mark.kind == "item" and done is not None and now.number is not None and mark.number == now.number + 1:
        return (alike or barred) and mark.end < mark.stop
    return False


def _trim(text: str, draft: _Draft, end: int, *, last: bool) -> int:
    """The end of an item without the bar, title or wrapping fence that stands between it and the next."""
    bars = 0
    for mark in reversed(draft.tail):
        if text[mark.stop : end].strip():
            break
        if mark.kind == "bar":
            bars += 1
            line = text[text.rfind("\n", 0, max(mark.start - 1, 0)) + 1 : mark.start].strip()
            drawing = mark.style == "#" and line in {"#", "##"}  # the last row of a triangle
            if bars > 1 or drawing or (last and mark.style != "#"):
                break
        elif mark.kind == "item":
            if mark.end < mark.stop or draft.number is None or mark.number != draft.number + 1:
                break
        elif mark.kind == "header":
            if last:
                break
        elif mark.kind != "wrapper":
            break
        end = mark.start
    return end


def _is_chatter(text: str, head: _Draft) -> bool:
    """Whether the text before the first label is no task: empty, chat, or not set off by a `###`."""
    if head.fields:
        return False
    body = text[: head.end].strip()
    if _INLINE.search(body) or _BARE_INLINE.search(body):
        return False
    barred = bool(head.tail) and head.tail[-1].style == "#" and head.tail[-1].start == head.end
    return not (body and barred) or body.endswith(":") or _CHAT_OPENING.match(body) is not None


def _finish(text: str, draft: _Draft, *, last: bool, inline: bool) -> Iterator[Item]:
    raw = text[draft.start : draft.end].strip("\n")
    styles = {mark.style for mark in draft.fields}
    style = draft.style if draft.style in styles or not draft.fields else draft.fields[0].style

    def fit(mark: _Mark) -> tuple[int, int]:
        like = 2 * (mark.number == draft.number) + (mark.style == style) - 4 * mark.synonym
        return like, -mark.start

    output = max((mark for mark in draft.fields if mark.kind == "output"), key=fit, default=None)
    if output is None and inline:
        body = text[draft.value : draft.end]
        for label in (_INLINE,) if draft.fields else (_INLINE, _BARE_INLINE):
            if label.search(body):
                apart = label.sub(lambda found: "\n" + found[0].lstrip("# \n"), body)
                items = split(apart, draft.number or 0, inline=False)
                if any(item.output is not None for item in items):
                    yield from items
                    return
    stop = draft.end if output is None else output.start
    inputs = [mark for mark in draft.fields if mark.kind == "input" and mark.start < stop]
    given = max(inputs, key=fit, default=None)
    instruction = text[draft.value : stop if given is None else given.start].strip()
    if draft.bold:
        instruction = instruction.replace("**", "", 1) if instruction.count("**") % 2 else instruction
    if not draft.labelled:
        instruction = re.sub(r"\A\d{1,4}[.)]\s+", "", instruction)
    if output is None and given is None and not instruction:
        return  # a label that the next line repeats
    input_ = "" if given is None else _field(text[given.end : stop])
    answer = None if output is None else _field(text[output.end : draft.end])
    yield Item(instruction, input_, _without_goodbye(answer) if last and answer else answer, raw)


def _field(body: str) -> str:
    """A field's text without the white space around it; code keeps its shape."""
    first, newline, _ = body.partition("\n")
    if newline and not first.strip():
        body = textwrap.dedent(body[len(first) + 1 :]).strip("\n")
        return body.rstrip() if body.strip() else ""
    return body.strip()


def _without_goodbye(output: str) -> str:
    """The last output of a reply without a closing paragraph of chat ("Let me know if ...")."""
    body, gap, paragraph = output.rpartition("\n\n")
    if gap and _CHAT_CLOSING.match(paragraph) and "\n" not in paragraph.strip():
        return body.rstrip()
    return output
