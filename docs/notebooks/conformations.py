# %% [markdown]
# # Conformations: a hinge that moves
#
# What `benchmarks/hsp90.py` does with 100,000 images of Hsp90, an arm that turns about a hinge,
# here with 600 images of a made-up protein in 16 px: poses *and* conformations are unknown. The
# published sets are made by `cryogan simulate hsp90-continuous`.

# %%
import tempfile
from pathlib import Path

import torch

import cryogan as cg
from cryogan.phantom import phantom_map
from cryogan.physics.distributions import PoseDistribution
from cryogan.simulation.in_memory import simulate_particles
from cryogan.simulation.microscope import random_ctf

BOX, PIXEL_SIZE_A, COUNT = 16, 12.0, 600
generator = torch.Generator().manual_seed(2)
angles_deg = torch.linspace(-40.0, 40.0, 5)
states = torch.stack([phantom_map(BOX, PIXEL_SIZE_A, hinge_angle_deg=float(a)) for a in angles_deg])
made = simulate_particles(
    states,
    pixel_size_A=PIXEL_SIZE_A,
    n=COUNT,
    ctf=random_ctf(COUNT, generator),
    poses=PoseDistribution(),
    snr_dB=3.0,
    generator=generator,
)

# %% [markdown]
# A path of conformations: the mean map and two basis volumes along a latent from 0 to 1.

# %%
folder = Path(tempfile.mkdtemp())
result = cg.reconstruct(
    made.particles,
    seed=1,
    latent="uniform",
    basis_volumes=2,
    max_shift=0.0,
    folder=folder / "run",
    settings={  # shorter than is good for real data
        "initialisations": 1,
        "initial_attempts": 1,
        "initial_rings": (4, 6),
        "initial_batches": 3,
        "initial_batch_size": 200,
        "iterations": 2,
        "conformation_batches": 4,
        "conformation_batch_size": 300,
    },
)
print("verdict:", result.verdict)

# %% [markdown]
# Where is each particle on the path? The latent's direction is arbitrary: the rank correlation
# with the true angle is near 1 or -1 if the motion was found.

# %%
assigned = cg.assign(made.particles, result)
latent = assigned.columns["cryoganLatent0"].double()
angle_deg = angles_deg[made.state[assigned.kept]].double()


def ranks(values: torch.Tensor) -> torch.Tensor:
    """Mean ranks, equal ones for equal values."""
    smaller = (values[:, None] > values[None]).sum(1)
    return smaller + 0.5 * (values[:, None] == values[None]).sum(1)


rho = torch.corrcoef(torch.stack((ranks(latent), ranks(angle_deg))))[0, 1].abs()
print(f"rank correlation of latent and angle: {rho:.2f}")
for angle in angles_deg:
    print(f"{float(angle):6.0f}°: mean latent {float(latent[angle_deg == angle].mean()):.2f}")

# %% [markdown]
# Maps along the path, of any latents, each with its share of the particles in
# `run/conformations`:

# %%
maps = cg.volumes(result, [0.1, 0.5, 0.9]).volumes
change = (maps[0] - maps[2]).norm() / maps[1].norm()
print(f"change from 0.1 to 0.9: {change:.2f} of the map; true ends:", end=" ")
print(f"{(states[0] - states[-1]).norm() / states[2].norm():.2f}")
