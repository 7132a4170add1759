"""A map in parts, and states that lack some of them: an assembly of which no model is at hand."""

import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.simulation.molecule_settings import Parts

_DENSE = 1.0  # standard deviations above the mean: voxels that belong to the molecule
_ITERATIONS = 50


def parts_of_map(volume: Tensor, pixel_size_A: float, parts: Parts) -> Tensor:
    """(count, D, D, D) maps whose sum is the map (D, D, D).

    The dense voxels are divided by k-means (Lloyd 1982), weighted by density; a voxel belongs to
    the nearest centres, softly within about `edge_A` of a boundary. Parts are numbered from the
    middle of the molecule outwards. Nothing is random.

    Raises:
        InputError: the map has fewer dense voxels than parts.
    """
    size = volume.shape[-1]
    axis = (torch.arange(size, dtype=torch.float64) - size // 2) * pixel_size_A
    place = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    dense = volume > volume.mean() + _DENSE * volume.std()
    points, weight = place[dense], volume[dense].double()
    if len(points) < parts.count:
        raise InputError(
            f"The map has {len(points)} voxels of density and cannot be divided into "
            f"{parts.count} parts; give fewer, or a larger map."
        )
    middle = (weight[:, None] * points).sum(0) / weight.sum()
    centres = _centres(points, weight, middle, parts.count)
    distance = torch.cdist(centres, centres).fill_diagonal_(torch.inf).amin(dim=1).mean()
    scale = 2.0 * parts.edge_A * float(distance) if parts.count > 1 else 1.0
    square = torch.cdist(place.flatten(0, 2), centres).square()
    share = torch.softmax(-square / scale, dim=1).T.view(-1, size, size, size)
    return share.to(volume) * volume


def _centres(points: Tensor, weight: Tensor, middle: Tensor, count: int) -> Tensor:
    """(count, 3) centres of weighted k-means of points (n, 3), from the middle outwards."""
    chosen = [int((points - middle).square().sum(1).argmin())]
    while len(chosen) < count:  # farthest points first
        apart = torch.cdist(points, points[chosen]).amin(dim=1)
        chosen.append(int(apart.argmax()))
    centres = points[chosen]
    for _ in range(_ITERATIONS):
        nearest = torch.cdist(points, centres).argmin(dim=1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, weight[:, None] * points)
        total = torch.zeros(count, dtype=weight.dtype).index_add_(0, nearest, weight)
        moved = torch.where(total[:, None] > 0, sums / total.clamp_min(1e-30)[:, None], centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres[(centres - middle).square().sum(1).argsort()]
