"""The command `selfinstruct curate`: parses, reads a pipeline or makes one of flags, prints. No logic of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from selfinstruct.cli_export import open_bad_rows
from selfinstruct.cli_flags import Datasets, ResultFormat, SkipBad, TokenizerFile
from selfinstruct.errors import InputError

if TYPE_CHECKING:
    from selfinstruct.data.curate import Tally


def curate(
    inputs: Datasets = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The rows that stay, .json or .jsonl.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="The steps, a TOML file of [[step]] tables; instead of the flags below."),
    ] = None,
    min_characters: Annotated[
        int | None, typer.Option(help="Least length of a row, all its texts together.", min=0)
    ] = None,
    max_characters: Annotated[int | None, typer.Option(help="Greatest length of a row.", min=0)] = None,
    min_words: Annotated[int | None, typer.Option(help="Least number of words.", min=0)] = None,
    max_words: Annotated[int | None, typer.Option(help="Greatest number of words.", min=0)] = None,
    min_tokens: Annotated[int | None, typer.Option(help="Least number of tokens.", min=0)] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Greatest number of tokens.", min=0)] = None,
    min_answer_tokens: Annotated[
        int | None, typer.Option(help="Least number of tokens of the answers.", min=1)
    ] = None,
    tokenizer: TokenizerFile = None,
    keep_pattern: Annotated[
        list[str] | None,
        typer.Option(metavar="REGEX", help="Keep rows in which one of these is found; may be repeated."),
    ] = None,
    drop_pattern: Annotated[
        list[str] | None,
        typer.Option(metavar="REGEX", help="Drop rows in which one of these is found; may be repeated."),
    ] = None,
    pattern_field: Annotated[
        str, typer.Option(help="Where patterns look: instruction, input, output, prompt, answers or whole.")
    ] = "whole",
    language: Annotated[
        list[str] | None,
        typer.Option(metavar="CODE", help="Keep prompts written in this language (en); may be repeated."),
    ] = None,
    code_language: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Keep answers with code in this language, or none; may be repeated."
        ),
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Drop exact copies of an earlier row.")] = False,
    near: Annotated[
        float | None,
        typer.Option("--near", help="Drop rows with a ROUGE-L above this to an earlier one (0.7).", min=0),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|FILE", help="Drop what overlaps with this benchmark; may be repeated."),
    ] = None,
    verify: Annotated[
        Literal["syntax", "run"] | None,
        typer.Option(help="Drop answers whose code cannot be parsed, or does not end cleanly in a sandbox."),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Keep so many rows of the same prompt, by their score.", min=1)
    ] = None,
    per_cluster: Annotated[
        int | None, typer.Option(help="Group instructions by meaning; keep so many of a group.", min=1)
    ] = None,
    clusters: Annotated[
        int | None, typer.Option(help="How many groups. [default: the root of half the rows]", min=1)
    ] = None,
    choose: Annotated[
        Literal["nearest", "spread"], typer.Option(help="Which rows of a group: at its centre, or far apart.")
    ] = "nearest",
    seed: Annotated[int, typer.Option(help="Seed of the groups.")] = 0,
    skip_bad: SkipBad = False,
    log_format: ResultFormat = "text",
) -> None:
    """Keep the rows that pass all steps; what was dropped, and why, stands in OUT's run directory.

    Flags become steps in the order in which they stand here; a TOML file may have any order.
    """
    flags = dict(locals())
    from selfinstruct.data.pipeline import make_steps, read_pipeline

    if output is None:
        raise InputError("curate: name the rows to write with -o, ending in .json or .jsonl")
    if not inputs:
        raise InputError("curate: name at least one dataset to read")
    _check_flags(flags)
    tables = _tables(flags)
    if config is not None and tables:
        kinds = ", ".join(table["kind"] for table in tables)
        raise InputError(f"curate: --config and flags for steps ({kinds}) exclude each other; use one")
    steps = read_pipeline(config) if config is not None else make_steps(tables, "flags", Path())
    if not steps:
        raise InputError("curate: nothing to do; give steps by flags (--exact, say) or with --config")
    _run(inputs, steps, output, skip_bad=skip_bad, as_json=log_format == "json")


def _check_flags(flags: dict[str, Any]) -> None:
    """Refuse flags that would do nothing."""
    if flags["clusters"] is not None and flags["per_cluster"] is None:
        raise InputError("curate: --clusters says how many groups; add --per-cluster for what stays of each")
    counts = ("min_tokens", "max_tokens", "min_answer_tokens")
    counted = any(flags[name] is not None for name in counts)
    if counted and flags["tokenizer"] is None:
        raise InputError("curate: counting tokens needs --tokenizer, a tokenizer.json or its folder")
    if flags["tokenizer"] is not None and not counted:
        raise InputError(
            "curate: --tokenizer counts tokens; add --min-tokens, --max-tokens or --min-answer-tokens"
        )


def _tables(flags: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps that the flags ask for, as a TOML file would have them."""
    tables: list[dict[str, Any]] = []

    def add(kind: str, wanted: bool, **settings: Any) -> None:
        if wanted:
            given = {name: value for name, value in settings.items() if value is not None}
            tables.append({"kind": kind, **given})

    for unit in ("characters", "words", "tokens"):
        least, most = flags[f"min_{unit}"], flags[f"max_{unit}"]
        tokenizer = flags["tokenizer"] if unit == "tokens" else None
        wanted = least is not None or most is not None
        add("length", wanted, unit=unit, min=least, max=most, tokenizer=tokenizer)
    least = flags["min_answer_tokens"]
    add("answer-tokens", least is not None, min=least, tokenizer=flags["tokenizer"])
    keep, drop = flags["keep_pattern"] or (), flags["drop_pattern"] or ()
    add("match", bool(keep or drop), keep=keep, drop=drop, field=flags["pattern_field"])
    add("language", bool(flags["language"]), keep=flags["language"])
    add("code-language", bool(flags["code_language"]), keep=flags["code_language"])
    add("exact-duplicates", flags["exact"])
    add("near-duplicates", flags["near"] is not None, threshold=flags["near"])
    add("decontaminate", bool(flags["against"]), against=flags["against"])
    add("verify", flags["verify"] is not None, level=flags["verify"])
    add("top-k", flags["top_k"] is not None, k=flags["top_k"])
    keep, count = flags["per_cluster"], flags["clusters"]
    chosen = {"choose": flags["choose"], "seed": flags["seed"]}
    add("clusters", keep is not None or count is not None, keep=keep, clusters=count, **chosen)
    return tables


def _run(inputs: list[Path], steps: Any, output: Path, *, skip_bad: bool, as_json: bool) -> None:
    import json
    import sys
    from itertools import chain

    from tqdm import tqdm

    from selfinstruct.data.curate import curate as run
    from selfinstruct.data.curate import dropped_of
    from selfinstruct.data.outputs import check_outputs
    from selfinstruct.data.reading import bad_rows_of, read_examples

    beside = [dropped_of(output), *([bad_rows_of(output)] if skip_bad else [])]
    check_outputs(output, beside, inputs, "curate")
    with open_bad_rows(output, skip_bad) as bad, tqdm(unit=" rows", disable=not sys.stderr.isatty()) as bar:
        rows = chain.from_iterable(read_examples(path, skip_bad=bad) for path in inputs)
        report = run(rows, steps, output, bar.update)
    told = report.as_json() | ({"bad": bad.count} if bad else {})
    if as_json:
        typer.echo(json.dumps(told), err=True)
        return
    print_tallies(report.steps)
    typer.echo(f"{report.rows} rows read, {report.kept} kept in {output}", err=True)
    if bad is not None and bad.count:
        typer.echo(f"{bad.count} rows could not be read: {bad.path}", err=True)
    typer.echo(f"each dropped row with its reason in {report.dropped}", err=True)


def print_tallies(tallies: list[Tally]) -> None:
    """A table on stderr: each step with the rows that went in and came out, and why."""
    from rich.table import Table

    from selfinstruct import display

    table = Table(box=None, pad_edge=False)
    for title, justify in (("step", "left"), ("in", "right"), ("out", "right"), ("CPU s", "right")):
        table.add_column(title, justify=cast("Any", justify), no_wrap=True)
    table.add_column("dropped because")
    for tally in tallies:
        why = display.counts(dict(tally.reasons.most_common()))
        figures = str(tally.rows), str(tally.kept), f"{tally.seconds:.1f}"
        table.add_row(f"{tally.number} {tally.kind}", *figures, why)
    display.console(stderr=True).print(table)
