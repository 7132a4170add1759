"""Central sections of the map along a run, for the report."""

from pathlib import Path

import numpy as np
import torch

from cryogan.errors import InputError
from cryogan.run.checkpoint import load_arrays, save_arrays

PICTURES = "progress.npz"
_COUNT = 40


class Pictures:
    """Sections (3, D, D) of the map so far, at most one for each fortieth of the run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images_seen: list[int] = []
        self.slices: list[torch.Tensor] = []
        if not path.is_file():
            return
        try:
            arrays = load_arrays(path)
            seen, slices = arrays["images_seen"].tolist(), list(arrays["slices"])
        except (InputError, KeyError):
            return  # pictures are dispensable
        if len(seen) == len(slices) and all(each.ndim == 3 for each in slices):
            self.images_seen, self.slices = seen, slices

    def add(self, images_seen: int, fraction: float, volume: torch.Tensor) -> None:
        """Take the sections of a volume (D, D, D), if it is time to."""
        while self.images_seen and self.images_seen[-1] >= images_seen:  # after a resumption
            self.images_seen.pop()
            self.slices.pop()
        if fraction * _COUNT < len(self.slices):
            return
        middle = volume.shape[-1] // 2
        sections = torch.stack((volume[middle], volume[:, middle], volume[:, :, middle])).cpu()
        self.images_seen.append(images_seen)
        self.slices.append(sections)

    def save(self) -> None:
        """Write what there is."""
        if not self.slices:
            return
        size = max(section.shape[-1] for section in self.slices)
        same = [
            torch.nn.functional.interpolate(section[None], size=(size, size), mode="bilinear")[0]
            for section in self.slices
        ]
        save_arrays(
            self.path, images_seen=np.array(self.images_seen), slices=torch.stack(same).numpy()
        )
