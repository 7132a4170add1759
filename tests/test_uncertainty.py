"""The uncertainty of a map against noise of known strength."""

import pytest
import torch

from cryogan.evaluation.uncertainty import uncertainty


def test_it_is_the_standard_deviation_of_the_mean_map(generator: torch.Generator) -> None:
    """Noise of 2 in one half of the box and 0.5 in the other: the mean has those over √2."""
    size = 40
    sigma = torch.where(torch.arange(size) < size // 2, 2.0, 0.5)
    signal = 10.0 * torch.randn(size, size, size, generator=generator)
    halves = [signal + sigma * torch.randn(size, size, size, generator=generator) for _ in range(2)]
    found = uncertainty(*halves)
    assert found.shape == signal.shape
    assert found[..., 5:15].mean() == pytest.approx(2.0 / 2**0.5, rel=0.03)
    assert found[..., 25:35].mean() == pytest.approx(0.5 / 2**0.5, rel=0.03)
    assert found[..., 5:15].std() / found[..., 5:15].mean() < 0.15  # averaged over many voxels


def test_equal_halves_are_sure(generator: torch.Generator) -> None:
    half = torch.randn(16, 16, 16, generator=generator)
    assert uncertainty(half, half).max() == 0.0
