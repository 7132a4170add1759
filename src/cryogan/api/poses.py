"""Poses of particles: their assignment to maps, and files with them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cryogan.data.images import cropped
from cryogan.data.normalisation import normalised
from cryogan.errors import InputError
from cryogan.io.mrc import Map, read_map
from cryogan.io.particle_files import write_assigned
from cryogan.objectives.assumptions import GivenAssumptions
from cryogan.objectives.likelihood.assignment import assign_halves
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.image_model import FIRST
from cryogan.particles import Particles
from cryogan.physics.noise import NoiseModel
from cryogan.randomness import generator_for
from cryogan.run.contents import read_run_contents
from cryogan.run.continuation import (
    Assigned,
    critic_scores_of,
    inherited_assumptions,
    latent_columns,
    likelihood_of,
)
from cryogan.run.folder import read_run as read_record
from cryogan.run.half_sets import half_of, has_other_contrast, inverted
from cryogan.run.noise_input import noise_of_run, opened_noise
from cryogan.run.prepared_images import prepared_images
from cryogan.run.reconstruction import Reconstruction, describe_particles, device_named
from cryogan.run.references import read_reference, reference_for
from cryogan.run.standard_orientation import require_symmetric
from cryogan.run.starting_maps import (
    half_basis,
    image_model_of,
    power_splits_of,
    view_densities_of,
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
    views = view_densities_of(record.folder)
    if assumptions.symmetry != record.objective.config.assumptions.symmetry:
        views = ()  # those of the run may be of any of the equivalents
        require_symmetric(
            basis[:, 0].mean(0),
            assumptions.symmetry,
            "The run's map",
            f"give --sym C1, or refine the run with --sym {assumptions.symmetry} first.",
        )
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
        views=views,
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
            "cryoganPoseInformation": found.information,
            "cryoganFitPValue": found.fit_p_value,
        }
        | poses.columns,
    )
