"""The allocator's settings change nothing that is computed."""

import pytest
import torch

from cryogan.allocator import keep_freed_memory, return_freed_memory


def test_results_are_the_same_after_keeping_freed_memory(generator):
    """Large arrays, which the C library would have mapped and unmapped one by one."""
    matrix = torch.randn(600, 600, generator=generator)
    before = (matrix @ matrix).sum(0)
    for _ in range(2):
        keep_freed_memory()
        assert torch.equal((matrix @ matrix).sum(0), before)
        return_freed_memory()
        assert torch.equal((matrix @ matrix).sum(0), before)


class OtherLibrary:
    """A C library that has no such settings, as on macOS."""


def refuse(name):
    raise TypeError("there is no library without a name, as on Windows")


@pytest.mark.parametrize("load", [lambda name: OtherLibrary(), refuse])
def test_other_systems_are_left_alone(load, monkeypatch):
    monkeypatch.setattr("cryogan.allocator.ctypes.CDLL", load)
    keep_freed_memory()
    return_freed_memory()
