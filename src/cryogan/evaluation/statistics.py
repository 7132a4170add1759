"""Rank correlation and transport distance of small samples, by SciPy."""

import torch
from torch import Tensor


def spearman(a: Tensor, b: Tensor) -> float | None:
    """Spearman's rank correlation (Am. J. Psychol. 15, 1904) of (n,) and (n,).

    Returns:
        From -1 to 1, or None where it is not defined: one of the two does not vary.
    """
    from scipy.stats import spearmanr

    if any(len(torch.unique(values)) < 2 for values in (a, b)):
        return None
    return float(spearmanr(a.numpy(), b.numpy()).statistic)


def wasserstein(x: Tensor, x_weight: Tensor, y: Tensor, y_weight: Tensor) -> float:
    """1-Wasserstein (earth mover's) distance of two weighted samples on a line.

    Args:
        x: (n,) positions.
        x_weight: (n,), not all 0.
        y: (m,) positions.
        y_weight: (m,), not all 0.

    Returns:
        The distance, in the units of the positions.
    """
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(x.numpy(), y.numpy(), x_weight.numpy(), y_weight.numpy()))


def kolmogorov_smirnov(p_value: Tensor) -> tuple[float, float]:
    """Distance of (n,) p-values from the uniform distribution, and its significance.

    Returns:
        The Kolmogorov-Smirnov distance, from 0 to 1, and the probability of one as large or larger
        if they are uniform.
    """
    from scipy.stats import kstest

    found = kstest(p_value.double().numpy(), "uniform")
    return float(found.statistic), float(found.pvalue)
