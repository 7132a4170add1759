"""FSC inside double cones in Fourier space (Tan et al., Nat. Methods 14, 2017)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.errors import InputError

CONE_HALF_ANGLE_DEG = 20.0

_FEWEST_COEFFICIENTS = 10
_RANDOMISED_BELOW = 0.8  # of the unmasked FSC
_PRODUCTS = 1 << 24  # in memory at once

Spectra = tuple[Tensor, Tensor, Tensor]
"""Cross spectrum (real part) and powers of two maps, (D, D, D // 2 + 1) each."""


def conical_fsc(
    half1: Tensor,
    half2: Tensor,
    axes: Tensor,
    *,
    mask: Tensor | None = None,
    half_angle_deg: float = CONE_HALF_ANGLE_DEG,
) -> Tensor:
    """FSC inside double cones, as it is.

    Where a cone holds fewer than ten independent coefficients of a shell (of 20°, up to shell 5),
    whose correlation means little, it has the FSC of the whole shell.

    Args:
        half1: (D, D, D).
        half2: (D, D, D), in the frame of `half1`.
        axes: (n, 3) unit vectors.
        mask: (D, D, D) that multiplies both maps first, or None.
        half_angle_deg: between the axis and the side of a cone.

    Returns:
        (n, D // 2 + 1) correlations of shells 0 ... D // 2; 0 where a map has no power.

    Raises:
        InputError: the maps are not cubes of one box size.
    """
    _require_same_cubes(half1, half2)
    if mask is not None:
        half1, half2 = half1 * mask, half2 * mask
    return _in_cones([_spectra(half1, half2)], axes, half1.shape[-1], half_angle_deg)[0]


def corrected_conical_fsc(
    half1: Tensor,
    half2: Tensor,
    axes: Tensor,
    mask: Tensor,
    *,
    half_angle_deg: float = CONE_HALF_ANGLE_DEG,
) -> Tensor:
    """Masked conical FSC, corrected for the correlation that the mask itself brings.

    The correction of Chen et al. (Ultramicroscopy 135, 2013; `fsc.corrected_fsc`), cone by cone: a
    mask carries the strong coarse shells, which both maps share, outwards and sideways into
    coefficients that hold nothing but noise. In both maps the phase of a coefficient is random from
    the shell on where the unmasked FSC of the cone nearest to its direction first falls below 0.8.
    Two shells further out in a cone, its curve is `(FSC_masked - FSC_random) / (1 - FSC_random)`.
    A cone holds few coefficients, so that one draw of phases would scatter by more than what is
    to be corrected; FSC_random is made of the expectations over all phases, which have a closed
    form (`expected_spectra`).

    Args:
        half1: (D, D, D).
        half2: (D, D, D), in the frame of `half1`.
        axes: (n, 3) unit vectors, spread over the hemisphere.
        mask: (D, D, D).
        half_angle_deg: between the axis and the side of a cone.

    Returns:
        (n, D // 2 + 1).

    Raises:
        InputError: the maps are not cubes of one box size.
    """
    unmasked = conical_fsc(half1, half2, axes, half_angle_deg=half_angle_deg)
    shells = torch.arange(unmasked.shape[1], device=unmasked.device)
    below = (unmasked < _RANDOMISED_BELOW) & (shells > 0)
    first = torch.where(below, shells, len(shells)).amin(1)  # (n,) shell, beyond the last if none
    beyond = _beyond(half1, axes, first)
    spectra = [
        _spectra(half1 * mask, half2 * mask),
        expected_spectra(half1, half2, mask, beyond),
    ]
    masked, brought = _in_cones(spectra, axes, half1.shape[-1], half_angle_deg)
    corrected = (masked - brought) / (1.0 - brought).clamp_min(1e-6)
    return torch.where(shells < first[:, None] + 2, masked, corrected)


def expected_spectra(half1: Tensor, half2: Tensor, mask: Tensor, beyond: Tensor) -> Spectra:
    """Spectra of masked maps whose phases are random beyond some shells: their expectations.

    What has its phases, L, and what has random ones, B, add up in power: `|(M L)^|²` plus the
    convolution of `|M^|²` and `|B^|²`; only the former is common to two maps.

    Args:
        half1, half2: (D, D, D).
        mask: (D, D, D), M.
        beyond: (D, D, D // 2 + 1) which coefficients of a half spectrum have random phases.

    Returns:
        Expected cross spectrum and powers (D, D, D // 2 + 1).
    """
    size = mask.shape[-1]
    mask_power = fourier.irfft(fourier.rfft(mask, 3).abs().square() + 0j, size, 3)
    known, power = [], []
    for half in (half1, half2):
        spectrum = fourier.rfft(half, 3)
        with_phases = fourier.irfft(torch.where(beyond, 0.0, spectrum), size, 3)
        known.append(with_phases * mask)
        spread = torch.where(beyond, spectrum.abs().square(), 0.0) + 0j
        power.append(fourier.rfft(fourier.irfft(spread, size, 3) * mask_power, 3).abs() / size**3)
    cross, *common = _spectra(*known)
    return cross, common[0] + power[0], common[1] + power[1]


def _beyond(half: Tensor, axes: Tensor, first: Tensor) -> Tensor:
    """(D, D, D // 2 + 1) which coefficients lie at or beyond the shell of their nearest axis."""
    size = half.shape[-1]
    frequency = fourier.frequency_grid(size, 3, half.device)
    shells = fourier.shell_index(size, 3, half.device).flatten()
    beyond = torch.ones_like(shells, dtype=torch.bool)
    inside = (shells <= size // 2).nonzero()[:, 0]
    for chosen in torch.split(inside, max(_PRODUCTS // len(axes), 1)):
        cosine = (frequency.reshape(-1, 3)[chosen] @ axes.to(frequency).T).abs()
        beyond[chosen] = shells[chosen] >= first[cosine.argmax(dim=1)]
    return beyond.view(frequency.shape[:-1])


def _spectra(half1: Tensor, half2: Tensor) -> Spectra:
    """Cross spectrum (real part) and powers (D, D, D // 2 + 1) of two maps."""
    a, b = fourier.rfft(half1, 3), fourier.rfft(half2, 3)
    return (a * b.conj()).real, a.abs().square(), b.abs().square()


def _in_cones(
    spectra: Sequence[Spectra], axes: Tensor, size: int, half_angle_deg: float
) -> list[Tensor]:
    """(n, D // 2 + 1) conical FSC of each pair of maps; the cones are found once for all."""
    some = spectra[0][0]
    device, axes = some.device, axes.to(some)
    counted = torch.full_like(some, 0.5)
    parts = torch.stack([*(part for each in spectra for part in each), counted])
    sums_of = (parts * fourier.half_weights(size, device)).flatten(1)
    shells, order = fourier.shell_index(size, 3, device).flatten().sort()
    frequency = fourier.frequency_grid(size, 3, device).reshape(-1, 3)
    ends = torch.searchsorted(shells, torch.arange(size // 2 + 1, device=device), right=True)
    smallest_cosine = math.cos(math.radians(half_angle_deg))
    curves = some.new_zeros(len(spectra), len(axes), size // 2 + 1)
    start = 0
    for shell, end in enumerate(ends.tolist()):
        sums = some.new_zeros(len(sums_of), len(axes))
        for chosen in torch.split(order[start:end], max(_PRODUCTS // len(axes), 1)):
            direction = torch.nn.functional.normalize(frequency[chosen], dim=-1)
            inside = (direction @ axes.T).abs() >= smallest_cosine
            sums += sums_of[:, chosen] @ inside.to(sums_of.dtype)
        whole = sums_of[:, order[start:end]].sum(1, keepdim=True)
        sums = torch.where(sums[-1] >= _FEWEST_COEFFICIENTS, sums, whole)[:-1]
        cross, power1, power2 = sums.view(len(spectra), 3, len(axes)).unbind(1)
        norm = (power1 * power2).sqrt()
        curves[:, :, shell] = torch.where(norm > 0, cross / norm.clamp_min(1e-30), 0.0)
        start = end
    return list(curves)


def _require_same_cubes(half1: Tensor, half2: Tensor) -> None:
    if half1.shape != half2.shape or half1.ndim != 3 or len(set(half1.shape)) != 1:
        raise InputError(
            f"Two maps of {tuple(half1.shape)} and {tuple(half2.shape)} voxels cannot be "
            "compared; give cubes of one box size."
        )
