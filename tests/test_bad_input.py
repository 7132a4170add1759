"""Whatever is wrong with the input is said in one sentence that names the place."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import mrcfile
import numpy as np
import pytest
import torch

from cryogan.errors import InputError
from cryogan.io import cryosparc
from cryogan.io.mrc import MrcStack, StackWriter, read_map, write_map, write_stack
from cryogan.io.npy import read_npy
from cryogan.io.relion import read_particles
from cryogan.io.relion_poses import read_poses
from cryogan.io.relion_writing import write_particles
from cryogan.particles import CTFParams

N = 6
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 722797568\n"


@pytest.fixture
def star(tmp_path: Path, generator: torch.Generator) -> Path:
    """A good set of 6 particles, box 8, 1.5 Å, for each test to spoil."""
    write_stack(tmp_path / "a.mrcs", torch.randn(N, 8, 8, generator=generator), 1.5)
    path = tmp_path / "particles.star"
    ctf = CTFParams.constant(N, defocus_u_A=10000.0)
    write_particles(path, image_names="a.mrcs", ctf=ctf, pixel_size_A=1.5, box_size=8)
    return path


def edit(star: Path, old: str, new: str, count: int = -1) -> None:
    text = star.read_text()
    assert old in text
    star.write_text(text.replace(old, new, count))


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


def test_the_set_is_good_before_it_is_spoilt(star: Path) -> None:
    assert len(read_particles(star)) == N


def test_missing_star(tmp_path: Path) -> None:
    complaint(lambda: read_particles(tmp_path / "no.star"), "no.star: No such file", "check")
    complaint(lambda: read_particles(tmp_path), "Is a directory")


def test_something_else_than_a_star(star: Path, tmp_path: Path) -> None:
    complaint(lambda: read_particles(tmp_path / "a.mrcs"), "a.mrcs is not a STAR file", ".star")
    other = tmp_path / "other.txt"
    other.write_text("defocus,voltage\n1,2\n")
    complaint(lambda: read_particles(other), "Line 1 of", "other.txt is neither a block")
    other.write_text("data_\n\nloop_\n_rlnVoltage\n300\n")
    complaint(lambda: read_particles(other), "no table with rows and a column rlnImageName")


def test_missing_stack(star: Path, tmp_path: Path) -> None:
    edit(star, "000003@a.mrcs", "000003@Extract/b.mrcs")
    words = ("'Extract/b.mrcs'", "row 3 (line ", "particles.star", "--datadir", "--strip-prefix")
    complaint(lambda: read_particles(star), *words, str(tmp_path / "Extract/b.mrcs"))
    (tmp_path / "images").mkdir()
    (tmp_path / "a.mrcs").rename(tmp_path / "images/a.mrcs")
    complaint(
        lambda: read_particles(star, datadir=tmp_path / "images", strip_prefix="Extract"),
        str(tmp_path / "images/b.mrcs"),
        *words,
    )


def test_truncated_stack(star: Path, tmp_path: Path) -> None:
    stack = tmp_path / "a.mrcs"
    stack.write_bytes(stack.read_bytes()[:-1])
    complaint(
        lambda: read_particles(star),
        "a.mrcs is truncated",
        "6 sections of 8 x 8 pixels (2,560 bytes) but the file has 2,559 bytes",
    )


def test_truncated_stack_of_the_reference_data(shared_data: Path) -> None:
    path = shared_data / "formats/broken/truncated.mrcs"
    complaint(lambda: MrcStack.open(path), "is truncated", "722,797,568 bytes", "66,560 bytes")


def test_stack_that_is_no_mrc(star: Path, tmp_path: Path) -> None:
    for content in (b"", b"some text\n" * 200, bytes(2000)):
        (tmp_path / "a.mrcs").write_bytes(content)
        complaint(lambda: read_particles(star), "a.mrcs is not an MRC file")
    star.write_bytes(LFS)
    complaint(lambda: read_particles(star), "particles.star is a Git LFS pointer")


@pytest.mark.parametrize(
    ("compress", "program"), [(gzip, "gunzip"), (bz2, "bunzip2"), (lzma, "unxz")]
)
def test_compressed_star(star: Path, compress: ModuleType, program: str) -> None:
    star.write_bytes(compress.compress(star.read_bytes()))
    complaint(lambda: read_particles(star), "particles.star is compressed", program)


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        (gzip.compress(bytes(2000)), "compressed; decompress it first (gunzip)"),
        (bz2.compress(bytes(2000)), "compressed; decompress it first (bunzip2)"),
        (lzma.compress(bytes(2000)), "compressed; decompress it first (unxz)"),
        (b"\x28\xb5\x2f\xfd" + bytes(2000), "compressed; decompress it first (unzstd)"),
        (b"PK\x03\x04" + bytes(2000), "compressed; decompress it first (unzip)"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 8192\n",
            "is a Git LFS pointer in place of the file itself; fetch it with git lfs pull",
        ),
    ],
    ids=["gzip", "bzip2", "xz", "zstd", "zip", "git-lfs"],
)
def test_packed_files_are_named_as_such(
    star: Path, tmp_path: Path, packed: bytes, words: str
) -> None:
    (tmp_path / "a.mrcs").write_bytes(packed)
    complaint(lambda: read_particles(star), "a.mrcs is", words)
    (tmp_path / "a.cs").write_bytes(packed)
    complaint(lambda: cryosparc.read_poses(tmp_path / "a.cs"), "a.cs is", words)
    (tmp_path / "a.npy").write_bytes(packed)
    complaint(lambda: read_npy(tmp_path / "a.npy"), "a.npy is", words)


def test_complex_stack(tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "c.mrcs") as mrc:
        mrc.set_data(np.zeros((2, 8, 8), dtype=np.complex64))
    complaint(lambda: MrcStack.open(tmp_path / "c.mrcs"), "c.mrcs", "mode 4")


def test_missing_ctf_columns(star: Path, shared_data: Path) -> None:
    edit(star, "_rlnDefocusU ", "_rlnX ")
    edit(star, "_rlnVoltage ", "_rlnY ")
    complaint(lambda: read_particles(star), "particles.star lacks the columns rlnDefocusU, rlnVol")
    broken = shared_data / "formats/broken/sample_incomplete_ctf_params.star"
    complaint(lambda: read_particles(broken), f"{broken} lacks the column rlnVoltage in")


@pytest.mark.parametrize("value", ["nan", "abc", "inf", '""'])
def test_bad_number(star: Path, value: str) -> None:
    text = star.read_text().split("\n")
    row = next(i for i, line in enumerate(text) if line.startswith("000004@"))
    text[row] = text[row].replace("10000.000000", value, 1)
    star.write_text("\n".join(text))
    shown = value.strip('"')
    where = f"rlnDefocusU is '{shown}' in row 4 (line {row + 1}) of {star}"
    complaint(lambda: read_particles(star), where)


def test_short_row(star: Path) -> None:
    edit(star, "000004@a.mrcs ", "")
    complaint(lambda: read_particles(star), "Line 32 of", "has 5 values for 6 columns")


@pytest.mark.parametrize(
    "name",
    ["x@a.mrcs", "0@a.mrcs", "-1@a.mrcs", "@a.mrcs", f"{2**63}@a.mrcs", f"{'9' * 5000}@a.mrcs"],
)
def test_bad_image_number(star: Path, name: str) -> None:
    edit(star, "000004@a.mrcs", name)
    complaint(lambda: read_particles(star), f"rlnImageName is '{name}' in row 4 (line 32)")


def test_image_number_past_the_end(star: Path) -> None:
    edit(star, "000004@a.mrcs", "000007@a.mrcs")
    complaint(lambda: read_particles(star), "row 4 (line 32)", "is number 7", "a.mrcs holds only 6")


def with_header(path: Path, voxel: float) -> None:
    """Write the pixel size into an MRC header as another program does."""
    with mrcfile.open(path, mode="r+", permissive=True) as mrc:
        mrc.header.cella = tuple(voxel * int(mrc.header[f"m{axis}"]) for axis in "xyz")
        mrc.header.nlabl, mrc.header.label = 0, b""


def test_pixel_size_missing(star: Path, tmp_path: Path) -> None:
    edit(star, "rlnImagePixelSize", "rlnX")
    for header_size in (0.0, 1.0, float("nan"), float("inf")):  # 1.0: what programs write unasked
        with_header(tmp_path / "a.mrcs", header_size)
        complaint(lambda: read_particles(star), "particles.star has no pixel size", "--apix")
        assert read_particles(star, pixel_size_A=2.0).pixel_size_A == 2.0
    with_header(tmp_path / "a.mrcs", -6.0)
    complaint(lambda: read_particles(star), "header of a.mrcs", "-6", "0.1 to 100", "--apix")
    assert read_particles(star, pixel_size_A=2.0).pixel_size_A == 2.0


def test_pixels_that_are_not_square(star: Path, tmp_path: Path) -> None:
    """A header that says so is no pixel size to go by."""
    with_header(tmp_path / "a.mrcs", 1.5)
    with mrcfile.open(tmp_path / "a.mrcs", mode="r+", permissive=True) as mrc:
        mrc.header.cella.y /= 2
    assert read_particles(star).pixel_size_A == 1.5
    edit(star, "rlnImagePixelSize", "rlnX")
    complaint(lambda: read_particles(star), "a.mrcs has pixels of 1.5 x 0.75 Å", "--apix")
    assert read_particles(star, pixel_size_A=2.0).pixel_size_A == 2.0


def test_a_pixel_size_of_one_that_cryogan_wrote_counts(star: Path, tmp_path: Path) -> None:
    edit(star, "rlnImagePixelSize", "rlnX")
    write_stack(tmp_path / "a.mrcs", torch.randn(N, 8, 8), 1.0)
    assert read_particles(star).pixel_size_A == 1.0


def test_impossible_pixel_sizes(star: Path) -> None:
    for value in (0.0, -1.0, 1e9, float("nan")):
        complaint(lambda v=value: read_particles(star, pixel_size_A=v), "given", "0.1 to 100 Å")
    edit(star, "1.500000", "0.150000e-9")
    where = f"rlnImagePixelSize is 1.5e-10 in row 1 (line 15) of {star}"
    complaint(lambda: read_particles(star), where, "(in m?)")
    assert read_particles(star, pixel_size_A=1.5).pixel_size_A == 1.5


def test_headers_that_differ(star: Path, tmp_path: Path) -> None:
    """The star file counts; without it the images are brought to one pixel size, or the user's."""
    write_stack(tmp_path / "b.mrcs", torch.randn(N, 8, 8), 1.7)
    edit(star, "000004@a.mrcs", "000004@b.mrcs")
    assert "header of b.mrcs says 1.7 Å" in read_particles(star).source.summary
    edit(star, "rlnImagePixelSize", "rlnX")
    particles = read_particles(star)
    assert particles.pixel_size_A == pytest.approx(1.7)
    assert "1.7 Å (from headers of the stacks)" in particles.source.summary
    assert read_particles(star, pixel_size_A=1.6).pixel_size_A == 1.6
    with_header(tmp_path / "b.mrcs", -6.0)
    complaint(lambda: read_particles(star), "header of b.mrcs", "-6", "0.1 to 100", "--apix")


def test_images_not_square(star: Path, tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "a.mrcs", overwrite=True) as mrc:
        mrc.set_data(np.ones((N, 8, 10), dtype=np.float32))
    complaint(lambda: read_particles(star), "a.mrcs holds images of 10 x 8 pixels")


def test_boxes_that_differ(star: Path, tmp_path: Path) -> None:
    write_stack(tmp_path / "b.mrcs", torch.randn(N, 10, 10), 1.5)
    edit(star, "000004@a.mrcs", "000004@b.mrcs")
    complaint(
        lambda: read_particles(star), "rlnImageSize", "row 4", "is 8 but", "b.mrcs have box 10"
    )
    complaint(
        lambda: MrcStack.open(tmp_path / "a.mrcs", tmp_path / "b.mrcs"),
        *("b.mrcs holds images of box 10 but", "a.mrcs of box 8"),
    )
    edit(star, "@a.mrcs", "@b.mrcs")
    complaint(lambda: read_particles(star), "rlnImageSize", "is 8 but", "b.mrcs have box 10")


def test_optics_groups_that_differ(tmp_path: Path) -> None:
    star = tmp_path / "particles.star"
    ctf = CTFParams.constant(4, defocus_u_A=10000.0, voltage_kV=torch.tensor([200.0, 300.0] * 2))
    write_particles(star, image_names="a.mrcs", ctf=ctf, pixel_size_A=1.5, box_size=8)
    write_stack(tmp_path / "a.mrcs", torch.randn(4, 8, 8), 1.0)
    edit(star, "1.500000", "1.600000", 1)
    words = ("2 pixel sizes (1.5 to 1.6 Å)", "--apix", "--ind", str(star))
    complaint(lambda: read_particles(star, pixel_size_A=1.5), *words)
    edit(star, "1.600000", "1.500000")
    edit(star, " 8 2", " 9 2", 1)
    complaint(lambda: read_particles(star), "rlnImageSize", "is 9 but", "a.mrcs have box 8")
    edit(star, "@a.mrcs 2", "@a.mrcs 3", 1)
    complaint(lambda: read_particles(star), "rlnOpticsGroup is 3 in row 2 (line ", "does not list")
    edit(star, "_rlnOpticsGroup #2", "_rlnX #2")
    complaint(lambda: read_particles(star), "has 2 optics groups but no column rlnOpticsGroup")


def test_nan_in_an_image(star: Path, tmp_path: Path) -> None:
    images = torch.randn(N, 8, 8)
    images[4, 2, 2] = float("nan")
    write_stack(tmp_path / "a.mrcs", images, 1.5)
    complaint(lambda: read_particles(star), "Image 5 of", "a.mrcs", "NaN")
    stack = MrcStack.open(tmp_path / "a.mrcs")
    assert torch.equal(stack.read(torch.arange(4)), images[:4])
    complaint(lambda: stack.read(torch.tensor([0, 4])), "Image 5 of", "a.mrcs", "NaN")


def test_index_past_the_end(star: Path) -> None:
    complaint(
        lambda: read_particles(star, index=torch.tensor([0, 6])), "row 6", "which has 6", str(star)
    )
    complaint(lambda: read_particles(star, index=torch.tensor([], dtype=torch.int64)), "chooses no")


def test_poses_missing(star: Path) -> None:
    complaint(lambda: read_poses(star), "rlnAngleRot", str(star))
    edit(star, "_rlnDefocusU #3", "_rlnAngleRot #3")
    complaint(lambda: read_poses(star), "lacks rlnAngleTilt, rlnAnglePsi")


def test_shifts_in_pixels_of_unknown_size(tmp_path: Path) -> None:
    star = tmp_path / "poses.star"
    labels = "_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n_rlnOriginX\n_rlnOriginY\n"
    star.write_text(f"data_\n\nloop_\n{labels}1 2 3 4 5\n")
    complaint(lambda: read_poses(star), str(star), "rlnOriginX", "--apix")


def test_bad_maps(tmp_path: Path) -> None:
    path = tmp_path / "map.mrc"
    complaint(lambda: read_map(path), "map.mrc: No such file")
    write_map(path, torch.zeros(4, 4, 4), 0.0)
    complaint(lambda: read_map(path), "map.mrc has no pixel size", "--apix")
    assert read_map(path, pixel_size_A=2.0).pixel_size_A == 2.0
    write_map(path, torch.zeros(4, 4, 4), 2.0)
    assert read_map(path, pixel_size_A=2.1).pixel_size_A == 2.1
    complaint(lambda: read_map(path, pixel_size_A=-2.0), "map.mrc is -2", "0.1 to 100 Å")
    write_map(path, torch.zeros(4, 4, 4), 1.0)
    assert read_map(path).pixel_size_A == 1.0
    with_header(path, 1.0)
    complaint(lambda: read_map(path), "map.mrc has no pixel size", "1 Å", "--apix")
    write_map(path, torch.full((4, 4, 4), float("inf")), 2.0)
    complaint(lambda: read_map(path), "map.mrc holds NaN or infinite voxels")
    write_map(path, torch.zeros(4, 4, 5), 2.0)
    complaint(lambda: read_map(path), "map.mrc is not a cubic map", "5 x 4 x 4")
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(np.zeros((4, 4, 4), dtype=np.float32))
        mrc.voxel_size = (1.0, 1.0, 1.5)
    complaint(lambda: read_map(path), "unequal edges (1 x 1 x 1.5 Å)", "map.mrc")
    with mrcfile.mmap(path, mode="r+") as mrc:
        mrc.voxel_size = 1.5
        mrc.header.mapc = 7
    complaint(lambda: read_map(path), "impossible axis numbers (7, 2, 3)", "map.mrc")


def test_nowhere_to_write(tmp_path: Path) -> None:
    """Parents that are a file or a folder where even root may not write."""
    (tmp_path / "file").write_text("x")
    ctf = CTFParams.constant(1, defocus_u_A=10000.0)
    image = torch.zeros(1, 4, 4)
    for folder in (tmp_path / "file", tmp_path / "none", Path("/proc")):
        complaint(lambda f=folder: write_map(f / "m.mrc", image[0], 1.5), f"Cannot write {folder}")
        complaint(lambda f=folder: write_stack(f / "s.mrcs", image, 1.5), f"{folder}/s.mrcs")
        complaint(
            lambda f=folder: write_particles(
                f / "p.star", image_names="s.mrcs", ctf=ctf, pixel_size_A=1.5, box_size=4
            ),
            f"{folder}/p.star",
        )
        complaint(lambda f=folder: StackWriter(f / "s.mrcs", 1, 4, 1.5).__enter__(), "choose")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
