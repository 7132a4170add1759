"""A sample of a set's images: statistics of each, and the images in a small box."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.particles import ArrayStack, Particles
from cryogan.physics.imaging import Preprocessing, preprocess

_MOST_IMAGES = 2000
_MOST_PIXELS = 4 * 10**7
_LARGEST_BOX = 128
_CHUNK_PIXELS = 2**23


@dataclass(frozen=True)
class ImageStatistics:
    """Of m images; every field is an (m,) tensor.

    Attributes:
        sd: standard deviation of all pixels.
        offset: mean of the background (beyond the inscribed circle), in units of `sd`.
        ramp: difference in grey value across the box, of the plane that fits best, in `sd`.
        largest: largest distance of a pixel from the mean, in `sd`.
    """

    sd: Tensor
    offset: Tensor
    ramp: Tensor
    largest: Tensor


@dataclass(frozen=True)
class Sample:
    """Images spread evenly over a set.

    Attributes:
        index: (m,) numbers in the set of those that could be read.
        unreadable: numbers and complaints of those that could not.
        statistics: of the m images as they are.
        small: the m images without background level and ramp, Fourier-cropped to 128 px or less.
    """

    index: Tensor
    unreadable: tuple[tuple[int, str], ...]
    statistics: ImageStatistics
    small: Particles


def take_sample(particles: Particles) -> Sample:
    """Read up to 2,000 images, fewer of large boxes.

    Raises:
        InputError: no image can be read.
    """
    box_size = particles.box_size
    size = min(_LARGEST_BOX, box_size - box_size % 2)
    count = min(len(particles), _MOST_IMAGES, max(400, _MOST_PIXELS // box_size**2))
    wanted = torch.linspace(0, len(particles) - 1, count).round().long()
    kept, bad, small, numbers = [], [], [], []
    for index in torch.split(wanted, max(1, _CHUNK_PIXELS // box_size**2)):
        images, readable, complaints = _read(particles, index)
        bad += complaints
        if len(readable) == 0:
            continue
        statistics, flat = image_statistics(images)
        kept.append(readable)
        numbers.append(statistics)
        small.append(preprocess(flat, Preprocessing(size)))
    if not kept:
        raise InputError(bad[0][1])
    index = torch.cat(kept)
    pixel_size_A = particles.pixel_size_A * box_size / size
    return Sample(
        index,
        tuple(bad),
        ImageStatistics(
            *(
                torch.cat([getattr(each, name) for each in numbers])
                for name in ("sd", "offset", "ramp", "largest")
            )
        ),
        Particles(ArrayStack(torch.cat(small)), particles.ctf[index], pixel_size_A),
    )


def image_statistics(images: Tensor) -> tuple[ImageStatistics, Tensor]:
    """Statistics of (n, D, D) images, and the images less their slope and background.

    The plane is fitted to all pixels; the level taken off is that of the background, so that a
    particle keeps its mean.
    """
    box_size = images.shape[-1]
    images = images.double()
    axis = torch.arange(box_size, dtype=torch.float64) - (box_size - 1) / 2
    mean = images.mean((-2, -1), keepdim=True)
    centred = images - mean
    per_pixel = axis.square().sum() * box_size
    slope_x = (centred * axis).sum((-2, -1), keepdim=True) / per_pixel
    slope_y = (centred * axis[:, None]).sum((-2, -1), keepdim=True) / per_pixel
    flat = centred - slope_x * axis - slope_y * axis[:, None]
    sd = flat.square().mean((-2, -1)).sqrt()
    unit = sd.clamp_min(1e-30)
    outside = fourier.radius_grid(box_size) >= box_size / 2
    statistics = ImageStatistics(
        sd,
        images[:, outside].mean(1) / unit,
        torch.hypot(slope_x, slope_y).flatten() * box_size / unit,
        flat.abs().amax((-2, -1)) / unit,
    )
    flat = flat - flat[:, outside].mean(1)[:, None, None]
    return statistics, flat.float()


def _read(particles: Particles, index: Tensor) -> tuple[Tensor, Tensor, list[tuple[int, str]]]:
    """The images that can be read, their numbers, and those that cannot."""
    try:
        return particles.stack.read(index), index, []
    except InputError:
        images, readable, bad = [], [], []
        for one in torch.split(index, 1):
            try:
                images.append(particles.stack.read(one))
                readable.append(one)
            except InputError as error:
                bad.append((int(one), str(error)))
        return (
            torch.cat(images) if images else torch.empty(0),
            torch.cat(readable) if readable else index[:0],
            bad,
        )
