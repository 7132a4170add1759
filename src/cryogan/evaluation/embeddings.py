"""Latents of images against true ones: what two embeddings of the same points share."""

import math

import torch
from torch import Tensor


def neighbourhood_similarity(
    first: Tensor, second: Tensor, share: float, *, subsets: int = 5
) -> tuple[float, float]:
    """Share of the nearest neighbours that two embeddings have in common (CryoBench).

    Of each of `subsets` interleaved subsets of m points: the k = share * m nearest of every point,
    and the point itself, in both embeddings; the number that both have, over k. (So the published
    scripts count: equal embeddings give (k + 1) / k.)

    Args:
        first, second: (n, d) and (n, e).
        share: of a subset's points that are neighbours.
        subsets: number of subsets.

    Returns:
        Mean and standard deviation over the subsets.
    """
    found = []
    for start in range(subsets):
        one, two = first[start::subsets], second[start::subsets]
        k = max(1, round(share * len(one)))
        near = [_distances(each).topk(k + 1, largest=False).indices for each in (one, two)]
        member = torch.zeros(len(one), len(one), dtype=torch.bool)
        member.scatter_(1, near[0], True)
        found.append(float(member.gather(1, near[1]).sum(1).double().mean()) / k)
    values = torch.tensor(found, dtype=torch.float64)
    return float(values.mean()), float(values.std(correction=0))


def information_imbalance(first: Tensor, second: Tensor, k: int = 1) -> tuple[float, float]:
    """What one embedding tells of the other (Glielmo et al., PNAS Nexus 1, 2022).

    2 / n times the mean rank in one of the k nearest neighbours in the other: near 0 if neighbours
    in the first are neighbours in the second, 1 if they say nothing.

    Args:
        first, second: (n, d) and (n, e).
        k: number of neighbours.

    Returns:
        From the first to the second, and from the second to the first.
    """
    order = [_distances(each).argsort(dim=1, stable=True) for each in (first, second)]
    n = len(first)
    ranks = [
        torch.empty_like(each).scatter_(1, each, torch.arange(n).expand(n, n)) for each in order
    ]
    one, two = (
        float(ranks[1 - side].gather(1, order[side][:, 1 : k + 1]).double().mean()) * 2.0 / n
        for side in (0, 1)
    )
    return one, two


def circular_correlation(first: Tensor, second: Tensor) -> float:
    """Fisher & Lee's correlation (Biometrika 70, 1983) of angles (n,) in turns, from -1 to 1.

    It does not depend on where the angles begin; negative if one runs against the other.
    """
    a, b = (2.0 * math.pi * each.double() for each in (first, second))
    like = (a.cos() * b.cos()).sum() * (a.sin() * b.sin()).sum()
    unlike = (a.cos() * b.sin()).sum() * (a.sin() * b.cos()).sum()
    spread = [
        len(each) ** 2 - (2 * each).cos().sum().square() - (2 * each).sin().sum().square()
        for each in (a, b)
    ]
    norm = float((spread[0] * spread[1]).clamp_min(0.0).sqrt())
    return 4.0 * float(like - unlike) / norm if norm > 0 else 0.0


def on_circle(turns: Tensor) -> Tensor:
    """(n, 2) points on the unit circle at angles (n,) in turns."""
    return torch.stack(((2 * math.pi * turns).cos(), (2 * math.pi * turns).sin()), dim=1)


def smeared(coordinate: Tensor, generator: torch.Generator) -> Tensor:
    """Coordinates (n,) of few values, spread evenly by half of their mean spacing.

    Points of one state are in no order, and an embedding cannot be asked for one.
    """
    values = torch.unique(coordinate)
    if len(values) < 2:
        return coordinate.double()
    step = float((values[-1] - values[0]) / (len(values) - 1))
    return coordinate + step * (torch.rand(len(coordinate), generator=generator).double() - 0.5)


def _distances(points: Tensor) -> Tensor:
    """(n, n) distances; of a point to itself -1, so that it is its first neighbour."""
    points = points.double()
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(points, points, compute_mode=mode).fill_diagonal_(-1.0)
