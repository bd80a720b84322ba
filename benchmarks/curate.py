"""A million rows through curate (length, patterns, exact duplicates), mix and Parquet export: time and memory.

    python benchmarks/curate.py [--rows 1000000] [--folder DIR]

The rows are recombined real text: an instruction and input of Code Alpaca with the answer of another of its rows,
drawn with a fixed seed, so that some pairs come twice. Where that file is not at hand (`SELFINSTRUCT_DATA`, else
`../shared/data`) the bundled seed tasks serve. Every command runs as a process of its own; its CPU seconds and peak
memory are what the system says of it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from selfinstruct.dataset import read_dataset
from selfinstruct.seeds import load

STEPS = """
[[step]]
kind = "length"
min = 30
max = 4000

[[step]]
kind = "match"
drop = ['(?i)as an ai language model', '\\bTODO\\b', 'https?://[^\\s]+\\.exe']

[[step]]
kind = "exact-duplicates"
"""
MIX = """
[[source]]
name = "most"
path = "kept.jsonl"
fraction = 1.0
validation = 0.01
validation-cap = 5000
"""


def make_rows(path: Path, count: int) -> None:
    folder = Path(os.environ.get("SELFINSTRUCT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    real = folder / "code_alpaca_2k.json"
    rows = read_dataset(real) if real.is_file() else seed_rows()
    rng = random.Random(1)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            row = {**rng.choice(rows), "output": rng.choice(rows)["output"]}
            file.write(json.dumps(row) + "\n")
    print(
        f"{count} rows of {real.name if real.is_file() else 'the seeds'}, {path.stat().st_size / 1e6:.0f} MB"
    )


def seed_rows() -> list[dict[str, str]]:
    return [{"instruction": seed.instruction, "input": seed.input, "output": seed.output} for seed in load()]


def run(*words: object) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds, peak memory in MB of a command."""
    began = time.monotonic()
    command = [sys.executable, "-m", "selfinstruct", *map(str, words)]
    process = subprocess.Popen(command, stderr=sys.stdout, env=os.environ | {"COLUMNS": "150"})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        make_rows(folder / "rows.jsonl", given.rows)
        (folder / "steps.toml").write_text(STEPS)
        (folder / "mix.toml").write_text(MIX)
        parts = {
            "curate": run(
                "curate",
                folder / "rows.jsonl",
                "-o",
                folder / "kept.jsonl",
                "--config",
                folder / "steps.toml",
            ),
            "mix": run("mix", folder / "mix.toml", "-o", folder / "mixed.jsonl"),
            "export": run(
                "export", folder / "mixed.jsonl", "-o", folder / "out.parquet", "--format", "parquet"
            ),
        }
        report = json.loads((folder / "kept.run" / "curate.json").read_bytes())
    print("\n| | wall s | CPU s | peak MB |\n|---|---|---|---|")
    for part, (wall, cpu, peak) in parts.items():
        print(f"| {part} | {wall:.1f} | {cpu:.1f} | {peak:.0f} |")
    total = [sum(figures) for figures in list(zip(*parts.values(), strict=True))[:2]]
    print(f"| together | {total[0]:.1f} | {total[1]:.1f} | {max(peak for *_, peak in parts.values()):.0f} |")
    print(
        "\nof curate, CPU s: "
        + ", ".join(
            [f"reading {report['read_cpu_seconds']:.1f}"]
            + [f"{step['kind']} {step['cpu_seconds']:.1f}" for step in report["steps"]]
            + [f"writing {report['write_cpu_seconds']:.1f}"]
        )
    )
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
