"""Maps and images of a run, finished or not: voxels for the page's renderer, and grey pictures."""

import hashlib
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.io.mrc import Map, read_map
from cryogan.report.images import grey_range
from cryogan.report.strips import (
    PLANES,
    Picture,
    central_sections,
    example_rows,
    picture,
    scale_bar,
)
from cryogan.report.voxel_series import voxel_series
from cryogan.run.contents import EXAMPLES, MAP_SO_FAR, RunContents, read_run_contents
from cryogan.watch.left_out import part

_FILES = ("map.mrc", "latents.csv", MAP_SO_FAR, EXAMPLES)


def pictures_version(folder: Path) -> str:
    """Another word whenever a file of the pictures has changed."""
    found = hashlib.sha256()
    places = [folder, *sorted(path for path in folder.glob("half?") if path.is_dir())]
    places.append(folder / "conformations")
    for path in [place / file for place in places for file in _FILES] + places:
        try:
            about = path.stat()
        except OSError:
            continue
        is_file = path.is_file()
        written = (about.st_mtime_ns, about.st_size) if is_file else ()
        found.update(repr((str(path), written)).encode())
    return found.hexdigest()[:16]


def maps_of(contents: RunContents, left_out: list[str]) -> list[tuple[str, Map]]:
    """What is to be shown in 3D: conformations, the map, or the maps so far, with their labels."""
    so_far = part(lambda: contents.maps_so_far, left_out) or {}
    if so_far:
        return [
            (f"half-map {name.removeprefix('half')} so far" if name else "map so far", map_)
            for name, map_ in so_far.items()
        ]
    series = part(lambda: contents.conformations, left_out)
    if series is not None:
        what = "class" if series.series.kind == "classes" else "map"
        size_A = series.series.pixel_size_A
        return [
            (f"{what} {number} of {len(series.series)}", Map(volume, size_A))
            for number, volume in enumerate(series.series.volumes, start=1)
        ]
    path = contents.path / "map.mrc"
    map_ = part(lambda: read_map(path), left_out) if path.is_file() else None
    return [] if map_ is None else [("map", map_)]


def run_voxels(folder: Path) -> dict[str, Any]:
    """The maps for the page's renderer (`report.voxel_series`).

    Returns:
        `labels`, one a map; `side`, `voxel_A`, `low`, `high`, `mean`, `sigma`, `inside` (the grey
        value well inside the molecule) and `voxels` (base64), or None for all of these where there
        is no map or a flat one; `left_out`.
    """
    left_out: list[str] = []
    contents = part(lambda: read_run_contents(folder), left_out)
    maps = [] if contents is None else maps_of(contents, left_out)
    maps = [(label, map_) for label, map_ in maps if bool(torch.isfinite(map_.volume).all())]
    none = {"labels": [], "voxels": None, "left_out": left_out}
    if not maps:
        return none
    volumes, pixel_size_A = _in_one_box([map_ for _, map_ in maps])
    found = part(lambda: voxel_series(volumes, pixel_size_A), left_out)
    if found is None:
        return none
    mean = volumes.mean(0)
    return {
        "labels": [label for label, _ in maps],
        "side": found.side,
        "voxel_A": found.voxel_size_A,
        "low": found.low,
        "high": found.high,
        "mean": float(mean.mean()),
        "sigma": float(mean.std()),
        "inside": float(np.quantile(mean.numpy(), 0.999)),
        "voxels": found.data,
        "left_out": left_out,
    }


def _in_one_box(maps: list[Map]) -> tuple[Tensor, float]:
    """(n, D, D, D) and the pixel size: halves may be in stages of different boxes."""
    largest = max(maps, key=lambda each: each.volume.shape[-1])
    size = largest.volume.shape[-1]
    volumes = torch.stack([fourier.resample(each.volume, size, 3) for each in maps])
    return volumes, largest.pixel_size_A


def run_pictures(folder: Path) -> dict[str, Any]:
    """Sections of the map, and real beside simulated images.

    Returns:
        `sections` and `examples`: rows of `label` and `pictures` (`what`, `address` of a PNG in
        it, `bar` with `length_A` and `percent`, or None); `left_out`.
    """
    left_out: list[str] = []
    contents = part(lambda: read_run_contents(folder), left_out)
    if contents is None:
        return {"sections": [], "examples": [], "left_out": left_out}
    maps = maps_of(contents, left_out)
    if len(maps) > 2:  # conformations: their mean
        mean = torch.stack([map_.volume for _, map_ in maps]).mean(0)
        maps = [("mean map", Map(mean, maps[0][1].pixel_size_A))]
    sections = [(label, part(partial(_sections, map_), left_out)) for label, map_ in maps]
    examples = part(lambda: example_rows(contents), left_out) or []
    return {
        "sections": [_row(label, pictures) for label, pictures in sections if pictures],
        "examples": [_row(label, pictures) for label, pictures in examples],
        "left_out": left_out,
    }


def _sections(map_: Map) -> list[Picture]:
    volume = map_.volume.numpy().astype(np.float64)
    images = central_sections(volume)
    limits = grey_range(np.stack(images))
    width_A = volume.shape[0] * map_.pixel_size_A
    bar = scale_bar(width_A) if math.isfinite(width_A) and width_A > 0 else None
    return [
        picture(image, limits, f"section {plane}", bar if plane == PLANES[0] else None)
        for plane, image in zip(PLANES, images, strict=True)
    ]


def _row(label: str, pictures: list[Picture]) -> dict[str, Any]:
    return {
        "label": label,
        "pictures": [
            {
                "what": each.what,
                "address": each.address,
                "bar": None if each.bar is None else vars(each.bar),
            }
            for each in pictures
        ],
    }
