"""The page: from a run folder to one self-contained HTML file."""

from pathlib import Path

from markupsafe import Markup
from plotly.offline import get_plotlyjs

from cryogan.files import write_text
from cryogan.report import figures
from cryogan.report.conformation_section import conformation_section
from cryogan.report.details import details
from cryogan.report.header import header
from cryogan.report.iterations import iterations
from cryogan.report.particle_columns import ParticleColumns, read_particle_columns
from cryogan.report.particles import particles
from cryogan.report.resolution import resolution
from cryogan.report.strips import (
    molecule_appearing,
    real_and_simulated,
    sections_and_projections,
)
from cryogan.report.structure import structure
from cryogan.report.template import render
from cryogan.report.validation import validation
from cryogan.run.contents import Record, RunContents, read_run_contents


def write_report(run_folder: Path, poses: Path | None = None) -> Path:
    """Write `report.html` into a run folder and return its path.

    The page needs no network and no file beside it: pictures, curves, surfaces and plotly's
    JavaScript are inside. What a run of any objective holds is shown; what it lacks is left out,
    with a line saying so.

    Args:
        run_folder: of the run.
        poses: star file of `cryogan assign`, for a section about its particles.

    Raises:
        InputError: the folder is not a run folder, or a file cannot be understood.
    """
    run = read_run_contents(run_folder)
    columns = None if poses is None else read_particle_columns(poses)
    scripts = ["structure.js"]
    if run.conformations is not None:
        scripts += ["renderer.js", "viewer.js"]
    if columns is not None:
        scripts += ["scatter.js", "particles.js"]
    page = render(
        "page",
        title=f"{run.path.resolve().name}: cryogan report",
        plotly=Markup(get_plotlyjs()),
        header=header(run),
        sections=_sections(run, columns),
        scripts=scripts,
    )
    path = run_folder / "report.html"
    write_text(path, page)
    return path


def _sections(run: RunContents, columns: ParticleColumns | None) -> list[tuple[str, Markup]]:
    """Headings and bodies; which there are follows from what the run has logged."""
    steps = {name: records for name, records in run.logs.items() if not _has(records, "phase")}
    phases = [record for records in run.logs.values() for record in records if "phase" in record]
    adversarial = any(_has(records, "distance") for records in steps.values())
    sections = [
        ("Structure", structure(run)),
        ("Sections and projections", sections_and_projections(run)),
    ]
    if run.conformations is not None:
        sections.append(("Conformations", conformation_section(run)))
    sections.append(("Resolution", resolution(run)))
    sections += validation(run)
    if columns is not None:
        sections.append(("Particles", particles(run, columns)))
    if phases:
        sections.append(("Iterations", iterations(phases)))
    if adversarial or run.examples:
        sections.append(("Real beside simulated images", real_and_simulated(run)))
    if steps or not phases:
        sections.append(("Training", _training(steps, adversarial=adversarial)))
    if steps or run.progress:
        sections.append(("The molecule appearing", molecule_appearing(run)))
    sections.append(("Details", details(run)))
    return sections


def _has(records: list[Record], key: str) -> bool:
    return any(key in record for record in records)


def _training(logs: dict[str, list[Record]], *, adversarial: bool) -> Markup:
    """Curves of logs whose records are steps of training."""
    figure = figures.training_figure(logs)
    return render(
        "training",
        figure=None if figure is None else figures.to_html(figure, "training"),
        adversarial=adversarial,
        absent="no stats.jsonl of the run folder holds numbers to draw",
    )
