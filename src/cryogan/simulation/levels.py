"""What differs from image to image besides the molecule: contrast, noise level, picking, defocus.

Every quantity has a stream of random numbers of its own, so that the others stay what they are.
"""

import math

import torch
from torch import Tensor


def log_normal(spread: float, n: int, generator: torch.Generator) -> Tensor:
    """(n,) draws of a log-normal variable of mean 1 and standard deviation `spread`.

    ln x is normal with variance ln(1 + spread²) and mean -ln(1 + spread²) / 2.

    Example:
        >>> import torch
        >>> from cryogan.simulation.levels import log_normal
        >>> log_normal(0.0, 2, torch.Generator().manual_seed(0)).tolist()
        [1.0, 1.0]
    """
    variance = math.log1p(spread**2)
    normal = torch.randn(n, generator=generator, dtype=torch.float64)
    return torch.exp(math.sqrt(variance) * normal - variance / 2.0).float()


def noise_levels(spread: float, micrograph: Tensor, generator: torch.Generator) -> Tensor:
    """(n,) noise levels: one log-normal draw a micrograph, of root mean square 1 over the set.

    Args:
        spread: relative standard deviation.
        micrograph: (n,) int64, numbers of the micrographs from 0.
        generator: source of the draws.
    """
    level = log_normal(spread, int(micrograph.max()) + 1, generator)[micrograph]
    return level / level.double().square().mean().sqrt().float()


def _chosen(share: float, n: int, generator: torch.Generator) -> Tensor:
    """(n,) bool, each True with probability `share`."""
    return torch.rand(n, generator=generator) < share


def picking_errors_A(share: float, error_A: float, n: int, generator: torch.Generator) -> Tensor:
    """(n, 2) further shifts in Å: normal of standard deviation `error_A` for a share, else 0."""
    error = error_A * torch.randn(n, 2, generator=generator)
    return torch.where(_chosen(share, n, generator)[:, None], error, 0.0)


def defocus_errors_A(share: float, error_A: float, n: int, generator: torch.Generator) -> Tensor:
    """(n,) recorded minus true defocus in Å: plus or minus `error_A` for a share, else 0."""
    sign = 2.0 * torch.randint(2, (n,), generator=generator) - 1.0
    return torch.where(_chosen(share, n, generator), error_A * sign, 0.0)
