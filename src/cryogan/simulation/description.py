"""`simulation.yaml`: a data set in words that make it again, bit for bit; and shipped recipes.

title: one line
about: what it is and where it was published
settings:              # of `SimulationSettings`; what is left out has its default
  noise: {snr_dB: -5.2}
conditions:            # recipes only: changes of the settings, by name; the first is the default
  -20dB: {noise: {snr_dB: -20}}
  -5.2dB: {}
needs:                 # recipes only: where to get the files that settings name
  5a1a.cif: https://www.rcsb.org/structure/5A1A
condition: -20dB       # made sets only: which condition it was
scale: 0.25            # made sets only: what box and number of images were multiplied by
inputs:                # made sets only: the files it was made of
  5a1a.cif: {path: /data/5a1a.cif, sha256: ...}
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from glob import escape
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser

import cryogan
from cryogan.errors import InputError
from cryogan.files import write_text
from cryogan.io.yaml_files import CHECKED_YAML, read_yaml
from cryogan.simulation.settings import SimulationSettings
from cryogan.simulation.sources import is_phantom, maps_in, parts_of

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
    settings = _merged(content["settings"], conditions[chosen] if chosen else {})
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
    _refuse_misshapen(description.settings, asdict(SimulationSettings()), description.title)
    parser = ArgumentParser(exit_on_error=False, parser_mode=CHECKED_YAML)
    parser.add_class_arguments(SimulationSettings)
    try:
        found = parser.instantiate(parser.parse_object(dict(description.settings)))
    except ArgumentError as error:
        words = " ".join(str(error).split())
        if wrong := re.search(r'Parser key "([\w.]+)":.* value: (.*)$', words):
            raise InputError(
                f"The setting {wrong[1]} of {description.title} is {wrong[2]}, which it cannot "
                "be; see cryogan simulate --help."
            ) from error
        raise InputError(
            f"The settings of {description.title} are wrong ({words}); see cryogan simulate --help."
        ) from error
    return SimulationSettings(
        **{item.name: found[item.name] for item in fields(SimulationSettings)}
    )


def changed(
    settings: SimulationSettings, changes: Mapping[str, Any], title: str
) -> SimulationSettings:
    """Settings with changes.

    Args:
        settings: what is changed.
        changes: by name; groups as dataclasses, or nested as in a YAML file: then only what they
            hold is changed.
        title: of the set, for error messages.

    Raises:
        InputError: a change is unknown or has a value of a wrong kind.

    Example:
        >>> from cryogan.simulation.description import changed
        >>> from cryogan.simulation.settings import SimulationSettings
        >>> new = changed(SimulationSettings(), {"images": 5, "noise": {"snr_dB": 3.0}}, "mine")
        >>> new.images, new.noise.kind, new.noise.snr_dB
        (5, 'white', 3.0)
    """
    if not changes:
        return settings
    merged = _merged(_plain(settings), _plain(changes))
    return settings_of(Description(title=title, settings=merged))


def _refuse_misshapen(settings: Mapping[str, Any], defaults: Mapping[str, Any], title: str) -> None:
    """Raise an InputError for a value in the place of a group, and for one that is left empty."""
    for name, default in defaults.items():
        value = settings.get(name, default)
        if isinstance(default, Mapping) and isinstance(value, Mapping):
            _refuse_misshapen(value, default, title)
        elif isinstance(default, Mapping) or (value is None and default is not None):
            raise InputError(
                f"The setting {name} of {title} is {value}, which it cannot be; see cryogan "
                "simulate --help."
            )


def locate(
    settings: SimulationSettings, description: Description, datadirs: Iterable[Path]
) -> tuple[SimulationSettings, dict[str, dict[str, str]]]:
    """Find the files that settings name.

    A file is looked for at its name, beside the description, in `datadirs`, where it was when
    the set was made, and in the subfolders of `datadirs`, in this order.

    Returns:
        The settings with the paths that were found, and `Description.inputs` for them.

    Raises:
        InputError: a file is nowhere, or is not the one that the set was made of; a folder holds
            other maps than then.
    """
    beside = [] if description.folder is None else [description.folder]
    datadirs = list(datadirs)
    recorded = {name: Path(item["path"]) for name, item in description.inputs.items()}
    inputs: dict[str, dict[str, str]] = {}

    def place(name: str) -> Path:
        """Of a file, or of a folder of maps."""
        then = [
            p if known == name else p.parent
            for known, p in recorded.items()
            if name in (known, _folder_of(known))
        ]
        near = [folder / name for folder in (Path(), *beside, *datadirs)]
        deeper = (p for folder in datadirs for p in sorted(folder.glob(f"*/{escape(name)}")))
        path = next((p for p in (*near, *then, *deeper) if name and p.exists()), None)
        if path is None:
            tried = "".join(f" nor in {folder}" for folder in (*beside, *datadirs))
            get = f"get it ({description.needs[name]}) and " if name in description.needs else ""
            raise InputError(
                f"The file '{name}' is not here{tried}; {get}say in which folder it is with "
                "--datadir."
            )
        return path

    def identify(name: str, file: Path) -> None:
        inputs[name] = {"path": str(file.absolute()), "sha256": _digest(file)}
        expected = description.inputs.get(name, inputs[name])["sha256"]
        if inputs[name]["sha256"] != expected:
            raise InputError(
                f"{file} is not the file that the set was made of (its SHA-256 begins with "
                f"{inputs[name]['sha256'][:8]}, that one's with {expected[:8]}); find that one."
            )

    def found(name: str) -> str:
        path = place(name)
        if path.is_dir():
            raise InputError(f"{path} is a folder; name a file.")
        identify(name, path)
        return str(path)

    def found_or_none(name: str | None) -> str | None:
        return None if name is None else found(name)

    def source(name: str) -> str:
        if is_phantom(name):
            return name
        if len(parts_of(name)) > 1 or not place(name).is_dir():
            return "+".join(map(found, parts_of(name)))
        folder = place(name)
        maps = {f"{name}/{file.name}": file for file in maps_in(folder)}
        then = {known for known in recorded if _folder_of(known) == name}
        if then and then != set(maps):
            raise InputError(
                f"{folder} holds {len(maps)} maps, but not those {len(then)} that the set was made "
                "of; bring them back."
            )
        for key, file in maps.items():
            identify(key, file)
        return str(folder)

    molecule = replace(
        settings.molecule, sources=tuple(source(name) for name in settings.molecule.sources)
    )
    located = replace(
        settings,
        molecule=molecule,
        orientations=replace(settings.orientations, file=found_or_none(settings.orientations.file)),
        ctf=replace(settings.ctf, table=found_or_none(settings.ctf.table)),
        noise=replace(settings.noise, file=found_or_none(settings.noise.file)),
    )
    return located, inputs


def _folder_of(name: str) -> str:
    """Under what name a folder was given one of whose maps has this name among the inputs."""
    return name.rpartition("/")[0]


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
    import torch

    content = {
        "title": description.title,
        "about": description.about,
        "condition": description.condition,
        "scale": description.scale,
        "made_with": {"cryogan": cryogan.__version__, "torch": str(torch.__version__)},
        "settings": _plain(settings),
        "inputs": _plain(inputs),
        "measured": measured,
    }
    shown = {key: value for key, value in content.items() if value not in ("", None)}
    text = yaml.dump(shown, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=90)
    write_text(path, text)


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Texts of several lines stay as they are; no aliases, which `read_yaml` refuses."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = "|" if "\n" in data else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


_Dumper.add_representer(str, _Dumper.represent_str)


def _plain(value: Any) -> Any:
    """Mappings for dataclasses, lists for tuples: what YAML can say."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def is_same(path: Path, settings: SimulationSettings, inputs: Mapping[str, Any]) -> bool:
    """Whether a `simulation.yaml` describes this very set."""
    other = read_description(str(path))
    digests = [{key: item["sha256"] for key, item in d.items()} for d in (other.inputs, inputs)]
    same = _plain(settings_of(other)) == _plain(settings)
    return same and digests[0] == digests[1]
