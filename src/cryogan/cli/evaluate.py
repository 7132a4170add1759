"""`cryogan evaluate`: a map against a known structure."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from cryogan.errors import InputError
from cryogan.evaluation.comparison import compare_to_truth
from cryogan.evaluation.fsc import write_fsc_csv
from cryogan.evaluation.plots import plot_fsc
from cryogan.io.mrc import read_map
from cryogan.report.page import write_report
from cryogan.run_folder import add_truth


def make_parser() -> ArgumentParser:
    """The command's parser."""
    parser = ArgumentParser(
        description="Align a map to a known structure over rotation, shift and hand, and report "
        "FSC resolutions. Given a run folder, its FSC file, summary and report are completed."
    )
    parser.add_argument("map", type=str, help="map (.mrc) or run folder")
    parser.add_argument("--truth", type=str, required=True, help="map of the known structure")
    parser.add_argument("-o", "--output", type=str, help="FSC table (.csv); a .png goes beside it")
    parser.add_argument("--apix", "--angpix", type=float, help="pixel size of a map without one")
    return parser


def run(options: Namespace) -> int:
    """Run the command."""
    path = Path(options.map)
    is_run = path.is_dir()
    if is_run and not (path / "summary.json").is_file():
        raise InputError(f"{path} holds no finished run; give a map, or finish the run first.")
    if options.output is not None and not Path(options.output).parent.is_dir():
        raise InputError(f"Cannot write {options.output}: its folder does not exist; make it.")
    map_ = read_map(path / "map.mrc" if is_run else path, options.apix)
    comparison = compare_to_truth(map_, read_map(options.truth))
    print(comparison.table())
    if options.output is not None:
        output, size = Path(options.output), map_.volume.shape[-1]
        curves = {"truth": comparison.fsc, "truth_masked": comparison.fsc_masked}
        write_fsc_csv(output, comparison.pixel_size_A, curves, size)
        plot_fsc(output.with_suffix(".png"), comparison.pixel_size_A, curves, size)
    if is_run:
        add_truth(path, comparison)
        print(f"report: {write_report(path)}")
    return 0
