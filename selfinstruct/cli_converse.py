"""The command `selfinstruct converse`: parses, calls one function or two, prints. No logic of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from selfinstruct.cli_flags import COMMAND, INPUTS, LIMITS, MODEL, SAMPLING, VERIFY, Flag, takes
from selfinstruct.errors import InputError

if TYPE_CHECKING:
    from selfinstruct.data.rows import Example
    from selfinstruct.derive.conversation_files import Summary

SHOWN = 10  # clusters in the table
LAYOUT: Mapping[str, Flag] = {
    "output": Annotated[
        Path | None, typer.Option("-o", "--output", help="The conversations to write, a .json file.")
    ],
    "max_tokens": (Annotated[int, typer.Option(min=1, help="Tokens of a conversation.")], 8192),
    "max_turns": Annotated[
        int | None, typer.Option(min=1, help="Questions with their answers in a conversation. [default: any]")
    ],
    "tokenizer": Annotated[
        Path | None,
        typer.Option(help="A tokenizer.json, or its folder. [default: estimate, 3.6 characters a token]"),
    ],
    "clusters": Annotated[
        int | None,
        typer.Option(min=1, help="Groups of similar rows. [default: one for about four conversations]"),
    ],
    "likeness": (
        Annotated[
            Literal["meaning", "words"],
            typer.Option(help="Compare by sentence embeddings (weights are fetched once), or by words."),
        ],
        "meaning",
    ),
    "too_long": (
        Annotated[
            Literal["own", "drop"],
            typer.Option(help="A row longer than --max-tokens: a conversation of its own, or left out."),
        ],
        "own",
    ),
    "layout": (
        Annotated[Literal["openai", "sharegpt"], typer.Option(help="The form of a conversation.")],
        "openai",
    ),
}
TURNS: Mapping[str, Flag] = {
    "turns": Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Follow-up turns that the model makes to each row first. The flags below are for them.",
        ),
    ],
    "max_total_tokens": Annotated[
        int | None, typer.Option(min=1, help="Stop before so many tokens are passed in all requests.")
    ],
}
BUDGETS = {
    name: flag for name, flag in LIMITS.items() if name != "max_tokens"
}  # here a conversation's length
BOTH = {"inputs", "output", "seed", "log_format", *LAYOUT}


@takes(INPUTS, LAYOUT, TURNS, MODEL, VERIFY, SAMPLING, BUDGETS, COMMAND)
def converse(**flags: Any) -> None:
    """Lay similar rows one after another as conversations; which rows went where stands in OUT's run directory."""
    from itertools import chain

    from selfinstruct.data.outputs import check_outputs, owned, refuse_replacing
    from selfinstruct.data.reading import read_examples
    from selfinstruct.dataset import run_directory_of
    from selfinstruct.derive import conversation_files as core

    inputs, output = flags["inputs"], flags["output"]
    if not inputs:
        raise InputError("converse: name the rows to read")
    if output is None or output.suffix != ".json":
        raise InputError("converse: name the file to write with -o, ending in .json")
    record = run_directory_of(output) / "conversations.jsonl"
    if flags["dry_run"]:
        refuse_replacing([output], inputs)
    else:
        check_outputs(output, [record], inputs, "converse")
    examples: Iterable[Example] = chain.from_iterable(map(read_examples, inputs))
    if flags["turns"] is not None:
        made = _make_turns(flags)
        if made is None:
            return
        from selfinstruct.derive.converse import extended, read_turns

        examples = extended(examples, read_turns(made))
    elif idle := sorted(name for name in flags.keys() - BOTH if flags[name]):
        told = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
        raise InputError(f"converse: without --turns no model is asked: leave {told} out")

    quiet = flags["log_format"] == "json"

    def say(text: str) -> None:
        if not quiet:
            typer.echo(text, err=True)

    wishes = core.Wishes(
        **{name: flags[name] for name in LAYOUT if name != "output"}, seed=flags["seed"] or 0
    )
    with owned(output, "converse"):
        summary = core.converse(examples, output, record, wishes, say)
    if quiet:
        from json import dumps

        typer.echo(dumps(summary.as_json() | {"output": str(output), "record": str(record)}), err=True)
        return
    _tell(summary, wishes.max_tokens)
    say(f"conversations in {output}; which rows went where in {record}")


def _make_turns(flags: dict[str, Any]) -> Path | None:
    """The run that makes the turns, to its end; where its journal is, or None after a dry run."""
    from selfinstruct import commands
    from selfinstruct.dataset import run_directory_of

    turns = flags["output"].with_suffix(".turns.json")
    told = {
        name: value for name, value in flags.items() if name not in {*LAYOUT, *TURNS, "config", "dry_run"}
    }
    told |= {"output": turns, "turns": flags["turns"], "length": flags["max_tokens"]}
    told["max_tokens"] = flags["max_total_tokens"]
    commands.derive("converse", told, flags["config"], dry_run=flags["dry_run"])
    return None if flags["dry_run"] else run_directory_of(turns)


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
