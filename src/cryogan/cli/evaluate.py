"""`cryogan evaluate`: a map against a known structure, or conformations against known ones."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from cryogan.cli.options import require_file, require_pixel_size, require_run
from cryogan.cli.outputs import add_overwrite, require_outputs
from cryogan.cli.parser import CommandParser
from cryogan.cli.printing import add_printing, print_json, speaker
from cryogan.errors import InputError


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = CommandParser(
        "evaluate",
        "Align a map to a known structure, or a half-map to the other, over rotation, shift and "
        "hand, and report FSC resolutions and, by direction, cFAR. Given a run folder, its FSC "
        "file, summary and report are completed. With --truth-dir, align and match a series of "
        "conformations to the known ones; with --particles too, CryoBench's scores: maps at the "
        "latents of images, latents, classes and poses against the truth. With no truth, report "
        "how much the conformations differ.",
        "cryogan evaluate run --truth truth/map.mrc -o fsc.csv",
        ("--truth", "--truth-dir", "--particles", "--output", "--apix", "--quiet", "--json"),
    )
    add = parser.add_argument
    add("map", type=str, help="map (.mrc), run folder, or folder of maps")
    add("--truth", type=str, metavar="FILE", help="map of the known structure")
    add(
        "--truth-dir",
        type=str,
        metavar="FOLDER",
        help="folder `truth` of cryogan simulate: known conformations",
    )
    add(
        "--particles",
        type=str,
        metavar="STAR",
        help="with --truth-dir: star file that cryogan assign has made with the run",
    )
    add(
        "--images",
        type=int,
        metavar="N",
        help="with --particles: images whose maps are compared, at equal steps (default: 100)",
    )
    add(
        "-o",
        "--output",
        type=str,
        help="FSC table (.csv), a .png goes beside it; with --truth-dir a folder for "
        "evaluation.json, matrix.csv, evaluation.png and particles.json instead of that of the "
        "conformations",
    )
    add(
        "--apix",
        "--angpix",
        type=float,
        help="pixel size of the map or maps in Å; goes before that in their headers, where 0 and 1 "
        "mean that it is not set",
    )
    add_printing(parser)
    add_overwrite(parser)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = make_parser().given(arguments)
    if options.get("truth") is not None and options.get("truth_dir") is not None:
        raise InputError("Give --truth (one map) or --truth-dir (conformations), not both.")
    require_pixel_size(options)
    if options.get("particles") is not None:
        if options.get("truth_dir") is None:
            raise InputError("--particles goes with --truth-dir; give both.")
        require_run(options.map)
        require_file(options.particles)
        if options.get("apix") is not None:
            raise InputError(
                "--apix does not go with --particles: the run has its own; leave it out."
            )
    if options.get("images") is not None and (
        options.get("particles") is None or options.images < 1
    ):
        raise InputError("--images goes with --particles, and is 1 or more.")
    if not Path(options.map).exists():
        raise InputError(
            f"There is no {options.map}; give a map, a run folder or a folder of maps."
        )
    if options.get("truth") is not None:
        return _evaluate_map(options)
    return _evaluate_conformations(options)


def _evaluate_map(options: Namespace) -> int:
    path, output = Path(options.map), options.get("output")
    require_file(options.truth)
    if output is not None:
        require_outputs(options, [Path(output), Path(output).with_suffix(".png")], ".csv")

    import cryogan
    from cryogan.api import record_truth
    from cryogan.evaluation.fsc import write_fsc_csv
    from cryogan.evaluation.plots import plot_fsc
    from cryogan.report import write_report

    comparison = cryogan.evaluate(path, truth=options.truth, pixel_size_A=options.get("apix"))
    say = speaker(options)
    say(comparison.table())
    if output is not None:
        size = comparison.truth.shape[-1]
        curves = {"truth": comparison.fsc, "truth_masked": comparison.fsc_masked}
        write_fsc_csv(Path(output), comparison.pixel_size_A, curves, size)
        plot_fsc(Path(output).with_suffix(".png"), comparison.pixel_size_A, curves, size)
    if path.is_dir():
        record_truth(path, comparison)
        say(f"report: {write_report(path)}")
    if options.get("json"):
        print_json(_record(comparison))
    return 0


def _record(comparison: Any) -> dict[str, Any]:
    """Of a comparison of two maps, what its table says."""
    resolution_A = {
        f"truth_{threshold}{'_masked' * masked}": comparison.resolution_A(threshold, masked=masked)
        for threshold in (0.5, 0.143)
        for masked in (False, True)
    }
    return {
        "resolution_A": resolution_A,
        "correlation": comparison.correlation,
        "correlation_masked": comparison.correlation_masked,
        "cfar": comparison.cfar(),
        "mirrored": comparison.alignment.mirrored,
        "pixel_size_A": comparison.pixel_size_A,
    }


def _evaluate_conformations(options: Namespace) -> int:
    import cryogan
    from cryogan.conformations.folder import conformations_folder, read_conformations
    from cryogan.evaluation.series import diversity
    from cryogan.evaluation.series_files import (
        SERIES_FILES,
        series_record,
        write_series_comparison,
    )
    from cryogan.files import write_text

    say = speaker(options)
    folder = conformations_folder(Path(options.map))
    if options.get("truth_dir") is None:
        found = diversity(read_conformations(folder, options.get("apix")))
        say(f"{'amplitude of motion':<24}{found.amplitude:.3f} of the mean map")
        say(f"{'largest difference':<24}{found.largest:.3f} of the mean map, of two maps")
        if options.get("json"):
            print_json({"amplitude": found.amplitude, "largest_difference": found.largest})
        return 0
    output = folder if options.get("output") is None else Path(options.output)
    if not output.is_dir():
        raise InputError(f"Cannot write to {output}: it is not a folder; make it.")
    names = list(SERIES_FILES)
    if options.get("particles") is not None:
        names.append("particles.json")
    require_outputs(options, [output / name for name in names])
    comparison = cryogan.evaluate(
        folder, truth_conformations=options.truth_dir, pixel_size_A=options.get("apix")
    )
    say(comparison.table())
    record = series_record(comparison)
    write_series_comparison(output, comparison)
    if options.get("particles") is not None:
        scores = cryogan.evaluate_particles(
            options.map,
            options.particles,
            truth_conformations=options.truth_dir,
            comparison=comparison,
            images=options.get("images") or 100,
        )
        say(f"\n{options.particles}\n{scores.text()}")
        write_text(output / "particles.json", json.dumps(scores.record(), indent=2))
        record["particles"] = scores.record()
    if options.get("json"):
        print_json(record)
    say(f"written to {output}: {', '.join(names)}")
    return 0
