"""Settings of expectation maximisation, and what follows from them for a box."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.likelihood.expectation import Level, levels_for
from cryogan.likelihood.landscape import SINGLE, Landscape
from cryogan.likelihood.polar import Polar
from cryogan.models.conformations import Latent, LatentKind


@dataclass(frozen=True)
class AscentConfig:
    """Settings of expectation maximisation.

    Attributes:
        iterations: the most passes over images once the halves are compared.
        subset: images of each half in a pass, for every component, until the resolution no longer
            improves, that of no component, and the distribution over a latent has settled; then
            passes see all images.
        full_passes: passes over all images that do not improve the resolution; then it ends.
        conformation_passes: the same for conformations, which settle more slowly.
        starts: from random numbers, of each half; the one that explains the images of the climb's
            middle band best goes on.
        climb_rings: bands of the climb from random numbers or poor maps, first and last, in
            Fourier pixels.
        climb_steps: batches in every band.
        climb_images: images in a batch.
        climb_nats: posteriors of the climb are softened, raised to a power below 1, so that the
            best pose of the average image explains no more than this (log-likelihood over that of
            noise alone): in the first band, and from the sixth on. Random numbers would otherwise
            be believed, and what is found first would stay.
        generator: one "volume", or a "subspace" of conformations.
        latent: of conformations (`models.conformations.Latent`).
        classes: number of classes of a discrete latent; their populations are learnt.
        basis: number of volumes that a subspace adds to the mean (a discrete latent's always has
            classes - 1).
        nodes: of the grid over which a latent is summed, along each of its axes.
        wake_steps: batches in which a subspace comes out of random numbers.
        wake_images: images of each half in such a batch.
        symmetry: point group (RELION's name).
        shift_percent: largest shift along x and y, in percent of the box.
        mask_radius: radius of the soft ball mask, as a fraction of half the box.
        mask_edge: width of its cosine edge, same unit.
        limit_A: poses are judged by nothing finer than this, whatever the halves agree on; 0 for no
            limit. For images whose fine shells follow from the coarse ones, as after denoising.
    """

    iterations: int = 8
    subset: int = 2500
    full_passes: int = 1
    conformation_passes: int = 1
    starts: int = 3
    climb_rings: tuple[int, int] = (5, 13)
    climb_steps: int = 6
    climb_images: int = 500
    climb_nats: tuple[float, float] = (12.0, 120.0)
    generator: Literal["volume", "subspace"] = "volume"
    latent: LatentKind = "uniform"
    classes: int = 2
    basis: int = 4
    nodes: int = 16
    wake_steps: int = 8
    wake_images: int = 1250
    symmetry: str = "C1"
    shift_percent: float = 0.0
    mask_radius: float = 0.85
    mask_edge: float = 0.15
    limit_A: float = 0.0

    def __post_init__(self) -> None:
        for name in (
            "iterations",
            "subset",
            "full_passes",
            "conformation_passes",
            "starts",
            "climb_steps",
            "climb_images",
            "wake_steps",
            "wake_images",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give at least 1.")
        if self.generator == "subspace":
            self._check_conformations()
        first, last = self.climb_rings
        if not 3 <= first <= last:
            raise InputError(
                f"climb_rings is {first} to {last}; give two rings, the first at least 3."
            )
        if not 0.0 < self.climb_nats[0] <= self.climb_nats[1]:
            raise InputError(
                f"climb_nats is {self.climb_nats[0]:g} to {self.climb_nats[1]:g}; give two "
                "positive numbers, the larger last."
            )
        if not 0.0 <= self.limit_A < math.inf:
            raise InputError(f"limit_A is {self.limit_A}; give a resolution in Å, or 0 for none.")
        if not 0.0 <= self.shift_percent <= 50.0:
            raise InputError(
                f"shift_percent is {self.shift_percent}; give a percentage of the box from 0 to 50."
            )

    @property
    def molecule(self) -> float:
        """Radius of the largest molecule, as a fraction of half the box: the edge counts half."""
        return self.mask_radius + 0.5 * self.mask_edge

    @property
    def reach(self) -> float:
        """Where there may be molecule in an image, shifts included; same unit."""
        return self.mask_radius + self.mask_edge + self.shift_percent / 50.0

    def _check_conformations(self) -> None:
        if self.latent == "discrete" and self.classes < 2:
            raise InputError(
                f"classes is {self.classes}; give at least 2, or --model homogeneous for a single "
                "volume."
            )
        if self.latent != "discrete" and not self.space.slowest <= self.basis:
            raise InputError(
                f"basis is {self.basis}, and a latent '{self.latent}' needs at least "
                f"{self.space.slowest} volumes beside the mean; give more."
            )
        if self.latent != "discrete" and self.nodes**self.space.dimension < 2 * self.components:
            raise InputError(
                f"nodes is {self.nodes}, too few for {self.components} volumes; give more, or a "
                "smaller basis."
            )

    @cached_property
    def space(self) -> Latent:
        """The distribution of the latent."""
        return Latent(self.latent, self.classes)

    @property
    def components(self) -> int:
        """C, the mean's included."""
        if self.generator == "volume":
            return 1
        return self.classes if self.latent == "discrete" else 1 + self.basis

    @property
    def last_passes(self) -> int:
        """Passes over all images that do not improve the resolution."""
        return self.full_passes if self.components == 1 else self.conformation_passes

    def landscape(self, components: int, prior: Tensor | None = None) -> Landscape:
        """Nodes of the latent, for the first components.

        Poses are searched with every class, or with the mean of a continuum, which is near enough:
        two or three conformations along it gained 0.1 to 0.2 nats of 35 an image (Hsp90, motion 1,
        development runs), at two to three times the cost.

        Args:
            components: C.
            prior: (L,) populations of a discrete latent's classes; equal by default.
        """
        if components == 1:
            return SINGLE
        space = self.space
        latent = space.grid(self.nodes**space.dimension)
        amounts = space.amounts(latent, components)
        anchors = amounts if space.kind == "discrete" else torch.eye(components)[:1]
        if prior is None:
            prior = torch.full((len(latent),), 1.0 / len(latent))
        return Landscape(latent, amounts, prior, anchors)


def box_for(rings: int, box_size: int) -> int:
    """Smallest box, a multiple of 8 px, that has these rings and a few more."""
    return min(box_size - box_size % 2, 8 * math.ceil((2 * rings + 4) / 8))


def limited(rings: int, width_A: float, config: AscentConfig) -> int:
    """Rings of a field of this width that poses may be judged by, at least 5."""
    return rings if config.limit_A == 0.0 else max(5, min(rings, int(width_A / config.limit_A)))


def polar_for(size: int, rings: int, config: AscentConfig, device: torch.device) -> Polar:
    """The rings for images in which molecules may be anywhere inside their mask."""
    return Polar(size, rings, min(config.reach, 1.0) * size / 2, device)


def search_for(polar: Polar, config: AscentConfig, rings: int | None = None) -> list[Level]:
    """The levels of a search on these rings; see `expectation.levels_for`."""
    half = polar.box_size / 2
    return levels_for(polar, config.molecule * half, config.shift_percent / 50.0 * half, rings)


def mask_for(size: int, config: AscentConfig, device: torch.device) -> Tensor:
    """(D, D, D) soft ball."""
    half = size / 2
    return fourier.soft_disc(size, config.mask_radius * half, config.mask_edge * half, 3, device)
