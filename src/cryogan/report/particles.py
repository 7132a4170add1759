"""Per particle: histograms of what `cryogan assign` has written, thresholds, and a mosaic."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.io.relion_columns import particle_table
from cryogan.io.star import read_star
from cryogan.preparation.selection import FIT, PARTICLE, expected_loss
from cryogan.report import figures
from cryogan.report.formats import significant
from cryogan.report.particle_figures import Panel, histogram_figure
from cryogan.report.particle_mosaic import COLUMNS, mosaic
from cryogan.report.template import render
from cryogan.run.contents import FloatArray, RunContents

SPREAD, INFORMATION = "cryoganAngleSpread", "cryoganPoseInformation"
_THRESHOLDS = (0.1, 0.5, 0.9)
_SMALL = 0.01  # p-values
_BINS = 40
_TAIL = 0.002  # of the particles, beyond the first and the last bin

# Columns of `cryogan assign` and what they are; those of latents have a number at their end.
_TITLES = {
    SPREAD: "spread of the orientation (°)",
    "cryoganShiftSpreadAngst": "spread of the shift (Å)",
    INFORMATION: "pose information (nats)",
    "rlnLogLikeliContribution": "log-likelihood",
    FIT: "p-value of the residual",
    PARTICLE: "probability of a particle",
    "cryoganContrast": "contrast",
    "cryoganCriticScore": "critic score",
    "cryoganClassProbability": "probability of its class",
    "cryoganLatent": "latent",
    "cryoganLatentSpread": "spread of latent",
}
_PROBABILITIES = (FIT, PARTICLE, "cryoganClassProbability")


@dataclass(frozen=True)
class ParticleColumns:
    """What `cryogan assign` has written of n particles.

    Attributes:
        path: the star file.
        values: label → (n,), in the order of `_TITLES`.
    """

    path: Path
    values: Mapping[str, FloatArray]

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))


def read_particle_columns(path: Path) -> ParticleColumns:
    """Read the columns of a star file that `cryogan assign` has written.

    Raises:
        InputError: the file cannot be read, has no particle, or none of the columns.
    """
    if path.suffix != ".star":
        raise InputError(f"{path} is no star file; give the one that cryogan assign has written.")
    table = particle_table(read_star(path), path)
    labels = [
        label
        for known in _TITLES
        for label in table.columns
        if label == known or (label.rstrip("0123456789") == known and "Latent" in known)
    ]
    if SPREAD not in labels or len(table) == 0:
        raise InputError(
            f"{path} has no {SPREAD}, a column that cryogan assign writes; give the star file of "
            "`cryogan assign particles.star RUN -o poses.star`."
        )
    return ParticleColumns(path, {label: table.numbers(label) for label in labels})


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


def title_of(label: str) -> str:
    """What a column of `cryogan assign` is."""
    known = label.rstrip("0123456789")
    return _TITLES[known] + (f" {label[len(known) :]}" if len(label) > len(known) else "")


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
