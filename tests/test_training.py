"""Adversarial training: resumption, reproducibility, equal streams, and that it learns."""

import math
from dataclasses import replace

import pytest
import torch

from adversarial_runs import (
    CPU,
    begun,
    differences,
    load_state,
    save_state,
    stage_data,
    tensors_of,
)
from cryogan import fourier
from cryogan.data.statistics import measure
from cryogan.errors import InputError
from cryogan.evaluation.alignment import align
from cryogan.models.volume import initial_blob
from cryogan.objectives.adversarial import losses
from cryogan.objectives.adversarial.config import PAPER, PRESETS, AdversarialConfig, Stage
from cryogan.objectives.adversarial.examples import example_images, mean_power
from cryogan.objectives.adversarial.loop import train
from cryogan.objectives.adversarial.schedules import measure_convergence
from cryogan.objectives.adversarial.simulated_images import (
    draw_conditions,
    draw_noise,
    draw_scales,
    render,
    simulate_batch,
)
from cryogan.objectives.adversarial.stage import limited_to, prepare_stage, preprocessing
from cryogan.objectives.adversarial.state import begin_stage
from cryogan.objectives.adversarial.step import adversarial_step, in_bfloat16, scores_of
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.data_parallel import ProcessGroup
from cryogan.particles import ArrayStack, Particles
from cryogan.phantom import phantom_map
from cryogan.physics.ctf import ctf
from cryogan.physics.distributions import PoseDistribution, Uniform
from cryogan.physics.imaging import form_images, preprocess, rescale_volume
from cryogan.physics.noise import BackgroundPatches, WhiteNoise, colour, white
from cryogan.physics.projection import volume_spectrum
from cryogan.physics.spectra import PowerSpectra
from cryogan.run.checkpoint import load_checkpoint
from cryogan.simulation.microscope import random_ctf
from cryogan.symmetry import symmetry_matrices
from simulated_sets import centred_particles

pytestmark = pytest.mark.slow

TINY = AdversarialConfig(
    stages=(Stage(16, 6 * 8), Stage(24, 6 * 8)),
    batch_size=8,
    critic_steps=1,
    critic_channels=4,
    penalty_every=4,
    precision="float32",
    learn_scales=False,
)
"""Two stages of six steps."""

VARIANTS = {
    "default": TINY,
    "bfloat16": replace(TINY, precision="bfloat16"),
    "compact": replace(TINY, critic="compact"),
    "scales": replace(TINY, learn_scales=True),
    "published": replace(
        PAPER, stages=(Stage(16, 6 * 8), Stage(24, 6 * 8)), batch_size=4, critic_steps=2,
        critic_channels=4,
    ),
    "shifted": replace(
        TINY,
        assumptions=Assumptions(symmetry="D2", max_shift_percent=10.0),
        normalise=True,
        window_radius=0.8,
        power_limit=None,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def particles():
    """200 images of the phantom in 24 px of 8 Å."""
    generator = torch.Generator().manual_seed(1)
    return centred_particles(phantom_map(24, 8.0), 8.0, 200, 0.0, generator).particles


@pytest.fixture(scope="module")
def patches():
    patches = white(50, 24, torch.Generator().manual_seed(2))
    return BackgroundPatches(ArrayStack(patches))


def run_through(particles, config, folder=None, **options):
    """The final state and all records; a checkpoint of every record in `folder`, if given."""
    records = []
    for progress in train(particles, config, device=CPU, log_every=2, **options):
        records.append(progress.record)
        if folder is not None:
            save_state(folder / f"{len(records)}.pt", progress.state)
    return tensors_of(progress.state), records


@pytest.mark.parametrize("measured", [False, True], ids=["spectrum", "patches"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_resumed_run_is_the_run_that_never_stopped(
    variant, measured, particles, patches, tmp_path
):
    """Bit for bit, from the middle of each stage, from between stages, and from the end."""
    options = {"seed": 3, "noise": patches if measured else None}
    final, records = run_through(particles, VARIANTS[variant], tmp_path, **options)
    assert [(r["stage"], r["step"]) for r in records] == [
        (stage, step) for stage in (0, 1) for step in (2, 4, 6)
    ]
    for number in (1, 3, 4):
        checkpoint = load_state(tmp_path / f"{number}.pt")
        resumed, rest = run_through(particles, VARIANTS[variant], checkpoint=checkpoint, **options)
        assert rest == records[number:]
        assert differences(resumed, final) == []


def test_nothing_is_left_to_do_after_the_last_checkpoint(particles, tmp_path):
    run_through(particles, TINY, tmp_path, seed=3)
    checkpoint = load_state(tmp_path / "6.pt")
    assert list(train(particles, TINY, seed=3, device=CPU, checkpoint=checkpoint)) == []


def test_the_seed_decides_everything(particles):
    """And the global random state decides nothing, nor is it touched."""
    torch.manual_seed(1)
    first, _ = run_through(particles, TINY, seed=5)
    before = torch.manual_seed(2).get_state()
    second, _ = run_through(particles, TINY, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert differences(first, second) == []
    other, _ = run_through(particles, TINY, seed=6)
    learnt = {key for key in first if key.startswith(("volume parameter", "critic ", "average"))}
    assert learnt <= set(differences(first, other))


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(InputError, match=r"checkpoint\.pt"):
        load_checkpoint(path)


def batches_of(data, config):
    """Endless batches of real images."""
    generator = torch.Generator().manual_seed(4)
    while True:
        yield data.images.read(torch.randint(len(data), (config.batch_size,), generator=generator))


def values_of(parameters):
    return [parameter.detach().clone() for parameter in parameters]


def gradients_of(parameters):
    return [None if p.grad is None else p.grad.clone() for p in parameters]


def same(first, second):
    return all(
        (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("variant", ["scales", "published"])
def test_each_optimiser_moves_its_own_parameters_only(variant, particles):
    config = VARIANTS[variant]
    state, data, settings = begun(particles, config)
    critic = list(state.critic.parameters())
    volume = [state.volume.parameter, state.log_scales]
    moves = []

    def watched(optimiser, name):
        def before(*_):
            values = values_of(critic), values_of(volume)
            gradients = gradients_of(critic), gradients_of(volume)
            moves.append((name, values, gradients))

        def after(*_):
            moves[-1] = (*moves[-1], (values_of(critic), values_of(volume)))

        optimiser.register_step_pre_hook(before)
        optimiser.register_step_post_hook(after)

    watched(state.critic_optimiser, "critic")
    watched(state.volume_optimiser, "volume")
    for _ in range(2):
        adversarial_step(state, config, data, settings, batches_of(data, config))
        state.step += 1
    turn = ["critic"] * config.critic_steps + ["volume"]
    assert [move[0] for move in moves] == turn * 2
    for number, (name, before, gradients, after) in enumerate(moves):
        critic_same, volume_same = (same(a, b) for a, b in zip(before, after, strict=True))
        assert critic_same == (name == "volume")
        assert volume_same == (name == "critic")
        if number > 0:  # nothing moves between the optimisers' steps
            last_gradients, last_after = moves[number - 1][2:]
            assert same(before[0], last_after[0])
            assert same(before[1], last_after[1])
            # A backward pass leaves the other network's gradients alone.
            passive = 1 if name == "critic" else 0
            assert same(gradients[passive], last_gradients[passive])


@pytest.mark.parametrize("variant", ["scales", "published"])
def test_gradients_are_cleared_before_use(variant, particles):
    """Gradients left from elsewhere, however large, change nothing."""
    config = VARIANTS[variant]
    results = []
    for left in (None, 1e6):
        state, data, settings = begun(particles, config)
        for parameter in (*state.critic.parameters(), state.volume.parameter, state.log_scales):
            parameter.grad = None if left is None else torch.full_like(parameter, left)
        adversarial_step(state, config, data, settings, batches_of(data, config))
        results.append(tensors_of(state))
    assert differences(*results) == []


def test_the_volume_loss_is_under_the_critic_after_its_step(particles):
    """The relativistic loss pairs both streams under one and the same critic, the new one."""
    state, data, settings = begun(particles, TINY)
    shown = []
    state.critic.register_forward_hook(lambda _, args, out: shown.append((args[0], out)))
    values = adversarial_step(state, TINY, data, settings, batches_of(data, TINY))
    images, before = (tensor.detach() for tensor in shown[0])
    with torch.no_grad():
        after = state.critic(images)
    loss, stale, half_stale = (
        losses.volume_relativistic(real[:8], fake[8:])
        for real, fake in ((after, after), (before, before), (before, after))
    )
    torch.testing.assert_close(values["volume_loss"], loss)
    assert not torch.allclose(loss, stale)
    assert not torch.allclose(loss, half_stale)


# Real and simulated images as the critic sees them.

COUNT = 2000
PIXEL_SIZE_A = 6.0


def smooth_molecule(box_size, generator):
    """Six Gaussians, wide enough to have nothing near the Nyquist frequency of 16 px."""
    axis = torch.arange(box_size, dtype=torch.float32) - box_size // 2
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")[::-1], dim=-1)
    centres = torch.randn(6, 3, generator=generator) * box_size / 12
    return sum(torch.exp(-(grid - c).square().sum(-1) / (box_size / 8) ** 2) for c in centres)


def streams(box_size, stage_box, measured, exact, config, generator):
    """Real and simulated images (n, D, D) of the same molecule; noise at -8 dB, coloured.

    With `exact` the simulator has the true noise; otherwise it is measured.
    """
    molecule = smooth_molecule(box_size, generator)
    params = random_ctf(COUNT, generator)
    pose = PoseDistribution().sample(COUNT, generator)
    spectrum = volume_spectrum(molecule)
    clean = torch.cat(
        [
            form_images(
                spectrum,
                pose[chunk],
                ctf(params[chunk], box_size, PIXEL_SIZE_A),
                box_size=box_size,
                pixel_size_A=PIXEL_SIZE_A,
            )
            for chunk in torch.arange(COUNT).split(500)
        ]
    )
    shape = 0.5 + 2.0 * torch.exp(-torch.arange(box_size // 2 + 1) / 4.0)
    noise = shape * float(clean.square().mean()) * 10**0.8
    images = clean + colour(white(COUNT, box_size, generator), noise)
    particles = Particles(ArrayStack(images), params, PIXEL_SIZE_A)
    patches = None
    if measured:
        background = 3.0 * colour(white(COUNT, box_size, generator), noise)
        patches = BackgroundPatches(ArrayStack(background))
    measurement = measure(particles, patches)
    if exact and measured:
        measurement = replace(measurement, noise_gain=measurement.gain / 3.0)
    elif exact:
        true = PowerSpectra(measurement.spectra.signal, noise * measurement.gain**2)
        measurement = replace(measurement, spectra=true)
    settings = preprocessing(config, measurement, stage_box)
    data = prepare_stage(particles, config, settings, measurement, patches, CPU, Uniform())
    state = begin_stage(config, 0, data, generator, CPU, None)
    volume = rescale_volume(molecule, stage_box) * measurement.gain
    with torch.no_grad():
        simulated = [
            simulate_batch(state, config, data, settings, volume_spectrum(volume))
            for _ in range(COUNT // config.batch_size)
        ]
    return data.images.read(torch.arange(COUNT)), torch.cat(simulated)


def shell_power(images):
    """Mean power of every shell over the images, and its standard error."""
    size = images.shape[-1]
    power = fourier.shell_mean(fourier.rfft(images).abs().square() / size**2, size)
    return power.mean(0), power.std(0) / len(images) ** 0.5


def stream_config(stage_box, **settings):
    return AdversarialConfig(stages=(Stage(stage_box, 1000),), batch_size=500, **settings)


STREAMS = {
    "plain": {"power_limit": None, "band": 1.0},
    "filtered": {"power_limit": 5.0, "band": 0.8},
    "normalised": {"power_limit": None, "band": 1.0, "normalise": True, "window_radius": 0.8},
}


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("measured", [False, True], ids=["coloured", "patches"])
@pytest.mark.parametrize(("box_size", "stage_box"), [(32, 16), (33, 16), (32, 32)])
def test_real_and_simulated_images_agree(box_size, stage_box, measured, kind, generator):
    """In every shell within the statistical error, in pixel variance, and in what is cut away.

    Shell 0 is left out where one stream or both have no mean: patches, filter, normalisation.
    """
    settings = STREAMS[kind]
    config = stream_config(stage_box, **settings)
    real, simulated = streams(box_size, stage_box, measured, True, config, generator)
    (a, error_a), (b, error_b) = shell_power(real), shell_power(simulated)
    outermost = math.ceil(settings["band"] * stage_box / 2 - 0.5)
    shells = slice(1 if measured or kind != "plain" else 0, outermost + 1)
    error = (error_a.square() + error_b.square()).sqrt() + 1e-6 * a.max()
    assert ((a - b) / error)[shells].abs().max() < 4.0
    assert a[shells].min() > 0.1
    if settings["power_limit"] is not None:  # noise of power 1, and no shell much stronger
        assert a[shells].max() < settings["power_limit"]
    variances = [images.square().mean(dim=(1, 2)) for images in (real, simulated)]
    if kind != "normalised" and not measured:
        spread = sum(float(v.var()) for v in variances) / COUNT
        assert abs(float(variances[0].mean() - variances[1].mean())) < 4.0 * spread**0.5
    if settings.get("window_radius") is None:
        beyond = fourier.band_mask(stage_box, settings["band"] * stage_box / 2) == 0
        for images in (real, simulated):
            spectrum = fourier.rfft(images).abs()
            assert spectrum[:, beyond].max() < 1e-4 * spectrum.max()


@pytest.mark.parametrize("measured", [False, True], ids=["coloured", "patches"])
def test_measured_noise_makes_the_streams_agree_to_a_tenth(measured, generator):
    """What the fit of the spectra, blind to poses, leaves of a difference in any shell but 0.

    Shell 0 is one coefficient, whose noise is taken from its neighbours: a fifth may be missing.
    """
    config = stream_config(16, **STREAMS["plain"])
    real, simulated = streams(32, 16, measured, False, config, generator)
    ratio = shell_power(simulated)[0] / shell_power(real)[0]
    assert (ratio - 1.0)[1:].abs().max() < 0.1
    assert (ratio - 1.0)[5:].abs().max() < 0.06


def test_both_streams_are_flipped_by_their_own_ctfs(particles):
    """Real images: the unflipped ones times the sign of each one's CTF. Simulated ones, without
    noise: projections times the CTF's modulus."""
    config = replace(TINY, stages=(Stage(24, 8),), phase_flip=True)
    state, data, settings = begun(particles, config)
    size, pixel_size_A = data.box_size, data.pixel_size_A
    plain, _ = stage_data(particles, replace(config, phase_flip=False))
    everyone = torch.arange(len(data))
    sign = torch.where(ctf(particles.ctf, size, pixel_size_A) < 0, -1.0, 1.0)
    assert (sign < 0).double().mean() > 0.1
    expected = fourier.irfft(fourier.rfft(plain.images.read(everyone)) * sign, size)
    torch.testing.assert_close(data.images.read(everyone), expected, atol=1e-4, rtol=1e-3)

    silent = replace(data, noise=WhiteNoise(size, sigma=0.0))
    spectrum = volume_spectrum(phantom_map(24, 8.0), config.stages[0].padding)
    drawn = state.generator.get_state()

    def simulated(settings):
        state.generator.set_state(drawn)
        return simulate_batch(state, config, silent, settings, spectrum)

    unflipped = replace(settings, phase_flip=False)
    state.generator.set_state(drawn)
    pose, params = draw_conditions(state, config, silent)
    modulus = ctf(params, size, pixel_size_A).abs()
    expected = preprocess(render(state, config, silent, spectrum, pose, modulus, None), unflipped)
    scale = float(expected.abs().max())
    torch.testing.assert_close(simulated(settings), expected, atol=1e-4 * scale, rtol=0.0)
    assert (simulated(unflipped) - expected).abs().max() > 0.1 * scale


# From stage to stage.


@pytest.mark.parametrize("critic", ["template", "compact"])
def test_a_template_critic_goes_on_and_others_start_afresh(critic, particles):
    config = replace(TINY, critic=critic)
    state, data, settings = begun(particles, config)
    batches = data.images.batches(torch.arange(8 * number, 8 * number + 8) for number in range(3))
    for _ in range(3):
        adversarial_step(state, config, data, settings, batches)
    following, _, _ = begun(particles, config, stage=1, previous=state)
    old, new = state.critic.state_dict(), following.critic.state_dict()
    if critic == "template":
        _, orders, _, rings = old["templates"].shape
        copied = new["templates"].clone()
        assert torch.equal(copied[:, :orders, :, :rings], old["templates"])
        copied[:, :orders, :, :rings] = 0.0
        assert copied.abs().max() == 0
        for name in old.keys() - {"templates"}:
            assert torch.equal(new[name], old[name])
    else:
        for name in old.keys() & new.keys():
            assert new[name].shape != old[name].shape or not torch.equal(new[name], old[name])
    assert following.critic_optimiser.state_dict()["state"] == {}
    carried = rescale_volume(state.average, 24)
    assert (following.average - carried).norm() < 0.05 * carried.norm()


def test_a_stage_ends_when_the_volume_has_converged_but_never_the_last(particles):
    """At step 50, the first time that it is measured."""
    config = replace(
        TINY,
        stages=(Stage(16, 54 * 4), Stage(18, 52 * 4)),
        batch_size=4,
        penalty_every=100,
        converged_fsc=0.01,
    )
    records = [p.record for p in train(particles, config, seed=3, device=CPU, log_every=100)]
    assert [(r["stage"], r["step"]) for r in records] == [(0, 50), (1, 52)]
    assert all(r["converged"] >= 0.01 for r in records)
    patient = replace(config, converged_fsc=1.0)
    first = next(train(particles, patient, seed=3, device=CPU, log_every=100))
    assert first.record["step"] == 54
    assert first.record["converged"] == records[0]["converged"]
    assert first.fraction == pytest.approx(54 / 106)


def test_convergence_is_the_correlation_in_the_finest_third_of_the_shells(particles, generator):
    state, _, _ = begun(particles, TINY)
    first, second = torch.randn(2, 16, 16, 16, generator=generator)
    rings = fourier.rings_within(16, TINY.band)
    fine = fourier.shell_index(16, 3) > 2 * rings // 3
    fine = fine & (fourier.shell_index(16, 3) <= rings)

    def finest(volume):
        return fourier.irfft(fourier.rfft(volume, 3) * fine, 16, 3).flatten()

    expected = torch.corrcoef(torch.stack((finest(first), finest(second))))[0, 1]
    state.before, state.average = first, second
    measure_convergence(state, TINY)
    assert state.converged == pytest.approx(float(expected), abs=1e-4)
    assert torch.equal(state.before, second)
    measure_convergence(state, TINY)
    assert state.converged == pytest.approx(1.0, abs=1e-5)
    coarse = fourier.irfft(fourier.rfft(first, 3) * ~fine, 16, 3)
    state.average = second + 5.0 * coarse  # coarse shells do not count
    measure_convergence(state, TINY)
    assert state.converged == pytest.approx(1.0, abs=1e-4)


def test_stages_are_limited_to_the_box_of_the_images():
    config = replace(TINY, stages=(Stage(16, 100), Stage(24, 200), Stage(32, 300)))
    assert limited_to(config, 40) == config
    limited = limited_to(config, 21)
    assert limited == replace(config, stages=(Stage(16, 100), Stage(20, 500)))


def test_bfloat16_rounds_scores_and_leaves_everything_in_float32(particles):
    state, data, _ = begun(particles, TINY)
    images = data.images.read(torch.arange(50))
    exact = scores_of(state, TINY, images)
    rounded = scores_of(state, replace(TINY, precision="bfloat16"), images)
    assert rounded.dtype == torch.float32
    error = (rounded - exact).norm() / (exact - exact.mean()).norm()
    assert 1e-5 < error.item() < 0.1
    *_, last = train(particles, VARIANTS["bfloat16"], seed=1, device=CPU)
    floats = [v for v in tensors_of(last.state).values() if v.is_floating_point()]
    assert {value.dtype for value in floats} == {torch.float32}
    assert not in_bfloat16(TINY, CPU)
    assert in_bfloat16(VARIANTS["bfloat16"], CPU)


# Does it learn?

LEARNING = AdversarialConfig(
    stages=(Stage(16, 450 * 32),),
    loss="relativistic",
    critic="compact",
    critic_channels=16,
    parametrisation="fourier",
    positivity="leaky",
    band=0.9,
    power_limit=10.0,
    batch_size=32,
    critic_steps=1,
    penalty_weight=0.1,
    penalty_every=4,
    volume_lr=0.05,
    critic_lr=1e-3,
    ema_fraction=0.05,
)

LEARNING_TEMPLATES = replace(
    LEARNING,
    stages=(Stage(16, 160 * 32),),
    critic="template",
    templates=16,
    penalty_weight=0.05,
    volume_lr=0.1,
    critic_lr=3e-3,
    precision="float32",
)

LEARNING_PUBLISHED = replace(
    PAPER,
    stages=(Stage(16, 75 * 32),),
    critic_channels=16,
    batch_size=8,
    critic_steps=4,
    penalty_weight=0.01,
    volume_lr=0.03,
    critic_lr=1e-3,
)


@pytest.mark.parametrize(
    ("config", "reached"),
    [(LEARNING_TEMPLATES, 0.78), (LEARNING, 0.8), (LEARNING_PUBLISHED, 0.58)],
    ids=["template", "compact", "paper"],
)
def test_the_map_comes_to_look_like_the_molecule(config, reached, generator):
    """From images alone: correlation with the truth after alignment over rotation and hand.

    The blob that a run starts from reaches 0.49, random maps of the truth's amplitudes 0.33.
    """
    truth = phantom_map(16, 12.0) * fourier.soft_disc(16, 6.4, 1.2, 3)
    particles = centred_particles(phantom_map(16, 12.0), 12.0, 2000, 10.0, generator).particles
    assert align(initial_blob(16, torch.ones(9)), truth, 12.0).correlation < 0.55
    *_, last = train(particles, config, seed=1, device=CPU)
    assert align(last.state.average, truth, 12.0).correlation > reached


def test_symmetry_is_kept_by_the_average(particles):
    """To rounding: the operators of D2 permute the grid's axes."""
    state = None
    for progress in train(
        particles, replace(TINY, assumptions=Assumptions("D2")), seed=1, device=CPU
    ):
        state = progress.state
    inner = state.average[1:, 1:, 1:]  # index 0 of an even box has no partner
    for axes in ((0, 1), (0, 2), (1, 2)):  # half a turn about x, y, z
        torch.testing.assert_close(inner.flip(axes), inner, atol=1e-5, rtol=1e-4)
    assert (inner.flip(0) - inner).abs().max() > 1e-3  # no mirror
    assert len(symmetry_matrices("D2")) == 4


def test_learnt_scales_multiply_signal_and_noise(particles):
    """Contrast 2 and noise scale 3, from their logarithms, before preprocessing."""
    config = VARIANTS["scales"]
    state, data, _ = begun(particles, config)
    spectrum = volume_spectrum(state.volume().detach())
    pose, params = draw_conditions(state, config, data)
    transfer = ctf(params, data.box_size, data.pixel_size_A)
    noise = draw_noise(state, config, data)

    def images(with_noise):
        noise_or_none = noise if with_noise else None
        return render(state, config, data, spectrum, pose, transfer, noise_or_none).detach()

    clean = images(False)
    torch.testing.assert_close(images(True) - clean, noise, atol=1e-4, rtol=0.0)
    with torch.no_grad():
        state.log_scales.copy_(torch.tensor([2.0, 3.0]).log())
    torch.testing.assert_close(images(False), 2.0 * clean)
    torch.testing.assert_close(images(True), 2.0 * clean + 3.0 * noise, atol=1e-4, rtol=1e-4)


def test_simulated_images_differ_in_scale_as_particles_do(particles):
    """By chance, drawn for a whole batch, of which members of a group take their parts."""
    state, data, _ = begun(particles, TINY)
    config, data = (
        replace(TINY, batch_size=1024, stages=(Stage(16, 1024),)),
        replace(data, scale_sd=0.3),
    )
    start = state.generator.get_state()
    scales = draw_scales(state, config, data)
    assert scales.shape == (1024, 1, 1)
    assert float(scales.log().std()) == pytest.approx(0.3, rel=0.1)
    assert float(scales.log().mean()) == pytest.approx(0.0, abs=0.04)
    parts = []
    for rank in (0, 1):
        state.generator.set_state(start)
        parts.append(draw_scales(state, config, data, ProcessGroup(rank, 2)))
    assert torch.equal(torch.cat(parts), scales)


def test_white_noise_has_a_level_spectrum(generator):
    """Its power is the variance of a pixel, in every shell and whatever the batches."""
    images = 1.5 * torch.randn(600, 16, 16, generator=generator)
    power = mean_power(images.split(250))
    assert power.shape == (9,)
    torch.testing.assert_close(power[1:], torch.full((8,), 2.25), rtol=0.06, atol=0.0)


def test_example_images_show_both_streams(particles):
    """`noisy` is `ctf` and noise; `clean` has no CTF."""
    config = replace(TINY, power_limit=None, normalise=False)
    *_, last = train(particles, config, seed=1, device=CPU)
    examples = example_images(last, config)
    shapes = dict.fromkeys(("real", "clean", "ctf", "noisy"), (8, 24, 24))
    shapes |= dict.fromkeys(("real_power", "noisy_power"), (13,))
    assert {name: tuple(a.shape) for name, a in examples.items()} == shapes | {"power_images": (1,)}
    count = len(last.data)
    assert int(examples["power_images"]) == count
    everything = mean_power([last.data.images.read(torch.arange(count))])
    torch.testing.assert_close(examples["real_power"], everything, rtol=1e-4, atol=1e-6)
    ratio = examples["noisy_power"][6:12] / everything[6:12]  # noise, mostly
    assert 0.5 < float(ratio.mean()) < 2.0
    torch.testing.assert_close(examples["real"], last.data.images.read(torch.arange(8)))
    noise = examples["noisy"] - examples["ctf"]
    assert 0.6 < float(noise.std()) < 1.2
    assert not torch.allclose(examples["clean"], examples["ctf"], atol=0.1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"stages": ()}, "no training stage"),
        ({"stages": (Stage(15, 1000),)}, "box size 15"),
        ({"stages": (Stage(8, 1000),)}, "box size 8"),
        ({"stages": (Stage(16, 1000), Stage(32, 3))}, "Stage 2 shows 3 images"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"critic_steps": 0}, "critic_steps is 0"),
        ({"penalty_every": 0}, "penalty_every is 0"),
        ({"critic_channels": -1}, "critic_channels is -1"),
        ({"converged_fsc": 0.0}, "converged_fsc is 0.0"),
        ({"converged_fsc": 1.1}, "converged_fsc is 1.1"),
        ({"templates": 0}, "templates is 0"),
        ({"stages": (Stage(16, 1000, padding=0.9),)}, "Stage 1 has padding 0.9"),
        ({"stages": (Stage(16, 1000, padding=9.0),)}, "Stage 1 has padding 9.0"),
        ({"volume_lr": 0.0}, "volume_lr is 0.0; give a learning rate above 0, at most 10"),
        ({"critic_lr": math.inf}, "critic_lr is inf"),
        ({"basis_noise": -0.1}, "basis_noise is -0.1"),
        ({"power_limit": 0.0}, "power_limit is 0.0"),
        ({"penalty_weight": -1.0}, "penalty_weight is -1.0"),
        ({"lr_epoch_factor": 1.5}, "lr_epoch_factor is 1.5"),
        ({"ema_fraction": 1.1}, "ema_fraction is 1.1"),
        ({"band": 0.2}, "band is 0.2"),
        ({"band": 1.01}, "band is 1.01"),
        ({"window_radius": 3.0}, "window_radius is 3.0"),
        ({"memory_GB": -1.0}, "memory_GB is -1.0"),
        ({"betas": (0.5, 1.0)}, "betas is 0.5, 1.0"),
        ({"betas": (-0.1, 0.9)}, "betas is -0.1, 0.9"),
    ],
)
def test_wrong_settings_are_named(change, sentence):
    """In one sentence."""
    with pytest.raises(InputError, match=sentence) as caught:
        replace(AdversarialConfig(), **change)
    assert str(caught.value).endswith(".")
    assert ". " not in str(caught.value)


def test_extreme_settings_that_fit_are_taken():
    """The ends of the ranges, and None where it means: not at all."""
    replace(
        AdversarialConfig(),
        stages=(Stage(16, 1000, padding=1.0), Stage(16, 1000, padding=8.0)),
        betas=(0.0, 0.999),
        band=1.0,
        window_radius=None,
        power_limit=None,
        penalty_weight=0.0,
        lr_epoch_factor=1.0,
        ema_fraction=0.0,
        memory_GB=0.0,
    )


def test_the_published_preset_is_the_published_recipe():
    """Gupta et al. 2021: the numbers of the paper's synthetic experiment."""
    assert PRESETS["paper"] is PAPER
    assert (PAPER.loss, PAPER.critic, PAPER.critic_channels) == ("wasserstein", "paper", 96)
    assert (PAPER.batch_size, PAPER.critic_steps, PAPER.penalty_weight) == (8, 4, 0.01)
    assert (PAPER.volume_lr, PAPER.critic_lr, PAPER.betas) == (1e-3, 1e-3, (0.5, 0.9))
    assert (PAPER.lr_schedule, PAPER.lr_epoch_factor) == ("epoch", 0.99)
    assert (PAPER.parametrisation, PAPER.positivity) == ("voxels", "relu")
    assert PAPER.learn_scales
    assert PAPER.normalise
    assert not PAPER.estimate_spectra
    assert sum(stage.images for stage in PAPER.stages) == 40 * 41_123
