"""Options that several commands share, in users' units; what is not given is not there."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from cryogan.cli.parser import CommandParser
from cryogan.errors import InputError
from cryogan.io.ranges import require_possible
from cryogan.objectives.assumptions import GivenAssumptions
from cryogan.registry import LATENTS, OBJECTIVES

_MOST_SEEDS = 2**63
_ANY_WIDTH_A = 1e9  # of a box, for what does not depend on it
_READING = {
    "datadir": "datadir",
    "strip_prefix": "strip_prefix",
    "apix": "pixel_size_A",
    "sign": "sign",
    "passthrough": "passthrough",
    "ctf_table": "ctf_table",
    "no_ctf": "no_ctf",
}
"""Option -> keyword argument of `cryogan.read_particles`."""


def add_reading_options(parser: CommandParser) -> None:
    """How to read a particle file."""
    add = parser.add_argument
    add("--reader", type=str, help="reader of the particle file, as module:function")
    add_star_options(parser)
    add(
        "--passthrough",
        type=str,
        metavar="FILE",
        help="passthrough file of a .cs file (default: that of the same job beside it)",
    )
    add("--ctf-table", type=str, metavar="FILE", help="CTFs of a bare stack, a row an image")
    add("--no-ctf", action="store_true", help="the images of a bare stack have no CTF")
    add(
        "--sign",
        choices=["auto", "bright", "dark"],
        help="contrast of the protein in the images; dark images are inverted (default: detected)",
    )


def add_star_options(parser: CommandParser) -> None:
    """How to read a star file whose contrast does not matter."""
    add = parser.add_argument
    add("--datadir", type=str, help="folder that image names are relative to")
    add("--strip-prefix", type=str, help="leading part of image names to drop")
    add_row_options(parser)
    add(
        "--apix",
        "--angpix",
        type=float,
        help="pixel size in Å; goes before that of the particle file (rlnImagePixelSize, "
        "rlnPixelSize, or rlnDetectorPixelSize and rlnMagnification), and this before that in the "
        "headers of its stacks, where 0 and 1 mean that it is not set",
    )


def add_row_options(parser: CommandParser) -> None:
    """Which rows of a particle file to use."""
    parser.add_argument(
        "--ind",
        type=str,
        help="particles to use: .txt, .npy or cryoDRGN's .pkl of row numbers from 0, or a mask",
    )
    parser.add_argument("--first", type=int, metavar="N", help="use no more than N particles")


def add_assumptions(parser: CommandParser, default: str) -> None:
    """What is assumed of the sample; `default` says where the rest comes from."""
    add = parser.add_argument
    add(
        "--sym",
        type=str,
        help="point group: C4, D2, T, O, I ...; or auto, for the likelihood: none at first, then "
        f"the one found in the half-maps (default: {default or 'C1'})",
    )
    add(
        "--diameter",
        type=float,
        metavar="Å",
        help=f"particle diameter (default: {default or 'measured, with a mask a quarter wider'})",
    )
    add("--mask", type=str, metavar="FILE", help="soft mask (.mrc) instead of the ball")
    add(
        "--mask-edge",
        type=float,
        help="width of the ball's soft edge, as a fraction of half the box "
        f"(default: {default or '0.15'})",
    )
    add(
        "--max-shift",
        type=str,
        metavar="Å|%",
        help="largest shift along x and y: 12 (Å) or 5%% of the box (default: "
        f"{default or 'measured, and images centred'})",
    )
    add(
        "--latent",
        type=str,
        help="of conformations: uniform, uniform2d, circle, discrete (classes), or "
        f"module:Class; none for one structure (default: {default or 'one structure'})",
    )
    add("--classes", type=int, help="number of classes of a discrete latent")
    add("--basis-volumes", type=int, help="volumes beside the mean of the other latents")
    add(
        "--model",
        choices=["homogeneous", "heterogeneous"],
        help="one structure, or conformations: short for --latent none and --latent uniform",
    )


def assumptions_of(options: Namespace, inherits: bool = False) -> dict[str, Any]:
    """Keyword arguments of `api.reconstruct` and `api.refine`; only what is given.

    Args:
        options: given.
        inherits: whether a run has what is not given.

    Raises:
        InputError: an unknown symmetry, a mask that is not there, a value out of range whatever
            the box is, or options that contradict.
    """
    names = {
        "sym": "symmetry",
        "diameter": "diameter_A",
        "mask": "mask",
        "mask_edge": "mask_edge",
        "max_shift": "max_shift",
        "view_sigma": "view_sigma",
        "latent": "latent",
        "classes": "classes",
        "basis_volumes": "basis_volumes",
    }
    found = {
        name: value for option, name in names.items() if (value := options.get(option)) is not None
    }
    model = options.get("model")
    if model == "homogeneous":
        if found.get("latent", "none") != "none":
            raise InputError(
                f"--model homogeneous has no latent; leave out --latent {found['latent']}."
            )
        found["latent"] = "none"
    if model == "heterogeneous":
        if found.get("latent") == "none":
            raise InputError("--model heterogeneous needs a latent; leave out --latent none.")
        found.setdefault("latent", "uniform")
    if "mask" in found:
        require_file(found["mask"])
    words = {"mask": "mask_file"}
    given = GivenAssumptions(**{words.get(name, name): value for name, value in found.items()})
    alone = replace(given, mask_file=None)  # reading a mask takes a while
    if inherits:  # a run's latent goes with these
        alone = replace(alone, latent=None, classes=None, basis_volumes=None)
        if given.latent not in (None, "none"):
            LATENTS.check(given.latent)
    alone.resolve(_ANY_WIDTH_A)
    return found


def require_pixel_size(options: Namespace) -> None:
    """Refuse --apix out of range.

    Raises:
        InputError: it is not possible.
    """
    if options.get("apix") is not None:
        require_possible("pixel_size_A", options.apix, "--apix", "give the pixel size in Å")


def require_seed(options: Namespace) -> int:
    """The seed: 0 unless given.

    Raises:
        InputError: it is out of range.
    """
    seed: int = options.get("seed") or 0
    check_seed("--seed", seed)
    return seed


def check_seed(option: str, seed: int) -> None:
    """Refuse a seed out of range.

    Raises:
        InputError: it is.
    """
    if not 0 <= seed < _MOST_SEEDS:
        raise InputError(f"{option} is {seed}; give a whole number from 0 to below 2^63.")


def require_device(options: Namespace) -> str:
    """The word for the device: "auto" unless given.

    Raises:
        InputError: it is none.
    """
    device: str = options.get("device") or "auto"
    if not re.fullmatch(r"auto|cpu|(cuda|mps|xpu)(:\d{1,3})?", device):
        raise InputError(
            f"--device is '{device}'; give auto, cpu, cuda, or cuda:1 for the second GPU."
        )
    return device


def require_file(path: str) -> Path:
    """The path of a file that is there.

    Raises:
        InputError: it is not.
    """
    found = Path(path)
    if not found.is_file():
        raise InputError(f"There is no file {path}; give the path of one.")
    return found


def require_run(path: str) -> Path:
    """The path of a run folder.

    Raises:
        InputError: it is none.
    """
    if not (Path(path) / "config.json").is_file():
        raise InputError(f"{path} is no run folder: it has no config.json; give the run's folder.")
    return Path(path)


def require_objective(name: str) -> str:
    """The name of an objective.

    Raises:
        InputError: there is none.
    """
    OBJECTIVES.check(name)
    return name


def row_numbers(options: Namespace) -> Any:
    """What --ind names: (n,) row numbers or a mask over all rows; None without it.

    Raises:
        InputError: the file cannot be read, or names something else than rows.
    """
    if options.get("ind") is None:
        return None
    require_file(options.ind)
    from cryogan.io.row_numbers import read_row_numbers

    return read_row_numbers(Path(options.ind))


def _chosen_rows(
    path: str | Path, options: Namespace, reader: str | None, reading: Mapping[str, Any]
) -> Any:
    """The rows of a file that --ind and --first choose ((n,) int64), or None for all."""
    first = options.get("first")
    if first is not None and first < 1:
        raise InputError(f"--first is {first}; give 1 or more particles.")
    numbers = row_numbers(options)
    is_mask = numbers is not None and str(numbers.dtype) == "torch.bool"
    if numbers is not None and not is_mask:
        return numbers[:first]
    if first is None and not is_mask:
        return None
    from cryogan.api import choose_rows

    return choose_rows(path, numbers, first, reader=reader, **reading)


def read_particles(
    path: str | Path,
    options: Namespace,
    reader: str | None = None,
    reading: Mapping[str, Any] | None = None,
    default_rows: Any = None,
) -> Any:
    """The particles of a file, read as the options say (`cryogan.Particles`).

    Args:
        path: of the file.
        options: given.
        reader: name of the reader, unless the options have one.
        reading: keyword arguments of `cryogan.read_particles` that hold where no option is given.
        default_rows: (m,) int64 rows to use where no option chooses any; all if None.

    Raises:
        InputError: with file, row and column at fault.
    """
    if not Path(path).is_file():
        raise InputError(f"There is no file {path}; give a particle file.")
    require_pixel_size(options)
    reader = options.get("reader") or reader
    given = {
        name: value
        for option, name in _READING.items()
        if (value := options.get(option)) is not None and value is not False
    }
    kept = dict(reading or {})
    if "ctf_table" in given or "no_ctf" in given:  # one takes the place of the other
        kept.pop("ctf_table", None)
        kept.pop("no_ctf", None)
    rows = _chosen_rows(path, options, reader, kept | given)
    if options.get("ind") is None and options.get("first") is None:
        rows = default_rows
    import cryogan

    return cryogan.read_particles(path, reader=reader, index=rows, **(kept | given))


def reading_of_run(run: str, path: str | Path) -> tuple[str | None, dict[str, Any]]:
    """Reader and reading options of a run, if a file is the one that its particles come from.

    Raises:
        InputError: the folder holds no finished run.
    """
    from cryogan.run.folder import read_run

    record = read_run(Path(run))
    if record.star is None or record.star.resolve() != Path(path).resolve():
        return None, {}
    return record.reader, dict(record.reading)
