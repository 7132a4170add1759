"""Weak images have flat posteriors over poses, and count in the maps like all others."""

import torch

from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.likelihood.bands import box_for, harmonics_for, search_for
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.image_model import ImageModel
from cryogan.objectives.likelihood.latent_grid import SINGLE_STRUCTURE
from cryogan.objectives.likelihood.normal_equations import weighted_poses
from cryogan.objectives.likelihood.posterior import posterior_of, references_of
from cryogan.phantom import phantom_map
from cryogan.physics.imaging import rescale_volume
from simulated_sets import centred_particles

BOX, PIXEL_SIZE_A, COUNT, RINGS = 24, 8.0, 48, 10
NEGLIGIBLE = 0.003  # probability of a cell that a fixed threshold would drop


def test_every_image_counts_however_weak() -> None:
    """At -30 dB no cell of most images is above a fixed threshold; all have the weight of one."""
    generator = torch.Generator().manual_seed(2)
    truth = phantom_map(BOX, PIXEL_SIZE_A)
    made = centred_particles(truth, PIXEL_SIZE_A, COUNT, -30.0, generator)
    half = HalfSet.of(made.particles)
    config = LikelihoodConfig(assumptions=Assumptions())
    cpu = torch.device("cpu")
    size = box_for(RINGS, BOX)
    harmonics = harmonics_for(size, RINGS, config, cpu)
    levels = search_for(harmonics, config)
    scale = 0.05  # a map as weak as these images' signal
    maps = rescale_volume(scale * half.scaled_to_images(truth), size)[None]
    references = references_of(maps, SINGLE_STRUCTURE, harmonics, levels)
    seen = half.observed(torch.arange(COUNT), harmonics, cpu)
    for model in (ImageModel(), ImageModel(contrast_sd=0.2, junk_share=0.3)):
        found = posterior_of(seen, references, image_model=model)
        probability = found.probability
        assert bool((probability.amax(dim=1) < NEGLIGIBLE).any())  # else this shows nothing
        poses = weighted_poses(found.cells, found.coefficient, found.product)
        counts = torch.zeros(COUNT).index_add_(0, poses.image, poses.coefficient[:, 0])
        assert bool((counts > 0).all())
        torch.testing.assert_close(
            counts, found.coefficient[..., 0].sum(dim=1), rtol=1e-4, atol=1e-5
        )
