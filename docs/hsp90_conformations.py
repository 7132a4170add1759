"""Picture of conformations of Hsp90: recovered beside true, and the one map of a homogeneous run.

cryogan simulate hsp90-continuous --condition motion1 --datadir ../shared/data -o SET
cryogan reconstruct SET/particles.star -o RUN --model heterogeneous
cryogan reconstruct SET/particles.star -o RUN2
python docs/hsp90_conformations.py RUN SET/truth --one-map RUN2

The recovered map below a state is the one that shares most information with it. One rotation,
shift, hand and scale serve the whole series, others the one map, below the mean of the true states.
True states stand at the box and pixel size of the recovered maps, and all are filtered alike and
shown at one threshold. Orange is where the *true* states differ from one another: the colours of
recovered maps are no result. Dotted: what moves, as it is in the first true state.
"""

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from surfaces import ALONG, OUTLINE, coverage, render, surface
from torch import Tensor

from cryogan import fourier
from cryogan.conformations.folder import (
    conformations_folder,
    read_conformations,
    read_true_conformations,
)
from cryogan.evaluation.alignment import align, apply_alignment
from cryogan.evaluation.series_comparison import SeriesComparison, compare_series
from cryogan.io.mrc import read_map

COLUMNS, SIDES = 5, "yx"
FINE = 96  # box of the surfaces
FILTER_A, VARIES_A = 10.0, 20.0  # low-pass filters: of all maps; of where the truth varies
SHOWN = 0.86  # height of the pictures that is shown
THRESHOLD = 0.38  # of the highest density of the true states' mean
VARIES = 0.5  # largest difference of true states, over the density shown, that is half orange


@dataclass(frozen=True)
class Stage:
    """What all pictures share.

    Attributes:
        level: density of the surfaces.
        moving: (D, D, D), 0 where the true states are alike to 1 where they differ.
        shift: (3,) voxels z, y, x that bring the molecule to the middle.
        pixel_size_A: of the pictured maps.
    """

    level: float
    moving: Tensor
    shift: list[int]
    pixel_size_A: float

    @classmethod
    def of(cls, truth: Tensor, pixel_size_A: float) -> "Stage":
        """For true states (K, D, D, D) of a pixel size."""
        mean = fine(truth.mean(dim=0), pixel_size_A)
        level = THRESHOLD * float(mean.max())
        difference = filtered(truth.amax(dim=0) - truth.amin(dim=0), VARIES_A, pixel_size_A)
        difference = fourier.resample(difference, FINE, 3).clamp(0.0) / (VARIES * level)
        covered = (fine(truth.amax(dim=0), pixel_size_A) >= level).nonzero()
        middle = (covered.amin(dim=0) + covered.amax(dim=0)) // 2
        return cls(
            level,
            difference / (1.0 + difference),
            (FINE // 2 - middle).tolist(),
            pixel_size_A * truth.shape[-1] / FINE,
        )

    def parts(self, volume: Tensor, pixel_size_A: float) -> Tensor:
        """(2, D, D, D) of a map: what stands still, and what moves."""
        volume = fine(volume, pixel_size_A)
        parts = torch.stack((volume * (1.0 - self.moving), volume * self.moving))
        return parts.roll(self.shift, dims=(1, 2, 3))

    def outline(self, parts: Tensor, side: str) -> Tensor:
        """Silhouette of what moves."""
        moves = torch.where(parts[1] > parts[0], parts.sum(dim=0), 0.0)
        return coverage(surface(moves, self.pixel_size_A, ALONG[side], self.level))


def filtered(volume: Tensor, resolution_A: float, pixel_size_A: float) -> Tensor:
    """A map (D, D, D) within the Nyquist sphere, after a Gaussian low-pass filter."""
    size = volume.shape[-1]
    gain = fourier.low_pass(size, resolution_A / pixel_size_A, 3)
    gain = gain * fourier.band_mask(size, size / 2, 3)
    return fourier.irfft(fourier.rfft(volume, 3) * gain, size, 3)


def fine(volume: Tensor, pixel_size_A: float) -> Tensor:
    """A map filtered for show, in the box of the surfaces."""
    return fourier.resample(filtered(volume, FILTER_A, pixel_size_A), FINE, 3)


def scale_to(volumes: Tensor, reference: Tensor) -> Tensor:
    """Maps times the one number, and plus the one, that bring them closest to the reference."""
    ours, theirs = volumes - volumes.mean(), reference - reference.mean()
    return ours * ((ours * theirs).sum() / ours.square().sum()) + reference.mean()


def one_map(run: Path, comparison: SeriesComparison) -> Tensor:
    """The map of a homogeneous run, aligned and scaled to the mean of the true states."""
    found, mean = read_map(run / "map.mrc"), comparison.truth.mean
    alignment = align(found.volume, mean, found.pixel_size_A)
    return scale_to(apply_alignment(found.volume, alignment, found.pixel_size_A), mean)


def picture(run: Path, truth: Path, one: Path | None, output: Path) -> None:
    """True states over their best maps, in two views."""
    states = read_true_conformations(truth)
    comparison = compare_series(read_conformations(conformations_folder(run)), states)
    print(comparison.table())
    true, pixel_size_A = comparison.truth.volumes, comparison.truth.pixel_size_A
    best = scale_to(comparison.generated.volumes[comparison.best_volume], true)
    chosen = torch.linspace(0, len(true) - 1, COLUMNS).round().int().tolist()
    with (truth / "states.csv").open(newline="") as file:
        what = [row["what"] for row in csv.DictReader(file)]
    titles = [f"state {state + 1}, {what[state]}" for state in chosen]
    pairs = [(true[state], best[state]) for state in chosen]
    if one is not None:
        titles.append("one map of all")
        pairs.append((comparison.truth.mean, one_map(one, comparison)))
    stage = Stage.of(true, pixel_size_A)
    draw(stage, titles, pairs, pixel_size_A, output)


def draw(
    stage: Stage,
    titles: list[str],
    pairs: list[tuple[Tensor, Tensor]],
    pixel_size_A: float,
    output: Path,
) -> None:
    """A column for each pair of true and recovered map, with the first true one's outline."""
    cell, left, top, gap = 2.3, 0.8, 0.45, 0.2  # inches
    tall = SHOWN * cell
    width = left + len(pairs) * cell + gap
    height = top + len(SIDES) * (2 * tall + gap)
    figure = Figure(figsize=(width, height), dpi=110)

    def label(x: float, y: float, text: str, rotation: float = 0.0) -> None:
        figure.text(
            x / width, y / height, text, rotation=rotation, ha="center", va="center", fontsize=14
        )

    lefts = [left + column * cell + gap * (column >= COLUMNS) for column in range(len(pairs))]
    for x, title in zip(lefts, titles, strict=True):
        label(x + cell / 2, height - 0.25, title)
    columns = [[stage.parts(volume, pixel_size_A) for volume in pair] for pair in pairs]
    for block, side in enumerate(SIDES):
        middle = height - top - block * (2 * tall + gap) - tall
        label(0.2, middle, f"seen along {side}", 90)
        outline = stage.outline(columns[0][0], side)
        for row, name in enumerate(("true", "recovered")):
            bottom = middle - row * tall
            label(0.6, bottom + tall / 2, name, 90)
            for x, column in zip(lefts, columns, strict=True):
                axes = figure.add_axes((x / width, bottom / height, cell / width, tall / height))
                axes.imshow(render(column[row], stage.pixel_size_A, ALONG[side], stage.level))
                axes.contour(outline, [0.5], colors=OUTLINE, linewidths=1.0, linestyles=":")
                axes.set_ylim(len(outline) * (0.5 + SHOWN / 2), len(outline) * (0.5 - SHOWN / 2))
                axes.axis("off")
    figure.savefig(output)
    Image.open(output).convert("RGB").quantize(128).save(output, optimize=True)  # a third as large


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a heterogeneous run")
    parser.add_argument("truth", type=Path, help="folder truth of the simulated set")
    parser.add_argument("--one-map", type=Path, help="folder of a homogeneous run of the set")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(__file__).parent / "images" / "hsp90_conformations.png",
    )
    options = parser.parse_args()
    picture(options.run, options.truth, options.one_map, options.output)
