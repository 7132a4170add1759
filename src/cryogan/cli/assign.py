"""`cryogan assign`: poses for particles, to be carried on to RELION or cryoSPARC."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryogan.cli.options import (
    add_reading_options,
    assumptions_of,
    read_particles,
    reading_of_run,
    require_device,
    require_file,
    require_run,
)
from cryogan.cli.outputs import add_overwrite, require_outputs
from cryogan.cli.parser import CommandParser
from cryogan.cli.printing import add_quiet, progress_console
from cryogan.errors import InputError
from cryogan.files import require_writable
from cryogan.objectives.assumptions import GivenAssumptions

_MATTER = (
    *("--output", "--reference", "--sym", "--diameter", "--max-shift", "--ind", "--datadir"),
    *("--strip-prefix", "--device"),
)
_LEAST_FITTING = 0.5  # median probability that an image shows the map's molecule
_SMALL = 0.01  # p-values
_KINDS = (".star", ".cs", ".csg", ".mrcs", ".mrc", ".txt")


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = CommandParser(
        "assign",
        "Estimate every particle's orientation and shift, with their posterior uncertainty, given "
        "the maps of a run, or a reference map. Writes a RELION star file with all columns of the "
        "source, and a cryoSPARC .cs file with its group file (.csg) beside it. Particles of the "
        "run are assigned with the map of their own half-set, and the half-sets are written as "
        "rlnRandomSubset; others with the map of all particles. The run's own particle file is "
        "read as then, where no option is given. If the run has critics, their scores are "
        "written too. A reference map is scaled to the images and brought to their pixel size and "
        "box.",
        "cryogan assign particles.star run -o poses.star",
        _MATTER,
    )
    add = parser.add_argument
    add("particles", type=str, help="RELION .star or cryoSPARC .cs file, or stack")
    add("run", type=str, nargs="?", help="folder of cryogan reconstruct or refine")
    add(
        "--reference",
        type=str,
        metavar="FILE",
        help="a map (.mrc) instead of a run, the molecule bright and about the origin",
    )
    add("-o", "--output", type=str, help=".star file to write, or the .cs file beside it")
    add_reading_options(parser)
    add("--sym", type=str, help="point group (default: that of the run; C1 with a reference)")
    add(
        "--diameter",
        type=float,
        metavar="Å",
        help="with a reference: particle diameter (default: measured, with a mask a quarter wider)",
    )
    add(
        "--max-shift",
        type=str,
        metavar="Å|%",
        help="largest shift along x and y: 12 (Å) or 5%% of the box (default: that of the run; "
        "with a reference measured, and images centred)",
    )
    add(
        "--resolution",
        type=float,
        metavar="Å",
        help="with a reference: Fourier-crop the particles to the box whose Nyquist limit this is",
    )
    add(
        "--noise-patches",
        type=str,
        metavar="FILE",
        help="stack of particle-free patches of the same box, pixel size and contrast, used as "
        "noise (default: that of the run; with a reference measured on the particles)",
    )
    add("--device", type=str, help="auto (default), cpu, cuda, cuda:1 ...")
    add_overwrite(parser)
    add_quiet(parser)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = make_parser().given(arguments)
    if options.get("output") is None:
        raise InputError("cryogan assign needs a star file to write; give it with -o.")
    output = Path(options.output)
    if output.suffix not in (".star", ".cs", ".csg"):
        raise InputError(
            f"{output} has to end in .star (RELION) or .cs (cryoSPARC): one is written beside the "
            "other; choose such a name."
        )
    if Path(options.particles).suffix not in _KINDS:
        raise InputError(
            f"{options.particles} is no star file, .cs file or stack, whose columns poses are "
            "written beside; use cryogan.assign in Python."
        )
    assumptions = assumptions_of(options, inherits=True)
    if GivenAssumptions(assumptions.get("symmetry")).finds_symmetry:
        raise InputError("Poses need a symmetry that is known; give --sym a point group.")
    folder, reference = options.get("run"), options.get("reference")
    if (folder is None) == (reference is None):
        raise InputError(
            "cryogan assign needs the folder of a run, or a map with --reference: one of them."
        )
    if reference is None:
        require_run(folder)
        for name in ("diameter", "resolution"):
            if options.get(name) is not None:
                raise InputError(
                    f"--{name} goes with --reference: a run has its own; leave it out."
                )
    else:
        require_file(reference)
    if options.get("noise_patches") is not None:
        require_file(options.noise_patches)
    device = require_device(options)
    require_file(options.particles)
    require_outputs(
        options, [output, *(output.with_suffix(kind) for kind in (".star", ".cs", ".csg"))]
    )
    require_writable(output)

    import numpy as np

    import cryogan
    from cryogan.cli.display import bar
    from cryogan.evaluation.directional import (
        POOR_SCF_STAR,
        sampling_compensation,
        viewing_directions,
    )
    from cryogan.io.particle_files import refuse_inputs
    from cryogan.physics.rotations import random_rotations
    from cryogan.randomness import generator_for

    reader, reading = (None, {}) if folder is None else reading_of_run(folder, options.particles)
    particles = read_particles(options.particles, options, reader, reading)
    refuse_inputs([output, output.with_suffix(".cs"), output.with_suffix(".csg")], particles)
    out = progress_console(options)

    def started(about: Mapping[str, Any]) -> None:
        out.print(about["particles"]["summary"])
        neither, *own = about["in_halves"]
        if reference is not None:
            out.print(f"each particle against {reference}")
        elif not any(own):
            out.print(
                "not the particles of the run: all against map.mrc (no image here has its number "
                "in a stack of the run, by the stack's path or content)"
            )
        elif neither == 0:
            out.print("each particle against the map of its own half-set")
        else:
            out.print(
                f"{sum(own):,} particles against the map of their own half-set; {neither:,} are in "
                "neither, against map.mrc (rlnRandomSubset drawn)"
            )

    with bar(out, f"{len(particles):,} particles") as show:
        poses = cryogan.assign(
            particles,
            folder,
            reference=reference,
            **assumptions,
            resolution_A=options.get("resolution"),
            noise=options.get("noise_patches"),
            device=device,
            show=lambda fraction: show("", fraction),
            started=started,
        )
    written = cryogan.write_particles(output, particles, poses)
    found = poses.assignment
    spread, known = (
        np.quantile(values.numpy(), [0.1, 0.5, 0.9])
        for values in (found.spread_deg, found.information)
    )
    unlikely = float((found.fit_p_value < _SMALL).double().mean())
    any_views = random_rotations(len(poses), generator_for(0, "views to compare with"))
    even, random = (
        sampling_compensation(viewing_directions(each, poses.symmetry)).scf_star
        for each in (poses.pose.rotation, any_views)
    )
    out.print(
        f"viewing directions: SCF* {even:.2f} (as many random views: {random:.2f})"
        f"{'; views are missing' if even < POOR_SCF_STAR * random else ''}"
    )
    if found.particle.median() < _LEAST_FITTING:
        out.print(
            "warning: most images fit noise or a blob better than the map (medians of "
            "cryoganParticleProbability); check molecule, pixel sizes, contrast and CTFs"
        )
    out.print(
        f"posterior spread of angles: median {spread[1]:.1f}°, 10 % to 90 % {spread[0]:.1f}° to "
        f"{spread[2]:.1f}°; pose information: median {known[1]:.1f} nats ({known[0]:.1f} to "
        f"{known[2]:.1f})\np-values of the residuals below {_SMALL}: {100 * unlikely:.1f} % of the "
        f"particles (expected {100 * _SMALL:.0f} %)\nwritten: {', '.join(map(str, written))}"
    )
    return 0
