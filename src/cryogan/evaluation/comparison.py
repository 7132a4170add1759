"""Comparison of a map with the truth, and of two half maps with one another."""

import math
from dataclasses import dataclass
from typing import Protocol

import roma
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.evaluation.alignment import Alignment, align, apply_alignment
from cryogan.evaluation.directional import directional_fsc
from cryogan.evaluation.fsc import (
    band_end,
    corrected_fsc,
    ended,
    fourier_shell_correlation,
    resolution_A,
)
from cryogan.evaluation.masks import soft_mask
from cryogan.evaluation.resampling import resample_map


class MapLike(Protocol):
    """A map and its pixel size, such as `cryogan.io.mrc.Map`."""

    @property
    def volume(self) -> Tensor: ...

    @property
    def pixel_size_A(self) -> float: ...


@dataclass(frozen=True)
class Comparison:
    """A map in the frame of the truth, and how well they agree.

    Attributes:
        alignment: what moved the map onto the truth.
        aligned: (D, D, D), the map, moved.
        truth: (D, D, D), the truth at the map's pixel size and in its box.
        mask: (D, D, D), soft mask of the truth.
        pixel_size_A: of all three.
        fsc: (D // 2 + 1,), unmasked; NaN beyond the band of the map or of the truth.
        fsc_masked: (D // 2 + 1,), inside the mask; not corrected for the mask.
        correlation: Pearson correlation of all voxels.
        correlation_masked: Pearson correlation of the voxels, weighted by the mask.
    """

    alignment: Alignment
    aligned: Tensor
    truth: Tensor
    mask: Tensor
    pixel_size_A: float
    fsc: Tensor
    fsc_masked: Tensor
    correlation: float
    correlation_masked: float

    def resolution_A(self, threshold: float, *, masked: bool = False) -> float:
        """Resolution in Å at which the FSC with the truth falls below 0.5, 0.143 ..."""
        curve = self.fsc_masked if masked else self.fsc
        return resolution_A(curve, threshold, self.pixel_size_A, self.truth.shape[-1])

    def cfar(self) -> float:
        """Conical FSC area ratio inside the mask, from 0 to 1; NaN if no direction agrees.

        Below 0.5 the map agrees much less in some directions than in others.
        """
        last = int(self.fsc.isfinite().nonzero().max())
        return directional_fsc(self.aligned, self.truth, self.mask, last_shell=last).cfar

    def table(self) -> str:
        """The comparison as a plain-text table."""
        size = self.truth.shape[-1]
        rows = [("", "unmasked", "masked")]
        for threshold in (0.5, 0.143):
            plain, masked = (self.resolution_A(threshold, masked=m) for m in (False, True))
            rows.append((f"FSC with truth = {threshold}", f"{plain:.2f} Å", f"{masked:.2f} Å"))
        rows.append(("correlation", f"{self.correlation:.3f}", f"{self.correlation_masked:.3f}"))
        rows.append(("cFAR", "", f"{self.cfar():.2f}"))
        lines = [f"{name:<24}{plain:>12}{masked:>12}" for name, plain, masked in rows]

        rotvec = roma.rotmat_to_rotvec(self.alignment.rotation.double())
        angle = float(rotvec.norm())
        x, y, z = (rotvec / max(angle, 1e-9)).tolist()
        dx, dy, dz = self.alignment.shift_A.tolist()
        hand = "mirror image of the truth's" if self.alignment.mirrored else "as the truth's"
        about = {
            "hand of the map": hand,
            "turned by": f"{math.degrees(angle):.2f}° about ({x:.3f}, {y:.3f}, {z:.3f})",
            "moved by": f"({dx:.2f}, {dy:.2f}, {dz:.2f}) Å",
            "compared in": f"a box of {size} px of {self.pixel_size_A:.4g} Å "
            f"(Nyquist {2 * self.pixel_size_A:.4g} Å)",
            "mask": f"soft mask of the truth, {100 * float(self.mask.mean()):.1f} % of the box",
            "resolution": "first shell below the threshold, linear in spatial frequency",
            "conical FSC": "cFAR: least area under a curve over the largest, 1 if isotropic",
        }
        lines += [f"{name:<24}{text}" for name, text in about.items()]
        return "\n".join(lines)


@dataclass(frozen=True)
class HalfMapComparison:
    """Two independent reconstructions in one frame.

    Attributes:
        alignment: what moved half 2 onto half 1.
        half1: (D, D, D), without coefficients beyond the Nyquist sphere.
        aligned_half2: (D, D, D), in the frame of half 1.
        average: (D, D, D), mean of both.
        mask: (D, D, D), soft mask of the average.
        fsc: (D // 2 + 1,), unmasked; NaN beyond the band of either.
        fsc_masked: (D // 2 + 1,), inside the mask, corrected by phase randomisation.
    """

    alignment: Alignment
    half1: Tensor
    aligned_half2: Tensor
    average: Tensor
    mask: Tensor
    fsc: Tensor
    fsc_masked: Tensor


def compare_to_truth(
    map_: MapLike, truth: MapLike, *, mask: Tensor | None = None, allow_mirror: bool = True
) -> Comparison:
    """Align a map to the truth and compare the two.

    The truth is brought to the map's pixel size and box first (`resample_map`); both are limited
    to the Nyquist sphere.

    Args:
        map_: the map, box D.
        truth: any box and pixel size.
        mask: (D, D, D) in the frame of the truth; by default `soft_mask` of the truth.
        allow_mirror: whether the map may be replaced by its mirror image (projections cannot
            tell the hand).

    Raises:
        InputError: a map is not a cube, is constant, or its pixel size is not positive.
    """
    pixel_size = map_.pixel_size_A
    size = map_.volume.shape[-1]
    target = _limited(
        resample_map(truth.volume.to(map_.volume), truth.pixel_size_A, pixel_size, size)
    )
    alignment = align(map_.volume, target, pixel_size, allow_mirror=allow_mirror)
    aligned = apply_alignment(map_.volume, alignment, pixel_size)
    if mask is None:
        mask = soft_mask(target, pixel_size)
    width_A = size * pixel_size
    truth_width_A = truth.volume.shape[-1] * truth.pixel_size_A
    last = min(band_end(map_.volume), int(band_end(truth.volume) * width_A / truth_width_A))
    return Comparison(
        alignment=alignment,
        aligned=aligned,
        truth=target,
        mask=mask,
        pixel_size_A=pixel_size,
        fsc=ended(fourier_shell_correlation(aligned, target), last),
        fsc_masked=ended(fourier_shell_correlation(aligned, target, mask), last),
        correlation=correlation(aligned, target),
        correlation_masked=correlation(aligned, target, mask),
    )


def half_map_comparison(
    half1: Tensor,
    half2: Tensor,
    pixel_size_A: float,
    *,
    generator: torch.Generator,
    allow_mirror: bool = True,
) -> HalfMapComparison:
    """Align half 2 to half 1, average them and correlate them.

    The seven degrees of freedom of the alignment are fitted to the two maps and raise their FSC
    a little where it is near zero.

    Args:
        half1: (D, D, D).
        half2: (D, D, D), any frame and hand.
        pixel_size_A: of both.
        generator: CPU generator, for the phase randomisation of the masked FSC.
        allow_mirror: whether the mirror image of half 2 is tried too.

    Raises:
        InputError: the halves differ in shape, or one is constant.
    """
    alignment = align(half2, half1, pixel_size_A, allow_mirror=allow_mirror)
    first = _limited(half1)
    second = apply_alignment(half2, alignment, pixel_size_A)
    average = 0.5 * (first + second)
    mask = soft_mask(average, pixel_size_A)
    last = min(band_end(half1), band_end(half2))
    return HalfMapComparison(
        alignment=alignment,
        half1=first,
        aligned_half2=second,
        average=average,
        mask=mask,
        fsc=ended(fourier_shell_correlation(first, second), last),
        fsc_masked=ended(corrected_fsc(first, second, mask, generator), last),
    )


def correlation(a: Tensor, b: Tensor, weight: Tensor | None = None) -> float:
    """Pearson correlation of two maps, each voxel weighted by `weight` (default: alike)."""
    weight = torch.ones_like(a) if weight is None else weight
    weight = weight / weight.sum()
    a = a - (weight * a).sum()
    b = b - (weight * b).sum()
    norm = (weight * a.square()).sum() * (weight * b.square()).sum()
    return float((weight * a * b).sum() / norm.sqrt().clamp_min(1e-30))


def _limited(volume: Tensor) -> Tensor:
    """The map without coefficients beyond the Nyquist sphere."""
    size = volume.shape[-1]
    inside = fourier.frequency_grid(size, 3, volume.device).norm(dim=-1) <= 0.5
    return fourier.irfft(fourier.rfft(volume, 3) * inside, size, 3)
