"""Opens the backend that the settings name, and closes it. What each does with a request is its own module's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeAlias

from selfinstruct.seams import Backend
from selfinstruct.settings import RunSettings

ENGINE_LOG = "SELFINSTRUCT_ENGINE_LOG"  # names a file for the embedded engine's talk
Say: TypeAlias = Callable[[str], None]


@contextmanager
def open_backend(settings: RunSettings, say: Say = lambda _: None) -> Iterator[Backend]:
    """Start what answers requests; `say` is told what takes time.

    Raises:
        InputError: the model or the replies are not there.
        BackendError: the server or the embedded model does not come up.
    """
    backend = _make_backend(settings, say)
    with closing(backend):
        yield backend


def _make_backend(settings: RunSettings, say: Say) -> Backend:
    width = settings.concurrency or 1
    if settings.backend == "replay":
        from selfinstruct.backend_replay import ReplayBackend

        return ReplayBackend(Path(settings.model or ""))
    if settings.backend == "openai":
        from selfinstruct.backend_openai import OpenAIBackend

        return OpenAIBackend(
            settings.model or "", settings.base_url, timeout=settings.timeout, max_connections=width
        )
    from selfinstruct import weights
    from selfinstruct.backend_local import LocalBackend, check_engine

    check_engine()
    path = weights.resolve(settings.model or "", _tenths(say) if settings.log_format == "json" else None)
    known = weights.catalogue().get(settings.model or "")
    if known is not None:
        say(f"{known.alias}: {known.note}")
    say(f"starting {settings.model} on this machine")
    log = os.environ.get(ENGINE_LOG)
    return LocalBackend(path, alias=settings.model, concurrency=width, log=Path(log) if log else None)


def _tenths(say: Say) -> Callable[[int, int], None]:
    """Tells a download as notes, one for each tenth."""
    told = -1

    def tell(done: int, total: int) -> None:
        nonlocal told
        if total and (tenth := done * 10 // total) > told:
            told = tenth
            say(f"fetching the model: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    return tell
