"""What the server answers: the page's files, states, maps, pictures and columns of particles.

A run is named by its number, never by a path, so that no request can name a file.
"""

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from cryogan.json_text import to_json
from cryogan.report.figures import COLOURS
from cryogan.watch.particles import Scatter
from cryogan.watch.pictures import pictures_version, run_pictures, run_voxels
from cryogan.watch.state import names_of, run_state

_STATE_S = 1.0  # that a state is good for
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
_JSON = "application/json"
_PAGE = "page.html"
_FILES = {
    _PAGE: "cryogan.watch/page",
    "watch.css": "cryogan.watch/page",
    "chart.js": "cryogan.watch/page",
    "scatter.js": "cryogan.report/templates",
    "watch.js": "cryogan.watch/page",
    "style.css": "cryogan.report/templates",
    "renderer.js": "cryogan.report/templates",
}
_OF_RUN = re.compile(r"runs/(\d{1,3})/(map|pictures)\.json")
_COLUMN = re.compile(r"particles/(\d{1,3})")


@dataclass(frozen=True)
class Answer:
    """What is sent: content and its type."""

    content: bytes
    kind: str


@dataclass
class _Kept:
    """The last answer, and what it is good for."""

    version: str = ""
    answer: Answer | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, version: str, make: Callable[[], Answer]) -> Answer:
        with self.lock:
            if self.answer is None or self.version != version:
                self.answer, self.version = make(), version
            return self.answer


class Site:
    """Everything that can be asked for.

    Args:
        folders: of the runs.
        scatter: columns of particles, or None.
    """

    def __init__(self, folders: Sequence[Path], scatter: Scatter | None = None) -> None:
        self._folders = list(folders)
        self._scatter = scatter
        self._files = {
            name: (files(place.split("/")[0]) / place.split("/")[1] / name).read_bytes()
            for name, place in _FILES.items()
        }
        self._state = _Kept()
        self._kept: dict[tuple[int, str], _Kept] = {
            (number, what): _Kept()
            for number in range(len(self._folders))
            for what in ("map", "pictures")
        }

    def answer(self, path: str) -> Answer | None:
        """What there is at a path below the token; None if there is nothing."""
        name = path or _PAGE
        if name in self._files:
            return Answer(self._files[name], _TYPES[Path(name).suffix])
        if path == "state.json":
            return self._state.get(str(int(time.monotonic() / _STATE_S)), self._states)
        if path == "particles.json" and self._scatter is not None:
            return _json(self._scatter.about())
        of_run, column = _OF_RUN.fullmatch(path), _COLUMN.fullmatch(path)
        if of_run is not None:
            number, what = int(of_run[1]), of_run[2]
            if number < len(self._folders):
                return self._of_run(number, what)
        if column is not None and self._scatter is not None:
            values = self._scatter.column(int(column[1]))
            return None if values is None else Answer(values, "application/octet-stream")
        return None

    def _states(self) -> Answer:
        runs = [
            run_state(folder) | {"name": name, "pictures": pictures_version(folder)}
            for folder, name in zip(self._folders, names_of(self._folders), strict=True)
        ]
        return _json({"runs": runs, "colours": COLOURS, "has_particles": self._scatter is not None})

    def _of_run(self, number: int, what: str) -> Answer:
        folder = self._folders[number]
        make = {"map": run_voxels, "pictures": run_pictures}[what]
        version = pictures_version(folder)
        return self._kept[number, what].get(version, lambda: _json(make(folder)))


def _json(value: Any) -> Answer:
    return Answer(to_json(value).encode(), _JSON)
