"""Tilt series and subtomograms are recognised, and refused: they are no single-particle images."""

from collections.abc import Sequence

import numpy as np

from cryogan.errors import InputError
from cryogan.io.star import Table

_FEWEST_TILTS = 5


def refuse_tomography(tables: Sequence[Table], particles: Table) -> None:
    """Refuse a particle file of tomograms.

    RELION marks them by `rlnTomo...`, 3D CTFs, or three dimensions of images. Warp and M write the
    tilts of a particle as images of one group, the dose of each as a B-factor of its own and the
    cosine of the tilt as the scale of its CTF.

    Raises:
        InputError: what marks it.
    """
    for table in tables:
        label = next((one for one in table.columns if one.startswith("rlnTomo")), None)
        if label is None and "rlnCtfImage" in table:
            label = "rlnCtfImage"
        if label is not None:
            raise InputError(_words(particles, f"the column {label}"))
        if "rlnImageDimensionality" in table:
            volumes = table.numbers("rlnImageDimensionality") == 3
            if volumes.any():
                where = table.where(int(volumes.argmax()))
                raise InputError(_words(particles, f"rlnImageDimensionality 3 in {where}"))
    if _are_tilt_series(particles):
        words = "a B-factor and scale for each tilt in every rlnGroupName"
        raise InputError(_words(particles, words))


def _words(particles: Table, mark: str) -> str:
    return (
        f"{particles.path} is of tilt series or subtomograms ({mark}), which cryogan does not "
        "read; give single-particle images, or use a program for subtomogram averaging."
    )


def _are_tilt_series(table: Table) -> bool:
    """Whether every group has at least five rows, in each of which the B-factor is another."""
    labels = ("rlnGroupName", "rlnCtfBfactor", "rlnCtfScalefactor")
    if len(table) < _FEWEST_TILTS or not all(label in table for label in labels):
        return False
    _, group, counts = np.unique(
        table.columns["rlnGroupName"], return_inverse=True, return_counts=True
    )
    dose = table.numbers("rlnCtfBfactor")
    distinct = np.unique(np.stack((group.astype(np.float64), dose)), axis=1).shape[1]
    return bool(
        counts.min() >= _FEWEST_TILTS
        and distinct == len(table)
        and (dose <= 0).all()
        and np.ptp(table.numbers("rlnCtfScalefactor")) > 0
    )
