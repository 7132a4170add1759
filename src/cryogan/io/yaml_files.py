"""Untrusted YAML: settings files, and values on the command line.

Refused are aliases (a few of them can stand for gigabytes), deep nesting, keys that stand twice,
numbers that are not finite, and long texts. Numbers such as 1e-3 are numbers; dates are texts.
"""

import math
import re
from pathlib import Path
from typing import Any

import jsonargparse
import yaml

from cryogan.errors import InputError

CHECKED_YAML = "checked yaml"
"""The mode of a parser of jsonargparse that reads files and values with `load_yaml`."""
_MAX_CHARACTERS = 2**20
_MAX_DEPTH = 20
_INTEGER, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_NUMBER = re.compile(
    r"^(?:[-+]?(?:\d+\.\d*|\.\d+)(?:e[-+]?\d+)?|[-+]?\d+e[-+]?\d+|[-+]?\.inf|\.nan)$", re.I
)


def read_yaml(path: Path | str) -> Any:
    """The content of a YAML file.

    Raises:
        InputError: the file cannot be read or is not YAML that is accepted here.
    """
    try:
        with Path(path).open("rb") as file:
            return load_yaml(file.read(4 * _MAX_CHARACTERS + 1).decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}; check the path.") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not valid YAML (it is not text in UTF-8); correct it."
        ) from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML ({_words(error)}); correct it.") from error


def load_yaml(text: str) -> Any:
    """The content of a YAML text.

    Raises:
        yaml.YAMLError: it is not YAML that is accepted here.
    """
    if len(text) > _MAX_CHARACTERS:
        raise yaml.YAMLError(f"it has more than {_MAX_CHARACTERS:,} characters")
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise _problem(f"the alias *{event.anchor} is not supported", event.start_mark)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise _problem(f"more than {_MAX_DEPTH} levels are nested", event.start_mark)
    try:
        return yaml.load(text, Loader=_Loader)
    except (ValueError, OverflowError, TypeError, LookupError) as error:
        raise yaml.YAMLError(f"a value cannot be understood: {error}") from error


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Python's plain types only."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise _problem(f"the key {key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value: int = super().construct_yaml_int(node)
        if abs(value) >= 10**100:  # a seed may be long, but a float ends at 1e308
            raise _problem(f"the number {node.value[:20]}... is too large", node.start_mark)
        return value

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        value: float = super().construct_yaml_float(node)
        if not math.isfinite(value):
            raise _problem(f"the number {node.value} is not finite", node.start_mark)
        return value


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag not in (_FLOAT, _TIMESTAMP)]
    for first, known in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_FLOAT, _NUMBER, list("-+.0123456789"))
_Loader.add_constructor(_FLOAT, _Loader.construct_yaml_float)
_Loader.add_constructor(_INTEGER, _Loader.construct_yaml_int)


def _problem(what: str, mark: yaml.Mark) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, what, mark)


def _words(error: yaml.YAMLError) -> str:
    """What is wrong, and in which line, in a few words."""
    parts = [getattr(error, name, None) for name in ("context", "problem", "reason")]
    mark = getattr(error, "context_mark", None) or getattr(error, "problem_mark", None)
    words = ", ".join(filter(None, parts)) or str(error)
    line = "" if mark is None else f"line {mark.line + 1}: "
    return line + " ".join(words.split())[:200]


jsonargparse.set_loader(CHECKED_YAML, load_yaml, exceptions=(yaml.YAMLError,))
