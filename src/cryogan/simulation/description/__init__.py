"""`simulation.yaml`: a data set in words that make it again, bit for bit; and shipped recipes.

title: one line
about: what it is and where it was published
settings:              # of `SimulationSettings`; what is left out has its default
  noise: {snr_dB: -5.2}
conditions:            # recipes only: changes of the settings, by name; the first is the default
  -20dB: {noise: {snr_dB: -20}}
  -5.2dB: {}
needs:                 # recipes only: where to get the files that settings name
  5a1a.cif: https://www.rcsb.org/structure/5A1A
condition: -20dB       # made sets only: which condition it was
scale: 0.25            # made sets only: what box and number of images were multiplied by
inputs:                # made sets only: the files it was made of
  5a1a.cif: {path: /data/5a1a.cif, sha256: ...}
"""

from cryogan.simulation.description.input_files import locate
from cryogan.simulation.description.reading import (
    Description,
    is_description,
    read_description,
    recipe_names,
)
from cryogan.simulation.description.settings import changed, settings_of
from cryogan.simulation.description.writing import is_same, write_description

__all__ = [
    "Description",
    "changed",
    "is_description",
    "is_same",
    "locate",
    "read_description",
    "recipe_names",
    "settings_of",
    "write_description",
]
