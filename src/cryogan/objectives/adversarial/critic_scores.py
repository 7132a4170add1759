"""Critic scores of single particles.

A critic that has learnt all it can scores an image by log p(real) / p(simulated). An image of the
molecule is about as probable either way. Junk need not be: the simulator makes none, so that a
critic which was shown enough of it among the real images scores it high; one which was not may
score it low. docs/likelihood.md has what was measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cryogan.data.images import PreprocessedStack
from cryogan.data.parts import in_parts, row_by_row
from cryogan.data.statistics import measure
from cryogan.errors import InputError
from cryogan.objectives.adversarial.config import AdversarialConfig
from cryogan.objectives.adversarial.stage import limited_to, preprocessing
from cryogan.objectives.adversarial.state import make_critic
from cryogan.particles import Particles
from cryogan.physics.noise import NoiseModel


@dataclass(frozen=True)
class TrainedCritic:
    """The critic of one half-set.

    Attributes:
        critic: gives (n,) scores to images (n, D, D).
        config: of its training.
        box_size: D, that of its last stage.
    """

    critic: nn.Module
    config: AdversarialConfig
    box_size: int

    @classmethod
    def of(
        cls, state: Mapping[str, Any], config: AdversarialConfig, box_size: int
    ) -> "TrainedCritic":
        """The critic of a checkpoint.

        Args:
            state: record of an `AdversarialState`.
            config: of its training.
            box_size: of the particles.

        Raises:
            InputError: the checkpoint is not of these settings.
        """
        settings = limited_to(config, box_size)
        try:
            size = settings.stages[state["stage"]].box_size
            critic = make_critic(settings, size)
            critic.load_state_dict(state["critic"])
        except (KeyError, TypeError, IndexError, RuntimeError) as error:
            raise InputError(
                "The critics' checkpoints do not belong to the settings in config.json or to this "
                "version; move them away to do without the critic's scores."
            ) from error
        return cls(critic.eval(), settings, size)

    @torch.no_grad()
    def scores(
        self,
        particles: Particles,
        measured: Particles,
        noise: NoiseModel | None,
        device: torch.device,
    ) -> Tensor:
        """(n,) scores of particles, preprocessed as in training, in float32, on the CPU.

        Args:
            particles: n images.
            measured: particles whose spectra make filter and gain: in training, the critic's half.
            noise: as for training.
            device: where it is computed.

        Raises:
            InputError: an image cannot be used.
        """
        measurement = measure(measured, noise)
        settings = preprocessing(self.config, measurement, self.box_size)
        stack = PreprocessedStack(particles, measurement.gain, settings)
        critic = self.critic.to(device)
        chunks = in_parts(torch.arange(len(particles)), particles.stack)
        found = ((critic(stack.read(index).to(device)).cpu(),) for index in chunks)
        return row_by_row(found, len(particles))[0]


def cross_scored(
    critics: Sequence[TrainedCritic],
    particles: Particles,
    halves: tuple[Tensor, Tensor],
    noise: NoiseModel | None,
    device: torch.device,
) -> Tensor:
    """(n,) standardised scores of particles by critics that have never seen them.

    A critic may have memorised the images of its own half, so each half is scored by the critic of
    the other, as that one was shown images, and standardised by itself: two critics have no
    common scale. Particles in neither half are scored by both, with filters of their own
    spectra; the score is the standardised sum of both critics' standardised scores.

    Args:
        critics: of halves 1 and 2.
        particles: n images.
        halves: rows of the particles that are in the halves that the critics were trained on.
        noise: as for training.
        device: where it is computed.

    Raises:
        InputError: an image cannot be used.
    """
    first, second = critics
    sets = [particles.subset(rows) for rows in halves]
    result = torch.empty(len(particles))
    neither = torch.ones(len(particles), dtype=torch.bool)
    for own, other, critic in ((0, 1, second), (1, 0, first)):
        if len(sets[own]):
            shown = sets[other] if len(sets[other]) else particles
            result[halves[own]] = standardised(critic.scores(sets[own], shown, noise, device))
        neither[halves[own]] = False
    if bool(neither.any()):
        rest = particles.subset(neither.nonzero()[:, 0])
        one, two = (critic.scores(rest, rest, noise, device) for critic in critics)
        result[neither] = standardised(standardised(one) + standardised(two))
    return result


def standardised(scores: Tensor) -> Tensor:
    """Scores (n,) less their median, over 1.4826 times the median distance from it.

    That is the standard deviation of a normal distribution, and junk among the particles, as long
    as it is the smaller part, changes neither much. All 0 where more than half are the same.
    """
    distance = scores - scores.median()
    spread = 1.4826 * distance.abs().median()
    return distance / spread if spread > 0 else torch.zeros_like(scores)
