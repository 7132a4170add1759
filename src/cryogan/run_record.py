"""What a finished run tells about its particles, for the commands that go on from it."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cryogan.errors import InputError


@dataclass(frozen=True)
class RunRecord:
    """What `config.json` of a run folder tells about its particles.

    Attributes:
        star: the particle file.
        count: number of particles used.
        box_size: of their images.
        noise_patches: stack of background patches, or None.
        rows: digest of the rows that --ind chose (`rows_digest`); None for all.
        seed: of the split into halves.
        config: settings, as written.
        refined: folder of the run that this one has refined, or None.
    """

    star: Path
    count: int
    box_size: int
    noise_patches: Path | None
    rows: str | None
    seed: int
    config: dict[str, Any]
    refined: Path | None


def rows_digest(rows: Tensor | None) -> str | None:
    """A short name for a choice of rows; None for all."""
    if rows is None:
        return None
    return hashlib.sha256(rows.numpy().astype("<i8").tobytes()).hexdigest()[:16]


def read_run(folder: Path) -> RunRecord:
    """The record of a finished run.

    Raises:
        InputError: the folder holds no run, or one that is not finished.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(
            f"{folder} is no run folder: it has no config.json; give the run's folder."
        )
    for name in ("half1.mrc", "half2.mrc", "map.mrc"):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder} has no {name}: its run is not finished; finish it first by running its "
                "command again."
            )
    try:
        about = json.loads(path.read_text())
        particles = about["particles"]
        patches, refined = (
            None if particles.get(name) is None else Path(particles[name])
            for name in ("noise_patches", "from")
        )
        return RunRecord(
            Path(particles["star"]),
            int(particles["count"]),
            int(particles["box_size"]),
            patches,
            particles.get("rows"),
            int(about["seed"]),
            about["config"],
            refined,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be understood ({error}); run that command again."
        ) from error
