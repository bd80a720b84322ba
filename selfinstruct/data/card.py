"""The card of a dataset folder: what it holds, how it was made, under which terms. Makes words, writes nothing.

What it says of the way the rows came to be is read from the run directory beside them, if there is one. Names
that come from a model, a server or a file stand in the card as code, with what Markdown would act on taken out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from selfinstruct import __version__
from selfinstruct.data.export import Counts, IgnoredRows, Plan
from selfinstruct.data.reading import digest_of, files_of, read_examples
from selfinstruct.dataset import dataset_of, run_directory_of
from selfinstruct.display import printable
from selfinstruct.records import JSON, row_id
from selfinstruct.report import Report, read_decisions, read_report
from selfinstruct.weights import catalogue

_SHOWN = (
    "backend", "model", "recipe", "profile", "threshold", "language_cap", "verify", "seed", "shots", "machine_shots",
    "temperature", "top_p", "only_language", "only_kind",
)  # fmt: skip
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where rows come from: the files with their SHA-256, the run that made them, the steps they went through."""

    files: dict[str, str]
    report: Report | None = None
    strangers: int = 0  # rows that are not among those the run accepted
    steps: list[dict[str, JSON]] = field(default_factory=list)

    def as_json(self) -> dict[str, JSON]:
        """For programs; paths of this machine and rejected texts are left out."""
        told = self.report.as_json() if self.report else {}
        hidden = ("dataset", "run_directory", "running", "examples", "settings")
        run = {name: value for name, value in told.items() if name not in hidden}
        if self.report:
            run["settings"] = {name: _shown(self.report.settings, name) for name in (*_SHOWN, "seeds")}
        if self.report:
            run["rows_of_others"] = self.strangers
        return {"selfinstruct": __version__, "sources": self.files, "run": run or None, "steps": self.steps}


def find_origin(plan: Plan) -> Origin:
    """What is known about the rows that the plan reads.

    Raises:
        InputError: a file cannot be read.
    """
    paths = files_of(plan.source, plan.split)
    files = {path.name: digest_of(path) for path in paths}
    folder = run_directory_of(paths[0])
    # x.jsonl and x.parquet have the same run directory as x.json, and need not have to do with it.
    of_run = os.path.realpath(paths[0]) == os.path.realpath(dataset_of(folder))
    if not (of_run and (folder / "run.json").is_file()):
        return Origin(files, steps=_steps(folder, paths[0]))
    return Origin(files, read_report(folder), _strangers(plan, folder), _steps(folder, paths[0]))


def _strangers(plan: Plan, folder: Path) -> int:
    """How many of the rows the run did not make: taken over, or added by hand."""
    made = {
        row_id(entry.decision.candidate.row) for entry in read_decisions(folder) if entry.decision.accepted
    }
    rows = read_examples(plan.source, form=plan.form, split=plan.split, skip_bad=IgnoredRows())
    return sum(not example.is_task or row_id(example.row()) not in made for example in rows)


def _steps(folder: Path, file: Path) -> list[dict[str, JSON]]:
    """The steps that `curate` tells of, if the rows of the file went through it."""
    try:
        told = json.loads((folder / "curate.json").read_bytes())
        return [dict(step) for step in told["steps"]] if Path(told["output"]).name == file.name else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def licence_of(origin: Origin, counts: Counts) -> tuple[str, list[str]]:
    """The licence that can be told with certainty, `unknown` otherwise, and a note for everything it hangs on."""
    notes = []
    known = True
    report = origin.report
    if report is None:
        known = False
        notes.append("No run directory stands beside the rows: what they are derived from is not known here.")
    else:
        settings = report.settings
        name = _shown(settings, "model")
        model = catalogue().get(name) if settings.get("backend") == "local" else None
        if model is not None and model.licence:
            notes.append(f"The model, {_code(name)}, is under {model.licence}.")
        else:
            notes.append(
                f"The model, {_code(name)}, is under terms not known here; see there whether what it writes may "
                "train other models."
            )
        seeds, own = settings.get("seeds"), report.job == "generate"
        if not own:
            notes.append(
                f"The rows were made by {_code(report.job)} of rows or code that were given, whose licence is not "
                "known here."
            )
        elif seeds is None:
            notes.append("The seed tasks are those of selfinstruct, under Apache-2.0.")
        else:
            name = _code(Path(str(seeds)).name)
            notes.append(f"The seed tasks come from the file {name}, whose licence is not known here.")
        if origin.strangers:
            notes.append(
                f"{origin.strangers} rows were taken over or added by hand; their licence is not known here."
            )
        free = model is not None and model.licence == "Apache-2.0"
        known = free and own and seeds is None and not origin.strangers
    for licence, rows in counts.licences.most_common():
        notes.append(f"{rows} rows say of themselves: {_code(licence)}.")
    return "apache-2.0" if known and not counts.licences else "unknown", notes


def write_card(plan: Plan, counts: Counts, origin: Origin, licence: str | None = None) -> str:
    """The card, in Markdown with the front matter that the hub reads.

    Args:
        plan: what was written.
        counts: what it holds.
        origin: where it comes from.
        licence: the owner's word, which wins over what can be told.
    """
    told, notes = licence_of(origin, counts)
    size = next((name for most, name in _SIZES if counts.rows < most), "n>10M")
    front = [
        "---",
        f"license: {json.dumps(printable(licence)) if licence else told}",
        "task_categories:\n- text-generation",
        "tags:\n- code\n- instruction-tuning" + ("\n- synthetic" if origin.report else ""),
        f"size_categories:\n- {size}",
        "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*",
        "---",
    ]
    parts = [
        *front,
        f"\n# {_plain(plan.output.name)}\n",
        f"{counts.rows} rows, written by selfinstruct {__version__}.\n",
        *_fields(plan, counts),
        *_statistics(counts),
        *_making(origin),
        "## Licence notes\n",
        *(f"- {note}" for note in notes),
        "",
    ]
    return "\n".join(parts)


def _fields(plan: Plan, counts: Counts) -> Iterator[str]:
    yield "## Fields\n"
    if plan.template is not None:
        yield f"`text`: the whole text of a row, in the template {_code(plan.template.name)}.\n"
        return
    yield "- `instruction`, `input` (may be empty), `output`"
    if counts.with_system:
        yield "- `system`: the system message, where a row has one"
    if counts.conversations:
        yield "- `history`: the [question, answer] pairs before, where a row has them"
    if counts.documents:
        yield "- `text`: of rows that are plain texts"
    yield ""


def _statistics(counts: Counts) -> Iterator[str]:
    yield "## Statistics\n"
    yield "| | |\n|---|---|"
    yield f"| rows | {counts.rows} |"
    named = ("with_input", "with input"), ("with_system", "with a system message")
    for name, words in (*named, ("conversations", "of several turns"), ("documents", "plain texts")):
        if number := getattr(counts, name):
            yield f"| {words} | {number} |"
    for name, found in counts.lengths().items():
        told = f"median {found['median']}, 90 % up to {found['p90']}, longest {found['longest']}"
        yield f"| characters of {name} | {told} |"
    if counts.refused:
        yield f"| rows left out as unreadable | {counts.refused} |"
    yield ""


def _making(origin: Origin) -> Iterator[str]:
    yield "## How it was made\n"
    report = origin.report
    if report is not None:
        if report.job == "generate":
            yield "A language model wrote tasks after the example of seed tasks; each was checked and compared with all"
            yield "before it."
        else:
            yield f"A language model worked on rows or code that were given ({_code(report.job)})."
        yield "\nSettings:\n\n| | |\n|---|---|"
        yield from (
            f"| {name.replace('_', ' ')} | {_code(shown)} |"
            for name in _SHOWN
            if (shown := _shown(report.settings, name))
        )
        yield f"\n{report.accepted} tasks accepted, {report.rejected} rejected, {origin.strangers} rows of others."
        yield from (f"- {_plain(reason)}: {number}" for reason, number in report.reasons.items())
        tokens = f"{report.prompt_tokens} tokens read, {report.completion_tokens} written"
        models = ", ".join(map(_code, report.models)) or "no model"
        yield f"\n{report.requests} replies; {tokens}; answered by {models}.\n"
        yield from _table("language", report.languages)
        yield from _table("kind", report.kinds)
    for step in origin.steps:
        facts = ", ".join(f"{name} {value}" for name, value in step.items() if isinstance(value, (int, str)))
        yield f"- a step of curation: {_code(facts)}"
    if origin.steps:
        yield ""
    yield "Sources, with their SHA-256:\n"
    yield from (f"- {_code(name)} `{digest}`" for name, digest in origin.files.items())
    yield "\nThe same for programs: `provenance.json`.\n"


def _table(what: str, counts: dict[str, int]) -> Iterator[str]:
    if counts and set(counts) != {"unknown"}:
        yield f"| {what} | tasks |\n|---|---|"
        yield from (f"| {_plain(name)} | {number} |" for name, number in counts.items())
        yield ""


def _shown(settings: dict[str, JSON], name: str) -> str:
    """A setting in one word; of a path, the name."""
    value = settings.get(name)
    if value in (None, [], ""):
        return ""
    if name == "seeds" or (name == "model" and settings.get("backend") != "openai"):
        return Path(str(value)).name
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _plain(text: str) -> str:
    """Words without what Markdown or HTML would act on."""
    return "".join(char if char.isalnum() or char in " ._-+/" else " " for char in printable(text))[
        :120
    ].strip()


def _code(text: str) -> str:
    cleaned = printable(text).replace("`", "'").replace("|", "/").replace("\n", " ")[:200]
    return f"`{cleaned}`"
