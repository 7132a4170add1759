"""What trained critics think of single particles.

A critic that has learnt all it can scores an image by log p(real) / p(simulated). An image of the
molecule is about as probable either way. Junk need not be: the simulator makes none, so that a
critic which was shown enough of it among the real images scores it high; one which was not may
score it low. docs/likelihood.md has what was measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cryogan.errors import InputError
from cryogan.particles import Particles
from cryogan.physics.noise import BackgroundPatches
from cryogan.training.config import Stage, TrainingConfig
from cryogan.training.data import measure
from cryogan.training.loop import limited_to, preprocessing
from cryogan.training.state import load_checkpoint, make_critic
from cryogan.training.stream import PreprocessedStack

_CHUNK = 512


@dataclass(frozen=True)
class Judge:
    """The critic of one half-set.

    Attributes:
        critic: gives (n,) scores to images (n, D, D).
        config: of its training.
        box_size: D, that of its last stage.
    """

    critic: nn.Module
    config: TrainingConfig
    box_size: int

    @torch.no_grad()
    def scores(
        self,
        particles: Particles,
        measured: Particles,
        background: BackgroundPatches | None,
        device: torch.device,
    ) -> Tensor:
        """(n,) scores of particles, preprocessed as in training, in float32, on the CPU.

        Args:
            particles: n images.
            measured: particles whose spectra make filter and gain: in training, the critic's half.
            background: as for training.
            device: where the critic judges.

        Raises:
            InputError: an image cannot be used.
        """
        measurement = measure(measured, background)
        settings = preprocessing(self.config, measurement, self.box_size)
        stack = PreprocessedStack(particles, measurement.gain, settings)
        critic = self.critic.to(device)
        chunks = torch.split(torch.arange(len(particles)), _CHUNK)
        return torch.cat([critic(stack.read(index).to(device)).cpu() for index in chunks])


def read_judges(folder: Path, config: dict[str, Any], box_size: int) -> list[Judge]:
    """The critics of both halves of a run, as training left them; none if it has none.

    Args:
        folder: of the run.
        config: its settings, as written in `config.json`.
        box_size: of its particles.

    Raises:
        InputError: there are critics which cannot be read.
    """
    paths = [folder / f"half{number}" / "checkpoint.pt" for number in (1, 2)]
    if not all(path.is_file() for path in paths):
        return []
    return [_read_judge(path, config, box_size) for path in paths]


def _read_judge(path: Path, config: dict[str, Any], box_size: int) -> Judge:
    checkpoint = load_checkpoint(path)
    try:
        stages = tuple(Stage(**stage) for stage in config["stages"])
        settings = TrainingConfig(**{**config, "stages": stages, "betas": tuple(config["betas"])})
        settings = limited_to(settings, box_size)
        size = settings.stages[checkpoint["stage"]].box_size
        critic = make_critic(settings, size)
        critic.load_state_dict(checkpoint["critic"])
    except (KeyError, TypeError, IndexError, RuntimeError) as error:
        raise InputError(
            f"{path} does not belong to the settings in config.json or to this version; move it "
            "away to do without the critic's scores."
        ) from error
    return Judge(critic.eval(), settings, size)


def cross_judged(
    judges: Sequence[Judge],
    particles: Particles,
    halves: tuple[Tensor, Tensor] | None,
    background: BackgroundPatches | None,
    device: torch.device,
) -> Tensor:
    """(n,) standardised scores of particles by critics that have never seen them.

    A critic may know the images of its own half by heart, so each half is judged by the critic of
    the other, as that one was shown images, and standardised by itself: two critics have no
    common scale. Particles that are not the run's are judged by both, with filters of their own
    spectra; the score is the standardised sum of both critics' standardised scores.

    Args:
        judges: of halves 1 and 2.
        particles: n images.
        halves: rows of the halves that the judges were trained on; None if the particles are not
            those of the run.
        background: as for training.
        device: where the critics judge.

    Raises:
        InputError: an image cannot be used.
    """
    first, second = judges
    if halves is None:
        one, other = (judge.scores(particles, particles, background, device) for judge in judges)
        return standardised(standardised(one) + standardised(other))
    sets = [particles.subset(rows) for rows in halves]
    result = torch.empty(len(particles))
    result[halves[0]] = standardised(second.scores(sets[0], sets[1], background, device))
    result[halves[1]] = standardised(first.scores(sets[1], sets[0], background, device))
    return result


def standardised(scores: Tensor) -> Tensor:
    """Scores (n,) less their median, over 1.4826 times the median distance from it.

    That is the standard deviation of a normal distribution, and junk among the particles, as long
    as it is the smaller part, changes neither much. All 0 where more than half are the same.
    """
    distance = scores - scores.median()
    spread = 1.4826 * distance.abs().median()
    return distance / spread if spread > 0 else torch.zeros_like(scores)
