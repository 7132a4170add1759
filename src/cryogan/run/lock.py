"""One process at a time writes in a folder."""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from cryogan.errors import InputError
from cryogan.files import try_lock

RUN_LOCK = ".run.lock"
"""Of a run folder: held by the process that the command is."""
WORKER_LOCK = ".worker.lock"
"""Of a task's folder: held by the process that works on it, which may outlive that for a while."""
LOCKS = (RUN_LOCK, WORKER_LOCK)
_INSTANT_S = 1.0


@contextmanager
def locked(path: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold a lock; it is free again when the process ends, however it ends.

    Nothing is locked where the file system has no locks. Those that look (`holder_of`) hold it for
    an instant, which is waited for.

    Args:
        path: of the lock file, which is made, and removed.
        wait_s: how long to wait for another process to free it.

    Raises:
        InputError: another process holds it, or the file cannot be written.
    """
    deadline = time.monotonic() + max(wait_s, _INSTANT_S)
    while True:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise InputError(
                f"Cannot write in {path.parent}: {error.strerror}; choose a folder that you may "
                "write to."
            ) from error
        got = try_lock(descriptor)
        if got and not _is_at(descriptor, path):  # removed meanwhile
            os.close(descriptor)
            continue
        if got is not False:
            break
        holder = os.read(descriptor, 200).decode(errors="replace").strip()
        os.close(descriptor)
        if time.monotonic() >= deadline:
            raise InputError(
                f"{path.parent} is in use by another process ({holder or 'unknown'}); wait for it "
                "or stop it, or give another output folder; if that process is gone, delete "
                f"{path}."
            )
        time.sleep(0.2)
    try:
        os.ftruncate(descriptor, 0)
        since = datetime.now().isoformat(sep=" ", timespec="seconds")
        os.write(descriptor, f"process {os.getpid()} on {platform.node()} since {since}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def holder_of(path: Path) -> str | None:
    """Who holds a lock, in words; None if nobody does.

    Where the file system has no locks, whoever made the file, which the end of a command removes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # others may look, too
    except OSError:
        return None
    try:
        locked = try_lock(descriptor, shared=True)
        if locked:
            return None
        holder = os.read(descriptor, 200).decode(errors="replace").strip() or "unknown"
        return holder if locked is False else f"{holder} (perhaps: the file system has no locks)"
    finally:
        os.close(descriptor)
