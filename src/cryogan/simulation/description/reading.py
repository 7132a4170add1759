"""Descriptions of data sets: shipped recipes by their names, and YAML files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from cryogan.errors import InputError
from cryogan.io.yaml_files import read_yaml
from cryogan.simulation.description.nested import merged

_RECIPES = Path(str(resources.files("cryogan.simulation"))) / "recipes"
_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Description:
    """A data set in words, before its files are looked for.

    Attributes:
        title: one line.
        about: what it is and where it was published.
        settings: nested, as in the YAML file.
        condition: the condition's name, if there are several.
        scale: what box and number of images were multiplied by.
        needs: where to get the files that the settings name.
        inputs: path and SHA-256 of the files it was made of, by name; empty for a recipe.
        folder: where the YAML file lies; None for a shipped recipe.
    """

    title: str = ""
    about: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    condition: str | None = None
    scale: float | None = None
    needs: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    folder: Path | None = None


def recipe_names() -> list[str]:
    """The recipes that come with cryogan.

    Example:
        >>> from cryogan.simulation.description import recipe_names
        >>> recipe_names()[:2]
        ['betagal-64px', 'betagal-table1']
    """
    return sorted(path.stem for path in _RECIPES.glob("*.yaml"))


def is_description(source: str) -> bool:
    """Whether a source is the name of a recipe or a YAML file."""
    return source in recipe_names() or source.endswith(_SUFFIXES)


def read_description(source: str, condition: str | None = None) -> Description:
    """A shipped recipe by its name, or a YAML file; one of its conditions applied.

    Args:
        source: name or path.
        condition: which; None for the first.

    Raises:
        InputError: the file cannot be read, is no description, or has no such condition.

    Example:
        >>> from cryogan.simulation.description import read_description, settings_of
        >>> recipe = read_description("hsp90-discrete", "4-states")
        >>> recipe.title, settings_of(recipe).molecule.motions[0].states
        ('Hsp90, discrete conformations (Multi-CryoGAN)', 4)
    """
    is_file = source.endswith(_SUFFIXES)
    path = Path(source) if is_file else _RECIPES / f"{source}.yaml"
    content = read_yaml(path)
    _check_entries(content, path)
    conditions = content.get("conditions", {})
    chosen = condition or next(iter(conditions), None)
    if condition is not None and condition not in conditions:
        raise InputError(
            f"{source} has no condition {condition}; choose one of "
            f"{', '.join(map(str, conditions)) or 'none (it has a single one)'}."
        )
    settings = merged(content["settings"], conditions[chosen] if chosen else {})
    return Description(
        title=content.get("title", source),
        about=content.get("about", ""),
        settings=settings,
        condition=chosen or content.get("condition"),
        scale=content.get("scale"),
        needs=content.get("needs", {}),
        inputs=content.get("inputs", {}),
        folder=path.absolute().parent if is_file else None,
    )


def _check_entries(content: Any, path: Path) -> None:
    """Raise an InputError unless `content` has the entries of a description, each of its kind."""
    if not isinstance(content, dict) or "settings" not in content:
        raise InputError(f"{path} has no settings; give a recipe or a simulation.yaml.")
    for name, value in content.items():
        if name not in _ENTRIES:
            raise InputError(
                f"{path} has the unknown entry {name}; known are {', '.join(_ENTRIES)}."
            )
        words, is_right = _ENTRIES[name]
        if not is_right(value):
            raise InputError(f"The entry {name} of {path} is no {words}; correct it.")


def _is_nested(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(item, Mapping) for item in value.values())


def _is_inputs(value: Any) -> bool:
    return _is_nested(value) and all(
        isinstance(item.get(key), str) for item in value.values() for key in ("path", "sha256")
    )


_ENTRIES: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    "title": ("text", lambda value: isinstance(value, str)),
    "about": ("text", lambda value: isinstance(value, str)),
    "settings": ("group of settings", lambda value: isinstance(value, Mapping)),
    "conditions": ("group of groups of settings", _is_nested),
    "needs": ("group of texts", lambda value: isinstance(value, Mapping)),
    "condition": ("text", lambda value: isinstance(value, str)),
    "scale": ("number", lambda value: isinstance(value, int | float)),
    "inputs": ("group of files with path and sha256", _is_inputs),
    "made_with": ("group", lambda value: isinstance(value, Mapping)),
    "measured": ("group", lambda value: isinstance(value, Mapping)),
}
