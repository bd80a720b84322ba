"""Measures how well code is found in answers, on the labelled examples beside this file.

`python tests/code_labels.py` writes the table of docs/verification.md anew; with `--wrong` it prints what is
not found as labelled.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from selfinstruct.verify.code import Found, find_code

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXAMPLES = Path(__file__).with_name("labelled_code.toml")
PAGE = Path(__file__).parents[1] / "docs" / "verification.md"
BEGIN, END = "<!-- accuracy: written by tests/code_labels.py -->", "<!-- end of accuracy -->"
_MARKED = re.compile("\u27e6(.*?)\u27e7", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled answer; `code` holds the texts that are code, in order."""

    form: str
    instruction: str
    input: str
    output: str
    known: tuple[str | None, str | None]
    language: str | None
    code: tuple[str, ...]
    prose: bool

    def find(self) -> Found:
        return find_code(self.instruction, self.input, self.output, *self.known)

    def right(self, found: Found) -> dict[str, bool]:
        """Whether language, code and the licence for prose were found as labelled."""
        texts = [squeeze(block.text) for block in found.blocks if block.language]
        return {
            "language": (found.language if found.blocks or self.language else None) == self.language,
            "code": texts == [squeeze(text) for text in self.code],
            "prose": found.prose == self.prose,
        }


def squeeze(text: str) -> str:
    """A text without the white space around its lines (a block in a list is found without its indent)."""
    return "\n".join(line.strip() for line in text.strip().splitlines())


def read_examples() -> list[Example]:
    examples = []
    for row in tomllib.loads(EXAMPLES.read_text(encoding="utf-8"))["example"]:
        text = row["output"].strip("\n")
        code = tuple(_MARKED.findall(text))
        no_fence = "```" not in text and "~~~" not in text
        if not code and row.get("language") and no_fence and row["form"] != "session":
            code = (text,)
        if row["form"] == "session":
            code = (text,)
        language, _, kind = row.get("known", "").partition(" ")
        examples.append(
            Example(
                form=row["form"],
                instruction=row["instruction"],
                input=row.get("input", "").strip("\n"),
                output=text.replace("\u27e6", "").replace("\u27e7", ""),
                known=(language or None, kind or None),
                language=row.get("language"),
                code=code,
                prose=row.get("prose", False),
            )
        )
    return examples


def table(examples: Iterable[Example]) -> str:
    """The accuracy by form and by language, as two Markdown tables."""
    judged = [(example, example.right(example.find())) for example in examples]

    def lines(head: str, key: Callable[[Example], str]) -> list[str]:
        names = sorted({key(example) for example, _ in judged})
        rows = [f"| {head} | examples | language | code | prose allowed |", "|---|---|---|---|---|"]
        for name in [*names, "all"]:
            some = [right for example, right in judged if name in ("all", key(example))]
            shares = " | ".join(
                str(sum(right[what] for right in some)) for what in ("language", "code", "prose")
            )
            rows.append(f"| {name} | {len(some)} | {shares} |")
        return rows

    by_form = lines("form", lambda example: example.form.partition(",")[0])
    by_language = lines("language", lambda example: example.language or "none")
    return "\n".join([*by_form, "", *by_language])


def page_with_table(page: str) -> str:
    """The page with the tables of today between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table(read_examples())}\n\n{END}{after}"


if __name__ == "__main__":
    if "--wrong" in sys.argv:
        for each in read_examples():
            found = each.find()
            wrong = [what for what, right in each.right(found).items() if not right]
            if wrong:
                told = [(block.language, block.text[:50]) for block in found.blocks]
                print(wrong, each.form, "|", each.instruction[:70], "|", found.language, found.prose, told)  # noqa: T201
    else:
        PAGE.write_text(page_with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
