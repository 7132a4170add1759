"""Columns of particles for a scatter plot in which a lasso chooses rows (`scatter.js`)."""

import base64
from typing import Any

import numpy as np

from cryogan.report.particle_columns import INFORMATION, SPREAD, ParticleColumns, title_of
from cryogan.run.contents import FloatArray

_LATENT = "cryoganLatent"
_MOST_PARTICLES = 300_000  # in a page that is to stay light: two bytes a number
_STEPS = 65_535


def latents_of(columns: ParticleColumns) -> list[str]:
    """Labels of the latents among the columns."""
    return [label for label in columns.values if label.removeprefix(_LATENT).isdigit()]


def about(columns: ParticleColumns, labels: list[str]) -> dict[str, Any]:
    """What the plot is made of.

    Args:
        columns: of the particles.
        labels: of those that can be drawn.

    Returns:
        `file`, `count`, `columns` (titles) and the numbers of the two that are drawn first: `x`,
        `y`, latents if there are any.
    """
    first = [*latents_of(columns)[:2], *(each for each in (INFORMATION, SPREAD) if each in labels)]
    return {
        "file": columns.path.name,
        "count": len(columns),
        "columns": [title_of(label) for label in labels],
        "x": labels.index(first[0]),
        "y": labels.index(first[min(1, len(first) - 1)]),
    }


def embedded_scatter(columns: ParticleColumns) -> dict[str, Any] | None:
    """The same for a page of one file: with `values`, in 65,536 steps; None without latents.

    None of very many particles, too: `cryogan watch --poses` draws these.
    """
    labels = [
        *latents_of(columns),
        *(label for label in (INFORMATION, SPREAD) if label in columns.values),
    ]
    if not latents_of(columns) or len(columns) > _MOST_PARTICLES:
        return None
    return about(columns, labels) | {"values": [_steps(columns.values[label]) for label in labels]}


def _steps(values: FloatArray) -> dict[str, Any]:
    """`low`, `high` and base64 of little-endian uint16 from one to the other."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    scaled = (np.nan_to_num(values, nan=low) - low) / ((high - low) or 1.0)
    steps = (scaled.clip(0.0, 1.0) * _STEPS).round().astype("<u2")
    return {"low": low, "high": high, "data": base64.b64encode(steps.tobytes()).decode()}
