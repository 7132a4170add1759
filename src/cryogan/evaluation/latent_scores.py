"""Latents of images against the true coordinates of what they show."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cryogan.conformations.latent import Circle, Latent
from cryogan.conformations.series import Series
from cryogan.evaluation.cryobench import images_at_equal_steps
from cryogan.evaluation.embeddings import (
    circular_correlation,
    information_imbalance,
    neighbourhood_similarity,
    on_circle,
    smeared,
)
from cryogan.evaluation.statistics import spearman
from cryogan.randomness import generator_for

SHARES = (0.01, 0.05, 0.1)
"""Of the points of a subset that are neighbours."""

NEIGHBOURS = (1, 3)
"""Of information imbalance."""

_MOST_POINTS = 10_000  # in five subsets, of neighbourhood similarity
_MOST_RANKED = 2_000  # of information imbalance, as published


@dataclass(frozen=True)
class LatentScores:
    """Latents of images against true coordinates.

    Attributes:
        rho: |Spearman's rho| of each latent axis (rows) with each true axis; None where undefined.
        circular: |circular correlation| of the latent and the true angle; None of no circle.
        similarity: neighbourhood similarity, mean and standard deviation, by share of neighbours.
        imbalance: information imbalance from latent to truth and back, by number of neighbours.
    """

    rho: list[list[float | None]]
    circular: float | None
    similarity: dict[float, tuple[float, float]]
    imbalance: dict[int, tuple[float, float]]

    def rows(self) -> list[tuple[str, str]]:
        """Names and values, for a table."""
        rows = []
        for axis, values in enumerate(self.rho):
            words = ", ".join("undefined" if value is None else f"{value:.3f}" for value in values)
            rows.append(
                (f"|Spearman rho| of z{axis}", f"{words} of images' latents, with the truth")
            )
        if self.circular is not None:
            rows.append(("circular correlation", f"{self.circular:.3f} of images' latents"))
        words = ", ".join(
            f"{mean:.1%} (± {std:.1%}) at {share:.0%}"
            for share, (mean, std) in self.similarity.items()
        )
        rows.append(("neighbourhoods", f"{words} alike"))
        words = ", ".join(
            f"{there:.2f} and {back:.2f} (k = {k})" for k, (there, back) in self.imbalance.items()
        )
        rows.append(("information imbalance", f"{words}, latent to truth and back"))
        return rows

    def record(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return {
            "spearman_rho": self.rho,
            "circular_correlation": self.circular,
            "neighbourhood_similarity": {
                f"{share:g}": list(values) for share, values in self.similarity.items()
            },
            "information_imbalance": {str(k): list(values) for k, values in self.imbalance.items()},
        }


def embedded(space: Latent, latent: Tensor) -> Tensor:
    """(n, d) latents where distances and means make sense: classes one-hot, circles as circles."""
    if space.is_discrete:
        return torch.nn.functional.one_hot(latent[:, 0].long(), space.classes).double()
    return on_circle(latent[:, 0]) if isinstance(space, Circle) else latent


def score_latents(
    space: Latent, latent: Tensor, truth: Series, state: Tensor, *, seed: int = 0
) -> LatentScores | None:
    """Score latents (n, d) of images of true states (n,); None of classes, or without coordinates.

    Neighbourhoods are of at most 10,000 images and information imbalance of at most 2,000, at equal
    steps; images of one state are in random order, drawn from `seed`.
    """
    if space.is_discrete or truth.coordinate.shape[1] == 0:
        return None
    coordinate = truth.coordinate[state]
    rho = [
        [None if value is None else abs(value) for value in (spearman(z, c) for c in coordinate.T)]
        for z in latent.T
    ]
    circles = truth.circular == (True,) and latent.shape[1] == 1
    circular = circular_correlation(latent[:, 0], coordinate[:, 0]) if circles else None
    generator = generator_for(seed, "order within states")
    axes = []
    for axis, values in enumerate(coordinate.T):
        spread = smeared(values, generator)
        is_circle = len(truth.circular) > axis and truth.circular[axis]
        axes.append(on_circle(spread) if is_circle else spread[:, None])
    true, found = torch.cat(axes, dim=1), embedded(space, latent)
    many, few = (
        images_at_equal_steps(len(true), most)[:most] for most in (_MOST_POINTS, _MOST_RANKED)
    )
    return LatentScores(
        rho,
        None if circular is None else abs(circular),
        {share: neighbourhood_similarity(true[many], found[many], share) for share in SHARES},
        {k: information_imbalance(found[few], true[few], k) for k in NEIGHBOURS},
    )
