"""The half-maps of an EM iteration: in one frame, with the prior of their FSC, and without any."""

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.evaluation.alignment import Alignment, align, apply_alignment, refine_alignment
from cryogan.objectives.likelihood.bands import fsc_cutoff_shell, fsc_of_basis
from cryogan.objectives.likelihood.normal_equations import NormalEquations, shell_weight, solve

_NO_PRIOR = 50.0  # signal-to-noise ratio of a coefficient: a gain of 0.98
_EDGE = 0.04  # of the box: of the ball that unfiltered maps fill


def cutoff_shells(fsc: Tensor) -> int:
    """Of all basis volumes together (C, D // 2 + 1): grows while any of them is being found."""
    return sum(fsc_cutoff_shell(curve) for curve in fsc)


def aligned(
    moving: Tensor, reference: Tensor, pixel_size_A: float, before: Tensor | None
) -> tuple[Alignment, Tensor]:
    """The alignment of half 2's basis volumes (C, D, D, D) to half 1's, and their FSC then.

    The half-sets drift apart, so half-map 2 is aligned to half-map 1 after every iteration. Poor
    maps may be in any orientation and of either hand: a global search, mirror image included, is
    made if there is no FSC `before`, or it is no lower.
    """
    start = Alignment.identity()
    near = refine_alignment(moving[0], reference[0], pixel_size_A, start)
    fsc = fsc_of_basis(torch.stack((reference, moved_maps(moving, near, pixel_size_A))))
    if before is not None and cutoff_shells(fsc) > cutoff_shells(before):
        return near, fsc
    far = align(moving[0], reference[0], pixel_size_A)
    other = fsc_of_basis(torch.stack((reference, moved_maps(moving, far, pixel_size_A))))
    return (far, other) if cutoff_shells(other) > cutoff_shells(fsc) else (near, fsc)


def moved_maps(maps: Tensor, alignment: Alignment, pixel_size_A: float) -> Tensor:
    return torch.stack([apply_alignment(volume, alignment, pixel_size_A) for volume in maps])


def maps_without_prior(equations: NormalEquations, start: Tensor, finest: int) -> Tensor:
    """(C, D, D, D) maps without the molecule's mask, whose prior costs next to none of their power.

    They fill the ball that the box holds. Images say nothing of its corners, which their window
    empties, and without a limit these made the lowest shells overflow.
    """
    size, device = start.shape[-1], start.device
    shell = torch.arange(size // 2 + 1, device=device)
    prior = torch.where(shell <= finest, _NO_PRIOR / shell_weight(equations), 0.0)
    prior[:, 0] = prior[:, 1]  # images hold no information on the mean
    edge = _EDGE * size
    ball = fourier.soft_disc(size, size / 2 - edge, edge, 3, device)
    return solve(equations, prior, ball, start, iterations=24)


def prior_from_fsc(fsc: Tensor, equations: NormalEquations, finest: int) -> Tensor:
    """Expected |F|² by shell: the noise of a half-map times the signal-to-noise ratio."""
    reliable = fsc.nan_to_num().clamp(1e-3, 0.999)
    prior = reliable / (1.0 - reliable) / shell_weight(equations)
    prior[:, 0] = prior[:, 1]  # images hold no information on the mean
    return torch.where(torch.arange(prior.shape[-1], device=prior.device) <= finest, prior, 0.0)
