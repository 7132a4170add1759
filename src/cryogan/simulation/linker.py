"""Conformations of a flexible linker: backbone torsions at random, domains that stay rigid.

Every state has its own phi and psi angles in each residue of the linker; bond lengths, bond angles
and both domains stay as they are. States are drawn until each has the dihedral that it is asked
to have: that of the moving domain's centre, the residues before and after the linker, and the
centre of the rest.
"""

from dataclasses import dataclass
from pathlib import Path

import roma
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.atoms import AtomicModel
from cryogan.io.tables import read_columns
from cryogan.randomness import generator_for
from cryogan.simulation.molecule_settings import Linker

_BATCH = 250  # states drawn at a time
_TRIES = 400  # batches
_CLASH_A = 4.0  # between CA atoms of the two domains
_FULL_TURN = 2.0 * torch.pi

_REGIONS = (  # share, phi and psi in degrees, their standard deviation
    (0.40, -65.0, 145.0, 15.0),  # polyproline II
    (0.30, -120.0, 130.0, 20.0),  # strand
    (0.25, -65.0, -40.0, 12.0),  # right-handed helix
    (0.05, 57.0, 40.0, 12.0),  # left-handed helix
)


@dataclass(frozen=True)
class Torsions:
    """The backbone torsions of a linker of m residues, from its end to its beginning.

    Attributes:
        axis: (2 m, 3) unit vectors of the bonds, psi before phi of each residue.
        pivot_A: (2 m, 3) a point on each bond.
        angle: (2 m,) radians, as in the model.
        depth: (n,) how many of the bonds turn each atom of the model, the first ones.
    """

    axis: Tensor
    pivot_A: Tensor
    angle: Tensor
    depth: Tensor

    def transforms(self, angle: Tensor) -> tuple[Tensor, Tensor]:
        """What atoms of every depth undergo at torsions (k, 2 m).

        Bonds nearer to the moving domain turn first, about their axes in the model.

        Returns:
            Rotations (k, 2 m + 1, 3, 3) and shifts (k, 2 m + 1, 3) in Å, by depth.
        """
        turn = -(angle - self.angle)[..., None] * self.axis
        single: Tensor = roma.rotvec_to_rotmat(turn)
        rotation = torch.eye(3, dtype=angle.dtype).expand(len(angle), 3, 3)
        shift = angle.new_zeros(len(angle), 3)
        rotations, shifts = [rotation], [shift]
        for bond in range(angle.shape[1]):
            pivot = self.pivot_A[bond]
            moved = pivot - torch.einsum("kij,j->ki", single[:, bond], pivot)
            shift = shift + torch.einsum("kij,kj->ki", rotation, moved)
            rotation = rotation @ single[:, bond]
            rotations.append(rotation)
            shifts.append(shift)
        return torch.stack(rotations, dim=1), torch.stack(shifts, dim=1)

    def moved(self, positions_A: Tensor, angle: Tensor, atoms: Tensor | None = None) -> Tensor:
        """Positions (k, n, 3) of atoms (n, 3) at torsions (k, 2 m); `atoms` are their numbers."""
        depth = self.depth if atoms is None else self.depth[atoms]
        rotation, shift = self.transforms(angle)
        return torch.einsum("knij,nj->kni", rotation[:, depth], positions_A) + shift[:, depth]


def dihedral(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Dihedral angles of points (..., 3) in radians from 0 to 2π, IUPAC's sign.

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, 0.0, 0.0])
        >>> o, z = torch.zeros(3), torch.tensor([0.0, 0.0, 1.0])
        >>> round(float(dihedral(x, o, z, z + torch.tensor([0.0, 1.0, 0.0]))), 4)
        1.5708
    """
    first, axis, second = a - b, torch.nn.functional.normalize(c - b, dim=-1), d - c
    first = first - (first * axis).sum(-1, keepdim=True) * axis
    second = second - (second * axis).sum(-1, keepdim=True) * axis
    sine = (torch.linalg.cross(axis, first) * second).sum(-1)
    return torch.atan2(sine, (first * second).sum(-1)) % _FULL_TURN


def torsions_of(model: AtomicModel, linker: Linker) -> Torsions:
    """The linker's torsions in a model.

    Raises:
        InputError: a selection names nothing, the linker is not of one chain, or an atom of its
            backbone or of the residue before or after it is missing.
    """
    in_linker, moving = model.select(linker.residues), model.select(linker.atoms)
    if bool((in_linker & moving).any()):
        raise InputError(
            f"molecule.linker: {linker.residues} and {linker.atoms} share atoms; give the domain "
            "without the linker."
        )
    chain, numbers = _residues(model, in_linker, linker)
    depth = torch.where(moving, 2 * len(numbers), 0)
    axes, pivots, angles = [], [], []
    rows = _backbone(model, chain)
    for order, number in enumerate(reversed(numbers)):
        before, after = _neighbours(rows, number, chain, model)
        n, ca, c = (
            model.positions_A[_atom(rows, number, name, model)] for name in ("N", "CA", "C")
        )
        axes += [c - ca, ca - n]
        pivots += [ca, n]
        previous_c = model.positions_A[_atom(rows, before, "C", model)]
        next_n = model.positions_A[_atom(rows, after, "N", model)]
        angles += [dihedral(n, ca, c, next_n), dihedral(previous_c, n, ca, c)]
        mine = in_linker & (model.residues == number)
        end = torch.tensor([name in ("C", "O", "OXT") for name in model.atoms])
        depth[mine & end] = 2 * order
        depth[mine & ~end] = 2 * order + 1
    return Torsions(
        torch.nn.functional.normalize(torch.stack(axes), dim=1),
        torch.stack(pivots),
        torch.stack(angles),
        depth,
    )


@dataclass(frozen=True)
class LinkerStates:
    """K states of a linker, each computed when it is asked for: `states[k]` is (n, 3) in Å.

    Attributes:
        angle: (K, 2 m) torsions in radians (see `Torsions`).
        dihedral_rad: (K,) of the domains, from 0 to 2π.
    """

    _model: AtomicModel
    _torsions: Torsions
    angle: Tensor
    dihedral_rad: Tensor

    def __len__(self) -> int:
        return len(self.angle)

    def __getitem__(self, state: int) -> Tensor:
        return self._torsions.moved(self._model.positions_A, self.angle[state : state + 1])[0]


def linker_states(model: AtomicModel, linker: Linker) -> LinkerStates:
    """States of a linker whose domains have the dihedrals that its file lists.

    Raises:
        InputError: as `torsions_of`; the file cannot be read; or no state without a clash comes
            near one of the dihedrals.
    """
    torsions = torsions_of(model, linker)
    (wanted,) = read_columns(Path(str(linker.dihedrals)), ("dihedral_rad",)) % _FULL_TURN
    carbon = torch.tensor([name == "CA" for name in model.atoms])
    moving = (carbon & model.select(linker.atoms)).nonzero()[:, 0]
    fixed = (carbon & (torsions.depth == 0)).nonzero()[:, 0]
    measure = _Measure.of(model, torsions, linker)
    generator = generator_for(linker.seed, "linker")
    angle = torch.zeros(len(wanted), torsions.angle.shape[0], dtype=torch.float64)
    found = torch.full_like(wanted, torch.nan)
    for _ in range(_TRIES):
        drawn = _drawn(_BATCH, len(torsions.angle) // 2, generator)
        domain = torsions.moved(model.positions_A[moving], drawn, moving)
        apart = torch.cdist(domain.float(), model.positions_A[fixed].float())
        free = drawn[apart.flatten(1).amin(dim=1) > _CLASH_A]
        for torsion, value in zip(free, measure(free), strict=True):
            off = ((wanted - value + torch.pi) % _FULL_TURN - torch.pi).abs()
            off[~found.isnan()] = torch.inf
            nearest = int(off.argmin())
            if float(off[nearest]) <= linker.tolerance_deg * torch.pi / 180.0:
                angle[nearest], found[nearest] = torsion, value
        if not bool(found.isnan().any()):
            return LinkerStates(model, torsions, angle, found)
    missing = wanted[found.isnan()] * 180.0 / torch.pi
    raise InputError(
        f"No conformation of the linker {linker.residues} among {_TRIES * _BATCH:,} has the "
        f"dihedral {float(missing[0]):.1f}° without a clash; give a longer linker or other angles."
    )


@dataclass(frozen=True)
class _Measure:
    """The dihedral of the domains, from the centres of both and the residues by the linker."""

    torsions: Torsions
    points_A: Tensor
    depth: Tensor

    @classmethod
    def of(cls, model: AtomicModel, torsions: Torsions, linker: Linker) -> "_Measure":
        moving = model.select(linker.atoms)
        chain, numbers = _residues(model, model.select(linker.residues), linker)
        rows = _backbone(model, chain)
        before, after = (
            _neighbours(rows, numbers[end], chain, model)[side] for end, side in ((0, 0), (-1, 1))
        )
        hinges = [model.positions_A[_atom(rows, each, "CA", model)] for each in (before, after)]
        rest = torsions.depth == 0
        weight = model.masses * model.occupancies

        def centre(chosen: Tensor) -> Tensor:
            mine = weight * chosen
            return mine @ model.positions_A / mine.sum()

        points = torch.stack((centre(moving), hinges[0], hinges[1], centre(rest)))
        full = len(torsions.angle)
        return cls(torsions, points, torch.tensor([full, full, 0, 0]))

    def __call__(self, angle: Tensor) -> Tensor:
        """(k,) radians at torsions (k, 2 m)."""
        rotation, shift = self.torsions.transforms(angle)
        points = torch.einsum("knij,nj->kni", rotation[:, self.depth], self.points_A)
        return dihedral(*(points + shift[:, self.depth]).unbind(1))


def _drawn(k: int, residues: int, generator: torch.Generator) -> Tensor:
    """(k, 2 residues) psi and phi of residues of a coil, in radians."""
    share, phi, psi, spread = torch.tensor(_REGIONS, dtype=torch.float64).T
    region = torch.multinomial(share.expand(k, -1), residues, True, generator=generator)
    noise = torch.randn(k, residues, 2, generator=generator, dtype=torch.float64)
    centre = torch.stack((psi[region], phi[region]), dim=-1)
    degrees = centre + spread[region][..., None] * noise
    return torch.deg2rad(degrees).flatten(1)


def _residues(model: AtomicModel, chosen: Tensor, linker: Linker) -> tuple[str, list[int]]:
    """Chain and residue numbers of the linker, in the order of the file."""
    rows = chosen.nonzero()[:, 0].tolist()
    chains = {model.chains[row] for row in rows}
    if len(chains) > 1:
        raise InputError(
            f"molecule.linker: the residues {linker.residues} are of several chains; give residues "
            "of one."
        )
    return chains.pop(), list(dict.fromkeys(model.residues[rows].tolist()))


_Backbone = dict[int, dict[str, int]]


def _backbone(model: AtomicModel, chain: str) -> _Backbone:
    """Residue number → atom name → row, in the order of the file."""
    rows: _Backbone = {}
    for row, (name, number, atom) in enumerate(
        zip(model.chains, model.residues.tolist(), model.atoms, strict=True)
    ):
        if name == chain:
            rows.setdefault(number, {}).setdefault(atom, row)
    return rows


def _neighbours(rows: _Backbone, number: int, chain: str, model: AtomicModel) -> tuple[int, int]:
    order = list(rows)
    place = order.index(number)
    if not 0 < place < len(order) - 1:
        raise InputError(
            f"molecule.linker: residue {number} of chain {chain} is at an end of its chain in "
            f"{model.name}; give residues with one before and one after them."
        )
    return order[place - 1], order[place + 1]


def _atom(rows: _Backbone, number: int, name: str, model: AtomicModel) -> int:
    if name not in rows[number]:
        raise InputError(
            f"molecule.linker: residue {number} has no atom {name} in {model.name}; give residues "
            "with a complete backbone."
        )
    return rows[number][name]
