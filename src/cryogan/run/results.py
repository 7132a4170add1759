"""What a finished run writes: maps, half-maps, FSC, validation, conformations, summary."""

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor

from cryogan.conformations.folder import write_conformations
from cryogan.conformations.series import Series
from cryogan.evaluation.fsc import resolution_A, write_fsc_csv
from cryogan.evaluation.series_comparison import compare_series
from cryogan.files import write_text
from cryogan.io.mrc import write_map
from cryogan.objectives.base import Maps
from cryogan.objectives.likelihood.goodness_of_fit import GoodnessOfFit
from cryogan.run.checkpoint import RESULT, load_arrays
from cryogan.run.contents import CROSSINGS, NOTHING, REMAINING
from cryogan.run.goodness_of_fit import write_goodness_of_fit
from cryogan.run.map_labels import in_words
from cryogan.run.so_far import remove_maps_so_far
from cryogan.run.validation import write_validation
from cryogan.run.verdict import Verdict
from cryogan.run.view_script import write_view
from cryogan.run.views import write_view_density
from cryogan.run.worker import Job
from cryogan.simulation.prepared import one_thread

_ONE_THREAD_PX = 64


def write_results(
    folder: Path,
    jobs: Sequence[Job],
    maps: Maps,
    verdict: Verdict | None,
    fit: tuple[GoodnessOfFit, float] | None = None,
    held_out_A: float | None = None,
    phase: Callable[[str], None] = lambda what: None,
) -> None:
    """Write the results of finished jobs.

    What tells how well conformations of the half-sets agree comes last: it may take long. Until
    then `summary.json` says that it is to come (`RunContents.remaining`).

    Args:
        folder: of the run.
        jobs: of the run, for the time that they took.
        maps: that their results were joined to.
        verdict: on them; None if there are too few particles.
        fit: from `goodness_of_run`; None if there are too few particles or is no structure.
        held_out_A: from `held_out_resolution_A`; None if it is not known.
        phase: told what begins.

    Raises:
        InputError: a file cannot be written.
    """
    pixel_size_A, box_size = maps.pixel_size_A, maps.half1.shape[-1]
    for name, what, volume in (
        ("half1", "half-map 1", maps.half1),
        ("half2", "half-map 2", maps.half2),
        ("map", "map", maps.average),
    ):
        write_map(folder / f"{name}.mrc", volume, pixel_size_A, in_words(folder, what))
    curves = {"half_map": maps.fsc, "half_map_masked": maps.fsc_masked}
    write_fsc_csv(folder / "fsc.csv", pixel_size_A, curves)
    structure = verdict is None or verdict.word != NOTHING
    crossings = {
        "half_map_0.143": resolution_A(maps.fsc, 0.143, pixel_size_A, box_size),
        "half_map_0.143_masked": resolution_A(maps.fsc_masked, 0.143, pixel_size_A, box_size),
    }
    outcomes = [load_arrays(job.folder / RESULT) for job in jobs]
    summary: dict[str, Any] = {} if verdict is None else {"verdict": verdict.record()}
    summary |= {
        "resolution_A" if structure else CROSSINGS: crossings,
        "pixel_size_A": pixel_size_A,
        "nyquist_A": 2 * pixel_size_A,
        "timings_s": _timings(jobs, outcomes),
        "images_seen": sum(int(outcome["images_seen"]) for outcome in outcomes),
    }
    retries = sum(int(outcome.get("retries", 0)) for outcome in outcomes)
    if retries:
        summary["retries"] = retries
    if held_out_A is not None:
        summary["held_out_resolution_A"] = held_out_A
    if maps.symmetry is not None:
        summary["symmetry"] = dict(maps.symmetry)
    phase("validating the map")
    summary |= write_validation(folder, maps, structure=structure)
    if structure and "view_density" in outcomes[0]:
        summary["views"] = write_view_density(folder, outcomes[0]["view_density"])
    if fit is not None:
        summary["goodness_of_fit"] = write_goodness_of_fit(folder, *fit)
    write_view(folder, maps.average, maps.mask)
    if maps.conformations is not None and maps.halves is not None:
        is_path = jobs[0].objective.config.assumptions.latent_space.is_path
        write_conformations(folder / "conformations", maps.conformations, path=is_path)
        what = "comparing the conformations of the half-sets"
        write_text(folder / "summary.json", json.dumps(summary | {REMAINING: what}, indent=2))
        phase(what)
        summary["conformations"] = _agreement(*maps.halves)
    write_text(folder / "summary.json", json.dumps(summary, indent=2))
    remove_maps_so_far([job.folder for job in jobs])


def _timings(jobs: Sequence[Job], outcomes: Sequence[dict[str, Tensor]]) -> dict[str, float]:
    """Of the whole run, and of its jobs if there are several: they run side by side."""
    wall = [float(outcome["wall_s"]) for outcome in outcomes]
    cpu = [float(outcome["cpu_s"]) for outcome in outcomes]
    found = {"total_wall": max(wall), "total_cpu": sum(cpu)}
    if len(jobs) > 1:
        for job, wall_s, cpu_s in zip(jobs, wall, cpu, strict=True):
            found |= {f"{job.folder.name}_wall": wall_s, f"{job.folder.name}_cpu": cpu_s}
    return found


def _agreement(first: Series, second: Series) -> dict[str, float | None]:
    """How well the conformations of the half-sets agree, for `summary.json`."""
    threads = nullcontext() if first.volumes.shape[-1] > _ONE_THREAD_PX else one_thread()
    with threads:  # several hinder one another on small maps where other programs run
        found = compare_series(second, first)
    return {
        "halves_mean_fsc_0.5_A": found.mean_resolution_A(),
        "halves_motion_fsc_0.5_A": found.motion_resolution_A,
        "amplitude_half1": found.true_diversity.amplitude,
        "amplitude_half2": found.diversity.amplitude,
    }
