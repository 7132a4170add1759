"""The orientations that simulated images are drawn from."""

import hashlib
import math
from pathlib import Path
from typing import Any

import healpix
import numpy as np
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.tables import read_columns
from cryogan.objectives.adversarial.config import AdversarialConfig
from cryogan.physics.distributions import (
    AngularCentralGaussian,
    Orientations,
    SphereDensity,
    Uniform,
)
from cryogan.symmetry import symmetry_matrices

_FILE = "view_density.csv"
_COMPARED = 8  # nside: finer grids are averaged to this one before they are compared
_UNLIKE = 0.05  # of the mean density


def orientations_of(config: AdversarialConfig) -> Orientations:
    """Uniform, as `view_sigma` says, or as a likelihood run has found them.

    Raises:
        InputError: the density cannot be read or lacks the symmetry, or both are given.
    """
    sigma = config.assumptions.view_sigma
    if config.view_density is not None:
        if sigma != 1:
            raise InputError("Give --view-sigma or --adversarial.view_density, not both.")
        weight = _read(config.view_density)
        if Path(config.view_density).is_file():
            _require_symmetry(weight, config.assumptions.symmetry, config.view_density)
        nside = healpix.npix2nside(len(weight))
        return SphereDensity(weight[torch.from_numpy(healpix.ring2nest(nside, _cells(nside)))])
    return Uniform() if sigma == 1 else AngularCentralGaussian(sigma)


def views_digest(config: AdversarialConfig) -> str | None:
    """A short name for the density that `view_density` holds; None without one.

    Raises:
        InputError: it cannot be read.
    """
    if config.view_density is None:
        return None
    return hashlib.sha256(_read(config.view_density).numpy().tobytes()).hexdigest()[:16]


def _read(name: str) -> Tensor:
    """(12 nside²,) mean density of both half-sets, nested numbering."""
    path = Path(name) / _FILE if Path(name).is_dir() else Path(name)
    cell, *halves = read_columns(path, ("cell", "half1", "half2"))
    weight = torch.stack(halves).mean(dim=0)
    nside = math.isqrt(len(cell) // 12)
    in_order = torch.equal(cell, torch.arange(len(cell)).double())
    if 12 * nside**2 != len(cell) or nside & (nside - 1) or not in_order or not (weight > 0).all():
        raise InputError(
            f"{path} is no density of viewing directions on a HEALPix grid; give the {_FILE} of a "
            "likelihood run, or its folder."
        )
    return weight


def _require_symmetry(weight: Tensor, symmetry: str, name: str) -> None:
    """Refuse a density that is not the same in equivalent directions.

    It is compared through a kernel of the width of a cell: cells themselves are not equivalent.
    """
    nside = min(healpix.npix2nside(len(weight)), _COMPARED)
    coarse = weight.view(12 * nside**2, -1).mean(dim=1) / weight.mean()
    centre = torch.from_numpy(np.stack(healpix.pix2vec(nside, _cells(nside), nest=True), axis=1))
    width = math.sqrt(4.0 * math.pi / len(coarse))

    def smooth(direction: Tensor) -> Tensor:
        kernel = ((direction @ centre.T - 1.0) / width**2).exp()
        return (kernel @ coarse) / kernel.sum(dim=1)

    here = smooth(centre)
    for operator in symmetry_matrices(symmetry)[1:].double():
        apart = float((smooth(centre @ operator.T) - here).abs().max())
        if apart > _UNLIKE:
            raise InputError(
                f"The viewing directions of {name} lack the symmetry {symmetry}: densities in "
                f"equivalent directions differ by {100 * apart:.0f} % of the mean; give those of a "
                f"run that has imposed {symmetry}, or --sym C1."
            )


def _cells(nside: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.arange(healpix.nside2npix(nside))
