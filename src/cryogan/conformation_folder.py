"""The folder `conformations` of a run: a series of maps in one frame, and tables about them."""

from pathlib import Path

import torch
from torch import Tensor

from cryogan.evaluation.conformations import compare_series
from cryogan.evaluation.series import Series
from cryogan.files import write_text
from cryogan.io.mrc import write_map

_COMPONENTS = 6  # of the principal component analysis, at most


def numbered_series(
    volumes: Tensor, pixel_size_A: float, weights: Tensor, latents: Tensor
) -> Series:
    """Volumes (n, D, D, D) with their weights (n,) and latents (n, d), as `vol_000.mrc` ..."""
    return Series(
        [f"vol_{number:03d}.mrc" for number in range(len(volumes))],
        volumes,
        pixel_size_A,
        weights.double() / float(weights.sum()),
        latents.double(),
    )


def agreement(first: Series, second: Series) -> dict[str, float | None]:
    """How well the conformations of two halves agree, for `summary.json`."""
    found = compare_series(second, first)
    return {
        "halves_mean_fsc_0.5_A": found.mean_resolution_A(),
        "halves_motion_fsc_0.5_A": found.motion_resolution_A,
        "amplitude_half1": found.true_diversity.amplitude,
        "amplitude_half2": found.diversity.amplitude,
    }


def write_conformations(folder: Path, series: Series, *, path: bool) -> None:
    """Write maps, latents, map differences, principal components and a ChimeraX script.

    - the maps, by their names;
    - `latents.csv`: name, latent z0 (z1) and weight of every map;
    - `differences.csv`: `‖V_i - V_j‖ / ‖mean‖` of all pairs, the mean without its average grey
      value;
    - `pca.csv`: amplitudes of the maps along the weighted series' principal components, in units
      of the same norm, and each component's share of the variance;
    - `morph.cxc`: opens the series in ChimeraX, as a morph if it is a path.

    Args:
        folder: made if need be.
        series: the maps.
        path: whether their order means anything.

    Raises:
        InputError: a file cannot be written.
    """
    folder.mkdir(exist_ok=True)
    for name, volume in zip(series.names, series.volumes, strict=True):
        write_map(folder / name, volume, series.pixel_size_A)
    axes = [f"z{axis}" for axis in range(series.coordinate.shape[1])]
    rows = torch.cat((series.coordinate, series.weight[:, None]), dim=1)
    _write_table(folder / "latents.csv", series.names, [*axes, "weight"], rows)
    departures = (series.volumes - series.mean).flatten(1).double()
    norm = float((series.mean - series.mean.mean()).norm())
    gram = departures @ departures.T / norm**2
    _write_table(folder / "differences.csv", series.names, series.names, _distances(gram))
    amplitudes, shares = _principal_components(gram, series.weight)
    names = [f"pc{number}" for number in range(1, len(shares) + 1)]
    table = torch.cat((amplitudes, shares[None]))
    _write_table(folder / "pca.csv", [*series.names, "share_of_variance"], names, table)
    write_text(folder / "morph.cxc", _chimerax(series.names, path))


def _distances(gram: Tensor) -> Tensor:
    """Euclidean distances (n, n) from inner products (n, n)."""
    square = gram.diagonal()[:, None] + gram.diagonal() - 2.0 * gram
    return square.clamp_min(0.0).sqrt()


def _principal_components(gram: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Amplitudes (n, k) of n departures along the principal components, and shares (k,).

    `gram` holds the departures' inner products; their weighted mean is zero.
    """
    root = weight.sqrt()
    values, vectors = torch.linalg.eigh(root[:, None] * gram * root)
    values, vectors = values.flip(0).clamp_min(0.0), vectors.flip(1)
    count = min(_COMPONENTS, len(weight) - 1)
    amplitudes = vectors * values.sqrt() / root.clamp_min(1e-12)[:, None]
    return amplitudes[:, :count], values[:count] / values.sum().clamp_min(1e-30)


def _write_table(path: Path, rows: list[str], columns: list[str], values: Tensor) -> None:
    lines = [",".join(("volume", *columns))]
    for name, row in zip(rows, values.tolist(), strict=True):
        lines.append(",".join((name, *(f"{value:.6f}" for value in row))))
    write_text(path, "\n".join(lines) + "\n")


def _chimerax(names: list[str], path: bool) -> str:
    lines = [
        "# ChimeraX: open this file from its own folder.",
        f"open {' '.join(names)}",
    ]
    if path and len(names) > 1:
        lines.append(f"volume morph #1-{len(names)} frames {5 * len(names)}")
    return "\n".join(lines) + "\n"
