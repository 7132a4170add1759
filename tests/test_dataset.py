"""Simulated sets on disk: the images are what the truth says, the bits what the settings say."""

import csv
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.evaluation.fsc import fourier_shell_correlation
from cryogan.io.mrc import MrcStack, read_map, write_map, write_stack
from cryogan.io.relion_metadata import read_metadata
from cryogan.io.relion_poses import read_poses
from cryogan.io.star import read_star
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import form_images
from cryogan.physics.projection import volume_spectrum
from cryogan.simulation import dataset
from cryogan.simulation.dataset import Measured, draw_truth, prepare, write_dataset
from cryogan.simulation.settings import (
    MicroscopeSettings,
    MoleculeSettings,
    NoiseSettings,
    ShiftSettings,
    SimulationSettings,
)

pytestmark = pytest.mark.slow

BOX, PIXEL_A, N = 32, 5.0, 200
CLEAN = NoiseSettings("none")
THREE_STATES = MoleculeSettings(hinge_deg=(0.0, 30.0), hinge_states=3, populations=(0.5, 0.3, 0.2))


@pytest.fixture(autouse=True)
def _several_batches(monkeypatch):
    """Sets of 200 images are made in 13 batches of clean ones and 13 of noise."""
    monkeypatch.setattr(dataset, "BATCH_PIXELS", 16 * 64**2)
    monkeypatch.setattr(dataset, "CHUNK_PIXELS", 16 * BOX**2)


def settings(**changes) -> SimulationSettings:
    small = SimulationSettings(box_size=BOX, pixel_size_A=PIXEL_A, images=N, padding=2.0, seed=5)
    return replace(small, **changes)


def make(folder: Path, **changes) -> Measured:
    return write_dataset(prepare(settings(**changes)), folder)


def images_of(folder: Path) -> torch.Tensor:
    stack = MrcStack.open(folder / "particles.mrcs")
    return stack.read(torch.arange(len(stack)))


def bytes_of(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def states_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "truth/states.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def truth_columns(folder: Path) -> dict[str, list[str]]:
    (table,) = (t for t in read_star(folder / "truth/poses.star") if "rlnImageName" in t.columns)
    return table.columns


def rms(values: torch.Tensor) -> float:
    return float(values.double().square().mean().sqrt())


def patches_in(path: Path, count: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """A stack of smoothed noise, as wide as the images."""
    patches = torch.randn(count, size, size, generator=generator)
    patches = patches + patches.roll(1, -1) + 100.0
    write_stack(path, patches, BOX * PIXEL_A / size)
    return patches


# What the images are


def test_clean_images_are_those_that_the_files_describe(tmp_path):
    """Formed again from truth maps, truth poses, classes and the CTFs of particles.star."""
    microscope = MicroscopeSettings(phase_shift_deg=(0.0, 60.0), b_factor_A2=40.0)
    shifts = ShiftSettings("triangular", percent=10.0)
    make(tmp_path, molecule=THREE_STATES, ctf=microscope, shifts=shifts, noise=CLEAN)
    pose = read_poses(tmp_path / "truth/poses.star")
    params = read_metadata(tmp_path / "particles.star").ctf
    state = torch.tensor([int(c) - 1 for c in truth_columns(tmp_path)["rlnClassNumber"]])
    expected = torch.empty(N, BOX, BOX)
    for number in range(3):
        truth = read_map(tmp_path / f"truth/map_{number:03d}.mrc")
        assert truth.pixel_size_A == pytest.approx(PIXEL_A)
        chosen = state == number
        expected[chosen] = form_images(
            volume_spectrum(truth.volume, 2.0),
            pose[chosen],
            ctf(params[chosen], BOX, PIXEL_A),
            box_size=BOX,
            pixel_size_A=PIXEL_A,
        )
    found = images_of(tmp_path)
    assert pose.shift_A.abs().max() > 0.05 * BOX * PIXEL_A
    assert len(set(state.tolist())) == 3
    assert float((found - expected).norm() / expected.norm()) < 1e-4
    assert float((found - expected.roll(1, 0)).norm() / expected.norm()) > 0.1


def test_particles_star_tells_nothing_of_the_truth(tmp_path):
    make(tmp_path, molecule=THREE_STATES)
    labels = [label for table in read_star(tmp_path / "particles.star") for label in table.columns]
    assert set(labels) == {
        *("rlnOpticsGroup", "rlnOpticsGroupName", "rlnVoltage", "rlnSphericalAberration"),
        *("rlnAmplitudeContrast", "rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality"),
        *("rlnImageName", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift"),
    }
    extra = set(truth_columns(tmp_path)) - set(labels)
    assert extra == {
        *("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"),
        *("rlnClassNumber", "cryoganLatent1"),
    }


def test_conformations_without_an_image_are_in_the_truth_all_the_same(tmp_path):
    make(tmp_path, molecule=replace(THREE_STATES, populations=(0.0, 1.0, 0.0)), images=5)
    assert [row["images"] for row in states_of(tmp_path)] == ["0", "5", "0"]
    assert len(list((tmp_path / "truth").glob("map_*.mrc"))) == 3
    assert images_of(tmp_path).shape == (5, BOX, BOX)


def test_states_follow_their_populations():
    """χ² on 20,000 draws; other populations fail the same test."""
    prepared = prepare(settings(molecule=THREE_STATES, images=20_000))
    counts = torch.bincount(draw_truth(prepared).state, minlength=3).numpy()

    def p_value(populations):
        return scipy.stats.chisquare(counts, 20_000 * np.array(populations)).pvalue

    assert p_value((0.5, 0.3, 0.2)) > 1e-3
    assert p_value((0.48, 0.32, 0.2)) < 1e-3


def test_classes_and_latents_agree_with_the_list_of_states(tmp_path):
    make(tmp_path, molecule=THREE_STATES)
    rows, columns = states_of(tmp_path), truth_columns(tmp_path)
    assert [row["class"] for row in rows] == ["1", "2", "3"]
    assert [row["map"] for row in rows] == ["map_000.mrc", "map_001.mrc", "map_002.mrc"]
    assert [row["what"] for row in rows] == [f"phantom, hinge at {a}°" for a in (0, 15, 30)]
    assert [float(row["share"]) for row in rows] == pytest.approx([0.5, 0.3, 0.2])
    assert [float(row["latent_1"]) for row in rows] == pytest.approx([0.0, 0.5, 1.0])
    for row in rows:
        assert columns["rlnClassNumber"].count(row["class"]) == int(row["images"]) > 0
    latent = {row["class"]: row["latent_1"] for row in rows}
    assert list(columns["cryoganLatent1"]) == [latent[c] for c in columns["rlnClassNumber"]]


def test_names_with_commas_and_quotes_survive_in_the_list_of_states(tmp_path):
    names = ['a,"b".mrc', "c.mrc"]
    for name in names:
        write_map(tmp_path / name, torch.randn(8, 8, 8), PIXEL_A)
    sources = tuple(str(tmp_path / name) for name in names)
    make(tmp_path / "set", molecule=MoleculeSettings(sources), images=4)
    assert [row["what"] for row in states_of(tmp_path / "set")] == names


# Noise


def snr_at_own_box(tmp_path, noise: NoiseSettings) -> tuple[float, Measured]:
    """20 log10(|clean| / |noise|) from a set and the same one without noise."""
    make(tmp_path / "clean", noise=CLEAN)
    measured = make(tmp_path / "noisy", noise=noise)
    for name in ("particles.star", "truth/poses.star", "truth/states.csv", "truth/map.mrc"):
        assert (tmp_path / "clean" / name).read_bytes() == (tmp_path / "noisy" / name).read_bytes()
    clean, noisy = images_of(tmp_path / "clean"), images_of(tmp_path / "noisy")
    added = noisy - clean
    assert measured.clean_rms == pytest.approx(rms(clean), rel=1e-5)
    assert measured.noise_rms == pytest.approx(rms(added), rel=1e-5)
    return 20.0 * math.log10(rms(clean) / rms(added)), measured


@pytest.mark.parametrize("box", [None, 48])
@pytest.mark.parametrize("snr_dB", [-20.0, 3.0])
def test_white_noise_has_the_ratio_asked_for(tmp_path, snr_dB, box):
    found, measured = snr_at_own_box(tmp_path, NoiseSettings("white", snr_dB, box))
    gained = 0.0 if box is None else 20.0 * math.log10(box / BOX)
    assert found - gained == pytest.approx(snr_dB, abs=0.05)
    assert measured.snr_dB == pytest.approx(found - gained, abs=1e-3)


@pytest.mark.parametrize("box", [None, 48])
def test_coloured_noise_has_the_ratio_asked_for(tmp_path, box):
    """The part of the noise that a crop leaves is summed here, coefficient by coefficient."""
    table = tmp_path / "power.csv"
    table.write_text("spatial_frequency_per_A,power\n0,9\n0.05,3\n0.1,1\n0.2,1\n")

    def power_in(size):
        k = np.fft.fftfreq(size, BOX * PIXEL_A / size)
        return np.interp(np.hypot(k, k[:, None]), [0, 0.05, 0.1, 0.2], [9, 3, 1, 1])

    noise = NoiseSettings("coloured", -12.0, box, str(table))
    found, measured = snr_at_own_box(tmp_path, noise)
    size = box or BOX
    ratio = power_in(size).mean() / (power_in(BOX).mean() * (BOX / size) ** 2)
    gained = 10.0 * math.log10(ratio)
    assert found - gained == pytest.approx(-12.0, abs=0.05)
    assert measured.snr_dB == pytest.approx(found - gained, abs=1e-3)


@pytest.mark.parametrize("box", [None, 48])
def test_background_has_the_ratio_asked_for(tmp_path, generator, box):
    patches = patches_in(tmp_path / "patches.mrcs", 40, 48, generator)[::2]
    noise = NoiseSettings("background", -8.0, box, str(tmp_path / "patches.mrcs"))
    found, measured = snr_at_own_box(tmp_path, noise)
    patches = patches - patches.mean(dim=(1, 2), keepdim=True)
    cropped = fourier.resample(patches, BOX)
    gained = 0.0 if box is None else 20.0 * math.log10(rms(patches) / rms(cropped))
    assert found - gained == pytest.approx(-8.0, abs=0.05)
    assert measured.snr_dB == pytest.approx(found - gained, abs=1e-3)


def test_patches_kept_for_reconstruction_are_in_no_image(tmp_path, generator):
    """Every noise image is a turned or mirrored even patch, every patch kept an odd one."""
    path = tmp_path / "patches.mrcs"
    patches = fourier.resample(patches_in(path, 12, 48, generator), BOX)
    patches = patches - patches.mean(dim=(1, 2), keepdim=True)
    make(tmp_path / "clean", noise=CLEAN)
    make(tmp_path / "noisy", noise=NoiseSettings("background", -15.0, file=str(path)))
    added = images_of(tmp_path / "noisy") - images_of(tmp_path / "clean")
    stack = MrcStack.open(tmp_path / "noisy/background.mrcs")
    assert stack.files[0].known_pixel_size_A == pytest.approx(PIXEL_A)
    kept = stack.read(torch.arange(len(stack)))

    def correlation(images, chosen):
        """(n, m): the best over the eight symmetries of the square."""
        turned = [torch.rot90(chosen, quarter, dims=(1, 2)) for quarter in range(4)]
        views = torch.stack([*turned, *(view.flip(-1) for view in turned)]).flatten(2)
        views, flat = (torch.nn.functional.normalize(v, dim=-1) for v in (views, images.flatten(1)))
        return torch.einsum("np,cmp->ncm", flat, views).amax(dim=1)

    even, odd = patches[::2], patches[1::2]
    assert correlation(added, even).amax(dim=1).min() > 0.999
    assert correlation(added, odd).max() < 0.3
    assert correlation(added, even).argmax(dim=1).unique().tolist() == list(range(6))
    assert correlation(kept, even).max() < 0.3
    assert correlation(kept, odd).diagonal().min() > 0.999
    factor = rms(added) / rms(even[correlation(added, even).argmax(dim=1)])
    torch.testing.assert_close(kept, factor * odd, rtol=1e-3, atol=1e-3 * rms(kept))


def test_images_without_a_signal_are_refused(tmp_path):
    """A microscope that transfers nothing."""
    blind = MicroscopeSettings("range", (0.0, 0.0), 0.0, None, 0.0, 300.0, 0.0, 0.0)
    with pytest.raises(InputError, match="mean square of the noise-free images is 0, so"):
        make(tmp_path, ctf=blind)
    assert not any(tmp_path.glob("*particles*"))


# Which bits


def test_same_seed_same_bytes_whatever_the_threads(tmp_path, generator):
    patches_in(tmp_path / "patches.mrcs", 60, 48, generator)
    chosen = {
        "molecule": THREE_STATES,
        "noise": NoiseSettings("background", -10.0, None, str(tmp_path / "patches.mrcs")),
        "shifts": ShiftSettings("gaussian", sigma_A=4.0),
    }
    prepared = prepare(settings(**chosen))
    write_dataset(prepared, tmp_path / "one", workers=1)
    write_dataset(prepared, tmp_path / "two", workers=2)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 3)
    try:
        make(tmp_path / "three", **chosen)
        assert torch.get_num_threads() == threads + 3
    finally:
        torch.set_num_threads(threads)
    first = bytes_of(tmp_path / "one")
    assert len(first) == 8
    assert bytes_of(tmp_path / "two") == first
    assert bytes_of(tmp_path / "three") == first


def test_another_seed_makes_another_set(tmp_path):
    first = draw_truth(prepare(settings(molecule=THREE_STATES)))
    other = draw_truth(prepare(settings(molecule=THREE_STATES, seed=6)))
    assert not torch.equal(first.state, other.state)
    assert float((first.pose.rotation - other.pose.rotation).abs().amax(dim=(1, 2)).min()) > 0
    assert not torch.isin(first.ctf.defocus_u_A, other.ctf.defocus_u_A).any()
    make(tmp_path / "a", noise=NoiseSettings("white", -40.0))
    make(tmp_path / "b", noise=NoiseSettings("white", -40.0), seed=6)
    pairs = torch.stack([images_of(tmp_path / name).flatten() for name in "ab"])
    assert abs(float(torch.corrcoef(pairs)[0, 1])) < 0.02


def test_noise_of_different_images_is_independent(tmp_path):
    """Also across the chunks that have generators of their own."""
    make(tmp_path, noise=NoiseSettings("white", -40.0))
    images = torch.nn.functional.normalize(images_of(tmp_path).flatten(1), dim=1)
    others = images @ images.T - torch.eye(N)
    assert float(others.abs().max()) < 6.0 / BOX


# Interruption


def stop_at(stage: str, fraction: float):
    def show(what, done):
        if what == stage and done > fraction:
            raise KeyboardInterrupt

    return show


@pytest.mark.parametrize(("stage", "fraction"), [("images", 0.3), ("noise", 0.85)])
@pytest.mark.parametrize("workers", [1, 2])
def test_interrupted_set_does_not_look_whole(tmp_path, stage, fraction, workers):
    prepared = prepare(settings())
    with pytest.raises(KeyboardInterrupt):
        write_dataset(prepared, tmp_path / "a", workers=workers, show=stop_at(stage, fraction))
    assert set(bytes_of(tmp_path / "a")) == {"truth/map.mrc"}
    write_dataset(prepared, tmp_path / "a")
    write_dataset(prepared, tmp_path / "b")
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


KILLED = """
import os, signal, sys
from pathlib import Path
from cryogan.simulation import dataset
from cryogan.simulation.settings import SimulationSettings

dataset.BATCH_PIXELS, dataset.CHUNK_PIXELS = 16 * 64**2, 16 * 32**2
settings = SimulationSettings(box_size=32, pixel_size_A=5.0, images=200, padding=2.0, seed=5)

def show(what, fraction):
    if what == "noise" and fraction > 0.85:
        os.kill(os.getpid(), signal.SIGKILL)

dataset.write_dataset(dataset.prepare(settings), Path(sys.argv[1]), show=show)
"""


def test_killed_set_does_not_look_whole_and_is_made_again(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a")], check=False)
    assert done.returncode == -signal.SIGKILL
    left = bytes_of(tmp_path / "a")
    (unfinished,) = set(left) - {"truth/map.mrc"}
    assert unfinished.startswith(".cryogan-")
    with pytest.raises(InputError, match="not an MRC file"):
        MrcStack.open(tmp_path / "a" / unfinished)
    make(tmp_path / "a")
    make(tmp_path / "b")
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


# Resources


def test_disk_too_full_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    prepared = prepare(settings())
    asked = []

    def usage(path):
        asked.append(Path(path))
        return SimpleNamespace(free=10**6)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(InputError, match=r"needs 0\.0 GB in .* but 0\.0 GB are free; choose"):
        write_dataset(prepared, tmp_path / "new/set")
    assert asked == [tmp_path]
    assert list(tmp_path.iterdir()) == []


def test_disk_that_is_asked_for_is_enough(tmp_path):
    """What a set takes at its end, and half as much again, is less than what was asked for."""
    prepared = prepare(settings(molecule=THREE_STATES))
    write_dataset(prepared, tmp_path)
    files = bytes_of(tmp_path)
    taken = sum(map(len, files.values())) + len(files["particles.mrcs"])
    assert taken < dataset.needed_bytes(prepared) < 1.5 * taken


MEMORY = """
import resource, sys
from pathlib import Path
from cryogan.simulation.dataset import prepare, write_dataset
from cryogan.simulation.settings import MicroscopeSettings, SimulationSettings

settings = SimulationSettings(
    box_size=64, pixel_size_A=2.5, images=int(sys.argv[2]), padding=1.0,
    ctf=MicroscopeSettings("none"),
)
write_dataset(prepare(settings), Path(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_memory_does_not_grow_with_the_images(tmp_path):
    """7,000 more images are 115 MB more on disk, twice; the bound is half of that, once.

    What does grow, by about 4 kB an image, is the text of the star files.
    """

    def peak_MB(n):
        folder = tmp_path / str(n)
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(folder), str(n)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "MALLOC_ARENA_MAX": "1"},
        )
        return int(done.stdout)

    assert peak_MB(8000) - peak_MB(1000) < 57


# RELION


def relion(*arguments, folder):
    if shutil.which(arguments[0]) is None:
        pytest.skip(f"{arguments[0]} is not on the PATH; install RELION 3.1 to run this test")
    words = [str(a) for a in arguments]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_relion_reads_and_rebuilds_a_clean_set(tmp_path):
    """Statistics of the stack, and the map from the truth star, class and latent columns in it."""
    molecule = replace(THREE_STATES, populations=(1.0, 0.0, 0.0))
    make(tmp_path, molecule=molecule, noise=CLEAN, images=2000, padding=4.0)
    found = images_of(tmp_path)
    said = relion("relion_image_handler", "--i", "particles.mrcs", "--stats", folder=tmp_path)
    told = re.findall(r"avg= (\S+) stddev= (\S+) minval= (\S+) maxval= (\S+);", said)
    expected = (
        found.mean((1, 2)),
        found.std((1, 2), False),
        found.amin((1, 2)),
        found.amax((1, 2)),
    )
    torch.testing.assert_close(
        torch.tensor([[float(word) for word in line] for line in told]),
        torch.stack(expected, dim=1),
        rtol=2e-5,
        atol=2e-5,
    )
    assert "cryoganLatent1" in truth_columns(tmp_path)
    relion(
        *("relion_reconstruct", "--i", "truth/poses.star", "--ctf", "--o", "rebuilt.mrc"),
        folder=tmp_path,
    )
    rebuilt = read_map(tmp_path / "rebuilt.mrc")
    truth = read_map(tmp_path / "truth/map_000.mrc")
    assert rebuilt.pixel_size_A == pytest.approx(PIXEL_A, rel=1e-4)
    fsc = fourier_shell_correlation(truth.volume, rebuilt.volume)
    assert fsc[: int(0.8 * BOX / 2) + 1].min() > 0.9, fsc
