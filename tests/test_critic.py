"""Critics against the published tables, and what penalties on single images ask of them."""

import pytest
import torch
from torch import nn

from cryogan.models.critic import compact_critic, paper_critic


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
    pooled, linear = conv_shapes(paper_critic(32, 96), 32)
    assert pooled == [(96, 16, 16), (192, 8, 8), (384, 4, 4), (768, 2, 2)]
    assert linear == [(3072, 50), (50, 1)]


def test_paper_critic_for_192_px_has_seven_blocks_and_fc_10():
    """CryoGAN's: blocks starting at 96 channels; few channels here, which keeps the test light."""
    pooled, linear = conv_shapes(paper_critic(192, 3), 192)
    sizes = (96, 48, 24, 12, 6, 3, 1)
    assert pooled == [(3 * 2**i, size, size) for i, size in enumerate(sizes)]
    assert linear == [(3 * 64, 10), (10, 1)]


def test_paper_blocks_are_convolution_pooling_and_leaky_relu():
    layers = list(paper_critic(32, 4).layers)
    for block in range(4):
        convolution, pooling, activation = layers[3 * block : 3 * block + 3]
        assert isinstance(convolution, nn.Conv2d)
        assert (convolution.kernel_size, convolution.padding) == ((3, 3), (1, 1))
        assert isinstance(pooling, nn.MaxPool2d)
        assert isinstance(activation, nn.LeakyReLU)
        assert activation.negative_slope == 0.1


@pytest.mark.parametrize("box_size", [16, 24, 32, 50, 64])
@pytest.mark.parametrize("make", [compact_critic, paper_critic])
def test_every_image_gets_a_score_of_its_own(make, box_size, generator):
    """Scores depend on no other image: that of an image alone is that of it in a batch."""
    torch.manual_seed(0)
    critic = make(box_size, 4).double()
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
@pytest.mark.parametrize("make", [compact_critic, paper_critic])
def test_every_pixel_and_every_parameter_counts(make, box_size, generator):
    torch.manual_seed(0)
    critic = make(box_size, 4)
    images = torch.randn(64, box_size, box_size, generator=generator, requires_grad=True)
    critic(images).square().sum().backward()
    if make is compact_critic:  # pooling passes over some pixels, and over odd rows altogether
        assert (images.grad.abs().amax(0) > 0).all()
    for parameter in critic.parameters():
        assert parameter.grad.abs().max() > 0


@pytest.mark.parametrize(("box_size", "halvings"), [(16, 1), (24, 2), (32, 2), (64, 3)])
def test_compact_critic_doubles_channels_at_every_halving(box_size, halvings):
    critic = compact_critic(box_size, 8)
    channels = [layer.out_channels for layer in critic.layers if isinstance(layer, nn.Conv2d)]
    assert channels == [8 * 2**i for i in range(halvings + 1)]
