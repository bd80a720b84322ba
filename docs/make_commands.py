"""Writes docs/commands.md from the `--help` pages: `python docs/make_commands.py`.

tests/test_cli.py checks that the committed page is up to date.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from selfinstruct.cli import app

PAGE = Path(__file__).parent / "commands.md"


def commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The words of every command that does something."""
    children = getattr(command, "commands", {})
    for name, child in children.items():
        yield from commands(child, (*words, name))
    if not children:
        yield words


def help_page(words: tuple[str, ...]) -> str:
    """What `--help` prints, 100 characters wide."""
    run = subprocess.run(
        [sys.executable, "-m", "selfinstruct", *words, "--help"],
        env=os.environ | {"TERMINAL_WIDTH": "100", "COLUMNS": "100", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [
        line.rstrip() for line in run.stdout.replace("python -m selfinstruct", "selfinstruct").splitlines()
    ]
    return "\n".join(lines).strip()


def reference() -> str:
    """The whole page."""
    parts = ["# Command reference", "", "Made from the help pages by `python docs/make_commands.py`.", ""]
    for words in commands(typer.main.get_command(app), ()):
        parts += [f"## selfinstruct {' '.join(words)}", "", "```text", help_page(words), "```", ""]
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
