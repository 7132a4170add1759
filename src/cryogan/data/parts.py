"""Many images, a few at a time: which are read together, and their results in one array."""

from collections.abc import Iterable

import torch
from torch import Tensor

from cryogan.particles import DerivedStack, ImageStack

_PIXELS = 4_000_000
_IMAGES = 512


def in_parts(index: Tensor, stack: ImageStack, images: int = _IMAGES) -> tuple[Tensor, ...]:
    """Numbers of images ((m,) int64), as many at a time as are read in little memory.

    At most so many images, and 4 million pixels of the widest box on the way from the file: a crop
    or a small working box does not make what is read any smaller.
    """
    size = stack.box_size
    while isinstance(stack, DerivedStack):
        stack = stack.parent
        size = max(size, stack.box_size)
    return torch.split(index, max(1, min(images, _PIXELS // size**2)))


def row_by_row(parts: Iterable[tuple[Tensor, ...]], count: int) -> tuple[Tensor, ...]:
    """Tensors of `count` rows from tuples of tensors of fewer, one below the other.

    As by `torch.cat`, but no part is kept: a small result that stays behind among large arrays of
    its part keeps their memory from being used again, as much as the images of the whole set.

    Example:
        >>> import torch
        >>> from cryogan.data.parts import row_by_row
        >>> row_by_row(((part, 2 * part) for part in torch.arange(4).split(3)), 4)[1]
        tensor([0, 2, 4, 6])
    """
    found: tuple[Tensor, ...] | None = None
    start = 0
    for part in parts:
        if found is None:
            found = tuple(each.new_empty(count, *each.shape[1:]) for each in part)
        stop = start + len(part[0])
        for whole, each in zip(found, part, strict=True):
            if len(each) != stop - start or stop > count:
                raise ValueError(f"a part has {len(each)} rows, to follow {start} of {count}")
            whole[start:stop] = each
        start = stop
    if found is None or start != count:
        raise ValueError(f"the parts have {start} rows, not {count}")
    return found
