"""Classes found against true ones: numbers of images, accuracy, adjusted Rand index."""

import torch
from torch import Tensor


def contingency(found: Tensor, true: Tensor, classes: int, states: int) -> Tensor:
    """(classes, states) int64, numbers of images of each class and true state (n,)."""
    pairs = found.long() * states + true.long()
    return pairs.bincount(minlength=classes * states).view(classes, states)


def class_accuracy(table: Tensor) -> tuple[float, Tensor]:
    """Share of images in the right class, classes and states matched one to one (Hungarian).

    Args:
        table: (F, K) from `contingency`.

    Returns:
        The largest share that any one-to-one match gives, and that match: (F,) int64, the state of
        each class, -1 for classes that are left over.

    Example:
        >>> import torch
        >>> accuracy, match = class_accuracy(torch.tensor([[1, 8], [7, 0], [0, 4]]))
        >>> accuracy, match.tolist()
        (0.75, [1, 0, -1])
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(table.numpy(), maximize=True)
    match = torch.full((len(table),), -1)
    match[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return float(table[rows, columns].sum()) / float(table.sum()), match


def adjusted_rand_index(table: Tensor) -> float:
    """Agreement of two partitions, corrected for chance (Hubert & Arabie, J. Classif. 2, 1985).

    Args:
        table: (F, K) from `contingency`.

    Returns:
        1 for equal partitions, about 0 for independent ones.
    """

    def pairs(counts: Tensor) -> float:
        return float((counts.double() * (counts.double() - 1.0) / 2.0).sum())

    total = pairs(table.sum())
    classes, states = pairs(table.sum(1)), pairs(table.sum(0))
    expected = classes * states / total if total > 0 else 0.0
    largest = (classes + states) / 2.0
    return 1.0 if largest == expected else (pairs(table) - expected) / (largest - expected)
