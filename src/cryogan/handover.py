"""From a run back to its particles: poses, conformations and critic scores of each."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cryogan.evaluation.fsc import fourier_shell_correlation
from cryogan.io.mrc import read_map
from cryogan.likelihood.ascent import believed_rings
from cryogan.likelihood.assignment import Assignment, assign, unassigned
from cryogan.likelihood.config import AscentConfig, limited
from cryogan.likelihood.field import Field
from cryogan.likelihood.half_set import HalfSet
from cryogan.memory import keep_freed_memory
from cryogan.particles import Particles
from cryogan.physics.noise import BackgroundPatches
from cryogan.reconstruction import split_halves
from cryogan.refinement import half_components
from cryogan.run_record import RunRecord, read_run
from cryogan.training.judgement import cross_judged, read_judges


@dataclass(frozen=True)
class Assigned:
    """Poses of a particle set, and the half of the run that each particle belongs to.

    Attributes:
        assignment: one row a particle.
        half: (n,) 1 or 2; None if the particles are not those of the run.
        class_number: (n,) most probable class of a discrete latent, counted from 1; else 1.
        latent_columns: (n,) columns by name: mean latent and spread along each axis, or the
            probability of the class; none for one structure.
    """

    assignment: Assignment
    half: Tensor | None
    class_number: Tensor
    latent_columns: dict[str, Tensor]


def assign_particles(
    particles: Particles,
    folder: Path,
    run: RunRecord,
    config: AscentConfig,
    *,
    same: bool,
    device: str,
    background: BackgroundPatches | None = None,
    show: Callable[[float], None] = lambda fraction: None,
) -> Assigned:
    """Poses of particles against the maps of a run.

    Args:
        particles: the set.
        folder: of the run (a reconstruction or a refinement).
        run: its record.
        config: mask, shifts, symmetry.
        same: the particles are those of the run: each is judged by the map of its own half, so
            that the halves stay independent. Other particles are judged by `map.mrc`.
        device: a torch device name.
        background: as for `refine`.
        show: called with the fraction that is done.
    """
    keep_freed_memory()
    maps, populations = half_components(folder, particles, config)
    landscape = config.landscape(maps.shape[1], populations)
    field = Field.of(particles.box_size, config)
    maps, inside = field.enter(maps), field.settings(config)
    rings = believed_rings(fourier_shell_correlation(maps[0, 0], maps[1, 0]))
    rings = limited(rings, field.width_px * particles.pixel_size_A, config)
    count = len(particles)
    groups = list(zip(split_halves(count, run.seed), maps, strict=True))
    if not same:
        components = maps.mean(0)
        average = torch.einsum("c,czyx->zyx", landscape.average, components)
        components[0] += field.enter(read_map(folder / "map.mrc").volume) - average
        groups = [(torch.arange(count), components)]
    result, done = unassigned(count, landscape), 0

    def count_up(more: int) -> None:
        nonlocal done
        done += more
        show(done / count)

    for rows, components in groups:
        half = HalfSet.of(particles.subset(rows), background, field)
        components = half.components_in_units(components)
        found = assign(half, components, landscape, rings, inside, torch.device(device), count_up)
        result = result.scattered(rows, found)
    number = None
    if same:
        number = torch.ones(count, dtype=torch.int64)
        number[groups[1][0]] = 2
    one = torch.ones(count, dtype=torch.int64)
    if len(landscape.prior) == 1:
        return Assigned(result, number, one, {})
    if config.latent == "discrete":
        best = result.node.max(dim=1)
        columns = {"cryoganClassProbability": best.values}
        return Assigned(result, number, best.indices + 1, columns)
    columns = {}
    mean, spread = config.space.moments(result.node, landscape.latent)
    for axis in range(mean.shape[1]):
        columns[f"cryoganLatent{axis}"] = mean[:, axis]
        columns[f"cryoganLatentSpread{axis}"] = spread[:, axis]
    return Assigned(result, number, one, columns)


def critic_scores(
    particles: Particles,
    folder: Path,
    run: RunRecord,
    *,
    same: bool,
    device: str,
    background: BackgroundPatches | None = None,
) -> Tensor | None:
    """(n,) what the critics of a run think of particles (`training.judgement`).

    Args:
        particles: the set.
        folder: of the run: adversarial, or a refinement, perhaps of a refinement, of one.
        run: its record.
        same: the particles are those of the run.
        device: a torch device name.
        background: as for training.

    Returns:
        None if the run has no critics, or they are not where its record says.

    Raises:
        InputError: there are critics which cannot be read, or an image cannot be used.
    """
    while run.refined is not None:
        folder = run.refined
        if not (folder / "map.mrc").is_file():
            return None
        trained = read_run(folder)
        if (trained.count, trained.rows, trained.seed) != (run.count, run.rows, run.seed):
            return None  # another run by now, whose halves are others
        run = trained
    judges = read_judges(folder, run.config, run.box_size)
    if not judges:
        return None
    halves = split_halves(len(particles), run.seed) if same else None
    return cross_judged(judges, particles, halves, background, torch.device(device))
