"""Images as the likelihood needs them: filtered by their CTF, in units of the noise, on rings."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.physics.circular_harmonics import CircularHarmonics

HELD_BYTES = 500_000_000
"""Of coefficients of images, before they are put into equations."""

_LARGEST_HALF = torch.finfo(torch.float16).max
_WEAKEST = 1e-6  # of the strongest coefficient


@dataclass(frozen=True)
class Observations:
    """n images as the likelihood needs them.

    Attributes:
        a: (n, M) coefficients of C y / N, times the weights of `CircularHarmonics.weight`.
        b: (n, R) ring means of C² / N, times `CircularHarmonics.ring_weight`.
        blobs: (n, kinds, R) from `image_model.blob_gains`; None if images without a particle are
            of no concern.
    """

    a: Tensor
    b: Tensor
    blobs: Tensor | None = None

    def __len__(self) -> int:
        return len(self.a)

    @classmethod
    def joined(cls, parts: Sequence["Observations"]) -> "Observations":
        """Those of all parts."""
        blobs = [part.blobs for part in parts if part.blobs is not None]
        return cls(
            torch.cat([part.a for part in parts]),
            torch.cat([part.b for part in parts]),
            torch.cat(blobs) if blobs else None,
        )

    def of_images(self, image: Tensor) -> Tensor:
        """(k, M) coefficients of images (k,)."""
        return self.a[image]

    def __getitem__(self, index: Tensor | slice) -> "Observations":
        blobs = None if self.blobs is None else self.blobs[index]
        return Observations(self.a[index], self.b[index], blobs)


class HeldObservations:
    """Observations of many images until equations are made of them, in float16 if need be.

    Real and imaginary parts are then rounded to nearest, by at most 0.05 % (2^-11) or 3e-8 (2^-25)
    of the unit, whichever is larger: far less than the noise. Those beyond 65,504 units, which
    images like the first ones do not have, are clipped to that.

    Attributes:
        a: (n, M) coefficients, or (n, M, 2) real and imaginary parts in float16.
        b: (n, R).
        unit: (M, 1) of coefficients in float16: the rms of the images that come first.
    """

    def __init__(self, count: int, half_precision: bool) -> None:
        self.count, self.half_precision, self.filled = count, half_precision, 0
        self.a = self.b = self.unit = torch.empty(0)

    def add(self, part: Observations) -> None:
        """Further images."""
        if self.filled == 0:
            form = (*part.a.shape[1:], 2) if self.half_precision else part.a.shape[1:]
            dtype = torch.float16 if self.half_precision else part.a.dtype
            self.a = torch.empty(self.count, *form, dtype=dtype, device=part.a.device)
            self.b = part.b.new_empty(self.count, *part.b.shape[1:])
            rms = part.a.abs().square().mean(dim=0).sqrt()
            self.unit = rms.clamp_min(_WEAKEST * float(rms.max()) + 1e-30)[:, None]
        rows = slice(self.filled, self.filled + len(part))
        self.filled += len(part)
        self.b[rows] = part.b
        if self.half_precision:
            scaled = torch.view_as_real(part.a) / self.unit
            self.a[rows] = scaled.clamp(-_LARGEST_HALF, _LARGEST_HALF).half()
        else:
            self.a[rows] = part.a

    def of_images(self, image: Tensor) -> Tensor:
        """(k, M) coefficients of images (k,)."""
        if not self.half_precision:
            return self.a[image]
        return torch.view_as_complex(self.a[image] * self.unit)


def bytes_of_image(count: int, harmonics: CircularHarmonics) -> int:
    """What one of so many images takes in `HeldObservations`."""
    whole = 8 * len(harmonics.order)
    return whole if count * whole <= HELD_BYTES else whole // 2


def observations_of(
    images: Tensor, transfer: Tensor, noise: Tensor, harmonics: CircularHarmonics
) -> Observations:
    """Filter images by their CTFs, put them on rings and divide by the noise.

    CTF² is averaged over each ring (astigmatism is exact in A, averaged in B). The noise comes
    last: where its spectrum is steep, dividing by it before images are cut to the disc would let
    the many small coefficients of strong noise leak into rings where noise is weak.

    Args:
        images: (n, D, D).
        transfer: (n, D, D // 2 + 1) CTFs.
        noise: (D // 2 + 1,) noise power per coefficient, white noise of unit variance being 1.
        harmonics: the rings.
    """
    size = harmonics.box_size
    precision = 1.0 / noise[1 : harmonics.rings + 1].clamp_min(1e-20)
    filtered = fourier.irfft(fourier.rfft(images) * transfer, size)
    a = harmonics.of_images(filtered) * (harmonics.weight * precision[harmonics.ring - 1])
    b = harmonics.means(transfer.square()).clamp_min(0.0) * precision * harmonics.ring_weight
    return Observations(a, b)


def moved(a: Tensor, shift_px: Tensor, band: CircularHarmonics) -> Tensor:
    """Coefficients (n, S, M') in a band of A (n, M), its particles moved back by (n or 1, S, 2)."""
    a = a[:, : len(band.order)]
    if shift_px.shape[1] == 1 and not shift_px.any():
        return a[:, None]
    samples = band.to_samples(a / band.weight)[:, None] * band.moving_back(shift_px)
    return (band.to_orders(samples.flatten(0, 1)) * band.weight).view(*samples.shape[:2], -1)


def moved_to(
    a: Tensor, image: Tensor, shift_px: Tensor, band: CircularHarmonics
) -> tuple[Tensor, Tensor]:
    """Coefficients of images moved back, once for each image and shift that occur.

    Args:
        a: (n, M).
        image: (...) int64.
        shift_px: (..., 2).
        band: to which coefficients are wanted.

    Returns:
        (E, M') coefficients, and (...) which of them belong to each image and shift.
    """
    if not shift_px.any():
        return a[:, : len(band.order)], image
    place = (shift_px * 4096).round().long()  # equal shifts differ by rounding at most
    key = (image << 44) + ((place[..., 0] + (1 << 21)) << 22) + place[..., 1] + (1 << 21)
    _, row = torch.unique(key, return_inverse=True)
    first = torch.empty(int(row.max()) + 1, dtype=torch.long, device=a.device)
    first[row.flatten()] = torch.arange(row.numel(), device=a.device)
    samples = band.to_samples(a[:, : len(band.order)] / band.weight)[image.flatten()[first]]
    samples = samples * band.moving_back(shift_px.flatten(0, -2)[first])
    return band.to_orders(samples) * band.weight, row
