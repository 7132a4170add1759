"""`cryogan evaluate`: a map against a known structure, or conformations against known ones."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from cryogan.errors import InputError
from cryogan.evaluation.comparison import compare_to_truth
from cryogan.evaluation.conformation_files import write_series_comparison
from cryogan.evaluation.conformations import compare_series
from cryogan.evaluation.fsc import write_fsc_csv
from cryogan.evaluation.plots import plot_fsc
from cryogan.evaluation.series import diversity
from cryogan.io.mrc import read_map
from cryogan.report.page import write_report
from cryogan.run_folder import (
    add_truth,
    conformations_folder,
    read_conformations,
    read_true_conformations,
)


def make_parser() -> ArgumentParser:
    """The command's parser."""
    parser = ArgumentParser(
        description="Align a map to a known structure over rotation, shift and hand, and report "
        "FSC resolutions. Given a run folder, its FSC file, summary and report are completed. "
        "With --truth-dir, align and match a series of conformations to the known ones. With no "
        "truth, report how much the conformations differ."
    )
    parser.add_argument("map", type=str, help="map (.mrc), run folder, or folder of maps")
    parser.add_argument("--truth", type=str, help="map of the known structure")
    parser.add_argument(
        "--truth-dir", type=str, help="folder `truth` of `cryogan simulate`: known conformations"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=str,
        help="FSC table (.csv), a .png goes beside it; with --truth-dir a folder for "
        "evaluation.json, matrix.csv and evaluation.png instead of that of the conformations",
    )
    parser.add_argument("--apix", "--angpix", type=float, help="pixel size of a map without one")
    return parser


def run(options: Namespace) -> int:
    """Run the command."""
    if options.truth is not None and options.truth_dir is not None:
        raise InputError("Give --truth (one map) or --truth-dir (conformations), not both.")
    if options.truth is not None:
        return _evaluate_map(options)
    return _evaluate_conformations(options)


def _evaluate_map(options: Namespace) -> int:
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


def _evaluate_conformations(options: Namespace) -> int:
    folder = conformations_folder(Path(options.map))
    generated = read_conformations(folder, options.apix)
    if options.truth_dir is None:
        found = diversity(generated)
        print(f"{'amplitude of motion':<24}{found.amplitude:.3f} of the mean map")
        print(f"{'largest difference':<24}{found.largest:.3f} of the mean map, of two maps")
        return 0
    output = folder if options.output is None else Path(options.output)
    if not output.is_dir():
        raise InputError(f"Cannot write to {output}: it is not a folder; make it.")
    comparison = compare_series(generated, read_true_conformations(Path(options.truth_dir)))
    print(comparison.table())
    write_series_comparison(output, comparison)
    print(f"written to {output}: evaluation.json, matrix.csv, evaluation.png")
    return 0
