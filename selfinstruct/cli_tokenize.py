"""The command `selfinstruct tokenize`: parses, calls one function, prints. No logic of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from selfinstruct.cli_export import open_bad_rows, open_bar
from selfinstruct.cli_flags import ControlTokens, ResultFormat, SkipBad, Source, SourceForm, Split
from selfinstruct.errors import InputError

if TYPE_CHECKING:
    from selfinstruct.data.rows import Example


def tokenize(
    source: Source,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write.")],
    tokenizer: Annotated[
        Path, typer.Option(help="A tokenizer.json, or a model's folder that holds one; nothing is fetched.")
    ],
    template: Annotated[
        str,
        typer.Option(
            metavar="T",
            help="alpaca, alpaca-chat, chatml, oasst, longllama-qa, longllama-chat, a Jinja chat template, or a "
            "tokenizer's folder.",
        ),
    ],
    max_tokens: Annotated[
        int, typer.Option(min=8, help="Tokens of a sequence at most (3072, 8192, ...).")
    ] = 3072,
    pad: Annotated[
        Literal["none", "left", "right", "random"],
        typer.Option(help="Fill sequences up to --max-tokens; random: some of it left, the rest right."),
    ] = "none",
    pack: Annotated[bool, typer.Option("--pack", help="Put several rows into a sequence.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the random padding.")] = 0,
    format_: Annotated[
        Literal["arrow", "parquet", "npy"],
        typer.Option("--format", help="arrow: as Hugging Face saves datasets; npy: NumPy memory maps."),
    ] = "arrow",
    begin_token: Annotated[
        str | None,
        typer.Option(help="The token that begins a text. [default: what the tokenizer's folder tells]"),
    ] = None,
    end_token: Annotated[
        str | None,
        typer.Option(help="The token that ends a text. [default: what the tokenizer's folder tells]"),
    ] = None,
    control: ControlTokens = "refuse",
    form: SourceForm = None,
    split: Split = None,
    skip_bad: SkipBad = False,
    log_format: ResultFormat = "text",
) -> None:
    """Write token ids and labels for training, with configuration files for TRL, Axolotl and LLaMA-Factory."""
    import json
    from dataclasses import asdict

    from selfinstruct.data.chat_templates import find_template
    from selfinstruct.data.outputs import refuse_owned, refuse_replacing
    from selfinstruct.data.reading import bad_rows_of, read_examples
    from selfinstruct.data.token_files import check_store, write_tokens
    from selfinstruct.data.tokens import Job, Shape, TokenCounts, encode, fit_template, load_vocabulary
    from selfinstruct.display import printable

    vocabulary = load_vocabulary(tokenizer, begin_token, end_token)
    counts = TokenCounts()
    fitted, counts.missing = fit_template(find_template(template), vocabulary)
    job = Job(vocabulary, fitted, Shape(max_tokens, pad, pack, seed), control)
    check_store(output, format_, job)
    refuse_replacing([bad_rows_of(output)], [source], split)
    refuse_owned(output, "tokenize")
    with open_bad_rows(output, skip_bad) as bad, open_bar() as progress:

        def refuse(example: Example, why: str) -> None:
            if bad is None:
                raise InputError(f"{example.source}: row {example.number}: {why}")
            bad.add(example.source, "row", example.number, why, example.row())

        examples = read_examples(source, form=form, split=split, skip_bad=bad)
        made = write_tokens(output, format_, job, encode(job, examples, counts, refuse, progress), counts)
        counts.refused = bad.count if bad else 0
    if log_format == "json":
        facts = {
            **asdict(counts),
            "output": str(output),
            "files": sorted(made.files),
            "left_out": made.left_out,
        }
        typer.echo(json.dumps(facts), err=True)
        return
    typer.echo(
        f"{counts.rows} rows, {counts.sequences} sequences of at most {max_tokens} tokens in {output}: "
        f"{counts.tokens} tokens, {counts.learned} of them learned, {counts.padding} of padding",
        err=True,
    )
    typer.echo(
        f"{counts.truncated} rows cut ({counts.lost} tokens lost), {counts.empty} left out with nothing to learn, "
        f"{counts.refused} kept aside",
        err=True,
    )
    for mark in counts.missing:
        typer.echo(
            f"the tokenizer has no single token for {printable(mark)}; it is written letter by letter",
            err=True,
        )
    for name in sorted(made.files):
        typer.echo(f"settings: {output / name}", err=True)
    for trainer, why in made.left_out.items():
        typer.echo(f"no settings for {trainer}: it {why}", err=True)
