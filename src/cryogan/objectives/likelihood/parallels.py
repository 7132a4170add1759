"""The parallels of an orientation grid: directions of one tilt, evenly spaced around the axis."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import healpix
import numpy as np
import torch
from torch import Tensor

from cryogan.objectives.likelihood.orientation_grid import orientation_grid
from cryogan.physics.circular_harmonics import CircularHarmonics
from cryogan.physics.cylindrical_spectrum import CylindricalSpectrum, Parallel
from cryogan.physics.rotations import euler_to_matrix


@dataclass(frozen=True)
class GridParallel:
    """A parallel of a level.

    Attributes:
        parallel: where its n directions are.
        direction: (n,) their numbers.
        psi: (n,) by which their frames are turned in the plane: `Rz(azimuth) Ry(tilt) Rz(psi)`.
    """

    parallel: Parallel
    direction: Tensor
    psi: Tensor


@lru_cache(maxsize=12)
def northern_parallels(nside: int, device: torch.device) -> tuple[GridParallel, ...]:
    """From the pole to the equator, the last: those beyond hold the opposite directions."""
    numbers = np.arange(12 * nside**2)
    tilt, rot = healpix.pix2ang(nside, numbers, nest=False)
    direction = torch.from_numpy(healpix.ring2nest(nside, numbers))
    frames = orientation_grid(nside, torch.device("cpu")).frame
    counts = [min(4 * ring, 4 * nside) for ring in range(1, 2 * nside + 1)]
    found, start = [], 0
    for count in counts:
        mine = direction[start : start + count]
        azimuth = torch.from_numpy(rot[start : start + count])
        angles = torch.stack(
            (azimuth, torch.full_like(azimuth, float(tilt[start])), torch.zeros_like(azimuth)), -1
        )
        turned = euler_to_matrix(angles.rad2deg()).mT.float() @ frames[mine]
        psi = torch.atan2(turned[:, 1, 0], turned[:, 0, 0])
        parallel = Parallel(float(tilt[start]), float(azimuth[0]), count)
        found.append(GridParallel(parallel, mine.to(device), psi.to(device)))
        start += count
    return tuple(found)


def is_southern(nside: int, device: torch.device) -> Tensor:
    """(12 nside²,) whether a direction is on none of these parallels."""
    southern = torch.ones(12 * nside**2, dtype=torch.bool, device=device)
    for each in northern_parallels(nside, device):
        southern[each.direction] = False
    return southern


def slices_by_parallel(
    spectrum: CylindricalSpectrum, band: CircularHarmonics, nside: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Northern directions (n,) of a level, parallel by parallel, and their slices (n, M')."""
    for each in northern_parallels(nside, spectrum.values.device):
        samples = spectrum.slices(band.frequency, each.parallel).T.contiguous()
        yield each.direction, band.turned(band.to_orders(samples), each.psi)
