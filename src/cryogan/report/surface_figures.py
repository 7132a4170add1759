"""The figures of surfaces in 3D (plotly)."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from cryogan.report.figures import style
from cryogan.report.isosurface import Isosurface
from cryogan.run.contents import FloatArray

_MAP_COLOUR = "#5b9bc8"
_TRUTH_COLOUR = "#e0b072"
_FINE_TO_COARSE = ((0.0, "#1f6aa5"), (0.5, "#e9e6dc"), (1.0, "#b23a3a"))
_LIGHT = {
    "lighting": {
        "ambient": 0.42,
        "diffuse": 0.75,
        "specular": 0.25,
        "roughness": 0.55,
        "fresnel": 0.15,
        "facenormalsepsilon": 0,
        "vertexnormalsepsilon": 0,
    },
    "lightposition": {"x": 4000, "y": -6000, "z": 9000},
}


def isosurface_figure(columns: dict[str, list[Isosurface]], shown: int) -> go.Figure:
    """3D surfaces side by side, one scene a column, one trace a level; only `shown` visible.

    Args:
        columns: name of a column (map, truth) → its surfaces, lowest level first.
    """
    figure = go.Figure()
    reach_A = max(_radius_A(mesh, 1.0) for meshes in columns.values() for mesh in meshes)
    shown_A = max(_radius_A(meshes[shown], 0.98) for meshes in columns.values())
    for number, (name, surfaces) in enumerate(columns.items()):
        scene = "scene" if number == 0 else f"scene{number + 1}"
        for level, surface in enumerate(surfaces):
            colour = _MAP_COLOUR if number == 0 else _TRUTH_COLOUR
            look = {"scene": scene, "name": name, "visible": level == shown, "color": colour}
            figure.add_trace(_mesh(surface, **look))
        figure.update_layout(
            {
                scene: {
                    "domain": {"x": [number / len(columns), (number + 1) / len(columns)]},
                    **_scene(reach_A, shown_A),
                }
            }
        )
    style(figure, 500, showlegend=False)
    figure.update_layout(margin={"l": 0, "r": 0, "t": 0, "b": 0})
    return figure


def coloured_surface_figure(surface: Isosurface, values: FloatArray, title: str) -> go.Figure:
    """One 3D surface, coloured by a value at each vertex, NaN where there is none."""
    low, high = np.nanquantile(values, [0.02, 0.98])
    mesh = _mesh(
        surface,
        intensity=np.nan_to_num(values, nan=high).round(2).astype(np.float32),
        cmin=low,
        cmax=max(high, 1.2 * low),
        colorscale=_FINE_TO_COARSE,
        colorbar={"title": {"text": title}, "thickness": 14, "len": 0.7, "outlinewidth": 0},
    )
    figure = go.Figure(mesh)
    scene = _scene(_radius_A(surface, 1.0), _radius_A(surface, 0.98))
    style(figure, 460, showlegend=False, scene=scene)
    figure.update_layout(margin={"l": 0, "r": 0, "t": 0, "b": 0})
    return figure


def _mesh(surface: Isosurface, **look: Any) -> go.Mesh3d:
    """The triangles of a surface as a trace; vertices in 0.1 Å, so that they fit two bytes."""
    x, y, z = (10 * surface.vertices_A).round().astype(np.int16).T
    i, j, k = surface.faces.astype(np.min_scalar_type(len(surface.vertices_A))).T
    corners = {"x": x, "y": y, "z": z, "i": i, "j": j, "k": k}
    return go.Mesh3d(**corners, flatshading=False, hoverinfo="skip", **_LIGHT, **look)


def _scene(reach_A: float, shown_A: float) -> dict[str, Any]:
    """A scene about the origin that holds vertices out to `reach_A`, seen close to `shown_A`."""
    eye = 0.85 * shown_A / reach_A
    axis = {"visible": False, "range": [-10 * reach_A, 10 * reach_A]}
    return {
        "xaxis": axis,
        "yaxis": axis,
        "zaxis": axis,
        "aspectmode": "cube",
        "dragmode": "orbit",
        "camera": {"eye": {"x": 1.1 * eye, "y": -1.1 * eye, "z": 0.6 * eye}},
    }


def _radius_A(mesh: Isosurface, fraction: float) -> float:
    """Radius about the origin that holds `fraction` of the vertices; dust lies beyond it."""
    if not mesh.vertices_A.size:
        return 1.0
    return float(np.quantile(np.linalg.norm(mesh.vertices_A, axis=1), fraction))
