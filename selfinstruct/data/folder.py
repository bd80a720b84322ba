"""A dataset folder as hubs have it: the rows in Parquet, the card, the provenance; all there or nothing."""

from __future__ import annotations

import json

from selfinstruct.data.card import find_origin, write_card
from selfinstruct.data.containers import draft_folder, write_shards
from selfinstruct.data.export import Counts, Plan, Progress, check_plan, columns_of, records
from selfinstruct.data.reading import BadRows, need_arrow


def write_folder(plan: Plan, bad: BadRows | None, progress: Progress, licence: str | None = None) -> Counts:
    """Write the folder; it takes its place when everything in it is whole.

    Args:
        plan: of the format `hf`.
        bad: keeps the rows that cannot be read; without it they are errors.
        progress: told the number of rows now and then.
        licence: for the card, where the owner knows it.

    Raises:
        InputError: a row cannot be read; the folder is there and not empty.
        InputError, StoppedEarly: the disk does not take it; nothing is left behind.
    """
    check_plan(plan)
    need_arrow(plan.output)
    origin = find_origin(plan)
    counts = Counts()
    with draft_folder(plan.output) as folder:
        (folder / "data").mkdir()
        write_shards(folder / "data", records(plan, counts, bad, progress), columns_of(plan))
        (folder / "README.md").write_text(write_card(plan, counts, origin, licence), encoding="utf-8")
        told = json.dumps(origin.as_json() | {"rows": counts.rows}, indent=2) + "\n"
        (folder / "provenance.json").write_text(told, encoding="utf-8")
    return counts
