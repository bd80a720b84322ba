"""The commands that make rows of given data: parse, call one function, print. No logic of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from selfinstruct.cli_flags import COMMAND, DERIVE_FIRST, DERIVE_LAST, LIMITS, SAMPLING, Flag, takes

REVISE: Mapping[str, Flag] = {
    "with_requirement": Annotated[
        bool | None,
        typer.Option("--with-requirement", help="Give each row what the code was written for, as its input."),
    ],
    "break_code": Annotated[
        bool | None,
        typer.Option(
            "--break",
            help="Break correct code first, so that the flaw is known; keep rows whose critique finds it and whose "
            "revision mends it. (In --config: break-code.)",
        ),
    ],
}
RESPOND: Mapping[str, Flag] = {
    "system_messages": Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="System messages with weights, TOML. [default: 16 of our own]"),
    ],
    "samples": Annotated[int | None, typer.Option(help="Answers of which the best is kept. [default: 1]")],
    "pick": Annotated[
        Literal["tests", "judge", "longest"] | None,
        typer.Option(
            help="The best of --samples: the first that passes --verify, the one a judge rates highest, the longest. "
            "[default: tests]"
        ),
    ],
}
JUDGE: Mapping[str, Flag] = {
    "rubric": Annotated[
        Path | None, typer.Option(help="A TOML file of criteria. [default: the bundled one]")
    ],
    "min_score": Annotated[
        float | None, typer.Option(help="Keep rows with this score and above. [default: all]")
    ],
    "versus": Annotated[
        Path | None,
        typer.Option(
            metavar="DATASET",
            help="Compare with the answers of this dataset to the same tasks, in both orders, and keep the better.",
        ),
    ],
}
NOVEL: Mapping[str, Flag] = {
    "threshold": Annotated[
        float | None, typer.Option(help="ROUGE-L above which a task is not new. [default: 0.7]")
    ],
    "language_cap": Annotated[
        int | None, typer.Option(help="In how many languages the same request is new. [default: 3]")
    ],
}
EVOLVE: Mapping[str, Flag] = {
    "rounds": Annotated[int | None, typer.Option(help="How often each task is evolved. [default: 1]")],
    "operations": Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="constraints, rarer, reasoning, complexity, misleading or breadth; may be repeated. [default: all]",
        ),
    ],
    "difficulty": Annotated[
        Literal["judge", "length"] | None,
        typer.Option(
            help="Ask whether a task got harder, or only see that it is not shorter. [default: judge]"
        ),
    ],
    **NOVEL,
}
FROM_CODE: Mapping[str, Flag] = {
    "snippets": Annotated[
        int | None, typer.Option(help="How many pieces of code are drawn at most. [default: 1000]")
    ],
    "only_language": Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Draw from code in this language only; may be repeated."),
    ],
    **NOVEL,
}
FOLDERS: Mapping[str, Flag] = {
    **DERIVE_FIRST,
    "inputs": Annotated[
        list[Path] | None, typer.Argument(metavar="FOLDER...", help="Folders or files of code.")
    ],
}


@takes(DERIVE_FIRST, REVISE, DERIVE_LAST)
def revise(**flags: Any) -> None:
    """Have code criticised, revised by the critique, and the flaws summarised: three rows for each input."""
    _derive("revise", flags)


@takes(DERIVE_FIRST, RESPOND, DERIVE_LAST)
def respond(**flags: Any) -> None:
    """Answer the instructions of a dataset anew, under system messages that ask for explanations."""
    _derive("respond", flags)


@takes(DERIVE_FIRST, JUDGE, SAMPLING, LIMITS, COMMAND)
def judge(**flags: Any) -> None:
    """Have each row rated by a rubric, or two answers to each task compared. The figures go to stdout."""
    dry_run, config = flags["dry_run"], flags["config"]
    _derive("judge", dict(flags))
    if not dry_run:
        from selfinstruct.derive import agreement

        flags = {name: value for name, value in flags.items() if name not in {"dry_run", "config"}}
        typer.echo(agreement.tell_run(flags, config))


@takes(DERIVE_FIRST, EVOLVE, DERIVE_LAST)
def evolve(**flags: Any) -> None:
    """Have tasks made harder, or turned into rarer ones, round by round, each with an answer."""
    _derive("evolve", flags)


@takes(FOLDERS, FROM_CODE, DERIVE_LAST)
def from_code(**flags: Any) -> None:
    """Have pieces of your own code inspire tasks with answers; ignored, vendored and secret files are left out."""
    _derive("from-code", flags)


def add_commands(app: typer.Typer) -> None:
    """Hook the commands of this module into the command line."""
    for command in (revise, respond, judge, evolve, from_code):
        app.command()(command)


def _derive(job: str, flags: dict[str, Any]) -> None:
    config, dry_run = flags.pop("config"), flags.pop("dry_run")
    from selfinstruct import commands

    commands.derive(job, flags, config, dry_run=dry_run)
