"""Symmetry in the likelihood: none, given, or found in the half-maps (`--sym auto`).

Sets of C3 and D2 phantoms (400 images of 24 px), three seeds each, from random initialisations,
with short settings. A row for every set, seed and way: the group that the run ended with, FSC 0.5
of the map with the truth, the mean of that FSC to the last shell but one, and CPU seconds.

    OMP_NUM_THREADS=1 python benchmarks/symmetry.py -o benchmarks/results
"""

import argparse
import json
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

import cryogan as cg
from cryogan.benchmark.rows import append_row
from cryogan.io.mrc import Map
from cryogan.phantom import phantom_atoms, phantom_map, residue_density
from cryogan.symmetry import symmetry_matrices
from phantom_sets import set_of_map

BOX, PIXEL_SIZE_A, COUNT = 24, 8.0, 400
WAYS = ("C1", "given", "auto")
SETTINGS = {
    "initialisations": 1,
    "initial_attempts": 1,
    "initial_rings": (5, 8),
    "initial_batches": 4,
    "initial_batch_size": 150,
}


def phantom(group: str) -> Tensor:
    """(D, D, D) the D2 phantom; of another group, its chain about that group's axes."""
    if group == "D2":
        return phantom_map(BOX, PIXEL_SIZE_A, symmetry="D2")
    chain = phantom_atoms(symmetry="D2")
    chain = chain[: len(chain) // 4]
    atoms = torch.einsum("gij,nj->gni", symmetry_matrices(group).double(), chain).flatten(0, 1)
    return residue_density(atoms - atoms.mean(0), BOX, PIXEL_SIZE_A)


def row_of(group: str, snr_dB: float, seed: int, way: str) -> dict[str, object]:
    """One run."""
    particles, truth = set_of_map(phantom(group), PIXEL_SIZE_A, COUNT, snr_dB, seed)
    result = cg.reconstruct(
        particles,
        objective="likelihood",
        symmetry=group if way == "given" else way,
        max_shift=0.0,
        settings=SETTINGS,
        seed=seed,
        device="cpu",
    )
    found = cg.evaluate(result, truth=Map(truth.volume, PIXEL_SIZE_A))
    return {
        "phantom": group,
        "snr_dB": snr_dB,
        "seed": seed,
        "symmetry": way,
        "ended_with": result.symmetry,
        "truth_fsc_0.5_A": round(found.resolution_A(0.5), 2),
        "mean_truth_fsc": round(float(found.fsc[1 : BOX // 2].nan_to_num().mean()), 3),
        "cpu_s": round(_cpu_s(result), 1),
    }


def _cpu_s(result: cg.Reconstruction) -> float:
    summary = json.loads((result.folder / "summary.json").read_text())
    return float(summary["timings_s"]["total_cpu"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--phantoms", nargs="+", default=["C3", "D2"])
    parser.add_argument("--snr", type=float, default=-4.0)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    path = options.output / "symmetry.csv"
    path.unlink(missing_ok=True)
    for seed, group, way in product(options.seeds, options.phantoms, WAYS):
        row = row_of(group, options.snr, seed, way)
        append_row(path, row)
        print(*row.values(), sep="  ", flush=True)


if __name__ == "__main__":
    main()
