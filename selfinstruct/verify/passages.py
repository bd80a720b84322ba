"""Tells code from prose in an answer without fences, line by line, and cuts the prose off.

It knows no language; it looks at the shape of lines (sentences against signs and indents).
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import Literal

from selfinstruct.verify.guess import SURE, rank_languages

Kind = Literal["blank", "prose", "code", "either"]

_SIGNS = re.compile(r"[;{}()\[\]=<>|\\$@#*/+^~&%`_]")
_COMMENT = re.compile(r"\s*(?:#|//|--(?!-)|/\*|\*|<!--|;;|%|\"\"\"|''')")
_STARTS_CODE = re.compile(
    r"""\s*(?:
      (?:import|from|def|class|return|if|elif|else|for|while|try|except|with|public|private|protected|static|const|let|
         var|function|func|fn|int|void|double|float|char|bool|string|use|using|package|print|puts|echo|end|do|then|fi|
         done|local|my|sub|struct|enum|interface|impl|case|switch|break|continue|pass|raise|throw|async|await|
         export|require|include|select|insert|update|delete|create|alter|drop|where|group\ by|order\ by|having|join|
         inner|left|limit|and|or|on|values|set|begin|commit|yield|match|elsif|unless|rescue|ensure|module|val|type)\b(?![,.])
      | [A-Z]{2,}\b | [.\#]?[\w-]+\s*\{ | [\w.\[\]"']+\s*(?:[-+*/:]?=|<-|:=)\s*\S | [@$<&*{}(\[\]]
    )""",
    re.VERBOSE,
)
_QUOTED = re.compile(r"`[^`]*`|\"[^\"]*\"|(?<!\w)'[^']*'(?!\w)")
_SHOUTED = re.compile(r"[A-Z]{2,}\b\s+[A-Z*\w]")
_COMMAND = re.compile(r"\s--?[A-Za-z][\w-]*(?=\s|$)|[|\\]\s*$|^\w+-\w+\s")
# Words that sentences are full of and code is not (so no `and`, `in`, `is`, `not`, `from`, `select`).
_SMALL_WORDS = frozenset(
    """
    the a an of to that it its this these are was be been so which has have can will would there they than but each
    every one your you we our with here should must may only both such into because while also does
    """.split()  # noqa: SIM905 - a list of words reads best as one
)
_WORD = re.compile(r"[A-Za-z][A-Za-z'\u2019-]*")
_LABEL = re.compile(
    r"\s*(?:(?:the|sample|example|expected|here|final|possible|for|in)\s+)?(?:[\w']+\s+){0,4}?(?:output|result|example|"
    r"explanation|note|answer|usage|code|input|query|solution|above|below|follows|following|returns?|prints?|file|"
    r"this)(?:\s+[\w']+){0,4}\s*:\s*(?:\S.*)?",
    re.IGNORECASE,
)
_ANNOUNCED = re.compile(r"[A-Z][a-z]+(?: [\w']+){2,8}: .*")
_VALUE = re.compile(r"\s*(?:[\[{(\d\"'-][\s\w\[\]{}().,:;\"'+-]*)")
_ITEM = re.compile(r"\s*(?:[-*\u2022]|\d{1,3}[.)]|[a-z]\)|\([a-z\d]\)|(?:[Ss]tep\s+)\d+[:.)])\s+")
_ENDS = re.compile(r"[.:!?](?:[\"')\]]*)\s*\Z")
_SAMPLE = re.compile(
    r"(?:#+|//+|--+|/\*+)?\s*(?:(?:sample|expected|the|example|program)\s+)*(?:outputs?|results?)"
    r"\s*(?:is|will be)?\s*[:=]?\s*(?:\*/)?\s*",
    re.IGNORECASE,
)
# What begins a text inside code, and what ends it; a here-document ends with its own word.
_OPENINGS = re.compile(r"\"\"\"|'''|/\*|<!--|^=begin\b|<<[-~]?\s*[\"']?(?P<word>[A-Z]\w+)", re.MULTILINE)
_CLOSINGS = {"/*": "*/", "<!--": "-->", "=begin": "=end"}


def kind_of(line: str) -> Kind:
    """What a single line is by its shape."""
    if not line.strip():
        return "blank"
    if _COMMENT.match(line) and not _ITEM.match(line):
        return "code"
    item = _ITEM.match(line)
    text = line[item.end() :] if item else line.strip()
    bare = _QUOTED.sub("x", text)
    words = _WORD.findall(bare)
    signs = len(_SIGNS.findall(bare))
    small = sum(word.lower() in _SMALL_WORDS for word in words)
    ends = _ENDS.search(text) is not None
    if len(words) >= 6 and small >= 2 and (ends or small >= 4) and signs * 4 <= len(words) + small:
        return "prose"
    if (item or text[:1].isupper()) and not _COMMAND.search(bare) and not _SHOUTED.match(text):
        heading = text.endswith(":") and len(words) >= 2 and not signs
        if (
            heading
            or _ANNOUNCED.match(text)
            or (len(words) >= 4 and signs * 16 < len(bare) and (ends or len(words) >= 7))
        ):
            return "prose"
    if _LABEL.fullmatch(text) and not _STARTS_CODE.match(text) and signs < 12:
        return "prose"
    if _STARTS_CODE.match(text) or signs >= 2 or text.rstrip().endswith((";", "{", "}", ")", "]")):
        return "code"
    return "either"


def has_prose(text: str) -> bool:
    """Whether a text without fences has a line of prose in it."""
    return "prose" in _settle(text.split("\n"))


def cut_passages(text: str) -> list[str]:
    """The passages of code in a text without fences, in order, without the prose around and between them.

    A line of prose counts as such only at the margin and outside comments and long strings; one inside
    markup stays.
    """
    lines = _without_sample(text.split("\n"))
    kinds = _settle(lines)
    passages = []
    for prose, group in groupby(range(len(lines)), key=lambda i: kinds[i] == "prose"):
        part = list(group)
        if prose or all(kinds[i] in ("blank", "either") for i in part):
            continue
        passages.append("\n".join(lines[part[0] : part[-1] + 1]).strip("\n").rstrip())
    return passages


def _without_sample(lines: list[str]) -> list[str]:
    """The lines before `# Output:` where nothing but what a program prints comes after it."""
    for i, line in enumerate(lines):
        if i and _SAMPLE.fullmatch(line):
            ranked = rank_languages("\n".join(lines[i + 1 :]))
            if not ranked or ranked[0][1] < SURE:
                return lines[:i]
    return lines


def _settle(lines: list[str]) -> list[Kind]:
    """Kinds of lines in their places: no prose inside a string, a comment or markup, nor behind an indent."""
    kinds = [kind_of(line) for line in lines]
    tags = [i for i, line in enumerate(lines) if line.lstrip().startswith("<")]
    closing = ""
    for i, line in enumerate(lines):
        if i and kinds[i - 1] == "prose" and lines[i - 1].rstrip().endswith(":") and _VALUE.fullmatch(line):
            kinds[i] = "prose"  # what was announced is a value
        marked_up = bool(tags) and tags[0] < i < tags[-1]
        if kinds[i] == "prose" and (closing or marked_up or line[:1] in (" ", "\t")):
            kinds[i] = "code"
        closing = _still_open(line, closing)
    return kinds


def _still_open(line: str, closing: str) -> str:
    """The mark that will end the text which is open after this line, or ""."""
    at = 0
    if closing:
        at = line.find(closing)
        if at < 0:
            return closing
        at += len(closing)
    while opening := _OPENINGS.search(line, at):
        word = opening["word"]
        closing = word or _CLOSINGS.get(opening[0], opening[0])
        at = line.find(closing, opening.end()) if not word else -1
        if at < 0:
            return closing
        at += len(closing)
    return ""
