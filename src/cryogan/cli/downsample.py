"""`cryogan downsample`: smaller images by Fourier cropping."""

from collections.abc import Sequence
from pathlib import Path

from cryogan.cli.options import add_star_options, read_particles, require_file
from cryogan.cli.parser import CommandParser
from cryogan.cli.printing import add_quiet, progress_console
from cryogan.errors import InputError

_MATTER = ("--output", "--box", "--new-apix", "--recentre", "--ind", "--first", "--datadir")


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = CommandParser(
        "downsample",
        "Fourier-crop particle images: particles.star, with all columns, and particles.mrcs. White "
        "noise keeps its variance per pixel, so that normalised images stay so; the contrast stays "
        "as it is on disk.",
        "cryogan downsample particles.star -o small --box 128",
        _MATTER,
    )
    add = parser.add_argument
    add("particles", type=str, help="RELION .star file (3.0, 3.1 or later)")
    add("-o", "--output", type=str, help="folder to write to; nothing in it is overwritten")
    add("--box", type=int, help="new box in pixels, even")
    add(
        "--new-apix",
        "--rescale-angpix",
        type=float,
        metavar="Å",
        help="or the new pixel size; the nearest even box is taken",
    )
    add(
        "--recentre",
        "--recenter",
        action="store_true",
        help="move images by their origins (rlnOriginXAngst ...) in whole old pixels, with "
        "wrapping; the rest stays in the columns, and coordinates on micrographs as they are",
    )
    add_star_options(parser)
    add_quiet(parser)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = make_parser().given(arguments)
    if options.get("output") is None:
        raise InputError("cryogan downsample needs an output folder; give it with -o.")
    if (options.get("box") is None) == (options.get("new_apix") is None):
        raise InputError("Give --box (pixels) or --new-apix (Å): one of them.")
    if Path(options.particles).suffix != ".star":
        raise InputError(f"{options.particles} is no star file; give one.")
    require_file(options.particles)

    import cryogan
    from cryogan.cli.display import bar

    particles = read_particles(options.particles, options)
    out = progress_console(options)
    with bar(out, f"{len(particles):,} images") as show:
        made = cryogan.downsample(
            particles,
            options.output,
            box_size=options.get("box"),
            pixel_size_A=options.get("new_apix"),
            recentre=bool(options.get("recentre")),
            show=lambda fraction: show("", fraction),
        )
    out.print(
        f"{len(particles):,} images, box {particles.box_size} px of {particles.pixel_size_A:.4g} Å "
        f"to {made.box_size} px of {made.pixel_size_A:.4g} Å (Nyquist limit "
        f"{2 * made.pixel_size_A:.4g} Å)\nwritten: {made.star}, {made.stack}"
    )
    return 0
