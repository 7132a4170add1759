"""Image stacks on disk, read image by image."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.mrc.header import MrcHeader, read_header


@dataclass(frozen=True, eq=False)
class MrcStack:
    """Images in one or several stacks on disk, read when asked for: an `ImageStack`.

    Attributes:
        files: the checked headers of the stacks.
        file_id: (n,) int64, which of `files` image i is in.
        slice_index: (n,) int64, its number there, from 0.
        sign: images are multiplied by it on reading (-1 turns dark protein bright).

    Boxes may differ among files (`io.mixed`): then there is no `box_size`, and images that are
    read together must be of one.

    Raises:
        InputError: images are not square.
    """

    files: Sequence[MrcHeader]
    file_id: Tensor
    slice_index: Tensor
    sign: float = 1.0

    def __post_init__(self) -> None:
        for header in self.files:
            _, rows, columns = header.shape
            if rows != columns:
                raise InputError(
                    f"{header.path} holds images of {columns} x {rows} pixels; extract the "
                    "particles again in square boxes."
                )
            if header.axes != (3, 2, 1):
                raise InputError(
                    f"{header.path} stores its axes in another order than x, y, image; write "
                    "it again as a plain stack."
                )

    @classmethod
    def open(cls, *paths: Path | str, sign: float = 1.0) -> Self:
        """All images of the given stacks, in order.

        Raises:
            InputError: as `read_header` and the constructor.
        """
        files = [read_header(path) for path in paths]
        counts = torch.tensor([header.shape[0] for header in files])
        stack = cls(
            files,
            torch.repeat_interleave(torch.arange(len(files)), counts),
            torch.cat([torch.arange(int(count)) for count in counts]),
            sign,
        )
        _ = stack.box_size
        return stack

    @cached_property
    def box_size(self) -> int:
        first = self.files[0]
        for header in self.files:
            if header.shape[2] != first.shape[2]:
                raise InputError(
                    f"{header.path} holds images of box {header.shape[2]} but {first.path} of box "
                    f"{first.shape[2]}; extract all particles in one box size."
                )
        return first.shape[2]

    @property
    def boxes(self) -> Tensor:
        """(n,) int64, the box of every image."""
        return torch.tensor([header.shape[2] for header in self.files])[self.file_id]

    def subset(self, index: Tensor) -> "MrcStack":
        """The images of `index` ((n,) int64), with the files that hold them."""
        used, file_id = torch.unique(self.file_id[index], return_inverse=True)
        files = [self.files[number] for number in used.tolist()]
        return MrcStack(files, file_id, self.slice_index[index], self.sign)

    def __len__(self) -> int:
        return self.file_id.shape[0]

    def read(self, index: Tensor) -> Tensor:
        """The images of `index` ((n,) int64) as an (n, D, D) float32 tensor, times `sign`.

        Raises:
            InputError: an image holds NaN or infinite pixels, or is not in its file any more.
        """
        file_id, slice_index = self.file_id[index], self.slice_index[index]
        box_size = self.files[int(file_id[0])].shape[2] if len(index) else self.box_size
        images = torch.empty(len(index), box_size, box_size)
        for number in set(file_id.tolist()):
            chosen = (file_id == number).nonzero()[:, 0]
            # Opened anew at each read: costs 0.1 ms, holds no file open, survives pickling.
            pixels = self.files[number].read_sections(slice_index[chosen])
            images[chosen] = torch.from_numpy(pixels.astype(np.float32))
        finite = torch.isfinite(images).flatten(1).all(dim=1)
        if not bool(finite.all()):
            bad = int((~finite).nonzero()[0])
            raise InputError(
                f"Image {int(slice_index[bad]) + 1} of {self.files[int(file_id[bad])].path} "
                "holds NaN or infinite pixels; leave it out of the star file or repair the stack."
            )
        return images * self.sign
