"""The log of a run, `stats.jsonl`: one JSON object a line."""

import json
from pathlib import Path
from typing import Any

from cryogan.files import write_text

LOG = "stats.jsonl"


class LogFollower:
    """Reads what has been added to a log since it was last asked.

    Args:
        folder: of the log.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOG
        self._read = len(self._lines())

    def new(self) -> list[dict[str, Any]]:
        """The records of whole lines that are new; a resumed run takes lines back first."""
        lines = self._lines()
        new, self._read = lines[min(self._read, len(lines)) :], len(lines)
        return [record for record in map(record_of, new) if record is not None]

    def _lines(self) -> list[str]:
        if not self._path.is_file():
            return []
        text = self._path.read_text(errors="replace")
        return [line for line in text.splitlines(keepends=True) if line[-1] == "\n"]


def drop_after(log_path: Path, images_seen: int) -> None:
    """Drop log records that lie after the checkpoint: they are about to be made again."""
    if not log_path.is_file():
        return
    kept = []
    for line in log_path.read_text(errors="replace").splitlines():
        record = record_of(line)
        if record is not None and record["images_seen"] <= images_seen:
            kept.append(line + "\n")
    write_text(log_path, "".join(kept))


def record_of(line: str) -> dict[str, Any] | None:
    """The record of a line; None for one that no run has written, or not to its end."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    ours = isinstance(record, dict) and isinstance(record.get("images_seen"), int | float)
    return record if ours else None
