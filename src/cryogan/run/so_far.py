"""What a task has come to so far, written beside its checkpoints for those who watch the run."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, runtime_checkable

from cryogan import fourier
from cryogan.io.mrc import write_map
from cryogan.objectives.base import Arrays, Step, Task
from cryogan.run.checkpoint import save_arrays
from cryogan.run.contents import EXAMPLES, MAP_SO_FAR

_LARGEST_PX = 128  # a picture, not a result


@runtime_checkable
class WithExamples(Protocol):
    """An objective that has simulated images to show beside real ones."""

    def examples(self, step: Step, task: Task) -> Arrays:
        """Arrays of `examples.npz` (`RunContents.examples`), few enough to be made in seconds.

        Nothing that the run depends on may change, random generators included.
        """
        ...


def show_so_far(folder: Path, objective: object, step: Step, task: Task) -> None:
    """`write_so_far`, but for what cannot be made or written: no picture ends a run."""
    with suppress(Exception):
        write_so_far(folder, objective, step, task)


def write_so_far(folder: Path, objective: object, step: Step, task: Task) -> None:
    """Write `map_so_far.mrc`, and `examples.npz` of an objective that has examples.

    Args:
        folder: of the task.
        objective: that has made the step.
        step: the latest.
        task: for the width of the particles' box, which is that of the map.
    """
    volume = step.section if step.map_so_far is None else step.map_so_far()
    if volume is not None:
        particles = task.half_sets[0]
        size = min(volume.shape[-1], _LARGEST_PX)
        small = fourier.resample(volume.detach().float().cpu(), size, 3)
        pixel_size_A = particles.pixel_size_A * particles.box_size / size
        write_map(folder / MAP_SO_FAR, small, pixel_size_A)
    if isinstance(objective, WithExamples):
        save_arrays(folder / EXAMPLES, **objective.examples(step, task))


def remove_maps_so_far(folders: Sequence[Path]) -> None:
    """Remove `map_so_far.mrc`: the results are there."""
    for folder in folders:
        (folder / MAP_SO_FAR).unlink(missing_ok=True)
