"""The examples of docs/extending.md, run as they stand there: one file of the user's each."""

import json
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

import cryogan as cg
from cryogan import fourier
from cryogan.api import settings_for
from cryogan.cli import main
from cryogan.cli.exit_codes import ENDED
from cryogan.io.mrc import Map
from cryogan.objectives.adversarial.config import Stage
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.base import Objective, Task
from cryogan.objectives.data_parallel import SINGLE_PROCESS
from cryogan.report import write_report
from cryogan.run.checkpoint import load_arrays, load_checkpoint
from simulated_sets import centred_particles

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "extending.md"
FILES = re.findall(r"```python\n# (my_\w+\.py)\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
COMMANDS = re.findall(
    r"^cryogan (\w+) (.*?)$", DOCUMENT.read_text().replace("\\\n", " "), re.MULTILINE
)
BOX, PIXEL_SIZE_A = 16, 12.0
SHORT = {"stages": (Stage(BOX, 640),), "batch_size": 64}
LIKELIHOOD = {
    **{
        "iterations": 1,
        "subset_size": 100,
        "initialisations": 1,
        "initial_attempts": 1,
        "initial_rings": (4, 4),
    },
    **{"initial_batches": 2, "conformation_batches": 1, "conformation_batch_size": 200},
}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the examples, where Python finds them, in worker processes too."""
    made = tmp_path_factory.mktemp("extensions")
    for name, text in FILES:
        (made / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(made))
        yield made


@pytest.fixture(scope="module")
def truth() -> torch.Tensor:
    return cg.phantom_map(BOX, PIXEL_SIZE_A)


@pytest.fixture(scope="module")
def particle_file(folder: Path, truth: torch.Tensor) -> Path:
    """400 images in a file that no reader of the package knows."""
    generator = torch.Generator().manual_seed(0)
    made = centred_particles(truth, PIXEL_SIZE_A, 400, 0.0, generator).particles
    path = folder / "particles.npz"
    np.savez(
        path,
        images=made.stack.read(torch.arange(len(made))).numpy(),
        defocus_A=made.ctf.defocus_u_A.numpy(),
        pixel_size_A=PIXEL_SIZE_A,
    )
    return path


@pytest.fixture(scope="module")
def particles(particle_file: Path) -> cg.Particles:
    return cg.read_particles(particle_file, reader="my_reader:read_npz")


@pytest.fixture(scope="module")
def few_particles(particle_file: Path) -> cg.Particles:
    """Fewer than runs have a verdict of."""
    rows = torch.arange(190)
    return cg.read_particles(particle_file, reader="my_reader:read_npz", index=rows)


def config_of(result: cg.Reconstruction) -> dict[str, object]:
    found = json.loads((result.folder / "config.json").read_text())
    return {**found["config"], **found["config"]["assumptions"], **found["particles"], **found}


def finished(objective: Objective, particles: cg.Particles) -> dict[str, torch.Tensor]:
    """What an objective comes to in this process."""
    half_sets = (particles, particles) if objective.together else (particles,)
    task = Task(half_sets, None, 0, torch.device("cpu"))
    *_, last = objective.iterate(task, None, SINGLE_PROCESS)
    return objective.outcome(last, task)["result.npz"]


def test_every_kind_is_one_file() -> None:
    kinds = {"critic", "volume", "latent", "noise", "reader", "objective"}
    assert sorted(name for name, _ in FILES) == sorted(f"my_{kind}.py" for kind in kinds)


@pytest.mark.parametrize(("command", "arguments"), COMMANDS)
def test_commands_of_the_text_are_understood(command: str, arguments: str, folder: Path) -> None:
    options = import_module(f"cryogan.cli.{command}").make_parser().given(shlex.split(arguments))
    for value in re.findall(r"my_\w+:\w+", arguments):
        module, _, attribute = value.partition(":")
        assert hasattr(import_module(module), attribute)
        assert value in str(options)


def test_reader_reads_rows_and_contrast(particle_file: Path) -> None:
    rows = torch.tensor([3, 1])
    dark = cg.read_particles(particle_file, reader="my_reader:read_npz", index=rows, sign="dark")
    with np.load(particle_file) as file:
        expected = -torch.from_numpy(file["images"][[3, 1]])
    assert torch.equal(dark.stack.read(torch.arange(2)), expected)
    assert dark.source is not None
    assert dark.source.path == particle_file
    assert torch.equal(dark.source.rows, rows)


@pytest.mark.slow
def test_critic_noise_and_reader(few_particles: cg.Particles, tmp_path: Path) -> None:
    result = cg.reconstruct(
        few_particles,
        noise="my_noise:laplace",
        objective="adversarial",
        settings=SHORT | {"critic": "my_critic:ring_power"},
        folder=tmp_path / "run",
        device="cpu",
    )
    config = config_of(result)
    assert config["critic"] == "my_critic:ring_power"
    assert config["noise"] == "my_noise:laplace"
    assert config["reader"] == "my_reader:read_npz"
    critic = load_checkpoint(result.folder / "half1" / "checkpoint.pt").state["critic"]
    rings = fourier.rings_within(BOX, 0.9)
    assert critic["layers.0.weight"].shape == (32, rings)
    noisy = load_arrays(result.folder / "half1" / "examples.npz")["noisy"]
    assert _kurtosis(noisy) > 3.5  # Gaussian: 3
    again = cg.read_run(result.folder)
    assert torch.equal(again.map.volume, result.map.volume)
    assert "my_critic:ring_power" in write_report(result.folder).read_text()
    few = few_particles.subset(torch.arange(50))
    poses = cg.assign(few, again, device="cpu")  # imports noise model and critic again
    assert set(poses.columns) == {"cryoganCriticScore"}
    with pytest.raises(cg.InputError, match="is no star file"):
        cg.write_particles(tmp_path / "poses.star", few_particles, poses)


def _kurtosis(images: torch.Tensor) -> float:
    values = images - images.mean()
    return float(values.pow(4).mean() / values.square().mean().square())


def test_noise_is_of_unit_variance_and_not_gaussian(particles: cg.Particles, folder: Path) -> None:
    noise = import_module("my_noise").laplace(particles)
    samples = noise.sample(500, torch.Generator().manual_seed(0))
    assert abs(float(samples.var()) - 1) < 0.03
    assert abs(_kurtosis(samples) - 6) < 0.5
    torch.testing.assert_close(noise.power(), torch.ones(BOX // 2 + 1), atol=0.1, rtol=0)


@pytest.mark.slow
def test_volume_model(few_particles: cg.Particles, tmp_path: Path) -> None:
    result = cg.reconstruct(
        few_particles,
        objective="adversarial",
        settings=SHORT
        | {"volume_model": "my_volume:PseudoAtoms", "stages": (Stage(BOX, 1280), Stage(18, 640))},
        folder=tmp_path / "run",
        device="cpu",
    )
    assert config_of(result)["volume_model"] == "my_volume:PseudoAtoms"
    state = load_checkpoint(result.folder / "half2" / "checkpoint.pt").state
    assert state["volume"]["position"].shape == (200, 3)
    volume = state["average"]
    assert volume.min() >= 0
    inside = fourier.soft_disc(BOX, 0.85 * BOX / 2, 1, 3)
    assert float((volume * inside).sum() / volume.sum()) > 0.95
    assert result.map.volume.shape == (BOX,) * 3
    with pytest.raises(cg.InputError, match="no symmetry"):
        cg.reconstruct(
            few_particles,
            objective="adversarial",
            symmetry="D2",
            settings=SHORT | {"volume_model": "my_volume:PseudoAtoms"},
            folder=tmp_path / "other",
            device="cpu",
        )
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_latent_in_both_objectives(particles: cg.Particles, tmp_path: Path) -> None:
    noise = import_module("my_noise").laplace(particles)
    result = cg.reconstruct(
        particles,
        latent="my_latent:CosineLine",
        basis_volumes=2,
        noise=noise,
        objective="adversarial",
        settings=SHORT,
        folder=tmp_path / "run",
        device="cpu",
    )
    assert config_of(result)["latent"] == "my_latent:CosineLine"
    assert config_of(result)["noise"] == "an object of class my_noise:LaplaceNoise"
    with pytest.raises(cg.InputError, match="give noise="):
        cg.refine(result, device="cpu")
    settings = LIKELIHOOD | {"latent_grid_points": 6}
    refined = cg.refine(result, noise=noise, settings=settings, device="cpu")
    assert config_of(refined)["latent"] == "my_latent:CosineLine"
    for each in (result, refined):
        assert each.conformations is not None
        assert len(each.conformations) == 20
        assert _share_of_cosines(each) > 0.99
    few = particles.subset(torch.arange(50))
    poses = cg.assign(few, refined, noise=noise, device="cpu")
    assert ((poses.columns["cryoganLatent0"] > 0) & (poses.columns["cryoganLatent0"] < 1)).all()


def _share_of_cosines(result: cg.Reconstruction) -> float:
    """The part of the maps along the path that is a sum of the constant and two cosines of z."""
    series = result.conformations
    assert series is not None
    order = torch.arange(3, dtype=torch.float64)
    functions = torch.cos(torch.pi * order * series.coordinate)
    maps = series.volumes.double().flatten(1)
    maps = maps - maps.mean(0)
    left = maps - functions @ (torch.linalg.pinv(functions) @ maps)
    return 1 - float(left.square().sum() / maps.square().sum())


@pytest.mark.parametrize(
    "objective", ["adversarial", pytest.param("likelihood", marks=pytest.mark.slow)]
)
def test_discrete_latent(objective: str, particles: cg.Particles, folder: Path) -> None:
    (folder / "my_classes.py").write_text(
        "from cryogan.conformations.latent import Classes\n\n\nclass Mine(Classes):\n    pass\n"
    )
    assumptions = Assumptions(latent="my_classes:Mine", classes=3)
    assert assumptions.volumes == 3
    settings = SHORT if objective == "adversarial" else LIKELIHOOD
    made = settings_for(objective, assumptions, settings)
    made.check(particles)
    found = finished(made, particles)
    name = "weights" if objective == "adversarial" else "average_weights"
    assert found[name].shape == (3,)
    assert abs(float(found[name].sum()) - 1) < 1e-5


@pytest.mark.slow
def test_objective_on_the_command_line(
    particle_file: Path, truth: torch.Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reconstruct", str(particle_file), "-o", str(tmp_path / "run")]
    command += ["--reader", "my_reader:read_npz", "--objective", "my_objective:Ball"]
    command += ["--settings", "{batch_size: 100}", "--device", "cpu"]
    assert main(command) in ENDED
    assert "200 images, power" in capsys.readouterr().out
    assert main(command) in ENDED  # finished already
    result = cg.read_run(tmp_path / "run")
    assert result.objective == "my_objective:Ball"
    assert config_of(result)["batch_size"] == 100
    assert (result.folder / "report.html").is_file()
    assert result.half_map_crossings_A["half_map_0.143"] < 2.01 * PIXEL_SIZE_A
    found, known = (
        fourier.shell_mean(fourier.rfft(volume, 3).abs().square(), BOX, 3)[1:6]
        for volume in (result.map.volume, truth)
    )
    assert ((found / known).log().abs() < 1.0).all()  # e in power: 400 images, masked
    refined = cg.refine(result, settings=LIKELIHOOD, device="cpu")
    assert cg.evaluate(refined, truth=Map(truth, PIXEL_SIZE_A)).correlation > 0.5


def test_objective_resumes(particles: cg.Particles, folder: Path) -> None:
    objective = settings_for("my_objective:Ball", Assumptions(), {"batch_size": 90})
    whole = finished(objective, particles)["volume"]
    task = Task((particles,), None, 0, torch.device("cpu"))
    first = next(iter(objective.iterate(task, None, SINGLE_PROCESS)))
    *_, last = objective.iterate(task, first.state.record(), SINGLE_PROCESS)
    assert torch.equal(objective.outcome(last, task)["result.npz"]["volume"], whole)
    with pytest.raises(cg.InputError, match="it has batch_size"):
        settings_for("my_objective:Ball", Assumptions(), {"batch": 90})
    with pytest.raises(cg.InputError, match="cannot be imported"):
        settings_for("my_objective:Bull", Assumptions())


@pytest.mark.parametrize("name", ["critic", "volume_model"])
def test_what_cannot_be_imported_is_refused_at_once(
    name: str, particles: cg.Particles, tmp_path: Path
) -> None:
    settings = SHORT | {name: "my_critic:missing"}
    with pytest.raises(cg.InputError, match="cannot be imported"):
        cg.reconstruct(
            particles,
            objective="adversarial",
            settings=settings,
            folder=tmp_path / "run",
            device="cpu",
        )
    assert not (tmp_path / "run").exists()
