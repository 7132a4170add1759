"""What an EM iteration of the likelihood costs, and which part of it: over box, band and shifts.

One iteration (E-step, normal equations, maps) over a few images of the phantom, with the true map
as reference, so that posteriors are as narrow as in the last iterations of a run. The
signal-to-noise ratio of a coefficient is the same in every box: that of images of -20 dB at 192 px.

A row is an iteration. Its parts, CPU seconds of each without those of the parts within it:

- slices: central slices of the map in all directions of the levels, or of those that are asked for;
- rings: images and CTFs read, filtered, and transformed to rings;
- coarse: scores of all poses of the first levels; `best_coarse`: the best of them;
- children: scores of finer orientations; shifts: of finer shifts;
- posterior: contrast, junk, probabilities and what remains of the search;
- residuals: noise from up to 300 images, and the density of viewing directions of all;
- rings_sum: images of one direction turned and added up; `gridding`: put back into Fourier space;
- finish: back to real space; `solve`: conjugate gradients.

The columns `image_ms` and `iteration_s` divide the total: slices, gridding, finish and solve count
for the iteration (the first three grow with images only until all directions are taken), the rest
for the images. Peak memory is that of the process.

    OMP_NUM_THREADS=1 python benchmarks/likelihood_profile.py -o benchmarks/results
    OMP_NUM_THREADS=1 python benchmarks/likelihood_profile.py -o OUT --boxes 128 --shares 1
"""

import argparse
import math
import multiprocessing
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from cryogan.allocator import keep_freed_memory
from cryogan.benchmark.rows import write_rows
from cryogan.objectives.likelihood import (
    backprojection,
    em_step,
    normal_equations,
    pose_search,
    posterior,
)
from cryogan.objectives.likelihood.backprojection import SlicesOfFrames, SlicesOfParallels
from cryogan.objectives.likelihood.bands import box_for, harmonics_for, mask_for, search_for
from cryogan.objectives.likelihood.central_slices import Reference
from cryogan.objectives.likelihood.exhaustive_search import ExhaustiveSearch, Scores
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.image_model import FIRST
from cryogan.objectives.likelihood.latent_grid import SINGLE_STRUCTURE
from cryogan.objectives.likelihood.search_levels import Level
from cryogan.physics.circular_harmonics import CircularHarmonics
from cryogan.physics.cylindrical_spectrum import CylindricalGrid
from cryogan.physics.distributions import Gaussian, PoseDistribution
from cryogan.physics.imaging import rescale_volume
from cryogan.run.trials import peak_GB
from phantom_sets import known_half_set, phantom_images

WIDTH_A = 240.0
SNR_192_DB = -20.0
SHIFT_SD_PERCENT = 2.0  # what is left of larger ones once images are centred
PARTS: tuple[tuple[str, Any, str], ...] = (
    ("slices", posterior, "references_of"),
    ("slices", em_step, "references_of"),
    ("slices", Reference, "_made"),
    ("rings", HalfSet, "observed"),
    ("coarse", ExhaustiveSearch, "of"),
    ("coarse", pose_search, "_everywhere"),
    ("best_coarse", Scores, "best"),
    ("children", pose_search, "_children"),
    ("shifts", pose_search, "_shifted"),
    ("posterior", em_step, "posterior_of"),
    ("residuals", em_step, "residuals"),
    ("residuals", em_step.ViewCounts, "of"),
    ("rings_sum", em_step, "normal_equations"),
    ("gridding", SlicesOfFrames, "add"),
    ("gridding", SlicesOfParallels, "add"),
    ("gridding", SlicesOfFrames, "kernel"),
    ("gridding", SlicesOfParallels, "kernel"),
    ("finish", backprojection, "volume_spectrum_adjoint"),
    ("finish", CylindricalGrid, "of_volume_adjoint"),
)
NAMES = (*dict.fromkeys(name for name, *_ in PARTS), "solve", "other")
OF_ITERATION = ("slices", "gridding", "finish", "solve")


class Clock:
    """CPU seconds by part, each without those of parts that it calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.within = ["other"]
        self.since = time.process_time()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What is done here counts for `name`."""
        self._count()
        self.within.append(name)
        try:
            yield
        finally:
            self._count()
            self.within.pop()

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """A function that counts for `name`."""

        @wraps(work)
        def run(*args: Any, **options: Any) -> Any:
            with self.part(name):
                return work(*args, **options)

        return run

    def _count(self) -> None:
        now = time.process_time()
        self.seconds[self.within[-1]] += now - self.since
        self.since = now


@contextmanager
def profiled() -> Iterator[Clock]:
    """Every part's functions count; of one thread."""
    clock = Clock()
    with ExitStack() as changed:
        for name, owner, function in PARTS:
            if not hasattr(owner, function):
                continue
            made = owner.__dict__.get(function)
            if isinstance(made, classmethod):
                inner = classmethod(clock.timed(name, made.__func__))
            else:
                inner = clock.timed(name, getattr(owner, function))
            changed.enter_context(patch.object(owner, function, inner))
        yield clock
        clock._count()


@dataclass(frozen=True)
class Prepared:
    """What an iteration of one half-set starts from.

    Attributes:
        half: the images.
        maps: (1, D, D, D) the true map, in the working box.
        levels: of the pose search.
        rings: its band.
        harmonics: the rings of the map to be made.
        prior: (1, D // 2 + 1) of that map.
        mask: (D, D, D) of that map.
        width_px: of the padded box, in the particles' pixels.
    """

    half: HalfSet
    maps: Tensor
    levels: list[Level]
    rings: int
    harmonics: CircularHarmonics
    prior: Tensor
    mask: Tensor
    width_px: int

    @classmethod
    def of(
        cls, box_size: int, share: float, shift_percent: float, images: int, device: torch.device
    ) -> "Prepared":
        """Simulate images.

        Args:
            box_size: of the particles.
            share: of the rings of the box that poses are searched on.
            shift_percent: standard deviation of the shifts, in percent of the box; 0 for none.
            images: how many.
            device: where the iteration is computed.
        """
        pixel_size_A = WIDTH_A / box_size
        snr_dB = SNR_192_DB - 20.0 * math.log10(box_size / 192)
        poses = PoseDistribution(shifts=Gaussian(shift_percent / 100.0 * WIDTH_A))
        made, truth = phantom_images(box_size, pixel_size_A, images, snr_dB, 0, poses=poses)
        widest_percent = shift_percent * 6**0.5  # as after `data.centring`
        known = known_half_set(made.particles, made.noise_sigma, truth, widest_percent)
        half, width_px = known.half, known.half.particles.box_size
        sd_percent = shift_percent * box_size / width_px
        assumed = replace(known.config.assumptions, shift_sd_percent=sd_percent)
        config = replace(known.config, assumptions=assumed)
        most = box_for(width_px, width_px) // 2 - 1
        rings = max(min(5, most), round(share * most))
        finest = min(math.ceil(1.25 * rings) + 3, most)
        size = box_for(finest, width_px)
        harmonics = harmonics_for(size, finest, config, device)
        return cls(
            half,
            rescale_volume(known.maps, size).to(device),
            search_for(harmonics, config, rings),
            rings,
            harmonics,
            em_step.signal_prior_of(half, size, finest, 1, config).to(device),
            mask_for(size, half.stack(size).pixel_size_A, config, device),
            width_px,
        )

    def e_step(self, images: int) -> em_step.EStep:
        """Of the first images."""
        return em_step.e_step(
            self.half,
            torch.arange(images),
            self.maps,
            SINGLE_STRUCTURE,
            self.levels,
            self.rings,
            self.harmonics,
            image_model=FIRST,
            generator=torch.Generator().manual_seed(0),
            view_images=images,
        )

    def solve(self, found: em_step.EStep) -> Tensor:
        """The next maps."""
        return normal_equations.solve(found.equations, self.prior, self.mask, self.maps)


def iteration(box_size: int, share: float, shift_percent: float, images: int) -> dict[str, object]:
    """One EM iteration of one half-set, in a process of its own; see `Prepared.of`."""
    torch.set_num_threads(1)
    keep_freed_memory()
    case = Prepared.of(box_size, share, shift_percent, images, torch.device("cpu"))
    before_GB = peak_GB()
    with profiled() as clock:
        found = case.e_step(images)
        with clock.part("solve"):
            case.solve(found)
    seconds = {name: clock.seconds[name] for name in NAMES}
    fixed_s = sum(seconds[name] for name in OF_ITERATION)
    total_s = sum(seconds.values())
    return {
        "box_size": box_size,
        "padded_px": case.width_px,
        "rings": case.rings,
        "nside": case.levels[-1].nside,
        "shift_percent": shift_percent,
        "images": images,
        "effective_poses": round(found.effective_poses, 1),
        "log_likelihood": round(found.log_likelihood, 2),
        "total_s": round(total_s, 2),
        "image_ms": round(1000.0 * (total_s - fixed_s) / images, 2),
        "iteration_s": round(fixed_s, 2),
        "before_GB": round(before_GB, 2),
        "peak_GB": round(peak_GB(), 2),
    } | {f"{name}_s": round(each, 3) for name, each in seconds.items()}


def main() -> None:
    """Measure every case, each in a fresh process, and write `likelihood_profile.csv`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--boxes", type=int, nargs="+", default=[32, 64, 128], metavar="D")
    parser.add_argument(
        "--shares", type=float, nargs="+", default=[0.3, 0.6, 1.0], help="of the box's rings"
    )
    parser.add_argument("--shifts", type=float, nargs="+", default=[0.0, SHIFT_SD_PERCENT])
    parser.add_argument("--images", type=int, default=300)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for box_size in options.boxes:
        for share in options.shares:
            for shift_percent in options.shifts:
                case = (box_size, share, shift_percent, options.images)
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    rows.append(pool.submit(iteration, *case).result())
                print(rows[-1], flush=True)
    write_rows(options.output / "likelihood_profile.csv", rows)


if __name__ == "__main__":
    main()
