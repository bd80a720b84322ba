"""What the syntax check costs and sees: CPU time a candidate, failures of real answers, broken ones it misses.

    python benchmarks/syntax.py cost ROWS.json     # CPU ms by language, and what fails; ROWS: a code_alpaca file
    python benchmarks/syntax.py start              # what the first check of a language costs
    python benchmarks/syntax.py broken             # broken copies of the bundled seeds: how many are noticed
    python benchmarks/syntax.py fails ROWS.json    # every failure with its row number, to be read

All times are CPU time of this process.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from time import process_time

from selfinstruct.records import Candidate
from selfinstruct.seeds import load
from selfinstruct.verify.code import find_code
from selfinstruct.verify.guess import rank_languages
from selfinstruct.verify.mentions import read_wish
from selfinstruct.verify.syntax import can_check, check_syntax, syntax_problem, syntax_verdict
from selfinstruct.vocabulary import LANGUAGES

CODE_KINDS = {"write", "complete", "fix", "refactor", "optimise", "translate", "test", "revise", "query"}


def cost(path: Path) -> None:
    """CPU milliseconds of the verdict on a candidate; three rounds, the middle one counts."""
    spent: dict[str, list[float]] = defaultdict(list)
    failed: dict[str, int] = defaultdict(int)
    rows = json.loads(path.read_text(encoding="utf-8"))
    for row in rows:
        texts = row["instruction"], row["input"], row["output"]
        rounds = []
        for _ in range(3):
            clear_caches()
            begun = process_time()
            verdict = syntax_verdict(Candidate(*texts))
            rounds.append(process_time() - begun)
        found = find_code(*texts)
        name = (found.language if found.blocks else None) or "no code"
        spent[name].append(1000 * statistics.median(rounds))
        failed[name] += verdict.status == "failed"
    print(f"{len(rows)} rows\n")
    print("| language | answers | fail | median ms | p99 ms |\n|---|---|---|---|---|")
    everything = [ms for times in spent.values() for ms in times]
    for name, times in [*sorted(spent.items(), key=lambda item: -len(item[1])), ("all", everything)]:
        fails = sum(failed.values()) if name == "all" else failed[name]
        print(
            f"| {name} | {len(times)} | {fails} | {statistics.median(times):.2f} | {percentile(times, 0.99):.2f} |"
        )


def clear_caches() -> None:
    """A candidate is seen once in a run; the look-ups kept for its later steps must not help the next round."""
    for kept in (find_code, rank_languages, read_wish):
        kept.cache_clear()


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def start() -> None:
    """The first check of each language in a process of its own, against the second."""
    print("| language | first check, ms | second, ms |\n|---|---|---|")
    program = (
        "import sys, time\nfrom selfinstruct.verify.syntax import syntax_problem\n"
        "for _ in range(2):\n"
        "    begun = time.process_time()\n    syntax_problem(sys.argv[1], 'x')\n"
        "    print(round(1000 * (time.process_time() - begun), 1), end=' | ')\n"
    )
    for name in filter(can_check, LANGUAGES):
        told = subprocess.run(
            [sys.executable, "-c", program, name], capture_output=True, text=True, check=True
        )
        print(f"| {name} | {told.stdout}")


def broken() -> None:
    """Seeds' answers broken in three ways: cut, one bracket less, one quotation mark less."""
    ways = {
        "cut after two thirds": "",
        "one bracket less": r"[(){}\[\]]",
        "one quotation mark less": r"[\"']",
    }
    rng = random.Random(0)
    seen: dict[str, dict[str, list[bool]]] = defaultdict(lambda: {way: [] for way in ways})
    for seed in load(None):
        if seed.kind not in CODE_KINDS or not can_check(seed.language or ""):
            continue
        whole = seed.output.strip("\n")
        for way, sign in ways.items():
            code = without_one(whole, sign, rng) if sign else whole[: 2 * len(whole) // 3]
            if code is not None:
                seen[seed.language or ""][way].append(syntax_problem(seed.language or "", code) is not None)
    print(f"| language | {' | '.join(ways)} |\n|---|{'---|' * len(ways)}")
    total = {way: [one for by_way in seen.values() for one in by_way[way]] for way in ways}
    for name, by_way in [*sorted(seen.items()), ("all", total)]:
        print(f"| {name} | {' | '.join(f'{sum(told)} of {len(told)}' for told in by_way.values())} |")


def without_one(code: str, pattern: str, rng: random.Random) -> str | None:
    """The code without one of the signs, drawn by chance; None if it has none."""
    places = [found.start() for found in re.finditer(pattern, code)]
    if not places:
        return None
    at = rng.choice(places)
    return code[:at] + code[at + 1 :]


def fails(path: Path) -> None:
    """Every failure, to be read by a person."""
    for number, row in enumerate(json.loads(path.read_text(encoding="utf-8"))):
        rejection = check_syntax(Candidate(row["instruction"], row["input"], row["output"]))
        if rejection is not None:
            print(f"## {number}: {rejection.evidence}\n{row['instruction']}\n{row['output']}\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["start"]:
        start()
    elif sys.argv[1:2] == ["broken"]:
        broken()
    elif len(sys.argv) == 3 and sys.argv[1] in ("cost", "fails"):
        {"cost": cost, "fails": fails}[sys.argv[1]](Path(sys.argv[2]))
    else:
        sys.exit(__doc__)
