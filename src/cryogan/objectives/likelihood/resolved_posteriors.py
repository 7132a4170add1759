"""Posteriors of every image on the coarsest pose grid that resolves it.

A search for a map keeps a few cells of every image, and ends on a grid that the band asks for. The
posterior of a weak image fills far more cells of that grid than are kept, so that its spread would
seem small. On a coarser grid it is complete: sums over a grid whose step is twice the standard
deviation of a Gaussian, or less, have its moments (to 2 %).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cryogan.objectives.likelihood.image_model import ImageModel
from cryogan.objectives.likelihood.observations import Observations
from cryogan.objectives.likelihood.posterior import Posterior, References, posterior_of
from cryogan.objectives.likelihood.search_levels import Level

_RESOLVED = 16.0  # effective poses: as many as a Gaussian of half a step along five axes has
_MOST = 2048  # cells of an image that a level keeps
_SERIES_AT_ONCE = 64  # images that are compared with conformations


def complete(levels: Sequence[Level]) -> list[Level]:
    """With posteriors kept whole, as far as that can be, at the levels of the whole band."""
    return [
        replace(level, most=_MOST, complete=True) if level.rings == levels[-1].rings else level
        for level in levels
    ]


def resolved_posteriors(
    observations: Observations, references: References, image_model: ImageModel
) -> Iterator[tuple[Tensor, Level, Posterior]]:
    """Posteriors of n images in groups: their rows, the level of the poses, and the posteriors.

    Only levels of the whole band count. Posteriors over classes are on the finest level: each class
    has searched its own poses.

    Args:
        observations: n images.
        references: of levels from `complete`.
        image_model: contrast, and images without a particle.
    """
    every = torch.arange(len(observations))
    for row in torch.split(every, _SERIES_AT_ONCE) if references.is_series else [every]:
        yield from _by_level(observations, row, references, image_model)


def _by_level(
    observations: Observations, row: Tensor, references: References, image_model: ImageModel
) -> Iterator[tuple[Tensor, Level, Posterior]]:
    """Of the images of some rows."""
    levels, start = references.levels, None
    last = len(levels) - 1
    for number, level in enumerate(levels):
        if level.rings < levels[last].rings or (number < last and not references.ends_anywhere):
            continue
        found = posterior_of(
            observations[row], references.until(number), image_model=image_model, start=start
        )
        resolved = (found.effective_poses >= _RESOLVED).cpu()
        if number == last:
            resolved = torch.ones_like(resolved)
        if resolved.any():
            yield row[resolved], level, found[resolved]
        row = row[~resolved]
        if len(row) == 0:
            return
        start = None if level.of_shifts else found.cells[~resolved]
