"""How much the noise of a particle set depends on direction, shell by shell.

python benchmarks/noise_anisotropy.py particles.star
python benchmarks/noise_anisotropy.py particles.star --noise-patches background.mrcs
"""

import argparse
import sys
from pathlib import Path

import cryogan
from cryogan import fourier
from cryogan.data.noise_filter import measure_anisotropy
from cryogan.data.normalisation import normalised
from cryogan.errors import InputError
from cryogan.run.noise_input import read_noise


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("particles", type=Path)
    parser.add_argument("--noise-patches", type=Path)
    options = parser.parse_args()
    try:
        particles = cryogan.read_particles(options.particles)
        patches = options.noise_patches
        noise = None if patches is None else read_noise(patches, particles)
        particles, _ = normalised(particles)
        found = measure_anisotropy(particles, noise)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    if found.is_isotropic:
        print("the noise does not depend on direction")
        return 0
    print(found.words(particles.pixel_size_A))
    width_A = particles.box_size * particles.pixel_size_A
    shells = fourier.shell_index(particles.box_size)
    for shell in range(1, particles.box_size // 2):
        ratio = found.ratio[shells == shell]
        rms = (ratio - 1.0).square().mean().sqrt()
        print(f"{width_A / shell:6.1f} Å: rms {rms:.2f}, {ratio.min():.3f} to {ratio.max():.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
