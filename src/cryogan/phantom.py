"""A procedural molecule: protein-like density for demonstrations and tests, no download needed.

The molecule is a chain of residues (one pseudo-atom at each Cα) folded into domains. A domain is
a bundle of antiparallel α-helices (rise 1.5 Å and turn 100° a residue, radius 2.3 Å; Pauling,
Corey & Branson 1951) packed hexagonally 10 Å apart and joined by coil. The domains differ in size
and sit in a chiral arrangement, so that the hand and the orientation of a map can be told even
at low resolution. The last domain of a chain turns about a hinge.
"""

import math
from dataclasses import dataclass
from typing import Literal

import roma
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.physics.density import gaussian_density
from cryogan.symmetry import symmetry_matrices

Symmetry = Literal["C1", "D2"]

ATOM_SIGMA_A = 2.0
"""Standard deviation of the Gaussian that stands for a residue."""

RESIDUE_VOLUME_A3 = 135.0
"""Volume of a residue in a folded protein: an atom's integral, so that the inside is near 1."""

_RISE_A = 1.5
_TURN_RAD = math.radians(100.0)
_HELIX_RADIUS_A = 2.3
_PACKING_A = 10.0
_COIL_STEP_A = 3.8


@dataclass(frozen=True)
class _Bundle:
    """A domain: `helices` α-helices of about `residues` each, along `axis` about `centre` (Å)."""

    helices: int
    residues: int
    centre: tuple[float, float, float]
    axis: tuple[float, float, float]


@dataclass(frozen=True)
class _Chain:
    """Domains in the order of the chain, and the hinge (Å) about which the last one turns."""

    bundles: tuple[_Bundle, ...]
    hinge: tuple[float, float, float]
    hinge_axis: tuple[float, float, float]


_CHAINS: dict[Symmetry, _Chain] = {
    "C1": _Chain(
        (
            _Bundle(4, 20, (-12.0, 32.0, -16.0), (0.3, 1.0, -0.4)),
            _Bundle(7, 24, (34.0, 8.0, 12.0), (1.0, 0.3, 0.5)),
            _Bundle(12, 30, (0.0, 0.0, 0.0), (-0.2, -0.3, -1.0)),
            _Bundle(5, 28, (-20.0, -30.0, 20.0), (-0.5, -0.7, 0.5)),
        ),
        hinge=(-11.0, -16.0, 11.0),
        hinge_axis=(0.81, -0.58, 0.0),
    ),
    "D2": _Chain(
        (
            _Bundle(10, 26, (19.0, 14.0, 15.0), (0.6, -0.5, 0.6)),
            _Bundle(3, 22, (42.0, 20.0, 2.0), (0.6, 0.7, -0.3)),
        ),
        hinge=(32.0, 15.0, 7.0),
        hinge_axis=(0.0, 0.4, 1.0),
    ),
}


def _frame(axis: tuple[float, float, float]) -> Tensor:
    """Right-handed orthonormal frame whose third row is `axis` (3, 3)."""
    third = torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float64), dim=0)
    helper = torch.eye(3, dtype=torch.float64)[int(third.abs().argmin())]
    first = torch.nn.functional.normalize(torch.linalg.cross(helper, third), dim=0)
    return torch.stack((first, torch.linalg.cross(third, first), third))


def _packing(count: int) -> Tensor:
    """The `count` points of the hexagonal lattice nearest the origin, ring by ring (n, 2)."""
    points = [
        (_PACKING_A * (i + 0.5 * j), _PACKING_A * math.sqrt(0.75) * j)
        for i in range(-4, 5)
        for j in range(-4, 5)
    ]
    points.sort(key=lambda p: (round(math.hypot(*p), 3), math.atan2(p[1], p[0])))
    return torch.tensor(points[:count], dtype=torch.float64)


def _helix(residues: int) -> Tensor:
    """Cα positions of a right-handed α-helix about the z axis, centred (n, 3)."""
    step = torch.arange(residues, dtype=torch.float64) - 0.5 * (residues - 1)
    angle = _TURN_RAD * step
    radial = _HELIX_RADIUS_A * torch.stack((angle.cos(), angle.sin()), dim=-1)
    return torch.cat((radial, _RISE_A * step[:, None]), dim=-1)


def _coil_length(start: Tensor, end: Tensor) -> int:
    """Number of residues that reach from `start` to `end` with some slack."""
    return int(1.1 * float((end - start).norm()) / _COIL_STEP_A)


def _coil(start: Tensor, end: Tensor, residues: int, bulge: Tensor | float = 0.0) -> Tensor:
    """Residues strictly between `start` and `end` on an arc that bulges by `bulge` (n, 3)."""
    t = torch.linspace(0.0, 1.0, residues + 2, dtype=torch.float64)[1:-1, None]
    return (1.0 - t) * start + t * end + 4.0 * t * (1.0 - t) * bulge


def _fold(bundle: _Bundle) -> Tensor:
    """Residues of one domain (n, 3): helices up and down, joined by coil at their ends."""
    flip = torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)  # half a turn about x
    pieces: list[Tensor] = []
    for number, place in enumerate(_packing(bundle.helices)):
        down = number % 2 == 1
        helix = _helix(bundle.residues - 2 * (number % 3))
        helix = helix * flip if down else helix
        helix[:, :2] += place
        if pieces:
            outwards = torch.tensor([0.0, 0.0, 5.0 if down else -5.0], dtype=torch.float64)
            pieces.append(_coil(pieces[-1][-1], helix[0], 3, outwards))
        pieces.append(helix)
    centre = torch.tensor(bundle.centre, dtype=torch.float64)
    return torch.cat(pieces) @ _frame(bundle.axis) + centre


def _chain_atoms(chain: _Chain, hinge_angle_deg: float) -> Tensor:
    """Residues of a whole chain (n, 3); their number does not depend on the angle."""
    *domains, last = [_fold(bundle) for bundle in chain.bundles]
    axis = torch.nn.functional.normalize(last.new_tensor(chain.hinge_axis), dim=0)
    turn: Tensor = roma.rotvec_to_rotmat(math.radians(hinge_angle_deg) * axis)
    hinge = last.new_tensor(chain.hinge)
    turned = (last - hinge) @ turn.T + hinge
    pieces = [domains[0]]
    for domain, unturned in zip([*domains[1:], turned], [*domains[1:], last], strict=True):
        residues = _coil_length(pieces[-1][-1], unturned[0])
        pieces.extend((_coil(pieces[-1][-1], domain[0], residues), domain))
    return torch.cat(pieces)


def phantom_atoms(*, symmetry: Symmetry = "C1", hinge_angle_deg: float = 0.0) -> Tensor:
    """Residue positions (n, 3) of (x, y, z) in Å, float64.

    The origin is the centre of mass of the molecule at hinge angle 0 (for D2, where the axes
    meet); it does not move with the hinge, so that the rest of the molecule stays in place.
    D2 molecules turn the hinges of all four subunits alike.
    """
    atoms = _chain_atoms(_CHAINS[symmetry], hinge_angle_deg)
    if symmetry == "C1":
        return atoms - _chain_atoms(_CHAINS[symmetry], 0.0).mean(dim=0)
    operators = symmetry_matrices(symmetry).double()
    return torch.einsum("sij,nj->sni", operators, atoms).flatten(0, 1)


def residue_density(atoms_A: Tensor, box_size: int, pixel_size_A: float) -> Tensor:
    """Density of residues at (n, 3) or, projected, (n, 2) positions: (D, D, D) or (D, D) float32.

    `physics.density.gaussian_density` in units of the residues' volume: an atom's integral is
    `RESIDUE_VOLUME_A3`.
    """
    density = gaussian_density(
        atoms_A, box_size=box_size, pixel_size_A=pixel_size_A, sigma_A=ATOM_SIGMA_A
    )
    return RESIDUE_VOLUME_A3 * density


def phantom_map(
    box_size: int,
    pixel_size_A: float,
    *,
    symmetry: Symmetry = "C1",
    hinge_angle_deg: float = 0.0,
) -> Tensor:
    """Density (D, D, D) of the phantom; about 1 inside the protein and 0 outside.

    The same molecule at every box and pixel size: a fine map Fourier-cropped is the coarse map.

    Raises:
        InputError: the box is too small for the molecule.
    """
    atoms = phantom_atoms(symmetry=symmetry, hinge_angle_deg=hinge_angle_deg)
    radius_A = float(atoms.norm(dim=1).max()) + 3.0 * ATOM_SIGMA_A
    if radius_A > 0.5 * box_size * pixel_size_A:
        raise InputError(
            f"The phantom is {2 * radius_A:.0f} Å across and does not fit in a box of {box_size} "
            f"pixels of {pixel_size_A} Å; enlarge the box or the pixels."
        )
    return residue_density(atoms, box_size, pixel_size_A)
