"""What a run folder holds, how far its run is, and what may be removed from it."""

import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryogan.errors import InputError
from cryogan.files import left_overs
from cryogan.run.checkpoint import CHECKPOINT, RESULT
from cryogan.run.contents import NOTHING, number, read_run_contents
from cryogan.run.lock import RUN_LOCK, WORKER_LOCK, holder_of
from cryogan.run.log import LOG


@dataclass(frozen=True)
class RunStatus:
    """A run folder.

    Attributes:
        folder: of the run.
        objective: its name.
        finished: whether the results are complete.
        remaining: what is still to be done, in words, if all other results are there; else empty.
        holder: the process that works in it, in words; None for none.
        started: date and time at which it began, as written then.
        images_seen: by its tasks so far.
        fraction: done, as far as the objective tells.
        resolution_A: half-map FSC 0.143 so far, of the likelihood; that to quote of a run that
            has results.
        verdict: of a run that has results.
        changed_s: seconds since a file of it was last written.
        sizes: kind of file → bytes.
        left_overs: temporary files of killed processes.
    """

    folder: Path
    objective: str
    finished: bool
    remaining: str
    holder: str | None
    started: str
    images_seen: int
    fraction: float | None
    resolution_A: float | None
    verdict: str | None
    changed_s: float
    sizes: Mapping[str, int]
    left_overs: tuple[Path, ...]

    @property
    def has_results(self) -> bool:
        """Whether maps, verdict and resolution are there."""
        return self.finished or self.remaining != ""

    @property
    def progress(self) -> str:
        """How far the run is, in words."""
        if self.finished:
            return "finished"
        if self.remaining:
            return f"not finished: results are written, {self.remaining} remains"
        done = "" if self.fraction is None else f", {100 * self.fraction:.0f} % done"
        return f"not finished: {self.images_seen:,} images{done}"


def status_of(folder: Path) -> RunStatus:
    """The status of a run folder, whatever is missing in it.

    Raises:
        InputError: it is no run folder, or its `config.json` cannot be understood.
    """
    contents = read_run_contents(folder)
    logs = list(contents.logs.values())
    last = [log[-1] for log in logs if log]
    fractions = [done for r in last if (done := number(r, "fraction")) is not None]
    tasks = contents.folders
    written = (folder / "summary.json").is_file()
    resolution, verdict, remaining = None, None, ""
    if written:
        try:
            resolution = contents.quoted_resolution_A
            verdict = None if contents.verdict is None else contents.verdict[0]
            remaining = contents.remaining
        except InputError:
            written = False  # it is written again
    if resolution is None and verdict != NOTHING:
        told = [number(record, "half_map_0.143_A") for log in logs for record in log]
        resolution = next((each for each in reversed(told) if each is not None), None)
    files = dict(_files(folder))
    written &= all((task / RESULT).is_file() for task in tasks if (task / LOG).is_file())
    holders = [holder_of(folder / RUN_LOCK), *(holder_of(task / WORKER_LOCK) for task in tasks)]
    return RunStatus(
        folder,
        contents.objective,
        written and not remaining,
        remaining if written else "",
        next((holder for holder in holders if holder is not None), None),
        str(contents.config.get("started", "unknown")),
        sum(int(number(record, "images_seen") or 0) for record in last),
        sum(fractions) / len(fractions) if fractions else None,
        resolution,
        verdict,
        time.time() - max(found.st_mtime for found in files.values()),
        _sizes(files),
        tuple(_left_overs(folder)),
    )


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """All files, but for those that go meanwhile."""
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            found = path.stat()
            if stat.S_ISREG(found.st_mode):
                yield path, found


def _sizes(files: Mapping[Path, os.stat_result]) -> dict[str, int]:
    found: dict[str, int] = {}
    for path, about in files.items():
        kind = "states to resume from" if path.name in (CHECKPOINT, RESULT) else "other files"
        kind = {".mrc": "maps", ".html": "reports"}.get(path.suffix, kind)
        found[kind] = found.get(kind, 0) + about.st_size
    return found


def _left_overs(folder: Path) -> list[Path]:
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    return [path for place in places for path in left_overs(place)]


def removable(status: RunStatus, everything: bool = False) -> list[Path]:
    """Files that a run can do without: left-overs of killed processes.

    Args:
        status: of its folder.
        everything: also the checkpoints of a finished run, without which `assign` writes no critic
            scores.
    """
    found = list(status.left_overs)
    if status.finished and everything:
        found += sorted(status.folder.glob(CHECKPOINT))
        found += [log.parent / CHECKPOINT for log in sorted(status.folder.glob(f"half?/{LOG}"))]
    return [path for path in found if path.is_file()]
