"""How well conformations are assigned to particles, against the known ones.

    cryogan assign DIR/particles.star RUN -o poses.star
    python benchmarks/assigned_conformations.py poses.star RUN DIR

Paths: correlation of assigned and true coordinate, and calibration: the distance between them, as
shares of the population, in units of the assigned spread (root mean square 1, 68 % within 1 and
95 % within 2 if Gaussian and right). Classes: share of particles that are in the right one, and
the mean probability that they were assigned with, which should be the same.

Both: per-image area under the FSC (CryoBench) of the map assigned to each image with the image's
true state; beside it that of the true mean map, and of the run's maps if every image were given
the one that is best for its state.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from cryogan.evaluation.conformations import SeriesComparison, compare_series
from cryogan.evaluation.per_image import per_image_fsc_auc
from cryogan.evaluation.statistics import spearman
from cryogan.io.star import Table, read_star
from cryogan.run_folder import conformations_folder, read_conformations, read_true_conformations


def particles_of(star: Path) -> Table:
    """The table of particles of a star file."""
    return next(table for table in read_star(star) if "rlnAngleRot" in table)


def numbers(table: Table, label: str) -> Tensor:
    """A column (n,)."""
    return torch.from_numpy(table.numbers(label))


def judge_path(mean: Tensor, spread: Tensor, state: Tensor, comparison: SeriesComparison) -> None:
    """Print correlation and calibration along a path of one axis."""
    true = comparison.truth.coordinate[state, 0]
    rho = spearman(mean, true)
    assert rho is not None
    _, place, counts = true.unique(return_inverse=True, return_counts=True)
    share = counts / len(true)
    percentile = (share.cumsum(0) - share / 2)[place]
    apart = (mean if rho > 0 else 1.0 - mean) - percentile
    units = apart / spread
    within = [float((units.abs() < limit).double().mean()) for limit in (1, 2)]
    print(
        f"assigned and true coordinate: |Spearman rho| {abs(rho):.3f}\n"
        f"distance: rms {apart.square().mean().sqrt():.3f} of the path, assigned spread rms "
        f"{spread.square().mean().sqrt():.3f}\n"
        f"calibration: rms {units.square().mean().sqrt():.2f} spreads, {within[0]:.1%} within 1, "
        f"{within[1]:.1%} within 2"
    )


def judge_classes(found: Tensor, certainty: Tensor, right: Tensor) -> None:
    """Print how many particles are in the right class, and how sure that was."""
    hit = (found == right).double()
    print(f"right class: {hit.mean():.1%} of particles; mean probability {certainty.mean():.1%}")
    for low, high in ((0.0, 0.7), (0.7, 0.9), (0.9, 1.01)):
        mine = (certainty >= low) & (certainty < high)
        if mine.any():
            print(
                f"  assigned with {low:.1f} to {min(high, 1.0):.1f}: {mine.double().mean():.1%} of "
                f"particles, probability {certainty[mine].mean():.1%}, right {hit[mine].mean():.1%}"
            )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("poses", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path, metavar="DIR", help="folder of `cryogan simulate`")
    options = parser.parse_args()
    assigned = particles_of(options.poses)
    state = (
        numbers(particles_of(options.data / "truth" / "poses.star"), "rlnClassNumber").long() - 1
    )
    series = read_conformations(conformations_folder(options.run))
    comparison = compare_series(series, read_true_conformations(options.data / "truth"))
    best = comparison.auc.argmax(dim=0)  # (K,) map of each state
    if "cryoganClassProbability" in assigned:
        volume = numbers(assigned, "rlnClassNumber").long() - 1
        judge_classes(volume, numbers(assigned, "cryoganClassProbability"), best[state])
    else:
        axes = range(series.coordinate.shape[1])
        mean = torch.stack([numbers(assigned, f"cryoganLatent{axis}") for axis in axes], dim=1)
        volume = torch.cdist(mean, series.coordinate).argmin(dim=1)
        for axis in axes:
            for other in range(comparison.truth.coordinate.shape[1]):
                rho = spearman(mean[:, axis], comparison.truth.coordinate[state, other])
                print(f"z{axis} and true axis {other + 1}: Spearman rho {rho:.3f}")
        if comparison.truth.coordinate.shape[1] == mean.shape[1] == 1:
            spread = numbers(assigned, "cryoganLatentSpread0")
            judge_path(mean[:, 0], spread, state, comparison)
    size = comparison.truth.volumes.shape[-1]
    found = per_image_fsc_auc(comparison.fsc, size, volume, state)
    ideal = per_image_fsc_auc(comparison.fsc, size, best[state], state)
    print(
        f"per-image area under the FSC: mean {found.mean:.4f} (std {found.std:.4f}, median "
        f"{found.median:.4f}); best map for every image {ideal.mean:.4f}; true mean map "
        f"{comparison.mean_map_auc:.4f}"
    )


if __name__ == "__main__":
    main()
