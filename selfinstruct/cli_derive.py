"""The commands that make rows of given data: parse, call one function, print. No logic of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from selfinstruct.cli_flags import DERIVE_FIRST, DERIVE_LAST, Flag, takes

REVISE: Mapping[str, Flag] = {
    "with_requirement": Annotated[
        bool | None,
        typer.Option("--with-requirement", help="Give each row what the code was written for, as its input."),
    ],
}


@takes(DERIVE_FIRST, REVISE, DERIVE_LAST)
def revise(**flags: Any) -> None:
    """Have code criticised, revised by the critique, and the flaws summarised: three rows for each input."""
    _derive("revise", flags)


def add_commands(app: typer.Typer) -> None:
    """Hook the commands of this module into the command line."""
    app.command()(revise)


def _derive(job: str, flags: dict[str, Any]) -> None:
    config, dry_run = flags.pop("config"), flags.pop("dry_run")
    from selfinstruct import commands

    commands.derive(job, flags, config, dry_run=dry_run)
