"""From examples to what trainers read: formats, templates, one pass over the rows.

Knows the formats and decides which rows fit them. Writing files is the matter of `containers`, the words about
a dataset that of `card`, token ids that of `tokens`.
"""

from __future__ import annotations

import math
import statistics
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from selfinstruct.data import templates
from selfinstruct.data.containers import write_parquet, write_rows
from selfinstruct.data.outputs import refuse_owned, refuse_replacing
from selfinstruct.data.reading import BadRows, bad_rows_of, read_examples
from selfinstruct.data.rows import Example, Form, FormError, check_whole, join
from selfinstruct.data.templates import Control, Template, split_answer, text_of
from selfinstruct.data.writing import row_of
from selfinstruct.errors import InputError
from selfinstruct.records import JSON

Format = Literal["json", "jsonl", "parquet", "hf", "openai", "sharegpt", "prompt-completion"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES: dict[Format, tuple[str, ...]] = {
    "json": (".json",),
    "jsonl": (".jsonl",),
    "parquet": (".parquet",),
    "openai": (".jsonl",),
    "sharegpt": (".json", ".jsonl"),
    "prompt-completion": (".jsonl", ".parquet"),
}
ROW_COLUMNS = ("instruction", "input", "output", "system", "history")
_FROM = {"system": "system", "user": "human", "assistant": "gpt", "tool": "tool"}
_TABLES = {"parquet", "hf"}
_PROGRESS = 1000  # rows between two tellings

Record = dict[str, JSON]
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What an export is: the rows to read, the format, the template.

    `control` says what is done with rows that hold the template's control tokens; `extra` keeps the other
    fields and the score (JSON lines only).
    """

    source: Path
    output: Path
    format: Format
    template: Template | None = None
    control: Control = "refuse"
    form: Form | None = None
    split: str | None = None
    extra: bool = False


@dataclass(slots=True)
class Counts:
    """What was written, in numbers. Lengths are characters."""

    rows: int = 0
    refused: int = 0
    with_input: int = 0
    with_system: int = 0
    conversations: int = 0
    documents: int = 0
    questions: array[int] = field(default_factory=lambda: array("L"))
    answers: array[int] = field(default_factory=lambda: array("L"))
    licences: Counter[str] = field(default_factory=Counter)  # where rows tell theirs

    def add(self, example: Example) -> None:
        """Count a row."""
        self.rows += 1
        self.with_input += bool(example.input)
        self.with_system += bool(example.system)
        self.documents += example.is_document
        self.conversations += len(example.messages) > 3
        self.questions.append(len(example.instruction) + len(example.input))
        self.answers.append(len(example.output))
        licence = example.extra.get("license", example.extra.get("licence")) if example.extra else None
        if isinstance(licence, str):
            self.licences[licence[:60]] += 1

    def lengths(self) -> dict[str, dict[str, int]]:
        """Median, 9th decile and longest of questions and answers, in characters."""
        return {
            name: {"median": int(statistics.median(values)), "p90": sorted(values)[math.ceil(0.9 * len(values)) - 1],
                   "longest": max(values)}
            for name, values in (("questions", self.questions), ("answers", self.answers)) if values
        }  # fmt: skip


def format_of(output: Path) -> Format:
    """The format that a name asks for: by its suffix, a name without one being a folder.

    Raises:
        InputError: no format goes with the suffix.
    """
    named: dict[str, Format] = {".json": "json", ".jsonl": "jsonl", ".parquet": "parquet", "": "hf"}
    if output.suffix not in named:
        raise InputError(f"{output}: what to write is not told by the suffix; name it with --format")
    return named[output.suffix]


def check_plan(plan: Plan) -> None:
    """Refuse what does not go together, before a row is read.

    Raises:
        InputError: the suffix is not the format's; the format has no place for a template; the output is there, is
            what is read, or is another command's.
    """
    suffixes = SUFFIXES.get(plan.format, ())
    if suffixes and plan.output.suffix not in suffixes:
        raise InputError(
            f"{plan.output}: the format {plan.format} is written to a file ending in {' or '.join(suffixes)}"
        )
    refuse_replacing([plan.output, bad_rows_of(plan.output)], [plan.source], plan.split)
    refuse_owned(plan.output, "export")
    name = plan.template.name if plan.template else None
    if name is not None and plan.format in {"openai", "sharegpt"}:
        raise InputError(
            f"the format {plan.format} holds messages and has no place for a template; leave --template out"
        )
    if name not in {None, "alpaca-chat"} and plan.format == "json":
        raise InputError(
            "the format json holds instruction, input and output; of the templates it takes alpaca-chat alone"
        )
    if plan.extra and (plan.format != "jsonl" or plan.template is not None):
        raise InputError("--extra: only the format jsonl, without a template, has a place for other fields")
    if (
        plan.format == "hf"
        and plan.output.exists()
        and (not plan.output.is_dir() or any(plan.output.iterdir()))
    ):
        raise InputError(f"{plan.output}: is already there; name a new folder, or delete it first")


def export(plan: Plan, bad: BadRows | None = None, progress: Progress = lambda _: None) -> Counts:
    """Write all rows of the source into a file of the plan's format; for folders there is `folder`.

    Args:
        plan: what to write.
        bad: keeps the rows that cannot be read or have no place in the format; without it they are errors.
        progress: told the number of rows now and then.

    Raises:
        InputError: a row cannot be read or has no place in the format; says which and why.
        InputError, StoppedEarly: the disk does not take it; what was there before still is.
    """
    check_plan(plan)
    counts = Counts()
    if plan.output.suffix == ".parquet":
        write_parquet(plan.output, records(plan, counts, bad, progress), columns_of(plan))
    else:
        write_rows(plan.output, records(plan, counts, bad, progress))
    return counts


def columns_of(plan: Plan) -> tuple[str, ...]:
    """The columns of a table: system and history only where a row has them, for which all rows are looked at."""
    if plan.format == "prompt-completion":
        return ("prompt", "completion")
    if plan.template is not None:
        return ("text",)
    seen: set[str] = set()
    for example in read_examples(plan.source, form=plan.form, split=plan.split, skip_bad=IgnoredRows()):
        if example.is_dialogue or example.is_document:
            seen.update(example.row())
    if seen == {"text"}:
        return ("text",)
    return (*ROW_COLUMNS[:3], *(name for name in (*ROW_COLUMNS[3:], "text") if name in seen))


class IgnoredRows(BadRows):
    """Bad rows of a first look; the second tells them."""

    def __init__(self) -> None:
        super().__init__(Path())

    def add(self, *_: object) -> None:
        """Forget it."""


def records(plan: Plan, counts: Counts, bad: BadRows | None, progress: Progress) -> Iterator[Record]:
    """The rows in the plan's format, one by one; counts them.

    Raises:
        InputError: a row cannot be read or has no place in the format, and `bad` is None.
    """
    make = _maker(plan)
    for example in read_examples(plan.source, form=plan.form, split=plan.split, skip_bad=bad):
        try:
            record = make(example)
        except FormError as error:
            if bad is None:
                raise InputError(f"{example.source}: row {example.number}: {error}") from None
            bad.add(example.source, "row", example.number, str(error), example.row())
            continue
        counts.add(example)
        if counts.rows % _PROGRESS == 0:
            progress(counts.rows)
        yield record
    counts.refused = bad.count if bad else 0


def _maker(plan: Plan) -> Callable[[Example], Record]:
    """How a row of the format is made of an example; raises FormError where it has no place there."""
    table = plan.format in _TABLES or plan.output.suffix == ".parquet"
    made = _plain_maker(plan) if plan.template is None else partial(_templated, plan, plan.template)
    return (lambda example: _whole_text(made(example))) if table else made


def _plain_maker(plan: Plan) -> Callable[[Example], Record]:
    if plan.format == "openai":
        return _openai
    if plan.format == "sharegpt":
        return _sharegpt
    if plan.format == "prompt-completion":
        return _prompt_completion
    if plan.format == "jsonl":
        return row_of if plan.extra else Example.row
    return _row_of


def _row_of(example: Example) -> Record:
    if not (example.is_dialogue or example.is_document):
        raise FormError("no dialogue of user and assistant; the format openai has a place for it")
    return example.row()


def _openai(example: Example) -> Record:
    _check_turns(example)
    return {"messages": [{"role": turn.role, "content": turn.content} for turn in example.chat()]}


def _sharegpt(example: Example) -> Record:
    _check_turns(example)
    return {"conversations": [{"from": _FROM[turn.role], "value": turn.content} for turn in example.chat()]}


def _check_turns(example: Example) -> None:
    if example.is_document:
        raise FormError("a text without turns")
    if not any(turn.role == "assistant" for turn in example.messages):
        raise FormError("the assistant says nothing in it")


def _prompt_completion(example: Example) -> Record:
    if example.is_document:
        return {"prompt": "", "completion": example.output}
    if not example.is_task or example.system:
        raise FormError("more than a question and its answer; name a --template that makes one prompt of it")
    return {"prompt": join(example.instruction, example.input), "completion": example.output}


def _templated(plan: Plan, template: Template, example: Example) -> Record:
    safe = template.guard(example, plan.control)
    if plan.format == "json":
        if safe.is_document:
            raise FormError("a text without turns")
        row = {"instruction": templates.flatten(safe), "input": safe.input, "output": safe.output}
        return {**row, "system": safe.system} if safe.system else row
    pieces = template.render(safe)
    if plan.format == "prompt-completion":
        prompt, completion = split_answer(pieces)
        return {"prompt": prompt, "completion": completion}
    return {"text": text_of(pieces)}


def _whole_text(record: Record) -> Record:
    """The record, if a table can hold its texts."""
    for name, value in record.items():
        text = value if isinstance(value, str) else "".join(part for pair in value for part in pair)
        check_whole(text, name)
    return record
