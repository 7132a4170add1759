"""Nested mappings, as YAML files hold them."""

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any


def merged(base: Mapping[str, Any], changes: Mapping[str, Any] | None) -> dict[str, Any]:
    """A mapping with changes; where both hold a mapping, only what the change holds is changed."""
    result = dict(base)
    for key, value in (changes or {}).items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def plain(value: Any) -> Any:
    """Mappings for dataclasses, lists for tuples: what YAML can say."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
