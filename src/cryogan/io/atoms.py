"""Atomic models (PDB, mmCIF) to electron-scattering maps.

Every atom contributes its electron scattering factor (five Gaussians; Peng et al., Acta Cryst.
A52, 1996) smeared by its B-factor, as computed by gemmi.
"""

import math
from pathlib import Path

import gemmi
import numpy as np
import torch

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.io.mrc import Map

_OVERSAMPLING = 1.5  # of the final grid, with atoms blurred to suit and sharpened back
_COARSEST_A = 1.25
_HALF_WIDTH = 0.187  # Gaussian σ / resolution at which the amplitude at 1/resolution is 1/2


def density_map(
    path: Path | str,
    *,
    box_size: int,
    pixel_size_A: float,
    resolution_A: float | None = None,
    assembly: str | None = None,
) -> Map:
    """The scattering density of an atomic model, its centre of mass at voxel D // 2.

    Model coordinates (x, y, z) run along the map's axes (2, 1, 0) in the same sense, so that the
    hand is the model's.

    Args:
        path: a PDB or mmCIF file (also gzipped); its first model is used, all atoms included.
        box_size: D.
        pixel_size_A: voxel edge.
        resolution_A: Gaussian low-pass of σ = 0.187 × resolution in real space, one of the
            conventions of UCSF Chimera's `molmap`: amplitudes at 1/resolution are halved. None
            for no filter other than the grid's own band limit.
        assembly: name of a biological assembly to generate; None takes the file's own atoms.

    Raises:
        InputError: the file cannot be read, has no atoms or no such assembly, or the molecule
            reaches beyond the sphere that the box holds (so that some view would not fit).
    """
    model = _read_model(path, assembly)
    _centre(model, path, box_size, pixel_size_A)
    # The fine grid spans the same field of view; Fourier cropping keeps the origin in place.
    oversampling = max(_OVERSAMPLING, pixel_size_A / _COARSEST_A)
    fine_size = 2 * math.ceil(box_size * oversampling / 2)
    side_A = box_size * pixel_size_A
    spacing_A = side_A / fine_size
    origin = gemmi.Position(*[fine_size // 2 * spacing_A] * 3)
    calculator = gemmi.DensityCalculatorE()
    calculator.d_min = 2 * spacing_A * _OVERSAMPLING
    calculator.rate = _OVERSAMPLING
    calculator.set_refmac_compatible_blur(model)
    grid = calculator.grid
    grid.unit_cell = gemmi.UnitCell(side_A, side_A, side_A, 90, 90, 90)
    grid.spacegroup = gemmi.SpaceGroup("P1")
    grid.set_size(fine_size, fine_size, fine_size)
    model.transform_pos_and_adp(gemmi.Transform(gemmi.Mat33(), origin))
    calculator.add_model_density_to_grid(model)
    density = np.ascontiguousarray(np.asarray(grid.array).transpose(2, 1, 0))
    spectrum = fourier.rfft(torch.from_numpy(density), dims=3)
    spectrum = fourier.resize(spectrum, fine_size, box_size, dims=3)
    k2 = (fourier.frequency_grid(box_size, 3) / pixel_size_A).square().sum(-1)
    exponent = calculator.blur / 4.0 * k2
    if resolution_A is not None:
        exponent = exponent - 2.0 * (math.pi * _HALF_WIDTH * resolution_A) ** 2 * k2
    volume = fourier.irfft(spectrum * torch.exp(exponent), box_size, dims=3)
    return Map(volume * (box_size / fine_size) ** 3, pixel_size_A)


def _read_model(path: Path | str, assembly: str | None) -> gemmi.Model:
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist; check the path of the atomic model.")
    try:
        structure = gemmi.read_structure(str(path))
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as an atomic model ({error}); give a PDB or mmCIF file."
        ) from error
    if len(structure) == 0 or structure[0].count_atom_sites() == 0:
        raise InputError(f"{path} holds no atoms; give a PDB or mmCIF file of a molecule.")
    model = structure[0]
    if assembly is None:
        return model
    known = [item.name for item in structure.assemblies]
    if assembly not in known:
        raise InputError(
            f"{path} defines no assembly '{assembly}'; choose one of {', '.join(known) or 'none'}."
        )
    chosen = structure.assemblies[known.index(assembly)]
    return gemmi.make_assembly(chosen, model, gemmi.HowToNameCopiedChain.Short)


def _centre(model: gemmi.Model, path: Path | str, box_size: int, pixel_size_A: float) -> None:
    """Move the centre of mass to (0, 0, 0) and check that the molecule fits the box."""
    centre = model.calculate_center_of_mass()
    model.transform_pos_and_adp(gemmi.Transform(gemmi.Mat33(), gemmi.Vec3(*(-centre).tolist())))
    radius_A = max(site.atom.pos.length() for site in model.all())
    room_A = (box_size // 2 - 1) * pixel_size_A
    if radius_A > room_A:
        raise InputError(
            f"The molecule in {path} reaches {radius_A:.0f} Å from its centre of mass but a box of "
            f"{box_size} px of {pixel_size_A:g} Å has room for {room_A:.0f} Å; use a larger box or "
            "pixel."
        )
