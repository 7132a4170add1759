"""The map that explains images best, given where each may come from.

Given posteriors γ, the expected log-likelihood is quadratic in the map V:
`Re⟨V, s⟩ - ½ ⟨V, k * V⟩`, with s the sum of γ A put back on their slices, and k * V a convolution
(slices at fixed frequencies do not move with V). Its kernel k is the sum of γ B over slices, made
once on twice the box, and the system is solved by conjugate gradients with a Gaussian prior on
every shell. No density is divided by another, and nothing depends on how even the views are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.likelihood.expectation import Cells, Observations, moved
from cryogan.likelihood.polar import Polar
from cryogan.likelihood.views import Views
from cryogan.likelihood.views import views as views_of
from cryogan.physics.projection import sample_spectrum, volume_spectrum

_VIEWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Posterior:
    """Where n images come from: E weighted poses of them all, as flat lists.

    Attributes:
        image: (E,) int64.
        view: (E,) int64, number of the direction at the finest level.
        psi: (E,) radians.
        shift_px: (E, 2) where the particle is (x, y).
        weight: (E,) posterior probability; sums to one over each image's poses.
    """

    image: Tensor
    view: Tensor
    psi: Tensor
    shift_px: Tensor
    weight: Tensor


def posterior(cells: Cells, least: float = 3e-3, sharpness: float = 1.0) -> Posterior:
    """Probabilities of cells, all alike before the image was seen, to the power `sharpness`.

    Those below `least` go.
    """
    weight = torch.softmax(sharpness * cells.score, dim=1)
    chosen = weight >= least
    weight = torch.where(chosen, weight, 0.0)
    weight = weight / weight.sum(dim=1, keepdim=True)
    image = torch.arange(len(weight), device=weight.device)[:, None].expand_as(weight)
    return Posterior(
        image[chosen],
        cells.view[chosen],
        cells.psi[chosen],
        cells.shift_px[chosen],
        weight[chosen],
    )


@dataclass(frozen=True)
class NormalEquations:
    """What images say about a map: `kernel * V = backprojection`.

    Attributes:
        backprojection: (D, D, D).
        kernel: (2D, 2D, 2D), origin at voxel D; a convolution kernel for lags below D.
    """

    backprojection: Tensor
    kernel: Tensor

    def __add__(self, other: "NormalEquations") -> "NormalEquations":
        return NormalEquations(
            self.backprojection + other.backprojection, self.kernel + other.kernel
        )


def normal_equations(
    observations: Observations,
    poses: Posterior,
    views: Views,
    polar: Polar,
    *,
    padding: float = 2.0,
) -> NormalEquations:
    """Sums over images and poses, direction by direction."""
    device = observations.a.device
    size = polar.box_size
    merge = 4 if views.nside >= 32 else 1
    coarser = views_of(views.nside // 2, device) if merge == 4 else views
    by_view = poses.view.argsort()
    view, image = poses.view[by_view], poses.image[by_view]
    psi, weight, shift_px = poses.psi[by_view], poses.weight[by_view], poses.shift_px[by_view]
    back = _Adjoint(size, padding, device)
    kernel = _Adjoint(2 * size, padding / 2 + 0.5, device)
    k = torch.nn.functional.pad(polar.frequency, (0, 1))
    used = torch.unique(view)
    for group in used.split(_VIEWS_AT_ONCE):
        first = int(torch.searchsorted(view, group[0]))
        last = int(torch.searchsorted(view, group[-1], right=True))
        row = torch.searchsorted(group, view[first:last])
        plane = torch.zeros(len(group), len(polar.order), dtype=observations.a.dtype, device=device)
        parents, parent = (group // merge).unique(return_inverse=True)
        power = torch.zeros(len(parents), polar.rings, device=device)
        for part in torch.split(torch.arange(first, last, device=device), 4096):
            at = row[part - first]
            centred = moved(observations.a[image[part]], shift_px[part, None], polar)[:, 0]
            turned = polar.turned(centred, -psi[part])
            plane.index_add_(0, at, turned * weight[part, None])
            power.index_add_(0, parent[at], observations.b[image[part]] * weight[part, None])
        samples = polar.to_samples(plane / polar.weight) * polar.sample_weight
        power = (power / polar.ring_weight)[:, polar.sample_ring - 1] * polar.sample_weight
        back.add(samples, torch.einsum("nij,mj->nmi", views.frame[group], k))
        # weights vary slowly from slice to slice: a coarser set of directions is enough
        point = torch.einsum("nij,mj->nmi", coarser.frame[parents], k)
        kernel.add(power.to(samples.dtype), point)
    return NormalEquations(back.finish(), kernel.finish())


class _Adjoint:
    """Sum of `Re Σ conj(values) exp(...)` over points: the adjoint of reading slices."""

    def __init__(self, box_size: int, padding: float, device: torch.device) -> None:
        self.volume = torch.zeros((box_size,) * 3, device=device, requires_grad=True)
        self.padding = padding
        with torch.no_grad():
            zero = volume_spectrum(self.volume, padding)
        self.total = torch.zeros_like(zero)

    def add(self, values: Tensor, point: Tensor) -> None:
        """Values (n, m) at frequencies (n, m, 3) in cycles per pixel."""
        spectrum = torch.zeros_like(self.total).requires_grad_()
        read = sample_spectrum(spectrum, point * spectrum.shape[-2])
        (gradient,) = torch.autograd.grad((read.conj() * values).real.sum(), spectrum)
        self.total += gradient

    def finish(self) -> Tensor:
        spectrum = volume_spectrum(self.volume, self.padding)
        (volume,) = torch.autograd.grad(spectrum, self.volume, self.total)
        return volume


def shell_weight(equations: NormalEquations) -> Tensor:
    """(D // 2 + 1,) mean weight of a squared coefficient in the system, shell by shell."""
    size = equations.backprojection.shape[-1]
    near = fourier.crop_or_pad(equations.kernel, size, 3)
    return fourier.shell_mean(fourier.rfft(near, 3).real, size, 3).clamp_min(1e-20) / size**3


def solve(
    equations: NormalEquations,
    prior: Tensor,
    mask: Tensor,
    start: Tensor,
    iterations: int = 12,
) -> Tensor:
    """The most probable map: conjugate gradients on `(k * + prior⁻¹) V = s` inside a mask.

    Args:
        equations: what the images say.
        prior: (D // 2 + 1,) expected |V|² of (unnormalised) Fourier coefficients in each shell;
            where it is zero the map has nothing.
        mask: (D, D, D) soft mask.
        start: (D, D, D) first guess.
        iterations: of conjugate gradients.
    """
    size = mask.shape[-1]
    shells = fourier.shell_index(size, 3, mask.device)
    inside = (shells <= size // 2) & (prior[shells.clamp_max(size // 2)] > 0)
    inverse = torch.where(inside, 1.0 / prior[shells.clamp_max(size // 2)].clamp_min(1e-30), 0.0)
    transfer = fourier.rfft(equations.kernel, 3)
    voxels = size**3  # the prior is ½ Σ |F|² / prior over all coefficients F
    weight = shell_weight(equations)[shells.clamp_max(size // 2)]
    scale = 1.0 / (voxels * (weight + inverse))  # the preconditioner

    def limited(volume: Tensor, gain: Tensor) -> Tensor:
        return fourier.irfft(fourier.rfft(volume, 3) * gain * inside, size, 3)

    def weigh(volume: Tensor) -> Tensor:
        molecule = limited(volume, torch.ones_like(scale)) * mask
        padded = fourier.crop_or_pad(molecule, 2 * size, 3)
        data = fourier.irfft(fourier.rfft(padded, 3) * transfer, 2 * size, 3)
        result = (fourier.crop_or_pad(data, size, 3) + limited(molecule, voxels * inverse)) * mask
        return limited(result, torch.ones_like(scale))

    x = limited(start, torch.ones_like(scale))
    residual = limited(equations.backprojection * mask, torch.ones_like(scale)) - weigh(x)
    z = limited(residual, scale)
    direction = z
    rho = (residual * z).sum()
    for _ in range(iterations):
        moved = weigh(direction)
        step = rho / (direction * moved).sum().clamp_min(1e-30)
        x = x + step * direction
        residual = residual - step * moved
        z = limited(residual, scale)
        rho, before = (residual * z).sum(), rho
        direction = z + (rho / before.clamp_min(1e-30)) * direction
    return limited(x, torch.ones_like(scale)) * mask
