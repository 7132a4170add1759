"""Maps of atomic models against a direct Fourier sum over atoms."""

from pathlib import Path

import gemmi
import numpy as np
import pytest
import torch

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.io.atoms import density_map

# x, y, z (Å), element, B (Å²): no symmetry, neither hand nor axes can be mistaken
ATOMS = [
    (0.0, 0.0, 0.0, "C", 30.0),
    (14.0, 2.0, -3.0, "O", 20.0),
    (-3.0, 9.0, 1.0, "N", 40.0),
    (2.0, -4.0, 17.0, "S", 10.0),
    (-11.0, -6.0, -8.0, "P", 60.0),
]


def structure() -> gemmi.Structure:
    structure = gemmi.Structure()
    model = gemmi.Model(1)
    chain = gemmi.Chain("A")
    for number, (x, y, z, element, b) in enumerate(ATOMS, 1):
        residue = gemmi.Residue()
        residue.name, residue.seqid = "UNK", gemmi.SeqId(str(number))
        atom = gemmi.Atom()
        atom.name, atom.element, atom.b_iso = element, gemmi.Element(element), b
        atom.pos = gemmi.Position(x + 50, y - 20, z + 7)
        residue.add_atom(atom)
        chain.add_residue(residue)
    model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    return structure


@pytest.fixture
def pdb(tmp_path: Path) -> Path:
    path = tmp_path / "few.pdb"
    structure().write_pdb(str(path))
    return path


def centred_atoms() -> list[tuple[np.ndarray, str, float]]:
    weights = np.array([gemmi.Element(atom[3]).weight for atom in ATOMS])
    points = np.array([atom[:3] for atom in ATOMS])
    centre = (weights[:, None] * points).sum(0) / weights.sum()
    return [(p - centre, a[3], a[4]) for p, a in zip(points, ATOMS, strict=True)]


@pytest.mark.parametrize(
    ("box_size", "pixel_size_A", "resolution_A"),
    [(24, 3.0, None), (25, 3.0, 8.0), (48, 1.0, None), (40, 1.3, 4.0)],
)
def test_direct_fourier_sum(
    pdb: Path, box_size: int, pixel_size_A: float, resolution_A: float | None
) -> None:
    """F(k) = Σ f(k) exp(-B k² / 4) exp(-2πi k·r), with (x, y, z) on axes (2, 1, 0)."""
    map_ = density_map(pdb, box_size=box_size, pixel_size_A=pixel_size_A, resolution_A=resolution_A)
    k = fourier.frequency_grid(box_size, 3).double().numpy() / pixel_size_A
    k2 = (k**2).sum(-1)
    expected = np.zeros(k2.shape, dtype=complex)
    for position, element, b in centred_atoms():
        factors = gemmi.Element(element).c4322
        scattering = sum(a * np.exp(-c * k2 / 4) for a, c in zip(factors.a, factors.b, strict=True))
        expected += scattering * np.exp(-b * k2 / 4) * np.exp(-2j * np.pi * (k @ position))
    if resolution_A is not None:
        expected *= np.exp(-2 * (np.pi * 0.187 * resolution_A) ** 2 * k2)
    found = fourier.rfft(map_.volume, 3).numpy() * pixel_size_A**3
    inside = fourier.band_mask(box_size, (box_size - 1) / 2, 3).numpy() > 0
    error = np.linalg.norm((found - expected)[inside]) / np.linalg.norm(expected[inside])
    assert error < 3e-3
    assert map_.volume.dtype == torch.float32
    assert map_.pixel_size_A == pixel_size_A


def test_blobs_are_where_the_atoms_are(pdb: Path) -> None:
    volume = density_map(pdb, box_size=48, pixel_size_A=1.0).volume
    for position, _, _ in centred_atoms():
        x, y, z = (round(value) + 24 for value in position)
        near = volume[z - 2 : z + 3, y - 2 : y + 3, x - 2 : x + 3]
        assert float(near.max()) > 20 * float(volume.abs().median()) > 0
        peak = np.array(np.unravel_index(int(near.argmax()), near.shape)) - 2
        offset = peak + np.array([z, y, x]) - 24 - position[::-1]
        assert np.abs(offset).max() <= 0.51


def test_low_pass_halves_amplitudes_at_the_resolution(pdb: Path) -> None:
    plain, filtered = (
        fourier.rfft(
            density_map(pdb, box_size=30, pixel_size_A=2.0, resolution_A=resolution).volume, 3
        )
        for resolution in (None, 6.0)
    )
    ratio = float((filtered[0, 0, 10] / plain[0, 0, 10]).real)  # kx = 10 / 60 Å
    assert ratio == pytest.approx(0.5, abs=0.005)


def test_assembly_is_generated(tmp_path: Path) -> None:
    model = structure()
    twofold = gemmi.Assembly("1")
    generator = gemmi.Assembly.Gen()
    generator.chains = ["A"]
    for signs in ((1, 1), (-1, -1)):
        operator = gemmi.Assembly.Operator()
        matrix = gemmi.Mat33([[signs[0], 0, 0], [0, signs[1], 0], [0, 0, 1]])
        operator.transform = gemmi.Transform(matrix, gemmi.Vec3(0, 0, 0))
        generator.operators.append(operator)
    twofold.generators.append(generator)
    model.assemblies.append(twofold)
    path = tmp_path / "twofold.pdb"
    model.write_pdb(str(path))
    options = {"box_size": 65, "pixel_size_A": 3.0}
    alone = density_map(path, **options).volume
    both = density_map(path, assembly="1", **options).volume
    assert float(both.sum() / alone.sum()) == pytest.approx(2.0, rel=1e-3)
    torch.testing.assert_close(both, both.flip(1, 2), atol=1e-4 * float(both.max()), rtol=0)
    with pytest.raises(InputError, match=r"defines no assembly '7'; choose one of 1\."):
        density_map(path, assembly="7", **options)


def test_bad_models(pdb: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"reaches 1[0-9] Å .* room for 8 Å; use a larger box"):
        density_map(pdb, box_size=10, pixel_size_A=2.0)
    with pytest.raises(InputError, match="does not exist"):
        density_map(tmp_path / "none.pdb", box_size=10, pixel_size_A=2.0)
    text = tmp_path / "text.cif"
    text.write_text("hello\n")
    with pytest.raises(InputError, match="cannot be read as an atomic model"):
        density_map(text, box_size=10, pixel_size_A=2.0)
    empty = tmp_path / "empty.pdb"
    empty.write_text("END\n")
    with pytest.raises(InputError, match="holds no atoms"):
        density_map(empty, box_size=10, pixel_size_A=2.0)


def test_beta_galactosidase(shared_data: Path) -> None:
    """Every atom of the tetramer stands on density, and the map is centred."""
    path = shared_data / "models/5a1a.cif"
    map_ = density_map(path, box_size=64, pixel_size_A=3.822)
    model = gemmi.read_structure(str(path))[0]
    centre = np.array(model.calculate_center_of_mass().tolist())
    points = np.array([site.atom.pos.tolist() for site in model.all()]) - centre
    voxels = np.rint(points / 3.822).astype(int) + 32
    volume = map_.volume.numpy()

    def mean_at(order: tuple[int, int, int]) -> float:
        return float(volume[tuple(voxels[:, order].T)].mean())

    right = mean_at((2, 1, 0))
    assert right > 0.5 * np.quantile(volume, 0.999)
    for wrong in ((0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (1, 0, 2)):
        assert mean_at(wrong) < 0.7 * right
    mirrored = volume[(64 - voxels[:, 2], voxels[:, 1], voxels[:, 0])]
    assert mirrored.mean() < 0.7 * right
