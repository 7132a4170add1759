"""Global search of placements: a grid of rotations and shifts in both hands, at low resolution."""

import healpix
import numpy as np
import torch
from torch import Tensor

from cryogan.evaluation.placements import Band, Placement, distinct, turned, whitened
from cryogan.physics.rotations import euler_to_matrix

COARSE_BAND = 8  # Fourier pixels
_GRID_NSIDE = 5  # 300 viewing directions x 30 in-plane angles
_SHIFT_STEPS = 3  # shifts of -3 ... 3 sixteenths of the box along each axis
_CANDIDATES = 40  # of each hand
_CHUNK_POINTS = 1 << 21


def _grid_rotations(device: torch.device) -> Tensor:
    """About 9,000 rotations, 12° apart: HEALPix viewing directions x in-plane angles."""
    tilt, rot = healpix.pix2ang(_GRID_NSIDE, np.arange(healpix.nside2npix(_GRID_NSIDE)))
    psi = np.arange(6 * _GRID_NSIDE) * (60.0 / _GRID_NSIDE)
    view = np.rad2deg(np.stack((rot, tilt), axis=-1))
    euler = np.concatenate((np.repeat(view, len(psi), 0), np.tile(psi, len(view))[:, None]), -1)
    return euler_to_matrix(torch.from_numpy(euler).float().to(device))


def grid_search(
    spectrum: Tensor, reference: Tensor, band: Band, hands: tuple[bool, ...]
) -> Placement:
    """The best placements of a global grid, `_CANDIDATES` of each hand, no two neighbours.

    Args:
        spectrum: `volume_spectrum` of the map that moves.
        reference: (D, D, D // 2 + 1) spectrum of the reference.
        band: the coefficients that are compared.
        hands: whether the map is mirrored: True, False or both.
    """
    step_px = spectrum.shape[-3] / (4 * COARSE_BAND)  # a sixteenth of the box
    step = torch.arange(-_SHIFT_STEPS, _SHIFT_STEPS + 1, device=band.k.device) * step_px
    shift = torch.cartesian_prod(step, step, step)
    phase = -2.0 * torch.pi * band.k @ shift.T
    wave = torch.cat((phase.cos(), -phase.sin()))
    target = whitened(reference[band.chosen], band).conj() * (band.weight / band.shell)
    rotation = _grid_rotations(band.k.device)
    best: list[Tensor] = []  # per chunk, (2, n, hands): correlation, number of the best shift
    for part in torch.split(rotation, max(1, _CHUNK_POINTS // len(band.k))):
        value = whitened(turned(spectrum, part, band), band)
        scores = []
        for mirrored in hands:
            cross = (value.conj() if mirrored else value) * target
            top = (torch.cat((cross.real, cross.imag), -1) @ wave).max(dim=-1)
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
