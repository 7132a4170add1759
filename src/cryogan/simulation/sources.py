"""What the sources of a simulated set are: phantom, maps or atomic models, by their names."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cryogan.errors import InputError

MAP_SUFFIXES = (".mrc", ".map", ".ccp4")
Kind = Literal["phantom", "map", "atomic model"]


def is_phantom(source: str) -> bool:
    """Whether a source is the built-in phantom and no file.

    Example:
        >>> from cryogan.simulation.sources import is_phantom
        >>> is_phantom("phantom:D2"), is_phantom("phantom.mrc")
        (True, False)
    """
    return source.partition(":")[0] == "phantom"


def parts_of(source: str) -> list[str]:
    """The files of a source: several where + follows the suffix of an atomic model.

    Example:
        >>> from cryogan.simulation.sources import parts_of
        >>> parts_of("c++/a.pdb+c++/b.cif.gz")
        ['c++/a.pdb', 'c++/b.cif.gz']
    """
    return re.split(r"(?<=pdb|ent|cif)\+|(?<=\.gz)\+", source)


def maps_in(folder: Path) -> list[Path]:
    """The maps in a folder, by name.

    Raises:
        InputError: there is none.
    """
    maps = sorted(path for path in folder.iterdir() if path.suffix in MAP_SUFFIXES)
    if not maps:
        raise InputError(f"The folder {folder} holds no map (.mrc); give another folder.")
    return maps


def expanded(sources: Sequence[str]) -> list[str]:
    """The sources, folders replaced by the maps in them.

    Raises:
        InputError: there is no source, or a folder holds no map.
    """
    result: list[str] = []
    for source in sources:
        if Path(source).is_dir() and not is_phantom(source):
            result += map(str, maps_in(Path(source)))
        else:
            result.append(source)
    if not result:
        raise InputError("molecule.sources is empty; name a model, a map or phantom.")
    return result


def kind_of(sources: Sequence[str]) -> Kind:
    """The kind that all sources are of; folders have been replaced.

    Raises:
        InputError: they are of different kinds.

    Example:
        >>> from cryogan.simulation.sources import kind_of
        >>> kind_of(["open.mrc", "closed.mrc"])
        'map'
    """
    kinds = {_kind(source) for source in sources}
    if len(kinds) > 1:
        raise InputError(
            f"The sources {', '.join(sources)} are of different kinds ({', '.join(sorted(kinds))}"
            "); give atomic models only, or maps only."
        )
    return kinds.pop()


def _kind(source: str) -> Kind:
    if is_phantom(source):
        return "phantom"
    return "map" if source.removesuffix(".gz").endswith(MAP_SUFFIXES) else "atomic model"
