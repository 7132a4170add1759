"""`--sym auto`: a symmetry is found in the half-maps of a run, imposed, and told."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import cryogan as cg
from cryogan import fourier
from cryogan.cli import main
from cryogan.data.halves import split_halves
from cryogan.errors import InputError
from cryogan.evaluation.alignment import align, apply_alignment
from cryogan.evaluation.fsc import fourier_shell_correlation
from cryogan.evaluation.resampling import move_map
from cryogan.objectives.adversarial.config import AdversarialConfig
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.base import Step
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.em import expectation_maximisation
from cryogan.objectives.likelihood.em_state import EMState
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.objective import Likelihood
from cryogan.phantom import Symmetry, phantom_map
from cryogan.physics.imaging import rescale_volume
from cryogan.physics.rotations import euler_to_matrix
from cryogan.run.folder import open_run_folder
from cryogan.simulation.in_memory import write_dataset
from cryogan.symmetry import symmetry_matrices
from simulated_sets import centred_particles

BOX, PIXEL_A = 24, 8.0
CPU = torch.device("cpu")
AUTO = LikelihoodConfig(iterations=4, initial_rings=(5, 5), assumptions=Assumptions("auto"))


def halves_of(symmetry: Symmetry, count: int) -> tuple[HalfSet, HalfSet]:
    generator = torch.Generator().manual_seed(11)
    volume = phantom_map(BOX, PIXEL_A, symmetry=symmetry)
    particles = centred_particles(volume, PIXEL_A, count, -2.0, generator).particles
    first, second = split_halves(count, 0)
    return HalfSet.of(particles.subset(first)), HalfSet.of(particles.subset(second))


def tilted_maps(symmetry: Symmetry) -> Tensor:
    """(2, 1, D, D, D) of the truth to shell 6, away from the standard orientation."""
    turn = euler_to_matrix(torch.tensor([40.0, 70.0, 20.0]))
    volume = phantom_map(BOX, PIXEL_A, symmetry=symmetry)
    volume = move_map(volume, turn, torch.zeros(3), False)
    band = fourier.band_mask(BOX, 6.5, 3)
    return fourier.irfft(fourier.rfft(volume, 3) * band, BOX, 3).expand(2, 1, BOX, BOX, BOX)


def run(halves: tuple[HalfSet, HalfSet], maps: Tensor, state: EMState | None = None) -> list[Step]:
    return list(expectation_maximisation(halves, AUTO, seed=4, device=CPU, maps=maps, state=state))


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_symmetry_is_found_imposed_and_kept_by_a_resumed_run() -> None:
    """D2: C1 first, then maps in the standard orientation; both half-maps become symmetric."""
    halves, maps = halves_of("D2", 300), tilted_maps("D2")
    steps = run(halves, maps)
    imposed = [step.record["symmetry"] for step in steps]
    assert imposed[0] == "C1"
    assert imposed[-1] == "D2"
    found = [step.record["symmetry_search"] for step in steps if "symmetry_search" in step.record]
    assert found[-1]["group"] == "D2"
    assert found[-1]["candidates"][0]["quality"] > 0.9
    state = steps[-1].state
    assert isinstance(state, EMState)
    assert state.symmetry == "D2"
    for (half,) in state.halves:
        for operator in symmetry_matrices("D2")[1:]:
            turned = move_map(half, operator, torch.zeros(3), False)
            assert float(fourier_shell_correlation(half, turned)[1:9].min()) > 0.95
    (average,) = state.average
    pixel_A = PIXEL_A * BOX / average.shape[-1]
    truth = rescale_volume(phantom_map(BOX, PIXEL_A, symmetry="D2"), average.shape[-1])
    average = apply_alignment(average, align(average, truth, pixel_A), pixel_A)
    assert float(fourier_shell_correlation(average, truth)[1:9].min()) > 0.9
    number = imposed.index("D2") - 1  # the first state that has it
    assert isinstance(steps[number].state, EMState)
    assert not steps[number].finished
    again = run(halves, 0.0 * maps, EMState(**steps[number].state.record()))
    assert [step.record for step in again] == [step.record for step in steps[number + 1 :]]
    assert torch.equal(again[-1].state.halves, state.halves)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_without_a_symmetry_none_is_imposed() -> None:
    steps = run(halves_of("C1", 300), tilted_maps("C1"))
    assert {step.record["symmetry"] for step in steps} == {"C1"}
    state = steps[-1].state
    assert isinstance(state, EMState)
    assert state.symmetry_search is not None
    assert state.symmetry_search["group"] == "C1"
    assert "no symmetry found" in Likelihood.describe(steps[-1].record)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread_everywhere")
def test_a_run_tells_what_it_found_and_what_goes_on_from_it_uses_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From random numbers, with short settings; then `symmetry` and `assign`."""
    generator = torch.Generator().manual_seed(3)
    volume = phantom_map(BOX, PIXEL_A, symmetry="D2")
    write_dataset(tmp_path, centred_particles(volume, PIXEL_A, 400, 0.0, generator), volume)
    star, folder = str(tmp_path / "particles.star"), tmp_path / "run"
    particles = cg.read_particles(star)
    settings = {
        "initialisations": 1,
        "initial_attempts": 1,
        "initial_rings": (5, 8),
        "initial_batches": 4,
        "initial_batch_size": 150,
        "iterations": 4,
    }
    result = cg.reconstruct(
        particles,
        objective="likelihood",
        symmetry="auto",
        max_shift=0.0,
        settings=settings,
        folder=folder,
    )
    assert result.symmetry == "D2"
    summary = json.loads((folder / "summary.json").read_text())["symmetry"]
    assert summary["group"] == "D2"
    assert summary["candidates"][0]["quality"] > 0.9
    assert json.loads((folder / "config.json").read_text())["config"]["assumptions"][
        "symmetry"
    ] == "auto"  # fmt: skip
    assert cg.assign(particles.subset(torch.arange(40)), result).symmetry == "D2"
    from cryogan.report import write_report

    assert "D2 found and imposed" in write_report(folder).read_text()
    output = tmp_path / "oriented.mrc"
    assert main(["symmetry", str(folder), "-o", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "symmetry: D2" in printed
    assert "The run has imposed D2" in printed
    assert cg.read_map(output).volume.shape == result.map.volume.shape


def run_folder(folder: Path, maps: Tensor, pixel_size_A: float) -> Path:
    """What a finished run leaves: half-maps (2, D, D, D) and their mean."""
    particles = {"star": None, "count": 300, "box_size": maps.shape[-1]}
    open_run_folder(folder, particles, Likelihood(), 0, "cpu", {})
    for name, volume in (("half1", maps[0]), ("half2", maps[1]), ("map", maps.mean(dim=0))):
        cg.write_map(folder / f"{name}.mrc", volume, pixel_size_A)
    return folder


def off_centre_halves(generator: torch.Generator) -> Tensor:
    """(2, D, D, D) of D2, turned and moved by up to 2 voxels."""
    turn = euler_to_matrix(torch.tensor([40.0, 70.0, 20.0]))
    volume = phantom_map(BOX, PIXEL_A, symmetry="D2")
    volume = move_map(volume, turn, torch.tensor([2.0, -1.5, 1.0]), False)
    return volume + 0.5 * volume.std() * torch.randn(2, BOX, BOX, BOX, generator=generator)


def test_a_pixel_size_that_is_given_holds_for_the_half_maps_of_a_run(
    tmp_path: Path, generator: torch.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else the map is written off centre: by half its shift if the header says twice as much."""
    folder = run_folder(tmp_path / "run", off_centre_halves(generator), 2.0 * PIXEL_A)
    output = tmp_path / "oriented.mrc"
    apix = f"--apix={PIXEL_A}"
    assert main(["symmetry", str(folder), "-o", str(output), apix, "--resolution=30"]) == 0
    said = capsys.readouterr().out
    assert "compared to 32.0 Å" in said
    assert "symmetry: D2" in said
    written = cg.read_map(output)
    assert written.pixel_size_A == PIXEL_A
    for operator in symmetry_matrices("D2")[1:]:
        turned = move_map(written.volume, operator, torch.zeros(3), False)
        assert float(fourier_shell_correlation(written.volume, turned)[1:6].min()) > 0.95


def test_a_run_has_half_maps_of_its_own(tmp_path: Path) -> None:
    maps = phantom_map(BOX, PIXEL_A).expand(2, BOX, BOX, BOX)
    folder = run_folder(tmp_path / "run", maps, PIXEL_A)
    other = folder / "half2.mrc"
    for pair in ((cg.read_run(folder), other), (folder, other), (str(other), str(folder))):
        with pytest.raises(InputError, match=f"{folder} is a run.*give it alone"):
            cg.find_symmetry(*pair)


def test_only_the_likelihood_of_one_structure_can_find_a_symmetry() -> None:
    with pytest.raises(InputError, match="adversarial objective cannot find a symmetry"):
        AdversarialConfig(assumptions=Assumptions("auto"))
    with pytest.raises(InputError, match="one structure"):
        Assumptions("auto", latent="uniform")
    with pytest.raises(InputError, match=r"mask file .*--diameter"):
        Assumptions("auto", mask_file="mask.mrc")
    assert Assumptions("AUTO").imposing("O").symmetry == "O"
    assert Assumptions("C2").imposing("O").symmetry == "C2"
    assert replace(AUTO, iterations=1).imposing("C1").assumptions == Assumptions()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["reconstruct", "a.star", "-o", "run", "--objective", "adversarial", "--sym", "auto"],
            "adversarial objective cannot",
        ),
        (["symmetry", "none.mrc"], "There is no file none.mrc"),
        (["symmetry", "a.mrc", "b.mrc", "c.mrc"], "two half-maps"),
        (["symmetry", "a.mrc", "--resolution", "-3"], "--resolution is -3"),
        (["symmetry", "a.mrc", "-o", "a.mrc"], "would be written over"),
    ],
)
def test_the_command_line_refuses_in_a_sentence(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    cg.write_map("a.mrc", phantom_map(16, 12.0), 12.0)
    Path("a.star").write_text("")
    assert main(arguments) == 2
    assert words in capsys.readouterr().err
