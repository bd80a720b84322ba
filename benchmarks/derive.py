"""The jobs over given data, side by side: yield, tokens a row, verified share, and three rows of each.

    python benchmarks/derive.py DATASET --rows 50 --model qwen2.5-coder-1.5b --out RUNS

Draws rows with code from DATASET by a seed, gives the same rows to every job (from-code gets the folder of
--code), and prints a table and rows to read as Markdown. `verified` is the share of the rows with a
program that ran without an error (`selfinstruct verify --level run`), over those where that could be told.
Run again it goes on where it stopped. CPU seconds are of this sitting and hold those of the embedded model.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from selfinstruct.dataset import read_dataset
from selfinstruct.verify.code import find_code

JOBS: dict[str, tuple[str, ...]] = {
    "revise": ("revise",),
    "revise --break": ("revise", "--break"),
    "respond": ("respond",),
    "judge": ("judge",),
    "evolve": ("evolve",),
    "from-code": ("from-code",),
    "self-instruct": ("generate", "--recipe", "self-instruct"),
    "converse --turns": ("converse", "--turns", "1"),
}
SHOWN = 600  # characters of each text of a row


def call(*words: object) -> str:
    """What a command prints; its talk goes on to stderr."""
    run = subprocess.run(
        [sys.executable, "-m", "selfinstruct", *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if run.returncode not in {0, 3}:
        sys.exit(f"{words[0]} ended with status {run.returncode}")
    return run.stdout


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def draw(dataset: Path, count: int, seed: int, path: Path) -> None:
    rows = [
        row
        for row in read_dataset(dataset)
        if find_code(row["instruction"], row["input"], row["output"]).program is not None
    ]
    random.Random(seed).shuffle(rows)
    path.write_text(json.dumps(rows[:count], indent=4), encoding="utf-8")


def verified_share(output: Path) -> str:
    counts: dict[str, int] = {}
    for verdict in json.loads(call("verify", output, "--level", "run", "--json"))["languages"].values():
        for name, number in verdict.items():
            counts[name] = counts.get(name, 0) + number
    told = counts.get("passed", 0) + counts.get("failed", 0)
    return f"{counts.get('passed', 0)} of {told}" if told else "nothing to run"


def measure(job: str, given: list[object], model: str, output: Path) -> dict[str, Any]:
    before = cpu_seconds()
    call(*JOBS[job], *given, "-o", output, "--model", model)
    output = rows_of(output)
    cpu = cpu_seconds() - before
    report: dict[str, Any] = json.loads(call("status", output, "--json"))
    return report | {"cpu": cpu, "verified": verified_share(output) if report["accepted"] else "no row"}


def rows_of(output: Path) -> Path:
    """Where the rows are that a job made: `converse` lays its turns in a file beside the conversations."""
    beside = output.with_suffix(".turns.json")
    return beside if beside.exists() else output


def show(output: Path) -> None:
    rows = json.loads(output.read_text(encoding="utf-8"))
    for number in sorted({0, len(rows) // 2, len(rows) - 1}) if rows else ():
        print(f"\nrow {number}\n")
        for name, text in rows[number].items():
            cut = text if len(text) <= SHOWN else f"{text[:SHOWN]} [...]"
            print(f"{name}:\n\n````text\n{cut}\n````\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--model", default="qwen2.5-coder-1.5b")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--code", type=Path, default=Path(__file__).parents[1] / "selfinstruct")
    parser.add_argument("--jobs", nargs="+", choices=sorted(JOBS), default=list(JOBS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--flags", default="", help="more flags for every job, as one word")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    source = chosen.out / "in.json"
    draw(chosen.dataset, chosen.rows, chosen.seed, source)
    print(f"{chosen.model}, {chosen.rows} inputs, load {os.getloadavg()[0]:.1f}\n")
    print("| job | inputs | candidates | rows | tokens a row | verified | CPU s an input | rejected |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for job in chosen.jobs:
        output = chosen.out / f"{job.replace(' --', '-')}.json"
        given = {
            "from-code": [chosen.code, "--snippets", chosen.rows],
            "self-instruct": ["--num", chosen.rows],
        }.get(job, [source])
        row = measure(job, [*given, *shlex.split(chosen.flags)], chosen.model, output)
        tokens = row["prompt_tokens"] + row["completion_tokens"]
        each = f"{tokens / row['accepted']:.0f}" if row["accepted"] else "-"
        reasons = ", ".join(f"{name} {number}" for name, number in row["reasons"].items())
        print(
            f"| {job} | {row['indices']} of {row.get('inputs', 'any')} "
            f"| {row['candidates']} | {row['accepted']} | {each} "
            f"| {row['verified']} | {row['cpu'] / max(1, row['indices']):.1f} | {reasons} |",
            flush=True,
        )
    for job in chosen.jobs:
        print(f"\n### {job}")
        show(rows_of(chosen.out / f"{job.replace(' --', '-')}.json"))


if __name__ == "__main__":
    main()
