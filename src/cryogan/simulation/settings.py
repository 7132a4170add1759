"""The settings of a simulated set: everything that its bits depend on.

Nothing here needs torch, so that settings that cannot work are refused at once.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cryogan.errors import InputError
from cryogan.io.ranges import require_possible
from cryogan.registry import Registry
from cryogan.simulation.flaw_settings import (
    ContrastSettings,
    JunkSettings,
    require_both,
    require_share,
    require_spread,
)
from cryogan.simulation.sources import Kind, expanded, kind_of

if TYPE_CHECKING:
    from cryogan.physics.noise import NoiseModel
    from cryogan.simulation.noise import NoiseOpener

_SMALLEST_BOX, _LARGEST_BOX = 16, 2048
_LARGEST_PADDING = 8.0
_MAX_DB = 200
_LARGEST_DEFOCUS_ERROR_A = 20_000.0
_AXES = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}

NOISE_KINDS: "Registry[NoiseOpener | type[NoiseModel]]" = Registry(
    "noise.kind",
    {
        "none": "cryogan.simulation.noise:open_none",
        "white": "cryogan.simulation.noise:open_white",
        "coloured": "cryogan.simulation.noise:open_coloured",
        "background": "cryogan.simulation.noise:open_background",
    },
)
"""What opens the noise of a kind (`simulation.noise.NoiseOpener`), or a `NoiseModel` class."""


def accurate_padding(box_size: int) -> float:
    """Padding for images that are to pass for real: 2 to 4, a padded box up to 384 px.

    At high signal-to-noise ratios a critic sees the interpolation errors of padding 2, and learns
    them instead of the molecule where the volume cannot reproduce them (docs/method.md).

    Example:
        >>> from cryogan.simulation.settings import accurate_padding
        >>> accurate_padding(64), accurate_padding(128), accurate_padding(256)
        (4.0, 3.0, 2.0)
    """
    return min(4.0, max(2.0, 384 / box_size))


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
            >>> from cryogan.simulation.settings import Motion
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


@dataclass(frozen=True)
class OrientationSettings:
    """Distribution of the orientations; the in-plane angle is uniform except for "file".

    Attributes:
        kind: "uniform"; "angular-gaussian" (direction = N(0, diag(1, 1, sigma²)), normalised);
            "cylinder" (side views of a standing cylinder); "file" (orientations drawn from a
            particle file); "healpix" (directions drawn from a HEALPix map).
        sigma: for "angular-gaussian": 1 is uniform, larger concentrates directions along ±z.
        spread_deg: for "cylinder": standard deviation of tilt about 90°, in degrees, 0 to 90.
        file: for "file": a .star or .cs file with poses, of which the shifts are not used; for
            "healpix": a .npy or text file with one weight a cell, in RING order.

    Raises:
        InputError: a value is out of range, or has no meaning for its kind.
    """

    kind: Literal["uniform", "angular-gaussian", "cylinder", "file", "healpix"] = "uniform"
    sigma: float = 1.0
    spread_deg: float = 0.0
    file: str | None = None

    def __post_init__(self) -> None:
        _refuse_unused("orientations", self, _ORIENTATION_USES)
        if not 0.0 < self.sigma < math.inf:
            raise InputError(
                f"orientations.sigma is {self.sigma:g}; give a number above 0 (1 is uniform)."
            )
        _require_range("orientations.spread_deg", self.spread_deg, 90.0, "degrees")
        if self.kind in ("file", "healpix") and self.file is None:
            what = "a .star or .cs file" if self.kind == "file" else "a .npy or text file"
            raise InputError(
                f"orientations.kind is {self.kind} but orientations.file is not given; name {what}."
            )
        if self.kind == "file" and Path(self.file or "").suffix not in (".star", ".cs"):
            raise InputError(
                f"orientations.file is {self.file}, whose name ends neither in .star nor in .cs; "
                "give a RELION or cryoSPARC particle file with poses."
            )


@dataclass(frozen=True)
class ShiftSettings:
    """Distribution of the particles' distances from the image centres, along x and y alike.

    Attributes:
        kind: "none"; "triangular" (density 1 - |x|); "gaussian".
        percent: for "triangular": the half width, in percent of the box, 0 to 50.
        sigma_A: for "gaussian": the standard deviation in Å, at most half of the box.
        picking_share: share of the particles that are picked badly, from 0 to 1.
        picking_error_A: standard deviation in Å of their further shift, at most half of the box.

    Raises:
        InputError: a value is out of range, has no meaning for its kind, or lacks its partner.
    """

    kind: Literal["none", "triangular", "gaussian"] = "none"
    percent: float = 0.0
    sigma_A: float = 0.0
    picking_share: float = 0.0
    picking_error_A: float = 0.0

    def __post_init__(self) -> None:
        _refuse_unused("shifts", self, _SHIFT_USES)
        _require_range("shifts.percent", self.percent, 50.0, "percent of the box")
        require_share("shifts.picking_share", self.picking_share)
        require_both(
            *("shifts.picking_share", self.picking_share),
            *("shifts.picking_error_A", self.picking_error_A),
        )

    def check(self, width_A: float) -> None:
        """Refuse shifts that leave images of this width.

        Raises:
            InputError: `sigma_A` or `picking_error_A` is negative or above half of the width.
        """
        for name in ("sigma_A", "picking_error_A"):
            value = getattr(self, name)
            _require_range(f"shifts.{name}", value, width_A / 2, "Å, half of the box")


_ORIENTATION_USES: dict[str, tuple[str, ...]] = {
    "uniform": (),
    "angular-gaussian": ("sigma",),
    "cylinder": ("spread_deg",),
    "file": ("file",),
    "healpix": ("file",),
}
_SHIFT_USES: dict[str, tuple[str, ...]] = {
    "none": ("picking_share", "picking_error_A"),
    "triangular": ("percent", "picking_share", "picking_error_A"),
    "gaussian": ("sigma_A", "picking_share", "picking_error_A"),
}


def _refuse_unused(group: str, settings: Any, uses: Mapping[str, tuple[str, ...]]) -> None:
    """A setting without effect is a mistake: most often, `kind` was forgotten."""
    if settings.kind not in uses:
        raise InputError(f"{group}.kind is {settings.kind!r}; give one of {', '.join(uses)}.")
    for item in fields(settings):
        unused = item.name != "kind" and item.name not in uses[settings.kind]
        if unused and getattr(settings, item.name) != item.default:
            kinds = [kind for kind, names in uses.items() if item.name in names]
            raise InputError(
                f"{group}.{item.name} has no meaning while {group}.kind is {settings.kind}; set "
                f"{group}.kind to {' or '.join(kinds)}, or leave {group}.{item.name} out."
            )


def _require_range(name: str, value: float, highest: float, unit: str) -> None:
    if not 0.0 <= value <= highest:
        raise InputError(f"{name} is {value:g}; give a number from 0 to {highest:g} {unit}.")


@dataclass(frozen=True)
class MicroscopeSettings:
    """CTFs of the particles.

    Attributes:
        kind: none (a CTF of 1), range (every particle has a defocus of its own) or table (CTFs
            of real micrographs or particles, drawn with replacement).
        defocus_A: range: lowest and highest defocus along the axis of greatest underfocus, in Å,
            uniform between; underfocus is positive.
        astigmatism_A: range: greatest difference in Å of the two defoci, uniform from 0; the
            angle is uniform.
        table: table: .star or .cs of real particles, or .csv with the columns defocus_u_A,
            defocus_v_A, defocus_angle_deg, phase_shift_deg and particles, the number of particles
            in a micrograph and so its weight.
        defocus_spread_A: standard deviation in Å of a particle's defocus from what was drawn
            (heights in the ice); the same for both axes.
        voltage_kV: acceleration voltage in kV; a .star or .cs table has its own.
        spherical_aberration_mm: Cs in mm; a .star or .cs table has its own.
        amplitude_contrast: as a fraction; a .star or .cs table has its own.
        phase_shift_deg: range: lowest and highest phase shift of a phase plate in degrees,
            uniform between; a table has its own.
        b_factor_A2: B in Å² of an envelope exp(-B k² / 4), on top of what a .star or .cs table has.
        wrong_share: share of the particles whose defocus in particles.star is wrong, from 0 to 1.
        wrong_by_A: by how much, in Å; too high or too low at random.

    Raises:
        InputError: a number is out of its range, or settings contradict each other.
    """

    kind: Literal["none", "range", "table"] = "range"
    defocus_A: tuple[float, float] = (8000.0, 25000.0)
    astigmatism_A: float = 300.0
    table: str | None = None
    defocus_spread_A: float = 0.0
    voltage_kV: float = 300.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.1
    phase_shift_deg: tuple[float, float] = (0.0, 0.0)
    b_factor_A2: float = 0.0
    wrong_share: float = 0.0
    wrong_by_A: float = 0.0

    def __post_init__(self) -> None:
        for name, unit in (("defocus_A", "Å"), ("phase_shift_deg", "degrees")):
            low, high = getattr(self, name)
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise InputError(
                    f"ctf.{name} is {low:g} to {high:g}; give two numbers of {unit}, the lower "
                    "one first."
                )
        for name in ("astigmatism_A", "defocus_spread_A", "b_factor_A2"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise InputError(f"ctf.{name} is {getattr(self, name):g}; give a number from 0.")
        for name in ("voltage_kV", "spherical_aberration_mm"):
            require_possible(name, getattr(self, name), f"ctf.{name}")
        if not 0.0 <= self.amplitude_contrast < 1.0:
            raise InputError(
                f"ctf.amplitude_contrast is {self.amplitude_contrast:g}; give a fraction from 0 "
                "to below 1, such as 0.1."
            )
        require_share("ctf.wrong_share", self.wrong_share)
        _require_range("ctf.wrong_by_A", self.wrong_by_A, _LARGEST_DEFOCUS_ERROR_A, "Å")
        require_both(
            *("ctf.wrong_share", self.wrong_share),
            *("ctf.wrong_by_A", self.wrong_by_A),
        )
        if self.kind == "none" and self.wrong_share > 0:
            raise InputError(
                "ctf.wrong_share is given but ctf.kind is none, so that there is no defocus; "
                "leave it out."
            )
        self._check_table()

    def _check_table(self) -> None:
        if self.kind == "table" and self.table is None:
            raise InputError("ctf.kind is table but no ctf.table is given; name a file.")
        if self.kind != "table" and self.table is not None:
            raise InputError(
                f"ctf.table is given but ctf.kind is {self.kind}; set it to table, or leave out "
                "ctf.table."
            )
        if self.kind == "table" and any(self.phase_shift_deg):
            raise InputError(
                "ctf.phase_shift_deg is given but a ctf.table has its own phase shifts; leave "
                "one out."
            )
        if self.table is not None and Path(self.table).suffix not in (".csv", ".star", ".cs"):
            raise InputError(
                f"ctf.table is {self.table}, whose kind its name does not tell; give a file .csv, "
                ".star or .cs."
            )


@dataclass(frozen=True)
class NoiseSettings:
    """Noise of the images.

    Attributes:
        kind: none, white, coloured (Gaussian, of a given power spectrum), background
            (particle-free patches of real micrographs), or package.module:Class, a
            cryogan.physics.noise.NoiseModel that is called with the box size.
        snr_dB: 20 log10(|clean| / |noise|) over the whole set, in dB; -20 is a hundred times
            more noise than signal in power.
        snr_box_size: box in pixels for which snr_dB is meant, where larger than the images':
            images of that box were Fourier-cropped to theirs, which leaves part of the noise.
        file: coloured: .csv with the columns spatial_frequency_per_A and power (in any unit), or
            a stack of patches whose spectrum is measured. background: a stack of patches; every
            second one is used and the others are kept for reconstruction.
        spread: relative standard deviation of the noise level (its root mean square) from
            micrograph to micrograph, log-normal; over the set it is that of snr_dB.

    Raises:
        InputError: a number is out of its range, `file` and `kind` contradict each other, or the
            kind is unknown.
    """

    kind: str = "white"
    snr_dB: float = -10.0
    snr_box_size: int | None = None
    file: str | None = None
    spread: float = 0.0

    def __post_init__(self) -> None:
        NOISE_KINDS.check(self.kind)
        require_spread("noise.spread", self.spread)
        if not abs(self.snr_dB) <= _MAX_DB:
            raise InputError(
                f"noise.snr_dB is {self.snr_dB:g}; give a number from -{_MAX_DB} to {_MAX_DB}, or "
                "noise.kind none for images without noise."
            )
        needs_file = self.kind in ("coloured", "background")
        if needs_file and self.file is None:
            raise InputError(f"noise.kind is {self.kind} but no noise.file is given; name a file.")
        if not needs_file and self.file is not None:
            raise InputError(
                f"noise.file is given but noise.kind is {self.kind}; set it to coloured or "
                "background, or leave out noise.file."
            )

    def reference_box_size(self, box_size: int) -> int:
        """The box for which `snr_dB` is meant, for images of `box_size`.

        Raises:
            InputError: it is smaller than the images' box.
        """
        reference = self.snr_box_size or box_size
        if reference < box_size and self.kind != "none":
            raise InputError(
                f"noise.snr_box_size is {reference}, smaller than the images' box of {box_size}; "
                "leave it out or give a larger one."
            )
        return reference


@dataclass(frozen=True)
class SimulationSettings:
    """A data set.

    Attributes:
        molecule: what the images show.
        box_size: width D of the images, in pixels.
        pixel_size_A: pixel size of images and maps, in Å.
        images: number of images.
        orientations: distribution of the orientations.
        shifts: distribution of the in-plane shifts.
        ctf: distribution of the CTFs.
        noise: what is added.
        contrast: how the contrast differs from particle to particle.
        junk: images that do not show the one whole molecule.
        particles_per_micrograph: number of consecutive images that are of one micrograph, which
            is named (rlnMicrographName), has one CTF up to ctf.defocus_spread_A and one noise
            level; None: every image has its own, and no micrograph is named.
        padding: padding of the maps whose Fourier transforms are sliced; None for the most accurate
            that keeps the padded box within 384 px, from 2 to 4.
        seed: seed of all random numbers; each thing drawn has a stream of its own.

    Example:
        >>> from cryogan.simulation.settings import SimulationSettings
        >>> half = SimulationSettings(box_size=64, pixel_size_A=3.0).scaled(0.5)
        >>> half.box_size, half.pixel_size_A, half.images, half.noise.snr_box_size
        (32, 6.0, 5000, 64)
    """

    molecule: MoleculeSettings = field(default_factory=MoleculeSettings)
    box_size: int = 64
    pixel_size_A: float = 3.0
    images: int = 10_000
    orientations: OrientationSettings = field(default_factory=OrientationSettings)
    shifts: ShiftSettings = field(default_factory=ShiftSettings)
    ctf: MicroscopeSettings = field(default_factory=MicroscopeSettings)
    noise: NoiseSettings = field(default_factory=NoiseSettings)
    contrast: ContrastSettings = field(default_factory=ContrastSettings)
    junk: JunkSettings = field(default_factory=JunkSettings)
    particles_per_micrograph: int | None = None
    padding: float | None = None
    seed: int = 0

    def check(self) -> None:
        """Refuse numbers that make no data set; `molecule` is checked once its files are located.

        Raises:
            InputError: which, and why.
        """
        for name, value, least in (
            ("box_size", self.box_size, _SMALLEST_BOX),
            ("images", self.images, 1),
            ("seed", self.seed, 0),
            ("particles_per_micrograph", self.particles_per_micrograph, 1),
        ):
            if value is not None and value < least:
                raise InputError(f"{name} is {value}, but the least is {least}; choose more.")
        if self.box_size > _LARGEST_BOX:
            raise InputError(
                f"box_size is {self.box_size}, but the most is {_LARGEST_BOX}; choose fewer pixels."
            )
        if not 1.0 <= self.resolved_padding <= _LARGEST_PADDING:
            raise InputError(
                f"padding is {self.padding:g}; give a number from 1 to {_LARGEST_PADDING:g}, or "
                "leave it out."
            )
        if not 0.0 < self.pixel_size_A < math.inf:
            raise InputError(f"pixel_size_A is {self.pixel_size_A:g}; give a positive number of Å.")
        self.shifts.check(self.box_size * self.pixel_size_A)
        self.noise.reference_box_size(self.box_size)

    @property
    def resolved_padding(self) -> float:
        """`padding`, or what None stands for."""
        return accurate_padding(self.box_size) if self.padding is None else self.padding

    def scaled(self, factor: float) -> "SimulationSettings":
        """The same set with box and number of images times `factor`, for less work.

        The field of view stays; so does the noise, as if the images of the full box had been
        Fourier-cropped.

        Raises:
            InputError: the factor is not in (0, 1], or leaves too few pixels.
        """
        if not 0 < factor <= 1:
            raise InputError(f"--scale is {factor:g}; give a number above 0 and up to 1.")
        box_size = 2 * round(self.box_size * factor / 2)
        if box_size < _SMALLEST_BOX:
            raise InputError(
                f"--scale {factor:g} makes a box of {box_size} px out of {self.box_size}, but the "
                f"least is {_SMALLEST_BOX}; scale less."
            )
        return replace(
            self,
            box_size=box_size,
            pixel_size_A=self.pixel_size_A * self.box_size / box_size,
            images=max(1, round(self.images * factor)),
            noise=replace(self.noise, snr_box_size=self.noise.snr_box_size or self.box_size),
        )
