"""Runs: reconstruction and refinement of maps."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from cryogan.data.halves import halves_of
from cryogan.data.images import cropped
from cryogan.data.normalisation import normalised
from cryogan.errors import InputError
from cryogan.inspection.metadata import with_metadata_notes
from cryogan.objectives.adversarial.config import preset
from cryogan.objectives.adversarial.objective import Adversarial
from cryogan.objectives.assumptions import Assumptions, GivenAssumptions
from cryogan.objectives.base import Objective
from cryogan.objectives.data_parallel import Launch
from cryogan.particles import Particles
from cryogan.physics.noise import NoiseModel
from cryogan.registry import OBJECTIVES
from cryogan.run.chosen_objective import objective_or_default, require_use
from cryogan.run.continuation import inherited_assumptions, likelihood_of, particles_of
from cryogan.run.folder import read_run as read_record
from cryogan.run.halves import Show
from cryogan.run.noise_input import noise_of_run, opened_noise
from cryogan.run.prepared_images import prepared_images
from cryogan.run.reconstruction import (
    Reconstruction,
    describe_particles,
    device_named,
    run_objective,
)
from cryogan.run.standard_orientation import in_standard_orientation
from cryogan.run.starting_maps import half_basis
from cryogan.run.view_input import opened_views


def read_run(folder: Path | str) -> Reconstruction:
    """A finished run.

    Raises:
        InputError: the folder holds no run, or one that is not finished.
    """
    return Reconstruction(read_record(Path(folder)).folder)


def settings_for(
    objective: str,
    assumptions: Assumptions,
    changes: Mapping[str, Any] | None = None,
    preset_name: str = "default",
) -> Objective:
    """An objective with its settings.

    Args:
        objective: a name in `registry.OBJECTIVES`, or package.module:Class.
        assumptions: of the sample.
        changes: settings that differ from the preset's.
        preset_name: of the adversarial settings: "default" or "paper".

    Raises:
        InputError: a setting is unknown or out of range.
    """
    changes = dict(changes or {})
    chosen = OBJECTIVES[objective]
    config: Any
    if chosen is Adversarial:
        config = preset(preset_name, heterogeneous=assumptions.latent is not None)
    else:
        config = chosen().config
    known = {field.name for field in fields(config)}
    for name in changes:
        if name not in known:
            raise InputError(
                f"The {objective} objective has no setting '{name}'; it has "
                f"{', '.join(sorted(known - {'assumptions'}))}."
            )
    make: Any = chosen
    made: Objective = make(replace(config, assumptions=assumptions, **changes))
    return made


def reconstruct(
    particles: Particles,
    *,
    objective: str | Objective | None = None,
    symmetry: str | None = None,
    diameter_A: float | None = None,
    mask: Path | str | None = None,
    mask_edge: float | None = None,
    max_shift: float | str | None = None,
    view_sigma: float | None = None,
    latent: str | None = None,
    classes: int | None = None,
    basis_volumes: int | None = None,
    box_size: int | None = None,
    resolution_A: float | None = None,
    noise: NoiseModel | Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    preset: str = "default",
    folder: Path | str | None = None,
    seed: int = 0,
    keep_halves: bool = False,
    device: str = "auto",
    launch: Launch | None = None,
    show: Show = lambda records: None,
    started: Callable[[Mapping[str, Any]], None] = lambda about: None,
    phase: Callable[[str], None] = lambda what: None,
) -> Reconstruction:
    """Two half-maps and the map of all particles, from images of unknown pose.

    Called again with the same arguments and folder after an interruption, it resumes.

    Args:
        particles: the whole set.
        objective: "likelihood", "adversarial", one of your own as "package.module:Class", or an
            `Objective` with settings. By default that of the run in `folder`, if it holds one;
            else the likelihood.
        symmetry: point group (RELION's name), C1 by default; or "auto", for the likelihood: none
            at first, then the one that is found in the half-maps.
        diameter_A: diameter of the particle; measured by default, at most 0.85 of the box.
        mask: soft mask (.mrc) in its place.
        mask_edge: width of the mask's edge as a fraction of half the box; 0.15 by default.
        max_shift: largest shift along x and y: in Å, or "5%" of the box. By default the spread is
            measured, images are centred, and what remains is searched.
        view_sigma: of assumed viewing directions, for the adversarial objective only; 1, uniform,
            by default.
        latent: of conformations: "uniform", "uniform2d", "circle", "discrete", or one of your own
            as "package.module:Class"; none by default.
        classes: of a discrete latent.
        basis_volumes: of the other latents.
        box_size: Fourier-crop the particles to this box first.
        resolution_A: or to the box whose Nyquist limit this is.
        noise: a noise model, the name of one (package.module:function), or a stack of background
            patches; by default the noise spectrum is measured on the particles.
        settings: settings of the objective that differ from the preset's.
        preset: of the adversarial settings: "default" or "paper".
        folder: the run folder; a temporary one by default, which goes with the result.
        seed: of the split into half-sets and of everything random.
        keep_halves: keep the half-sets that the particles came with (`Particles.half`).
        device: "auto", "cpu", "cuda", "cuda:1" ...
        launch: this process's place under torchrun, or None.
        show: called about twice a second with the new log records of each job.
        started: called once with what `config.json` holds, before long work begins.
        phase: called with what begins, before and after the work on the half-sets: "" for nothing.

    Raises:
        InputError: something given cannot work; nothing has been written then.
    """
    given = GivenAssumptions(
        symmetry,
        diameter_A,
        None if mask is None else str(mask),
        mask_edge,
        max_shift,
        view_sigma,
        latent,
        classes,
        basis_volumes,
    )
    where = device_named(device)
    width_A = particles.box_size * particles.pixel_size_A
    if objective is None or isinstance(objective, str):
        objective = objective_or_default(objective, folder)
        require_use(objective, preset, view_sigma)
        assumptions, sources = given.resolve(width_A)
        objective = settings_for(objective, assumptions, settings, preset)
    elif given != GivenAssumptions() or settings is not None:
        raise InputError("An objective with settings has its assumptions; change them there.")
    else:
        sources = {field.name: "given" for field in fields(Assumptions)}
    objective, views = opened_views(objective)
    particles = with_metadata_notes(particles)
    noise, noise_name = opened_noise(noise, particles)
    _check(objective, cropped(particles, box_size, resolution_A))
    phase("looking at all images")
    whole, _ = normalised(particles)
    phase("measuring shifts and the noise")
    assumed = objective.config.assumptions
    ready = prepared_images(
        whole,
        assumed,
        noise,
        centre=assumed.centred or sources["max_shift_percent"] == "default",
        measure_diameter=sources["mask_radius"] == "default",
        box_size=box_size,
        resolution_A=resolution_A,
    )
    sources = sources | dict.fromkeys(ready.measured, "measured")
    objective = _assuming(objective, ready.assumptions)
    if launch is None:
        _check(objective, ready.particles)
    about = describe_particles(ready.particles, noise_name, keep_halves=keep_halves)
    if views is not None:
        about["views"] = views
    return run_objective(
        objective,
        ready.particles,
        ready.noise,
        about,
        sources,
        folder=folder,
        seed=seed,
        device=where,
        launch=launch,
        show=show,
        started=started,
        phase=phase,
    )


def _assuming(objective: Objective, assumptions: Assumptions) -> Objective:
    """The objective with other assumptions."""
    make: Any = type(objective)
    made: Objective = make(replace(objective.config, assumptions=assumptions))
    return made


def _check(objective: Objective, particles: Particles) -> None:
    """`objective.check`, with what was left out of the particle file and its images."""
    try:
        objective.check(particles)
    except InputError as error:
        source = particles.source
        lines = [] if source is None else source.summary.splitlines()
        left_out = [line.removeprefix("warning: ") for line in lines if "left out" in line]
        if not left_out:
            raise
        raise InputError(f"{error} ({'; '.join(left_out)})") from error


def refine(
    run: Reconstruction | Path | str,
    particles: Particles | None = None,
    *,
    symmetry: str | None = None,
    diameter_A: float | None = None,
    mask: Path | str | None = None,
    mask_edge: float | None = None,
    max_shift: float | str | None = None,
    latent: str | None = None,
    classes: int | None = None,
    basis_volumes: int | None = None,
    noise: NoiseModel | Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    folder: Path | str | None = None,
    device: str = "auto",
    show: Show = lambda records: None,
    started: Callable[[Mapping[str, Any]], None] = lambda about: None,
    phase: Callable[[str], None] = lambda what: None,
) -> Reconstruction:
    """Refine the half-maps of a run by the likelihood, each with its own half-set.

    What is not given is taken from the run. Poor maps go through an initial model first.

    Args:
        run: a finished run.
        particles: those of the run; read again by default.
        symmetry, diameter_A, mask, mask_edge, max_shift, latent, classes, basis_volumes: as for
            `reconstruct`; latent "none" for one structure.
        noise: as for `reconstruct`; that of the run by default.
        settings: settings of the likelihood that differ from the run's, or from the defaults.
        folder: where to write; `refine` in the run folder by default.
        device: as for `reconstruct`.
        show, started, phase: as for `reconstruct`.

    Raises:
        InputError: something given cannot work; nothing has been written then.
    """
    record = read_record(run.folder if isinstance(run, Reconstruction) else Path(run))
    where = device_named(device)
    phase("looking at all images")
    whole = particles_of(record, particles)
    halves_of(whole, record.seed, record.halves)  # the same as those of the half-maps
    width_A = whole.box_size * whole.pixel_size_A
    given = GivenAssumptions(
        symmetry,
        diameter_A,
        None if mask is None else str(mask),
        mask_edge,
        max_shift,
        None,
        latent,
        classes,
        basis_volumes,
    )
    imposed = record.objective.config.assumptions.symmetry
    if given.finds_symmetry and imposed != "C1":
        raise InputError(
            f"The run has imposed {imposed}, which its maps show in any case; leave --sym out, or "
            "reconstruct the particles anew with --sym auto."
        )
    assumptions, sources = inherited_assumptions(given, record, width_A)
    noise, noise_name = noise_of_run(record, noise, whole)
    phase("measuring the noise")
    ready = prepared_images(
        whole, assumptions, noise, centre=assumptions.centred, box_size=record.box_size
    )
    objective = likelihood_of(record, ready.assumptions, settings)
    objective.check(ready.particles)
    maps, populations = half_basis(record.folder, ready.particles, ready.assumptions)
    if assumptions.symmetry not in ("C1", imposed) and not assumptions.finds_symmetry:
        before = maps
        maps = in_standard_orientation(maps, assumptions.symmetry, ready.particles.pixel_size_A)
        if maps is not before and assumptions.mask_file is not None:
            raise InputError(
                f"The run's map is to be turned to the axes of {assumptions.symmetry}, and the "
                "mask file lies in the old frame; give --diameter in place of it."
            )
    about = describe_particles(ready.particles, noise_name, keep_halves=record.halves is not None)
    about["from"] = str(record.folder.resolve())
    return run_objective(
        objective,
        ready.particles,
        ready.noise,
        about,
        sources,
        folder=record.folder / "refine" if folder is None else folder,
        seed=record.seed,
        device=where,
        show=show,
        started=started,
        phase=phase,
        maps=maps,
        populations=populations,
    )
