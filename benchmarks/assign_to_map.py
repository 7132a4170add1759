"""The 101 real particles of EMPIAR-10061 assigned to a map of their molecule, and of another one.

    python benchmarks/assign_to_map.py -o benchmarks/results --datadir ../shared/data

Maps are of 5A1A (D2) and 1GPA, to 4 Å; images are cropped to 10 Å. Rows: 10, 50 and 90 % quantiles
of what `cryogan assign --reference` says of the particles, with and without measured background.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

import cryogan as cg
from cryogan.benchmark.rows import write_rows
from cryogan.errors import InputError
from cryogan.io.mrc import Map

CASES = (("5a1a.cif", "D2", True), ("5a1a.cif", "D2", False), ("1gpa_dim.pdb", "C1", True))


def map_of(model: Path) -> Map:
    with tempfile.TemporaryDirectory() as folder:
        cg.simulate(
            model,
            folder,
            box_size=192,
            pixel_size_A=1.274,
            images=1,
            molecule={"resolution_A": 4.0},
        )
        return cg.read_map(Path(folder) / "truth" / "map.mrc")


def quantiles(values: Tensor) -> str:
    found = values.double().quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64))
    return " ".join(f"{value:.2f}" for value in found.tolist())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--datadir", type=Path, required=True)
    options = parser.parse_args()
    data = options.datadir / "empiar-10061"
    particles = cg.read_particles(data / "particles.star")
    rows = []
    for name, symmetry, patches in CASES:
        found = cg.assign(
            particles,
            reference=map_of(options.datadir / "models" / name),
            symmetry=symmetry,
            resolution_A=10.0,
            noise=data / "background_192.mrcs" if patches else None,
            device="cpu",
        ).assignment
        row = {"map": name, "symmetry": symmetry, "noise_patches": patches}
        row |= {
            "spread_deg": quantiles(found.spread_deg),
            "shift_spread_A": quantiles(found.shift_spread_A),
            "log_likelihood": quantiles(found.log_likelihood),
            "contrast": quantiles(found.contrast),
            "particle_probability": quantiles(found.particle),
        }
        rows.append(row)
        print(row, flush=True)
    write_rows(options.output / "assign_to_map.csv", rows)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"assign_to_map: {error}")
