"""Parts of a run that cannot be read: left out, and said so."""

from collections.abc import Callable
from typing import TypeVar

from cryogan.errors import InputError

Value = TypeVar("Value")


def part(make: Callable[[], Value], left_out: list[str]) -> Value | None:
    """What `make` returns; None where it fails on what a file holds.

    Args:
        make: reads a part of a run folder.
        left_out: the reason is appended here, a sentence.
    """
    try:
        return make()
    except InputError as error:
        reason = str(error)
    except OSError as error:  # gone, or not to be read, while another process writes
        reason = f"{error.filename or 'a file'}: {error.strerror or error}."
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        reason = f"a file of the run holds something unexpected ({error})."
    if reason not in left_out:
        left_out.append(reason)
    return None
