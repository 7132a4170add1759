"""The run folder: which run it holds, and what a known structure adds to it."""

import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import cryogan
from cryogan.errors import InputError
from cryogan.evaluation.alignment import apply_alignment
from cryogan.evaluation.comparison import Comparison
from cryogan.evaluation.fsc import write_fsc_csv
from cryogan.files import left_overs, write_text
from cryogan.io.mrc import write_map
from cryogan.objectives.base import Objective
from cryogan.registry import OBJECTIVES
from cryogan.run.checkpoint import FORMAT
from cryogan.run.contents import read_run_contents, require_finished
from cryogan.run.lock import LOCKS

CONFIG = "config.json"


def make_run_folder(folder: Path) -> None:
    """Make the folder of a run, if it is not there; one that holds something else is refused.

    What a killed run has left before anything else is nothing else.

    Raises:
        InputError: the folder cannot be made, or holds something else.
    """
    if folder.is_dir() and not (folder / CONFIG).is_file():
        ours = {*left_overs(folder), *(folder / name for name in LOCKS)}
        if any(path not in ours for path in folder.iterdir()):
            raise InputError(
                f"{folder} is not empty and holds no cryogan run; give another output folder."
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"Cannot make the output folder {folder}: {error.strerror}; choose a place that you "
            "may write to."
        ) from error


def open_run_folder(
    folder: Path,
    particles: Mapping[str, Any],
    objective: Objective,
    seed: int,
    device: str,
    sources: Mapping[str, str],
    require_same_images: Callable[[], None] = lambda: None,
) -> bool:
    """Begin a run in its folder, or check that it holds this very run, which is then resumed.

    Args:
        folder: of the run.
        particles: what identifies the particles, for `config.json`.
        objective: with its settings.
        seed: of the run.
        device: a torch device name.
        sources: where each assumption was taken from.
        require_same_images: refuses images that have changed since the run began. Called before
            settings are compared, some of which are measured on them.

    Returns:
        Whether the run was there already.

    Raises:
        InputError: the folder cannot be made or written, holds something else, or a `config.json`
            that is damaged or of another version.
    """
    identity = {
        "format": FORMAT,
        "objective": OBJECTIVES.name_of(type(objective)),
        "particles": dict(particles),
        "config": asdict(objective.config),
        "seed": seed,
    }
    identity = json.loads(json.dumps(identity))
    make_run_folder(folder)
    path = folder / CONFIG
    if path.is_file():
        found = _read_config(path)
        for key, value in identity.items():
            if key == "config":
                require_same_images()
            if _told_apart(found.get(key)) != _told_apart(value):
                what = _difference(key, found.get(key), value)
                raise InputError(
                    f"{folder} already holds another run ({what} differs); give another output "
                    "folder, or the settings in its config.json to resume it."
                )
        return True
    about = {
        "cryogan_version": cryogan.__version__,
        "torch_version": torch.__version__,
        "python_version": platform.python_version(),
        "device": _device_name(device),
        "command": command_line(sys.argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_text(path, json.dumps(about | identity | {"sources": dict(sources)}, indent=2))
    return False


def _read_config(path: Path) -> dict[str, Any]:
    """`config.json` of a run of this version."""
    advice = "give another output folder, or delete this one to begin anew"
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
    except ValueError as error:
        raise InputError(
            f"{path} is damaged ({error}), so that nobody can tell which run this is; {advice}."
        ) from error
    found = {"format": 1} | found  # the first had no number
    if found["format"] != FORMAT:
        raise InputError(
            f"{path.parent} holds a run of another version of cryogan "
            f"({found.get('cryogan_version', 'unknown')}); {advice}."
        )
    return found


def command_line(arguments: Sequence[str]) -> str:
    """A command as it can be pasted into a shell: quoted, the program by its name.

    Example:
        >>> command_line(["/usr/bin/cryogan", "check", "my particles.star"])
        "cryogan check 'my particles.star'"
    """
    program = Path(arguments[0])
    if program.name in ("cryogan", "__main__.py"):
        return shlex.join(["cryogan", *arguments[1:]])
    return shlex.join(["python", *arguments] if program.suffix == ".py" else arguments)


def _told_apart(value: Any) -> Any:
    """What tells runs apart: all but the summary, whose words may change."""
    if isinstance(value, dict):
        return {name: item for name, item in value.items() if name != "summary"}
    return value


def _difference(key: str, found: Any, wanted: Any) -> str:
    found, wanted = _told_apart(found), _told_apart(wanted)
    if isinstance(found, dict) and isinstance(wanted, dict):
        name = next(name for name in wanted | found if found.get(name) != wanted.get(name))
        return _difference(name, found.get(name), wanted.get(name))
    if key == "content":
        return "what the particle file or its stacks hold"
    if key == "views":
        return "what the file of viewing directions holds"
    return f"the {key}" if key in ("seed", "objective") else key


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()}, {os.cpu_count()} cores)"


@dataclass(frozen=True)
class RunRecord:
    """What `config.json` of a finished run says.

    Attributes:
        folder: of the run.
        star: the particle file.
        count: number of particles used.
        box_size: of their images, as used.
        reader: name of the reader of that file; None for that of its suffix.
        reading: further keyword arguments of `read_particles` that the run was made with.
        noise: stack of background patches, or name of a noise model; None if the spectrum was
            measured on the particles.
        halves: which half-sets of theirs are kept (`data.halves.halves_digest`); None if drawn.
        rows: which particles (`data.halves.particles_digest`); None for all of a file.
        seed: of the split into halves.
        objective: with its settings, and the symmetry that it has found if it was to find one.
        refined: folder of the run that this one has refined, or None.
    """

    folder: Path
    star: Path | None
    reader: str | None
    reading: Mapping[str, Any]
    count: int
    box_size: int
    noise: str | None
    rows: str | None
    halves: str | None
    seed: int
    objective: Objective
    refined: Path | None


def read_run(folder: Path) -> RunRecord:
    """The record of a finished run.

    Raises:
        InputError: the folder holds no run, or one that is not finished or of another version.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(
            f"{folder} is no run folder: it has no config.json; give the run's folder."
        )
    require_finished(folder, "half1.mrc", "half2.mrc", "map.mrc")
    try:
        about = json.loads(path.read_text())
        particles = about["particles"]
        star, refined = (
            None if particles.get(name) is None else Path(particles[name])
            for name in ("star", "from")
        )
        objective = OBJECTIVES[about["objective"]].read(about["config"])
        return RunRecord(
            folder,
            star,
            particles.get("reader"),
            dict(particles.get("reading", {})),
            int(particles["count"]),
            int(particles["box_size"]),
            particles.get("noise"),
            particles.get("rows"),
            particles.get("halves"),
            int(about["seed"]),
            _with_found_symmetry(objective, folder),
            refined,
        )
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} cannot be understood ({error}); run that command again."
        ) from error


def _with_found_symmetry(objective: Objective, folder: Path) -> Objective:
    """With the symmetry that the run has found, if it was to find one."""
    config = objective.config
    if not config.assumptions.finds_symmetry:
        return objective
    require_finished(folder, "summary.json")
    found = read_run_contents(folder).symmetry_found
    assumptions = config.assumptions.imposing("C1" if found is None else found[0])
    make: Any = type(objective)
    made: Objective = make(replace(config, assumptions=assumptions))
    return made


def add_truth(folder: Path, comparison: Comparison) -> None:
    """Complete a run folder with a comparison of its `map.mrc` with a known structure.

    Adds columns to `fsc.csv`, resolutions to `summary.json`, and `truth_aligned.mrc`, the known
    structure in the frame of the map.
    """
    pixel_size_A = comparison.pixel_size_A
    truth = apply_alignment(comparison.truth, comparison.alignment.inverse(), pixel_size_A)
    write_map(folder / "truth_aligned.mrc", truth, pixel_size_A)
    table = read_run_contents(folder).fsc
    curves = (
        {} if table is None else {n: torch.from_numpy(c).float() for n, c in table.curves.items()}
    )
    curves |= {"truth": comparison.fsc, "truth_masked": comparison.fsc_masked}
    write_fsc_csv(folder / "fsc.csv", pixel_size_A, curves)
    summary = json.loads((folder / "summary.json").read_text())
    for threshold in (0.5, 0.143):
        for suffix, masked in (("", False), ("_masked", True)):
            name = f"truth_{threshold}{suffix}"
            summary.setdefault("resolution_A", {})[name] = comparison.resolution_A(
                threshold, masked=masked
            )
    write_text(folder / "summary.json", json.dumps(summary, indent=2))
