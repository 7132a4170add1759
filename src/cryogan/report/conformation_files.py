"""The folder `conformations` of a run, read from disk; only `latents.csv` and its maps must be."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.mrc import read_map

FloatArray = NDArray[np.float64]

_SHARES = "share_of_variance"


@dataclass(frozen=True)
class Conformations:
    """A series of maps in one frame, and the tables about it.

    Attributes:
        names: files of the n maps.
        volumes: (n, D, D, D).
        pixel_size_A: of all.
        latents: (n, m) latent of every map; m may be 0.
        weights: (n,) share of the particles that each map stands for; sum 1.
        differences: (n, n) relative differences of the maps, or None.
        amplitudes: (n, k) along the principal components, or None.
        shares: (k,) share of the variance of each component; empty without amplitudes.
    """

    names: list[str]
    volumes: Tensor
    pixel_size_A: float
    latents: FloatArray
    weights: FloatArray
    differences: FloatArray | None
    amplitudes: FloatArray | None
    shares: FloatArray

    @property
    def kind(self) -> Literal["path", "classes", "grid"]:
        """Maps in an order, classes (latents 0, 1 ... n - 1), or a full grid of two latents."""
        if self.latents.shape[1] == 2 and self.grid is not None:
            return "grid"
        if self.latents.shape[1] == 1:
            numbered = self.latents[:, 0] == np.arange(len(self.names))
            return "classes" if numbered.all() else "path"
        return "path"

    @property
    def grid(self) -> tuple[int, int] | None:
        """Numbers of values of the two latents, the last changing fastest; None if no such grid."""
        if self.latents.shape[1] != 2:
            return None
        axes = [np.unique(column) for column in self.latents.T]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
        full = points.shape == self.latents.shape and bool((points == self.latents).all())
        return (len(axes[0]), len(axes[1])) if full else None

    @property
    def mean(self) -> Tensor:
        """(D, D, D), weighted."""
        weights = torch.from_numpy(self.weights).to(self.volumes)
        return torch.einsum("n,nzyx->zyx", weights, self.volumes)


def read_conformations(folder: Path) -> Conformations | None:
    """The series that `latents.csv` lists; None if there is no such file.

    Raises:
        InputError: a file cannot be understood, or the maps do not share a box.
    """
    path = folder / "latents.csv"
    if not path.is_file():
        return None
    columns, names, values = _read_table(path)
    if not names or columns[-1] != "weight":
        raise InputError(
            f"{path} must list maps, their latents z0, z1 ... and, last, their weight; resume the "
            "run to rewrite the file."
        )
    weights = values[:, -1]
    if (weights < 0).any() or not weights.sum() > 0:
        raise InputError(
            f"The weights in {path} are not a distribution; make them 0 or more, not all 0."
        )
    maps = [read_map(folder / name) for name in names]
    for name, map_ in zip(names, maps, strict=True):
        if map_.volume.shape != maps[0].volume.shape:
            raise InputError(
                f"{folder / name} has another box than {names[0]}; resume the run to rewrite the "
                "maps."
            )
    differences = _read_matrix(folder / "differences.csv", names)
    amplitudes = _read_matrix(folder / "pca.csv", [*names, _SHARES])
    return Conformations(
        names,
        torch.stack([map_.volume for map_ in maps]),
        maps[0].pixel_size_A,
        values[:, :-1],
        weights / weights.sum(),
        differences,
        None if amplitudes is None else amplitudes[:-1],
        np.empty(0) if amplitudes is None else amplitudes[-1],
    )


def _read_matrix(path: Path, rows: list[str]) -> FloatArray | None:
    """The values of a table whose rows have these names; None if there is no such file."""
    if not path.is_file():
        return None
    _, names, values = _read_table(path)
    if names != rows:
        raise InputError(
            f"{path} does not have the rows that latents.csv asks for; resume the run to rewrite "
            "the file."
        )
    return values


def _read_table(path: Path) -> tuple[list[str], list[str], FloatArray]:
    """Column names, row names and values of a table whose first column names its rows."""
    with path.open(newline="", errors="replace") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    values = np.empty((len(rows), max(0, len(header) - 1)))
    for line, row in enumerate(rows, start=2):
        try:
            values[line - 2] = [float(cell) for cell in row[1:]]
        except ValueError as error:
            raise InputError(
                f"{path} line {line} is not a name and {len(header) - 1} numbers ({error}); "
                "resume the run to rewrite the file."
            ) from error
    if header[:1] != ["volume"] or not np.isfinite(values).all():
        raise InputError(
            f"{path} is not a table of finite numbers with the first column volume; resume the "
            "run to rewrite the file."
        )
    return header[1:], [row[0] for row in rows], values
