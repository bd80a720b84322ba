"""The pool of tasks and the two rules, `alpaca` and `code`, by which a new task counts as a duplicate.

The rules only; the search for near sequences is in rouge_index, the words of the code rule in
novelty_code.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from selfinstruct.errors import InputError
from selfinstruct.novelty_code import output_tokens, read_task
from selfinstruct.records import JSON
from selfinstruct.rouge import fmeasure, tokenize
from selfinstruct.rouge_index import Hit, RougeIndex
from selfinstruct.seams import Novelty

LANGUAGE_CAP = 3
OUTPUT_THRESHOLD = 0.9  # F above which two outputs are nearly identical
OUTPUT_LEAST = 24  # tokens; shorter outputs ("True", "O(n)") are alike by chance
INSTRUCTION, BOTH, LANGUAGES, OUTPUT = "instruction", "instruction and input", "language cap", "output"
EVERYTHING = "everything"
_TOP = 10  # most similar instructions that the historic record lists


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The nearest earlier task: its entry in the pool, F, and what was alike (a `Match`)."""

    entry: int
    score: float
    why: str


@dataclass(frozen=True, slots=True)
class Likeness:
    """An earlier task that is alike: its entry, F, and in what (`INSTRUCTION`, `BOTH` or `OUTPUT`).

    `language` is what the earlier task is in, where both name a language and not the same one; else None.
    """

    entry: int
    score: float
    why: str
    language: str | None = None


class Rule(Novelty, Protocol):
    """A novelty rule that can also tell all it found, so that a decision can be taken anew later."""

    def alike_earlier(self, first: int) -> list[list[Likeness]]:
        """For each entry from `first` on every earlier entry that is alike; `decide` judges them."""

    def reading(self, instruction: str, input_: str, output: str) -> Hashable | None:
        """What the rule sees of a task: tasks of equal reading are alike with F = 1. None if it sees nothing."""


def make(profile: str, threshold: float = 0.7, language_cap: int = LANGUAGE_CAP) -> Rule:
    """An empty pool under the rule of `profile`.

    Args:
        profile: `alpaca` (exact historic rule) or `code`.
        threshold: a task is a duplicate when ROUGE-L F is greater; 0 to 1.
        language_cap: in how many programming languages the code rule keeps the same request.

    Raises:
        InputError: no such profile, or a setting out of range.
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"novelty threshold {threshold} is not between 0 and 1: give a number like 0.7")
    if language_cap < 1:
        raise InputError(f"language cap {language_cap} is below 1: give 1 or more")
    if profile == "alpaca":
        return AlpacaNovelty(threshold)
    if profile == "code":
        return CodeNovelty(threshold, language_cap)
    raise InputError(f"unknown profile {profile!r}: choose code or alpaca")


def decide(found: Iterable[Likeness], threshold: float, language_cap: int) -> Duplicate | None:
    """The rule's last word on what is alike: the nearest that makes the task a duplicate, else None.

    A task alike in another programming language makes none, unless there are already `language_cap`
    languages. Nearly identical outputs make one whatever the threshold for instructions is.
    """
    found = list(found)
    asked = [one for one in found if one.why != OUTPUT and one.score > threshold]
    if same := [one for one in asked if one.language is None]:
        return _nearest(same)
    if len({one.language for one in asked}) >= language_cap:
        best = _nearest(asked)
        return Duplicate(best.entry, best.score, LANGUAGES)
    outputs = [one for one in found if one.why == OUTPUT]
    return _nearest(outputs) if outputs else None


def _nearest(found: list[Likeness]) -> Duplicate:
    """The highest F; of equal ones the earliest."""
    best = max(found, key=lambda one: (one.score, -one.entry))
    return Duplicate(best.entry, best.score, best.why)


def _instructions(hits: list[Hit]) -> list[Likeness]:
    return [Likeness(hit.entry, hit.score, INSTRUCTION) for hit in hits]


class AlpacaNovelty:
    """The historic rule: only the instruction counts, and F > threshold with any entry rejects."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._index = RougeIndex(threshold)
        self._texts: list[str] = []

    def __len__(self) -> int:
        return len(self._index)

    def add(self, instruction: str, input_: str, output: str, language: str | None = None) -> int:  # noqa: ARG002
        """Put a task into the pool; returns its entry number."""
        self._texts.append(instruction)
        return self._index.add(tokenize(instruction))

    def duplicate_of(
        self,
        instruction: str,
        input_: str,  # noqa: ARG002
        output: str,  # noqa: ARG002
        language: str | None = None,  # noqa: ARG002
        limit: int | None = None,
    ) -> Duplicate | None:
        """The nearest of the first `limit` entries when its F is above the threshold."""
        hits = self._index.find(tokenize(instruction), limit)
        return decide(_instructions(hits), self._threshold, 1)

    def alike_earlier(self, first: int) -> list[list[Likeness]]:
        """For each entry from `first` on every earlier one whose F is above the threshold."""
        return [_instructions(hits) for hits in self._index.find_earlier(first)]

    def reading(self, instruction: str, input_: str, output: str) -> Hashable | None:  # noqa: ARG002
        """The historic tokens of the instruction."""
        return tuple(tokenize(instruction)) or None

    def evidence(self, instruction: str) -> dict[str, JSON]:
        """The similarity fields of the historic record: the top 10 of the pool, and the mean over it.

        Ties stand in the order of numpy's argsort, and equal texts collapse, as in the original.
        """
        scores = self._index.scores(tokenize(instruction))
        order = np.argsort(scores)[-_TOP:][::-1]
        most = {self._texts[entry]: float(scores[entry]) for entry in order.tolist()}
        mean = float(np.mean(scores)) if len(scores) else 0.0
        return {"most_similar_instructions": most, "avg_similarity_score": mean}


class CodeNovelty:
    """The code rule: ROUGE-L over the words that say what is asked for, per programming language.

    docs/novelty.md tells the rule; tests/novelty_pairs.toml shows it on judged pairs.
    """

    def __init__(self, threshold: float, language_cap: int) -> None:
        self._threshold = threshold
        self._cap = language_cap
        # An input that counts is appended to its instruction. Both parts above the threshold puts the
        # whole above it too, but for rounding in the last bits: hence the small allowance.
        self._tasks = RougeIndex(max(0.0, threshold - 1e-9))
        self._outputs = RougeIndex(OUTPUT_THRESHOLD)
        self._output_entries = array("q")
        self._asked = array("i")  # tokens of each entry's instruction
        self._leaned_on = array("i")  # tokens of its input that count
        self._languages: list[str | None] = []

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, instruction: str, input_: str, output: str, language: str | None = None) -> int:
        """Put a task into the pool; returns its entry number."""
        task = read_task(instruction, input_, language)
        self._asked.append(len(task.asked))
        self._leaned_on.append(len(task.leaned_on))
        self._languages.append(task.languages)
        tokens = output_tokens(output)
        entry = self._tasks.add(task.asked + task.leaned_on)
        if len(tokens) >= OUTPUT_LEAST:
            self._output_entries.append(entry)
            self._outputs.add(tokens)
        return entry

    def duplicate_of(
        self,
        instruction: str,
        input_: str,
        output: str,
        language: str | None = None,
        limit: int | None = None,
    ) -> Duplicate | None:
        """The nearest of the first `limit` entries that the rule calls the same task, else None.

        `why` is `INSTRUCTION`, `BOTH`, `LANGUAGES` or `OUTPUT`.
        """
        task = read_task(instruction, input_, language)
        hits = self._tasks.find(task.asked + task.leaned_on, limit)
        sizes = len(task.asked), len(task.leaned_on)
        asked = self._alike(hits, sizes, task.languages, lambda entry: self._tasks.common(entry, task.asked))
        found = decide(asked, self._threshold, self._cap)
        tokens = output_tokens(output)
        if found is not None or len(tokens) < OUTPUT_LEAST:
            return found
        known = None if limit is None else bisect_left(self._output_entries, limit)
        return decide(self._alike_outputs(self._outputs.find(tokens, known)), self._threshold, self._cap)

    def alike_earlier(self, first: int) -> list[list[Likeness]]:
        """For each entry from `first` on every earlier one that asks for the like, then by outputs."""
        found = []
        for new, hits in enumerate(self._tasks.find_earlier(first), first):
            sizes = self._asked[new], self._leaned_on[new]
            common = partial(self._tasks.common_of, new, first=sizes[0])
            found.append(self._alike(hits, sizes, self._languages[new], common))
        start = bisect_left(self._output_entries, first)
        for new, hits in enumerate(self._outputs.find_earlier(start), start):
            found[self._output_entries[new] - first] += self._alike_outputs(hits)
        return found

    def reading(self, instruction: str, input_: str, output: str) -> Hashable | None:
        """The words of the task that count, its languages, and the tokens of its output."""
        task = read_task(instruction, input_, None)
        return (task, output_tokens(output)) if task.asked else None

    def _alike(
        self, hits: list[Hit], sizes: tuple[int, int], languages: str | None, common: Callable[[int], int]
    ) -> list[Likeness]:
        """The hits that ask for the like of a task with so many tokens of instruction and of input.

        `common` tells what the task's instruction has in common with an entry.
        """
        asked, leaned_on = sizes
        found = []
        for hit in hits:
            both, score = leaned_on > 0 and self._leaned_on[hit.entry] > 0, hit.score
            if both:  # instructions and inputs share no token: the lower F of the two
                shared = common(hit.entry)
                score = fmeasure(shared, asked, self._asked[hit.entry])
                score = min(score, fmeasure(hit.common - shared, leaned_on, self._leaned_on[hit.entry]))
            if score > self._threshold:
                theirs = self._languages[hit.entry]
                other = None if languages is None or theirs in {None, languages} else theirs
                found.append(Likeness(hit.entry, score, BOTH if both else INSTRUCTION, other))
        return found

    def _alike_outputs(self, hits: list[Hit]) -> list[Likeness]:
        return [Likeness(self._output_entries[hit.entry], hit.score, OUTPUT) for hit in hits]

    def evidence(self, instruction: str) -> dict[str, JSON]:  # noqa: ARG002
        """Nothing: an accepted task of this rule carries no similarity fields."""
        return {}


class ExactNovelty:
    """The rule of jobs over given data: only what is there already, word for word, counts as a duplicate."""

    def __init__(self) -> None:
        self._entries: dict[str, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, instruction: str, input_: str, output: str, language: str | None = None) -> int:  # noqa: ARG002
        """See `seams.Novelty`."""
        self._entries.setdefault(_exactly(instruction, input_, output), self._count)
        self._count += 1
        return self._count - 1

    def duplicate_of(
        self,
        instruction: str,
        input_: str,
        output: str,
        language: str | None = None,  # noqa: ARG002
        limit: int | None = None,
    ) -> Duplicate | None:
        """See `seams.Novelty`; while the output is not known, nothing is a duplicate."""
        entry = self._entries.get(_exactly(instruction, input_, output)) if output else None
        if entry is None or (limit is not None and entry >= limit):
            return None
        return Duplicate(entry, 1.0, EVERYTHING)

    def evidence(self, instruction: str) -> dict[str, JSON]:  # noqa: ARG002
        """Nothing is recorded."""
        return {}


def _exactly(*texts: str) -> str:
    return hashlib.sha256(repr(texts).encode("utf-8", "surrogatepass")).hexdigest()
