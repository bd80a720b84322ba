"""The command `selfinstruct converse`: parses, calls one function, prints. No logic of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from selfinstruct.errors import InputError

if TYPE_CHECKING:
    from selfinstruct.derive.conversation_files import Summary

SHOWN = 10  # clusters in the table


def converse(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN...", help="Rows of any form: see `selfinstruct export`, or a run directory."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The conversations to write, a .json file.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a conversation.")] = 8192,
    max_turns: Annotated[
        int | None, typer.Option(min=1, help="Questions with their answers in a conversation. [default: any]")
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="A tokenizer.json, or its folder. [default: estimate, 3.6 characters a token]"),
    ] = None,
    clusters: Annotated[
        int | None, typer.Option(min=1, help="Groups of similar rows. [default: one for four conversations]")
    ] = None,
    likeness: Annotated[
        Literal["meaning", "words"],
        typer.Option(help="Compare by sentence embeddings (91 MB of weights, fetched once), or by words."),
    ] = "meaning",
    too_long: Annotated[
        Literal["own", "drop"],
        typer.Option(help="A row longer than --max-tokens: a conversation of its own, or left out."),
    ] = "own",
    layout: Annotated[
        Literal["openai", "sharegpt"], typer.Option(help="The form of a conversation.")
    ] = "openai",
    seed: Annotated[int, typer.Option(help="Seed of the clusters.")] = 0,
    log_format: Annotated[Literal["text", "json"], typer.Option(help="How the result is told.")] = "text",
) -> None:
    """Lay similar rows one after another as conversations; which rows went where stands in OUT's run directory."""
    from itertools import chain
    from json import dumps

    from selfinstruct.data.reading import read_examples
    from selfinstruct.dataset import run_directory_of
    from selfinstruct.derive import conversation_files as core

    if output is None or output.suffix != ".json":
        raise InputError("converse: name the file to write with -o, ending in .json")

    def say(text: str) -> None:
        if log_format == "text":
            typer.echo(text, err=True)

    wishes = core.Wishes(max_tokens, max_turns, clusters, likeness, tokenizer, too_long, layout, seed)
    record = run_directory_of(output) / "conversations.jsonl"
    examples = chain.from_iterable(map(read_examples, inputs))
    summary = core.converse(examples, output, record, wishes, say)
    if log_format == "json":
        typer.echo(dumps(summary.as_json() | {"output": str(output), "record": str(record)}), err=True)
        return
    _tell(summary, max_tokens)
    say(f"conversations in {output}; which rows went where in {record}")


def _tell(summary: Summary, max_tokens: int) -> None:
    def say(text: str) -> None:
        typer.echo(text, err=True)

    say(f"{summary.rows} rows in {summary.conversations} conversations, {summary.turns} turns")
    say(f"tokens     {summary.tokens} ({summary.tokenizer}); conversations are {summary.filled:.0%} full")
    if summary.too_long:
        say(f"too long   {summary.too_long} rows have more than {max_tokens} tokens: each is alone")
    if summary.left_out:
        say(f"left out   {summary.left_out} rows, with their reasons in the record")
    near = "-" if summary.neighbours is None else f"{summary.neighbours:.2f}"
    say(
        f"similarity {near} between neighbours of a conversation, {summary.by_chance:.2f} between any two rows"
    )
    largest = sorted(summary.clusters, key=lambda one: -one.rows)
    say(f"clusters   {len(largest)}; the largest, with the mean similarity inside and to the nearest other:")
    for one in largest[:SHOWN]:
        inside, outside = ("-" if each is None else f"{each:.2f}" for each in (one.inside, one.outside))
        say(f"  {one.cluster:>5}  {one.rows:>6} rows  inside {inside}  other {outside}")
