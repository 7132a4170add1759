"""Strips of grey-scale pictures: maps, real and simulated images, the volume growing."""

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from cryogan.io.mrc import Map
from cryogan.report import figures
from cryogan.report.images import GreyRange, grey_png, grey_range
from cryogan.report.template import missing, render
from cryogan.run.contents import FloatArray, RunContents

MAP_NAMES = {
    "map": "map",
    "half1": "half-map 1",
    "half2": "half-map 2",
    "truth": "known structure",
}

PLANES = ("xy", "xz", "yz")
_MAX_COLUMNS = 8


@dataclass(frozen=True)
class ScaleBar:
    """A bar of a length in Å that takes this much of a picture's width."""

    length_A: int
    percent: str


@dataclass(frozen=True)
class Picture:
    """A picture of a strip.

    Attributes:
        what: it shows.
        address: of the PNG, which is in it.
        bar: of the scale, or None.
    """

    what: str
    address: str
    bar: ScaleBar | None = None


def sections_and_projections(run: RunContents) -> Markup:
    """Three central sections and three projections of every map."""
    if not run.maps:
        return missing("the run folder has no map.mrc, half1.mrc or half2.mrc")
    return render(
        "sections",
        heads=[f"{kind} {plane}" for kind in ("section", "projection") for plane in PLANES],
        rows=[(MAP_NAMES[name], _views(map_, MAP_NAMES[name])) for name, map_ in run.maps.items()],
        absent=[name for name in ("map", "half1", "half2") if name not in run.maps],
    )


def _views(map_: Map, name: str) -> list[Picture]:
    volume = map_.volume.numpy().astype(np.float64)
    views = {
        "section": central_sections(volume),
        "projection": [volume.sum(axis) for axis in range(3)],
    }
    bar = scale_bar(volume.shape[0] * map_.pixel_size_A)
    return [
        picture(image, grey_range(np.stack(images)), f"{kind} {plane} of {name}",
                 bar if (kind, plane) == ("section", "xy") else None)
        for kind, images in views.items()
        for plane, image in zip(PLANES, images, strict=True)
    ]  # fmt: skip


def central_sections(volume: FloatArray) -> list[FloatArray]:
    """The sections xy, xz and yz, (D, D) each, of a volume (D, D, D) through its origin."""
    centre = volume.shape[0] // 2
    return [volume[centre], volume[:, centre], volume[:, :, centre]]


def real_and_simulated(run: RunContents) -> Markup:
    """Simulated images step by step above real ones, and the power spectra of both."""
    rows = example_rows(run)
    if not rows:
        return missing("the run folder has no examples.npz")
    power = None
    if {"real_power", "noisy_power", "power_images"} <= run.examples.keys():
        power = figures.to_html(figures.power_figure(run.examples), "power")
    return render(
        "examples",
        heads=[""] * len(rows[0][1]),
        rows=rows,
        power=power,
        images=f"{run.examples['power_images'].sum():,.0f}" if power else "",
    )


def example_rows(run: RunContents) -> list[tuple[str, list[Picture]]]:
    """Simulated images step by step, then real ones: what each row shows, and its pictures."""
    kinds = {
        "clean": "simulated: projection",
        "ctf": "after the CTF",
        "noisy": "with noise",
        "real": "real particles",
    }
    present = [kind for kind in kinds if kind in run.examples]
    if not present:
        return []
    shown = min([_MAX_COLUMNS, *(len(run.examples[kind]) for kind in present)])
    images = {kind: run.examples[kind][:shown] for kind in present}
    seen = [images[kind] for kind in ("noisy", "real") if kind in images]
    common = grey_range(np.concatenate([image.ravel() for image in seen])) if seen else (0.0, 1.0)
    return [
        (
            kinds[kind],
            [
                picture(
                    image,
                    common if kind in ("noisy", "real") else grey_range(images[kind]),
                    f"{kind} {number + 1}",
                )
                for number, image in enumerate(images[kind])
            ],
        )
        for kind in present
    ]


def molecule_appearing(run: RunContents) -> Markup:
    """Central sections of the volume at several moments of the run."""
    if run.progress.keys() != {"images_seen", "slices"}:
        return missing("the run folder has no progress.npz")
    slices, images_seen = run.progress["slices"], run.progress["images_seen"]
    count = min(len(slices), len(images_seen))
    if count == 0:
        return missing("progress.npz is empty")
    moments = np.unique(np.linspace(0, count - 1, _MAX_COLUMNS).round().astype(int))
    limits = {m: grey_range(slices[m]) for m in moments}
    rows = [
        (
            f"section {plane}",
            [picture(slices[m, p], limits[m], f"{plane} at {images_seen[m]:.0f}") for m in moments],
        )
        for p, plane in enumerate(PLANES)
    ]
    return render("progress", heads=[f"{images_seen[m]:,.0f}" for m in moments], rows=rows)


def picture(
    image: FloatArray, limits: GreyRange, what: str, bar: ScaleBar | None = None
) -> Picture:
    return Picture(what, grey_png(image, limits), bar)


def scale_bar(width_A: float) -> ScaleBar:
    """A bar of a round length, about a quarter of a picture that is `width_A` wide."""
    length_A = max((n for n in (5, 10, 20, 50, 100, 200, 500) if n <= 0.4 * width_A), default=1)
    return ScaleBar(length_A, f"{100 * length_A / width_A:.1f}")
