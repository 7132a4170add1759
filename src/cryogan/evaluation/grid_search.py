"""Global search of placements: a grid of rotations and shifts in both hands, at low resolution.

The map that moves is sampled at the nearest point of its fourfold padded spectrum: at a distance x
from the origin its phase is off by π x / 4 D at most along each axis, next to nothing at this
resolution, and candidates are refined with accurate interpolation.
"""

import healpix
import numpy as np
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.evaluation.placements import Band, Placement, distinct, whitened
from cryogan.physics.projection import volume_spectrum
from cryogan.physics.rotations import euler_to_matrix

COARSE_BAND = 8  # Fourier pixels
_GRID_NSIDE = 5  # 300 viewing directions x 30 in-plane angles
_SHIFT_STEPS = 3  # shifts of -3 ... 3 sixteenths of the box along each axis
_CANDIDATES = 40  # of each hand
_PADDING = 4
_CHUNK_POINTS = 1 << 20


def all_rotations(device: torch.device) -> Tensor:
    """About 9,000 rotations, 12° apart: HEALPix viewing directions x in-plane angles."""
    tilt, rot = healpix.pix2ang(_GRID_NSIDE, np.arange(healpix.nside2npix(_GRID_NSIDE)))
    psi = np.arange(6 * _GRID_NSIDE) * (60.0 / _GRID_NSIDE)
    view = np.rad2deg(np.stack((rot, tilt), axis=-1))
    euler = np.concatenate((np.repeat(view, len(psi), 0), np.tile(psi, len(view))[:, None]), -1)
    return euler_to_matrix(torch.from_numpy(euler).float().to(device))


def grid_search(
    moving: Tensor, reference: Tensor, band: Band, hands: tuple[bool, ...], rotation: Tensor
) -> Placement:
    """The best placements of a global grid, `_CANDIDATES` of each hand, no two neighbours.

    Args:
        moving: (D, D, D) map.
        reference: (D, D, D // 2 + 1) spectrum of the reference.
        band: the coefficients that are compared.
        hands: whether the map is mirrored: True, False or both.
        rotation: (n, 3, 3) that are tried.
    """
    size = moving.shape[-1]
    small = fourier.resample(moving, min(size, 2 * band.radius + 4), 3)
    spectrum = volume_spectrum(small, _PADDING)
    step_px = size / (2 * COARSE_BAND)  # a sixteenth of the box
    step = torch.arange(-_SHIFT_STEPS, _SHIFT_STEPS + 1, device=band.k.device) * step_px
    shift = torch.cartesian_prod(step, step, step)
    phase = -2.0 * torch.pi * band.k @ shift.T
    target = whitened(reference[band.chosen], band) * (band.weight / band.shell)
    wave = target.conj()[:, None] * torch.complex(phase.cos(), phase.sin())
    shells = torch.nn.functional.one_hot(band.shell, band.radius + 1).to(band.k)
    count = band.weight @ shells
    best: list[Tensor] = []  # per chunk, (2, n, hands): correlation, number of the best shift
    for part in torch.split(rotation, max(1, _CHUNK_POINTS // len(band.k))):
        real, imaginary = _nearest(spectrum, part, band.k * size)
        power = (real.square() + imaginary.square()) * band.weight @ shells / count.clamp_min(1.0)
        gain = power.clamp_min(1e-30).rsqrt() @ shells.T
        cosine, sine = (real * gain) @ wave.real, (imaginary * gain) @ wave.imag
        scores = []
        for mirrored in hands:
            top = (cosine + sine if mirrored else cosine - sine).max(dim=-1)
            scores.append(torch.stack((top.values, top.indices.to(top.values.dtype))))
        best.append(torch.stack(scores, dim=-1))
    correlation, number = torch.cat(best, dim=1)
    found = []
    for column, mirrored in enumerate(hands):
        placements = Placement(
            rotation,
            shift[number[:, column].long()],
            torch.full((len(rotation),), mirrored, device=rotation.device),
        )
        index = distinct(placements, correlation[:, column], _CANDIDATES, apart_deg=15.0)
        found.append(placements[index])
    return Placement(
        torch.cat([p.rotation for p in found]),
        torch.cat([p.shift for p in found]),
        torch.cat([p.mirrored for p in found]),
    )


def _nearest(spectrum: Tensor, rotation: Tensor, k_px: Tensor) -> tuple[Tensor, Tensor]:
    """Parts (n, m) of a padded spectrum at the points nearest to frequencies that are turned.

    Args:
        spectrum: (P, P, P // 2 + 1), from `volume_spectrum`.
        rotation: (n, 3, 3).
        k_px: (m, 3), in Fourier pixels of the map.
    """
    middle, half = spectrum.shape[0] // 2, spectrum.shape[-1]
    point = torch.einsum("nji,mj->nmi", rotation, _PADDING * k_px).round_()
    sign = torch.where(point[..., 0] < 0.0, -1.0, 1.0)  # F(-k) = conj F(k)
    stride = point.new_tensor([1.0, half, half * len(spectrum)])  # of x, y, z
    place = (sign * (point @ stride)).long() + middle * half * (len(spectrum) + 1)
    value = spectrum.flatten()[place]
    return value.real.contiguous(), value.imag * sign
