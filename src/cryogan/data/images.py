"""Real images as an objective needs them: preprocessed, in memory or read when they are needed."""

import math
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from cryogan.data.parts import in_parts
from cryogan.errors import InputError
from cryogan.particles import DerivedStack, ImageStack, Particles
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import Preprocessing, preprocess
from cryogan.randomness import generator_for

_LARGEST_HALF = torch.finfo(torch.float16).max


class RealImages(Protocol):
    """A stage's real images as the critic sees them, (D, D) each."""

    @property
    def box_size(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def __len__(self) -> int: ...

    def read(self, index: Tensor) -> Tensor:
        """The images of `index` ((n,) int64, on the CPU): (n, D, D) float32 on `device`."""
        ...

    def batches(self, indices: Iterator[Tensor]) -> Generator[Tensor, None, None]:
        """What `read` gives for each of `indices`, in that order; to be closed after use."""
        ...

    def drop(self) -> None:
        """Give back the memory; nothing can be read any more."""
        ...


@dataclass(frozen=True)
class PreprocessedStack:
    """An `ImageStack` of particles, preprocessed as they are read.

    Attributes:
        particles: where the images come from.
        gain: what they are multiplied by first.
        settings: their preprocessing.
    """

    particles: Particles
    gain: float
    settings: Preprocessing

    @property
    def box_size(self) -> int:
        return self.settings.box_size

    @property
    def pixel_size_A(self) -> float:
        return self.particles.pixel_size_A * self.particles.box_size / self.box_size

    def __len__(self) -> int:
        return len(self.particles)

    def read(self, index: Tensor) -> Tensor:
        """The images of `index`, preprocessed: (n, D, D) float32 on the CPU.

        An image does not depend on those beside it, to the last bit in batches of at least as
        many images as there are threads.
        """
        transfer = None
        if self.settings.phase_flip:
            transfer = ctf(self.particles.ctf[index], self.box_size, self.pixel_size_A)
        images = self.particles.stack.read(index) * self.gain
        return preprocess(images, self.settings, transfer)


@dataclass
class HeldImages:
    """Images in memory, on the training device: an (n, D, D) float32 or float16 tensor."""

    images: Tensor

    @property
    def box_size(self) -> int:
        return int(self.images.shape[-1])

    @property
    def device(self) -> torch.device:
        return self.images.device

    def __len__(self) -> int:
        return self.images.shape[0]

    def read(self, index: Tensor) -> Tensor:
        return self.images[index.to(self.device)].float()

    def batches(self, indices: Iterator[Tensor]) -> Generator[Tensor, None, None]:
        for index in indices:
            yield self.read(index)

    def drop(self) -> None:
        self.images = self.images.new_empty(0, self.box_size, self.box_size)


@dataclass(frozen=True)
class StreamedImages:
    """Images read from their stack when they are needed, or a little earlier.

    Attributes:
        stack: preprocessed images.
        device: where they are wanted.
        ahead: batches that a thread reads in advance.
    """

    stack: ImageStack
    device: torch.device
    ahead: int = 2

    @property
    def box_size(self) -> int:
        return self.stack.box_size

    def __len__(self) -> int:
        return len(self.stack)

    def read(self, index: Tensor) -> Tensor:
        return self.stack.read(index).to(self.device)

    def batches(self, indices: Iterator[Tensor]) -> Generator[Tensor, None, None]:
        """As `RealImages.batches`; an error of the thread is raised where its batch is due."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="cryogan-images")
        try:
            waiting = deque(pool.submit(self.stack.read, i) for i in islice(indices, self.ahead))
            while waiting:
                images = waiting.popleft().result()
                waiting.extend(pool.submit(self.stack.read, i) for i in islice(indices, 1))
                yield images.to(self.device)
        finally:
            pool.shutdown(cancel_futures=True)

    def drop(self) -> None:
        pass


def hold_or_stream(
    stack: PreprocessedStack, memory_GB: float, device: torch.device
) -> HeldImages | StreamedImages:
    """In memory as float32 if the images fit, else as float16, else streamed.

    float16 rounds a pixel by at most 0.05 %, a thousandth of the noise at the very most for
    pixels within two standard deviations; pixels beyond ± 65,504, which noise of about unit
    variance cannot make, are cut there. It is out of the question where images may have a large
    mean (neither whitened nor normalised), whose rounding could drown them.

    Args:
        stack: the images.
        memory_GB: how much may be held, in units of 1e9 bytes.
        device: where images are held or wanted.

    Raises:
        InputError: an image cannot be read (all are read now unless they are streamed).
    """
    pixels = len(stack) * stack.box_size**2
    centred = stack.settings.whitening is not None or stack.settings.normalise
    if 4 * pixels <= memory_GB * 1e9:
        dtype = torch.float32
    elif 2 * pixels <= memory_GB * 1e9 and centred:
        dtype = torch.float16
    else:
        return StreamedImages(stack, device)
    images = torch.empty(len(stack), stack.box_size, stack.box_size, dtype=dtype, device=device)
    for index in in_parts(torch.arange(len(stack)), stack.particles.stack):
        chunk = stack.read(index)
        if dtype == torch.float16:
            chunk = chunk.clamp(-_LARGEST_HALF, _LARGEST_HALF)
        images[index[0] : index[-1] + 1] = chunk
    return HeldImages(images)


def real_indices(
    seed: int, stage: int, steps: range, critic_steps: int, batch_size: int, count: int
) -> Iterator[Tensor]:
    """Numbers of the real images ((batch_size,) int64, of `count`) for every critic step.

    Each batch has a random generator of its own, seeded by run, stage and step: which images
    are drawn depends neither on how they are read nor on where a run was interrupted.
    """
    for step in steps:
        for critic_step in range(critic_steps):
            generator = generator_for(seed, stage, step, critic_step)
            yield torch.randint(count, (batch_size,), generator=generator)


@dataclass(frozen=True)
class CroppedStack(DerivedStack):
    """The images of `parent`, Fourier-cropped to `size` px: an `ImageStack`."""

    size: int

    @property
    def box_size(self) -> int:
        return self.size

    def read(self, index: Tensor) -> Tensor:
        return preprocess(self.parent.read(index), Preprocessing(self.size))


def cropped(
    particles: Particles, box_size: int | None = None, resolution_A: float | None = None
) -> Particles:
    """The particles in a smaller box of the same field of view: how far a run is to go.

    White noise keeps its power in every shell. What lies beyond the Nyquist limit of the smaller
    box is neither kept in memory nor used.

    Args:
        particles: the set.
        box_size: box to crop to, or None.
        resolution_A: in its place, the smallest even box whose Nyquist limit is this or finer.

    Raises:
        InputError: both are given, or the box is odd, below 16 px or larger than the particles'.
    """
    if box_size is not None and resolution_A is not None:
        raise InputError("Give --box or --resolution, not both.")
    width_A = particles.box_size * particles.pixel_size_A
    if resolution_A is not None:
        if not 0 < resolution_A < math.inf:
            raise InputError(f"--resolution is {resolution_A:g}; give a length in Å above 0.")
        box_size = min(particles.box_size, 2 * math.ceil(width_A / resolution_A - 1e-6))
        if box_size < 16:
            raise InputError(
                f"--resolution is {resolution_A:g} Å, which asks for a box of {box_size} px of the "
                f"particles' {width_A:.0f} Å; give {width_A / 8:.0f} Å or finer, for 16 px."
            )
    if box_size is None or box_size == particles.box_size:
        return particles
    if not 16 <= box_size < particles.box_size or box_size % 2:
        raise InputError(
            f"--box is {box_size}; give an even number from 16 to the particles' "
            f"{particles.box_size} px."
        )
    pixel_size_A = width_A / box_size
    stack = CroppedStack(particles.stack, box_size)
    return replace(particles, stack=stack, pixel_size_A=pixel_size_A)
