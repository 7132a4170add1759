"""Maps whose axes are to be those of a symmetry that their run has not imposed."""

import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.evaluation.alignment import apply_alignment
from cryogan.evaluation.symmetry_search import find_symmetry
from cryogan.models.volume import symmetrise
from cryogan.physics.imaging import rescale_volume
from cryogan.symmetry import symmetry_matrices

_LEAST = 0.8  # correlation with its copies; 0.4 to 0.7 of a molecule without symmetry
_CERTAIN = 0.95  # coarse maps whose axes lie elsewhere may have 0.8
_COARSE = 32  # px, in which that is looked at


def symmetry_correlation(volume: Tensor, symmetry: str) -> float:
    """Correlation of a map (D, D, D) with the mean of its copies about RELION's axes; 1 for C1."""
    operators = symmetry_matrices(symmetry)[1:]
    count = len(operators)
    if count == 0:
        return 1.0
    coarse = rescale_volume(volume, min(volume.shape[-1], _COARSE))
    copies = ((count + 1) * symmetrise(coarse, operators) - coarse) / count
    return float(torch.corrcoef(torch.stack((coarse.flatten(), copies.flatten())))[0, 1])


def require_symmetric(volume: Tensor, symmetry: str, name: str, instead: str) -> None:
    """Refuse a map without this symmetry about RELION's axes.

    Args:
        volume: (D, D, D).
        symmetry: point group.
        name: of the map, at the beginning of the sentence.
        instead: what to do, at its end.

    Raises:
        InputError: the map has not that symmetry.
    """
    found = symmetry_correlation(volume, symmetry)
    if not found > _LEAST:
        raise InputError(
            f"{name} has no symmetry {symmetry} about RELION's axes (correlation with its turned "
            f"copies {found:.2f}); {instead}"
        )


def in_standard_orientation(basis: Tensor, symmetry: str, pixel_size_A: float) -> Tensor:
    """Basis volumes of half-maps (2, C, D, D, D), turned where their axes lie elsewhere.

    Each half is turned by itself, about the axes found in both.

    Args:
        basis: in one frame; the first volume is the mean.
        symmetry: point group.
        pixel_size_A: of the maps.

    Raises:
        InputError: the half-maps have not that symmetry in any orientation.
    """
    if symmetry_correlation(basis[:, 0].mean(0), symmetry) > _CERTAIN:
        return basis
    found = find_symmetry(basis[:, 0], pixel_size_A)
    if found.group == "C1":
        raise InputError(
            f"The run's map has no symmetry {symmetry} in any orientation ({found.reason}); "
            f"reconstruct the particles anew with --sym {symmetry}, or go on without it."
        )
    both = zip(basis, found.frames, strict=True)
    moved = torch.stack(
        [
            torch.stack([apply_alignment(each, frame, pixel_size_A) for each in half])
            for half, frame in both
        ]
    )
    require_symmetric(
        moved[:, 0].mean(0),
        symmetry,
        "The run's map",
        f"it has {found.group}. Reconstruct the particles anew with --sym {symmetry}, or go on "
        "without it.",
    )
    return moved
