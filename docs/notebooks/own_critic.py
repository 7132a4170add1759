# %% [markdown]
# # A critic of one's own
#
# Adversarial training needs no pose of any image: a critic learns to tell real images from
# simulated ones, and the volume changes until it cannot. A critic is a `torch.nn.Module`, images
# (n, D, D) in, scores (n,) out. Here is one of two convolutions, and what it sees of a right map
# and of a wrong one.

# %%
import torch
from torch import Tensor, nn

from cryogan.models.critics import CriticSpec
from cryogan.phantom import phantom_map
from cryogan.physics.distributions import PoseDistribution
from cryogan.simulation.in_memory import simulate_particles
from cryogan.simulation.microscope import random_ctf

BOX, PIXEL_SIZE_A, COUNT = 24, 8.0, 1200


def small_critic(spec: CriticSpec) -> nn.Module:
    """What `--adversarial.critic own_critic:small_critic` would name, in a file of its own."""
    return nn.Sequential(
        nn.Unflatten(1, (1, spec.box_size)),
        nn.Conv2d(1, 24, 5, stride=2, padding=2),
        nn.LeakyReLU(0.1),
        nn.Conv2d(24, 48, 5, stride=2, padding=2),
        nn.LeakyReLU(0.1),
        nn.Flatten(),
        nn.LazyLinear(1),
        nn.Flatten(0),
    )


# %% [markdown]
# Real images: the phantom, with its last domain where it belongs. Simulated ones: from the right
# map, and from one whose last domain has turned by 90°. Poses, CTFs and noise are drawn anew each
# time.


# %%
def drawn(hinge_angle_deg: float, seed: int) -> Tensor:
    """Images (n, D, D) of mean 0 and variance 1."""
    generator = torch.Generator().manual_seed(seed)
    made = simulate_particles(
        phantom_map(BOX, PIXEL_SIZE_A, hinge_angle_deg=hinge_angle_deg),
        pixel_size_A=PIXEL_SIZE_A,
        n=COUNT,
        ctf=random_ctf(COUNT, generator),
        poses=PoseDistribution(),
        snr_dB=6.0,
        generator=generator,
    )
    images = made.particles.stack.read(torch.arange(COUNT))
    return (images - images.mean((1, 2), keepdim=True)) / images.std()


real, right, wrong = drawn(0.0, 1), drawn(0.0, 2), drawn(90.0, 3)

# %% [markdown]
# Two thirds of each set train the critic, the rest tests it. Without structure to tell them
# apart, the share of held-out images that it names right is a half.


# %%
def told_apart(simulated: Tensor, epochs: int = 8) -> float:
    """Share of held-out images that a new critic names right."""
    torch.manual_seed(0)
    critic, train = small_critic(CriticSpec(BOX)), 2 * COUNT // 3
    critic(real[:2])
    optimiser = torch.optim.AdamW(critic.parameters(), lr=2e-3, weight_decay=0.1)
    images = torch.cat((real[:train], simulated[:train]))
    labels = torch.cat((torch.ones(train), torch.zeros(train)))
    for _ in range(epochs):
        for rows in torch.randperm(2 * train).split(64):
            optimiser.zero_grad()
            scores = critic(images[rows])
            nn.functional.binary_cross_entropy_with_logits(scores, labels[rows]).backward()
            optimiser.step()
    with torch.no_grad():
        hits = (critic(real[train:]) > 0).sum() + (critic(simulated[train:]) < 0).sum()
    return float(hits) / (2 * (COUNT - train))


share_right, share_wrong = told_apart(right), told_apart(wrong)
print(f"right map: {share_right:.2f} of the held-out images named right (0.50 is chance)")
print(f"wrong map: {share_wrong:.2f}")

# %% [markdown]
# In a file `own_critic.py` beside your data the same function trains a volume:
#
#     cryogan reconstruct particles.star -o run --objective adversarial \
#         --adversarial.critic own_critic:small_critic
#
# Training penalises the gradient of the scores, so that a critic must be twice differentiable and
# must not normalise over the batch. `docs/extending.md` has the other kinds of parts.
