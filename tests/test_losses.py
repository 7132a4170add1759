"""Losses and penalties against values worked out by hand."""

import math

import pytest
import torch
from torch import nn

from cryogan.models.critics import Critic, CriticSpec, compact_critic
from cryogan.objectives.adversarial import losses

SIZE = 6


class LinearCritic(nn.Module):
    """D(x) = ⟨w, x⟩, whose gradient is w at every image."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, images):
        return (images * self.weight).sum(dim=(1, 2))


class QuadraticCritic(LinearCritic):
    """D(x) = ½ Σ w x², whose gradient is w x."""

    def forward(self, images):
        return (0.5 * self.weight * images.square()).sum(dim=(1, 2))


def pair(n, generator, dtype=torch.float32):
    return tuple(torch.randn(n, SIZE, SIZE, generator=generator, dtype=dtype) for _ in range(2))


def softplus(x):
    return math.log1p(math.exp(x))


def test_wasserstein_losses():
    real, fake = torch.tensor([1.0, 2.0]), torch.tensor([0.5, -3.5])
    assert float(losses.critic_wasserstein(real, fake)) == pytest.approx(-1.5 - 1.5)
    assert float(losses.volume_wasserstein(real, fake)) == pytest.approx(1.5)


def test_relativistic_losses_pair_images_one_to_one():
    real, fake = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    expected = 0.5 * (softplus(0.5 - 1.0) + softplus(3.0 + 2.0))
    assert float(losses.critic_relativistic(real, fake)) == pytest.approx(expected)
    expected = 0.5 * (softplus(1.0 - 0.5) + softplus(-2.0 - 3.0))
    assert float(losses.volume_relativistic(real, fake)) == pytest.approx(expected)
    same = torch.tensor([4.0])
    assert float(losses.critic_relativistic(same, same)) == pytest.approx(math.log(2.0))


@pytest.mark.parametrize(
    ("critic_loss", "volume_loss"),
    [
        (losses.critic_wasserstein, losses.volume_wasserstein),
        (losses.critic_relativistic, losses.volume_relativistic),
    ],
)
def test_the_critic_raises_real_scores_and_the_volume_those_of_its_images(critic_loss, volume_loss):
    real = torch.zeros(3, requires_grad=True)
    fake = torch.zeros(3, requires_grad=True)
    by_real, by_fake = torch.autograd.grad(critic_loss(real, fake), (real, fake))
    assert (by_real < 0).all()
    assert (by_fake > 0).all()
    (by_fake,) = torch.autograd.grad(volume_loss(real, fake), fake)
    assert (by_fake < 0).all()


def test_gradient_penalty_takes_one_norm_an_image(generator):
    """Of a linear critic it is (‖w‖ - 1)²; the published scripts' norm of every row differs."""
    weight = torch.randn(SIZE, SIZE, generator=generator)
    real, fake = pair(5, generator)
    penalty = losses.gradient_penalty(LinearCritic(weight), real, fake, generator)
    expected = (float(weight.square().sum().sqrt()) - 1.0) ** 2
    assert penalty.item() == pytest.approx(expected, rel=1e-5)
    by_row = float((weight.square().sum(dim=1).sqrt() - 1.0).square().mean())
    assert abs(by_row - expected) > 0.5 * expected


def test_gradient_penalty_is_taken_between_the_pairs(generator):
    """Of ½ Σ w x²: the norm is ‖w x‖ at x = t real + (1 - t) fake, with one t an image."""
    real, fake = pair(7, generator)
    weight = torch.rand(SIZE, SIZE, generator=generator)
    t = torch.rand(7, generator=torch.Generator().manual_seed(4))[:, None, None]
    between = t * real + (1 - t) * fake
    norm = (weight * between).square().sum(dim=(1, 2)).sqrt()
    penalty = losses.gradient_penalty(
        QuadraticCritic(weight), real, fake, torch.Generator().manual_seed(4)
    )
    assert penalty.item() == pytest.approx(float((norm - 1.0).square().mean()), rel=1e-5)


def test_zero_centred_penalty_of_a_quadratic_critic(generator):
    images = torch.cat(pair(4, generator)).requires_grad_()
    weight = torch.randn(SIZE, SIZE, generator=generator)
    penalty = losses.zero_centred_penalty(QuadraticCritic(weight)(images), images)
    expected = (weight * images).square().sum(dim=(1, 2)).mean()
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-5)


def smooth_critic():
    """A small critic whose second derivatives exist everywhere, in float64."""
    torch.manual_seed(1)
    layers = [nn.Conv2d(1, 3, 3), nn.Softplus(), nn.Flatten(), nn.Linear(3 * 16, 1)]
    return Critic(layers).double()


@pytest.mark.parametrize("kind", ["gradient", "zero-centred"])
def test_weight_gradient_of_the_penalties_equals_finite_differences(kind, generator):
    """The second derivatives that train the critic."""
    critic = smooth_critic()
    real, fake = pair(3, generator, torch.float64)

    def penalty():
        if kind == "gradient":
            fixed = torch.Generator().manual_seed(2)
            return losses.gradient_penalty(critic, real, fake, fixed)
        both = torch.cat((real, fake)).requires_grad_()
        return losses.zero_centred_penalty(critic(both), both)

    penalty().backward()
    step = 1e-6
    moved = 0
    for parameter in critic.parameters():
        if parameter.grad is None:  # the last bias: it moves no gradient of an image
            assert parameter.shape == (1,)
            continue
        moved += 1
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        expected = float((parameter.grad * direction).sum())
        values = []
        for sign in (1.0, -2.0):
            with torch.no_grad():
                parameter += sign * step * direction
            values.append(penalty().item())
        with torch.no_grad():
            parameter += step * direction
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=1e-5)
    assert moved == 3


def test_penalty_trains_the_default_critic(generator):
    """A few steps on the penalty alone bring the norms of a real critic's gradients to 1."""
    torch.manual_seed(3)
    critic = compact_critic(CriticSpec(16, channels=4))
    optimiser = torch.optim.Adam(critic.parameters(), 3e-3)
    real, fake = (torch.randn(16, 16, 16, generator=generator) for _ in range(2))
    values = []
    for _ in range(60):
        penalty = losses.gradient_penalty(critic, real, fake, generator)
        optimiser.zero_grad()
        penalty.backward()
        optimiser.step()
        values.append(float(penalty.detach()))
    assert values[0] > 0.9
    assert values[-1] < 0.02
