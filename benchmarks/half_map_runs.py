"""Half-map FSC and truth where maps end before Nyquist: molecules, SNRs and both objectives.

    python benchmarks/half_map_runs.py -o benchmarks/results --datadir ../shared/data

Sets of 1,000 centred images of 32 px at four SNRs are reconstructed by the likelihood and by a
short adversarial run (51,200 images a half-set), neither of which knows a symmetry. Rows are added
to `half_map_runs.csv` one by one; those that are in it are not made again.
`half_map_against_truth.py` counts them.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import cryogan as cg
from cryogan.benchmark.cost import Clock
from cryogan.benchmark.rows import append_row, read_rows
from cryogan.objectives.adversarial.config import Stage

BOX, IMAGES = 32, 1000
PIXELS_A = {
    "5a1a.cif": 7.643,
    "1hzh.pdb": 7.5,
    "1gpa_dim.pdb": 6.0,
    "1ruz.pdb": 7.0,
}
"""Of images of each molecule."""
SNRS_DB = (-8.0, -14.0, -20.0, -26.0)
SETTINGS: dict[str, dict[str, Any]] = {
    "likelihood": {"initialisations": 1},
    "adversarial": {"stages": (Stage(BOX, 51_200, 4.0),)},
}
Row = dict[str, str]


@dataclass(frozen=True)
class Case:
    """One run."""

    molecule: str
    snr_dB: float
    seed: int
    objective: str

    @property
    def key(self) -> tuple[str, ...]:
        return self.molecule, f"{self.snr_dB:g}", str(self.seed), self.objective


def measured(case: Case, datadir: Path) -> Row:
    """Simulate, reconstruct and evaluate; the row of the table."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        particles = cg.simulate(
            case.molecule,
            Path(folder) / "set",
            datadir=[datadir],
            box_size=BOX,
            pixel_size_A=PIXELS_A[case.molecule],
            images=IMAGES,
            noise={"snr_dB": case.snr_dB},
            seed=2000 + case.seed,
        )
        found = cg.reconstruct(
            particles,
            objective=case.objective,
            max_shift="0",
            settings=SETTINGS[case.objective],
            folder=Path(folder) / "run",
            seed=case.seed,
            device="cpu",
        )
        verdict, held_out_A = found.verdict, found.held_out_resolution_A
        crossings_A = found.half_map_crossings_A
        compared = cg.evaluate(found, truth=Path(folder) / "set" / "truth" / "map.mrc")
    row = dict(zip(("molecule", "snr_dB", "seed", "objective"), case.key, strict=True))
    row |= {"pixel_size_A": f"{PIXELS_A[case.molecule]:g}", "verdict": verdict}
    row |= {f"{name}_A": f"{value:.2f}" for name, value in crossings_A.items()}
    row["held_out_A"] = f"{held_out_A:.2f}" if held_out_A else ""
    row |= {
        f"truth_fsc_{level:g}_A": f"{compared.resolution_A(level):.2f}" for level in (0.5, 0.143)
    }
    return row | {"cpu_s": f"{clock.cpu_s:.1f}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the table")
    parser.add_argument("--datadir", type=Path, required=True, help="folder of the molecules")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="default: 0")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.output / "half_map_runs.csv"
    names = ("molecule", "snr_dB", "seed", "objective")
    done = {tuple(row[name] for name in names) for row in read_rows(path)}
    for seed in options.seeds:
        for snr_dB in SNRS_DB:
            for molecule in PIXELS_A:
                for objective in SETTINGS:
                    case = Case(molecule, snr_dB, seed, objective)
                    if case.key in done:
                        continue
                    row = measured(case, options.datadir)
                    append_row(path, row)
                    print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
