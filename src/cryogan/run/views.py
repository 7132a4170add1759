"""What a likelihood run tells of the density of viewing directions."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cryogan.evaluation.directional import sampling_compensation
from cryogan.io.tables import write_columns
from cryogan.objectives.likelihood.orientation_grid import orientation_grid
from cryogan.objectives.likelihood.view_density import NSIDE, ViewDensity
from cryogan.physics.rotations import matrix_to_euler

_SCF_RADIUS = 5.0  # Fourier pixels: the slab of a view is as thick as a cell of the grid is wide


def write_view_density(folder: Path, weight: Tensor) -> dict[str, Any]:
    """Write `view_density.csv`; what `summary.json` tells of it.

    Args:
        folder: of the run.
        weight: (2, 768) `ViewDensity.weight` of both half-sets, in the frame of the maps.

    Raises:
        InputError: the file cannot be written.
    """
    frame = orientation_grid(NSIDE, torch.device("cpu")).frame
    rot_deg, tilt_deg, _ = matrix_to_euler(frame.double()).T
    columns = {"cell": torch.arange(len(frame)), "rot_deg": rot_deg, "tilt_deg": tilt_deg}
    columns |= {"half1": weight[0], "half2": weight[1]}
    write_columns(folder / "view_density.csv", columns)
    mean = weight.mean(dim=0)
    scf = sampling_compensation(frame[:, :, 2], mean, fourier_radius=_SCF_RADIUS)
    return {
        "evenness": round(ViewDensity(mean).evenness, 4),
        "highest": round(float(mean.max()), 3),
        "lowest": round(float(mean.min()), 3),
        "scf_star": round(scf.scf_star, 4),
    }
