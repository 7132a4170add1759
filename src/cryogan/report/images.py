"""Grey-scale pictures as PNG data addresses."""

import base64
import struct
import zlib

import numpy as np
import torch
from numpy.typing import NDArray

from cryogan import fourier
from cryogan.report.conformation_files import FloatArray

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
    return "data:image/png;base64," + base64.b64encode(_png(pixels)).decode()


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """An 8-bit grey PNG file (PNG specification, colour type 0, filter 0 on every row)."""
    height, width = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = np.pad(pixels, ((0, 0), (1, 0))).tobytes()
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
