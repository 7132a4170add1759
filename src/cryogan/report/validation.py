"""Validation beyond the FSC: resolution by direction and by place, and sharpening."""

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup
from numpy.typing import NDArray

from cryogan.evaluation.directional import ANISOTROPIC_CFAR
from cryogan.report import figures
from cryogan.report.formats import angstrom
from cryogan.report.isosurface import DEFAULT_LEVEL, contour_levels, isosurfaces
from cryogan.report.surface_figures import coloured_surface_figure
from cryogan.report.template import render
from cryogan.report.validation_figures import (
    directional_figure,
    guinier_figure,
    local_resolution_figure,
    p_value_figure,
    residual_figure,
    view_density_figure,
)
from cryogan.run.contents import FloatArray, RunContents, mapping, number

_MAX_VERTICES = 30_000


def validation(run: RunContents) -> list[tuple[str, Markup]]:
    """Headings and bodies of the sections that the run has data for."""
    sections = []
    if run.directional_fsc is not None:
        sections.append(("Directions", _directions(run)))
    if run.local_resolution_volumes:
        sections.append(("Local resolution", _local_resolution(run)))
    if run.goodness_of_fit and run.fit_p_values:
        sections.append(("Goodness of fit", _goodness_of_fit(run)))
    if run.guinier:
        sections.append(("Sharpening", _sharpening(run)))
    return sections


def _directions(run: RunContents) -> Markup:
    assert run.directional_fsc is not None
    found = mapping(run.summary, "directions")
    cfar = number(found, "cfar")
    views = mapping(run.summary, "views")
    evenness = number(views, "evenness")
    return render(
        "directions",
        views=figures.to_html(view_density_figure(run.view_density), "view-density")
        if run.view_density
        else None,
        evenness=None if evenness is None else f"{100 * evenness:.0f} %",
        scf_star="–" if (scf := number(views, "scf_star")) is None else f"{scf:.2f}",
        figure=figures.to_html(directional_figure(run.directional_fsc), "directional-fsc"),
        cfar=None if cfar is None else f"{cfar:.2f}",
        anisotropic=cfar is not None and cfar < ANISOTROPIC_CFAR,
        weakest=_axis(found.get("weakest_axis_xyz")),
        strongest=_axis(found.get("strongest_axis_xyz")),
    )


def _axis(value: object) -> str:
    if not isinstance(value, list):
        return "not known"
    return "(" + ", ".join(f"{part:.2f}" for part in value if isinstance(part, int | float)) + ")"


def _local_resolution(run: RunContents) -> Markup:
    found = mapping(run.summary, "local_resolution")
    surface = _coloured_surface(run)
    return render(
        "local_resolution",
        surface=None if surface is None else figures.to_html(surface, "local-resolution"),
        figure=figures.to_html(
            local_resolution_figure(run.local_resolution_volumes), "local-resolution-volumes"
        ),
        quoted=[
            (label, angstrom(value, 2))
            for key, label in (
                ("finest_5_percent_A", "the finest 5 % of the mask are below"),
                ("median_A", "median"),
                ("coarsest_5_percent_A", "the coarsest 5 % are above"),
                ("window_A", "width of the window"),
            )
            if (value := number(found, key)) is not None
        ],
    )


def _coloured_surface(run: RunContents) -> go.Figure | None:
    """The map's surface at its default level, coloured by the local resolution at its vertices."""
    if "map" not in run.maps or run.local_resolution is None:
        return None
    map_, local = run.maps["map"], run.local_resolution
    levels = contour_levels(map_.volume)
    if not levels or local.volume.shape != map_.volume.shape:
        return None
    level = [levels[DEFAULT_LEVEL]]
    mesh = isosurfaces(map_.volume, map_.pixel_size_A, level, _MAX_VERTICES)[0]
    values = _at(local.volume.double().numpy(), mesh.vertices_A / local.pixel_size_A)
    if not np.isfinite(values).any():
        return None
    return coloured_surface_figure(mesh, values, "Å")


def _at(volume: FloatArray, places_px: NDArray[np.float32]) -> FloatArray:
    """Values (n,) at the voxels nearest to (n, 3) places (x, y, z) about voxel D // 2; 0 is NaN."""
    size = volume.shape[-1]
    nearest = np.rint(places_px + size // 2).astype(int).clip(0, size - 1)
    values = volume[nearest[:, 2], nearest[:, 1], nearest[:, 0]]
    return np.where(values > 0, values, np.nan)


def _goodness_of_fit(run: RunContents) -> Markup:
    found = mapping(run.summary, "goodness_of_fit")
    distance, images = number(found, "ks_distance"), number(found, "images")
    return render(
        "goodness_of_fit",
        figure=figures.to_html(residual_figure(run.goodness_of_fit), "residuals"),
        histogram=figures.to_html(p_value_figure(run.fit_p_values), "fit-p-values"),
        images=None if images is None else f"{images:,.0f}",
        distance=None if distance is None else f"{distance:.2f}",
        misfits=run.misfits,
        calibrated=found.get("calibrated", True),
    )


def _sharpening(run: RunContents) -> Markup:
    found = mapping(run.summary, "sharpening")
    b_factor_A2 = number(found, "b_factor_A2")
    fit = [number(found, key) for key in ("fit_from_A", "fit_to_A")]
    return render(
        "sharpening",
        figure=figures.to_html(guinier_figure(run.guinier), "guinier"),
        b_factor=None if b_factor_A2 is None else f"{b_factor_A2:.0f} Å²".replace("-", "−"),
        fitted=" to ".join(angstrom(value) for value in fit if value is not None),
        reason=str(found.get("reason", "")),
    )
