"""Atomic models (PDB, mmCIF): reading, choosing atoms, and electron-scattering maps.

In a map every atom contributes its electron scattering factor (five Gaussians; Peng et al.,
Acta Cryst. A52, 1996) smeared by its B-factor, as computed by gemmi.
"""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.io.mrc import Map

_OVERSAMPLING = 1.5  # of the final grid, with atoms blurred to suit and sharpened back
_COARSEST_A = 1.25
_MOST_OCCUPANCY = 10.0
_MOST_B_A2 = 1e4

_PART = re.compile(
    r"(?P<chain>[^/\s]+)(/(?P<first>-?\d+)(-(?P<last>-?\d+))?(/(?P<atom>[^/\s]+))?)?"
)


@dataclass(frozen=True)
class AtomicModel:
    """The atoms of a molecule; every field has one entry an atom.

    Attributes:
        name: the files it came from, for messages.
        positions_A: (n, 3) float64 coordinates (x, y, z).
        chains: chain names.
        residues: (n,) int64 residue numbers; insertion codes are left out.
        atoms: atom names such as CA.
        atomic_numbers: (n,) int64.
        occupancies: (n,) float64.
        b_factors_A2: (n,) float64, isotropic.
    """

    name: str
    positions_A: Tensor
    chains: tuple[str, ...]
    residues: Tensor
    atoms: tuple[str, ...]
    atomic_numbers: Tensor
    occupancies: Tensor
    b_factors_A2: Tensor

    def __len__(self) -> int:
        return len(self.atoms)

    @property
    def masses(self) -> Tensor:
        """(n,) float64 atomic masses in Da."""
        masses = [gemmi.Element(number).weight for number in self.atomic_numbers.tolist()]
        return torch.tensor(masses, dtype=torch.float64)

    @property
    def centre_of_mass_A(self) -> Tensor:
        """(3,) mean position, weighted by mass and occupancy."""
        weights = self.masses * self.occupancies
        return weights @ self.positions_A / weights.sum()

    def moved(self, positions_A: Tensor) -> "AtomicModel":
        """The same atoms at other positions (n, 3)."""
        return replace(self, positions_A=positions_A)

    def select(self, text: str) -> Tensor:
        """Which atoms a selection names: (n,) bool.

        A selection is `all`, a chain `B`, residues `B/12-442`, a residue `A/677`, an atom
        `A/677/CA`, or several of these joined by commas.

        Raises:
            InputError: the text is malformed, or a part of it names nothing in the model.
        """
        chosen = torch.zeros(len(self), dtype=torch.bool)
        for part in text.split(","):
            chosen |= self._select_part(part.strip(), text)
        return chosen

    def _select_part(self, part: str, text: str) -> Tensor:
        if part == "all":
            return torch.ones(len(self), dtype=torch.bool)
        match = _PART.fullmatch(part)
        if match is None:
            raise InputError(
                f"The selection '{text}' cannot be understood at '{part}'; write all, B, "
                "B/12-442, A/677 or A/677/CA, or several of these joined by commas."
            )
        chain = match["chain"]
        chosen = torch.tensor([name == chain for name in self.chains])
        if not chosen.any():
            raise InputError(
                f"The selection '{text}' names chain {chain}, which {self.name} does not have; "
                f"its chains are {', '.join(dict.fromkeys(self.chains))}."
            )
        if match["first"] is None:
            return chosen
        present = self.residues[chosen]
        first = int(match["first"])
        last = first if match["last"] is None else int(match["last"])
        chosen &= (self.residues >= first) & (self.residues <= last)
        if not chosen.any():
            wanted = f"residue {first}" if first == last else f"residues {first} to {last}"
            raise InputError(
                f"The selection '{text}' names {wanted} of chain {chain}, but there is none in "
                f"{self.name}; the chain's residues lie between {int(present.min())} and "
                f"{int(present.max())}."
            )
        if match["atom"] is None:
            return chosen
        named = chosen & torch.tensor([name == match["atom"] for name in self.atoms])
        if not named.any():
            known = dict.fromkeys(self.atoms[i] for i in chosen.nonzero()[:, 0].tolist())
            raise InputError(
                f"The selection '{text}' names atom {match['atom']}, which is not there in "
                f"{self.name}; the atoms there are {', '.join(known)}."
            )
        return named

    def check_fits(self, box_size: int, pixel_size_A: float) -> None:
        """Make sure that every view of the molecule, as it lies, fits a box about (0, 0, 0).

        Raises:
            InputError: an atom lies beyond the sphere that the box holds.
        """
        radius_A = float(self.positions_A.norm(dim=1).max())
        room_A = (box_size // 2 - 1) * pixel_size_A
        if radius_A > room_A:
            raise InputError(
                f"The molecule in {self.name} reaches {radius_A:.1f} Å from the origin, the "
                f"centre of the box, but a box of {box_size} px of {pixel_size_A:g} Å has room "
                f"for {room_A:.1f} Å; use a larger box or pixel."
            )


def read_model(*paths: Path | str, assembly: str | None = None) -> AtomicModel:
    """The first model of a PDB or mmCIF file (also gzipped), all its atoms included.

    Args:
        paths: one or several files; several are merged into one molecule, as they lie.
        assembly: name of a biological assembly to generate from every file; None takes the
            file's own atoms.

    Raises:
        InputError: a file cannot be read, has no atoms, an atom without coordinates or with an
            impossible occupancy or B-factor, no such assembly, or a chain of the same name as a
            chain of a file before it.
    """
    owner: dict[str, Path | str] = {}
    rows: list[tuple[Any, ...]] = []
    for path in paths:
        model = _read_first_model(path, assembly)
        for name in dict.fromkeys(chain.name for chain in model):
            if name in owner:
                raise InputError(
                    f"{owner[name]} and {path} both have a chain {name}; give the chains of "
                    "files that are to be merged different names."
                )
            owner[name] = path
        for site in model.all():  # a site does not outlive its model
            atom = site.atom
            if not math.isfinite(atom.pos.length()):
                raise InputError(
                    f"Atom {site} in {path} has no coordinates; complete or remove it."
                )
            if not (0 <= atom.occ <= _MOST_OCCUPANCY and abs(atom.b_iso) <= _MOST_B_A2):
                raise InputError(
                    f"Atom {site} in {path} has the occupancy {atom.occ:g} and B-factor "
                    f"{atom.b_iso:g}, which cannot be; correct or remove it."
                )
            rows.append(
                (
                    atom.pos.tolist(),
                    site.chain.name,
                    site.residue.seqid.num or 0,
                    atom.name,
                    atom.element.atomic_number,
                    atom.occ,
                    atom.b_iso,
                )
            )
    positions, chains, residues, atoms, numbers, occupancies, b_factors = zip(*rows, strict=True)
    return AtomicModel(
        name=" + ".join(str(path) for path in paths),
        positions_A=torch.tensor(positions, dtype=torch.float64),
        chains=chains,
        residues=torch.tensor(residues),
        atoms=atoms,
        atomic_numbers=torch.tensor(numbers),
        occupancies=torch.tensor(occupancies, dtype=torch.float64),
        b_factors_A2=torch.tensor(b_factors, dtype=torch.float64),
    )


def model_density(
    model: AtomicModel,
    *,
    box_size: int,
    pixel_size_A: float,
    resolution_A: float | None = None,
) -> Tensor:
    """The scattering density of an atomic model as it lies, (0, 0, 0) at voxel D // 2.

    Model coordinates (x, y, z) run along the map's axes (2, 1, 0) in the same sense, so that the
    hand is the model's. Anisotropic displacements are not used: they would have to turn with the
    atoms.

    Args:
        model: the atoms.
        box_size: D.
        pixel_size_A: voxel edge.
        resolution_A: Gaussian low-pass of σ = 0.187 × resolution in real space: amplitudes at
            1/resolution are halved. None for no filter other than the grid's own band limit.

    Returns:
        (D, D, D) float32.

    Raises:
        InputError: the molecule reaches beyond the sphere that the box holds (so that some view
            would not fit).
    """
    model.check_fits(box_size, pixel_size_A)
    # The fine grid spans the same field of view; Fourier cropping keeps the origin in place.
    oversampling = max(_OVERSAMPLING, pixel_size_A / _COARSEST_A)
    fine_size = 2 * math.ceil(box_size * oversampling / 2)
    side_A = box_size * pixel_size_A
    spacing_A = side_A / fine_size
    atoms = _gemmi_model(model, fine_size // 2 * spacing_A)
    calculator = gemmi.DensityCalculatorE()
    calculator.d_min = 2 * spacing_A * _OVERSAMPLING
    calculator.rate = _OVERSAMPLING
    calculator.set_refmac_compatible_blur(atoms)
    grid = calculator.grid
    grid.unit_cell = gemmi.UnitCell(side_A, side_A, side_A, 90, 90, 90)
    grid.spacegroup = gemmi.SpaceGroup("P1")
    grid.set_size(fine_size, fine_size, fine_size)
    calculator.add_model_density_to_grid(atoms)
    density = np.ascontiguousarray(np.asarray(grid.array).transpose(2, 1, 0))
    spectrum = fourier.rfft(torch.from_numpy(density), dims=3)
    spectrum = fourier.resize(spectrum, fine_size, box_size, dims=3)
    k2 = (fourier.frequency_grid(box_size, 3) / pixel_size_A).square().sum(-1)
    spectrum = spectrum * torch.exp(calculator.blur / 4.0 * k2)
    if resolution_A is not None:
        spectrum = spectrum * fourier.low_pass(box_size, resolution_A / pixel_size_A, 3)
    volume = fourier.irfft(spectrum, box_size, dims=3)
    return volume * (box_size / fine_size) ** 3


def density_map(
    path: Path | str,
    *,
    box_size: int,
    pixel_size_A: float,
    resolution_A: float | None = None,
    assembly: str | None = None,
) -> Map:
    """`read_model`, moved with its centre of mass to voxel D // 2, through `model_density`.

    Raises:
        InputError: as these.
    """
    model = read_model(path, assembly=assembly)
    volume = model_density(
        model.moved(model.positions_A - model.centre_of_mass_A),
        box_size=box_size,
        pixel_size_A=pixel_size_A,
        resolution_A=resolution_A,
    )
    return Map(volume, pixel_size_A)


def _read_first_model(path: Path | str, assembly: str | None) -> gemmi.Model:
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist; check the path of the atomic model.")
    try:
        structure = _read_structure(str(path))
        for site in (site for model in structure for site in model.all()):
            str(site)  # decodes its names
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        words = " ".join(str(error).split())
        raise InputError(
            f"{path} cannot be read as an atomic model ({words}); give a PDB or mmCIF file."
        ) from error
    if len(structure) == 0 or not structure[0].count_occupancies() > 0:
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


def _read_structure(path: str) -> gemmi.Structure:
    try:
        return gemmi.read_structure(path)
    except (RuntimeError, ValueError) as error:
        if "charge" not in str(error):
            raise
        # files of before 1996 end with entry and line number, where element and charge are now
        return gemmi.read_pdb(path, max_line_length=72)


def _gemmi_model(model: AtomicModel, offset_A: float) -> gemmi.Model:
    """The atoms that scatter, moved by `offset_A` along each axis, as gemmi wants them."""
    residue = gemmi.Residue()
    for position, number, occupancy, b_factor in zip(
        (model.positions_A + offset_A).tolist(),
        model.atomic_numbers.tolist(),
        model.occupancies.tolist(),
        model.b_factors_A2.tolist(),
        strict=True,
    ):
        atom = gemmi.Atom()
        atom.pos = gemmi.Position(*position)
        atom.element = gemmi.Element(number)
        atom.occ, atom.b_iso = occupancy, b_factor
        residue.add_atom(atom)
    chain = gemmi.Chain("A")
    chain.add_residue(residue)
    result = gemmi.Model(1)
    result.add_chain(chain)
    return result
