"""cryoSPARC's result groups (.csg): a YAML file that says which .cs file holds which fields.

The layout is that of files exported by cryoSPARC 4; what is written was never tried in cryoSPARC.
"""

from datetime import datetime
from pathlib import Path

from cryogan.errors import InputError
from cryogan.files import write_text
from cryogan.io.images import find_stack

_LARGEST = 2**20  # bytes; real ones have one or two thousand


def read_group(path: Path | str) -> dict[str, Path]:
    """Slot ("blob", "ctf" ...) -> the .cs file that holds its fields.

    A name that begins with > is beside the group file; others are relative to the project folder,
    which is looked for above it.

    Raises:
        InputError: the file cannot be read, is no group of particles, or names a file that is not
            there.
    """
    import yaml

    path = Path(path)
    refusal = InputError(
        f"{path} is no cryoSPARC group of particles with the results blob and ctf; give a .csg "
        "file as cryoSPARC writes it, or the .cs file."
    )
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
        content = yaml.safe_load(text) if len(text) <= _LARGEST else None
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}; check the path.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise refusal from error
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict):
        raise refusal
    found = {}
    for slot, result in results.items():
        name = result.get("metafile") if isinstance(result, dict) else None
        if not isinstance(slot, str) or not isinstance(name, str):
            raise refusal
        metafile = path.parent / name[1:] if name.startswith(">") else find_stack(path, name)
        if metafile is None or not metafile.is_file():
            raise InputError(
                f"The file '{name}' of the result {slot} in {path} is not there; copy it beside "
                "the group file or correct the name."
            )
        found[slot] = metafile
    if "blob" not in found:
        raise refusal
    return found


def write_group(
    path: Path | str,
    records: Path,
    slots: list[str],
    count: int,
    description: str = "Particles with the poses that cryogan has assigned",
) -> None:
    """Write the group file of a .cs file beside it, atomically.

    Args:
        path: the group file.
        records: the .cs file.
        slots: first parts of its fields: "blob", "ctf" ...
        count: its number of records.
        description: of the group, without quotes and colons.

    Raises:
        InputError: the file cannot be written.
    """
    lines = [
        f"created: {datetime.now():%Y-%m-%d %H:%M:%S.%f}",
        "group:",
        f"  description: {description}",
        "  name: particles",
        "  title: Particles",
        "  type: particle",
        "results:",
    ]
    quoted = records.name.replace("'", "''")
    for slot in sorted(slots):
        lines += [
            f"  {slot}:",
            f"    metafile: '>{quoted}'",
            f"    num_items: {count}",
            f"    type: particle.{slot}",
        ]
    write_text(path, "\n".join([*lines, "version: v4.4.1", ""]))
