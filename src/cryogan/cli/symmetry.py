"""`cryogan symmetry`: the point group of a map, its axes, and the evidence."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryogan.cli.options import require_file, require_pixel_size
from cryogan.cli.outputs import add_overwrite, require_outputs
from cryogan.cli.parser import CommandParser
from cryogan.errors import InputError


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = CommandParser(
        "symmetry",
        "Find the point group of a map (C1 to C12, D2 to D12, T, O, I), in any orientation. Of a "
        "run, or two half-maps, a rotation holds if half-map 1 agrees with the rotated half-map 2 "
        "as well as with half-map 2 itself. The noise of one map is not known: what it shows is "
        "to which resolution a symmetry holds, not that the molecule has it.",
        "cryogan symmetry run -o oriented.mrc",
        ("--output", "--resolution", "--apix"),
    )
    add = parser.add_argument
    add(
        "map",
        type=str,
        nargs="+",
        help="run folder, map (.mrc), or two half-maps in one frame",
    )
    add(
        "-o",
        "--output",
        type=str,
        metavar="FILE",
        help="write the map in the group's standard orientation (RELION's axes); of a run its "
        "map.mrc, of two half-maps their mean",
    )
    add(
        "--resolution",
        type=float,
        metavar="Å",
        help="compare to this resolution at most (default: that of the half-maps, FSC 0.143)",
    )
    add(
        "--apix",
        "--angpix",
        type=float,
        help="pixel size of the maps in Å, also of a run's; goes before that in their headers, "
        "where 0 and 1 mean that it is not set",
    )
    add_overwrite(parser)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = make_parser().given(arguments)
    paths = [Path(name) for name in options.map]
    resolution_A = options.get("resolution")
    if len(paths) > 2:
        raise InputError("Give a run folder, one map or two half-maps.")
    for path in paths:
        if len(paths) == 2 or not path.is_dir():
            require_file(str(path))
    if resolution_A is not None and not resolution_A > 0:
        raise InputError(f"--resolution is {resolution_A:g}; give a resolution in Å above 0.")
    require_pixel_size(options)
    output = None if options.get("output") is None else Path(options.output)
    if output is not None:
        require_outputs(options, [output], ".mrc", ".map")

    import cryogan
    from cryogan.cli.display import console
    from cryogan.evaluation.alignment import apply_alignment

    out = console()
    found = cryogan.find_symmetry(
        *paths, pixel_size_A=options.get("apix"), resolution_A=resolution_A
    )
    out.print(f"compared to {found.limit_A:.1f} Å")
    if found.candidates:
        out.print(table(found.candidates))
    out.print(f"symmetry: {found.group} ({found.reason})")
    if len(paths) == 1 and paths[0].is_dir():
        imposed = cryogan.read_run(paths[0]).symmetry
        if imposed != "C1":
            out.print(f"The run has imposed {imposed}: its half-maps have that in any case.")
    if output is not None:
        volume, pixel_size_A = _map_of(paths, options.get("apix"))
        moved = apply_alignment(volume, found.frames[0], pixel_size_A)
        cryogan.write_map(output, moved, pixel_size_A)
        out.print(f"map in the standard orientation of {found.group}: {output}")
    return 0


def _map_of(paths: Sequence[Path], pixel_size_A: float | None) -> tuple[Any, float]:
    """What is written: volume (D, D, D) and pixel size."""
    import cryogan

    files = [paths[0] / "map.mrc"] if paths[0].is_dir() else paths
    maps = [cryogan.read_map(file, pixel_size_A) for file in files]
    return sum(map_.volume for map_ in maps) / len(maps), maps[0].pixel_size_A


def table(candidates: Sequence[Any]) -> str:
    """Groups that were tried, and the worst rotation of each kind, as lines of text."""
    lines = [f"{'group':<8}{'rotation':<10}{'quality':>8}{'error':>7}{'holds to':>10}{'other':>7}"]
    for each in candidates:
        name, other = each.group, f"{each.other:.2f}"
        for order in sorted({rotation.order for rotation in each.rotations}):
            of_order = [rotation for rotation in each.rotations if rotation.order == order]
            worst = min(of_order, key=lambda rotation: rotation.quality)
            lines.append(
                f"{name:<8}{f'{order}-fold':<10}{worst.quality:>8.2f}{worst.error:>7.2f}"
                f"{f'{worst.resolution_A:.1f} Å':>10}{other:>7}"
            )
            name = other = ""
    return "\n".join(lines)
