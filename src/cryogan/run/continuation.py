"""What goes on from a finished run: its particles, its assumptions, the scores of its critics."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cryogan.data.normalisation import normalised
from cryogan.errors import InputError
from cryogan.io.particle_files import read_particles
from cryogan.objectives.adversarial.config import AdversarialConfig
from cryogan.objectives.adversarial.critic_scores import TrainedCritic, cross_scored
from cryogan.objectives.assumptions import Assumptions, GivenAssumptions
from cryogan.objectives.likelihood.assignment import Assignment
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.objective import Likelihood
from cryogan.particles import Particles, Pose
from cryogan.physics.noise import NoiseModel
from cryogan.run.checkpoint import CHECKPOINT, load_checkpoint
from cryogan.run.folder import RunRecord
from cryogan.run.folder import read_run as read_record
from cryogan.run.half_sets import asked_rows, require_particles_of


@dataclass(frozen=True)
class Assigned:
    """Orientations, shifts and latents of particles, with their posterior uncertainty.

    Attributes:
        assignment: one row a particle.
        half: (n,) half-set of the run, 1 or 2, drawn for particles that are in none; None if none
            of the particles is in one.
        class_number: (n,) most probable class of a discrete latent, counted from 1; else 1.
        columns: (n,) further columns by name: mean latent and spread along each axis, or the
            probability of the class; critic scores if the run has critics.
        symmetry: of the molecule.
        kept: (n,) int64 which of the particles given these are: damaged images are left out.
        inverted: whether the images had the other contrast than that in which they were given,
            as in the run (`half_sets.has_other_contrast`).
    """

    assignment: Assignment
    half: Tensor | None
    class_number: Tensor
    columns: dict[str, Tensor]
    symmetry: str
    kept: Tensor
    inverted: bool = False

    @property
    def pose(self) -> Pose:
        """The poses."""
        return self.assignment.pose

    def __len__(self) -> int:
        return len(self.class_number)


def likelihood_of(
    record: RunRecord, assumptions: Assumptions, changes: Mapping[str, Any] | None = None
) -> Likelihood:
    """The likelihood with a run's settings, as far as it has any, and with changes."""
    config = record.objective.config
    if not isinstance(config, LikelihoodConfig):
        config = LikelihoodConfig()
    else:  # what a run searched with holds for what goes on from it; how long it took does not
        config = LikelihoodConfig(
            latent_grid_points=config.latent_grid_points,
            pose_resolution_A=config.pose_resolution_A,
            view_density=config.view_density,
        )
    return Likelihood(replace(config, assumptions=assumptions, **dict(changes or {})))


def inherited_assumptions(
    given: GivenAssumptions, record: RunRecord, width_A: float
) -> tuple[Assumptions, dict[str, str]]:
    run = record.objective.config.assumptions
    found, sources = given.resolve(width_A, asdict(run), f"the run {record.folder}")
    if None not in (run.latent, found.latent) and run.latent != found.latent:
        raise InputError(
            f"The run's conformations are of a latent '{run.latent}', not '{found.latent}', whose "
            "functions are others; leave --latent as the run had it."
        )
    return found, sources


def particles_of(record: RunRecord, particles: Particles | None) -> Particles:
    """The particles of a run, normalised; read again unless they are given.

    Raises:
        InputError: they are not those of the run.
    """
    if particles is None:
        if record.star is None:
            raise InputError(
                f"The particles of {record.folder} were not read from a file; give them."
            )
        particles = read_particles(
            record.star, reader=record.reader, index=asked_rows(record.folder), **record.reading
        )
    particles, _ = normalised(particles)
    require_particles_of(particles, record)
    return particles


def critic_scores_of(
    particles: Particles,
    record: RunRecord,
    noise: NoiseModel | None,
    *,
    half: Tensor,
    device: torch.device,
) -> Tensor | None:
    """(n,) scores by the critics of a run, or of the one that it has refined; None without any.

    Args:
        particles: n images.
        record: of the run.
        noise: as for training.
        half: (n,) half-sets of the run (`half_sets.half_of`).
        device: where it is computed.
    """
    while record.refined is not None:
        folder = record.refined
        if not (folder / "map.mrc").is_file():
            return None
        refined = read_record(folder)
        if _half_sets(refined) != _half_sets(record):
            return None  # another run by now, whose halves are others
        record = refined
    paths = [record.folder / f"half{number}" / CHECKPOINT for number in (1, 2)]
    config = record.objective.config
    if not isinstance(config, AdversarialConfig) or not all(path.is_file() for path in paths):
        return None
    critics = [
        TrainedCritic.of(load_checkpoint(path).state, config, record.box_size) for path in paths
    ]
    first, second = ((half == number).nonzero()[:, 0] for number in (1, 2))
    return cross_scored(critics, particles, (first, second), noise, device)


def _half_sets(record: RunRecord) -> tuple[object, ...]:
    """What the half-sets of a run follow from."""
    return record.count, record.rows, record.halves, record.seed


def latent_columns(
    found: Assignment, config: LikelihoodConfig, basis_volumes: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Class numbers (n,), and columns about the latent."""
    one = torch.ones(len(found.pose), dtype=torch.int64)
    if basis_volumes == 1:
        return one, {}
    space = config.assumptions.latent_space
    if space.is_discrete:
        best = found.latent.max(dim=1)
        return best.indices + 1, {"cryoganClassProbability": best.values}
    columns = {}
    mean, spread = space.moments(found.latent, config.latent_grid)
    for axis in range(mean.shape[1]):
        columns[f"cryoganLatent{axis}"] = mean[:, axis]
        columns[f"cryoganLatentSpread{axis}"] = spread[:, axis]
    return one, columns
