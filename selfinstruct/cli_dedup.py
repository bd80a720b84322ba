"""The command `selfinstruct dedup`: parses, streams rows through dedup.py, prints. No logic of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from selfinstruct.cli_export import open_bar
from selfinstruct.cli_flags import Datasets, ResultFormat
from selfinstruct.errors import InputError


def dedup(
    inputs: Datasets = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The dataset to write.")] = None,
    threshold: Annotated[
        float, typer.Option(help="ROUGE-L above which a row is a duplicate.", min=0.0, max=0.999999)
    ] = 0.7,
    profile: Annotated[Literal["code", "alpaca"], typer.Option(help="The novelty rule.")] = "code",
    keep: Annotated[
        Literal["first", "longest"], typer.Option(help="Which row of a group of duplicates stays.")
    ] = "first",
    language_cap: Annotated[
        int,
        typer.Option(
            min=1, help="In how many programming languages the same request is kept (profile code)."
        ),
    ] = 3,
    rethreshold: Annotated[
        bool,
        typer.Option(
            "--rethreshold", help="Decide again for OUT under a higher --threshold; compare nothing."
        ),
    ] = False,
    log_format: ResultFormat = "text",
) -> None:
    """Drop the rows that are too like an earlier one; what was dropped stands in OUT's run directory."""
    from itertools import chain
    from json import dumps

    from selfinstruct import dedup as core
    from selfinstruct.data.outputs import check_outputs, owned
    from selfinstruct.dataset import run_directory_of, stream_rows

    if output is None or output.suffix != ".json":
        raise InputError("dedup: name the dataset to write with -o, ending in .json")
    record = run_directory_of(output) / "dedup.jsonl"
    if rethreshold:
        if inputs:
            raise InputError("dedup: --rethreshold works on OUT and its record alone; leave IN out")
        check_outputs(output, [], [], "dedup")
        rows = list(stream_rows(output))
        with owned(output, "dedup"):
            summary = core.rethreshold(rows, output, record, threshold)
    else:
        if not inputs:
            raise InputError("dedup: name at least one dataset to read")
        check_outputs(output, [record], inputs, "dedup")
        with owned(output, "dedup"), open_bar("dropped") as progress:
            summary = core.dedup(
                chain.from_iterable(map(stream_rows, inputs)),
                output,
                record,
                profile=profile,
                threshold=threshold,
                language_cap=language_cap,
                keep=keep,
                progress=progress,
            )
    dropped = summary.rows - summary.kept
    if log_format == "json":
        facts = {
            "rows": summary.rows,
            "kept": summary.kept,
            "dropped": dropped,
            "threshold": summary.threshold,
        }
        typer.echo(dumps(facts | {"output": str(output), "record": str(record)}), err=True)
        return
    typer.echo(f"{summary.rows} rows read, {summary.kept} kept in {output}, {dropped} dropped", err=True)
    typer.echo(f"each with its nearest row and score in {record}", err=True)
