"""Fourier shell correlation and the resolutions read off it.

Shell s holds the coefficients with `round(|k| D) = s`, that is spatial frequency
`s / (D · pixel size)`. Between shells the curve is interpolated linearly in spatial frequency.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.files import write_text

_CLIFF = 1e-3


def fourier_shell_correlation(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    """FSC of two maps (Harauz & van Heel, Optik 73, 1986).

    `FSC(s) = Re Σ A B* / sqrt(Σ |A|² Σ |B|²)`, sums over the whole of shell s. The maps must lie
    in the same frame.

    Args:
        a: (..., D, D, D).
        b: as `a`.
        mask: (D, D, D) that multiplies both maps first, or None.

    Returns:
        (..., D // 2 + 1) correlations of shells 0 ... D // 2; 0 where a map has no power.

    Raises:
        InputError: the maps differ in shape or are not cubes.
    """
    _require_same_cubes(a, b)
    if mask is not None:
        a, b = a * mask, b * mask
    return _spectra_correlation(fourier.rfft(a, 3), fourier.rfft(b, 3), a.shape[-1])


def _spectra_correlation(a: Tensor, b: Tensor, box_size: int) -> Tensor:
    cross = fourier.shell_sum((a * b.conj()).real, box_size, 3)
    power_a = fourier.shell_sum(a.abs().square(), box_size, 3)
    power_b = fourier.shell_sum(b.abs().square(), box_size, 3)
    norm = (power_a * power_b).sqrt()
    return torch.where(norm > 0, cross / norm.clamp_min(1e-30), 0.0)


def band_end(volume: Tensor) -> int:
    """The last shell of a map (D, D, D) before its power falls a thousandfold in one step.

    Maps are cut at a band limit, or resampled from coarser voxels; their spectra never fall so fast
    by themselves. What lies beyond is rounding and interpolation, whose FSC means nothing.

    Example:
        >>> import torch, cryogan as cg
        >>> from cryogan import fourier
        >>> phantom = cg.phantom_map(32, 6.0)
        >>> cut = fourier.rfft(phantom, 3) * fourier.band_mask(32, 10.5, 3)
        >>> band_end(fourier.irfft(cut, 32, 3)), band_end(phantom)
        (10, 16)
    """
    size = volume.shape[-1]
    power = fourier.shell_mean(fourier.rfft(volume.double(), 3).abs().square(), size, 3)
    falls = (power[2:] < _CLIFF * power[1:-1]).nonzero()
    return 1 + int(falls[0]) if len(falls) else size // 2


def ended(curve: Tensor, shell: int) -> Tensor:
    """An FSC curve without what lies beyond `shell`, where it is NaN."""
    beyond = torch.arange(curve.shape[-1], device=curve.device) > shell
    return torch.where(beyond, math.nan, curve)


def corrected_fsc(half1: Tensor, half2: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """Masked half-map FSC, corrected for the correlation that the mask itself brings.

    Chen et al., Ultramicroscopy 135, 2013: phases of both halves are randomised from the shell
    on where the unmasked FSC first falls below 0.8; two shells further out the curve is
    `(FSC_masked - FSC_random) / (1 - FSC_random)`, before that it is FSC_masked.

    Args:
        half1: (D, D, D).
        half2: (D, D, D), in the frame of `half1`.
        mask: (D, D, D).
        generator: CPU generator of the random phases.

    Returns:
        (D // 2 + 1,).
    """
    box_size = half1.shape[-1]
    unmasked = fourier_shell_correlation(half1, half2)
    masked = fourier_shell_correlation(half1, half2, mask)
    below = (unmasked[1:] < 0.8).nonzero()
    if len(below) == 0:
        return masked
    first = 1 + int(below[0])
    beyond = fourier.shell_index(box_size, 3, half1.device) >= first

    def randomised(volume: Tensor) -> Tensor:
        noise = torch.randn(volume.shape, generator=generator).to(volume.device)
        phase = torch.sgn(fourier.rfft(noise, 3))  # of a real map: conjugate-symmetric
        spectrum = fourier.rfft(volume, 3)
        return fourier.irfft(torch.where(beyond, spectrum.abs() * phase, spectrum), box_size, 3)

    random = fourier_shell_correlation(randomised(half1), randomised(half2), mask)
    corrected = (masked - random) / (1.0 - random).clamp_min(1e-6)
    keep = torch.arange(len(masked), device=masked.device) < first + 2
    return torch.where(keep, masked, corrected)


def resolution_A(
    fsc: Tensor, threshold: float, pixel_size_A: float, box_size: int | None = None
) -> float:
    """Resolution at which `fsc` first falls below `threshold`, going outward from shell 1.

    The crossing is interpolated linearly in spatial frequency between the last shell at or above
    the threshold and the first one below it. A curve that stays above is resolved to Nyquist,
    `2 · pixel_size_A`, or to its last shell where it ends (NaN) before; one that is below in shell
    1 already, to the box length.

    Args:
        fsc: (D // 2 + 1,) values of shells 0 ... D // 2; shell 0 is ignored.
        threshold: 0.143 (half maps), 0.5.
        pixel_size_A: of the maps.
        box_size: D; needed for odd boxes only (default: the even one, 2 · (len(fsc) - 1)).

    Returns:
        Resolution in Å.
    """
    box_A = _box_size(fsc, box_size) * pixel_size_A
    curve: list[float] = fsc.double().tolist()
    for shell in range(1, len(curve)):
        if not curve[shell] >= threshold:
            if shell > 1 and math.isnan(curve[shell]):
                return box_A / (shell - 1)
            if shell == 1:
                return box_A
            before = curve[shell - 1]
            fraction = (before - threshold) / (before - curve[shell])
            return box_A / (shell - 1 + fraction)
    return 2.0 * pixel_size_A


def write_fsc_csv(
    path: Path | str,
    pixel_size_A: float,
    columns: Mapping[str, Tensor],
    box_size: int | None = None,
) -> None:
    """Write FSC curves, one row a shell: shell, spatial_frequency_per_A, resolution_A, curves.

    Args:
        path: the CSV file, written atomically.
        pixel_size_A: of the maps.
        columns: name of each curve and its (D // 2 + 1,) values.
        box_size: D; needed for odd boxes only, as in `resolution_A`.

    Raises:
        InputError: the curves differ in length, or the folder cannot be written.
    """
    lengths = {name: len(curve) for name, curve in columns.items()}
    if len(set(lengths.values())) != 1:
        raise InputError(
            f"The FSC curves of {path} need one common number of shells, not {lengths}; "
            "compute them on maps of one box size."
        )
    box_A = _box_size(next(iter(columns.values())), box_size) * pixel_size_A
    lines = [",".join(("shell", "spatial_frequency_per_A", "resolution_A", *columns))]
    for shell, values in enumerate(zip(*(c.tolist() for c in columns.values()), strict=True)):
        resolution = f"{box_A / shell:.4f}" if shell else "inf"
        numbers = ",".join(f"{value:.6f}" for value in values)
        lines.append(f"{shell},{shell / box_A:.8f},{resolution},{numbers}")
    write_text(path, "\n".join(lines) + "\n")


def _box_size(fsc: Tensor, box_size: int | None) -> int:
    return 2 * (len(fsc) - 1) if box_size is None else box_size


def _require_same_cubes(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.ndim < 3 or len(set(a.shape[-3:])) != 1:
        raise InputError(
            f"Two maps of {tuple(a.shape)} and {tuple(b.shape)} voxels cannot be compared; "
            "give cubes of one box size."
        )
