"""Critics against the published tables, and what penalties on single images ask of them."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from cryogan import fourier
from cryogan.models.critics import (
    CriticSpec,
    Growing,
    TemplateCritic,
    compact_critic,
    paper_critic,
    template_critic,
)
from cryogan.objectives.adversarial import losses


def spec(box_size, size):
    """Of so many templates or channels."""
    rings = fourier.rings_within(box_size, 0.9)
    return CriticSpec(box_size, rings, templates=size, channels=size)


def conv_shapes(critic, box_size):
    """(channels, height, width) after every pooling, and the outputs of the linear layers."""
    pooled, linear = [], []
    value = torch.zeros(1, 1, box_size, box_size)
    for layer in critic.layers:
        value = layer(value)
        if isinstance(layer, nn.MaxPool2d):
            pooled.append(tuple(value.shape[1:]))
        if isinstance(layer, nn.Linear):
            linear.append((layer.in_features, layer.out_features))
    return pooled, linear


def test_paper_critic_for_32_px_is_the_published_one():
    """Multi-CryoGAN's table: 96×16×16, 192×8×8, 384×4×4, 768×2×2, flatten 3072, FC 50, FC 1."""
    pooled, linear = conv_shapes(paper_critic(spec(32, 96)), 32)
    assert pooled == [(96, 16, 16), (192, 8, 8), (384, 4, 4), (768, 2, 2)]
    assert linear == [(3072, 50), (50, 1)]


def test_paper_critic_for_192_px_has_seven_blocks_and_fc_10():
    """CryoGAN's: blocks starting at 96 channels; few channels here, which keeps the test light."""
    pooled, linear = conv_shapes(paper_critic(spec(192, 3)), 192)
    sizes = (96, 48, 24, 12, 6, 3, 1)
    assert pooled == [(3 * 2**i, size, size) for i, size in enumerate(sizes)]
    assert linear == [(3 * 64, 10), (10, 1)]


def test_paper_blocks_are_convolution_pooling_and_leaky_relu():
    layers = list(paper_critic(spec(32, 4)).layers)
    for block in range(4):
        convolution, pooling, activation = layers[3 * block : 3 * block + 3]
        assert isinstance(convolution, nn.Conv2d)
        assert (convolution.kernel_size, convolution.padding) == ((3, 3), (1, 1))
        assert isinstance(pooling, nn.MaxPool2d)
        assert isinstance(activation, nn.LeakyReLU)
        assert activation.negative_slope == 0.1


@pytest.mark.parametrize("box_size", [16, 24, 32, 50, 64])
@pytest.mark.parametrize("make", [template_critic, compact_critic, paper_critic])
def test_every_image_gets_a_score_of_its_own(make, box_size, generator):
    """Scores depend on no other image: that of an image alone is that of it in a batch."""
    torch.manual_seed(0)
    critic = make(spec(box_size, 4)).double()
    images = torch.randn(5, box_size, box_size, generator=generator).double().requires_grad_()
    scores = critic(images)
    assert scores.shape == (5,)
    assert scores.std() > 1e-6
    alone = torch.cat([critic(image[None]) for image in images])
    torch.testing.assert_close(scores, alone)
    (gradient,) = torch.autograd.grad(scores[2], images)
    assert gradient[2].abs().max() > 0
    assert gradient[[0, 1, 3, 4]].abs().max() == 0


@pytest.mark.parametrize("box_size", [16, 24, 32, 50, 64])
@pytest.mark.parametrize("make", [template_critic, compact_critic, paper_critic])
def test_every_pixel_and_every_parameter_counts(make, box_size, generator):
    torch.manual_seed(0)
    critic = make(spec(box_size, 4))
    images = torch.randn(64, box_size, box_size, generator=generator, requires_grad=True)
    critic(images).square().sum().backward()
    seen = images.grad.abs().amax(0) > 0
    if make is compact_critic:  # pooling passes over some pixels, and over odd rows altogether
        assert seen.all()
    if make is template_critic:  # its window is a disc
        assert torch.equal(seen, fourier.soft_disc(box_size, 0.45 * box_size, 0.05 * box_size) > 0)
    for parameter in critic.parameters():
        assert parameter.grad.abs().max() > 0


@pytest.mark.parametrize(("box_size", "halvings"), [(16, 1), (24, 2), (32, 2), (64, 3)])
def test_compact_critic_doubles_channels_at_every_halving(box_size, halvings):
    critic = compact_critic(spec(box_size, 8))
    channels = [layer.out_channels for layer in critic.layers if isinstance(layer, nn.Conv2d)]
    assert channels == [8 * 2**i for i in range(halvings + 1)]


@pytest.mark.parametrize("make", [template_critic, compact_critic, paper_critic])
def test_only_a_template_critic_grows(make):
    """The others start afresh at every box."""
    assert isinstance(make(spec(16, 4)), Growing) == (make is template_critic)


# The template critic.

SIGMA = 1.2
BOXES = [(32, 14), (33, 14), (48, 21)]


def molecules(count, box_size, generator):
    """Centres (count, 6, 2) of Gaussians within a quarter of the box."""
    angle = 2 * math.pi * torch.rand(count, 6, generator=generator, dtype=torch.float64)
    distance = torch.rand(count, 6, generator=generator, dtype=torch.float64).sqrt()
    direction = torch.stack((angle.cos(), angle.sin()), dim=-1)
    return box_size / 4 * distance[..., None] * direction


def pictures(centres, box_size, angle=0.0):
    """(n, D, D) images of the molecules turned by `angle`, counterclockwise from x towards y."""
    cos, sin = math.cos(angle), math.sin(angle)
    centres = centres @ torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64)
    axis = torch.arange(box_size, dtype=torch.float64) - box_size // 2
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij")[::-1], dim=-1)
    distance = (grid[None, :, :, None] - centres[:, None, None]).square().sum(-1)
    return torch.exp(-distance / (2 * SIGMA**2)).sum(-1)


def fixed_critic(box_size, rings, templates=8, seed=0):
    """In float64, its weights fixed."""
    torch.manual_seed(seed)
    return TemplateCritic(box_size, rings, templates).double().requires_grad_(False)


def spread_error(result, expected):
    """Difference of scores relative to how much they differ from image to image."""
    return float((result - expected).norm() / (expected - expected.mean()).norm())


def band_limited(images):
    size = images.shape[-1]
    return fourier.irfft(fourier.rfft(images) * fourier.band_mask(size, 0.45 * size), size)


@pytest.mark.parametrize(("box_size", "rings"), BOXES)
def test_scores_do_not_change_when_an_image_is_turned(box_size, rings, generator):
    """Molecules turned analytically; the error is that of interpolation along rings (1 to 2 %)."""
    critic = fixed_critic(box_size, rings)
    centres = molecules(8, box_size, generator)
    scores = critic(5.0 * pictures(centres, box_size))
    assert scores.std() > 0.01
    for angle_deg in (90.0, 21.0, 57.0, -130.0):
        turned = critic(5.0 * pictures(centres, box_size, math.radians(angle_deg)))
        assert spread_error(turned, scores) < 0.04
    halfway = critic(5.0 * pictures(centres, box_size, math.pi))
    assert spread_error(halfway, scores) < 1e-5
    mirrored = critic(5.0 * pictures(centres * torch.tensor([-1.0, 1.0]), box_size))
    assert spread_error(mirrored, scores) > 0.2  # a mirror image is another image


@pytest.mark.parametrize(("box_size", "rings"), BOXES)
def test_quarter_turns_of_noise_turn_the_responses(box_size, rings, generator):
    """`dihedral` turns from y towards x. Noise reaches to the window's edge, where interpolation
    along rings is poorest: 12 to 16 % of the responses."""
    critic = fixed_critic(box_size, rings)
    images = band_limited(torch.randn(16, box_size, box_size, generator=generator).double())
    responses = critic.responses(images)
    for code, bound in ((1, 0.2), (2, 1e-4), (3, 0.2)):
        turned = critic.responses(fourier.dihedral(images, code))
        predicted = responses.roll(-code * len(critic.turns) // 4, 0)
        assert spread_error(turned, predicted) < bound


def test_responses_are_sums_over_orders_and_rings(generator):
    """Re Σ exp(i m φ) Σ conj(w) c term by term, with one number for every angle."""
    critic = fixed_critic(16, 6, templates=3)
    images = torch.randn(2, 16, 16, generator=generator).double()
    parts = critic.harmonics(images).numpy()
    scale = critic.harmonics.scale.numpy()
    real, imaginary = critic.templates.numpy()
    result = critic.responses(images).numpy()
    angles = len(critic.turns)
    assert result.shape == (angles, 3, 2)
    orders = critic.harmonics.orders
    for a, t, i in itertools.product(range(angles), range(3), range(2)):
        total = 0.0
        for m in range(orders):
            w = (real[m, t] + 1j * imaginary[m, t]) * scale[m]
            c = parts[m, :6, i] + 1j * parts[m, 6:, i]
            total += np.exp(2j * np.pi * m * a / angles) * (w.conj() * c).sum()
        assert result[a, t, i] == pytest.approx(total.real, abs=1e-4)


def test_scores_are_the_head_of_smooth_maxima(generator):
    """log mean exp(r + b) over the angles, then two linear layers."""
    critic = fixed_critic(16, 6, templates=3)
    critic.bias.copy_(torch.tensor([[0.3], [-2.0], [1.0]]))
    images = torch.randn(2, 16, 16, generator=generator).double()
    maxima = np.log(np.exp(critic.responses(images).numpy() + critic.bias.numpy()).mean(0))
    first, _, last = critic.head
    hidden = maxima.T @ first.weight.numpy().T + first.bias.numpy()
    hidden = np.where(hidden > 0, hidden, 0.1 * hidden)
    expected = hidden @ last.weight.numpy().T + last.bias.numpy()
    np.testing.assert_allclose(critic(images).numpy(), expected[:, 0], rtol=1e-6)


@pytest.mark.parametrize(("box_size", "rings"), BOXES)
def test_a_template_finds_its_own_image_and_its_angle(box_size, rings, generator):
    """Templates of eight molecules: each responds most to its own, and at the angle of its turn."""
    critic = fixed_critic(box_size, rings, templates=8)
    centres = molecules(8, box_size, generator)
    scale = critic.harmonics.scale[:, None, :, None]
    own = critic.harmonics(pictures(centres, box_size)).unflatten(1, (2, rings)) * scale
    own = own / own.flatten(0, 2).norm(dim=0)
    critic.templates.copy_(own.permute(1, 0, 3, 2))
    angles = len(critic.turns)
    step = 2 * math.pi / angles
    for angle in (0.0, 0.37, 1.0, -2.3):
        responses = critic.responses(pictures(centres, box_size, angle))
        assert responses.amax(0).argmax(0).tolist() == list(range(8))
        found = responses.argmax(0).diagonal() * step
        error = (found - angle + math.pi) % (2 * math.pi) - math.pi
        assert error.abs().max() < 0.6 * step
    # At angle 0 the response of a unit template is the norm of its image's harmonics.
    harmonics = critic.harmonics(pictures(centres, box_size)).unflatten(1, (2, rings)) * scale
    responses = critic.responses(pictures(centres, box_size))[0].diagonal()
    torch.testing.assert_close(responses, harmonics.flatten(0, 2).norm(dim=0))


@pytest.mark.parametrize(
    ("box_size", "rings", "larger", "more_rings"), [(32, 14, 48, 21), (33, 14, 64, 28)]
)
def test_a_grown_critic_scores_as_the_smaller_one(box_size, rings, larger, more_rings, generator):
    """Images padded in Fourier space, unitarily. Measured: molecules 0.3 to 0.7 % of the scores'
    spread; with noise, which reaches to the window's edge, 3 to 5 %."""
    small, large = fixed_critic(box_size, rings), fixed_critic(larger, more_rings, seed=1)
    small.bias.copy_(torch.randn(8, 1, generator=generator))
    clean = band_limited(5.0 * pictures(molecules(64, box_size, generator), box_size))
    noise = band_limited(torch.randn(64, box_size, box_size, generator=generator).double())

    def padded(images):
        return fourier.resample(images, larger) * (box_size / larger)

    assert spread_error(large(padded(clean)), small(clean)) > 0.5
    large.grow(small)
    assert spread_error(large(padded(clean)), small(clean)) < 0.012
    assert spread_error(large(padded(clean + noise)), small(clean + noise)) < 0.08


def test_what_a_grown_critic_gains_starts_at_zero_and_learns(generator):
    small, large = fixed_critic(16, 6), fixed_critic(24, 10, seed=1)
    large.grow(small)
    large.requires_grad_(True)
    large(torch.randn(4, 24, 24, generator=generator).double()).square().sum().backward()
    gained = torch.ones_like(large.templates, dtype=torch.bool)
    gained[:, : small.harmonics.orders, :, :6] = False
    assert (large.templates[gained] == 0).all()
    kept = (large.harmonics.scale > 0)[:, None].expand_as(large.templates)
    kept = kept & (torch.arange(large.harmonics.orders)[:, None, None] > 0)  # order 0 is real
    assert (large.templates.grad[gained & kept] != 0).all()
    small.templates.zero_()  # copied, not shared
    assert large.templates.abs().max() > 0


def test_templates_are_learnt_where_noise_has_power_and_nowhere_else(generator):
    critic = fixed_critic(32, 14).requires_grad_(True)
    critic(torch.randn(4, 32, 32, generator=generator).double()).square().sum().backward()
    kept = (critic.harmonics.scale > 0)[:, None].expand(-1, 8, -1)
    assert 0.4 < kept.double().mean() < 0.9
    real, imaginary = critic.templates.grad
    assert torch.equal(real != 0, kept)
    assert torch.equal(imaginary[1:] != 0, kept[1:])
    assert (imaginary[0].abs() < 1e-9 * real[0].abs().max()).all()  # harmonics of order 0 are real


def test_gradients_of_scores_equal_finite_differences(generator):
    critic = fixed_critic(16, 6, templates=4)
    images = torch.randn(3, 16, 16, generator=generator).double().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(images).sum(), images)
    for _ in range(3):
        step = 1e-5 * torch.randn(3, 16, 16, generator=generator).double()
        with torch.no_grad():
            difference = (critic(images + step) - critic(images - step)).sum() / 2
        assert float((gradient * step).sum()) == pytest.approx(float(difference), rel=1e-6)


@pytest.mark.parametrize("kind", ["gradient", "zero-centred"])
def test_penalties_of_a_template_critic_differentiate_twice(kind, generator):
    """The weights' gradients of a penalty on the images' gradients, in float64."""
    critic = fixed_critic(16, 6, templates=4).requires_grad_(True)
    real, fake = torch.randn(2, 3, 16, 16, generator=generator).double()

    def penalty():
        if kind == "gradient":
            fixed = torch.Generator().manual_seed(2)
            return losses.gradient_penalty(critic, real, fake, fixed)
        both = torch.cat((real, fake)).requires_grad_()
        return losses.zero_centred_penalty(critic(both), both)

    penalty().backward()
    moved = []
    for name, parameter in critic.named_parameters():
        if parameter.grad is None:
            continue
        moved.append(name)
        step = 1e-6 * torch.randn(parameter.shape, generator=generator).double()
        expected = float((parameter.grad * step).sum())
        values = []
        for sign in (1.0, -2.0):
            with torch.no_grad():
                parameter += sign * step
            values.append(penalty().item())
        with torch.no_grad():
            parameter += step
        assert (values[0] - values[1]) / 2 == pytest.approx(expected, rel=1e-4, abs=1e-13)
    assert {"templates", "bias", "head.0.weight", "head.2.weight"} <= set(moved)
