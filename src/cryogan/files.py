"""Atomic writing: a file with its final name is always whole."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryogan.errors import InputError


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block ends well.

    Raises:
        InputError: the folder does not exist or cannot be written, or `path` is a folder or a
            device.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(
            f"Cannot write {path}: it is no regular file but a device or a pipe, which would be "
            "replaced; give the name of a file to write."
        )
    try:
        descriptor, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix
        )
    except OSError as error:
        raise InputError(
            f"Cannot write {path}: {error.strerror}; choose a folder that exists and that you "
            "may write to."
        ) from error
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        try:
            temporary.replace(path)
        except OSError as error:  # a folder of that name
            raise InputError(
                f"Cannot write {path}: {error.strerror}; choose another name."
            ) from error
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(path: Path | str) -> None:
    """Refuse a file that cannot be written, before the work that is to be written in it.

    Raises:
        InputError: its folder does not exist or cannot be written.
    """
    path = Path(path)
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise InputError(
            f"Cannot write {path}: {error.strerror}; choose a folder that exists and that you "
            "may write to."
        ) from error


def refuse_overwriting(output: Path, inputs: Iterable[Path], role: str) -> None:
    """Refuse to write a file over an input, or over a folder.

    Args:
        output: file to be written.
        inputs: files that are read.
        role: what an input is, to be said in the sentence: "which the particles come from".

    Raises:
        InputError: the output is an input, links resolved, or a folder.
    """
    if output.is_dir():
        raise InputError(f"{output} is a folder; give the name of a file to write.")
    for file in inputs if output.exists() else ():
        if output.samefile(file):
            raise InputError(
                f"{output} would be written over {file}, {role}; choose another name for the "
                "output."
            )


def write_text(path: Path | str, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text)
