"""The allocator's settings change nothing that is computed."""

import torch

from cryogan.memory import keep_freed_memory


def test_results_are_the_same_after_keeping_freed_memory(generator):
    """Large arrays, which the C library would have mapped and unmapped one by one."""
    matrix = torch.randn(600, 600, generator=generator)
    before = (matrix @ matrix).sum(0)
    keep_freed_memory()
    keep_freed_memory()
    assert torch.equal((matrix @ matrix).sum(0), before)


def test_a_system_without_the_setting_is_left_alone(monkeypatch):
    class OtherLibrary:
        """Has no `mallopt`, as on macOS."""

    monkeypatch.setattr("cryogan.memory.ctypes.CDLL", lambda name: OtherLibrary())
    keep_freed_memory()
    monkeypatch.setattr("cryogan.memory.ctypes.CDLL", _refuse)
    keep_freed_memory()


def _refuse(name):
    raise TypeError("as on Windows")
