"""Particle sets that are no star file: .cs with passthrough files, .csg, bare stacks, lists."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

import cryogan as cg
from cryogan.cli import main
from cryogan.cli.check import make_parser
from cryogan.cli.options import read_particles as read_as_told
from cryogan.io import cryosparc, relion_writing
from cryogan.io.mrc import write_stack
from cryogan.io.particle_files import write_assigned
from cryogan.io.relion_poses import read_poses
from cryogan.io.result_groups import write_group
from cryogan.io.star import read_star
from cryogan.particles import Pose
from cryogan.physics.ctf import ctf
from cryogan.physics.rotations import angle_between, random_rotations

N, BOX, SIZE_A = 5, 16, 2.5
EVERYTHING = torch.arange(N)
CTF = {
    "ctf/accel_kv": 200.0,
    "ctf/cs_mm": 2.0,
    "ctf/amp_contrast": 0.07,
    "ctf/df1_A": 15000.0 + 100 * np.arange(N),
    "ctf/df2_A": 14000.0,
    "ctf/df_angle_rad": -np.pi / 6,
    "ctf/phase_shift_rad": np.pi / 2,
    "ctf/exp_group_id": [3, 3, 3, 7, 7],
    "ctf/bfactor": 30.0,
    "ctf/scale": 0.9,
}
BLOB = {
    "blob/path": [b">a.mrc"] * 3 + [b"J1/extract/b.mrc"] * 2,
    "blob/idx": [2, 0, 1, 1, 0],
    "blob/shape": BOX,
    "blob/psize_A": SIZE_A,
    "blob/sign": -1.0,
}
UID = np.array([2**63 + 9, 4, 1, 8, 6], dtype=np.uint64)
TYPES = {"uid": "<u8", "blob/path": "S40", "blob/idx": "<u4", "blob/shape": "2<u4"}


def write_cs(path: Path, *parts: dict[str, Any], uid: Any = UID) -> Path:
    columns = {"uid": uid} | {name: value for part in parts for name, value in part.items()}
    shapes = {"alignments3D/pose": "3<f4", "alignments3D/shift": "2<f4", "ctf/tilt_A": "2<f4"}
    types = [(name, (TYPES | shapes).get(name, "<f4")) for name in columns]
    records = np.zeros(len(uid), dtype=types)
    for name, value in columns.items():
        records[name] = value
    with path.open("wb") as file:
        np.save(file, records)
    return path


@pytest.fixture
def job(tmp_path: Path, generator: torch.Generator) -> tuple[Path, Tensor]:
    """The folder of job J9 in a cryoSPARC project with two stacks; the images of its five rows."""
    folder = tmp_path / "J9"
    (tmp_path / "J1/extract").mkdir(parents=True)
    folder.mkdir()
    a, b = (torch.randn(n, BOX, BOX, generator=generator) for n in (3, 2))
    write_stack(folder / "a.mrc", a, 1.0)
    write_stack(tmp_path / "J1/extract/b.mrc", b, 1.0)
    return folder, torch.cat((a[[2, 0, 1]], b[[1, 0]]))


def refused(action: Callable[[], object], *parts: str) -> None:
    with pytest.raises(cg.InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    assert "rln" not in message
    for part in parts:
        assert part in message


def some_pose(n: int, generator: torch.Generator) -> Pose:
    return Pose(random_rotations(n, generator), torch.randn(n, 2, generator=generator))


def check(particles: cg.Particles, images: Tensor) -> None:
    assert particles.pixel_size_A == SIZE_A
    assert torch.equal(particles.stack.read(EVERYTHING), images)
    expected = {
        "defocus_u_A": 15000.0 + 100 * EVERYTHING,
        "defocus_v_A": 14000.0,
        "defocus_angle_deg": -30.0,
        "voltage_kV": 200.0,
        "spherical_aberration_mm": 2.0,
        "amplitude_contrast": 0.07,
        "phase_shift_deg": 90.0,
        "b_factor_A2": 30.0,
        "scale": 0.9,
    }
    for name, value in expected.items():
        wanted = torch.as_tensor(value).float().expand(N)
        torch.testing.assert_close(getattr(particles.ctf, name), wanted, msg=name)


def test_a_whole_file(job: tuple[Path, Tensor]) -> None:
    """Stacks beside the file and below the project folder; blob/sign counts; units are turned."""
    folder, images = job
    cs = write_cs(folder / "J9_particles.cs", BLOB, CTF, {"ctf/tilt_A": 0.5, "ctf/shift_A": 0.0})
    particles = cg.read_particles(cs)
    check(particles, -images)
    assert particles.source is not None
    assert particles.source.inverted
    summary = particles.source.summary
    assert "2.5 Å (from blob/psize_A; warning: header of a.mrc says 1 Å" in summary
    assert "2 optics groups" in summary
    assert (
        "ctf/tilt_A is not used: beam tilt times Cs (Å), up to 0.5; phase error of up to" in summary
    )
    assert "shift_A" not in summary  # zero in most files
    chosen = cg.read_particles(cs, index=torch.tensor([4, 0]), sign="bright")
    assert torch.equal(chosen.stack.read(torch.arange(2)), images[[4, 0]])


def test_signs_that_differ(job: tuple[Path, Tensor]) -> None:
    folder, images = job
    signs = np.array([1, -1, 1, -1, 1.0])
    cs = write_cs(folder / "p.cs", BLOB | {"blob/sign": signs}, CTF)
    read = cg.read_particles(cs).stack.read(EVERYTHING)
    assert torch.equal(read, images * torch.from_numpy(signs).float()[:, None, None])
    cs = write_cs(folder / "p.cs", BLOB | {"blob/sign": 0.0}, CTF)
    refused(lambda: cg.read_particles(cs), "blob/sign of particle 1", "--sign")
    assert torch.equal(cg.read_particles(cs, sign="dark").stack.read(EVERYTHING), -images)


@pytest.mark.parametrize("reverse", [False, True])
def test_passthrough_files_are_joined_on_uid(job: tuple[Path, Tensor], reverse: bool) -> None:
    """In another order, with more particles; of this job only; given or found beside."""
    folder, images = job
    more = {name: np.append(np.broadcast_to(v, N)[::-1], 1) for name, v in CTF.items()}
    uid = np.append(UID[::-1], np.uint64(77))
    other = {name: value * 0 + 1 for name, value in more.items()}
    write_cs(folder / "J8_passthrough_particles.cs", other, uid=uid)
    cs = folder / "J9_003_particles.cs"
    if reverse:  # CTFs in the main file, images passed through
        write_cs(cs, CTF)
        found = write_cs(folder / "J9_passthrough_particles.cs", BLOB)
    else:
        write_cs(cs, BLOB)
        found = write_cs(folder / "J9_passthrough_particles.cs", more, uid=uid)
    particles = cg.read_particles(cs)
    check(particles, -images)
    assert particles.source is not None
    assert "J9_passthrough_particles.cs, joined on uid" in particles.source.summary
    elsewhere = found.rename(folder / "elsewhere.cs")
    refused(
        lambda: cg.read_particles(cs) if reverse else cg.read_particles(cs, passthrough=cs),
        "no field",
        "--passthrough",
    )
    check(cg.read_particles(cs, passthrough=elsewhere), -images)
    check(cg.read_particles(cs, passthrough=[elsewhere, str(cs)]), -images)


def test_passthrough_files_that_do_not_fit(job: tuple[Path, Tensor]) -> None:
    folder, _ = job
    cs = write_cs(folder / "p.cs", BLOB)
    other = write_cs(folder / "q.cs", CTF, uid=np.append(UID[:4], np.uint64(77)))
    refused(lambda: cg.read_particles(cs, passthrough=other), "Particle 5", "uid 6", "q.cs")
    twice = write_cs(folder / "r.cs", CTF, uid=np.append(UID[:4], UID[0]))
    refused(lambda: cg.read_particles(cs, passthrough=twice), str(UID[0]), "2 times", "r.cs")
    star = folder / "p.star"
    refused(lambda: cg.read_particles(star, passthrough=cs), "--passthrough goes with", "p.star")


@pytest.mark.parametrize("kind", ["<f8", "S20", "<u4"])
def test_uids_that_cannot_be_those_of_cryosparc(job: tuple[Path, Tensor], kind: str) -> None:
    """Floating-point numbers hold 53 of their 64 bits, so that other particles could match."""
    folder, _ = job
    cs = write_cs(folder / "p.cs", BLOB)
    records = np.load(write_cs(folder / "q.cs", CTF))
    types = [(name, kind if name == "uid" else records.dtype[name]) for name in records.dtype.names]
    with (folder / "q.cs").open("wb") as file:
        np.save(file, records.astype(types))
    other = folder / "q.cs"
    refused(lambda: cg.read_particles(cs, passthrough=other), "field uid of", "q.cs is of type")


def test_compressed_cs_files_are_named_as_such(tmp_path: Path) -> None:
    """The other format of cryosparc-tools, as its `Dataset.save` begins it."""
    path = tmp_path / "p.cs"
    path.write_bytes(b"\x95CSDAT5\x08\x00\x00" + b'{"length": 60}' + bytes(100))
    refused(lambda: cg.read_particles(path), "p.cs is in the compressed format", "NUMPY_FORMAT")


@pytest.mark.parametrize(
    "index", [[0, 1], torch.tensor([True] * N), torch.tensor([1.0]), torch.tensor([[1]])]
)
def test_an_index_that_is_no_row_numbers(job: tuple[Path, Tensor], index: Any) -> None:
    """A mask would be read as rows 0 and 1."""
    cs = write_cs(job[0] / "p.cs", BLOB, CTF)
    refused(lambda: cg.read_particles(cs, index=index), "tensor of row numbers", "choose_rows")


def test_a_pixel_size_given_is_written_where_there_was_none(
    job: tuple[Path, Tensor], tmp_path: Path, generator: torch.Generator
) -> None:
    blob = {name: value for name, value in BLOB.items() if name != "blob/psize_A"}
    cs = write_cs(job[0] / "p.cs", blob, CTF)
    particles = cg.read_particles(cs, pixel_size_A=3.5)
    for file in write_assigned(tmp_path / "o.cs", particles, some_pose(N, generator)):
        assert cg.read_particles(file).pixel_size_A == 3.5


def test_files_that_are_wrong(job: tuple[Path, Tensor]) -> None:
    folder, _ = job

    def complaint(*parts: str, uid: Any = UID, **changes: Any) -> None:
        named = {name.replace("__", "/"): value for name, value in changes.items()}
        cs = write_cs(folder / "p.cs", BLOB, CTF, named, uid=uid)
        refused(lambda: cg.read_particles(cs), *parts, "p.cs")

    complaint("uid 4", "2 times", uid=UID[[0, 1, 1, 3, 4]])
    complaint("particle 3", "is number 10", "only 3", blob__idx=[2, 0, 9, 1, 0])
    complaint("blob/path of particle 2", "empty", blob__path=[b"a.mrc", b">", *[b"a.mrc"] * 3])
    complaint("blob/path of particle 1", "empty", blob__path=b"")
    complaint("'c.mrc'", "particle 1", "--datadir", blob__path=b"c.mrc")
    complaint("blob/psize_A is 0 in particle 1 ", "0.1 to 100 Å", blob__psize_A=0.0)
    complaint("blob/psize_A is 25000 in particle 1 ", "(in pm?)", blob__psize_A=SIZE_A * 1e4)
    complaint(
        "ctf/accel_kv is 200000 in particle 3 ", "in V?", ctf__accel_kv=[2e2, 2e2, *[2e5] * 3]
    )
    complaint("ctf/df2_A is 1.4e+06 in particle 1 ", "defocus lies", ctf__df2_A=1.4e6)
    complaint("defocus (ctf/df1_A, ctf/df2_A)", "in µm?", ctf__df1_A=1.5, ctf__df2_A=1.4)
    complaint("ctf/df_angle_rad in degrees is 1718", "-360 to 360", ctf__df_angle_rad=30.0)
    complaint(
        "blob/shape", "particle 2 ", "box 16", blob__shape=[[16] * 2, [20] * 2, *[[16] * 2] * 3]
    )
    complaint("blob/shape of particle 1", "square", blob__shape=[[16, 20]] * N)
    complaint("ctf/df1_A of particle 4", "finite", ctf__df1_A=[1, 1, 1, np.nan, 1])
    complaint("blob/sign of particle 5", blob__sign=[1, 1, 1, 1, 3])
    for wrong in (-1.0, 0.5):
        TYPES["blob/idx"] = "<f8"
        complaint(f"blob/idx is {wrong:g} in particle 2 ", blob__idx=[2, wrong, 1, 1, 0])
    TYPES["blob/idx"] = "<u4"
    cs = write_cs(folder / "p.cs", BLOB)
    refused(lambda: cg.read_particles(cs), "no field ctf/accel_kv", "--passthrough")
    refused(lambda: cg.read_particles(cs, ctf_table=cs), "--ctf-table goes with", "p.cs")


def write_csg(folder: Path, files: dict[str, str]) -> Path:
    results = {
        slot: {"metafile": name, "num_items": N, "type": f"particle.{slot}"}
        for slot, name in files.items()
    }
    path = folder / "group.csg"
    path.write_text(yaml.safe_dump({"group": {"type": "particle"}, "results": results}))
    return path


def test_group_files(job: tuple[Path, Tensor]) -> None:
    """> is beside the group; other names are relative to the project; the named file's fields."""
    folder, images = job
    write_cs(folder / "images.cs", BLOB, {name: np.ones(N) for name in CTF})
    write_cs(
        folder / "ctfs.cs",
        {name: np.broadcast_to(v, N)[::-1] for name, v in CTF.items()},
        uid=UID[::-1],
    )
    group = write_csg(folder, {"blob": ">images.cs", "ctf": "J9/ctfs.cs"})
    check(cg.read_particles(group), -images)
    refused(
        lambda: cg.read_particles(write_csg(folder, {"blob": ">images.cs", "ctf": ">no.cs"})),
        *("'>no.cs'", "ctf"),
    )
    refused(lambda: cg.read_particles(write_csg(folder, {"ctf": ">ctfs.cs"})), "no cryoSPARC group")
    for text in ("[" * 5000, "a: &a [b]", "results: {blob: 3}", "- 1", "\0", "&a [*a"):
        group.write_text(text)
        refused(lambda: cg.read_particles(group), "group.csg is no cryoSPARC group")


@pytest.mark.parametrize("half", [torch.tensor([1, 2, 2, 1, 2]), None])
def test_poses_of_a_cs_file(
    job: tuple[Path, Tensor], half: Tensor | None, tmp_path: Path, generator: torch.Generator
) -> None:
    """All other fields stay in the .cs file; star, .cs and .csg are read as the same particles."""
    folder, images = job
    old = {
        "alignments3D/pose": 0.1,
        "alignments3D/shift": 3.0,
        "alignments3D/split": [1, 1, 0, 0, 1],
    }
    place = {"location/center_x_frac": 0.25, "location/center_y_frac": 0.5}
    cs = write_cs(folder / "J9_particles.cs", BLOB, old, place)
    write_cs(folder / "J9_passthrough_particles.cs", CTF)
    particles = cg.read_particles(cs, index=torch.tensor([3, 0, 1, 2, 4]))
    pose = some_pose(N, generator)
    out = tmp_path / "out"
    out.mkdir()
    written = write_assigned(out / "poses.cs", particles, pose, half=half)
    assert written == [out / f"poses.{end}" for end in ("star", "cs", "csg")]
    records = np.load(written[1])
    assert records["uid"].tolist() == UID[[3, 0, 1, 2, 4]].tolist()
    assert records["location/center_x_frac"].tolist() == [0.25] * N
    assert records["ctf/exp_group_id"].tolist() == [7, 3, 3, 3, 7]
    halves = half.tolist() if half is not None else [1, 2, 2, 1, 2]  # those of the file
    assert (records["alignments3D/split"] + 1).tolist() == halves
    for found in (cryosparc.read_poses(written[1]), read_poses(written[0])):
        assert float(angle_between(found.rotation, pose.rotation).max()) < 0.05
        torch.testing.assert_close(found.shift_A, pose.shift_A, atol=2e-5, rtol=0)
    star = read_star(written[0])[-1]
    assert star.columns["rlnRandomSubset"] == tuple(map(str, halves))
    for path in written:
        again = cg.read_particles(path, sign="dark")
        assert torch.equal(again.stack.read(EVERYTHING), -images[[3, 0, 1, 2, 4]])
        for name, column in vars(particles.ctf).items():
            torch.testing.assert_close(getattr(again.ctf, name), column, msg=name)
    paths = [bytes(path) for path in records["blob/path"][[1, 0]]]
    assert paths == [str(folder / "a.mrc").encode(), b"J1/extract/b.mrc"]
    beside = write_assigned(folder / "poses.cs", particles, pose, half=half)[1]
    assert np.load(beside)["blob/path"][1] == b">a.mrc"
    group = yaml.safe_load(written[2].read_text())
    assert set(group["results"]) == {"alignments3D", "blob", "ctf", "location"}
    blob = {"metafile": ">poses.cs", "num_items": N, "type": "particle.blob"}
    assert group["results"]["blob"] == blob
    before = cs.read_bytes()
    refused(
        lambda: write_assigned(folder / "J9_particles.star", particles, pose, half=half),
        *("over", "J9_particles.cs"),
    )
    refused(lambda: write_assigned(folder / "a.mrc", particles, pose, half=half), "over", "a.mrc")
    assert cs.read_bytes() == before
    assert not (folder / "J9_particles.star").exists()


def test_what_is_left_out_is_not_written(
    job: tuple[Path, Tensor], tmp_path: Path, generator: torch.Generator
) -> None:
    """Images named twice, and those that `assign` leaves out; a pixel size that is given is."""
    folder, images = job
    signs = np.array([1, 1, 1, -1, -1.0])
    changed = BLOB | {"blob/idx": [2, 0, 2, 1, 0], "blob/sign": signs}
    split = {"alignments3D/split": [0, 1, 0, 1, 1]}
    cs = write_cs(folder / "p.cs", changed, CTF, split)
    particles = cg.read_particles(cs, pixel_size_A=3.0)
    assert particles.source is not None
    assert particles.source.rows is not None
    assert particles.source.rows.tolist() == [0, 1, 3, 4]
    assert "1 row left out that names an image again" in particles.source.summary
    assert "inverts 2 of 4" in particles.source.summary
    assert particles.half is not None
    assert particles.half.tolist() == [1, 2, 2, 2]
    read = particles.stack.read(torch.arange(4))
    assert torch.equal(read, torch.cat((images[:2], -images[3:])))
    assert particles.ctf.correction.tolist() == [0] * 4
    pose = some_pose(2, generator)
    given = {"half": torch.tensor([1, 2]), "kept": torch.tensor([3, 1])}
    star, out, group = write_assigned(tmp_path / "out.cs", particles, pose, **given)
    records = np.load(out)
    assert records["uid"].tolist() == UID[[4, 1]].tolist()
    assert records["blob/psize_A"].tolist() == records["alignments3D/psize_A"].tolist() == [3, 3]
    assert "num_items: 2" in group.read_text()
    for path in (star, out):
        again = cg.read_particles(path, sign="bright")
        assert again.pixel_size_A == 3.0
        assert torch.equal(again.stack.read(torch.arange(2)), images[[4, 1]])
    torch.testing.assert_close(cryosparc.read_poses(out).shift_A, pose.shift_A, atol=2e-5, rtol=0)
    star_set = cg.read_particles(star, sign="bright")  # its .cs file is made from the particles
    last = {"half": torch.tensor([2]), "kept": torch.tensor([1])}
    _, out, _ = write_assigned(tmp_path / "again.star", star_set, pose[1:], **last)
    assert np.load(out)["blob/idx"].tolist() == [0]


def test_bare_stacks(job: tuple[Path, Tensor], tmp_path: Path) -> None:
    folder, _ = job
    stack = folder / "a.mrc"
    for options in ({}, {"no_ctf": True, "ctf_table": stack}):
        refused(lambda o=options: cg.read_particles(stack, **o), "a.mrc", "--ctf-table", "--no-ctf")
    refused(lambda: cg.read_particles(stack, **options), "leave out one of the two")
    refused(lambda: cg.read_particles(tmp_path / "p.star", no_ctf=True), "--no-ctf goes with")
    particles = cg.read_particles(stack, no_ctf=True, pixel_size_A=SIZE_A, sign="bright")
    assert len(particles) == 3
    assert torch.equal(ctf(particles.ctf, BOX, SIZE_A), torch.ones(3, BOX, BOX // 2 + 1))
    assert particles.source is not None
    assert "warning: defocus" not in particles.source.summary
    dark = cg.read_particles(
        stack, no_ctf=True, pixel_size_A=SIZE_A, sign="dark", index=torch.tensor([2])
    )
    assert torch.equal(dark.stack.read(torch.arange(1)), -particles.stack.read(torch.tensor([2])))


CSV = "micrograph,defocus_u_A,defocus_v_A,defocus_angle_deg,voltage_kV,"
CSV += "spherical_aberration_mm,amplitude_contrast\n"
ROW = "a,1e4,9000,10,300,2.7,0.1\n"
STAR = """
data_

loop_
_rlnDefocusU
_rlnDefocusV
_rlnDefocusAngle
_rlnVoltage
_rlnSphericalAberration
_rlnAmplitudeContrast
"""


def test_lists_of_stacks_with_a_table(
    job: tuple[Path, Tensor], tmp_path: Path, generator: torch.Generator
) -> None:
    """Paths beside the list and above it; a row an image, in a star file or a CSV file."""
    folder, images = job
    listed = folder / "list.txt"
    listed.write_text("\ufeff# two stacks\n\na.mrc\nJ1/extract/b.mrc\n")
    expected = images[[1, 2, 0, 4, 3]]
    labels = "_rlnDefocusU _rlnDefocusV _rlnDefocusAngle _rlnVoltage _rlnSphericalAberration "
    for name, text in {
        "t.csv": CSV + ROW * N,
        "t.tsv": (CSV + ROW * N).replace(",", "\t"),
        "t.dat": labels + "_rlnAmplitudeContrast\n" + "1e4 9000 10 300 2.7 0.1\n" * N,
        "t.star": STAR + "1e4 9000 10 300 2.7 0.1\n" * N,
    }.items():
        table = folder / name
        table.write_text(text)
        particles = cg.read_particles(listed, ctf_table=table, pixel_size_A=SIZE_A, sign="bright")
        assert torch.equal(particles.stack.read(EVERYTHING), expected)
        assert particles.ctf.defocus_u_A.tolist() == [10000.0] * N
        assert particles.ctf.amplitude_contrast[0] == pytest.approx(0.1)
    pose = some_pose(N, generator)
    star, _, _ = write_assigned(tmp_path / "out.star", particles, pose, half=EVERYTHING % 2 + 1)
    again = cg.read_particles(star, sign="bright")
    assert again.pixel_size_A == SIZE_A
    assert torch.equal(again.stack.read(EVERYTHING), expected)
    torch.testing.assert_close(read_poses(star).shift_A, pose.shift_A, atol=2e-5, rtol=0)

    def complaint(*parts: str, text: str = CSV + ROW * N) -> None:
        (folder / "bad.csv").write_text(text)
        options = {"ctf_table": folder / "bad.csv", "pixel_size_A": SIZE_A}
        with pytest.raises(cg.InputError) as caught:
            cg.read_particles(listed, **options)
        for part in parts:
            assert part in str(caught.value)

    complaint("has 4 rows", "5 images", text=CSV + ROW * 4)
    complaint("no column rlnDefocusU", text="a,b\n1,2\n")
    complaint("no column rlnDefocusU", text="")
    complaint("Line 3 of", "2 values for 7", text=CSV + ROW + "1,2\n" + ROW * 3)
    complaint("twice", text=CSV.replace("micrograph", "defocus_u_A") + ROW * N)
    complaint(
        "rlnDefocusV", "'x'", "row 2 (line 3)", text=CSV + ROW + ROW.replace("9000", "x") + ROW * 3
    )
    complaint("Line 5 of", "2 values for 7", text=CSV + "\n" + ROW + "\n1,2\n")
    complaint("bad.csv lacks the column rlnVoltage", text=CSV.replace("voltage_kV", "kV") + ROW * N)
    complaint("bad.csv is 1 at most", "in µm?", text=(CSV + ROW * N).replace("1e4,9000", "1,1"))
    listed.write_text("a.mrc\nno.mrc\n")
    complaint("'no.mrc' in line 2", "--datadir")
    listed.write_text("# nothing\n")
    complaint("names no stack")
    listed.write_bytes(b"\xff\xfe\x00")
    complaint("Cannot read", "list.txt")


def test_options_of_the_command_line(
    job: tuple[Path, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = job
    command = ["reconstruct", str(folder / "a.mrc"), "-o", str(tmp_path / "run")]
    assert main(command) != 0
    assert "--no-ctf" in capsys.readouterr().err
    cs = write_cs(folder / "p.cs", BLOB)
    ctfs = write_cs(folder / "q.cs", CTF, uid=UID[::-1] + np.uint64(1))
    assert main(["reconstruct", str(cs), "-o", str(tmp_path / "run"), "--passthrough", str(ctfs)])
    assert "q.cs" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_star_and_cs_file_of_one_real_set(shared_data: Path) -> None:
    formats = shared_data / "formats"
    cs = cg.read_particles(formats / "cryosparc/empiar_10076_7.cs")
    star = cg.read_particles(formats / "relion/empiar_10076_7.star", datadir=formats / "cryosparc")
    assert torch.equal(cs.stack.read(torch.arange(7)), star.stack.read(torch.arange(7)))
    first, second = (ctf(each.ctf, 320, each.pixel_size_A) for each in (cs, star))
    assert float((first - second).abs().max()) < 1e-2
    assert cs.pixel_size_A == pytest.approx(star.pixel_size_A, rel=1e-5)


def read_first(path, *, datadir=None, **options):  # type: ignore[no-untyped-def]
    """A reader of one's own."""
    return cg.read_particles(path.with_suffix(".star"), **options)


@pytest.mark.parametrize("kind", ["star", "cs", "csg", "mrc", "txt", "reader"])
def test_rows_are_chosen_alike_in_files_of_any_kind(
    kind: str, job: tuple[Path, Tensor], tmp_path: Path
) -> None:
    """--first N is no more than N; a mask has a value for each row."""
    folder, _ = job
    cs = write_cs(folder / "p.cs", BLOB, CTF)
    write_group(folder / "p.csg", cs, ["blob", "ctf"], N)
    (folder / "p.txt").write_text("a.mrc\nJ1/extract/b.mrc\n")
    some = cg.read_particles(cs, sign="bright")
    relion_writing.write_particles(
        folder / "p.star",
        image_names=[*(f"{n}@{folder}/a.mrc" for n in (1, 2, 3)), f"1@{tmp_path}/J1/extract/b.mrc"],
        ctf=some.ctf[:4],
        pixel_size_A=SIZE_A,
        box_size=BOX,
    )
    path, count, options = folder / f"p.{kind}", N, ["--sign", "bright"]
    if kind == "mrc":
        path, count = folder / "a.mrc", 3
    if kind in ("mrc", "txt"):
        options += ["--no-ctf", "--apix", "2"]
    if kind == "reader":
        path = cs
        options += ["--reader", "test_particle_files:read_first"]
    if kind in ("star", "reader"):
        count = 4
    (tmp_path / "mask.txt").write_text("1\n" + "0\n" * (count - 2) + "1\n")

    def read(*chosen: str) -> cg.Particles:
        return read_as_told(path, make_parser().given([str(path), *options, *chosen]))

    for n in (2, count, count + 7):
        assert len(read("--first", str(n))) == min(n, count)
    chosen = read("--ind", str(tmp_path / "mask.txt"))
    assert torch.equal(
        chosen.stack.read(torch.arange(2)),
        read().stack.read(torch.tensor([0, count - 1])),
    )
    (tmp_path / "mask.txt").write_text("1\n" * (count + 1))
    refused(lambda: read("--ind", str(tmp_path / "mask.txt")), f"{count} particles")
