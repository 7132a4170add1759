"""From a map back to the particles: where each image was taken from, and how sure that is."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import roma
import torch
from torch import Tensor

from cryogan.likelihood.config import AscentConfig, box_for, polar_for, search_for
from cryogan.likelihood.expectation import Level, log_evidence
from cryogan.likelihood.half_set import HalfSet
from cryogan.likelihood.landscape import Judged, Landscape, judge, sources_of
from cryogan.likelihood.views import Views, views
from cryogan.models.volume import rescale_volume
from cryogan.particles import Pose
from cryogan.physics.rotations import angle_between
from cryogan.symmetry import symmetry_matrices

_CHUNK = 1024
_NEAR = 3.0  # steps of the finest grid


@dataclass(frozen=True)
class Assignment:
    """Posteriors of n particles, summed up.

    Attributes:
        pose: mean pose of the posterior's highest peak.
        spread_deg: (n,) root mean square angle of the whole posterior to that pose, modulo the
            molecule's symmetry, with the size of the grid's cells: never below half its step.
        shift_spread_A: (n,) the same for shifts; with a cell's size only if shifts are searched.
        peak: (n,) posterior probability of that peak.
        log_likelihood: (n,) log of the mean likelihood over all poses and conformations, over that
            of noise alone.
        node: (n, L) posterior probability of each node of the landscape.
    """

    pose: Pose
    spread_deg: Tensor
    shift_spread_A: Tensor
    peak: Tensor
    log_likelihood: Tensor
    node: Tensor

    def scattered(self, index: Tensor, other: "Assignment") -> "Assignment":
        """With the particles of `index` replaced by those of `other`."""

        def put(mine: Tensor, theirs: Tensor) -> Tensor:
            mine = mine.clone()
            mine[index] = theirs
            return mine

        return Assignment(
            Pose(
                put(self.pose.rotation, other.pose.rotation),
                put(self.pose.shift_A, other.pose.shift_A),
            ),
            put(self.spread_deg, other.spread_deg),
            put(self.shift_spread_A, other.shift_spread_A),
            put(self.peak, other.peak),
            put(self.log_likelihood, other.log_likelihood),
            put(self.node, other.node),
        )


def unassigned(n: int, landscape: Landscape) -> Assignment:
    """n particles before anything is known of them."""
    pose = Pose(torch.eye(3).repeat(n, 1, 1), torch.zeros(n, 2))
    zero = torch.zeros(n)
    return Assignment(pose, zero, zero, zero, zero, landscape.prior.repeat(n, 1))


def levels_of_assignment(
    rings: int, config: AscentConfig, box_size: int
) -> tuple[int, list[Level]]:
    """The box, and a search that ends one level finer than a map needs."""
    size = box_for(rings, box_size)
    rings = min(rings, size // 2 - 1)
    polar = polar_for(size, rings, config, torch.device("cpu"))
    levels = search_for(polar, config)
    last = levels[-1]
    finer = replace(
        last,
        nside=2 * last.nside,
        rings=rings,
        keep=8,
        most=64,
        shift_step_px=last.shift_step_px / 2,
    )
    return size, [*levels, finer]


def assign(
    half: HalfSet,
    components: Tensor,
    landscape: Landscape,
    rings: int,
    config: AscentConfig,
    device: torch.device,
    show: Callable[[int], None] = lambda count: None,
) -> Assignment:
    """Assign poses, and conformations if there are any, to all particles of a set.

    Args:
        half: the particles and what was measured on them.
        components: (C, D, D, D) of their field of view, in their units (`HalfSet.in_units`).
        landscape: the conformations, of C components.
        rings: the band of the maps that is believed, in Fourier pixels.
        config: mask, shifts and symmetry.
        device: where it is computed.
        show: called with the number of particles just done.
    """
    size, levels = levels_of_assignment(rings, config, half.particles.box_size)
    polar = polar_for(size, levels[-1].rings, config, device)
    pixel_size_A = half.stack(size).pixel_size_A
    sources = sources_of(rescale_volume(components.to(device), size), landscape, polar, levels)
    operators = symmetry_matrices(config.symmetry).to(device)
    searched_px = levels[-1].shift_step_px if levels[-1].shift_steps else 0.0
    result = unassigned(len(half), landscape)
    for part in torch.split(torch.arange(len(half)), _CHUNK):
        judged = judge(half.observed(part, polar, device), sources)
        finest = views(levels[-1].nside, device)
        found = _summary(judged, levels, finest, operators, searched_px, pixel_size_A)
        result = result.scattered(part, found)
        show(len(part))
    return result


def _summary(
    judged: Judged,
    levels: Sequence[Level],
    finest: Views,
    operators: Tensor,
    shift_step_px: float,
    pixel_size_A: float,
) -> Assignment:
    cells = judged.cells.best(256)
    weight = torch.softmax(cells.score, dim=1)
    rotation = finest.frame[cells.view] @ _about_z(cells.psi)  # (n, K, 3, 3)
    mode = rotation[:, :1]
    # every pose in the copy (R and S R look alike) that is nearest to the best one
    copies = operators[:, None, None] @ rotation
    nearest = angle_between(copies, mode).argmin(dim=0)
    rotation = copies.movedim(0, -3).gather(
        -3, nearest[..., None, None, None].expand(*nearest.shape, 1, 3, 3)
    )[..., 0, :, :]
    near = angle_between(rotation, mode) < math.degrees(_NEAR * finest.spacing)
    close = torch.where(near, weight, 0.0)
    peak = close.sum(dim=1)
    close = close / peak[:, None]
    mean = roma.special_procrustes((close[..., None, None] * rotation).sum(dim=1))
    shift_px = (close[..., None] * cells.shift_px).sum(dim=1)
    angle = angle_between(rotation, mean[:, None])
    cell_deg = math.degrees(finest.spacing) / 2.0  # a direction ± s / √6, an angle ± s / √12
    apart = (cells.shift_px - shift_px[:, None]).square().sum(-1)
    cell_px2 = shift_step_px**2 / 6.0  # ± step / √12 along x and y
    return Assignment(
        Pose(mean.cpu(), (shift_px * pixel_size_A).cpu()),
        ((weight * angle.square()).sum(1) + cell_deg**2).sqrt().cpu(),
        (((weight * apart).sum(1) + cell_px2).sqrt() * pixel_size_A).cpu(),
        peak.cpu(),
        log_evidence(judged.cells, levels).cpu(),
        judged.node.cpu(),
    )


def _about_z(psi: Tensor) -> Tensor:
    cosine, sine, zero = psi.cos(), psi.sin(), torch.zeros_like(psi)
    rows = (cosine, -sine, zero, sine, cosine, zero, zero, zero, zero + 1.0)
    return torch.stack(rows, dim=-1).view(*psi.shape, 3, 3)
