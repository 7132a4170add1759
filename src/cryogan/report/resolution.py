"""The resolutions that a run quotes: what each means, and the FSC curves they are read off."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from cryogan.report import figures
from cryogan.report.formats import angstrom
from cryogan.report.template import render
from cryogan.run.contents import RunContents

_HELD_OUT = "each half-map against images of the other half-set, held-out likelihood"
_PAIRS = {"half_map": "half-map 1 against half-map 2", "truth": "map against known structure"}


@dataclass(frozen=True)
class QuotedResolution:
    """One entry of `summary.json`, such as `half_map_0.143_masked`.

    Attributes:
        pair: which volumes were compared (half_map, truth).
        threshold: FSC at which the resolution is read.
        masked: inside a soft mask?
        value_A: the resolution in Å.
    """

    pair: str
    threshold: float
    masked: bool
    value_A: float

    @property
    def curve(self) -> str:
        """The column of `fsc.csv` that it is read off."""
        return self.pair + ("_masked" if self.masked else "")

    @property
    def compared(self) -> str:
        return _PAIRS.get(self.pair, self.pair.replace("_", " "))

    @property
    def criterion(self) -> str:
        return f"FSC = {self.threshold:g}, {'soft mask' if self.masked else 'no mask'}"


def quoted_resolutions(run: RunContents) -> list[QuotedResolution]:
    """The resolutions of the summary, in its order."""
    return _named(run.resolution_A)


def half_map_crossings(run: RunContents) -> list[QuotedResolution]:
    """Where half-map FSC curves cross 0.143, which is no resolution without structure."""
    return _named(run.half_map_crossings_A)


def _named(values_A: Mapping[str, float]) -> list[QuotedResolution]:
    return [
        QuotedResolution(match[1], float(match[2]), match[3] is not None, value_A)
        for key, value_A in values_A.items()
        if (match := re.fullmatch(r"(.+)_(\d*\.\d+)(_masked)?", key))
    ]


def _held_out(run: RunContents) -> list[tuple[str, str]]:
    value_A = run.held_out_resolution_A
    return [] if value_A is None else [(_HELD_OUT, angstrom(value_A, 2))]


def resolution(run: RunContents) -> Markup:
    """The FSC curves, the quoted resolutions and what they mean."""
    resolutions = quoted_resolutions(run)
    figure = None
    if run.fsc is not None:
        crossings = [(quoted.curve, quoted.threshold, quoted.value_A) for quoted in resolutions]
        figure = figures.to_html(figures.fsc_figure(run.fsc, crossings), "fsc")
    return render(
        "resolution",
        figure=figure,
        resolution_note=run.resolution_note,
        crossings=[
            f"{angstrom(value_A, 2)} ({'soft mask' if name.endswith('masked') else 'no mask'})"
            for name, value_A in run.half_map_crossings_A.items()
            if run.without_structure
        ],
        quoted=[
            (f"{quoted.compared}, {quoted.criterion}", angstrom(quoted.value_A, 2))
            for quoted in resolutions
        ]
        + _held_out(run),
    )
