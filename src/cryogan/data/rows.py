"""Results of many images, computed a few at a time."""

from collections.abc import Iterable

from torch import Tensor


def row_by_row(parts: Iterable[tuple[Tensor, ...]], count: int) -> tuple[Tensor, ...]:
    """Tensors of `count` rows from tuples of tensors of fewer, one below the other.

    As by `torch.cat`, but no part is kept: a small result that stays behind among large arrays of
    its part keeps their memory from being used again, as much as the images of the whole set.

    Example:
        >>> import torch
        >>> from cryogan.data.rows import row_by_row
        >>> row_by_row(((part, 2 * part) for part in torch.arange(4).split(3)), 4)[1]
        tensor([0, 2, 4, 6])
    """
    found: tuple[Tensor, ...] = ()
    start = 0
    for part in parts:
        if not found:
            found = tuple(each.new_empty(count, *each.shape[1:]) for each in part)
        stop = start + len(part[0])
        for whole, each in zip(found, part, strict=True):
            whole[start:stop] = each
        start = stop
    if start != count:
        raise ValueError(f"the parts have {start} rows, not {count}")
    return found
