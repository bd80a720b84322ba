"""The command `selfinstruct verify`: parses, opens what verifying takes, prints. No logic of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from selfinstruct.cli_flags import LIMITS, MODEL, SAMPLING, VERIFY, Flag, takes

VERIFY_ROWS: Mapping[str, Flag] = {
    "dataset": Annotated[
        Path | None, typer.Argument(metavar="IN", help="A dataset in any form, or a run directory.")
    ],
    "level": (
        Annotated[
            Literal["syntax", "run", "tests"],
            typer.Option(
                help="The code parses, it runs in a sandbox, it passes tests that the model writes."
            ),
        ],
        "run",
    ),
    "output": Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Write the rows that did not fail to this dataset, a .json file."
        ),
    ],
    "sandbox": VERIFY["sandbox"],
    "require_verification": VERIFY["require_verification"],
    "jobs": Annotated[
        int | None, typer.Option(min=1, help="Programs at a time. [default: one for each processor]")
    ],
    "toolchains": (
        Annotated[
            bool, typer.Option("--toolchains", help="List the toolchains that work in the sandbox, and stop.")
        ],
        False,
    ),
    "as_json": (Annotated[bool, typer.Option("--json", help="Print JSON.")], False),
}
# What asking the model for tests may be told; the other flags of `generate` have no meaning here.
ASKING: Mapping[str, Flag] = {
    name: flag
    for name, flag in {**MODEL, **SAMPLING, **LIMITS}.items()
    if name not in {"lookahead", "stall", "batch", "wait", "top_p", "max_output_tokens"}
}


@takes(VERIFY_ROWS, ASKING)
def verify(**flags: Any) -> None:
    """Check the code of a dataset's answers. Run it again to go on where it stopped."""
    as_json = flags.pop("as_json")
    from selfinstruct.verify import command

    if flags.pop("toolchains"):
        command.list_toolchains(flags["sandbox"], as_json=as_json)
        return
    command.verify(flags, as_json=as_json)
