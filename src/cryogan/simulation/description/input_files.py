"""The files that the settings of a set name: where they are, and that they are the right ones."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from glob import escape
from pathlib import Path

from cryogan.errors import InputError
from cryogan.simulation.description.reading import Description
from cryogan.simulation.settings import SimulationSettings
from cryogan.simulation.sources import is_phantom, maps_in, parts_of


def locate(
    settings: SimulationSettings, description: Description, datadirs: Iterable[Path]
) -> tuple[SimulationSettings, dict[str, dict[str, str]]]:
    """Find the files that settings name.

    A file is looked for at its name, beside the description, in `datadirs`, where it was when
    the set was made, and in the subfolders of `datadirs`, in this order.

    Returns:
        The settings with the paths that were found, and `Description.inputs` for them.

    Raises:
        InputError: a file is nowhere, cannot be read, or is not the one that the set was made of;
            a folder holds other maps than then.
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

    linker = settings.molecule.linker
    molecule = replace(
        settings.molecule,
        sources=tuple(source(name) for name in settings.molecule.sources),
        linker=None if linker is None else replace(linker, dihedrals=found(linker.dihedrals)),
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
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"Cannot read {path}: {error.strerror}; name a file that you may read."
        ) from error
