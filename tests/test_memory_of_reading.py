"""What is measured on all images takes no more memory than a few of them do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cryogan.data.images import CroppedStack
from cryogan.data.parts import in_parts, row_by_row
from cryogan.particles import ArrayStack

SCRIPT = """
import json
from dataclasses import dataclass

import torch

from cryogan.allocator import keep_freed_memory
from cryogan.data.centring import centred
from cryogan.data.normalisation import normalised
from cryogan.particles import CTFParams, Particles


@dataclass(frozen=True)
class Drawn:
    count: int
    box_size: int = 128

    def __len__(self):
        return self.count

    def read(self, index):
        generator = torch.Generator().manual_seed(int(index[0]))
        images = torch.randn(len(index), self.box_size, self.box_size, generator=generator)
        images[:, 40:88, 40:88] += 1.0
        return images


def peak_MB():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1000


torch.set_num_threads(1)
keep_freed_memory()  # as commands and worker processes do
peaks = []
for count in (1500, 4000):
    ctf = CTFParams.constant(count, defocus_u_A=15000.0)
    centred(normalised(Particles(Drawn(count), ctf, 3.0))[0])
    peaks.append(peak_MB())
print(json.dumps(peaks))
"""


def test_rows_are_those_of_cat() -> None:
    parts = [(torch.randn(n, 2), torch.arange(n)) for n in (3, 5, 1)]
    first, second = row_by_row(iter(parts), 9)
    assert torch.equal(first, torch.cat([part[0] for part in parts]))
    assert torch.equal(second, torch.cat([part[1] for part in parts]))
    with pytest.raises(ValueError, match="9 rows, not 10"):
        row_by_row(iter(parts), 10)
    with pytest.raises(ValueError, match="follow 8 of 8"):
        row_by_row(iter(parts), 8)
    with pytest.raises(ValueError, match="1 rows, to follow 0"):
        row_by_row([(torch.zeros(3), torch.zeros(1))], 3)


def test_parts_are_small_by_the_widest_box_on_the_way() -> None:
    """What a crop leaves was read at the width of the file."""
    wide = ArrayStack(torch.zeros(1, 400, 400))
    index = torch.arange(60)
    for stack in (wide, CroppedStack(wide, 32)):
        parts = in_parts(index, stack)
        assert [len(part) for part in parts] == [25, 25, 10]
        assert torch.equal(torch.cat(parts), index)
    assert len(in_parts(torch.arange(1000), ArrayStack(torch.zeros(1, 16, 16)))[0]) == 512


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory as Linux counts it")
def test_memory_does_not_grow_with_the_images() -> None:
    """When results of parts were joined at the end, 2,500 images more took 500 MB."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    few_MB, many_MB = json.loads(done.stdout)
    assert many_MB - few_MB < 200.0
