"""Columns of particles for the page's scatter plot, in which a lasso chooses rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryogan.report.particle_columns import ParticleColumns, read_particle_columns
from cryogan.report.scatter import about


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
        """File, number of particles and titles of the columns (`report.scatter.about`)."""
        return about(self.columns, list(self.columns.values))

    def column(self, number: int) -> bytes | None:
        """(n,) little-endian float32 of a column; None if there is none of that number."""
        values = list(self.columns.values.values())
        if not 0 <= number < len(values):
            return None
        return values[number].astype("<f4").tobytes()
