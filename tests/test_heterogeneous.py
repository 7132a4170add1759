"""Conformations by adversarial training, and `cryogan reconstruct --model heterogeneous`."""

import csv
import json
from dataclasses import replace

import pytest
import torch
import yaml

from adversarial_runs import CPU, begun, load_state, save_state
from cryogan.cli import main
from cryogan.cli.exit_codes import ENDED
from cryogan.errors import InputError
from cryogan.io.mrc import read_map
from cryogan.objectives.adversarial.config import (
    HETEROGENEOUS,
    HETEROGENEOUS_PRESETS,
    PAPER,
    AdversarialConfig,
    Stage,
)
from cryogan.objectives.adversarial.loop import train
from cryogan.objectives.adversarial.objective import Adversarial
from cryogan.objectives.adversarial.schedules import set_learning_rates
from cryogan.objectives.adversarial.simulated_images import member_of, simulate_batch
from cryogan.objectives.adversarial.stage import limited_to
from cryogan.objectives.adversarial.step import adversarial_step
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.data_parallel import ProcessGroup
from cryogan.phantom import phantom_map
from cryogan.physics.projection import volume_spectrum
from cryogan.simulation.in_memory import write_dataset
from simulated_sets import centred_particles

pytestmark = pytest.mark.slow

BOX, PIXEL_SIZE_A = 24, 8.0

LINE = Assumptions(latent="uniform")
TINY = AdversarialConfig(
    stages=(Stage(16, 48, consensus=True), Stage(16, 48), Stage(24, 48)),
    batch_size=8,
    critic_steps=1,
    penalty_every=4,
    templates=8,
    precision="float32",
    assumptions=LINE,
)
"""A mean volume, a path, a finer path: six steps each."""

UNET = replace(TINY, stages=(Stage(16, 48),), volume_model="unet", volumes_per_step=4)

VARIANTS = {
    "path": TINY,
    "classes": replace(
        TINY, assumptions=Assumptions(latent="discrete", classes=3), learn_scales=True
    ),
    "square": replace(TINY, assumptions=Assumptions("D2", latent="uniform2d")),
    "circle": replace(
        TINY,
        assumptions=Assumptions(latent="circle"),
        parametrisation="voxels",
        critic_steps=2,
    ),
    "wasserstein": replace(TINY, loss="wasserstein", assumptions=Assumptions(latent="discrete")),
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
    run = train(particles, config, seed=3, device=CPU, log_every=2, **options)
    for number, progress in enumerate(run):
        if folder is not None:
            save_state(folder / f"{number}.pt", progress.state)
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
        checkpoint = load_state(path)
        resumed = run_through(particles, config, checkpoint=checkpoint)
        for a, b in zip(parameters_of(resumed), parameters_of(final), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_that_is_learnt_moves(variant, particles):
    config = VARIANTS[variant]
    *_, last = train(particles, config, seed=3, device=CPU)
    state = last.state
    learnt = [p for p in state.volume.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in learnt]
    batches = iter([last.data.images.read(torch.arange(8))] * config.critic_steps)
    adversarial_step(state, config, last.data, last.settings, batches)
    for parameter, old in zip(learnt, before, strict=True):
        assert not torch.equal(parameter, old)


@pytest.mark.parametrize("variant", ["path", "unet"])
def test_members_of_a_group_simulate_their_parts_of_one_batch(variant, particles):
    config = VARIANTS[variant]
    last = len(config.stages) - 1
    images = []
    for group in (ProcessGroup(0, 1), ProcessGroup(0, 2), ProcessGroup(1, 2)):
        state, data, settings = begun(particles, config, stage=last)
        spectrum = volume_spectrum(state.volume.basis(state.generator), 3.0)
        mixture = member_of(state.volume.mixture(8, state.generator), group)
        images.append(
            simulate_batch(state, config, data, settings, spectrum, group, mixture).detach()
        )
    torch.testing.assert_close(torch.cat(images[1:]), images[0])


def test_the_path_begins_at_the_consensus_volume(particles):
    """After the consensus stage, the mean is what one volume would go on from, the rest small."""
    records = train(particles, TINY, seed=3, device=CPU, log_every=6)
    consensus = next(records).state.average.clone()
    assert consensus.shape == (16, 16, 16)
    previous, _, _ = begun(particles, TINY)
    previous.average = consensus
    state, _, _ = begun(particles, TINY, stage=1, previous=previous)
    alone = replace(TINY, volume_model="volume")
    mean = begun(particles, alone, stage=1, previous=previous)[0].average
    assert torch.equal(state.average[0], mean)
    small = state.average[1:].flatten(1).norm(dim=1) / mean.norm()
    assert 0.0 < float(small.min()) <= float(small.max()) < 0.05
    assert next(records).state.average.shape == (LINE.volumes, 16, 16, 16)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"assumptions": Assumptions(latent="discrete", classes=9)},
            "classes is 9; give 2 to batch_size",
        ),
        ({"volume_model": "subspaec"}, "'subspaec' is unknown; did you mean 'subspace'"),
        ({"stages": (Stage(16, 48, consensus=True),)}, "must come first and leave"),
        ({"stages": (Stage(16, 48), Stage(16, 48, consensus=True))}, "must come first and leave"),
    ],
)
def test_settings_that_do_not_fit_are_named(change, sentence):
    with pytest.raises(InputError, match=sentence):
        replace(TINY, **change)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            replace(TINY, assumptions=Assumptions(latent="circle", basis_volumes=1)),
            "basis_volumes is 1, and a latent 'circle' needs at least 2",
        ),
        (replace(TINY, volume_model="volume"), "single volume has no latent"),
        (replace(TINY, volume_model="subspace", assumptions=Assumptions()), "needs a latent"),
        (replace(UNET, assumptions=Assumptions()), "has a latent on a line"),
        (replace(UNET, assumptions=Assumptions(latent="circle")), "has a latent on a line"),
        (replace(UNET, assumptions=Assumptions(latent="discrete")), "has a latent on a line"),
        (replace(UNET, stages=(Stage(24, 48),)), "one stage with a box that is a multiple of 16"),
        (replace(UNET, stages=TINY.stages), "one stage with a box that is a multiple of 16"),
        (replace(UNET, volumes_per_step=3), "cannot be shared equally by 3 volumes"),
        (
            replace(UNET, assumptions=Assumptions("D2", latent="uniform")),
            "symmetry is D2, which the U-Net cannot impose",
        ),
    ],
)
def test_what_a_volume_model_cannot_do_is_refused(config, sentence, particles):
    """In one sentence, before anything is written."""
    with pytest.raises(InputError, match=sentence) as caught:
        Adversarial(config).check(particles)
    assert str(caught.value).endswith(".")
    assert ". " not in str(caught.value)


def test_what_the_volume_models_can_do_is_not(particles):
    for config in VARIANTS.values():
        Adversarial(config).check(particles)


def test_fewer_images_than_classes_are_refused(particles):
    config = replace(TINY, assumptions=Assumptions(latent="discrete", classes=5))
    with pytest.raises(InputError, match="fewer than two batches"):
        Adversarial(config).check(particles.subset(torch.arange(8)))


def test_particles_too_small_for_a_u_net_are_refused(particles):
    """Stages are limited to the particles' 24 px, which a U-Net cannot halve four times."""
    config = replace(UNET, stages=(Stage(32, 48),))
    with pytest.raises(InputError, match=r"a multiple of 16; .* \(here: 1, 24 px\)"):
        Adversarial(config).check(particles)
    assert limited_to(UNET, particles.box_size) == UNET


def test_consensus_and_conformations_of_one_box_stay_two_stages():
    limited = limited_to(HETEROGENEOUS, 20)
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
        set_learning_rates(state, config, fraction, len(data))
        assert state.volume_optimiser.param_groups[0]["lr"] == pytest.approx(factor, abs=1e-4)
        assert state.critic_optimiser.param_groups[0]["lr"] == pytest.approx(2 * factor, abs=2e-4)


def test_the_published_preset_has_the_published_networks():
    """Gupta et al. 2020: U-Net, 32 px, 1e5 images; otherwise CryoGAN's recipe."""
    published = HETEROGENEOUS_PRESETS["paper"]
    assert (published.volume_model, published.critic) == ("unet", "paper")
    assert published.stages[0].box_size == 32
    same = replace(PAPER, stages=published.stages, volume_model="unet")
    assert published == same


# The command


def command(dataset, output, *extra):
    stages = (
        "--adversarial.stages=[{box_size: 16, images: 96, consensus: true}, "
        "{box_size: 24, images: 192}]"
    )
    return [
        "reconstruct", str(dataset / "particles.star"), "-o", str(output),
        "--objective=adversarial", "--model", "heterogeneous", stages,
        "--adversarial.batch_size=16", "--adversarial.templates=4", "--device=cpu", *extra,
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
    assert main(command(dataset, folder)) in ENDED
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
    # Both halves have a path; the summary has how well they agree.
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
    extra = ["--latent=discrete", "--classes=3"]
    assert main(command(dataset, run, *extra)) in ENDED
    rows = table(run / "conformations" / "latents.csv")
    assert [float(row["z0"]) for row in rows] == [0, 1, 2]
    assert sum(float(row["weight"]) for row in rows) == pytest.approx(1.0, abs=1e-4)
    assert "morph" not in (run / "conformations" / "morph.cxc").read_text()


def printed_settings(*arguments):
    """What `--print_config` prints."""
    with pytest.raises(SystemExit) as left:
        main(["reconstruct", "particles.star", "-o", "run", *arguments, "--print_config"])
    assert left.value.code == 0


@pytest.mark.parametrize("preset", HETEROGENEOUS_PRESETS)
@pytest.mark.parametrize("words", [["--model", "heterogeneous"], ["--latent", "circle"]])
def test_conformations_have_defaults_of_their_own(preset, words, capsys):
    printed_settings("--preset", preset, *words)
    printed = yaml.safe_load(capsys.readouterr().out)["adversarial"]
    expected = HETEROGENEOUS_PRESETS[preset]
    assert printed["volume_model"] == expected.volume_model
    assert printed["volume_lr"] == expected.volume_lr
    assert len(printed["stages"]) == len(expected.stages)


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (["--latent=discrete", "--classes=1"], "classes is 1"),
        (["--classes=5"], "classes is 5, but the latent is not discrete"),
        (["--latent=circle", "--basis-volumes=1"], "basis_volumes is 1, and a latent 'circle'"),
        (["--adversarial.volume_model=volume"], "--adversarial.volume_model subspace"),
        (["--adversarial.volume_model=unet"], "in one stage with a box that is a multiple of 16"),
        (["--adversarial.batch_size=101", "--latent=discrete"], "fewer than two batches"),
        (["--latent=none"], "--model heterogeneous needs a latent"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(extra, sentence, dataset, tmp_path, capsys):
    stages = "--adversarial.stages=[{box_size: 16, images: 404}, {box_size: 24, images: 404}]"
    assert main([*command(dataset, tmp_path / "run"), stages, *extra]) == 2
    written = capsys.readouterr().err
    assert sentence in written
    assert written.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "volume_model", "critic"),
    [
        (["--config", "paper.yaml"], "unet", "paper"),
        (["--config", "paper.yaml", "--preset", "default"], None, "template"),
        (["--preset", "default", "--config=paper.yaml"], "unet", "paper"),
        (["--config", "paper.yaml", "--adversarial.critic", "compact"], "unet", "compact"),
        (["--config", "paper.yaml", "--model", "homogeneous"], None, "paper"),
    ],
)
def test_a_preset_in_a_file_decides_the_defaults(
    arguments, volume_model, critic, tmp_path, monkeypatch, capsys
):
    """As one on the command line does; the last word counts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paper.yaml").write_text(
        "model: heterogeneous\npreset: paper\nadversarial:\n  volumes_per_step: 4\n"
    )
    printed_settings(*arguments)
    printed = yaml.safe_load(capsys.readouterr().out)["adversarial"]
    assert (printed["volume_model"], printed["critic"]) == (volume_model, critic)
    assert printed["volumes_per_step"] == 4


def test_a_configuration_that_cannot_be_read_is_named(tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text("a: [1")
    for name, reason in (("none.yaml", "No such file"), ("bad.yaml", "line 1")):
        path = str(tmp_path / name)
        assert main(["reconstruct", "x.star", "-o", "run", "--config", path]) == 2
        assert reason in capsys.readouterr().err
