"""The head of the page: the result in words, and the numbers a reader looks for first."""

import math

from markupsafe import Markup

from cryogan.report.formats import angstrom, duration
from cryogan.report.resolution import quoted_resolutions
from cryogan.report.template import render
from cryogan.run.contents import STRUCTURE, RunContents, mapping, number

_HOW = {
    "adversarial": ", by adversarial training, without estimating a pose",
    "likelihood": ", by maximum likelihood over all poses",
}


def header(run: RunContents) -> Markup:
    """Title, result and tiles."""
    return render(
        "header",
        overline="cryogan reconstruction report",
        name=run.path.resolve().name,
        verdict=_verdict(run),
        warning=warning(run),
        resolutions=[
            (angstrom(quoted.value_A), quoted.criterion, quoted.compared)
            for quoted in quoted_resolutions(run)
        ]
        + _held_out(run),
        facts=_facts(run),
    )


def _held_out(run: RunContents) -> list[tuple[str, str, str]]:
    value_A = run.held_out_resolution_A
    if value_A is None:
        return []
    return [(angstrom(value_A), "likelihood", "half-maps against held-out images")]


def warning(run: RunContents) -> str:
    """What a reader must know before all numbers; nothing if structure was found."""
    if run.verdict is None or run.verdict[0] == STRUCTURE:
        return ""
    word, reason = run.verdict
    return f"{word.capitalize()}: {reason}."


def _facts(run: RunContents) -> list[tuple[str, str, str]]:
    """Of each fact its value, what it is, and how it is to be read."""
    count, box_size = number(run.particles, "count"), number(run.particles, "box_size")
    pixel_size_A = number(run.particles, "pixel_size_A")
    wall_s, seen = total_wall_s(run), number(run.summary, "images_seen")
    facts = []
    if count is not None:
        box = f"boxes of {box_size:.0f} px" if box_size is not None else ""
        pixel = f" of {pixel_size_A:.4g} Å" if pixel_size_A is not None else ""
        facts.append((f"{count:,.0f}", "particles", box + pixel))
    if "map" in run.maps:
        map_A = run.maps["map"].pixel_size_A
        facts.append((f"{map_A:.4g} Å", "pixel size of the map", f"Nyquist {2 * map_A:.4g} Å"))
    if wall_s is not None:
        device = f"on {run.config['device']}" if "device" in run.config else ""
        facts.append((duration(wall_s), "wall time", device))
    if seen is not None:
        facts.append((f"{seen:,.0f}", "images seen", "in all iterations, with repeats"))
    return facts


def total_wall_s(run: RunContents) -> float | None:
    """Total wall time, or that of the longest part: half-sets may run at the same time."""
    timings = mapping(run.summary, "timings_s")
    total = number(timings, "total_wall")
    parts = [number(timings, name) for name in timings if name.endswith("_wall")]
    return total if total is not None else max((s for s in parts if s is not None), default=None)


def _verdict(run: RunContents) -> str:
    count = number(run.particles, "count")
    images = f"{count:,.0f} particle images" if count is not None else "the particle images"
    if "map" not in run.maps:
        return f"No map has been written yet from {images}."
    values = {
        (quoted.curve, quoted.threshold): quoted.value_A for quoted in quoted_resolutions(run)
    }
    map_ = run.maps["map"]
    half = _half_map_sentence(
        values.get(("half_map", 0.143)),
        values.get(("half_map_masked", 0.143)),
        box_A=map_.volume.shape[-1] * map_.pixel_size_A,
        nyquist_A=2 * map_.pixel_size_A,
    )
    truth = values.get(("truth", 0.5))
    known = ""
    if truth is not None and math.isfinite(truth):
        known = (
            f" The map agrees with the known structure to {angstrom(truth)} (FSC = 0.5, no mask)."
        )
    by_another = f", by {run.objective}" if run.objective else ""
    how = _HOW.get(run.objective, by_another)
    if run.without_structure:
        half = "No resolution is quoted."
    elif run.verdict is not None and run.verdict[0] == STRUCTURE:
        half = f"Structure found: {run.verdict[1]}. {half}{_held_out_sentence(run)}"
    else:
        half += _held_out_sentence(run)
    return f"{_what(run)} from {images}{how}. {half}{known}"


def _what(run: RunContents) -> str:
    if run.conformations is None:
        return "One map"
    series = run.conformations.series
    kind = {"path": "conformations along a path", "classes": "classes", "grid": "conformations"}
    return f"{len(series)} {kind[series.kind]}, and their mean map,"


def _held_out_sentence(run: RunContents) -> str:
    """What is to be known of the half-maps' resolution, and the one to quote."""
    note, quoted_A = run.resolution_note, run.quoted_resolution_A
    if not note or quoted_A is None:
        return ""
    return f" But {note}: {angstrom(quoted_A)} is the resolution to quote."


def _half_map_sentence(
    whole_A: float | None, masked_A: float | None, *, box_A: float, nyquist_A: float
) -> str:
    """The coarser of both resolutions: what half-maps share outside the molecule is not its own."""
    if whole_A is None:
        return "No half-maps were compared, so the reproducibility is not known."
    masked_A = whole_A if masked_A is None else masked_A
    coarser = masked_A > 1.02 * whole_A
    value_A = masked_A if coarser else whole_A
    criterion = "soft mask" if coarser else "no mask"
    if not value_A < 0.999 * box_A:
        return f"The two half-maps do not agree at any resolution (FSC < 0.143, {criterion})."
    limit = ", the Nyquist limit of the map" if value_A <= 1.02 * nyquist_A else ""
    beyond = (
        f" Without the mask they agree to {angstrom(whole_A)}: what they share beyond is not in "
        "the molecule."
        if coarser
        else ""
    )
    return (
        f"The maps of two independent half-sets agree to {angstrom(value_A)} "
        f"(FSC = 0.143, {criterion}){limit}.{beyond}"
    )
