"""Particles that were picked twice."""

from collections.abc import Sequence
from typing import Any

import numpy as np

_Numbers = np.ndarray[Any, np.dtype[np.float64]]
_FARTHEST = 1000  # neighbours along x that are looked at


def close_picks(
    micrographs: Sequence[str], x: _Numbers, y: _Numbers, distance: float
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of n particles have another one nearer than `distance` on their micrograph.

    Args:
        micrographs: n names.
        x, y: (n,) coordinates, in the unit of `distance`.
        distance: of two that are the same particle.

    Returns:
        (n,); all False where all coordinates are equal, and so not known.
    """
    close = np.zeros(len(x), dtype=bool)
    if len(x) < 2 or (np.ptp(x) == 0 and np.ptp(y) == 0):
        return close
    _, micrograph = np.unique(micrographs, return_inverse=True)
    order = np.lexsort((x, micrograph))
    micrograph, x, y = micrograph[order], x[order], y[order]
    for step in range(1, min(len(x), _FARTHEST)):
        beside = (micrograph[step:] == micrograph[:-step]) & (x[step:] - x[:-step] < distance)
        if not beside.any():
            break
        near = beside & (np.hypot(x[step:] - x[:-step], y[step:] - y[:-step]) < distance)
        close[order[step:][near]] = True
        close[order[:-step][near]] = True
    return close
