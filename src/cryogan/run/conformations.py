"""The conformations of a finished run: maps at any latent, latents of assigned particles."""

from pathlib import Path

import torch
from torch import Tensor

from cryogan.conformations.basis import ConformationBasis, fitted_basis
from cryogan.conformations.folder import conformations_folder, read_conformations
from cryogan.conformations.latent import Latent
from cryogan.errors import InputError
from cryogan.io.relion_columns import particle_table
from cryogan.io.star import read_star
from cryogan.run.checkpoint import RESULT, load_arrays
from cryogan.run.folder import read_run


def conformation_basis(folder: Path) -> ConformationBasis:
    """What gives the maps of a run at any latent, in the frame of its `map.mrc`.

    Of the maps in `conformations/`; where these are too few to tell the basis volumes, the mean of
    those of both half-sets, if the run has kept them.

    Raises:
        InputError: the folder holds no finished run, or one of one structure, or its maps are no
            linear function of basis volumes.
    """
    assumptions = read_run(folder).objective.config.assumptions
    if assumptions.latent is None:
        raise InputError(
            f"{folder} has one structure and no latent; give a run made with --model heterogeneous."
        )
    series = read_conformations(conformations_folder(folder))
    found = fitted_basis(series, assumptions.latent_space, assumptions.volumes)
    if found is not None:
        return found
    result = load_arrays(folder / RESULT) if (folder / RESULT).is_file() else {}
    if "basis" not in result:
        raise InputError(
            f"The {len(series)} maps in {folder / 'conformations'} do not tell "
            f"{assumptions.volumes} basis volumes; give a run with fewer, by --basis-volumes."
        )
    return ConformationBasis(assumptions.latent_space, result["basis"].mean(0), series.pixel_size_A)


def assigned_latents(star: Path | str, latent: Latent) -> Tensor:
    """(n, dimension) latents that `cryogan assign` has written; of classes, their number from 0.

    Raises:
        InputError: the file lacks them.
    """
    table = particle_table(read_star(star), star)
    if latent.is_discrete:
        labels = ["rlnClassNumber"]
    else:
        labels = [f"cryoganLatent{axis}" for axis in range(latent.dimension)]
    missing = [label for label in labels if label not in table]
    if missing:
        raise InputError(
            f"{star} lacks {', '.join(missing)}; give the star file that cryogan assign has "
            "written with this run."
        )
    values = torch.stack([torch.from_numpy(table.numbers(label)) for label in labels], dim=1)
    return values - 1.0 if latent.is_discrete else values.clamp(0.0, 1.0)
