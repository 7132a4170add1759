"""Sets whose images differ in pixel size, box or contrast sign: brought to one on reading.

The common pixel is the coarsest: every image then has signal and noise in every shell, which no
finer pixel could give to all. The common box is the smallest field of view: padding would leave
rims without noise. Both keep the origin, so that CTFs and shifts in Å are those of the file.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.io.images import settle_pixel_size
from cryogan.io.mrc import MrcStack
from cryogan.particles import ImageStack

_Numbers = np.ndarray[Any, np.dtype[np.float64]]
SAME_SIZE = 1e-3  # pixel sizes that differ by less, relatively, are one
_LEAST_BOX = 16  # of what larger images are brought to


@dataclass(frozen=True)
class Kind:
    """What some images of a set have in common on disk.

    Attributes:
        pixel_size_A: their pixel size.
        box_size: their box.
        sign: what they are multiplied by.
    """

    pixel_size_A: float
    box_size: int
    sign: float = 1.0


@dataclass(frozen=True, eq=False)
class MixedStack:
    """Images of several kinds, resampled on reading: an `ImageStack`.

    The crop in Fourier space is unitary: white noise keeps its variance per pixel, and images
    that were normalised at either pixel size stay normalised. With it the particle has the
    brightness that it would have in images recorded at the common pixel size.

    Attributes:
        disk: the images as they are on disk.
        kinds: what they can be.
        kind: (n,) int64, which of `kinds`.
        pixel_size_A, box_size: what they are brought to.
        sign: images are multiplied by it, besides the sign of their kind.
    """

    disk: MrcStack
    kinds: Sequence[Kind]
    kind: Tensor
    pixel_size_A: float
    box_size: int
    sign: float = 1.0

    def __len__(self) -> int:
        return len(self.disk)

    def subset(self, index: Tensor) -> "MixedStack":
        """The images of `index` ((n,) int64), with the files that hold them."""
        return replace(self, disk=self.disk.subset(index), kind=self.kind[index])

    def read(self, index: Tensor) -> Tensor:
        """The images of `index` ((n,) int64) as an (n, D, D) float32 tensor."""
        images = torch.empty(len(index), self.box_size, self.box_size)
        kind = self.kind[index]
        for number in set(kind.tolist()):
            chosen = kind == number
            mine = self.kinds[number]
            read = self.disk.read(index[chosen]) * (self.sign * mine.sign)
            images[chosen] = resampled(read, self.pixel_size_A / mine.pixel_size_A, self.box_size)
        return images


def resampled(images: Tensor, ratio: float, box_size: int) -> Tensor:
    """(n, D, D) images at pixels `ratio` >= 1 times as large, cut to `box_size`; unitary."""
    if abs(ratio - 1.0) <= SAME_SIZE:
        return fourier.crop_or_pad(images, box_size)
    matrix = _interpolation(images.shape[-1], ratio, box_size)
    new: Tensor = matrix @ images @ matrix.T
    return new


@lru_cache(maxsize=32)
def _interpolation(box_size: int, ratio: float, new_size: int) -> Tensor:
    """(D', D): band-limited values at D' new pixels about the origin, along one axis.

    A Fourier crop for any ratio, also where D / ratio is no whole number. As in
    `fourier.resize`, the Nyquist frequency of the new pixels is left out.
    """
    new = (torch.arange(new_size, dtype=torch.float64) - new_size // 2) * ratio
    old = torch.arange(box_size, dtype=torch.float64) - box_size // 2
    k = torch.arange(1, box_size // 2 + 1, dtype=torch.float64) / box_size
    k = 2.0 * torch.pi * k[k < 0.5 / ratio - 1e-6]
    to, of = new[:, None] * k, old[:, None] * k
    waves = to.cos() @ of.cos().T + to.sin() @ of.sin().T
    return ((1.0 + 2.0 * waves) * (math.sqrt(ratio) / box_size)).float()


def disk_pixel_sizes_A(stack: ImageStack, pixel_size_A: float) -> Tensor:
    """(n,) pixel sizes of the images on disk; `pixel_size_A` unless they are of several kinds."""
    if not isinstance(stack, MixedStack):
        return torch.full((len(stack),), pixel_size_A, dtype=torch.float64)
    return torch.tensor([kind.pixel_size_A for kind in stack.kinds]).double()[stack.kind]


def disk_signs(stack: ImageStack) -> Tensor:
    """(n,) what the images on disk are multiplied by."""
    if isinstance(stack, MrcStack):
        return torch.full((len(stack),), stack.sign)
    assert isinstance(stack, MixedStack)
    return stack.sign * torch.tensor([kind.sign for kind in stack.kinds])[stack.kind]


def settle_stack(
    path: Path,
    sizes_A: _Numbers | None,
    label: str,
    given_A: float | None,
    stack: MrcStack,
    signs: Tensor | None = None,
) -> tuple[MrcStack | MixedStack, float, str]:
    """A stack of one pixel size and box, the pixel size, and where it came from.

    Args:
        path: the particle file.
        sizes_A: (n,) pixel sizes in it, or None.
        label: the column they stand in.
        given_A: what the user gave.
        stack: images that may differ in box.
        signs: (n,) what the images are multiplied by; 1 if None.

    Raises:
        InputError: as `settle_pixel_size`, or one pixel size is given for several.
    """
    if sizes_A is None and given_A is None:
        sizes_A = _sizes_in_headers(stack)
    if sizes_A is not None and np.ptp(sizes_A) <= SAME_SIZE * np.abs(sizes_A).max():
        sizes_A = np.full(len(stack), np.median(sizes_A))
    keys = torch.stack(
        (
            torch.zeros(len(stack)).double() if sizes_A is None else torch.from_numpy(sizes_A),
            stack.boxes.double(),
            torch.ones(len(stack)).double() if signs is None else signs.double(),
        ),
        dim=-1,
    )
    rows, kind = torch.unique(keys, dim=0, return_inverse=True)
    several = len(set(rows[:, 0].tolist())) > 1
    if several and given_A is not None:
        raise InputError(
            f"{path} has images of {len(set(rows[:, 0].tolist()))} pixel sizes "
            f"({rows[:, 0].min():.4g} to {rows[:, 0].max():.4g} Å) and one was given, "
            f"{given_A:g} Å; leave out --apix, or choose the particles of one with --ind."
        )
    kinds, origins = [], []
    for number, (size, box, sign) in enumerate(rows.tolist()):
        found = (size, label) if label and sizes_A is not None else None
        part = stack.subset((kind == number).nonzero()[:, 0])
        settled, origin = settle_pixel_size(path, found, given_A, part)
        kinds.append(Kind(settled, int(box), sign))
        origins.append(origin)
    origin = "headers of the stacks"
    if not several or label:
        origin = "; ".join(dict.fromkeys(part for words in origins for part in words.split("; ")))
    if len(kinds) == 1:
        return replace(stack, sign=kinds[0].sign), kinds[0].pixel_size_A, origin
    common_A = max(k.pixel_size_A for k in kinds)
    boxes = [_box_at(k, common_A) for k in kinds]
    box_size = round(min(boxes)) if max(boxes) == min(boxes) else 2 * int(min(boxes) / 2 + 1e-3)
    if box_size < _LEAST_BOX <= min(k.box_size for k in kinds) or box_size < 2:
        raise InputError(
            f"The images of {path} have too small a field of view in common: boxes of "
            f"{min(boxes):.3g} to {max(boxes):.3g} pixels of {common_A:.4g} Å; correct the pixel "
            "sizes, or choose the particles of one with --ind."
        )
    return MixedStack(stack, kinds, kind, common_A, box_size), common_A, origin


def _box_at(kind: Kind, pixel_size_A: float) -> float:
    """The field of view in pixels of another size."""
    ratio = pixel_size_A / kind.pixel_size_A
    return kind.box_size / (1.0 if ratio - 1.0 <= SAME_SIZE else ratio)


def _sizes_in_headers(stack: MrcStack) -> _Numbers | None:
    """(n,) pixel sizes that headers say, NaN where one says none; None unless they differ."""
    known = np.array([header.known_pixel_size_A or np.nan for header in stack.files])
    if len(np.unique(known[np.isfinite(known)])) < 2:
        return None
    sizes_A: _Numbers = known[stack.file_id.numpy()]
    return sizes_A


def describe_kinds(stack: ImageStack, groups: Sequence[str] | None) -> list[str]:
    """Lines for people: what the images were on disk and what they are brought to.

    Args:
        stack: the images.
        groups: each image's optics group, or None.
    """
    if not isinstance(stack, MixedStack):
        return []
    target = f"{stack.pixel_size_A:.4g} Å, box {stack.box_size}"
    names = None if groups is None else np.asarray(groups)
    lines = []
    for number, kind in enumerate(stack.kinds):
        mine = (stack.kind == number).numpy()
        of = "" if names is None else f" of optics group {', '.join(sorted(set(names[mine])))}"
        sign = "" if kind.sign > 0 else ", inverted"
        lines.append(
            f"{int(mine.sum()):,} images{of}: {kind.pixel_size_A:.4g} Å, box {kind.box_size}"
            f"{sign} -> {target}"
        )
    return lines
