"""Alignment of two maps over rotation, shift and hand.

All rotations of a grid (12° apart) in both hands are correlated with the reference at low
resolution, over a grid of shifts; the best candidates are refined at three growing band limits
by Gauss-Newton steps, and pruned in between. Both maps are whitened shell by shell, so their
amplitude spectra may differ; in the refinement each shell counts as much as its current Fourier
shell correlation says (maximum likelihood for Gaussian spectra), so noise beyond a map's
resolution does no harm. Candidates are ranked by `-½ Σ n_s log(1 - FSC_s²)`, the information
that two Gaussian spectra with these correlations share.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.evaluation.gauss_newton import refine_placements, tangent_spectra
from cryogan.evaluation.grid_search import COARSE_BAND, all_rotations, grid_search
from cryogan.evaluation.placements import Placement, placed, search_band
from cryogan.evaluation.resampling import move_map
from cryogan.physics.projection import volume_spectrum

_MAX_BOX = 128  # maps are Fourier-cropped to this box for the search


@dataclass(frozen=True)
class Alignment:
    """How a map is moved onto a reference: invert if mirrored, then rotate, then shift.

    Density at x (from the origin voxel, in x, y, z) moves to `rotation @ (±x) + shift_A`, with
    the minus sign if `mirrored`: inversion through the origin yields the mirror image.

    Attributes:
        rotation: (3, 3).
        shift_A: (3,) as x, y, z in Å.
        mirrored: whether the map had the other hand.
        correlation: Pearson correlation of the aligned map and the reference, over the band
            used.
    """

    rotation: Tensor
    shift_A: Tensor
    mirrored: bool
    correlation: float

    @classmethod
    def identity(cls) -> "Alignment":
        """Nothing is moved."""
        return cls(torch.eye(3), torch.zeros(3), False, 1.0)

    def inverse(self) -> "Alignment":
        """What moves the reference onto the map."""
        sign = -1.0 if self.mirrored else 1.0
        back = self.rotation.T
        return Alignment(back, -sign * (back @ self.shift_A), self.mirrored, self.correlation)


def align(
    moving: Tensor,
    reference: Tensor,
    pixel_size_A: float,
    *,
    allow_mirror: bool = True,
    resolution_A: float | None = None,
) -> Alignment:
    """Find the rotation, shift and hand that move `moving` onto `reference`.

    Shifts up to 0.19 of the box along each axis are searched.

    Args:
        moving: (D, D, D).
        reference: (D, D, D), same pixel size.
        pixel_size_A: of both.
        allow_mirror: whether the mirror image of `moving` is tried too.
        resolution_A: only this resolution and lower is used; None for all there is.

    Raises:
        InputError: the maps differ in shape, are smaller than 16 voxels, or one is constant.
    """
    hands = (False, True) if allow_mirror else (False,)
    return alignments(moving, reference, pixel_size_A, hands=hands, resolution_A=resolution_A)[0]


def alignments(
    moving: Tensor,
    reference: Tensor,
    pixel_size_A: float,
    *,
    hands: tuple[bool, ...] = (False, True),
    count: int = 1,
    resolution_A: float | None = None,
    rotations: Tensor | None = None,
) -> list[Alignment]:
    """The `count` best alignments found, best first, no two alike.

    Args:
        moving: (D, D, D).
        reference: (D, D, D), same pixel size.
        pixel_size_A: of both.
        hands: whether `moving` is mirrored: True, False or both.
        count: number asked for; there may be fewer.
        resolution_A: only this resolution and lower is used; None for all there is.
        rotations: (n, 3, 3) to begin with; None for a grid of all.

    Raises:
        InputError: as `align`.
    """
    pair = _pair(moving, reference, pixel_size_A, resolution_A)
    band = search_band(pair.size, pair.coarse, reference.device)
    if rotations is None:
        rotations = all_rotations(reference.device)
    placements = grid_search(pair.moving, pair.tangent[0], band, hands, rotations.to(band.k))
    return pair.refined(
        placements,
        (
            (pair.coarse, 8, max(16, count)),
            (min(2 * pair.coarse, pair.radius), 6, max(4, count)),
            (pair.radius, 10, count),
        ),
    )


def refine_alignment(
    moving: Tensor, reference: Tensor, pixel_size_A: float, start: Alignment
) -> Alignment:
    """The alignment nearest to `start` that is a (local) optimum; the hand is kept.

    Args:
        moving: (D, D, D).
        reference: (D, D, D), same pixel size.
        pixel_size_A: of both.
        start: an alignment of the two that is off by some degrees and voxels at most.

    Raises:
        InputError: as `align`.
    """
    pair = _pair(moving, reference, pixel_size_A, None)
    placements = Placement(
        start.rotation[None].to(pair.tangent.real),
        start.shift_A[None].to(pair.tangent.real) / pair.pixel_size_A,
        torch.tensor([start.mirrored], device=reference.device),
    )
    middle = min(2 * pair.coarse, pair.radius)
    return pair.refined(placements, ((middle, 6, 1), (pair.radius, 10, 1)))[0]


@dataclass(frozen=True)
class _Pair:
    """Two maps, windowed and cropped for the search.

    Attributes:
        size: the search's box.
        pixel_size_A: in the search's box.
        radius: its band, Fourier pixels.
        coarse: the first band.
        moving: (size, size, size) the map that moves.
        spectrum: `volume_spectrum` of the map that moves.
        tangent: `tangent_spectra` of the reference.
    """

    size: int
    pixel_size_A: float
    radius: int
    coarse: int
    moving: Tensor
    spectrum: Tensor
    tangent: Tensor

    def refined(
        self, placements: Placement, stages: tuple[tuple[int, int, int], ...]
    ) -> list[Alignment]:
        """Refined at one band after the other: (radius, iterations, how many are kept)."""
        for radius, iterations, keep in stages:
            band = search_band(self.size, radius, self.tangent.device)
            placements = refine_placements(
                self.spectrum, self.tangent, placements, band, iterations, keep
            )
        target = self.tangent[0][band.chosen]
        target_norm = float((target.abs().square() * band.weight).sum())
        found = []
        for number, moved in enumerate(placed(self.spectrum, placements, band)):
            cross = float(((moved * target.conj()).real * band.weight).sum())
            norm = float((moved.abs().square() * band.weight).sum()) * target_norm
            alignment = Alignment(
                placements.rotation[number],
                placements.shift[number] * self.pixel_size_A,
                bool(placements.mirrored[number]),
                cross / math.sqrt(norm),
            )
            found.append(alignment)
        return found


def _pair(
    moving: Tensor, reference: Tensor, pixel_size_A: float, resolution_A: float | None
) -> _Pair:
    original_size = reference.shape[-1]
    _check(moving, reference)
    size = min(original_size, _MAX_BOX)
    radius = (size - 1) // 2
    if resolution_A is not None:
        radius = min(radius, int(original_size * pixel_size_A / resolution_A))
    device = reference.device
    window = fourier.soft_disc(original_size, 0.45 * original_size, 0.1 * original_size, 3, device)
    moving = fourier.resample(moving.float() * window, size, 3)
    reference = fourier.resample(reference.float() * window, size, 3)
    return _Pair(
        size,
        pixel_size_A * original_size / size,
        radius,
        min(COARSE_BAND, radius),
        moving,
        volume_spectrum(moving),
        tangent_spectra(reference),
    )


def apply_alignment(volume: Tensor, alignment: Alignment, pixel_size_A: float) -> Tensor:
    """Move a map by an alignment, with one accurate interpolation (`resampling.move_map`).

    Args:
        volume: (D, D, D).
        alignment: from `align`.
        pixel_size_A: of the volume.

    Returns:
        (D, D, D), without coefficients beyond the Nyquist sphere.
    """
    shift_px = alignment.shift_A.to(volume) / pixel_size_A
    return move_map(volume, alignment.rotation.to(volume), shift_px, alignment.mirrored)


def _check(moving: Tensor, reference: Tensor) -> None:
    shape = reference.shape
    if moving.shape != shape or len(shape) != 3 or len(set(shape)) != 1 or shape[0] < 16:
        raise InputError(
            f"Maps of {tuple(moving.shape)} and {tuple(shape)} voxels cannot be aligned; give "
            "two cubes of the same box of at least 16 voxels."
        )
    for name, volume in (("map to align", moving), ("reference map", reference)):
        if not bool(torch.isfinite(volume).all()) or float(volume.std()) == 0.0:
            raise InputError(
                f"The {name} is constant or holds values that are not finite, so there is "
                "nothing to align; give a map with density."
            )
