"""Random streams: independent generators for everything random in a run, from one seed."""

import numpy as np
import torch


def seed_for(seed: int, *stream: int | str) -> int:
    """A seed for one stream of a run, by NumPy's `SeedSequence`: streams do not overlap.

    Args:
        seed: of the run.
        stream: names the stream: "half-set", 1 ...

    Returns:
        A number from 0 to 2⁶⁴ - 1.

    Example:
        >>> from cryogan.randomness import seed_for
        >>> seed_for(0, "half-set", 1) == seed_for(0, "half-set", 2)
        False
    """
    words = [seed % 2**64, *(_number(part) for part in stream)]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


def generator_for(seed: int, *stream: int | str) -> torch.Generator:
    """A CPU generator for one stream of a run (`seed_for`)."""
    return torch.Generator().manual_seed(seed_for(seed, *stream))


def _number(part: int | str) -> int:
    return part if isinstance(part, int) else int.from_bytes(part.encode(), "little")
