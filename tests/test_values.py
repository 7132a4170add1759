"""Particle files that are possible to read and wrong: values, names, duplicates, tomography."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import cryogan as cg
from cryogan.errors import InputError
from cryogan.io.mrc import write_map, write_stack
from cryogan.io.ranges import RANGES, require_possible
from cryogan.io.relion import read_particles
from cryogan.io.relion_assigned import write_assigned
from cryogan.io.relion_poses import read_poses
from cryogan.io.relion_writing import write_particles
from cryogan.io.star import read_star
from cryogan.particles import CTFParams, Pose

N = 6
BOX = 8


@pytest.fixture
def star(tmp_path: Path, generator: torch.Generator) -> Path:
    """A good set for each test to spoil."""
    write_stack(tmp_path / "a.mrcs", torch.randn(N, BOX, BOX, generator=generator), 1.5)
    path = tmp_path / "p.star"
    ctf = CTFParams.constant(N, defocus_u_A=10000.0, scale=0.5)
    write_particles(path, image_names="a.mrcs", ctf=ctf, pixel_size_A=1.5, box_size=BOX)
    return path


def edit(star: Path, old: str, new: str, count: int = -1) -> None:
    text = star.read_text()
    assert old in text
    star.write_text(text.replace(old, new, count))


def add_columns(star: Path, columns: dict[str, list[str]]) -> None:
    """Further columns of the particle table."""
    text = star.read_text()
    labels = sum(line.startswith("_") for line in text.split("data_particles")[1].split("\n"))
    for number, (label, values) in enumerate(columns.items(), labels + 1):
        lines = text.split("\n")
        last = max(i for i, line in enumerate(lines) if line.startswith("_rln"))
        lines.insert(last + 1, f"_{label} #{number}")
        rows = [i for i, line in enumerate(lines) if "@" in line]
        for i, value in zip(rows, values, strict=True):
            lines[i] += f" {value}"
        text = "\n".join(lines)
    star.write_text(text)


def complaint(action: Callable[[], object], *parts: str) -> None:
    """`action` raises one sentence that holds every part."""
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert ". " not in message
    for part in parts:
        assert part in message


def poses(n: int) -> Pose:
    return Pose(torch.eye(3).repeat(n, 1, 1), torch.tensor([[3.0, -6.0]]).repeat(n, 1))


# Ranges


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (" 0.100000 ", " 10 ", "rlnAmplitudeContrast is 10 in row 1 (in percent?)"),
        (" 0.100000 ", " -0.1 ", "rlnAmplitudeContrast is -0.1 in row 1"),
        (" 0.100000 ", " 1.2 ", "rlnAmplitudeContrast is 1.2 in row 1"),
        (" 300.000000 ", " 0 ", "rlnVoltage is 0 in row 1"),
        (" 300.000000 ", " 0.3 ", "rlnVoltage is 0.3 in row 1 (in MV?)"),
        (" 300.000000 ", " 3e5 ", "rlnVoltage is 300000 in row 1 (in V?)"),
        (" 2.700000 ", " 2.7e7 ", "rlnSphericalAberration is 2.7e+07 in row 1 (in Å?)"),
        (" 10000.000000 ", " 1e30 ", "rlnDefocusU is 1e+30 in row 1"),
        (" 10000.000000 ", " 1e7 ", "rlnDefocusU is 1e+07 in row 1 (in pm?)"),
        (" 0.500000", " 0", "rlnCtfScalefactor is 0 in row 1"),
    ],
)
def test_impossible_values(star: Path, old: str, new: str, words: str) -> None:
    edit(star, old, new)
    place, *hint = words.split(" (in ")
    complaint(lambda: read_particles(star), place, f" of {star}, but ", *(f"(in {h}" for h in hint))


@pytest.mark.parametrize("value", ["0", "0.07", "1"])
def test_possible_amplitude_contrast(star: Path, value: str) -> None:
    edit(star, " 0.100000 ", f" {value} ")
    assert read_particles(star).ctf.amplitude_contrast.tolist() == pytest.approx([float(value)] * N)


def test_only_chosen_rows_have_to_be_possible(star: Path) -> None:
    edit(star, "10000.000000", "1e9", 1)
    complaint(lambda: read_particles(star), "rlnDefocusU is 1e+09 in row 1")
    assert len(read_particles(star, index=torch.arange(1, N))) == N - 1


@pytest.mark.parametrize(("value", "unit"), [("1.5", "µm"), ("0.0015", "mm"), ("1.5e-6", "m")])
def test_defocus_in_other_units_is_refused(star: Path, value: str, unit: str) -> None:
    edit(star, "10000.000000", value)
    complaint(lambda: read_particles(star), f"is {float(value):g} at most", f"(in {unit}?)")


@pytest.mark.parametrize(
    ("u", "v", "words"),
    [
        ("1500", "1500", "1500 Å at most: in nm?"),
        ("0", "0", "zero in 6 rows"),
        ("-15000", "-15200", "negative (overfocus) in 6 rows"),
        ("20000", "13000", "astigmatic by more than 5000 Å in 6 rows"),
        ("14000", "16000", ""),
    ],
)
def test_strange_defocus_is_said(star: Path, u: str, v: str, words: str) -> None:
    edit(star, "10000.000000 10000.000000", f"{u} {v}")
    read = read_particles(star)
    assert read.ctf.defocus_u_A.tolist() == [float(u)] * N
    assert words in read.source.summary
    assert ("warning" in read.source.summary) == bool(words)


def test_a_column_that_no_astigmatism_explains_is_refused(star: Path) -> None:
    edit(star, "10000.000000 10000.000000", "15000 0")
    complaint(lambda: read_particles(star), "rlnDefocusU and rlnDefocusV", "differ by 15000 Å")


def test_magnification_zero(star: Path) -> None:
    edit(star, "_rlnImagePixelSize", "_rlnMagnification")
    edit(star, " 1.500000 8 2", " 0 8 2")
    add_columns(star, {"rlnDetectorPixelSize": ["6"] * N})
    complaint(lambda: read_particles(star), "rlnMagnification is 0 in row 1 (line 15)")
    assert read_particles(star, pixel_size_A=2.0).pixel_size_A == 2.0


def test_every_default_is_possible() -> None:
    ctf = CTFParams.constant(1, defocus_u_A=10000.0)
    for name in RANGES.keys() & vars(ctf).keys():
        require_possible(name, float(getattr(ctf, name)), name)
    with pytest.raises(InputError, match="voltage lies from 20 to 3000 kV"):
        require_possible("voltage_kV", float("nan"), "it")


def test_a_pixel_size_given_is_carried_on(star: Path, tmp_path: Path) -> None:
    """RELION takes origins in Å through the pixel size in the file that is written."""
    read = read_particles(star, pixel_size_A=3.0)
    out = tmp_path / "out.star"
    write_assigned(out, star, poses(N), pixel_size_A=read.source.pixel_size_A)
    assert read_particles(out).pixel_size_A == 3.0
    torch.testing.assert_close(read_poses(out).shift_A, poses(N).shift_A)


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
_rlnOriginX
_rlnOriginY
"""


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"rlnMagnification": "10000", "rlnDetectorPixelSize": "1.5"},
        {"rlnMagnification": "0", "rlnDetectorPixelSize": "1.5"},
        {"rlnMagnification": "unknown", "rlnDetectorPixelSize": "1.5"},
        {"rlnMagnification": "10000"},
        {"rlnPixelSize": "1.5"},
        {"rlnPixelSize": "1.5", "rlnMagnification": "10000", "rlnDetectorPixelSize": "5"},
    ],
)
def test_a_pixel_size_given_is_what_files_say_afterwards(
    columns: dict[str, str], tmp_path: Path, generator: torch.Generator
) -> None:
    """Files of RELION 3.0, in which it stands in other columns, or in none."""
    write_stack(tmp_path / "a.mrcs", torch.randn(N, 32, 32, generator=generator), 1.5)
    star, out = tmp_path / "p.star", tmp_path / "out.star"
    labels = "".join(f"_{label}\n" for label in columns)
    rows = [
        f"{i + 1}@a.mrcs 1e4 1e4 0 300 2.7 0.1 0 0 {' '.join(columns.values())}" for i in range(N)
    ]
    star.write_text(OLD + labels + "\n".join([*rows, ""]))
    particles = cg.read_particles(star, pixel_size_A=3.0)
    write_assigned(out, star, poses(N), pixel_size_A=3.0)
    assert read_particles(out).pixel_size_A == 3.0
    torch.testing.assert_close(read_poses(out).shift_A, poses(N).shift_A, atol=1e-5, rtol=0)
    small = cg.downsample(particles, tmp_path / "small", box_size=16)
    read = read_particles(small.star)
    assert (read.pixel_size_A, read.box_size) == (6.0, 16)
    assert read.source is not None
    assert "header" not in read.source.summary


def test_a_pixel_size_given_goes_into_the_optics_table(star: Path, tmp_path: Path) -> None:
    edit(star, "rlnImagePixelSize", "rlnSomethingElse")
    out = tmp_path / "out.star"
    write_assigned(out, star, poses(N), pixel_size_A=3.0)
    assert read_particles(out).pixel_size_A == 3.0
    optics, particles = read_star(out)
    assert optics.columns["rlnImagePixelSize"] == ("3.000000",)
    assert "rlnMagnification" not in particles


def test_a_table_of_optics_groups_without_rows(star: Path) -> None:
    lines = star.read_text().splitlines(keepends=True)
    star.write_text("".join(line for line in lines if "opticsGroup1" not in line))
    complaint(lambda: read_particles(star), f"optics groups of {star} has no rows")


def test_optics_groups_in_any_order(star: Path) -> None:
    edit(star, "1 opticsGroup1", "7 opticsGroup7 200 2.7 0.1 1.5 8 2\n1 opticsGroup1")
    edit(star, "000002@a.mrcs 1", "000002@a.mrcs 7.0")
    assert read_particles(star).ctf.voltage_kV.tolist() == [300.0, 200.0, *[300.0] * 4]
    edit(star, "000003@a.mrcs 1", "000003@a.mrcs 8")
    complaint(lambda: read_particles(star), "rlnOpticsGroup is 8 in row 3", "does not list")


# Evaluation


def test_maps_of_one_angstrom_are_asked_about(tmp_path: Path) -> None:
    volume = cg.phantom_map(32, 6.0)
    for name in ("map.mrc", "truth.mrc"):
        write_map(tmp_path / name, volume, 1.0)
        with (tmp_path / name).open("r+b") as file:  # not by us: without our label
            file.seek(220)
            file.write(bytes(804))
    found, truth = tmp_path / "map.mrc", tmp_path / "truth.mrc"
    complaint(lambda: cg.evaluate(found, truth=truth), "map.mrc has no pixel size", "--apix")
    comparison = cg.evaluate(found, truth=truth, pixel_size_A=6.0)
    assert comparison.resolution_A(0.5) == pytest.approx(12.0)
    write_map(found, cg.phantom_map(24, 8.0), 8.0)
    complaint(lambda: cg.evaluate(found, truth=truth), "truth.mrc has no pixel size", "another box")


# Tomography


@pytest.mark.parametrize("label", ["rlnTomoName", "rlnCtfImage"])
def test_tomography_by_its_columns(star: Path, label: str) -> None:
    add_columns(star, {label: ["TS_01"] * N})
    complaint(lambda: read_particles(star), f"column {label}", "subtomogram", "single-particle")


def test_tomography_by_another_table(star: Path) -> None:
    star.write_text("data_general\n\n_rlnTomoSubTomosAre2DStacks 1\n" + star.read_text())
    complaint(lambda: read_particles(star), "column rlnTomoSubTomosAre2DStacks")


def test_volumes(star: Path, tmp_path: Path) -> None:
    edit(star, " 1.500000 8 2", " 1.500000 8 3")
    complaint(lambda: read_particles(star), "rlnImageDimensionality 3 in row 1 (line 15)")
    edit(star, " 1.500000 8 3", " 1.500000 8 2")
    edit(star, "000004@a.mrcs", "a.mrcs")
    complaint(lambda: read_particles(star), "'a.mrcs' in row 4", "6 sections", "N@")
    write_stack(tmp_path / "one.mrc", torch.randn(1, BOX, BOX), 1.5)
    edit(star, " a.mrcs" if " a.mrcs" in star.read_text() else "\na.mrcs", "\none.mrc")
    assert len(read_particles(star)) == N


def test_tilts_as_images_of_a_group(star: Path) -> None:
    scales = ["1", "0.99", "0.99", "0.94", "0.94", "0.88"]
    edit(star, " 0.500000", "")
    edit(star, "_rlnCtfScalefactor", "_rlnCtfScalefactor")
    lines = star.read_text().split("\n")
    rows = [i for i, line in enumerate(lines) if "@" in line]
    for number, i in enumerate(rows):
        lines[i] += f" {scales[number]}"
    star.write_text("\n".join(lines))
    single = {"rlnGroupName": ["mic1"] * N, "rlnCtfBfactor": ["-13"] * N}
    plain = star.read_text()
    add_columns(star, single)
    assert len(read_particles(star)) == N
    star.write_text(plain)
    add_columns(star, single | {"rlnCtfBfactor": [str(-13 * i) for i in range(N)]})
    complaint(lambda: read_particles(star), "B-factor and scale for each tilt", "subtomogram")


# Duplicates


def test_an_image_named_twice_is_read_once(star: Path, tmp_path: Path) -> None:
    (tmp_path / "link.mrcs").symlink_to("a.mrcs")
    edit(star, "000003@a.mrcs", "2@link.mrcs")
    edit(star, "000006@a.mrcs", "1@a.mrcs")
    read = read_particles(star)
    assert read.source.rows.tolist() == [0, 1, 3, 4]
    assert "2 rows left out that name an image again" in read.source.summary
    assert read.source.summary.startswith("4 particles")
    assert len(read.ctf) == len(read) == 4
    assert read.stack.slice_index.tolist() == [0, 1, 3, 4]
    out = tmp_path / "out.star"
    write_assigned(out, star, poses(4), rows=read.source.rows)
    again = read_particles(out)
    assert len(again) == 4
    assert "left out" not in again.source.summary
    chosen = read_particles(star, index=torch.tensor([5, 2, 0, 1]))
    assert chosen.source.rows.tolist() == [5, 2]


def test_close_picks_are_counted(star: Path) -> None:
    places = {
        "rlnMicrographName": ["m1", "m1", "m1", "m2", "m2", "m2"],
        "rlnCoordinateX": ["10", "11", "90", "10", "50", "10.5"],
        "rlnCoordinateY": ["10", "11", "10", "90", "10", "70"],
    }
    add_columns(star, places)
    assert "2 particles within 3 Å (a quarter of the box) of another" in (
        read_particles(star).source.summary
    )
    assert "picked twice" not in read_particles(star, index=torch.arange(1, N)).source.summary
    unscaled = star.read_text()
    add_columns(star, {"rlnMicrographPixelSize": ["3"] * N})  # not those of the images
    assert "picked twice" not in read_particles(star).source.summary
    star.write_text(unscaled.replace(" 10.5 70", " nan 70"))
    assert "close picks not looked for" in read_particles(star).source.summary


# Names that repeat


def test_a_label_twice(star: Path) -> None:
    add_columns(star, {"rlnDefocusU": ["0"] * N})
    complaint(
        lambda: read_particles(star),
        "Line ",
        f"of {star} names",
        "rlnDefocusU, which its table has",
    )
    star.write_text("data_\n_rlnX 1\n_rlnX 2\n")
    complaint(lambda: read_star(star), "Line 3 of", "rlnX")


def test_blocks_of_one_name_stay_two(star: Path, tmp_path: Path) -> None:
    edit(star, "data_optics", "data_")
    edit(star, "data_particles", "data_")
    out = tmp_path / "out.star"
    write_assigned(out, star, poses(N))
    optics, particles = read_star(out)
    assert "rlnVoltage" in optics
    assert "rlnAngleRot" in particles
    assert len(read_particles(out)) == N


def test_tables_that_repeat(star: Path) -> None:
    text = star.read_text()
    optics, particles = text.split("data_particles")
    row = next(line for line in optics.split("\n") if line.startswith("1 "))
    star.write_text(text.replace(row, f"{row}\n{row.replace('300', '200')}"))
    complaint(lambda: read_particles(star), "optics group 1 stands again in row 2 (line 16)")
    star.write_text(f"{text}\ndata_more{particles}")
    complaint(lambda: read_particles(star), "two tables of particles", "lines 30 and 48")
    star.write_text(f"{optics}{text}")
    complaint(lambda: read_particles(star), "two tables of optics groups")


def test_a_file_without_its_last_line_break_is_said(star: Path) -> None:
    assert "cut short" not in read_particles(star).source.summary
    star.write_text(star.read_text().rstrip())
    assert "ends without a line break: cut short?" in read_particles(star).source.summary


# Encodings


@pytest.mark.parametrize(
    "recode",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
    ],
)
def test_encodings(star: Path, recode: Callable[[str], bytes]) -> None:
    edit(star, "data_optics", "# Å\ndata_optics")
    star.write_bytes(recode(star.read_text()))
    assert len(read_particles(star)) == N
    assert "warning" not in read_particles(star).source.summary


# Half-sets


def test_half_sets_come_with_the_particles(star: Path) -> None:
    assert read_particles(star).half is None
    half = ["1", "2", "2", "2", "1", "2"]
    add_columns(star, {"rlnRandomSubset": half})
    read = read_particles(star, index=torch.tensor([5, 0, 1]))
    assert read.half.tolist() == [2, 1, 2]
    assert read.subset(torch.tensor([1])).half.tolist() == [1]
    edit(star, " 0.500000 1", " 0.500000 0", 1)
    assert read_particles(star).half is None
