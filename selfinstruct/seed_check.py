"""Everything that is wrong with a file of seed tasks: schema, twins, code that does not parse, secrets.

It reads and tells; it mends nothing, and never runs an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from selfinstruct import novelty
from selfinstruct.records import Candidate, Seed
from selfinstruct.seed_secrets import find_secrets
from selfinstruct.seeds import RUN_KEYS, Placed, Problem, scan
from selfinstruct.verify.syntax import check_syntax

_PLACE = re.compile(r"(?P<file>.*?)(?::(?P<line>\d+)|, task (?P<task>\d+))?")
_WHY = {
    novelty.INSTRUCTION: "in the words of the instruction",
    novelty.BOTH: "in the words of instruction and input",
    novelty.LANGUAGES: "and there are tasks like it in too many languages already",
    novelty.OUTPUT: "in the output",
}


def check(path: Path) -> tuple[int, list[Problem]]:
    """Look for every problem of a seed file or folder at once.

    Twins are told by the novelty rule of the profile `code` (ROUGE-L above 0.7), the way `generate` would
    refuse a new task.

    Returns:
        The number of tasks that were looked at, and the problems in the order of files and lines.
    """
    placed, problems = scan(path)
    problems = [*problems, *_twins(placed)]
    for each in placed:
        problems += [Problem(each.where, what) for what in (*_unparsed(each.seed), *_secrets(each))]
    files: dict[str, int] = {}
    for name in [each.where for each in placed] + [problem.where for problem in problems]:
        files.setdefault(_place(name)[0], len(files))
    return len(placed), sorted(problems, key=lambda problem: _order(problem.where, files))


def _twins(placed: Iterable[Placed]) -> list[Problem]:
    """Tasks that ask the same as an earlier one, or give nearly the same answer."""
    pool = novelty.make("code")
    before: list[Placed] = []
    problems = []
    for each in placed:
        seed = each.seed
        if not seed.instruction.strip():
            continue
        task = (seed.instruction, seed.input, seed.output, None if seed.language == "text" else seed.language)
        twin = pool.duplicate_of(*task)
        if twin is not None:
            other = before[twin.entry]
            told = (
                f'"{seed.id}" is too much like "{other.seed.id}" at {other.where}: ROUGE-L {twin.score:.2f}'
            )
            problems.append(
                Problem(each.where, f"{told} {_WHY[twin.why]}; keep one, or ask for something else")
            )
        pool.add(*task)
        before.append(each)
    return problems


def _unparsed(seed: Seed) -> list[str]:
    """What the syntax checker says of the answer; of a bare one only where it is code of the seed's language."""
    answer = Candidate(seed.instruction, seed.input, seed.output, language=seed.language, kind=seed.kind)
    rejection = check_syntax(answer)
    if rejection is None:
        return []
    language, message = (rejection.evidence.get(key, "") for key in ("language", "message"))
    return [f"the code of `output` does not parse as {language}: {message}"]


def _secrets(each: Placed) -> list[str]:
    texts = {key: getattr(each.seed, key) for key in ("instruction", "input", "output")}
    texts.update({key: each.row[key] for key in RUN_KEYS if isinstance(each.row.get(key), str)})
    return [
        f"`{key}` seems to hold {found}; put a stand-in such as `example-key` in its place"
        for key, text in texts.items()
        for found in find_secrets(text)
    ]


def _place(where: str) -> tuple[str, int]:
    """The file and the line (or the task's number, or 0) of "file:line"."""
    match = _PLACE.fullmatch(where)
    if match is None:
        return where, 0
    return match["file"], int(match["line"] or match["task"] or 0)


def _order(where: str, files: dict[str, int]) -> tuple[int, int]:
    file, line = _place(where)
    return files[file], line
