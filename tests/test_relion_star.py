"""RELION star files: versions and dialects, round trips, and what RELION makes of ours."""

from pathlib import Path

import pytest
import torch

import cryogan
from cryogan.errors import InputError
from cryogan.io.contrast import MIN_Z, contrast_z
from cryogan.io.mrc import MrcStack, read_map, write_map, write_stack
from cryogan.io.relion import read_particles
from cryogan.io.relion_metadata import read_metadata
from cryogan.io.relion_poses import read_poses
from cryogan.io.relion_writing import write_particles
from cryogan.io.star import read_star, write_star
from cryogan.particles import CTFParams, Pose
from cryogan.physics import ctf as physics_ctf
from cryogan.physics.imaging import simulate_images
from cryogan.physics.rotations import angle_between, euler_to_matrix, random_rotations
from relion_programs import relion


def blobs(box_size: int, generator: torch.Generator) -> torch.Tensor:
    """A positive, asymmetric molecule that fills half the box."""
    axis = torch.arange(box_size) - box_size // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    points = torch.stack((x, y, z), -1).float()
    centres = 0.1 * box_size * torch.randn(12, 3, generator=generator).clamp(-2, 2)
    return sum(
        (torch.exp(-(points - centre).square().sum(-1) / (2 * 1.5**2)) for centre in centres),
        torch.zeros(box_size, box_size, box_size),
    )


def random_ctf(n: int, generator: torch.Generator) -> CTFParams:
    u = 8000 + 12000 * torch.rand(n, generator=generator)
    return CTFParams.constant(
        n,
        defocus_u_A=u,
        defocus_v_A=u - 500 * torch.rand(n, generator=generator),
        defocus_angle_deg=180 * torch.rand(n, generator=generator),
        phase_shift_deg=20 * torch.rand(n, generator=generator),
    )


def random_pose(n: int, generator: torch.Generator) -> Pose:
    return Pose(random_rotations(n, generator), 4 * torch.randn(n, 2, generator=generator))


def test_round_trip(tmp_path: Path, generator: torch.Generator) -> None:
    n = 12
    group = torch.arange(n) % 3
    ctf = CTFParams.constant(
        n,
        defocus_u_A=10000 + 5000 * torch.rand(n, generator=generator),
        defocus_v_A=9000 + 900 * torch.rand(n, generator=generator),
        defocus_angle_deg=90 * torch.rand(n, generator=generator),
        voltage_kV=torch.tensor([300.0, 200.0, 300.0])[group],
        spherical_aberration_mm=torch.tensor([2.7, 2.0, 2.7])[group],
        amplitude_contrast=torch.tensor([0.1, 0.07, 0.07])[group],
        phase_shift_deg=30 * torch.rand(n, generator=generator),
        b_factor_A2=50 * torch.rand(n, generator=generator),
        scale=torch.rand(n, generator=generator),
    )
    pose = random_pose(n, generator)
    images = torch.randn(n, 16, 16, generator=generator)
    write_stack(tmp_path / "images.mrcs", images, 1.7)
    star = tmp_path / "particles.star"
    write_particles(
        star, image_names="images.mrcs", ctf=ctf, pixel_size_A=1.7, box_size=16, pose=pose
    )
    read = read_particles(star)
    for name, column in read.ctf.columns.items():
        torch.testing.assert_close(column, ctf.columns[name], msg=name)
    assert read.pixel_size_A == pytest.approx(1.7)
    assert torch.equal(read.stack.read(torch.arange(n)), images)
    again = read_poses(star)
    assert float(angle_between(again.rotation, pose.rotation).max()) < 0.05  # float32 acos
    torch.testing.assert_close(again.shift_A, pose.shift_A, atol=1e-5, rtol=0)
    assert "3 optics groups: voltage 200 to 300 kV" in read.source.summary
    assert "amplitude contrast 0.07 to 0.10" in read.source.summary


def test_default_envelope_is_not_written_and_groups_are_kept(tmp_path: Path) -> None:
    star = tmp_path / "particles.star"
    ctf = CTFParams.constant(4, defocus_u_A=10000.0)
    group = torch.tensor([5, 2, 5, 2])
    write_particles(
        star, image_names="a.mrcs", ctf=ctf, pixel_size_A=1.0, box_size=8, optics_group=group
    )
    optics, particles = read_star(star)
    assert "rlnCtfBfactor" not in particles
    assert "rlnAngleRot" not in particles
    assert len(optics) == 2
    assert list(particles.columns["rlnOpticsGroup"]) == ["2", "1", "2", "1"]


def test_relion_project_agrees_with_what_we_wrote(
    tmp_path: Path, generator: torch.Generator
) -> None:
    """Poses, shifts, CTF, pixel size and contrast sign are the same after RELION."""
    n, box_size, pixel_size_A = 24, 32, 4.0
    volume = blobs(box_size, generator)
    ctf, pose = random_ctf(n, generator), random_pose(n, generator)
    write_map(tmp_path / "map.mrc", volume, pixel_size_A)
    write_stack(tmp_path / "none.mrcs", torch.zeros(n, box_size, box_size), pixel_size_A)
    write_particles(
        tmp_path / "in.star",
        image_names="none.mrcs",
        ctf=ctf,
        pixel_size_A=pixel_size_A,
        box_size=box_size,
        pose=pose,
    )
    relion(
        *[
            "relion_project",
            "--i",
            "map.mrc",
            "--o",
            "out",
            "--ang",
            "in.star",
            "--ctf",
            "--angpix",
            "4",
        ],
        folder=tmp_path,
    )
    read = read_particles(tmp_path / "out.star")
    assert len(read) == n
    assert not read.source.inverted
    assert "bright" in read.source.summary
    from_relion = read.stack.read(torch.arange(n))
    transfer = physics_ctf.ctf(read.ctf, box_size, read.pixel_size_A)
    again = read_poses(tmp_path / "out.star")
    ours = simulate_images(volume, again, transfer, pixel_size_A=pixel_size_A)
    error = (ours - from_relion).flatten(1).norm(dim=1) / from_relion.flatten(1).norm(dim=1)
    assert float(error.max()) < 0.02  # two interpolating projectors


def test_relion_reconstructs_from_what_we_wrote(tmp_path: Path, generator: torch.Generator) -> None:
    n, box_size, pixel_size_A = 400, 24, 4.0
    volume = blobs(box_size, generator)
    ctf, pose = random_ctf(n, generator), random_pose(n, generator)
    transfer = physics_ctf.ctf(ctf, box_size, pixel_size_A)
    images = simulate_images(volume, pose, transfer, pixel_size_A=pixel_size_A)
    write_stack(tmp_path / "images.mrcs", images, pixel_size_A)
    write_particles(
        tmp_path / "in.star",
        image_names="images.mrcs",
        ctf=ctf,
        pixel_size_A=pixel_size_A,
        box_size=box_size,
        pose=pose,
    )
    relion("relion_reconstruct", "--i", "in.star", "--o", "map.mrc", "--ctf", folder=tmp_path)
    map_ = read_map(tmp_path / "map.mrc")
    assert map_.pixel_size_A == pytest.approx(pixel_size_A)
    pair = torch.stack((map_.volume.flatten(), volume.flatten()))
    assert float(torch.corrcoef(pair)[0, 1]) > 0.97  # its mirror image scores < 0.9
    mirrored = torch.stack((map_.volume.flip(0).flatten(), volume.flatten()))
    assert float(torch.corrcoef(mirrored)[0, 1]) < 0.9


@pytest.mark.parametrize(
    ("name", "n", "pixel_size_A", "image_size"),
    [
        ("empiar_10076_7.star", 7, 5e4 / 38168, None),
        ("relion31.star", 5, 2.806, 256),
        ("relion31.v2.star", 5, 2.806, 256),
        ("relion5.star", 17, 0.89, 448),
        ("sample_particles_relion30.star", 17, 5e4 / 37369.207031, None),
        ("toy_projections_13.star", 13, 1.035, 300),
    ],
)
def test_metadata_of_many_versions(
    shared_data: Path, name: str, n: int, pixel_size_A: float, image_size: int | None
) -> None:
    metadata = read_metadata(shared_data / "formats/relion" / name)
    assert len(metadata.ctf) == n
    assert metadata.pixel_size is not None
    assert metadata.pixel_size[0] == pytest.approx(pixel_size_A)
    assert metadata.image_size == image_size


def test_one_optics_group_may_be_chosen_of_several(shared_data: Path) -> None:
    star = shared_data / "formats/relion/relion31.6opticsgroups.star"
    optics, particles = read_star(star)
    size = dict(
        zip(optics.columns["rlnOpticsGroup"], optics.numbers("rlnImagePixelSize"), strict=True)
    )
    sizes = [size[group] for group in particles.columns["rlnOpticsGroup"]]
    chosen = torch.tensor([row for row, value in enumerate(sizes) if value == 1.24])
    metadata = read_metadata(star, chosen)
    assert metadata.pixel_size == (1.24, "rlnImagePixelSize")
    assert 0 < len(metadata.ctf) < len(particles)
    defocus_u_A = torch.from_numpy(particles.numbers("rlnDefocusU")).float()[chosen]
    assert torch.equal(metadata.ctf.defocus_u_A, defocus_u_A)


def test_block_order_does_not_matter(shared_data: Path) -> None:
    first, second = (
        read_metadata(shared_data / "formats/relion" / name).ctf
        for name in ("relion31.star", "relion31.v2.star")
    )
    assert first.voltage_kV.tolist() == [300.0] * 5
    for name, column in first.columns.items():
        assert torch.equal(column, second.columns[name])


def test_a_particles_own_value_goes_before_its_groups(shared_data: Path) -> None:
    ctf = read_metadata(shared_data / "formats/relion/toy_projections_13.star").ctf
    assert ctf.spherical_aberration_mm.unique().tolist() == pytest.approx([0.001])  # optics: 0.01


def test_poses_of_many_versions(shared_data: Path) -> None:
    folder = shared_data / "formats/relion"
    pose = read_poses(folder / "rln_proj_64.star")
    euler = torch.tensor([[275.167758, 67.327105, 47.970504]])
    torch.testing.assert_close(pose.rotation[:1], euler_to_matrix(euler), atol=1e-5, rtol=0)
    assert not pose.shift_A.any()
    old = read_poses(folder / "sample_particles_relion30.star")  # origins in pixels
    expected = -0.1996 * 5e4 / 37369.207031
    assert old.shift_A[0].tolist() == pytest.approx([expected, expected])
    real = read_poses(shared_data / "empiar-10017/relion_poses.star", pixel_size_A=7.08)
    assert real.shift_A[0].tolist() == pytest.approx([-0.58233 * 7.08, -1.582329 * 7.08])


def test_the_dialect_that_breaks_cif_parsers(tmp_path: Path) -> None:
    star = tmp_path / "odd.star"
    star.write_text(
        "# version 30001\n\ndata_\n\n_rlnVersion 3\n_rlnName 'two words'\n\ndata_particles\n\n"
        "loop_ \n_rlnImageName #1\n_rlnMicrographName\n_rlnDefocusU #3\n"
        "1@a.mrcs data_2019.mrc 1e4\r\n"
        "  2@a.mrcs _under.mrc\t2e4\n"
        "\n"
        "3@it's.mrcs $HOME/x.mrc 3e4\n"
        '4@a.mrcs "my mic.mrc" 4e4\n'
        "5@a.mrcs '' 5e4\n"
        "# a comment\n"
        "6@a.mrcs 'odd 6e4\n"
        "'#7@a.mrcs' #7.mrc 7e4\n"
        "\ndata_particles\n\nloop_\n_rlnOther\n7\n"
    )
    pairs, particles, other = read_star(star)
    assert dict(pairs.columns) == {"rlnVersion": ("3",), "rlnName": ("two words",)}
    assert particles.columns["rlnMicrographName"] == (
        "data_2019.mrc",
        "_under.mrc",
        "$HOME/x.mrc",
        "my mic.mrc",
        "",
        "'odd",
        "#7.mrc",
    )
    assert particles.columns["rlnImageName"][2] == "3@it's.mrcs"
    assert particles.numbers("rlnDefocusU").tolist() == [1e4, 2e4, 3e4, 4e4, 5e4, 6e4, 7e4]
    assert particles.columns["rlnImageName"][6] == "#7@a.mrcs"
    assert particles.lines[2] == 17
    assert other.columns["rlnOther"] == ("7",)
    write_star(tmp_path / "again.star", [(t.name, t.columns) for t in (pairs, particles, other)])
    assert [t.columns for t in read_star(tmp_path / "again.star")] == [
        t.columns for t in (pairs, particles, other)
    ]


def test_where_stacks_are_looked_for(tmp_path: Path, generator: torch.Generator) -> None:
    project = tmp_path / "project"
    (project / "Extract/job1").mkdir(parents=True)
    (project / "Select/job2").mkdir(parents=True)
    images = torch.randn(2, 8, 8, generator=generator)
    write_stack(project / "Extract/job1/a.mrcs", images, 1.5)
    star = project / "Select/job2/particles.star"
    ctf = CTFParams.constant(2, defocus_u_A=10000.0)
    names = ["2@Extract/job1/a.mrcs", "1@Extract/job1/a.mrcs"]
    write_particles(star, image_names=names, ctf=ctf, pixel_size_A=1.5, box_size=8)
    everything = torch.arange(2)
    swapped = images.flip(0)
    assert torch.equal(read_particles(star).stack.read(everything), swapped)
    elsewhere = tmp_path / "elsewhere.star"
    star.rename(elsewhere)
    for options in (
        {"datadir": project},
        {"datadir": project / "Extract/job1", "strip_prefix": "Extract/job1"},
        {"datadir": project / "Extract", "strip_prefix": "Extract/"},
    ):
        read = read_particles(elsewhere, **options)
        assert torch.equal(read.stack.read(everything), swapped)
    one = read_particles(elsewhere, datadir=project, index=torch.tensor([1]))
    assert torch.equal(one.stack.read(torch.tensor([0])), images[:1])


def test_stacks_are_not_looked_for_above_the_working_folder(
    tmp_path: Path, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file named by `..` has its own folders above it, not those that the name goes through."""
    mine, other = tmp_path / "mine", tmp_path / "other"
    for folder, n in ((mine, 3), (other, 2)):
        (folder / "jobs/here").mkdir(parents=True)
        write_stack(folder / "a.mrcs", torch.randn(n, 8, 8, generator=generator), 1.5)
    monkeypatch.chdir(mine / "jobs/here")
    star = Path("../../../other/jobs/here/p.star")
    ctf = CTFParams.constant(2, defocus_u_A=10000.0)
    names = ["1@a.mrcs", "2@a.mrcs"]
    write_particles(star, image_names=names, ctf=ctf, pixel_size_A=1.5, box_size=8)
    expected = MrcStack.open(other / "a.mrcs").read(torch.arange(2))
    assert torch.equal(read_particles(star, sign="bright").stack.read(torch.arange(2)), expected)
    cryogan.select(star, "../../../mine/chosen.star", first=1)
    chosen = read_particles(mine / "chosen.star", sign="bright")
    assert torch.equal(chosen.stack.read(torch.tensor([0])), expected[:1])
    (other / "a.mrcs").rename(other / "b.mrcs")
    with pytest.raises(InputError, match=r"'a\.mrcs' named in row 1"):
        read_particles(star)


def test_pixel_size_is_the_users_then_the_stars_then_the_headers(
    tmp_path: Path, generator: torch.Generator
) -> None:
    write_stack(tmp_path / "a.mrcs", torch.randn(2, 8, 8, generator=generator), 1.5)
    star = tmp_path / "particles.star"
    ctf = CTFParams.constant(2, defocus_u_A=10000.0)
    write_particles(star, image_names="a.mrcs", ctf=ctf, pixel_size_A=1.5, box_size=8)
    assert "1.5 Å (from rlnImagePixelSize)" in read_particles(star).source.summary
    calibrated = star.read_text().replace("1.500000", "1.600000")
    for label in ("rlnImagePixelSize", "rlnPixelSize"):
        star.write_text(calibrated.replace("rlnImagePixelSize", label))
        read = read_particles(star)
        assert read.pixel_size_A == pytest.approx(1.6)
        assert f"1.6 Å (from {label}; warning: header of a.mrcs says 1.5 Å)" in read.source.summary
        mine = read_particles(star, pixel_size_A=3.0)
        assert mine.pixel_size_A == 3.0
        assert f"3 Å (from given; warning: {label} says 1.6 Å" in mine.source.summary
    both = calibrated.replace("rlnImagePixelSize #6\n", "rlnPixelSize #6\n_rlnImagePixelSize #7\n")
    star.write_text(both.replace("1.600000 8", "1.600000 1.61 8"))
    assert "by rlnPixelSize" not in read_particles(star).source.summary
    star.write_text(both.replace("1.600000 8", "1.600000 1.7 8"))
    said = read_particles(star).source.summary
    assert (
        "warning: the pixel size is 1.6 Å by rlnPixelSize, but 1.7 Å by rlnImagePixelSize" in said
    )
    star.write_text(both.replace("1.600000 8", "0 1.7 8"))  # it does not count
    assert "by rlnPixelSize" not in read_particles(star).source.summary
    star.write_text(calibrated.replace("rlnImagePixelSize", "rlnSomethingElse"))
    assert "1.5 Å (from header of a.mrcs)" in read_particles(star).source.summary
    assert read_particles(star, pixel_size_A=3.0).pixel_size_A == 3.0


@pytest.mark.parametrize(
    ("name", "n", "box", "pixel_size_A", "inverted"),
    [
        ("empiar-10061", 101, 192, 1.274, True),
        ("empiar-10017", 4271, 50, 7.08, False),
        ("apoferritin", 2557, 64, 3.0, False),
    ],
)
def test_real_sets(
    shared_data: Path, name: str, n: int, box: int, pixel_size_A: float, inverted: bool
) -> None:
    particles = read_particles(shared_data / name / "particles.star")
    assert (len(particles), particles.box_size) == (n, box)
    assert particles.pixel_size_A == pytest.approx(pixel_size_A, rel=1e-3)
    assert particles.source.inverted == inverted
    raw = read_particles(shared_data / name / "particles.star", sign="bright")
    index = torch.tensor([3, 1])
    sign = -1.0 if inverted else 1.0
    assert torch.equal(particles.stack.read(index), sign * raw.stack.read(index))
    assert f"{n:,} particles in 1 stack, box {box} px" in particles.source.summary
    asked = read_particles(shared_data / name / "particles.star", sign="dark")
    assert asked.source.inverted
    assert "as asked" in asked.source.summary


@pytest.mark.parametrize("name", ["empiar-10061/background_192", "empiar-10017/background_50"])
def test_background_has_no_contrast_sign(shared_data: Path, name: str) -> None:
    stack = MrcStack.open(shared_data / f"{name}.mrcs")
    images = stack.read(torch.arange(0, len(stack), 2))
    assert abs(contrast_z(images, stack.files[0].voxel_size_A[0])) < MIN_Z


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_contrast_is_told_at_minus_20_decibels(sign: float, generator: torch.Generator) -> None:
    """Published noise level: amplitude of the noise ten times that of the image."""
    n, box_size, pixel_size_A = 500, 32, 6.0
    ctf = random_ctf(n, generator)
    pose = random_pose(n, generator)
    transfer = physics_ctf.ctf(ctf, box_size, pixel_size_A)
    clean = simulate_images(blobs(box_size, generator), pose, transfer, pixel_size_A=pixel_size_A)
    norm = clean.flatten(1).norm(dim=1)[:, None, None] / box_size
    noisy = clean + 10 * norm * torch.randn(clean.shape, generator=generator)
    assert sign * contrast_z(sign * noisy, pixel_size_A) > MIN_Z
    assert sign * contrast_z(sign * clean, pixel_size_A) > MIN_Z
    noise = torch.randn(clean.shape, generator=generator)
    assert abs(contrast_z(noise, pixel_size_A)) < MIN_Z


def test_undecided_contrast_is_left_alone(tmp_path: Path, generator: torch.Generator) -> None:
    write_stack(tmp_path / "a.mrcs", torch.randn(30, 8, 8, generator=generator), 1.5)
    star = tmp_path / "particles.star"
    ctf = CTFParams.constant(30, defocus_u_A=10000.0)
    write_particles(star, image_names="a.mrcs", ctf=ctf, pixel_size_A=1.5, box_size=8)
    read = read_particles(star)
    assert not read.source.inverted
    assert "too weak to tell" in read.source.summary


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("rlnCtfDataArePhaseFlipped", "30 images with flipped phases: the transfer function is"),
        ("rlnCtfDataAreCtfPremultiplied", "30 images multiplied by the CTF: divided by |CTF|, of"),
    ],
)
def test_what_was_done_to_the_images_is_said(
    label: str, words: str, tmp_path: Path, generator: torch.Generator
) -> None:
    write_stack(tmp_path / "a.mrcs", torch.randn(30, 8, 8, generator=generator), 1.5)
    star = tmp_path / "particles.star"
    ctf = CTFParams.constant(30, defocus_u_A=10000.0)
    write_particles(star, image_names="a.mrcs", ctf=ctf, pixel_size_A=1.5, box_size=8)
    star.write_text(star.read_text().replace("rlnImageDimensionality", label))
    assert words in read_particles(star).source.summary
