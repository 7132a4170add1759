"""Settings of expectation maximisation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cryogan.errors import InputError
from cryogan.objectives.assumptions import Assumptions

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LikelihoodConfig:
    """Settings of expectation maximisation (EM).

    Attributes:
        iterations: the most EM iterations of the refinement.
        subset_size: images of each half-set in an iteration, for every basis volume, until the
            resolution no longer improves, that of no basis volume, and the distribution over a
            latent is constant; then iterations take all images.
        full_iterations: iterations over all images that do not improve the resolution, after which
            the refinement ends.
        conformation_iterations: the same for conformations, which converge more slowly.
        initialisations: random initialisations of each half-set; the one of the highest
            log-likelihood in the middle band of the initial model continues.
        initial_attempts: the most initial models of each half-set, until two of them agree.
        initial_rings: bands of the initial model (frequency marching), first and last, in Fourier
            pixels.
        initial_batches: batches in every band.
        initial_batch_size: images in a batch.
        annealing: posteriors of the initial model are annealed: raised to a power below 1, such
            that the log-likelihood of the best pose of the average image, over that of noise alone,
            is no more than this: in the first band, and from the sixth on. Without it, features
            of the random initialisation persist.
        latent_grid_points: of the latent grid, along each axis of the latent; there are more where
            the basis volumes need them, two for each.
        conformation_batches: batches of the initialisation of conformations.
        conformation_batch_size: images of each half-set in such a batch.
        view_density: whether the density of viewing directions is estimated, or uniform.
        pose_resolution_A: finest resolution at which poses are searched, whatever the FSC cut-off;
            0 for no limit. For images whose fine shells follow from the coarse ones, as after
            denoising.
        assumptions: what is assumed of the sample.
    """

    iterations: int = 8
    subset_size: int = 2500
    full_iterations: int = 1
    conformation_iterations: int = 1
    initialisations: int = 3
    initial_attempts: int = 3
    initial_rings: tuple[int, int] = (5, 13)
    initial_batches: int = 6
    initial_batch_size: int = 500
    annealing: tuple[float, float] = (12.0, 120.0)
    latent_grid_points: int = 16
    conformation_batches: int = 8
    conformation_batch_size: int = 1250
    view_density: bool = True
    pose_resolution_A: float = 0.0
    assumptions: Assumptions = field(default_factory=Assumptions)

    def __post_init__(self) -> None:
        for name in (
            "iterations",
            "subset_size",
            "full_iterations",
            "conformation_iterations",
            "initialisations",
            "initial_attempts",
            "initial_batches",
            "initial_batch_size",
            "latent_grid_points",
            "conformation_batches",
            "conformation_batch_size",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give at least 1.")
        first, last = self.initial_rings
        if not 3 <= first <= last:
            raise InputError(
                f"initial_rings is {first} to {last}; give two rings, the first at least 3."
            )
        if not 0.0 < self.annealing[0] <= self.annealing[1]:
            raise InputError(
                f"annealing is {self.annealing[0]:g} to {self.annealing[1]:g}; give two "
                "positive numbers, the larger last."
            )
        if not 0.0 <= self.pose_resolution_A < math.inf:
            raise InputError(
                f"pose_resolution_A is {self.pose_resolution_A}; give a resolution in Å, or 0 for "
                "none."
            )

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "LikelihoodConfig":
        """From what `dataclasses.asdict` and JSON have made of settings.

        Raises:
            InputError: they are not of this version.
        """
        try:
            made = dict(values)
            made["initial_rings"] = tuple(values["initial_rings"])
            made["annealing"] = tuple(values["annealing"])
            made["assumptions"] = Assumptions(**values["assumptions"])
            return cls(**made)
        except (KeyError, TypeError) as error:
            raise InputError(
                f"The settings of this run are not of this version ({error}); run it again."
            ) from error

    @property
    def last_iterations(self) -> int:
        """Iterations over all images that do not improve the resolution."""
        one = self.assumptions.volumes == 1
        return self.full_iterations if one else self.conformation_iterations

    @property
    def latent_grid(self) -> "Tensor":
        """(L, dimension) points of the latent grid; all the classes."""
        space, needed = self.assumptions.latent_space, 2 * self.assumptions.volumes
        points = max(self.latent_grid_points, math.ceil(needed ** (1 / space.dimension)))
        return space.grid(points**space.dimension)

    @property
    def of_one_structure(self) -> "LikelihoodConfig":
        """The same settings without conformations."""
        return replace(self, assumptions=self.assumptions.of_one_structure)

    @property
    def of_two_classes(self) -> "LikelihoodConfig":
        """The same settings for two classes."""
        one = self.assumptions.of_one_structure
        return replace(self, assumptions=replace(one, latent="discrete", classes=2))

    def with_shift_sd(self, sd_percent: float) -> "LikelihoodConfig":
        """With a re-estimated standard deviation of shifts, where one was measured."""
        return replace(self, assumptions=self.assumptions.with_shift_sd(sd_percent))

    def imposing(self, symmetry: str) -> "LikelihoodConfig":
        """The same settings with the symmetry found so far, if it is to be found."""
        return replace(self, assumptions=self.assumptions.imposing(symmetry))

    def padded(self, share: float) -> "LikelihoodConfig":
        """The same settings for images in a box 1 / share times as wide."""
        first, last = self.initial_rings
        return replace(
            self,
            assumptions=self.assumptions.scaled(share),
            initial_rings=(round(first / share), round(last / share)),
        )
