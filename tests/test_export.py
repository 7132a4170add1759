"""Exported poses: what RELION and published readers make of them."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from cryogan.errors import InputError
from cryogan.evaluation.fsc import fourier_shell_correlation as fsc
from cryogan.io import cryosparc
from cryogan.io.mrc import read_map, write_stack
from cryogan.io.relion import read_particles
from cryogan.io.relion_assigned import write_assigned
from cryogan.io.relion_poses import read_poses
from cryogan.io.relion_writing import write_particles
from cryogan.io.star import Table, read_star
from cryogan.particles import ArrayStack, Particles, Pose
from cryogan.phantom import phantom_map
from cryogan.physics.ctf import ctf as ctf_of
from cryogan.physics.imaging import simulate_images
from cryogan.physics.rotations import (
    angle_between,
    random_rotations,
)
from cryogan.simulation.microscope import random_ctf
from cryogan.symmetry import in_asymmetric_unit
from relion_programs import relion

pytestmark = pytest.mark.slow

BOX, PIXEL_A, N = 32, 6.0, 600
SOURCE = """
data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
_rlnImageSize #7
_rlnMtfFileName #8
7 first 300 2.7 0.1 2.0 8 "my mtf.star"
9 second 200 2.0 0.07 2.0 8 k3.star

data_particles

loop_
_rlnMicrographName #1
_rlnAngleTilt #2
_rlnImageName #3
_rlnOpticsGroup #4
_rlnDefocusU #5
_rlnDefocusV #6
_rlnDefocusAngle #7
_rlnOriginXAngst #8
_rlnAngleRotPrior #9
_rlnOriginYPriorAngst #10
"mic 1.mrc" 11 1@a.mrcs 7 1e4 9e3 10 1 77 5
it's.mrc 12 2@a.mrcs 9 2e4 1e4 20 2 77 5
data_3.mrc 13 000003@a.mrcs 7 3e4 2e4 30 3 77 5
mic4.mrc 14 1@b.mrcs 7 4e4 3e4 40 4 77 5
"""
OLD = """
data_

loop_
_rlnImageName #1
_rlnDefocusU #2
_rlnDefocusV #3
_rlnDefocusAngle #4
_rlnVoltage #5
_rlnSphericalAberration #6
_rlnAmplitudeContrast #7
_rlnMagnification #8
_rlnDetectorPixelSize #9
_rlnOriginX #10
1@a.mrcs 1e4 9e3 10 300 2.7 0.1 20000 4 99
2@a.mrcs 2e4 9e3 10 300 2.7 0.1 20000 4 99
"""


def some_poses(n: int, generator: torch.Generator) -> Pose:
    return Pose(random_rotations(n, generator), 4 * torch.randn(n, 2, generator=generator))


def assert_same_poses(first: Pose, second: Pose) -> None:
    assert float(angle_between(first.rotation, second.rotation).max()) < 0.05  # float32 acos
    torch.testing.assert_close(first.shift_A, second.shift_A, atol=2e-5, rtol=0)


@pytest.fixture
def source(tmp_path: Path, generator: torch.Generator) -> Path:
    """A RELION 3.1 file with columns of all sorts, and its two stacks."""
    folder = tmp_path / "project"
    folder.mkdir()
    write_stack(folder / "a.mrcs", torch.randn(3, 8, 8, generator=generator), 2.0)
    write_stack(folder / "b.mrcs", torch.randn(1, 8, 8, generator=generator), 2.0)
    star = folder / "source.star"
    star.write_text(SOURCE)
    return star


def old_source(folder: Path, text: str = OLD) -> Path:
    write_stack(folder / "a.mrcs", torch.zeros(2, 8, 8), 2.0)
    star = folder / "old.star"
    star.write_text(text)
    return star


def particle_table(star: Path) -> Table:
    return next(table for table in read_star(star) if "rlnImageName" in table)


# RELION files


def test_everything_in_the_source_stays(source: Path, generator: torch.Generator) -> None:
    """Chosen rows in the order chosen; columns in the source's order, then the new ones."""
    rows = torch.tensor([2, 0, 3])
    pose = some_poses(3, generator)
    out = source.parent / "poses.star"
    write_assigned(
        out,
        source,
        pose,
        rows=rows,
        half=torch.tensor([1, 2, 2]),
        class_number=torch.tensor([3, 1, 2]),
        log_likelihood=torch.tensor([-1.5, 0.0, 1e6]),
        columns={"cryoganAngularSpread": torch.tensor([1.25, 2.5, 5.0]), "note": ["a b", "", "c"]},
    )
    before, after = read_star(source), read_star(out)
    assert [table.name for table in after] == ["optics", "particles"]
    assert after[0].columns == before[0].columns
    old, new = before[1].columns, after[1].columns
    assert list(new) == [
        *old,
        *("rlnAngleRot", "rlnAnglePsi", "rlnOriginYAngst"),
        *("rlnClassNumber", "rlnRandomSubset", "rlnLogLikeliContribution"),
        *("cryoganAngularSpread", "note"),
    ]
    for label in ("rlnMicrographName", "rlnImageName", "rlnOpticsGroup", "rlnDefocusU"):
        assert list(new[label]) == [old[label][row] for row in rows.tolist()]
    assert_same_poses(read_poses(out), pose)
    assert new["rlnClassNumber"] == ("3", "1", "2")
    assert new["rlnRandomSubset"] == ("1", "2", "2")
    assert after[1].numbers("rlnLogLikeliContribution").tolist() == [-1.5, 0.0, 1e6]
    assert after[1].numbers("cryoganAngularSpread").tolist() == [1.25, 2.5, 5.0]
    assert new["note"] == ("a b", "", "c")


def test_priors_of_an_earlier_refinement_do_not_stay(
    source: Path, generator: torch.Generator
) -> None:
    """RELION would search around them and not around the poses."""
    out = source.parent / "poses.star"
    write_assigned(out, source, some_poses(4, generator))
    table = particle_table(out).columns
    assert table["rlnAngleRotPrior"] == table["rlnAngleRot"]
    assert table["rlnOriginYPriorAngst"] == table["rlnOriginYAngst"]
    assert "rlnAngleTiltPrior" not in table
    assert "rlnRandomSubset" not in table


def test_origins_of_old_files_are_in_pixels(tmp_path: Path, generator: torch.Generator) -> None:
    """20,000 times magnified on 4 µm pixels: 2 Å."""
    out = tmp_path / "poses.star"
    pose = some_poses(2, generator)
    write_assigned(out, old_source(tmp_path), pose)
    table = particle_table(out)
    assert table.name == ""
    assert "rlnOriginXAngst" not in table
    expected = (-pose.shift_A / 2.0).T.tolist()
    assert table.numbers("rlnOriginX").tolist() == pytest.approx(expected[0], abs=1e-6)
    assert table.numbers("rlnOriginY").tolist() == pytest.approx(expected[1], abs=1e-6)
    assert_same_poses(read_poses(out), pose)


def test_old_files_without_a_pixel_size_need_one(
    tmp_path: Path, generator: torch.Generator
) -> None:
    star = old_source(tmp_path, OLD.replace("rlnMagnification", "rlnSomething"))
    pose = some_poses(2, generator)
    out = tmp_path / "poses.star"
    with pytest.raises(InputError, match=r"old\.star has shifts in pixels .* give it with --apix"):
        write_assigned(out, star, pose)
    assert not out.exists()
    write_assigned(out, star, pose, pixel_size_A=4.0)
    assert_same_poses(read_poses(out, pixel_size_A=4.0), pose)


def test_a_file_with_both_kinds_of_origins_contradicts_itself_nowhere(
    source: Path, generator: torch.Generator
) -> None:
    source.write_text(SOURCE.replace("rlnAngleRotPrior", "rlnOriginX"))
    out = source.parent / "poses.star"
    write_assigned(out, source, some_poses(4, generator))
    table = particle_table(out)
    np.testing.assert_allclose(
        table.numbers("rlnOriginXAngst"), 2.0 * table.numbers("rlnOriginX"), atol=2e-6
    )


def test_names_stay_where_they_lead_to_the_images(source: Path, generator: torch.Generator) -> None:
    """Beside the source and below it, as in a RELION project run from its root."""
    pose = some_poses(4, generator)
    below = source.parent / "Assign/job1"
    below.mkdir(parents=True)
    images = read_particles(source, sign="bright").stack.read(torch.arange(4))
    for out in (source.parent / "poses.star", below / "poses.star"):
        write_assigned(out, source, pose)
        names = particle_table(out).columns["rlnImageName"]
        assert names == ("1@a.mrcs", "2@a.mrcs", "000003@a.mrcs", "1@b.mrcs")
        stack = read_particles(out, sign="bright").stack
        assert torch.equal(stack.read(torch.arange(4)), images)


def test_names_become_absolute_elsewhere(
    source: Path, tmp_path: Path, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another folder, also one that holds a stack of the same name; given relatively too."""
    pose = some_poses(4, generator)
    images = read_particles(source, sign="bright").stack.read(torch.arange(4))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_stack(elsewhere / "b.mrcs", torch.zeros(1, 8, 8), 2.0)
    monkeypatch.chdir(tmp_path)
    out = elsewhere / "poses.star"
    write_assigned(out, os.path.relpath(source), pose)
    a, b = (source.parent / name for name in ("a.mrcs", "b.mrcs"))
    names = particle_table(out).columns["rlnImageName"]
    assert names == (f"1@{a}", f"2@{a}", f"000003@{a}", f"1@{b}")
    stack = read_particles(out, sign="bright").stack
    assert torch.equal(stack.read(torch.arange(4)), images)


def test_names_that_needed_help_no_longer_do(
    source: Path, tmp_path: Path, generator: torch.Generator
) -> None:
    """Found by --datadir and --strip-prefix; the new file is found without."""
    source.write_text(SOURCE.replace("@", "@lost/"))
    far = tmp_path / "far"
    far.mkdir()
    star = source.rename(far / "source.star")
    out = far / "poses.star"
    write_assigned(
        out, star, some_poses(4, generator), datadir=tmp_path / "project", strip_prefix="lost"
    )
    stack = read_particles(out, sign="bright").stack
    assert stack.read(torch.arange(4)).shape == (4, 8, 8)


def test_bytes_that_are_no_utf8_survive(source: Path, generator: torch.Generator) -> None:
    name = b"prot\xe9ine.mrc"
    source.write_bytes(SOURCE.encode().replace(b"mic4.mrc", name))
    out = source.parent / "poses.star"
    write_assigned(out, source, some_poses(4, generator))
    assert name in out.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": torch.tensor([0, 4])}, r"asks for row 4 .* of .*source\.star, which has 4"),
        ({"path": "source.star"}, r"would be written over .*source\.star, .* another name"),
        ({"path": "none/poses.star"}, r"Cannot write .*poses\.star"),
        ({"source": "absent.star"}, r"Cannot read .*absent\.star"),
        ({"datadir": "nowhere"}, r"stack 'a\.mrcs' named in row 1 .* is not at nowhere"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    source: Path, generator: torch.Generator, change: dict[str, object], message: str
) -> None:
    folder = source.parent
    before = sorted(folder.iterdir())
    arguments = {"rows": torch.tensor([0, 1]), **change}
    path, star = (folder / str(arguments.pop(key, name)) for key, name in
                  (("path", "poses.star"), ("source", "source.star")))  # fmt: skip
    with pytest.raises(InputError, match=message):
        write_assigned(path, star, some_poses(2, generator), **arguments)
    assert sorted(folder.iterdir()) == before
    assert source.read_text() == SOURCE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"half": torch.tensor([0, 1])}, "half must be 1 or 2"),
        ({"half": torch.tensor([1, 2, 1])}, "rlnRandomSubset has 3 values for 2"),
        ({"log_likelihood": torch.tensor([0.0, float("nan")])}, "rlnLogLikeli.* not finite"),
        ({"rows": None}, "rlnAngleRot has 2 values for 4"),
    ],
)
def test_arguments_that_contradict_one_another(
    source: Path, generator: torch.Generator, change: dict[str, Tensor], message: str
) -> None:
    arguments = {"rows": torch.tensor([0, 1]), **change}
    with pytest.raises(ValueError, match=message):
        write_assigned(source.parent / "out.star", source, some_poses(2, generator), **arguments)


# RELION itself


@pytest.fixture(scope="module")
def truth() -> torch.Tensor:
    return phantom_map(BOX, PIXEL_A)


@pytest.fixture
def assigned(tmp_path: Path, truth: torch.Tensor, generator: torch.Generator) -> tuple[Path, Pose]:
    """Noisy images in a project folder, and poses assigned to every second one in another."""
    pose = some_poses(N, generator)
    ctf = random_ctf(N, generator)
    images = simulate_images(truth, pose, ctf_of(ctf, BOX, PIXEL_A), pixel_size_A=PIXEL_A)
    images = images + images.std() * torch.randn(images.shape, generator=generator)
    project, folder = tmp_path / "project", tmp_path / "run"
    project.mkdir()
    folder.mkdir()
    write_stack(project / "images.mrcs", images, PIXEL_A)
    write_particles(
        project / "source.star",
        image_names="images.mrcs",
        ctf=ctf,
        pixel_size_A=PIXEL_A,
        box_size=BOX,
        pose=some_poses(N, generator),
    )
    rows = torch.arange(0, N, 2)
    write_assigned(
        folder / "poses.star",
        project / "source.star",
        pose[rows],
        rows=rows,
        half=rows // 2 % 2 + 1,
        class_number=torch.ones_like(rows),
        log_likelihood=torch.linspace(-1, 1, len(rows)),
        columns={"cryoganAngularSpread": torch.linspace(0, 90, len(rows))},
    )
    return folder, pose[rows]


def test_relion_reads_the_table(assigned: tuple[Path, Pose]) -> None:
    folder, pose = assigned
    labels = ("rlnImageName", "rlnAngleTilt", "rlnRandomSubset", "cryoganAngularSpread")
    text = relion("relion_star_printtable", "poses.star", "data_particles", *labels, folder=folder)
    rows = [line.split() for line in text.splitlines()]
    assert len(rows) == len(pose) == N // 2
    assert rows[1][0].startswith("000003@/")
    tilt_deg = torch.rad2deg(torch.acos(pose.rotation[:, 2, 2].double()))
    read_deg = torch.tensor([float(row[1]) for row in rows]).double()
    torch.testing.assert_close(read_deg, tilt_deg, atol=0.1, rtol=0)
    assert [row[2] for row in rows[:3]] == ["1", "2", "1"]
    assert float(rows[-1][3]) == 90.0


def test_relion_keeps_labels_it_does_not_know(assigned: tuple[Path, Pose]) -> None:
    folder, _ = assigned
    options = ("--select", "rlnRandomSubset", "--minval", 2, "--maxval", 2)
    relion(
        *("relion_star_handler", "--i", "poses.star", "--o", "second.star", *options),
        folder=folder,
    )
    first, second = (particle_table(folder / name) for name in ("poses.star", "second.star"))
    kept = second.numbers("cryoganAngularSpread")
    np.testing.assert_allclose(kept, first.numbers("cryoganAngularSpread")[1::2], rtol=1e-5)


def test_relion_reconstructs_the_molecule(assigned: tuple[Path, Pose], truth: torch.Tensor) -> None:
    """From another folder than the images', all of it and each half."""
    folder, _ = assigned
    for name, options in (("both", ()), ("one", ("--subset", 1)), ("two", ("--subset", 2))):
        relion(
            *("relion_reconstruct", "--i", "poses.star", "--o", f"{name}.mrc", "--ctf", *options),
            folder=folder,
        )
    both, one, two = (read_map(folder / f"{name}.mrc").volume for name in ("both", "one", "two"))
    band = slice(1, BOX // 3)
    assert float(fsc(both, truth)[band].min()) > 0.9
    assert 0.5 < float(fsc(one, two)[band].min()) < float(fsc(both, truth)[band].min())


def test_relion_reconstructs_from_an_old_file(
    assigned: tuple[Path, Pose], truth: torch.Tensor
) -> None:
    """Its shifts too, which RELION 3.1 drops where the file says it is of 3.1 but is not."""
    folder, pose = assigned
    table = particle_table(folder / "poses.star")
    columns = {
        label: table.columns[label]
        for label in ("rlnImageName", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
    }
    same = {"rlnVoltage": 300, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1}
    same |= {"rlnMagnification": 10000, "rlnDetectorPixelSize": 6}
    lines = ["", "data_", "", "loop_", *(f"_{label}" for label in (*columns, *same))]
    fixed = " ".join(map(str, same.values()))
    lines += [" ".join(row) + f" {fixed}" for row in zip(*columns.values(), strict=True)]
    (folder / "old.star").write_text("\n".join([*lines, ""]))
    write_assigned(folder / "new.star", folder / "old.star", pose)
    relion(*("relion_reconstruct", "--i", "new.star", "--o", "map.mrc", "--ctf"), folder=folder)
    volume = read_map(folder / "map.mrc").volume
    assert float(fsc(volume, truth)[1 : BOX // 3].min()) > 0.9


def test_the_star_file_is_inside(source: Path, generator: torch.Generator) -> None:
    pose = some_poses(4, generator)
    out = source.parent / "poses.star"
    write_assigned(out, source, pose, symmetry="O")
    assert_same_poses(read_poses(out), in_asymmetric_unit(pose, "O"))
    with pytest.raises(InputError, match="symmetry 'X2' is unknown"):
        write_assigned(out, source, pose, symmetry="X2")


# cryoSPARC files


@pytest.fixture
def set_of_four(source: Path) -> Particles:
    return read_particles(source, sign="dark")


def test_cryosparc_files_round_trip(
    set_of_four: Particles, tmp_path: Path, generator: torch.Generator
) -> None:
    pose = some_poses(4, generator)
    path = tmp_path / "poses.cs"
    cryosparc.write_particles(path, set_of_four, pose, half=torch.tensor([1, 2, 2, 1]))
    assert_same_poses(cryosparc.read_poses(path), pose)
    ctf = cryosparc.read_ctf(path)
    for name, column in vars(set_of_four.ctf).items():
        torch.testing.assert_close(getattr(ctf, name), column, msg=name)


def test_cryosparc_fields_mean_what_the_published_converter_takes_them_for(
    set_of_four: Particles, source: Path, tmp_path: Path, generator: torch.Generator
) -> None:
    """Matrix = exp(pose)ᵀ, origin = shift in px, subset = split + 1, class = class + 1."""
    pose = some_poses(4, generator)
    half, number = torch.tensor([1, 2, 2, 1]), torch.tensor([2, 1, 1, 2])
    path, star = tmp_path / "poses.cs", tmp_path / "poses.star"
    cryosparc.write_particles(path, set_of_four, pose, half=half, class_number=number)
    write_assigned(star, source, pose, half=half, class_number=number)
    records, table = np.load(path), particle_table(star)
    euler_deg = np.stack([table.numbers(f"rlnAngle{name}") for name in ("Rot", "Tilt", "Psi")], 1)
    relion_matrix = Rotation.from_euler("ZYZ", euler_deg, degrees=True).inv().as_matrix()
    exponential = Rotation.from_rotvec(records["alignments3D/pose"]).as_matrix()
    np.testing.assert_allclose(relion_matrix, exponential.transpose(0, 2, 1), atol=1e-5)
    origin_A = np.stack([table.numbers(f"rlnOrigin{axis}Angst") for axis in "XY"], 1)
    pixel_A = records["alignments3D/psize_A"][:, None]
    np.testing.assert_allclose(records["alignments3D/shift"] * pixel_A, origin_A, atol=1e-5)
    assert table.numbers("rlnRandomSubset").tolist() == (records["alignments3D/split"] + 1).tolist()
    assert table.numbers("rlnClassNumber").tolist() == (records["alignments3D/class"] + 1).tolist()


def test_cryosparc_blobs_lead_to_the_images(
    set_of_four: Particles, tmp_path: Path, generator: torch.Generator
) -> None:
    path = tmp_path / "poses.cs"
    half = torch.tensor([1, 2, 2, 1])
    cryosparc.write_particles(path, set_of_four, some_poses(4, generator), half=half)
    records = np.load(path)
    folder = tmp_path / "project"
    expected = [str(folder / f"{name}.mrcs").encode() for name in "aaab"]
    assert records["blob/path"].tolist() == expected
    assert records["blob/idx"].tolist() == [0, 1, 2, 0]
    assert records["blob/shape"].tolist() == [[8, 8]] * 4
    assert records["blob/psize_A"].tolist() == [2.0] * 4
    assert records["blob/sign"].tolist() == [-1.0] * 4  # dark protein
    groups = records["ctf/exp_group_id"]
    assert groups[0] == groups[2] == groups[3] != groups[1]  # 300, 200, 300, 300 kV
    subset = tmp_path / "subset.cs"
    star = folder / "source.star"
    chosen = read_particles(star, index=torch.tensor([3, 1]), sign="bright")
    cryosparc.write_particles(subset, chosen, some_poses(2, generator), half=half[:2])
    assert len(set(records["uid"].tolist())) == 4
    assert np.load(subset)["uid"].tolist() == records["uid"][[3, 1]].tolist()
    assert np.load(subset)["blob/sign"].tolist() == [1.0, 1.0]


def test_cryosparc_fields_are_those_of_exported_files(
    set_of_four: Particles, tmp_path: Path, generator: torch.Generator, shared_data: Path
) -> None:
    """Names and types of a refined set and of an imported one, strings' lengths apart."""
    path = tmp_path / "poses.cs"
    cryosparc.write_particles(
        path, set_of_four, some_poses(4, generator), half=torch.ones(4, dtype=torch.long)
    )

    def types(file: Path) -> dict[str, object]:
        fields = np.load(file).dtype
        return {name: "text" if fields[name].kind == "S" else fields[name] for name in fields.names}

    ours = types(path)
    refined = types(shared_data / "formats/poses/t20s_refined_particles.cs")
    imported = types(shared_data / "formats/cryosparc/empiar_10076_7.cs")
    assert ours == refined | imported


def test_cryosparc_needs_files_and_halves(
    set_of_four: Particles, tmp_path: Path, generator: torch.Generator
) -> None:
    pose, half = some_poses(4, generator), torch.tensor([1, 2, 2, 1])
    path = tmp_path / "poses.cs"
    in_memory = Particles(ArrayStack(torch.zeros(4, 8, 8)), set_of_four.ctf, 2.0)
    with pytest.raises(InputError, match="were not read from files"):
        cryosparc.write_particles(path, in_memory, pose, half=half)
    with pytest.raises(InputError, match=r"Cannot write .*poses\.cs"):
        cryosparc.write_particles(tmp_path / "none/poses.cs", set_of_four, pose, half=half)
    with pytest.raises(ValueError, match="half must be 1 or 2"):
        cryosparc.write_particles(path, set_of_four, pose, half=half - 1)
    with pytest.raises(ValueError, match="3 poses and 4 halves for 4 particles"):
        cryosparc.write_particles(path, set_of_four, pose[:3], half=half)
    assert not path.exists()
