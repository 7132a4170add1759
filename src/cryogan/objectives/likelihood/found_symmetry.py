"""A symmetry that is found in the half-maps of a run, and imposed from then on (`--sym auto`)."""

from typing import Any

import torch
from torch import Tensor

from cryogan.evaluation.alignment import apply_alignment
from cryogan.evaluation.symmetry_search import find_symmetry
from cryogan.objectives.likelihood.bands import symmetrised
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.symmetry import symmetry_matrices


def with_symmetry_found(
    halves: Tensor, imposed: str, pixel_size_A: float, config: LikelihoodConfig
) -> tuple[Tensor | None, dict[str, Any]]:
    """Half-maps in the standard orientation of their symmetry, and what the search found.

    The axes found in both half-maps are refined in each alone, so that the half-maps come to share
    the name of the group and nothing else.

    Args:
        halves: (2, 1, D, D, D) in one frame.
        imposed: the symmetry that they have in any case.
        pixel_size_A: of the half-maps.
        config: settings.

    Returns:
        (2, 1, D, D, D), None if there is no larger symmetry; and `Symmetry.record`.
    """
    found = find_symmetry(halves[:, 0].cpu(), pixel_size_A)
    if len(symmetry_matrices(found.group)) <= len(symmetry_matrices(imposed)):
        return None, found.record()
    both = zip(halves[:, 0], found.frames, strict=True)
    moved = torch.stack([apply_alignment(half, frame, pixel_size_A) for half, frame in both])
    return symmetrised(moved[:, None], config.imposing(found.group)), found.record()


def describe_search(record: dict[str, Any]) -> str:
    """What a search found, in a line."""
    if record["group"] == "C1":
        return f"no symmetry found in the half-maps: {record['reason']}"
    return f"{record['group']} found in the half-maps and imposed from now on: {record['reason']}"
