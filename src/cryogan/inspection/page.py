"""A check as one self-contained HTML page with figures and a mosaic of images."""

from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import torch
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.files import write_text
from cryogan.inspection.findings import ParticleCheck
from cryogan.inspection.text import findings, suggested_diameter, suggested_shift
from cryogan.particles import Particles
from cryogan.physics.ctf import ctf
from cryogan.report.figures import COLOURS, INK, style, to_html
from cryogan.report.images import grey_png, grey_range
from cryogan.report.strips import Picture
from cryogan.report.template import missing, render

_COLUMNS = 8
_LOW_PASS_A = 20.0


def write_page(path: Path, found: ParticleCheck, particles: Particles) -> None:
    """Write the page of a check.

    Raises:
        InputError: the file cannot be written.
    """
    source = particles.source
    name = "particles in memory" if source is None else source.path.name
    sections = [
        ("Particles", mosaic(found, particles)),
        ("Signal and noise", render("check_figure", note=_SPECTRA, figure=_spectra(found))),
        ("Images needed", _needed(found)),
        ("Size and position", _extent(found)),
        ("CTFs", render("check_figure", note=_CTFS, figure=_ctfs(particles))),
        ("All findings", render("check_findings", summary=found.summary, rows=findings(found))),
        ("Rows to look at", _rows(found)),
    ]
    header = render("check_header", name=name, found=found, cards=_cards(found))
    page = render(
        "page",
        title=f"{name}: cryogan check",
        plotly=Markup(get_plotlyjs()),
        header=header,
        sections=sections,
        scripts=[],
    )
    write_text(path, page)


_SPECTRA = (
    "Power per Fourier coefficient against resolution: dots are noise, lines the signal of "
    "projections before the CTF; noise has unit mean. Signal and noise are told apart by how "
    "power varies with the CTF among the images, and by what is around the particles."
)
_CTFS = "Mean defocus and astigmatism of all particles."


def _cards(found: ParticleCheck) -> list[tuple[str, str, str]]:
    extent = found.extent
    cards = [
        (
            f"{found.particles:,}",
            "particles",
            f"box {found.box_size} px of {found.pixel_size_A:.4g} Å",
        ),
        (found.contrast.verdict, "contrast on disk", f"z = {found.contrast.z:+.1f}"),
        (
            "unknown" if extent.diameter_A is None else f"{extent.diameter_A:.0f} Å",
            "diameter",
            "suggested",
        ),
        (_shift_card(found), "shifts", "spread along an axis"),
    ]
    if found.spectra:
        cards.append(
            (
                f"{found.spectra[0].snr_dB:.1f} dB",
                "signal : noise",
                "variance of a pixel, CTF included",
            )
        )
    return cards


def _shift_card(found: ParticleCheck) -> str:
    sd = found.extent.shift_sd_A
    return "none found" if sd is None else f"{sd:.1f} Å"


def mosaic(found: ParticleCheck, particles: Particles) -> Markup:
    """Eight particles as they are, low-passed, and phase-flipped as well."""
    bad = {outlier.row for outlier in found.bad_images}
    count = min(len(particles), 3 * _COLUMNS)
    wanted = torch.linspace(0, len(particles) - 1, count).round().long()
    kept = torch.tensor([row not in bad for row in _rows_of(particles, wanted)])
    wanted = wanted[kept][:: max(1, int(kept.sum()) // _COLUMNS)][:_COLUMNS]
    try:
        images = particles.stack.read(wanted)
    except InputError as error:
        return missing(str(error))
    size, pixel_size_A = particles.box_size, particles.pixel_size_A
    transfer = ctf(particles.ctf[wanted], size, pixel_size_A)
    gain = fourier.low_pass(size, _LOW_PASS_A / pixel_size_A)
    plane = fourier.rfft(images) * gain
    plane[:, 0, 0] = 0.0
    flipped = torch.where(transfer < 0, -plane, plane)
    kinds = {
        "as read": images,
        f"low-passed to {_LOW_PASS_A:.0f} Å": fourier.irfft(plane, size),
        "and phase-flipped": fourier.irfft(flipped, size),
    }
    return render(
        "check_mosaic",
        heads=[f"row {int(row)}" for row in _rows_of(particles, wanted)],
        rows=[
            (
                kind,
                [
                    Picture(f"{kind}", grey_png(image, grey_range(image, 0.005)))
                    for image in pictures.numpy().astype(np.float64)
                ],
            )
            for kind, pictures in kinds.items()
        ],
    )


def _rows_of(particles: Particles, index: torch.Tensor) -> list[int]:
    source = particles.source
    rows: list[int] = (
        index if source is None or source.rows is None else source.rows[index]
    ).tolist()
    return rows


def _spectra(found: ParticleCheck) -> Markup:
    figure = go.Figure()
    for number, group in enumerate(found.spectra):
        colour = COLOURS[number % len(COLOURS)]
        k = [1.0 / each for each in group.resolution_A]
        figure.add_scatter(x=k, y=group.signal, name=f"{group.name}: signal", line_color=colour)
        figure.add_scatter(
            x=k,
            y=group.noise,
            name=f"{group.name}: noise",
            mode="markers",
            marker={"color": colour, "size": 5},
        )
    figure.update_xaxes(title="spatial frequency (1/Å)")
    figure.update_yaxes(type="log", title="power")
    return to_html(style(figure, 380), "spectra")


def _needed(found: ParticleCheck) -> Markup:
    rows = [
        (f"{each.resolution_A:g} Å", f"{'about ' if each.extrapolated else ''}{each.images:,}")
        for each in found.images_needed
    ]
    return render("check_needed", rows=rows, particles=found.particles)


def _extent(found: ParticleCheck) -> Markup:
    figure = go.Figure()
    figure.add_scatter(
        x=found.extent.profile_radius_A, y=found.extent.profile, line_color=COLOURS[0]
    )
    if found.extent.diameter_A is not None:
        figure.add_vline(x=found.extent.diameter_A / 2, line_dash="dot", line_color=INK)
    figure.update_xaxes(title="distance from the centre (Å)")
    figure.update_yaxes(title="power of the signal")
    note = (
        f"Diameter: {suggested_diameter(found)}. Shifts: {suggested_shift(found)}. The curve is "
        "the power of Wiener-filtered images against the distance from the centre of the box, "
        "less that of the background; dotted: half the diameter."
    )
    drawn = to_html(style(figure, 320, showlegend=False), "extent")
    return render("check_figure", note=note, figure=drawn)


def _ctfs(particles: Particles) -> Markup:
    ctf_ = particles.ctf
    figure = make_subplots(rows=1, cols=2)
    for column, (title, values) in enumerate(
        {
            "defocus (µm)": (ctf_.defocus_u_A + ctf_.defocus_v_A) / 2e4,
            "astigmatism (Å)": (ctf_.defocus_u_A - ctf_.defocus_v_A).abs(),
        }.items(),
        1,
    ):
        counts, edges = np.histogram(values.double().numpy(), bins=50)
        figure.add_bar(
            x=(edges[1:] + edges[:-1]) / 2, y=counts, marker_color=COLOURS[0], row=1, col=column
        )
        figure.update_xaxes(title=title, row=1, col=column)
    figure.update_yaxes(title="particles", row=1, col=1)
    return to_html(style(figure, 300, showlegend=False, bargap=0), "ctfs")


def _rows(found: ParticleCheck) -> Markup:
    rows = [(str(each.row), each.what) for each in (*found.bad_images, *found.ctf_outliers)]
    return render("check_rows", rows=rows[:200], more=max(0, len(rows) - 200))
