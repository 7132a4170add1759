"""The run of a cell, in its own process: half-maps and map, through the public interface."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

import cryogan as cg
from cryogan.benchmark.experiments import COMBINED, ESTIMATED, LIKELIHOOD, TRUE_POSES, VIEW_SIGMA
from cryogan.benchmark.order import RUN, Order, progress_line
from cryogan.benchmark.true_poses import (
    map_of_true_poses,
    posed_particles,
    symmetry_about_its_axes,
)
from cryogan.conformations.folder import read_true_conformations, write_conformations
from cryogan.conformations.series import Series
from cryogan.data.halves import split_halves
from cryogan.io.star import read_star
from cryogan.objectives.adversarial.config import Stage

_SAY_EVERY_S = 10.0
Show = Callable[[list[list[dict[str, Any]]]], None]


def run_cell(order: Order, parent: int) -> bool:
    """Run a cell, or go on with it; False if it was interrupted.

    Args:
        order: which.
        parent: id of the process of the benchmark, without which a run stops.

    Raises:
        InputError: it cannot be run.
    """
    if order.cell.method == TRUE_POSES:
        _bound(order)
        return True
    if order.cell.method == COMBINED:
        assert order.needs is not None
        settings = settings_of(order, "likelihood")
        run = cg.refine(
            order.needs / RUN, settings=settings, folder=order.run, device="cpu", show=shown(parent)
        )
        return run.finished
    particles = cg.read_particles(order.star, sign="bright")
    run = cg.reconstruct(
        particles, **arguments_of(order), folder=order.run, device="cpu", show=shown(parent)
    )
    return run.finished


def arguments_of(order: Order) -> dict[str, Any]:
    """Keyword arguments of `cg.reconstruct` for a cell: what the reconstruction is told.

    The likelihood estimates viewing directions, measures shifts unless there are none, and measures
    the noise on the particles.
    """
    cell, set_ = order.cell, order.set_
    objective = "likelihood" if cell.method == LIKELIHOOD else "adversarial"
    settings = settings_of(order, objective)
    found: dict[str, Any] = {
        "objective": objective,
        "symmetry": cell.symmetry,
        "seed": cell.seed,
        **set_.latent,
    }
    if objective == "adversarial":
        found["max_shift"] = f"{set_.shift_percent:g}%"
        if set_.has_background:
            found["noise"] = order.set_folder / "background.mrcs"
        if cell.assumed == ESTIMATED:
            assert order.needs is not None
            settings = {**settings, "view_density": str(order.needs / RUN)}
        else:
            found["view_sigma"] = VIEW_SIGMA[cell.assumed]
    elif set_.shift_percent == 0.0:
        found["max_shift"] = "0%"
    return found | {"settings": settings}


def settings_of(order: Order, objective: str) -> dict[str, Any]:
    """Settings of an objective that differ from its defaults, as Python has them."""
    found = {name: _plain(value) for name, value in order.settings.get(objective, {}).items()}
    if "stages" in found:
        found["stages"] = tuple(Stage(**stage) for stage in found["stages"])
    return found


def _plain(value: Any) -> Any:
    """Lists as tuples."""
    if isinstance(value, list):
        return tuple(_plain(item) for item in value)
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return value


def _bound(order: Order) -> None:
    """Maps of true poses: of the half-sets that a run of this seed has, or of every true state."""
    particles, poses = posed_particles(order.star)
    truth = order.set_folder / "truth"
    if order.experiment.has_conformations:
        write_conformations(order.run / "conformations", _true_states(order), path=True)
        return
    true_map = cg.read_map(truth / "map.mrc")
    operators = symmetry_about_its_axes(true_map, order.cell.symmetry)
    order.run.mkdir(exist_ok=True)
    halves = split_halves(len(particles), order.cell.seed)
    every = torch.arange(len(particles))
    for name, rows in zip(("half1", "half2", "map"), (*halves, every), strict=True):
        found = map_of_true_poses(particles.subset(rows), poses[rows], operators)
        cg.write_map(order.run / f"{name}.mrc", found.volume, found.pixel_size_A)


def _true_states(order: Order) -> Series:
    """A map of each true state that occurs, from the images that show it."""
    (order.run / "conformations").mkdir(parents=True, exist_ok=True)
    particles, poses = posed_particles(order.star)
    truth = read_true_conformations(order.set_folder / "truth")
    tables = read_star(order.set_folder / "truth" / "poses.star")
    table = next(each for each in tables if "rlnClassNumber" in each)
    state = torch.tensor([int(word) - 1 for word in table.columns["rlnClassNumber"]])
    operators = torch.eye(3)[None]
    occurs = [number for number in range(len(truth)) if bool((state == number).any())]
    volumes = []
    for number in occurs:
        rows = (state == number).nonzero()[:, 0]
        volumes.append(map_of_true_poses(particles.subset(rows), poses[rows], operators).volume)
    return Series(
        [f"vol_{number:03d}.mrc" for number in occurs],
        torch.stack(volumes),
        particles.pixel_size_A,
        truth.weight[occurs] / truth.weight[occurs].sum(),
        truth.coordinate[occurs],
    )


def shown(parent: int) -> Show:
    """Print the fraction done every few seconds; stop where the benchmark itself has gone."""
    said = 0.0
    latest: dict[int, Mapping[str, Any]] = {}

    def show(records: list[list[dict[str, Any]]]) -> None:
        nonlocal said
        if os.getppid() != parent:
            raise KeyboardInterrupt
        latest.update({job: new[-1] for job, new in enumerate(records) if new})
        if latest and time.monotonic() - said > _SAY_EVERY_S:
            said = time.monotonic()
            fractions = [record.get("fraction") or 0.0 for record in latest.values()]
            print(progress_line(sum(fractions) / len(records), latest), flush=True)

    return show
