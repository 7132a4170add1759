"""Run folders with conformations, as far as what comes after a run reads them."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from cryogan.conformations.folder import write_conformations
from cryogan.conformations.series import numbered_series
from cryogan.io.mrc import write_map
from cryogan.objectives.adversarial.config import AdversarialConfig
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.likelihood.config import LikelihoodConfig


def finished(
    folder: Path,
    assumptions: Assumptions,
    maps: Tensor,
    latents: Tensor,
    objective: str = "likelihood",
    pixel_size_A: float = 8.0,
) -> None:
    """A run folder as far as it is read here."""
    config = {"likelihood": LikelihoodConfig, "adversarial": AdversarialConfig}[objective]
    about = {
        "objective": objective,
        "particles": {"star": None, "count": 200, "box_size": maps.shape[-1]},
        "seed": 0,
        "config": asdict(config(assumptions=assumptions)),
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(about))
    for name in ("half1", "half2", "map"):
        write_map(folder / f"{name}.mrc", maps.mean(0), pixel_size_A)
    series = numbered_series(maps, pixel_size_A, torch.ones(len(maps)), latents)
    write_conformations(folder / "conformations", series, path=True)
