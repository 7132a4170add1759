"""How well conformations are assigned to particles, against the known ones.

    cryogan assign DIR/particles.star RUN -o poses.star
    python benchmarks/assigned_conformations.py poses.star RUN DIR [--figure assigned.png]

Paths: correlation of assigned and true coordinate, and calibration: the distance between them, as
shares of the population, in units of the assigned spread (root mean square 1, 68 % within 1 and
95 % within 2 if Gaussian and right), with a figure. Classes: share of particles that are in the
right one, and the mean probability that they were assigned with, which should be the same.

Both: per-image area under the FSC (CryoBench) of the map assigned to each image with the image's
true state; beside it that of the true mean map, and of the run's maps if every image were given
the one that is best for its state.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cryogan.benchmark.curves import save_figure
from cryogan.conformations.folder import (
    conformations_folder,
    read_conformations,
    read_true_conformations,
)
from cryogan.evaluation.per_image import per_image_fsc_auc
from cryogan.evaluation.series_comparison import compare_series
from cryogan.evaluation.statistics import spearman
from cryogan.io.star import Table, read_star


def particles_of(star: Path) -> Table:
    """The table of particles of a star file."""
    return next(table for table in read_star(star) if "rlnAngleRot" in table)


def numbers(table: Table, label: str) -> Tensor:
    """A column (n,)."""
    return torch.from_numpy(table.numbers(label))


@dataclass(frozen=True)
class Places:
    """Where n particles are on a path of one axis, as shares of the population.

    Attributes:
        rho: Spearman correlation of assigned and true coordinate, before any turn.
        assigned: (n,) means, turned if the latent runs against the truth.
        spread: (n,) standard deviations.
        true: (n,) the share of particles before each one's state and half of that state's.
    """

    rho: float
    assigned: Tensor
    spread: Tensor
    true: Tensor

    @classmethod
    def of(cls, mean: Tensor, spread: Tensor, coordinate: Tensor) -> "Places":
        """From assigned latents and the true coordinates, each (n,)."""
        rho = spearman(mean, coordinate)
        assert rho is not None
        _, place, counts = coordinate.unique(return_inverse=True, return_counts=True)
        share = counts / len(coordinate)
        percentile = (share.cumsum(0) - share / 2)[place]
        return cls(rho, mean if rho > 0 else 1.0 - mean, spread, percentile)

    @property
    def apart(self) -> Tensor:
        """(n,) assigned minus true."""
        return self.assigned - self.true


def print_path(places: Places) -> None:
    """Print correlation and calibration along a path of one axis."""
    units = places.apart / places.spread
    within = [float((units.abs() < limit).double().mean()) for limit in (1, 2)]
    print(
        f"assigned and true coordinate: |Spearman rho| {abs(places.rho):.3f}\n"
        f"distance: rms {places.apart.square().mean().sqrt():.3f} of the path, assigned spread rms "
        f"{places.spread.square().mean().sqrt():.3f}\n"
        f"calibration: rms {units.square().mean().sqrt():.2f} spreads, {within[0]:.1%} within 1, "
        f"{within[1]:.1%} within 2"
    )


def plot_path(places: Places, output: Path) -> None:
    """Assigned against true places, how the assigned ones are distributed, and calibration."""
    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    both, share, error = figure.subplots(1, 3, width_ratios=(1.0, 0.5, 1.0))
    states = places.true.unique()
    edges = torch.cat((torch.zeros(1), (states[1:] + states[:-1]) / 2, torch.ones(1)))
    bins = torch.linspace(0.0, 1.0, 51)
    both.hist2d(
        places.true.numpy(), places.assigned.numpy(), (edges.numpy(), bins.numpy()), cmap="Blues"
    )
    middle = torch.stack([places.assigned[places.true == state].median() for state in states])
    both.plot(states, middle, "o", color="#f28e3c", mec="black", ms=5, label="median of a state")
    both.plot((0, 1), (0, 1), color="black", lw=0.8, ls="--")
    both.legend(loc="upper left", frameon=False)
    both.set(xlabel="true place on the path", ylabel="assigned place on the path", aspect="equal")
    share.hist(
        places.assigned,
        bins,
        density=True,
        orientation="horizontal",
        color="#9db2c4",
        label="assigned",
    )
    share.axvline(1.0, color="black", lw=0.8, ls="--", label="true")
    share.legend(loc="upper right", frameon=False, fontsize=9, handlelength=1.5)
    share.set(xlabel="density", xlim=(0, 3), ylim=(0, 1), yticklabels=[], box_aspect=2.0)
    order = places.spread.argsort()
    groups = order.tensor_split(20)
    spread, apart = (
        torch.stack([values[group].square().mean().sqrt() for group in groups])
        for values in (places.spread, places.apart)
    )
    limit = 1.1 * float(torch.cat((spread, apart)).max())
    error.plot((0, limit), (0, limit), color="black", lw=0.8, ls="--", label="right")
    error.plot(spread, apart, "o-", color="#f28e3c", label="twentieths of the particles")
    error.legend(loc="lower right", frameon=False)
    error.set(
        xlabel="assigned spread (of the path)",
        ylabel="true distance, rms (of the path)",
        xlim=(0, limit),
        ylim=(0, limit),
        aspect="equal",
    )
    save_figure(output, figure, dpi=150)


def print_classes(found: Tensor, certainty: Tensor, right: Tensor) -> None:
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
    parser.add_argument("--figure", type=Path, help="picture (PNG) to write, for one path")
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
        print_classes(volume, numbers(assigned, "cryoganClassProbability"), best[state])
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
            places = Places.of(mean[:, 0], spread, comparison.truth.coordinate[state, 0])
            print_path(places)
            if options.figure is not None:
                plot_path(places, options.figure)
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
