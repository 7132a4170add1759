"""Columns of particles for the page's scatter plot, in which a lasso chooses rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryogan.report.particles import (
    INFORMATION,
    SPREAD,
    ParticleColumns,
    read_particle_columns,
    title_of,
)


@dataclass(frozen=True)
class Scatter:
    """What `cryogan assign` has written of particles, column by column."""

    columns: ParticleColumns

    @classmethod
    def read(cls, path: Path) -> "Scatter":
        """From a star file.

        Raises:
            InputError: it cannot be read, or `cryogan assign` has not written it.
        """
        return cls(read_particle_columns(path))

    def about(self) -> dict[str, Any]:
        """`file`, `count`, `columns` (titles) and the two that are drawn first (`x`, `y`)."""
        labels = list(self.columns.values)
        latents = [label for label in labels if label.startswith("cryoganLatent")]
        latents = [label for label in latents if not label.startswith("cryoganLatentSpread")]
        first = latents[:2] + [label for label in (INFORMATION, SPREAD) if label in labels]
        chosen = [labels.index(label) for label in first]
        return {
            "file": self.columns.path.name,
            "count": len(self.columns),
            "columns": [title_of(label) for label in labels],
            "x": chosen[0],
            "y": chosen[min(1, len(chosen) - 1)],
        }

    def column(self, number: int) -> bytes | None:
        """(n,) little-endian float32 of a column; None if there is none of that number."""
        values = list(self.columns.values.values())
        if not 0 <= number < len(values):
            return None
        return values[number].astype("<f4").tobytes()
