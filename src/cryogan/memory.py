"""Memory: the C library's allocator, told not to hand it back between steps; what is available."""

import ctypes
from pathlib import Path

import torch

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


def available_GB(device: str, root: Path = Path("/")) -> float | None:
    """Memory that a device's programs may still take (1e9 bytes); None where it cannot be known.

    On a CPU: what Linux calls available (proc(5), MemAvailable and SwapFree), less where control
    groups leave less (Linux kernel, cgroup-v1 memory and cgroup-v2). Files in the cache count as
    available. On a GPU: what the driver says is free.

    Args:
        device: a torch device name.
        root: of the file system (for tests).
    """
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0] / 1e9
    if device != "cpu":
        return None
    found = _table(root / "proc/meminfo")
    if "MemAvailable:" not in found:
        return None
    known = [1024 * (found["MemAvailable:"] + found.get("SwapFree:", 0))]
    for limit, used, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        groups = root / "sys/fs/cgroup"
        most, now = _number(groups / limit), _number(groups / used)
        if most is not None and now is not None:
            stat = _table((groups / limit).parent / "memory.stat")
            known.append(most - now + stat.get(cache, 0))
    return max(0, min(known)) / 1e9


def _table(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _number(path: Path) -> int | None:
    """The number that a file holds; None for none, or for "max"."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
