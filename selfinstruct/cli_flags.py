"""The flags that several commands share, each described once; and what gives a command's function its flags.

The defaults stand in `settings.py`: a flag that is not given is None here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import typer

# The parameters that commands over datasets have in common; they are plain functions.
Datasets = Annotated[
    list[Path] | None,
    typer.Argument(metavar="IN...", help="Datasets in any form that can be read; see docs/data.md."),
]
Source = Annotated[
    Path,
    typer.Argument(
        metavar="IN",
        help="Rows in any form: code_alpaca JSON, JSON lines, CSV, Parquet, messages, ShareGPT, Open Assistant "
        "trees, Orca rows, a Hugging Face dataset folder, a run directory.",
    ),
]
SourceForm = Annotated[
    Literal[
        "alpaca", "dolphin", "orca", "openai", "sharegpt", "oasst", "oasst-flat", "prompt-completion", "text"
    ]
    | None,
    typer.Option(
        help="What the rows are, where their fields do not tell (Dolphin's do not). [default: told by the fields]"
    ),
]
Split = Annotated[str | None, typer.Option(help="Of a folder with several splits, which. [default: train]")]
ControlTokens = Annotated[
    Literal["refuse", "escape"],
    typer.Option(help="What to do with a row whose texts hold control tokens of the template."),
]
TokenizerFile = Annotated[
    Path | None, typer.Option(help="A tokenizer.json, or its folder; for counting tokens.")
]
SkipBad = Annotated[
    bool,
    typer.Option("--skip-bad", help="Keep rows that cannot be read, or have no place in OUT, aside; go on."),
]
ResultFormat = Annotated[Literal["text", "json"], typer.Option(help="How the result is told.")]

Flag: TypeAlias = Any  # an Annotated type that typer reads, or a pair of it and a default other than None

INPUTS: Mapping[str, Flag] = {
    "inputs": Annotated[
        list[Path] | None,
        typer.Argument(metavar="IN...", help="Datasets: code_alpaca JSON, JSONL, or a run directory."),
    ],
}
MODEL: Mapping[str, Flag] = {
    "backend": Annotated[
        Literal["local", "openai", "replay"] | None,
        typer.Option(
            help="Where replies come from: an embedded model, an OpenAI-compatible server, a file. [default: local]"
        ),
    ],
    "model": Annotated[
        str | None,
        typer.Option(
            help="local: an alias, a .gguf path or OWNER/REPO/FILE.gguf; openai: the model's name; replay: the "
            "replies file. [default: qwen2.5-coder-1.5b]"
        ),
    ],
    "base_url": Annotated[
        str | None, typer.Option(help="An OpenAI-compatible server; the key comes from OPENAI_API_KEY.")
    ],
}
VERIFY: Mapping[str, Flag] = {
    "verify": Annotated[
        Literal["off", "syntax", "run", "tests"] | None,
        typer.Option(
            help="Check the answers' code: it parses, it runs in a sandbox, it passes tests that the model writes. "
            "[default: syntax; off for the profile alpaca]"
        ),
    ],
    "sandbox": Annotated[
        Literal["auto", "bwrap", "container", "none"] | None,
        typer.Option(help="Where code runs; none is no protection at all. [default: auto]"),
    ],
    "repair": Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Show the model what failed, and take a new answer up to N times. [default: 0]"
        ),
    ],
    "require_verification": Annotated[
        bool | None,
        typer.Option(
            "--require-verification",
            help="Keep nothing that could not be verified here; a missing sandbox or toolchain is an error.",
        ),
    ],
    "against": Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Refuse tasks that overlap with a benchmark: humaneval, or a JSONL, JSON or Parquet file; may be "
            "repeated.",
        ),
    ],
}
SAMPLING: Mapping[str, Flag] = {
    "seed": Annotated[int | None, typer.Option(help="Seed of all sampling. [default: 0]")],
    "temperature": Annotated[
        float | None, typer.Option(help="[default: by command; generate: 0.8 for staged and local, else 1]")
    ],
    "top_p": Annotated[float | None, typer.Option(help="[default: 0.95; generate on a server: 1]")],
    "max_output_tokens": Annotated[
        int | None, typer.Option(help="Tokens of one reply. [default: by backend and recipe]")
    ],
    "endpoint": Annotated[
        Literal["chat", "completions"] | None,
        typer.Option(help="The server's endpoint. [default: completions for local, else chat]"),
    ],
    "prompts": Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Prompt files that replace those of the same name."),
    ],
    "lookahead": Annotated[
        int | None,
        typer.Option(
            help="Indices that may be planned ahead. [default: 8 for local; for openai 2000, but 256 where requests "
            "depend on earlier tasks]"
        ),
    ],
}
LIMITS: Mapping[str, Flag] = {
    "concurrency": Annotated[
        int | None, typer.Option(help="Requests in flight. [default: 4 for local, 16 for openai]")
    ],
    "rpm": Annotated[int | None, typer.Option(help="Requests a minute at most.")],
    "tpm": Annotated[int | None, typer.Option(help="Tokens a minute at most.")],
    "timeout": Annotated[float | None, typer.Option(help="Seconds for one request. [default: 600]")],
    "max_requests": Annotated[int | None, typer.Option(help="Stop after so many requests.")],
    "max_tokens": Annotated[int | None, typer.Option(help="Stop before so many tokens are passed.")],
    "max_cost": Annotated[
        float | None,
        typer.Option(help="Stop before so many dollars are passed, earlier sittings included."),
    ],
    "max_minutes": Annotated[float | None, typer.Option(help="Stop after so many minutes.")],
    "stall": Annotated[
        int | None, typer.Option(help="Stop when so many replies in a row bring no new task. [default: 200]")
    ],
    "batch": Annotated[
        bool | None,
        typer.Option(
            "--batch",
            help="openai: ask in batches at half the price; leaves with status 3 while one is pending, run "
            "again to go on.",
        ),
    ],
    "wait": Annotated[bool | None, typer.Option("--wait", help="With --batch: stay until all is done.")],
}
COMMAND: Mapping[str, Flag] = {
    "config": Annotated[Path | None, typer.Option(help="A TOML file with the same names; a flag wins.")],
    "dry_run": (
        Annotated[
            bool,
            typer.Option("--dry-run", help="Show settings, prompts and estimate; ask the model nothing."),
        ],
        False,
    ),
    "log_format": Annotated[
        Literal["text", "json"] | None,
        typer.Option(help="How progress is told: words, or one JSON event a line. [default: text]"),
    ],
    "heartbeat": Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="Time between lines of progress where there is no terminal. [default: 30]"
        ),
    ],
    "metrics_file": Annotated[
        Path | None, typer.Option(help="Keep the run's figures in a Prometheus text file (name it *.prom).")
    ],
}
# A job over given data: what stands before its own flags, and what stands behind them.
DERIVE_FIRST: Mapping[str, Flag] = {
    **INPUTS,
    "output": Annotated[
        Path | None, typer.Option("-o", "--output", help="The dataset to write, a .json file.")
    ],
    "num": Annotated[
        int | None,
        typer.Option("-n", "--num", help="Stop at so many rows. [default: work through all of IN]"),
    ],
    **MODEL,
}
DERIVE_LAST: Mapping[str, Flag] = {**VERIFY, **SAMPLING, **LIMITS, **COMMAND}


def takes(*tables: Mapping[str, Flag]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a function of `**flags` the parameters of the tables, in their order; typer reads its signature."""

    def give(command: Callable[..., None]) -> Callable[..., None]:
        parameters = list(_parameters(tables))
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        return command

    return give


def _parameters(tables: Iterable[Mapping[str, Flag]]) -> Iterable[inspect.Parameter]:
    for table in tables:
        for name, flag in table.items():
            annotation, default = flag if isinstance(flag, tuple) else (flag, None)
            yield inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
            )
