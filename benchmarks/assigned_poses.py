"""How far assigned poses are from the true ones, modulo one rigid alignment, hand and symmetry.

    cryogan assign DIR/particles.star RUN/refine -o poses.star
    python benchmarks/assigned_poses.py poses.star RUN/refine/map.mrc DIR --sym D2
    python benchmarks/assigned_poses.py poses.star --against relion_poses.star --sym D2

The map is aligned to the known structure, which turns every assigned pose with it (a map of the
other hand shows an image of the molecule turned by 180° in its plane). Symmetric copies of a pose
count as the same. Half-sets, whose frames may differ, are also evaluated separately.

Against the poses of another star file, which may have more particles and another order, or where no
map is at hand, the rotation and the hand that bring most poses together are searched among those
that single particles suggest, and refined. This also evaluates RELION's own poses:

    python benchmarks/assigned_poses.py run_data.star --against DIR/truth/poses.star --sym D2
"""

import argparse
import sys
from pathlib import Path

import roma
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.evaluation.comparison import compare_to_truth
from cryogan.evaluation.pose_errors import in_frame_of_truth, pose_errors_deg
from cryogan.io.mrc import read_map
from cryogan.io.relion_poses import read_poses
from cryogan.io.star import read_star
from cryogan.symmetry import symmetry_matrices

_OTHER_HAND = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))


def aligned_to(assigned: Tensor, true: Tensor, operators: Tensor) -> Tensor:
    """Poses (n, 3, 3) in the frame of others: one rotation, and the other hand if that fits."""
    best = (float("inf"), assigned)
    few = torch.linspace(0, len(true) - 1, 500).long()
    for turned in (assigned, assigned @ _OTHER_HAND):
        for frame in true[few] @ turned[few].mT:
            for _ in range(3):
                error, copy = pose_errors_deg(frame @ turned[few], true[few], operators)
                if float(error.median()) < best[0]:
                    best = (float(error.median()), frame @ turned)
                near = error <= error.median()
                wanted = operators[copy[near]].mT @ true[few[near]]
                frame = roma.special_procrustes((wanted @ turned[few[near]].mT).mean(0))
    return best[1]


def matching_rows(star: Path, other: Path) -> Tensor:
    """(n,) rows of another star file that have the images of a star file, whatever their folder."""
    names = []
    for path in (star, other):
        table = next(table for table in read_star(path) if "rlnImageName" in table)
        split = (name.partition("@") for name in table.columns["rlnImageName"])
        names.append([(int(number), Path(stack).name) for number, _, stack in split])
    row = {name: number for number, name in enumerate(names[1])}
    if not row.keys() >= set(names[0]):
        raise InputError(f"{other} lacks images of {star}; give a star file that has them all.")
    return torch.tensor([row[name] for name in names[0]])


def main() -> None:
    """Print medians and 90th percentiles."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("poses", type=Path)
    parser.add_argument("map", type=Path, nargs="?")
    parser.add_argument(
        "data", type=Path, nargs="?", metavar="DIR", help="folder of `cryogan simulate`"
    )
    parser.add_argument("--against", type=Path, help="star file with other poses")
    parser.add_argument("--sym", default="C1", help="symmetry of the known structure")
    options = parser.parse_args()
    operators = symmetry_matrices(options.sym).double()
    turned = read_poses(options.poses).rotation.double()
    if options.against is not None:
        true = read_poses(options.against, pixel_size_A=1.0).rotation.double()
        true = true[matching_rows(options.poses, options.against)]
        turned = aligned_to(turned, true, operators)
    else:
        truth = read_map(options.data / "truth" / "map.mrc")
        alignment = compare_to_truth(read_map(options.map), truth).alignment
        true = read_poses(options.data / "truth" / "poses.star").rotation.double()
        turned = in_frame_of_truth(turned, alignment)
    error, copy = pose_errors_deg(turned, true, operators)
    print(f"all: median {error.median():.2f}°, 90 % below {error.quantile(0.9):.2f}°")
    table = next(table for table in read_star(options.poses) if "rlnAngleRot" in table)
    half = torch.from_numpy(table.numbers("rlnRandomSubset"))
    for number in (1, 2):
        mine = half == number
        used = operators[copy[mine]]
        offset = roma.special_procrustes((used.mT @ true[mine] @ turned[mine].mT).mean(0))
        error, _ = pose_errors_deg(offset @ turned[mine], true[mine], operators)
        print(
            f"half {number}, in its own frame: median {error.median():.2f}°, "
            f"90 % below {error.quantile(0.9):.2f}°"
        )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"assigned_poses: {error}")
