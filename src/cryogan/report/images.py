"""Grey-scale pictures as PNG data addresses."""

import base64
import io

import numpy as np
import torch
from PIL import Image

from cryogan import fourier
from cryogan.run.contents import FloatArray

GreyRange = tuple[float, float]

# Larger images are Fourier-cropped to this many pixels, to keep the page light (by default).
MAX_PIXELS = 128


def grey_range(images: FloatArray, tail: float = 0.002) -> GreyRange:
    """Black and white points: the quantiles `tail` and 1 - `tail` of the finite pixels."""
    finite = images[np.isfinite(images)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = np.quantile(finite, [tail, 1.0 - tail])
    return float(low), float(high)


def grey_png(image: FloatArray, limits: GreyRange, max_pixels: int = MAX_PIXELS) -> str:
    """An image (d, d), first row on top, as a `data:image/png` address; larger ones are cropped."""
    if max(image.shape) > max_pixels:
        image = fourier.resample(torch.from_numpy(np.ascontiguousarray(image)), max_pixels).numpy()
    low, high = limits
    scaled = (np.nan_to_num(image) - low) / max(high - low, 1e-12)
    pixels = (scaled.clip(0.0, 1.0) * 255.0).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
