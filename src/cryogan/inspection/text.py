"""A check as a page of text."""

from cryogan.data.noise_filter import FEWEST
from cryogan.inspection.findings import ParticleCheck, TimeEstimate

_MOST = 8


def page_of_text(found: ParticleCheck) -> str:
    """All findings, one line each where one is enough; ends with "ready" or what to mend."""
    return "\n".join(
        (
            *found.summary,
            f"looked at {found.sampled:,} of {found.particles:,} images; rows count from 0, as for "
            "--ind",
            "",
            *(f"{name:<16}{text}" for name, text in findings(found)),
            *_listed(
                "",
                [note if note.startswith("warning: ") else f"note: {note}" for note in found.notes],
            ),
            "",
            *verdict(found),
        )
    )


def findings(found: ParticleCheck) -> list[tuple[str, str]]:
    """Names of findings, and what was found."""
    contrast, normal = found.contrast, found.normalisation
    told = contrast.verdict in ("bright", "dark")
    rows = [
        (
            "contrast",
            f"{contrast.verdict}{' on disk' * told} (z = {contrast.z:+.1f}; ±5 decides)"
            + ("; inverted on reading" if contrast.inverted else ""),
        ),
        (
            "normalisation",
            f"{'normalised' if normal.normalised else 'not normalised'}: background "
            f"{normal.offset_sd.median:+.2f} SD, ramp {normal.ramp_sd.median:.2f} SD over the box, "
            f"SD {normal.sd.low:.2f} to {normal.sd.high:.2f} of its median (10 % to 90 %)",
        ),
    ]
    rows += [
        (
            f"{each.name.partition(' (')[0]}",
            f"{each.smallest:.5g} to {each.largest:.5g}{_unit(each.name)}, median "
            f"{each.median:.5g}",
        )
        for each in found.ctf
        if each.smallest != each.largest
    ]
    rows += [
        ("CTF outliers", f"{len(found.ctf_outliers):,}"),
        ("bad images", f"{len(found.bad_images):,} of those looked at"),
    ]
    rows += [
        (
            "signal : noise",
            f"{group.snr_dB:.1f} dB, {group.name}: {group.particles:,} particles",
        )
        for group in found.spectra
        if found.images_needed
    ]
    rows += [("diameter", suggested_diameter(found)), ("shifts", suggested_shift(found))]
    rows.append(("noise", noise_in_words(found)))
    if found.memory:
        rows.append(("memory", memory_in_words(found)))
    if found.time is not None:
        rows.append(("CPU time", time_in_words(found.time)))
    if found.images_needed:
        rows.append(("images needed", needed_in_words(found)))
        rows.append(("", "estimate: every pose known, C1 symmetry; ~ extrapolated; where it"))
        rows.append(("", "ends, the images looked at are too few to measure the signal"))
    return rows


def suggested_diameter(found: ParticleCheck) -> str:
    """In words."""
    if found.extent.diameter_A is None:
        return "cannot be told"
    return f"about {found.extent.diameter_A:.0f} Å (--diameter)"


def suggested_shift(found: ParticleCheck) -> str:
    """In words."""
    extent, width_A = found.extent, found.box_size * found.pixel_size_A
    percent = 100.0 * extent.max_shift_A / width_A
    if extent.diameter_A is None or extent.max_shift_A > width_A / 2:
        return "cannot be told"
    if extent.shift_sd_A is None:
        return f"none found; below {extent.max_shift_A:.0f} Å ({percent:.1f} % of the box)"
    if extent.is_centred:
        return (
            f"centred to {extent.max_shift_A:.0f} Å: spread {extent.shift_sd_A:.1f} Å, which the "
            "shape alone can make"
        )
    return (
        f"spread {extent.shift_sd_A:.1f} Å along an axis: --max-shift {extent.max_shift_A:.0f} "
        f"({percent:.1f} % of the box)"
    )


def needed_in_words(found: ParticleCheck) -> str:
    """Resolutions and numbers of images."""
    return ", ".join(
        f"{each.resolution_A:g} Å: {'~' if each.extrapolated else ''}{each.images:,}"
        for each in found.images_needed
    )


def memory_in_words(found: ParticleCheck) -> str:
    """At most, by objective, and what there is."""
    bounds = ", ".join(f"{each.objective} {each.at_most_GB:.3g} GB" for each in found.memory)
    free = "" if found.available_GB is None else f"; {found.available_GB:.3g} GB are available"
    more = found.available_GB is not None and any(
        each.at_most_GB > found.available_GB for each in found.memory
    )
    measured = " (a run measures what it needs; --box and --resolution lower it)" if more else ""
    return f"at most, default settings: {bounds}{free}{measured}"


def noise_in_words(found: ParticleCheck) -> str:
    """Whether noise depends on direction."""
    if found.noise_directions is not None:
        return found.noise_directions.words
    if found.sampled < FEWEST:
        return f"{FEWEST} images or more would tell whether it depends on direction"
    return "the same in all directions, to 10 %"


def time_in_words(found: TimeEstimate) -> str:
    """Of a run, and of an image."""
    minutes = found.run_s / 60.0
    length = f"{minutes / 60.0:.2g} h" if minutes >= 90.0 else f"{max(minutes, 0.1):.2g} min"
    return (
        f"about {length} by the {found.objective} to {found.resolution_A:.3g} Å, default settings "
        f"({1e3 * found.image_s:.2g} ms an image and iteration there); right within a factor of 3"
    )


def verdict(found: ParticleCheck) -> list[str]:
    """ "ready", or what to mend."""
    if found.ready:
        return ["ready"]
    return ["to mend:", *(f"  - {problem}" for problem in found.problems)]


def _listed(heading: str, lines: list[str]) -> list[str]:
    more = len(lines) - _MOST
    return [heading, *lines[:_MOST], *([f"and {more} more"] if more > 0 else [])] if lines else []


def _unit(name: str) -> str:
    unit = name.partition(" (")[2].rstrip(")")
    return f" {unit}" if unit else ""
