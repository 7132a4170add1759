"""What is to be mended in a particle set, and what is worth knowing, in words."""

from cryogan.data.extent import Extent
from cryogan.inspection.findings import Contrast, Normalisation
from cryogan.inspection.images_needed import ImagesNeeded
from cryogan.inspection.metadata import (
    Outlier,
    is_without_ctf,
    metadata_notes,
    metadata_problems,
)
from cryogan.particles import Particles


def problems_of(
    particles: Particles,
    contrast: Contrast,
    bad: tuple[Outlier, ...],
    needed: tuple[ImagesNeeded, ...],
) -> tuple[str, ...]:
    """What is to be mended: of the metadata, the bad images, the signal and its sign."""
    found = [*metadata_problems(particles)]
    if bad:
        listed = ", ".join(f"{outlier.row} ({outlier.what})" for outlier in bad[:3])
        more = f" and {len(bad) - 3:,} more" if len(bad) > 3 else ""
        found.append(
            f"{len(bad):,} of the images looked at cannot be used as they are: rows {listed}"
            f"{more}; a run leaves out those that are constant or damaged"
        )
    if not needed and not _has_contrast_without_ctf(particles, contrast):
        found.append(
            "no signal that follows the CTFs; check their columns, and that these are particles "
            "(or give more than these few)"
        )
    elif contrast.verdict == "too weak to tell":
        found.append(
            f"contrast too weak to tell its sign (z = {contrast.z:+.1f}); give --sign, or more "
            "particles"
        )
    return tuple(found)


def notes_of(
    particles: Particles,
    contrast: Contrast,
    normalisation: Normalisation,
    extent: Extent,
    needed: tuple[ImagesNeeded, ...],
    width_A: float,
) -> tuple[str, ...]:
    """What is worth knowing: of the signal, the grey scale, the metadata and the box."""
    found = []
    if not needed and _has_contrast_without_ctf(particles, contrast):
        found.append(
            "without CTFs so weak a signal cannot be told from noise in spectra: no estimates of "
            "signal, diameter, images and time"
        )
    if not normalisation.normalised:
        found.append(
            "images are not normalised: background "
            f"{normalisation.offset_sd.low:.2g} to {normalisation.offset_sd.high:.2g} SD, ramp "
            f"{normalisation.ramp_sd.median:.2g} SD over the box, SD {normalisation.sd.low:.2g} "
            f"to {normalisation.sd.high:.2g} times its median"
        )
    found += metadata_notes(particles)
    if extent.diameter_A is not None and extent.diameter_A > 0.8 * width_A:
        found.append(
            f"the particle ({extent.diameter_A:.0f} Å) fills the box of {width_A:.0f} Å; boxes of "
            "1.5 to 2 diameters keep what the CTF spreads"
        )
    return tuple(found)


def _has_contrast_without_ctf(particles: Particles, contrast: Contrast) -> bool:
    """Whether there is a signal that has no CTFs to follow."""
    return is_without_ctf(particles.ctf) and contrast.verdict != "too weak to tell"
