"""Options and errors that all commands share which read particles."""

from pathlib import Path

import numpy as np
import torch
from jsonargparse import ArgumentParser, Namespace

from cryogan.errors import InputError
from cryogan.io.mrc import MrcStack
from cryogan.io.relion import ParticleFile, read_particles
from cryogan.physics.noise import BackgroundPatches


def add_reading_options(parser: ArgumentParser) -> None:
    """How to read a particle file."""
    parser.add_argument("--datadir", type=str, help="folder that image names are relative to")
    parser.add_argument("--strip-prefix", type=str, help="leading part of image names to drop")
    parser.add_argument(
        "--ind", type=str, help="particles to use: .npy or .txt of row numbers from 0"
    )
    parser.add_argument(
        "--apix", "--angpix", type=float, help="pixel size in Å where the star file has none"
    )
    parser.add_argument(
        "--invert", choices=["auto", "yes", "no"], default="auto", help="invert dark particles"
    )


def chosen_rows(options: Namespace) -> torch.Tensor | None:
    """The rows that --ind names, or None."""
    return None if options.ind is None else read_index(Path(options.ind))


def read_input(star: Path | str, options: Namespace) -> ParticleFile:
    """The particles of a star file, read as the options say."""
    return read_particles(
        star,
        datadir=options.datadir,
        strip_prefix=options.strip_prefix,
        index=chosen_rows(options),
        pixel_size_A=options.apix,
        invert=options.invert,
    )


def read_index(path: Path) -> torch.Tensor:
    """Row numbers from a .npy or text file."""
    try:
        numbers = np.load(path) if path.suffix == ".npy" else np.loadtxt(path, ndmin=1)
    except (OSError, ValueError) as error:
        raise InputError(
            f"Cannot read particle numbers from {path} ({error}); give a .npy file or a text "
            "file with a row number, counted from 0, on each line."
        ) from error
    is_list = numbers.ndim == 1 and numbers.size > 0 and numbers.dtype.kind in "iuf"
    if not is_list or not (np.isfinite(numbers) & (numbers == np.round(numbers))).all():
        raise InputError(f"{path} must hold a list of whole row numbers, counted from 0.")
    values, counts = np.unique(numbers, return_counts=True)
    if (counts > 1).any():
        raise InputError(
            f"{path} names row {values[counts > 1][0]:.0f} more than once, and the two half-sets "
            "must not share an image; give every row once."
        )
    return torch.from_numpy(numbers.astype(np.int64))


def read_background(path: Path, file: ParticleFile) -> BackgroundPatches:
    """Noise patches that fit the particles."""
    stack = MrcStack.open(path, sign=-1.0 if file.inverted else 1.0)
    if stack.box_size != file.particles.box_size:
        raise InputError(
            f"{path} has box {stack.box_size} but the particles have {file.particles.box_size}; "
            "cut both at the same size."
        )
    return BackgroundPatches(stack)


def device_named(name: str) -> str:
    """The torch device that a user's word stands for."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"Device '{name}' cannot be used here; give --device cpu or another."
        ) from error
    return name
