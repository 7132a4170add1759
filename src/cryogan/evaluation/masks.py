"""A soft mask derived from a map without any setting."""

import numpy as np
import torch
from skimage.filters import threshold_otsu
from skimage.measure import label
from torch import Tensor

from cryogan import fourier
from cryogan.errors import InputError

_COMPONENT_FRACTION = 0.1


def soft_mask(
    volume: Tensor,
    pixel_size_A: float,
    *,
    low_pass_A: float = 15.0,
    dilation_A: float = 6.0,
    edge_A: float = 12.0,
) -> Tensor:
    """Mask of the molecule in a map: 1 on it and near it, falling smoothly to 0 around it.

    The map is low-pass filtered (Gaussian, half amplitude at `low_pass_A`), thresholded by
    Otsu's method (IEEE Trans. SMC 9, 1979) over the sphere inscribed in the box, and reduced to
    its largest connected component together with those of at least a tenth of that one's
    volume. The mask is 1 within `dilation_A` of what is left and 0 beyond
    `dilation_A + edge_A`; in between it is the dilated shape convolved with a raised-cosine
    ball. Lengths below 3, 1 and 3 pixels respectively are raised to that.

    Args:
        volume: (D, D, D), protein bright.
        pixel_size_A: of the map.
        low_pass_A: filter applied before the threshold.
        dilation_A: margin around the thresholded shape.
        edge_A: width of the soft edge.

    Returns:
        (D, D, D) mask in [0, 1].

    Raises:
        InputError: the map is constant or not finite.
    """
    box_size = volume.shape[-1]
    if not bool(torch.isfinite(volume).all()) or float(volume.std()) == 0.0:
        raise InputError(
            "No mask can be derived from a map that is constant or holds values that are not "
            "finite; give a map with density or a mask of your own."
        )
    low_pass = max(low_pass_A / pixel_size_A, 3.0)
    dilation = max(dilation_A / pixel_size_A, 1.0)
    edge = max(edge_A / pixel_size_A, 3.0)

    k2 = fourier.frequency_grid(box_size, 3, volume.device).square().sum(-1)
    spectrum = fourier.rfft(volume, 3) * torch.exp2(-k2 * low_pass**2)
    smooth = fourier.irfft(spectrum, box_size, 3)
    inside = fourier.radius_grid(box_size, 3, volume.device) < box_size / 2
    threshold = float(threshold_otsu(smooth[inside].cpu().numpy()))  # type: ignore[no-untyped-call]
    shape = _large_components(((smooth > threshold) & inside).cpu().numpy()).to(volume.device)

    padded_size = box_size + 2 * int(dilation + edge + 1)
    core = fourier.crop_or_pad(shape, padded_size, 3)
    ball = fourier.soft_disc(padded_size, dilation + edge / 2, 1e-3, 3, volume.device)
    dilated = (_convolve(core, ball) > 0.5).to(volume.dtype)
    blur = fourier.soft_disc(padded_size, 0.0, edge / 2, 3, volume.device)
    soft = _convolve(dilated, blur / blur.sum()).clamp(0.0, 1.0)
    return fourier.crop_or_pad(soft, box_size, 3)


def _convolve(volume: Tensor, kernel: Tensor) -> Tensor:
    """Cyclic convolution with a kernel centred on the origin voxel."""
    product = fourier.rfft(volume, 3) * fourier.rfft(kernel, 3)
    return fourier.irfft(product, volume.shape[-1], 3)


def _large_components(shape: "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]") -> Tensor:
    """The largest face-connected component and all of at least a tenth of its volume."""
    labels = label(shape, connectivity=1)  # type: ignore[no-untyped-call]
    volumes = np.bincount(labels.ravel())
    volumes[0] = 0
    keep = volumes >= max(_COMPONENT_FRACTION * volumes.max(), 1)
    return torch.from_numpy(keep[labels].astype(np.float32))
