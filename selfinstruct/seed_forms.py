"""Seed tasks in other forms: TOML, historic JSONL, JSON rows, a table of counts; and a file of one form as another.

Reading them, and what is right in them, is the matter of `seeds` and `seed_check`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from selfinstruct.errors import InputError
from selfinstruct.records import JSON, Seed
from selfinstruct.seeds import RUN_KEYS, SEED_KEYS, Placed, scan
from selfinstruct.vocabulary import KINDS, LANGUAGES

NOT_TOLD = "not told"  # in the place of a language or kind that a historic seed does not have

Counts = dict[tuple[str, str], int]
_NOTHING: Mapping[str, Mapping[str, str]] = {}


def to_historic(seeds: Iterable[Seed], more: Mapping[str, Mapping[str, str]] = _NOTHING) -> str:
    """The seeds as `seed_tasks.jsonl` of Stanford Alpaca, one JSON object per line.

    Language, kind, difficulty, topic and the keys of `more` (by id: setup, check, expect, run) ride
    along under keys that the historic code does not read, so `load` gives the same seeds back.
    """
    lines = []
    for seed in seeds:
        row: dict[str, JSON] = {
            "id": seed.id,
            "name": seed.id,
            "instruction": seed.instruction,
            "instances": [{"input": seed.input, "output": seed.output}],
            "is_classification": seed.kind == "choose",
        }
        extra = {key: getattr(seed, key) for key in ("language", "kind", "difficulty", "topic")}
        row.update({key: value for key, value in extra.items() if value is not None})
        row.update(more.get(seed.id, {}))
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(lines)


def to_toml(seeds: Iterable[Seed], more: Mapping[str, Mapping[str, str]] = _NOTHING) -> str:
    """The seeds in our TOML form, with multi-line text standing as text; `load` gives them back.

    `more` holds setup, check, expect and run by id. The loader takes line breaks off the end of a TOML
    text, so those at the end of a field are lost.
    """
    blocks = []
    for seed in seeds:
        fields = {key: getattr(seed, key) for key in SEED_KEYS} | dict(more.get(seed.id, {}))
        lines = [f"{key} = {_toml_string(value)}\n" for key, value in fields.items() if value]
        blocks.append("[[task]]\n" + "".join(lines))
    return "\n".join(blocks)


def _toml_string(text: str) -> str:
    plain = all(char >= " " and char != "\x7f" for char in text if char not in "\n\t")
    if "\n" in text and plain and "'''" not in text and not text.endswith("'"):
        return f"'''\n{text}'''"
    # JSON's escapes are TOML's, but for DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def convert(source: Path, target: Path) -> tuple[int, list[str]]:
    """Write the seeds of a file or folder in the form that the target's suffix tells (.toml, .jsonl).

    Returns:
        How many seeds were written, and a line for everything of the source that the target does not hold.

    Raises:
        InputError: the suffix is another one, the source has a problem, or the target cannot be written.
    """
    suffix = target.suffix.lower()
    if suffix not in (".toml", ".jsonl"):
        raise InputError(
            f"{target}: the suffix tells the form to write; give a name that ends in .toml or .jsonl"
        )
    if target.exists():
        raise InputError(f"{target} is already there; give another name, or delete it first")
    placed, problems = scan(source)
    if problems:
        rest = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(f"{problems[0]}{rest}; `selfinstruct seeds check` lists all that is wrong")
    seeds = [each.seed for each in placed]
    more = {each.seed.id: _run_keys(each.row) for each in placed}
    text = to_toml(seeds, more) if suffix == ".toml" else to_historic(seeds, more)
    try:
        target.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror or error})") from None
    return len(seeds), _lost(placed, toml=suffix == ".toml")


def _run_keys(row: Mapping[str, JSON]) -> dict[str, str]:
    texts = {key: row[key] for key in RUN_KEYS if isinstance(row.get(key), str)}
    return {key: text.rstrip("\n") for key, text in texts.items() if text.strip()}


def _lost(placed: Iterable[Placed], *, toml: bool) -> list[str]:
    """What the rows hold that was not written, each with the number of tasks it was lost from."""
    lost: Counter[str] = Counter()
    for each in placed:
        seed, row = each.seed, each.row
        known = {*SEED_KEYS, *RUN_KEYS, "instances", "name", "is_classification"}
        lost.update(f"the key `{key}`" for key in row if key not in known)
        if len(row.get("instances", [])) > 1:
            lost["instances after the first"] += 1
        if row.get("name", seed.id) != seed.id:
            lost["the key `name`, where it is not the id"] += 1
        if row.get("is_classification", seed.kind == "choose") != (seed.kind == "choose"):
            lost["the key `is_classification`, where it does not go with the kind"] += 1
        if toml and any(getattr(seed, key).endswith("\n") for key in ("instruction", "input", "output")):
            lost["line breaks at the end of a text"] += 1
    return [f"{what} ({count} task{'s' * (count != 1)})" for what, count in lost.items()]


def choose(
    seeds: Iterable[Seed],
    languages: Sequence[str] = (),
    kinds: Sequence[str] = (),
    difficulties: Sequence[str] = (),
) -> list[Seed]:
    """The seeds that are of one of the (canonical) names of every list that is not empty."""
    return [
        seed
        for seed in seeds
        if (not languages or seed.language in languages)
        and (not kinds or seed.kind in kinds)
        and (not difficulties or seed.difficulty in difficulties)
    ]


def as_row(seed: Seed) -> dict[str, str | None]:
    """A seed as JSON tells it."""
    keys = ("id", "language", "kind", "difficulty", "instruction", "input", "output", "topic")
    return {key: getattr(seed, key) for key in keys}


def count(seeds: Iterable[Seed]) -> tuple[list[str], list[str], Counts]:
    """The languages and kinds that occur, in the order of the vocabulary, and the tasks of each pair."""
    counts: Counts = Counter((seed.language or NOT_TOLD, seed.kind or NOT_TOLD) for seed in seeds)
    languages = [name for name in (*LANGUAGES, NOT_TOLD) if any(pair[0] == name for pair in counts)]
    kinds = [name for name in (*KINDS, NOT_TOLD) if any(pair[1] == name for pair in counts)]
    return languages, kinds, counts


def as_text(seeds: Iterable[Seed]) -> str:
    """The counts as a table, language by kind with totals, no wider than 80 columns.

    The kinds stand letter below letter: side by side they would take 140 columns.
    """
    languages, kinds, counts = count(seeds)
    tall = max(map(len, (*kinds, "total")))
    wide = max(map(len, (*languages, "total")))
    lines = []
    for at in range(tall):
        letters = "".join(f"  {kind.rjust(tall)[at]}" for kind in kinds)
        lines.append(f"{' ' * wide}{letters}    {'total'.rjust(tall)[at]}".rstrip())
    for language in languages:
        numbers = [counts.get((language, kind), 0) for kind in kinds]
        lines.append(_line(language, [*numbers, sum(numbers)], wide))
    sums = [sum(counts.get((language, kind), 0) for language in languages) for kind in kinds]
    lines.append(_line("total", [*sums, sum(sums)], wide))
    return "\n".join(lines)


def _line(name: str, numbers: Sequence[int], wide: int) -> str:
    return name.ljust(wide) + "".join(f"{number or '.':>3}" for number in numbers[:-1]) + f"{numbers[-1]:>5}"
