"""`cryogan flip`: the other hand of a map or of a run, and of its poses."""

from collections.abc import Sequence
from pathlib import Path

from cryogan.cli.options import require_file, require_pixel_size
from cryogan.cli.outputs import add_overwrite, require_outputs
from cryogan.cli.parser import CommandParser
from cryogan.errors import InputError

_OF_RUN = ("half1", "half2", "mask", "map_sharpened", "local_resolution", "uncertainty")
"""Maps of a run beside map.mrc."""


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = CommandParser(
        "flip",
        "Write the other hand of a map, inverted through its origin, which leaves symmetry axes "
        "and viewing directions where they are. Of a run all its maps: with -o "
        "flipped.mrc also flipped_half1.mrc and so on, never in the folder of a run. Poses "
        "(psi + 180°) are those in the flipped map.",
        "cryogan flip run -o flipped.mrc --poses poses.star",
        ("--output", "--poses", "--apix", "--overwrite"),
    )
    add = parser.add_argument
    add("map", type=str, help="run folder, or map (.mrc)")
    add("-o", "--output", type=str, metavar="FILE", help="map to write")
    add(
        "--poses",
        type=str,
        metavar="FILE",
        help="star file with poses in this map; written beside the map, with its name and .star",
    )
    add(
        "--apix",
        "--angpix",
        type=float,
        help="pixel size of the map in Å; goes before that in its header, where 0 and 1 mean that "
        "it is not set",
    )
    add_overwrite(parser)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = make_parser().given(arguments)
    if options.get("output") is None:
        raise InputError("cryogan flip needs a map to write; give it with -o.")
    source, output = Path(options.map), Path(options.output)
    sources = {source: output}
    if source.is_dir():
        sources = {source / "map.mrc": output}
        for name in _OF_RUN:
            if (source / f"{name}.mrc").is_file():
                other = output.with_name(
                    f"{output.stem}_{name.removeprefix('map_')}{output.suffix}"
                )
                sources[source / f"{name}.mrc"] = other
    for path in sources:
        require_file(str(path))
    require_pixel_size(options)
    written = list(sources.values())
    star = None if options.get("poses") is None else require_file(options.poses)
    if star is not None:
        if star.suffix != ".star":
            raise InputError(f"{star} is no star file; give the one that cryogan assign wrote.")
        written.append(output.with_suffix(".star"))
    require_outputs(options, written, ".mrc", ".map", inputs=sources)
    _refuse_run_folder(output)

    import cryogan
    from cryogan.evaluation.hand import other_hand
    from cryogan.io.relion_hand import write_other_hand

    maps = [cryogan.read_map(path, options.get("apix")) for path in sources]
    if star is not None:
        write_other_hand(written[-1], star)
    for found, (path, target) in zip(maps, sources.items(), strict=True):
        what = f"other hand of {path.resolve().parent.name}/{path.name}"
        cryogan.write_map(target, other_hand(found.volume), found.pixel_size_A, what)
    print(f"written: {', '.join(map(str, written))}")
    if source.is_dir() and (source / "conformations").is_dir():
        print("The maps of its conformations are not flipped; give them one by one.")
    return 0


def _refuse_run_folder(output: Path) -> None:
    """Refuse to write among the files of a run, or in a folder of its own.

    Raises:
        InputError: the output would be there, links resolved.
    """
    for folder in output.resolve().parents[:2]:
        if all((folder / name).is_file() for name in ("config.json", "map.mrc")):
            raise InputError(
                f"{output} would be in the folder of a run ({folder}); write it to another folder."
            )
