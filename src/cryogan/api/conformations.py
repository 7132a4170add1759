"""Maps of a run with conformations, at latents of one's choice or those of particles."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from cryogan.conformations.basis import ConformationBasis
from cryogan.conformations.series import Series, numbered_series
from cryogan.errors import InputError
from cryogan.files import write_text
from cryogan.io.mrc import write_map
from cryogan.run.conformations import assigned_latents, conformation_basis
from cryogan.run.continuation import Assigned
from cryogan.run.reconstruction import Reconstruction

_MOST = 1000  # maps without rows that say so

Latents = Tensor | Sequence[float] | Sequence[Sequence[float]]


def volumes(
    run: Reconstruction | Path | str,
    latents: Latents | None = None,
    *,
    particles: Assigned | Path | str | None = None,
    rows: Sequence[int] | Tensor | None = None,
) -> Series:
    """Maps of a run with conformations, in the frame of its map.

    Args:
        run: a finished run, of either objective.
        latents: (n,) or (n, dimension): from 0 to 1, or class numbers from 0.
        particles: in place of these, what `assign` has found, or its star file: a map for each
            particle, at its mean latent or of its class.
        rows: which of the particles or latents, numbers from 0; all by default.

    Returns:
        n maps of equal weight, with their latents; all in memory
        (`write_volumes` holds one at a time).

    Raises:
        InputError: the run has one structure or its maps are of a U-Net, or a latent or row is out
            of range.

    Example:
        cg.volumes("run", [0.1, 0.9])
        cg.volumes("run", particles="poses.star", rows=[17])
    """
    basis, chosen, _ = _planned(run, latents, particles, rows)
    return numbered_series(
        torch.stack(list(basis.maps(chosen))), basis.pixel_size_A, torch.ones(len(chosen)), chosen
    )


def write_volumes(
    folder: Path | str,
    run: Reconstruction | Path | str,
    latents: Latents | None = None,
    *,
    particles: Assigned | Path | str | None = None,
    rows: Sequence[int] | Tensor | None = None,
) -> list[Path]:
    """Write such maps as `vol_000.mrc` ..., with `latents.csv`: volume, latents, weight, row.

    Args:
        folder: made if need be; it must hold no map and no latents.csv.
        run, latents, particles, rows: as of `volumes`.

    Returns:
        The maps' files.

    Raises:
        InputError: as of `volumes`, or the folder cannot be written or holds maps.
    """
    folder = Path(folder)
    taken = any(folder.glob("*.mrc")) or (folder / "latents.csv").exists()
    if taken or (folder.exists() and not folder.is_dir()):
        raise InputError(
            f"{folder} holds maps or latents.csv already, or is a file; give another folder."
        )
    basis, chosen, numbers = _planned(run, latents, particles, rows)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(
            f"Cannot make the folder {folder}: {error.strerror}; choose another place."
        ) from error
    return list(_written(folder, basis, chosen, numbers))


def _written(
    folder: Path, basis: ConformationBasis, latents: Tensor, rows: Tensor
) -> Iterator[Path]:
    digits = max(3, len(str(len(latents) - 1)))
    axes = [f"z{axis}" for axis in range(latents.shape[1])]
    lines = [",".join(("volume", *axes, "weight", "row"))]
    for number, volume in enumerate(basis.maps(latents)):
        name = f"vol_{number:0{digits}d}.mrc"
        write_map(folder / name, volume, basis.pixel_size_A)
        values = (f"{value:.6f}" for value in latents[number].tolist())
        lines.append(",".join((name, *values, f"{1.0 / len(latents):.8f}", str(int(rows[number])))))
        yield folder / name
    write_text(folder / "latents.csv", "\n".join(lines) + "\n")


def _planned(
    run: Reconstruction | Path | str,
    latents: Latents | None,
    particles: Assigned | Path | str | None,
    rows: Sequence[int] | Tensor | None,
) -> tuple[ConformationBasis, Tensor, Tensor]:
    """The basis, latents (n, dimension) and their rows (n,)."""
    if (latents is None) == (particles is None):
        raise InputError("Give latents, or particles that have them: one of the two.")
    basis = conformation_basis(run.folder if isinstance(run, Reconstruction) else Path(run))
    if latents is not None:
        found = torch.as_tensor(latents, dtype=torch.float64)
        found = found[:, None] if found.ndim == 1 else found
    elif isinstance(particles, Assigned):
        found = _of(particles, basis)
    else:
        assert particles is not None
        found = assigned_latents(particles, basis.latent)
    if rows is None:
        chosen = torch.arange(len(found))
        if len(chosen) > _MOST:
            raise InputError(
                f"There are {len(chosen):,} particles or latents and a map of each would be many; "
                "choose some rows."
            )
    else:
        chosen = torch.as_tensor(rows, dtype=torch.int64)
        wrong = (chosen < 0) | (chosen >= len(found))
        if len(chosen) == 0 or bool(wrong.any()):
            which = f"row {int(chosen[wrong][0])}" if len(chosen) else "no row"
            raise InputError(
                f"The rows name {which}, but there are {len(found):,}, counted from 0; choose "
                "among them."
            )
    basis.check(found[chosen])
    return basis, found[chosen], chosen


def _of(particles: Assigned, basis: ConformationBasis) -> Tensor:
    """(n, dimension) latents of what `assign` has found."""
    if basis.latent.is_discrete:
        return particles.class_number.double()[:, None] - 1.0
    names = [f"cryoganLatent{axis}" for axis in range(basis.latent.dimension)]
    if not all(name in particles.columns for name in names):
        raise InputError(
            "The particles have no latents of this run; assign them with it, and not with another."
        )
    return torch.stack([particles.columns[name] for name in names], dim=1).double()
