"""The command `selfinstruct mix`: parses, reads the settings of a mix, prints. No logic of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from selfinstruct.cli_export import open_bad_rows
from selfinstruct.cli_flags import ResultFormat, SkipBad, TokenizerFile
from selfinstruct.errors import InputError

if TYPE_CHECKING:
    from selfinstruct.data.mix import MixReport


def mix(
    given: Annotated[
        str,
        typer.Argument(
            metavar="MIX",
            help="A TOML file of [[source]] tables, or longllama-code-instruct or oasst-orca-8k.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The training rows, .json or .jsonl.")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH", help="Where a source is, in place of what MIX says; may be repeated."
        ),
    ] = None,
    rows: Annotated[
        int | None, typer.Option(help="Training rows of the sources with a probability, together.", min=1)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the choice and of the order.")] = None,
    tokenizer: TokenizerFile = None,
    skip_bad: SkipBad = False,
    show: Annotated[bool, typer.Option("--show", help="Print the TOML file of a ready mix and end.")] = False,
    log_format: ResultFormat = "text",
) -> None:
    """Mix datasets by probability, fraction or count; OUT's run directory gets a manifest and what was dropped."""
    from selfinstruct.data.mix_settings import read_mix, ready_mixes

    if show:
        if given not in ready_mixes():
            raise InputError(f"mix: --show prints a ready mix; there are {', '.join(ready_mixes())}")
        typer.echo(ready_mixes()[given].read_text(encoding="utf-8"), nl=False)
        return
    if output is None:
        raise InputError("mix: name the rows to write with -o, ending in .json or .jsonl")
    pairs = [one.partition("=") for one in source or ()]
    if wrong := [name for name, mark, path in pairs if not (name and mark and path)]:
        raise InputError(f"mix: --source {wrong[0]!r}: write NAME=PATH")
    flags = {"rows": rows, "seed": seed, "tokenizer": tokenizer}
    settings = read_mix(
        given,
        {name: Path(path) for name, _, path in pairs},
        {name: value for name, value in flags.items() if value is not None},
    )
    _run(settings, output, skip_bad=skip_bad, as_json=log_format == "json")


def _run(settings: Any, output: Path, *, skip_bad: bool, as_json: bool) -> None:
    import json
    import sys

    from tqdm import tqdm

    from selfinstruct.data.mix import mix as run

    with open_bad_rows(output, skip_bad) as bad, tqdm(unit=" rows", disable=not sys.stderr.isatty()) as bar:
        report = run(settings, output, bad=bad, progress=bar.update)
    if as_json:
        told = json.loads(report.manifest.read_bytes())
        typer.echo(
            json.dumps({"manifest": str(report.manifest), **told, "cpu_seconds": report.seconds}), err=True
        )
        return
    _print_budget(report)
    held = f", {sum(one.validation['rows'] for one in report.sources)} in {report.validation}"
    typer.echo(f"{report.rows} rows in {output}{held if report.validation else ''}", err=True)
    if bad is not None and bad.count:
        typer.echo(f"{bad.count} rows could not be read: {bad.path}", err=True)
    spent = ", ".join(f"{part} {seconds:.1f}" for part, seconds in report.seconds.items())
    typer.echo(f"CPU s: {spent}", err=True)
    typer.echo(f"tokens: {report.counted_by}; all about it in {report.manifest}", err=True)


def _print_budget(report: MixReport) -> None:
    """A table on stderr: what each source had and what it gives, in rows, characters and tokens."""
    from rich.table import Table

    from selfinstruct import display

    titles = (
        "source",
        "read",
        "left",
        "validation",
        "training",
        "share",
        "characters",
        "tokens",
        "share",
        "licence",
    )
    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, justify=cast("Any", "left" if title in {"source", "licence"} else "right"))
    rows, tokens = (sum(one.training[name] for one in report.sources) for name in ("rows", "tokens"))
    for one in report.sources:
        given = one.training
        figures = (one.rows, len(one.places), one.validation["rows"], given["rows"])
        table.add_row(
            one.source.name,
            *map(str, figures),
            f"{given['rows'] / max(rows, 1):.1%}",
            str(given["characters"]),
            str(given["tokens"]),
            f"{given['tokens'] / max(tokens, 1):.1%}",
            display.printable(one.source.licence),
        )
    display.console(stderr=True).print(table)
