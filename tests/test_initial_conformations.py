"""Conformations from random numbers: basis volumes common to both half-sets, means of their own."""

from dataclasses import replace

import pytest
import torch

from cryogan.data.halves import split_halves
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.data_parallel import SINGLE_PROCESS
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.initial_conformations import initialise_conformations
from cryogan.objectives.likelihood.side_by_side import side_by_side
from cryogan.phantom import phantom_map
from simulated_sets import centred_particles

BOX, PIXEL_A, COUNT = 16, 12.0, 120
CONFIG = LikelihoodConfig(
    assumptions=Assumptions(latent="uniform", basis_volumes=3, max_shift_percent=0.0),
    conformation_batch_size=30,
    subset_size=50,
    initial_rings=(4, 5),
)


@pytest.mark.slow
@pytest.mark.parametrize("batches", [1, 2, 3])
def test_any_number_of_batches_gives_all_basis_volumes(batches: int) -> None:
    """The last batch is the larger one, and gives each half-set a mean map of its own."""
    states = torch.stack(
        [phantom_map(BOX, PIXEL_A, hinge_angle_deg=angle) for angle in (-40.0, 40.0)]
    )
    generator = torch.Generator().manual_seed(0)
    particles = centred_particles(states, PIXEL_A, COUNT, 0.0, generator).particles
    first, second = (HalfSet.of(particles.subset(rows)) for rows in split_halves(COUNT, 0))
    halves = (first, second)
    means = torch.stack([half.scaled_to_images(states.mean(0)) for half in halves])
    config = replace(CONFIG, conformation_batches=batches)
    with side_by_side(SINGLE_PROCESS) as sides:
        steps = list(
            initialise_conformations(halves, means, config, generator, torch.device("cpu"), sides)
        )
    assert [step.images for step in steps] == [60] * (batches - 1) + [100]
    basis = steps[-1].maps
    assert basis.shape == (2, 1 + 3, BOX, BOX, BOX)
    assert torch.equal(basis[0, 1:], basis[1, 1:])
    change = (basis[0, 0] - basis[1, 0]).norm() / basis[0, 0].norm()
    assert 0.001 < float(change) < 0.5
    if batches > 1:
        assert all(bool(volume.any()) for volume in basis[0])
