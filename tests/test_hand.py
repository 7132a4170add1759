"""`cryogan flip`: maps and poses of the other hand agree, and with RELION's idea of it."""

from pathlib import Path

import pytest
import torch

from cryogan.cli import main
from cryogan.evaluation.alignment import align
from cryogan.evaluation.hand import other_hand, poses_of_other_hand
from cryogan.fourier import soft_disc
from cryogan.io.mrc import read_map, write_map
from cryogan.io.relion_poses import read_poses
from cryogan.io.star import read_star
from cryogan.objectives.assumptions import Assumptions
from cryogan.particles import Pose
from cryogan.phantom import phantom_map
from cryogan.physics.projection import project
from cryogan.physics.rotations import angle_between, random_rotations
from finished_runs import finished
from relion_programs import relion

PIXEL_SIZE_A = 6.0
STAR = """
data_optics

loop_
_rlnOpticsGroup #1
_rlnImagePixelSize #2
1 6.0

data_particles

loop_
_rlnImageName #1
_rlnAngleRot #2
_rlnAngleTilt #3
_rlnAnglePsi #4
_rlnAnglePsiPrior #5
_rlnOriginXAngst #6
_rlnOriginYAngst #7
_rlnOpticsGroup #8
1@a.mrcs 10.5 20 30 30 1.5 -2 1
2@a.mrcs -170 95 -40 -40 0 0 1
3@a.mrcs 0 0 180 180 0 0 1
"""


@pytest.mark.parametrize("size", [24, 25])
def test_poses_show_the_same_images_in_the_other_hand(
    size: int, generator: torch.Generator
) -> None:
    """The projections of both maps, each at its own poses, are equal pixel by pixel."""
    inner = soft_disc(size, size / 2 - 4, 2.0, 3)  # the first section of an even box has no partner
    volume = inner * phantom_map(size, PIXEL_SIZE_A)
    pose = Pose(random_rotations(12, generator), torch.zeros(12, 2))
    before = project(volume, pose.rotation)
    after = project(other_hand(volume), poses_of_other_hand(pose).rotation)
    assert float((after - before).norm() / before.norm()) < 2e-3
    assert float((project(other_hand(volume), pose.rotation) - before).norm() / before.norm()) > 0.3


@pytest.mark.parametrize("size", [24, 25])
def test_twice_is_the_same_map(size: int, generator: torch.Generator) -> None:
    volume = torch.randn(size, size, size, generator=generator)
    assert torch.equal(other_hand(other_hand(volume)), volume)
    assert other_hand(volume)[(size // 2,) * 3] == volume[(size // 2,) * 3]


@pytest.mark.slow
def test_it_is_a_mirror_image_of_relion_in_another_orientation(tmp_path: Path) -> None:
    """RELION mirrors along x; a rotation, and no mirror image, leads from there to ours."""
    volume = phantom_map(24, PIXEL_SIZE_A)
    write_map(tmp_path / "map.mrc", volume, PIXEL_SIZE_A)
    relion(
        *("relion_image_handler", "--i", "map.mrc", "--o", "mirrored.mrc", "--invert_hand"),
        folder=tmp_path,
    )
    mirrored = read_map(tmp_path / "mirrored.mrc", PIXEL_SIZE_A).volume
    found = align(other_hand(volume), mirrored, PIXEL_SIZE_A)
    assert not found.mirrored
    assert found.correlation > 0.99


def test_a_map_and_its_poses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    volume = phantom_map(24, PIXEL_SIZE_A)
    write_map(tmp_path / "map.mrc", volume, PIXEL_SIZE_A)
    Path("poses.star").write_text(STAR)
    assert main(["flip", "map.mrc", "-o", "other.mrc", "--poses", "poses.star"]) == 0
    assert torch.equal(read_map(tmp_path / "other.mrc").volume, other_hand(volume))
    before, after = read_poses("poses.star"), read_poses("other.star")
    expected = poses_of_other_hand(before)
    assert float(angle_between(after.rotation, expected.rotation).max()) < 0.05
    assert torch.equal(after.shift_A, before.shift_A)
    old, new = (read_star(Path(name)) for name in ("poses.star", "other.star"))
    assert new[0].columns == old[0].columns
    assert new[1].columns["rlnAnglePsi"] == ("-150.000000", "140.000000", "0.000000")
    assert new[1].columns["rlnAnglePsiPrior"] == new[1].columns["rlnAnglePsi"]
    for label in ("rlnImageName", "rlnAngleRot", "rlnAngleTilt", "rlnOriginXAngst"):
        assert new[1].columns[label] == old[1].columns[label]


def test_a_run_is_flipped_as_a_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maps = phantom_map(16, 12.0)[None].repeat(2, 1, 1, 1)
    finished(tmp_path / "run", Assumptions(), maps, torch.zeros(2, 1))
    assert main(["flip", str(tmp_path / "run"), "-o", str(tmp_path / "flipped.mrc")]) == 0
    for name in ("flipped", "flipped_half1", "flipped_half2"):
        assert torch.equal(read_map(tmp_path / f"{name}.mrc").volume, other_hand(maps[0]))
    assert "conformations are not flipped" in capsys.readouterr().out


def test_maps_of_a_run_keep_the_suffix(tmp_path: Path) -> None:
    maps = phantom_map(16, 12.0)[None].repeat(2, 1, 1, 1)
    finished(tmp_path / "run", Assumptions(), maps, torch.zeros(2, 1))
    assert main(["flip", str(tmp_path / "run"), "-o", str(tmp_path / "flipped.map")]) == 0
    written = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
    assert written == ["flipped.map", "flipped_half1.map", "flipped_half2.map"]


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("run/map.mrc", "run/half1.mrc"),
        ("run/half1.mrc", "run/new.mrc"),
        ("run/half1.mrc", "link/new.mrc"),
        ("run/conformations/vol_000.mrc", "run/map.mrc"),
        ("run/conformations/vol_000.mrc", "run/conformations/new.mrc"),
        ("run", "run/new.mrc"),
        ("run", "run/conformations/new.mrc"),
        ("single.mrc", "run/half2.mrc"),
    ],
)
def test_the_folder_of_the_run_stays_as_it_is(
    source: str,
    output: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    maps = phantom_map(16, 12.0)[None].repeat(2, 1, 1, 1)
    finished(tmp_path / "run", Assumptions(), maps, torch.zeros(2, 1))
    Path("link").symlink_to("run")
    write_map(Path("single.mrc"), maps[0], 12.0)
    assert Path(source).exists()
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    assert main(["flip", source, "-o", output]) == 2
    error = capsys.readouterr().err
    assert "in the folder of a run" in error or "which is read" in error
    assert {path: path.read_bytes() for path in before} == before
    assert len([path for path in Path("run").rglob("*") if path.is_file()]) == len(before)


def test_half_maps_of_a_folder_that_is_no_run_are_inputs_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("maps").mkdir()
    for name in ("map", "half1"):
        write_map(Path(f"maps/{name}.mrc"), torch.rand(8, 8, 8), 2.0)
    before = Path("maps/half1.mrc").read_bytes()
    assert main(["flip", "maps", "-o", "maps/half1.mrc"]) == 2
    assert "which is read" in capsys.readouterr().err
    assert Path("maps/half1.mrc").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["map.mrc"], "give it with -o"),
        (["map.mrc", "-o", "map.mrc"], "which is read"),
        (["map.mrc", "-o", "out.txt"], "has to end in .mrc"),
        (["none.mrc", "-o", "out.mrc"], "There is no file none.mrc"),
        (["run", "-o", "out.mrc"], "There is no file run/map.mrc"),
        (["map.mrc", "-o", "out.mrc", "--poses", "map.mrc"], "is no star file"),
        (["map.mrc", "-o", "out.mrc", "--poses", "bare.star"], "rlnAnglePsi"),
        (["map.mrc", "-o", "poses.mrc", "--poses", "poses.star"], "which is read"),
    ],
)
def test_what_is_refused(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_map(Path("map.mrc"), torch.rand(8, 8, 8), 2.0)
    Path("run").mkdir()
    Path("bare.star").write_text("\ndata_\n\nloop_\n_rlnImageName #1\n1@a.mrcs\n")
    Path("poses.star").write_text(STAR)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main(["flip", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_names_of_images_lead_to_them_from_elsewhere(
    tmp_path: Path, generator: torch.Generator
) -> None:
    from cryogan.io.mrc import write_stack
    from cryogan.io.relion_hand import write_other_hand

    (tmp_path / "project").mkdir()
    (tmp_path / "elsewhere").mkdir()
    star, other = tmp_path / "project" / "poses.star", tmp_path / "elsewhere" / "other.star"
    star.write_text(STAR)
    write_other_hand(other, star)  # no images there: names stay
    assert read_star(other)[1].columns["rlnImageName"][0] == "1@a.mrcs"
    stack = tmp_path / "project" / "a.mrcs"
    write_stack(stack, torch.randn(3, 8, 8, generator=generator), 6.0)
    write_other_hand(other, star)
    assert read_star(other)[1].columns["rlnImageName"][0] == f"1@{stack}"
