"""Images held in memory or streamed from their files: the same training, errors included."""

import itertools
import os
import threading
from dataclasses import replace

import pytest
import torch

from adversarial_runs import CPU, load_state, save_state
from cryogan.data.images import (
    HeldImages,
    PreprocessedStack,
    StreamedImages,
    hold_or_stream,
    real_indices,
)
from cryogan.data.statistics import measure
from cryogan.errors import InputError
from cryogan.io.mrc import MrcStack, write_stack
from cryogan.objectives.adversarial.config import PAPER, AdversarialConfig, Stage
from cryogan.objectives.adversarial.examples import example_images
from cryogan.objectives.adversarial.loop import train
from cryogan.objectives.adversarial.objective import Adversarial
from cryogan.objectives.adversarial.stage import preprocessing
from cryogan.objectives.base import Task
from cryogan.objectives.data_parallel import SINGLE_PROCESS
from cryogan.particles import ArrayStack, Particles
from cryogan.phantom import phantom_map
from cryogan.physics.imaging import Preprocessing
from cryogan.simulation.microscope import random_ctf
from simulated_sets import centred_particles

COUNT, BOX, PIXEL_SIZE_A = 200, 24, 8.0

TINY = AdversarialConfig(
    stages=(Stage(16, 6 * 8), Stage(24, 6 * 8)), batch_size=8, templates=4, precision="float32"
)
PUBLISHED = replace(
    PAPER, stages=TINY.stages, batch_size=4, critic_steps=2, critic_channels=4, memory_GB=1.0
)
HELD_HALF = 3 * COUNT * BOX**2 / 1e9  # GB: too little for float32, enough for float16
HELD_WHOLE = 4 * COUNT * BOX**2 / 1e9  # GB: just enough for float32


# an image is preprocessed alike to the last bit in batches no smaller than that
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert reading_threads() == []


def reading_threads():
    return [t for t in threading.enumerate() if t.name.startswith("cryogan-images")]


@pytest.fixture(scope="module")
def in_memory():
    """200 images of the phantom in 24 px of 8 Å."""
    generator = torch.Generator().manual_seed(1)
    return centred_particles(
        phantom_map(BOX, PIXEL_SIZE_A), PIXEL_SIZE_A, COUNT, 0.0, generator
    ).particles


@pytest.fixture
def particles(in_memory, tmp_path):
    """The same in two stacks on disk, in an order of their own."""
    images = in_memory.stack.images
    paths = [tmp_path / "first.mrcs", tmp_path / "second.mrcs"]
    for path, part in zip(paths, images.split([130, 70]), strict=True):
        write_stack(path, part, PIXEL_SIZE_A)
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(2))
    stack = MrcStack.open(*paths)
    return Particles(stack, in_memory.ctf, PIXEL_SIZE_A).subset(order)


@pytest.fixture
def stack(particles):
    """The particles as a stage's critic sees them."""
    measurement = measure(particles, None)
    settings = preprocessing(TINY, measurement, 16)
    return PreprocessedStack(particles, measurement.gain, settings)


def indices(number=12, n=8):
    return real_indices(3, 0, range(number), 1, n, COUNT)


def batches_of(images, **options):
    return torch.stack(list(images.batches(indices(**options))))


# Which kind


def test_what_fits_is_held_and_the_rest_is_streamed(stack):
    pixels = COUNT * 16**2
    for bytes_, dtype in [(4 * pixels, torch.float32), (4 * pixels - 1, torch.float16)]:
        held = hold_or_stream(stack, bytes_ / 1e9, CPU)
        assert isinstance(held, HeldImages)
        assert (held.images.dtype, held.images.shape) == (dtype, (COUNT, 16, 16))
    assert hold_or_stream(stack, 2 * pixels / 1e9, CPU).images.dtype == torch.float16
    for bytes_ in (2 * pixels - 1, 0):
        assert isinstance(hold_or_stream(stack, bytes_ / 1e9, CPU), StreamedImages)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"whitening": None}, StreamedImages),
        ({"whitening": None, "normalise": True}, HeldImages),
        ({}, HeldImages),
    ],
)
def test_images_that_may_have_a_mean_are_not_rounded_to_float16(change, kind, stack):
    stack = replace(stack, settings=replace(stack.settings, **change))
    assert isinstance(hold_or_stream(stack, 3 * COUNT * 16**2 / 1e9, CPU), kind)


def test_a_hot_pixel_does_not_become_infinite_in_float16():
    images = torch.zeros(4, 16, 16)
    images[1, 8, 8], images[2, 8, 8] = 1e7, -1e7
    particles = Particles(
        ArrayStack(images), random_ctf(4, torch.Generator().manual_seed(0)), PIXEL_SIZE_A
    )
    settings = Preprocessing(16, whitening=torch.ones(9))
    held = hold_or_stream(PreprocessedStack(particles, 1.0, settings), 3e-6, CPU)
    assert held.images.dtype == torch.float16
    extremes = held.read(torch.arange(4))[:, 8, 8]
    torch.testing.assert_close(extremes, torch.tensor([0.0, 65504.0, -65504.0, 0.0]))


# Which images


def test_all_kinds_give_the_same_batches(stack):
    whole = batches_of(hold_or_stream(stack, 1.0, CPU))
    assert whole.shape == (12, 8, 16, 16)
    assert 0.5 < whole.std() < 3.0
    for ahead in (1, 2, 5, 30):
        assert torch.equal(batches_of(StreamedImages(stack, CPU, ahead)), whole)
    rounded = batches_of(hold_or_stream(stack, 3 * COUNT * 16**2 / 1e9, CPU))
    assert rounded.dtype == torch.float32
    error = (rounded - whole).abs()
    assert (error <= 2.0**-11 * whole.abs() + 2.0**-25).all()
    assert error.max() > 0


def test_read_gives_the_images_asked_for(particles, stack):
    """Against `ArrayStack`, whose order is plain, with neighbours of another batch."""
    everything = replace(particles, stack=ArrayStack(particles.stack.read(torch.arange(COUNT))))
    plain = replace(stack, particles=everything).read(torch.arange(COUNT))
    index = torch.tensor([199, 0, 77, 77, 131])
    for memory_GB in (1.0, 0.0):
        images = hold_or_stream(stack, memory_GB, CPU)
        assert len(images) == COUNT
        assert images.box_size == 16
        torch.testing.assert_close(images.read(index), plain[index], rtol=0, atol=1e-6)


def test_the_numbers_drawn_depend_on_run_stage_and_step_only():
    whole = list(real_indices(5, 1, range(20), 3, 16, COUNT))
    later = list(real_indices(5, 1, range(7, 20), 3, 16, COUNT))
    assert all(torch.equal(a, b) for a, b in zip(whole[3 * 7 :], later, strict=True))
    others = [*whole, *real_indices(6, 1, range(20), 3, 16, COUNT)]
    others += [*real_indices(5, 0, range(20), 3, 16, COUNT)]
    others += [*real_indices(-5, 1, range(20), 3, 16, COUNT)]
    assert len({tuple(index.tolist()) for index in others}) == 4 * 20 * 3


def test_every_image_is_drawn_equally_often():
    """χ² of 200,000 draws over 200 images: mean 199, standard deviation 20."""
    draws = torch.cat(list(real_indices(0, 0, range(500), 2, 200, COUNT)))
    counts = torch.bincount(draws, minlength=COUNT)
    chi_squared = float(((counts - 1000.0) ** 2 / 1000.0).sum())
    assert 199 - 5 * 20 < chi_squared < 199 + 5 * 20


# The same training


def trained(particles, config, folder=None, checkpoint=None):
    """Records, volumes and critics along a run; a checkpoint of every record in `folder`."""
    records, states = [], []
    for progress in train(
        particles, config, seed=3, device=CPU, log_every=2, checkpoint=checkpoint
    ):
        state = progress.state
        records.append(progress.record)
        states.append(
            [state.average.clone(), *(p.detach().clone() for p in state.critic.parameters())]
        )
        if folder is not None:
            save_state(folder / f"{len(records)}.pt", state)
    return records, states, progress


def same(first, second):
    return all(
        torch.equal(a, b)
        for x, y in zip(first, second, strict=True)
        for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize("config", [TINY, PUBLISHED], ids=["default", "published"])
def test_a_streamed_run_is_the_run_in_memory(config, particles):
    held = trained(particles, config)
    streamed = trained(particles, replace(config, memory_GB=0.0))
    assert isinstance(held[2].data.images, HeldImages)
    assert isinstance(streamed[2].data.images, StreamedImages)
    assert held[0] == streamed[0]
    assert same(held[1], streamed[1])
    examples = [example_images(run[2], config)["real"] for run in (held, streamed)]
    torch.testing.assert_close(*examples, rtol=0, atol=1e-6)


def test_float16_changes_a_run_by_its_rounding_only(particles):
    held, half = trained(particles, TINY), trained(particles, replace(TINY, memory_GB=HELD_HALF))
    assert half[2].data.images.images.dtype == torch.float16
    assert half[0][:3] == held[0][:3]  # at 16 px, float32 fits
    assert half[0][3] != held[0][3]
    for a, b in zip(held[0], half[0], strict=True):
        assert b == pytest.approx(a, rel=0.02, abs=0.02)


@pytest.mark.parametrize("config", [TINY, PUBLISHED], ids=["default", "published"])
def test_a_resumed_streamed_run_is_the_run_that_never_stopped(config, particles, tmp_path):
    config = replace(config, memory_GB=0.0)
    records, states, _ = trained(particles, config, tmp_path)
    for number in (1, 3, 4):  # amid a stage, between stages, amid the second
        checkpoint = load_state(tmp_path / f"{number}.pt")
        again, states_again, _ = trained(particles, config, checkpoint=checkpoint)
        assert again == records[number:]
        assert same(states_again, states[number:])


def test_each_half_set_takes_half_of_the_memory(particles):
    """`memory_GB` is for both: what holds one set as float32 holds both as float16."""
    whole = trained(particles, replace(TINY, memory_GB=HELD_WHOLE))[2].data.images.images
    assert whole.dtype == torch.float32
    objective = Adversarial(replace(TINY, memory_GB=HELD_WHOLE))
    *_, last = objective.iterate(Task((particles,), None, 3, CPU), None, SINGLE_PROCESS)
    assert last.live.data.images.images.dtype == torch.float16


def test_a_stage_leaves_no_images_behind(particles):
    """Not even where the caller still holds the last record of the stage before."""
    stages = []
    for progress in train(particles, TINY, seed=3, device=CPU, log_every=6):
        stages.append(progress.data.images)
    assert [len(images) for images in stages] == [0, COUNT]


# Errors


def spoilt_by_nan(path):
    images = MrcStack.open(path).read(torch.arange(70))
    images[40, 3, 5] = torch.nan
    before = path.stat()
    write_stack(path, images, PIXEL_SIZE_A)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as if it had always been there


def cut_short(path):
    with path.open("r+b") as file:
        file.truncate(1024 + 40 * 4 * BOX**2 + 100)


SPOIL = {
    "nan": (spoilt_by_nan, r"Image 41 of .*second\.mrcs holds NaN"),
    "cut": (cut_short, r"second\.mrcs has been cut short: its section 41 is not there"),
    "gone": (lambda path: path.unlink(), r"Cannot read .*second\.mrcs: No such file"),
}


@pytest.mark.parametrize("how", SPOIL)
def test_an_error_of_the_thread_is_that_of_reading(how, stack, tmp_path):
    """It comes when the batch that holds the image is due, and not before."""
    spoil, message = SPOIL[how]
    spoil(tmp_path / "second.mrcs")
    order = stack.particles.stack.index
    good, bad = (order < 130).nonzero()[:, 0], (order == 170).nonzero()[:, 0]
    images = StreamedImages(stack, CPU)
    batches = images.batches(iter([good[:8], good[8:16], bad, good[16:24]]))
    for start in (0, 8):
        assert torch.equal(next(batches), stack.read(good[start : start + 8]))
    with pytest.raises(InputError, match=message):
        next(batches)
    assert reading_threads() == []
    with pytest.raises(InputError, match=message):
        images.read(bad)


def test_an_error_of_the_thread_ends_training(particles, tmp_path):
    config = replace(TINY, stages=(Stage(16, 2000),), memory_GB=0.0)
    training = train(particles, config, seed=3, device=CPU, log_every=1)
    next(training)
    cut_short(tmp_path / "second.mrcs")
    with pytest.raises(InputError, match=r"cut short|written to"):
        list(training)


# The thread


def test_the_thread_ends_with_training_however_it_ends(particles):
    config = replace(TINY, memory_GB=0.0)

    def started():
        training = train(particles, config, seed=3, device=CPU, log_every=1)
        next(training)
        assert len(reading_threads()) == 1
        return training

    list(started())
    assert reading_threads() == []
    started().close()
    assert reading_threads() == []
    training = started()
    with pytest.raises(ZeroDivisionError):
        training.throw(ZeroDivisionError)
    assert reading_threads() == []
    for _ in train(particles, config, seed=3, device=CPU, log_every=1):
        break
    assert reading_threads() == []


def test_the_thread_reads_no_further_ahead_than_it_is_told(stack):
    """Endless indices; what has been taken of them is what was asked for and 3 more."""
    taken = []
    source = (taken.append(step) or torch.tensor([step, 0]) for step in itertools.count())
    batches = StreamedImages(stack, CPU, ahead=3).batches(source)
    for number in range(1, 6):
        next(batches)
        assert len(taken) == number + 3
    batches.close()


@pytest.mark.parametrize("memory_GB", [-1.0, float("nan")])
def test_a_memory_that_is_no_amount_is_refused(memory_GB):
    with pytest.raises(InputError, match="memory_GB"):
        replace(TINY, memory_GB=memory_GB)
