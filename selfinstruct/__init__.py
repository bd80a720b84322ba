"""Makes instruction data for code models: seeds in, new and checked code_alpaca-style tasks out.

from selfinstruct import generate
for task in generate(num=10, output="tasks.json"):
    print(task["instruction"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "BackendError",
    "InputError",
    "LockedError",
    "SelfInstructError",
    "StoppedEarly",
    "__version__",
    "generate",
    "read_dataset",
]

if TYPE_CHECKING:
    from selfinstruct.dataset import read_dataset
    from selfinstruct.errors import BackendError, InputError, LockedError, SelfInstructError, StoppedEarly
    from selfinstruct.session import generate

_HOMES = {"generate": "session", "read_dataset": "dataset"}


def __getattr__(name: str) -> Any:
    """Import on use: `selfinstruct --help` must not wait for what it does not need."""
    if name not in __all__:
        raise AttributeError(f"module 'selfinstruct' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"selfinstruct.{_HOMES.get(name, 'errors')}"), name)
