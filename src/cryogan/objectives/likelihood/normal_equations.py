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
from cryogan.objectives.likelihood.observations import HeldObservations, Observations, moved_to
from cryogan.objectives.likelihood.orientation_grid import OrientationGrid, orientation_grid
from cryogan.objectives.likelihood.parallels import northern_parallels
from cryogan.objectives.likelihood.pose_search import Cells
from cryogan.physics.circular_harmonics import CircularHarmonics
from cryogan.physics.cylindrical_spectrum import cylindrical_grid
from cryogan.physics.projection import add_sample_adjoint, volume_spectrum_adjoint

_COEFFICIENTS_AT_ONCE = 4_000_000  # of images
_POINTS_AT_ONCE = 5_000_000  # of slices
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

    They hold for volumes in the ball that the box holds: slices of a whole level are put back
    parallel by parallel (`physics.cylindrical_spectrum`), those of a symmetry or of other
    directions one by one, for the whole box.

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
    back: _SlicesOfFrames | _SlicesOfParallels
    if grid.opposite is None or len(operators) > 1:
        back = _SlicesOfFrames(count, grid, operators, harmonics, padding)
    else:
        back = _SlicesOfParallels(count, grid, harmonics, padding)
    ordered = _Ordered.of(poses, grid, back.place)
    parents, parent = torch.unique(ordered.direction // _merged(grid), return_inverse=True)
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


def _merged(grid: OrientationGrid) -> int:
    """How many directions share a slice of the kernel: weights vary slowly from one to another."""
    return 4 if grid.nside >= 16 else 1


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


class _SlicesOfFrames:
    """Slices put back one by one, at all equivalents of a symmetry."""

    def __init__(
        self,
        count: int,
        grid: OrientationGrid,
        operators: Tensor,
        harmonics: CircularHarmonics,
        padding: float,
    ) -> None:
        device = grid.frame.device
        self.place = torch.arange(len(grid), device=device)
        if grid.opposite is not None:
            self.place[self.place > grid.opposite] = -1
        self.grid, self.operators, self.harmonics = grid, operators, harmonics
        self.padding = padding
        self.k = torch.nn.functional.pad(harmonics.frequency, (0, 1))
        self.total = _Adjoint(count, harmonics.box_size, padding, device)

    def groups(self, used: Tensor) -> Sequence[Tensor]:
        """Places (V',) that are put back together."""
        return torch.split(used, max(1, _POINTS_AT_ONCE // len(self.k)))

    def add(self, plane: Tensor, group: Tensor) -> None:
        """Coefficients (C, n, M) of a group (n,)."""
        weight = self.harmonics.sample_weight
        samples = [self.harmonics.to_samples(values) * weight for values in plane]
        self.total.add(samples, self.operators, self.grid.frame[group], self.k)

    def finish(self) -> Tensor:
        """(C, D, D, D); nothing can be added any more."""
        return self.total.finish()

    def kernel(self, weight: Tensor, directions: Tensor) -> Tensor:
        """Kernels of weights (C (C + 1) / 2, V', R) on the rings of slices.

        Args:
            weight: of every pair.
            directions: (V',) their numbers, divided by how many are merged.
        """
        grid, harmonics, size = self.grid, self.harmonics, 2 * self.harmonics.box_size
        if _merged(grid) > 1:
            grid = orientation_grid(grid.nside // 2, grid.frame.device)
        padding = self.padding / 2 + 0.5
        total = _Adjoint(len(weight), size, padding, grid.frame.device, parts=1)
        rows = torch.arange(len(directions), device=directions.device)
        for part in torch.split(rows, max(1, _POINTS_AT_ONCE // len(self.k))):
            samples = [
                values[part][:, harmonics.sample_ring - 1] * harmonics.sample_weight
                for values in weight
            ]
            total.add(samples, self.operators, grid.frame[directions[part]], self.k)
        return total.finish()


class _SlicesOfParallels:
    """Slices put back parallel by parallel."""

    def __init__(
        self, count: int, grid: OrientationGrid, harmonics: CircularHarmonics, padding: float
    ) -> None:
        device = grid.frame.device
        self.parallels = northern_parallels(grid.nside, device)
        northern = torch.cat([each.direction for each in self.parallels])
        self.place = torch.full((len(grid),), -1, device=device)
        self.place[northern] = torch.arange(len(northern), device=device)
        self.ends = torch.tensor([each.parallel.count for each in self.parallels]).cumsum(0)
        self.level, self.harmonics, self.padding = grid, harmonics, padding
        size = harmonics.box_size
        self.grid = cylindrical_grid(size, harmonics.rings, size / 2, padding, device)
        self.totals = [self.grid.zeros() for _ in range(count)]

    def groups(self, used: Tensor) -> Sequence[Tensor]:
        """Places (V',) of each parallel of which there are some."""
        parts = torch.tensor_split(used, torch.searchsorted(used, self.ends[:-1].to(used)).cpu())
        return [part for part in parts if len(part)]

    def add(self, plane: Tensor, group: Tensor) -> None:
        """Coefficients (C, n, M) of a group (n,)."""
        number = int(torch.searchsorted(self.ends, int(group[0]), right=True))
        each, harmonics = self.parallels[number], self.harmonics
        column = group - (int(self.ends[number]) - each.parallel.count)
        for total, values in zip(self.totals, plane, strict=True):
            turned = harmonics.turned(values, -each.psi[column])
            samples = harmonics.to_samples(turned) * harmonics.sample_weight
            every = samples.new_zeros(samples.shape[1], each.parallel.count)
            every[:, column] = samples.T
            self.grid.add_slices_adjoint(total, every, harmonics.frequency, each.parallel)

    def finish(self) -> Tensor:
        """(C, D, D, D); nothing can be added any more."""
        return torch.stack([self.grid.of_volume_adjoint(total) for total in self.totals])

    def kernel(self, weight: Tensor, directions: Tensor) -> Tensor:
        """As of `_SlicesOfFrames`."""
        level, harmonics = self.level, self.harmonics
        nside, device = level.nside // (2 if _merged(level) > 1 else 1), directions.device
        size, padding = 2 * harmonics.box_size, self.padding / 2 + 0.5
        grid = cylindrical_grid(size, 2 * harmonics.rings, size / 2, padding, device)
        of_level = weight.new_zeros(len(weight), 12 * nside**2, harmonics.rings)
        of_level[:, directions] = weight
        totals = [grid.zeros(real=True) for _ in weight]
        for each in northern_parallels(nside, device):
            for total, values in zip(totals, of_level[:, each.direction], strict=True):
                if values.any():
                    samples = values.T[harmonics.sample_ring - 1]
                    samples = samples * harmonics.sample_weight[:, None]
                    grid.add_slices_adjoint(total, samples, harmonics.frequency, each.parallel)
        return torch.stack([grid.of_volume_adjoint(total) for total in totals])


class _Adjoint:
    """Sums of `Re Σ conj(values) exp(...)` over points: the adjoint of reading slices."""

    def __init__(
        self, count: int, box_size: int, padding: float, device: torch.device, parts: int = 2
    ) -> None:
        """Of complex values, or of real ones (`parts` 1)."""
        self.box_size, self.size = box_size, 2 * round(box_size * padding / 2)
        shape = (parts, self.size, self.size, self.size // 2 + 1)
        self.totals = [torch.zeros(shape, device=device) for _ in range(count)]

    def add(
        self, sums: Sequence[Tensor], operators: Tensor, frame: Tensor, frequency: Tensor
    ) -> None:
        """Values (n, m) of each sum at frequencies (m, 3), in cycles per pixel, of n frames."""
        for operator in operators.to(frame):
            point = torch.einsum("nij,mj->nmi", operator @ frame, frequency * self.size)
            for total, values in zip(self.totals, sums, strict=True):
                add_sample_adjoint(total, values, point)

    def finish(self) -> Tensor:
        """(count, D, D, D); nothing can be added any more."""
        sums = []
        while self.totals:
            total = self.totals.pop(0)
            spectrum = total[0] if len(total) == 1 else torch.complex(total[0], total[1])
            del total  # may be most of the memory
            sums.append(volume_spectrum_adjoint(spectrum, self.box_size))
        return torch.stack(sums)


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
