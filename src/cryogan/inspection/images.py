"""The sampled images: which are bad, their grey scale, and the sign of their contrast."""

from collections.abc import Mapping

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.inspection.findings import Contrast, Normalisation, Quantiles
from cryogan.inspection.metadata import Outlier, robust_z
from cryogan.inspection.sample import ImageStatistics, Sample
from cryogan.io.contrast import MIN_Z, contrast_z
from cryogan.particles import ArrayStack, Particles

_HOT_SD = 12.0
_SCALE_Z = 8.0
_ALIKE = 1.5  # 90 % to 10 % quantile of standard deviations


def bad_images(sample: Sample, rows: Tensor) -> tuple[Outlier, ...]:
    """Of the sampled images: unreadable, constant, with hot pixels, or on another grey scale."""
    found = {int(rows[number]): complaint.rstrip(".") for number, complaint in sample.unreadable}
    statistics = sample.statistics
    typical = float(statistics.sd.median())
    constant = statistics.sd <= 1e-6 * typical if typical > 0 else statistics.sd == 0
    scale_z = robust_z(statistics.sd.clamp_min(1e-30).log(), 0.05)
    for number, image in enumerate(sample.index.tolist()):
        row = int(rows[image])
        largest, sd = float(statistics.largest[number]), float(statistics.sd[number])
        if constant[number]:
            found[row] = "all pixels are alike"
        elif largest > _HOT_SD:
            found[row] = f"a pixel is {largest:.0f} standard deviations from the mean"
        elif abs(float(scale_z[number])) > _SCALE_Z and not 0.5 < sd / typical < 2.0:
            found[row] = f"standard deviation {sd / typical:.3g} times the median"
    return tuple(Outlier(row, found[row]) for row in sorted(found))


def good_images(sample: Sample, rows: Tensor, bad: Mapping[int, str]) -> tuple[Particles, Tensor]:
    """The small images that are not bad, on one grey scale, and their numbers in the set.

    Only scales that really differ are divided out, by the level of the upper frequencies: the
    whole variance holds the signal's, which goes with the CTF² that spectra are fitted against.

    Raises:
        InputError: no image can be used.
    """
    keep = torch.tensor([int(rows[number]) not in bad for number in sample.index.tolist()])
    if not bool(keep.any()):
        raise InputError(
            f"None of the {len(keep)} images looked at can be used: row {min(bad)} (counted from "
            f"0; {bad[min(bad)]}), and others; extract the particles again."
        )
    chosen = keep.nonzero()[:, 0]
    images = sample.small.stack.read(chosen)
    scale = sample.statistics.sd[chosen].float()
    if float(scale.quantile(0.9)) < _ALIKE * float(scale.quantile(0.1)):
        scale = scale.median().expand_as(scale)
    else:
        upper = fourier.frequency_grid(images.shape[-1]).norm(dim=-1) > 0.3
        scale = (fourier.rfft(images) * upper).abs().square().mean((-2, -1)).sqrt()
    images = images / scale[:, None, None]
    ctf_of_them, pixel_size_A = sample.small.ctf[chosen], sample.small.pixel_size_A
    return Particles(ArrayStack(images), ctf_of_them, pixel_size_A), sample.index[chosen]


def measure_contrast(small: Particles, *, inverted: bool) -> Contrast:
    """The sign of the protein in images that were inverted on reading, or not."""
    images = small.stack.read(torch.arange(len(small)))
    z = contrast_z(images, small.pixel_size_A) * (-1.0 if inverted else 1.0)
    verdict = "too weak to tell" if abs(z) < MIN_Z else "bright" if z > 0 else "dark"
    return Contrast(verdict, z, inverted)


def measure_normalisation(statistics: ImageStatistics) -> Normalisation:
    """Whether the sampled images that are not constant have one grey scale."""
    usable = statistics.sd > 0
    if not bool(usable.any()):
        usable = torch.ones_like(usable)
    offset = _quantiles(statistics.offset[usable])
    ramp = _quantiles(statistics.ramp[usable])
    sd = _quantiles(statistics.sd[usable] / statistics.sd[usable].median().clamp_min(1e-30))
    normalised = (
        max(abs(offset.low), abs(offset.high)) < 0.5
        and ramp.high < 1.0
        and sd.high < _ALIKE * sd.low
    )
    return Normalisation(offset, ramp, sd, normalised)


def _quantiles(values: Tensor) -> Quantiles:
    low, median, high = values.double().quantile(torch.tensor([0.1, 0.5, 0.9]).double()).tolist()
    return Quantiles(low, median, high)
