"""Normal equations: the map, or basis volumes, of highest posterior given the poses of images.

Image i shows `Σ_k φ_k V_k`, its coefficients φ being known up to a posterior like its pose (one
structure: one basis volume, coefficient 1). Given posteriors γ, the expected log-likelihood is
quadratic in the basis volumes: `Σ_k Re⟨V_k, s_k⟩ - ½ Σ_kl ⟨V_k, k_kl * V_l⟩`, with s_k the sum of
γ φ_k A put back on their slices, and k_kl * V a convolution (slices at fixed frequencies do not
move with V).
Its kernel k_kl is the sum of γ φ_k φ_l B over slices, made once on twice the box, and the system
is solved by conjugate gradients with a Gaussian prior on every shell. No density is divided by
another, and nothing depends on how uniform the orientations are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.objectives.likelihood.backprojection import (
    Backprojection,
    SlicesOfFrames,
    SlicesOfParallels,
    merged_directions,
)
from cryogan.objectives.likelihood.observations import HeldObservations, Observations, moved_to
from cryogan.objectives.likelihood.orientation_grid import OrientationGrid
from cryogan.objectives.likelihood.pose_search import Cells
from cryogan.physics.circular_harmonics import CircularHarmonics

_COEFFICIENTS_AT_ONCE = 4_000_000  # of images
_ROUNDING = 1e-7  # of the strongest shell's weight
_STRONGEST_PRIOR = 1e7  # times the largest weight of the data


def pairs(basis_volumes: int) -> tuple[Tensor, Tensor]:
    """Numbers k <= l of the C (C + 1) / 2 pairs of basis volumes, in the order of all lists."""
    first, second = torch.triu_indices(basis_volumes, basis_volumes)
    return first, second


@dataclass(frozen=True)
class WeightedPoses:
    """Weighted poses of n images: E of them all, as flat lists.

    Attributes:
        image: (E,) int64.
        direction: (E,) int64, number of the direction at the finest level.
        psi: (E,) radians.
        shift_px: (E, 2) where the particle is (x, y).
        coefficient: (E, C) posterior probability of the pose times the mean coefficients φ_k
            there; the first is 1, so that the first column sums to one over each image's poses.
        product: (E, C (C + 1) / 2) the same of φ_k φ_l, for `pairs(C)`.
    """

    image: Tensor
    direction: Tensor
    psi: Tensor
    shift_px: Tensor
    coefficient: Tensor
    product: Tensor


def weighted_poses(
    cells: Cells, coefficient: Tensor, product: Tensor, mass: float = 0.999
) -> WeightedPoses:
    """Cells with their (n, K, C) coefficients and (n, K, C (C + 1) / 2) products.

    Of each image the most probable cells are kept, as few as hold together `mass` of its
    probability; they share the rest. An image of a flat posterior keeps nearly all.
    """
    weight = coefficient[..., 0]
    ordered, order = weight.sort(dim=1, descending=True)
    before = ordered.cumsum(dim=1) - ordered
    kept = (before < mass * weight.sum(dim=1, keepdim=True)) & (ordered > 0)
    chosen = torch.zeros_like(kept).scatter(1, order, kept)
    share = weight.sum(dim=1) / torch.where(chosen, weight, 0.0).sum(dim=1)
    image = torch.arange(len(weight), device=weight.device)[:, None].expand_as(weight)
    more = share[:, None, None]
    return WeightedPoses(
        image[chosen],
        cells.direction[chosen],
        cells.psi[chosen],
        cells.shift_px[chosen],
        (coefficient * more)[chosen],
        (product * more)[chosen],
    )


def together(parts: Sequence[WeightedPoses], apart: int) -> WeightedPoses:
    """Posteriors of several sets of images, each counted from `apart` after the one before."""

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    image = torch.cat([part.image + number * apart for number, part in enumerate(parts)])
    return WeightedPoses(image, *(joined(field.name) for field in fields(WeightedPoses)[1:]))


@dataclass(frozen=True)
class NormalEquations:
    """Normal equations of C basis volumes: `Σ_l kernel_kl * V_l = backprojection_k`.

    Attributes:
        backprojection: (C, D, D, D).
        kernel: (C (C + 1) / 2, 2D, 2D, 2D) for `pairs(C)`, origin at voxel D; convolution kernels
            for lags below D.
    """

    backprojection: Tensor
    kernel: Tensor

    def __add__(self, other: "NormalEquations") -> "NormalEquations":
        return NormalEquations(
            self.backprojection + other.backprojection, self.kernel + other.kernel
        )


def normal_equations(
    observations: Observations | HeldObservations,
    poses: WeightedPoses,
    grid: OrientationGrid,
    harmonics: CircularHarmonics,
    *,
    operators: Tensor | None = None,
    padding: float = 2.0,
) -> NormalEquations:
    """Sums over images and poses, direction by direction.

    They hold for volumes in the ball that the box holds (`backprojection`).

    Args:
        observations: n images.
        poses: of them.
        grid: the directions that poses name.
        harmonics: the rings.
        operators: (G, 3, 3) symmetry; every image counts at all G equivalents of its pose, so that
            a coefficient has the weight of all images that hold it, against a prior that all its
            equivalents obey. None for no symmetry.
        padding: of the Fourier space that is summed in.
    """
    device = observations.b.device
    operators = torch.eye(3)[None] if operators is None else operators
    count = poses.coefficient.shape[1]
    back: Backprojection
    if grid.opposite is None or len(operators) > 1:
        back = SlicesOfFrames(count, grid, operators, harmonics, padding)
    else:
        back = SlicesOfParallels(count, grid, harmonics, padding)
    ordered = _Ordered.of(poses, grid, back.place)
    parents, parent = torch.unique(
        ordered.direction // merged_directions(grid), return_inverse=True
    )
    power = observations.b.new_zeros(poses.product.shape[1], len(parents), harmonics.rings)
    at_once = max(256, _COEFFICIENTS_AT_ONCE // len(harmonics.order))
    for group in back.groups(torch.unique(ordered.place)):
        first = int(torch.searchsorted(ordered.place, group[0]))
        last = int(torch.searchsorted(ordered.place, group[-1], right=True))
        row = torch.searchsorted(group, ordered.place[first:last])
        plane = torch.zeros(
            count, len(group), len(harmonics.order), dtype=torch.complex64, device=device
        )
        for part in torch.split(torch.arange(first, last, device=device), at_once):
            at, image = row[part - first], ordered.image[part]
            needed, which = torch.unique(image, return_inverse=True)
            mine = observations.of_images(needed)
            centred, place = moved_to(mine, which, ordered.shift_px[part], harmonics)
            turned = harmonics.turned(centred[place], -ordered.psi[part])
            behind = ordered.mirrored[part]
            turned[behind] = harmonics.mirrored(turned[behind])
            for number, share in enumerate(ordered.coefficient[:, part, None]):
                plane[number].index_add_(0, at, turned * share)
            b = observations.b[image]
            for pair, share in enumerate(ordered.product[:, part, None]):
                power[pair].index_add_(0, parent[part], b * share)
        back.add(plane / harmonics.weight, group)
    backprojection = back.finish()
    return NormalEquations(backprojection, back.kernel(power / harmonics.ring_weight, parents))


@dataclass(frozen=True)
class _Ordered:
    """Weighted poses, all seen from one side, in the order in which slices are put back.

    Attributes:
        place: (E,) of the direction in that order.
        direction: (E,).
        mirrored: (E,) whether the image is seen from the other side.
        image, psi, shift_px: (E, ...) as in `WeightedPoses`.
        coefficient: (C, E).
        product: (C (C + 1) / 2, E).
    """

    place: Tensor
    direction: Tensor
    mirrored: Tensor
    image: Tensor
    psi: Tensor
    shift_px: Tensor
    coefficient: Tensor
    product: Tensor

    @classmethod
    def of(cls, poses: WeightedPoses, grid: OrientationGrid, place: Tensor) -> "_Ordered":
        """In the order of `place` (V,); directions that have none (-1) are seen from behind."""
        direction = poses.direction
        mirrored = place[direction] < 0
        if grid.opposite is not None:
            direction = torch.where(mirrored, grid.opposite[direction], direction)
        order = place[direction].argsort()
        return cls(
            place[direction][order],
            direction[order],
            mirrored[order],
            poses.image[order],
            poses.psi[order],
            poses.shift_px[order],
            poses.coefficient[order].T,
            poses.product[order].T,
        )


def shell_weight(equations: NormalEquations) -> Tensor:
    """(C, D // 2 + 1) mean weight of a squared coefficient in the system, shell by shell.

    What the quadratic form says of plane waves in the box: lags count by how often they occur in
    it. (A kernel that is merely cut lets the strong shells leak into the weak, with either sign.)
    Weights below a ten-millionth of the strongest shell's are rounding, of either sign too, and
    count as that much.
    """
    size = equations.backprojection.shape[-1]
    first, second = pairs(len(equations.backprojection))
    own = equations.kernel[(first == second).to(equations.kernel.device)]
    lag = torch.arange(-size, size, device=own.device)
    for axis in (-3, -2, -1):
        often = (1.0 - lag.abs() / size).view(-1, *[1] * (-1 - axis))
        own = torch.stack(torch.split(own * often, size, axis)).sum(0)
    weight = torch.fft.rfftn(own, dim=(-3, -2, -1)).real
    found = fourier.shell_mean(weight, size, 3) / size**3
    return found.clamp_min(1e-20).maximum(_ROUNDING * found.amax(dim=-1, keepdim=True))


def solve(
    equations: NormalEquations,
    prior: Tensor,
    mask: Tensor,
    start: Tensor,
    iterations: int = 12,
) -> Tensor:
    """The most probable maps: conjugate gradients on `(k * + prior⁻¹) V = s` inside a mask.

    Args:
        equations: of the images.
        prior: (C, D // 2 + 1) expected |V|² of (unnormalised) Fourier coefficients in each shell;
            where it is zero the map has nothing.
        mask: (D, D, D) soft mask.
        start: (C, D, D, D) first guess.
        iterations: of conjugate gradients.
    """
    size = mask.shape[-1]
    shells = fourier.shell_index(size, 3, mask.device)
    at = shells.clamp_max(size // 2)
    inside = (shells <= size // 2) & (prior[:, at] > 0)
    weight = shell_weight(equations)
    most = _STRONGEST_PRIOR * weight.max()  # float32 would not hold what is beyond
    inverse = torch.where(inside, (1.0 / prior[:, at].clamp_min(1e-30)).clamp_max(most), 0.0)
    transfer = fourier.rfft(equations.kernel, 3).real  # lags of both signs have the same weight
    first, second = pairs(len(start))
    voxels = size**3  # the prior is ½ Σ |F|² / prior over all coefficients F
    scale = 1.0 / (voxels * (weight[:, at] + inverse))  # the preconditioner

    def limited(volume: Tensor, gain: Tensor) -> Tensor:
        return fourier.irfft(fourier.rfft(volume, 3) * gain * inside, size, 3)

    def weigh(volume: Tensor) -> Tensor:
        molecule = limited(volume, torch.ones_like(scale)) * mask
        padded = fourier.rfft_of_padded(molecule, 2 * size)
        total = torch.zeros_like(padded)
        for k, other, gain in zip(first.tolist(), second.tolist(), transfer, strict=True):
            total[k] += gain * padded[other]
            if other != k:
                total[other] += gain * padded[k]
        data = fourier.irfft_cropped(total, 2 * size, size)
        result = (data + limited(molecule, voxels * inverse)) * mask
        return limited(result, torch.ones_like(scale))

    x = limited(start, torch.ones_like(scale))
    residual = limited(equations.backprojection * mask, torch.ones_like(scale)) - weigh(x)
    z = limited(residual, scale)
    direction = z
    rho = (residual * z).sum()
    for _ in range(iterations):
        moved = weigh(direction)
        curvature = (direction * moved).sum()
        if float(curvature) <= 0.0:  # where there is next to no signal, of rounding
            break
        step = rho / curvature
        x = x + step * direction
        residual = residual - step * moved
        z = limited(residual, scale)
        rho, before = (residual * z).sum(), rho
        direction = z + (rho / before.clamp_min(1e-30)) * direction
    return limited(x, torch.ones_like(scale)) * mask
