"""Particles assigned to a given map, without any run."""

from pathlib import Path

import pytest
import torch

import cryogan as cg
from cryogan.cli import main
from cryogan.io.mrc import Map, write_map, write_stack
from cryogan.io.relion_poses import read_poses
from cryogan.io.star import read_star
from cryogan.particles import ArrayStack
from cryogan.physics.distributions import PoseDistribution, Triangular
from cryogan.physics.imaging import rescale_volume
from cryogan.physics.rotations import angle_between
from cryogan.simulation.in_memory import simulate_particles, write_dataset
from cryogan.simulation.microscope import random_ctf

BOX, PIXEL_SIZE_A, COUNT = 24, 8.0, 200
GRID_DEG = 7.4  # of the finest level for this molecule

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 images of the phantom, off centre by up to 10 % of the box, and the truth."""
    folder = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(7)
    volume = cg.phantom_map(BOX, PIXEL_SIZE_A)
    made = simulate_particles(
        volume,
        pixel_size_A=PIXEL_SIZE_A,
        n=COUNT,
        ctf=random_ctf(COUNT, generator),
        poses=PoseDistribution(shifts=Triangular(0.1 * BOX * PIXEL_SIZE_A)),
        snr_dB=0.0,
        generator=generator,
    )
    write_dataset(folder, made, volume)
    return folder


def errors(folder: Path, poses: cg.Pose) -> tuple[float, float]:
    """Median errors of rotation (degrees) and shift (Å)."""
    truth = read_poses(folder / "truth" / "poses.star")
    angle = angle_between(poses.rotation, truth.rotation).median()
    return float(angle), float((poses.shift_A - truth.shift_A).norm(dim=1).median())


def test_poses_are_found_with_a_map_of_another_pixel_size_box_and_scale(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half as fine, in a box a third wider, a thousand times as bright: and written."""
    fine = cg.phantom_map(64, 4.0)
    write_map(tmp_path / "map.mrc", 1000.0 * fine, 4.0)
    star = tmp_path / "poses.star"
    arguments = ["assign", str(dataset / "particles.star"), "-o", str(star), "--device=cpu"]
    assert main([*arguments, "--reference", str(tmp_path / "map.mrc")]) == 0
    said = capsys.readouterr().out
    assert f"each particle against {tmp_path / 'map.mrc'}" in said
    assert "images centred on reading" in said
    angle_deg, shift_A = errors(dataset, read_poses(star))
    assert angle_deg < GRID_DEG
    assert shift_A < 0.5 * PIXEL_SIZE_A
    table = next(table for table in read_star(star) if "rlnImageName" in table)
    assert "rlnRandomSubset" not in table.columns


def test_what_is_given_is_not_measured(dataset: Path) -> None:
    particles = cg.read_particles(dataset / "particles.star")
    truth = Map(cg.phantom_map(BOX, PIXEL_SIZE_A), PIXEL_SIZE_A)
    told: list[str] = []
    found = cg.assign(
        particles,
        reference=truth,
        diameter_A=150.0,
        max_shift="10%",
        resolution_A=20.0,
        device="cpu",
        started=lambda about: told.append(about["particles"]["summary"]),
    )
    assert "images centred" not in told[0]
    assert found.half is None
    assert errors(dataset, found.pose)[0] < 1.5 * GRID_DEG


def test_a_symmetry_that_the_map_has_not_is_refused(dataset: Path) -> None:
    particles = cg.read_particles(dataset / "particles.star")
    truth = Map(cg.phantom_map(BOX, PIXEL_SIZE_A), PIXEL_SIZE_A)
    with pytest.raises(cg.InputError, match="no symmetry D2 about RELION's axes"):
        cg.assign(particles, reference=truth, symmetry="D2", device="cpu")
    symmetric = Map(cg.phantom_map(BOX, PIXEL_SIZE_A, symmetry="D2"), PIXEL_SIZE_A)
    few = particles.subset(torch.arange(60))
    found = cg.assign(few, reference=symmetric, symmetry="D2", max_shift=0.0, device="cpu")
    assert found.symmetry == "D2"


def test_images_that_do_not_fit_the_map_are_said(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bright particles read as dark ones; noise from a stack of patches."""
    write_map(tmp_path / "map.mrc", cg.phantom_map(BOX, PIXEL_SIZE_A), PIXEL_SIZE_A)
    sd = cg.read_particles(dataset / "particles.star").stack.read(torch.arange(COUNT)).std()
    generator = torch.Generator().manual_seed(3)
    patches = 0.7 * sd * torch.randn(100, BOX, BOX, generator=generator)
    write_stack(tmp_path / "noise.mrcs", patches, PIXEL_SIZE_A)
    arguments = ["assign", str(dataset / "particles.star"), "--device=cpu", "--max-shift=10%"]
    arguments += ["--reference", str(tmp_path / "map.mrc"), "--first=100"]
    arguments += ["--noise-patches", str(tmp_path / "noise.mrcs")]
    for sign in ("bright", "dark"):
        assert main([*arguments, "--sign", sign, "-o", str(tmp_path / f"{sign}.star")]) == 0
        assert ("better than the map" in capsys.readouterr().out) == (sign == "dark")


def refusal(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_maps_that_cannot_be_compared_are_refused(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "poses.star"
    arguments = ["assign", str(dataset / "particles.star"), "-o", str(output), "--device=cpu"]
    truth = cg.phantom_map(BOX, PIXEL_SIZE_A)
    path = tmp_path / "map.mrc"
    with_map = [*arguments, "--reference", str(path)]
    assert "There is no file" in refusal(capsys, with_map)
    write_map(path, truth, 0.45 * PIXEL_SIZE_A)
    assert "less than half of their box" in refusal(capsys, with_map)
    write_map(path, torch.ones_like(truth), PIXEL_SIZE_A)
    assert "same value everywhere" in refusal(capsys, with_map)
    write_map(path, -truth, PIXEL_SIZE_A)
    assert "dark molecule" in refusal(capsys, with_map)
    write_map(path, truth.roll((5, 5), (0, 2)), PIXEL_SIZE_A)
    assert "off the origin, the voxel 12" in refusal(capsys, with_map)
    write_map(path, truth, PIXEL_SIZE_A)
    bytes_ = bytearray(path.read_bytes())
    bytes_[40:52] = bytes(12)  # the box in Å
    path.write_bytes(bytes_)
    assert "no pixel size in its header" in refusal(capsys, with_map)
    write_map(path, truth, PIXEL_SIZE_A)
    assert "one of them" in refusal(capsys, arguments)
    both = [*with_map, str(tmp_path)]
    assert "one of them" in refusal(capsys, [both[0], both[1], both[-1], *both[2:-1]])
    (tmp_path / "config.json").write_text("{}")
    run = ["assign", str(dataset / "particles.star"), str(tmp_path), *arguments[2:]]
    assert "--diameter goes with --reference" in refusal(capsys, [*run, "--diameter", "100"])
    assert not output.exists()


@pytest.mark.parametrize("box_size", [1, 2, 5, 8, 15])
def test_boxes_that_no_run_takes_are_refused(box_size: int) -> None:
    images = torch.randn(200, box_size, box_size, generator=torch.Generator().manual_seed(1))
    ctf = random_ctf(200, torch.Generator().manual_seed(2))
    particles = cg.Particles(ArrayStack(images), ctf, PIXEL_SIZE_A)
    truth = Map(cg.phantom_map(BOX, PIXEL_SIZE_A), PIXEL_SIZE_A)
    with pytest.raises(cg.InputError, match=f"box of {box_size} px; give .* at least 16 px"):
        cg.assign(particles, reference=truth, device="cpu")


def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_work(*_: object, **__: object) -> None:
        raise AssertionError("particles were assigned")

    monkeypatch.setattr(cg, "assign", no_work)
    write_map(tmp_path / "map.mrc", cg.phantom_map(BOX, PIXEL_SIZE_A), PIXEL_SIZE_A)
    arguments = ["assign", str(dataset / "particles.star"), "--device=cpu"]
    arguments += ["--reference", str(tmp_path / "map.mrc"), "-o", "/proc/poses.star"]
    assert "Cannot write /proc/poses.star" in refusal(capsys, arguments)


def test_a_coarse_map_limits_the_band(dataset: Path) -> None:
    """Where the map ends, noise in the images does not count: the same as with cropped images."""
    particles = cg.read_particles(dataset / "particles.star").subset(torch.arange(100))
    coarse = Map(rescale_volume(cg.phantom_map(BOX, PIXEL_SIZE_A), 16), 12.0)
    found = cg.assign(particles, reference=coarse, max_shift="10%", device="cpu")
    truth = read_poses(dataset / "truth" / "poses.star").rotation[:100]
    assert float(angle_between(found.pose.rotation, truth).median()) < 2.0 * GRID_DEG
