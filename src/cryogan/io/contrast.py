"""Is the protein bright or dark in a set of images?"""

import math

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.background import level
from cryogan.particles import ImageStack

SAMPLE = 500
MIN_Z = 5.0
_BLOB_SIGMA = 0.15  # of the box: a molecule that fills half of it
_FINEST_A = 40.0  # the CTF does not change sign beyond this unless underfocus exceeds 6 µm


def sample_images(stack: ImageStack, n: int = SAMPLE) -> Tensor:
    """Up to n images spread evenly over the stack: (m, D, D).

    Raises:
        InputError: one of them holds NaN or infinite pixels.
    """
    count = min(n, len(stack))
    return stack.read(torch.linspace(0, len(stack) - 1, count).round().long())


def contrast_z(images: Tensor, pixel_size_A: float) -> float:
    """z-score of "protein is bright" ((n, D, D) images): negative for dark protein.

    Each image, less the plane of its background and in units of its own standard deviation, is
    correlated with a Gaussian blob at the centre
    of the box (σ = 0.15 D). Only frequencies above zero and below 1/40 Å count, where the CTF of
    any usual underfocus keeps the protein's own sign; shells are weighted by the inverse of the
    images' mean power, so that uneven ice does not rule. The score is the mean over images divided
    by its standard error, or the median divided by its own (from the median absolute deviation),
    whichever is nearer to zero; 0 if they disagree about the sign: neither a few wild images nor an
    accident of a very small set can decide. A single image scores 0.
    """
    if len(images) < 2:
        return 0.0
    images = _comparable(images)
    if len(images) < 2:
        return 0.0
    box_size = images.shape[-1]
    plane = fourier.rfft(images)
    power = fourier.shell_mean(plane.abs().square(), box_size).mean(0)
    power = power.clamp_min(1e-12 * float(power.max()) or 1.0)
    k = fourier.frequency_grid(box_size).norm(dim=-1)
    blob = torch.exp(-2.0 * (math.pi * _BLOB_SIGMA * box_size * k) ** 2)
    radius = max(box_size * pixel_size_A / _FINEST_A, 2.5)
    band = fourier.band_mask(box_size, min(radius, box_size / 2)) * (k > 0)
    shells = fourier.shell_index(box_size).clamp_max(box_size // 2)
    weight = blob * band * fourier.half_weights(box_size) / power[shells]
    score = (plane.real * weight).sum((-2, -1))
    mean_z = _ratio(score.mean(), score.std() / math.sqrt(len(score)))
    median = score.median()
    spread = 1.4826 * (score - median).abs().median()
    median_z = _ratio(median, 1.2533 * spread / math.sqrt(len(score)))
    if mean_z * median_z <= 0:
        return 0.0
    return min(mean_z, median_z, key=abs)


def _comparable(images: Tensor) -> Tensor:
    """Level images of one scale; without those that are constant or have hot pixels."""
    flat = level(images.double())
    deviation = flat.square().mean(dim=(-2, -1)).sqrt()
    typical = deviation.median()
    peak = flat.abs().amax(dim=(-2, -1)) / deviation.clamp_min(1e-300)
    usable = (deviation > 1e-3 * typical) & (peak <= max(8.0, 2.0 * float(peak.median())))
    return (flat / deviation.clamp_min(1e-300)[:, None, None])[usable].float()


def _ratio(value: Tensor, error: Tensor) -> float:
    return float(value / error) if float(error) > 0 else 0.0
