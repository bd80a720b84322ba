"""What each level of `--verify` keeps of the same candidates, and what the model's own tests cost.

    selfinstruct generate --verify off -n 200 -o RUN.json ...
    python benchmarks/verification.py RUN.json --out FOLDER [--tests] [--repair N]

The candidates of a finished run are decided again under `off`, `syntax` and `run` from its replies, which costs no
token; with --tests also under `tests`, where only the assertions (and with --repair new answers) are asked of the
model of the run. Decided are all indices of RUN, whatever its target was. Every level leaves a dataset and a run
directory in FOLDER, to be read with `selfinstruct show`; the table goes to stdout. Because a level that keeps less
leaves a smaller pool, a few candidates that were duplicates may be new: a recipe of several steps then has no reply
to go on with (`not_in_replay`; under `tests` the model is asked). CPU seconds are of this process and
its children, without the model's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from selfinstruct import report
from selfinstruct.backend_replay import ReplayBackend
from selfinstruct.backends import open_backend
from selfinstruct.errors import RequestRefused, StoppedEarly
from selfinstruct.records import Reply, Request
from selfinstruct.seams import Backend
from selfinstruct.session import open_session
from selfinstruct.settings import make_settings

LEVELS = ("off", "syntax", "run", "tests")
DROPPED = {
    "verify",
    "repair",
    "require_verification",
    "output",
    "num",
    "base_url",
    "job",
    "max_minutes",
    "stall",
}


class Bought:
    """Replies of an earlier run; what was not asked then is asked now, but of no later index."""

    def __init__(self, replies: Path, model: Backend | None) -> None:
        self.replay = ReplayBackend(replies)
        self.model = model
        self.asked = 0

    def complete(self, key: str, request: Request) -> Reply:
        """What was bought, else what the model says."""
        try:
            return self.replay.complete(key, request)
        except RequestRefused as refusal:
            if refusal.reason != "not_in_replay" or self.model is None:
                raise
        self.asked += 1
        return self.model.complete(key, request)

    def close(self) -> None:
        """Close the file; the model is not ours."""
        self.replay.close()


def cpu() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def decide(run: Path, level: str, repair: int, out: Path) -> dict[str, Any]:
    """The report of the run's candidates under a level."""
    before = json.loads((run / "run.json").read_bytes())["settings"]
    given = {name: value for name, value in before.items() if name not in DROPPED and value is not None}
    output = out / f"{level}.json"
    asks = level == "tests"
    settings = make_settings(
        {
            **given,
            "verify": level,
            "repair": repair if asks else 0,
            "num": 10**6,
            "stall": 10**6,
            "output": str(output),
        }
    )
    began, asked = cpu(), 0
    with ExitStack() as opened:
        session = opened.enter_context(open_session(settings))
        model = opened.enter_context(open_backend(settings, print)) if asks else None
        backend = Bought(run / "replies.jsonl", model)
        opened.callback(backend.close)
        with suppress(StoppedEarly):  # the replies are used up: that is the end
            for _ in session.events(backend):
                pass
        asked = backend.asked
    return report.read_report(output).as_json() | {"cpu": cpu() - began, "asked": asked}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a dataset or its run directory, made with --verify off")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tests", action="store_true", help="ask the run's model for assertions, too")
    parser.add_argument(
        "--repair", type=int, default=0, help="with --tests: new answers that may be asked for"
    )
    chosen = parser.parse_args()
    run = report.find_run(chosen.run)
    print(f"{run}; load {os.getloadavg()[0]:.1f}\n")
    print(
        "| level | candidates | kept | passed | skipped | unavailable | rejected by it | asked | tokens | CPU s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for level in LEVELS if chosen.tests else LEVELS[:3]:
        row = decide(run, level, chosen.repair, chosen.out)
        ours = {"syntax_error", "run_failed", "tests_failed", "bad_tests", "weak_tests", "unverified"}
        failed = Counter({name: number for name, number in row["reasons"].items() if name in ours})
        told = ", ".join(f"{name} {number}" for name, number in failed.most_common()) or "0"
        status = [row["verification"].get(name, 0) for name in ("passed", "skipped", "unavailable")]
        extra = row["tests"].get("tokens", 0) + row["repair"].get("tokens", 0)
        cells = [
            level,
            row["candidates"],
            row["accepted"],
            *status,
            told,
            row["asked"],
            extra,
            f"{row['cpu']:.1f}",
        ]
        print(f"| {' | '.join(map(str, cells))} |")
        if row["repair"]:
            print(f"\nrepair: {row['repair']}, {row['repaired_per_1000_tokens']} accepted for 1,000 tokens\n")


if __name__ == "__main__":
    main()
