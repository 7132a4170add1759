"""How many threads each part of a run may use."""

import os


def available_cores() -> int:
    """Cores on which the system lets this process run: batch systems give a part of a machine's."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def asked_threads() -> int | None:
    """What `OMP_NUM_THREADS` asks for, if it asks for any number."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(asked) if asked.isdecimal() and int(asked) > 0 else None


def threads_of_each(local_size: int | None = None) -> int:
    """Of the cores on which the system lets this process run, or of `OMP_NUM_THREADS`.

    Batch systems give a process a part of a machine's cores by one or the other.

    Args:
        local_size: processes that torchrun has started on this machine; it sets `OMP_NUM_THREADS`
            to 1 where the user does not, so that this does not count. None for the two half-sets
            of a run without it.

    Example:
        >>> from cryogan.run.threads import threads_of_each
        >>> threads_of_each() >= 1
        True
    """
    asked = asked_threads()
    if local_size is None and asked is not None:
        return max(1, asked // 2)
    return max(1, available_cores() // (local_size or 2))
