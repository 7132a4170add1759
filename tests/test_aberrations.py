"""Columns that are not used are named with what it costs."""

import math
from pathlib import Path

import pytest
import torch

import cryogan as cg
from cryogan.io.aberrations import unused_columns
from cryogan.io.mrc import write_stack
from cryogan.io.relion_writing import write_particles
from cryogan.particles import CTFParams

CTF = CTFParams.constant(4, defocus_u_A=1e4, voltage_kV=300.0, spherical_aberration_mm=2.7)
LAMBDA2_CS_A3 = 0.0196875**2 * 2.7e7


def effect(words: dict[str, list[str]], pixel_size_A: float = 1.0, box_size: int = 200) -> str:
    (found,) = unused_columns(words, CTF, pixel_size_A, box_size)
    return found.effect


def numbers(text: str) -> list[float]:
    cleaned = "".join(c if c.isdigit() or c in ".-" else " " for c in text.replace("π/4", ""))
    return [float(word) for word in cleaned.split()]


def test_beam_tilt() -> None:
    """2π Cs λ² tilt k³, which is π/4 at the resolution that is named."""
    tilt = 5e-4  # rad: a right-angled triangle of 0.3 and 0.4 mrad
    phase, nyquist_A, quarter_A = numbers(
        effect({"rlnBeamTiltX": ["0.3", "-0.3"], "rlnBeamTiltY": ["0.4", "0"]}, 1.5)
    )
    assert nyquist_A == 3.0
    assert phase == pytest.approx(2 * math.pi * LAMBDA2_CS_A3 * tilt / 27, rel=0.05)
    assert 2 * math.pi * LAMBDA2_CS_A3 * tilt / quarter_A**3 == pytest.approx(math.pi / 4, rel=0.02)


@pytest.mark.parametrize(
    ("label", "number", "polynomial"),
    [
        ("rlnOddZernike", 0, lambda k: k),  # Z(1, -1)
        ("rlnOddZernike", 2, lambda k: k**3),  # Z(3, -3)
        ("rlnOddZernike", 3, lambda k: 3 * k**3 - 2 * k),  # Z(3, -1)
        ("rlnEvenZernike", 0, lambda k: 1.0),
        ("rlnEvenZernike", 2, lambda k: 2 * k**2 - 1),
        ("rlnEvenZernike", 6, lambda k: 6 * k**4 - 6 * k**2 + 1),  # Z(4, 0)
    ],
)
def test_zernike_coefficients(label, number, polynomial) -> None:  # type: ignore[no-untyped-def]
    coefficients = ["0"] * 9
    coefficients[number] = "-20"
    phase, nyquist_A = numbers(effect({label: [f"[{','.join(coefficients)}]"]}, 1.0))
    assert nyquist_A == 2.0
    assert phase == pytest.approx(20 * abs(polynomial(0.5)), rel=0.05)


def test_anisotropic_magnification() -> None:
    words = {
        f"rlnMagMat{place}": [value]
        for place, value in zip(("00", "01", "10", "11"), ("1.01", "0", "0", "0.99"), strict=True)
    }
    percent, fill, moved_px = numbers(effect(words, box_size=200))
    assert percent == pytest.approx(100 * (1.01 / 0.99 - 1), rel=0.05)
    assert moved_px == pytest.approx(0.01 * fill * 100, rel=0.05)


def test_what_says_nothing_is_not_named() -> None:
    words = {"rlnBeamTiltX": ["0", "0.0"], "rlnOddZernike": ["[0,0,0]"], "rlnMagMat00": ["1"]}
    words |= {"rlnMagMat11": ["1.000"], "rlnEvenZernike": ["None"]}
    assert unused_columns(words, CTF, 1.0, 200) == ()


def test_the_summary_of_a_set_has_them(tmp_path: Path, generator: torch.Generator) -> None:
    write_stack(tmp_path / "a.mrcs", torch.randn(4, 16, 16, generator=generator), 1.5)
    star = tmp_path / "a.star"
    write_particles(star, image_names="a.mrcs", ctf=CTF, pixel_size_A=1.5, box_size=16)
    plain = cg.read_particles(star).source
    assert plain is not None
    assert "not used" not in plain.summary
    text = star.read_text().replace("_rlnImageDimensionality #8", "_rlnBeamTiltX #8")
    star.write_text(text)
    source = cg.read_particles(star).source
    assert source is not None
    assert "rlnBeamTiltX is not used: beam tilt (mrad), 2; phase error" in source.summary
    assert [each.column for each in source.unused] == ["rlnBeamTiltX"]
