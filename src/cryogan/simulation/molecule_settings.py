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
        circular: last_deg is the first state again, and left out; for full turns.
    """

    atoms: str
    axis: str = "z"
    pivot: str = "all"
    first_deg: float = 0.0
    last_deg: float = 0.0
    states: int = 20
    circular: bool = False

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
        if self.circular and (self.last_deg - self.first_deg) % 360.0 != 0.0:
            raise InputError(
                f"The motion of {self.atoms} is circular but goes from {self.first_deg:g} to "
                f"{self.last_deg:g} degrees; give whole turns, such as 0 to 360."
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
class Linker:
    """A flexible linker between a domain and the rest of an atomic model.

    Attributes:
        residues: of the linker, such as H/232-238: their backbone torsions are drawn at random.
        atoms: the domain before the linker, which follows as a rigid body: L,H/1-230.
        dihedrals: .csv file with the column dihedral_rad, one state a line: the dihedral of the
            domain's centre, the residues before and after the linker, and the centre of the rest.
        tolerance_deg: largest difference in degrees of a state's dihedral from that.
        seed: of the torsions.
    """

    residues: str
    atoms: str
    dihedrals: str
    tolerance_deg: float = 1.0
    seed: int = 0

    def check(self) -> None:
        """Refuse a tolerance that no state, or any state, would meet.

        Raises:
            InputError: it is so.
        """
        if not 0.0 < self.tolerance_deg <= 180.0:
            raise InputError(
                f"molecule.linker.tolerance_deg is {self.tolerance_deg:g}; give degrees above 0, "
                "up to 180."
            )


@dataclass(frozen=True)
class Parts:
    """States of a map that lack some of its parts.

    Attributes:
        count: number of parts into which the map is divided; part 1 is the innermost.
        states: the parts that each state has, such as [[1, 2], [1, 3], [1, 2, 3]].
        edge_A: softness of the boundaries between parts in Å.
    """

    count: int
    states: tuple[tuple[int, ...], ...]
    edge_A: float = 5.0

    def check(self) -> None:
        """Refuse parts that there are not.

        Raises:
            InputError: which.
        """
        if self.count < 1 or not self.edge_A > 0:
            raise InputError(
                f"molecule.parts has {self.count} parts with edges of {self.edge_A:g} Å; give 1 "
                "part or more, and a positive width."
            )
        for state in self.states:
            if not state or not all(1 <= part <= self.count for part in state):
                raise InputError(
                    f"molecule.parts has the state {list(state)}; give one or more of the parts 1 "
                    f"to {self.count}."
                )
        if not self.states:
            raise InputError("molecule.parts has no states; list the parts of each.")


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
        linker: random conformations of a linker of one atomic model.
        parts: states of one map that lack some of its parts.
        mixture: the sources are different molecules, models or maps: each has a centre of its
            own, and each map is scaled to a standard deviation of 1.
        populations: relative frequency of the conformations; equal if left out.
        exact_populations: numbers of images are the populations, rounded, in random order;
            otherwise every image draws its conformation.
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
    linker: Linker | None = None
    parts: Parts | None = None
    mixture: bool = False
    populations: tuple[float, ...] | None = None
    exact_populations: bool = False

    def check(self) -> None:
        """Refuse settings that contradict one another; the sources have been located.

        Raises:
            InputError: which, and why.
        """
        sources = expanded(self.sources)
        if self.mixture:
            self._check_mixture(sources)
            return
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
        for name, given in (("linker", self.linker), ("parts", self.parts)):
            if given is None:
                continue
            if count > 1:
                raise InputError(
                    f"molecule.{name} makes the states of one source, but there are more; give "
                    "one, and no motions."
                )
            given.check()
        if self.parts is not None:
            count = len(self.parts.states)
        if self.path and (count < 2 or self.motions or self.parts or kind == "phantom"):
            raise InputError(
                "molecule.path needs two sources or more, and no motions or hinge; leave it out."
            )
        if self.linker is None:
            self.check_populations(count)  # of a linker when its file has been read

    def _check_mixture(self, sources: list[str]) -> None:
        if len(sources) < 2:
            raise InputError(
                "molecule.mixture needs two sources or more; give them, or leave it out."
            )
        for source in sources:
            self.of(source).check()
        for name, given in (
            ("motions", self.motions),
            ("path", self.path),
            ("linker", self.linker),
            ("parts", self.parts),
        ):
            if given:
                raise InputError(
                    f"molecule.{name} does not go with molecule.mixture; leave one out."
                )
        self.check_populations(len(sources))

    def of(self, source: str) -> "MoleculeSettings":
        """The settings of one molecule of a mixture, as far as they apply to its kind."""
        is_map = kind_of([source]) == "map"
        return MoleculeSettings(
            sources=(source,),
            assembly=None if is_map else self.assembly,
            resolution_A=self.resolution_A,
            convention="scattering" if is_map else self.convention,
            map_pixel_size_A=self.map_pixel_size_A if is_map else None,
        )

    def _refuse_foreign(self, kind: Kind) -> None:
        """Settings that would be silently ignored."""
        for name, given, wanted in (
            ("assembly", self.assembly is not None, "atomic model"),
            ("convention molmap", self.convention == "molmap", "atomic model"),
            ("map_pixel_size_A", self.map_pixel_size_A is not None, "map"),
            ("motions", bool(self.motions), "atomic model"),
            ("linker", self.linker is not None, "atomic model"),
            ("parts", self.parts is not None, "map"),
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

    def check_populations(self, count: int) -> None:
        """Refuse populations that are not those of `count` conformations.

        Raises:
            InputError: they are not.
        """
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
