"""Maps on the way of an adversarial training, and what the truth says of a map."""

from dataclasses import dataclass

import torch

from cryogan.benchmark.cost import Clock
from cryogan.evaluation.comparison import MapLike, compare_to_truth
from cryogan.io.mrc import Map
from cryogan.objectives.adversarial.config import AdversarialConfig
from cryogan.objectives.adversarial.loop import train
from cryogan.particles import Particles


@dataclass(frozen=True)
class Snapshot:
    """A map on the way.

    Attributes:
        cpu_s, wall_s: spent until then.
        map_: at the box of its stage.
        record: of the log: images_seen, distance ...
    """

    cpu_s: float
    wall_s: float
    map_: Map
    record: dict[str, float]


def training_snapshots(
    particles: Particles,
    config: AdversarialConfig,
    *,
    seed: int,
    clock: Clock,
    minutes: float | None = None,
    count: int | None = None,
    log_every: int = 5,
) -> list[Snapshot]:
    """Train one volume on the CPU and keep maps, the last one included.

    Args:
        particles: the whole set.
        config: of the training.
        seed: of everything random.
        clock: that tells what was spent.
        minutes: of CPU time at most; to the end of the training by default.
        count: about so many maps, at equal steps; by default they are denser at first.
        log_every: steps between records, at one of which a map can be kept.
    """
    kept: list[Snapshot] = []
    due = 0.0
    device = torch.device("cpu")
    for progress in train(particles, config, seed=seed, device=device, log_every=log_every):
        cpu_s = clock.cpu_s
        over = minutes is not None and cpu_s >= 60.0 * minutes
        now = cpu_s >= due if count is None else progress.fraction * count >= len(kept) + 1
        if now or over or progress.fraction >= 1:
            map_ = Map(progress.state.average.clone(), progress.data.pixel_size_A)
            record = {"images_seen": progress.state.images_seen} | dict(progress.record)
            kept.append(Snapshot(cpu_s, clock.wall_s, map_, record))
            due = 1.1 * cpu_s + 5.0
        if over:
            break
    return kept


def truth_numbers(map_: MapLike, truth: MapLike) -> dict[str, float]:
    """Resolutions (Å, unmasked) and correlation of a map with the truth, aligned first."""
    found = compare_to_truth(map_, truth)
    return {
        "truth_fsc_0.5_A": found.resolution_A(0.5),
        "truth_fsc_0.143_A": found.resolution_A(0.143),
        "correlation": found.correlation,
    }
