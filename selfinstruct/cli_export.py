"""The command `selfinstruct export`: parses, calls one function, prints. No logic of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from selfinstruct.errors import InputError

if TYPE_CHECKING:
    from selfinstruct.data.reading import BadRows

SOURCE_HELP = (
    "Rows in any form: code_alpaca JSON, JSON lines, CSV, Parquet, messages, ShareGPT, Open Assistant trees, Orca "
    "rows, a Hugging Face dataset folder, a run directory."
)
FORM_HELP = (
    "What the rows are, where their fields do not tell (Dolphin's do not). [default: told by the fields]"
)
FormName = Literal[
    "alpaca", "dolphin", "orca", "openai", "sharegpt", "oasst", "oasst-flat", "prompt-completion", "text"
]


def export(
    source: Annotated[Path, typer.Argument(metavar="IN", help=SOURCE_HELP)],
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
    control: Annotated[
        Literal["refuse", "escape"],
        typer.Option(help="What to do with a row whose texts hold control tokens of the template."),
    ] = "refuse",
    form: Annotated[FormName | None, typer.Option(help=FORM_HELP)] = None,
    split: Annotated[
        str | None, typer.Option(help="Of a folder with several splits, which. [default: train]")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Keep rows that cannot be read or exported aside, and go on.")
    ] = False,
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
    log_format: Annotated[Literal["text", "json"], typer.Option(help="How the result is told.")] = "text",
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
    with suppress(OSError):
        bad.path.unlink()  # of an earlier time
    try:
        yield bad
    finally:
        bad.close()


@contextmanager
def open_bar() -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, to be told the number of rows."""
    from tqdm import tqdm

    with tqdm(unit=" rows", disable=not sys.stderr.isatty()) as bar:
        yield lambda rows: bar.update(rows - bar.n)
