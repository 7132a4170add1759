"""How far assigned poses are from the true ones, modulo one rigid alignment, hand and symmetry.

    cryogan assign DIR/particles.star RUN/refine -o poses.star
    python benchmarks/assigned_poses.py poses.star RUN/refine/map.mrc DIR --sym D2

The map is aligned to the known structure, which turns every assigned pose with it (a map of the
other hand shows an image of the molecule turned by 180° in its plane). Symmetric copies of a pose
count as the same. Half-sets, whose frames may differ, are also judged each for itself.
"""

import argparse
from pathlib import Path

import roma
import torch
from torch import Tensor

from cryogan.evaluation.comparison import compare_to_truth
from cryogan.io.mrc import read_map
from cryogan.io.relion import read_poses
from cryogan.io.star import read_star
from cryogan.physics.rotations import angle_between
from cryogan.symmetry import symmetry_matrices


def errors_deg(assigned: Tensor, true: Tensor, operators: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) angles to the nearest symmetric copy, and which copy that is."""
    copies = operators[:, None] @ assigned
    return angle_between(copies, true).min(dim=0)


def main() -> None:
    """Print medians and 90th percentiles."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("poses", type=Path)
    parser.add_argument("map", type=Path)
    parser.add_argument("data", type=Path, metavar="DIR", help="folder of `cryogan simulate`")
    parser.add_argument("--sym", default="C1", help="symmetry of the known structure")
    options = parser.parse_args()
    truth = read_map(options.data / "truth" / "map.mrc")
    alignment = compare_to_truth(read_map(options.map), truth).alignment
    operators = symmetry_matrices(options.sym).double()
    true = read_poses(options.data / "truth" / "poses.star").rotation.double()
    turned = alignment.rotation.double() @ read_poses(options.poses).rotation.double()
    if alignment.mirrored:
        turned = turned @ torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))
    error, copy = errors_deg(turned, true, operators)
    print(f"all: median {error.median():.2f}°, 90 % below {error.quantile(0.9):.2f}°")
    table = next(table for table in read_star(options.poses) if "rlnAngleRot" in table)
    half = torch.from_numpy(table.numbers("rlnRandomSubset"))
    for number in (1, 2):
        mine = half == number
        used = operators[copy[mine]]
        offset = roma.special_procrustes((used.mT @ true[mine] @ turned[mine].mT).mean(0))
        error, _ = errors_deg(offset @ turned[mine], true[mine], operators)
        print(
            f"half {number}, in its own frame: median {error.median():.2f}°, "
            f"90 % below {error.quantile(0.9):.2f}°"
        )


if __name__ == "__main__":
    main()
