"""A molecule's states: one frame for all, maps as asked for, latents and populations."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.io.atoms import model_density, read_model
from cryogan.io.mrc import write_map
from cryogan.phantom import phantom_map
from cryogan.physics.density import gaussian_density, molmap_density
from cryogan.simulation.molecule import MoleculeStates, molecule_states
from cryogan.simulation.motion import path as states_of
from cryogan.simulation.settings import MoleculeSettings, Motion

BOX, PIXEL_A = 32, 5.0


def made(*sources, box_size=BOX, pixel_size_A=PIXEL_A, **settings) -> MoleculeStates:
    molecule = MoleculeSettings(tuple(map(str, sources)), **settings)
    return molecule_states(molecule, box_size=box_size, pixel_size_A=pixel_size_A)


def complaint(*parts: str, sources=("phantom",), **settings) -> None:
    with pytest.raises(InputError) as caught:
        made(*sources, **settings)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    for part in parts:
        assert part in message


def write_model(path: Path, positions_A, *, chain="A", element="C") -> Path:
    """A PDB file of one atom a residue, residues numbered from 1."""
    lines = [
        f"ATOM  {i:5d}  CA  GLY {chain}{i:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 30.00"
        f"          {element:>2}"
        for i, (x, y, z) in enumerate(positions_A, 1)
    ]
    path.write_text("\n".join([*lines, "END", ""]))
    return path


def blobs(box_size: int, pixel_size_A: float, positions_A=None) -> torch.Tensor:
    """Gaussians, band limit at 12 Å or so, exactly sampled in any box."""
    if positions_A is None:
        positions_A = [(10.0, -20.0, 5.0), (-15.0, 8.0, 25.0), (0.0, 12.0, -30.0)]
    return gaussian_density(
        torch.tensor(positions_A), box_size=box_size, pixel_size_A=pixel_size_A, sigma_A=8.0
    )


# Phantom


def test_a_plain_phantom_is_one_conformation_without_a_latent():
    found = made("phantom:D2", box_size=48)
    assert (len(found), found.latent.shape) == (1, (1, 0))
    assert found.population.tolist() == [1.0]
    assert torch.equal(found.volume(0), phantom_map(48, PIXEL_A, symmetry="D2"))


def test_hinge():
    found = made("phantom", hinge_deg=(-10.0, 30.0), hinge_states=5)
    assert found.latent[:, 0].tolist() == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])
    for number, angle in enumerate((-10.0, 0.0, 10.0, 20.0, 30.0)):
        expected = phantom_map(BOX, PIXEL_A, hinge_angle_deg=angle)
        torch.testing.assert_close(found.volume(number), expected, rtol=0, atol=1e-4)
    bent = made("phantom", hinge_deg=(20.0, 20.0))
    assert bent.latent.shape == (1, 0)
    assert torch.equal(bent.volume(0), phantom_map(BOX, PIXEL_A, hinge_angle_deg=20.0))


def test_bad_phantoms():
    complaint("hinge_deg is 0 to 30 but molecule.hinge_states is 1", hinge_deg=(0.0, 30.0))
    complaint("hinge_deg is 0 to 0 but molecule.hinge_states is 4", hinge_states=4)
    complaint("hinge_deg is 0 to nan", "finite", hinge_deg=(0.0, float("nan")), hinge_states=2)
    complaint("hinge_states is 0", hinge_deg=(0.0, 30.0), hinge_states=0)
    complaint("no phantom:C7; give phantom:C1 or phantom:D2", sources=["phantom:C7"])
    complaint("one phantom", "hinge_deg", sources=["phantom", "phantom:D2"])
    complaint("does not fit in a box of 32 pixels of 2", pixel_size_A=2.0)
    complaint("resolution_A does not apply to the phantom", resolution_A=5.0)
    complaint("molecule.motions is for a source of kind atomic model", motions=(Motion("A"),))
    complaint("map_pixel_size_A is for a source of kind map", map_pixel_size_A=3.0)
    complaint("sources is empty", sources=[])


# Maps


def test_maps_at_their_own_sampling_are_taken_as_they_are(tmp_path, generator):
    volumes = torch.randn(2, BOX, BOX, BOX, generator=generator)
    for number, volume in enumerate(volumes):
        write_map(tmp_path / f"{number}.mrc", volume, PIXEL_A)
    found = made(tmp_path / "1.mrc", tmp_path / "0.mrc")
    assert found.names == ["1.mrc", "0.mrc"]
    assert found.latent.shape == (2, 0)
    assert torch.equal(found.volume(0), volumes[1])
    assert torch.equal(found.volume(1), volumes[0])


@pytest.mark.parametrize(("box_size", "pixel_size_A"), [(64, 2.5), (54, 3.0), (49, 4.1), (40, 5.0)])
def test_maps_of_another_sampling_become_the_same_molecule(tmp_path, box_size, pixel_size_A):
    """Finer and larger than the images; grey values are densities and stay."""
    write_map(tmp_path / "m.mrc", blobs(box_size, pixel_size_A), pixel_size_A)
    expected = blobs(BOX, PIXEL_A)
    error = (made(tmp_path / "m.mrc").volume(0) - expected).norm() / expected.norm()
    assert float(error) < 0.01


def test_fine_maps_are_fourier_cropped(tmp_path, generator):
    """To what the coarser grid holds below its Nyquist frequency."""
    fine = torch.randn(64, 64, 64, generator=generator)
    write_map(tmp_path / "m.mrc", fine, PIXEL_A / 2)
    below = fourier.resample(fourier.resample(fine, BOX - 1, 3), BOX, 3)
    torch.testing.assert_close(made(tmp_path / "m.mrc").volume(0), below, rtol=0, atol=2e-4)


def test_low_pass_halves_amplitudes_at_the_resolution(tmp_path, generator):
    volume = torch.randn(BOX, BOX, BOX, generator=generator)
    write_map(tmp_path / "m.mrc", volume, PIXEL_A)
    filtered = made(tmp_path / "m.mrc", resolution_A=20.0).volume(0)
    ratio = fourier.rfft(filtered, 3) / fourier.rfft(volume, 3)
    frequency_per_A = fourier.frequency_grid(BOX, 3).norm(dim=-1) / PIXEL_A
    expected = 0.5 ** ((frequency_per_A * 20.0) ** 2)
    torch.testing.assert_close(ratio.real, expected, rtol=1e-3, atol=1e-4)


def test_a_folder_of_maps_is_a_path_in_the_order_of_names(tmp_path, generator):
    folder = tmp_path / "maps"
    folder.mkdir()
    volumes = torch.randn(3, BOX, BOX, BOX, generator=generator)
    for name, volume in zip(("b.map", "c.ccp4", "a.mrc"), volumes, strict=True):
        write_map(folder / name, volume, PIXEL_A)
    (folder / "readme.txt").write_text("x")
    found = made(folder, path=True, populations=(1.0, 0.0, 3.0))
    assert found.names == ["a.mrc", "b.map", "c.ccp4"]
    assert torch.equal(found.volume(0), volumes[2])
    assert found.latent.tolist() == [[0.0], [0.5], [1.0]]
    assert found.population.tolist() == [0.25, 0.0, 0.75]


def test_a_map_without_a_pixel_size_needs_one(tmp_path):
    path = tmp_path / "m.mrc"
    write_map(path, blobs(64, 2.5), 0.0)
    complaint(f"{path} has no pixel size", "--molecule.map_pixel_size_A", sources=[path])
    found = made(path, map_pixel_size_A=2.5).volume(0)
    torch.testing.assert_close(found, blobs(BOX, PIXEL_A), rtol=0, atol=1e-3 * float(found.max()))
    write_map(path, blobs(64, 2.5), 2.5)
    wider = made(path, map_pixel_size_A=3.0).volume(0)
    write_map(path, blobs(64, 2.5), 3.0)
    assert torch.equal(wider, made(path).volume(0))  # what is given goes before the header


def test_maps_may_lose_empty_space_only(tmp_path):
    """A larger map is cut where it is empty; not where there is molecule."""
    wide = blobs(64, PIXEL_A)
    write_map(tmp_path / "m.mrc", wide, PIXEL_A)
    torch.testing.assert_close(
        made(tmp_path / "m.mrc").volume(0), fourier.crop_or_pad(wide, BOX, 3), rtol=0, atol=1e-6
    )
    far = blobs(64, PIXEL_A, [(0.0, 0.0, 0.0), (120.0, 0.0, 0.0)])
    write_map(tmp_path / "far.mrc", far, PIXEL_A)
    complaint("50% of the power of", "far.mrc", "box of 160 Å", sources=[tmp_path / "far.mrc"])


def test_bad_maps(tmp_path):
    write_map(tmp_path / "m.mrc", blobs(BOX, PIXEL_A), PIXEL_A)
    write_map(tmp_path / "empty.mrc", torch.zeros(BOX, BOX, BOX), PIXEL_A)
    both = [tmp_path / "m.mrc", tmp_path / "empty.mrc"]
    complaint("empty.mrc is empty, so that no signal-to-noise", sources=both)
    complaint("not an MRC file", sources=[tmp_path / "m.mrc", write_text(tmp_path / "t.mrc")])
    (tmp_path / "none").mkdir()
    complaint("none holds no map", sources=[tmp_path / "none"])
    kinds = "different kinds (map, phantom)"
    complaint(kinds, sources=[tmp_path / "m.mrc", "phantom"])
    one = [tmp_path / "m.mrc"]
    complaint("molecule.path needs two sources or more", sources=one, path=True)
    complaint("convention molmap is for", sources=one, convention="molmap", resolution_A=5.0)
    complaint("assembly is for a source of kind atomic model", sources=one, assembly="1")
    complaint("resolution_A is -3", sources=one, resolution_A=-3.0)


def write_text(path: Path) -> Path:
    path.write_text("no map\n" * 500)
    return path


@pytest.mark.parametrize(
    ("populations", "message"),
    [
        ((1.0,), "has 1 numbers for 2 conformations; give one for each"),
        ((1.0, -0.1), "must be numbers from 0"),
        ((1.0, float("nan")), "must be numbers from 0"),
        ((1.0, float("inf")), "must be numbers from 0"),
        ((0.0, 0.0), "are all 0"),
    ],
)
def test_bad_populations(populations, message):
    hinge = {"hinge_deg": (0.0, 30.0), "hinge_states": 2}
    complaint(f"molecule.populations {message}", populations=populations, **hinge)


# Atomic models


def test_one_model_is_centred_on_its_centre_of_mass(tmp_path):
    positions = torch.tensor([[100.0, 20, 3], [110, 25, 0], [95, 22, -8]], dtype=torch.float64)
    path = write_model(tmp_path / "m.pdb", positions.tolist())
    found = made(path, resolution_A=15.0).volume(0)
    model = read_model(path)
    moved = model.moved(positions - positions.mean(dim=0))
    expected = model_density(moved, box_size=BOX, pixel_size_A=PIXEL_A, resolution_A=15.0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.max()))


def test_several_models_keep_their_common_frame(tmp_path):
    """The middle of the smallest sphere around both, not each one's centre, goes to the origin.

    Both hold atoms at (50 ± 30, 0, 0): the sphere's centre is (50, 0, 0). A third atom is at
    (50, 20, 0) in the one and at (50, 0, 20) in the other.
    """
    frame = [(20.0, 0.0, 0.0), (80.0, 0.0, 0.0)]
    first = write_model(tmp_path / "a.pdb", [*frame, (50.0, 20.0, 0.0)])
    second = write_model(tmp_path / "b.pdb", [*frame, (50.0, 0.0, 20.0)])
    found = made(first, second, resolution_A=20.0, path=True)
    assert found.latent.tolist() == [[0.0], [1.0]]
    origin = BOX // 2
    for number, axis in ((0, 1), (1, 0)):
        place = [origin, origin, origin]
        place[axis] += 4
        volume = found.volume(number)
        peaks = [(origin, origin, origin - 6), (origin, origin, origin + 6), tuple(place)]
        values = sorted(float(volume[peak]) for peak in peaks)
        assert values[0] == pytest.approx(values[-1], rel=0.03)
        assert values[-1] == pytest.approx(float(volume.max()), rel=1e-3)
        torch.testing.assert_close(
            volume[:, :, : origin - 3],
            found.volume(0)[:, :, : origin - 3],
            rtol=0,
            atol=0.01 * float(volume.max()),
        )


def test_molmap_is_one_gaussian_an_atom(tmp_path):
    positions = torch.tensor([[0.0, 9, 0], [0, -9, 0]], dtype=torch.float64)
    path = write_model(tmp_path / "m.pdb", positions.tolist(), element="S")
    found = made(path, resolution_A=20.0, convention="molmap").volume(0)
    expected = molmap_density(
        positions,
        torch.tensor([16, 16]),
        box_size=BOX,
        pixel_size_A=PIXEL_A,
        resolution_A=20.0,
    )
    torch.testing.assert_close(found, expected)
    scattering = made(path, resolution_A=20.0).volume(0)
    assert float((found - scattering).norm() / found.norm()) > 0.1
    complaint("molmap needs molecule.resolution_A", sources=[path], convention="molmap")


def test_motions_give_a_grid_of_latents(tmp_path):
    """A state is the model, turned; all are moved by one vector."""
    path = write_model(tmp_path / "m.pdb", [(-20.0, 0, 0), (0, 0, 0), (30, 0, 0)])
    motions = (
        Motion("A/3", "z", "0,0,0", 0.0, 90.0, 3),
        Motion("A/1", "z", "0,0,0", 0.0, 90.0, 2),
    )
    found = made(path, motions=motions, resolution_A=12.0)
    assert found.latent.tolist() == [[a, b] for a in (0.0, 0.5, 1.0) for b in (0.0, 1.0)]
    assert found.names[0] == "0°, 0°"
    assert found.names[-1] == "90°, 90°"
    assert found.population.tolist() == pytest.approx([1 / 6] * 6)
    centres = torch.stack([_centre_A(found.volume(number)) for number in range(6)])
    atom_3 = torch.tensor([-30.0, 30.0, 0.0])  # from (30, 0, 0) to (0, 30, 0)
    atom_1 = torch.tensor([20.0, -20.0, 0.0])  # from (-20, 0, 0) to (0, -20, 0)
    for number, moved in ((1, atom_1), (4, atom_3), (5, atom_1 + atom_3)):
        torch.testing.assert_close(centres[number] - centres[0], moved / 3, rtol=0, atol=0.2)


def _centre_A(volume: torch.Tensor) -> torch.Tensor:
    """(x, y, z) of the density's centroid."""
    axis = PIXEL_A * (torch.arange(BOX) - BOX // 2)
    sums = [volume.sum(dim=dims) for dims in ((0, 1), (0, 2), (1, 2))]
    return torch.stack([(axis * line).sum() / line.sum() for line in sums])


def test_bad_models(tmp_path):
    path = write_model(tmp_path / "m.pdb", [(-20.0, 0, 0), (0, 0, 0), (30, 0, 0)])
    other = write_model(tmp_path / "n.pdb", [(0.0, 0, 0)])
    turn = Motion("A/3", "z", "A/1", 0.0, 90.0, 4)
    complaint("several sources; join the files of one by +", sources=[path, other], motions=(turn,))
    complaint("both have a chain A", sources=[f"{path}+{other}"])
    both = {"sources": [path], "motions": (turn,)}
    complaint("path needs two sources or more, and no motions", path=True, **both)
    complaint("m.pdb (state 1, at 0°) reaches", "room for", **both, pixel_size_A=2.3)
    complaint("reaches 26.7 Å", "has room for 15.0 Å", sources=[path], pixel_size_A=1.0)
    for selection, said in (
        ("B", "names chain B, which"),
        ("A/7", "names residue 7 of chain A, but there is none"),
        ("A/7-9", "names residues 7 to 9 of chain A"),
        ("A/1/CB", "names atom CB, which"),
        ("", "cannot be understood"),
    ):
        complaint(said, sources=[path], motions=(replace(turn, atoms=selection),))
    complaint("axis 'w'", sources=[path], motions=(replace(turn, axis="w"),))
    complaint("does not exist; check", sources=[tmp_path / "none.pdb"])
    complaint("defines no assembly '3'", sources=[path], assembly="3")


def test_hsp90_keeps_its_first_arm_where_it_is(shared_data):
    """Where no atom of arm B ever comes near, the density is the same in every state."""
    arms = [shared_data / f"models/mono{arm}_snip.pdb" for arm in "AB"]
    turn = Motion("B", "y", "A/677/CA", 0.0, 19.0, 3)
    settings = {"resolution_A": 20.0, "motions": (turn,)}
    found = made("+".join(map(str, arms)), **settings)
    assert found.latent[:, 0].tolist() == [0.0, 0.5, 1.0]
    volumes = torch.stack([found.volume(number) for number in range(3)])
    model = read_model(*arms)
    states, _ = states_of(model, [turn])
    shift_A = _centre_A(volumes[0]) - model.centre_of_mass_A
    moving = model.select("B")
    arm_a = states[0][~moving][::5]
    arm_b = torch.cat([states[number][moving][::2] for number in range(3)])
    far = torch.cdist(arm_a, arm_b).amin(dim=1) > 18.0
    assert int(far.sum()) > 300
    x, y, z = ((arm_a[far] + shift_A) / PIXEL_A).round().long().T + BOX // 2
    values = volumes[:, z, y, x]
    largest = float(volumes.max())
    assert float(values[0].mean()) > 0.2 * largest
    assert float((values[1:] - values[0]).abs().max()) < 0.02 * largest
    turned = volumes[:, _occupied(states[0][moving] + shift_A)]
    assert float((turned[2] - turned[0]).norm() / turned[0].norm()) > 0.4
    expected = model_density(
        model.moved(states[2] + (_centre_A(volumes[2]) - _mass_centre(model, states[2]))),
        box_size=BOX,
        pixel_size_A=PIXEL_A,
        resolution_A=20.0,
    )
    assert float((volumes[2] - expected).norm() / expected.norm()) < 0.1
    smooth = made("+".join(map(str, arms)), convention="molmap", **settings).volume(2)
    assert float(torch.corrcoef(torch.stack((smooth, volumes[2])).flatten(1))[0, 1]) > 0.97
    assert not torch.equal(smooth, volumes[2])


def _mass_centre(model, positions_A: torch.Tensor) -> torch.Tensor:
    return model.moved(positions_A).centre_of_mass_A


def _occupied(positions_A: torch.Tensor) -> torch.Tensor:
    """Which voxels hold an atom."""
    x, y, z = (positions_A / PIXEL_A).round().long().T + BOX // 2
    occupied = torch.zeros(BOX, BOX, BOX, dtype=torch.bool)
    occupied[z, y, x] = True
    return occupied
