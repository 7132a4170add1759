"""The library as a notebook uses it: `import cryogan as cg`."""

import gc
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cryogan as cg
from cryogan.conformations.series import Series
from cryogan.evaluation.comparison import Comparison
from cryogan.io.mrc import Map
from cryogan.objectives.likelihood.objective import Likelihood
from cryogan.particles import ArrayStack
from cryogan.physics.rotations import angle_between
from cryogan.run.signals import STOPPING
from cryogan.simulation.in_memory import write_dataset
from simple_objective import Simple, SimpleConfig, Together
from simulated_sets import centred_particles

COUNT, BOX, PIXEL_SIZE_A = 301, 16, 12.0
QUICK = {
    "initial_rings": (5, 6),
    "initial_batches": 3,
    "initial_batch_size": 100,
    "initialisations": 1,
    "initial_attempts": 1,
    "iterations": 2,
}
TESTS = Path(__file__).parent


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread_everywhere")]


@pytest.fixture(scope="module")
def simulated() -> Any:
    """Images of the phantom in 16 px of 12 Å, in memory."""
    generator = torch.Generator().manual_seed(7)
    return centred_particles(cg.phantom_map(BOX, PIXEL_SIZE_A), PIXEL_SIZE_A, COUNT, 0.0, generator)


@pytest.fixture(scope="module")
def dataset(simulated: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in files, and the truth."""
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder, simulated, cg.phantom_map(BOX, PIXEL_SIZE_A))
    return folder


@pytest.fixture(scope="module")
def particles(dataset: Path) -> cg.Particles:
    return cg.read_particles(dataset / "particles.star")


@pytest.fixture(scope="module")
def truth(dataset: Path) -> Map:
    return cg.read_map(dataset / "truth" / "map.mrc")


@pytest.fixture(scope="module")
def found(particles: cg.Particles) -> cg.Reconstruction:
    """The likelihood's reconstruction, in a folder of its own."""
    return cg.reconstruct(particles, objective="likelihood", settings=QUICK, seed=3, device="cpu")


@pytest.fixture(scope="module")
def poses(particles: cg.Particles, found: cg.Reconstruction) -> cg.Assigned:
    return cg.assign(particles, found, device="cpu")


@pytest.fixture(scope="module")
def simple(simulated: Any, tmp_path_factory: pytest.TempPathFactory) -> cg.Reconstruction:
    """A run of an objective of one's own, on images in memory; takes no time."""
    folder = tmp_path_factory.mktemp("simple") / "run"
    return cg.reconstruct(simulated.particles, objective=Simple(), folder=folder, device="cpu")


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1])


# Reading, simulating


def test_particles_know_where_they_come_from(particles: cg.Particles, dataset: Path) -> None:
    assert (len(particles), particles.box_size) == (COUNT, BOX)
    assert particles.pixel_size_A == pytest.approx(PIXEL_SIZE_A)
    assert particles.source is not None
    assert particles.source.path == dataset / "particles.star"
    assert "bright" in particles.source.summary
    some = cg.read_particles(dataset / "particles.star", index=torch.tensor([5, 2]), sign="dark")
    images = particles.stack.read(torch.tensor([5, 2]))
    assert torch.equal(some.stack.read(torch.arange(2)), -images)
    assert particles.subset(torch.tensor([5])).source is None


def test_a_file_that_cannot_be_read_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(cg.InputError, match=r"none\.star"):
        cg.read_particles(tmp_path / "none.star")
    with pytest.raises(cg.InputError, match=r"suffix is '\.dat'"):
        cg.read_particles(tmp_path / "none.dat")


def test_a_set_is_simulated_once(tmp_path: Path) -> None:
    settings = {"box_size": 16, "pixel_size_A": 12.0, "images": 20, "padding": 2}
    told: list[Any] = []
    made = cg.simulate("phantom", tmp_path / "set", finished=told.append, **settings)
    assert (len(made), made.box_size) == (20, 16)
    written = (tmp_path / "set" / "particles.mrcs").stat().st_mtime_ns
    again = cg.simulate("phantom", tmp_path / "set", finished=told.append, **settings)
    assert (tmp_path / "set" / "particles.mrcs").stat().st_mtime_ns == written
    assert torch.equal(again.stack.read(torch.arange(20)), made.stack.read(torch.arange(20)))
    with pytest.raises(cg.InputError, match="another simulated set"):
        cg.simulate("phantom", tmp_path / "set", **(settings | {"images": 21}))


# Reconstructing


def test_a_reconstruction_has_maps_and_their_fsc(found: cg.Reconstruction, truth: Map) -> None:
    assert found.finished
    assert found.objective == "likelihood"
    assert found.map.volume.shape == (BOX, BOX, BOX)
    assert found.map.pixel_size_A == pytest.approx(PIXEL_SIZE_A)
    first, second = found.halves
    average = 0.5 * (first.volume + second.volume)
    assert correlation(found.map.volume, average) > 0.9
    assert not torch.equal(first.volume, second.volume)
    assert set(found.fsc) == {"half_map", "half_map_masked"}
    between = cg.fourier_shell_correlation(first.volume, second.volume)
    curve = found.fsc["half_map"].float()
    in_band = curve.isfinite()  # a curve ends where the maps' band does
    assert int(in_band.sum()) >= BOX // 2
    torch.testing.assert_close(curve[in_band], between[in_band], atol=1e-5, rtol=0)
    assert set(found.resolution_A) == {"half_map_0.143", "half_map_0.143_masked"}
    assert 2 * PIXEL_SIZE_A <= found.resolution_A["half_map_0.143"] <= BOX * PIXEL_SIZE_A
    assert found.conformations is None
    assert cg.evaluate(found, truth=truth).correlation > 0.8


def test_what_was_assumed_is_told(found: cg.Reconstruction) -> None:
    assert found.sources is not None
    assert set(found.sources.values()) == {"default", "measured"}
    measured = {name for name, source in found.sources.items() if source == "measured"}
    assert measured - {"mask_radius"} == {"max_shift_percent", "shift_sd_percent", "centred"}
    config = json.loads((found.folder / "config.json").read_text())
    assert config["sources"] == found.sources
    assert config["objective"] == "likelihood"


def test_a_temporary_folder_goes_with_the_result(simulated: Any) -> None:
    result = cg.reconstruct(simulated.particles, objective=Together(), device="cpu")
    folder = result.folder
    assert (folder / "map.mrc").is_file()
    volume = result.map.volume
    del result
    gc.collect()
    assert not folder.exists()
    assert volume.shape == (BOX, BOX, BOX)


def test_a_run_folder_is_read_again(simple: cg.Reconstruction, tmp_path: Path) -> None:
    again = cg.read_run(simple.folder)
    assert torch.equal(again.map.volume, simple.map.volume)
    assert again.resolution_A == simple.resolution_A
    assert again.objective == "simple_objective:Simple"
    with pytest.raises(cg.InputError, match="no run folder"):
        cg.read_run(tmp_path)


def test_the_same_call_again_goes_on_from_what_is_there(
    simple: cg.Reconstruction, simulated: Any
) -> None:
    result = simple.folder / "half1" / "result.npz"
    before = result.stat().st_mtime_ns
    again = cg.reconstruct(
        simulated.particles, objective=Simple(), folder=simple.folder, device="cpu"
    )
    assert result.stat().st_mtime_ns == before
    assert torch.equal(again.map.volume, simple.map.volume)


def test_another_set_in_memory_is_not_taken_for_the_first(
    simple: cg.Reconstruction, simulated: Any
) -> None:
    """Though it has as many images, of the same box."""
    p = simulated.particles
    other = cg.Particles(ArrayStack(2.0 * p.stack.images), p.ctf, p.pixel_size_A)
    with pytest.raises(cg.InputError, match="already holds another run"):
        cg.reconstruct(other, objective=Simple(), folder=simple.folder, device="cpu")


def test_an_objective_may_be_given_with_its_settings(simulated: Any, tmp_path: Path) -> None:
    objective = Simple(SimpleConfig(steps=2))
    for extra in ({"symmetry": "D2"}, {"settings": {"steps": 3}}):
        with pytest.raises(cg.InputError, match="An objective with settings"):
            cg.reconstruct(
                simulated.particles, objective=objective, folder=tmp_path / "run", **extra
            )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"objective": "likelyhood"}, "did you mean 'likelihood'"),
        ({"objective": "no_module:Objective"}, "cannot be imported"),
        ({"settings": {"iteration": 3}}, "likelihood objective has no setting 'iteration'"),
        ({"settings": {"batch_size": 8}}, "likelihood objective has no setting 'batch_size'"),
        ({"preset": "paper"}, "makes no use of the preset paper"),
        ({"view_sigma": 2.0}, "makes no use of .*--view-sigma"),
        ({"objective": "likelihood", "settings": {"iterations": 0}}, "iterations is 0"),
        ({"symmetry": "Q9"}, "'Q9'"),
        ({"diameter_A": 0.0}, "--diameter is 0"),
        ({"max_shift": "60%"}, "60 %"),
        ({"latent": "line"}, "'line' is unknown"),
        ({"device": "abacus"}, "'abacus'"),
        ({"mask": "none.mrc"}, "none.mrc"),
        ({"noise": "none.mrcs"}, "none.mrcs"),
        ({"box_size": 15}, "--box is 15"),
        ({"box_size": 16, "resolution_A": 30.0}, "not both"),
        ({"resolution_A": -1.0}, "--resolution is -1"),
        ({"objective": "adversarial", "preset": "papr"}, "preset 'papr' is unknown"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    extra: dict[str, Any], words: str, particles: cg.Particles, tmp_path: Path
) -> None:
    with pytest.raises(cg.InputError, match=words) as caught:
        cg.reconstruct(particles, folder=tmp_path / "run", **extra)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_too_few_particles_are_refused(particles: cg.Particles, tmp_path: Path) -> None:
    few = particles.subset(torch.arange(100))
    for objective, words in (("likelihood", "at least 200"), ("adversarial", "fewer than two")):
        with pytest.raises(cg.InputError, match=words):
            cg.reconstruct(few, objective=objective, folder=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_an_error_of_a_worker_process_arrives(simulated: Any, tmp_path: Path) -> None:
    objective = Together(SimpleConfig(fails=True))
    with pytest.raises(cg.InputError, match="fails, as it was asked to"):
        cg.reconstruct(
            simulated.particles, objective=objective, folder=tmp_path / "run", device="cpu"
        )


# Going on


@pytest.mark.slow
def test_a_run_is_refined(found: cg.Reconstruction, particles: cg.Particles) -> None:
    told: list[Any] = []
    refined = cg.refine(
        found, settings={"iterations": 1}, device="cpu", started=told.append, symmetry="C1"
    )
    assert refined.finished
    assert refined.folder == found.folder / "refine"
    assert refined.map.volume.shape == (BOX, BOX, BOX)
    (about,) = told
    assert about["sources"]["symmetry"] == "given"
    assert about["sources"]["mask_radius"] == f"the run {found.folder}"
    assert isinstance(about["objective"], Likelihood)
    assert about["objective"].config.iterations == 1
    assert about["particles"]["from"] == str(found.folder.resolve())


def test_what_was_in_memory_must_be_given_again(
    simple: cg.Reconstruction, simulated: Any, particles: cg.Particles, tmp_path: Path
) -> None:
    output = tmp_path / "refined"
    with pytest.raises(cg.InputError, match="were not read from a file; give them"):
        cg.refine(simple, folder=output)
    p = simulated.particles
    other = cg.Particles(ArrayStack(2.0 * p.stack.images), p.ctf, p.pixel_size_A)
    with pytest.raises(cg.InputError, match="other particles"):
        cg.refine(simple, other, folder=output)
    with pytest.raises(cg.InputError, match="301 particles but 200"):
        cg.refine(simple, p.subset(torch.arange(200)), folder=output)
    assert not output.exists()


def test_particles_are_assigned_poses(poses: cg.Assigned, simulated: Any) -> None:
    """Each with the map of its own half-set; C1 found from noise is in a frame of its own."""
    assert len(poses) == COUNT
    assert isinstance(poses.pose, cg.Pose)
    assert poses.pose.rotation.shape == (COUNT, 3, 3)
    # the particles are centred; those whose low frequencies say otherwise are moved a little
    assert float(poses.pose.shift_A.square().mean().sqrt()) < 2.0 * PIXEL_SIZE_A
    assert poses.half is not None
    assert sorted(poses.half.bincount().tolist()) == [0, COUNT // 2, COUNT - COUNT // 2]
    assert poses.class_number.tolist() == [1] * COUNT
    assert poses.symmetry == "C1"
    assert poses.columns == {}


@pytest.mark.slow
def test_particles_in_memory_are_known_again(
    simulated: Any, particles: cg.Particles, simple: cg.Reconstruction
) -> None:
    """By their content; others, and those of a file, are other particles."""
    own = cg.assign(simulated.particles, simple, device="cpu")
    assert own.half is not None
    others = cg.assign(simulated.particles.subset(torch.arange(50)), simple, device="cpu")
    assert others.half is None
    assert cg.assign(particles, simple, device="cpu").half is None


def test_poses_are_written_for_other_programs(
    poses: cg.Assigned, particles: cg.Particles, simulated: Any, tmp_path: Path
) -> None:
    from cryogan.io.relion_poses import read_poses

    written = cg.write_particles(tmp_path / "poses.star", particles, poses)
    assert written == [tmp_path / f"poses.{end}" for end in ("star", "cs", "csg")]
    again = read_poses(written[0])
    assert float(angle_between(again.rotation, poses.pose.rotation).max()) < 0.05
    assert len(np.load(written[1])) == COUNT
    with pytest.raises(cg.InputError, match="were not read from"):
        cg.write_particles(tmp_path / "memory.star", simulated.particles, poses)
    assert not (tmp_path / "memory.star").exists()


# Comparing


def test_maps_are_compared_as_they_are() -> None:
    """No alignment, no resampling: the curve of a map with itself turned is not 1."""
    volume = cg.phantom_map(32, 6.0)
    curve = cg.fourier_shell_correlation(volume, volume)
    assert curve.shape == (17,)
    torch.testing.assert_close(curve, torch.ones(17))
    turned = volume.rot90(1, (0, 2)).roll(1, 2)
    assert float(cg.fourier_shell_correlation(volume, turned)[3:].mean()) < 0.5
    compared = cg.evaluate(Map(turned, 6.0), truth=Map(volume, 6.0))
    assert compared.correlation > 0.95
    with pytest.raises(cg.InputError, match="cubes of one box size"):
        cg.fourier_shell_correlation(volume, volume[:16, :16, :16])


def test_what_can_be_evaluated(
    found: cg.Reconstruction, truth: Map, dataset: Path, tmp_path: Path
) -> None:
    """A run, its folder, a map's file: the same; nothing is written."""
    before = {path: path.stat().st_mtime_ns for path in found.folder.rglob("*")}
    expected = cg.evaluate(found.map, truth=truth)
    assert isinstance(expected, Comparison)
    file = dataset / "truth" / "map.mrc"
    for given in (str(found.folder), found.folder / "map.mrc"):
        compared = cg.evaluate(given, truth=file)
        assert compared.correlation == pytest.approx(expected.correlation, abs=1e-6)
    assert before == {path: path.stat().st_mtime_ns for path in found.folder.rglob("*")}
    for wrong, words in (({}, "one of them"), ({"truth_conformations": tmp_path}, "a series")):
        with pytest.raises(cg.InputError, match=words):
            cg.evaluate(found.map, **wrong)
    series = Series(found.map.volume[None], PIXEL_SIZE_A, torch.ones(1), torch.zeros(1, 1), ("1",))
    with pytest.raises(cg.InputError, match="truth_conformations"):
        cg.evaluate(series, truth=truth)


# Side effects


def test_nothing_global_changes(simulated: Any, truth: Map, tmp_path: Path) -> None:
    """Threads, signals, random numbers, working folder, environment, file names."""

    def state() -> list[Any]:
        return [
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            *map(signal.getsignal, STOPPING),
            signal.pthread_sigmask(signal.SIG_BLOCK, ()),
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            Path.cwd(),
            dict(os.environ),
            sys.modules["__main__"],
            list(sys.path),
        ]

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)  # not what any of it would set
        before = state()
        made = cg.simulate(
            "phantom",
            tmp_path / "set",
            box_size=16,
            pixel_size_A=12.0,
            images=60,
            padding=2,
            workers=2,
        )
        assert state() == before
        result = cg.reconstruct(made, objective=Together(), folder=tmp_path / "run", device="cpu")
        assert state() == before
        cg.evaluate(result, truth=truth)
        cg.assign(made, result, device="cpu")
        assert state() == before
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_the_allocator_is_left_alone() -> None:
    """A large array that is freed goes back to the system, as it would without the library."""
    program = """
import torch, cryogan as cg
from simple_objective import Together
from cryogan.particles import ArrayStack, CTFParams

def resident_MB():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6

p = cg.Particles(ArrayStack(torch.rand(8, 16, 16)), CTFParams.constant(8, defocus_u_A=1e4), 12.0)
cg.reconstruct(p, objective=Together(), device="cpu")
before = resident_MB()
large = torch.ones(50_000_000)
assert resident_MB() > before + 190
del large
assert resident_MB() < before + 20, (resident_MB(), before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# Scripts


SET = """
import torch
import cryogan as cg
from cryogan.particles import ArrayStack, CTFParams

images = torch.rand(8, 16, 16, generator=torch.Generator().manual_seed(1))
p = cg.Particles(ArrayStack(images), CTFParams.constant(8, defocus_u_A=1e4), 12.0)
print("script")
"""
CLASS = """
from simple_objective import Together

class Mine(Together):
    pass
"""
CALL = 'r = cg.reconstruct(p, objective={}, device="cpu")\nprint("done", r.finished)\n'


def run_script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(text)
    return subprocess.run(
        [sys.executable, script.name],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_plain_script_needs_no_guard(tmp_path: Path) -> None:
    """Neither worker processes nor the one in which memory is measured run it again."""
    done = run_script(tmp_path, SET + CALL.format('"simple_objective:Measured"'))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["script", "done", "True"]
    assert done.stderr == ""


@pytest.mark.slow
def test_classes_of_a_script_need_the_guard(tmp_path: Path) -> None:
    """As everywhere in Python; without it one sentence says so, and no process is left."""
    guarded = "if __name__ == '__main__':\n    " + CALL.format("Mine()").replace("\n", "\n    ")
    done = run_script(tmp_path, SET + CLASS + guarded.rstrip() + "\n")
    assert done.returncode == 0, done.stderr
    assert "done True" in done.stdout
    done = run_script(tmp_path, SET + CLASS + CALL.format("Mine()"))
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "InputError: A worker process was lost; a script that uses classes of its own" in last
    assert "done" not in done.stdout


@pytest.mark.slow
def test_choices_that_were_added_reach_the_workers(tmp_path: Path) -> None:
    """Under a name that only the script knows; what cannot be sent is refused in a sentence."""
    known = "from cryogan.registry import OBJECTIVES\nfrom simple_objective import Together\n"
    named = known + 'OBJECTIVES.add("mine", Together)\n'
    done = run_script(tmp_path, SET + named + CALL.format('"mine"'))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["script", "done", "True"]
    unnamed = known + 'OBJECTIVES.add("mine", lambda: 1)\n'
    done = run_script(tmp_path, SET + unnamed + CALL.format("Together()"))
    assert done.returncode == 1
    assert "A worker process cannot be given what this run needs" in done.stderr.splitlines()[-1]
