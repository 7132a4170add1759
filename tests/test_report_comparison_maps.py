"""The maps of a comparison of runs: one frame, one box, both hands, the band of the coarser one."""

from pathlib import Path

import pytest
import torch

from cryogan import fourier
from cryogan.evaluation.fsc import fourier_shell_correlation
from cryogan.evaluation.resampling import resample_map
from cryogan.report import write_comparison
from cryogan.report.comparison_maps import compare_maps
from test_report import BOX, PIXEL_SIZE_A, Page
from test_report_comparison import HEADINGS, chiral, make_run, moved, opened


def test_a_rotated_copy_agrees(tmp_path: Path) -> None:
    runs = make_run(tmp_path / "one", chiral()), make_run(tmp_path / "second", moved(chiral()))
    found = compare_maps(opened(*runs))["second"]
    assert not found.alignment.mirrored
    assert float(found.fsc[1:10].min()) > 0.99
    assert found.correlation > 0.995
    text = Page(write_comparison(runs, tmp_path / "page.html")).text
    assert "mirror" not in text
    assert "hand, beside that of onethe same" in text.replace("\n", "")


def test_mirror_image_is_said(tmp_path: Path) -> None:
    runs = (
        make_run(tmp_path / "one", chiral()),
        make_run(tmp_path / "second", moved(chiral(), mirrored=True)),
    )
    found = compare_maps(opened(*runs))["second"]
    assert found.alignment.mirrored
    assert float(found.fsc[1:10].min()) > 0.99
    text = Page(write_comparison(runs, tmp_path / "page.html")).text
    assert "The map of second is compared as its mirror image" in text
    assert "second (mirror image)" in text
    assert "hand, beside that of onemirror image" in text.replace("\n", "")


def test_another_box_and_pixel_size_is_resampled(tmp_path: Path) -> None:
    """The same field of view in 40 px: agreement to the band of the first, and no word of it."""
    fine = resample_map(moved(chiral()), PIXEL_SIZE_A, 0.8 * PIXEL_SIZE_A, 40)
    runs = (
        make_run(tmp_path / "one", chiral()),
        make_run(tmp_path / "second", fine, 0.8 * PIXEL_SIZE_A),
    )
    found = compare_maps(opened(*runs))["second"]
    assert found.aligned.shape == (BOX, BOX, BOX)
    assert float(found.fsc[1:10].min()) > 0.99
    assert "field of view" not in Page(write_comparison(runs, tmp_path / "page.html")).text


@pytest.mark.parametrize(("box_size", "words"), [(24, "filled up with zeros"), (40, "cut")])
def test_other_fields_of_view_are_said(box_size: int, words: str, tmp_path: Path) -> None:
    other = fourier.crop_or_pad(chiral(), box_size, 3)
    runs = (make_run(tmp_path / "one", chiral()), make_run(tmp_path / "second", other))
    page = Page(write_comparison(runs, tmp_path / "page.html"))
    width = f"{box_size * PIXEL_SIZE_A:.1f} Å wide, that of one 128.0 Å"
    assert f"The field of view of second is {width}: the map of second is {words}" in page.text
    assert page.headings == HEADINGS
    assert '"name":"second, no mask"' in page.source


def test_curves_end_with_the_band_of_the_coarser_map(tmp_path: Path) -> None:
    """Its Nyquist limit is 16 Å, shell 8 of 128 Å; the box of the first holds 16 shells."""
    coarse = resample_map(chiral(), PIXEL_SIZE_A, 2 * PIXEL_SIZE_A, BOX // 2)
    runs = (
        make_run(tmp_path / "one", chiral()),
        make_run(tmp_path / "second", coarse, 2 * PIXEL_SIZE_A),
    )
    found = compare_maps(opened(*runs))["second"]
    for curve in (found.fsc, found.fsc_masked):
        assert bool(curve[:7].isfinite().all())
        assert bool(curve[9:].isnan().all())
    assert found.resolution_A(0.143) >= 4 * PIXEL_SIZE_A


def test_what_the_mask_brings_is_no_agreement(tmp_path: Path, generator: torch.Generator) -> None:
    """Maps that share shells 1 to 5 only: seen through a mask, they seem to share more."""
    spectrum = fourier.rfft(chiral(), 3)
    phase = torch.sgn(fourier.rfft(torch.randn(BOX, BOX, BOX, generator=generator), 3))
    beyond = fourier.shell_index(BOX, 3) > 5
    other = fourier.irfft(torch.where(beyond, spectrum.abs() * phase, spectrum), BOX, 3)
    runs = make_run(tmp_path / "one", chiral()), make_run(tmp_path / "second", other)
    found = compare_maps(opened(*runs))["second"]
    outer = slice(9, 15)
    plain = fourier_shell_correlation(found.aligned, found.truth, found.mask)[outer].mean()
    corrected = found.fsc_masked[outer].mean()
    assert float(plain) > 0.2
    assert abs(float(corrected)) < 0.5 * float(plain)


@pytest.mark.parametrize(("first", "second"), [(1.0, 1e-25), (1e18, 1.0)])
def test_maps_of_any_units_are_compared(first: float, second: float, tmp_path: Path) -> None:
    runs = (
        make_run(tmp_path / "one", first * chiral()),
        make_run(tmp_path / "second", second * moved(chiral())),
    )
    assert compare_maps(opened(*runs))["second"].correlation > 0.995
