"""Padding: the box in which the likelihood works, the particles' own or a wider one.

Sampling Fourier space at spacing 1/D aliases points nearly D apart. If the mask fills the box,
noise near its edge is overweighted by up to a factor of three and can appear as motion; images are
therefore padded. The padded box is an eighth wider than the largest distance between a point of
the molecule and a point of the image.

A soft window removes what lies outside the reach of the molecule, both from the images and from the
measurement of their noise: images that were deconvolved or resampled box by box can have ten times
the power in their outer rows.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.particles import DerivedStack, Particles
from cryogan.physics.imaging import rescale_volume

_MARGIN = 1.125
_EDGE = 0.1  # of half a box


@dataclass(frozen=True)
class PaddedBox:
    """The padded box of images and maps.

    Attributes:
        box_size: of the particles.
        width_px: of the padded box, in their pixels; even, or that of the box itself.
        reach: where there may be molecule in an image, as a fraction of half the box.
    """

    box_size: int
    width_px: int
    reach: float

    @classmethod
    def of(cls, box_size: int, reach: float) -> "PaddedBox":
        """What particles of a box need whose molecule reaches so far."""
        widest = _MARGIN * (reach + min(reach, 1.0)) * box_size / 2
        width_px = box_size if widest <= box_size else 2 * math.ceil(widest / 2)
        return cls(box_size, width_px, reach)

    @property
    def share(self) -> float:
        """Width of the particles' box as a fraction of that of the padded one."""
        return self.box_size / self.width_px

    @property
    def window(self) -> Tensor:
        """(D, D) that multiplies images: 1 where there may be molecule, soft beyond."""
        half = self.box_size / 2
        return fourier.soft_disc(self.box_size, self.reach * half, _EDGE * half)

    @property
    def noise_share(self) -> float:
        """Share of the power of noise that the window leaves."""
        return float(self.window.square().mean())

    def pad_particles(self, particles: Particles) -> Particles:
        """The same particles in the padded box: windowed, and zero outside their own box."""
        return replace(particles, stack=PaddedStack(particles.stack, self))

    def pad(self, volumes: Tensor) -> Tensor:
        """Volumes (..., D, D, D) of the particles' box, zero-padded.

        Boxes may be coarser than the particles'; that of the result is the smallest even one that
        is no coarser.
        """
        return _between(volumes, self.box_size, self.width_px)

    def crop(self, volumes: Tensor) -> Tensor:
        """Volumes (..., D, D, D) of the padded box, cropped to the particles' own."""
        return _between(volumes, self.width_px, self.box_size)

    def shells(self, values: Tensor) -> Tensor:
        """Values by shell of the particles' box, interpolated at those of the padded box."""
        count = int((len(values) - 1) * self.width_px / self.box_size) + 1
        place = torch.arange(count) * (self.box_size / self.width_px)
        below = place.floor().long().clamp_max(len(values) - 2)
        return torch.lerp(values[below], values[below + 1], place - below)


@dataclass(frozen=True)
class PaddedStack(DerivedStack):
    """Images of a stack, windowed and padded: an `ImageStack`."""

    padded: PaddedBox

    @property
    def box_size(self) -> int:
        return self.padded.width_px

    def read(self, index: Tensor) -> Tensor:
        """The images of `index`, (n, D, D)."""
        images = self.parent.read(index) * self.padded.window
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
