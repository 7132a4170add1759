"""The map as a surface at several contour levels, beside the known structure if there is one."""

from markupsafe import Markup

from cryogan.report import figures
from cryogan.report.isosurface import (
    DEFAULT_LEVEL,
    contour_levels,
    enclosed_volume_A3,
    isosurfaces,
    level_enclosing,
)
from cryogan.report.strips import MAP_NAMES
from cryogan.report.surface_figures import isosurface_figure
from cryogan.report.template import missing, render
from cryogan.run.contents import RunContents

# All meshes of a page together (24 bytes a vertex), so that it stays under about 12 MB; with a
# series of maps, which needs up to 3 MB, under about 10 MB.
_MAX_VERTICES = 220_000
_MAX_VERTICES_BESIDE_SERIES = 50_000

# Protein of partial specific volume 0.73 cm³/g fills 1.21 Å³ a dalton.
_PROTEIN_A3_PER_DA = 1.21


def structure(run: RunContents) -> Markup:
    """The body of the section."""
    if "map" not in run.maps:
        return missing("the run folder has no map.mrc")
    map_ = run.maps["map"]
    levels = contour_levels(map_.volume)
    if not levels:
        return missing("map.mrc is flat, so it has no surface")
    volumes_A3 = [enclosed_volume_A3(map_.volume, level, map_.pixel_size_A) for level in levels]
    columns = {name: run.maps[name] for name in ("map", "truth") if name in run.maps}
    vertices = _MAX_VERTICES if run.conformations is None else _MAX_VERTICES_BESIDE_SERIES
    budget = vertices // (len(columns) * len(levels))
    surfaces = {"map": isosurfaces(map_.volume, map_.pixel_size_A, levels, budget)}
    if "truth" in columns:
        truth, size_A = columns["truth"].volume, columns["truth"].pixel_size_A
        same = [level_enclosing(truth, size_A, volume_A3) for volume_A3 in volumes_A3]
        surfaces["truth"] = isosurfaces(truth, size_A, same, budget)
    mean, sigma = float(map_.volume.mean()), float(map_.volume.std())
    return render(
        "structure",
        has_truth="truth" in columns,
        labels=[
            f"{(level - mean) / sigma:.1f} σ · encloses {volume_A3:,.0f} Å³, "
            f"as {volume_A3 / _PROTEIN_A3_PER_DA / 1000:,.0f} kDa of protein"
            for level, volume_A3 in zip(levels, volumes_A3, strict=True)
        ],
        shown=DEFAULT_LEVEL,
        headings=[MAP_NAMES[name] for name in columns],
        figure=figures.to_html(isosurface_figure(surfaces, DEFAULT_LEVEL), "isosurface"),
    )
