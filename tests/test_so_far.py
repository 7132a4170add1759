"""What a run writes for those who watch it, and that this changes nothing."""

import pytest
import torch

from adversarial_runs import CPU, differences, tensors_of
from cryogan.io.mrc import read_map
from cryogan.objectives.adversarial.config import AdversarialConfig, Stage
from cryogan.objectives.adversarial.objective import Adversarial
from cryogan.objectives.base import Task
from cryogan.objectives.data_parallel import SINGLE_PROCESS
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.objective import Likelihood
from cryogan.phantom import phantom_map
from cryogan.run.contents import EXAMPLES, MAP_SO_FAR
from cryogan.run.so_far import remove_maps_so_far, show_so_far, write_so_far
from simulated_sets import centred_particles

BOX, PIXEL_SIZE_A, COUNT = 16, 12.0, 200

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def particles():
    generator = torch.Generator().manual_seed(3)
    volume = phantom_map(BOX, PIXEL_SIZE_A)
    return centred_particles(volume, PIXEL_SIZE_A, COUNT, 5.0, generator).particles


def test_adversarial_training_is_left_as_it_is(particles, tmp_path):
    stages = (Stage(box_size=BOX, images=640),)
    objective = Adversarial(AdversarialConfig(stages=stages, batch_size=8, templates=4))
    task = Task((particles,), None, 0, CPU)
    step = next(iter(objective.iterate(task, None, SINGLE_PROCESS)))
    state = step.live.state
    before, drawn = tensors_of(state), state.generator.get_state()
    write_so_far(tmp_path, objective, step, task)
    assert differences(before, tensors_of(state)) == []
    assert torch.equal(drawn, state.generator.get_state())
    found = read_map(tmp_path / MAP_SO_FAR)
    assert found.pixel_size_A == pytest.approx(PIXEL_SIZE_A)
    torch.testing.assert_close(found.volume, step.section)
    assert (tmp_path / EXAMPLES).is_file()
    remove_maps_so_far([tmp_path])
    assert not (tmp_path / MAP_SO_FAR).exists()


def test_no_picture_ends_a_run(particles, tmp_path):
    class Unable:
        def examples(self, step, task):
            raise MemoryError

    class Step:
        section = None
        map_so_far = None

    with pytest.raises(MemoryError):
        write_so_far(tmp_path, Unable(), Step(), None)
    show_so_far(tmp_path, Unable(), Step(), None)
    assert list(tmp_path.iterdir()) == []


def test_the_likelihood_shows_its_initial_model_in_the_box_of_the_particles(particles, tmp_path):
    """Whatever box it works in itself."""
    objective = Likelihood(LikelihoodConfig(initial_batch_size=20))
    task = Task((particles.subset(torch.arange(100)), particles.subset(torch.arange(100, 200))),
                None, 0, CPU)  # fmt: skip
    step = next(iter(objective.iterate(task, None, SINGLE_PROCESS)))
    assert step.section is None
    write_so_far(tmp_path, objective, step, task)
    found = read_map(tmp_path / MAP_SO_FAR)
    width_A = found.volume.shape[-1] * found.pixel_size_A
    assert width_A == pytest.approx(BOX * PIXEL_SIZE_A)
    assert float(found.volume.std()) > 0
