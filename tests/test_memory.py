"""The allocator keeps freed memory and gives it back, as the system counts it."""

import platform
import subprocess
import sys

import pytest

from cryogan.allocator import keep_freed_memory, return_freed_memory

pytestmark = pytest.mark.slow
SCRIPT = """
import torch
from cryogan.allocator import keep_freed_memory, return_freed_memory

def resident_MB():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1000

torch.set_num_threads(1)
{first}
parts = [torch.ones(10_000_000) for _ in range(5)]  # 40 MB each
most = resident_MB()
del parts
freed = most - resident_MB()
return_freed_memory()
print(freed, most - resident_MB())
"""


def freed_MB(first: str) -> list[float]:
    """What 200 MB give back when they are freed, and after `return_freed_memory`."""
    command = [sys.executable, "-c", SCRIPT.format(first=first)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(value) for value in done.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of the GNU C library")
def test_freed_memory_is_kept_until_it_is_returned():
    kept, returned = freed_MB("keep_freed_memory()")
    assert kept < 20.0
    assert returned > 180.0
    at_once, _ = freed_MB("")
    assert at_once > 180.0


def test_other_systems_are_left_alone(monkeypatch):
    """A C library without a name, as on Windows; one without such settings, as on macOS."""
    asked = []

    def refuse(name):
        asked.append(name)
        raise TypeError

    for load in (refuse, lambda name: object()):
        monkeypatch.setattr("cryogan.allocator.ctypes.CDLL", load)
        keep_freed_memory()
        return_freed_memory()
    assert asked == [None, None]
