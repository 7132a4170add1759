"""What a particle file says of the microscope and cryogan does not use, and how much it matters.

Phases are those of RELION: of a beam tilt `2π Cs λ² tilt k³` along its direction, and of Zernike
polynomials of the frequency in 1/Å (Zivanov et al., IUCrJ 7, 2020; RELION). cryoSPARC's
`ctf/tilt_A` is Cs times the tilt.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cryogan.particles import CTFParams, UnusedColumn

_Numbers = np.ndarray[Any, np.dtype[np.float64]]

_TILTS = ("rlnBeamTiltX", "rlnBeamTiltY")
_ZERNIKES = ("rlnOddZernike", "rlnEvenZernike")
_MAGNIFICATIONS = ("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11")
_EDGE = 0.85  # of half the box: where the mask ends by default
LABELS = (*_TILTS, *_ZERNIKES, *_MAGNIFICATIONS)


def unused_columns(
    words: Mapping[str, Sequence[str]], ctf: CTFParams, pixel_size_A: float, box_size: int
) -> tuple[UnusedColumn, ...]:
    """The columns of a star file that are not used and say something.

    Args:
        words: label → values of the particles or of their optics groups, for those of `LABELS`
            that there are.
        ctf: of the particles; the longest wavelength and the largest Cs count.
        pixel_size_A, box_size: of the images.
    """
    numbers = {label: [_numbers(word) for word in each] for label, each in words.items()}
    found = []
    tilts = [label for label in _TILTS if any(any(each) for each in numbers.get(label, ()))]
    if tilts:
        largest = [max(abs(x) for each in numbers[label] for x in each) for label in tilts]
        cs_A = float(ctf.spherical_aberration_mm.abs().max()) * 1e7
        effect = _of_tilt(cs_A * 1e-3 * math.hypot(*largest), ctf, pixel_size_A)
        found.append(
            UnusedColumn(", ".join(tilts), "beam tilt (mrad)", _range(numbers, tilts), effect)
        )
    for label in _ZERNIKES:
        parity = "odd" if "Odd" in label else "even"
        lists = [each for each in numbers.get(label, ()) if any(each)]
        if lists:
            k = 0.5 / pixel_size_A
            phase = max(_largest_term(each, parity == "odd", k) for each in lists)
            effect = f"the largest term is {phase:.2g} rad at Nyquist ({1 / k:.3g} Å)"
            first = f"[{','.join(f'{x:g}' for x in lists[0])}]"
            found.append(UnusedColumn(label, f"{parity} aberrations", first, effect))
    matrices = _matrices(numbers)
    if len(matrices):
        labels = [label for label in _MAGNIFICATIONS if label in numbers]
        strain = np.linalg.svd(matrices, compute_uv=False)
        anisotropy = 100.0 * float((strain[:, 0] / strain[:, 1].clip(1e-9) - 1.0).max())
        moved = np.linalg.svd(matrices - np.eye(2), compute_uv=False)[:, 0].max()
        moved_px = float(moved) * _EDGE * box_size / 2
        effect = (
            f"{anisotropy:.2g} % anisotropic; moves the edge of a particle of {_EDGE:g} of the box "
            f"by up to {moved_px:.2g} px"
        )
        what = "anisotropic magnification"
        found.append(UnusedColumn(", ".join(labels), what, _range(numbers, labels), effect))
    return tuple(found)


def tilt_of_field(values: _Numbers, ctf: CTFParams, pixel_size_A: float) -> str:
    """The effect of (n, 2) values of `ctf/tilt_A`, in words."""
    return _of_tilt(float(np.hypot(values[:, 0], values[:, 1]).max()), ctf, pixel_size_A)


def _of_tilt(tilt_A: float, ctf: CTFParams, pixel_size_A: float) -> str:
    """Of a tilt times Cs, in Å: the phase `2π tilt_A λ² k³`, π/4 where `8 tilt_A λ² k³` is 1."""
    lambda2_A2 = float(ctf.wavelength_A.max()) ** 2
    phase = 2.0 * math.pi * tilt_A * lambda2_A2 * (0.5 / pixel_size_A) ** 3
    quarter_A = (8.0 * tilt_A * lambda2_A2) ** (1 / 3)
    return (
        f"phase error of up to {phase:.2g} rad at Nyquist ({2 * pixel_size_A:.3g} Å), π/4 at "
        f"{quarter_A:.3g} Å"
    )


def _largest_term(coefficients: Sequence[float], odd: bool, k: float) -> float:
    """Largest modulus of a term at frequency k in 1/Å, along the direction where it is largest."""
    terms = []
    for i, coefficient in enumerate(coefficients):
        half = int((math.sqrt(1 + 4 * i) - 1) / 2) if odd else math.isqrt(i)
        n = 2 * half + odd
        m = 2 * (i - half * half - half * odd) - n
        terms.append(abs(coefficient * _radial(n, abs(m), k)))
    return max(terms)


def _radial(n: int, m: int, radius: float) -> float:
    """The radial Zernike polynomial."""
    down = (n - m) // 2
    total = 0.0
    for s in range(down + 1):
        binomials = math.comb(n - s, s) * math.comb(n - 2 * s, down - s)
        total += (-1.0) ** s * binomials * radius ** (n - 2 * s)
    return total


def _matrices(numbers: Mapping[str, list[list[float]]]) -> _Numbers:
    """(m, 2, 2) distinct magnifications; none if all are the identity."""
    count = max((len(numbers[label]) for label in _MAGNIFICATIONS if label in numbers), default=0)
    columns = [
        [each[0] if each else neutral for each in numbers.get(label, ())] or [neutral] * count
        for label, neutral in zip(_MAGNIFICATIONS, (1.0, 0.0, 0.0, 1.0), strict=True)
    ]
    if count == 0 or any(len(column) != count for column in columns):
        return np.empty((0, 2, 2))
    found = np.unique(np.array(columns).T, axis=0).reshape(-1, 2, 2)
    return np.empty((0, 2, 2)) if np.array_equal(found, np.eye(2)[None]) else found


def _range(numbers: Mapping[str, list[list[float]]], labels: Sequence[str]) -> str:
    every = [x for label in labels for each in numbers[label] for x in each]
    low, high = min(every), max(every)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _numbers(word: str) -> list[float]:
    """Of "0.1" or "[0.1,0.2]"; none if it is no such thing."""
    try:
        found = [float(part) for part in word.strip("[]").split(",")]
    except ValueError:
        return []
    return found if all(map(math.isfinite, found)) else []
