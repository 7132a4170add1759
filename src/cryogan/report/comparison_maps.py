"""What a comparison shows of maps: half-map curves, sections in one frame, FSC between the maps."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from markupsafe import Markup
from torch import Tensor

from cryogan.errors import InputError
from cryogan.evaluation.comparison import Comparison, compare_to_truth
from cryogan.evaluation.fsc import band_end, corrected_fsc, ended
from cryogan.evaluation.resampling import resample_map
from cryogan.io.mrc import Map
from cryogan.randomness import generator_for
from cryogan.report.comparison_figures import half_maps_figure, maps_figure
from cryogan.report.figures import to_html
from cryogan.report.formats import angstrom
from cryogan.report.images import grey_range
from cryogan.report.strips import PLANES, central_sections, picture, scale_bar
from cryogan.report.template import render
from cryogan.run.contents import FloatArray, RunContents

_SAME_FIELD = 0.02  # fields of view that differ by a larger share are said


def compare_maps(runs: Mapping[str, RunContents]) -> dict[str, Comparison]:
    """Every other map in the frame and box of the first one (`evaluation.comparison`).

    Args:
        runs: label → run, each with a map.

    Returns:
        Label of each run but the first → its map compared with the first one's, which is `truth`
        there: (D, D, D) each, with the first one's D and pixel size. FSC curves are NaN beyond the
        band of either map; the masked one is corrected for what the mask brings.

    Raises:
        InputError: a map is constant, not finite or smaller than 16 voxels.
    """
    (first, run), *others = runs.items()
    reference = run.maps["map"]
    size, pixel_size_A = reference.volume.shape[-1], reference.pixel_size_A
    found = {}
    for label, other in others:
        map_ = other.maps["map"]
        try:
            same_box = resample_map(
                _of_unit_scale(map_.volume), map_.pixel_size_A, pixel_size_A, size
            )
            result = compare_to_truth(
                Map(same_box, pixel_size_A), Map(_of_unit_scale(reference.volume), pixel_size_A)
            )
        except InputError as error:
            raise InputError(
                f"The maps of {label} and {first} cannot be compared: {error}"
            ) from error
        last = int(band_end(map_.volume) * _width_A(reference) / _width_A(map_))  # of coarser ones
        last = min(last, int(result.fsc.isfinite().nonzero().max()))
        masked = corrected_fsc(
            result.truth, result.aligned, result.mask, generator_for(0, "phase randomisation")
        )
        found[label] = replace(result, fsc=ended(result.fsc, last), fsc_masked=ended(masked, last))
    return found


def pairs_without_structure(runs: Mapping[str, RunContents]) -> set[str]:
    """Labels of the runs whose map has no resolution beside the first one's, by the verdicts."""
    first, *others = runs
    return {
        label for label in others if runs[first].without_structure or runs[label].without_structure
    }


def field_of_view_sentences(runs: Mapping[str, RunContents]) -> list[str]:
    """A sentence for each map whose field of view is not the first one's, within 2 %."""
    widths_A = {label: _width_A(run.maps["map"]) for label, run in runs.items()}
    (first, first_A), *others = widths_A.items()
    return [
        f"The field of view of {label} is {width_A:.1f} Å wide, that of {first} {first_A:.1f} Å: "
        f"the map of {label} is {'cut' if width_A > first_A else 'filled up with zeros'} to it."
        for label, width_A in others
        if abs(width_A / first_A - 1) > _SAME_FIELD
    ]


def half_map_curves(runs: Mapping[str, RunContents]) -> Markup:
    """The half-map FSC curves of all runs in one figure."""
    return render(
        "comparison_half_maps",
        figure=to_html(half_maps_figure(runs), "half-map-fsc"),
        without_structure=_without_structure(runs),
    )


def sections(runs: Mapping[str, RunContents], compared: Mapping[str, Comparison]) -> Markup:
    """Central sections of all maps, a column a run, in one grey scale."""
    first = next(iter(runs))
    reference = runs[first].maps["map"]
    volumes = {first: _standardised(reference.volume)}
    volumes |= {label: _standardised(found.aligned) for label, found in compared.items()}
    shown = {label: central_sections(volume) for label, volume in volumes.items()}
    limits = grey_range(np.stack([image for images in shown.values() for image in images]))
    bar = scale_bar(_width_A(reference))
    return render(
        "comparison_sections",
        heads=[
            label + (" (mirror image)" if label != first and _mirrored(compared[label]) else "")
            for label in shown
        ],
        rows=[
            (
                f"section {plane}",
                [
                    picture(images[i], limits, f"section {plane} of {label}", bar)
                    for label, images in shown.items()
                ],
            )
            for i, plane in enumerate(PLANES)
        ],
        first=first,
    )


def fsc_of_maps(runs: Mapping[str, RunContents], compared: Mapping[str, Comparison]) -> Markup:
    """FSC curves of every other map with the first one, and the resolutions read off them."""
    first = next(iter(runs))
    none = pairs_without_structure(runs)
    return render(
        "comparison_fsc",
        first=first,
        figure=to_html(maps_figure(first, compared, none), "map-fsc"),
        heads=["", *compared],
        rows=[
            *(
                [
                    f"FSC = {threshold:g}, {'soft mask' if masked else 'no mask'}",
                    *(
                        ("crossing at " if label in none else "")
                        + angstrom(found.resolution_A(threshold, masked=masked), 2)
                        for label, found in compared.items()
                    ),
                ]
                for threshold in (0.5, 0.143)
                for masked in (False, True)
            ),
            ["correlation, no mask", *(f"{c.correlation:.3f}" for c in compared.values())],
            ["correlation, soft mask", *(f"{c.correlation_masked:.3f}" for c in compared.values())],
            [
                f"hand, beside that of {first}",
                *("mirror image" if _mirrored(c) else "the same" for c in compared.values()),
            ],
        ],
        without_structure=_without_structure(runs),
    )


def _without_structure(runs: Mapping[str, RunContents]) -> list[str]:
    return [label for label, run in runs.items() if run.without_structure]


def _mirrored(found: Comparison) -> bool:
    return found.alignment.mirrored


def _width_A(map_: Map) -> float:
    return map_.volume.shape[-1] * map_.pixel_size_A


def _of_unit_scale(volume: Tensor) -> Tensor:
    """Divided by its largest modulus: maps may be in units that float32 does not square."""
    largest = volume.abs().max()
    return volume / largest if float(largest) > 0.0 else volume


def _standardised(volume: Tensor) -> FloatArray:
    """In standard deviations above the mean of the box: maps may be in different units."""
    values = volume.double().numpy()
    standardised: FloatArray = (values - values.mean()) / max(values.std(), 1e-30)
    return standardised
