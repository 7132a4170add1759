"""A given map that particles are compared with, instead of the maps of a run."""

from pathlib import Path

import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.evaluation.resampling import resample_map
from cryogan.io.mrc import Map, read_header, read_map
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.masks import volume_mask
from cryogan.particles import Particles
from cryogan.run.standard_orientation import require_symmetric

_LEAST_BOX = 16  # of particles, as of a run
_NARROWEST = 0.5  # of the particles' field of view
_DARKEST = -1.0  # skewness: molecules are few voxels far above the rest
_FARTHEST = 0.1  # of the width, from the origin to the centre of the map's power


def read_reference(reference: Map | Path | str, particles: Particles) -> Map:
    """The map, if particles can be compared with it.

    Raises:
        InputError: the particles' box is below 16 px, the map cannot be read, does not say its
            pixel size, shows less than half of the
            particles' box, is constant, has a dark molecule, or has it far from the origin.
    """
    name = "The reference" if isinstance(reference, Map) else str(reference)
    if isinstance(reference, Map):
        known = reference
    else:
        if read_header(reference).known_pixel_size_A is None:
            raise InputError(
                f"{name} has no pixel size in its header, where 0 and 1 Å mean that it is not "
                "set; write the true one into its header."
            )
        known = read_map(reference)
    if particles.box_size < _LEAST_BOX:
        raise InputError(
            f"The particles have a box of {particles.box_size} px; give particles of at least "
            f"{_LEAST_BOX} px."
        )
    own_A = known.volume.shape[-1] * known.pixel_size_A
    wanted_A = particles.box_size * particles.pixel_size_A
    if own_A < _NARROWEST * wanted_A:
        raise InputError(
            f"{name} is {own_A:.1f} Å wide and the particles {wanted_A:.1f} Å: it shows less than "
            "half of their box; give a map of the whole molecule, or correct its pixel size."
        )
    if not bool((known.volume != known.volume.flatten()[0]).any()):
        raise InputError(f"{name} has the same value everywhere; give the map of a molecule.")
    skewness, off_A = _shape_of(known)
    if skewness < _DARKEST:
        raise InputError(
            f"{name} has a dark molecule: its voxels are far below their mean, not above; multiply "
            "the map by -1."
        )
    if off_A > _FARTHEST * wanted_A:
        raise InputError(
            f"{name} has its molecule {off_A:.0f} Å off the origin, the voxel "
            f"{known.volume.shape[-1] // 2} of each axis (from 0); centre it."
        )
    return known


def _shape_of(known: Map) -> tuple[float, float]:
    """Skewness of a map's voxels, and how far (Å) the centre of its power is off the origin."""
    volume = known.volume.double() - known.volume.double().mean()
    power = volume.square()
    skewness = float((volume**3).mean() / power.mean() ** 1.5)
    size = volume.shape[-1]
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    along = [(power.sum(other) * axis).sum() for other in ((1, 2), (0, 2), (0, 1))]
    off_px = float(torch.stack(along).norm() / power.sum())
    return skewness, off_px * known.pixel_size_A


def reference_for(known: Map, particles: Particles, assumptions: Assumptions) -> Tensor:
    """(D, D, D) a map at the particles' pixel size and in their box, inside the mask.

    Raises:
        InputError: the map has not the symmetry that is assumed.
    """
    size, pixel_size_A = particles.box_size, particles.pixel_size_A
    volume = resample_map(known.volume.float(), known.pixel_size_A, pixel_size_A, size)
    volume = volume * volume_mask(assumptions, size, pixel_size_A)
    require_symmetric(volume, assumptions.symmetry, "The reference", "turn it, or give --sym C1.")
    return volume
