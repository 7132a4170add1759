"""What a notebook calls, and all that the command line calls.

Everything here is also at the top: `import cryogan as cg; cg.reconstruct(...)`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, overload

import torch

from cryogan.conformations.folder import (
    conformations_folder,
    read_conformations,
    read_true_conformations,
)
from cryogan.conformations.series import Series
from cryogan.data.halves import halves_of
from cryogan.data.images import cropped
from cryogan.data.normalisation import normalised
from cryogan.errors import InputError
from cryogan.evaluation import symmetry_search
from cryogan.evaluation.comparison import Comparison, compare_to_truth
from cryogan.evaluation.series_comparison import SeriesComparison, compare_series
from cryogan.inspection.check import ParticleCheck, check
from cryogan.inspection.metadata import with_metadata_notes
from cryogan.io.mrc import Map, read_header, read_map, write_map
from cryogan.io.particle_files import read_particles, write_assigned
from cryogan.objectives.adversarial.config import preset
from cryogan.objectives.adversarial.objective import Adversarial
from cryogan.objectives.assumptions import Assumptions, GivenAssumptions
from cryogan.objectives.base import Objective
from cryogan.objectives.data_parallel import Launch
from cryogan.objectives.likelihood.assignment import assign_halves
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.image_model import FIRST
from cryogan.particles import Particles
from cryogan.physics.noise import NoiseModel
from cryogan.preparation.downsampling import Downsampled, downsample
from cryogan.preparation.selection import choose_rows, select
from cryogan.randomness import generator_for
from cryogan.registry import OBJECTIVES
from cryogan.run.contents import read_run_contents
from cryogan.run.continuation import (
    Assigned,
    critic_scores_of,
    inherited_assumptions,
    latent_columns,
    likelihood_of,
    particles_of,
)
from cryogan.run.folder import add_truth
from cryogan.run.folder import read_run as read_record
from cryogan.run.half_sets import half_of, has_other_contrast, inverted
from cryogan.run.halves import Show
from cryogan.run.noise_input import noise_of_run, opened_noise, read_noise
from cryogan.run.prepared_images import prepared_images
from cryogan.run.reconstruction import (
    Reconstruction,
    describe_particles,
    device_named,
    run_objective,
)
from cryogan.run.references import read_reference, reference_for
from cryogan.run.starting_maps import half_basis, image_model_of, power_splits_of
from cryogan.simulation.dataset import Measured, Prepared, check_folder, prepare, write_dataset
from cryogan.simulation.description import write_description
from cryogan.simulation.plan import Source, plan

__all__ = [
    "Assigned",
    "Downsampled",
    "ParticleCheck",
    "Reconstruction",
    "assign",
    "check",
    "choose_rows",
    "downsample",
    "evaluate",
    "find_symmetry",
    "read_map",
    "read_noise",
    "read_particles",
    "read_run",
    "reconstruct",
    "refine",
    "select",
    "simulate",
    "write_map",
    "write_particles",
]


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
    objective: str | Objective = "adversarial",
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
) -> Reconstruction:
    """Two half-maps and the map of all particles, from images of unknown pose.

    Called again with the same arguments and folder after an interruption, it resumes.

    Args:
        particles: the whole set.
        objective: "adversarial", "likelihood", one of your own as "package.module:Class", or an
            `Objective` with settings.
        symmetry: point group (RELION's name), C1 by default; or "auto", for the likelihood: none
            at first, then the one that is found in the half-maps.
        diameter_A: diameter of the particle; measured by default, at most 0.85 of the box.
        mask: soft mask (.mrc) in its place.
        mask_edge: width of the mask's edge as a fraction of half the box; 0.15 by default.
        max_shift: largest shift along x and y: in Å, or "5%" of the box. By default the spread is
            measured, images are centred, and what remains is searched.
        view_sigma: of assumed viewing directions (adversarial objective); 1, uniform, by default.
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
    if isinstance(objective, str):
        assumptions, sources = given.resolve(width_A)
        objective = settings_for(objective, assumptions, settings, preset)
    elif given != GivenAssumptions() or settings is not None:
        raise InputError("An objective with settings has its assumptions; change them there.")
    else:
        sources = {field.name: "given" for field in fields(Assumptions)}
    particles = with_metadata_notes(particles)
    noise, noise_name = opened_noise(noise, particles)
    if launch is None or not objective.together:  # else refused for another reason
        _check(objective, cropped(particles, box_size, resolution_A))
    whole, _ = normalised(particles)
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
        show, started: as for `reconstruct`.

    Raises:
        InputError: something given cannot work; nothing has been written then.
    """
    record = read_record(run.folder if isinstance(run, Reconstruction) else Path(run))
    where = device_named(device)
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
    assumptions, sources = inherited_assumptions(given, record, width_A)
    noise, noise_name = noise_of_run(record, noise, whole)
    ready = prepared_images(
        whole, assumptions, noise, centre=assumptions.centred, box_size=record.box_size
    )
    objective = likelihood_of(record, ready.assumptions, settings)
    objective.check(ready.particles)
    maps, populations = half_basis(record.folder, ready.particles, ready.assumptions)
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
        maps=maps,
        populations=populations,
    )


def assign(
    particles: Particles,
    run: Reconstruction | Path | str | None = None,
    *,
    reference: Map | Path | str | None = None,
    symmetry: str | None = None,
    diameter_A: float | None = None,
    max_shift: float | str | None = None,
    resolution_A: float | None = None,
    noise: NoiseModel | Path | str | None = None,
    device: str = "auto",
    show: Callable[[float], None] = lambda fraction: None,
    started: Callable[[Mapping[str, Any]], None] = lambda about: None,
) -> Assigned:
    """Estimate every particle's orientation, shift and latent, with their uncertainty.

    Particles of the run, known by stack and number of their images, are assigned with the map of
    their own half-set, so that the half-sets stay independent; others with the map of all
    particles. Poses from a reference map have no independent half-sets: maps made from them
    resemble it where images hold nothing but noise.

    Args:
        particles: the set.
        run: a finished run.
        reference: a map in its place, the molecule bright and about the origin; it is scaled to
            the images and brought to their pixel size and box.
        symmetry, max_shift, noise: as for `reconstruct`; those of the run by default.
        diameter_A, resolution_A: as for `reconstruct`; with a reference only.
        device: as for `reconstruct`.
        show: called with the fraction that is done.
        started: called once with `particles`, as described in `config.json`, and `in_halves`, how
            many are in no half-set of the run, in the first and in the second.

    Raises:
        InputError: the maps do not fit the particles, or an image cannot be used.
    """
    if (run is None) == (reference is None):
        raise InputError("Give a run or a reference map: one of them.")
    if GivenAssumptions(symmetry).finds_symmetry:
        raise InputError("Poses need a symmetry that is known; give a point group, not auto.")
    if run is None:
        assert reference is not None
        given = GivenAssumptions(symmetry, diameter_A, max_shift=max_shift)
        return _assigned_to_map(
            particles, reference, given, resolution_A, noise, device, show, started
        )
    if diameter_A is not None or resolution_A is not None:
        raise InputError("A run has its diameter and resolution; give them with a reference only.")
    record = read_record(run.folder if isinstance(run, Reconstruction) else Path(run))
    where = torch.device(device_named(device))
    flipped = has_other_contrast(particles, record)
    if flipped:
        particles = inverted(particles, record)
    particles, kept = normalised(particles)
    half = half_of(particles, record)
    in_halves = half.bincount(minlength=3).tolist()
    own = in_halves[0] < len(particles)
    box_size = record.box_size if own else None
    about = describe_particles(cropped(particles, box_size), None)
    started({"particles": about, "in_halves": in_halves})
    width_A = particles.box_size * particles.pixel_size_A
    given = GivenAssumptions(symmetry=symmetry, max_shift=max_shift)
    assumptions, _ = inherited_assumptions(given, record, width_A)
    noise, _ = noise_of_run(record, noise, particles)
    ready = prepared_images(
        particles, assumptions, noise, centre=assumptions.centred, box_size=box_size
    )
    work, assumptions = ready.particles, ready.assumptions
    config = likelihood_of(record, assumptions).config
    scores = critic_scores_of(work, record, ready.noise, half=half, device=where)
    basis, populations = half_basis(record.folder, work, assumptions)
    groups = [((half == number).nonzero()[:, 0], basis[number - 1]) for number in (1, 2)]
    result = assign_halves(
        work,
        groups,
        read_map(record.folder / "map.mrc").volume,
        config,
        resolution_A=read_run_contents(record.folder).half_map_crossings_A.get(
            "half_map_0.143_masked"
        ),
        populations=populations,
        device=where,
        noise=ready.noise,
        show=show,
        image_model=image_model_of(record.folder),
        splits=power_splits_of(record.folder),
    )
    result = result.displaced(ready.centre_A)
    drawn = torch.randint(1, 3, half.shape, generator=generator_for(record.seed, "in no half-set"))
    number, columns = latent_columns(result, config, basis.shape[1])
    if scores is not None:
        columns["cryoganCriticScore"] = scores
    halves = torch.where(half > 0, half, drawn) if own else None
    return Assigned(result, halves, number, columns, assumptions.symmetry, kept, flipped)


def _assigned_to_map(
    particles: Particles,
    reference: Map | Path | str,
    given: GivenAssumptions,
    resolution_A: float | None,
    noise: NoiseModel | Path | str | None,
    device: str,
    show: Callable[[float], None],
    started: Callable[[Mapping[str, Any]], None],
) -> Assigned:
    """`assign` without a run."""
    where = torch.device(device_named(device))
    width_A = particles.box_size * particles.pixel_size_A
    assumptions, sources = given.resolve(width_A)
    known = read_reference(reference, particles)
    noise, noise_name = opened_noise(noise, particles)
    particles, kept = normalised(particles)
    ready = prepared_images(
        particles,
        assumptions,
        noise,
        centre=sources["max_shift_percent"] == "default",
        measure_diameter=sources["mask_radius"] == "default",
        resolution_A=resolution_A,
    )
    work, assumptions = ready.particles, ready.assumptions
    volume = reference_for(known, work, assumptions)
    about = describe_particles(work, noise_name)
    started({"particles": about, "in_halves": [len(work), 0, 0]})
    nobody = torch.empty(0, dtype=torch.int64)
    result = assign_halves(
        work,
        [(nobody, volume[None])] * 2,
        volume,
        LikelihoodConfig(assumptions=assumptions),
        resolution_A=2.0 * max(known.pixel_size_A, work.pixel_size_A),
        device=where,
        noise=ready.noise,
        show=show,
        image_model=FIRST,
    )
    result = result.displaced(ready.centre_A)
    one = torch.ones(len(result.pose), dtype=torch.int64)
    return Assigned(result, None, one, {}, assumptions.symmetry, kept)


def write_particles(path: Path | str, particles: Particles, poses: Assigned) -> list[Path]:
    """Write particles with their poses for RELION, and for cryoSPARC beside it.

    Args:
        path: star file to write; it has all columns of the particles' own file. Of a .cs file the
            fields in RELION's terms, and the .cs file beside it has all of them.
        particles: as read from their file.
        poses: from `assign` of these particles; those that it left out are not written.

    Returns:
        The files written: the star file, and a .cs file with its group file (.csg) if the
        particles are those of the run or come from a .cs file.

    Raises:
        InputError: the particles were not read from a file, or a file cannot be written.
    """
    found = poses.assignment
    if poses.inverted:
        stack: Any = particles.stack
        particles = replace(particles, stack=replace(stack, sign=-stack.sign))
    return write_assigned(
        path,
        particles,
        found.pose,
        symmetry=poses.symmetry,
        kept=poses.kept,
        half=poses.half,
        class_number=poses.class_number,
        class_posterior=poses.columns.get("cryoganClassProbability"),
        log_likelihood=found.log_likelihood,
        columns={
            "cryoganAngleSpread": found.spread_deg,
            "cryoganParticleProbability": found.particle,
            "cryoganContrast": found.contrast,
            "cryoganShiftSpreadAngst": found.shift_spread_A,
            "cryoganPeakProbability": found.peak,
            "cryoganFitPValue": found.fit_p_value,
        }
        | poses.columns,
    )


@overload
def evaluate(
    found: Reconstruction | Map | Path | str,
    *,
    truth: Map | Path | str,
    pixel_size_A: float | None = None,
) -> Comparison: ...


@overload
def evaluate(
    found: Reconstruction | Series | Path | str,
    *,
    truth_conformations: Path | str,
    pixel_size_A: float | None = None,
) -> SeriesComparison: ...


def evaluate(
    found: Reconstruction | Map | Series | Path | str,
    *,
    truth: Map | Path | str | None = None,
    truth_conformations: Path | str | None = None,
    pixel_size_A: float | None = None,
) -> Comparison | SeriesComparison:
    """Compare a map, or conformations, with the truth, over rotation, shift and hand.

    Only here is a truth ever read. A run folder is not changed (`record_truth` does that).

    Args:
        found: a run, a map, or a file or folder of these.
        truth: map of the known structure.
        truth_conformations: or the folder `truth` of a simulation.
        pixel_size_A: of `found`, if it is a file or folder: it goes before its header's, where 0
            and 1 Å mean that it is not set. A truth without one must be in the box of `found`,
            whose pixel size it then has.

    Raises:
        InputError: not one truth is given, or a file cannot be read or compared.

    Example:
        >>> import cryogan as cg
        >>> phantom = cg.Map(cg.phantom_map(32, 6.0), 6.0)
        >>> found = cg.evaluate(phantom, truth=phantom)
        >>> round(found.correlation, 2), round(found.resolution_A(0.5), 2)
        (1.0, 12.0)
    """
    if (truth is None) == (truth_conformations is None):
        raise InputError("Give truth (one map) or truth_conformations (a folder): one of them.")
    if truth_conformations is not None:
        if isinstance(found, Map):
            raise InputError("One map cannot be compared with conformations; give a series.")
        series = found if isinstance(found, Series) else _series_of(found, pixel_size_A)
        return compare_series(series, read_true_conformations(Path(truth_conformations)))
    if isinstance(found, Series):
        raise InputError("A series is compared with truth_conformations, not with one map.")
    assert truth is not None
    mine = _map_of(found, pixel_size_A)
    return compare_to_truth(mine, truth if isinstance(truth, Map) else _truth_of(truth, mine))


def find_symmetry(
    found: Reconstruction | Map | Path | str,
    half2: Map | Path | str | None = None,
    *,
    pixel_size_A: float | None = None,
    resolution_A: float | None = None,
) -> symmetry_search.Symmetry:
    """The point group of a map in any orientation, with axes and evidence.

    Args:
        found: a run, whose half-maps are compared; or a map; or half-map 1, or files of these.
        half2: half-map 2, in the frame of half-map 1. The noise of one map alone is not known: it
            shows to which resolution a symmetry holds.
        pixel_size_A: of maps in files: it goes before their headers'.
        resolution_A: compare to this resolution at most.

    Raises:
        InputError: a map cannot be read, has no symmetry to be found, or two differ in box or
            pixel size.

    Example:
        >>> import cryogan as cg
        >>> cg.find_symmetry(cg.Map(cg.phantom_map(32, 6.0, symmetry="D2"), 6.0)).group
        'D2'
    """
    if isinstance(found, Reconstruction) or (half2 is None and _is_folder(found)):
        run = found if isinstance(found, Reconstruction) else read_run(Path(str(found)))
        maps = list(run.halves)
    else:
        maps = [_map_of(each, pixel_size_A) for each in (found, half2) if each is not None]
    boxes = [(map_.volume.shape, round(map_.pixel_size_A, 4)) for map_ in maps]
    if len(set(boxes)) > 1:
        raise InputError(
            f"The half-maps have boxes of {' and '.join(str(tuple(b)) for b, _ in boxes)} voxels "
            f"of {' and '.join(f'{p:g}' for _, p in boxes)} Å; give two of one box and pixel size."
        )
    volumes = torch.stack([map_.volume for map_ in maps])
    return symmetry_search.find_symmetry(volumes, maps[0].pixel_size_A, resolution_A=resolution_A)


def _is_folder(found: Any) -> bool:
    return not isinstance(found, Map) and Path(found).is_dir()


def record_truth(run: Reconstruction | Path | str, comparison: Comparison) -> None:
    """Add a comparison of a run's map with the truth to its FSC file and summary."""
    add_truth(run.folder if isinstance(run, Reconstruction) else Path(run), comparison)


def _map_of(found: Reconstruction | Map | Path | str, pixel_size_A: float | None) -> Map:
    if isinstance(found, Map):
        return found
    if isinstance(found, Reconstruction):
        return found.map
    path = Path(found)
    if path.is_dir():
        if not (path / "summary.json").is_file():
            raise InputError(f"{path} holds no finished run; give a map, or finish the run first.")
        path = path / "map.mrc"
    return read_map(path, pixel_size_A)


def _truth_of(path: Path | str, mine: Map) -> Map:
    header = read_header(path)
    if header.known_pixel_size_A is not None:
        return read_map(path)
    if header.shape[0] != mine.volume.shape[-1]:
        raise InputError(
            f"{path} has no pixel size in its header, where 0 and 1 Å mean that it is not set, and "
            "another box than the map; write it into the header."
        )
    return read_map(path, mine.pixel_size_A)


def _series_of(found: Reconstruction | Path | str, pixel_size_A: float | None) -> Series:
    path = found.folder if isinstance(found, Reconstruction) else Path(found)
    return read_conformations(conformations_folder(path), pixel_size_A)


def simulate(
    source: Source,
    folder: Path | str,
    *,
    condition: str | None = None,
    scale: float | None = None,
    datadir: Iterable[Path | str] = (),
    workers: int = 1,
    show: Callable[[str, float], None] = lambda what, fraction: None,
    started: Callable[[Prepared], None] = lambda prepared: None,
    finished: Callable[[Measured | None], None] = lambda measured: None,
    **changes: Any,
) -> Particles:
    """Simulate a particle set with a known answer, and read its particles.

    The same arguments make the same bits; a folder that holds the set already is left alone.

    Args:
        source: atomic models, maps, a folder of maps, "phantom" or "phantom:D2"; or a recipe or a
            YAML file such as simulation.yaml; or `simulation.settings.SimulationSettings`.
        folder: where to write particles, truth and simulation.yaml.
        condition: of a recipe.
        scale: multiplies a recipe's box and number of images.
        datadir: folders in which, or in whose folders, the files named are.
        workers: threads; the bits stay the same.
        show: called with what is being made, and the fraction done.
        started: called when all has been checked.
        finished: called at the end; with None if the set was there already.
        **changes: settings that differ from the source's; groups hold what is to change:
            `box_size=64, noise={"snr_dB": -5.2}` ...

    Raises:
        InputError: something given cannot work.

    Example:
        >>> import tempfile, cryogan as cg
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     particles = cg.simulate(
        ...         "phantom", folder + "/set", box_size=32, pixel_size_A=6.0, images=20
        ...     )
        >>> len(particles), particles.box_size
        (20, 32)
    """
    if workers < 1:
        raise InputError(f"workers is {workers}; give 1 or more.")
    made = plan(source, folder, condition=condition, scale=scale, datadirs=datadir, changes=changes)
    measured = None
    if not made.is_made:
        prepared = prepare(made.located)
        check_folder(prepared, made.folder)
        started(prepared)
        about = (made.record, made.description, made.settings, made.inputs)
        write_description(*about)
        measured = write_dataset(prepared, made.folder, workers=workers, show=show)
        write_description(*about, asdict(measured))
    finished(measured)
    return read_particles(made.folder / "particles.star", sign="bright")
