"""Files that hold something else than what their names say: packed ones, Git-LFS pointers."""

from pathlib import Path

from cryogan.errors import InputError

_PACKED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ\0": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
    b"\x04\x22\x4d\x18": "unlz4",
    b"PK\x03\x04": "unzip",
}
_LFS = b"version https://git-lfs"


def refuse_packed(path: Path | str, start: bytes) -> None:
    """Refuse a file that is compressed, or that only points to where its content is.

    Args:
        path: of the file, for messages.
        start: its first bytes, 24 or more.

    Raises:
        InputError: which of these it is, and how it is unpacked.
    """
    for magic, program in _PACKED.items():
        if start.startswith(magic):
            raise InputError(f"{path} is compressed; decompress it first ({program}).")
    if start.startswith(_LFS):
        raise InputError(
            f"{path} is a Git-LFS pointer instead of the file itself; fetch it with git lfs pull."
        )
