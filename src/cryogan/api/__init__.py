"""What a notebook calls, and all that the command line calls.

Everything here is also at the top: `import cryogan as cg; cg.reconstruct(...)`.
"""

from cryogan.api.conformations import volumes, write_volumes
from cryogan.api.evaluation import evaluate, evaluate_particles, find_symmetry, record_truth
from cryogan.api.poses import assign, write_particles
from cryogan.api.runs import read_run, reconstruct, refine, settings_for
from cryogan.api.simulation import simulate
from cryogan.inspection.check import check
from cryogan.inspection.findings import ParticleCheck
from cryogan.io.mrc import Map, read_map, write_map
from cryogan.io.particle_files import read_particles
from cryogan.preparation.downsampling import Downsampled, downsample
from cryogan.preparation.selection import choose_rows, select
from cryogan.run.continuation import Assigned
from cryogan.run.noise_input import read_noise
from cryogan.run.reconstruction import Reconstruction

__all__ = [
    "Assigned",
    "Downsampled",
    "Map",
    "ParticleCheck",
    "Reconstruction",
    "assign",
    "check",
    "choose_rows",
    "downsample",
    "evaluate",
    "evaluate_particles",
    "find_symmetry",
    "read_map",
    "read_noise",
    "read_particles",
    "read_run",
    "reconstruct",
    "record_truth",
    "refine",
    "select",
    "settings_for",
    "simulate",
    "volumes",
    "write_map",
    "write_particles",
    "write_volumes",
]
