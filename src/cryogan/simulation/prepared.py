"""A set that can be made: its structures, poses and noise, and what is drawn for its images."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan.particles import Pose
from cryogan.physics.distributions import PoseDistribution
from cryogan.randomness import generator_for
from cryogan.simulation.junk import draw_junk
from cryogan.simulation.levels import defocus_errors_A, log_normal, noise_levels, picking_errors_A
from cryogan.simulation.microscope import draw
from cryogan.simulation.molecule import MoleculeStates, molecule_states
from cryogan.simulation.noise import NoiseSource, open_noise
from cryogan.simulation.poses import pose_distribution
from cryogan.simulation.settings import SimulationSettings
from cryogan.simulation.truth import Truth, micrographs

_STATES, _POSES, _CTFS, NOISE = range(4)  # streams of random numbers


@dataclass(frozen=True)
class Prepared:
    """A data set that has been checked and can be made.

    Attributes:
        settings: of the set.
        conformations: what its images show.
        poses: their distribution.
        noise: what is added to them.
    """

    settings: SimulationSettings
    conformations: MoleculeStates
    poses: PoseDistribution
    noise: NoiseSource


def prepare(settings: SimulationSettings) -> Prepared:
    """Check settings, read the structures and the noise.

    Raises:
        InputError: something is wrong with the settings or with a file that they name.
    """
    settings.check()
    box_size, pixel_size_A = settings.box_size, settings.pixel_size_A
    draw(settings.ctf, 1, torch.Generator())  # reads the table
    with one_thread():
        return Prepared(
            settings,
            molecule_states(settings.molecule, box_size=box_size, pixel_size_A=pixel_size_A),
            pose_distribution(
                settings.orientations,
                settings.shifts,
                box_size=box_size,
                pixel_size_A=pixel_size_A,
            ),
            open_noise(settings.noise, box_size=box_size, pixel_size_A=pixel_size_A),
        )


def draw_truth(prepared: Prepared) -> Truth:
    """What is true of every image; each thing is drawn from a stream of its own."""
    settings = prepared.settings
    n, shifts, ctf = settings.images, settings.shifts, settings.ctf
    micrograph = micrographs(settings)
    named = None if settings.particles_per_micrograph is None else micrograph
    pose = prepared.poses.sample(n, _generator(settings, _POSES))
    if shifts.picking_share > 0:
        error_A = picking_errors_A(
            shifts.picking_share, shifts.picking_error_A, n, _generator(settings, "picking")
        )
        pose = Pose(pose.rotation, pose.shift_A + error_A)
    with one_thread():
        return Truth(
            _states(prepared, n, _generator(settings, _STATES)),
            pose,
            draw(ctf, n, _generator(settings, _CTFS), named),
            log_normal(settings.contrast.spread, n, _generator(settings, "contrast")),
            noise_levels(settings.noise.spread, micrograph, _generator(settings, "noise level")),
            defocus_errors_A(ctf.wrong_share, ctf.wrong_by_A, n, _generator(settings, "defocus")),
            draw_junk(settings.junk, n, settings.seed),
        )


def _states(prepared: Prepared, n: int, generator: torch.Generator) -> Tensor:
    """(n,) numbers of the conformations of all images."""
    population = prepared.conformations.population
    if not prepared.settings.molecule.exact_populations:
        return torch.multinomial(population, n, True, generator=generator)
    counts = rounded_counts(population, n)
    states = torch.arange(len(population)).repeat_interleave(counts)
    return states[torch.randperm(n, generator=generator)]


def rounded_counts(population: Tensor, n: int) -> Tensor:
    """(K,) int64 whole numbers of sum n, nearest to shares (K,) of sum 1: largest remainders.

    Example:
        >>> import torch
        >>> rounded_counts(torch.tensor([0.5, 0.26, 0.24]), 10).tolist()
        [5, 3, 2]
    """
    exact = population.double() * n
    counts = (exact + 1e-9).floor().long()
    missing = n - int(counts.sum())
    counts[(exact - counts).argsort(descending=True, stable=True)[:missing]] += 1
    return counts


def _generator(settings: SimulationSettings, *stream: int | str) -> torch.Generator:
    return generator_for(settings.seed, *stream)


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums of floating-point numbers must not depend on how many cores a machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
