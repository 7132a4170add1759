"""What a simulated set will be: its settings, its files and its folder, checked before any work.

Nothing here needs torch, so that what cannot work is refused at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryogan.errors import InputError
from cryogan.simulation.description import (
    Description,
    changed,
    is_description,
    is_same,
    locate,
    read_description,
    settings_of,
)
from cryogan.simulation.settings import SimulationSettings

Source = str | Path | Sequence[str | Path] | SimulationSettings
_FILES = ("particles.star", "particles.mrcs", "background.mrcs", "truth/*")


@dataclass(frozen=True)
class Plan:
    """A set that can be made, as far as can be told without reading its molecule.

    Attributes:
        description: of the set, in words.
        settings: of the set, files as they were named.
        located: the same, files where they were found.
        inputs: path and SHA-256 of these files, by name.
        folder: where to make the set.
        is_made: whether the folder holds this very set already.
    """

    description: Description
    settings: SimulationSettings
    located: SimulationSettings
    inputs: Mapping[str, Mapping[str, str]]
    folder: Path
    is_made: bool

    @property
    def record(self) -> Path:
        """The folder's simulation.yaml."""
        return self.folder / "simulation.yaml"


def plan(
    source: Source,
    folder: Path | str,
    *,
    condition: str | None = None,
    scale: float | None = None,
    datadirs: Iterable[Path | str] = (),
    changes: Mapping[str, Any] | None = None,
) -> Plan:
    """Settle what a set will be.

    Args:
        source: models, maps, a folder of maps or phantom; or a recipe or YAML file; or settings.
        folder: where the set goes; nothing is written.
        condition: of a recipe.
        scale: multiplies a recipe's box and number of images.
        datadirs: folders in which, or in whose folders, the files named are.
        changes: settings that differ from the source's; see `description.changed`.

    Raises:
        InputError: the settings make no set, a file is not found or has changed, or the folder
            holds other files of these names.

    Example:
        >>> from cryogan.simulation.plan import plan
        >>> found = plan("phantom", "no/such/folder", changes={"box_size": 32})
        >>> found.settings.box_size, found.is_made
        (32, False)
    """
    description, settings = describe(source, condition, scale)
    settings = changed(settings, changes or {}, description.title)
    settings.check()
    located, inputs = locate(settings, description, map(Path, datadirs))
    located.molecule.check()
    folder = Path(folder)
    return Plan(description, settings, located, inputs, folder, _is_made(folder, settings, inputs))


def describe(
    source: Source, condition: str | None = None, scale: float | None = None
) -> tuple[Description, SimulationSettings]:
    """The description that a source names or makes, and its settings, scaled.

    Raises:
        InputError: the description cannot be read or understood, or something else stands beside
            it; or a condition or scale is given without one.

    Example:
        >>> from cryogan.simulation.plan import describe
        >>> description, settings = describe("hsp90-discrete", "2-states", scale=0.75)
        >>> description.condition, settings.box_size, settings.noise.snr_box_size
        ('2-states', 24, 32)
    """
    if isinstance(source, SimulationSettings):
        _refuse_recipe_options(condition, scale)
        return Description(title=" ".join(source.molecule.sources)), source
    sources = [str(source)] if isinstance(source, str | Path) else list(map(str, source))
    if len(sources) == 1 and is_description(sources[0]):
        description = read_description(sources[0], condition)
        settings = settings_of(description)
        if scale is None:
            return description, settings
        total = scale * (description.scale or 1.0)
        return replace(description, scale=total), settings.scaled(scale)
    if any(map(is_description, sources)):
        raise InputError(
            f"A recipe stands alone, but the sources are {' '.join(sources)}; give one recipe, or "
            "models or maps only."
        )
    _refuse_recipe_options(condition, scale)
    settings = SimulationSettings()
    molecule = replace(settings.molecule, sources=tuple(sources))
    return Description(title=" ".join(sources)), replace(settings, molecule=molecule)


def _refuse_recipe_options(condition: str | None, scale: float | None) -> None:
    if condition is not None or scale is not None:
        raise InputError("--condition and --scale are for recipes; give one, or leave them out.")


def _is_made(
    folder: Path, settings: SimulationSettings, inputs: Mapping[str, Mapping[str, str]]
) -> bool:
    """Whether the folder holds this very set; another one's files are never overwritten."""
    record = folder / "simulation.yaml"
    if record.is_file():
        if not is_same(record, settings, inputs):
            raise InputError(
                f"{folder} holds another simulated set, or a part of one; choose another folder "
                "or remove it."
            )
        return all((folder / name).is_file() for name in _FILES[:2])
    for name in _FILES:
        if any(folder.glob(name)):
            raise InputError(
                f"{folder} holds {name} that is not of a simulated set; choose another folder."
            )
    return False
