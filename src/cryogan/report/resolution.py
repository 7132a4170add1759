"""The resolutions that a run quotes: what each means, and the FSC curves they are read off."""

import re
from dataclasses import dataclass

from cryogan.report import figures
from cryogan.report.markup import angstrom, mapping, missing, table
from cryogan.report.run_folder import RunFolder

PAIRS = {"half_map": "half map 1 against half map 2", "truth": "map against known structure"}


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
        return PAIRS.get(self.pair, self.pair.replace("_", " "))

    @property
    def criterion(self) -> str:
        return f"FSC = {self.threshold:g}, {'soft mask' if self.masked else 'no mask'}"


def quoted_resolutions(run: RunFolder) -> list[QuotedResolution]:
    """The resolutions of the summary, in its order."""
    return [
        QuotedResolution(match[1], float(match[2]), match[3] is not None, float(value))
        for key, value in mapping(run.summary, "resolution_A").items()
        if (match := re.fullmatch(r"(.+)_(\d*\.\d+)(_masked)?", key))
        and isinstance(value, int | float)
    ]


def resolution(run: RunFolder) -> str:
    """The FSC curves, the quoted resolutions and what they mean."""
    resolutions = quoted_resolutions(run)
    parts = []
    if run.fsc is None:
        parts.append(missing("the run folder has no fsc.csv"))
    else:
        parts.append(
            '<p class="note">Solid: whole box. Dashed: inside a soft mask. Rings mark the quoted '
            "resolutions.</p>"
        )
        crossings = [(quoted.curve, quoted.threshold, quoted.value_A) for quoted in resolutions]
        parts.append(figures.to_html(figures.fsc_figure(run.fsc, crossings), "fsc"))
    if resolutions:
        parts.append(
            table(
                [
                    (f"{quoted.compared}, {quoted.criterion}", angstrom(quoted.value_A, 2))
                    for quoted in resolutions
                ]
            )
        )
    else:
        parts.append(missing("summary.json quotes no resolution"))
    parts.append(
        '<p class="note" style="margin-top: 12px">A resolution is the spatial frequency, going '
        "outward, at which the Fourier shell correlation first falls below the threshold, by "
        "linear interpolation in frequency between shells; a curve that stays above it is quoted "
        "at the Nyquist limit, one that begins below it at the length of the box. Shell k holds "
        "the Fourier coefficients whose distance from the origin rounds to k pixels. Maps are "
        "aligned over rotation, shift and hand before they are compared. Agreement of half maps "
        "shows that a result is reproducible; only agreement with an independent structure shows "
        "that it is right.</p>"
    )
    return "\n".join(parts)
