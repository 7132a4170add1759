"""`view.cxc`: models are numbered in the order in which ChimeraX opens them, and colours fit."""

from pathlib import Path

import pytest
import torch

from cryogan.fourier import soft_disc
from cryogan.io.mrc import write_map
from cryogan.phantom import phantom_map
from cryogan.run.view_script import VIEW, write_view

SIZE, PIXEL_SIZE_A = 24, 8.0


@pytest.mark.parametrize("sharpened", [False, True])
def test_the_map_is_coloured_by_its_local_resolution(tmp_path: Path, sharpened: bool) -> None:
    volume, mask = phantom_map(SIZE, PIXEL_SIZE_A), soft_disc(SIZE, SIZE / 2 - 2, 1.0, 3)
    local_A = torch.linspace(16.0, 30.0, SIZE)[:, None, None].expand(SIZE, SIZE, SIZE) + 0.0
    local_A[mask <= 0.5] = 1000.0
    names = ["map", "half1", "half2", *(["map_sharpened"] if sharpened else [])]
    for name in names:
        write_map(tmp_path / f"{name}.mrc", volume, PIXEL_SIZE_A)
    write_map(tmp_path / "local_resolution.mrc", local_A, PIXEL_SIZE_A)
    write_view(tmp_path, volume, mask)
    lines = (tmp_path / VIEW).read_text().splitlines()
    opened = next(line for line in lines if line.startswith("open ")).split()[1:]
    assert opened == [f"{name}.mrc" for name in (*names, "local_resolution")]
    assert f"hide #2-{len(opened)} models" in lines
    words = next(line for line in lines if line.startswith("color sample #1 ")).split()
    assert words[words.index("map") + 1] == f"#{len(opened)}"
    steps = [float(p.split(",")[0]) for p in words[words.index("palette") + 1].split(":")]
    assert steps == sorted(steps)
    assert 16.0 <= steps[0] < steps[-1] <= 30.0
    words = next(line for line in lines if line.startswith("volume #1 ")).split()
    inside = volume >= float(words[words.index("level") + 1])
    assert 0.01 < float(inside.double().mean()) < 0.3
    assert bool((mask[inside] > 0.5).all())


def test_without_local_resolution_it_has_one_colour(tmp_path: Path) -> None:
    """As where there is no structure."""
    volume = phantom_map(SIZE, PIXEL_SIZE_A)
    for name in ("map", "half1", "half2"):
        write_map(tmp_path / f"{name}.mrc", volume, PIXEL_SIZE_A)
    write_view(tmp_path, volume, torch.ones_like(volume))
    text = (tmp_path / VIEW).read_text()
    assert "color sample" not in text
    assert "open map.mrc half1.mrc half2.mrc\n" in text
    assert "hide #2-3 models\n" in text


def test_a_flat_map_does_no_harm(tmp_path: Path) -> None:
    volume = torch.zeros(SIZE, SIZE, SIZE)
    for name in ("map", "local_resolution"):
        write_map(tmp_path / f"{name}.mrc", volume, PIXEL_SIZE_A)
    write_view(tmp_path, volume, torch.zeros_like(volume))
    assert "nan" not in (tmp_path / VIEW).read_text()
