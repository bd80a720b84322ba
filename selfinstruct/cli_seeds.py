"""The commands `selfinstruct seeds ...`: parse, call one function, print. No logic of their own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfinstruct.vocabulary import DIFFICULTIES, KINDS, LANGUAGES, find_kind, find_language

if TYPE_CHECKING:
    from selfinstruct.records import Seed

seeds_app = typer.Typer(help="Seed tasks: list, check, convert.", no_args_is_help=True, rich_markup_mode=None)

_PATH = Annotated[
    Path | None,
    typer.Argument(
        metavar="[FILE_OR_FOLDER]", help="Seeds as TOML, JSONL or JSON. [default: the bundled seeds]"
    ),
]


@seeds_app.command("list")
def seeds_list(
    path: _PATH = None,
    language: Annotated[
        list[str] | None, typer.Option(help="Only tasks in this language; may be repeated.")
    ] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only tasks of this kind; may be repeated.")] = None,
    difficulty: Annotated[
        list[str] | None, typer.Option(help="Only easy, medium or hard tasks; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the tasks as JSON.")] = False,
) -> None:
    """Count the seed tasks by language and kind, or print them as JSON."""
    import json

    from selfinstruct import seed_forms

    chosen = seed_forms.choose(
        _load(path),
        languages=[_known("language", word, find_language(word), LANGUAGES) for word in language or ()],
        kinds=[_known("kind", word, find_kind(word), KINDS) for word in kind or ()],
        difficulties=[
            _known("difficulty", word, word.lower() if word.lower() in DIFFICULTIES else None, DIFFICULTIES)
            for word in difficulty or ()
        ],
    )
    if as_json:
        typer.echo(json.dumps([seed_forms.as_row(seed) for seed in chosen], indent=2))
    else:
        typer.echo(seed_forms.as_text(chosen))


@seeds_app.command("check")
def seeds_check(path: _PATH = None) -> None:
    """Tell every problem of your seeds at once: schema, twins, code that does not parse, secrets."""
    from selfinstruct import seed_check, seeds
    from selfinstruct.display import printable

    path = seeds.bundled() if path is None else path
    count, problems = seed_check.check(path)
    if not problems:
        typer.echo(f"{path}: {count} seed task{'s' * (count != 1)}, nothing wrong")
        return
    for problem in problems:
        typer.echo(" ".join(printable(str(problem)).split("\n")))
    typer.echo(f"{len(problems)} problem{'s' * (len(problems) != 1)} in {count} seed tasks", err=True)
    raise typer.Exit(2)


@seeds_app.command("convert")
def seeds_convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A seed file or folder.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="What to write: a name that ends in .toml or .jsonl.")
    ],
) -> None:
    """Turn seeds from TOML into the historic JSONL of Stanford Alpaca, or back, and tell what gets lost."""
    from selfinstruct import seed_forms

    count, lost = seed_forms.convert(source, output)
    typer.echo(f"{output}: {count} seed task{'s' * (count != 1)} written", err=True)
    for what in lost:
        typer.echo(f"lost: {what}", err=True)


def _load(path: Path | None) -> list[Seed]:
    from selfinstruct import seeds

    return seeds.load(path)


def _known(what: str, word: str, name: str | None, table: Iterable[str]) -> str:
    from selfinstruct.errors import InputError

    if name is None:
        raise InputError(f'unknown {what} "{word}"; known are {", ".join(table)}')
    return name
