"""Settings of the molecule of a simulated set and of its conformations.

Nothing here needs torch, so that settings that cannot work are refused at once.
"""

import math
from dataclasses import dataclass
from typing import Literal

from cryogan.errors import InputError
from cryogan.simulation.sources import Kind, expanded, kind_of

_AXES = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}


@dataclass(frozen=True)
class Motion:
    """A part of the molecule that rotates about an axis.

    Attributes:
        atoms: what rotates: a chain such as B, residues B/12-442, or several joined by commas.
        axis: axis of rotation: x, y, z, or a direction such as 0.3,1,0; positive angles are
            right-handed about it.
        pivot: point on the axis: the centroid of a selection of atoms (A/677/CA; all; moving for
            the atoms that rotate), or x,y,z in Å in the frame of the model's file.
        first_deg: angle of the first state in degrees; 0 is the model as it is.
        last_deg: angle of the last state in degrees.
        states: number of states, at even steps.
    """

    atoms: str
    axis: str = "z"
    pivot: str = "all"
    first_deg: float = 0.0
    last_deg: float = 0.0
    states: int = 20

    def check(self) -> None:
        """Refuse angles, states and an axis that make no motion.

        Raises:
            InputError: which, and why.
        """
        if self.states < 1:
            raise InputError(
                f"The motion of {self.atoms} has {self.states} states; give 1 or more."
            )
        if not (math.isfinite(self.first_deg) and math.isfinite(self.last_deg)):
            raise InputError(
                f"The motion of {self.atoms} goes from {self.first_deg} to {self.last_deg} "
                "degrees; give finite angles."
            )
        if self.states > 1 and self.first_deg == self.last_deg:
            raise InputError(
                f"The {self.states} states of the motion of {self.atoms} all lie at "
                f"{self.first_deg:g} degrees; give different first_deg and last_deg, or 1 state."
            )
        if not any(self.direction):
            raise InputError(
                f"The axis '{self.axis}' of the motion of {self.atoms} is not a direction; write "
                "x, y, z or three numbers such as 0.3,1,0, not all zero."
            )

    @property
    def direction(self) -> tuple[float, ...]:
        """The axis as (x, y, z), of any length; empty where it cannot be understood.

        Example:
            >>> from cryogan.simulation.molecule_settings import Motion
            >>> Motion("B", axis="y").direction
            (0.0, 1.0, 0.0)
        """
        return _AXES.get(self.axis.strip()) or _three_numbers(self.axis)

    @property
    def pivot_A(self) -> tuple[float, ...]:
        """The pivot as (x, y, z); empty where it is a selection of atoms."""
        return _three_numbers(self.pivot)


def _three_numbers(text: str) -> tuple[float, ...]:
    """Three finite numbers joined by commas, or nothing."""
    try:
        values = tuple(float(word) for word in text.split(","))
    except ValueError:
        return ()
    return values if len(values) == 3 and all(map(math.isfinite, values)) else ()


@dataclass(frozen=True)
class MoleculeSettings:
    """The molecule and its conformations.

    Attributes:
        sources: one conformation each: an atomic model (PDB, mmCIF), several models joined by +
            that make one molecule, a map (.mrc), a folder of maps, or phantom or phantom:D2.
        assembly: biological assembly of the atomic models to generate, by name.
        resolution_A: low-pass of the maps in Å; needed for molmap, otherwise optional.
        convention: maps of atomic models: electron scattering factors with B-factors, or one
            Gaussian an atom as Chimera's molmap makes them.
        map_pixel_size_A: pixel size in Å of maps; it goes before that in their headers, where 0 and
            1 Å mean that it is not set.
        motions: rigid-body motions of domains of one atomic model; each has a latent coordinate.
        hinge_deg: first and last angle of the phantom's hinge.
        hinge_states: number of conformations of the phantom between them.
        path: several sources are points on a path, at latent coordinates from 0 to 1.
        populations: relative frequency of the conformations; equal if left out.
    """

    sources: tuple[str, ...] = ("phantom",)
    assembly: str | None = None
    resolution_A: float | None = None
    convention: Literal["scattering", "molmap"] = "scattering"
    map_pixel_size_A: float | None = None
    motions: tuple[Motion, ...] = ()
    hinge_deg: tuple[float, float] = (0.0, 0.0)
    hinge_states: int = 1
    path: bool = False
    populations: tuple[float, ...] | None = None

    def check(self) -> None:
        """Refuse settings that contradict one another; the sources have been located.

        Raises:
            InputError: which, and why.
        """
        sources = expanded(self.sources)
        kind = kind_of(sources)
        self._refuse_foreign(kind)
        count = len(sources)
        if kind == "phantom":
            self._check_phantom(sources)
            count = self.hinge_states
        if self.motions:
            if count > 1:
                raise InputError(
                    "molecule.motions move one molecule, but there are several sources; join the "
                    "files of one by +, or give one."
                )
            for motion in self.motions:
                motion.check()
            count = math.prod(motion.states for motion in self.motions)
        if self.path and (count < 2 or self.motions or kind == "phantom"):
            raise InputError(
                "molecule.path needs two sources or more, and no motions or hinge; leave it out."
            )
        self._check_populations(count)

    def _refuse_foreign(self, kind: Kind) -> None:
        """Settings that would be silently ignored."""
        for name, given, wanted in (
            ("assembly", self.assembly is not None, "atomic model"),
            ("convention molmap", self.convention == "molmap", "atomic model"),
            ("map_pixel_size_A", self.map_pixel_size_A is not None, "map"),
            ("motions", bool(self.motions), "atomic model"),
            ("hinge_deg", self.hinge_deg != (0.0, 0.0), "phantom"),
            ("hinge_states", self.hinge_states != 1, "phantom"),
        ):
            if given and kind != wanted:
                raise InputError(
                    f"molecule.{name} is for a source of kind {wanted}, but the source is of kind "
                    f"{kind}; leave it out."
                )
        if kind == "phantom" and self.resolution_A is not None:
            raise InputError("molecule.resolution_A does not apply to the phantom; leave it out.")
        if self.convention == "molmap" and self.resolution_A is None:
            raise InputError(
                "molecule.convention molmap needs molecule.resolution_A; give it in Å."
            )
        if self.resolution_A is not None and not self.resolution_A > 0:
            raise InputError(
                f"molecule.resolution_A is {self.resolution_A:g}; give a positive number of Å."
            )

    def _check_phantom(self, sources: list[str]) -> None:
        if len(sources) > 1:
            raise InputError(
                "There is one phantom; turn its hinge with molecule.hinge_deg instead."
            )
        symmetry = sources[0].partition(":")[2] or "C1"
        if symmetry not in ("C1", "D2"):
            raise InputError(f"There is no phantom:{symmetry}; give phantom:C1 or phantom:D2.")
        if self.hinge_states < 1:
            raise InputError(
                f"molecule.hinge_states is {self.hinge_states}; give the number of conformations."
            )
        first_deg, last_deg = self.hinge_deg
        if not (math.isfinite(first_deg) and math.isfinite(last_deg)):
            raise InputError(
                f"molecule.hinge_deg is {first_deg:g} to {last_deg:g}; give finite angles."
            )
        if (first_deg == last_deg) != (self.hinge_states == 1):
            raise InputError(
                f"molecule.hinge_deg is {first_deg:g} to {last_deg:g} but molecule.hinge_states is "
                f"{self.hinge_states}; give two angles and two states or more, or one angle "
                "twice and one state."
            )

    def _check_populations(self, count: int) -> None:
        if self.populations is None:
            return
        if len(self.populations) != count:
            raise InputError(
                f"molecule.populations has {len(self.populations)} numbers for {count} "
                "conformations; give one for each."
            )
        if not all(0.0 <= share < math.inf for share in self.populations):
            raise InputError("molecule.populations must be numbers from 0; correct them.")
        if not any(self.populations):
            raise InputError("molecule.populations are all 0; give one conformation a share.")
