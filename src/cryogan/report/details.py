"""Where the run came from: particles, assumptions, command, versions, time and settings."""

import json
import shlex
from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from cryogan.report.formats import duration
from cryogan.report.template import render
from cryogan.run.contents import RunContents, mapping, number

# Assumptions: how they are called.
_ASSUMPTIONS = {
    "symmetry": "symmetry",
    "mask_radius": "diameter of the mask",
    "mask_edge": "width of the mask's edge",
    "mask_file": "mask file",
    "max_shift_percent": "largest shift along x and y",
    "view_sigma": "σ of the viewing directions (1: uniform)",
    "latent": "latent of conformations",
    "classes": "classes (of a discrete latent)",
    "basis_volumes": "basis volumes (of the other latents)",
}

# Those that are lengths: their unit, as text and in widths of the box.
_LENGTHS = {
    "mask_radius": (" of the box", 1.0),
    "mask_edge": (" of half the box", 0.5),
    "max_shift_percent": (" % of the box", 0.01),
}

# Versions in `config.json`: how they are called.
VERSIONS = {
    "cryogan_version": "cryogan",
    "torch_version": "PyTorch",
    "python_version": "Python",
    "device": "device",
    "started": "started",
}


def details(run: RunContents) -> Markup:
    """The body of the section."""
    settings = setting_rows(run)
    half = (len(settings) + 1) // 2
    return render(
        "details",
        particles="\n".join(
            f"{label}{run.particles[key]}"
            for key, label in (
                ("star", ""),
                ("index", "only the images listed in "),
                ("noise", "noise: "),
                ("from", "starting from the maps of "),
                ("summary", ""),
            )
            if run.particles.get(key) is not None
        ),
        assumptions=assumption_rows(run),
        command=_command(run.config.get("command")),
        versions=[(label, str(run.config[k])) for k, label in VERSIONS.items() if k in run.config],
        timings=list(_timings(run.summary)),
        objective=run.objective,
        settings=[settings[:half], settings[half:]] if settings else [],
    )


def assumption_rows(run: RunContents) -> list[tuple[str, str, str]]:
    """Of each assumption what it is called, its value, in Å too, and where it was taken from."""
    box_size, pixel_size_A = (number(run.particles, key) for key in ("box_size", "pixel_size_A"))
    width_A = None if box_size is None or pixel_size_A is None else box_size * pixel_size_A
    rows = [
        (_ASSUMPTIONS.get(name, name), _shown(name, value, width_A), run.sources.get(name, "–"))
        for name, value in run.assumptions.items()
    ]
    if run.symmetry_found is not None:
        rows.insert(1, ("symmetry found", *run.symmetry_found))
    return rows


def setting_rows(run: RunContents) -> list[tuple[str, str]]:
    """Name (nested ones with dots) and value of each setting of the objective, and the seed."""
    chosen = {"seed": run.config["seed"]} if "seed" in run.config else {}
    return list(_flatten(chosen | run.settings))


def _command(command: object) -> str | None:
    if isinstance(command, list):
        return shlex.join(map(str, command))
    return None if command is None else str(command)


def _timings(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    timings = mapping(summary, "timings_s")
    for name in timings:
        seconds = number(timings, name)
        if seconds is not None:
            yield name.replace("_", " "), duration(seconds)
    for key, label in (("images_seen", "images seen"), ("images_per_s", "images per second")):
        value = number(summary, key)
        if value is not None:
            yield label, f"{value:,.0f}"


def _shown(name: str, value: object, width_A: float | None) -> str:
    """An assumption; lengths in Å too, if the width of the box is known."""
    if value is None:
        return "none"
    if name in _LENGTHS and isinstance(value, int | float):
        unit, widths = _LENGTHS[name]
        length = "" if width_A is None else f" ({value * widths * width_A:.1f} Å)"
        return f"{value:g}{unit}{length}"
    return value if isinstance(value, str) else json.dumps(value)


def _flatten(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)
