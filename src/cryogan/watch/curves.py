"""Curves of a run's logs: resolution, log-likelihood, posterior sharpness, critic's distance."""

import math
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from cryogan.run.contents import Record, number

# Numbers that are drawn, in this order, and what they are.
PANELS = {
    "half_map_0.143_A": "half-map FSC 0.143 (Å)",
    "log_likelihood": "log-likelihood of an image (nats)",
    "effective_poses": "effective poses of an image (posterior sharpness)",
    "distance": "critic's distance of real and simulated images",
    "critic_loss": "loss of the critic",
    "volume_loss": "loss of the volume",
}
LOGARITHMIC = ("effective_poses",)
_NO_CURVES = frozenset(
    ("images_seen", "images_per_s", "wall_s", "cpu_s", "fraction", "step", "stage", "retries")
)
_MOST_OTHERS = 4  # curves of objectives that log none of these
_MOST_POINTS = 400  # a curve; longer ones are averaged in blocks


def curves_of(logs: Mapping[str, list[Record]]) -> list[dict[str, Any]]:
    """Curves of logs, one a number, log and phase: in different phases it means different things.

    Args:
        logs: name of a task ("" if there is only one) → its records (`RunContents.logs`).

    Returns:
        For each `key`, `title`, `logarithmic`, `log`, `phase`, `wall_s`, `images` and `y`: lists
        of the same length, of finite numbers.
    """
    keys = [key for key in PANELS if _is_logged(logs, key)] or _others(logs)
    return [
        {
            "key": key,
            "title": PANELS.get(key, key.replace("_", " ")),
            "logarithmic": key in LOGARITHMIC,
            "log": name,
            "phase": phase,
        }
        | _blocks(points)
        for key in keys
        for name, records in logs.items()
        for phase, points in _phases(records, key)
    ]


def _is_logged(logs: Mapping[str, list[Record]], key: str) -> bool:
    return any(number(record, key) is not None for records in logs.values() for record in records)


def _others(logs: Mapping[str, list[Record]]) -> list[str]:
    found = {
        key: None
        for records in logs.values()
        for record in records
        for key in record
        if key not in _NO_CURVES and number(record, key) is not None
    }
    return list(found)[:_MOST_OTHERS]


def _phases(
    records: list[Record], key: str
) -> Iterator[tuple[str, list[tuple[float, float, float]]]]:
    """Runs of records of one phase that hold the number: (wall_s, images, number) of each."""
    complete = [record for record in records if _point(record, key) is not None]
    for phase, group in groupby(complete, lambda record: str(record.get("phase", ""))):
        yield phase, [point for record in group if (point := _point(record, key)) is not None]


def _point(record: Record, key: str) -> tuple[float, float, float] | None:
    values = (number(record, "wall_s"), number(record, "images_seen"), number(record, key))
    if any(value is None or not math.isfinite(value) for value in values):
        return None
    wall_s, images, y = (float(value or 0.0) for value in values)
    return wall_s, images, y


def _blocks(points: list[tuple[float, float, float]]) -> dict[str, list[float]]:
    """Means of blocks, so that there are not too many points."""
    size = math.ceil(len(points) / _MOST_POINTS)
    blocks = [points[start : start + size] for start in range(0, len(points), size)]
    means = [[sum(values) / len(block) for values in zip(*block, strict=True)] for block in blocks]
    return {
        name: [float(f"{mean[i]:.7g}") for mean in means]
        for i, name in enumerate(("wall_s", "images", "y"))
    }
