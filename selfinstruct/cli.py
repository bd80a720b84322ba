"""The command line: parses, calls one function, prints. No logic of its own."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import typer

from selfinstruct import __version__, cli_derive
from selfinstruct.cli_converse import converse
from selfinstruct.cli_curate import curate
from selfinstruct.cli_decontaminate import decontaminate
from selfinstruct.cli_dedup import dedup
from selfinstruct.cli_export import export
from selfinstruct.cli_flags import COMMAND, LIMITS, MODEL, SAMPLING, VERIFY, Flag, takes
from selfinstruct.cli_mix import mix
from selfinstruct.cli_seeds import seeds_app
from selfinstruct.cli_tokenize import tokenize
from selfinstruct.cli_verify import verify
from selfinstruct.errors import SelfInstructError

app = typer.Typer(
    name="selfinstruct",
    help="Makes instruction data for code models: new, checked, code_alpaca-style tasks from a few seeds.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
NOBODY_READS = 128 + 13  # as a shell tells of a program that SIGPIPE ended
models_app = typer.Typer(help="The embedded models: list, fetch, find, remove.", no_args_is_help=True)


def main() -> None:
    """The console script: errors that a user can cause end in one line and their own exit status."""
    try:
        with _quiet_where_nobody_reads():
            app()
    except SelfInstructError as error:
        with contextlib.suppress(OSError):
            print(f"selfinstruct: {_one_line(str(error))}", file=sys.stderr)  # noqa: T201 - the one place for it
        sys.exit(error.status)
    finally:
        # What a full disk or a closed pipe did not take would turn the exit status into 120 when Python ends.
        _give_up_unwritten(sys.stderr, OSError)
        _give_up_unwritten(sys.stdout, BrokenPipeError)


@contextlib.contextmanager
def _quiet_where_nobody_reads() -> Iterator[None]:
    """Whoever read our output has gone (`| head`): no word, and the status of a program that SIGPIPE ended.

    The signal itself stays ignored, as Python has it: it would also come when a child or a server goes away.
    """
    try:
        try:
            yield
        except SystemExit:
            with contextlib.suppress(ValueError):  # closed
                sys.stdout.flush()
            raise
    except (BrokenPipeError, SystemExit) as end:
        # click and rich make a plain exit with status 1 of a closed pipe
        if isinstance(end, SystemExit) and not isinstance(end.__context__, BrokenPipeError):
            raise
        sys.exit(NOBODY_READS)


def _give_up_unwritten(stream: TextIO, why: type[OSError]) -> None:
    try:
        stream.flush()
    except why:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
    except (OSError, ValueError):
        pass  # told by Python; or closed


def _one_line(text: str) -> str:
    from selfinstruct.display import printable

    return printable(" ".join(text.split()))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"selfinstruct {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None: ...


GENERATE_FIRST: Mapping[str, Flag] = {
    "num": Annotated[
        int | None,
        typer.Option("-n", "--num", help="Tasks the dataset shall hold in the end. [default: 100]"),
    ],
    "output": Annotated[
        Path | None, typer.Option("-o", "--output", help="The dataset. [default: output/code_alpaca.json]")
    ],
    "seeds": Annotated[
        Path | None,
        typer.Option(help="Seed file or folder (TOML, or seed_tasks.jsonl). [default: the bundled seeds]"),
    ],
}
GENERATE: Mapping[str, Flag] = {
    "recipe": Annotated[
        Literal["code-alpaca", "staged", "self-instruct"] | None,
        typer.Option(
            help="One call for many tasks, part by part, or an instruction and instances of it. [default: staged "
            "for local, else code-alpaca]"
        ),
    ],
    "profile": Annotated[
        Literal["code", "alpaca"] | None,
        typer.Option(help="Filters and novelty rule: made for code, or the historic ones. [default: code]"),
    ],
    "threshold": Annotated[
        float | None, typer.Option(help="ROUGE-L above which a task is not new. [default: 0.7]")
    ],
    "language_cap": Annotated[
        int | None,
        typer.Option(help="In how many languages the same request is new (profile code). [default: 3]"),
    ],
    "shots": Annotated[
        int | None, typer.Option(help="Seed tasks shown per request. [default: 3; self-instruct: 6]")
    ],
    "machine_shots": Annotated[
        int | None, typer.Option(help="Accepted tasks shown per request. [default: 0; self-instruct: 2]")
    ],
    "choices": Annotated[int | None, typer.Option(help="Answers to each request (n). [default: 1]")],
    "instances": Annotated[
        int | None,
        typer.Option(help="self-instruct: rows for a task that works on an input. [default: 2]"),
    ],
    "answer": Annotated[
        Literal["text", "json"] | None,
        typer.Option(help="code-alpaca: ask for numbered text, or for JSON by a schema. [default: text]"),
    ],
    "only_language": Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Ask for tasks in this language only; may be repeated."),
    ],
    "only_kind": Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Ask for tasks of this kind only; may be repeated."),
    ],
}


@app.command()
@takes(GENERATE_FIRST, MODEL, GENERATE, VERIFY, SAMPLING, LIMITS, COMMAND)
def generate(**flags: Any) -> None:
    """Make new tasks until the dataset holds --num of them. Run it again to go on where it stopped."""
    config, dry_run = flags.pop("config"), flags.pop("dry_run")
    from selfinstruct import commands

    commands.generate(flags, config, dry_run=dry_run)


@app.command()
def status(
    output: Annotated[Path, typer.Argument(help="A dataset or its run directory.")] = Path(
        "output/code_alpaca.json"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how far a run is: accepted, rejected by reason, tokens, cost, times. Works while it goes on."""
    from selfinstruct import report

    found = report.read_report(output)
    if as_json:
        _echo_json(found.as_json())
        return
    from selfinstruct import display

    display.console().print(display.status_table(found))


@app.command()
def show(
    output: Annotated[Path, typer.Argument(help="A dataset or its run directory.")] = Path(
        "output/code_alpaca.json"
    ),
    row: Annotated[
        str | None, typer.Argument(help="A row's number (from 0) or id. [default: the last 5]")
    ] = None,
    rejected: Annotated[bool, typer.Option("--rejected", help="Show rejected candidates.")] = False,
    reason: Annotated[str | None, typer.Option(help="Only those rejected for this reason.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many at most.")] = 5,
) -> None:
    """Read tasks, or rejected candidates with their reasons."""
    from selfinstruct import commands

    if rejected or reason:
        commands.show_rejected(output, reason, row, limit)
    else:
        commands.show_tasks(output, row, limit)


@app.command()
def regen(
    output: Annotated[Path, typer.Argument(help="A dataset or its run directory.")] = Path(
        "output/code_alpaca.json"
    ),
) -> None:
    """Print a run of the profile alpaca as the historic regen.json, with its similarity fields."""
    import json

    from selfinstruct import report

    typer.echo(json.dumps(report.regen_rows(output), indent=4), nl=False)


@models_app.command("list")
def models_list(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the models that have an alias, and which of them are on this machine."""
    from selfinstruct import commands

    rows = commands.list_models()
    if as_json:
        _echo_json(rows)
        return
    for entry in rows:
        there = entry["path"] or "not fetched yet"
        typer.echo(
            f"{entry['alias']}  {entry['size'] / 1e6:.0f} MB  {entry['licence']}  {there}\n    {entry['note']}"
        )


@models_app.command("pull")
def models_pull(
    model: Annotated[str, typer.Argument(help="An alias, or OWNER/REPO/FILE.gguf on the hub.")],
) -> None:
    """Fetch a model's weights into the cache; goes on where an earlier try stopped."""
    from selfinstruct import weights

    typer.echo(weights.pull(model))


@models_app.command("path")
def models_path(model: Annotated[str, typer.Argument(help="An alias.")]) -> None:
    """Print where a model's weights are; status 2 if they are not there."""
    from selfinstruct import commands

    typer.echo(commands.model_path(model))


@models_app.command("remove")
def models_remove(model: Annotated[str, typer.Argument(help="An alias.")]) -> None:
    """Delete a model's weights from the cache."""
    from selfinstruct import weights

    typer.echo(weights.remove(model), err=True)


def _echo_json(value: Any) -> None:
    import json

    typer.echo(json.dumps(value, indent=2))


# In the order of --help: the run (above), what works on datasets, what makes rows from rows, what looks after things.
for command in (verify, dedup, decontaminate, curate, mix, export, tokenize):
    app.command()(command)
cli_derive.add_commands(app)
app.command()(converse)
app.add_typer(seeds_app, name="seeds")
app.add_typer(models_app, name="models")
