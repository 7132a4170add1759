"""What the report shows of directions, local resolution and sharpening."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.evaluation.fsc import fourier_shell_correlation
from cryogan.io.mrc import write_map
from cryogan.objectives.base import Maps
from cryogan.objectives.likelihood.goodness_of_fit import GoodnessOfFit
from cryogan.report.figures import fsc_figure
from cryogan.report.isosurface import isosurfaces
from cryogan.report.page import write_report
from cryogan.report.surface_figures import coloured_surface_figure
from cryogan.report.validation_figures import directional_figure, guinier_figure
from cryogan.run.contents import FSCTable, read_run_contents
from cryogan.run.goodness_of_fit import write_goodness_of_fit
from cryogan.run.validation import write_validation
from test_report import SECTIONS, Page, blobs, make_run_folder

SIZE = 32


def half_maps(pixel_size_A: float, generator: torch.Generator) -> Maps:
    """Three blobs and white noise of a tenth of their variance."""
    volume = blobs(SIZE)
    sigma = float(volume.std()) * 0.1**0.5
    half1, half2 = volume + sigma * torch.randn(2, SIZE, SIZE, SIZE, generator=generator)
    mask = fourier.soft_disc(SIZE, 11.0, 3.0, 3)
    fsc = fourier_shell_correlation(half1 * mask, half2 * mask)
    return Maps(half1, half2, 0.5 * (half1 + half2), mask, fsc, fsc, pixel_size_A)


def validated(folder: Path, maps: Maps) -> Path:
    make_run_folder(folder, blobs(SIZE), maps.pixel_size_A)
    write_map(folder / "map.mrc", maps.average, maps.pixel_size_A)
    summary = json.loads((folder / "summary.json").read_text())
    summary |= write_validation(folder, maps, structure=True)
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def run_folder(tmp_path: Path, generator: torch.Generator) -> Path:
    return validated(tmp_path / "run", half_maps(4.0, generator))


def changed(folder: Path, section: str, **values: object) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    summary[section] |= values
    (folder / "summary.json").write_text(json.dumps(summary))


def test_sections_follow_the_resolution(run_folder: Path) -> None:
    page = Page(write_report(run_folder))
    at = SECTIONS.index("Resolution") + 1
    added = ("Directions", "Local resolution", "Sharpening")
    assert page.headings == [*SECTIONS[:at], *added, *SECTIONS[at:]]
    for name in ("directional-fsc", "local-resolution", "local-resolution-volumes", "guinier"):
        assert f'id="{name}"' in page.source
    assert "map_sharpened.mrc is not written" in page.text  # too coarse
    summary = json.loads((run_folder / "summary.json").read_text())
    assert f"median{summary['local_resolution']['median_A']:.2f} Å" in page.text


@pytest.mark.parametrize("noise", [1.0, 0.8])
def test_goodness_of_fit_is_shown_and_misfits_named(
    run_folder: Path, generator: torch.Generator, noise: float
) -> None:
    """Of images whose noise is as supposed, or a quarter stronger."""
    rings, n = 8, 400
    ratio = torch.full((rings,), 1.0 / noise)
    found = GoodnessOfFit(
        torch.rand(n, generator=generator) ** (1.0 / noise**6),
        torch.randn(n, generator=generator),
        ratio,
        torch.ones(rings),
        torch.full((rings,), 0.01),
        1.0,
        0.01,
        torch.ones(rings),
        torch.full((rings,), 0.01),
    )
    summary = json.loads((run_folder / "summary.json").read_text())
    summary["goodness_of_fit"] = write_goodness_of_fit(run_folder, found, 128.0)
    (run_folder / "summary.json").write_text(json.dumps(summary, allow_nan=False))
    page = Page(write_report(run_folder))
    assert "Goodness of fit" in page.headings
    for name in ("residuals", "fit-p-values"):
        assert f'id="{name}"' in page.source
    phrase = "residuals are 25 % above the noise from 128.0 to 16.0 Å"
    assert (f"Does not fit: {phrase}" in page.text) is (noise < 1.0)
    assert read_run_contents(run_folder).misfits == ([phrase] if noise < 1.0 else [])
    assert read_run_contents(run_folder).fit_p_values["images"].sum() == n


def test_one_ring_that_does_not_fit_is_named_by_its_resolution() -> None:
    """Ring 2 of a box of 128 Å."""
    rings = 4
    one, error = torch.ones(rings), torch.full((rings,), 0.01)
    variance = torch.tensor([1.0, 1.3, 1.0, 1.0])
    found = GoodnessOfFit(
        torch.full((100,), 0.5), torch.zeros(100), variance, one, error, 1.0, 0.01, one, error
    )
    assert "residuals are 30 % above the noise at 64.0 Å" in found.misfits(128.0)


@pytest.mark.parametrize(("cfar", "warned"), [(0.49, True), (0.5, False)])
def test_low_ratios_are_warned_of(run_folder: Path, cfar: float, warned: bool) -> None:
    changed(run_folder, "directions", cfar=cfar)
    text = Page(write_report(run_folder)).text
    assert f"over the largest, is {cfar:.2f}" in text
    assert ("agree much less in some\ndirections than in others" in text) is warned


def test_no_ratio_is_said(run_folder: Path) -> None:
    changed(run_folder, "directions", cfar=None)
    assert "They agree in no direction" in Page(write_report(run_folder)).text


def test_a_b_factor_is_quoted_with_its_range(run_folder: Path) -> None:
    changed(run_folder, "sharpening", b_factor_A2=-123.4, fit_from_A=10.0, fit_to_A=3.84)
    text = Page(write_report(run_folder)).text
    assert "fitted from 10.0 Å to 3.8 Å, gives a B-factor of −123 Å²" in text


@pytest.mark.parametrize("file", ["directional_fsc.csv", "guinier.csv", "local_resolution.csv"])
def test_damaged_tables_are_named(run_folder: Path, file: str) -> None:
    (run_folder / file).write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=f"{file} line 1 must begin with"):
        write_report(run_folder)


def test_figures_show_what_the_tables_hold(run_folder: Path) -> None:
    run = read_run_contents(run_folder)
    table = run.directional_fsc
    assert table is not None
    for trace in directional_figure(table).data:
        np.testing.assert_array_equal(trace.y, table.curves[trace.name.split()[0]][1:])
    legend = directional_figure(table).layout.legend
    assert legend.yanchor == "bottom"
    assert legend.y > 1.0  # above the curves
    lines = {trace.name: trace for trace in guinier_figure(run.guinier).data}
    assert "fit" not in lines
    np.testing.assert_array_equal(lines["mean of the half-maps"].y, run.guinier["ln_amplitude"])


def test_the_sign_of_the_means_is_no_part_of_the_curves() -> None:
    """Shell 0 is -1 where the means of the half-maps differ in sign."""
    table = FSCTable(np.arange(4) / 40.0, {"half_map": np.array([-1.0, 1.0, 0.9, 0.2])})
    figure = fsc_figure(table, [("half_map", 0.143, 13.0)])
    assert figure.data[0].y.tolist() == [1.0, 0.9, 0.2]
    assert figure.layout.yaxis.range[0] > -0.1


def test_surfaces_without_a_local_resolution_are_left_out(
    tmp_path: Path, generator: torch.Generator
) -> None:
    """The mask is elsewhere than the surface."""
    maps = half_maps(4.0, generator)
    corner = torch.zeros(SIZE, SIZE, SIZE)
    corner[:4, :4, :4] = 1.0
    folder = validated(tmp_path / "run", replace(maps, mask=corner))
    assert 'id="local-resolution"' not in write_report(folder).read_text()


def test_colours_go_from_the_finest_to_the_coarsest() -> None:
    mesh = isosurfaces(blobs(), 4.0, [0.5], 5000)[0]
    values = np.linspace(5.0, 9.0, len(mesh.vertices_A))
    values[0] = np.nan
    (trace,) = coloured_surface_figure(mesh, values, "Å").data
    assert trace.cmin == pytest.approx(5.0, abs=0.2)
    assert trace.cmax == pytest.approx(9.0, abs=0.2)
    assert len(trace.intensity) == len(trace.x)
    assert np.isfinite(trace.intensity).all()
