"""MRC files against mrcfile, RELION and files found in the wild."""

import pickle
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

import cryogan
from cryogan.errors import InputError
from cryogan.io.mrc import MrcStack, StackWriter, read_map, write_map, write_stack
from relion_programs import relion


def test_map_as_mrcfile_reads_it(tmp_path: Path, generator: torch.Generator) -> None:
    volume = torch.randn(7, 7, 7, generator=generator)
    path = tmp_path / "map.mrc"
    write_map(path, volume, 1.31)
    assert mrcfile.validate(str(path))
    with mrcfile.open(path) as mrc:
        assert mrc.is_volume()
        np.testing.assert_array_equal(mrc.data, volume.numpy())
        np.testing.assert_allclose(mrc.voxel_size.tolist(), 1.31, rtol=1e-6)
        assert mrc.header.origin.tolist() == (0.0, 0.0, 0.0)
        assert float(mrc.header.dmean) == pytest.approx(float(volume.mean()), abs=1e-6)
        assert float(mrc.header.rms) == pytest.approx(float(volume.std(correction=0)), rel=1e-5)
    again = read_map(path)
    assert torch.equal(again.volume, volume)
    assert again.pixel_size_A == pytest.approx(1.31, rel=1e-6)
    assert path.stat().st_size == 1024 + 4 * 7**3


def test_stack_as_mrcfile_reads_it(tmp_path: Path, generator: torch.Generator) -> None:
    images = torch.randn(5, 6, 6, generator=generator)
    path = tmp_path / "images.mrcs"
    write_stack(path, images, 2.5)
    assert mrcfile.validate(str(path))
    with mrcfile.mmap(path) as mrc:
        assert mrc.is_image_stack()
        np.testing.assert_array_equal(mrc.data, images.numpy())
        np.testing.assert_allclose(mrc.voxel_size.tolist(), 2.5, rtol=1e-6)


def test_relion_reads_map_and_stack(tmp_path: Path, generator: torch.Generator) -> None:
    write_map(tmp_path / "map.mrc", torch.rand(8, 8, 8, generator=generator), 1.5)
    write_stack(tmp_path / "images.mrcs", torch.rand(3, 8, 8, generator=generator), 1.5)
    for name, found in (
        ("map.mrc", "map.mrc : (x,y,z,n)= 8 x 8 x 8 x 1"),
        ("images.mrcs", "000003@images.mrcs : (x,y,z,n)= 8 x 8 x 1 x 1"),
    ):
        words = relion("relion_image_handler", "--i", name, "--stats", folder=tmp_path)
        assert found in words
        assert "angpix = 1.5" in words


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.float16, np.float32])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_real_mode_and_byte_order(tmp_path: Path, dtype: type, order: str) -> None:
    values = np.arange(27).reshape(3, 3, 3).astype(np.dtype(dtype).newbyteorder(order))
    path = tmp_path / "map.mrc"
    with mrcfile.new(path) as mrc:
        mrc.set_data(values)
        mrc.voxel_size = 2.0
    read = read_map(path)
    assert torch.equal(read.volume, torch.arange(27.0).reshape(3, 3, 3))
    assert read.pixel_size_A == 2.0


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("stamp", "flags", "expected"),
    [
        (b"IMOD", 0, (0, 127, 128, 255)),
        (b"IMOD", 1, (0, 127, -128, -1)),
        (b"IMOD", 6, (0, 127, 128, 255)),  # flags of other things
        (bytes(4), 0, (0, 127, -128, -1)),  # MRC2014
        (bytes(4), 1, (0, 127, -128, -1)),
    ],
)
def test_bytes_are_signed_except_where_imod_says_otherwise(
    tmp_path: Path, order: str, stamp: bytes, flags: int, expected: tuple[int, ...]
) -> None:
    path = tmp_path / "bytes.mrcs"
    path.write_bytes(_header_of_bytes(order, stamp, flags) + bytes((0, 127, 128, 255)) * 2)
    images = MrcStack.open(path).read(torch.arange(2))
    assert images.tolist() == [[list(map(float, expected[:2])), list(map(float, expected[2:]))]] * 2


def test_two_pixels_in_a_byte_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "half.mrcs"
    path.write_bytes(_header_of_bytes("<", b"IMOD", 16) + bytes(8))
    with pytest.raises(InputError, match="4-bit pixels"):
        MrcStack.open(path)


def _header_of_bytes(order: str, stamp: bytes, flags: int) -> bytes:
    """A header of two images of 2 x 2 bytes; IMOD's stamp is the number 1146047817, or "IMOD"."""
    header = np.zeros(256, np.dtype("i4").newbyteorder(order))
    header[:10] = (2, 2, 2, 0, 0, 0, 0, 2, 2, 1)
    header[16:19] = (1, 2, 3)
    header[38] = int.from_bytes(stamp, "little")
    header[39] = flags
    return header.tobytes()


def test_bytes_after_the_pixels_do_no_harm(tmp_path: Path, generator: torch.Generator) -> None:
    images = torch.randn(3, 4, 4, generator=generator)
    path = tmp_path / "images.mrcs"
    write_stack(path, images, 1.5)
    path.write_bytes(path.read_bytes() + b"and more")
    assert torch.equal(MrcStack.open(path).read(torch.arange(3)), images)


@pytest.mark.parametrize("size", [np.nan, np.inf, -np.inf])
def test_a_voxel_that_is_no_number_is_not_set(tmp_path: Path, size: float) -> None:
    path = tmp_path / "map.mrc"
    write_map(path, torch.zeros(4, 4, 4), size)
    assert read_map(path, pixel_size_A=2.0).pixel_size_A == 2.0
    with pytest.raises(InputError, match="has no pixel size"):
        read_map(path)


@pytest.mark.parametrize("size", [-1.5, 6e13, 1e-20])
def test_a_voxel_that_cannot_be_is_refused(tmp_path: Path, size: float) -> None:
    path = tmp_path / "map.mrc"
    write_map(path, torch.zeros(4, 4, 4), size)
    with pytest.raises(InputError, match=r"pixel size of .*map\.mrc is .*from 0\.1 to 100"):
        read_map(path)
    write_map(path, torch.zeros(4, 4, 4), 1.0)  # not set
    for given in (size, np.nan, np.inf):
        with pytest.raises(InputError, match=r"pixel size of .*map\.mrc is "):
            read_map(path, pixel_size_A=given)


@pytest.mark.parametrize("axes", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (2, 1, 3)])
def test_axis_order_is_undone(
    tmp_path: Path, axes: tuple[int, int, int], generator: torch.Generator
) -> None:
    """A voxel at (x, y, z) stays there however columns, rows and sections are assigned."""
    zyx = torch.randn(4, 4, 4, generator=generator).numpy()
    column, row, section = axes
    path = tmp_path / "map.mrc"
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.ascontiguousarray(zyx.transpose(3 - section, 3 - row, 3 - column)))
        mrc.voxel_size = 1.2
        mrc.header.mapc, mrc.header.mapr, mrc.header.maps = axes
    np.testing.assert_array_equal(read_map(path).volume.numpy(), zyx)


def test_extended_header_is_skipped(tmp_path: Path, generator: torch.Generator) -> None:
    images = torch.randn(3, 4, 4, generator=generator)
    path = tmp_path / "images.mrcs"
    with mrcfile.new(path) as mrc:
        mrc.set_data(images.numpy())
        mrc.set_image_stack()
        mrc.set_extended_header(np.frombuffer(b"x" * 160, dtype="V1"))
    assert torch.equal(MrcStack.open(path).read(torch.arange(3)), images)


def test_streaming_equals_writing_at_once(tmp_path: Path, generator: torch.Generator) -> None:
    images = torch.randn(7, 8, 8, generator=generator)
    write_stack(tmp_path / "whole.mrcs", images, 3.0)
    with StackWriter(tmp_path / "streamed.mrcs", 7, 8, 3.0) as writer:
        for batch in images.split(3):
            writer.append(batch)
        assert not (tmp_path / "streamed.mrcs").exists()
    streamed = (tmp_path / "streamed.mrcs").read_bytes()
    whole = (tmp_path / "whole.mrcs").read_bytes()
    assert streamed[1024:] == whole[1024:]
    first, second = (
        np.frombuffer(raw[:1024], mrcfile.dtypes.HEADER_DTYPE)[0] for raw in (streamed, whole)
    )
    assert float(first["rms"]) == pytest.approx(float(second["rms"]), rel=1e-6)
    assert first["dmax"] == second["dmax"] == images.max().numpy()


def test_an_interrupted_stack_leaves_nothing(tmp_path: Path) -> None:
    def write(n: int, images: torch.Tensor) -> None:
        with StackWriter(tmp_path / "images.mrcs", n, 4, 1.5) as writer:
            writer.append(torch.zeros(1, 4, 4))
            writer.append(images)

    with pytest.raises(ValueError, match="images of"):  # stopped half-way
        write(2, torch.zeros(1, 5, 5))
    with pytest.raises(ValueError, match="2 images were appended, 3 announced"):
        write(3, torch.zeros(1, 4, 4))
    assert list(tmp_path.iterdir()) == []


def test_images_of_several_stacks_in_any_order(tmp_path: Path, generator: torch.Generator) -> None:
    first = torch.randn(3, 4, 4, generator=generator)
    second = torch.randn(2, 4, 4, generator=generator)
    write_stack(tmp_path / "a.mrcs", first, 1.5)
    write_stack(tmp_path / "b.mrcs", second, 1.5)
    stack = MrcStack.open(tmp_path / "a.mrcs", tmp_path / "b.mrcs", sign=-1.0)
    assert (len(stack), stack.box_size) == (5, 4)
    index = torch.tensor([4, 0, 3, 3, 2])
    expected = -torch.cat((first, second))[index]
    assert torch.equal(stack.read(index), expected)
    assert torch.equal(pickle.loads(pickle.dumps(stack)).read(index), expected)
    assert stack.read(index[:0]).shape == (0, 4, 4)


def test_maps_of_other_programs(shared_data: Path) -> None:
    odd = read_map(shared_data / "models/ribosome_70S_65.mrc", pixel_size_A=5.0)
    assert odd.volume.shape == (65, 65, 65)
    assert odd.pixel_size_A == 5.0
    reference = read_map(shared_data / "empiar-10017/reference_map.mrc")
    with mrcfile.open(shared_data / "empiar-10017/reference_map.mrc") as mrc:
        np.testing.assert_array_equal(reference.volume.numpy(), mrc.data)
    assert reference.pixel_size_A == pytest.approx(3.54)


def test_labels_say_program_version_and_content(tmp_path: Path) -> None:
    """As mrcfile reads them; too long or not ASCII does no harm."""
    path = tmp_path / "map.mrc"
    for what, said in (
        ("", f"cryogan {cryogan.__version__}"),
        ("half-map 1", f"cryogan {cryogan.__version__}: half-map 1"),
        ("Å\n" + 90 * "x", f"cryogan {cryogan.__version__}: ? x"),
    ):
        write_map(path, torch.zeros(4, 4, 4), 1.0, what)
        with mrcfile.open(path) as file:
            labels = file.get_labels()
        assert len(labels) == 2
        assert labels[1].startswith(said)
        assert len(labels[1]) <= 80
        assert read_map(path).pixel_size_A == 1.0
    assert mrcfile.validate(str(path))
