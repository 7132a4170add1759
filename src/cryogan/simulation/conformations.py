"""What the images show: one structure, or several conformations in one frame."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.evaluation.resampling import resample_map
from cryogan.io.atoms import AtomicModel, model_density, read_model
from cryogan.io.mrc import Map, read_header, read_map
from cryogan.phantom import phantom_map
from cryogan.physics.density import molmap_density
from cryogan.simulation.motion import Motion, path

_MAX_LOSS = 0.01  # of a map's power, by cropping
_MIDDLE_POINTS, _MIDDLE_STEPS = 50_000, 1000
_MAP_SUFFIXES = (".mrc", ".map", ".ccp4")


@dataclass(frozen=True)
class MoleculeSettings:
    """The molecule and its conformations.

    Attributes:
        sources: one conformation each: an atomic model (PDB, mmCIF), several models joined by +
            that make one molecule, a map (.mrc), a folder of maps, or phantom or phantom:D2.
        assembly: biological assembly of the atomic models to generate, by name.
        resolution_A: low-pass of the maps; needed for molmap, otherwise optional.
        convention: maps of atomic models: electron scattering factors with B-factors, or one
            Gaussian an atom as Chimera's molmap makes them.
        map_pixel_size_A: of maps whose header has none.
        motions: rigid-body motions of domains of one atomic model; each has a latent coordinate.
        hinge_deg: first and last angle of the phantom's hinge.
        hinge_states: number of conformations of the phantom between them.
        path: several sources are points on a path, at latent coordinates from 0 to 1.
        populations: relative frequency of the conformations; equal if left out.
    """

    sources: tuple[str, ...] = ("phantom",)
    assembly: str | None = None
    resolution_A: float | None = None
    convention: Literal["scattering", "molmap"] = "scattering"
    map_pixel_size_A: float | None = None
    motions: tuple[Motion, ...] = ()
    hinge_deg: tuple[float, float] = (0.0, 0.0)
    hinge_states: int = 1
    path: bool = False
    populations: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Conformations:
    """K conformations in one frame, rendered when asked for.

    Attributes:
        names: what each is, in words.
        volume: makes the (D, D, D) map of one, by number.
        latent: (K, m) coordinates in [0, 1]; m = 0 where there are none.
        population: (K,) float64, their frequencies, of sum 1.
    """

    names: list[str]
    volume: Callable[[int], Tensor]
    latent: Tensor
    population: Tensor

    def __len__(self) -> int:
        return len(self.names)


def conformations(
    settings: MoleculeSettings, *, box_size: int, pixel_size_A: float
) -> Conformations:
    """Read the sources and check that every conformation fits the box.

    A single atomic model has its centre of mass at voxel D // 2. Several, or the states of
    motions, are moved by one and the same vector that brings the centre of the smallest sphere
    around them all there. Maps keep their own origins (voxel D // 2 of each).

    Raises:
        InputError: a source cannot be read, sources are of different kinds, settings contradict
            one another, or a conformation does not fit the box.
    """
    sources = _expanded(settings.sources)
    kinds = {_kind(source) for source in sources}
    if len(kinds) > 1:
        raise InputError(
            f"The sources {', '.join(sources)} are of different kinds ({', '.join(sorted(kinds))}"
            "); give atomic models only, or maps only."
        )
    kind = kinds.pop()
    _refuse_foreign(settings, kind)
    if kind == "phantom":
        names, volume, latent = _phantoms(settings, sources, box_size, pixel_size_A)
    elif kind == "map":
        names, volume, latent = _maps(settings, sources, box_size, pixel_size_A)
    else:
        names, volume, latent = _models(settings, sources, box_size, pixel_size_A)
    if settings.path:
        if len(names) < 2 or latent.shape[1] > 0:
            raise InputError(
                "molecule.path needs two sources or more, and no motions or hinge; leave it out."
            )
        latent = torch.linspace(0.0, 1.0, len(names))[:, None]
    return Conformations(names, volume, latent, _population(settings.populations, len(names)))


_Parts = tuple[list[str], Callable[[int], Tensor], Tensor]


def _expanded(sources: tuple[str, ...]) -> list[str]:
    """Folders replaced by the maps in them."""
    result: list[str] = []
    for source in sources:
        if Path(source).is_dir() and not is_phantom(source):
            result += map(str, maps_in(Path(source)))
        else:
            result.append(source)
    if not result:
        raise InputError("molecule.sources is empty; name a model, a map or phantom.")
    return result


def maps_in(folder: Path) -> list[Path]:
    """The maps in a folder, by name.

    Raises:
        InputError: there is none.
    """
    maps = sorted(path for path in folder.iterdir() if path.suffix in _MAP_SUFFIXES)
    if not maps:
        raise InputError(f"The folder {folder} holds no map (.mrc); give another folder.")
    return maps


def is_phantom(source: str) -> bool:
    """Whether a source is the built-in phantom and no file."""
    return source.partition(":")[0] == "phantom"


def parts_of(source: str) -> list[str]:
    """The files of a source: several where + follows the suffix of an atomic model."""
    return re.split(r"(?<=pdb|ent|cif)\+|(?<=\.gz)\+", source)


def _kind(source: str) -> str:
    if is_phantom(source):
        return "phantom"
    return "map" if source.removesuffix(".gz").endswith(_MAP_SUFFIXES) else "atomic model"


def _refuse_foreign(settings: MoleculeSettings, kind: str) -> None:
    """Settings that would be silently ignored."""
    for name, given, wanted in (
        ("assembly", settings.assembly is not None, "atomic model"),
        ("convention molmap", settings.convention == "molmap", "atomic model"),
        ("map_pixel_size_A", settings.map_pixel_size_A is not None, "map"),
        ("motions", bool(settings.motions), "atomic model"),
        ("hinge_deg", settings.hinge_deg != (0.0, 0.0), "phantom"),
        ("hinge_states", settings.hinge_states != 1, "phantom"),
    ):
        if given and kind != wanted:
            raise InputError(
                f"molecule.{name} is for a source of kind {wanted}, but the source is of kind "
                f"{kind}; leave it out."
            )
    if kind == "phantom" and settings.resolution_A is not None:
        raise InputError("molecule.resolution_A does not apply to the phantom; leave it out.")
    if settings.convention == "molmap" and settings.resolution_A is None:
        raise InputError("molecule.convention molmap needs molecule.resolution_A; give it in Å.")
    if settings.resolution_A is not None and not settings.resolution_A > 0:
        raise InputError(
            f"molecule.resolution_A is {settings.resolution_A:g}; give a positive number of Å."
        )


def _middle(states: Sequence[Tensor]) -> Tensor:
    """Centre (3,) of about the smallest sphere around all states ((n, 3) each).

    Bădoiu & Clarkson (SODA 2003): step towards the farthest point, ever less.
    """
    stride = math.ceil(sum(map(len, states)) / _MIDDLE_POINTS)
    points = torch.cat([positions[::stride] for positions in states])
    centre = points.mean(dim=0)
    for step in range(2, _MIDDLE_STEPS):
        farthest = (points - centre).square().sum(dim=1).argmax()
        centre = centre + (points[farthest] - centre) / step
    return centre


def _population(given: tuple[float, ...] | None, count: int) -> Tensor:
    population = torch.ones(count, dtype=torch.float64)
    if given is not None:
        population = torch.tensor(given, dtype=torch.float64)
        if len(population) != count:
            raise InputError(
                f"molecule.populations has {len(population)} numbers for {count} conformations; "
                "give one for each."
            )
        if not bool(torch.isfinite(population).all()) or float(population.min()) < 0:
            raise InputError("molecule.populations must be numbers from 0; correct them.")
        if float(population.sum()) == 0:
            raise InputError("molecule.populations are all 0; give one conformation a share.")
    return population / population.sum()


def _phantoms(
    settings: MoleculeSettings, sources: list[str], box_size: int, pixel_size_A: float
) -> _Parts:
    if len(sources) > 1:
        raise InputError("There is one phantom; turn its hinge with molecule.hinge_deg instead.")
    symmetry = sources[0].partition(":")[2] or "C1"
    if symmetry not in ("C1", "D2"):
        raise InputError(f"There is no phantom:{symmetry}; give phantom:C1 or phantom:D2.")
    if settings.hinge_states < 1:
        raise InputError(
            f"molecule.hinge_states is {settings.hinge_states}; give the number of conformations."
        )
    first_deg, last_deg = settings.hinge_deg
    if not (math.isfinite(first_deg) and math.isfinite(last_deg)):
        raise InputError(
            f"molecule.hinge_deg is {first_deg:g} to {last_deg:g}; give finite angles."
        )
    if (first_deg == last_deg) != (settings.hinge_states == 1):
        raise InputError(
            f"molecule.hinge_deg is {first_deg:g} to {last_deg:g} but molecule.hinge_states is "
            f"{settings.hinge_states}; give two angles and two states or more, or one angle "
            "twice and one state."
        )
    angles = torch.linspace(first_deg, last_deg, settings.hinge_states).tolist()

    def volume(number: int) -> Tensor:
        return phantom_map(
            box_size,
            pixel_size_A,
            symmetry="D2" if symmetry == "D2" else "C1",
            hinge_angle_deg=angles[number],
        )

    for number in {0, len(angles) - 1}:
        volume(number)  # an InputError if it does not fit
    names = [f"phantom, hinge at {angle:g}°" for angle in angles]
    latent = torch.linspace(0.0, 1.0, len(angles))[:, None]
    return names, volume, latent if len(angles) > 1 else latent[:, :0]


def _maps(
    settings: MoleculeSettings, sources: list[str], box_size: int, pixel_size_A: float
) -> _Parts:
    def volume(number: int) -> Tensor:
        given = _read_map(sources[number], settings.map_pixel_size_A)
        if not bool(given.volume.any()):
            raise InputError(
                f"The map {sources[number]} is empty, so that no signal-to-noise ratio can be "
                "reached; give a map with density."
            )
        _refuse_cropping(given, sources[number], box_size * pixel_size_A)
        resampled = resample_map(given.volume, given.pixel_size_A, pixel_size_A, box_size)
        if settings.resolution_A is None:
            return resampled
        gain = fourier.low_pass(box_size, settings.resolution_A / pixel_size_A, 3)
        return fourier.irfft(fourier.rfft(resampled, 3) * gain, box_size, 3)

    for number in range(len(sources)):
        volume(number)  # an InputError if it cannot be read or does not fit
    return [Path(source).name for source in sources], volume, torch.zeros(len(sources), 0)


def _read_map(path: str, pixel_size_A: float | None) -> Map:
    if pixel_size_A is None and read_header(path).voxel_size_A[0] == 0:
        raise InputError(
            f"{path} has no pixel size in its header; give it with --molecule.map_pixel_size_A."
        )
    return read_map(path, pixel_size_A)


def _refuse_cropping(given: Map, path: str, side_A: float) -> None:
    """A map may be cropped where it is empty, not where the molecule is."""
    inner = math.floor(side_A / given.pixel_size_A)
    if inner >= given.volume.shape[-1]:
        return
    power = given.volume.square()
    lost = 1.0 - float(fourier.crop_or_pad(power, inner, 3).sum() / power.sum())
    if lost > _MAX_LOSS:
        raise InputError(
            f"{lost:.0%} of the power of {path} lies outside a box of {side_A:.0f} Å; use a "
            "larger box or pixel, or mask the map."
        )


def _models(
    settings: MoleculeSettings, sources: list[str], box_size: int, pixel_size_A: float
) -> _Parts:
    models = [read_model(*parts_of(source), assembly=settings.assembly) for source in sources]
    latent = torch.zeros(len(models), 0)
    if settings.motions:
        if len(models) > 1:
            raise InputError(
                "molecule.motions move one molecule, but there are several sources; join the "
                "files of one by +, or give one."
            )
        (model,) = models
        states, latent = path(model, settings.motions)
        names = [
            ", ".join(f"{degrees:g}°" for degrees in angles)
            for angles in states.angles_deg.tolist()
        ]

        def unmoved(number: int) -> AtomicModel:
            name = f"{model.name} (state {number + 1}, at {names[number]})"
            return replace(model, name=name, positions_A=states[number])

    else:
        names = [model.name for model in models]

        def unmoved(number: int) -> AtomicModel:
            return models[number]

    centre_A = (
        unmoved(0).centre_of_mass_A
        if len(names) == 1
        else _middle([unmoved(number).positions_A for number in range(len(names))])
    )

    def placed(number: int) -> AtomicModel:
        model = unmoved(number)
        return model.moved(model.positions_A - centre_A)

    for number in range(len(names)):
        placed(number).check_fits(box_size, pixel_size_A)

    def volume(number: int) -> Tensor:
        model = placed(number)
        if settings.convention == "molmap" and settings.resolution_A is not None:
            return molmap_density(
                model.positions_A,
                model.atomic_numbers,
                box_size=box_size,
                pixel_size_A=pixel_size_A,
                resolution_A=settings.resolution_A,
            )
        return model_density(
            model,
            box_size=box_size,
            pixel_size_A=pixel_size_A,
            resolution_A=settings.resolution_A,
        )

    return names, volume, latent
