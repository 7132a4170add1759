"""The folder of conformations: what is written is what is read, and tables agree with maps."""

from pathlib import Path

import pytest
import torch

from cryogan.conformations.folder import (
    conformations_folder,
    read_conformation_folder,
    read_conformations,
    write_conformations,
)
from cryogan.conformations.series import Series, numbered_series
from cryogan.errors import InputError
from cryogan.io.mrc import write_map

BOX, PIXEL_SIZE_A = 12, 4.0


def series(count: int, dimension: int = 1) -> Series:
    """Random maps of unequal weight."""
    generator = torch.Generator().manual_seed(3)
    volumes = torch.randn(count, BOX, BOX, BOX, generator=generator)
    weights = torch.rand(count, generator=generator)
    latents = torch.rand(count, dimension, generator=generator)
    return numbered_series(volumes, PIXEL_SIZE_A, weights, latents)


@pytest.mark.parametrize("dimension", [1, 2])
def test_a_series_is_read_as_it_was_written(dimension: int, tmp_path: Path) -> None:
    written = series(5, dimension)
    assert float(written.weight.sum()) == pytest.approx(1.0)
    write_conformations(tmp_path, written, path=True)
    read = read_conformations(tmp_path)
    assert read.names == written.names == [f"vol_{number:03d}.mrc" for number in range(5)]
    assert torch.equal(read.volumes, written.volumes)
    assert read.pixel_size_A == written.pixel_size_A
    torch.testing.assert_close(read.weight, written.weight, atol=1e-5, rtol=0)
    torch.testing.assert_close(read.coordinate, written.coordinate, atol=1e-6, rtol=0)


def test_tables_are_those_of_the_maps(tmp_path: Path) -> None:
    """Distances in units of the mean's norm; amplitudes whose distances these are."""
    written = series(5)
    write_conformations(tmp_path, written, path=True)
    found = read_conformation_folder(tmp_path)
    assert found is not None
    assert found.differences is not None
    assert found.amplitudes is not None
    flat = written.volumes.flatten(1).double()
    mean = written.weight @ flat
    distances = torch.cdist(flat, flat) / (mean - mean.mean()).norm()
    torch.testing.assert_close(found.differences, distances, atol=2e-6, rtol=0)
    # Five maps have four components, so that none is left out.
    assert found.amplitudes.shape == (5, 4)
    between = torch.cdist(found.amplitudes, found.amplitudes)
    torch.testing.assert_close(between, distances, atol=1e-5, rtol=0)
    variance = written.weight @ found.amplitudes.square()
    torch.testing.assert_close(found.shares, variance / variance.sum(), atol=1e-5, rtol=0)
    assert found.shares.tolist() == sorted(found.shares.tolist(), reverse=True)
    torch.testing.assert_close(
        written.weight @ found.amplitudes, torch.zeros(4).double(), atol=1e-5, rtol=0
    )


def test_only_a_path_is_a_morph(tmp_path: Path) -> None:
    for name, path in (("path", True), ("classes", False)):
        write_conformations(tmp_path / name, series(3), path=path)
        script = (tmp_path / name / "morph.cxc").read_text()
        assert "open vol_000.mrc vol_001.mrc vol_002.mrc\n" in script
        assert ("volume morph #1-3" in script) == path


def test_maps_without_a_table_are_a_series_by_name(tmp_path: Path) -> None:
    given = series(3)
    for name, volume in zip(("b.mrc", "a.mrc", "c.mrc"), given.volumes, strict=True):
        write_map(tmp_path / name, volume, PIXEL_SIZE_A)
    read = read_conformations(tmp_path)
    assert read.names == ["a.mrc", "b.mrc", "c.mrc"]
    assert torch.equal(read.volumes, given.volumes[[1, 0, 2]])
    assert read.weight.tolist() == pytest.approx([1 / 3] * 3)
    assert read.coordinate.shape == (3, 0)
    assert read_conformation_folder(tmp_path) is None


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds neither latents\.csv nor maps"):
        read_conformations(tmp_path)
    write_conformations(tmp_path, series(3), path=True)
    table = tmp_path / "differences.csv"
    table.write_text(table.read_text().replace("vol_001.mrc", "vol_007.mrc"))
    with pytest.raises(InputError, match=r"differences\.csv does not have"):
        read_conformation_folder(tmp_path)
    (tmp_path / "latents.csv").write_text("volume,z0,weight\nvol_000.mrc,0.5,-1\n")
    with pytest.raises(InputError, match=r"weights in .*latents\.csv are not a distribution"):
        read_conformations(tmp_path)
    write_map(tmp_path / "vol_001.mrc", torch.zeros(8, 8, 8), PIXEL_SIZE_A)
    (tmp_path / "latents.csv").write_text(
        "volume,z0,weight\nvol_000.mrc,0.5,1\nvol_001.mrc,0.5,1\n"
    )
    with pytest.raises(InputError, match=r"vol_001\.mrc has another box or pixel size"):
        read_conformations(tmp_path)


def test_a_run_keeps_its_conformations_in_a_folder_of_their_own(tmp_path: Path) -> None:
    assert conformations_folder(tmp_path) == tmp_path
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="holds no conformations"):
        conformations_folder(tmp_path)
    (tmp_path / "conformations").mkdir()
    assert conformations_folder(tmp_path) == tmp_path / "conformations"
    with pytest.raises(InputError, match="holds no conformations"):
        conformations_folder(tmp_path / "none")
