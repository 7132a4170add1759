"""Atomic models: what is read and chosen, and maps against a direct Fourier sum over atoms."""

from pathlib import Path

import gemmi
import numpy as np
import pytest
import torch

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.io.atoms import AtomicModel, density_map, model_density, read_model

# x, y, z (Å), element, B (Å²): no symmetry, neither hand nor axes can be mistaken
ATOMS = [
    (0.0, 0.0, 0.0, "C", 30.0),
    (14.0, 2.0, -3.0, "O", 20.0),
    (-3.0, 9.0, 1.0, "N", 40.0),
    (2.0, -4.0, 17.0, "S", 10.0),
    (-11.0, -6.0, -8.0, "P", 60.0),
]


def structure(chain_name: str = "A", first: int = 1) -> gemmi.Structure:
    structure = gemmi.Structure()
    model = gemmi.Model(1)
    chain = gemmi.Chain(chain_name)
    for number, (x, y, z, element, b) in enumerate(ATOMS, first):
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


@pytest.fixture
def merged(tmp_path: Path) -> AtomicModel:
    """Chain A, residues -1 to 3, and chain B, residues 10 to 14, of two files."""
    for chain, first in (("A", -1), ("B", 10)):
        structure(chain, first).write_pdb(str(tmp_path / f"{chain}.pdb"))
    return read_model(tmp_path / "A.pdb", tmp_path / "B.pdb")


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
    with pytest.raises(InputError, match=r"reaches 1[0-9.]+ Å .* room for 8.0 Å; use a larger box"):
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


def test_model_holds_what_the_file_says(pdb: Path) -> None:
    model = read_model(pdb)
    assert model.name == str(pdb)
    assert len(model) == 5
    expected = torch.tensor([atom[:3] for atom in ATOMS]).double() + torch.tensor([50, -20, 7])
    torch.testing.assert_close(model.positions_A, expected)
    assert model.atoms == ("C", "O", "N", "S", "P")
    assert model.atomic_numbers.tolist() == [6, 8, 7, 16, 15]
    assert model.b_factors_A2.tolist() == [30.0, 20.0, 40.0, 10.0, 60.0]
    assert model.occupancies.tolist() == [1.0] * 5
    assert model.residues.tolist() == [1, 2, 3, 4, 5]
    masses = torch.tensor([12.011, 15.999, 14.007, 32.06, 30.974], dtype=torch.float64)
    centre = (masses[:, None] * expected).sum(0) / masses.sum()
    torch.testing.assert_close(model.centre_of_mass_A, centre, atol=1e-3, rtol=0)


def test_occupancies_weigh_mass_and_density(pdb: Path) -> None:
    few = structure()
    occupancies = [1.0, 0.5, 0.25, 1.0, 0.0]
    for site, occupancy in zip(few[0].all(), occupancies, strict=True):
        site.atom.occ = occupancy
    few.write_pdb(str(pdb))
    model = read_model(pdb)
    assert model.occupancies.tolist() == occupancies
    masses = torch.tensor([12.011, 15.999, 14.007, 32.06, 30.974], dtype=torch.float64)
    weights = masses * model.occupancies
    centre = (weights[:, None] * model.positions_A).sum(0) / weights.sum()
    torch.testing.assert_close(model.centre_of_mass_A, centre, atol=1e-3, rtol=0)
    elements = [gemmi.Element(atom[3]).c4322 for atom in ATOMS]
    expected = sum(o * sum(e.a) for o, e in zip(occupancies, elements, strict=True))  # f(0)
    map_ = density_map(pdb, box_size=30, pixel_size_A=2.0)
    assert float(map_.volume.sum()) * 8.0 == pytest.approx(expected, rel=3e-3)


def test_files_are_merged_as_they_lie(merged: AtomicModel, tmp_path: Path) -> None:
    assert merged.chains == ("A",) * 5 + ("B",) * 5
    torch.testing.assert_close(merged.positions_A[:5], merged.positions_A[5:])
    assert merged.name == f"{tmp_path / 'A.pdb'} + {tmp_path / 'B.pdb'}"
    with pytest.raises(InputError, match=r"A.pdb and .*A.pdb both have a chain A; give"):
        read_model(tmp_path / "A.pdb", tmp_path / "B.pdb", tmp_path / "A.pdb")


def test_only_the_first_model_is_read(tmp_path: Path) -> None:
    two = structure()
    second = two[0].clone()
    second.num = 2
    two.add_model(second)
    path = tmp_path / "two.pdb"
    two.write_pdb(str(path))
    assert len(gemmi.read_structure(str(path))) == 2
    assert len(read_model(path)) == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", range(10)),
        ("B", range(5, 10)),
        ("B/11-13", [6, 7, 8]),
        ("B/13-99", [8, 9]),
        ("A/2", [3]),
        ("A/-1", [0]),
        ("A/-1-1", [0, 1, 2]),
        ("A/-5--1", [0]),
        ("A/2/S", [3]),
        ("A/-1-3/N", [2]),
        ("A/1-2, B/14", [2, 3, 9]),
        ("A/1-2,A/2-3,A/2", [2, 3, 4]),
    ],
)
def test_selections(merged: AtomicModel, text: str, expected: list[int]) -> None:
    assert merged.select(text).nonzero()[:, 0].tolist() == list(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("C", r"'C' names chain C, which .* does not have; its chains are A, B\."),
        ("B/9", r"names residue 9 of chain B, .* residues lie between 10 and 14\."),
        ("A,B/20-30", r"'A,B/20-30' names residues 20 to 30 of chain B, .* 10 and 14\."),
        ("B/13-11", r"names residues 13 to 11 of chain B"),
        ("A/2/CA", r"names atom CA, which is not there in .*; the atoms there are S\."),
        ("A/1-2/CA", r"the atoms there are N, S\."),
        *(
            (text, r"cannot be understood at .*; write all, B, B/12-442, A/677")
            for text in ("", "A,", "A/", "A/x", "A/1-", "A/1/", "A/1/CA/1", "/1", "A 1")
        ),
    ],
)
def test_bad_selections(merged: AtomicModel, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        merged.select(text)


def test_model_is_rendered_as_it_lies(pdb: Path) -> None:
    """Moved by whole voxels, the map moves by whole voxels; density_map centres it."""
    options = {"box_size": 40, "pixel_size_A": 2.0, "resolution_A": 6.0}
    model = read_model(pdb)
    centred = model.moved(model.positions_A - model.centre_of_mass_A)
    shift = torch.tensor([4.0, -6.0, 2.0], dtype=torch.float64)
    plain = model_density(centred, **options)
    shifted = model_density(centred.moved(centred.positions_A + shift), **options)
    bound = 3e-3 * float(plain.max())
    torch.testing.assert_close(shifted, plain.roll((1, -3, 2), (0, 1, 2)), atol=bound, rtol=0)
    torch.testing.assert_close(density_map(pdb, **options).volume, plain)
    with pytest.raises(InputError, match=r"few.pdb reaches 66.6 Å from the origin"):
        model_density(model, **options)


def test_atoms_without_place_or_occupancy_are_refused(pdb: Path, tmp_path: Path) -> None:
    document = structure().make_mmcif_document()
    column = document[0].find_values("_atom_site.Cartn_y")
    column[2] = "?"
    path = tmp_path / "hole.cif"
    document.write_file(str(path))
    with pytest.raises(InputError, match=r"Atom A/.*3/N in .*hole.cif has no coordinates"):
        read_model(path)
    empty = structure()
    for site in empty[0].all():
        site.atom.occ = 0.0
    empty.write_pdb(str(pdb))
    with pytest.raises(InputError, match="holds no atoms"):
        read_model(pdb)


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


@pytest.mark.parametrize(
    ("occupancy", "b_factor"),
    [("  inf", "20.00"), ("99.00", "20.00"), (" 1.00", "1e+20"), (" 1.00", "  nan")],
)
def test_impossible_occupancies_and_b_factors(tmp_path, occupancy, b_factor):
    path = tmp_path / "m.pdb"
    atom = "ATOM      1  CA  ALA A   1       1.000   2.000   3.000 {}{:>6s}           C\n"
    path.write_text(atom.format(" 1.00", "20.00"))
    assert len(read_model(path)) == 1
    path.write_text(atom.format(occupancy, b_factor))
    with pytest.raises(InputError, match=r"m\.pdb"):
        read_model(path)


def test_names_that_are_no_text(tmp_path):
    path = tmp_path / "m.pdb"
    atom = b"ATOM      1  C\xff  ALA A   1       1.000   2.000   3.000  1.00 20.00           C\n"
    path.write_bytes(atom)
    with pytest.raises(InputError, match="cannot be read as an atomic model"):
        read_model(path)


def test_pdb_of_before_1996(pdb: Path, tmp_path: Path) -> None:
    """Its lines end with the entry's name and their number, not with element and charge."""
    lines = [
        f"{line[:72]:72}1ABC{number:4d}" if line.startswith(("ATOM", "HETATM")) else line
        for number, line in enumerate(pdb.read_text().splitlines(), start=783)
    ]
    old = tmp_path / "old.pdb"
    old.write_text("\n".join(lines) + "\n")
    mine, theirs = read_model(old), read_model(pdb)
    assert torch.equal(mine.atomic_numbers, theirs.atomic_numbers)
    assert torch.equal(mine.positions_A, theirs.positions_A)
