"""Writes the generated parts of docs/seeds.md and docs/img/seeds.svg from the seed tasks.

Run it after the seeds have changed: python tests/make_coverage.py. A test holds that both are up to date.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from selfinstruct import seeds  # noqa: E402 - a script that runs from a checkout
from selfinstruct.records import Seed  # noqa: E402
from selfinstruct.seed_forms import count  # noqa: E402

PAGE = ROOT / "docs" / "seeds.md"
PICTURE = ROOT / "docs" / "img" / "seeds.svg"
_GENERATED = re.compile(r"(<!-- generated: (\w+) -->\n).*?(\n<!-- end -->)", re.DOTALL)

# One hue from light to dark; dark cells carry white numbers. Every pair has a contrast of 4.5 and more.
_STEPS = ((1, "#deebf7", "#10243a"), (2, "#c6dbef", "#10243a"), (3, "#9ecae1", "#10243a"), (4, "#2171b5", "#ffffff"),
          (6, "#08519c", "#ffffff"), (9, "#08306b", "#ffffff"))  # fmt: skip
_CELL_WIDE, _CELL_TALL, _LEFT, _TOP = 34, 22, 150, 100


def table(tasks: Sequence[Seed]) -> str:
    """The counts, language by kind, as a Markdown table."""
    languages, kinds, counts = count(tasks)
    lines = [
        "| | " + " | ".join(kinds) + " | all |",
        "|---|" + "---:|" * (len(kinds) + 1),
    ]
    for language in languages:
        numbers = [counts.get((language, kind), 0) for kind in kinds]
        cells = [str(number or "") for number in numbers] + [f"**{sum(numbers)}**"]
        lines.append(f"| {seeds.LANGUAGES[language].display} | " + " | ".join(cells) + " |")
    sums = [f"**{sum(counts.get((language, kind), 0) for language in languages)}**" for kind in kinds]
    lines.append("| **all** | " + " | ".join(sums) + f" | **{len(tasks)}** |")
    return "\n".join(lines)


def facts(tasks: Sequence[Seed]) -> str:
    """The size of the collection in a few lines."""
    languages, kinds, _ = count(tasks)
    levels = Counter(task.difficulty for task in tasks)
    with_input = sum(bool(task.input) for task in tasks)
    questions = sum("?" in task.instruction for task in tasks)
    told = ", ".join(f"{levels[level]} {level}" for level in seeds.DIFFICULTIES)
    general = " and one group about programming in general" if "text" in languages else ""
    return (
        f"{len(tasks)} tasks in {len(languages) - ('text' in languages)} languages{general}, "
        f"{len(kinds)} kinds; {told};\n"
        f"{with_input} ({with_input / len(tasks):.0%}) have an input, {questions} ask a question."
    )


def kinds_told(tasks: Sequence[Seed]) -> str:
    """What each kind asks for, with its shortest instruction as an example."""
    lines = ["| kind | asks to | for example |", "|---|---|---|"]
    for kind in count(tasks)[1]:
        told = min((task.instruction for task in tasks if task.kind == kind), key=len)
        lines.append(f"| `{kind}` | {seeds.KINDS[kind].display} | {_cell(told)} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Text as a cell of a Markdown table shows it."""
    return " ".join(text.split()).replace("|", "\\|")


def picture(tasks: Sequence[Seed]) -> str:
    """The counts as a heat map in SVG, readable on light and dark pages (it has a ground of its own)."""
    languages, kinds, counts = count(tasks)
    wide = _LEFT + (len(kinds) + 1) * _CELL_WIDE + 20
    tall = _TOP + (len(languages) + 1) * _CELL_TALL + 16
    title = f"{len(tasks)} seed tasks by language and kind"
    root = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {tall}" width="{wide}" height="{tall}"'
    )
    parts = [
        f'{root} font-family="system-ui, sans-serif" font-size="12" fill="#10243a" role="img" aria-labelledby="t">',
        f'<title id="t">{escape(title)}</title>',
        f'<rect width="{wide}" height="{tall}" fill="#ffffff"/>',
    ]
    for column, kind in enumerate([*kinds, "all"]):
        x, y = _LEFT + column * _CELL_WIDE + _CELL_WIDE // 2 + 4, _TOP - 8
        parts.append(f'<text transform="translate({x} {y}) rotate(-60)">{escape(kind)}</text>')
    rows = [
        (seeds.LANGUAGES[name].display, [counts.get((name, kind), 0) for kind in kinds]) for name in languages
    ]
    rows.append(("all", [sum(numbers) for numbers in zip(*(row[1] for row in rows), strict=True)]))
    for at, (name, numbers) in enumerate(rows):
        last = at == len(rows) - 1
        top = _TOP + at * _CELL_TALL
        middle = top + _CELL_TALL // 2 + 4
        parts.append(f'<text x="{_LEFT - 8}" y="{middle}" text-anchor="end">{escape(name)}</text>')
        for column, number in enumerate(numbers):
            parts += _square(_LEFT + column * _CELL_WIDE, top, number, plain=last)
        x = _LEFT + len(numbers) * _CELL_WIDE
        parts += _square(x, top, sum(numbers), plain=True)
    return "\n".join([*parts, "</svg>", ""])


def _square(x: int, y: int, number: int, *, plain: bool) -> list[str]:
    """A cell with its number, without a colour where it is a sum; nothing for 0 but an empty ground."""
    ground, ink = "#f5f6f8", "#10243a"
    for least, colour, text in _STEPS:
        if number >= least and not plain:
            ground, ink = colour, text
    made = []
    if not plain:
        made.append(
            f'<rect x="{x + 1}" y="{y + 1}" width="{_CELL_WIDE - 2}" height="{_CELL_TALL - 2}" fill="{ground}"/>'
        )
    if number:
        middle = f'x="{x + _CELL_WIDE // 2}" y="{y + _CELL_TALL // 2 + 4}"'
        weight = ' font-weight="600"' if plain else ""
        made.append(f'<text {middle} text-anchor="middle" fill="{ink}"{weight}>{number}</text>')
    return made


def page(text: str, tasks: Sequence[Seed]) -> str:
    """The page with its generated parts made anew."""
    parts = {"facts": facts(tasks), "table": table(tasks), "kinds": kinds_told(tasks)}
    return _GENERATED.sub(lambda found: found[1] + parts[found[2]] + found[3], text)


def main() -> None:
    """Bring page and picture up to date."""
    tasks = seeds.load()
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), tasks), encoding="utf-8", newline="\n")
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture(tasks), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
