"""Reads seed tasks: our TOML form, the historic JSONL, plain JSON.

It knows the schema, the languages and the kinds. It does not judge whether an answer is right,
whether two tasks are alike, or which seeds are shown to the model, and it writes nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

from selfinstruct.errors import InputError
from selfinstruct.records import JSON, Seed
from selfinstruct.toml_files import read_toml, tomllib
from selfinstruct.vocabulary import DIFFICULTIES, KINDS, LANGUAGES, Term, find_kind, find_language

__all__ = [
    "DIFFICULTIES",
    "KINDS",
    "LANGUAGES",
    "RUN_KEYS",
    "SEED_KEYS",
    "SIDES",
    "TOPICS",
    "Placed",
    "Problem",
    "Term",
    "bundled",
    "digest",
    "find_kind",
    "find_language",
    "load",
    "load_topics",
    "scan",
]

# Keys of a TOML task beside the fields of a Seed: how the tests run it. The loader passes them over.
RUN_KEYS = ("setup", "check", "expect", "run")
SIDES = ("output", "input", "both")  # of a task, that `run` can name

SEED_KEYS = ("id", "language", "kind", "difficulty", "topic", "instruction", "input", "output")
TOPICS = "topics.toml"  # of a folder: subjects to ask for, no tasks

_TASK_HEADER = re.compile(r"[ \t]*\[\[[ \t]*task[ \t]*\]\]")
_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)")
# Every text and comment of a TOML file; what is left of the file is its structure.
_TOML_TEXT = re.compile(
    r"""'''.*?''''{0,2}|"{3}(?:\\.|[^\\])*?"{3,5}|'[^'\n]*'|"(?:\\.|[^"\\\n])*"|\#[^\n]*""", re.DOTALL
)
_TOLD = "told " + chr(0xD800)  # stands for a text whose problem is told already; known by identity
_JSON_GAP = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a seed file: `where` is "file:line" (or the file), `what` says what to do."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, slots=True)
class Placed:
    """A seed, the "file:line" where it begins, and the row as it stands in the file.

    `sound` is False where the row has problems; what cannot be read of it is "" or None in the seed.
    """

    where: str
    seed: Seed
    row: dict[str, JSON] = field(default_factory=dict)
    sound: bool = True


Found = Placed | Problem


def bundled() -> Path:
    """The folder of our own seeds: inside the installed package, or at the top of a checkout.

    Raises:
        InputError: neither is there.
    """
    here = Path(__file__).resolve().parent
    for folder in (here / "seed_tasks", here.parent / "seed_tasks"):
        if folder.is_dir():
            return folder
    raise InputError("the bundled seed tasks are missing: install selfinstruct again, or give --seeds FILE")


def load(path: Path | None = None) -> list[Seed]:
    """Read seed tasks.

    Args:
        path: a folder of .toml files (read in order of their names), one .toml file, or JSON: lines
            in the historic schema (`instances`, of which the first counts), lines with instruction,
            input and output, or an array of either. None means the bundled seeds.

    Returns:
        The seeds in file order, at least one, with unique ids.

    Raises:
        InputError: the first problem of the file, with its line.
    """
    placed, problems = scan(bundled() if path is None else path)
    if problems:
        raise InputError(str(problems[0]))
    return [each.seed for each in placed]


def load_topics(path: Path | None = None) -> dict[str, list[str]]:
    """The subjects by language in `topics.toml` of a folder of seeds; empty where there is no such file.

    Raises:
        InputError: the file is not a table of lists of texts.
    """
    file = (bundled() if path is None else path) / TOPICS
    if not file.is_file():
        return {}
    table = read_toml(file, "the subjects")
    for name, topics in table.items():
        if not isinstance(topics, list) or not topics or not all(isinstance(topic, str) for topic in topics):
            raise InputError(f"{file}: {name} must be a list of texts, with at least one")
    return table


def scan(path: Path) -> tuple[list[Placed], list[Problem]]:
    """Read like `load`, but go on after a problem: all that is readable, and all that is wrong.

    A task whose id is taken stands among the readable ones too, as not sound.
    """
    placed: list[Placed] = []
    problems: list[Problem] = []
    first_use: dict[str, str] = {}
    for found in _read(path):
        if isinstance(found, Problem):
            problems.append(found)
            continue
        taken = first_use.get(found.seed.id)
        if taken and found.seed.id:
            told = f'the id "{found.seed.id}" is already used at {taken}; give it its own'
            problems.append(Problem(found.where, told))
            placed.append(replace(found, sound=False))
        else:
            first_use[found.seed.id] = found.where
            placed.append(found)
    if not placed and not problems:
        problems.append(Problem(str(path), "no seed tasks in it; at least one is needed"))
    return placed, problems


def digest(seeds: Sequence[Seed]) -> str:
    """A 16-digit hex hash of the seeds' content and order; it does not depend on the file format."""
    text = json.dumps([astuple(seed) for seed in seeds], ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read(path: Path) -> Iterator[Found]:
    if path.is_dir():
        for file in sorted(path.glob("*.toml")):
            if file.name != TOPICS:
                yield from _read(file)
        return
    try:
        data = path.read_bytes()
    except OSError as error:
        yield Problem(str(path), f"cannot be read ({error.strerror or error})")
        return
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        yield Problem(f"{path}:{line}", "not UTF-8 text; save the file as UTF-8")
        return
    if path.suffix.lower() == ".toml":
        rows = _toml_rows(str(path), text)
    elif text.lstrip().startswith("["):
        rows = _array_rows(str(path), text)
    else:
        rows = _line_rows(str(path), text)
    number = 0
    for row in rows:
        if isinstance(row, Problem):
            yield row
            continue
        number += 1
        where, value = row
        yield from _seed(where, value, number, toml=path.suffix.lower() == ".toml")


def _toml_rows(name: str, text: str) -> Iterator[tuple[str, JSON] | Problem]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = _TOML_PLACE.search(str(error))
        line = (place.group(1) if place else None) or text.rstrip().count("\n") + 1
        yield Problem(f"{name}:{line}", f"not valid TOML: {_TOML_PLACE.sub('', str(error))}")
        return
    tasks = document.pop("task", [])
    for key in document:
        yield Problem(name, f'unknown key "{key}" at the top; the file holds [[task]] tables only')
    if not isinstance(tasks, list):
        yield Problem(name, "`task` is one table; write [[task]] with two brackets")
        return
    # The parser does not tell where a table stands; its headers do, if the tasks have headers.
    bare = _TOML_TEXT.sub(lambda found: "\n" * found[0].count("\n"), text)
    lines = [at for at, line in enumerate(bare.split("\n"), 1) if _TASK_HEADER.match(line)]
    for index, task in enumerate(tasks):
        where = f"{name}:{lines[index]}" if len(lines) == len(tasks) else f"{name}, task {index + 1}"
        yield where, task


def _line_rows(name: str, text: str) -> Iterator[tuple[str, JSON] | Problem]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield f"{name}:{number}", json.loads(line)
        except (ValueError, RecursionError) as error:
            why = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deep"
            yield Problem(f"{name}:{number}", f"not JSON ({why}); mend or delete the line")


def _array_rows(name: str, text: str) -> Iterator[tuple[str, JSON] | Problem]:
    decoder = json.JSONDecoder()
    at = text.index("[") + 1
    line, counted = 1, 0
    while True:
        at = _gap(text, at)
        line, counted = line + text.count("\n", counted, at), at
        where = f"{name}:{line}"
        if text[at : at + 1] == "]":
            if text[at + 1 :].strip():
                yield Problem(where, "more text after the end of the JSON array; remove it")
            return
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            yield Problem(f"{name}:{error.lineno}", f"not valid JSON ({error.msg})")
            return
        except RecursionError:
            yield Problem(where, "not valid JSON (nested too deep)")
            return
        yield where, value
        at = _gap(text, at)
        if text[at : at + 1] == ",":
            at += 1
        elif text[at : at + 1] != "]":
            line += text.count("\n", counted, at)
            yield Problem(f"{name}:{line}", 'not valid JSON (a "," or "]" is missing)')
            return


def _gap(text: str, at: int) -> int:
    match = _JSON_GAP.match(text, at)
    return match.end() if match else at


def _seed(where: str, row: JSON, number: int, *, toml: bool) -> Iterator[Found]:
    """The seed of one row, or everything that is wrong with it."""
    if not isinstance(row, dict):
        yield Problem(where, "not an object with instruction, input and output")
        return
    problems: list[str] = []
    fields = dict(row)
    if "instances" in row and not toml:
        instances = row["instances"]
        if isinstance(instances, list) and instances and isinstance(instances[0], dict):
            fields.update({key: instances[0].get(key) for key in ("input", "output")})
        else:
            problems.append("`instances` must be a list that holds an object with input and output")
            fields["output"] = _TOLD
    if toml:
        unknown = [key for key in fields if key not in (*SEED_KEYS, *RUN_KEYS)]
        problems += [
            f'unknown key "{key}"; known are {", ".join((*SEED_KEYS, *RUN_KEYS))}' for key in unknown
        ]
        problems += _run_problems(fields)
    elif fields.get("id") in (None, ""):
        fields["id"] = f"seed-{number}"
    texts = {key: _text(fields, key, problems, toml=toml) for key in SEED_KEYS}
    problems += [
        f"`{key}` is missing or empty" for key in ("id", "instruction", "output") if texts[key] == ""
    ]
    language = _known("language", texts["language"], find_language, LANGUAGES, problems)
    kind = _known("kind", texts["kind"], find_kind, KINDS, problems)
    if texts["difficulty"] not in ("", *DIFFICULTIES) and texts["difficulty"] is not _TOLD:
        problems.append(f'unknown difficulty "{texts["difficulty"]}"; known are {", ".join(DIFFICULTIES)}')
    yield from (Problem(where, problem) for problem in problems)
    texts = {key: "" if text is _TOLD else text for key, text in texts.items()}
    input_ = "" if texts["input"].strip().lower() == "<noinput>" else texts["input"]
    seed = Seed(
        id=texts["id"],
        instruction=texts["instruction"],
        input=input_,
        output=texts["output"],
        language=language,
        kind=kind,
        difficulty=texts["difficulty"] if texts["difficulty"] in DIFFICULTIES else None,
        topic=texts["topic"] or None,
    )
    yield Placed(where, seed, row, sound=not problems)


def _run_problems(fields: dict[str, JSON]) -> list[str]:
    """What is wrong with the keys that tell how a task is run."""
    problems = []
    for key in RUN_KEYS:
        value = fields.get(key, "")
        if not isinstance(value, str):
            problems.append(f"`{key}` must be text, not {type(value).__name__}")
        elif key == "run" and key in fields and value not in SIDES:
            problems.append(f'`run` is "{value}"; known are {", ".join(SIDES)}')
    return problems


def _text(fields: dict[str, JSON], key: str, problems: list[str], *, toml: bool) -> str:
    """The text of a field, "" when it is not there or holds white space only."""
    value = fields.get(key)
    if value is None:
        return ""
    if key == "id" and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is _TOLD:
        return _TOLD
    if not isinstance(value, str):
        problems.append(f"`{key}` must be text, not {type(value).__name__}")
        return _TOLD
    try:
        value.encode()
    except UnicodeEncodeError:
        problems.append(f"`{key}` holds half of a surrogate pair; write the character itself")
        return _TOLD
    if not value.strip():
        return ""
    return value.rstrip("\n") if toml else value


def _known(
    what: str, word: str, find: Callable[[str], str | None], table: dict[str, Term], problems: list[str]
) -> str | None:
    if word == "" or word is _TOLD:
        return None
    name = find(word)
    if name is None:
        problems.append(f'unknown {what} "{word}"; known are {", ".join(table)}')
    return name
