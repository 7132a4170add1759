"""Resolution by direction: the area ratio of conical FSC; sampling of Fourier space by the views.

Directions are unit vectors (x, y, z); a direction and its opposite are the same, because maps are
real.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.evaluation.conical_fsc import conical_fsc, corrected_conical_fsc
from cryogan.symmetry import symmetry_matrices

CONE_AXES = 256
ANISOTROPIC_CFAR = 0.5
"""A conical FSC area ratio below this points to preferred orientation (cryoSPARC's guide)."""

POOR_SCF_STAR = 0.81
"""An SCF* below this, that of side views, is poor (Baldwin & Lyumkis 2020)."""

_SCF_DIRECTIONS = 4096
_PRODUCTS = 1 << 24  # in memory at once


def fibonacci_hemisphere(count: int) -> Tensor:
    """(count, 3) unit vectors of z > 0, spread evenly: each stands for the same solid angle."""
    number = torch.arange(count, dtype=torch.float64)
    z = (number + 0.5) / count
    longitude = number * math.pi * (3.0 - math.sqrt(5.0))
    radius = (1.0 - z.square()).sqrt()
    return torch.stack((radius * longitude.cos(), radius * longitude.sin(), z), dim=-1).float()


@dataclass(frozen=True)
class DirectionalFSC:
    """Conical FSC curves of two half-maps.

    Attributes:
        axes: (n, 3) of the cones.
        curves: (n, D // 2 + 1), NaN beyond the band of the maps; corrected if inside a mask.
    """

    axes: Tensor
    curves: Tensor

    @property
    def lowest(self) -> Tensor:
        """(D // 2 + 1,) least value of each shell."""
        return self.curves.amin(0)

    @property
    def mean(self) -> Tensor:
        """(D // 2 + 1,) mean over the directions."""
        return self.curves.double().mean(0).to(self.curves)

    @property
    def highest(self) -> Tensor:
        """(D // 2 + 1,) largest value of each shell."""
        return self.curves.amax(0)

    @property
    def areas(self) -> Tensor:
        """(n,) areas under the curves (`conical_areas`)."""
        return conical_areas(self.curves)

    @property
    def cfar(self) -> float:
        """Conical FSC area ratio (`conical_fsc_area_ratio`)."""
        return conical_fsc_area_ratio(self.curves)


def directional_fsc(
    half1: Tensor, half2: Tensor, mask: Tensor | None = None, *, last_shell: int | None = None
) -> DirectionalFSC:
    """Conical FSC about 256 axes spread over the hemisphere, cones of half-angle 20°.

    Inside a mask it is corrected, cone by cone, for the correlation that the mask brings
    (`corrected_conical_fsc`).

    Args:
        half1: (D, D, D), without filter.
        half2: (D, D, D), in the frame of `half1`.
        mask: (D, D, D) that multiplies both, or None.
        last_shell: of the band of the maps; the curves are NaN beyond.

    Raises:
        InputError: the maps are not cubes of one box size.
    """
    axes = fibonacci_hemisphere(CONE_AXES).to(half1)
    if mask is None:
        curves = conical_fsc(half1, half2, axes)
    else:
        curves = corrected_conical_fsc(half1, half2, axes, mask)
    if last_shell is not None:
        curves[:, last_shell + 1 :] = math.nan
    return DirectionalFSC(axes, curves)


def conical_areas(curves: Tensor, threshold: float = 0.143) -> Tensor:
    """Σ s² cFSC(s) over shells s = 1, 2 ... before the first one at or below the threshold.

    Args:
        curves: (n, D // 2 + 1); a curve ends where it is NaN.
        threshold: of the FSC.

    Returns:
        (n,).
    """
    shell = torch.arange(1, curves.shape[-1], device=curves.device)
    resolved = (curves[:, 1:] > threshold).cumprod(-1).bool()
    return torch.where(resolved, shell.square() * curves[:, 1:], 0.0).sum(-1)


def conical_fsc_area_ratio(curves: Tensor, threshold: float = 0.143) -> float:
    """cFAR: least area under a conical FSC curve over the largest (cryoSPARC 4.4, its guide).

    Args:
        curves: (n, D // 2 + 1), one a direction.
        threshold: at which a curve ends.

    Returns:
        From 0 to 1, 1 for maps resolved alike in all directions; NaN if none is resolved.
    """
    areas = conical_areas(curves, threshold)
    largest = float(areas.max())
    return float(areas.min()) / largest if largest > 0 else math.nan


def viewing_directions(rotation: Tensor, symmetry: str = "C1") -> Tensor:
    """(n g, 3) viewing directions of rotations (n, 3, 3), with the g symmetry mates of each."""
    mates = symmetry_matrices(symmetry).to(rotation) @ rotation[:, None, :, 2:]
    return mates[..., 0].flatten(0, 1)


@dataclass(frozen=True)
class Sampling:
    """How evenly views sample a Fourier shell.

    Attributes:
        scf: sampling compensation factor, over the sampled directions only.
        scf_star: SCF*, which counts the unsampled directions as one view each.
        unsampled: fraction of directions that no view samples.
    """

    scf: float
    scf_star: float
    unsampled: float


def sampling_compensation(
    views: Tensor, weights: Tensor | None = None, *, fourier_radius: float = 50.0
) -> Sampling:
    """SCF and SCF* (Baldwin & Lyumkis, Prog. Biophys. Mol. Biol. 150, 2020).

    A view v samples the plane through the origin perpendicular to it, one pixel thick: S(n), the
    sampling at direction n of a shell of radius R, is the weight of the views of |v · n| R < 1/2.
    `SCF = 1 / (<1/S> <S>)`, <1/S> over directions of S > 0, <S> over all; with a fraction f of
    directions of S = 0, `SCF* = SCF / (1 + f / (1 - f) <S> SCF)`. Evenly spread views have 1, side
    views (all perpendicular to one axis) 8 / π² = 0.81. Few views leave gaps by chance: 300
    random ones have an SCF* of 0.69 at R = 50 and 0.97 at R = 5.

    Args:
        views: (n, 3) viewing directions in the molecule's frame: `rotation[:, :, 2]` of a `Pose`.
            Symmetry mates count as views of their own.
        weights: (n,) of the views, scaled to a mean of 1; alike by default.
        fourier_radius: R in Fourier pixels.

    Raises:
        InputError: there is no view, or no weight.
    """
    weights = torch.ones(len(views)) if weights is None else weights
    if len(views) == 0 or not float(weights.sum()) > 0:
        raise InputError("The sampling of no views has no meaning; give viewing directions.")
    views = torch.nn.functional.normalize(views.float(), dim=-1)
    weights = (weights / weights.mean()).to(views)
    directions = fibonacci_hemisphere(_SCF_DIRECTIONS).to(views)
    sampling = views.new_zeros(len(directions))
    step = max(_PRODUCTS // len(directions), 1)
    for some, weight in zip(torch.split(views, step), torch.split(weights, step), strict=True):
        near = (directions @ some.T).abs() * fourier_radius < 0.5
        sampling += near.to(views.dtype) @ weight
    sampled = sampling[sampling > 0]
    unsampled = 1.0 - len(sampled) / len(directions)
    if len(sampled) == 0:
        return Sampling(0.0, 0.0, 1.0)
    mean = float(sampling.double().mean())
    scf = 1.0 / (float(sampled.double().reciprocal().mean()) * mean)
    return Sampling(scf, scf / (1.0 + unsampled / (1.0 - unsampled) * mean * scf), unsampled)
