"""Which licence a file of code is under, as far as it says itself or a licence file near it does. No legal advice.

Licence texts are told by sentences that only they have; what is not recognised is `unknown`, never guessed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

UNKNOWN: Final = "unknown"
_HEAD = 4000  # characters of a file in which its licence line stands
_LONGEST = 100_000  # bytes of a licence file that are read
_SPDX = re.compile(r"SPDX-License-Identifier:\s{0,9}([A-Za-z0-9(][A-Za-z0-9.+() -]{0,120})")
_NAME = re.compile(r"(?:un)?licen[cs]e(?:[.-][\w.-]{1,40})?|copying(?:[.-][\w.-]{1,40})?", re.IGNORECASE)
# The earliest of these in a text tells the licence; the GNU ones also speak of each other further down.
_SIGNS: Final = {
    "Apache-2.0": "apache license version 2.0",
    "AGPL-3.0": "gnu affero general public license version 3",
    "LGPL-3.0": "gnu lesser general public license version 3",
    "LGPL-2.1": "gnu lesser general public license version 2.1",
    "GPL-3.0": "gnu general public license version 3",
    "GPL-2.0": "gnu general public license version 2",
    "MPL-2.0": "mozilla public license version 2.0",
    "MIT": "permission is hereby granted free of charge to any person obtaining a copy of this software",
    "BSD": "redistribution and use in source and binary forms with or without modification",
    "ISC": "permission to use copy modify and or distribute this software for any purpose with or without fee",
    "Unlicense": "this is free and unencumbered software released into the public domain",
    "CC0-1.0": "cc0 1.0 universal",
    "BSL-1.0": "boost software license version 1.0",
    "EPL-2.0": "eclipse public license v 2.0",
    "EUPL-1.2": "european union public licence v. 1.2",
}


def stated_licence(code: str) -> str | None:
    """The licence that a file's own SPDX line names, None without one."""
    found = _SPDX.search(code[:_HEAD])
    return " ".join(found[1].split()).rstrip(" -") or None if found else None


def recognise(text: str) -> str:
    """The SPDX name of a licence text, `unknown` where it is none of the usual ones."""
    squeezed = " ".join(re.findall(r"[a-z0-9]+(?:\.\s?[0-9]+)*|v\.", text.lower()))
    found = {name: squeezed.find(sign) for name, sign in _SIGNS.items() if sign in squeezed}
    if not found:
        return UNKNOWN
    name = min(found, key=lambda one: found[one])
    if name == "BSD":
        return "BSD-3-Clause" if "neither the name" in squeezed else "BSD-2-Clause"
    return name


def licence_of_folder(folder: Path) -> str | None:
    """The licence that a folder's own licence file tells: its name, several with commas, None without a file."""
    try:
        files = sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
    except OSError:
        return None
    names: dict[str, None] = {}
    for path in files:
        if not path.is_symlink() and path.is_file():
            names.setdefault(_read(path))
    return ", ".join(names) or None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(_LONGEST).decode("utf-8", "replace")
    except OSError:
        return UNKNOWN
    return stated_licence(text) or recognise(text)


def nearest_licence(folder: Path, known: dict[Path, str]) -> str:
    """The licence of the nearest folder that has a licence file, from `folder` up to the top of its repository.

    Args:
        folder: absolute.
        known: what was found for folders before; it is added to.
    """
    if folder not in known:
        found = licence_of_folder(folder)
        top = (folder / ".git").exists() or folder.parent == folder
        known[folder] = found or (UNKNOWN if top else nearest_licence(folder.parent, known))
    return known[folder]
