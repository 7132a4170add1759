"""The head of the page: the verdict in words, and the numbers a reader looks for first."""

import math

from cryogan.report.markup import angstrom, duration, escape, mapping, number
from cryogan.report.resolution import quoted_resolutions
from cryogan.report.run_folder import RunFolder


def header(run: RunFolder) -> str:
    """Title, verdict and tiles."""
    particles = mapping(run.config, "particles")
    count, box_size = number(particles, "count"), number(particles, "box_size")
    pixel_size_A = number(particles, "pixel_size_A")
    timings = mapping(run.summary, "timings_s")
    total_s, seen = number(timings, "total_wall"), number(run.summary, "images_seen")
    resolutions = [
        (angstrom(quoted.value_A), quoted.criterion, quoted.compared)
        for quoted in quoted_resolutions(run)
    ]
    facts = []
    if count is not None:
        box = f"boxes of {box_size:.0f} px" if box_size is not None else ""
        facts.append((f"{count:,.0f}", "particles", box))
    if pixel_size_A is not None:
        limit = f"Nyquist limit {2 * pixel_size_A:.4g} Å"
        facts.append((f"{pixel_size_A:.4g} Å", "pixel size", limit))
    if total_s is not None:
        device = f"on {run.config['device']}" if "device" in run.config else ""
        facts.append((duration(total_s), "wall time", device))
    if seen is not None:
        rate = number(run.summary, "images_per_s")
        speed = f"{rate:,.0f} a second" if rate is not None else ""
        facts.append((f"{seen:,.0f}", "images seen", speed))
    return (
        f'<div class="overline">cryogan reconstruction report</div>\n'
        f"<h1>{escape(run.path.resolve().name)}</h1>\n"
        f'<p class="verdict">{escape(_verdict(run))}</p>\n{_cards(resolutions)}{_cards(facts)}'
    )


def _cards(cards: list[tuple[str, str, str]]) -> str:
    """Tiles of a value, what it is, and how it is to be read."""
    tiles = "".join(
        f'<div class="card"><b>{escape(value)}</b><span class="what">{escape(what)}</span>'
        f"<span>{escape(how)}</span></div>"
        for value, what, how in cards
    )
    return f'<div class="cards">{tiles}</div>\n' if cards else ""


def _verdict(run: RunFolder) -> str:
    particles = mapping(run.config, "particles")
    count, pixel_size_A = number(particles, "count"), number(particles, "pixel_size_A")
    images = f"{count:,.0f} particle images" if count is not None else "the particle images"
    values = {
        (quoted.curve, quoted.threshold): quoted.value_A for quoted in quoted_resolutions(run)
    }
    half, truth = values.get(("half_map", 0.143)), values.get(("truth", 0.5))
    if "map" not in run.maps:
        opening = f"No map has been written yet from {images}."
    else:
        opening = f"One map from {images}, without estimating a pose."
    sentences = [opening]
    if half is None:
        sentences.append("No half maps were compared, so its reproducibility is not known.")
    elif not math.isfinite(half):
        sentences.append("The two half maps do not agree at any resolution (FSC = 0.143).")
    else:
        limit = ""
        if pixel_size_A is not None and half <= 2.04 * pixel_size_A:
            limit = ", the Nyquist limit of these images"
        sentences.append(
            f"Two independent halves of the data agree to {angstrom(half)} "
            f"(FSC = 0.143, no mask){limit}."
        )
    if truth is not None and math.isfinite(truth):
        sentences.append(
            f"The map agrees with the known structure to {angstrom(truth)} (FSC = 0.5, no mask)."
        )
    return " ".join(sentences)
