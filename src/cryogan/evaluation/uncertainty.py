"""How sure each voxel of a map is, from the difference of its half-maps."""

from torch import Tensor

from cryogan import fourier

AVERAGED_OVER = 5.0
"""Radius in voxels of the ball, falling as a raised cosine, that variances are averaged over."""


def uncertainty(half1: Tensor, half2: Tensor) -> Tensor:
    """Standard deviation of the mean of two half-maps, voxel by voxel.

    Two independent maps of variance v differ by 2 v in mean square, and their mean has v / 2: that
    is a quarter of the squared difference, averaged over the surrounding voxels. What both
    half-maps get wrong alike is not in it.

    Args:
        half1: (D, D, D), without filter and mask.
        half2: (D, D, D), in the frame of `half1`.

    Returns:
        (D, D, D) in the units of the maps.
    """
    size = half1.shape[-1]
    ball = fourier.soft_disc(size, 0.0, min(AVERAGED_OVER, size / 2), 3, half1.device)
    squares = 0.25 * (half1 - half2).square()
    spectrum = fourier.rfft(squares, 3) * fourier.rfft(ball / ball.sum(), 3)
    return fourier.irfft(spectrum, size, 3).clamp_min(0.0).sqrt()
