"""Worker processes: what they are sent, and the user's script, which they do not run again."""

import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler
from types import ModuleType
from typing import Any

from cryogan.errors import InputError
from cryogan.registry import add_choices, added_choices


def pickled(sent: Any) -> bytes:
    """Something for a worker process, and the choices that this process has added.

    Tensors are not copied: the processes share their memory.

    Raises:
        InputError: a function or class is not where another process would find it.
    """
    try:
        return bytes(ForkingPickler.dumps((sent, added_choices())))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"A worker process cannot be given what this run needs ({error}); define functions and "
            "classes of your own at the top of a module."
        ) from error


def unpickled(data: bytes) -> Any:
    """What `pickled` was given, in a worker process.

    Raises:
        InputError: a function or class is not found here.
    """
    try:
        sent, added = pickle.loads(data)
    except AttributeError as error:
        raise InputError(
            f"A worker process does not find what a notebook has defined ({error}); put it in a "
            "module that can be imported."
        ) from error
    add_choices(added)
    return sent


def needs_script(data: bytes) -> bool:
    """Whether what was pickled has functions or classes of the user's script."""
    return b"__main__" in data


@contextmanager
def script_left_out(unless: bool) -> Iterator[None]:
    """Processes started inside do not run the user's script, which would start others in turn.

    Unless they need what is defined in it; then the script must be written for that.
    """
    script = sys.modules["__main__"]
    if not unless:
        sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script
