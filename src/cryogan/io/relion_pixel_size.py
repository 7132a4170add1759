"""The pixel size that a particle file is to say, in whatever columns it does."""

from collections.abc import Mapping, Sequence

from cryogan.io.relion_columns import PIXEL_SIZE_LABELS

Columns = Mapping[str, Sequence[str]]
_BY_MAGNIFICATION = ("rlnMagnification", "rlnDetectorPixelSize")


def with_pixel_size(
    tables: Sequence[tuple[str, Columns]], pixel_size_A: float
) -> list[tuple[str, Columns]]:
    """Tables (name, columns) of a particle file, which now say this pixel size.

    It takes the place of all that they say. Where they say none it goes into the optics table, or,
    in a file of RELION 3.0, beside the particles as detector pixel and magnification.
    """
    words = f"{pixel_size_A:.6f}"
    by_magnification = dict(zip(_BY_MAGNIFICATION, ("10000.000000", words), strict=True))
    known = {label for _, columns in tables for label in columns}
    new = {label: words for label in PIXEL_SIZE_LABELS if label in known}
    if known.issuperset(_BY_MAGNIFICATION):
        new |= by_magnification
    changed = [
        (name, {label: _all(new.get(label), values) for label, values in columns.items()})
        for name, columns in tables
    ]
    if not new:
        optics = [
            (name, columns)
            for name, columns in changed
            if "rlnOpticsGroup" in columns and "rlnImageName" not in columns
        ]
        named = [columns for name, columns in optics if name == "optics"]
        if optics:
            columns, new = (named or [optics[0][1]])[0], {"rlnImagePixelSize": words}
        else:
            columns = next(columns for _, columns in changed if "rlnImageName" in columns)
            new = by_magnification
        count = len(next(iter(columns.values())))
        columns |= {label: [value] * count for label, value in new.items()}
    return list(changed)


def _all(new: str | None, values: Sequence[str]) -> Sequence[str]:
    return values if new is None else [new] * len(values)
