"""The power of images where they show no particle: an upper bound of their noise.

Solvent and whatever else is in the ice is imaged with the same CTFs as the particles, so that its
power, too, varies with CTF² and counts as signal in a line through |Y|² (`physics.spectra`). Around
the particles it can be seen by itself. There may be neighbours, and CTFs carry some of the
particle's own signal outwards: noise is no more than what is found there.
"""

import torch
from torch import Tensor

from cryogan import fourier

LARGEST_RADIUS = 0.85
"""Of half the box; beyond it, the corners at least are background."""

_MARGIN = 1.0 / 16.0  # of the box: resampling and deconvolution may spoil the outer rows


def background_weight(box_size: int, radius: float) -> Tensor:
    """(D, D) weight of background pixels, from 0 to 1.

    Args:
        box_size: D.
        radius: of what may be particle, as a fraction of half the box; no more than 0.85 counts.
    """
    margin = _MARGIN * box_size
    inner = min(radius, LARGEST_RADIUS) * box_size / 2
    place = torch.arange(box_size)
    from_edge = torch.minimum(place, box_size - 1 - place)
    inside = ((from_edge + 1 - margin) / margin).clamp(0.0, 1.0)
    return (1.0 - fourier.soft_disc(box_size, inner, margin)) * inside[:, None] * inside


def background_power(images: Tensor, weight: Tensor) -> Tensor:
    """(D // 2 + 1,) mean power per coefficient of each shell, of n images' background.

    Images are (n, D, D). Coefficients are unitary, as in `physics.spectra`. The weighted mean is
    subtracted from each image first. White noise has its own power, also if it was band-limited to
    the shells.
    """
    mean = (images * weight).sum((-2, -1), keepdim=True) / weight.sum()
    power = fourier.rfft((images - mean) * weight).abs().square().double().mean(0)
    corners = _corner_power(fourier.rfft(images).abs().square().mean(0))
    box_size = images.shape[-1]
    found = fourier.shell_mean(power, box_size)
    return found / fourier.shell_mean(_response(weight.double(), corners), box_size)


def _corner_power(power: Tensor) -> float:
    """Power (D, D // 2 + 1) beyond Nyquist, relative to that of the last shells."""
    radius = fourier.frequency_grid(len(power)).norm(dim=-1)
    last = power[(radius > 0.5 - 3.0 / len(power)) & (radius <= 0.5)].mean()
    return float(power[radius > 0.5].mean() / last.clamp_min(1e-30))


def _response(weight: Tensor, corners: float) -> Tensor:
    """(D, D // 2 + 1) power that weighting leaves of noise of unit power, other in the corners.

    The spectrum is convolved with that of the weight. Subtracting the mean matters at low
    frequencies only, where the noise is taken as white.
    """
    box_size = len(weight)
    wave = fourier.rfft(weight)
    beyond = fourier.frequency_grid(box_size).norm(dim=-1) > 0.5
    spectrum = torch.where(beyond, corners, 1.0).to(weight)
    window = fourier.irfft(wave.abs().square(), box_size)
    power = fourier.rfft(window * fourier.irfft(spectrum, box_size)).real
    total, square = weight.sum(), weight.square().sum()
    both = (fourier.rfft(weight.square()) * wave.conj()).real
    removed = 2.0 * both / total - wave.abs().square() * square / total**2
    return (power - removed).clamp_min(1e-3 * square)
