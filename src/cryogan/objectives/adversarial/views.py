"""The orientations that simulated images are drawn from."""

from functools import lru_cache
from pathlib import Path

import healpix
import numpy as np
import torch

from cryogan.errors import InputError
from cryogan.io.tables import read_columns
from cryogan.objectives.adversarial.config import AdversarialConfig
from cryogan.physics.distributions import (
    AngularCentralGaussian,
    Orientations,
    SphereDensity,
    Uniform,
)

_FILE = "view_density.csv"


def orientations_of(config: AdversarialConfig) -> Orientations:
    """Uniform, as `view_sigma` says, or as a likelihood run has found them.

    Raises:
        InputError: the density cannot be read, or both are given.
    """
    sigma = config.assumptions.view_sigma
    if config.view_density is not None:
        if sigma != 1:
            raise InputError("Give --view-sigma or --adversarial.view_density, not both.")
        return _read(config.view_density)
    return Uniform() if sigma == 1 else AngularCentralGaussian(sigma)


@lru_cache(maxsize=4)
def _read(name: str) -> SphereDensity:
    """The mean density of both half-sets."""
    path = Path(name) / _FILE if Path(name).is_dir() else Path(name)
    cell, *halves = read_columns(path, ("cell", "half1", "half2"))
    weight = torch.stack(halves).mean(dim=0)
    nside = int((len(cell) / 12) ** 0.5)
    in_order = torch.equal(cell, torch.arange(len(cell)).double())
    if 12 * nside**2 != len(cell) or nside & (nside - 1) or not in_order or not (weight > 0).all():
        raise InputError(
            f"{path} is no density of viewing directions on a HEALPix grid; give the {_FILE} of a "
            "likelihood run, or its folder."
        )
    ring = torch.from_numpy(healpix.ring2nest(nside, np.arange(len(cell))))
    return SphereDensity(weight[ring])
