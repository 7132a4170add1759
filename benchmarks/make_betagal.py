"""Make the synthetic β-galactosidase data set of the CryoGAN paper's Table I, at 64 px.

    python benchmarks/make_betagal.py --models ../shared/data -o DIR --snr -5.2

PDB 5A1A at 3.822 Å/px, poses uniform, no shifts, no symmetry used, CTFs of the micrographs of
EMPIAR-10061 drawn in proportion to their particles, white noise. The signal-to-noise ratio is
that of the paper's 192-px images; Fourier-cropped to 64 px they gain 9.54 dB, and the images are
made at 64 px with that ratio directly.
"""

import argparse
from pathlib import Path

import torch

from cryogan.io.atoms import density_map
from cryogan.physics.distributions import PoseDistribution
from cryogan.simulation.in_memory import simulate_particles, write_dataset
from cryogan.simulation.microscope import MicroscopeSettings, draw

BOX_SIZE = 64
PIXEL_SIZE_A = 3.822
SNR_BOX_SIZE = 192


def main() -> None:
    parser = argparse.ArgumentParser(description="Synthetic β-galactosidase, 64 px.")
    parser.add_argument(
        "--models", type=Path, required=True, help="folder with models/ and empiar-10061/"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--snr", type=float, default=-5.2, help="dB, as at 192 px")
    parser.add_argument("--n", type=int, default=20000, help="number of images")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    generator = torch.Generator().manual_seed(arguments.seed)
    table = arguments.models / "empiar-10061" / "micrograph_ctf.csv"
    microscope = MicroscopeSettings(kind="table", table=str(table))
    truth = density_map(
        arguments.models / "models" / "5a1a.cif",
        box_size=BOX_SIZE,
        pixel_size_A=PIXEL_SIZE_A,
        resolution_A=2.5,
    )
    simulated = simulate_particles(
        truth.volume,
        pixel_size_A=PIXEL_SIZE_A,
        n=arguments.n,
        ctf=draw(microscope, arguments.n, generator),
        poses=PoseDistribution(),
        snr_dB=arguments.snr,
        generator=generator,
        snr_box_size=SNR_BOX_SIZE,
    )
    write_dataset(arguments.output, simulated, truth.volume)
    print(f"{arguments.n} images in {arguments.output}, noise σ {simulated.noise_sigma:.4g}")


if __name__ == "__main__":
    main()
