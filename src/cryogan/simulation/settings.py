"""The settings of a simulated set: everything that its bits depend on.

Nothing here needs torch, so that settings that cannot work are refused at once.
"""

import math
from dataclasses import dataclass, field, replace

from cryogan.errors import InputError
from cryogan.simulation.flaw_settings import ContrastSettings, JunkSettings
from cryogan.simulation.microscope_settings import MicroscopeSettings
from cryogan.simulation.molecule_settings import MoleculeSettings, Motion
from cryogan.simulation.noise_settings import NoiseSettings
from cryogan.simulation.pose_settings import OrientationSettings, ShiftSettings

__all__ = [
    "ContrastSettings",
    "JunkSettings",
    "MicroscopeSettings",
    "MoleculeSettings",
    "Motion",
    "NoiseSettings",
    "OrientationSettings",
    "ShiftSettings",
    "SimulationSettings",
    "accurate_padding",
]

_SMALLEST_BOX, _LARGEST_BOX = 16, 2048
_LARGEST_PADDING = 8.0


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
