"""Comparison of maps and conformations with the truth, and the symmetry of maps."""

from pathlib import Path
from typing import overload

import torch

from cryogan.api.runs import read_run
from cryogan.conformations.folder import (
    conformations_folder,
    read_conformations,
    read_true_conformations,
)
from cryogan.conformations.series import Series
from cryogan.errors import InputError
from cryogan.evaluation import symmetry_search
from cryogan.evaluation.assigned_particles import read_assigned
from cryogan.evaluation.comparison import Comparison, compare_to_truth
from cryogan.evaluation.particle_evaluation import score_particles
from cryogan.evaluation.particle_scores import ParticleScores
from cryogan.evaluation.series_comparison import SeriesComparison, compare_series
from cryogan.io.mrc import Map, read_header, read_map
from cryogan.run.conformations import assigned_latents, conformation_basis
from cryogan.run.folder import add_truth
from cryogan.run.reconstruction import Reconstruction
from cryogan.symmetry import symmetry_matrices


@overload
def evaluate(
    found: Reconstruction | Map | Path | str,
    *,
    truth: Map | Path | str,
    pixel_size_A: float | None = None,
) -> Comparison: ...


@overload
def evaluate(
    found: Reconstruction | Series | Path | str,
    *,
    truth_conformations: Path | str,
    pixel_size_A: float | None = None,
) -> SeriesComparison: ...


def evaluate(
    found: Reconstruction | Map | Series | Path | str,
    *,
    truth: Map | Path | str | None = None,
    truth_conformations: Path | str | None = None,
    pixel_size_A: float | None = None,
) -> Comparison | SeriesComparison:
    """Compare a map, or conformations, with the truth, over rotation, shift and hand.

    Only here is a truth ever read. A run folder is not changed (`record_truth` does that).

    Args:
        found: a run, a map, or a file or folder of these.
        truth: map of the known structure.
        truth_conformations: or the folder `truth` of a simulation.
        pixel_size_A: of `found`, if it is a file or folder: it goes before its header's, where 0
            and 1 Å mean that it is not set. A truth without one must be in the box of `found`,
            whose pixel size it then has.

    Raises:
        InputError: not one truth is given, or a file cannot be read or compared.

    Example:
        >>> import cryogan as cg
        >>> phantom = cg.Map(cg.phantom_map(32, 6.0), 6.0)
        >>> found = cg.evaluate(phantom, truth=phantom)
        >>> round(found.correlation, 2), round(found.resolution_A(0.5), 2)
        (1.0, 12.0)
    """
    if (truth is None) == (truth_conformations is None):
        raise InputError("Give truth (one map) or truth_conformations (a folder): one of them.")
    if truth_conformations is not None:
        if isinstance(found, Map):
            raise InputError("One map cannot be compared with conformations; give a series.")
        series = found if isinstance(found, Series) else _series_of(found, pixel_size_A)
        return compare_series(series, read_true_conformations(Path(truth_conformations)))
    if isinstance(found, Series):
        raise InputError("A series is compared with truth_conformations, not with one map.")
    assert truth is not None
    mine = _map_of(found, pixel_size_A)
    return compare_to_truth(mine, truth if isinstance(truth, Map) else _truth_of(truth, mine))


def evaluate_particles(
    run: Reconstruction | Path | str,
    particles: Path | str,
    *,
    truth_conformations: Path | str,
    comparison: SeriesComparison | None = None,
    images: int = 100,
) -> ParticleScores:
    """Score the maps, latents, classes and poses of particles: CryoBench's scores.

    Classes of a set whose states have no coordinates, as of different molecules, are aligned each
    on its own to the state that most of their images show; all other maps as one series.

    Args:
        run: a finished run with conformations.
        particles: star file that `assign` and `write_particles` have made with it.
        truth_conformations: folder `truth` of the simulation.
        comparison: of the run, from `evaluate`, whose alignment is taken; computed by default.
        images: number of images whose maps are compared, at equal steps.

    Raises:
        InputError: a file lacks what is needed, or the truth is of another set.
    """
    if images < 1:
        raise InputError(f"images is {images}; give 1 or more.")
    folder = run.folder if isinstance(run, Reconstruction) else Path(run)
    basis = conformation_basis(folder)
    found = read_assigned(particles, assigned_latents(particles, basis.latent), truth_conformations)
    truth = (
        read_true_conformations(Path(truth_conformations))
        if comparison is None
        else comparison.truth
    )
    alignment, operators = None, None
    if truth.coordinate.shape[1] or not basis.latent.is_discrete:
        if comparison is None:
            comparison = evaluate(folder, truth_conformations=truth_conformations)
        alignment = comparison.alignment
        turn = alignment.rotation.double()
        imposed = symmetry_matrices(read_run(folder).symmetry).double()
        operators = turn @ imposed @ turn.T
    return score_particles(basis, truth, found, alignment, images=images, operators=operators)


def find_symmetry(
    found: Reconstruction | Map | Path | str,
    half2: Map | Path | str | None = None,
    *,
    pixel_size_A: float | None = None,
    resolution_A: float | None = None,
) -> symmetry_search.Symmetry:
    """The point group of a map in any orientation, with axes and evidence.

    Args:
        found: a run, whose half-maps are compared; or a map; or half-map 1, or files of these.
        half2: half-map 2, in the frame of half-map 1. The noise of one map alone is not known: it
            shows to which resolution a symmetry holds.
        pixel_size_A: of maps in files and of a run: it goes before their headers'.
        resolution_A: compare to this resolution at most.

    Raises:
        InputError: a map cannot be read, has no symmetry to be found, or two differ in box or
            pixel size; or a run is given with another map.

    Example:
        >>> import cryogan as cg
        >>> cg.find_symmetry(cg.Map(cg.phantom_map(32, 6.0, symmetry="D2"), 6.0)).group
        'D2'
    """
    given = [each for each in (found, half2) if each is not None]
    runs = [each for each in given if _is_run(each)]
    if runs and half2 is not None:
        name = runs[0].folder if isinstance(runs[0], Reconstruction) else runs[0]
        raise InputError(f"{name} is a run, which has half-maps of its own; give it alone.")
    if runs:
        run = found if isinstance(found, Reconstruction) else read_run(Path(str(found)))
        maps = [read_map(run.folder / name, pixel_size_A) for name in ("half1.mrc", "half2.mrc")]
    else:
        maps = [_map_of(each, pixel_size_A) for each in given]
    boxes = [(map_.volume.shape, round(map_.pixel_size_A, 4)) for map_ in maps]
    if len(set(boxes)) > 1:
        raise InputError(
            f"The half-maps have boxes of {' and '.join(str(tuple(b)) for b, _ in boxes)} voxels "
            f"of {' and '.join(f'{p:g}' for _, p in boxes)} Å; give two of one box and pixel size."
        )
    volumes = torch.stack([map_.volume for map_ in maps])
    return symmetry_search.find_symmetry(volumes, maps[0].pixel_size_A, resolution_A=resolution_A)


def _is_run(found: Reconstruction | Map | Path | str) -> bool:
    if isinstance(found, Map | Reconstruction):
        return isinstance(found, Reconstruction)
    return Path(found).is_dir()


def record_truth(run: Reconstruction | Path | str, comparison: Comparison) -> None:
    """Add a comparison of a run's map with the truth to its FSC file and summary."""
    add_truth(run.folder if isinstance(run, Reconstruction) else Path(run), comparison)


def _map_of(found: Reconstruction | Map | Path | str, pixel_size_A: float | None) -> Map:
    if isinstance(found, Map):
        return found
    if isinstance(found, Reconstruction):
        return found.map
    path = Path(found)
    if path.is_dir():
        if not (path / "summary.json").is_file():
            raise InputError(f"{path} holds no finished run; give a map, or finish the run first.")
        path = path / "map.mrc"
    return read_map(path, pixel_size_A)


def _truth_of(path: Path | str, mine: Map) -> Map:
    header = read_header(path)
    if header.known_pixel_size_A is not None:
        return read_map(path)
    if header.shape[0] != mine.volume.shape[-1]:
        raise InputError(
            f"{path} has no pixel size in its header, where 0 and 1 Å mean that it is not set, and "
            "another box than the map; write it into the header."
        )
    return read_map(path, mine.pixel_size_A)


def _series_of(found: Reconstruction | Path | str, pixel_size_A: float | None) -> Series:
    path = found.folder if isinstance(found, Reconstruction) else Path(found)
    return read_conformations(conformations_folder(path), pixel_size_A)
