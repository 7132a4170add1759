"""What a training run is told: frozen, and written into every run folder."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from cryogan.errors import InputError

_RANGES: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (
        ("batch_size", "critic_steps", "penalty_every", "critic_channels", "templates"),
        lambda x: x >= 1,
        "at least 1",
    ),
    (("volume_lr", "critic_lr", "basis_start"), lambda x: 0 < x < math.inf, "a positive number"),
    (("view_sigma", "power_limit"), lambda x: 0 < x < math.inf, "a positive number"),
    (("penalty_weight",), lambda x: 0 <= x < math.inf, "0 (no penalty) or more"),
    (("settled_fsc",), lambda x: 0 < x <= 1, "a correlation above 0, at most 1"),
    (("lr_epoch_factor",), lambda x: 0 < x <= 1, "a factor above 0, at most 1"),
    (("ema_fraction",), lambda x: 0 <= x <= 1, "a fraction of the steps from 0 to 1"),
    (("band",), lambda x: 0.25 <= x <= 1, "a fraction of the Nyquist frequency from 0.25 to 1"),
    (
        ("mask_radius", "window_radius"),
        lambda x: 0 < x <= 2,
        "a fraction of half the box above 0, at most 2",
    ),
    (("mask_edge",), lambda x: 0 <= x <= 1, "a fraction of half the box from 0 to 1"),
    (("shift_percent",), lambda x: 0 <= x <= 50, "a percentage of the box from 0 to 50"),
    (("memory_GB",), lambda x: x >= 0, "0 (stream everything) or more"),
)
"""Settings of `TrainingConfig`, what fits, and how to say it; None is always allowed."""


@dataclass(frozen=True)
class Stage:
    """A stretch of training at one box size.

    Attributes:
        box_size: images are Fourier-cropped to this box (or to their own, if smaller).
        images: number of real images shown to the critic in this stage.
        padding: oversampling of the projector's spectrum. From 3 on, slices are read on the
            images' own grid, which is cheap (`physics.projection.slices`).
        consensus: learn one volume in this stage, whatever the generator; conformations of the
            stages that follow start from it.
    """

    box_size: int
    images: int
    padding: float = 3.0
    consensus: bool = False


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides the outcome of training, beside the data and the seed.

    Attributes:
        stages: box sizes and lengths, in order. The volume is carried over, and so is a template
            critic; others are fresh.
        settled_fsc: a stage other than the last ends early, at a multiple of 50 steps, when the
            averaged (mean) volume correlates this well with that of 50 steps before in the finest
            third of its shells; 1 for stages of fixed length.
        generator: what is learnt: one "volume", or conformations: "subspace" or "unet" (see
            `models.conformations`, `models.unet`).
        latent: of conformations: "uniform" on [0, 1], "uniform2d" on its square, "circle", or
            "discrete".
        classes: number of classes of a discrete latent; their populations are learnt.
        basis: number of volumes that a subspace adds to the mean (a discrete latent's always has
            classes - 1).
        basis_start: standard deviation of their initial noise, in units of `volume_lr`.
        volumes_per_step: number of volumes that a U-Net generates in a step.
        loss: "relativistic" with zero-centred penalties, or "wasserstein" with WGAN-GP.
        critic: "template", "compact" or "paper" (see `models.critic`).
        templates: number of templates of a template critic.
        critic_channels: channels of the first layer of the other critics.
        precision: of the critic's matrix products: "bfloat16", "float32", or "auto", the former
            where the processor has instructions for it. Everything else is float32.
        parametrisation: "fourier" or "voxels" (see `models.volume`).
        positivity: "relu", "leaky" or "none". A band-limited molecule has negative ripples of
            its own, so "leaky" is strict (0.1) only at first, where it helps to find the molecule:
            it is released to nothing over the first half of the first stage.
        mask_radius: radius of the volume's soft ball mask, as a fraction of half the box.
        mask_edge: width of its cosine edge, same unit.
        symmetry: point group imposed on the volume (RELION's name).
        view_sigma: viewing directions are assumed to be N(0, diag(1, 1, σ²)), normalised (angular
            central Gaussian), and the in-plane angle uniform; 1 for uniform orientations.
        shift_percent: half width of the triangular shift distribution, in percent of the box.
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
        augment: turn and mirror both streams by random symmetries of the pixel grid, which the
            distribution of images has anyway, as opposite views are equally likely: the critic
            gets eight times as many real images to learn by heart.
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
    """

    stages: tuple[Stage, ...] = (Stage(32, 51_200, 4.0), Stage(48, 76_800), Stage(64, 128_000))
    settled_fsc: float = 1.0
    generator: Literal["volume", "subspace", "unet"] = "volume"
    latent: Literal["uniform", "uniform2d", "circle", "discrete"] = "uniform"
    classes: int = 2
    basis: int = 4
    basis_start: float = 0.02
    volumes_per_step: int = 8
    loss: Literal["relativistic", "wasserstein"] = "relativistic"
    critic: Literal["template", "compact", "paper"] = "template"
    templates: int = 64
    critic_channels: int = 32
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    parametrisation: Literal["fourier", "voxels"] = "fourier"
    positivity: Literal["relu", "leaky", "none"] = "leaky"
    mask_radius: float = 0.85
    mask_edge: float = 0.15
    symmetry: str = "C1"
    view_sigma: float = 1.0
    shift_percent: float = 0.0
    estimate_spectra: bool = True
    learn_scales: bool = False
    band: float = 0.9
    power_limit: float | None = 30.0
    phase_flip: bool = True
    normalise: bool = False
    window_radius: float | None = None
    augment: bool = True
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
        if self.generator == "volume" and self.latent != "uniform":
            raise InputError(
                f"latent is '{self.latent}', but a single volume has none; give --model "
                "heterogeneous for conformations or classes."
            )
        if self.classes != TrainingConfig.classes and self.latent != "discrete":
            raise InputError(
                f"classes is {self.classes}, but the latent is not discrete; give --model "
                "heterogeneous and --training.latent discrete for classes."
            )
        if self.generator != "volume":
            self._check_conformations()

    def _check_conformations(self) -> None:
        if self.latent == "discrete" and not 2 <= self.classes <= self.batch_size:
            raise InputError(
                f"classes is {self.classes}; give 2 to batch_size ({self.batch_size}) classes, or "
                "--model homogeneous for a single volume."
            )
        if self.latent == "discrete" and self.basis != TrainingConfig.basis:
            raise InputError(
                f"basis is {self.basis}, but the volumes beside the mean of {self.classes} classes "
                f"are {self.classes - 1}; give --training.classes alone, or another latent."
            )
        least = 2 if self.latent in ("uniform2d", "circle") else 1
        if self.latent != "discrete" and self.basis < least:
            raise InputError(
                f"basis is {self.basis}, and a latent '{self.latent}' needs a basis of at least "
                f"{least}; give more."
            )
        alone = [stage.consensus for stage in self.stages]
        if alone[-1] or alone != sorted(alone, reverse=True):
            raise InputError(
                "Stages with 'consensus' must come first and leave at least one for "
                "conformations; change their order."
            )
        if self.generator == "unet":
            if self.latent != "uniform":
                raise InputError(
                    f"The U-Net lives on a line, and the latent is '{self.latent}'; give "
                    "--training.latent uniform or --training.generator subspace."
                )
            if self.symmetry != "C1":
                raise InputError(
                    f"symmetry is {self.symmetry}, which the U-Net cannot impose; give C1 or "
                    "--training.generator subspace."
                )
            if len(self.stages) > 1 or self.stages[0].box_size % 16:
                raise InputError(
                    "The U-Net is trained in one stage with a box that is a multiple of 16; give "
                    "one such stage, as --preset paper does."
                )
            if self.volumes_per_step < 1 or self.batch_size % self.volumes_per_step:
                raise InputError(
                    f"A batch of {self.batch_size} images cannot be shared equally by "
                    f"{self.volumes_per_step} volumes; give a volumes_per_step that divides it."
                )


PAPER = TrainingConfig(
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

HETEROGENEOUS = TrainingConfig(
    stages=(
        Stage(box_size=20, images=64_000, consensus=True),
        Stage(box_size=20, images=153_600),
        Stage(box_size=32, images=256_000),
    ),
    generator="subspace",
    penalty_weight=0.001,
    volume_lr=0.02,
    critic_lr=6e-3,
)
"""Conformations: a mean volume first, then a path, both at low resolution; then finer ones."""

PAPER_HETEROGENEOUS = replace(
    PAPER,
    stages=(Stage(box_size=32, images=40 * 100_000, padding=2.0),),
    generator="unet",
    critic="paper",
)
"""The published Multi-CryoGAN networks (Gupta et al. 2020) with CryoGAN's recipe."""

PRESETS = {"default": TrainingConfig(), "paper": PAPER}
HETEROGENEOUS_PRESETS = {"default": HETEROGENEOUS, "paper": PAPER_HETEROGENEOUS}
