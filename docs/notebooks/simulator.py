# %% [markdown]
# # A differentiable simulator
#
# Images are `y = noise + C S P_R V`: volume V, pose R, shift S, CTF C. Every step is a pure
# function on batched tensors, so that gradients reach the volume, the shifts and the microscope.
# Here the shifts and the defocus of images are found by gradient descent.

# %%
import torch

from cryogan.particles import CTFParams, Pose
from cryogan.phantom import phantom_map
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import simulate_images
from cryogan.physics.rotations import random_rotations

BOX, PIXEL_SIZE_A, COUNT = 32, 6.0, 16
generator = torch.Generator().manual_seed(0)
volume = phantom_map(BOX, PIXEL_SIZE_A)
rotation = random_rotations(COUNT, generator)


def images(shift_A: torch.Tensor, defocus_A: torch.Tensor) -> torch.Tensor:
    """(n, D, D) at the known orientations."""
    transfer = ctf(CTFParams.constant(COUNT, defocus_u_A=defocus_A), BOX, PIXEL_SIZE_A)
    return simulate_images(volume, Pose(rotation, shift_A), transfer, pixel_size_A=PIXEL_SIZE_A)


# %% [markdown]
# The images to be explained, with white noise of half the images' standard deviation.

# %%
true_shift_A = 4.0 * torch.randn(COUNT, 2, generator=generator)
true_defocus_A = 15_000.0 + 5_000.0 * torch.rand(COUNT, generator=generator)
clean = images(true_shift_A, true_defocus_A)
observed = clean + 0.5 * clean.std() * torch.randn(clean.shape, generator=generator)

# %% [markdown]
# Descent from no shift and a defocus of 17,500 Å for all; one unit of a parameter is 1 Å and
# 1,000 Å.

# %%
shift_A = torch.zeros(COUNT, 2, requires_grad=True)
defocus_kA = torch.full((COUNT,), 17.5, requires_grad=True)
optimiser = torch.optim.Adam([shift_A, defocus_kA], lr=0.3)
for _ in range(150):
    optimiser.zero_grad()
    loss = (images(shift_A, 1000.0 * defocus_kA) - observed).square().mean() / clean.var()
    loss.backward()
    optimiser.step()

shift_error_A = (shift_A.detach() - true_shift_A).square().sum(1).mean().sqrt()
defocus_error_A = (1000.0 * defocus_kA.detach() - true_defocus_A).abs().median()
print(f"shifts: {true_shift_A.square().sum(1).mean().sqrt():.1f} Å, left {shift_error_A:.2f} Å")
first_error_A = (17_500.0 - true_defocus_A).abs().median()
print(f"defocus: median error {defocus_error_A:.0f} Å, at first {first_error_A:.0f} Å")

# %% [markdown]
# The gradient by the volume is a filtered back-projection of the residuals: the volume could be
# found in the same way, were the poses known. cryogan's objectives do without them.

# %%
learnt = torch.zeros_like(volume, requires_grad=True)
transfer = ctf(CTFParams.constant(COUNT, defocus_u_A=true_defocus_A), BOX, PIXEL_SIZE_A)
simulated = simulate_images(
    learnt, Pose(rotation, true_shift_A), transfer, pixel_size_A=PIXEL_SIZE_A
)
(simulated - observed).square().sum().backward()
assert learnt.grad is not None
towards = -learnt.grad
correlation = torch.corrcoef(torch.stack((towards.flatten(), volume.flatten())))[0, 1]
print(f"correlation of the first step with the volume: {correlation:.2f}")
