"""A symmetry that is found in the half-maps of a run, and imposed from then on (`--sym auto`)."""

from typing import Any

import torch
from torch import Tensor

from cryogan.evaluation.alignment import apply_alignment
from cryogan.evaluation.symmetry_search import find_symmetry
from cryogan.objectives.likelihood.bands import symmetrised
from cryogan.objectives.likelihood.config import LikelihoodConfig


def with_symmetry_found(
    halves: Tensor, pixel_size_A: float, config: LikelihoodConfig
) -> tuple[Tensor, dict[str, Any]]:
    """Half-maps in the standard orientation of their symmetry, and what the search found.

    The axes found in both half-maps are refined in each alone, so that the half-maps come to share
    the name of the group and nothing else.

    Args:
        halves: (2, 1, D, D, D) in one frame.
        pixel_size_A: of the half-maps.
        config: settings.

    Returns:
        (2, 1, D, D, D), as they are if there is no symmetry; and `Symmetry.record`.
    """
    found = find_symmetry(halves[:, 0].cpu(), pixel_size_A)
    if found.group == "C1":
        return halves, found.record()
    both = zip(halves[:, 0], found.frames, strict=True)
    moved = torch.stack([apply_alignment(half, frame, pixel_size_A) for half, frame in both])
    return symmetrised(moved[:, None], config.imposing(found.group)), found.record()


def describe_search(record: dict[str, Any]) -> str:
    """What a search found, in a line."""
    if record["group"] == "C1":
        return f"no symmetry found in the half-maps: {record['reason']}"
    return f"{record['group']} found in the half-maps and imposed from now on: {record['reason']}"
