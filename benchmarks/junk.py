"""How well columns of assigned particles tell junk from particles: area under the ROC curve (AUC).

    cryogan assign DATA/empiar-10017-picks/particles.star RUN -o poses.star
    python benchmarks/junk.py poses.star DATA/empiar-10017-picks/truth.star

Labels are those of `_pickLabel` in the truth: "likely_junk" against "matched" and
"likely_particle"; those that nobody is sure of are left out. 0.5 is chance, 1 perfect. Rows are
matched by the images' numbers in their stack.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from cryogan.errors import InputError
from cryogan.io.star import Table, read_star

COLUMNS = ("cryoganParticleProbability", "cryoganContrast", "cryoganFitPValue")
LOG_LIKELIHOOD = "rlnLogLikeliContribution"
JUNK, PARTICLES = ("likely_junk",), ("matched", "likely_particle")


def auc(junk: np.ndarray, particles: np.ndarray) -> float:
    """Probability that a particle has a larger value than junk; ties count half (Mann-Whitney)."""
    larger = (particles[:, None] > junk).mean()
    return float(larger + 0.5 * (particles[:, None] == junk).mean())


def _numbers(table: Table) -> list[int]:
    return [int(name.partition("@")[0]) for name in table.columns["rlnImageName"]]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("assigned", type=Path)
    parser.add_argument("truth", type=Path)
    options = parser.parse_args()
    tables = [
        next(table for table in read_star(path) if "rlnImageName" in table)
        for path in (options.assigned, options.truth)
    ]
    assigned, truth = tables
    label = dict(zip(_numbers(truth), truth.columns["pickLabel"], strict=True))
    mine = np.array([label[number] for number in _numbers(assigned)])
    junk, particles = np.isin(mine, JUNK), np.isin(mine, PARTICLES)
    print(f"{junk.sum()} junk, {particles.sum()} particles of {len(mine)} picks")
    for column in (*COLUMNS, LOG_LIKELIHOOD):
        if column in assigned:
            value = assigned.numbers(column)
            print(f"{column}: AUC {auc(value[junk], value[particles]):.3f}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"junk: {error}")
