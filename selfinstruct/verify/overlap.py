"""Whether a text holds a piece of a benchmark's task: the index of the tasks and the decision.

Pure: tasks come from `benchmarks`, forms of texts from `normal_forms`. It compares wording and code, not
meaning: a task told in other words is not found.

A row overlaps with a task by one of these rules, each of which was set on HumanEval against Code Alpaca:
    text       word n-grams cover half of the task's description, or the row shares a long run of words
    code       token n-grams cover 80 % of its code or of its examples (all of it, if it is short)
    signature  a function with the task's name and the same parameters, in distinctive words
    short      the task's entry point by name, together with a whole description or solution that is too
               short to tell anything alone
"""

from __future__ import annotations

import re
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from selfinstruct.records import JSON, Candidate, Rejection
from selfinstruct.verify.normal_forms import split_code, split_examples, tokens_of, words_of

Rule: TypeAlias = Literal["text", "code", "signature", "short"]
Places: TypeAlias = NDArray[np.int64]
Form: TypeAlias = Callable[[str, list[tuple[int, int]] | None], list[str]]
WORD_GRAM, TOKEN_GRAM = 3, 8
TEXT_SHARE, TEXT_LEAST = 0.5, 8  # of a description; of so many words at least
TEXT_RUN = 13  # words in a row, wherever in a task's text they stand
CODE_SHARE, CODE_LEAST = 0.8, 30
SHORT_SHARE, SHORT_LEAST = 0.95, 16  # of a code that is shorter than CODE_LEAST
SHORT_WORDS, SHORT_TOKENS = 4, 6  # of a description or solution that counts beside the entry point's name
SIGNATURE_WORDS = 4  # different words of name and parameters, below which a signature says little
SAME_GRAM = 64  # places of one n-gram that are looked at: a phrase in more tasks than that tells none apart
PIECE = 240  # characters of evidence
_DEF = re.compile(r"\b(?:def|function|func|fn|fun|sub)\s+(\w+)\s*\(([^()]*)\)")
_HEAD = re.compile(r"^\s*(?:from\s.*|import\s.*|(?:async )?def\s+\w+\s*\([^()]*\).*:[ \t]*)$", re.MULTILINE)
_NAME = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True, slots=True)
class Problem:
    """A task of a benchmark.

    Attributes:
        task: what it is called, `HumanEval/23` or `mbpp.jsonl:17`.
        fields: (name, text) of every text of it that must not turn up in training data.
        entry_point: the function that is asked for, "" if unknown; then the last one that is defined counts.
    """

    task: str
    fields: tuple[tuple[str, str], ...]
    entry_point: str = ""


@dataclass(frozen=True, slots=True)
class Overlap:
    """The strongest overlap of a row: with which task, which field of it, by which rule.

    `share` is the part of the field's text that was met, `within` the row's own field, `piece` what of it
    overlaps, cut to 240 characters.
    """

    task: str
    field: str
    rule: Rule
    share: float
    within: str
    piece: str

    def as_json(self) -> dict[str, JSON]:
        """For a journal or a record."""
        names = ("task", "field", "rule", "share", "within", "piece")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class _Hit:
    """A unit that was met: its share, and the longest run of it as places in the row's form."""

    unit: int
    share: float
    start: int
    length: int


class _Grams:
    """The n-grams of many units of tokens, sorted by hash: 12 bytes for each.

    A unit is met when n-grams cover `share` of its tokens (`short_share` if it has fewer than `least`), or
    when so many tokens of it as `run` says stand in a row.
    """

    def __init__(self, size: int, share: float, least: int, short_share: float, run: float) -> None:
        self.size = size
        self.run = run
        self._shares = share, least, short_share
        self._known: dict[str, int] = {}
        self._tokens, self._starts, self._needed = array("i"), array("q"), array("d")

    def add(self, unit: Sequence[str], *, whole: bool) -> None:
        """Take in a unit; if it is not `whole`, only a run of it counts."""
        share, least, short_share = self._shares
        self._starts.append(len(self._tokens))
        self._needed.append((share if len(unit) >= least else short_share) * len(unit) if whole else np.inf)
        known = self._known
        self._tokens.extend(known.setdefault(token, len(known) + 1) for token in unit)
        self._tokens.append(0)  # no n-gram reaches over the end of a unit

    def freeze(self) -> None:
        """Sort; nothing can be added any more."""
        hashes, valid = _hash(np.frombuffer(self._tokens, np.int32), self.size)
        places = np.flatnonzero(valid)
        order = np.argsort(hashes[places], kind="stable")
        self.places = places[order].astype(np.int32)
        self.hashes = hashes[self.places]
        self.bounds = np.array([*self._starts, len(self._tokens)], np.int64)
        self.needed = np.array(self._needed)
        self._tokens, self._starts, self._needed = array("i"), array("q"), array("d")

    def hits(self, text: Sequence[str]) -> list[_Hit]:
        """Every unit that is met in `text`, the one with the greatest share first."""
        ids = np.fromiter((self._known.get(token, 0) for token in text), np.int32, len(text))
        hashes, valid = _hash(ids, self.size)
        here = np.flatnonzero(valid)
        if not len(here) or not len(self.hashes):
            return []
        first = np.searchsorted(self.hashes, hashes[here], "left")
        count = np.minimum(np.searchsorted(self.hashes, hashes[here], "right") - first, SAME_GRAM)
        total = int(count.sum())
        if not total:
            return []
        behind = np.arange(total) - np.repeat(np.cumsum(count) - count, count)
        places, chosen = np.unique(self.places[np.repeat(first, count) + behind], return_index=True)
        return self._met(places.astype(np.int64), np.repeat(here, count)[chosen])

    def _met(self, places: Places, here: Places) -> list[_Hit]:
        """From places of n-grams in the index (sorted) and in the text to the units that are met."""
        units = np.searchsorted(self.bounds, places, "right") - 1
        last = np.append(units[1:] != units[:-1], [True])  # of its unit
        steps = np.append(np.diff(places), self.size)
        covered = np.cumsum(np.where(last, self.size, np.minimum(steps, self.size)))
        ends = np.flatnonzero(last)
        found, totals = units[ends], np.diff(covered[ends], prepend=0)
        run_ends = np.flatnonzero(last | (steps != 1))
        run_starts = np.append([0], run_ends[:-1] + 1)
        runs = run_ends - run_starts + self.size
        first_runs = np.append([0], np.searchsorted(run_ends, ends[:-1], "right"))  # of each unit
        longest = np.maximum.reduceat(runs, first_runs)
        hits = []
        for number in np.flatnonzero((totals >= self.needed[found]) | (longest >= self.run)).tolist():
            unit = int(found[number])
            run = int(first_runs[number] + np.flatnonzero(runs[first_runs[number] :] == longest[number])[0])
            length = int(self.bounds[unit + 1] - self.bounds[unit]) - 1
            start = int(here[run_starts[run]])
            hits.append(_Hit(unit, int(totals[number]) / length, start, int(longest[number])))
        return sorted(hits, key=lambda hit: (-hit.share, hit.unit))


def _hash(ids: NDArray[np.int32], size: int) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """A 64-bit hash of each window of `size` ids, and whether it holds no 0 (a token nobody knows)."""
    count = len(ids) - size + 1
    if count <= 0:
        return np.empty(0, np.uint64), np.empty(0, bool)
    mixed = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # splitmix64's last steps
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashes, valid = np.zeros(count, np.uint64), np.ones(count, bool)
    for offset in range(size):
        part = slice(offset, offset + count)
        hashes = hashes * np.uint64(0xD6E8FEB86659FD93) + mixed[part]
        valid &= ids[part] != 0
    return hashes, valid


@dataclass(frozen=True, slots=True)
class _Entry:
    """What goes with an entry point: the task, its parameters, and forms too short to tell alone."""

    task: str
    name: str
    parameters: tuple[str, ...] | None
    short: tuple[tuple[str, str, bool], ...]  # field, its form in one line, whether it is code


class Index:
    """The tasks of benchmarks, ready to be asked about rows. It never changes, so threads may share it.

    Args:
        problems: the tasks.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self._words = _Grams(WORD_GRAM, TEXT_SHARE, TEXT_LEAST, TEXT_SHARE, TEXT_RUN)
        self._tokens = _Grams(TOKEN_GRAM, CODE_SHARE, CODE_LEAST, SHORT_SHARE, np.inf)
        self._of_words: list[tuple[str, str]] = []
        self._of_tokens: list[tuple[str, str]] = []
        self._entries: dict[str, list[_Entry]] = defaultdict(list)
        self.size = 0
        for problem in problems:
            self.size += 1
            self._add(problem)
        self._words.freeze()
        self._tokens.freeze()

    def _add(self, problem: Problem) -> None:
        short: list[tuple[str, str, bool]] = []
        definitions: list[tuple[str, str]] = []
        for name, text in problem.fields:
            prose, code = split_code(text)
            definitions += _DEF.findall(code)
            description, examples = split_examples(prose)
            words = words_of(description)
            if len(words) >= TEXT_LEAST:
                self._of_words.append((problem.task, name))
                self._words.add(words, whole=True)
            elif len(words) >= SHORT_WORDS:
                short.append((name, _line(words), False))
            if examples and len(rest := words_of(examples)) >= TEXT_RUN:
                self._of_words.append((problem.task, name))
                self._words.add(rest, whole=False)
            for part in (code, examples):
                tokens = tokens_of(_HEAD.sub("", part))
                if len(tokens) >= (SHORT_LEAST if part is code else CODE_LEAST):
                    self._of_tokens.append((problem.task, name))
                    self._tokens.add(tokens, whole=True)
                elif part is code and len(tokens) >= SHORT_TOKENS:
                    short.append((name, _line(tokens), True))
        entry = problem.entry_point or (definitions[-1][0] if definitions else "")
        if entry:
            named = [parameters for found, parameters in definitions if found == entry]
            parameters = _parameters(named[0]) if named else None
            of_name = self._entries[entry.lower()]
            of_name.append(_Entry(problem.task, entry, parameters, tuple(short)))

    def find(self, fields: Sequence[tuple[str, str]]) -> Overlap | None:
        """The strongest overlap of a row with any task.

        Args:
            fields: (name, text) of each text of the row.

        Returns:
            None where no rule is met.
        """
        words, tokens = _Row(fields, words_of), _Row(fields, tokens_of)
        for rule, row, grams, owners in (
            ("text", words, self._words, self._of_words),
            ("code", tokens, self._tokens, self._of_tokens),
        ):
            hits = grams.hits(row.tokens)
            if hits:
                task, name = owners[hits[0].unit]
                within, piece = row.piece(hits[0].start, hits[0].length)
                share = round(hits[0].share, 3)
                return Overlap(task, name, "text" if rule == "text" else "code", share, within, piece)
        return self._by_name(fields, words, tokens)

    def refuse(self, candidate: Candidate) -> Rejection | None:
        """The rejection `contaminated` of a candidate that overlaps with a task."""
        found = self.find(list(candidate.row.items()))
        return None if found is None else Rejection("contaminated", found.as_json())

    def _by_name(self, fields: Sequence[tuple[str, str]], words: _Row, tokens: _Row) -> Overlap | None:
        for within, text in fields:
            defined = {found[0] for found in _DEF.findall(text)}
            for name in dict.fromkeys(_NAME.findall(text)):
                for entry in self._entries.get(name.lower(), ())[:SAME_GRAM]:
                    if name not in defined and "_" not in name:
                        continue  # a word of English, may be
                    if (piece := _same_signature(entry, text)) is not None:
                        return Overlap(entry.task, "signature", "signature", 1.0, within, piece)
                    for of, form, is_code in entry.short:
                        row = tokens if is_code else words
                        if (place := row.line.find(form)) >= 0:
                            start = row.line[:place].count("\n")
                            found = row.piece(start, form.count("\n") - 1)
                            return Overlap(entry.task, of, "short", 1.0, *found)
        return None


class _Row:
    """A form of all of a row's texts, one behind the other, and the way back to the text.

    A token that no benchmark has keeps them apart.
    """

    def __init__(self, fields: Sequence[tuple[str, str]], form: Form) -> None:
        self.fields = fields
        self.form = form
        self.tokens: list[str] = []
        for _, text in fields:
            self.tokens += [*form(text, None), ""]

    @cached_property
    def line(self) -> str:
        """See `_line`."""
        return _line(self.tokens)

    def piece(self, start: int, length: int) -> tuple[str, str]:
        """The field and the text of `length` tokens from number `start` on."""
        for name, text in self.fields:
            spans: list[tuple[int, int]] = []
            self.form(text, spans)
            if start < len(spans):
                end = spans[min(start + length, len(spans)) - 1][1]
                return name, text[spans[start][0] : end][:PIECE]
            start -= len(spans) + 1
        raise AssertionError("a place behind the row's end")


def _line(tokens: Sequence[str]) -> str:
    """A form as one string in which another one is found by its tokens, not by their parts."""
    return "\n" + "\n".join(tokens) + "\n"


def _parameters(text: str) -> tuple[str, ...]:
    """The names in a parameter list, without types, defaults and `self`."""
    parts = re.sub(r"\[[^\[\]]*\]", "", text).split(",")
    names = [_NAME.findall(re.split(r"[:=]", part)[0]) for part in parts]
    return tuple(found[-1] for found in names if found and found[-1] != "self")


def _same_signature(entry: _Entry, text: str) -> str | None:
    """The definition in `text` that has the entry's name and parameters, if they are distinctive."""
    if (
        not entry.parameters
        or len(set(words_of(" ".join([entry.name, *entry.parameters])))) < SIGNATURE_WORDS
    ):
        return None
    for found in _DEF.finditer(text):
        if found[1] == entry.name and _parameters(found[2]) == entry.parameters:
            return found[0][:PIECE]
    return None
