"""Densities of point-like atoms: Gaussians sampled exactly, within the band of the grid."""

import math

import torch
from torch import Tensor

from cryogan import fourier

_BLOCK = 2**23  # products of two axes held at a time


def _profiles(coordinate_A: Tensor, box_size: int, pixel_size_A: float, sigma_A: float) -> Tensor:
    """Band-limited periodic Gaussians of integral 1 along one axis: (n,) to (n, D), 1/Å."""
    frequency = fourier.frequency_grid(box_size, 1)[:, 0].double()
    k = frequency / pixel_size_A
    amplitude = torch.exp(-2.0 * (math.pi * sigma_A * k) ** 2) * (frequency < 0.5)
    phase = -2.0 * math.pi * coordinate_A[:, None] * k
    spectrum = torch.polar(amplitude.expand_as(phase).contiguous(), phase)
    return fourier.irfft(spectrum, box_size, dims=1) / pixel_size_A


def gaussian_density(
    positions_A: Tensor,
    *,
    box_size: int,
    pixel_size_A: float,
    sigma_A: float,
    weights: Tensor | None = None,
) -> Tensor:
    """Band-limited density of Gaussian atoms on a grid, exact at every frequency it holds.

    A Gaussian and the band limit of a grid are both products over the axes, and so is the
    density of an atom: three profiles, each summed from its Fourier series.

    Args:
        positions_A: (n, 3) positions (x, y, z), or (n, 2) for the density of a projection.
        box_size: D.
        pixel_size_A: voxel size.
        sigma_A: standard deviation of the Gaussians.
        weights: (n,) integral of every atom; None for 1.

    Returns:
        (D, D, D) or (D, D) float32, origin at pixel D // 2, weight per Å³ (Å²), to about
        1e-6 of the largest value. Coefficients below Nyquist are those of the Gaussians; those
        at Nyquist are zero, as `fourier.resample` leaves them. Atoms beyond the box come in
        again at the opposite side.
    """
    n, dims = positions_A.shape
    if weights is None:
        weights = torch.ones(n)
    density = torch.zeros(box_size ** (dims - 1), box_size)
    for index in torch.split(torch.arange(n), max(1, _BLOCK // box_size ** (dims - 1))):
        x, y, *rest = (
            _profiles(coordinate, box_size, pixel_size_A, sigma_A)
            for coordinate in positions_A[index].double().unbind(dim=1)
        )
        rows = y.float()
        if rest:
            rows = (rest[0].float()[:, :, None] * rows[:, None, :]).flatten(1)
        density.addmm_(rows.T, (x * weights[index, None]).float())
    return density.view(*[box_size] * dims)


def molmap_density(
    positions_A: Tensor,
    atomic_numbers: Tensor,
    *,
    box_size: int,
    pixel_size_A: float,
    resolution_A: float,
) -> Tensor:
    """Density after the `molmap` command of UCSF Chimera and ChimeraX (their documentation).

    Every atom is a Gaussian of σ = resolution / (π √2), the commands' default, whose integral is
    the atomic number: its Fourier amplitude falls to 1/e at 1 / resolution. B-factors and
    occupancies play no part. `molmap` samples the Gaussians on its grid; here those that are
    narrow for the voxels are band-limited instead, see `gaussian_density`.

    Args:
        positions_A: (n, 3) positions (x, y, z).
        atomic_numbers: (n,).
        box_size: D.
        pixel_size_A: voxel size.
        resolution_A: nominal resolution.

    Returns:
        (D, D, D) float32, axes z, y, x; the position (0, 0, 0) at voxel D // 2; per Å³.
    """
    return gaussian_density(
        positions_A,
        box_size=box_size,
        pixel_size_A=pixel_size_A,
        sigma_A=resolution_A / (math.pi * math.sqrt(2.0)),
        weights=atomic_numbers,
    )
