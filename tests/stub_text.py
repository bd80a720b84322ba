"""What the stub server writes: numbered tasks, well-formed and unlike each other, drawn from a seed.

No socket is opened here, and nobody is asked.
"""
# ruff: noqa: SIM905 - lists of words read best as one line of text

from __future__ import annotations

import random
import re
from typing import Any

VERBS = "count merge rank mask pair fold trim sort join split shift group index sample rotate encode".split()
SHAPES = "rows tokens prices words edges dates scores names intervals matrices packets votes".split()
FIELDS = "harbour orchard railway library bakery clinic theatre glacier museum quarry vineyard canal".split()
RULES = (
    "keeping first ties",
    "without recursion",
    "leaving {extra} unchanged",
    "in one expression",
    "treating None as {extra}",
    "with generators",
    "backwards from {extra}",
    "unless fewer than {n} remain",
    "up to {n} {extra}",
    "returning at most {n}",
)
FORMS = (
    "Write {name} in Python to {verb} {shape} of {table} {field} {column}, {rule}.",
    "Given {table} and {column} {shape}, {verb} every {field} {rule}; call it {name}.",
    "Implement {name}: {verb} {field} {shape} against {table} or {column}, {rule}.",
    "How would {name} {verb} {column} {shape} that {table} {field} sends {rule}?",
    "Complete {name} so {table} {shape} {verb} into {column} {field} {rule}.",
    "Fix {name}; it should {verb} {column} {shape} near {table}, {field}, {rule}.",
    "Use a dictionary {table}, {verb} {shape} per {field}, {column} as {name} does, {rule}.",
    "Create method {name} on class {table}: {verb} {field} {shape} for {column} {rule}.",
)


def coined_word(rng: random.Random) -> str:
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(4))


def make_task(rng: random.Random) -> tuple[str, str, str]:
    """A well-formed instruction, input and output; the output is Python that parses."""
    name = f"{coined_word(rng)}_{coined_word(rng)}"
    verb, number = rng.choice(VERBS), rng.randrange(3, 99)
    shape = rng.choice(SHAPES)
    instruction = rng.choice(FORMS).format(
        name=name,
        verb=verb,
        shape=shape,
        table=coined_word(rng),
        column=coined_word(rng),
        field=rng.choice(FIELDS),
        rule=rng.choice(RULES).format(n=number, extra=coined_word(rng)),
    )
    values = [rng.randrange(1, 100) for _ in range(5)]
    given = f"{shape} = {values}" if rng.random() < 0.5 else ""
    steps = "".join(
        f"    {coined_word(rng)} = {rng.choice(['max', 'min', 'sum', 'len', 'sorted'])}({coined_word(rng)}"
        f"{rng.choice(['[1:]', '[::2]', ' or [0]', '[:limit]'])}) {rng.choice('+-*')} {rng.randrange(99)}\n"
        for _ in range(rng.randrange(3, 9))
    )
    output = (
        f"def {name}({shape}, limit={number}):\n"
        f'    """Take the {shape} up to the limit."""\n'
        f"{steps}"
        f"    return {rng.choice(['sorted', 'sum', 'len', 'set'])}({coined_word(rng)})"
    )
    return instruction, given, output


def alpaca_texts(body: dict[str, Any], seed: str) -> list[str]:
    """Numbered triples that go on where the list in the prompt ends, one text per choice asked for.

    A raw prompt that ends in "4. Instruction:" is continued right there; in a chat, and after any
    other prompt, the answer opens with its own header. A single-line answer is given where the
    stop strings ask for one ("\\n").
    """
    prompt = body.get("prompt") or "\n".join(str(m["content"]) for m in body.get("messages", []))
    numbers = re.findall(r"^\s*(\d+)\s*\. Instruction:", prompt, re.MULTILINE)
    is_open = re.search(r"(\d+)\. Instruction:\s*\Z", prompt) is not None
    first = int(numbers[-1]) + (not is_open) if numbers else 1
    texts = []
    for choice in range(int(body.get("n") or 1)):
        rng = random.Random(f"{seed}/{choice}")
        chunks = []
        for number in range(first, first + rng.randrange(3, 7)):
            instruction, given, output = make_task(rng)
            shown = f"{number}. Instruction: {instruction}\n{number}. Input:\n{given or '<noinput>'}\n"
            chunks.append(f"{shown}{number}. Output:\n{output}\n")
        text = "###\n".join(chunks)
        if "prompt" in body and is_open:
            text = text.removeprefix(f"{first}. Instruction:")
        elif "\n" in (body.get("stop") or ()):
            text = " " + make_task(rng)[0]
        texts.append(text)
    return texts
