"""CryoBench's sets by recipe: geometry that can be checked by hand, shares, shifts and noise."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import cryogan as cg
from cryogan.errors import InputError
from cryogan.io.atoms import AtomicModel, read_model
from cryogan.io.relion_poses import read_poses
from cryogan.io.star import read_star
from cryogan.physics.distributions import UniformShifts
from cryogan.physics.rotations import angle_between
from cryogan.simulation.description import locate, read_description, settings_of
from cryogan.simulation.linker import dihedral, linker_states, torsions_of
from cryogan.simulation.molecule import molecule_states
from cryogan.simulation.molecule_settings import Linker, MoleculeSettings, Motion, Parts
from cryogan.simulation.motion import path
from cryogan.simulation.parts import parts_of_map
from cryogan.simulation.prepared import rounded_counts
from cryogan.simulation.settings import SimulationSettings

RECIPES = (
    "cryobench-igg-1d",
    "cryobench-igg-rl",
    "cryobench-ribosembly-like",
    "cryobench-mixture-8",
)
RIBOSEMBLY = [9076, 14378, 23547, 44366, 30647, 38500, 3915, 3980, 12740, 11975, 17988, 5001]
RIBOSEMBLY += [35367, 37448, 40540, 5772]


@pytest.fixture(scope="module")
def igg(shared_data: Path) -> AtomicModel:
    return read_model(shared_data / "models" / "1hzh.pdb")


def settings_in(recipe: str, condition: str | None = None) -> SimulationSettings:
    return settings_of(read_description(recipe, condition))


def atom(model: AtomicModel, positions_A: Tensor, name: str) -> Tensor:
    (row,) = model.select(name).nonzero()[:, 0].tolist()
    return positions_A[row]


# The recipes


@pytest.mark.parametrize("recipe", RECIPES)
def test_images_are_as_published(recipe):
    """±30 Å uniform; power SNR 0.01 at 256 px of 1.5 Å."""
    found = settings_in(recipe)
    assert (found.shifts.kind, found.shifts.half_width_A) == ("uniform", 30.0)
    assert (found.noise.kind, found.noise.snr_dB, found.noise.snr_box_size) == ("white", -20.0, 256)
    assert found.box_size * found.pixel_size_A == pytest.approx(256 * 1.5, abs=1e-3)
    assert found.orientations.kind == "uniform"
    assert found.molecule.exact_populations
    centred = settings_in(recipe, "centred")
    assert centred.shifts.kind == "none"
    assert replace(centred, shifts=found.shifts) == found


def test_numbers_of_images_are_as_published():
    assert settings_in("cryobench-igg-1d").images == settings_in("cryobench-igg-rl").images == 1e5
    found = settings_in("cryobench-ribosembly-like")
    shares = torch.tensor(found.molecule.populations, dtype=torch.float64)
    assert rounded_counts(shares / shares.sum(), found.images).tolist() == RIBOSEMBLY
    few = rounded_counts(shares / shares.sum(), 1000)
    assert few.sum() == 1000
    assert float((few - 1000 * shares / shares.sum()).abs().max()) < 1


def test_the_fab_of_igg_1d_turns_full_circle(igg):
    (motion,) = settings_in("cryobench-igg-1d").molecule.motions
    states, latent = path(igg, [motion])
    assert len(states) == 100
    torch.testing.assert_close(latent[:, 0], torch.arange(100.0, dtype=torch.float64) / 100)
    assert states.angles_deg[:, 0].tolist() == pytest.approx([3.6 * k for k in range(100)])
    moving = igg.select(motion.atoms)
    for number in (1, 25, 99):
        found = states[number]
        assert torch.equal(found[~moving], igg.positions_A[~moving])
        hinge = atom(igg, found, "H/235/CA")
        torch.testing.assert_close(hinge, atom(igg, igg.positions_A, "H/235/CA"))
        some = found[moving][::500]
        before = igg.positions_A[moving][::500]
        torch.testing.assert_close(torch.cdist(some, some), torch.cdist(before, before))
    steps = [(states[b] - states[a]).norm() for a, b in ((0, 1), (49, 50), (99, 0))]
    assert float(steps[1]) == pytest.approx(float(steps[0]), rel=1e-6)
    assert float(steps[2]) == pytest.approx(float(steps[0]), rel=1e-6)


def test_circular_motions_are_whole_turns():
    model = MoleculeSettings(("x.pdb",), motions=(Motion("A", last_deg=300.0, circular=True),))
    with pytest.raises(InputError, match="circular but goes from 0 to 300 degrees; give whole"):
        model.motions[0].check()


# Linkers


@pytest.fixture(scope="module")
def linker(shared_data: Path, tmp_path_factory) -> Linker:
    """The recipe's, but five states."""
    table = tmp_path_factory.mktemp("linker") / "few.csv"
    lines = (shared_data / "cryobench" / "igg_rl_dihedral_rad.csv").read_text().splitlines()
    table.write_text("\n".join(lines[:6]) + "\n")
    found = settings_in("cryobench-igg-rl").molecule.linker
    assert found is not None
    return replace(found, dihedrals=str(table), tolerance_deg=4.0)


def test_dihedrals_have_iupacs_sign():
    """Glycine's textbook: looking along the middle bond, clockwise is positive."""
    a, b, c = (torch.tensor(p, dtype=torch.float64) for p in ((1, 0, 0), (0, 0, 0), (0, 0, 1)))
    for degrees in (30.0, 170.0, 200.0, 359.0):
        angle = math.radians(degrees)
        d = torch.tensor((math.cos(angle), math.sin(angle), 1.0), dtype=torch.float64)
        assert math.degrees(float(dihedral(a, b, c, d))) == pytest.approx(degrees)


def test_linkers_turn_and_domains_stay_rigid(igg, linker):
    states = linker_states(igg, linker)
    wanted = [2.360204, 5.163789, 1.016777, 1.379680, 4.133256]
    off = (states.dihedral_rad - torch.tensor(wanted) + math.pi) % (2 * math.pi) - math.pi
    assert float(off.abs().max()) <= math.radians(linker.tolerance_deg)
    moving = igg.select(linker.atoms)
    fixed = ~moving & ~igg.select(linker.residues)
    for number in (0, 3):
        found = states[number]
        assert torch.equal(found[fixed], igg.positions_A[fixed])
        some, before = found[moving][::300], igg.positions_A[moving][::300]
        torch.testing.assert_close(torch.cdist(some, some), torch.cdist(before, before))
        backbone = [
            atom(igg, found, f"H/{residue}/{name}")
            for residue in (230, 232, 235, 236, 237, 238, 239)
            for name in ("N", "CA", "C")
        ]
        crystal = [
            atom(igg, igg.positions_A, f"H/{residue}/{name}")
            for residue in (230, 232, 235, 236, 237, 238, 239)
            for name in ("N", "CA", "C")
        ]
        chain, original = torch.stack(backbone), torch.stack(crystal)
        for apart in (1, 2):  # bonds, and bond angles
            torch.testing.assert_close(
                (chain[apart:] - chain[:-apart]).norm(dim=1),
                (original[apart:] - original[:-apart]).norm(dim=1),
            )
        turned = dihedral(chain[:-3], chain[1:-2], chain[2:-1], chain[3:])
        kept = dihedral(original[:-3], original[1:-2], original[2:-1], original[3:])
        omega = torch.arange(len(turned)) % 3 == 1  # CA, C, N, CA
        torch.testing.assert_close(turned[omega], kept[omega])
        # torsions of the states run from the end of the linker to its beginning
        asked = states.angle[number] % (2 * math.pi)
        torch.testing.assert_close(turned[~omega][1:-1].flip(0), asked)
        carbon = torch.tensor([name == "CA" for name in igg.atoms])
        gap = torch.cdist(found[moving & carbon], found[fixed & carbon])
        assert float(gap.min()) > 4.0
    again = linker_states(igg, linker)
    assert torch.equal(again.angle, states.angle)


def test_the_model_itself_has_its_own_torsions(igg, linker):
    torsions = torsions_of(igg, linker)
    same = torsions.moved(igg.positions_A, torsions.angle[None])[0]
    torch.testing.assert_close(same, igg.positions_A)


def test_bad_linkers(igg, linker):
    for changes, part in (
        ({"atoms": "L,H/1-232"}, "share atoms; give the domain without the linker"),
        ({"residues": "H/232-238,K/5"}, "of several chains"),
        ({"residues": "H/1-3", "atoms": "L"}, "at an end of its chain"),
    ):
        with pytest.raises(InputError, match=part):
            torsions_of(igg, replace(linker, **changes))
    with pytest.raises(InputError, match=r"tolerance_deg is 0; give degrees above 0"):
        replace(linker, tolerance_deg=0.0).check()


# Parts and mixtures


def test_parts_make_up_the_map():
    volume = cg.phantom_map(32, 6.0)
    divided = parts_of_map(volume, 6.0, Parts(4, ((1,),)))
    torch.testing.assert_close(divided.sum(0), volume)
    power = divided.flatten(1).norm(dim=1) / volume.norm()
    assert float(power.min()) > 0.05  # no part is empty
    axis = (torch.arange(32.0) - 16) * 6.0
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    weight = divided.clamp_min(0)
    centre = torch.einsum("pzyx,zyxa->pa", weight, grid) / weight.sum((1, 2, 3))[:, None]
    whole = volume.clamp_min(0)
    middle = torch.einsum("zyx,zyxa->a", whole, grid) / whole.sum()
    radius = (centre - middle).norm(dim=1)
    assert bool((radius[1:] > radius[:-1] - 3.0).all())  # from the middle outwards


def test_states_of_parts(tmp_path):
    cg.write_map(tmp_path / "m.mrc", cg.phantom_map(32, 6.0), 6.0)
    settings = MoleculeSettings(
        (str(tmp_path / "m.mrc"),), parts=Parts(3, ((1, 2), (3,), (1, 2, 3))), populations=(2, 1, 1)
    )
    made = molecule_states(settings, box_size=32, pixel_size_A=6.0)
    assert made.names == ["parts 1 2", "parts 3", "parts 1 2 3"]
    assert made.population.tolist() == [0.5, 0.25, 0.25]
    torch.testing.assert_close(made.volume(0) + made.volume(1), made.volume(2))
    for parts, text in (
        (Parts(3, ((4,),)), r"state \[4\]; give one or more of the parts 1 to 3"),
        (Parts(3, ()), "no states"),
        (Parts(0, ((1,),)), "0 parts"),
    ):
        with pytest.raises(InputError, match=text):
            replace(settings, parts=parts, populations=None).check()


def test_mixtures_of_models_and_maps(tmp_path, shared_data):
    cg.write_map(tmp_path / "m.mrc", 1e-4 * cg.phantom_map(32, 6.0), 6.0)
    sources = (str(shared_data / "models" / "monoA.pdb"), str(tmp_path / "m.mrc"))
    settings = MoleculeSettings(sources, mixture=True, convention="molmap", resolution_A=10.0)
    settings.check()
    made = molecule_states(settings, box_size=32, pixel_size_A=6.0)
    assert [float(made.volume(number).std()) for number in (0, 1)] == pytest.approx([1.0, 1.0])
    assert made.names == ["monoA.pdb", "m.mrc"]
    with pytest.raises(InputError, match="different kinds"):
        replace(settings, mixture=False).check()
    with pytest.raises(InputError, match=r"molecule.path does not go with molecule.mixture"):
        replace(settings, path=True).check()
    with pytest.raises(InputError, match="needs two sources or more"):
        replace(settings, sources=sources[:1]).check()


# What is written


def test_uniform_shifts(generator):
    drawn = UniformShifts(30.0).sample(20_000, generator)
    assert float(drawn.abs().max()) <= 30.0
    assert float(drawn.std()) == pytest.approx(30.0 / math.sqrt(3.0), rel=0.02)
    assert float(drawn.abs().quantile(0.5)) == pytest.approx(15.0, rel=0.03)


def test_a_small_set_has_truth_shares_shifts_and_noise(tmp_path, shared_data):
    """Four of the states, 32 px; noise of each pixel: 10 times the signal, times 32 / 256."""
    motion = replace(settings_in("cryobench-igg-1d").molecule.motions[0], states=4)
    results = []
    particles = cg.simulate(
        "cryobench-igg-1d",
        tmp_path,
        scale=0.25,
        datadir=[shared_data],
        images=200,
        molecule={"motions": [motion]},
        padding=2.0,
        finished=results.append,
    )
    (measured,) = results
    assert measured.snr_dB == pytest.approx(-20.0, abs=0.05)
    assert measured.noise_rms == pytest.approx(10.0 * measured.clean_rms * 32 / 256, rel=0.01)
    assert (particles.box_size, particles.pixel_size_A) == (32, 12.0)
    (table,) = (t for t in read_star(tmp_path / "truth" / "poses.star") if "rlnImageName" in t)
    classes = torch.from_numpy(table.numbers("rlnClassNumber")).long()
    assert classes.bincount().tolist() == [0, 50, 50, 50, 50]
    assert not bool((classes[:50] == classes[0]).all())  # in random order
    torch.testing.assert_close(
        torch.from_numpy(table.numbers("cryoganLatent1")), (classes - 1).double() / 4
    )
    pose = read_poses(tmp_path / "truth" / "poses.star")
    assert 28.0 < float(pose.shift_A.abs().max()) <= 30.0
    spread = angle_between(pose.rotation[:100], pose.rotation[100:])
    assert float(spread.mean()) == pytest.approx(126.5, abs=8.0)  # of random rotations
    with (tmp_path / "truth" / "states.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["what"] for row in rows] == ["0°", "90°", "180°", "270°"]
    assert [float(row["latent_1_circular"]) for row in rows] == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("recipe", RECIPES)
def test_files_of_the_recipes_are_found(recipe, shared_data):
    description = read_description(recipe)
    settings, inputs = locate(settings_of(description), description, [shared_data])
    settings.check()
    settings.molecule.check()
    assert set(inputs) <= set(description.needs)
