"""What the images show: one structure, or several conformations in one frame."""

import math
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
from cryogan.simulation.linker import LinkerStates, linker_states
from cryogan.simulation.molecule_settings import MoleculeSettings
from cryogan.simulation.motion import States, path
from cryogan.simulation.parts import parts_of_map
from cryogan.simulation.sources import expanded, kind_of, parts_of

_MAX_LOSS = 0.01  # of a map's power, by cropping
_CENTRE_POINTS, _CENTRE_STEPS = 50_000, 1000


@dataclass(frozen=True)
class MoleculeStates:
    """K conformations in one frame, rendered when asked for.

    Attributes:
        names: what each is, in words.
        volume: makes the (D, D, D) map of one, by number.
        latent: (K, m) coordinates in [0, 1]; m = 0 where there are none.
        population: (K,) float64, their frequencies, of sum 1.
        circular: of each coordinate, whether 1 is 0 again.
    """

    names: list[str]
    volume: Callable[[int], Tensor]
    latent: Tensor
    population: Tensor
    circular: tuple[bool, ...] = ()

    def __len__(self) -> int:
        return len(self.names)


def molecule_states(
    settings: MoleculeSettings, *, box_size: int, pixel_size_A: float
) -> MoleculeStates:
    """Read the sources and check that every conformation fits the box.

    A single atomic model has its centre of mass at voxel D // 2. Several, or the states of
    motions, are moved by one and the same vector that brings the centre of the smallest sphere
    around them all there. Maps keep their own origins (voxel D // 2 of each). The molecules of a
    mixture are read each on its own.

    Raises:
        InputError: a source cannot be read, sources are of different kinds, settings contradict
            one another, or a conformation does not fit the box.

    Example:
        >>> from cryogan.simulation.molecule import molecule_states
        >>> from cryogan.simulation.molecule_settings import MoleculeSettings
        >>> settings = MoleculeSettings(("phantom",), hinge_deg=(0.0, 30.0), hinge_states=3)
        >>> states = molecule_states(settings, box_size=32, pixel_size_A=6.0)
        >>> states.names
        ['phantom, hinge at 0°', 'phantom, hinge at 15°', 'phantom, hinge at 30°']
        >>> states.volume(2).shape, states.latent[:, 0].tolist()
        (torch.Size([32, 32, 32]), [0.0, 0.5, 1.0])
    """
    settings.check()
    sources = expanded(settings.sources)
    if settings.mixture:
        return _mixture(settings, sources, box_size, pixel_size_A)
    kind = kind_of(sources)
    if kind == "phantom":
        names, volume, latent = _phantoms(settings, sources, box_size, pixel_size_A)
    elif kind == "map":
        names, volume, latent = _maps(settings, sources, box_size, pixel_size_A)
    else:
        names, volume, latent = _models(settings, sources, box_size, pixel_size_A)
    if settings.path:
        latent = torch.linspace(0.0, 1.0, len(names))[:, None]
    settings.check_populations(len(names))
    circular = tuple(motion.circular for motion in settings.motions)
    return MoleculeStates(
        names,
        volume,
        latent,
        _population(settings.populations, len(names)),
        (True,) if settings.linker is not None else circular or (False,) * latent.shape[1],
    )


_Parts = tuple[list[str], Callable[[int], Tensor], Tensor]


def _common_centre(states: Sequence[Tensor]) -> Tensor:
    """Centre (3,) of about the smallest sphere around all states ((n, 3) each).

    Bădoiu & Clarkson (SODA 2003): step towards the farthest point, ever less.
    """
    stride = math.ceil(sum(map(len, states)) / _CENTRE_POINTS)
    points = torch.cat([positions[::stride] for positions in states])
    centre = points.mean(dim=0)
    for step in range(2, _CENTRE_STEPS):
        farthest = (points - centre).square().sum(dim=1).argmax()
        centre = centre + (points[farthest] - centre) / step
    return centre


def _mixture(
    settings: MoleculeSettings, sources: list[str], box_size: int, pixel_size_A: float
) -> MoleculeStates:
    """Different molecules, each by itself, in maps of one standard deviation."""
    alone = [
        molecule_states(settings.of(source), box_size=box_size, pixel_size_A=pixel_size_A)
        for source in sources
    ]

    def volume(number: int) -> Tensor:
        found = alone[number].volume(0)
        return found / found.std()

    return MoleculeStates(
        [Path(source).name for source in sources],
        volume,
        torch.zeros(len(sources), 0),
        _population(settings.populations, len(sources)),
    )


def _population(given: tuple[float, ...] | None, count: int) -> Tensor:
    population = torch.tensor([1.0] * count if given is None else given, dtype=torch.float64)
    return population / population.sum()


def _phantoms(
    settings: MoleculeSettings, sources: list[str], box_size: int, pixel_size_A: float
) -> _Parts:
    symmetry: Literal["C1", "D2"] = "D2" if sources[0].endswith(":D2") else "C1"
    first_deg, last_deg = settings.hinge_deg
    angles = torch.linspace(first_deg, last_deg, settings.hinge_states).tolist()

    def volume(number: int) -> Tensor:
        return phantom_map(
            box_size, pixel_size_A, symmetry=symmetry, hinge_angle_deg=angles[number]
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

    if settings.parts is not None:
        divided = parts_of_map(volume(0), pixel_size_A, settings.parts)
        states = settings.parts.states
        names = [f"parts {' '.join(map(str, state))}" for state in states]

        def some_parts(number: int) -> Tensor:
            return divided[[part - 1 for part in states[number]]].sum(0)

        return names, some_parts, torch.zeros(len(states), 0)
    for number in range(len(sources)):
        volume(number)  # an InputError if it cannot be read or does not fit
    return [Path(source).name for source in sources], volume, torch.zeros(len(sources), 0)


def _read_map(path: str, pixel_size_A: float | None) -> Map:
    if pixel_size_A is None and read_header(path).known_pixel_size_A is None:
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


def _states_of(
    model: AtomicModel, settings: MoleculeSettings
) -> tuple[States | LinkerStates, list[str], Tensor]:
    """States of one model, their names and (K, m) latents."""
    if settings.linker is not None:
        linked = linker_states(model, settings.linker)
        degrees = torch.rad2deg(linked.dihedral_rad).tolist()
        latent = linked.dihedral_rad[:, None] / (2.0 * math.pi)
        return linked, [f"linker, dihedral {angle:.1f}°" for angle in degrees], latent
    states, latent = path(model, settings.motions)
    names = [", ".join(f"{angle:g}°" for angle in angles) for angles in states.angles_deg.tolist()]
    return states, names, latent


def _models(
    settings: MoleculeSettings, sources: list[str], box_size: int, pixel_size_A: float
) -> _Parts:
    models = [read_model(*parts_of(source), assembly=settings.assembly) for source in sources]
    latent = torch.zeros(len(models), 0)
    if settings.motions or settings.linker is not None:
        (model,) = models
        states, names, latent = _states_of(model, settings)

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
        else _common_centre([unmoved(number).positions_A for number in range(len(names))])
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
