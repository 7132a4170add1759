"""What a look at a particle set has found, in one record."""

from dataclasses import asdict, dataclass

from cryogan.data.extent import Extent
from cryogan.inspection.images_needed import ImagesNeeded
from cryogan.inspection.metadata import Outlier, Range
from cryogan.json_text import to_json
from cryogan.particles import UnusedColumn


@dataclass(frozen=True)
class Contrast:
    """Sign of the protein in the images on disk.

    Attributes:
        verdict: "bright", "dark", or "too weak to tell".
        z: of "protein is bright", on disk; beyond ±5 it is told.
        inverted: whether the images are inverted on reading.
    """

    verdict: str
    z: float
    inverted: bool


@dataclass(frozen=True)
class Quantiles:
    """10 %, 50 % and 90 % of the sampled images."""

    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Normalisation:
    """Whether images have one grey scale.

    Attributes:
        offset_sd: mean of the background in units of an image's standard deviation.
        ramp_sd: difference across the box of the best-fitting plane, in the same unit.
        sd: standard deviation of images, relative to its median.
        normalised: whether none of these matters.
    """

    offset_sd: Quantiles
    ramp_sd: Quantiles
    sd: Quantiles
    normalised: bool


@dataclass(frozen=True)
class GroupSpectra:
    """Spectra of an optics group's images, per shell; noise has about unit variance.

    Attributes:
        name: of the group.
        particles: in it.
        sampled: measured on so many.
        resolution_A: of shells 1, 2, ...
        signal: power of the projections before the CTF.
        noise: power.
        signal_to_noise: of the images, the CTF included.
        snr_dB: 10 log10 of the ratio of signal to noise variance of a pixel.
    """

    name: str
    particles: int
    sampled: int
    resolution_A: tuple[float, ...]
    signal: tuple[float, ...]
    noise: tuple[float, ...]
    signal_to_noise: tuple[float, ...]
    snr_dB: float


@dataclass(frozen=True)
class NoiseDirections:
    """How the power of noise depends on direction, where it does by 10 % of a shell or more.

    Attributes:
        coarsest_A, finest_A: wavelengths between which it does.
        largest_ratio: largest power, in units of its shell's mean.
        direction_deg: of that, from x.
        wavelength_A: of that.
        signal_share: share of the pattern that the signal has too, from 0 to 1.
        words: the same in a line.
    """

    coarsest_A: float
    finest_A: float
    largest_ratio: float
    direction_deg: float
    wavelength_A: float
    signal_share: float
    words: str


@dataclass(frozen=True)
class Memory:
    """What a run needs at most.

    Attributes:
        objective: of the run, with its default settings, on a CPU.
        at_most_GB: 1e9 bytes, from the sizes of arrays; it may need a fraction of it.
    """

    objective: str
    at_most_GB: float


@dataclass(frozen=True)
class TimeEstimate:
    """CPU time of a run, right within a factor of 3.

    Attributes:
        objective: of the run, with its default settings, on a CPU.
        resolution_A: that these particles can reach, as `images_needed` says.
        image_s: CPU seconds of an image in an iteration there.
        run_s: CPU seconds of the run.
    """

    objective: str
    resolution_A: float
    image_s: float
    run_s: float


@dataclass(frozen=True)
class ParticleCheck:
    """What a look at a particle set has found; rows count from 0, as for --ind.

    Attributes:
        particles, box_size, pixel_size_A: of the set.
        summary: lines of the reader: stacks, where the pixel size came from, optics.
        sampled: images that were looked at.
        contrast, normalisation, spectra, extent: of these.
        ctf: ranges of the parameters.
        ctf_outliers: particles whose CTF stands out.
        bad_images: rows and words, of the images sampled.
        images_needed: estimate, with all poses known.
        noise_directions: how noise depends on direction; None where it does not, significantly.
        memory: of runs, where it is known.
        time: of a run by the likelihood; None where it would be refused.
        available_GB: memory of this machine that is free, or None.
        ignored_columns: that would change the images' model; `summary` says them too.
        problems: what is to be mended.
        notes: what is worth knowing.
    """

    particles: int
    box_size: int
    pixel_size_A: float
    summary: tuple[str, ...]
    sampled: int
    contrast: Contrast
    normalisation: Normalisation
    ctf: tuple[Range, ...]
    ctf_outliers: tuple[Outlier, ...]
    bad_images: tuple[Outlier, ...]
    spectra: tuple[GroupSpectra, ...]
    extent: Extent
    images_needed: tuple[ImagesNeeded, ...]
    noise_directions: NoiseDirections | None
    memory: tuple[Memory, ...]
    time: TimeEstimate | None
    available_GB: float | None
    ignored_columns: tuple[UnusedColumn, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """Whether nothing is to be mended."""
        return not self.problems

    def to_json(self) -> str:
        """All findings; a number that is not finite is null."""
        return to_json(asdict(self) | {"ready": self.ready}, indent=1)
