"""The images that a run sees: centred, cropped, and with noise that is the same in all directions.

What the images tell of the sample on the way, shifts and diameter, is assumed from then on.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan.data.centring import centred
from cryogan.data.images import cropped
from cryogan.data.noise_filter import with_isotropic_noise
from cryogan.objectives.assumptions import Assumptions
from cryogan.particles import Particles
from cryogan.physics.noise import NoiseModel
from cryogan.run.noise_input import cropped_noise

_SHIFTS = ("max_shift_percent", "shift_sd_percent", "centred")


@dataclass(frozen=True)
class PreparedImages:
    """Images ready for an objective.

    Attributes:
        particles: the images.
        noise: their noise model; None if their spectrum is to be measured.
        assumptions: of the sample, as measured where this was asked for.
        measured: names of the assumptions that were.
        centre_A: (n, 2) where particles were before centring, (x, y); 0 if images are as given.
    """

    particles: Particles
    noise: NoiseModel | None
    assumptions: Assumptions
    measured: tuple[str, ...]
    centre_A: Tensor


def prepared_images(
    particles: Particles,
    assumptions: Assumptions,
    noise: NoiseModel | None,
    *,
    centre: bool,
    measure_diameter: bool = False,
    box_size: int | None = None,
    resolution_A: float | None = None,
) -> PreparedImages:
    """Centre, crop and filter.

    Args:
        particles: normalised.
        assumptions: of the sample.
        noise: in the particles' box, or None.
        centre: measure where particles are, and centre the images.
        measure_diameter: take the diameter of the centred images, if their power has bounds.
        box_size, resolution_A: see `data.images.cropped`.

    Raises:
        InputError: an image cannot be read, or the box is impossible.
    """
    whole = particles
    measured: tuple[str, ...] = ()
    centre_A = torch.zeros(len(particles), 2)
    if centre:
        whole, found = centred(particles)
        width_A = particles.box_size * particles.pixel_size_A
        # rounded, so that a run resumed with other threads is the same run
        remaining_percent = round(100.0 * found.remaining_sd_A / width_A, 2)
        assumptions = assumptions.with_shifts(remaining_percent)
        measured = _SHIFTS
        centre_A = found.centre_px * particles.pixel_size_A
        if measure_diameter and found.diameter_A is not None:
            assumptions = assumptions.with_diameter(found.diameter_A, width_A)
            measured = (*_SHIFTS, "mask_radius")
    work = cropped(whole, box_size, resolution_A)
    work, noise = with_isotropic_noise(work, cropped_noise(noise, particles, work))
    return PreparedImages(work, noise, assumptions, measured, centre_A)
