"""Per-image FSC: the map assigned to each image against the image's true conformation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan.errors import InputError


def fsc_auc(fsc: Tensor, box_size: int) -> Tensor:
    """Area under FSC curves over spatial frequencies of 0 to 0.5 cycles/pixel.

    Near CryoBench's measure (`cryobench.area_under_fsc`, whose shells differ): trapezoids over
    shells, shell 0 being 1. About 0.5 for equal maps. It depends on the pixel size: compare numbers
    of one box only.

    Args:
        fsc: (..., D // 2 + 1).
        box_size: D.

    Returns:
        (...), float64.
    """
    curve = torch.cat((torch.ones_like(fsc[..., :1]), fsc[..., 1:]), dim=-1).double()
    area: Tensor = torch.trapezoid(curve, dx=1.0 / box_size, dim=-1)
    return area


@dataclass(frozen=True)
class PerImage:
    """Per-image FSC: areas under the curve, over images.

    Attributes:
        mean: over all images.
        std: over all images, of the population.
        median: over all images.
        per_state: (K,) mean over the images of each true state; NaN where there is none.
    """

    mean: float
    std: float
    median: float
    per_state: Tensor


def per_image_fsc_auc(
    fsc: Tensor, box_size: int, volume_of_image: Tensor, state_of_image: Tensor
) -> PerImage:
    """Area under the FSC of the map assigned to each image with the image's true state.

    Per-image FSC of CryoBench (Jeon et al. 2024), except that there is one alignment for all
    maps and that negative correlations count as negative. It evaluates maps and assignment at once.

    Args:
        fsc: (n, K, S) of maps and true states, from `SeriesComparison`.
        box_size: D of the maps.
        volume_of_image: (images,) number of the map assigned to each.
        state_of_image: (images,) number of each image's true state.

    Raises:
        InputError: the two differ in length, are empty, or name a map or state that is not there.
    """
    _check_numbers(volume_of_image, "map", fsc.shape[0])
    _check_numbers(state_of_image, "state", fsc.shape[1])
    if len(volume_of_image) != len(state_of_image):
        raise InputError(
            f"{len(volume_of_image)} images have a map but {len(state_of_image)} have a true "
            "state; give both of the same images."
        )
    area = fsc_auc(fsc, box_size)[volume_of_image, state_of_image]
    total = torch.zeros(fsc.shape[1], dtype=torch.float64).index_add_(0, state_of_image, area)
    counts = torch.bincount(state_of_image, minlength=fsc.shape[1])
    return PerImage(
        float(area.mean()),
        float(area.std(correction=0)),
        float(area.quantile(0.5)),
        total / counts,
    )


def _check_numbers(numbers: Tensor, what: str, count: int) -> None:
    if len(numbers) == 0:
        raise InputError("There are no images to score; give the assignments of some.")
    wrong = ((numbers < 0) | (numbers >= count)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"Image {row + 1} is assigned {what} {int(numbers[row])}, but there are {count}, "
            "counted from 0; correct the assignments."
        )
