"""NumPy files that are broken, of another kind, or declare more than they hold."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from cryogan.errors import InputError
from cryogan.io.cryosparc import read_records
from cryogan.io.npy import read_npy
from cryogan.io.row_numbers import read_row_numbers


def header(text: str, version: int = 1) -> bytes:
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes((version, 0)) + size + text.encode("latin1")


def plain(shape: str, descr: str = "'<i8'") -> bytes:
    return header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        header("{'descr': '<i8', 'fortran_order': False, 'shape': (3,)"),  # no end
        header("{'descr': '<i8', (, 'shape'"),
        header("'" * 40),
        header("(" * 5000),
        header("-" * 5000 + "1"),
        header("[" * 260_000, version=2),
        header("-" * 260_000 + "1", version=2),
        header("[" + "1," * 30_000 + "]", version=2),
        header(" " * 300_000, version=2),
        header("{'descr': '<i8', 'fortran_order': False, 'shape': (3,), '\\N{x}': 1}"),
        plain("(-3,)") + bytes(24),
        plain("(True,)") + bytes(8),
        plain("(3.0,)") + bytes(24),
        plain("(10**9,)") + bytes(24),
        plain("(1000000000000,)") + bytes(24),
        plain("(99999999999999999999999,)") + bytes(24),
        plain("(4,)") + bytes(24),  # shorter than declared
        plain("(2,)") + bytes(24),  # longer
        plain("(1000000000000,)", "'V0'"),
        plain("(1000000000000,)", "[]"),
        plain("(1,)", "[('a', '<i4'), ('a', '<i4')]") + bytes(8),
        plain("(1,)", "'(1000000000,1000000000)f4'") + bytes(8),
        plain("(1,)", "'nonsense'") + bytes(8),
        plain("(1,)", "None") + bytes(8),
    ],
    ids=lambda content: f"{len(content)}-bytes",
)
def test_broken_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    tracemalloc.start()
    for read, kind in ((read_npy, ".npy file"), (read_records, "cryoSPARC particle file")):
        with pytest.raises(InputError) as caught:
            read(path)
        assert f"a.npy is no whole {kind}" in str(caught.value)
        assert str(caught.value).endswith(".")
        assert "\n" not in str(caught.value)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 100e6


@pytest.mark.parametrize("kind", ["'|O'", "[('a', '|O')]"])
def test_objects_are_never_loaded(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.npy").write_bytes(plain("(1,)", kind) + bytes(8))
    for read in (read_npy, read_records, read_row_numbers):
        with pytest.raises(
            InputError, match=r"a\.npy holds Python objects, which are never loaded"
        ):
            read(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "array",
    [
        np.arange(5),
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
        np.zeros(0, np.float32),
        np.array(3),
        np.zeros(2, [("a", "<f4", 3), ("b", "S5")]),
    ],
)
def test_whole_files(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    read = read_npy(tmp_path / "a.npy")
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 3), int), "must hold a list of whole row numbers"),
        (np.zeros(0, int), "is empty: it holds no row number"),
        (np.array(["1"]), "must hold a list"),
        (np.array([1 + 1j]), "must hold a list"),
        (np.array([0.5]), "must hold a list"),
        (np.array([np.nan]), "must hold a list"),
        (np.array([1e300]), "must hold a list"),
        (np.array([2**63], np.uint64), "must hold a list"),
        (np.array([-(2**63)]), "must hold a list"),
        (np.zeros(2, [("a", "<i4")]), "must hold a list"),
        (np.array([None]), "holds Python objects"),
        (np.array([7, 7]), "names row 7 more than once"),
    ],
)
def test_row_numbers_that_are_none(tmp_path: Path, array: np.ndarray, words: str) -> None:
    np.save(tmp_path / "rows.npy", array)
    with pytest.raises(InputError, match=words):
        read_row_numbers(tmp_path / "rows.npy")


def test_row_numbers(tmp_path: Path) -> None:
    for dtype in (">i4", "<u8", "<f4"):
        np.save(tmp_path / "rows.npy", np.array([4, 0, 2], dtype))
        assert read_row_numbers(tmp_path / "rows.npy").tolist() == [4, 0, 2]
