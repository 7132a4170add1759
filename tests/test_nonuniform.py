"""Spectra at any frequencies against explicit sums."""

import math

import pytest
import torch

from cryogan.physics.nonuniform import SpectrumSampler


@pytest.mark.parametrize("box_size", [16, 38])
def test_spectra_are_explicit_sums(box_size: int, generator: torch.Generator) -> None:
    """At frequencies of both signs, on the axes and next to Nyquist; 2e-6 of the rms measured."""
    images = torch.randn(70, box_size, box_size, generator=generator)  # more than a part of them
    axis = torch.arange(box_size) - box_size // 2
    window = (axis[:, None].square() + axis.square() < (box_size / 2) ** 2).float()
    frequency = 0.49 * (2.0 * torch.rand(200, 2, generator=generator) - 1.0)
    edge = 0.5 - 1.0 / box_size
    corners = [[0.0, 0.0], [edge, 0.0], [-edge, 0.1], [0.0, -edge], [1e-3, edge], [-1e-3, -edge]]
    frequency = torch.cat((frequency, torch.tensor(corners)))
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    position = torch.stack((x, y), -1).view(-1, 2).double()
    phase = -2.0 * math.pi * position @ frequency.double().T
    inside = (images * window).flatten(1).double()
    wanted = torch.complex(inside @ phase.cos(), inside @ phase.sin())
    found = SpectrumSampler.of(window, frequency)(images)
    rms = float(wanted.abs().square().mean().sqrt())
    assert float((found - wanted).abs().max()) < 1e-5 * rms
