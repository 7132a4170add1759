"""Local refinement of placements by Gauss-Newton steps."""

import math

import roma
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.evaluation.placements import Band, Placement, distinct, placed, whitened

_MAX_STEP_RAD = math.radians(6.0)


def tangent_spectra(reference: Tensor) -> Tensor:
    """Spectrum of the reference and of its change per radian about and voxel along x, y, z.

    Density that turns by ω and moves by τ changes by `-(ω x r + τ) · ∇V`. Returns
    (7, D, D, D // 2 + 1).
    """
    size = reference.shape[-1]
    spectrum = fourier.rfft(reference, 3)
    k = fourier.frequency_grid(size, 3, reference.device).movedim(-1, 0)
    slope = -2j * torch.pi * k * spectrum  # of -∇V
    gradient = fourier.irfft(slope, size, 3)
    axis = torch.arange(size, device=reference.device, dtype=reference.dtype) - size // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    turn = torch.linalg.cross(torch.stack((x, y, z)), gradient, dim=0)
    return torch.cat((spectrum[None], fourier.rfft(turn, 3), slope))


def refine_placements(
    spectrum: Tensor,
    tangent: Tensor,
    placements: Placement,
    band: Band,
    iterations: int,
    keep: int,
) -> Placement:
    """Gauss-Newton steps from each placement; the `keep` best distinct results, best first.

    The step is inverse-compositional (Baker & Matthews, IJCV 56, 2004): it is solved for the
    small motion of the *reference* that explains the residual, with derivatives that stay the
    same, and its inverse is composed with the placement.

    Args:
        spectrum: `volume_spectrum` of the map that moves.
        tangent: `tangent_spectra` of the reference.
        placements: where to begin.
        band: the coefficients that are compared.
        iterations: number of steps.
        keep: number of results; there may be fewer.
    """
    spectra = tangent[:, band.chosen]
    count = band.shell_sum(torch.ones_like(band.weight))
    power = band.shell_sum(spectra[0].abs().square()) / count.clamp_min(1.0)
    spectra = spectra * power.clamp_min(1e-30).rsqrt()[band.shell]
    target, slopes = spectra[0], torch.view_as_real(spectra[1:])  # (m,), (6, m, 2)
    products = (slopes[:, None] * slopes[None]).sum(-1)
    shell_hessian = band.shell_sum(products)  # (6, 6, shells)
    damping = 1e-3 * shell_hessian[..., :4].sum(-1)
    floor = 1e-6 * damping.diagonal().mean() + 1e-12 * shell_hessian.abs().amax()
    damping = damping + torch.diag((floor + 1e-20).expand(6))

    best, best_score = placements, placements.shift.new_full((len(placements.shift),), -math.inf)
    for iteration in range(iterations + 1):
        value = whitened(placed(spectrum, placements, band), band)
        fsc = band.shell_sum((value * target.conj()).real) / count.clamp_min(1.0)
        fsc = fsc.clamp(0.0, 0.9999)
        score = -0.5 * (count * torch.log1p(-fsc.square())).sum(-1)
        better = score > best_score
        best_score = torch.where(better, score, best_score)
        best = Placement(
            torch.where(better[:, None, None], placements.rotation, best.rotation),
            torch.where(better[:, None], placements.shift, best.shift),
            placements.mirrored,
        )
        if iteration == iterations:
            break
        fsc = fsc.clamp_max(0.98)
        gain = fsc / (1.0 - fsc.square())
        residual = value - fsc[:, band.shell] * target
        residual = residual * (gain[:, band.shell] * band.weight)
        gradient = torch.einsum("nmc,imc->ni", torch.view_as_real(residual), slopes)
        hessian = torch.einsum("ijs,ns->nij", shell_hessian, gain * fsc) + damping
        step = torch.linalg.solve(hessian, gradient)
        placements = _stepped(placements, step, band)
    return best[distinct(best, best_score, keep, apart_deg=3.0)]


def _stepped(placements: Placement, step: Tensor, band: Band) -> Placement:
    """Compose with the inverse of `step` ((n, 6): radians, voxels), its length limited."""
    angle, move = step[:, :3], step[:, 3:]
    longest = 0.25 / band.k.norm(dim=-1).max()  # a quarter of the finest wave, in voxels
    angle = angle * (_MAX_STEP_RAD / angle.norm(dim=-1, keepdim=True)).clamp_max(1.0)
    move = move * (longest / move.norm(dim=-1, keepdim=True)).clamp_max(1.0)
    back = roma.rotvec_to_rotmat(-angle)
    shift = torch.einsum("nij,nj->ni", back, placements.shift - move)
    return Placement(back @ placements.rotation, shift, placements.mirrored)
