"""What an EM iteration starts from, and a checkpoint holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from torch import Tensor

from cryogan import fourier
from cryogan.objectives.base import restoring
from cryogan.objectives.likelihood.bands import fsc_cutoff_shell
from cryogan.objectives.likelihood.image_model import FIRST
from cryogan.objectives.likelihood.view_density import UNIFORM


@dataclass(frozen=True)
class EMState:
    """What an EM iteration starts from; it decides, with particles and seed, all that follows.

    Attributes:
        done: iterations done since the half-maps were first compared.
        full: those among them over all images that did not improve the resolution.
        whole: whether the next one is over all images.
        halves: (2, C, D, D, D) basis volumes in one frame; a box of their own.
        width_px: of their padded box (`data.padding`), in pixels of the particles.
        fsc: (C, D // 2 + 1) of the halves.
        prior: (L,) probabilities of the points of the latent grid.
        images_seen: by all iterations so far, the initial model's too.
        finished: whether nothing is left to do.
        unfiltered: as `halves`, of the last iteration, without prior and mask; None before it.
        band: last shell of the maps.
        shift_sd_percent: of the Gaussian prior of shifts, in percent of the padded box.
        contrast_sd: standard deviation of the images' contrast.
        junk_share: share of images without a particle.
        splits: (2, 2, S) how the power of each half-set's images is divided into noise and signal
            (`PowerSplit.record`); None before it is measured.
        views: (2, 768) density of viewing directions of each half-set, in the frame of `halves`
            (`ViewDensity.weight`); uniform before the first iteration.
        symmetry_search: what the last search for a symmetry found (`Symmetry.record`), and after
            which iteration; None before one.
    """

    done: int
    full: int
    whole: bool
    halves: Tensor
    width_px: int
    fsc: Tensor
    prior: Tensor
    images_seen: int
    finished: bool
    unfiltered: Tensor | None = None
    band: int = 0
    shift_sd_percent: float = 0.0
    contrast_sd: float = FIRST.contrast_sd
    junk_share: float = FIRST.junk_share
    splits: Tensor | None = None
    views: Tensor = field(default_factory=lambda: UNIFORM.weight.repeat(2, 1))
    symmetry_search: dict[str, Any] | None = None

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self:
        """From a checkpoint's record.

        Raises:
            StateError: it is no record of such a state.
        """
        with restoring():
            state = cls(**record)
            _, basis_volumes, size, *_ = state.halves.shape
            shapes = {
                "halves": (2, basis_volumes, size, size, size),
                "fsc": (basis_volumes, size // 2 + 1),
                "views": tuple(UNIFORM.weight.repeat(2, 1).shape),
                "prior": (len(state.prior),),
            }
            for name, shape in shapes.items():
                if tuple(getattr(state, name).shape) != shape:
                    raise ValueError(f"{name} has another shape than {shape}")
            for name in ("done", "full", "width_px", "images_seen", "band"):
                if not isinstance(getattr(state, name), int):
                    raise ValueError(f"{name} is no whole number")
            _ = state.symmetry
        return state

    def record(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {n: v.cpu() if isinstance(v, Tensor) else v for n, v in values.items()}

    @property
    def symmetry(self) -> str:
        """The symmetry found so far, if one is to be found."""
        return "C1" if self.symmetry_search is None else str(self.symmetry_search["group"])

    @property
    def rings(self) -> int:
        """The band in which poses are to be searched next."""
        return fsc_cutoff_shell(self.fsc[0])

    @property
    def average(self) -> Tensor:
        """(C, D, D, D) mean of the halves, filtered as maps of all images are: × 2 / (1 + FSC)."""
        size = self.halves.shape[-1]
        shells = fourier.shell_index(size, 3, self.halves.device).clamp_max(size // 2)
        gain = 2.0 / (1.0 + self.fsc.nan_to_num().clamp(0.0, 1.0))
        mean = fourier.rfft(self.halves.mean(0), 3)
        return fourier.irfft(mean * gain[:, shells].to(mean.device), size, 3)
