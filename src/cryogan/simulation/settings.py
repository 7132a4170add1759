"""What a simulated data set is made of: everything that its bits depend on."""

import math
from dataclasses import dataclass, field, replace

from cryogan.errors import InputError
from cryogan.simulation.conformations import MoleculeSettings
from cryogan.simulation.microscope import MicroscopeSettings
from cryogan.simulation.noise import NoiseSettings
from cryogan.simulation.poses import OrientationSettings, ShiftSettings

_SMALLEST_BOX, _LARGEST_BOX = 16, 2048
_LARGEST_PADDING = 8.0


def accurate_padding(box_size: int) -> float:
    """Oversampling for images that are to pass for real: 2 to 4, a padded box up to 384 px.

    A critic sees the errors of padding 2 at high signal-to-noise ratios, and learns them in
    place of the molecule where the volume cannot reproduce them (docs/method.md).
    """
    return min(4.0, max(2.0, 384 / box_size))


@dataclass(frozen=True)
class SimulationSettings:
    """A data set.

    Attributes:
        molecule: what the images show.
        box_size: D of the images, in pixels.
        pixel_size_A: of images and maps.
        images: how many.
        orientations: distribution of the orientations.
        shifts: distribution of the in-plane shifts.
        ctf: distribution of the CTFs.
        noise: what is added.
        padding: oversampling of the spectra that are sliced; None for the most accurate that
            keeps the padded box within 384 px, from 2 to 4.
        seed: of all random numbers; poses, CTFs, states and noise have streams of their own.
    """

    molecule: MoleculeSettings = field(default_factory=MoleculeSettings)
    box_size: int = 64
    pixel_size_A: float = 3.0
    images: int = 10_000
    orientations: OrientationSettings = field(default_factory=OrientationSettings)
    shifts: ShiftSettings = field(default_factory=ShiftSettings)
    ctf: MicroscopeSettings = field(default_factory=MicroscopeSettings)
    noise: NoiseSettings = field(default_factory=NoiseSettings)
    padding: float | None = None
    seed: int = 0

    def check(self) -> None:
        """Raise an InputError for numbers that make no data set; the groups check their own."""
        for name, value, least in (
            ("box_size", self.box_size, _SMALLEST_BOX),
            ("images", self.images, 1),
            ("seed", self.seed, 0),
        ):
            if value < least:
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
