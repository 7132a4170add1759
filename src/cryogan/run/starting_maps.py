"""The maps of a finished run, for what goes on from them: refinement and assignment."""

from pathlib import Path

import torch
from torch import Tensor

from cryogan.conformations.folder import read_conformations
from cryogan.errors import InputError
from cryogan.io.mrc import read_map
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.likelihood.half_set import PowerSplit
from cryogan.objectives.likelihood.image_model import FIRST, ImageModel
from cryogan.objectives.likelihood.view_density import ViewDensity
from cryogan.particles import Particles
from cryogan.run.checkpoint import RESULT, load_arrays


def _result_of(folder: Path) -> dict[str, Tensor]:
    """What the objective kept of a run; nothing of an objective that keeps half-sets apart."""
    return load_arrays(folder / RESULT) if (folder / RESULT).is_file() else {}


def half_maps(folder: Path, particles: Particles) -> Tensor:
    """(2, D, D, D) half-maps of a run, in one frame: filtered and masked if it has such ones.

    Raises:
        InputError: they do not have the particles' field of view.
    """
    maps = [read_map(folder / f"half{number}.mrc") for number in (1, 2)]
    wanted_A = particles.box_size * particles.pixel_size_A
    for map_ in maps:
        found_A = map_.volume.shape[-1] * map_.pixel_size_A
        if abs(found_A / wanted_A - 1.0) > 0.02:
            raise InputError(
                f"The half maps of {folder} are {found_A:.1f} Å wide but the particles "
                f"{wanted_A:.1f} Å; give the particles that the run was made from."
            )
    result = _result_of(folder)
    return result.get("filtered", torch.stack([map_.volume for map_ in maps]))


def image_model_of(folder: Path) -> ImageModel:
    """Of the images of a run; that before any estimate, if it has none."""
    result = _result_of(folder)
    if "image_model" not in result:
        return FIRST
    contrast_sd, junk_share = result["image_model"].tolist()
    return ImageModel(contrast_sd, junk_share)


def power_splits_of(folder: Path) -> tuple[PowerSplit, ...]:
    """How a run divided the power of each half-set's images; none if it did not."""
    result = _result_of(folder)
    if "power_splits_width_A" not in result:
        return ()
    width_A = float(result["power_splits_width_A"])
    return tuple(PowerSplit.read(each, width_A) for each in result["power_splits"])


def view_densities_of(folder: Path) -> tuple[ViewDensity, ...]:
    """Of the viewing directions of each half-set, in the frame of the maps; none if unknown."""
    return tuple(ViewDensity(each) for each in _result_of(folder).get("view_density", ()))


def half_basis(
    folder: Path, particles: Particles, assumptions: Assumptions
) -> tuple[Tensor, Tensor | None]:
    """Basis volumes of both halves (2, C, D, D, D), and populations (classes,) if there are any.

    Those that the run has found, as they are; or each half's map, and basis volumes fitted to the
    maps of `conformations/`, the same for both. The half-maps alone (C = 1) if one structure is
    wanted or the run has no conformations.

    Raises:
        InputError: maps cannot be read, or do not belong to the particles or to one another.
    """
    maps = half_maps(folder, particles)
    wanted = assumptions.volumes
    if wanted == 1 or not (folder / "conformations").is_dir():
        return maps[:, None], None
    series = read_conformations(folder / "conformations")
    space = assumptions.latent_space
    if not space.fits(series.coordinate, wanted):
        raise InputError(
            f"The {len(series)} maps in {folder / 'conformations'} are not of a latent "
            f"'{assumptions.latent}'"
            + (f" with {assumptions.classes} classes" if space.is_discrete else "")
            + "; leave --latent and --classes as the run had them."
        )
    populations = series.weight.float() if space.is_discrete else None
    result = _result_of(folder)
    if "basis" in result and result["basis"].shape[1] == wanted:
        return result["basis"], populations
    if series.volumes.shape[-1] != maps.shape[-1]:
        raise InputError(
            f"The maps in {folder / 'conformations'} have another box than those of {folder}; "
            "run the reconstruction again."
        )
    coefficients = space.coefficients(series.coordinate.float(), wanted).double()
    fitted = torch.linalg.pinv(coefficients) @ series.volumes.double().flatten(1)
    basis = fitted.float().view(-1, *maps.shape[1:])
    basis[0] -= series.mean.to(basis)  # which each half's own map takes the place of
    own = torch.nn.functional.pad(maps[:, None], (0,) * 6 + (0, len(basis) - 1))
    return basis + own, populations
