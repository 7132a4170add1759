"""Settings of adversarial training: frozen, and written into every run folder."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cryogan.errors import InputError
from cryogan.objectives.assumptions import Assumptions
from cryogan.registry import CRITICS, VOLUME_MODELS

_RANGES: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (
        (
            "batch_size",
            "critic_steps",
            "penalty_every",
            "critic_channels",
            "templates",
            "volumes_per_step",
        ),
        lambda x: x >= 1,
        "at least 1",
    ),
    (("volume_lr", "critic_lr"), lambda x: 0 < x <= 10, "a learning rate above 0, at most 10"),
    (("basis_noise", "power_limit"), lambda x: 0 < x < math.inf, "a positive number"),
    (("penalty_weight",), lambda x: 0 <= x < math.inf, "0 (no penalty) or more"),
    (("converged_fsc",), lambda x: 0 < x <= 1, "a correlation above 0, at most 1"),
    (("lr_epoch_factor",), lambda x: 0 < x <= 1, "a factor above 0, at most 1"),
    (("ema_fraction",), lambda x: 0 <= x <= 1, "a fraction of the steps from 0 to 1"),
    (("band",), lambda x: 0.25 <= x <= 1, "a fraction of the Nyquist frequency from 0.25 to 1"),
    (
        ("window_radius",),
        lambda x: 0 < x <= 2,
        "a fraction of half the box above 0, at most 2",
    ),
    (("memory_GB",), lambda x: x >= 0, "0 (stream everything) or more"),
)
"""Settings of `AdversarialConfig`, what fits, and how to say it; None is always allowed."""


@dataclass(frozen=True)
class Stage:
    """A stretch of training at one box size.

    Attributes:
        box_size: images are Fourier-cropped to this box (or to their own, if smaller).
        images: number of real images shown to the critic in this stage.
        padding: oversampling of the projector's spectrum. From 3 on, slices are read on the
            images' own grid, which is cheap (`physics.projection.slices`).
        consensus: learn one volume in this stage, whatever the volume model; conformations of the
            stages that follow start from it.
    """

    box_size: int
    images: int
    padding: float = 3.0
    consensus: bool = False


@dataclass(frozen=True)
class AdversarialConfig:
    """Everything that decides the outcome of training, beside the data and the seed.

    Attributes:
        stages: box sizes and lengths, in order. The volume is carried over, and so is a template
            critic; others are fresh.
        converged_fsc: a stage other than the last ends early, at a multiple of 50 steps, when the
            averaged (mean) volume correlates this well with that of 50 steps before in the finest
            third of its shells; 1 for stages of fixed length.
        volume_model: what learns the maps: "volume" for one structure, "subspace" or "unet" for
            conformations (`cryogan.models`), or one of your own; by default "volume" for one
            structure and "subspace" for conformations.
        basis_noise: standard deviation of the initial noise of a subspace's basis volumes, in
            units of `volume_lr`.
        volumes_per_step: number of volumes that a U-Net makes in a step.
        loss: "relativistic" with zero-centred penalties, or "wasserstein" with WGAN-GP.
        critic: "template", "compact" or "paper" (`cryogan.models.critics`), or one of your own.
        templates: number of templates of a template critic.
        critic_channels: channels of the first layer of the other critics.
        precision: of the critic's matrix products: "bfloat16", "float32", or "auto", the former
            where the processor has instructions for it. Everything else is float32.
        parametrisation: "fourier" or "voxels" (see `models.volume`).
        positivity: "relu", "leaky" or "none". A band-limited molecule has negative ripples of
            its own, so "leaky" is strict (0.1) only at first, where it helps to find the molecule:
            it is released to nothing over the first half of the first stage.
        estimate_spectra: noise spectrum and contrast from the data (`physics.spectra`);
            otherwise noise is white and the volume starts at zero.
        learn_scales: learn a log-scale of the volume and one of the noise.
        band: images and volume are limited to this fraction of a stage's Nyquist frequency;
            the outermost shells, where interpolation in a small box is poor, are left out.
        power_limit: both streams are filtered, shell by shell, so that noise has unit power and
            the images' mean power nowhere exceeds this many times that of noise; None for no
            filter. Strong low shells would otherwise drown the fine ones.
        phase_flip: multiply both streams by the signs of their own CTFs, so that the critic has
            one kind of particle to know at all defoci.
        normalise: zero mean and unit variance of every image, the critic's last preprocessing.
        window_radius: radius of the images' soft window as a fraction of half the box, or None.
        augment: turn and mirror the real and the simulated images of a step by one random symmetry
            of the pixel grid. Both are changed alike, so that no view need be as frequent as
            another. A mirror image is the view from the opposite direction: the critic no longer
            sees which of two opposite views is the more frequent, and gets eight times as many
            real images before it can memorise them.
        view_density: a likelihood run, or the view_density.csv of one, whose viewing directions
            poses are drawn from; by default they are as `view_sigma` says. The volume is then
            learnt in the frame of that run's map, of either hand. The run must have had the same
            symmetry; directions in a file must be as frequent as their equivalents, within 5 % of
            the mean.
        memory_GB: memory for the real images of both half-sets together (1e9 bytes), at every
            stage: as float32 if they fit, else as float16, else they are read from their files
            all through the stage, by a thread that is a few batches ahead. Which images are
            shown when does not depend on it. `train`, which knows one set, gives it all of this;
            of several processes that train one half-set together each takes a half-set's share.
            A step needs memory of its own.
        batch_size: images of each kind in a critic step.
        critic_steps: critic steps per volume step.
        penalty_weight: weight of the gradient penalty.
        penalty_every: steps between penalties; each then counts as many times.
        volume_lr: learning rate of the volume; in "fourier", a fraction of the expected
            amplitude of every coefficient.
        critic_lr: learning rate of the critic.
        betas: of both Adam optimisers.
        lr_schedule: "cosine" to 5 % over the whole run, "hold": constant over its first half and
            then the same, or "epoch": × `lr_epoch_factor` an epoch.
        lr_epoch_factor: see `lr_schedule`.
        ema_fraction: the volume that is reported is an average over about this fraction of the
            steps so far; 0 for the last volume.
        assumptions: what is assumed of the sample.
    """

    stages: tuple[Stage, ...] = (Stage(32, 51_200, 4.0), Stage(48, 76_800), Stage(64, 128_000))
    converged_fsc: float = 1.0
    volume_model: str | None = None
    basis_noise: float = 0.02
    volumes_per_step: int = 8
    loss: Literal["relativistic", "wasserstein"] = "relativistic"
    critic: str = "template"
    templates: int = 64
    critic_channels: int = 32
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    parametrisation: Literal["fourier", "voxels"] = "fourier"
    positivity: Literal["relu", "leaky", "none"] = "leaky"
    estimate_spectra: bool = True
    learn_scales: bool = False
    band: float = 0.9
    power_limit: float | None = 30.0
    phase_flip: bool = True
    normalise: bool = False
    window_radius: float | None = None
    augment: bool = True
    view_density: str | None = None
    memory_GB: float = 2.0
    batch_size: int = 256
    critic_steps: int = 1
    penalty_weight: float = 0.005
    penalty_every: int = 4
    volume_lr: float = 0.1
    critic_lr: float = 3e-3
    betas: tuple[float, float] = (0.5, 0.9)
    lr_schedule: Literal["cosine", "hold", "epoch"] = "cosine"
    lr_epoch_factor: float = 1.0
    ema_fraction: float = 0.05
    assumptions: Assumptions = field(default_factory=Assumptions)

    def __post_init__(self) -> None:
        if not self.stages:
            raise InputError("The configuration has no training stage; give at least one.")
        for names, fits, wanted in _RANGES:
            for name in names:
                value = getattr(self, name)
                if value is not None and not fits(value):
                    raise InputError(f"{name} is {value}; give {wanted}.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(
                f"betas is {self.betas[0]}, {self.betas[1]}; give two numbers from 0 to below 1."
            )
        for number, stage in enumerate(self.stages, start=1):
            if stage.box_size < 16 or stage.box_size % 2:
                raise InputError(
                    f"Stage {number} has box size {stage.box_size}; give an even number of at "
                    "least 16."
                )
            if not 1 <= stage.padding <= 8:
                raise InputError(
                    f"Stage {number} has padding {stage.padding}; give a number from 1 to 8."
                )
            if stage.images < self.batch_size * self.critic_steps:
                raise InputError(
                    f"Stage {number} shows {stage.images} images, fewer than one step's "
                    f"{self.batch_size * self.critic_steps}; give more."
                )
        if self.assumptions.finds_symmetry:
            raise InputError(
                "The adversarial objective cannot find a symmetry (auto); give a point group, or "
                "--objective likelihood."
            )
        CRITICS.check(self.critic)
        VOLUME_MODELS.check(self.model_name)
        alone = [stage.consensus for stage in self.stages]
        if self.assumptions.latent is not None and (
            alone[-1] or alone != sorted(alone, reverse=True)
        ):
            raise InputError(
                "Stages with 'consensus' must come first and leave at least one for "
                "conformations; change their order."
            )
        if self.assumptions.is_discrete and self.assumptions.classes > self.batch_size:
            raise InputError(
                f"classes is {self.assumptions.classes}; give 2 to batch_size ({self.batch_size}) "
                "classes, or --model homogeneous for a single volume."
            )

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "AdversarialConfig":
        """From what `dataclasses.asdict` and JSON have made of settings.

        Raises:
            InputError: they are not of this version.
        """
        try:
            made = dict(values)
            made["stages"] = tuple(Stage(**stage) for stage in values["stages"])
            made["betas"] = tuple(values["betas"])
            made["assumptions"] = Assumptions(**values["assumptions"])
            return cls(**made)
        except (KeyError, TypeError) as error:
            raise InputError(
                f"The settings of this run are not of this version ({error}); run it again."
            ) from error

    @property
    def model_name(self) -> str:
        """The volume model that is meant."""
        if self.volume_model is not None:
            return self.volume_model
        return "volume" if self.assumptions.latent is None else "subspace"


PAPER = AdversarialConfig(
    stages=(Stage(box_size=1024, images=40 * 41_123, padding=2.0),),
    loss="wasserstein",
    critic="paper",
    critic_channels=96,
    precision="float32",
    parametrisation="voxels",
    positivity="relu",
    estimate_spectra=False,
    learn_scales=True,
    band=1.0,
    power_limit=None,
    augment=False,
    phase_flip=False,
    normalise=True,
    batch_size=8,
    critic_steps=4,
    penalty_weight=0.01,
    penalty_every=1,
    volume_lr=1e-3,
    critic_lr=1e-3,
    lr_schedule="epoch",
    lr_epoch_factor=0.99,
    ema_fraction=0.0,
)
"""The published CryoGAN recipe for synthetic data (Gupta et al. 2021), at the data's own box.

Its length is the published one, 40 epochs of 41,123 images. Where the published scripts differ
from the published method, the method is followed: the penalty's norm is taken per image (theirs:
per pixel row); critic gradients are not clipped (theirs: clipped before `backward`, to no
effect); both players' gradients are cleared before use; the half-set runs share nothing, initial
critic weights included. The recipe's variants for experimental data (penalty weight 1, 20 epochs
at × 0.93, a blur that shrinks) are not in this preset. Decided by us, the source being silent:
the ball mask (see the defaults), and that the volume and both log-scales start at zero.
"""

HETEROGENEOUS = AdversarialConfig(
    stages=(
        Stage(box_size=20, images=64_000, consensus=True),
        Stage(box_size=20, images=153_600),
        Stage(box_size=32, images=256_000),
    ),
    penalty_weight=0.001,
    volume_lr=0.02,
    critic_lr=6e-3,
)
"""Conformations: a mean volume first, then a path, both at low resolution; then finer ones."""

PAPER_HETEROGENEOUS = replace(
    PAPER,
    stages=(Stage(box_size=32, images=40 * 100_000, padding=2.0),),
    volume_model="unet",
)
"""The published Multi-CryoGAN networks (Gupta et al. 2020) with CryoGAN's recipe."""

PRESETS = {"default": AdversarialConfig(), "paper": PAPER}
HETEROGENEOUS_PRESETS = {"default": HETEROGENEOUS, "paper": PAPER_HETEROGENEOUS}


def preset(name: str, *, heterogeneous: bool) -> AdversarialConfig:
    """The settings of that name.

    Raises:
        InputError: there are none.
    """
    presets = HETEROGENEOUS_PRESETS if heterogeneous else PRESETS
    if name not in presets:
        raise InputError(f"The preset '{name}' is unknown; give one of {', '.join(presets)}.")
    return presets[name]
