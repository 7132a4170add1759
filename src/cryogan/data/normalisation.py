"""Images less what no image model explains: offset, ramp, scale, hot pixels, CTF corrections.

All images are looked at once, before anything is measured on them. A nuisance must not change a
map, so that it is removed from every set alike, whatever the set says of itself.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryogan.background import background_mask, fit_plane, level
from cryogan.data.parts import in_parts, row_by_row
from cryogan.errors import InputError
from cryogan.fourier import irfft, rfft
from cryogan.particles import (
    MULTIPLIED,
    CTFParams,
    DerivedStack,
    ImageStack,
    Particles,
    ParticleSource,
)
from cryogan.physics.ctf import LEAST_CTF, ctf

_SAMPLE = 500
_LEAST_PEAK = 8.0  # standard deviations that a pixel of any image may be from its mean
_MOST_HOT = 0.01  # of an image's pixels
_CONSTANT = 1e-3  # of the set's median standard deviation
_ROUNDING = 1e-6  # of an image's offset
_EXTREME = 30.0  # times it, or a fraction of it
_TOTAL = 0.01  # share of the whole image's variance in its scale: images may be free of noise


@dataclass(frozen=True)
class NormalisedStack(DerivedStack):
    """The images of `parent`, level, of one scale, hot pixels set to zero: an `ImageStack`.

    Attributes:
        parent: where the images come from.
        plane: (n, 3) of their background (`background.fit_plane`).
        peak: (n,) largest modulus of a pixel that is not hot.
        scale: (n,) what images are divided by.
    """

    plane: Tensor
    peak: Tensor
    scale: Tensor

    def read(self, index: Tensor) -> Tensor:
        images = level(self.parent.read(index), self.plane[index])
        peak, scale = self.peak[index, None, None], self.scale[index, None, None]
        return torch.where(images.abs() > peak, 0.0, images) / scale


@dataclass(frozen=True)
class LevelStack(DerivedStack):
    """The images of `parent` less the planes of their backgrounds: an `ImageStack`."""

    def read(self, index: Tensor) -> Tensor:
        return level(self.parent.read(index))


@dataclass(frozen=True)
class DividedStack(DerivedStack):
    """The images of `parent` divided by the modulus of their CTF, of at least 0.1.

    Images that were multiplied by their CTF then have the noise of others, and the transfer
    function that `physics.ctf.ctf` gives for them.
    """

    ctf: CTFParams
    pixel_size_A: float

    def read(self, index: Tensor) -> Tensor:
        params = self.ctf[index]
        multiplied = params.correction == MULTIPLIED
        images = self.parent.read(index)
        if not bool(multiplied.any()):
            return images
        plain = replace(params, correction=torch.zeros_like(params.correction))[multiplied]
        factor = ctf(plain, self.box_size, self.pixel_size_A).abs().clamp_min(LEAST_CTF)
        images[multiplied] = irfft(rfft(images[multiplied]) / factor, self.box_size)
        return images


@dataclass(frozen=True)
class _Looks:
    """What was seen in every image: n rows.

    Attributes:
        plane: (n, 3) of the background.
        deviation: (n,) standard deviation of the level image, hot pixels left out.
        sides: (n, 2) the same of the background left and right of the origin.
        hot: (n,) number of hot pixels.
    """

    plane: Tensor
    deviation: Tensor
    sides: Tensor
    hot: Tensor


def normalised(particles: Particles) -> tuple[Particles, Tensor]:
    """The particles with normalised images, and which those are: (m,) int64 of the n given.

    Every image loses the plane that fits its background outside a circle of 75 % of the box.
    Pixels beyond eight standard deviations, or beyond twice what is usual in the set, are set to
    zero. The scale of an image is the standard deviation of its background, drawn towards the
    set's mean by the share of its variation that is chance: what differs in the same way left and
    right of the particle is real (an intraclass correlation). The set keeps its mean scale. What
    images differ in afterwards, by chance, is `Particles.scale_sd`.

    Images are left out that are constant, or whose standard deviation is 30 times that of the set's
    median or a thirtieth of it, or of whose pixels more than 1 % are hot.

    What was done is added to the summary of the particles' source, whose rows are those kept.

    Raises:
        InputError: an image cannot be read, or half of the images cannot be used.
    """
    stack = particles.stack
    if bool((particles.ctf.correction == MULTIPLIED).any()):
        stack = DividedStack(stack, particles.ctf, particles.pixel_size_A)
    seen = _look(stack)
    usual = float(seen.deviation.median())
    reasons = {
        "constant": (seen.deviation <= _CONSTANT * usual)
        | (seen.deviation <= _ROUNDING * seen.plane[:, 0].abs()),
        "of extreme scale": (seen.deviation > _EXTREME * usual)
        | (seen.deviation < usual / _EXTREME),
        "of hot pixels": seen.hot > _MOST_HOT * stack.box_size**2,
    }
    bad = torch.zeros(len(stack), dtype=torch.bool)
    for reason, found in reasons.items():  # one reason each
        reasons[reason] = found & ~bad
        bad |= found
    where = "the set" if particles.source is None else str(particles.source.path)
    if 2 * int(bad.sum()) >= len(bad):
        raise InputError(
            f"{int(bad.sum()):,} of the {len(bad):,} images of {where} are constant or damaged; "
            "give the stacks that belong to it."
        )
    good = ~bad
    scale = torch.ones(len(bad), dtype=torch.float64)
    scale[good], scale_sd = _scales(seen.sides[good], seen.deviation[good])
    peak = _peak_limit(stack) * seen.deviation
    clean = NormalisedStack(stack, seen.plane, peak.float(), scale.float())
    words = _words(seen, scale, good, reasons, particles)
    # rounded, so that a run resumed with other threads is the same run
    result = replace(particles, stack=clean, scale_sd=round(scale_sd, 4))
    if bool(bad.any()):
        result = result.subset(good.nonzero()[:, 0])
    return replace(result, source=_source(particles, good, words)), good.nonzero()[:, 0]


def _peak_limit(stack: ImageStack) -> float:
    """Standard deviations beyond which a pixel is hot."""
    sample = torch.linspace(0, len(stack) - 1, min(_SAMPLE, len(stack))).round().long()
    peaks = []
    for part in in_parts(sample, stack):
        images = level(stack.read(part).double())
        deviation = images.square().mean(dim=(-2, -1)).sqrt()
        peaks.append(images.abs().amax(dim=(-2, -1)) / deviation.clamp_min(1e-300))
    return max(_LEAST_PEAK, 2.0 * float(torch.cat(peaks).median()))


def _look(stack: ImageStack) -> _Looks:
    limit = _peak_limit(stack)
    found = (
        _look_at(stack.read(part).double(), limit)
        for part in in_parts(torch.arange(len(stack)), stack)
    )
    return _Looks(*row_by_row(found, len(stack)))


def _look_at(images: Tensor, limit: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    box_size = images.shape[-1]
    plane = fit_plane(images)
    used = torch.ones_like(images, dtype=torch.bool)
    again = torch.arange(len(images))
    for _ in range(64):  # a hot pixel hides smaller ones
        flat = level(images[again], plane[again])
        mine = used[again]
        count = mine.sum(dim=(-2, -1)).clamp_min(1)
        deviation = ((flat.square() * mine).sum(dim=(-2, -1)) / count).sqrt()
        hot = mine & (flat.abs() > limit * deviation[:, None, None])
        hit = hot.flatten(1).any(dim=1) & (deviation > 0)
        if not bool(hit.any()):
            break
        again = again[hit]
        used[again] &= ~hot[hit]
        plane[again] = fit_plane(images[again], used[again])
    flat = level(images, plane).square() * used
    rms = (flat.sum(dim=(-2, -1)) / used.sum(dim=(-2, -1)).clamp_min(1)).sqrt()
    outside, x = background_mask(box_size), torch.arange(box_size) - box_size // 2
    sides = [
        ((flat * part).sum(dim=(-2, -1)) / (used & part).sum(dim=(-2, -1)).clamp_min(1)).sqrt()
        for part in (outside & (x < 0), outside & (x >= 0))
    ]
    return plane, rms, torch.stack(sides, dim=1), (~used).sum(dim=(-2, -1))


def _scales(sides: Tensor, deviation: Tensor) -> tuple[Tensor, float]:
    """(n,) scale of every image relative to the set's, as far as it is not chance; and its error.

    The error is the standard deviation of its logarithm: of chance that counts as real, and of what
    is real and counts as chance.
    """
    logs = 0.5 * (sides.square() + _TOTAL * deviation.square()[:, None]).log()
    logs = logs - logs.mean()
    if len(logs) < 2:
        return torch.ones(len(logs), dtype=logs.dtype), 0.0
    mine = logs.mean(dim=1)
    left, right = logs.T
    real = max(float(((left - left.mean()) * (right - right.mean())).mean()), 0.0)
    chance = 0.25 * float((left - right).var(correction=0))
    share = min(real / max(float(mine.var(correction=0)), 1e-300), 1.0)
    error = math.sqrt(share**2 * chance + (1.0 - share) ** 2 * real)
    return (share * mine).exp(), error


def _words(
    seen: _Looks, scale: Tensor, good: Tensor, reasons: dict[str, Tensor], particles: Particles
) -> list[str]:
    deviation = seen.deviation[good]
    offset = float((seen.plane[good, 0].abs() / deviation).median())
    ramp = float((seen.plane[good, 1:].norm(dim=1) / deviation).median())
    spread = float(scale[good].log().std(correction=0).exp()) - 1.0
    words = [
        f"images normalised on reading: background offset {offset:.2g} σ and ramp {ramp:.2g} σ "
        f"across the box removed (medians), scales differ by {100 * spread:.0f} %"
    ]
    hot = good & (seen.hot > 0)
    if bool(hot.any()):
        words.append(f"hot pixels set to zero in {_named(hot, particles)}")
    copies = _copies(seen, good)
    if copies:
        words.append(
            f"warning: {copies:,} image{'s are' if copies > 1 else ' is'} the same as another, "
            "pixel by pixel: copies of a stack? The half-sets may share them"
        )
    words += [
        f"left out: {_named(bad, particles)} {reason}"
        for reason, bad in reasons.items()
        if bool(bad.any())
    ]
    return words


def _copies(seen: _Looks, good: Tensor) -> int:
    """How many of the good images cannot be told from one before them."""
    found = torch.cat((seen.plane, seen.deviation[:, None], seen.sides), dim=1)[good].float()
    return len(found) - len(torch.unique(found, dim=0))


def _named(chosen: Tensor, particles: Particles) -> str:
    """ "3 images (rows 7, 12, 90)", as --ind counts."""
    number = chosen.nonzero()[:, 0]
    source = particles.source
    rows = number if source is None or source.rows is None else source.rows[number]
    some = ", ".join(str(row) for row in rows[:5].tolist()) + (" ..." if len(rows) > 5 else "")
    one = len(rows) == 1
    return f"{len(rows):,} image{'' if one else 's'} (row{'' if one else 's'} {some} from 0)"


def _source(particles: Particles, good: Tensor, words: list[str]) -> ParticleSource | None:
    source = particles.source
    if source is None:
        return None
    rows = source.rows
    if not bool(good.all()):
        rows = good.nonzero()[:, 0] if rows is None else rows[good]
    return replace(source, rows=rows, summary="\n".join((source.summary, *words)))
