"""Atomic writing: a file with its final name is always whole. Locks, and what killed writes leave.

A temporary file is locked (flock) while it is written, so that one that a killed process has left
can be told from one in use.
"""

import os
import secrets
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryogan.errors import InputError

_LEFT_OVER = ".cryogan-????????.tmp*"
_OLD_S = 86_400.0  # of a temporary file where files cannot be locked


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block ends well.

    The file has the permissions of the one that it replaces, or those that the process gives new
    files (umask).

    Raises:
        InputError: the folder does not exist or cannot be written, or `path` is a folder or a
            device.
        OSError: the disk is full, for example; `filename` is that of `path`.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(
            f"Cannot write {path}: it is no regular file but a device or a pipe, which would be "
            "replaced; give the name of a file to write."
        )
    temporary = path.parent / f".cryogan-{secrets.token_hex(4)}.tmp{path.suffix}"
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise InputError(
            f"Cannot write {path}: {error.strerror}; choose a folder that exists and that you "
            "may write to."
        ) from error
    try:
        try_lock(descriptor)
        if path.is_file():
            os.fchmod(descriptor, stat.S_IMODE(path.stat().st_mode))
        try:
            yield temporary
            os.fsync(descriptor)
        except OSError as error:
            if error.filename in (None, str(temporary)):
                error.filename = str(path)
            raise
        try:
            temporary.replace(path)
        except OSError as error:  # a folder of that name
            raise InputError(
                f"Cannot write {path}: {error.strerror}; choose another name."
            ) from error
    finally:
        temporary.unlink(missing_ok=True)
        os.close(descriptor)


def left_overs(folder: Path) -> list[Path]:
    """Temporary files that killed processes have left in a folder: no process has them open."""
    found = []
    for path in sorted(folder.glob(_LEFT_OVER)):
        with suppress(OSError):  # gone meanwhile
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                free = try_lock(descriptor, shared=True)
                age_s = time.time() - os.fstat(descriptor).st_mtime
            finally:
                os.close(descriptor)
            if free or (free is None and age_s > _OLD_S):
                found.append(path)
    return found


def remove_left_overs(folder: Path) -> None:
    """Remove them."""
    for path in left_overs(folder):
        path.unlink(missing_ok=True)


def try_lock(descriptor: int, *, shared: bool = False) -> bool | None:
    """Lock an open file for this process alone, until it is closed; None where there are no locks.

    Args:
        descriptor: of the file.
        shared: only look whether another process has locked it: several may at a time.

    Returns:
        Whether it is locked now; False if another has locked it.
    """
    try:
        import fcntl

        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # the file system has none
        return None
    return True


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
