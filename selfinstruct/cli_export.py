"""The command `selfinstruct export`: parses, calls one function, prints. No logic of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from selfinstruct.cli_flags import ControlTokens, ResultFormat, SkipBad, Source, SourceForm, Split
from selfinstruct.errors import InputError

if TYPE_CHECKING:
    from selfinstruct.data.reading import BadRows

TOLD_ROWS = 1000  # between two tellings of what is told of every row


def export(
    source: Source,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write; for hf a folder.")],
    format_: Annotated[
        Literal["json", "jsonl", "parquet", "hf", "openai", "sharegpt", "prompt-completion"] | None,
        typer.Option("--format", help="What to write. [default: told by the suffix; a folder is hf]"),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="T",
            help="Render rows to one text: alpaca, alpaca-chat, chatml, oasst, longllama-qa, longllama-chat, a Jinja "
            "chat template, or a tokenizer's folder.",
        ),
    ] = None,
    control: ControlTokens = "refuse",
    form: SourceForm = None,
    split: Split = None,
    skip_bad: SkipBad = False,
    extra: Annotated[bool, typer.Option("--extra", help="jsonl: keep the other fields of the rows.")] = False,
    licence: Annotated[
        str | None, typer.Option(help="hf: the licence for the card. [default: told from model and seeds]")
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="hf: upload the folder; the key comes from HF_TOKEN."),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="With --push: make a new repository public.")
    ] = False,
    log_format: ResultFormat = "text",
) -> None:
    """Write a dataset in the form that a trainer or another program reads."""
    import json

    from selfinstruct.data import push as hub
    from selfinstruct.data.chat_templates import find_template
    from selfinstruct.data.export import Plan, check_plan, format_of
    from selfinstruct.data.export import export as write
    from selfinstruct.display import printable

    chosen = format_ or format_of(output)
    if push and chosen != "hf":
        raise InputError("--push: only a dataset folder is uploaded; add --format hf")
    if public and not push:
        raise InputError("--public: only with --push is anything made public")
    if licence and chosen != "hf":
        raise InputError("--licence: only the card of a dataset folder has a place for it; add --format hf")
    if push:
        hub.check_repository(push)
    made = find_template(template) if template else None
    plan = Plan(source, output, chosen, made, control, form, split, extra)
    check_plan(plan)
    with open_bad_rows(output, skip_bad) as bad, open_bar() as progress:
        if chosen == "hf":
            from selfinstruct.data.folder import write_folder

            counts = write_folder(plan, bad, progress, licence)
        else:
            counts = write(plan, bad, progress)
    facts: dict[str, object] = {"rows": counts.rows, "refused": counts.refused, "output": str(output)}
    if push:
        facts["address"] = hub.push(output, push, private=not public)
    if log_format == "json":
        typer.echo(json.dumps(facts), err=True)
        return
    typer.echo(f"{counts.rows} rows written to {output}", err=True)
    if bad is not None and bad.count:
        typer.echo(f"{bad.count} rows kept aside in {bad.path}, each with its reason", err=True)
    if push:
        typer.echo(f"uploaded to {printable(str(facts['address']))}", err=True)


@contextmanager
def open_bad_rows(output: Path, wanted: bool) -> Iterator[BadRows | None]:
    """What `--skip-bad` asks for."""
    from selfinstruct.data.reading import BadRows, bad_rows_of

    if not wanted:
        yield None
        return
    bad = BadRows(bad_rows_of(output))
    try:
        yield bad
    finally:
        bad.close()
    if not bad.count:
        with suppress(OSError):
            bad.path.unlink()  # of an earlier time


@contextmanager
def open_bar(counted: str = "") -> Iterator[Callable[..., None]]:
    """A bar on a terminal, to be told the rows so far, and how many of them are `counted`."""
    from tqdm import tqdm

    with tqdm(unit=" rows", disable=not sys.stderr.isatty()) as bar:

        def tell(rows: int, number: int = 0) -> None:
            if rows - bar.n >= TOLD_ROWS or not counted:
                bar.update(rows - bar.n)
                if counted:
                    bar.set_postfix_str(f"{number} {counted}")

        yield tell
