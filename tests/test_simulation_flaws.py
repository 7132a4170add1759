"""What makes a simulated set realistic: contrast, noise, junk, errors of picking and defocus."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from cryogan import fourier
from cryogan.io.mrc import MrcStack, read_map
from cryogan.io.relion_metadata import read_metadata
from cryogan.io.relion_poses import read_poses
from cryogan.io.star import read_star
from cryogan.particles import Pose
from cryogan.phantom import phantom_map
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import form_images
from cryogan.physics.projection import volume_spectrum
from cryogan.simulation.dataset import Measured, draw_truth, prepare, write_dataset
from cryogan.simulation.flaw_settings import JUNK_KINDS, ContrastSettings, JunkSettings
from cryogan.simulation.junk import (
    BROKEN,
    EDGE_STRENGTH,
    HALVES,
    TWO,
    diameter_A,
    draw_junk,
    half_map,
    spoil,
)
from cryogan.simulation.levels import log_normal, noise_levels
from cryogan.simulation.microscope import perfect_ctf, random_ctf
from cryogan.simulation.settings import (
    MicroscopeSettings,
    NoiseSettings,
    ShiftSettings,
    SimulationSettings,
)

N = 160
PLAIN = SimulationSettings(
    box_size=32,
    pixel_size_A=6.0,
    images=N,
    padding=2.0,
    seed=3,
    noise=NoiseSettings("none"),
    shifts=ShiftSettings("gaussian", sigma_A=5.0),
)


def make(folder: Path, settings: SimulationSettings) -> Measured:
    return write_dataset(prepare(settings), folder)


def images_of(folder: Path) -> torch.Tensor:
    stack = MrcStack.open(folder / "particles.mrcs")
    return stack.read(torch.arange(len(stack)))


def columns_of(path: Path) -> dict[str, list[str]]:
    (table,) = (t for t in read_star(path) if "rlnImageName" in t.columns)
    return table.columns


def numbers_of(folder: Path, label: str) -> torch.Tensor:
    return torch.tensor([float(v) for v in columns_of(folder / "truth/poses.star")[label]])


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> torch.Tensor:
    """The noise-free images of the set without flaws."""
    folder = tmp_path_factory.mktemp("plain")
    make(folder, PLAIN)
    assert list(columns_of(folder / "particles.star")) == [
        *("rlnImageName", "rlnOpticsGroup", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"),
        "rlnPhaseShift",
    ]
    assert not any("cryogan" in label for label in columns_of(folder / "truth/poses.star"))
    return images_of(folder)


# Contrast and noise level


def test_log_normal_has_the_moments_asked_for(generator):
    drawn = log_normal(0.3, 100_000, generator).double()
    assert float(drawn.mean()) == pytest.approx(1.0, abs=0.005)
    assert float(drawn.std()) == pytest.approx(0.3, rel=0.02)
    assert scipy.stats.kstest(drawn.log().numpy()[:5000], "norm", args=_of_log(0.3)).pvalue > 0.001


def _of_log(spread: float) -> tuple[float, float]:
    variance = math.log(1.0 + spread**2)
    return -variance / 2.0, math.sqrt(variance)


def test_contrast_multiplies_the_signal_as_the_truth_says(tmp_path, plain):
    measured = make(tmp_path, replace(PLAIN, contrast=ContrastSettings(0.25)))
    contrast = numbers_of(tmp_path, "cryoganContrast")
    torch.testing.assert_close(
        images_of(tmp_path), contrast[:, None, None] * plain, atol=1e-4, rtol=0
    )
    assert float(contrast.std() / contrast.mean()) == pytest.approx(0.25, rel=0.25)
    assert measured.clean_rms == pytest.approx(float(plain.square().mean().sqrt()), rel=1e-5)


def test_noise_differs_from_micrograph_to_micrograph_as_the_truth_says(tmp_path):
    even = replace(PLAIN, noise=NoiseSettings(snr_dB=-10.0), particles_per_micrograph=8)
    uneven = replace(even, noise=NoiseSettings(snr_dB=-10.0, spread=0.3))
    clean = replace(even, noise=NoiseSettings("none"))
    measured = {}
    for name, settings in (("even", even), ("uneven", uneven), ("clean", clean)):
        measured[name] = make(tmp_path / name, settings)
    noise, other = (
        images_of(tmp_path / s) - images_of(tmp_path / "clean") for s in ("even", "uneven")
    )
    level = numbers_of(tmp_path / "uneven", "cryoganNoiseLevel")
    rms = other.square().mean(dim=(1, 2)).sqrt() / noise.square().mean(dim=(1, 2)).sqrt()
    torch.testing.assert_close(rms, level, atol=1e-4, rtol=1e-3)
    assert torch.equal(level.view(-1, 8), level[::8, None].expand(-1, 8))
    assert len(level.unique()) == N // 8
    assert measured["uneven"].snr_dB == pytest.approx(-10.0, abs=0.05)
    for star in ("particles.star", "truth/poses.star"):
        names = list(columns_of(tmp_path / "uneven" / star)["rlnMicrographName"])
        assert names == [f"micrograph_{1 + i // 8:06d}.mrc" for i in range(N)]


def test_noise_levels_have_the_spread_asked_for_and_the_power_of_the_set(generator):
    micrograph = torch.arange(50_000) // 5
    level = noise_levels(0.3, micrograph, generator)[::5].double()
    assert float(level.std() / level.mean()) == pytest.approx(0.3, rel=0.03)
    assert float(level.square().mean()) == pytest.approx(1.0, abs=1e-4)


def test_particles_of_a_micrograph_share_its_ctf_up_to_the_spread():
    shared = replace(PLAIN, particles_per_micrograph=20)
    defocus = draw_truth(prepare(shared)).ctf.defocus_u_A.view(-1, 20)
    assert torch.equal(defocus, defocus[:, :1].expand(-1, 20))
    assert len(defocus.unique()) == N // 20
    spread = replace(shared, ctf=MicroscopeSettings(defocus_spread_A=100.0))
    difference = draw_truth(prepare(spread)).ctf.defocus_u_A.view(-1, 20) - defocus
    assert float(difference.std()) == pytest.approx(100.0, rel=0.25)


# Junk


def test_junk_comes_in_the_shares_and_kinds_asked_for():
    weights = {"empty": 2.0, "two": 1.0, "edge": 0.0, "broken": 1.0, "aggregate": 4.0}
    n = 20_000
    counts = torch.bincount(draw_junk(JunkSettings(0.2, **weights), n, seed=1).kind, minlength=6)
    expected = np.array([0.8, *(0.2 * weights[kind] / 8.0 for kind in JUNK_KINDS)]) * n
    assert counts[3] == expected[3] == 0
    some = expected > 0
    assert scipy.stats.chisquare(counts.numpy()[some], expected[some]).pvalue > 0.001


@pytest.fixture(scope="module")
def with_junk(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("junk")
    make(folder, replace(PLAIN, junk=JunkSettings(0.6)))
    return folder


def chosen(folder: Path, kind: str) -> list[int]:
    words = columns_of(folder / "truth/poses.star")["cryoganJunk"]
    found = [number for number, word in enumerate(words) if word == kind]
    assert len(found) >= 8
    return found


def test_images_that_are_no_junk_stay_what_they_are(with_junk, plain):
    images, rest = images_of(with_junk), chosen(with_junk, "none")
    assert torch.equal(images[rest], plain[rest])
    for kind in JUNK_KINDS:
        difference = (images - plain)[chosen(with_junk, kind)]
        assert bool((difference.abs().amax(dim=(1, 2)) > 0.05).all()), kind


def test_empty_images_hold_noise_alone(tmp_path, with_junk, plain):
    empty = chosen(with_junk, "empty")
    assert not images_of(with_junk)[empty].any()
    noise = NoiseSettings(snr_dB=-10.0)
    make(tmp_path, replace(PLAIN, junk=JunkSettings(0.6), noise=noise))
    noisy = images_of(tmp_path)
    assert abs(correlation(noisy[empty], plain[empty])) < 0.02
    whole = chosen(with_junk, "none")
    assert correlation(noisy[whole], plain[whole]) == pytest.approx(math.sqrt(1 / 11), abs=0.05)


def correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])


def test_broken_molecules_are_projections_of_halves(with_junk):
    prepared = prepare(replace(PLAIN, junk=JunkSettings(0.6)))
    truth = draw_truth(prepared)
    volume = read_map(with_junk / "truth/map.mrc").volume
    broken = (truth.junk.kind == BROKEN).nonzero()[:, 0]
    assert broken.tolist() == chosen(with_junk, "broken")
    for index in broken:
        half = half_map(volume, truth.junk.normal[truth.junk.half[index]])
        expected = form_images(
            volume_spectrum(half, 2.0),
            truth.pose[index[None]],
            ctf(truth.ctf[index[None]], 32, 6.0),
            box_size=32,
            pixel_size_A=6.0,
        )
        torch.testing.assert_close(images_of(with_junk)[index][None], expected, atol=1e-3, rtol=0)


def test_the_halves_of_a_map_add_up_to_it(generator):
    volume = phantom_map(32, 6.0)
    axis = torch.arange(32.0) - 16.0
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).flip(0)  # x, y, z
    for normal in draw_junk(JunkSettings(), 1, seed=0).normal:
        half = half_map(volume, normal)
        torch.testing.assert_close(half + half_map(volume, -normal), volume)
        assert 0.3 < float(half.sum() / volume.sum()) < 0.7
        height = torch.einsum("c,czyx->zyx", normal, grid)
        assert float(half[height < -3.0].abs().max()) < 0.01 * float(volume.max())
        torch.testing.assert_close(half[height > 3.0], volume[height > 3.0], atol=0.01, rtol=0.01)


def test_diameter_of_a_ball():
    ball = (fourier.radius_grid(48, 3) <= 12).float()
    assert diameter_A(ball, 3.0) == pytest.approx(72.0, rel=0.03)
    assert diameter_A(torch.roll(ball, (3, -4), (0, 2)), 3.0) == pytest.approx(72.0, rel=0.03)


def test_second_molecules_lie_about_a_diameter_away(tmp_path):
    """In a wide box, without CTF: masses and centres of mass can be added and subtracted."""
    wide = replace(
        PLAIN,
        box_size=48,
        pixel_size_A=10.0,
        images=60,
        ctf=MicroscopeSettings("none"),
    )
    make(tmp_path / "plain", wide)
    images = images_of(tmp_path / "plain")
    mass = images.sum(dim=(1, 2))
    size_A = diameter_A(read_map(tmp_path / "plain/truth/map.mrc").volume, 10.0)
    for kind in ("two", "aggregate"):
        weights = dict.fromkeys(JUNK_KINDS, 0.0) | {kind: 1.0}
        make(tmp_path / kind, replace(wide, junk=JunkSettings(1.0, **weights)))
        added = images_of(tmp_path / kind) - images
        others = added.sum(dim=(1, 2)) / mass
        torch.testing.assert_close(others, others.round(), atol=0.02, rtol=0)
        if kind == "aggregate":
            assert set(others.round().int().tolist()) == {2, 3, 4}
            continue
        assert set(others.round().int().tolist()) == {1}
        distance_A = 10.0 * (centre(added) - centre(images)).norm(dim=1)
        assert bool(((distance_A > 0.78 * size_A) & (distance_A < 1.22 * size_A)).all())
        assert correlation(added, images) < 0.2


def centre(images: torch.Tensor) -> torch.Tensor:
    """(n, 2) centres of mass x, y in pixels."""
    axis = torch.arange(images.shape[-1], dtype=torch.float32)
    mass = images.sum(dim=(1, 2))
    x, y = images.sum(dim=1) @ axis, images.sum(dim=2) @ axis
    return torch.stack([x, y], dim=1) / mass[:, None]


def test_a_molecule_that_leaves_the_image_does_not_enter_on_the_other_side():
    volume = phantom_map(32, 8.0)
    spectrum = volume_spectrum(volume, 2.0)
    pose = Pose(torch.eye(3)[None], torch.zeros(1, 2))
    drawn = draw_junk(JunkSettings(1.0, empty=0, edge=0, broken=0, aggregate=0), 1, seed=0)
    assert drawn.kind.tolist() == [TWO]
    leaving = replace(drawn, other_offset=torch.tensor([[1.0, 0.0]]))
    added = spoil(
        torch.zeros(1, 32, 32),
        torch.tensor([0]),
        leaving,
        spectrum,
        pose,
        perfect_ctf(1),
        diameter_A=14 * 8.0,
        pixel_size_A=8.0,
    )[0]
    assert float(added[:, 24:].sum()) > 0.3 * float(volume.sum())
    assert float(added[:, :14].abs().max()) < 0.01 * float(added.max())


def test_edges_are_steps_of_the_strength_stated_and_show_no_molecule(tmp_path):
    weights = dict.fromkeys(JUNK_KINDS, 0.0) | {"edge": 1.0}
    bare = replace(PLAIN, ctf=MicroscopeSettings("none"), images=30)
    make(tmp_path / "plain", bare)
    make(tmp_path / "edge", replace(bare, junk=JunkSettings(1.0, **weights)))
    plain, edges = (images_of(tmp_path / name) for name in ("plain", "edge"))
    rms = [images.square().mean(dim=(1, 2)).sqrt() for images in (edges, plain)]
    torch.testing.assert_close(rms[0], EDGE_STRENGTH * rms[1], atol=0, rtol=1e-4)
    for image in edges:
        low, high = image.min(), image.max()
        level = (image - low) / (high - low)
        on_a_side = (level < 0.1) | (level > 0.9)
        assert float(on_a_side.float().mean()) > 0.85
        bright, dark = (centre(part[None].float())[0] for part in (level > 0.5, level < 0.5))
        assert 12.0 < float((bright - dark).norm()) < 20.0  # two parts side by side
    assert abs(correlation(edges, plain)) < 0.3


def test_the_microscope_forms_the_edges_too(generator):
    """Low frequencies are weak in images of phase objects: the fringe is above the step."""
    weights = dict.fromkeys(JUNK_KINDS, 0.0) | {"edge": 1.0}
    junk = replace(draw_junk(JunkSettings(1.0, **weights), 1, seed=0), edge=torch.zeros(1, 2))
    image = spoil(
        torch.ones(1, 64, 64),
        torch.tensor([0]),
        junk,
        volume_spectrum(torch.zeros(64, 64, 64), 1.0),
        Pose(torch.eye(3)[None], torch.zeros(1, 2)),
        random_ctf(1, generator),
        diameter_A=50.0,
        pixel_size_A=3.0,
    )[0]
    line = image.mean(dim=0)  # the edge is vertical: angle 0
    torch.testing.assert_close(image, line.expand(64, 64), atol=0.1, rtol=0)
    step = float((line[50:60].mean() - line[4:14].mean()).abs())
    assert float(line.max() - line.min()) > 2.0 * step
    assert 24 <= int(line.argmax()) <= 40


def test_the_set_of_one_seed_is_one_set_whatever_the_threads(tmp_path):
    full = replace(
        PLAIN,
        junk=JunkSettings(0.5),
        contrast=ContrastSettings(0.25),
        noise=NoiseSettings(snr_dB=-10.0, spread=0.3),
        particles_per_micrograph=10,
    )
    for workers in (1, 2):
        write_dataset(prepare(full), tmp_path / str(workers), workers=workers)
    for name in ("particles.mrcs", "particles.star", "truth/poses.star"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    told = "\n".join(columns_of(tmp_path / "1/particles.star"))
    assert "cryogan" not in told
    assert "rlnMicrographName" in told


def test_all_halves_occur():
    assert set(draw_junk(JunkSettings(), 1000, seed=0).half.tolist()) == set(range(HALVES))


# Picking and defocus


def test_a_share_of_the_particles_is_picked_badly(tmp_path):
    n = 4000
    settings = replace(PLAIN, images=n)
    bad = replace(settings.shifts, picking_share=0.3, picking_error_A=20.0)
    good, shifted = (draw_truth(prepare(s)).pose for s in (settings, replace(settings, shifts=bad)))
    assert torch.equal(good.rotation, shifted.rotation)
    error_A = shifted.shift_A - good.shift_A
    wrong = error_A.norm(dim=1) > 0
    assert float(wrong.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert float(error_A[wrong].std()) == pytest.approx(20.0, rel=0.05)
    few = replace(settings, shifts=bad, images=40)
    make(tmp_path, few)
    written = read_poses(tmp_path / "truth/poses.star").shift_A
    torch.testing.assert_close(written, draw_truth(prepare(few)).pose.shift_A, atol=1e-4, rtol=0)


def test_a_share_of_the_defoci_is_wrong_in_the_particle_file_alone(tmp_path, plain):
    wrong = MicroscopeSettings(wrong_share=0.25, wrong_by_A=2000.0)
    make(tmp_path, replace(PLAIN, ctf=wrong))
    assert torch.equal(images_of(tmp_path), plain)
    told, true = (read_metadata(tmp_path / s).ctf for s in ("particles.star", "truth/poses.star"))
    error_A = numbers_of(tmp_path, "cryoganDefocusError")
    for axis in ("defocus_u_A", "defocus_v_A"):
        difference = getattr(told, axis) - getattr(true, axis)
        torch.testing.assert_close(difference, error_A, atol=0.01, rtol=0)
    assert set(error_A.tolist()) == {-2000.0, 0.0, 2000.0}
    assert float((error_A != 0).float().mean()) == pytest.approx(0.25, abs=0.1)
    assert torch.equal(true.defocus_u_A, draw_truth(prepare(PLAIN)).ctf.defocus_u_A)
