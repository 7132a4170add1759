"""The noise spectrum of real particles by three measures, shell by shell.

    python benchmarks/noise_of_background.py ../shared/data/empiar-10017/particles.star \
        ../shared/data/empiar-10017/background_50.mrcs -o benchmarks/results

- line: the intercept of |Y|² against CTF² alone;
- background: bounded by the images' own background, as in reconstructions without noise patches;
- patches: particle-free patches of the same micrographs.

Images are centred, filtered and windowed as for the likelihood; power is in the images' own unit.
"""

import argparse
import sys
from pathlib import Path

import torch

import cryogan as cg
from cryogan.benchmark.rows import write_rows
from cryogan.data.normalisation import normalised
from cryogan.data.padding import PaddedBox
from cryogan.data.statistics import measure
from cryogan.errors import InputError
from cryogan.objectives.assumptions import Assumptions
from cryogan.physics.ctf import ctf
from cryogan.physics.spectra import fit_spectra, power_sums
from cryogan.run.noise_input import read_noise
from cryogan.run.prepared_images import prepared_images


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("particles", type=Path)
    parser.add_argument("patches", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    particles, _ = normalised(cg.read_particles(options.particles))
    noise = read_noise(options.patches, particles)
    ready = prepared_images(particles, Assumptions(), noise, centre=True, measure_diameter=True)
    images, size = ready.particles, ready.particles.box_size
    padded = PaddedBox.of(size, ready.assumptions.reach)
    window = padded.window
    seen = images.stack.read(torch.arange(len(images))) * window
    line = fit_spectra(power_sums(seen, ctf(images.ctf, size, images.pixel_size_A))).noise
    own = measure(images, radius=padded.reach, window=window)
    assert ready.noise is not None
    given = measure(images, ready.noise.transformed(lambda patch: patch * window), window=window)
    found = [line, *(each.spectra.noise / each.gain**2 for each in (own, given))]
    path = options.output / f"noise_of_background_{options.particles.resolve().parent.name}.csv"
    width_A = size * images.pixel_size_A
    columns = ("shell", "resolution_A", "line", "background", "patches")
    rows = [
        (shell, f"{width_A / shell:.1f}", *(f"{float(each[shell]):.5g}" for each in found))
        for shell in range(1, size // 2)
    ]
    write_rows(path, [dict(zip(columns, row, strict=True)) for row in rows])
    print(path.read_text())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"noise_of_background: {error}")
