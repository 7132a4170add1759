"""Smaller images: the same molecule, the right pixel size, every column kept or converted."""

from pathlib import Path

import numpy as np
import pytest
import torch

import cryogan
from cryogan import fourier
from cryogan.cli import main
from cryogan.io.mrc import read_header, write_stack
from cryogan.io.relion_poses import read_poses
from cryogan.io.relion_writing import write_particles
from cryogan.io.star import read_star
from cryogan.particles import CTFParams, Pose
from cryogan.phantom import phantom_map
from cryogan.physics.distributions import PoseDistribution
from cryogan.physics.imaging import rescale_volume, simulate_images

N, BOX, SMALL, PIXEL_A = 6, 48, 32, 4.0
MOVED_PX = [(3, -2), (0, 0), (-4, 1), (2, 2), (1, 0), (0, 5)]  # (x, y)


@pytest.fixture
def pose(generator: torch.Generator) -> Pose:
    """Poses with the particles displaced by whole pixels and a bit."""
    rotation = PoseDistribution().sample(N, generator).rotation
    return Pose(rotation, (torch.tensor(MOVED_PX).float() + 0.25) * PIXEL_A)


@pytest.fixture
def star(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pose: Pose) -> Path:
    monkeypatch.chdir(tmp_path)
    images = simulate_images(phantom_map(BOX, PIXEL_A), pose, None, pixel_size_A=PIXEL_A)
    write_stack(tmp_path / "a.mrcs", images, PIXEL_A)
    write_particles(
        tmp_path / "p.star",
        image_names="a.mrcs",
        ctf=CTFParams.constant(N, defocus_u_A=10000.0),
        pixel_size_A=PIXEL_A,
        box_size=BOX,
        pose=pose,
        extra={"rlnMicrographName": [f"m{i}.mrc" for i in range(N)]},
    )
    return tmp_path / "p.star"


def images_of(path: Path | str) -> torch.Tensor:
    particles = cryogan.read_particles(path, sign="bright")
    return particles.stack.read(torch.arange(len(particles)))


def small_projections(pose: Pose) -> torch.Tensor:
    small = rescale_volume(phantom_map(BOX, PIXEL_A), SMALL)
    return simulate_images(small, pose, None, pixel_size_A=PIXEL_A * BOX / SMALL)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Difference below the Nyquist limit; beyond it, in corners, our projections are empty."""
    band = fourier.band_mask(SMALL, SMALL / 2)
    found = fourier.irfft(fourier.rfft(found) * band, SMALL)
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("size", [["--box", "32"], ["--new-apix", "5.9"]])
def test_images_are_projections_of_the_downsampled_map(
    size: list[str], star: Path, pose: Pose, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["downsample", "p.star", "-o", "small", *size]) == 0
    assert "48 px of 4 Å to 32 px of 6 Å" in capsys.readouterr().out.replace("\n", " ")
    particles = cryogan.read_particles("small/particles.star")
    assert (particles.box_size, particles.pixel_size_A) == (SMALL, 6.0)
    assert relative(images_of("small/particles.star"), small_projections(pose)) < 0.03
    unmoved = Pose(pose.rotation, torch.zeros(N, 2))
    assert relative(images_of("small/particles.star"), small_projections(unmoved)) > 0.3


def test_recentred_images_are_projections_at_what_the_file_now_says(star: Path, pose: Pose) -> None:
    assert main(["downsample", "p.star", "-o", "small", "--box", "32", "--recentre"]) == 0
    left = read_poses("small/particles.star")
    assert left.shift_A.numpy() == pytest.approx(np.full((N, 2), 0.25 * PIXEL_A), abs=1e-5)
    assert relative(images_of("small/particles.star"), small_projections(left)) < 0.03


def test_pixel_size_box_and_names_change_and_all_else_stays(star: Path) -> None:
    assert main(["downsample", "p.star", "-o", "small", "--box", "32", "--first", "4"]) == 0
    (old_optics, old), (optics, new) = read_star("p.star"), read_star("small/particles.star")
    assert list(optics.columns) == list(old_optics.columns)
    assert list(new.columns) == list(old.columns)
    assert optics.columns["rlnImagePixelSize"] == ("6.000000",)
    assert optics.columns["rlnImageSize"] == ("32",)
    for label, values in old.columns.items():
        if label != "rlnImageName":
            assert list(new.columns[label]) == list(values[:4])
    assert list(new.columns["rlnImageName"]) == [f"00000{i}@particles.mrcs" for i in range(1, 5)]
    header = read_header("small/particles.mrcs")
    assert header.shape == (4, SMALL, SMALL)
    assert header.voxel_size_A[:2] == pytest.approx((6.0, 6.0))


def test_files_of_relion_3_0(star: Path, pose: Pose) -> None:
    """One table; the pixel size from detector and magnification, origins in pixels."""
    table = read_star("p.star")[1]
    keep = [label for label in table.columns if "Optics" not in label and "Angst" not in label]
    labels = [*keep, "rlnOriginX", "rlnOriginY", "rlnOriginXPrior", "rlnMagnification"]
    labels += ["rlnDetectorPixelSize", "rlnVoltage", "rlnSphericalAberration"]
    labels += ["rlnAmplitudeContrast"]
    shift_px = pose.shift_A / PIXEL_A
    optics = (10000, 4, 300, 2.7, 0.1)
    rows = [
        [
            *(table.columns[label][i] for label in keep),
            *(-shift).tolist(),
            -float(shift[0]),
            *optics,
        ]
        for i, shift in enumerate(shift_px)
    ]
    text = ["data_", "", "loop_", *(f"_{label}" for label in labels)]
    Path("q.star").write_text("\n".join([*text, *(" ".join(map(str, row)) for row in rows), ""]))
    assert main(["downsample", "q.star", "-o", "small", "--box", "24"]) == 0
    assert cryogan.read_particles("small/particles.star").pixel_size_A == pytest.approx(8.0)
    found = read_poses("small/particles.star").shift_A
    assert found.numpy() == pytest.approx(pose.shift_A.numpy(), abs=1e-4)
    (written,) = read_star("small/particles.star")
    assert written.numbers("rlnOriginXPrior") == pytest.approx(written.numbers("rlnOriginX"))
    assert main(["downsample", "q.star", "-o", "moved", "--box", "24", "--recentre"]) == 0
    left = read_poses("moved/particles.star").shift_A
    assert left.numpy() == pytest.approx(np.full((N, 2), 1.0), abs=1e-4)


def test_noise_keeps_its_variance_and_dark_images_stay_dark(
    star: Path, generator: torch.Generator
) -> None:
    noise = torch.randn(N, BOX, BOX, generator=generator)
    dark = -images_of("p.star") + 0.01 * noise
    for images, name in ((noise, "noise"), (dark, "dark")):
        write_stack("a.mrcs", images, PIXEL_A)
        assert main(["downsample", "p.star", "-o", name, "--box", "32"]) == 0
    assert float(images_of("noise/particles.star").std()) == pytest.approx(1.0, abs=0.05)
    small = images_of("dark/particles.star")
    assert float(small[:, 12:20, 12:20].mean()) < float(small[:, :4].mean()) - 1.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "small"], "--box (pixels) or --new-apix"),
        (["-o", "small", "--box", "32", "--new-apix", "5"], "--box (pixels) or --new-apix"),
        (["-o", "small", "--box", "64"], "--box is 64"),
        (["-o", "small", "--box", "31"], "--box is 31"),
        (["-o", "small", "--new-apix", "3"], "new pixel size is 3 Å"),
        (["-o", "small", "--new-apix", "40"], "makes a box of 4 px; give 12 Å or less"),
        (["-o", "small", "--new-apix", "nan"], "--new-apix is 'nan'"),
        (["-o", "no/small", "--box", "32"], "folder above it does not exist"),
        (["-o", "full", "--box", "32"], "full/particles.star exists"),
        (["--box", "32"], "give it with -o"),
        (["-o", "small", "--box", "32", "--sign", "dark"], "has no option --sign"),
        (["-o", "small", "--box", "32", "--no-ctf"], "has no option --no-ctf"),
    ],
)
def test_refusals(
    arguments: list[str], words: str, star: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("full").mkdir()
    Path("full/particles.star").write_text("mine")
    before = sorted(Path().rglob("*"))
    assert main(["downsample", "p.star", *arguments]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before


def test_nothing_is_left_where_an_image_cannot_be_used(
    star: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = star.read_text().replace("_rlnOriginXAngst", "_rlnX")
    star.write_text(text)
    assert main(["downsample", "p.star", "-o", "small", "--box", "32", "--recentre"]) == 2
    assert "has no origins" in capsys.readouterr().err
    assert not Path("small").exists()


def test_a_set_of_several_pixel_sizes_is_refused_and_one_of_them_taken(
    star: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = star.read_text()
    (group,) = [line for line in text.splitlines() if "opticsGroup1" in line]
    other = group.replace("opticsGroup1", "opticsGroup2").replace("1 ", "2 ", 1)
    other = other.replace("4.000000", "5.000000")
    text = text.replace(group, f"{group}\n{other}")
    for number in (1, 3):
        row = next(line for line in text.splitlines() if f"{number:06d}@" in line)
        text = text.replace(row, row.replace("a.mrcs 1 ", "a.mrcs 2 "))
    star.write_text(text)
    assert main(["downsample", "p.star", "-o", "small", "--box", "24"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "cryogan select --where 'rlnOpticsGroup==1'" in said
    assert main(["select", "p.star", "-o", "one.star", "--where", "rlnOpticsGroup==2"]) == 0
    assert main(["downsample", "one.star", "-o", "small", "--box", "24"]) == 0
    small = cryogan.read_particles("small/particles.star")
    assert len(small) == 2
    assert small.pixel_size_A == pytest.approx(10.0)


def test_a_try_that_was_killed_between_its_files_is_made_again(
    star: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The star file comes last; a stack of somebody else's stays."""
    command = ["downsample", "p.star", "-o", "small", "--box", "32"]
    assert main(command) == 0
    made = Path("small/particles.mrcs").read_bytes(), Path("small/particles.star").read_bytes()
    assert main(command) == 2  # whole sets are not written over
    Path("small/particles.star").unlink()
    assert main(command) == 0
    assert made == (
        Path("small/particles.mrcs").read_bytes(),
        Path("small/particles.star").read_bytes(),
    )
    Path("small/particles.star").unlink()
    Path("small/particles.mrcs").write_bytes(b"mine" * 300)
    assert main(command) == 2
    assert "exists and is not overwritten" in capsys.readouterr().err
