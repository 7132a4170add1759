"""The row of a finished cell: its maps against the truth, which only this reads."""

import json
from pathlib import Path
from typing import Any

import torch

import cryogan as cg
from cryogan.benchmark.cost import Cost
from cryogan.benchmark.experiments import TRUE_POSES
from cryogan.benchmark.order import COSTS, Order
from cryogan.benchmark.rows import read_rows
from cryogan.conformations.folder import (
    conformations_folder,
    read_conformations,
    read_true_conformations,
)
from cryogan.evaluation.comparison import half_map_comparison
from cryogan.evaluation.fsc import resolution_A, write_fsc_csv
from cryogan.evaluation.series_comparison import SeriesComparison, compare_series
from cryogan.evaluation.series_plots import plot_series
from cryogan.files import write_text
from cryogan.randomness import generator_for
from cryogan.run.checkpoint import save_arrays
from cryogan.run.contents import RunContents, read_run_contents

FSC, ALIGNED, SEEN = "fsc.csv", "aligned.mrc", "seen_along_y.npz"
HALF_MAP, HALF_MAP_PUBLISHED = "half_map_0.143_A", "half_map_0.143_published_way_A"
TRUTH_HALF, TRUTH = "truth_0.5_A", "truth_0.143_A"


def row_of(order: Order) -> dict[str, Any]:
    """The row of a cell; its FSC curves and its map in the frame of the truth go to files.

    Raises:
        InputError: what the run has left cannot be compared.
    """
    cell = order.cell
    cost = cost_of(order.folder)
    if order.needs is not None:  # it begins with the run of another cell
        cost = cost_of(order.needs) + cost
    count, box_size, pixel_size_A = _size_of(order)
    row: dict[str, Any] = {
        "set": cell.set_name,
        "symmetry": cell.symmetry,
        "method": cell.method,
        "assumed_views": "" if cell.method == TRUE_POSES else cell.assumed,
        "seed": cell.seed,
        "images": count,
        "box_size": box_size,
        "pixel_size_A": round(pixel_size_A, 4),
    }
    row |= _of_series(order) if order.experiment.has_conformations else _of_map(order)
    return row | {
        "cpu_s": round(cost.cpu_s, 1),
        "wall_s": round(cost.wall_s, 1),
        "memory_GB": round(cost.memory_GB, 2),
    }


def cost_of(folder: Path) -> Cost:
    """Of all attempts at a cell."""
    total = Cost()
    for row in read_rows(folder / COSTS):
        total += Cost(*(float(row[name]) for name in ("cpu_s", "wall_s", "memory_GB")))
    return total


def _size_of(order: Order) -> tuple[int, int, float]:
    particles = cg.read_particles(order.star, sign="bright")
    return len(particles), particles.box_size, particles.pixel_size_A


def _of_map(order: Order) -> dict[str, Any]:
    """Half-map resolutions, truth FSC, correlation and verdict."""
    found, half1, half2 = (cg.read_map(order.run / f"{n}.mrc") for n in ("map", "half1", "half2"))
    comparison = cg.evaluate(found, truth=order.set_folder / "truth" / "map.mrc")
    contents = None if order.cell.method == TRUE_POSES else read_run_contents(order.run)
    pixel_size_A = found.pixel_size_A
    if contents is None:
        generator = generator_for(order.cell.seed, "phases")
        halves = half_map_comparison(half1.volume, half2.volume, pixel_size_A, generator=generator)
        honest, half2_volume = halves.fsc, halves.aligned_half2
    else:
        assert contents.fsc is not None
        honest = torch.from_numpy(contents.fsc.curves["half_map"]).float()
        half2_volume = half2.volume
    plain = cg.fourier_shell_correlation(half1.volume, half2_volume)
    structure = contents is None or not contents.without_structure
    curves = {"half_map": honest, "half_map_published_way": plain, "truth": comparison.fsc}
    write_fsc_csv(order.folder / FSC, pixel_size_A, curves)
    cg.write_map(order.folder / ALIGNED, comparison.aligned, pixel_size_A)
    return {
        HALF_MAP: _rounded(resolution_A(honest, 0.143, pixel_size_A)) if structure else "",
        HALF_MAP_PUBLISHED: _rounded(resolution_A(plain, 0.143, pixel_size_A)),
        TRUTH_HALF: _rounded(comparison.resolution_A(0.5)),
        TRUTH: _rounded(comparison.resolution_A(0.143)),
        "correlation": round(comparison.correlation, 3),
        "verdict": _verdict(contents),
    }


def _of_series(order: Order) -> dict[str, Any]:
    """How well states and motion are recovered, and how much the half-sets agree."""
    truth = read_true_conformations(order.set_folder / "truth")
    found = compare_series(read_conformations(conformations_folder(order.run)), truth)
    contents = None if order.cell.method == TRUE_POSES else read_run_contents(order.run)
    agreement = {} if contents is None else contents.summary.get("conformations", {})
    between = agreement.get("halves_motion_fsc_0.5_A")
    plot_series(order.folder / "series.png", found)
    best = found.generated.volumes[found.best_volume]
    seen = {"truth": found.truth.volumes.sum(-2), "found": best.sum(-2)}
    save_arrays(order.folder / SEEN, **{name: views.numpy() for name, views in seen.items()})
    return {
        "states_0.5_A": _rounded(found.mean_resolution_A()),
        "worst_state_0.5_A": _rounded(float(found.state_resolution_A().max())),
        "motion_0.5_A": _rounded(found.motion_resolution_A),
        "halves_motion_0.5_A": "" if between is None else _rounded(between),
        "coverage": round(found.coverage, 2),
        "rank_correlation": _rank_correlation(found),
        "population_error_points": round(float(found.population_error.abs().max()), 1),
        "amplitude": round(found.diversity.amplitude, 3),
        "true_amplitude": round(found.true_diversity.amplitude, 3),
        "verdict": _verdict(contents),
    }


def _rank_correlation(found: SeriesComparison) -> str:
    """Of each recovered axis with each true one."""
    values = [value for row in found.monotonicity for value in row]
    return " ".join("–" if value is None else f"{value:.3f}" for value in values)


def _verdict(contents: RunContents | None) -> str:
    return "" if contents is None or contents.verdict is None else contents.verdict[0]


def _rounded(value_A: float) -> float:
    return round(value_A, 2)


def write_row(order: Order, path: Path) -> None:
    """Evaluate a cell and keep its row."""
    write_text(path, json.dumps(row_of(order), indent=2) + "\n")
