"""How many images a resolution takes at the measured ratio of signal to noise.

A Fourier voxel (edge 1 / box) at shell k lies within half a voxel of a central slice with
probability 1 / (2k): a ring of the slice has 2πk coefficients, a shell of the volume 4πk² voxels.
N images of known pose therefore give that voxel the ratio of signal to noise power

    SSNR(k) = N ⟨CTF²⟩(k) S(k) / N(k) · V / (2k),

where V, box volume over particle volume, is what a mask around the particle takes of the noise. A
map of all images reaches a resolution where FSC = 0.143 between half-maps, which is SSNR = 1/3
(Rosenthal & Henderson, J. Mol. Biol. 333, 2003). Poses are taken as known, so this is a lower
bound; symmetry of order n divides it by n.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan.physics.spectra import PowerSpectra

_SSNR = 1.0 / 3.0
_STRAIGHT_A = 10.0
_RESOLUTIONS_A = (40, 30, 20, 15, 12, 10, 9, 8, 7, 6, 5, 4.5, 4, 3.5, 3, 2.5, 2)


@dataclass(frozen=True)
class ImagesNeeded:
    """An estimate.

    Attributes:
        resolution_A: of a map.
        images: how many it takes.
        extrapolated: beyond the shells whose signal could be measured.
    """

    resolution_A: float
    images: int
    extrapolated: bool


def signal_to_noise(spectra: PowerSpectra, ctf2: Tensor) -> Tensor:
    """(D // 2 + 1,) ratio of the signal's power in images, CTF and all, to the noise's."""
    return ctf2 * spectra.signal / spectra.noise.clamp_min(1e-30)


def images_needed(
    ratio: Tensor, *, width_A: float, diameter_A: float, sampled: int
) -> tuple[ImagesNeeded, ...]:
    """Images needed for resolutions down to the Nyquist limit of the shells.

    They end where the ratio is within three standard errors of 0: the power of m coefficients is
    known to 1 / √m, and the ratio to about twice that, for signal and noise are fitted together.
    Where it was measured in four shells beyond 10 Å, the straight line of its logarithm against
    k² continues it (Rosenthal & Henderson); nearer to 0 a spectrum is no line.

    Args:
        ratio: (D // 2 + 1,) of `signal_to_noise`.
        width_A: of the box.
        diameter_A: of the particle.
        sampled: number of images that the ratio was measured on.
    """
    shells = torch.arange(len(ratio), dtype=torch.float64)
    error = 2.0 / (sampled * math.pi * shells.clamp_min(1.0)).sqrt()
    measured = ratio > 3.0 * error
    first = int(measured[2:].int().argmax()) + 2
    last = first + int(measured[first:].int().cumprod(0).sum()) - 1
    if last < first + 2:
        return ()
    known = slice(max(first, math.ceil(width_A / _STRAIGHT_A)), last + 1)
    straight = known.stop - known.start >= 4
    line = _line(shells[known] ** 2, ratio[known].double().log()) if straight else (0.0, 0.0)
    volume_ratio = width_A**3 / (math.pi / 6.0 * min(diameter_A, width_A) ** 3)
    found = []
    for resolution_A in _RESOLUTIONS_A:
        shell = width_A / resolution_A
        if not 2.0 <= shell <= len(ratio) - 2:
            continue
        extrapolated = shell > last
        if extrapolated and not straight:
            break
        value = math.exp(line[0] + line[1] * shell**2) if extrapolated else _at(ratio, shell)
        images = _SSNR * 2.0 * shell / (max(value, 1e-30) * volume_ratio)
        if images < 1e9:
            found.append(ImagesNeeded(float(resolution_A), math.ceil(images), extrapolated))
    return tuple(found)


def _at(values: Tensor, shell: float) -> float:
    """Between shells, linearly in the logarithm."""
    low = int(shell)
    part = shell - low
    logs = values[low : low + 2].double().clamp_min(1e-30).log()
    return float(((1 - part) * logs[0] + part * logs[1]).exp())


def _line(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Intercept and slope (never rising) of the least-squares line."""
    centred = x - x.mean()
    slope = float((centred * y).sum() / centred.square().sum().clamp_min(1e-30))
    slope = min(slope, 0.0)
    return float(y.mean()) - slope * float(x.mean()), slope
