"""An External job of cryoSPARC, by cryosparc-tools (an extra): its inputs, outputs and results.

cryosparc-tools 5 is spoken to; its objects are taken as they come, so that nothing is imported.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cryogan.files import atomic_path
from cryogan.io.cryosparc.poses import ALIGNMENT_FIELDS
from cryogan.io.cryosparc.records import fields_of, read_records
from cryogan.io.mrc import read_header

PARTICLES, VOLUME, MASK = "particles", "volume", "mask"
"""Names of the job's input and outputs."""

VOLUME_SLOTS = {"map": "map.mrc", "map_half_A": "half1.mrc", "map_half_B": "half2.mrc"}
MASK_SLOTS = {"mask": "mask.mrc"}
"""Slot → file of a run."""


def connect(job: Any, source_job: str, source_output: str, *, half_sets: bool) -> None:
    """Connect the particles, and declare what the job is to give.

    Args:
        job: a new External job.
        source_job, source_output: where the particles come from.
        half_sets: whether the half-sets of their alignments are needed.
    """
    slots = ["blob", "ctf", *(["alignments3D"] if half_sets else [])]
    job.connect(PARTICLES, source_job, source_output, slots=slots, title="Particles")
    job.add_output(
        type="particle",
        name=PARTICLES,
        slots=["alignments3D"],
        passthrough=PARTICLES,
        title="Particles with poses",
    )
    job.add_output(
        type="volume", name=VOLUME, slots=_blobs(VOLUME_SLOTS), title="Map and half-maps"
    )
    job.add_output(type="mask", name=MASK, slots=_blobs(MASK_SLOTS), title="Mask of the FSC")


def _blobs(slots: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "dtype": "blob"} for name in slots]


def save_particles(job: Any, path: Path, *, half_sets: bool) -> int:
    """Write the connected particles as a .cs file, atomically.

    Returns:
        Their number.
    """
    slots = ["blob", "ctf", *(["alignments3D"] if half_sets else [])]
    particles = job.load_input(PARTICLES, slots=slots)
    with atomic_path(path) as temporary:
        particles.save(temporary)
    return len(particles)


def save_results(job: Any, run: Path, assigned: Path) -> None:
    """Upload the maps of a run, and save them and the assigned particles as the job's outputs.

    Args:
        job: started and not stopped.
        run: a finished run.
        assigned: .cs file of `cryogan assign`; particles that it left out are not in the output.
    """
    records = read_records(assigned)
    particles = job.alloc_output(PARTICLES, np.asarray(records["uid"]))
    for name in ALIGNMENT_FIELDS:
        if name in particles.fields() and name in fields_of(records):
            particles[name] = np.asarray(records[name])
    job.save_output(PARTICLES, particles)
    for output, slots in ((VOLUME, VOLUME_SLOTS), (MASK, MASK_SLOTS)):
        rows = job.alloc_output(output, 1)
        for slot, file in slots.items():
            header = read_header(run / file)
            job.upload(file, run / file, overwrite=True)
            rows[f"{slot}/path"] = [f"{job.uid}/{file}"]
            rows[f"{slot}/shape"] = [header.shape]
            rows[f"{slot}/psize_A"] = [header.voxel_size_A[0]]
        job.save_output(output, rows)
