"""The cells of a Parquet or Arrow column as values that JSON has. What they mean is the matter of `forms`."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping

from selfinstruct.records import JSON


def cells_of(column: JSON) -> list[JSON]:
    """The values of a column: a number that is none is null, a time its ISO form, bytes are text or Base64.

    Args:
        column: a `pyarrow.Array`.

    Raises:
        ValueError, ArrowException: text is not UTF-8, or a value in a list or object is beyond what Python has.
    """
    try:
        values = column.to_pylist()
    except (ValueError, OverflowError):  # nanoseconds, or years that Python's times do not have
        values = column.cast("string").to_pylist()
    return values if _is_plain(column.type) else [_cell(value) for value in values]


def _is_plain(kind: JSON) -> bool:
    """Whether all values of an Arrow type are JSON's already: texts, whole numbers, and lists and objects of them."""
    from pyarrow import types

    if types.is_struct(kind):
        return all(_is_plain(kind.field(at).type) for at in range(kind.num_fields))
    if types.is_list(kind) or types.is_large_list(kind):
        return _is_plain(kind.value_type)
    tests = (types.is_string, types.is_large_string, types.is_integer, types.is_boolean, types.is_null)
    return any(test(kind) for test in tests)


def _cell(value: JSON) -> JSON:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _cell(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_cell(inner) for inner in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
