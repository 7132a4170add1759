"""Minimal inputs of ../shared/cases: each is read right or refused, as its expect.txt says.

One function a case, named after its folder; minimal versions of their own are in test_values.py and
test_bad_input.py, which need no such folder.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import cryogan as cg
from cryogan.api import settings_for
from cryogan.data.normalisation import normalised
from cryogan.io.relion_assigned import write_assigned
from cryogan.io.star import read_star
from cryogan.objectives.assumptions import Assumptions
from cryogan.particles import Particles, Pose
from cryogan.physics.ctf import ctf

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"


def summary(star: Path, **options: float) -> str:
    return summary_of(cg.read_particles(star, **options))


def summary_of(particles: Particles) -> str:
    assert particles.source is not None
    return particles.source.summary


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(cg.InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    assert ". " not in message
    assert message.endswith(".")
    return message


def read(star: Path) -> Callable[[], Particles]:
    return lambda: cg.read_particles(star)


def amplitude_contrast(folder: Path, _: Path) -> None:
    for value in ("0", "0.07", "1"):
        assert len(cg.read_particles(folder / f"p{value}.star")) == 24
    for value in ("-0.1", "1.2", "7", "10"):
        message = refusal(read(folder / f"p{value}.star"))
        assert f"rlnAmplitudeContrast is {value} in row 1 " in message
        assert ("(in percent?)" in message) == (value in ("7", "10"))


def box_8(folder: Path, out: Path) -> None:
    particles = cg.read_particles(folder / "p.star")
    for name in ("likelihood", "adversarial"):
        objective = settings_for(name, Assumptions())
        message = refusal(lambda o=objective: cg.reconstruct(particles, objective=o, folder=out))
        assert "box of 8 px; give particles of at least 16 px" in message
    assert not list(out.iterdir())


def byte_order_mark(folder: Path, _: Path) -> None:
    assert len(cg.read_particles(folder / "p.star")) == 24
    assert len(cg.read_particles(folder / "q.star")) == 24


def constant_images(folder: Path, _: Path) -> None:
    particles, kept = normalised(cg.read_particles(folder / "p.star"))
    assert kept.tolist() == [number for number in range(200) if number % 10]
    assert "left out: 20 images (rows 0, 10, 20, " in summary_of(particles)


def ctf_phase_flipped(folder: Path, _: Path) -> None:
    particles = cg.read_particles(folder / "p.star")
    assert bool((ctf(particles.ctf, 32, 6.0) >= 0).all())
    assert "24 images with flipped phases: the transfer function is |CTF|" in summary_of(particles)


def ctf_premultiplied(folder: Path, _: Path) -> None:
    """Raw images times the CTF become images whose transfer function is |CTF|, or 10 CTF²."""
    particles = cg.read_particles(folder / "p.star")
    assert "24 images multiplied by the CTF" in summary_of(particles)
    raw = replace(particles.ctf, correction=torch.zeros(24, dtype=torch.int64))
    modulus = ctf(raw, 32, 6.0).abs()
    expected = torch.where(modulus < 0.1, 10.0 * modulus.square(), modulus)
    torch.testing.assert_close(ctf(particles.ctf, 32, 6.0), expected)


def defocus_units(folder: Path, _: Path) -> None:
    for name, hint in (("um", "in µm?"), ("m", "in m?"), ("huge", "in pm?"), ("1e30", "1e+30")):
        assert hint in refusal(read(folder / f"{name}.star"))
    assert "in nm?" in summary(folder / "nm.star")
    assert "defocus is zero in 24 rows" in summary(folder / "zero.star")
    assert "overfocus" in summary(folder / "negative.star")
    for name in ("UltV", "identical"):
        assert "warning" not in summary(folder / f"{name}.star")


def duplicates(folder: Path, _: Path) -> None:
    particles = cg.read_particles(folder / "p.star")
    assert len(particles) == 100
    assert "100 rows left out" in summary(folder / "p.star")


def header_voxel_nan(folder: Path, _: Path) -> None:
    assert "has no pixel size" in refusal(read(folder / "p.star"))
    assert "6 Å (from rlnImagePixelSize)" in summary(folder / "q.star")
    assert "5 Å (from given)" in summary(folder / "p.star", pixel_size_A=5.0)


def header_voxel_negative(folder: Path, _: Path) -> None:
    assert "header of p.mrcs) is -6" in refusal(read(folder / "p.star"))


def imod_unsigned_bytes(folder: Path, _: Path) -> None:
    images = cg.read_particles(folder / "p.star", sign="bright").stack.read(torch.arange(24))
    assert (float(images.min()), float(images.max())) == (0.0, 255.0)


def label_twice(folder: Path, _: Path) -> None:
    assert "Line 24 of" in refusal(read(folder / "p.star"))


def magnification_matrix_beam_tilt(folder: Path, _: Path) -> None:
    said = summary(folder / "p.star")
    for words in (
        "rlnBeamTiltX is not used: beam tilt (mrad), 2; phase error of up to 0.076 rad at Nyquist",
        "rlnOddZernike is not used",
        "rlnEvenZernike is not used: even aberrations, [0,0,0,0,0,0,0.5,0,0]; the largest term",
        "anisotropic; moves the edge of a particle of 0.85 of the box by up to 0.41 px",
    ):
        assert words in said


def magnification_zero(folder: Path, _: Path) -> None:
    assert "rlnMagnification is 0 in row 1 (line 15)" in refusal(read(folder / "p.star"))


def noise_only(folder: Path, _: Path) -> None:
    found = cg.check(cg.read_particles(folder / "p.star"))
    assert not found.ready
    assert found.images_needed == ()
    assert any("no signal that follows the CTFs" in words for words in found.problems)


def same_images_as_without(folder: Path, words: str) -> None:
    """Every objective and `assign` begin with these images, so that maps cannot differ either."""
    index = torch.arange(200)
    plain, _ = normalised(cg.read_particles(folder.parent / "offset-none" / "p.star"))
    spoilt, kept = normalised(cg.read_particles(folder / "p.star"))
    assert torch.equal(kept, index)
    expected, found = (each.stack.read(index) for each in (plain, spoilt))
    torch.testing.assert_close(found / found.std(), expected / expected.std(), atol=1e-5, rtol=0)
    assert words in summary_of(spoilt)


def offset_none(folder: Path, _: Path) -> None:
    same_images_as_without(folder, "background offset 0.019 σ and ramp 0.097 σ")


def offset_10_sigma(folder: Path, _: Path) -> None:
    same_images_as_without(folder, "background offset 12 σ and ramp 0.097 σ")
    found = cg.check(cg.read_particles(folder / "p.star"))
    assert any("images are not normalised" in note for note in found.notes)


def ramp_20_sigma(folder: Path, _: Path) -> None:
    same_images_as_without(folder, "background offset 0.65 σ and ramp 42 σ")


def optics_group_twice(folder: Path, _: Path) -> None:
    assert "optics group 1 stands again in row 2" in refusal(read(folder / "p.star"))


def pixel_size_star_against_header(folder: Path, _: Path) -> None:
    star = folder / "p.star"
    assert "6 Å (from rlnImagePixelSize; warning: header of p.mrcs says 5.85 Å)" in summary(star)
    assert "5.9 Å (from given; warning: rlnImagePixelSize says 6" in summary(star, pixel_size_A=5.9)


def rln_pixel_size(folder: Path, _: Path) -> None:
    assert "5.5 Å (from rlnPixelSize; warning: header" in summary(folder / "p.star")


def tomo_2d_stacks(folder: Path, _: Path) -> None:
    assert "tilt series" in refusal(read(folder / "p.star"))


def tomo_3d_subtomograms(folder: Path, _: Path) -> None:
    assert "rlnImageDimensionality 3" in refusal(read(folder / "p.star"))


def two_blocks_one_name(folder: Path, out: Path) -> None:
    particles = cg.read_particles(folder / "p.star")
    pose = Pose(torch.eye(3).repeat(24, 1, 1), torch.zeros(24, 2))
    write_assigned(out / "out.star", folder / "p.star", pose)
    assert [table.name for table in read_star(out / "out.star")] == ["", ""]
    again = cg.read_particles(out / "out.star")
    assert torch.equal(again.ctf.defocus_u_A, particles.ctf.defocus_u_A)


EXPECTED = {
    "amplitude-contrast": amplitude_contrast,
    "box-8": box_8,
    "byte-order-mark": byte_order_mark,
    "constant-images": constant_images,
    "ctf-phase-flipped": ctf_phase_flipped,
    "ctf-premultiplied": ctf_premultiplied,
    "defocus-units": defocus_units,
    "duplicates": duplicates,
    "header-voxel-nan": header_voxel_nan,
    "header-voxel-negative": header_voxel_negative,
    "imod-unsigned-bytes": imod_unsigned_bytes,
    "label-twice": label_twice,
    "magnification-matrix-beam-tilt": magnification_matrix_beam_tilt,
    "magnification-zero": magnification_zero,
    "noise-only": noise_only,
    "offset-10-sigma": offset_10_sigma,
    "offset-none": offset_none,
    "optics-group-twice": optics_group_twice,
    "pixel-size-star-against-header": pixel_size_star_against_header,
    "ramp-20-sigma": ramp_20_sigma,
    "rlnPixelSize": rln_pixel_size,
    "tomo-2d-stacks": tomo_2d_stacks,
    "tomo-3d-subtomograms": tomo_3d_subtomograms,
    "two-blocks-one-name": two_blocks_one_name,
}


@pytest.mark.parametrize("name", EXPECTED)
def test_case(name: str, tmp_path: Path) -> None:
    folder = CASES / name
    if not folder.is_dir():
        pytest.skip(f"no cases at {CASES}")
    EXPECTED[name](folder, tmp_path)


def test_every_case_is_here() -> None:
    if not CASES.is_dir():
        pytest.skip(f"no cases at {CASES}")
    assert sorted(EXPECTED) == sorted(each.name for each in CASES.iterdir())


def test_tilt_series_of_warp(shared_data: Path) -> None:
    star = shared_data / "formats/tomo/sta_testing_bin8.star"
    assert "tilt series" in refusal(read(star))
