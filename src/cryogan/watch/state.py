"""How far a run is, in numbers and words: all that is shown of it but pictures."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryogan.report.formats import duration
from cryogan.run.checkpoint import RESULT
from cryogan.run.contents import (
    NOTHING,
    NOTHING_QUOTED,
    Record,
    RunContents,
    number,
    read_run_contents,
)
from cryogan.run.log import LOG
from cryogan.run.status import RunStatus, status_of
from cryogan.watch.curves import curves_of
from cryogan.watch.left_out import part


def names_of(folders: Sequence[Path]) -> list[str]:
    """Names of runs: of their folders, or the paths as they are given if some are called alike.

    Example:
        >>> names_of([Path("a/run"), Path("b/run")])
        ['a/run', 'b/run']
    """
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def run_state(folder: Path) -> dict[str, Any]:
    """The state of a run, whatever is missing or damaged in its folder.

    Returns:
        `name`, `objective`, `state` ("finished", "running" or "stopped"), `stage` in words,
        `fraction` done (or None), `elapsed_s`, `left` in words, `facts` (pairs of words), `verdict`
        (word and reason, or None), `warning`, `curves` (`curves_of`), `fsc` (`frequency_per_A`,
        and `curves`, name → FSC), `left_out` (sentences).
    """
    left_out: list[str] = []
    name = folder.resolve().name
    contents = part(lambda: read_run_contents(folder), left_out)
    status = None if contents is None else part(lambda: status_of(folder), left_out)
    if contents is None or status is None:
        return {
            "name": name,
            "objective": "",
            "state": "unreadable",
            "stage": "its folder cannot be read",
            "fraction": None,
            "elapsed_s": 0.0,
            "left": "",
            "facts": [],
            "verdict": None,
            "warning": "",
            "curves": [],
            "fsc": None,
            "left_out": left_out,
        }
    logs = part(lambda: contents.logs, left_out) or {}
    part(lambda: contents.summary, left_out)
    verdict = part(lambda: contents.verdict, left_out)
    state = "finished" if status.finished else "stopped" if status.holder is None else "running"
    return {
        "name": name,
        "objective": status.objective,
        "state": state,
        "stage": part(lambda: _stage(contents, status, logs), left_out) or "",
        "fraction": 1.0 if status.finished else _finite(status.fraction),
        "elapsed_s": max((_finite(number(r, "wall_s")) or 0.0 for r in _last(logs)), default=0.0),
        "left": part(lambda: time_left(contents, logs), left_out) or ""
        if state == "running"
        else "",
        "facts": part(lambda: _facts(contents, status, logs), left_out) or [],
        "verdict": None if verdict is None or not status.has_results else list(verdict),
        "warning": _warning(contents, status, state),
        "curves": part(lambda: curves_of(logs), left_out) or [],
        "fsc": part(lambda: _fsc(contents), left_out),
        "left_out": left_out,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _last(logs: dict[str, list[Record]]) -> list[Record]:
    return [records[-1] for records in logs.values() if records]


def _stage(contents: RunContents, status: RunStatus, logs: dict[str, list[Record]]) -> str:
    """What is being done, in words."""
    if status.finished:
        return "finished"
    if status.remaining:
        return status.remaining
    tasks = [folder for folder in contents.folders if (folder / LOG).is_file()]
    if tasks and all((folder / RESULT).is_file() for folder in tasks):
        return "comparing and validating the half-maps"
    newest = max(_last(logs), key=lambda record: number(record, "wall_s") or 0.0, default=None)
    if newest is None:
        return "reading and measuring images"
    return stage_of(newest)


def stage_of(record: Record) -> str:
    """The stage that a record of a log belongs to.

    Example:
        >>> stage_of({"phase": "refinement", "iteration": 3, "rings": 12})
        'refinement, iteration 3, 12 rings'
        >>> stage_of({"stage": 1, "step": 300, "box_size": 64})
        'stage 2, step 300, 64 px'
    """
    parts = [str(record["phase"])] if "phase" in record else []
    stage, step, box = (number(record, name) for name in ("stage", "step", "box_size"))
    if stage is not None:
        parts.append(f"stage {stage + 1:.0f}")
    iteration, rings = number(record, "iteration"), number(record, "rings")
    if iteration is not None:
        parts.append(f"iteration {iteration:.0f}")
    if step is not None:
        parts.append(f"step {step:.0f}")
    if rings is not None:
        parts.append(f"{rings:.0f} rings")
    elif box is not None:
        parts.append(f"{box:.0f} px")
    return ", ".join(parts) or f"{number(record, 'images_seen') or 0.0:,.0f} images"


def time_left(contents: RunContents, logs: dict[str, list[Record]]) -> str:
    """How long a run takes still, in words, from the pace of the later half of what is done."""
    known = [left for records in logs.values() if (left := _left_s(records)) is not None]
    if known:
        return f"about {duration(max(known))}"
    for records in logs.values():
        iterations = [record for record in records if number(record, "iteration") is not None]
        most = number(contents.settings, "iterations")
        if len(iterations) < 2 or most is None:
            continue
        took = (number(iterations[-1], "wall_s") or 0.0) - (number(iterations[-2], "wall_s") or 0.0)
        rest = max(0.0, most - (number(iterations[-1], "iteration") or 0.0))
        return f"at most {duration(max(took, 0.0) * rest)}, less if the resolution stops improving"
    return "not known yet"


def _left_s(records: list[Record]) -> float | None:
    points = [
        (wall_s, done)
        for record in records
        if (wall_s := number(record, "wall_s")) is not None
        and (done := number(record, "fraction")) is not None
    ]
    if not points:
        return None
    wall_s, done = points[-1]
    since_s, since = next(((w, d) for w, d in points if d >= 0.5 * done), (0.0, 0.0))
    if done <= since:  # one record so far
        since_s, since = 0.0, 0.0
    if done <= since or not math.isfinite(wall_s):
        return None
    return max(0.0, (1.0 - done) * (wall_s - since_s) / (done - since))


def _facts(
    contents: RunContents, status: RunStatus, logs: dict[str, list[Record]]
) -> list[tuple[str, str]]:
    facts = []
    particles = contents.particles
    count, box, size_A = (number(particles, n) for n in ("count", "box_size", "pixel_size_A"))
    if count is not None:
        shape = f", {box:.0f} px of {size_A:.4g} Å" if box and size_A else ""
        facts.append(("particles", f"{count:,.0f}{shape}"))
    facts.append(("images seen", f"{status.images_seen:,}"))
    if status.resolution_A is not None and status.verdict != NOTHING:
        name = "resolution to quote" if status.has_results else "half-map FSC 0.143 so far"
        facts.append((name, f"{status.resolution_A:.2f} Å"))
    if contents.symmetry_found is not None:
        facts.append(("symmetry found", contents.symmetry_found[0]))
    retries = max((int(number(record, "retries") or 0) for record in _last(logs)), default=0)
    if retries:
        facts.append(("went on from a checkpoint with lower learning rates", f"{retries} times"))
    return facts


def _warning(contents: RunContents, status: RunStatus, state: str) -> str:
    if state == "stopped":
        return "No process works in this folder; the same command again resumes the run."
    if status.has_results and status.verdict == NOTHING:
        return NOTHING_QUOTED
    return "; ".join(contents.misfits) if status.has_results else ""


def _fsc(contents: RunContents) -> dict[str, Any] | None:
    """Half-map curves, without shell 0."""
    table = contents.fsc
    if table is None:
        return None
    return {
        "frequency_per_A": table.spatial_frequency_per_A[1:].round(6).tolist(),
        "curves": {
            name: values[1:].round(4).tolist()
            for name, values in table.curves.items()
            if name in ("half_map", "half_map_masked")
        },
    }
