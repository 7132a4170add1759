"""All pictures of a benchmark: FSC curves, images, sections or states, and viewing directions."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from cryogan.benchmark.experiments import Experiment
from cryogan.benchmark.fsc_figures import label_of, plot_fsc_of_set
from cryogan.benchmark.gallery import draw_gallery, draw_sections, draw_states
from cryogan.benchmark.order import ROW
from cryogan.benchmark.tables import orders_in
from cryogan.benchmark.view_figure import REAL_FILES, distributions, draw_views


def draw_pictures(folder: Path, experiment: Experiment, datadirs: Sequence[str] = ()) -> list[Path]:
    """Draw what the finished cells of a benchmark show.

    Args:
        folder: of the benchmark.
        experiment: its table.
        datadirs: where particle files with real poses may be.

    Returns:
        The files written.
    """
    done = [order for order in orders_in(folder) if (order.folder / ROW).is_file()]
    written = []
    for name in dict.fromkeys(order.cell.set_name for order in done):
        of_set = [order for order in done if order.cell.set_name == name]
        one_each = list({label_of(order): order for order in reversed(of_set)}.values())[::-1]
        where = of_set[0].set_.folder
        if experiment.has_conformations:
            written.append(folder / f"{where}_states.png")
            draw_states(written[-1], one_each)
            continue
        written += [folder / f"{where}_{kind}.png" for kind in ("fsc", "images", "sections")]
        plot_fsc_of_set(written[-3], of_set)
        draw_gallery(written[-2], of_set)
        draw_sections(written[-1], one_each)
    if experiment.compares_views and done:
        written.append(folder / "viewing_directions.png")
        draw_views(written[-1], distributions(real_files(datadirs)))
    return written


def real_files(datadirs: Iterable[str | Path]) -> dict[str, Path]:
    """Particle files with refined poses that are in, or below, one of the folders."""
    found = {}
    for label, name in REAL_FILES.items():
        places = [path for folder in datadirs for path in sorted(Path(folder).rglob(name))]
        if places:
            found[label] = places[0]
    return found
