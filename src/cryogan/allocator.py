"""The C library's allocator, told not to hand memory back to the system between steps.

For the command line and worker processes, which own their process; the library itself does not call
`keep_freed_memory`.
"""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from malloc.h of the GNU C library


def keep_freed_memory() -> None:
    """Reuse freed arrays instead of returning them to the system; nothing where it cannot.

    A training step frees and asks again for the same hundreds of megabytes; the GNU C library
    maps and unmaps large arrays each time, and the system clears every page anew: a third of the
    time of a step on a CPU.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def return_freed_memory() -> None:
    """Return to the system what `keep_freed_memory` has kept; nothing where it cannot.

    For places where much is freed and arrays of other sizes follow, which would not fit the gaps.
    """
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return
    malloc_trim(0)
