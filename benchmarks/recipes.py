"""Both recipes on the embedded model: accepted tasks a minute and per 1,000 tokens.

    python benchmarks/recipes.py --model qwen2.5-coder-1.5b --num 20 --out RUNS

Each recipe makes the same number of tasks (or stops after --minutes) with the same seeds and settings, one
after the other, in a fresh process. Seconds are of the wall clock, CPU seconds those of the process and the
model's child; on a machine that does other things look at the CPU column. The run directories stay in
RUNS, to be read with `selfinstruct show`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def measure(recipe: str, model: str, num: int, minutes: float, out: Path, extra: list[str]) -> dict[str, Any]:
    output = out / f"{model.replace('/', '-')}-{recipe}.json"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    words = ["generate", "--model", model, "--recipe", recipe, "-n", str(num), "-o", str(output)]
    words += ["--max-minutes", str(minutes), *extra]
    subprocess.run([sys.executable, "-m", "selfinstruct", *words], check=False)
    seconds = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    status = [sys.executable, "-m", "selfinstruct", "status", str(output), "--json"]
    report: dict[str, Any] = json.loads(subprocess.run(status, capture_output=True, check=True).stdout)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return report | {"seconds": seconds, "cpu": cpu}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="qwen2.5-coder-1.5b")
    parser.add_argument("--num", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("extra", nargs="*", help="more flags for generate, after --")
    chosen = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.1f}")
    print(
        "| recipe | candidates | accepted | wall s | CPU s | accepted/min | accepted/CPU-min | per 1,000 tokens |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for recipe in ("staged", "code-alpaca"):
        row = measure(recipe, chosen.model, chosen.num, chosen.minutes, chosen.out, chosen.extra)
        accepted = row["accepted"]
        print(
            f"| {recipe} | {row['candidates']} | {accepted} | {row['seconds']:.0f} | {row['cpu']:.0f} "
            f"| {60 * accepted / row['seconds']:.1f} | {60 * accepted / row['cpu']:.1f} "
            f"| {row['accepted_per_1000_tokens']} | rejected: {row['reasons']}"
        )


if __name__ == "__main__":
    main()
