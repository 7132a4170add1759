"""Reading the CTFs of a .cs file."""

from pathlib import Path

import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.cryosparc.records import field_numbers, read_records
from cryogan.io.ranges import RANGES, first_impossible
from cryogan.particles import CTFParams

_CTF_FIELD_OF: dict[str, tuple[str] | tuple[str, float]] = {
    "defocus_u_A": ("df1_A",),
    "defocus_v_A": ("df2_A",),
    "defocus_angle_deg": ("df_angle_rad",),
    "voltage_kV": ("accel_kv",),
    "spherical_aberration_mm": ("cs_mm",),
    "amplitude_contrast": ("amp_contrast",),
    "phase_shift_deg": ("phase_shift_rad", 0.0),
    "b_factor_A2": ("bfactor", 0.0),
    "scale": ("scale", 1.0),
}


def read_ctf(path: Path | str) -> CTFParams:
    """The CTF parameters in a .cs file, in file order.

    Without their fields the phase shift and B-factor are 0 and the scale is 1.

    Raises:
        InputError: the file is no .cs file, holds no particle, lacks a field or holds a value
            that is not possible.
    """
    records = read_records(path)

    def column(quantity: str, name: str, default: float | None = None) -> Tensor:
        values = field_numbers(records, f"ctf/{name}", path, default=default)
        unit = ""
        if name.endswith("_rad"):
            values, unit = torch.rad2deg(values), " in degrees"
        bad = first_impossible(quantity, values.numpy())
        if bad is not None:
            raise InputError(
                f"ctf/{name}{unit} is {values[bad]:g} in particle {bad + 1} of {path}, but "
                f"{RANGES[quantity].words(float(values[bad]))}; correct the file."
            )
        return values.float()

    fields = {quantity: column(quantity, *name) for quantity, name in _CTF_FIELD_OF.items()}
    return CTFParams(**fields, correction=torch.zeros(len(records), dtype=torch.int64), filter=None)
