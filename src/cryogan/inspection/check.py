"""The check of a particle set: everything that is measured, put together."""

from dataclasses import replace

import torch

from cryogan.data.extent import measure_extent
from cryogan.errors import InputError
from cryogan.inspection.findings import ParticleCheck
from cryogan.inspection.images import (
    bad_images,
    good_images,
    measure_contrast,
    measure_normalisation,
)
from cryogan.inspection.images_needed import images_needed
from cryogan.inspection.metadata import ctf_outliers, ctf_ranges, file_of, optics_groups, rows_of
from cryogan.inspection.problems import notes_of, problems_of
from cryogan.inspection.run_cost import estimate_time, memory_of_objectives
from cryogan.inspection.sample import take_sample
from cryogan.inspection.spectra import group_spectra, measure_noise_directions, measure_spectra
from cryogan.particles import Particles
from cryogan.run.memory import available_GB

_LEAST_BOX = 4
_FEWEST = 50  # images of an optics group whose spectra are worth measuring


def check(particles: Particles) -> ParticleCheck:
    """Look at a particle set: its columns, and up to 2,000 of its images.

    Raises:
        InputError: no image can be read, or the box is below 4 px.

    Example:
        >>> import tempfile, cryogan as cg
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     particles = cg.simulate(
        ...         "phantom", folder + "/set", box_size=32, pixel_size_A=6.0, images=200
        ...     )
        ...     found = cg.check(particles)
        >>> found.particles, found.contrast.verdict, found.ready
        (200, 'bright', True)
    """
    if particles.box_size < _LEAST_BOX:
        raise InputError(
            f"The particles have a box of {particles.box_size} px, in which nothing can be "
            "measured; give particles of at least 16 px."
        )
    source, width_A = particles.source, particles.box_size * particles.pixel_size_A
    rows = rows_of(particles)
    file = file_of(particles)
    sample = take_sample(particles)
    bad = bad_images(sample, rows)
    small, numbers = good_images(sample, rows, {outlier.row: outlier.what for outlier in bad})
    contrast = measure_contrast(small, inverted=source is not None and source.inverted)
    spectra, ratio = measure_spectra(small)
    groups = []
    for name, index in optics_groups(particles, file):
        inside = torch.isin(numbers, index).nonzero()[:, 0]
        if len(inside) >= _FEWEST:
            whole = len(inside) == len(small)
            own = (spectra, ratio) if whole else measure_spectra(small.subset(inside))
            groups.append(group_spectra(name, len(index), len(inside), *own, width_A))
    extent = measure_extent(small, spectra)
    needed = images_needed(
        ratio,
        width_A=width_A,
        diameter_A=extent.diameter_A or 0.7 * width_A,
        sampled=len(small),
    )
    if not needed:
        extent = replace(extent, diameter_A=None, shift_sd_A=None)
    outliers = ctf_outliers(particles.ctf, rows)
    normalisation = measure_normalisation(sample.statistics)
    refusals, memory, available = *memory_of_objectives(particles), available_GB("cpu")
    summary = () if source is None else tuple(source.summary.splitlines())
    return ParticleCheck(
        particles=len(particles),
        box_size=particles.box_size,
        pixel_size_A=particles.pixel_size_A,
        summary=summary,
        sampled=len(sample.index) + len(sample.unreadable),
        contrast=contrast,
        normalisation=normalisation,
        ctf=ctf_ranges(particles.ctf),
        ctf_outliers=outliers,
        bad_images=bad,
        spectra=tuple(groups),
        extent=extent,
        images_needed=needed,
        noise_directions=measure_noise_directions(small),
        memory=memory,
        time=estimate_time(particles, extent, needed) if memory else None,
        available_GB=available,
        ignored_columns=() if source is None else source.unused,
        problems=(*(() if memory else refusals), *problems_of(particles, contrast, bad, needed)),
        notes=(
            *(line for line in summary if line.startswith("warning: ")),
            *(refusals if memory else ()),
            *notes_of(particles, contrast, normalisation, extent, needed, width_A),
        ),
    )
