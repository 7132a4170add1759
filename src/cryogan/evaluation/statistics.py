"""Rank correlation and transport distance of small weighted samples."""

import torch
from torch import Tensor


def spearman(a: Tensor, b: Tensor) -> float | None:
    """Spearman's rank correlation (Am. J. Psychol. 15, 1904); ties share their mean rank.

    Args:
        a: (n,).
        b: (n,).

    Returns:
        From -1 to 1, or None where it is not defined: one of the two does not vary.
    """
    first, second = _ranks(a), _ranks(b)
    first, second = first - first.mean(), second - second.mean()
    norm = float((first.square().sum() * second.square().sum()).sqrt())
    return float((first * second).sum()) / norm if norm > 0 else None


def _ranks(values: Tensor) -> Tensor:
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    ranks: Tensor = (last - 0.5 * (counts - 1))[inverse]
    return ranks


def wasserstein(x: Tensor, x_weight: Tensor, y: Tensor, y_weight: Tensor) -> float:
    """1-Wasserstein (earth mover's) distance of two weighted samples on a line.

    On a line it is the area between the two cumulative distributions (Vallender, Theory Probab.
    Appl. 18, 1974).

    Args:
        x: (n,) positions.
        x_weight: (n,), sum 1.
        y: (m,) positions.
        y_weight: (m,), sum 1.

    Returns:
        The distance, in the units of the positions.
    """
    positions, order = torch.cat((x, y)).double().sort()
    difference = torch.cat((x_weight, -y_weight)).double()[order].cumsum(0)
    return float((difference[:-1].abs() * positions.diff()).sum())
