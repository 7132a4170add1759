"""Images of several pixel sizes and boxes, brought to one; one set in every format."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import cryogan as cg
from cryogan import fourier
from cryogan.io import cryosparc
from cryogan.io.mrc import write_stack
from cryogan.io.particle_files import write_assigned
from cryogan.io.relion_poses import read_poses
from cryogan.particles import Pose
from cryogan.physics.rotations import random_rotations

COUNT = 6
FINE_A, COARSE_A = 1.5, 2.0
FINE, COARSE = 64, 48  # both 96 Å


def band_limited(box_size: int, n: int, generator: torch.Generator) -> Tensor:
    """Images without power from 0.8 of Nyquist on."""
    plane = fourier.rfft(torch.randn(n, box_size, box_size, generator=generator))
    return fourier.irfft(plane * fourier.band_mask(box_size, 0.4 * box_size), box_size)


def at_pixel(images: Tensor, box_size: int) -> Tensor:
    """The images as recorded with other pixels, noise per pixel kept (a unitary Fourier pad)."""
    return fourier.resample(images, box_size) * (images.shape[-1] / box_size)


def write_star(folder: Path, name: str, sizes: list[tuple[float, int]], stacks: list[str]) -> Path:
    """COUNT images of every (pixel size, box) in an optics group of its own."""
    lines = ["data_optics", "", "loop_", "_rlnOpticsGroup", "_rlnVoltage"]
    lines += ["_rlnSphericalAberration", "_rlnAmplitudeContrast", "_rlnImagePixelSize"]
    lines += ["_rlnImageSize"]
    lines += [f"{g} 300 2.7 0.1 {size} {box}" for g, (size, box) in enumerate(sizes, 1)]
    lines += ["", "data_particles", "", "loop_", "_rlnImageName", "_rlnOpticsGroup"]
    lines += ["_rlnDefocusU", "_rlnDefocusV", "_rlnDefocusAngle", "_rlnOriginX", "_rlnOriginY"]
    lines += ["_rlnAngleRot", "_rlnAngleTilt", "_rlnAnglePsi"]
    lines += [
        f"{i}@{stack} {g} {10000 + 100 * i} 9000 30 2 -3 0 0 0"
        for g, stack in enumerate(stacks, 1)
        for i in range(1, COUNT + 1)
    ]
    path = folder / name
    path.write_text("\n".join([*lines, ""]))
    return path


@pytest.fixture
def mixed(tmp_path: Path, generator: torch.Generator) -> tuple[Path, Tensor]:
    """Two groups of the same images at two pixel sizes; what they should all be."""
    images = band_limited(COARSE, COUNT, generator)
    write_stack(tmp_path / "coarse.mrcs", images, COARSE_A)
    write_stack(tmp_path / "fine.mrcs", at_pixel(images, FINE), FINE_A)
    sizes = [(FINE_A, FINE), (COARSE_A, COARSE)]
    return write_star(tmp_path, "mixed.star", sizes, ["fine.mrcs", "coarse.mrcs"]), images


def test_the_coarsest_pixel_and_the_same_images(mixed: tuple[Path, Tensor]) -> None:
    star, images = mixed
    particles = cg.read_particles(star, sign="bright")
    assert (particles.pixel_size_A, particles.box_size) == (COARSE_A, COARSE)
    read = particles.stack.read(torch.arange(2 * COUNT))
    assert torch.equal(read[COUNT:], images)  # nothing is done to these
    torch.testing.assert_close(read[:COUNT], images, atol=1e-5, rtol=0)
    mixed_up = torch.tensor([9, 1, 7, 0])
    torch.testing.assert_close(particles.stack.read(mixed_up), read[mixed_up])
    assert particles.source is not None
    summary = particles.source.summary
    assert "6 images of optics group 1: 1.5 Å, box 64 -> 2 Å, box 48" in summary
    assert "6 images of optics group 2: 2 Å, box 48 -> 2 Å, box 48" in summary
    again = pickle.loads(pickle.dumps(particles.stack))
    assert torch.equal(again.read(torch.arange(2 * COUNT)), read)
    dark = cg.read_particles(star, sign="dark")
    assert torch.equal(dark.stack.read(torch.arange(2 * COUNT)), -read)


def blobs(box_size: int, pixel_size_A: float) -> Tensor:
    """Gaussians of σ = 4 Å at points of no symmetry, sampled about the origin pixel."""
    x = (torch.arange(box_size, dtype=torch.float64) - box_size // 2) * pixel_size_A
    image = torch.zeros(box_size, box_size, dtype=torch.float64)
    for at_x, at_y, height in ((3.1, -7.7, 1.0), (12.3, 5.0, 0.5), (-9.0, -1.3, -0.7)):
        image += height * torch.outer(
            torch.exp(-(((x - at_y) / 4) ** 2) / 2), torch.exp(-(((x - at_x) / 4) ** 2) / 2)
        )
    return image.float()


def test_any_ratio_and_the_smallest_field(tmp_path: Path) -> None:
    """Boxes, odd and even, whose fields differ and whose ratio makes no whole number."""
    boxes = {1.24: 65, 1.3: 60}
    for size, box in boxes.items():
        write_stack(tmp_path / f"{size}.mrcs", blobs(box, size).expand(COUNT, box, box), size)
    names = [f"{size}.mrcs" for size in boxes]
    star = write_star(tmp_path, "any.star", list(boxes.items()), names)
    particles = cg.read_particles(star, sign="bright")
    assert particles.pixel_size_A == 1.3
    assert particles.box_size == 60  # 65 * 1.24 / 1.3 = 62
    fine, coarse = particles.stack.read(torch.tensor([0, COUNT]))
    torch.testing.assert_close(fine, coarse * (1.3 / 1.24), atol=1e-4, rtol=0)


def test_white_noise_keeps_its_variance(tmp_path: Path, generator: torch.Generator) -> None:
    for name, box, size in (("a", 64, 1.5), ("b", 40, 2.3)):
        noise = torch.randn(COUNT, box, box, generator=generator)
        write_stack(tmp_path / f"{name}.mrcs", noise, size)
    star = write_star(tmp_path, "p.star", [(1.5, 64), (2.3, 40)], ["a.mrcs", "b.mrcs"])
    particles = cg.read_particles(star, sign="bright")
    assert particles.box_size == 40  # 64 * 1.5 / 2.3 = 41.7
    variance = particles.stack.read(torch.arange(COUNT)).var()
    assert 0.9 < float(variance) < 1.05  # the Nyquist row is not there


def test_boxes_that_differ_at_one_pixel_size(tmp_path: Path, generator: torch.Generator) -> None:
    images = torch.randn(COUNT, 32, 32, generator=generator)
    write_stack(tmp_path / "small.mrcs", images, 2.0)
    write_stack(tmp_path / "large.mrcs", fourier.crop_or_pad(images, 45), 2.0)
    star = write_star(tmp_path, "p.star", [(2.0, 45), (2.0, 32)], ["large.mrcs", "small.mrcs"])
    particles = cg.read_particles(star, sign="bright")
    read = particles.stack.read(torch.arange(2 * COUNT))
    assert torch.equal(read, images.repeat(2, 1, 1))


def test_images_named_twice_and_sizes_that_do_not_count(mixed: tuple[Path, Tensor]) -> None:
    """The first row counts in every column; a header that says otherwise is named."""
    star, images = mixed
    text = star.read_text().replace("1@coarse.mrcs", "2@coarse.mrcs").replace("6@fine", "5@fine")
    star.write_text(text.replace(f"1 300 2.7 0.1 {FINE_A}", "1 300 2.7 0.1 1.6"))
    particles = cg.read_particles(star, sign="bright")
    assert particles.source is not None
    assert particles.source.rows is not None
    assert particles.source.rows.tolist() == [0, 1, 2, 3, 4, 6, 8, 9, 10, 11]
    assert torch.equal(particles.stack.read(torch.arange(5, 10)), images[1:])
    assert (particles.ctf.defocus_u_A[4:6] - 10000).tolist() == [500, 100]
    summary = particles.source.summary
    assert "2 Å (from rlnImagePixelSize; warning: header of fine.mrcs says 1.5 Å)" in summary
    assert "warning: 2 rows left out" in summary
    assert "5 images of optics group 1" in summary


def test_too_little_in_common(tmp_path: Path, generator: torch.Generator) -> None:
    for name in "ab":
        write_stack(tmp_path / f"{name}.mrcs", torch.randn(COUNT, 32, 32, generator=generator), 1.0)
    star = write_star(tmp_path, "p.star", [(0.5, 32), (4.0, 32)], ["a.mrcs", "b.mrcs"])
    with pytest.raises(cg.InputError, match="field of view"):
        cg.read_particles(star)
    star = write_star(tmp_path, "p.star", [(2.0, 32), (2.5, 32)], ["a.mrcs", "b.mrcs"])
    with pytest.raises(cg.InputError, match="several pixel sizes"):
        cg.downsample(cg.read_particles(star), tmp_path / "small", box_size=16)
    assert not (tmp_path / "small").exists()


def test_sizes_of_headers_count_where_the_file_says_none(
    tmp_path: Path, mixed: tuple[Path, Tensor]
) -> None:
    star, images = mixed
    text = star.read_text().replace("_rlnImagePixelSize\n", "_rlnOther\n")
    star.write_text(text)
    particles = cg.read_particles(star, sign="bright")
    assert particles.pixel_size_A == COARSE_A
    read = particles.stack.read(torch.arange(2 * COUNT))
    torch.testing.assert_close(read, images.repeat(2, 1, 1), atol=1e-5, rtol=0)


def test_poses_go_back_in_pixels_of_each_group(
    mixed: tuple[Path, Tensor], tmp_path: Path, generator: torch.Generator
) -> None:
    """Star file in Å and in pixels, .cs file in pixels of the images on disk."""
    star, _ = mixed
    shift_A = read_poses(star).shift_A
    torch.testing.assert_close(shift_A[0], torch.tensor([-2.0, 3.0]) * FINE_A)
    torch.testing.assert_close(shift_A[-1], torch.tensor([-2.0, 3.0]) * COARSE_A)
    particles = cg.read_particles(star, sign="bright")
    pose = Pose(
        random_rotations(2 * COUNT, generator), torch.randn(2 * COUNT, 2, generator=generator)
    )
    half = torch.tensor([1, 2] * COUNT)
    out, cs, _ = write_assigned(tmp_path / "out.star", particles, pose, half=half)
    torch.testing.assert_close(read_poses(out).shift_A, pose.shift_A, atol=1e-4, rtol=0)
    torch.testing.assert_close(cryosparc.read_poses(cs).shift_A, pose.shift_A, atol=1e-4, rtol=0)
    records = np.load(cs)
    assert records["blob/psize_A"].tolist() == [FINE_A] * COUNT + [COARSE_A] * COUNT
    assert records["blob/shape"][[0, -1]].tolist() == [[FINE, FINE], [COARSE, COARSE]]
    assert len(set(records["ctf/exp_group_id"].tolist())) == 2
    for file in (out, cs):
        again = cg.read_particles(file, sign="bright")
        everything = torch.arange(2 * COUNT)
        assert torch.equal(again.stack.read(everything), particles.stack.read(everything))


OLD = """
data_

loop_
_rlnImageName
_rlnDefocusU
_rlnDefocusV
_rlnDefocusAngle
_rlnVoltage
_rlnSphericalAberration
_rlnAmplitudeContrast
_rlnMagnification
_rlnDetectorPixelSize
"""


def in_every_format(folder: Path, generator: torch.Generator) -> dict[str, Path]:
    """One set as RELION 3.0, 3.1 and 5 and as .cs with a passthrough file."""
    images = band_limited(COARSE, COUNT, generator)
    write_stack(folder / "coarse.mrcs", images, COARSE_A)
    write_stack(folder / "fine.mrcs", at_pixel(images[COUNT // 2 :], FINE), FINE_A)
    u = [10000.0 + 500 * i for i in range(COUNT)]
    names = [f"{i + 1}@coarse.mrcs" for i in range(COUNT)]
    ctf = "9000 -30 300 2.7 0.1"
    files = {key: folder / key for key in ("30.star", "31.star", "5.star", "mixed.star", "set.cs")}
    rows = [f"{name} {x} {ctf} 20000 4" for name, x in zip(names, u, strict=True)]
    files["30.star"].write_text(OLD + "\n".join([*rows, ""]))
    optics = ["_rlnOpticsGroup", "_rlnVoltage", "_rlnSphericalAberration", "_rlnAmplitudeContrast"]
    optics += ["_rlnImagePixelSize", "_rlnImageSize"]
    columns = ["_rlnImageName", "_rlnOpticsGroup", "_rlnDefocusU", "_rlnDefocusV"]
    columns += ["_rlnDefocusAngle"]
    for key, version, blocks in (
        ("31.star", 30001, [(COARSE_A, COARSE)]),
        ("5.star", 50001, [(COARSE_A, COARSE)]),
        ("mixed.star", 30001, [(COARSE_A, COARSE), (FINE_A, FINE)]),
    ):
        lines = [f"# version {version}", "", "data_optics", "", "loop_", *optics]
        lines += [f"{g} 300 2.7 0.1 {size} {box}" for g, (size, box) in enumerate(blocks, 1)]
        lines += ["", f"# version {version}", "", "data_particles", "", "loop_", *columns]
        for i, (name, x) in enumerate(zip(names, u, strict=True)):
            moved = len(blocks) == 2 and i >= COUNT // 2
            place = f"{i + 1 - COUNT // 2}@fine.mrcs 2" if moved else f"{name} 1"
            lines.append(f"{place} {x} 9000 -30")
        files[key].write_text("\n".join([*lines, ""]))
    blob = np.zeros(
        COUNT,
        dtype=[
            ("uid", "<u8"),
            ("blob/path", "S20"),
            ("blob/idx", "<u4"),
            ("blob/shape", "<u4", 2),
            ("blob/psize_A", "<f4"),
            ("blob/sign", "<f4"),
        ],
    )
    blob["uid"] = np.arange(COUNT, dtype=np.uint64) + np.uint64(2**63)
    blob["blob/path"], blob["blob/idx"], blob["blob/sign"] = b">coarse.mrcs", range(COUNT), 1
    blob["blob/shape"], blob["blob/psize_A"] = COARSE, COARSE_A
    names_of = {"accel_kv": 300, "cs_mm": 2.7, "amp_contrast": 0.1, "df1_A": u, "df2_A": 9000}
    names_of |= {"df_angle_rad": -np.pi / 6}
    more = np.zeros(COUNT, dtype=[("uid", "<u8"), *((f"ctf/{n}", "<f4") for n in names_of)])
    more["uid"] = blob["uid"]
    for name, value in names_of.items():
        more[f"ctf/{name}"] = value
    with files["set.cs"].open("wb") as file:
        np.save(file, blob)
    with (folder / "J7_passthrough_particles.cs").open("wb") as file:
        np.save(file, more[::-1])
    return files


def test_one_set_in_every_format_is_the_same_particles(
    tmp_path: Path, generator: torch.Generator
) -> None:
    files = in_every_format(tmp_path, generator)
    everything = torch.arange(COUNT)
    read = {key: cg.read_particles(path, sign="bright") for key, path in files.items()}
    first = read["31.star"]
    for key, particles in read.items():
        assert particles.pixel_size_A == COARSE_A, key
        for name, column in vars(first.ctf).items():
            torch.testing.assert_close(getattr(particles.ctf, name), column, msg=f"{key} {name}")
        images = particles.stack.read(everything)
        if key == "mixed.star":
            torch.testing.assert_close(images, first.stack.read(everything), atol=1e-5, rtol=0)
        else:
            assert torch.equal(images, first.stack.read(everything)), key


def test_a_set_of_one_optics_keeps_an_odd_box(tmp_path: Path, generator: torch.Generator) -> None:
    images = torch.randn(COUNT, 33, 33, generator=generator)
    write_stack(tmp_path / "a.mrcs", images, 2.0)
    star = write_star(tmp_path, "p.star", [(2.0, 33), (2.0005, 33)], ["a.mrcs", "a.mrcs"])
    particles = cg.read_particles(star, sign="bright")
    assert particles.box_size == 33
    assert torch.equal(particles.stack.read(torch.arange(COUNT)), images)
