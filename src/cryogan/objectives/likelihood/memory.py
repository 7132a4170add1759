"""Memory of the likelihood (`objectives.memory`): an EM iteration in the finest band of a run.

A trial has few images and few directions; what a run holds of more of them is known from sizes.
There are two phases, of which the larger counts: slices of references are given back before
equations are made, unless there are so many images that equations are made several times.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from cryogan.data.padding import PaddedBox
from cryogan.objectives.likelihood.bands import (
    box_for,
    harmonics_for,
    limited,
    mask_for,
    search_for,
)
from cryogan.objectives.likelihood.central_slices import slices_bytes
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.em_step import e_step
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.latent_grid import latent_grid_of
from cryogan.objectives.likelihood.normal_equations import solve
from cryogan.objectives.likelihood.observations import HELD_BYTES, bytes_of_image
from cryogan.objectives.likelihood.posterior import posterior_of, references_of
from cryogan.objectives.likelihood.search_levels import Level
from cryogan.objectives.memory import MemoryPlan, noise_particles, of_one_structure
from cryogan.particles import Particles
from cryogan.physics.circular_harmonics import CircularHarmonics

_IMAGES = 32
_SIGNAL = 80.0  # of a projection, in units of a pixel's noise: it makes posteriors broad
_CHUNK = 2048  # images at a time, as in `em_step`
_KEPT_BYTES = 2e9  # of slices of basis volumes, as in `posterior.SeriesSlices`
_POSES = 64  # of an image in normal equations
_BROAD = 0.5  # of what the broadest posteriors take: how broad they are only the images tell


@dataclass(frozen=True)
class _Iteration:
    """An iteration in the finest band to which half-maps can agree.

    Attributes:
        config: settings, for the padded box.
        padded: the box.
        count: images of a half-set that a process works on.
        rings: of the pose search.
        harmonics: the rings of the maps.
    """

    config: LikelihoodConfig
    padded: PaddedBox
    count: int
    rings: int
    harmonics: CircularHarmonics

    @classmethod
    def of(
        cls,
        config: LikelihoodConfig,
        particles: Particles,
        device: torch.device,
        members: int = 1,
    ) -> "_Iteration":
        padded = PaddedBox.of(particles.box_size, config.assumptions.reach)
        config, width_px = config.padded(padded.share), padded.width_px
        most = box_for(width_px, width_px) // 2 - 1
        rings = limited(most, width_px * particles.pixel_size_A, config)
        finest = min(math.ceil(1.25 * rings) + 3, most)
        harmonics = harmonics_for(box_for(finest, width_px), finest, config, device)
        return cls(config, padded, math.ceil(len(particles) / (2 * members)), rings, harmonics)

    @cached_property
    def levels(self) -> list[Level]:
        """Of the search."""
        return search_for(self.harmonics, self.config, self.rings)

    @cached_property
    def trial_levels(self) -> list[Level]:
        """Two of orientations, with cells and slices as in the last two of the run."""
        of_shifts = [level for level in self.levels if level.of_shifts]
        levels = self.levels[len(of_shifts) :]
        if len(levels) < 3:
            return self.levels
        first, *_, before, last = levels
        return [
            *of_shifts,
            replace(first, keep=before.keep, most=before.most),
            replace(last, nside=2 * first.nside),
        ]

    @property
    def basis_volumes(self) -> int:
        return self.config.assumptions.volumes

    @property
    def pairs(self) -> int:
        return self.basis_volumes * (self.basis_volumes + 1) // 2

    def slices_bytes(self, levels: Sequence[Level]) -> list[float]:
        """Of the references of every anchor and level, and of the slices of basis volumes."""
        anchors = len(latent_grid_of(self.config, self.basis_volumes).anchors)
        found = [0.0]
        for level in levels:
            band = self.harmonics.within(level.rings)
            directions = 12 * level.nside**2
            plane, rings = 8.0 * directions * len(band.order), 4.0 * directions * band.rings
            kept = slices_bytes(directions, band)
            found += anchors * [kept + rings if kept else 0.0]
        if self.basis_volumes > 1 and plane * self.basis_volumes <= _KEPT_BYTES:
            found.append(plane * self.basis_volumes + rings * self.pairs)
        return found

    @property
    def group(self) -> float:
        """Images of which equations are made together."""
        return max(_CHUNK, HELD_BYTES / bytes_of_image(self.count, self.harmonics))

    @property
    def observed_bytes(self) -> float:
        """Of the images of a group of equations, in parts and joined, and of their poses."""
        group = self.group
        image = bytes_of_image(self.count, self.harmonics) + 4 * self.harmonics.rings
        pose = 28 + 4 * (self.basis_volumes + self.pairs)
        held = min(self.count, group) * (image + 2.0 * _POSES * pose)
        held += min(self.count, _CHUNK) * 8.0 * len(self.harmonics.order)
        return held + (self.equations_bytes if self.count > group else 0.0)

    @property
    def equations_bytes(self) -> float:
        size = self.harmonics.box_size
        return 4.0 * (self.basis_volumes * size**3 + self.pairs * (2 * size) ** 3)

    @property
    def cells_bytes(self) -> float:
        """Of the posteriors of a chunk, where they are broad."""
        last, before = self.levels[-1], self.levels[-2:][0]
        cells = 8 * max(before.keep, before.most)
        if last.shift_steps:
            cells = max(last.keep, last.most)
        image = 64.0 * cells
        if self.basis_volumes > 1:
            points = len(latent_grid_of(self.config, self.basis_volumes).latent)
            image = 32.0 * (64 + 24 * points + 8 * (self.basis_volumes + self.pairs))
        return min(self.count, _CHUNK) * image

    @property
    def most_bytes(self) -> float:
        """Several times what a half-set's iteration is expected to take."""
        size, harmonics = self.harmonics.box_size, self.harmonics
        whole = 12 * min(self.count, _CHUNK) * self.padded.width_px**2 * 4.0
        spectra = 4.0 * ((2 * size) ** 3 * (self.basis_volumes + 8))
        spectra += 4.0 * (3 * size) ** 3 * (self.pairs + 8)
        points = max(256 * len(harmonics.order), 5_000_000) * (200.0 + 16 * self.basis_volumes)
        cells = max(
            max(before.keep, before.most) * len(harmonics.within(level.rings).order)
            for before, level in zip(self.levels, self.levels[1:] or self.levels, strict=False)
        )
        search = 16 * 4 * 8 * 8.0 * cells
        slices = self.slices_bytes(self.levels)
        known = sum(slices) + self.cells_bytes + self.observed_bytes
        return known + 2 * (whole + spectra + points + search + 3 * self.equations_bytes)


def memory_plan(config: LikelihoodConfig, particles: Particles, members: int) -> MemoryPlan:
    """See `objectives.memory.MeasuresMemory`."""
    device = torch.device("cpu")
    run = _Iteration.of(config, particles, device, members)
    one = of_one_structure(config.assumptions)
    alone = _Iteration.of(replace(config, assumptions=one), particles, device, members)
    options = {"--box (or a coarser --resolution)": 2 * alone.most_bytes / 1e9}
    if run.basis_volumes > 1:
        discrete = config.assumptions.latent == "discrete"
        more = 2 * (run.most_bytes - alone.most_bytes) / 1e9
        options["--classes" if discrete else "--basis-volumes"] = more
    slices, held = sum(run.slices_bytes(run.levels)), run.observed_bytes
    more_slices = slices - sum(run.slices_bytes(run.trial_levels))
    if run.count > run.group:  # they are there in both phases
        held, more_slices = held + slices, 0.0
    return MemoryPlan(
        where=f"in iterations at full resolution, in a box of {run.harmonics.box_size} px",
        size=_IMAGES,
        trials=(0, _IMAGES),
        held_GB=2 * held / 1e9,
        passing_GB=2 * more_slices / 1e9,
        options=options,
    )


def memory_trial(
    config: LikelihoodConfig, particles: Particles, size: int, members: int, device: torch.device
) -> None:
    """See `objectives.memory.MeasuresMemory`."""
    run = _Iteration.of(config, particles, device, members)
    half = HalfSet.of(noise_particles(particles, 512), None, run.padded)
    half = replace(half, particles=run.padded.pad_particles(particles))

    def task(number: int) -> None:
        if size == 0:
            _search(run, half, device)
        else:
            _iterate(run, half, min(run.count, size), device)

    with ThreadPoolExecutor(2) as pool:  # as in a run: threads share what is freed, or do not
        list(pool.map(task, (0, 1)))


def _search(run: _Iteration, half: HalfSet, device: torch.device) -> None:
    """What comes before normal equations: slices, chunks of images, and posteriors of a few."""
    latent_grid = latent_grid_of(run.config, run.basis_volumes)
    maps = _noise_maps(run, device)
    references = references_of(maps, latent_grid, run.harmonics, run.trial_levels)
    count = min(run.count, _CHUNK)
    for _ in range(min(2, math.ceil(run.count / _CHUNK))):  # posteriors last until the next
        seen = half.observed(torch.arange(count), run.harmonics, device)
        others = torch.ones(int(_BROAD * run.cells_bytes), dtype=torch.uint8, device=device)
        posterior_of(seen[:_IMAGES], references)
    del others


def _iterate(run: _Iteration, half: HalfSet, count: int, device: torch.device) -> None:
    """E-step and M-step."""
    maps = _noise_maps(run, device)
    found = e_step(
        half,
        torch.arange(count),
        maps,
        latent_grid_of(run.config, run.basis_volumes),
        run.trial_levels,
        run.rings,
        run.harmonics,
    )
    size = run.harmonics.box_size
    mask = mask_for(size, half.stack(size).pixel_size_A, run.config, device)
    prior = torch.ones(run.basis_volumes, size // 2 + 1, device=device)
    solve(found.equations, prior, mask, maps, iterations=1)


def _noise_maps(run: _Iteration, device: torch.device) -> Tensor:
    """(C, D, D, D) basis volumes."""
    size = run.harmonics.box_size
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(run.basis_volumes, *(size,) * 3, generator=generator).to(device)
    return noise * math.sqrt(_SIGNAL / size**3)
