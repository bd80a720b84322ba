"""A slow, literal reading of the historic algorithm, to hold `selfinstruct.alpaca` and the novelty rule against.

Written from the description of the algorithm with the rouge-score package; shares no code with the project.
"""

from __future__ import annotations

import json
import os
import random
import re
import string
from pathlib import Path
from typing import Any

import numpy as np
from rouge_score import rouge_scorer

Row = dict[str, str]
SKIPPED, FILTERED, SIMILAR = "skipped", "filtered", "similar"
BLACKLIST = [
    *["image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps"],
    *["draw", "plot", "go to", "video", "audio", "music", "flowchart", "diagram"],
]


def read_part(part: str, number: int) -> Row | None:
    pieces = re.split(rf"{number}\.\s+(Instruction|Input|Output):", part)
    if len(pieces) != 7:
        return None
    given = pieces[4].strip()
    return {
        "instruction": pieces[2].strip(),
        "input": "" if given.lower() == "<noinput>" else given,
        "output": pieces[6].strip(),
    }


def passes(instruction: str) -> bool:
    count = len(instruction.split())
    if count <= 3 or count > 150:
        return False
    if any(re.search(rf"\b({word})\b", instruction, flags=re.IGNORECASE) for word in BLACKLIST):
        return False
    if instruction.startswith("Write a program"):
        return False
    return instruction[0] not in string.punctuation and instruction[0].isascii()


class Oracle:
    """The loop's state: the pool of instructions, seeds first."""

    def __init__(self, pool: list[str]) -> None:
        self.scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
        self.pool = list(pool)

    def similarity(self, instruction: str) -> list[float]:
        """ROUGE-L F with every pool entry: target the new one, prediction the entry."""
        return [self.scorer.score(instruction, entry)["rougeL"].fmeasure for entry in self.pool]

    def decide(self, text: str, finish_reason: str, first: int) -> list[Any]:
        """One outcome for each part that is not blank: a word for why not, or the record."""
        parts = re.split("###", f"{first}. Instruction:" + text)
        outcomes: list[Any] = []
        for j, part in enumerate(parts):
            if not part.strip():
                continue
            row = read_part(part, first + j)
            if row is None or (j == len(parts) - 1 and finish_reason == "length"):
                outcomes.append(SKIPPED)
            elif not passes(row["instruction"]):
                outcomes.append(FILTERED)
            else:
                outcomes.append(self.compare(row))
        return outcomes

    def compare(self, row: Row) -> str | dict[str, Any]:
        scores = self.similarity(row["instruction"])
        if max(scores) > 0.7:
            return SIMILAR
        top = {self.pool[i]: scores[i] for i in np.argsort(scores)[-10:][::-1]}
        self.pool.append(row["instruction"])
        return {**row, "most_similar_instructions": top, "avg_similarity_score": float(np.mean(scores))}


def real_rows() -> list[Row]:
    """The rows of Code Alpaca's 2k file, if it is on this machine, else none."""
    here = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    path = Path(os.environ.get("SELFINSTRUCT_DATA", here)) / "code_alpaca_2k.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def made_rows(count: int = 400) -> list[Row]:
    """Rows of our own, with near duplicates, blacklisted words and short instructions among them."""
    rng = random.Random(20)
    nouns = ["".join(rng.choice("bdfgklmnprst") + rng.choice("aeiou") for _ in range(3)) for _ in range(90)]
    verbs = [*["Write", "Explain", "Refactor", "Fix", "Describe", "Test"] * 4, "Write a program for"]
    verbs += ["Plot", "Ändere", "`x`:"]
    inputs = [*["", "x = [3, 1, 2]"] * 10, "SELECT 1;\n-- ### 20. Input:"]
    outputs = ["def f(x):\n    return x", "It prints 3.", "", "for i in range(20):\n    print(i)"]
    rows: list[Row] = []
    for n in range(count):
        words = [rng.choice(verbs), "the", *rng.choices(nouns, k=rng.randrange(1, 12))]
        words += rng.choices(["", "file", "map"], [8, 1, 1])
        if n % 4 == 3:  # near the row before
            words = rows[-1]["instruction"].split()
            words[-1] = rng.choice(nouns)
        instruction = " ".join(words).strip()
        rows.append({"instruction": instruction, "input": rng.choice(inputs), "output": rng.choice(outputs)})
    return rows
