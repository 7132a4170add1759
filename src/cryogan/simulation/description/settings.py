"""The settings of a description, checked, and settings with changes."""

import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from cryogan.errors import InputError
from cryogan.io.yaml_files import CHECKED_YAML
from cryogan.simulation.description.nested import merged, plain
from cryogan.simulation.description.reading import Description
from cryogan.simulation.settings import SimulationSettings


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
    nested = merged(plain(settings), plain(changes))
    return settings_of(Description(title=title, settings=nested))


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
