"""The folder `conformations` of a run, written and read: maps in one frame, tables about them."""

import csv
import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cryogan.conformations.series import Series
from cryogan.errors import InputError
from cryogan.files import write_text
from cryogan.io.mrc import read_map, write_map
from cryogan.io.tables import read_columns

_PRINCIPAL_COMPONENTS = 6  # at most
_SHARES = "share_of_variance"


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
    _write_table(folder / "pca.csv", [*series.names, _SHARES], names, table)
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
    count = min(_PRINCIPAL_COMPONENTS, len(weight) - 1)
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


def conformations_folder(path: Path) -> Path:
    """A run's folder of conformations; a folder that is no run is itself a folder of maps.

    Raises:
        InputError: a run without conformations, or no folder.
    """
    inside = path / "conformations"
    if inside.is_dir():
        return inside
    if not path.is_dir() or (path / "config.json").is_file():
        raise InputError(
            f"{path} holds no conformations; give the folder of a heterogeneous run, a folder of "
            "maps, or --truth to compare one map."
        )
    return path


def read_conformations(folder: Path, pixel_size_A: float | None = None) -> Series:
    """The maps that `latents.csv` lists, with latents z0, z1 ... and weights.

    Without `latents.csv` all maps (.mrc) of the folder by name, of equal weight, without latents.

    Raises:
        InputError: there is no map, one cannot be read, boxes or pixel sizes differ, or a latent
            or weight is not a number.
    """
    table = folder / "latents.csv"
    if not table.is_file():
        names = sorted(path.name for path in folder.glob("*.mrc"))
        if not names:
            raise InputError(f"{folder} holds neither latents.csv nor maps (.mrc).")
        return _series(
            folder, names, torch.ones(len(names)), torch.zeros(len(names), 0), pixel_size_A
        )
    axes = tuple(name for name in _header(table) if name[:1] == "z" and name[1:].isdecimal())
    *latent, weight = read_columns(table, (*axes, "weight"))
    names = _strings(table, "volume")
    latents = torch.stack(latent, dim=-1) if axes else torch.zeros(len(names), 0)
    return _series(folder, names, weight, latents, pixel_size_A, table)


def read_true_conformations(folder: Path) -> Series:
    """The true states that `cryogan simulate` left in its folder `truth`.

    Weights are the numbers of images that show each state, coordinates its latents.

    Raises:
        InputError: `states.csv` or a map is missing or cannot be read.
    """
    table = folder / "states.csv"
    if not table.is_file():
        raise InputError(f"{folder} holds no states.csv; give the folder truth of a simulation.")
    axes = tuple(name for name in _header(table) if name.startswith("latent_"))
    *latent, images = read_columns(table, (*axes, "images"))
    names = _strings(table, "map")
    latents = torch.stack(latent, dim=-1) if axes else torch.zeros(len(names), 0)
    series = _series(folder, names, images, latents, None, table)
    return replace(series, circular=tuple(axis.endswith("_circular") for axis in axes))


def _series(
    folder: Path,
    names: list[str],
    weight: Tensor,
    coordinate: Tensor,
    pixel_size_A: float | None,
    table: Path | None = None,
) -> Series:
    if bool((weight < 0).any()) or not float(weight.sum()) > 0:
        raise InputError(
            f"The weights in {table} are not a distribution; make them 0 or more, not all 0."
        )
    maps = [read_map(folder / name, pixel_size_A) for name in names]
    for name, map_ in zip(names, maps, strict=True):
        same_grid = map_.volume.shape == maps[0].volume.shape and math.isclose(
            map_.pixel_size_A, maps[0].pixel_size_A, rel_tol=1e-3
        )
        if not same_grid:
            raise InputError(
                f"{folder / name} has another box or pixel size than {names[0]}; give maps of "
                "one series."
            )
    return Series(
        names,
        torch.stack([map_.volume for map_ in maps]),
        maps[0].pixel_size_A,
        (weight / weight.sum()).double(),
        coordinate.double(),
    )


def _header(table: Path) -> list[str]:
    with table.open(newline="", errors="replace") as file:
        return next(csv.reader(file), [])


def _strings(table: Path, column: str) -> list[str]:
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if any(not row.get(column) for row in rows):
        raise InputError(f"{table} has no {column} in some row; name the file of each map.")
    return [row[column] for row in rows]


@dataclass(frozen=True)
class ConformationFolder:
    """What the folder `conformations` of a run holds.

    Attributes:
        series: the maps.
        differences: (n, n) relative differences of the maps, or None.
        amplitudes: (n, k) along the principal components, or None.
        shares: (k,) share of the variance of each component; empty without amplitudes.
    """

    series: Series
    differences: Tensor | None
    amplitudes: Tensor | None
    shares: Tensor


def read_conformation_folder(folder: Path) -> ConformationFolder | None:
    """The series that `latents.csv` lists, and the tables about it; None if there is no such file.

    Raises:
        InputError: a file cannot be understood, or the maps do not share a box.
    """
    if not (folder / "latents.csv").is_file():
        return None
    series = read_conformations(folder)
    differences = _read_matrix(folder / "differences.csv", series.names)
    amplitudes = _read_matrix(folder / "pca.csv", [*series.names, _SHARES])
    return ConformationFolder(
        series,
        differences,
        None if amplitudes is None else amplitudes[:-1],
        torch.zeros(0, dtype=torch.float64) if amplitudes is None else amplitudes[-1],
    )


def _read_matrix(path: Path, rows: list[str]) -> Tensor | None:
    """(rows, columns) float64 of a table whose rows have these names; None without such a file."""
    if not path.is_file():
        return None
    columns = tuple(_header(path)[1:])
    if _header(path)[:1] != ["volume"] or not columns or _strings(path, "volume") != rows:
        raise InputError(
            f"{path} does not have the column volume and the rows that latents.csv asks for; "
            "resume the run to rewrite the file."
        )
    return read_columns(path, columns).T
