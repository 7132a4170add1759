"""Files that are not yet what their names say: compressed ones and Git LFS pointers."""

from pathlib import Path

from cryogan.errors import InputError

_UNPACKED_BY = {
    b"\x1f\x8b\x08": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ\x00": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
    b"\x04\x22\x4d\x18": "unlz4",
    b"PK\x03\x04": "unzip",
}
_CSDAT = b"\x95CSDAT"
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def refuse_packed(path: Path | str, start: bytes) -> None:
    """Refuse a file whose first bytes (40 or more) are those of a compressed file or a pointer.

    Raises:
        InputError: it is one, and how to unpack or fetch it.
    """
    if start.startswith(_LFS_POINTER):
        raise InputError(
            f"{path} is a Git LFS pointer in place of the file itself; fetch it with git lfs pull."
        )
    if start.startswith(_CSDAT):
        raise InputError(
            f"{path} is in the compressed format CSDAT; save it with cryosparc-tools as NumPy "
            "array (Dataset.save with format=NUMPY_FORMAT), or give the job's .cs file."
        )
    for magic, program in _UNPACKED_BY.items():
        if start.startswith(magic):
            raise InputError(f"{path} is compressed; decompress it first ({program}).")
