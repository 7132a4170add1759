"""Spectra of volumes in cylindrical coordinates: central slices of a whole parallel at once.

`F(ρ, α, z) = Σ_m F_m(ρ, z) exp(i m α)`, z being the axis. Directions of one tilt see the volume
turned about the axis, so that the slices of n directions whose azimuths are evenly spaced follow
from one reading of F_m along their common curve and a Fourier transform over m. A HEALPix level
consists of such parallels.

The transform is exact on planes of constant z and along circles; between them values are read by
bilinear interpolation in (ρ, z), whose attenuation is divided out beforehand: along z in real
space, along ρ by a short filter. This is right on average over where a point lies between its
neighbours; at a fraction t of the way the gain is off in proportion to `1/6 - t (1 - t)`. Planes
and radii begin before zero by the fraction where that vanishes: near the pole, all points of a ring
have the same. A real volume has `F(-k) = conj F(k)`, so that no other planes below z = 0 are kept.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from cryogan.physics.nonuniform import SpectrumSampler

_MARGIN = 8  # orders beyond the bandwidth of the volume's edge, as in `circular_harmonics`
_BEYOND = 3  # radii beyond those that are kept, for the filter
_OFFSET = 0.5 - math.sqrt(1.0 / 12.0)  # t (1 - t) = 1/6
_PLANES_AT_ONCE = 64
_COEFFICIENTS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Parallel:
    """n directions of one tilt, their azimuths evenly spaced all around.

    Attributes:
        tilt: radians.
        azimuth: of the first, radians.
        count: n.
    """

    tilt: float
    azimuth: float
    count: int


@dataclass(frozen=True)
class CylindricalGrid:
    """Where spectra of volumes (D, D, D) are known: planes, radii and orders.

    They hold for what is in the cylinder that the box holds, not for what is in its corners.

    Attributes:
        box_size: D, even.
        highest: frequencies up to this many cycles per box are read.
        padding: planes and radii are 1 / (D padding) cycles per pixel apart.
        device: of the tensors.
    """

    box_size: int
    highest: float
    padding: float
    device: torch.device

    @property
    def padded_size(self) -> int:
        """P: planes and radii are 1 / P cycles per pixel apart."""
        return 2 * round(self.box_size * self.padding / 2)

    @property
    def planes(self) -> int:
        """Z planes."""
        return self._last + 1

    @property
    def radii(self) -> int:
        """K radii."""
        return self._last + 1

    @property
    def _last(self) -> int:
        return math.ceil(self.highest * self.padded_size / self.box_size) + 1

    @property
    def top(self) -> int:
        """L: orders -L ... L."""
        return math.ceil(math.pi * self.highest) + _MARGIN

    @cached_property
    def order(self) -> Tensor:
        """(2 L + 1,) orders."""
        return torch.arange(-self.top, self.top + 1, device=self.device)

    # planes: Fourier transform along z, of which the first few coefficients are read

    @cached_property
    def _along_z(self) -> Tensor:
        """(Z, D) complex: from voxels along z to planes, linear interpolation compensated."""
        size = self.box_size
        line = torch.arange(size, device=self.device, dtype=torch.float64) - size // 2
        plane = torch.arange(self.planes, device=self.device, dtype=torch.float64) - _OFFSET
        phase = (-2.0 * math.pi / self.padded_size) * plane[:, None] * line
        gain = 1.0 / torch.sinc(line / self.padded_size).square()
        return torch.complex(phase.cos() * gain, phase.sin() * gain).to(torch.complex64)

    # circles: spectra of the planes' images at polar frequencies

    @cached_property
    def _azimuths(self) -> int:
        """A: azimuths in [0, π) at which circles are sampled."""
        return self.top + 1

    @property
    def _circles(self) -> int:
        return self.radii + 2 * _BEYOND

    @cached_property
    def _sampler(self) -> SpectrumSampler:
        angle = torch.arange(self._azimuths, device=self.device, dtype=torch.float64)
        angle = angle * (math.pi / self._azimuths)
        circle = torch.arange(self._circles, device=self.device, dtype=torch.float64)
        radius = circle - _BEYOND - _OFFSET
        unit = torch.stack((angle.cos(), angle.sin()), dim=-1)
        frequency = radius[:, None, None] * unit / self.padded_size
        window = torch.ones(self.box_size, self.box_size, device=self.device)
        return SpectrumSampler.of(window, frequency.view(-1, 2))

    @cached_property
    def _filter(self) -> list[float]:
        """Of one side: taps that compensate for linear interpolation between radii."""
        return _compensation(0.5 * self.box_size / self.padded_size)

    def zeros(self, real: bool = False) -> Tensor:
        """(Z, K, 2 L + 1) to which slices can be added; of real ones, (Z, K, L + 1)."""
        shape = self.planes, self.radii, self.top + 1 if real else len(self.order)
        return torch.zeros(shape, dtype=torch.complex64, device=self.device)

    def of_volume(self, volume: Tensor) -> Tensor:
        """F_m of a volume (D, D, D): (Z, K, 2 L + 1) complex."""
        size = self.box_size
        columns = volume.reshape(size, -1)
        found = []
        for rows in torch.split(self._along_z, _PLANES_AT_ONCE):
            parts = torch.cat((rows.real @ columns, rows.imag @ columns)).view(-1, size, size)
            real, imaginary = self._sampler(parts).view(2, len(rows), self._circles, self._azimuths)
            both = (real + 1j * imaginary, real.conj() + 1j * imaginary.conj())
            circles = torch.cat(both, dim=-1)
            found.append(self._filtered(self._orders(circles)))
        return torch.cat(found)

    def of_volume_adjoint(self, values: Tensor) -> Tensor:
        """The gradient of `Re Σ conj(of_volume) values`, (D, D, D).

        Args:
            values: (Z, K, 2 L + 1), or (Z, K, L + 1) of a real spectrum.
        """
        size = self.box_size
        total = values.real.new_zeros(size, size * size)
        for rows, part in zip(
            torch.split(self._along_z, _PLANES_AT_ONCE),
            torch.split(values, _PLANES_AT_ONCE),
            strict=True,
        ):
            if part.shape[2] == self.top + 1:  # F_-m = conj F_m
                part = torch.cat((part[..., 1:].flip(2).conj(), part), dim=2)
            circles = self._orders_adjoint(self._filtered_adjoint(part))
            one, other = torch.split(circles, self._azimuths, dim=-1)
            real, imaginary = one + other.conj(), -1j * one + (-1j * other).conj()
            parts = torch.cat((real, imaginary)).flatten(1)
            images = self._sampler.adjoint(parts).view(2, len(rows), -1)
            total += rows.real.T @ images[0] + rows.imag.T @ images[1]
        return total.view(size, size, size)

    def _orders(self, circles: Tensor) -> Tensor:
        """(..., 2 L + 1) of values (..., 2 A) all around."""
        spectrum = torch.fft.fft(circles, norm="forward")
        return torch.cat((spectrum[..., -self.top :], spectrum[..., : self.top + 1]), dim=-1)

    def _orders_adjoint(self, orders: Tensor) -> Tensor:
        around = 2 * self._azimuths
        gap = orders.new_zeros(*orders.shape[:-1], around - orders.shape[-1])
        parts = (orders[..., self.top :], gap, orders[..., : self.top])
        circles: Tensor = torch.fft.ifft(torch.cat(parts, dim=-1))
        return circles

    def _filtered(self, orders: Tensor) -> Tensor:
        """(n, K, 2 L + 1) of three more radii on both sides."""
        found = self._filter[0] * orders[:, _BEYOND:-_BEYOND]
        for step, tap in enumerate(self._filter[1:], start=1):
            for start in (_BEYOND - step, _BEYOND + step):
                found.add_(orders[:, start : start + self.radii], alpha=tap)
        return found

    def _filtered_adjoint(self, values: Tensor) -> Tensor:
        found = values.new_zeros(len(values), self._circles, values.shape[2])
        found[:, _BEYOND:-_BEYOND] = self._filter[0] * values
        for step, tap in enumerate(self._filter[1:], start=1):
            for start in (_BEYOND - step, _BEYOND + step):
                found[:, start : start + self.radii].add_(values, alpha=tap)
        return found

    # slices of a parallel

    def slices(self, values: Tensor, frequency: Tensor, parallel: Parallel) -> Tensor:
        """Slices of the directions of a parallel, at frequencies of the image plane.

        Args:
            values: from `of_volume`.
            frequency: (N, 2) of (kx, ky), cycles per pixel.
            parallel: n directions; their frames are `Rz(azimuth) Ry(tilt)`.

        Returns:
            (N, n) complex.
        """
        parts = torch.split(frequency, self._at_once)
        return torch.cat([self._slices(values, part, parallel) for part in parts])

    @property
    def _at_once(self) -> int:
        """Frequencies at a time."""
        return max(1, _COEFFICIENTS_AT_ONCE // len(self.order))

    def _slices(self, values: Tensor, frequency: Tensor, parallel: Parallel) -> Tensor:
        curve = self._curve(frequency, parallel)
        read = torch.nn.functional.embedding_bag(
            curve.place,
            torch.view_as_real(values).view(self.planes * self.radii, -1),
            per_sample_weights=curve.weight,
            mode="sum",
        )
        turn = self._turn(curve.angle)
        orders = torch.view_as_complex(read.view(len(frequency), -1, 2))
        orders = orders * torch.cat((turn[:, 1:].flip(1).conj(), turn), dim=1)
        before = -self.top % parallel.count  # so that order 0 begins a period
        after = -(before + orders.shape[1]) % parallel.count
        folded = torch.nn.functional.pad(orders, (before, after))
        folded = folded.view(len(frequency), -1, parallel.count).sum(dim=1)
        found = torch.fft.ifft(folded, norm="forward")
        return _conjugated(found, curve.mirrored)

    def add_slices_adjoint(
        self, total: Tensor, samples: Tensor, frequency: Tensor, parallel: Parallel
    ) -> None:
        """Add the adjoint of `slices`: the gradient of `Re Σ conj(slices) samples`.

        Args:
            total: (Z, K, 2 L + 1) complex, or (Z, K, L + 1) of real samples.
            samples: (N, n) complex, or real.
            frequency: as in `slices`.
            parallel: the same.
        """
        some = torch.split(samples, self._at_once), torch.split(frequency, self._at_once)
        for mine, at in zip(*some, strict=True):
            self._add_slices_adjoint(total, mine, at, parallel)

    def _add_slices_adjoint(
        self, total: Tensor, samples: Tensor, frequency: Tensor, parallel: Parallel
    ) -> None:
        curve = self._curve(frequency, parallel)
        turn = self._turn(curve.angle).conj()
        folded = torch.fft.fft(_conjugated(samples, curve.mirrored))
        if samples.is_complex():
            turn = torch.cat((turn[:, 1:].flip(1).conj(), turn), dim=1)
            folded = folded.roll(self.top, dims=1)  # from order -L on
        times = math.ceil(turn.shape[1] / parallel.count)
        orders = folded.repeat(1, times)[:, : turn.shape[1]] * turn
        orders = torch.view_as_real(orders.resolve_conj()).flatten(1)
        rows = torch.view_as_real(total).view(self.planes * self.radii, -1)
        for place, weight in zip(curve.place.T, curve.weight.T, strict=True):
            rows.index_add_(0, place, orders * weight[:, None])

    def _turn(self, angle: Tensor) -> Tensor:
        """(N, L + 1) exp(i m angle)."""
        phase = angle[:, None] * torch.arange(self.top + 1, device=angle.device)
        return torch.complex(phase.cos(), phase.sin())

    def _curve(self, frequency: Tensor, parallel: Parallel) -> "_Curve":
        kx, ky = (frequency.double() * self.padded_size).unbind(dim=-1)
        x, z = kx * math.cos(parallel.tilt), -kx * math.sin(parallel.tilt)
        mirrored = z < 0
        sign = torch.where(mirrored, -1.0, 1.0)
        x, y, z = x * sign, ky * sign, z * sign
        radius, z = torch.hypot(x, y) + _OFFSET, z + _OFFSET
        low_z = z.floor().long()
        low_radius = radius.floor().long()
        up_z, up_radius = z - low_z, radius - low_radius
        place = low_z * self.radii + low_radius
        place = torch.stack((place, place + 1, place + self.radii, place + self.radii + 1), dim=1)
        weight = torch.stack(
            (
                (1.0 - up_z) * (1.0 - up_radius),
                (1.0 - up_z) * up_radius,
                up_z * (1.0 - up_radius),
                up_z * up_radius,
            ),
            dim=1,
        )
        angle = torch.atan2(y, x) + parallel.azimuth
        return _Curve(place, weight.float(), angle.float(), mirrored)


@dataclass(frozen=True)
class _Curve:
    """Where N frequencies of a slice are: 4 neighbours each, their weights, and the azimuth."""

    place: Tensor
    weight: Tensor
    angle: Tensor
    mirrored: Tensor


@dataclass(frozen=True, eq=False)
class CylindricalSpectrum:
    """Spectrum of a volume in cylindrical coordinates.

    Attributes:
        grid: where it is known.
        values: (Z, K, 2 L + 1) complex, from `CylindricalGrid.of_volume`.
    """

    grid: CylindricalGrid
    values: Tensor

    def slices(self, frequency: Tensor, parallel: Parallel) -> Tensor:
        """(N, n) slices of a parallel, see `CylindricalGrid.slices`."""
        return self.grid.slices(self.values, frequency, parallel)


@lru_cache(maxsize=3)
def cylindrical_grid(
    box_size: int, highest: float, padding: float, device: torch.device
) -> CylindricalGrid:
    """A `CylindricalGrid`; the last few are remembered, for what they hold is large."""
    return CylindricalGrid(box_size, highest, padding, device)


def _compensation(highest: float) -> list[float]:
    """Taps a_0 ... a_3 of `a_0 + 2 Σ a_t cos(2π t ν)`, which is 1 / sinc² up to ν = `highest`."""
    at = torch.linspace(0.0, min(highest, 0.4), 200, dtype=torch.float64)
    step = torch.arange(_BEYOND + 1, dtype=torch.float64)
    waves = torch.cos(2.0 * math.pi * at[:, None] * step) * torch.where(step > 0, 2.0, 1.0)
    found = torch.linalg.lstsq(waves, 1.0 / torch.sinc(at)[:, None].square()).solution
    return [float(tap) for tap in found[:, 0]]


def _conjugated(values: Tensor, rows: Tensor) -> Tensor:
    if not values.is_complex():
        return values
    sign = torch.where(rows, -1.0, 1.0)[:, None]
    return torch.complex(values.real, values.imag * sign)
