"""Files that a command is to write: never its inputs, and never what somebody else has written."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from jsonargparse import Namespace

from cryogan.cli.parser import CommandParser
from cryogan.errors import InputError
from cryogan.files import refuse_overwriting, remove_left_overs

_BEGINNING = 1 << 16  # bytes of a file in which a mark of ours is looked for
_MAP_LABEL = b"cryogan: the pixel size is known"
_MARKS = {
    ".star": (b"\n_cryogan",),
    ".mrc": (_MAP_LABEL,),
    ".map": (_MAP_LABEL,),
    ".png": (b"Software\0cryogan",),
    ".html": tuple(b": cryogan %b</title>" % page for page in (b"report", b"check", b"comparison")),
    ".csv": (
        b"shell,spatial_frequency_per_A,resolution_A",
        b"map,state,fsc_0.5_A,fsc_0.5_masked_A",
    ),
    ".json": (b'"amplitude_of_motion"', b'"largest_area"', b'"particles": ', b'"verdict": '),
    ".csg": (b"cryogan",),
}
"""What only files have that cryogan has written."""


def add_overwrite(parser: CommandParser) -> None:
    """`--overwrite`, for commands that write files that are named."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="write over files that cryogan has not written (never over inputs)",
    )


def require_outputs(
    options: Namespace, outputs: Sequence[Path], *suffixes: str, inputs: Iterable[Path] = ()
) -> None:
    """Refuse outputs that a command must not write; what killed commands left beside them goes.

    Args:
        options: of the command; every file that they name, but for outputs, is an input.
        outputs: files to write, the one that was asked for first.
        suffixes: of that one; any if none is given.
        inputs: files that are read, beside those that the options name.

    Raises:
        InputError: an output has another suffix, or no folder, is an input or a file of a run that
            is one, links resolved, or was not written by cryogan and `--overwrite` is not given.
    """
    first = outputs[0]
    if suffixes and first.suffix not in suffixes:
        raise InputError(f"{first} has to end in {' or '.join(suffixes)}; choose such a name.")
    inputs = [path for path in (*_named(options), *inputs) if path.is_file()]
    for output in outputs:
        if not output.parent.is_dir():
            raise InputError(f"Cannot write {output}: its folder does not exist; make it.")
        refuse_overwriting(output, inputs, "which is read")
        if output.is_file() and not options.get("overwrite") and not is_ours(output):
            raise InputError(
                f"{output} is there already, and cryogan has not written it; choose another name, "
                "or give --overwrite."
            )
    for folder in {output.parent for output in outputs}:
        remove_left_overs(folder)


def _named(options: Namespace) -> Iterator[Path]:
    """What options name: files, and those that runs among the folders have written."""
    for name, value in vars(options).items():
        if name in ("output", "json"):
            continue
        for each in value if isinstance(value, list) else [value]:
            path = Path(each) if isinstance(each, str) and each else None
            if path is not None and _exists(path):
                yield path
                if path.is_dir():
                    yield from _of_run(path)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # no name of a file
        return False


def _of_run(folder: Path) -> Iterator[Path]:
    if (folder / "config.json").is_file():
        yield from (path for path in folder.rglob("*") if path.is_file())


def is_ours(path: Path) -> bool:
    """Whether cryogan has written a file, by a mark at its beginning.

    A .cs file has none, but its group file (.csg) has.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(_BEGINNING)
    except OSError:
        return False
    if path.suffix == ".cs" and path.with_suffix(".csg").is_file():
        return is_ours(path.with_suffix(".csg"))
    return not beginning or any(mark in beginning for mark in _MARKS.get(path.suffix, ()))
