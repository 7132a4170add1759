"""The picture of viewing directions in docs/simulate.md: Table II's, and those of real particles.

python docs/views.py --datadir ../shared/data
"""

import argparse
from pathlib import Path

from cryogan.benchmark.pictures import real_files
from cryogan.benchmark.view_figure import distributions, draw_views


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datadir", type=Path, required=True, help="of refined particle files")
    given = distributions(real_files([parser.parse_args().datadir]))
    draw_views(Path(__file__).parent / "images" / "viewing_directions.png", given)


if __name__ == "__main__":
    main()
