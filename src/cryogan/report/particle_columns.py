"""The columns that `cryogan assign` has written of particles."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryogan.errors import InputError
from cryogan.io.relion_columns import particle_table
from cryogan.io.star import read_star
from cryogan.preparation.selection import FIT, PARTICLE
from cryogan.run.contents import FloatArray

SPREAD, INFORMATION = "cryoganAngleSpread", "cryoganPoseInformation"

# Columns of `cryogan assign` and what they are; those of latents have a number at their end.
_TITLES = {
    SPREAD: "spread of the orientation (°)",
    "cryoganShiftSpreadAngst": "spread of the shift (Å)",
    INFORMATION: "pose information (nats)",
    "rlnLogLikeliContribution": "log-likelihood",
    FIT: "p-value of the residual",
    PARTICLE: "probability of a particle",
    "cryoganContrast": "contrast",
    "cryoganCriticScore": "critic score",
    "cryoganClassProbability": "probability of its class",
    "cryoganLatent": "latent",
    "cryoganLatentSpread": "spread of latent",
}


@dataclass(frozen=True)
class ParticleColumns:
    """What `cryogan assign` has written of n particles.

    Attributes:
        path: the star file.
        values: label → (n,), in the order of `_TITLES`.
    """

    path: Path
    values: Mapping[str, FloatArray]

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))


def read_particle_columns(path: Path) -> ParticleColumns:
    """Read the columns of a star file that `cryogan assign` has written.

    Raises:
        InputError: the file cannot be read, has no particle, or none of the columns.
    """
    if path.suffix != ".star":
        raise InputError(f"{path} is no star file; give the one that cryogan assign has written.")
    table = particle_table(read_star(path), path)
    labels = [
        label
        for known in _TITLES
        for label in table.columns
        if label == known or (label.rstrip("0123456789") == known and "Latent" in known)
    ]
    if SPREAD not in labels or len(table) == 0:
        raise InputError(
            f"{path} has no {SPREAD}, a column that cryogan assign writes; give the star file of "
            "`cryogan assign particles.star RUN -o poses.star`."
        )
    return ParticleColumns(path, {label: table.numbers(label) for label in labels})


def title_of(label: str) -> str:
    """What a column of `cryogan assign` is."""
    known = label.rstrip("0123456789")
    return _TITLES[known] + (f" {label[len(known) :]}" if len(label) > len(known) else "")
