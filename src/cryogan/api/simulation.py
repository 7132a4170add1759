"""Simulation of particle sets."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cryogan.errors import InputError
from cryogan.io.particle_files import read_particles
from cryogan.particles import Particles
from cryogan.simulation.dataset import Measured, check_folder, write_dataset
from cryogan.simulation.description import write_description
from cryogan.simulation.plan import Source, plan
from cryogan.simulation.prepared import Prepared, prepare


def simulate(
    source: Source,
    folder: Path | str,
    *,
    condition: str | None = None,
    scale: float | None = None,
    datadir: Iterable[Path | str] = (),
    workers: int = 1,
    show: Callable[[str, float], None] = lambda what, fraction: None,
    started: Callable[[Prepared], None] = lambda prepared: None,
    finished: Callable[[Measured | None], None] = lambda measured: None,
    **changes: Any,
) -> Particles:
    """Simulate a particle set with a known answer, and read its particles.

    The same arguments make the same bits; a folder that holds the set already is left alone.

    Args:
        source: atomic models, maps, a folder of maps, "phantom" or "phantom:D2"; or a recipe or a
            YAML file such as simulation.yaml; or `simulation.settings.SimulationSettings`.
        folder: where to write particles, truth and simulation.yaml.
        condition: of a recipe.
        scale: multiplies a recipe's box and number of images.
        datadir: folders in which, or in whose folders, the files named are.
        workers: threads; the bits stay the same.
        show: called with what is being made, and the fraction done.
        started: called when all has been checked.
        finished: called at the end; with None if the set was there already.
        **changes: settings that differ from the source's; groups hold what is to change:
            `box_size=64, noise={"snr_dB": -5.2}` ...

    Raises:
        InputError: something given cannot work.

    Example:
        >>> import tempfile, cryogan as cg
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     particles = cg.simulate(
        ...         "phantom", folder + "/set", box_size=32, pixel_size_A=6.0, images=20
        ...     )
        >>> len(particles), particles.box_size
        (20, 32)
    """
    if workers < 1:
        raise InputError(f"workers is {workers}; give 1 or more.")
    made = plan(source, folder, condition=condition, scale=scale, datadirs=datadir, changes=changes)
    measured = None
    if not made.is_made:
        prepared = prepare(made.located)
        check_folder(prepared, made.folder)
        started(prepared)
        about = (made.record, made.description, made.settings, made.inputs)
        write_description(*about)
        measured = write_dataset(prepared, made.folder, workers=workers, show=show)
        write_description(*about, asdict(measured))
    finished(measured)
    return read_particles(made.folder / "particles.star", sign="bright")
