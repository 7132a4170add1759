"""`simulation.yaml`: a data set in words that make it again, bit for bit; and shipped recipes.

title: one line
about: what it is and where it was published
settings:              # of `SimulationSettings`; what is left out has its default
  noise: {snr_dB: -5.2}
conditions:            # recipes only: changes of the settings, by name; the first is the default
  -20dB: {noise: {snr_dB: -20}}
  -5.2dB: {}
condition: -20dB       # made sets only: which condition it was
scale: 0.25            # made sets only: what box and number of images were multiplied by
inputs:                # made sets only: the files it was made of
  5a1a.cif: {path: /data/5a1a.cif, sha256: ...}
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser

import cryogan
from cryogan.errors import InputError
from cryogan.files import write_text
from cryogan.simulation.conformations import is_phantom, parts_of
from cryogan.simulation.settings import SimulationSettings

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
        inputs: path and SHA-256 of the files it was made of, by name; empty for a recipe.
        folder: where the YAML file lies.
    """

    title: str = ""
    about: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    condition: str | None = None
    scale: float | None = None
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    folder: Path | None = None


def recipe_names() -> list[str]:
    """The recipes that come with cryogan."""
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
    """
    path = Path(source) if source.endswith(_SUFFIXES) else _RECIPES / f"{source}.yaml"
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}; check the path.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        words = " ".join(str(error).split())
        raise InputError(f"{path} is not valid YAML ({words}); correct it.") from error
    known = {"title", "about", "settings", "conditions", "condition", "scale", "inputs"}
    known |= {"made_with", "measured"}
    if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
        raise InputError(f"{path} has no settings; give a recipe or a simulation.yaml.")
    if unknown := sorted(set(content) - known):
        raise InputError(
            f"{path} has the unknown entry {unknown[0]}; known are {', '.join(sorted(known))}."
        )
    conditions = content.get("conditions") or {}
    chosen = condition or next(iter(conditions), None)
    if condition is not None and condition not in conditions:
        raise InputError(
            f"{source} has no condition {condition}; choose one of "
            f"{', '.join(map(str, conditions)) or 'none (it has a single one)'}."
        )
    settings = _merged(content["settings"], conditions[chosen] if chosen else {})
    return Description(
        title=content.get("title", ""),
        about=content.get("about", ""),
        settings=settings,
        condition=chosen or content.get("condition"),
        scale=content.get("scale"),
        inputs=content.get("inputs") or {},
        folder=path.absolute().parent,
    )


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any] | None) -> dict[str, Any]:
    merged = dict(base)
    for key, value in (changes or {}).items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def settings_of(description: Description) -> SimulationSettings:
    """The settings of a description, completed by defaults.

    Raises:
        InputError: an entry is unknown or has a value of a wrong kind.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(SimulationSettings)
    try:
        found = parser.instantiate(parser.parse_object(dict(description.settings)))
    except ArgumentError as error:
        words = " ".join(str(error).split())
        raise InputError(f"The settings of {description.title} are wrong: {words}") from error
    return SimulationSettings(
        **{item.name: found[item.name] for item in fields(SimulationSettings)}
    )


def locate(
    settings: SimulationSettings, description: Description, datadirs: Iterable[Path]
) -> tuple[SimulationSettings, dict[str, dict[str, str]]]:
    """Find the files that settings name.

    A file is looked for at its name, beside the description, in `datadirs` and their
    subfolders, and where it was when the set was made.

    Returns:
        The settings with the paths that were found, and `Description.inputs` for them.

    Raises:
        InputError: a file is nowhere, or is not the one that the set was made of.
    """
    recorded = [Path(item["path"]).parent for item in description.inputs.values()]
    beside = [] if description.folder is None else [description.folder]
    folders = [Path(), *beside, *datadirs, *recorded]
    inputs: dict[str, dict[str, str]] = {}

    def found(name: str) -> str:
        places = (folder / name for folder in folders)
        deeper = (path for folder in folders[1:] for path in sorted(folder.glob(f"*/{name}")))
        path = next((p for p in (*places, *deeper) if p.exists()), None)
        if path is None:
            raise InputError(
                f"The file {name} is not here"
                + (f" nor in {', '.join(map(str, folders[1:]))}" if folders[1:] else "")
                + "; say in which folder it is with --datadir."
            )
        for file in sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]:
            key = name if file is path else f"{name}/{file.name}"
            inputs[key] = {"path": str(file.absolute()), "sha256": _digest(file)}
            expected = description.inputs.get(key, inputs[key])["sha256"]
            if inputs[key]["sha256"] != expected:
                raise InputError(
                    f"{file} is not the file that the set was made of (its SHA-256 begins with "
                    f"{inputs[key]['sha256'][:8]}, that one's with {expected[:8]}); find that one."
                )
        return str(path)

    def found_or_none(name: str | None) -> str | None:
        return None if name is None else found(name)

    molecule = replace(
        settings.molecule,
        sources=tuple(
            source if is_phantom(source) else "+".join(map(found, parts_of(source)))
            for source in settings.molecule.sources
        ),
    )
    located = replace(
        settings,
        molecule=molecule,
        orientations=replace(settings.orientations, file=found_or_none(settings.orientations.file)),
        ctf=replace(settings.ctf, table=found_or_none(settings.ctf.table)),
        noise=replace(settings.noise, file=found_or_none(settings.noise.file)),
    )
    return located, inputs


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_description(
    path: Path,
    description: Description,
    settings: SimulationSettings,
    inputs: Mapping[str, Mapping[str, str]],
    measured: Mapping[str, float] | None = None,
) -> None:
    """Write `simulation.yaml`, atomically; `settings` are those before `locate`."""
    content = {
        "title": description.title,
        "about": description.about,
        "condition": description.condition,
        "scale": description.scale,
        "made_with": {"cryogan": cryogan.__version__, "torch": str(torch.__version__)},
        "settings": _plain(asdict(settings)),
        "inputs": _plain(inputs),
        "measured": measured,
    }
    shown = {key: value for key, value in content.items() if value not in ("", None)}
    text = yaml.dump(shown, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=90)
    write_text(path, text)


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Texts of several lines stay as they are."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = "|" if "\n" in data else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


_Dumper.add_representer(str, _Dumper.represent_str)


def _plain(value: Any) -> Any:
    """Lists for tuples: what YAML can say."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def is_same(path: Path, settings: SimulationSettings, inputs: Mapping[str, Any]) -> bool:
    """Whether a `simulation.yaml` describes this very set."""
    other = read_description(str(path))
    digests = [{key: item["sha256"] for key, item in d.items()} for d in (other.inputs, inputs)]
    return other.settings == _plain(asdict(settings)) and digests[0] == digests[1]
