"""JSON that every reader understands: no NaN and no infinity."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def to_json(value: Any, indent: int | None = None) -> str:
    """A value as JSON; numbers that are not finite are null, paths are strings.

    Args:
        value: numbers, strings, None, paths, and mappings and sequences of these.
        indent: of the lines; None for one line.

    Example:
        >>> to_json({"resolution_A": float("inf"), "shells": (1, 2)})
        '{"resolution_A": null, "shells": [1, 2]}'
    """
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
