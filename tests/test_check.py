"""`cryogan check`: every finding where it is to be found, and none where it is not."""

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import cryogan
from cryogan import fourier
from cryogan.api import settings_for
from cryogan.cli import main
from cryogan.files import write_text
from cryogan.inspection.images_needed import images_needed, signal_to_noise
from cryogan.inspection.page import write_page
from cryogan.inspection.text import page_of_text
from cryogan.io.mrc import write_stack
from cryogan.io.particle_files import refuse_inputs
from cryogan.io.relion_writing import write_particles
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.cpu_time import Cost, run_s
from cryogan.particles import ArrayStack, CTFParams, Particles, ParticleSource
from cryogan.phantom import phantom_map
from cryogan.physics.ctf import ctf
from cryogan.physics.distributions import PoseDistribution, Triangular
from cryogan.physics.spectra import PowerSpectra
from cryogan.registry import OBJECTIVES
from cryogan.run.memory import memory_bound_GB
from cryogan.simulation.in_memory import SimulatedSet, simulate_particles
from cryogan.simulation.microscope import random_ctf

N, BOX, PIXEL_A = 400, 32, 7.0
WIDTH_A = BOX * PIXEL_A
DIAMETER_A = 130.0  # of both phantoms, to within 2 Å


def simulated(
    symmetry: str = "C1",
    n: int = N,
    snr_dB: float = -8.0,
    shift_A: float = 0.0,
    pixel_size_A: float = PIXEL_A,
) -> SimulatedSet:
    generator = torch.Generator().manual_seed(0)
    return simulate_particles(
        phantom_map(BOX, pixel_size_A, symmetry=symmetry),  # type: ignore[arg-type]
        pixel_size_A=pixel_size_A,
        n=n,
        ctf=random_ctf(n, generator),
        poses=PoseDistribution(shifts=Triangular(shift_A)),
        snr_dB=snr_dB,
        generator=generator,
    )


@pytest.fixture(scope="module")
def good() -> Particles:
    return simulated().particles


def images_of(particles: Particles) -> torch.Tensor:
    return particles.stack.read(torch.arange(len(particles))).clone()


def with_images(particles: Particles, images: torch.Tensor) -> Particles:
    return replace(particles, stack=ArrayStack(images))


def test_a_good_set_is_ready(good: Particles) -> None:
    found = cryogan.check(good)
    assert found.ready
    assert found.problems == found.bad_images == found.ctf_outliers == ()
    assert all("adversarial run: 400 particles are fewer" in note for note in found.notes)
    assert found.contrast.verdict == "bright"
    assert found.normalisation.normalised
    assert found.extent.diameter_A == pytest.approx(DIAMETER_A, rel=0.15)
    assert found.extent.is_centred
    (group,) = found.spectra
    assert group.snr_dB == pytest.approx(-8.0, abs=1.0)
    assert page_of_text(found).endswith("\nready")
    assert json.loads(found.to_json())["ready"] is True


@pytest.mark.parametrize("symmetry", ["C1", "D2"])
@pytest.mark.parametrize("shift_A", [0.0, 22.0])
def test_diameter_and_shifts_are_those_of_the_simulation(symmetry: str, shift_A: float) -> None:
    found = cryogan.check(simulated(symmetry, 600, -12.0, shift_A).particles).extent
    assert found.diameter_A == pytest.approx(DIAMETER_A + 0.5 * shift_A, rel=0.2)
    if shift_A == 0:
        assert found.is_centred
    else:
        assert found.max_shift_A == pytest.approx(shift_A, rel=0.3)
        assert not found.is_centred


@pytest.mark.parametrize(("n", "objectives"), [(60, ()), (250, ("likelihood",)), (512, None)])
def test_what_no_run_takes_is_to_be_mended(
    n: int, objectives: tuple[str, ...] | None, good: Particles
) -> None:
    """What some run takes is ready; memory is that of the runs that take it."""
    index = torch.arange(n) % N
    found = cryogan.check(good.subset(index))
    takes = ("adversarial", "likelihood") if objectives is None else objectives
    assert tuple(each.objective for each in found.memory) == takes
    assert found.ready == bool(takes)
    refused = found.notes if takes else found.problems
    assert len([words for words in refused if " run: " in words]) == 2 - len(takes)
    for each in found.memory:
        objective = OBJECTIVES[each.objective]()
        bound_GB = memory_bound_GB(objective, good.subset(index))
        assert bound_GB == each.at_most_GB > 0
        assert f"{each.objective} {bound_GB:.3g} GB" in page_of_text(found)


def test_noise_alone_has_no_signal(good: Particles, generator: torch.Generator) -> None:
    found = cryogan.check(with_images(good, torch.randn(N, BOX, BOX, generator=generator)))
    assert not found.ready
    assert any("no signal" in problem for problem in found.problems)
    assert "too weak to tell (z" in page_of_text(found)
    assert found.images_needed == ()
    assert found.extent.diameter_A is None


def test_images_without_ctfs_are_no_noise(generator: torch.Generator) -> None:
    """Nothing can follow CTFs that do not vary; that there are particles the contrast tells."""
    n = 300
    no_ctf = CTFParams.constant(
        n, defocus_u_A=0.0, amplitude_contrast=1.0, spherical_aberration_mm=0.0
    )
    made = simulate_particles(
        phantom_map(BOX, PIXEL_A),
        pixel_size_A=PIXEL_A,
        n=n,
        ctf=no_ctf,
        poses=PoseDistribution(),
        snr_dB=-10.0,
        generator=generator,
    ).particles
    found = cryogan.check(made)
    assert found.ready
    assert any("without CTFs" in note for note in found.notes)
    noise = replace(made, stack=ArrayStack(torch.randn(n, BOX, BOX, generator=generator)))
    assert any("no signal" in words for words in cryogan.check(noise).problems)


@pytest.mark.parametrize(
    ("spoil", "offset", "ramp"),
    [
        (lambda images: images + 10.0 * images.std(), 10.0, 0.0),
        (lambda images: images + torch.linspace(-5, 5, BOX) * images.std(), 0.0, 10.0),
        (lambda images: images * torch.logspace(-1, 1, N)[:, None, None], 0.0, 0.0),
    ],
    ids=["offset", "ramp", "scale"],
)
def test_images_that_are_not_normalised(
    good: Particles,
    spoil: Callable[[torch.Tensor], torch.Tensor],
    offset: float,
    ramp: float,
) -> None:
    """Said, and of no influence on what else is found."""
    found = cryogan.check(with_images(good, spoil(images_of(good))))
    assert any("not normalised" in note for note in found.notes)
    assert found.normalisation.offset_sd.median == pytest.approx(offset, abs=1.0)
    assert found.normalisation.ramp_sd.median == pytest.approx(ramp, abs=1.0)
    assert found.ready
    assert found.extent.diameter_A == pytest.approx(DIAMETER_A, rel=0.15)


def test_bad_images_are_named(good: Particles) -> None:
    images = images_of(good)
    images[3] = 5.0
    images[7, 4, 9] = 3600.0 * images.std()
    images[11] *= 1e6
    found = cryogan.check(with_images(good, images))
    assert [outlier.row for outlier in found.bad_images] == [3, 7, 11]
    assert not found.ready
    assert "rows 3 (all pixels are alike)" in found.problems[0]
    assert found.extent.diameter_A == pytest.approx(DIAMETER_A, rel=0.15)


def test_ctfs_that_stand_out_are_named(good: Particles) -> None:
    u, v = good.ctf.defocus_u_A.clone(), good.ctf.defocus_v_A.clone()
    u[5] = v[5] = 90000.0
    u[9] *= 2.0
    found = cryogan.check(replace(good, ctf=replace(good.ctf, defocus_u_A=u, defocus_v_A=v)))
    assert [outlier.row for outlier in found.ctf_outliers] == [5, 9]
    um = replace(good.ctf, defocus_u_A=u / 1e4, defocus_v_A=v / 1e4)
    assert any("in µm" in problem for problem in cryogan.check(replace(good, ctf=um)).problems)


def reconstructed(simulated_set: SimulatedSet, index: torch.Tensor) -> torch.Tensor:
    """Map from images of known pose, as far as an FSC needs it: back-projection and a ramp.

    Coefficients, times their CTFs, go to the nearest voxel of a double box.
    """
    particles, size = simulated_set.particles, 2 * BOX
    transfer = ctf(particles.ctf[index], BOX, particles.pixel_size_A)
    plane = fourier.rfft(particles.stack.read(index))
    k = fourier.frequency_grid(BOX)
    flat = torch.cat((k, torch.zeros_like(k[..., :1])), -1)
    where = torch.einsum("nij,yxj->nyxi", simulated_set.pose.rotation[index], flat)
    inside = (k.norm(dim=-1) < 0.5).expand(len(index), -1, -1)
    at, value = (where[inside] * size).round().long(), (transfer * plane)[inside]
    at, value = torch.cat((at, -at)), torch.cat((value, value.conj()))
    x, y, z = (at % size).unbind(-1)
    flat_at = (z * size + y) * size + x
    total = torch.zeros(size**3, dtype=torch.complex64).index_add_(0, flat_at, value)
    axis = torch.fft.fftfreq(size)
    ramp = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
    spectrum = total.reshape(size, size, size) * ramp
    volume = torch.fft.fftshift(torch.fft.ifftn(spectrum).real)
    return fourier.crop_or_pad(volume, BOX, 3)


def test_images_needed_is_what_a_reconstruction_takes() -> None:
    """Half-maps of as many images as are said to be needed have FSC 0.143 at that resolution."""
    pixel_size_A, edge_px = 5.0, 2.0
    noisy = simulated(n=600, snr_dB=-20.0, pixel_size_A=pixel_size_A)
    clean = images_of(simulated(n=600, snr_dB=math.inf, pixel_size_A=pixel_size_A).particles)
    power = fourier.shell_mean(fourier.rfft(clean).abs().square().mean(0), BOX)
    ratio = power / (BOX * noisy.noise_sigma) ** 2
    radius_px = DIAMETER_A / 2 / pixel_size_A
    needed = images_needed(
        ratio,
        width_A=BOX * pixel_size_A,
        diameter_A=2 * (radius_px + edge_px / 2) * pixel_size_A,
        sampled=10**6,
    )
    n = next(each.images for each in needed if each.resolution_A == 30.0)
    mask = fourier.soft_disc(BOX, radius_px, edge_px, 3)
    curves = []
    for index in torch.arange(600 // n * n).reshape(-1, n)[:12]:
        halves = [reconstructed(noisy, half) * mask for half in (index[::2], index[1::2])]
        curves.append(cryogan.fourier_shell_correlation(*halves))
    curve = torch.stack(curves).mean(0)
    shell = BOX * pixel_size_A / 30.0
    part = shell % 1
    assert 0.1 < float(curve[int(shell)] * (1 - part) + curve[int(shell) + 1] * part) < 0.2


def test_images_needed_follows_its_formula() -> None:
    """White signal and noise: SSNR = N r V / (2k), V = 1 for a particle of the box's volume."""
    spectra = PowerSpectra(torch.full((33,), 0.2), torch.ones(33))
    ratio = signal_to_noise(spectra, torch.full((33,), 0.5))
    ball_A = 100.0 * (6.0 / math.pi) ** (1.0 / 3.0) * 0.5
    for each in images_needed(ratio, width_A=100.0, diameter_A=ball_A, sampled=2000):
        shell = 100.0 / each.resolution_A
        assert each.images == math.ceil(2.0 * shell / 3.0 / 0.1 / 8.0 - 1e-4)
        assert not each.extrapolated


# Files


@pytest.fixture
def star(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: Particles) -> Path:
    """The good set, dark on disk, in two optics groups."""
    monkeypatch.chdir(tmp_path)
    write_stack("a.mrcs", -images_of(good), PIXEL_A)
    ctf_of_them = replace(good.ctf, voltage_kV=torch.tensor([200.0, 300.0]).repeat(N // 2))
    write_star(tmp_path / "p.star", ctf_of_them)
    return tmp_path / "p.star"


def write_star(path: Path, ctf_of_them: CTFParams) -> None:
    write_particles(path, image_names="a.mrcs", ctf=ctf_of_them, pixel_size_A=PIXEL_A, box_size=BOX)


def test_the_command_writes_text_json_and_page(
    star: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "p.star", "-o", "check.html", "--json", "check.json"]) == 0
    text = capsys.readouterr().out
    assert text.rstrip().endswith("ready")
    assert "dark on disk" in text
    assert "(from rlnImagePixelSize)" in text
    found = json.loads(Path("check.json").read_text())
    assert found["contrast"]["inverted"] is True
    assert found["contrast"]["z"] < -5
    assert [group["particles"] for group in found["spectra"]] == [N // 2, N // 2]
    page = Path("check.html").read_text()
    assert page.count("<img alt=") == 24
    assert "<script src" not in page
    assert "opticsGroup2" in page


def test_json_in_place_of_the_text(star: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "p.star", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ready"] is True
    assert not Path("-").exists()


def test_warnings_of_the_reader_and_unused_columns_are_noted(
    star: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = star.read_text()
    text = text.replace("000003@", "000001@").replace("_rlnImageSize #7", "_rlnBeamTiltX #7")
    star.write_text(text)
    assert main(["check", "p.star", "--json", "check.json"]) == 0
    said = capsys.readouterr().out
    assert "rlnBeamTiltX is not used" in said
    found = json.loads(Path("check.json").read_text())
    assert "warning: 1 row left out that names an image again" in found["notes"]
    assert found["ignored_columns"][0]["values"] == str(BOX)


def test_images_that_cannot_be_read_are_named(star: Path, good: Particles) -> None:
    particles = cryogan.read_particles(star)
    images = -images_of(good)
    images[6, 2, 2] = math.nan
    before = Path("a.mrcs").stat()
    write_stack("a.mrcs", images, PIXEL_A)
    os.utime("a.mrcs", ns=(before.st_atime_ns, before.st_mtime_ns))
    found = cryogan.check(particles)
    assert [outlier.row for outlier in found.bad_images] == [6]
    assert "NaN" in found.bad_images[0].what
    write_page(Path("page.html"), found, particles)


@pytest.mark.parametrize("box_size", [1, 2, 3, 4, 5, 7])
def test_boxes_of_a_few_pixels(box_size: int, generator: torch.Generator) -> None:
    images = torch.randn(200, box_size, box_size, generator=generator)
    particles = Particles(ArrayStack(images), CTFParams.constant(200, defocus_u_A=10000.0), PIXEL_A)
    if box_size < 4:
        with pytest.raises(cryogan.InputError, match=f"box of {box_size} px, .* at least 16 px"):
            cryogan.check(particles)
    else:
        found = cryogan.check(particles)
        assert not found.ready
        assert any("at least 16 px" in words for words in found.problems)


def test_refusals(star: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["no.star"], "There is no file no.star"),
        (["p.star", "-o", "no/check.html"], "folder does not exist"),
        (["p.star", "--json", "no/check.json"], "folder does not exist"),
    ):
        assert main(["check", *arguments]) == 2
        assert words in capsys.readouterr().err


def test_a_run_begins_with_what_the_columns_tell(good: Particles, tmp_path: Path) -> None:
    """No image is read for it; the same words as in a check."""
    source = ParticleSource(Path("p.star"), None, None, None, None, False, "400 particles")
    said: list[str] = []

    def started(about: Mapping[str, Any]) -> None:
        said.append(about["particles"]["summary"])
        raise KeyboardInterrupt

    def run(defocus_A: torch.Tensor) -> None:
        ctf = replace(good.ctf, defocus_u_A=defocus_A, defocus_v_A=defocus_A)
        particles = replace(good, ctf=ctf, source=source)
        objective = settings_for("simple_objective:Together", Assumptions())
        cryogan.reconstruct(
            particles, objective=objective, folder=tmp_path / "run", device="cpu", started=started
        )

    with pytest.raises(KeyboardInterrupt):
        run(torch.where(torch.arange(N) == 7, 90_000.0, 15_000.0))
    assert "warning: 1 particle has a CTF that stands out (row 7, defocus 90,000 Å)" in said[0]
    with pytest.raises(cryogan.InputError, match=r"defocus of 1\.5: .* µm or nm\?"):
        run(torch.full((N,), 1.5))


def test_noise_that_depends_on_direction_is_found(good: Particles) -> None:
    """A wave along x in every image, of random phase: in words, and as numbers."""
    generator = torch.Generator().manual_seed(4)
    phase = 2.0 * math.pi * torch.rand(N, 1, 1, generator=generator)
    wave = (2.0 * math.pi * 8.0 / BOX * torch.arange(BOX) + phase).cos().expand(N, BOX, BOX)
    images = images_of(good)
    found = cryogan.check(with_images(good, images + 0.2 * images.std() * wave))
    directions = found.noise_directions
    assert directions is not None
    assert directions.direction_deg in (0.0, 180.0)
    assert directions.wavelength_A == pytest.approx(WIDTH_A / 8.0)
    assert directions.largest_ratio > 2.0
    assert directions.coarsest_A >= directions.wavelength_A >= directions.finest_A
    assert json.loads(found.to_json())["noise_directions"]["words"] in page_of_text(found)
    assert cryogan.check(good).noise_directions is None
    assert "noise           the same in all directions" in page_of_text(cryogan.check(good))


def test_time_of_a_run_from_that_of_images() -> None:
    """A second an image, ten an iteration; by hand."""
    config = LikelihoodConfig(
        initialisations=2, initial_batches=3, initial_batch_size=100, subset_size=500
    )
    initial = dict.fromkeys((5, 6, 7), Cost(1.0, 10.0))
    batches = 3 * (2 + 2 + 1)  # of each half-set: one initialisation goes on after the middle band
    iterations = 3 * (500 + 10) + (1000 + 10)
    found = run_s(config, 2000, initial, Cost(1.0, 10.0))
    assert found == pytest.approx(2 * (batches * (100 + 10) + iterations))


def test_time_is_estimated(good: Particles) -> None:
    found = cryogan.check(good)
    assert found.time is not None
    assert 0 < found.time.image_s < found.time.run_s < math.inf
    assert found.time.resolution_A >= 2.0 * PIXEL_A
    assert "right within a factor of 3" in page_of_text(found)


def test_a_folder_is_no_output(good: Particles, tmp_path: Path) -> None:
    with pytest.raises(cryogan.InputError, match="is a folder; give the name of a file"):
        refuse_inputs([tmp_path], good)
    with pytest.raises(cryogan.InputError, match=r"Cannot write .* choose another name"):
        write_text(tmp_path, "text")
    assert list(tmp_path.parent.glob(f".{tmp_path.name}*")) == []
