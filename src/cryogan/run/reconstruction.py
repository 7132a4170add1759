"""A run from its objective to its results, and what it leaves: a `Reconstruction`."""

import signal
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cryogan.conformations.series import Series
from cryogan.data.halves import halves_digest, halves_of, particles_digest
from cryogan.errors import InputError
from cryogan.files import remove_left_overs
from cryogan.io.mrc import Map
from cryogan.objectives.base import Objective
from cryogan.objectives.data_parallel import Launch, Placement
from cryogan.particles import Particles
from cryogan.physics.noise import NoiseModel
from cryogan.run.checkpoint import RESULT, load_arrays
from cryogan.run.contents import NOTHING, RunContents, read_run_contents
from cryogan.run.folder import make_run_folder, open_run_folder
from cryogan.run.goodness_of_fit import goodness_of_run
from cryogan.run.half_sets import content_digest, require_same_images, write_half_sets
from cryogan.run.halves import Show, make_jobs, run_jobs, run_placed
from cryogan.run.held_out_resolution import held_out_resolution_A
from cryogan.run.lock import RUN_LOCK, locked
from cryogan.run.memory import check_memory
from cryogan.run.results import write_results
from cryogan.run.signals import ending_at_once
from cryogan.run.starting_maps import image_model_of, power_splits_of, view_densities_of
from cryogan.run.status import status_of
from cryogan.run.verdict import verdict_of


@dataclass(frozen=True)
class Reconstruction:
    """A run, in its folder.

    Attributes:
        folder: the run folder.
        stopped_by: the signal that has interrupted the run, which the same call resumes; None if
            it is finished.
        sources: where each assumption was taken from.
    """

    folder: Path
    stopped_by: signal.Signals | None = None
    sources: Mapping[str, str] | None = None
    keep: Any = None  # what a folder of ours lives as long as

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end."""
        return self.stopped_by is None

    @cached_property
    def _contents(self) -> RunContents:
        return read_run_contents(self.folder)

    @property
    def objective(self) -> str:
        """Name of the objective."""
        return self._contents.objective

    @property
    def map(self) -> Map:
        """The map of all particles: `volume` (D, D, D), `pixel_size_A`."""
        return self._contents.maps["map"]

    @property
    def halves(self) -> tuple[Map, Map]:
        """Both half-maps, half 2 aligned to half 1."""
        return self._contents.maps["half1"], self._contents.maps["half2"]

    @property
    def fsc(self) -> dict[str, Tensor]:
        """FSC curves (D // 2 + 1,): `half_map`, `half_map_masked`, and of a known structure."""
        table = self._contents.fsc
        return {} if table is None else {n: torch.from_numpy(c) for n, c in table.curves.items()}

    @property
    def verdict(self) -> str | None:
        """ "structure found", "doubtful" or "no structure"; None of fewer than 200 particles."""
        found = self._contents.verdict
        return None if found is None else found[0]

    @property
    def symmetry(self) -> str:
        """The point group that was imposed: the one found, if it was to be found."""
        found = self.symmetry_found
        return str(self._contents.assumptions["symmetry"]) if found is None else found[0]

    @property
    def symmetry_found(self) -> tuple[str, str] | None:
        """Group and evidence in words, of a symmetry that was to be found; None if it was given."""
        return self._contents.symmetry_found

    @property
    def held_out_resolution_A(self) -> float | None:
        """To what images support the half-map that has no part in them; None if it is not known."""
        return self._contents.held_out_resolution_A

    @property
    def quoted_resolution_A(self) -> float | None:
        """The coarsest of those of half-maps and held-out images; None without structure."""
        return self._contents.quoted_resolution_A

    @property
    def resolution_note(self) -> str:
        """How far held-out images support the maps, where half-maps agree further; else empty."""
        return self._contents.resolution_note

    @property
    def misfits(self) -> list[str]:
        """What of the images the map and its assumptions do not explain, a phrase each."""
        return self._contents.misfits

    @property
    def resolution_A(self) -> dict[str, float]:
        """Resolutions in Å: `half_map_0.143`, `half_map_0.143_masked` ...

        None of half-maps where the verdict is "no structure".
        """
        return self._contents.resolution_A

    @property
    def half_map_crossings_A(self) -> dict[str, float]:
        """Where half-map FSC curves cross 0.143, in Å: a resolution only if there is structure.

        Names as in `resolution_A`.
        """
        return self._contents.half_map_crossings_A

    @property
    def conformations(self) -> Series | None:
        """The maps along the conformational path, or of the classes; None for one structure."""
        found = self._contents.conformations
        return None if found is None else found.series


def device_named(name: str) -> str:
    """The torch device that a user's word stands for: "auto", "cpu", "cuda", "cuda:1" ...

    Raises:
        InputError: there is no such device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"Device '{name}' cannot be used here; give --device cpu or another."
        ) from error
    return name


def describe_particles(
    particles: Particles, noise: str | None, *, keep_halves: bool = False
) -> dict[str, Any]:
    """What `config.json` says about the particles.

    Raises:
        InputError: half-sets are to be kept and there are none.
    """
    source = particles.source
    kept: dict[str, Any] = {"halves": halves_digest(particles)} if keep_halves else {}
    if source is not None and source.reading:
        kept["reading"] = source.reading
    return kept | {
        "star": None if source is None else str(source.path.resolve()),
        "rows": particles_digest(particles),
        "content": content_digest(particles),
        "reader": None if source is None else source.reader,
        "noise": noise,
        "summary": None if source is None else source.summary,
        "count": len(particles),
        "box_size": particles.box_size,
        "pixel_size_A": particles.pixel_size_A,
    }


def run_objective(
    objective: Objective,
    particles: Particles,
    noise: NoiseModel | None,
    about: Mapping[str, Any],
    sources: Mapping[str, str],
    *,
    folder: Path | str | None,
    seed: int,
    device: str,
    show: Show,
    started: Callable[[Mapping[str, Any]], None],
    phase: Callable[[str], None] = lambda what: None,
    launch: Launch | None = None,
    maps: Tensor | None = None,
    populations: Tensor | None = None,
) -> Reconstruction:
    """Check, open the run folder, run the jobs, write the results."""
    helps = launch is not None and launch.rank > 0  # the main process checks for all
    keep = None
    if folder is None:
        keep = tempfile.TemporaryDirectory(prefix="cryogan-")
        folder = keep.name
    folder = Path(folder)
    with ExitStack() as held:
        if not helps:
            objective.check(particles)
            if launch is not None:
                launch.check(getattr(objective.config, "batch_size", None), device)
            phase("measuring the memory that the run needs")
            check_memory(objective, particles, device, launch)
            phase("")
            make_run_folder(folder)
            held.enter_context(locked(folder / RUN_LOCK))
            for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
                remove_left_overs(place)
            resumes = None
            same = partial(require_same_images, folder, particles)
            if open_run_folder(folder, about, objective, seed, device, sources, same):
                resumes = status_of(folder).progress
            write_half_sets(folder, particles, halves_of(particles, seed, about.get("halves")))
            told = {"particles": dict(about), "sources": dict(sources), "objective": objective}
            started(told | {"folder": folder, "resumes": resumes})
        placement: Placement | None = None
        if launch is not None:
            with ending_at_once():  # torchrun ends those that wait for one that has failed
                placement = held.enter_context(launch.joined(device))
        jobs = make_jobs(
            particles,
            folder,
            objective,
            seed=seed,
            device=device,
            noise=noise,
            maps=maps,
            populations=populations,
            placement=placement,
            halves=about.get("halves"),
        )
        stopped_by = (
            run_jobs(jobs, show) if placement is None else run_placed(placement, jobs, show)
        )
        if stopped_by is None and (placement is None or placement.is_main):
            phase("comparing the half-maps")
            outcomes = [load_arrays(job.folder / RESULT) for job in jobs]
            try:
                found = objective.maps(outcomes, particles, seed)
            except KeyError as error:
                raise InputError(
                    f"{jobs[0].folder / RESULT} has no array {error}; delete it and run the "
                    "command again."
                ) from error
            first, second = halves_of(particles, seed, about.get("halves"))
            half_sets = particles.subset(first), particles.subset(second)
            assumptions = objective.config.assumptions
            if found.symmetry is not None:
                assumptions = assumptions.imposing(found.symmetry["group"])
            where = torch.device(device if placement is None else placement.device)
            phase("explaining held-out images, for the verdict")
            verdict = verdict_of(
                found, half_sets, assumptions, noise=noise, seed=seed, device=where
            )
            fit, held_out_A = None, None
            if verdict is not None and verdict.word != NOTHING:
                if found.conformations is None:
                    phase("measuring how far held-out images support the maps")
                    held_out_A = held_out_resolution_A(
                        found,
                        half_sets,
                        assumptions,
                        noise=noise,
                        splits=power_splits_of(folder),
                        views=view_densities_of(folder),
                        seed=seed,
                        device=where,
                    )
                phase("testing the goodness of fit")
                fit = goodness_of_run(
                    found,
                    half_sets,
                    assumptions,
                    noise=noise,
                    image_model=image_model_of(folder),
                    splits=power_splits_of(folder),
                    views=view_densities_of(folder),
                    seed=seed,
                    device=where,
                )
            write_results(folder, jobs, found, verdict, fit, held_out_A, phase)
            phase("")
    return Reconstruction(folder, stopped_by, sources, keep)
