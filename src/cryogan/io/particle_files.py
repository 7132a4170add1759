"""Particle files of any kind, by their suffix."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.images import Sign
from cryogan.particles import Particles, ParticleSource
from cryogan.registry import READERS

Reader = Callable[..., Particles]
"""Called as `read_particles` is, with the path and all keyword arguments."""


def read_particles(
    path: Path | str,
    *,
    reader: str | None = None,
    datadir: Path | str | None = None,
    strip_prefix: str | None = None,
    index: Tensor | None = None,
    pixel_size_A: float | None = None,
    sign: Sign = "auto",
) -> Particles:
    """Read a particle set with the reader of its suffix; poses, if there are any, are not read.

    Args:
        path: the particle file: .star (RELION), or of a suffix in `registry.READERS`.
        reader: the reader in place of that of the suffix, as `package.module:function`.
        datadir: folder that image names are relative to; without it the particle file's folder
            and those above it are tried.
        strip_prefix: leading part of image names to drop.
        index: (m,) int64, the rows to use, from 0; all if None.
        pixel_size_A: pixel size; it goes before the file's, and that before the headers'.
        sign: contrast of the protein on disk: "bright", "dark" (inverted on reading), or "auto" to
            detect it.

    Raises:
        InputError: with the file, row and column at fault.
    """
    path = Path(path)
    if reader is None and path.suffix not in READERS:
        raise InputError(
            f"{path} cannot be read: its suffix is '{path.suffix}'; give a file of "
            f"{', '.join(READERS)}, or a reader (--reader package.module:function)."
        )
    found = READERS[reader or path.suffix](
        path,
        datadir=datadir,
        strip_prefix=strip_prefix,
        index=index,
        pixel_size_A=pixel_size_A,
        sign=sign,
    )
    if reader is None and found.source is not None:
        return found
    source = found.source or ParticleSource(
        path,
        index,
        None if datadir is None else Path(datadir),
        strip_prefix,
        pixel_size_A,
        inverted=False,
        summary=f"{len(found):,} particles, box {found.box_size} px of {found.pixel_size_A:.4g} Å",
    )
    return replace(found, source=replace(source, reader=reader))
