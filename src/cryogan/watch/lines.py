"""The state of runs in lines of text, for terminals and logs of clusters."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryogan.report.formats import duration
from cryogan.watch.state import names_of, run_state


def line_of(state: dict[str, Any], stamp: str) -> str:
    """A run's state in one line.

    Example:
        >>> line_of({"name": "run", "state": "running", "stage": "stage 1", "fraction": 0.5,
        ...          "elapsed_s": 60.0, "left": "about 60 s", "facts": [], "verdict": None}, "now")
        'now run: stage 1, 50 %, 1 min 00 s elapsed, about 60 s left'
    """
    parts = [state["stage"]]
    if state["state"] == "finished":
        if state["verdict"] is not None:
            parts.append(f"verdict: {state['verdict'][0]}")
    else:
        if state["fraction"] is not None:
            parts.append(f"{100 * state['fraction']:.0f} %")
        parts.append(f"{duration(state['elapsed_s'])} elapsed")
        if state["left"] and state["left"] != "not known yet":
            left = state["left"]
            parts.append(f"{left} left" if left.startswith("about") else left)
        if state["state"] == "stopped":
            parts.append("no process works in its folder")
    parts += [f"{what} {value}" for what, value in state["facts"] if "FSC" in what]
    return f"{stamp} {state['name']}: {', '.join(parts)}"


def follow(
    folders: Sequence[Path],
    show: Callable[[str], None],
    *,
    every_s: float = 60.0,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Show a line for every run that goes on, now and again, until none does.

    Args:
        folders: of the runs.
        show: prints a line.
        every_s: seconds between lines.
        sleep: waits so many seconds.

    Returns:
        The folders of runs that are not finished and in which no process works any more.
    """
    stopped = []
    waiting = list(zip(folders, names_of(folders), strict=True))
    while True:
        going_on = []
        for folder, name in waiting:
            state = _state(folder) | {"name": name}
            show(line_of(state, time.strftime("%Y-%m-%d %H:%M:%S")))
            if state["state"] == "stopped":
                stopped.append(folder)
            elif state["state"] != "finished":
                going_on.append((folder, name))
        waiting = going_on
        if not waiting:
            return stopped
        sleep(every_s)


def _state(folder: Path) -> dict[str, Any]:
    """The state of a run; one that ended while it was looked at is finished, not stopped."""
    state = run_state(folder)
    return run_state(folder) if state["state"] == "stopped" else state
