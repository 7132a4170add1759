"""The published numbers that ours stand beside, each with its source."""

from collections.abc import Mapping
from dataclasses import dataclass

CRYOGAN = (
    "Gupta, McCann, Donati & Unser, CryoGAN: A New Reconstruction Paradigm for Single-Particle "
    "Cryo-EM via Deep Adversarial Learning, IEEE Trans. Comput. Imaging 7 (2021)"
)
MULTI_CRYOGAN = (
    "Gupta, Phan, Yoo & Unser, Multi-CryoGAN: Reconstruction of Continuous Conformations in "
    "Cryo-EM Using Generative Adversarial Networks, ECCV Workshops (2020)"
)


@dataclass(frozen=True)
class Resolutions:
    """Resolutions in Å of one published reconstruction.

    Attributes:
        half_map: half-map FSC 0.143.
        truth_half: FSC 0.5 with the true map.
        truth: FSC 0.143 with the true map.
    """

    half_map: float
    truth_half: float
    truth: float


TABLE_1: Mapping[str, Resolutions] = {
    "-20dB": Resolutions(8.6, 15.3, 11.7),
    "-5.2dB": Resolutions(7.5, 8.3, 6.5),
    "-20dB-shift3": Resolutions(10.8, 14.7, 11.5),
    "-20dB-shift20": Resolutions(14.3, 23.2, 19.8),
}
"""CryoGAN, Table I, by the conditions of the recipe `betagal-table1`; D2 imposed."""

TABLE_2: Mapping[tuple[str, str], Resolutions] = {
    ("uniform", "uniform"): Resolutions(8.6, 15.3, 11.7),
    ("uniform", "sigma2"): Resolutions(13.2, 16.1, 12.6),
    ("uniform", "sigma3"): Resolutions(17.2, 18.6, 14.5),
    ("sigma2", "uniform"): Resolutions(9.2, 16.4, 11.6),
    ("sigma2", "sigma2"): Resolutions(9.4, 15.0, 10.4),
    ("sigma2", "sigma3"): Resolutions(14.7, 15.5, 10.7),
    ("sigma3", "uniform"): Resolutions(8.6, 16.4, 11.5),
    ("sigma3", "sigma2"): Resolutions(10.6, 16.9, 14.0),
    ("sigma3", "sigma3"): Resolutions(12.7, 16.1, 12.3),
}
"""CryoGAN, Table II: (true, assumed) distribution of viewing directions; D2 imposed."""
