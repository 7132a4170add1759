"""Settings of a simulated set's noise.

Nothing here needs torch, so that settings that cannot work are refused at once.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryogan.errors import InputError
from cryogan.registry import Registry
from cryogan.simulation.setting_ranges import require_spread

if TYPE_CHECKING:
    from cryogan.physics.noise import NoiseModel
    from cryogan.simulation.noise import NoiseOpener

_MAX_DB = 200
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
