"""Per particle: histograms of what `cryogan assign` has written, thresholds, and a mosaic."""

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from cryogan.preparation.selection import FIT, PARTICLE, expected_loss
from cryogan.report import figures
from cryogan.report.formats import significant
from cryogan.report.particle_columns import INFORMATION, SPREAD, ParticleColumns, title_of
from cryogan.report.particle_figures import Panel, histogram_figure
from cryogan.report.particle_mosaic import COLUMNS, mosaic
from cryogan.report.scatter import embedded_scatter
from cryogan.report.template import render
from cryogan.run.contents import FloatArray, RunContents

_THRESHOLDS = (0.1, 0.5, 0.9)
_SMALL = 0.01  # p-values
_BINS = 40
_TAIL = 0.002  # of the particles, beyond the first and the last bin
_PROBABILITIES = (FIT, PARTICLE, "cryoganClassProbability")


def particles(run: RunContents, columns: ParticleColumns) -> Markup:
    """The body of the section."""
    varying = {label: v for label, v in columns.values.items() if v.min() < v.max()}
    return render(
        "particles",
        file=columns.path.name,
        count=f"{len(columns):,}",
        figure=figures.to_html(
            histogram_figure([panel(*each) for each in varying.items()]), "particles"
        )
        if varying
        else None,
        constant=[
            f"{title_of(label)} {significant(values[0])}"
            for label, values in columns.values.items()
            if label not in varying
        ],
        thresholds=_thresholds(columns.values.get(PARTICLE)),
        small=_small(columns.values.get(FIT)),
        scatter=embedded_scatter(columns),
        mosaic=mosaic(run, columns.path, *_shown(columns)),
    )


def panel(label: str, values: FloatArray) -> Panel:
    """The histogram of a column (n,); the first and the last bin hold what lies beyond them."""
    if label in _PROBABILITIES:
        low, high = 0.0, 1.0
    else:
        low, high = np.quantile(values, [_TAIL, 1.0 - _TAIL])
        low, high = (low, high) if low < high else (values.min(), values.max())
    count, edges = np.histogram(values.clip(low, high), _BINS, (float(low), float(high)))
    return Panel(title_of(label), edges, count, level=label == FIT)


def _thresholds(probability: FloatArray | None) -> list[list[str]]:
    """What thresholds on the probability of a particle leave out, and what that costs."""
    if probability is None:
        return []
    rows = []
    for threshold in _THRESHOLDS:
        loss = expected_loss(probability, probability > threshold)
        rows.append(
            [
                f"{PARTICLE}>{threshold:g}",
                f"{loss.kept:,}",
                f"{loss.left_out:,}",
                f"{loss.wanted_left_out:,.1f}",
                f"{loss.unwanted_kept:,.1f}",
            ]
        )
    return rows


def _small(p_value: FloatArray | None) -> tuple[str, str, str] | None:
    """A threshold on p-values, how many are below it, and how many of images that fit are."""
    if p_value is None:
        return None
    below = int((p_value <= _SMALL).sum())
    return f"{FIT}>{_SMALL:g}", f"{below:,}", f"{_SMALL * len(p_value):,.1f}"


def _shown(columns: ParticleColumns) -> tuple[NDArray[np.int64], list[str]]:
    """Rows at even ranks of the spread, from the smallest on, and what to say of each."""
    order = np.argsort(columns.values[SPREAD], kind="stable")
    ranks = (np.arange(COLUMNS) + 0.5) / COLUMNS * len(order)
    rows = np.unique(ranks.astype(int))
    chosen = order[rows]
    words = []
    for row in chosen:
        said = [f"± {significant(columns.values[SPREAD][row])}°"]
        if INFORMATION in columns.values:
            said.append(f"{columns.values[INFORMATION][row]:.1f} nats")
        if FIT in columns.values:
            p_value = columns.values[FIT][row]
            said.append(f"p {p_value:.2f}" if p_value >= 0.01 else "p < 0.01")
        words.append(", ".join(said))
    return chosen, words
