"""Processes of a command, by their group (Linux): what they have used, and what is left of them."""

import os
import random
import signal
from pathlib import Path


def members(group: int) -> dict[int, tuple[int, float]]:
    """Process id → (parent's id, CPU seconds) of those in a group that have not ended."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(words[2]) == group and words[0] not in "ZX":
            ticks = int(words[11]) + int(words[12])
            found[int(path.parent.name)] = int(words[1]), ticks / os.sysconf("SC_CLK_TCK")
    return found


def workers(group: int) -> list[int]:
    """The worker processes of a command that leads a group, oldest first."""
    children = [pid for pid, (parent, _) in members(group).items() if parent == group]
    return sorted(pid for pid in children if not _is_tracker(pid))


def _is_tracker(pid: int) -> bool:
    """Whether a process is Python's resource tracker."""
    try:
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True


def hit(group: int, target: str, number: int, rng: random.Random) -> str:
    """Send a signal to a command; what was hit: a command without workers is hit itself."""
    found = workers(group) if target == "worker" else []
    if target == "group":
        os.killpg(group, number)
    elif found:
        os.kill(rng.choice(found), number)
    else:
        os.kill(group, number)
    return "parent" if target == "worker" and not found else target


def end(group: int) -> None:
    """Kill what is left of a group."""
    for pid in members(group):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
