"""The page: from a run folder to one self-contained HTML file."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from cryogan.files import write_text
from cryogan.report import figures, template
from cryogan.report.conformations import conformations, viewer_script
from cryogan.report.header import header
from cryogan.report.isosurface import (
    DEFAULT_LEVEL,
    contour_levels,
    enclosed_volume_A3,
    isosurfaces,
    level_enclosing,
)
from cryogan.report.markup import duration, escape, mapping, missing, number, section, table
from cryogan.report.passes import passes
from cryogan.report.resolution import resolution
from cryogan.report.run_folder import MAP_NAMES, RunFolder, read_run_folder
from cryogan.report.strips import (
    molecule_appearing,
    real_and_simulated,
    sections_and_projections,
)

# All meshes of a page together (24 bytes a vertex), so that it stays under about 12 MB; with a
# series of maps, which needs up to 3 MB, under about 10 MB.
MAX_VERTICES = 220_000
MAX_VERTICES_BESIDE_SERIES = 50_000

# Protein of partial specific volume 0.73 cm³/g fills 1.21 Å³ a dalton.
PROTEIN_A3_PER_DA = 1.21


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into a run folder and return its path.

    The page needs no network and no file beside it: pictures, curves, surfaces and plotly's
    JavaScript are inside. Whatever the run folder lacks is left out, with a line saying so.

    Raises:
        InputError: the folder is not a run folder, or a file in it cannot be understood.
    """
    run = read_run_folder(run_folder)
    sections = [
        header(run),
        section("Structure", _structure(run)),
        section("Sections and projections", sections_and_projections(run)),
    ]
    if run.conformations is not None:
        sections.append(section("Conformations", conformations(run)))
    sections.append(section("Resolution", resolution(run)))
    if run.by_likelihood:
        sections.append(section("Passes", passes(run)))
    else:
        sections += [
            section("Real beside simulated images", real_and_simulated(run)),
            section("Training", _training(run)),
            section("The molecule appearing", molecule_appearing(run)),
        ]
    sections.append(section("Details", _details(run)))
    path = run_folder / "report.html"
    write_text(
        path,
        template.PAGE.format(
            title=escape(f"{run.path.resolve().name}: cryogan report"),
            style=template.STYLE,
            plotly=get_plotlyjs(),
            body="\n".join(sections),
            behaviour=template.BEHAVIOUR
            if run.conformations is None
            else template.BEHAVIOUR + viewer_script(),
        ),
    )
    return path


def _structure(run: RunFolder) -> str:
    if "map" not in run.maps:
        return missing("the run folder has no map.mrc")
    map_ = run.maps["map"]
    levels = contour_levels(map_.volume)
    if not levels:
        return missing("map.mrc is flat, so it has no surface")
    volumes_A3 = [enclosed_volume_A3(map_.volume, level, map_.pixel_size_A) for level in levels]
    columns = {name: run.maps[name] for name in ("map", "truth") if name in run.maps}
    vertices = MAX_VERTICES if run.conformations is None else MAX_VERTICES_BESIDE_SERIES
    budget = vertices // (len(columns) * len(levels))
    surfaces = {"map": isosurfaces(map_.volume, map_.pixel_size_A, levels, budget)}
    if "truth" in columns:
        truth, size_A = columns["truth"].volume, columns["truth"].pixel_size_A
        same = [level_enclosing(truth, size_A, volume_A3) for volume_A3 in volumes_A3]
        surfaces["truth"] = isosurfaces(truth, size_A, same, budget)
    mean, sigma = float(map_.volume.mean()), float(map_.volume.std())
    labels = [
        f"{(level - mean) / sigma:.1f} σ · encloses {volume_A3:,.0f} Å³, "
        f"as {volume_A3 / PROTEIN_A3_PER_DA / 1000:,.0f} kDa of protein"
        for level, volume_A3 in zip(levels, volumes_A3, strict=True)
    ]
    headings = "".join(f"<div>{escape(MAP_NAMES[name])}</div>" for name in columns)
    comparison = (
        " The known structure is drawn at the level that encloses the same volume."
        if "truth" in columns
        else " No known structure was given to compare with."
    )
    return (
        '<p class="note">Drag to turn, scroll to zoom. Levels are in standard deviations σ above '
        "the mean of the whole box; protein is taken as 1.21 Å³ per dalton. Particle images do "
        f"not tell a molecule from its mirror image.{comparison}</p>\n"
        f'<div class="level"><label for="level">contour level</label>'
        f'<input type="range" id="level" min="0" max="{len(levels) - 1}" step="1" '
        f'value="{DEFAULT_LEVEL}" data-labels="{escape(json.dumps(labels))}">'
        f'<output id="level-label">{escape(labels[DEFAULT_LEVEL])}</output></div>\n'
        f'<div class="scenes">{headings}</div>\n'
        + figures.to_html(figures.isosurface_figure(surfaces, DEFAULT_LEVEL), "isosurface")
    )


def _training(run: RunFolder) -> str:
    figure = figures.training_figure(run.stats)
    if figure is None:
        return missing("the run folder has no sub-folder with a stats.jsonl")
    return (
        '<p class="note">Distance is the critic\'s mean score of real images less that of '
        "simulated ones: it falls when the volume learns faster than the critic. Long logs are "
        f"averaged in blocks.</p>\n{figures.to_html(figure, 'training')}"
    )


def _details(run: RunFolder) -> str:
    config, particles = run.config, mapping(run.config, "particles")
    parts = ["<h3>Particles</h3>"]
    lines = [
        f"{label}{particles[key]}"
        for key, label in (
            ("star", ""),
            ("index", "only the images listed in "),
            ("noise_patches", "noise from "),
            ("summary", ""),
        )
        if particles.get(key) is not None
    ]
    if lines:
        parts.append(f"<pre>{escape(chr(10).join(lines))}</pre>")
    else:
        parts.append(missing("config.json does not describe the particles"))
    made = [
        (label, str(config[key]))
        for key, label in (
            ("cryogan_version", "cryogan"),
            ("torch_version", "PyTorch"),
            ("python_version", "Python"),
            ("device", "device"),
            ("started", "started"),
        )
        if key in config
    ]
    if "command" in config:
        command = config["command"]
        text = " ".join(map(str, command)) if isinstance(command, list) else str(command)
        parts.append(f"<h3>Command</h3><pre>{escape(text)}</pre>")
    timings = [
        (name.replace("_", " "), duration(float(value)))
        for name, value in mapping(run.summary, "timings_s").items()
        if isinstance(value, int | float)
    ]
    for key, label in (("images_seen", "images seen"), ("images_per_s", "images per second")):
        value = number(run.summary, key)
        if value is not None:
            timings.append((label, f"{value:,.0f}"))
    parts.append(
        '<div class="tables"><div><h3>Versions</h3>'
        + (table(made) if made else missing("config.json names no versions"))
        + "</div><div><h3>Time</h3>"
        + (table(timings) if timings else missing("summary.json holds no timings"))
        + "</div></div>"
    )
    chosen = {"seed": config["seed"]} if "seed" in config else {}
    settings = list(_flatten(chosen | mapping(config, "config")))
    half = (len(settings) + 1) // 2
    parts.append(
        "<h3>Settings</h3>"
        + (
            f'<div class="tables">{table(settings[:half])}{table(settings[half:])}</div>'
            if settings
            else missing("config.json holds no settings")
        )
    )
    return "\n".join(parts)


def _flatten(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)
