"""What is assumed of the sample, whatever the objective: one record inside every settings.

Users give lengths in Å and percent; the record holds what the computation needs. An option that is
not given is None, so that what a run assumed can be inherited: never "equal to the default".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryogan.errors import InputError
from cryogan.registry import LATENTS
from cryogan.symmetry import point_group

if TYPE_CHECKING:
    from cryogan.conformations.latent import Latent

AUTO = "auto"
"""As symmetry: none at first, and then the one that is found in the half-maps (likelihood)."""

_BUILT_IN = ("uniform", "uniform2d", "circle", "discrete")


@dataclass(frozen=True)
class Assumptions:
    """What is assumed of the sample.

    Attributes:
        symmetry: point group (RELION's name), or "auto".
        mask_radius: radius of the soft ball mask, as a fraction of half the box. With a mask file,
            radius of the smallest ball that holds the mask.
        mask_edge: width of the ball's cosine edge, same unit.
        mask_file: soft mask (.mrc) in place of the ball, or None.
        max_shift_percent: largest shift along x and y, in percent of the box. Shifts are drawn
            from, or searched in, ± this; the adversarial objective assumes a triangular density.
        shift_sd_percent: standard deviation of shifts along x and y, in percent of the box, of a
            Gaussian density in the likelihood; 0 for a flat one.
        centred: images are centred first (`data.centring`); shifts are those that remain.
        view_sigma: viewing directions are assumed to be N(0, diag(1, 1, σ²)), normalised (angular
            central Gaussian), and the in-plane angle uniform; 1 for uniform orientations. The
            likelihood estimates them instead.
        latent: of conformations: "uniform" on [0, 1], "uniform2d" on its square, "circle",
            "discrete" (classes), or one of your own (docs/extending.md); None for one structure.
        classes: number of classes of a discrete latent; their populations are estimated.
        basis_volumes: number of volumes that a subspace adds to the mean; classes have
            classes - 1.
    """

    symmetry: str = "C1"
    mask_radius: float = 0.85
    mask_edge: float = 0.15
    mask_file: str | None = None
    max_shift_percent: float = 0.0
    shift_sd_percent: float = 0.0
    centred: bool = False
    view_sigma: float = 1.0
    latent: str | None = None
    classes: int = 2
    basis_volumes: int = 4

    def __post_init__(self) -> None:
        if not self.finds_symmetry:
            point_group(self.symmetry)
        elif self.latent is not None:
            raise InputError(
                "A symmetry is found (auto) in the half-maps of one structure; give a point group "
                "with conformations."
            )
        elif self.mask_file is not None:
            raise InputError(
                "A mask file lies in a frame of its own, and the map is moved when its symmetry is "
                "found (auto); give a point group, or --diameter in place of --mask."
            )
        if not 0 < self.mask_radius <= 2:
            raise InputError(
                f"mask_radius is {self.mask_radius:g}; give a fraction of half the box above 0, at "
                "most 2 (--diameter: up to twice the box)."
            )
        if not 0 <= self.mask_edge <= 1:
            raise InputError(
                f"mask_edge is {self.mask_edge:g}; give a fraction of half the box from 0 to 1."
            )
        if not 0 <= self.max_shift_percent <= 50:
            raise InputError(
                f"The largest shift is {self.max_shift_percent:g} % of the box; give --max-shift "
                "from 0 to 50 % of it."
            )
        if not 0 < self.view_sigma < math.inf:
            raise InputError(f"view_sigma is {self.view_sigma:g}; give a positive number.")
        if self.latent is not None:
            LATENTS.check(self.latent)
        if self.is_discrete and self.classes < 2:
            raise InputError(
                f"classes is {self.classes}; give at least 2, or --model homogeneous for a single "
                "volume."
            )
        if self.is_discrete and self.basis_volumes != Assumptions.basis_volumes:
            raise InputError(
                f"basis_volumes is {self.basis_volumes}, but the volumes beside the mean of "
                f"{self.classes} classes are {self.classes - 1}; give --classes alone, or another "
                "latent."
            )
        if self.latent is not None and not self.is_discrete and self.basis_volumes < 1:
            raise InputError(
                f"basis_volumes is {self.basis_volumes}; give at least 1, or --model homogeneous "
                "for a single volume."
            )
        if not self.is_discrete and self.classes != Assumptions.classes:
            raise InputError(
                f"classes is {self.classes}, but the latent is not discrete; give --latent "
                "discrete for classes."
            )

    @property
    def finds_symmetry(self) -> bool:
        """Whether the symmetry is to be found."""
        return self.symmetry.strip().lower() == AUTO

    def imposing(self, symmetry: str) -> Assumptions:
        """With the symmetry found so far in place of "auto"; one that is given stays."""
        return replace(self, symmetry=symmetry) if self.finds_symmetry else self

    @property
    def of_one_structure(self) -> Assumptions:
        """Without conformations."""
        return replace(
            self,
            latent=None,
            classes=Assumptions.classes,
            basis_volumes=Assumptions.basis_volumes,
        )

    @property
    def molecule(self) -> float:
        """Radius of the largest molecule, as a fraction of half the box: the edge counts half."""
        return self.mask_radius + 0.5 * self.mask_edge

    @property
    def reach(self) -> float:
        """Where there may be molecule in an image, shifts included; same unit."""
        return self.mask_radius + self.mask_edge + self.max_shift_percent / 50.0

    def with_shifts(self, sd_percent: float) -> Assumptions:
        """The same of centred images whose Gaussian shifts have this standard deviation.

        Both objectives go as far: a triangular density of that standard deviation ends there.
        """
        most = min(math.sqrt(6.0) * sd_percent, 50.0)
        return replace(self, centred=True, shift_sd_percent=sd_percent, max_shift_percent=most)

    def with_shift_sd(self, sd_percent: float) -> Assumptions:
        """With a re-estimated standard deviation, where one was measured."""
        return self.with_shifts(sd_percent) if self.shift_sd_percent > 0.0 else self

    def resolving(self, rings: int, blur: float = 1.0) -> Assumptions:
        """Without Gaussian shifts if these only blur the rings.

        Args:
            rings: the band, in periods per box.
            blur: radians in the last ring that one standard deviation makes at most.
        """
        radians = 2.0 * math.pi * rings * self.shift_sd_percent / 100.0
        return self.with_shift_sd(0.0) if radians <= blur else self

    def with_diameter(self, diameter_A: float | None, width_A: float) -> Assumptions:
        """With a mask that is a quarter wider than a measured diameter, and no wider than it was.

        The measure is 1.2 times the largest extent of compact molecules, and 0.85 times that of
        β-galactosidase in real images (docs/likelihood.md).
        """
        if diameter_A is None:
            return self
        return replace(
            self, mask_radius=min(self.mask_radius, round(1.25 * diameter_A / width_A, 3))
        )

    @property
    def volumes(self) -> int:
        """Number of basis volumes, the mean included; 1 for one structure."""
        if self.latent is None:
            return 1
        return self.classes if self.is_discrete else 1 + self.basis_volumes

    @property
    def is_discrete(self) -> bool:
        """Whether the latent is a class; torch is imported for latents of your own only."""
        if self.latent is None or self.latent in _BUILT_IN:
            return self.latent == "discrete"
        return bool(getattr(LATENTS[self.latent], "is_discrete", False))

    @cached_property
    def latent_space(self) -> Latent:
        """The latent; only of conformations.

        Raises:
            InputError: it has more slowest functions than there are basis volumes.
        """
        from cryogan.conformations.latent import make_latent

        assert self.latent is not None
        made = make_latent(self.latent, self.classes)
        if made.slowest > self.volumes - 1:
            raise InputError(
                f"basis_volumes is {self.basis_volumes}, and a latent '{self.latent}' needs at "
                f"least {made.slowest} volumes beside the mean; give more."
            )
        return made

    def scaled(self, share: float) -> Assumptions:
        """The same lengths as fractions of a box 1 / share times as wide."""
        return replace(
            self,
            mask_radius=self.mask_radius * share,
            mask_edge=self.mask_edge * share,
            max_shift_percent=self.max_shift_percent * share,
            shift_sd_percent=self.shift_sd_percent * share,
        )


@dataclass(frozen=True)
class GivenAssumptions:
    """What a user says of the sample; None for what is not said.

    Attributes:
        symmetry: point group (RELION's name): "C1", "D2", "O" ..., or "auto".
        diameter_A: diameter of the particle; the mask's edge begins there.
        mask_file: soft mask (.mrc) that takes the ball's place.
        mask_edge: width of the ball's edge, as a fraction of half the box.
        max_shift: largest shift along x and y: Å as a number, or percent of the box as "5%".
        view_sigma: see `Assumptions`.
        latent: see `Assumptions`; "none" for one structure.
        classes: of a discrete latent.
        basis_volumes: of the other latents.
    """

    symmetry: str | None = None
    diameter_A: float | None = None
    mask_file: str | None = None
    mask_edge: float | None = None
    max_shift: float | str | None = None
    view_sigma: float | None = None
    latent: str | None = None
    classes: int | None = None
    basis_volumes: int | None = None

    def __post_init__(self) -> None:
        if self.diameter_A is not None and not 0 < self.diameter_A < math.inf:
            raise InputError(f"--diameter is {self.diameter_A:g}; give a length in Å above 0.")
        if self.mask_file is not None and self.diameter_A is not None:
            raise InputError("Give --diameter or --mask, not both.")
        if self.mask_file is not None and self.mask_edge is not None:
            raise InputError("Give --mask-edge or --mask, not both: a mask has its own edge.")

    @property
    def finds_symmetry(self) -> bool:
        """Whether a symmetry is to be found."""
        return self.symmetry is not None and self.symmetry.strip().lower() == AUTO

    def resolve(
        self,
        width_A: float,
        inherited: Mapping[str, Any] | None = None,
        origin: str = "default",
    ) -> tuple[Assumptions, dict[str, str]]:
        """The assumptions for a box of `width_A`, and where each was taken from.

        Args:
            width_A: of the particles' box.
            inherited: fields of `Assumptions` that hold where nothing is given: of a run.
            origin: where those come from, in words.

        Raises:
            InputError: a value is out of range, or two contradict one another.
        """
        given: dict[str, Any] = {
            name: value
            for name in (
                "symmetry",
                "mask_edge",
                "view_sigma",
                "latent",
                "classes",
                "basis_volumes",
            )
            if (value := getattr(self, name)) is not None
        }
        if self.latent == "none":
            given["latent"] = None
        kept = dict(inherited or {})
        if self.diameter_A is not None:
            given |= {"mask_radius": self.diameter_A / width_A, "mask_file": None}
            if kept.get("mask_file") is not None:
                del kept["mask_edge"]  # the file's own
        if self.mask_file is not None:
            from cryogan.objectives.masks import ball_around

            path = str(Path(self.mask_file).resolve())
            radius = ball_around(path, width_A)
            given |= {"mask_file": path, "mask_radius": radius, "mask_edge": 0.0}
        elif self.mask_edge is not None and (kept | given).get("mask_file") is not None:
            raise InputError("The run's mask has its own edge; give --mask-edge with --diameter.")
        if self.max_shift is not None:
            given["max_shift_percent"] = percent_of_box(self.max_shift, width_A)
            given |= {"shift_sd_percent": 0.0, "centred": False}
        if "latent" in given and given["latent"] != kept.get("latent"):
            for name in ("classes", "basis_volumes"):  # these belong to a latent
                kept.pop(name, None)
        names = [field.name for field in fields(Assumptions)]
        sources = dict.fromkeys(names, "default") | dict.fromkeys(kept, origin)
        sources |= dict.fromkeys(given, "given")
        return Assumptions(**(kept | given)), sources


def percent_of_box(length: float | str, width_A: float) -> float:
    """A length as a percentage of the box: a number is in Å, "5%" is a percentage.

    Raises:
        InputError: it is neither.

    Example:
        >>> from cryogan.objectives.assumptions import percent_of_box
        >>> percent_of_box(12.0, 240.0), percent_of_box("5%", 240.0)
        (5.0, 5.0)
    """
    text = str(length).strip()
    in_percent = text.endswith("%")
    try:
        value = float(text.removesuffix("%").removesuffix("Å").removesuffix("A"))
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(
            f"--max-shift is '{text}'; give a length in Å (12) or a percentage of the box (5%), 0 "
            "or more."
        )
    return value if in_percent else 100.0 * value / width_A
