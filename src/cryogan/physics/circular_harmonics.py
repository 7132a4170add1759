"""Images and central slices on rings of Fourier space, as circular harmonics.

A real image that vanishes outside a disc has a spectrum that is smooth on the scale of one Fourier
pixel, so that it is known from rings of integer radius r = 1 ... R, each sampled as densely as the
disc asks for. On ring r the spectrum is `f(r, θ) = Σ_m F(r, m) exp(i m θ)`; it has
`f(θ + π) = conj f(θ)`, so that half a ring is sampled and orders m >= 0 are kept. Turning the image
plane by ψ multiplies F(r, m) by `exp(i m ψ)`.

Inner products of images become weighted sums over coefficients:
`Σ_x p(x) a(x) = Σ_(r,m) w(r, m) Re(conj P(r, m) A(r, m))`, without the images' means. This is exact
(to quadrature over rings) if the discs of p and a together are no wider than the box.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.physics.nonuniform import SpectrumSampler
from cryogan.physics.projection import sample_spectrum

_MARGIN = 8  # orders beyond the bandwidth of the disc's edge: Bessel functions fall off there


@dataclass(frozen=True)
class CircularHarmonics:
    """The rings of a box: which samples and orders there are.

    Attributes:
        box_size: D.
        rings: R; the finest is at R / D cycles per pixel.
        radius_px: images and volumes vanish beyond this distance from the origin.
        device: where the tensors below live.
    """

    box_size: int
    rings: int
    radius_px: float
    device: torch.device

    @cached_property
    def highest_orders(self) -> list[int]:
        """The highest order on each ring, an odd one, so that there are as many even as odd."""
        bandwidth = 2.0 * math.pi * self.radius_px / self.box_size
        rings = range(1, self.rings + 1)
        return [(math.ceil(bandwidth * ring) + min(_MARGIN, 2 + ring)) | 1 for ring in rings]

    def within(self, rings: int) -> "CircularHarmonics":
        """The first rings only; their coefficients and samples are the first of these."""
        return _harmonics(self.box_size, rings, self.radius_px, self.device)

    @cached_property
    def ring(self) -> Tensor:
        """(M,) ring of every coefficient, 1 ... R."""
        counts = torch.tensor(self.highest_orders) + 1
        return torch.repeat_interleave(torch.arange(1, self.rings + 1), counts).to(self.device)

    @cached_property
    def order(self) -> Tensor:
        """(M,) order m of every coefficient."""
        return torch.cat([torch.arange(top + 1) for top in self.highest_orders]).to(self.device)

    @cached_property
    def weight(self) -> Tensor:
        """(M,) w(r, m): area of the ring, twice for orders that stand for ± m, over D²."""
        double = torch.where(self.order > 0, 2.0, 1.0)
        return 2.0 * math.pi * self.ring * double / self.box_size**2

    @cached_property
    def ring_weight(self) -> Tensor:
        """(R,) area of every ring over D²."""
        ring = torch.arange(1, self.rings + 1, device=self.device)
        return 2.0 * math.pi * ring / self.box_size**2

    def angles(self, ring: int) -> Tensor:
        """(T,) angles in [0, π) at which ring `ring` is sampled."""
        count = self.highest_orders[ring - 1] + 2
        return torch.arange(count, device=self.device) * (math.pi / count)

    @cached_property
    def sample_ring(self) -> Tensor:
        """(N,) ring of every sample."""
        return torch.cat(
            [torch.full((top + 2,), r, device=self.device) for r, top in self._numbered()]
        )

    @cached_property
    def frequency(self) -> Tensor:
        """(N, 2) frequencies (kx, ky) of the samples, cycles per pixel."""
        angle = torch.cat([self.angles(r) for r in range(1, self.rings + 1)])
        unit = torch.stack((angle.cos(), angle.sin()), dim=-1)
        return unit * (self.sample_ring / self.box_size)[:, None]

    @cached_property
    def sample_weight(self) -> Tensor:
        """(N,) quadrature weights of samples: a ring's, shared among its samples."""
        counts = torch.tensor(self.highest_orders, device=self.device) + 2
        return (self.ring_weight / counts)[self.sample_ring - 1]

    def moving_back(self, shift_px: Tensor) -> Tensor:
        """(..., N) `exp(2πi k·s)`: samples times it are those of an image moved by -s (..., 2)."""
        phase = 2.0 * math.pi * shift_px @ self.frequency.T
        return torch.complex(phase.cos(), phase.sin())

    def _numbered(self) -> list[tuple[int, int]]:
        return list(enumerate(self.highest_orders, start=1))

    # f(θ + π) = conj f(θ): even orders have the real parts of samples, odd ones the imaginary

    @cached_property
    def _to_orders(self) -> list[tuple[Tensor, Tensor]]:
        """Per ring, (T, orders): from these parts of samples to even and to odd orders.

        There are half as many of either, with a real and an imaginary part each.
        """
        matrices = []
        for ring, top in self._numbered():
            angle, order = self.angles(ring), torch.arange(top + 1, device=self.device)
            phase = angle[:, None] * order
            cosine, sine = phase.cos() / len(angle), phase.sin() / len(angle)
            even = torch.stack((cosine[:, ::2], -sine[:, ::2]), dim=2)
            odd = torch.stack((sine[:, 1::2], cosine[:, 1::2]), dim=2)
            matrices.append((even.flatten(1), odd.flatten(1)))
        return matrices

    @cached_property
    def _to_samples(self) -> list[tuple[Tensor, Tensor]]:
        """Per ring, (orders, T): from even and from odd orders to these parts of samples."""
        matrices = []
        for even, odd in self._to_orders:
            count = len(even)
            twice = torch.full((even.shape[1],), 2.0 * count, device=self.device)
            twice[:2] = count  # order 0
            matrices.append(((even * twice).T.contiguous(), 2.0 * count * odd.T.contiguous()))
        return matrices

    def to_orders(self, samples: Tensor) -> Tensor:
        """Coefficients (n, M) of samples (n, N)."""
        parts = samples.real.contiguous(), samples.imag.contiguous()
        shape = len(samples), len(self.order) // 2, 2
        pairs = [mine.view(shape) for mine in _by_ring(parts, self._to_orders)]
        return torch.view_as_complex(torch.stack(pairs, dim=2).flatten(1, 2))

    def to_samples(self, coefficients: Tensor) -> Tensor:
        """Samples (n, N) of coefficients (n, M)."""
        shape = len(coefficients), coefficients.shape[1] // 2, 2, 2
        values = torch.view_as_real(coefficients).reshape(shape)
        parts = values[:, :, 0].flatten(1), values[:, :, 1].flatten(1)
        return torch.complex(*_by_ring(parts, self._to_samples))

    @cached_property
    def _sampler(self) -> SpectrumSampler:
        """Reads the samples of images inside the disc."""
        radius = fourier.radius_grid(self.box_size, 2, self.device)
        return SpectrumSampler.of((radius <= self.radius_px).float(), self.frequency)

    def of_images(self, images: Tensor) -> Tensor:
        """Coefficients (n, M) of images (n, D, D); what lies outside the disc is not looked at."""
        return self.to_orders(self._sampler(images))

    @cached_property
    def _ring_means(self) -> Tensor:
        """(D², R) means of exp(-2πi k·x) over the rings: J0(2π r |x| / D)."""
        radius = fourier.radius_grid(self.box_size, 2, self.device).flatten()
        ring = torch.arange(1, self.rings + 1, device=self.device)
        phase = 2.0 * math.pi / self.box_size * radius[:, None] * ring
        means: Tensor = torch.special.bessel_j0(phase)
        return means

    def means(self, spectra: Tensor) -> Tensor:
        """Means (n, R) over the rings of half spectra (n, D, D // 2 + 1) of real images.

        Through their Fourier series. Means over shells of pixels would not do: the power of a
        CTF, which rises steeply at first, would be 20 % too large on the first rings.
        """
        return fourier.irfft(spectra, self.box_size).flatten(1) @ self._ring_means

    def slices(self, spectrum: Tensor, frame: Tensor) -> Tensor:
        """Coefficients (n, M) of central slices of a volume.

        Args:
            spectrum: from `physics.projection.volume_spectrum`.
            frame: (n, 3, 3) rotations.
        """
        k = torch.nn.functional.pad(self.frequency, (0, 1)) * spectrum.shape[-2]
        point = torch.einsum("nij,mj->nmi", frame, k)
        return self.to_orders(sample_spectrum(spectrum, point))

    def mirrored(self, coefficients: Tensor) -> Tensor:
        """Coefficients (..., M) of planes after half a turn about x: as seen from the other side.

        At angle θ they are what was at -θ, and a real image has f(θ + π) = conj f(θ).
        """
        sign = 1.0 - 2.0 * (self.order % 2)
        return coefficients.conj() * sign

    def turned(self, coefficients: Tensor, psi: Tensor) -> Tensor:
        """Coefficients (..., M) of planes turned by `psi` (...) radians: × exp(i m ψ)."""
        top = max(self.highest_orders)
        phase = psi[..., None] * torch.arange(top + 1, device=psi.device)
        turn = torch.complex(phase.cos(), phase.sin())
        return coefficients * torch.cat([turn[..., : m + 1] for m in self.highest_orders], dim=-1)


def _by_ring(
    parts: tuple[Tensor, Tensor], matrices: Sequence[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Both parts (n, ...), each times a matrix of its own for every ring."""
    found = []
    for part, own in zip(parts, zip(*matrices, strict=True), strict=True):
        rings = torch.split(part, [len(matrix) for matrix in own], dim=1)
        found.append(torch.cat([one @ matrix for one, matrix in zip(rings, own, strict=True)], 1))
    return found[0], found[1]


@lru_cache(maxsize=32)
def _harmonics(
    box_size: int, rings: int, radius_px: float, device: torch.device
) -> CircularHarmonics:
    return CircularHarmonics(box_size, rings, radius_px, device)
