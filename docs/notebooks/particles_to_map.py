# %% [markdown]
# # From particles to a map, in Python
#
# A particle file, a map with a verdict, poses with their uncertainty, and a comparison with the
# truth, which the reconstruction never reads. The set is small (300 images of 16 px), so that it
# takes seconds; settings that make it shorter still are marked and are not for real data.

# %%
import tempfile
from pathlib import Path

import cryogan as cg
from cryogan.report import write_report

folder = Path(tempfile.mkdtemp())
cg.simulate(
    "phantom:D2",
    folder / "set",
    box_size=16,
    pixel_size_A=12.0,
    images=300,
    noise={"snr_dB": 0.0},
    seed=1,
)

# %% [markdown]
# Read the particles: any file that `cryogan reconstruct` takes.

# %%
particles = cg.read_particles(folder / "set" / "particles.star")
print(len(particles), "images of", particles.box_size, "px,", particles.pixel_size_A, "Å")

# %% [markdown]
# Reconstruct: maximum likelihood over all poses, from random volumes. `symmetry` is what is
# known.

# %%
result = cg.reconstruct(
    particles,
    symmetry="D2",
    folder=folder / "run",
    settings={  # shorter than is good for real data
        "initialisations": 1,
        "initial_attempts": 1,
        "initial_rings": (4, 6),
        "initial_batches": 3,
        "initial_batch_size": 150,
        "iterations": 2,
    },
)
print("verdict:", result.verdict)
print("half-map FSC 0.143:", result.half_map_crossings_A)

# %% [markdown]
# The verdict comes first: without structure there is no resolution. The FSC with the truth,
# aligned over rotation, shift and hand:

# %%
comparison = cg.evaluate(result, truth=folder / "set" / "truth" / "map.mrc")
print(comparison.table())
resolution_A = comparison.resolution_A(0.5)

# %% [markdown]
# A pose for every particle, with the spread of its posterior, for RELION and cryoSPARC:

# %%
poses = cg.assign(particles, result)
cg.write_particles(folder / "poses.star", particles, poses)
print(len(poses), "poses")

# %% [markdown]
# The report is one page, which opens in a browser without a network:

# %%
page = write_report(result.folder, folder / "poses.star")
print("report:", page)
