"""`python -m cryogan.benchmark run|evaluate FOLDER PARENT`: one cell in a process of its own.

For `cryogan.benchmark.making` alone, which measures what it costs.
"""

import sys
from pathlib import Path

from cryogan.benchmark.order import ROW, Order
from cryogan.errors import InputError


def main(what: str, folder: str, parent: str) -> int:
    """0 if it is done, 2 with one sentence if it cannot be done, 130 if it was interrupted.

    Args:
        what: to do.
        folder: of the cell.
        parent: id of the process that waits for this one, without which a run stops.
    """
    order = Order.read(Path(folder))
    try:
        if what == "run":
            from cryogan.benchmark.running import run_cell

            return 0 if run_cell(order, int(parent)) else 130
        from cryogan.benchmark.evaluating import write_row

        write_row(order, order.folder / ROW)
        return 0
    except InputError as error:
        print(f"cryogan: {error}", flush=True)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
