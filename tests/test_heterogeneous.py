"""`cryogan reconstruct --model heterogeneous`: the same loop, and what it leaves behind."""

import csv
import json
from dataclasses import replace

import pytest
import torch
import yaml

from cryogan.cli import main
from cryogan.errors import InputError
from cryogan.io.mrc import read_map
from cryogan.phantom import phantom_map
from cryogan.reconstruction import check_count
from cryogan.simulation.in_memory import write_dataset
from cryogan.training import loop
from cryogan.training.config import (
    HETEROGENEOUS,
    HETEROGENEOUS_PRESETS,
    PAPER,
    Stage,
    TrainingConfig,
)
from cryogan.training.data import measure, prepare_stage
from cryogan.training.state import begin_stage, load_checkpoint, save_checkpoint
from cryogan.training.team import Team
from simulated_sets import centred_particles

CPU = torch.device("cpu")
BOX, PIXEL_SIZE_A = 24, 8.0

TINY = TrainingConfig(
    stages=(Stage(16, 48, consensus=True), Stage(16, 48), Stage(24, 48)),
    generator="subspace",
    batch_size=8,
    critic_steps=1,
    penalty_every=4,
    templates=8,
    precision="float32",
)
"""A mean volume, a path, a finer path: six steps each."""

UNET = replace(TINY, stages=(Stage(16, 48),), generator="unet", volumes_per_step=4)

VARIANTS = {
    "path": TINY,
    "classes": replace(TINY, latent="discrete", classes=3, learn_scales=True),
    "square": replace(TINY, latent="uniform2d", symmetry="D2"),
    "circle": replace(TINY, latent="circle", parametrisation="voxels", critic_steps=2),
    "wasserstein": replace(TINY, loss="wasserstein", latent="discrete"),
    "unet": UNET,
}


@pytest.fixture(scope="module")
def particles():
    """200 images of the phantom, its hinge in two positions."""
    generator = torch.Generator().manual_seed(1)
    states = [phantom_map(BOX, PIXEL_SIZE_A, hinge_angle_deg=angle) for angle in (0.0, 30.0)]
    return centred_particles(torch.stack(states), PIXEL_SIZE_A, 200, 0.0, generator).particles


def run_through(particles, config, folder=None, **options):
    """The final state, and a checkpoint of every record in `folder`."""
    run = loop.train(particles, config, seed=3, device=CPU, log_every=2, **options)
    for number, progress in enumerate(run):
        if folder is not None:
            save_checkpoint(folder / f"{number}.pt", progress.state)
    return progress.state


def parameters_of(state):
    return [*state.volume.state_dict().values(), *state.critic.state_dict().values(), state.average]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_resumed_run_is_the_run_that_never_stopped(variant, particles, tmp_path):
    """Bit for bit, from the middle and the end of every stage."""
    config = VARIANTS[variant]
    final = run_through(particles, config, tmp_path)
    paths = sorted(tmp_path.iterdir(), key=lambda path: int(path.stem))
    for path in (paths[0], paths[len(paths) // 2], paths[-2]):
        checkpoint = load_checkpoint(path)
        resumed = run_through(particles, config, checkpoint=checkpoint)
        for a, b in zip(parameters_of(resumed), parameters_of(final), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_that_is_learnt_moves(variant, particles):
    config = VARIANTS[variant]
    *_, last = loop.train(particles, config, seed=3, device=CPU)
    state = last.state
    learnt = [p for p in state.volume.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in learnt]
    batches = iter([last.data.images.read(torch.arange(8))] * config.critic_steps)
    loop._step(state, config, last.data, last.settings, batches)
    for parameter, old in zip(learnt, before, strict=True):
        assert not torch.equal(parameter, old)


def begun(particles, config):
    """A state at the start of the first stage that learns conformations."""
    measurement = measure(particles, None)
    box_size = config.stages[-1].box_size
    settings = loop.preprocessing(config, measurement, box_size)
    data = prepare_stage(particles, settings, measurement, None, 1.0, CPU)
    generator = torch.Generator().manual_seed(0)
    number = len(config.stages) - 1
    state = begin_stage(config, number, box_size, data.spectra, generator, CPU, None)
    return state, data, settings


@pytest.mark.parametrize("variant", ["path", "unet"])
def test_members_of_a_team_simulate_their_parts_of_one_batch(variant, particles):
    config = VARIANTS[variant]
    images = []
    for team in (Team(0, 1), Team(0, 2), Team(1, 2)):
        state, data, settings = begun(particles, config)
        spectrum = loop.volume_spectrum(state.volume.components(state.generator), 3.0)
        mixture = loop._mine(state.volume.mixture(8, state.generator), team)
        images.append(
            loop.simulate_batch(state, config, data, settings, spectrum, team, mixture).detach()
        )
    torch.testing.assert_close(torch.cat(images[1:]), images[0])


def test_the_path_begins_at_the_consensus_volume(particles):
    """After the consensus stage, the mean is what one volume would go on from, the rest small."""
    records = loop.train(particles, TINY, seed=3, device=CPU, log_every=6)
    consensus = next(records).state.average.clone()
    assert consensus.shape == (16, 16, 16)
    measurement = measure(particles, None)
    settings = loop.preprocessing(TINY, measurement, 16)
    data = prepare_stage(particles, settings, measurement, None, 1.0, CPU)
    generator = torch.Generator().manual_seed(0)
    previous = begin_stage(TINY, 0, 16, data.spectra, generator, CPU, None)
    previous.average = consensus
    state = begin_stage(TINY, 1, 16, data.spectra, generator, CPU, previous)
    alone = replace(TINY, generator="volume")
    mean = begin_stage(alone, 1, 16, data.spectra, generator, CPU, previous).average
    assert torch.equal(state.average[0], mean)
    small = state.average[1:].flatten(1).norm(dim=1) / mean.norm()
    assert 0.0 < float(small.min()) <= float(small.max()) < 0.05
    assert next(records).state.average.shape == (1 + TINY.basis, 16, 16, 16)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"latent": "discrete", "classes": 1}, "classes is 1; give 2 to batch_size"),
        ({"latent": "discrete", "classes": 9}, "classes is 9; give 2 to batch_size"),
        ({"basis": 0}, "basis is 0, and a latent 'uniform' needs a basis of at least 1"),
        (
            {"latent": "circle", "basis": 1},
            "basis is 1, and a latent 'circle' needs a basis of at least 2",
        ),
        (
            {"latent": "discrete", "basis": 3},
            "basis is 3, but the volumes beside the mean of 2 classes",
        ),
        ({"classes": 3}, "classes is 3, but the latent is not discrete"),
        ({"generator": "volume", "latent": "circle"}, "latent is 'circle', but a single volume"),
        ({"stages": (Stage(16, 48, consensus=True),)}, "must come first and leave"),
        ({"stages": (Stage(16, 48), Stage(16, 48, consensus=True))}, "must come first and leave"),
    ],
)
def test_settings_that_do_not_fit_are_named(change, sentence):
    with pytest.raises(InputError, match=sentence):
        replace(TINY, **change)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"latent": "circle"}, "lives on a line, and the latent is 'circle'"),
        ({"stages": (Stage(24, 48),)}, "one stage with a box that is a multiple of 16"),
        ({"volumes_per_step": 3}, "cannot be shared equally by 3 volumes"),
        ({"symmetry": "D2"}, "symmetry is D2, which the U-Net cannot impose"),
    ],
)
def test_settings_that_do_not_fit_a_u_net_are_named(change, sentence):
    with pytest.raises(InputError, match=sentence):
        replace(UNET, **change)


def test_fewer_images_than_classes_are_refused(particles):
    config = replace(TINY, latent="discrete", classes=5)
    with pytest.raises(InputError, match="fewer than two batches"):
        check_count(particles.subset(torch.arange(8)), config)


def test_particles_too_small_for_a_u_net_are_refused(particles):
    """Stages are limited to the particles' 24 px, which a U-Net cannot halve four times."""
    config = replace(UNET, stages=(Stage(32, 48),))
    with pytest.raises(InputError, match="a multiple of 16, and the particles' 24 px are fewer"):
        loop.limited_to(config, particles.box_size)
    assert loop.limited_to(UNET, particles.box_size) == UNET


def test_consensus_and_conformations_of_one_box_stay_two_stages():
    limited = loop.limited_to(HETEROGENEOUS, 20)
    assert [stage.consensus for stage in limited.stages] == [True, False]
    assert {stage.box_size for stage in limited.stages} == {20}
    total = sum(stage.images for stage in HETEROGENEOUS.stages)
    assert sum(stage.images for stage in limited.stages) == total


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("hold", [1.0, 1.0, 0.525, 0.05]), ("cosine", [1.0, 0.525, 0.1891, 0.05])],
)
def test_learning_rates_are_held_or_fall_at_once(schedule, expected, particles):
    """Of 1 at the start, the middle, three quarters and the end; cosines to 5 %."""
    config = replace(TINY, lr_schedule=schedule, volume_lr=1.0, critic_lr=2.0)
    state, data, _ = begun(particles, config)
    for fraction, factor in zip((0.0, 0.5, 0.75, 1.0), expected, strict=True):
        loop._set_learning_rates(state, config, fraction, len(data))
        assert state.volume_optimiser.param_groups[0]["lr"] == pytest.approx(factor, abs=1e-4)
        assert state.critic_optimiser.param_groups[0]["lr"] == pytest.approx(2 * factor, abs=2e-4)


def test_the_published_preset_has_the_published_networks():
    """Gupta et al. 2020: U-Net, 32 px, 1e5 images; otherwise CryoGAN's recipe."""
    published = HETEROGENEOUS_PRESETS["paper"]
    assert (published.generator, published.critic, published.latent) == (
        "unet",
        "paper",
        "uniform",
    )
    assert published.stages[0].box_size == 32
    same = replace(PAPER, stages=published.stages, generator="unet")
    assert published == same


# The command


def command(dataset, output, *extra):
    stages = (
        "--training.stages=[{box_size: 16, images: 96, consensus: true}, "
        "{box_size: 24, images: 192}]"
    )
    return [
        "reconstruct", str(dataset / "particles.star"), "-o", str(output),
        "--model", "heterogeneous", stages, "--training.batch_size=16", "--training.templates=4",
        "--device=cpu", *extra,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(7)
    states = torch.stack([phantom_map(BOX, PIXEL_SIZE_A, hinge_angle_deg=a) for a in (0.0, 30.0)])
    simulated = centred_particles(states, PIXEL_SIZE_A, 200, 5.0, generator)
    write_dataset(folder, simulated, states[0])
    return folder


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    assert main(command(dataset, folder)) == 0
    return folder


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_run_folder_holds_the_conformations(finished):
    inside = finished / "conformations"
    latents = table(inside / "latents.csv")
    names = [row["volume"] for row in latents]
    assert names == [f"vol_{number:03d}.mrc" for number in range(20)]
    assert sum(float(row["weight"]) for row in latents) == pytest.approx(1.0, abs=1e-4)
    z = [float(row["z0"]) for row in latents]
    assert z == sorted(z)
    maps = [read_map(inside / name) for name in names]
    assert {map_.pixel_size_A for map_ in maps} == {PIXEL_SIZE_A}
    volumes = torch.stack([map_.volume for map_ in maps])
    assert volumes.shape == (20, BOX, BOX, BOX)
    # Tables against the maps themselves.
    weight = torch.tensor([float(row["weight"]) for row in latents])
    mean = (weight[:, None, None, None] * volumes).sum(0)
    norm = (mean - mean.mean()).norm()
    differences = table(inside / "differences.csv")
    found = torch.tensor([[float(row[name]) for name in names] for row in differences])
    flat = volumes.flatten(1)
    torch.testing.assert_close(found, torch.cdist(flat, flat) / norm, atol=2e-3, rtol=1e-2)
    *amplitudes, shares = table(inside / "pca.csv")
    assert shares["volume"] == "share_of_variance"
    first = torch.tensor([float(row["pc1"]) for row in amplitudes])
    variance = (weight * ((flat - mean.flatten()) / norm).square().sum(1)).sum()
    explained = (weight * first.square()).sum()
    assert float(explained / variance) == pytest.approx(float(shares["pc1"]), rel=1e-2)
    script = (inside / "morph.cxc").read_text()
    assert all(name in script for name in names)
    assert "volume morph #1-20" in script
    # Both halves have a path; the summary says how well they agree.
    agreement = json.loads((finished / "summary.json").read_text())["conformations"]
    assert set(agreement) == {
        "halves_mean_fsc_0.5_A",
        "halves_motion_fsc_0.5_A",
        "amplitude_half1",
        "amplitude_half2",
    }
    assert agreement["amplitude_half1"] > 0


def test_conformations_lie_in_the_frame_of_half_1(finished):
    """Their weighted mean is half1.mrc, up to what the sum over pieces of the path leaves out."""
    inside = finished / "conformations"
    rows = table(inside / "latents.csv")
    mean = sum(float(row["weight"]) * read_map(inside / row["volume"]).volume for row in rows)
    half1 = read_map(finished / "half1.mrc").volume
    assert float((mean - half1).norm() / half1.norm()) < 0.1


def test_classes_have_a_map_each(dataset, tmp_path):
    run = tmp_path / "run"
    extra = ["--training.latent=discrete", "--training.classes=3"]
    assert main(command(dataset, run, *extra)) == 0
    rows = table(run / "conformations" / "latents.csv")
    assert [float(row["z0"]) for row in rows] == [0, 1, 2]
    assert sum(float(row["weight"]) for row in rows) == pytest.approx(1.0, abs=1e-4)
    assert "morph" not in (run / "conformations" / "morph.cxc").read_text()


@pytest.mark.parametrize("preset", HETEROGENEOUS_PRESETS)
def test_the_model_decides_the_defaults(preset, dataset, capsys):
    request = ["reconstruct", str(dataset / "particles.star"), "-o", "run", "--preset", preset]
    with pytest.raises(SystemExit):
        main([*request, "--model", "heterogeneous", "--print_config"])
    printed = capsys.readouterr().out
    assert f"generator: {HETEROGENEOUS_PRESETS[preset].generator}\n" in printed


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (["--training.latent=discrete", "--training.classes=1"], "classes is 1"),
        (["--training.classes=5"], "classes is 5, but the latent is not discrete"),
        (["--training.generator=volume"], "give --training.generator subspace"),
        (["--training.generator=unet"], "in one stage with a box that is a multiple of 16"),
        (["--training.batch_size=101", "--training.latent=discrete"], "fewer than two batches"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(extra, sentence, dataset, tmp_path, capsys):
    stages = "--training.stages=[{box_size: 16, images: 404}, {box_size: 24, images: 404}]"
    assert main([*command(dataset, tmp_path / "run"), stages, *extra]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "generator", "critic"),
    [
        (["--config", "paper.yaml"], "unet", "paper"),
        (["--config", "paper.yaml", "--preset", "default"], "subspace", "template"),
        (["--preset", "default", "--config=paper.yaml"], "unet", "paper"),
        (["--config", "paper.yaml", "--training.critic", "compact"], "unet", "compact"),
        (["--config", "paper.yaml", "--model", "homogeneous"], "volume", "paper"),
    ],
)
def test_a_preset_in_a_file_decides_the_defaults(
    arguments, generator, critic, tmp_path, monkeypatch, capsys
):
    """As one on the command line does; the last word counts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paper.yaml").write_text(
        "model: heterogeneous\npreset: paper\ntraining:\n  volumes_per_step: 4\n"
    )
    with pytest.raises(SystemExit):
        main(["reconstruct", "particles.star", "-o", "run", *arguments, "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["training"]["generator"], printed["training"]["critic"]) == (generator, critic)
    assert printed["training"]["volumes_per_step"] == 4


def test_a_configuration_that_cannot_be_read_is_named(tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text("a: [1")
    for name, reason in (("none.yaml", "No such file"), ("bad.yaml", "line 1")):
        path = str(tmp_path / name)
        assert main(["reconstruct", "x.star", "-o", "run", "--config", path]) == 2
        assert reason in capsys.readouterr().err
