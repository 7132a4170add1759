"""The field in which the likelihood works: that of the particles, or a wider one.

Rings of Fourier space a distance of 1 / D apart know two points from one another only if they are
less than D apart, and weigh pairs that are nearly so far apart wrongly: with images and molecule
filling the box, noise along the rim counts up to three times as much as it should, which motion
that is not there would explain. So images are put into a field that is an eighth wider than the
largest distance of a point of the molecule from a point of the image.

What lies outside where there may be molecule is not looked at, nor is it noise to learn from:
images that were deconvolved or resampled box by box can have ten times the power in their outer
rows.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.likelihood.config import AscentConfig
from cryogan.models.volume import rescale_volume
from cryogan.particles import ImageStack, Particles

_ROOM = 1.125
_EDGE = 0.1  # of half a box


@dataclass(frozen=True)
class Field:
    """Where images and maps of the likelihood live.

    Attributes:
        box_size: of the particles.
        width_px: of the field, in their pixels; even, or that of the box itself.
        reach: where there may be molecule in an image, as a fraction of half the box.
    """

    box_size: int
    width_px: int
    reach: float

    @classmethod
    def of(cls, box_size: int, config: AscentConfig) -> "Field":
        """What particles of a box need under these settings."""
        widest = _ROOM * (config.reach + min(config.reach, 1.0)) * box_size / 2
        width_px = box_size if widest <= box_size else 2 * math.ceil(widest / 2)
        return cls(box_size, width_px, config.reach)

    def settings(self, config: AscentConfig) -> AscentConfig:
        """The same settings for images whose box is the field."""
        share = self.box_size / self.width_px
        first, last = config.climb_rings
        return replace(
            config,
            mask_radius=config.mask_radius * share,
            mask_edge=config.mask_edge * share,
            shift_percent=config.shift_percent * share,
            climb_rings=(round(first / share), round(last / share)),
        )

    @property
    def window(self) -> Tensor:
        """(D, D) through which images are seen: 1 where there may be molecule, soft beyond."""
        half = self.box_size / 2
        return fourier.soft_disc(self.box_size, self.reach * half, _EDGE * half)

    @property
    def seen(self) -> float:
        """Share of the power of noise that the window leaves."""
        return float(self.window.square().mean())

    def wide(self, particles: Particles) -> Particles:
        """The same particles in the field: windowed, and zero outside their own box."""
        return replace(particles, stack=FieldStack(particles.stack, self))

    def enter(self, volumes: Tensor) -> Tensor:
        """Volumes (..., D, D, D) of the particles' box, zero-padded to the field.

        Boxes may be coarser than the particles'; that of the result is the smallest even one that
        is no coarser.
        """
        return _between(volumes, self.box_size, self.width_px)

    def leave(self, volumes: Tensor) -> Tensor:
        """Volumes (..., D, D, D) of the field, cut to the particles' box; sampled as by `enter`."""
        return _between(volumes, self.width_px, self.box_size)

    def shells(self, values: Tensor) -> Tensor:
        """Values by shell of the particles' box, between its shells, for those of the field."""
        count = int((len(values) - 1) * self.width_px / self.box_size) + 1
        place = torch.arange(count) * (self.box_size / self.width_px)
        below = place.floor().long().clamp_max(len(values) - 2)
        return torch.lerp(values[below], values[below + 1], place - below)


@dataclass(frozen=True)
class FieldStack:
    """Images of a stack seen in a field: an `ImageStack`."""

    parent: ImageStack
    field: Field

    @property
    def box_size(self) -> int:
        return self.field.width_px

    def __len__(self) -> int:
        return len(self.parent)

    def read(self, index: Tensor) -> Tensor:
        """The images of `index`, (n, D, D)."""
        images = self.parent.read(index) * self.field.window
        return fourier.crop_or_pad(images, self.box_size)


def _between(volumes: Tensor, width_px: int, new_width_px: int) -> Tensor:
    if width_px == new_width_px:
        return volumes
    size = volumes.shape[-1]
    new_size = min(new_width_px, 2 * math.ceil(size * new_width_px / width_px / 2))
    found = [
        rescale_volume(
            fourier.crop_or_pad(rescale_volume(volume, width_px), new_width_px, 3), new_size
        )
        for volume in volumes.reshape(-1, size, size, size)
    ]
    return torch.stack(found).reshape(*volumes.shape[:-3], *(new_size,) * 3)
