"""The job `from-code`: pieces of the user's own code inspire tasks, each with an answer.

The piece is shown when the task is written, and not when it is answered: so the task has to say all that is
needed. Files that hold a secret are left out whole; where a piece came from and its licence stand in the
journal, and so does what an answer has word for word in common with it.

Source: OSS-Instruct (Wei et al. 2023, Magicoder) draws runs of lines and asks for task and answer at once.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import random
import re
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import Field, field_validator

from selfinstruct import filters
from selfinstruct.derive.code_files import find_files, language_of, read_code
from selfinstruct.derive.licences import nearest_licence, stated_licence
from selfinstruct.derive.revise import fenced
from selfinstruct.derive.snippets import Snippet, find_snippets
from selfinstruct.derive.tasks import answer, task_of, task_request
from selfinstruct.derive.worklist import Derivation, DeriveSettings
from selfinstruct.recipes import seed_of_choice
from selfinstruct.records import JSON, Candidate, Source
from selfinstruct.seams import Complete, Plan, PoolView
from selfinstruct.seed_secrets import find_secrets
from selfinstruct.settings import SHAPING_ALL
from selfinstruct.vocabulary import LANGUAGES, find_language

PIECES: Final = 20  # of one file at most
COPIED: Final = 2  # lines in a row, ...
COPIED_CHARACTERS: Final = 40  # ... and characters without spaces, that are noted as copied
_LOG = logging.getLogger(__name__)


class FromCodeSettings(DeriveSettings):
    """What `from-code` can be told."""

    job: ClassVar[str] = "from-code"
    shaping: ClassVar[tuple[str, ...]] = (
        *SHAPING_ALL,
        "snippets",
        "only_language",
        "threshold",
        "language_cap",
    )

    snippets: int = Field(default=1000, ge=1, le=1_000_000)
    only_language: tuple[str, ...] = ()
    threshold: float = Field(default=0.7, ge=0, le=1)
    language_cap: int = Field(default=3, ge=1)

    @classmethod
    def completed(cls, given: dict[str, Any]) -> dict[str, Any]:
        """`given` with what follows from the backend."""
        if not given.get("inputs"):
            raise ValueError("name the folder (or file) of code to draw from")
        return super().completed(given)

    @field_validator("only_language")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        found = [find_language(name) for name in names]
        if None in found:
            raise ValueError(f"no language that selfinstruct knows: {names[found.index(None)]}")
        return tuple(name for name in found if name is not None)


def draw_snippets(settings: FromCodeSettings) -> list[Source]:
    """Pieces of the code below the inputs, drawn by the seed: one of each file, then a second one, and so on.

    Raises:
        InputError: a folder cannot be read.
    """
    rng = random.Random(f"{settings.seed}:files")
    skipped: Counter[str] = Counter()
    files = [(path, top) for top in settings.inputs for path in find_files(top, skipped)]
    wanted = set(settings.only_language)
    files = [pair for pair in files if not wanted or language_of(pair[0]) in wanted]
    rng.shuffle(files)
    licences: dict[Path, str] = {}
    found: list[Source] = []
    seen: set[str] = set()
    left: deque[Iterator[Source]] = deque()
    for pair in files:
        if len(found) == settings.snippets:
            break
        pieces = _pieces(*pair, rng, licences, skipped)
        _take(pieces, found, seen, left)
    while left and len(found) < settings.snippets:
        _take(left.popleft(), found, seen, left)
    if skipped["secret"]:
        _LOG.warning("%d files are left out, for they hold what looks like a secret", skipped["secret"])
    told = ", ".join(f"{reason} {count}" for reason, count in sorted(skipped.items()))
    _LOG.info("%d pieces of %d files; left out: %s", len(found), len(files), told or "nothing")
    return found


def _take(
    pieces: Iterator[Source], found: list[Source], seen: set[str], left: deque[Iterator[Source]]
) -> None:
    """Add the next piece that is not there yet; an iterator that had one waits for its next turn."""
    for piece in pieces:
        if piece.id not in seen:
            seen.add(piece.id)
            found.append(piece)
            left.append(pieces)
            return


def _pieces(
    path: Path, top: Path, rng: random.Random, licences: dict[Path, str], skipped: Counter[str]
) -> Iterator[Source]:
    """The pieces of a file that do not overlap, as sources."""
    text = read_code(path)
    if text is None:
        skipped["no text, or generated"] += 1
        return
    if find_secrets(text):  # a piece of it might hold a part of one that nothing tells any more
        skipped["secret"] += 1
        return
    language = language_of(path)
    place = _place(path, top)
    licence = stated_licence(text) or nearest_licence(path.resolve().parent, licences)
    taken: list[Snippet] = []
    for snippet in find_snippets(text, language, rng):
        if len(taken) == PIECES:
            break
        if any(snippet.first <= other.last and other.first <= snippet.last for other in taken):
            continue
        taken.append(snippet)
        yield Source(
            hashlib.sha256(snippet.text.encode("utf-8", "surrogatepass")).hexdigest()[:16],
            output=snippet.text,
            origin=f"{place}:{snippet.first}-{snippet.last}",
            licence=licence,
            language=language,
        )


def _place(path: Path, top: Path) -> str:
    """The path as the user would write it, from the folder that was given on; odd bytes in a name are marked."""
    told = os.fspath(path.relative_to(top.parent) if path != top else Path(path.name))
    return os.fsencode(told).decode("utf-8", "replace").replace(os.sep, "/")


def from_code(settings: FromCodeSettings, plan: Plan, view: PoolView, complete: Complete) -> list[Candidate]:
    """A task that the piece inspires, judged at once, and then its answer."""
    assert plan.source is not None  # noqa: S101 - jobs over given data have one
    piece = plan.source
    language = LANGUAGES[piece.language].display if piece.language in LANGUAGES else "code"
    code = fenced(piece.output, piece.language)
    shown = partial(settings.prompt, "from_code_task", language=language)
    request = task_request(settings, shown(code=code), seed_of_choice(plan, 0))
    task = task_of(complete(request).choices[0], Candidate(language=piece.language), shown(code=""))
    if task.rejection is None:
        task = view.judge_instruction(task) or answer(
            settings, "from_code_answer", task, seed_of_choice(plan, 1), complete
        )
    return [replace(task, notes={**task.notes, **copied(piece.output, task)})]


def copied(piece: str, task: Candidate) -> dict[str, JSON]:
    """The longest run of lines of the piece that a field of the task holds word for word, if it is worth a note."""
    ours = _lines(piece)
    best: dict[str, JSON] = {}
    for name, text in task.row.items():
        theirs = _lines(text)
        match = difflib.SequenceMatcher(None, ours, theirs, autojunk=False).find_longest_match()
        run = ours[match.a : match.a + match.size]
        if (
            match.size >= COPIED
            and sum(map(len, run)) >= COPIED_CHARACTERS
            and match.size > best.get("lines", 0)
        ):
            best = {"field": name, "lines": match.size, "of": len(ours)}
    return {"copied": best} if best else {}


def _lines(text: str) -> list[str]:
    """The lines that say something, without any space."""
    squeezed = (re.sub(r"\s+", "", line) for line in text.split("\n"))
    return [line for line in squeezed if any(map(str.isalnum, line))]


JOB: Final[Derivation[Any]] = Derivation(
    FromCodeSettings,
    from_code,
    refuse=filters.refuse,
    refuse_instruction=filters.refuse_instruction,
    expected_yield=0.7,
    novel=True,
    read=draw_snippets,
    samples=("Write a function that merges overlapping intervals of integers in one pass.", "x"),
)
