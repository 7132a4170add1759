"""Writing `simulation.yaml`, and telling whether one describes a given set."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import cryogan
from cryogan.files import write_text
from cryogan.simulation.description.nested import plain
from cryogan.simulation.description.reading import Description, read_description
from cryogan.simulation.description.settings import settings_of
from cryogan.simulation.settings import SimulationSettings


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
        "settings": plain(settings),
        "inputs": plain(inputs),
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


def is_same(path: Path, settings: SimulationSettings, inputs: Mapping[str, Any]) -> bool:
    """Whether a `simulation.yaml` describes this very set."""
    other = read_description(str(path))
    digests = [{key: item["sha256"] for key, item in d.items()} for d in (other.inputs, inputs)]
    same = plain(settings_of(other)) == plain(settings)
    return same and digests[0] == digests[1]
