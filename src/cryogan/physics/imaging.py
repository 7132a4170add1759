"""The microscope: from a volume and poses to images, and the one preprocessing function."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.particles import Pose
from cryogan.physics.projection import slices, volume_spectrum


def shift_phases(shift_px: Tensor, box_size: int) -> Tensor:
    """Factors (n, D, D // 2 + 1) that move an image by `shift_px` ((n, 2) of x, y)."""
    k = fourier.frequency_grid(box_size, 2, shift_px.device)
    phase = -2.0 * torch.pi * torch.einsum("yxc,nc->nyx", k, shift_px)
    return torch.polar(torch.ones_like(phase), phase)


def form_images(
    spectrum: Tensor,
    pose: Pose,
    ctf: Tensor | None,
    *,
    box_size: int,
    pixel_size_A: float,
    noise: Tensor | None = None,
    coefficients: Tensor | None = None,
    band: float = 1.0,
    folded: bool = False,
    shifted: bool = True,
) -> Tensor:
    """Images `y = n + C S P_R V`, differentiable in the volume.

    Args:
        spectrum: `volume_spectrum` of the volume(s): one for all poses, one a pose, or m volumes,
            each for n / m poses in turn.
        pose: n poses.
        ctf: (n, D, D // 2 + 1) as from `physics.ctf.ctf`, or None for no microscope.
        box_size: D.
        pixel_size_A: pixel size of volume and images.
        noise: (n, D, D) to be added, or None.
        coefficients: (n, m) for mixtures `Σ_k coefficients[i, k] V_k` of m volumes, or None.
        band: see `projection.slices`; frequencies beyond this fraction of Nyquist are not formed.
        shifted: False where all shifts are known to be zero, which saves their phases.
        folded: read slices on the images' own grid (`projection.slices`, size D): much cheaper,
            and with padding 4 nearly as accurate.

    Returns:
        (n, D, D), protein bright. A pixel of a projection is the sum of voxels along its ray.
    """
    plane = _mixed_slices(spectrum, pose.rotation, coefficients, band, box_size if folded else None)
    if not folded:
        projection = fourier.irfft(plane, spectrum.shape[-2])
        plane = fourier.rfft(fourier.crop_or_pad(projection, box_size))
    if shifted:
        plane = plane * shift_phases(pose.shift_A / pixel_size_A, box_size)
    if ctf is not None:
        plane = plane * ctf
    image = fourier.irfft(plane, box_size)
    return image if noise is None else image + noise


def _mixed_slices(
    spectrum: Tensor, rotation: Tensor, coefficients: Tensor | None, band: float, size: int | None
) -> Tensor:
    if coefficients is not None:  # projection is linear: mix slices, not volumes
        parts = zip(coefficients.unbind(1), spectrum, strict=True)
        return sum(
            (
                coefficient[:, None, None] * slices(each, rotation, band, size)
                for coefficient, each in parts
            ),
            start=torch.zeros((), device=spectrum.device),
        )
    if spectrum.ndim == 4 and len(spectrum) < len(rotation):
        parts = zip(spectrum, rotation.chunk(len(spectrum)), strict=True)
        return torch.cat([slices(each, some, band, size) for each, some in parts])
    return slices(spectrum, rotation, band, size)


def simulate_images(
    volume: Tensor,
    pose: Pose,
    ctf: Tensor | None,
    *,
    pixel_size_A: float,
    noise: Tensor | None = None,
    padding: float = 2.0,
) -> Tensor:
    """`form_images` straight from a volume (D, D, D) or (n, D, D, D)."""
    return form_images(
        volume_spectrum(volume, padding),
        pose,
        ctf,
        box_size=volume.shape[-1],
        pixel_size_A=pixel_size_A,
        noise=noise,
    )


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before the critic sees it; real and simulated alike.

    Attributes:
        box_size: images are Fourier-cropped to this box.
        whitening: (box // 2 + 1,) factor for every shell, or None: it brings weak shells
            to the level of strong ones.
        band: coefficients at or beyond this fraction of the box's Nyquist frequency are removed
            (1.0 keeps all shells below Nyquist; the Nyquist row always goes).
        phase_flip: coefficients where an image's own CTF is negative change their sign.
        window_radius: radius of the soft window as a fraction of half the box; None for none.
        window_edge: width of its cosine edge, same unit.
        normalise: zero mean and unit variance, image by image, as the last step.
    """

    box_size: int
    whitening: Tensor | None = None
    band: float = 1.0
    phase_flip: bool = False
    window_radius: float | None = None
    window_edge: float = 0.1
    normalise: bool = False


def preprocess(images: Tensor, settings: Preprocessing, transfer: Tensor | None = None) -> Tensor:
    """Fourier crop → whiten → band limit → phase flip → window → normalise.

    Args:
        images: (n, D, D).
        settings: what to do.
        transfer: (n, box, box // 2 + 1) the images' own CTFs; needed for a phase flip only.

    Returns:
        (n, box, box).

    The crop is unitary: white noise keeps its variance per pixel, at every box.

    Real and simulated images reach the critic through this function only. The critic would
    learn any coefficient, row or window edge that differed between them, not the molecule.
    """
    box_size = images.shape[-1]
    size = settings.box_size
    plane = fourier.resize(fourier.rfft(images), box_size, size)
    mask = fourier.band_mask(size, settings.band * (size / 2), 2, images.device)
    if settings.whitening is not None:
        shells = fourier.shell_index(size, 2, images.device).clamp_max(size // 2)
        mask = mask * settings.whitening.to(images.device)[shells]
    plane = plane * mask
    if settings.phase_flip:
        assert transfer is not None
        plane = torch.where(transfer < 0, -plane, plane)
    image = fourier.irfft(plane, size) * (size / box_size)
    if settings.window_radius is not None:
        half = size / 2
        image = image * fourier.soft_disc(
            size,
            settings.window_radius * half,
            settings.window_edge * half,
            2,
            images.device,
        )
    if settings.normalise:
        image = image - image.mean(dim=(-2, -1), keepdim=True)
        image = image / image.square().mean(dim=(-2, -1), keepdim=True).sqrt().clamp_min(1e-12)
    return image


def rescale_volume(volume: Tensor, new_size: int) -> Tensor:
    """The same volume at another box of the same field of view, band-limited or zero-padded.

    Grey values are multiplied by (D / D')²: D / D' because a ray crosses fewer, larger voxels,
    and once more because images are cropped unitarily (`preprocess`), with the
    variance of white noise kept.
    """
    size = volume.shape[-1]
    return fourier.resample(volume, new_size, 3) * (size / new_size) ** 2
