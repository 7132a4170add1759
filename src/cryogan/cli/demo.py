"""`cryogan demo`: simulate a data set of the built-in phantom, reconstruct it, evaluate the map."""

from collections.abc import Sequence
from pathlib import Path

from cryogan.cli import exit_codes
from cryogan.cli.options import require_seed
from cryogan.cli.parser import CommandParser
from cryogan.cli.printing import add_quiet, progress_console
from cryogan.objectives.adversarial.config import Stage

BOX_SIZE = 32
PIXEL_SIZE_A = 6.0
PARTICLES = 20_000
SNR_DB = -5.2
SNR_BOX_SIZE = 192
STAGES = (Stage(BOX_SIZE, 76_800, padding=4.0),)


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = CommandParser(
        "demo",
        f"Simulate {PARTICLES:,} images ({BOX_SIZE} px of {PIXEL_SIZE_A:g} Å, "
        f"{SNR_DB:g} dB as at {SNR_BOX_SIZE} px) of a made-up D2 protein, reconstruct it with its "
        "symmetry but without poses, compare the map with the truth and write a report.",
        "cryogan demo -o demo",
        ("--output", "--seed"),
    )
    parser.add_argument("-o", "--output", type=str, help="folder to write to (default: demo)")
    parser.add_argument("--seed", type=int, help="of the data and of the training (default: 0)")
    add_quiet(parser)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command: 0, or 130 if it was interrupted."""
    options = make_parser().given(arguments)
    folder = Path(options.get("output") or "demo")
    seed = require_seed(options)

    import cryogan
    from cryogan.api import record_truth
    from cryogan.cli.display import run_display
    from cryogan.report import write_report

    data, run_folder = folder / "data", folder / "run"
    out = progress_console(options)
    if not (data / "particles.star").is_file():
        out.print(f"Simulating {PARTICLES:,} particles of a made-up protein ...")
        simulate_demo_data(data, seed)
    particles = cryogan.read_particles(data / "particles.star")
    with run_display(out) as display:
        result = cryogan.reconstruct(
            particles,
            objective="adversarial",
            symmetry="D2",
            settings={"stages": STAGES},
            folder=run_folder,
            seed=seed,
            device="cpu",
            show=display.show,
            started=display.started,
            phase=display.phase,
        )
    if result.stopped_by is not None:
        out.print("Interrupted; run the same command again to resume.")
        return exit_codes.of_signal(result.stopped_by)
    comparison = cryogan.evaluate(result, truth=data / "truth" / "map.mrc")
    record_truth(result, comparison)
    page = write_report(run_folder)
    out.print(comparison.table())
    out.print(
        f"truth FSC 0.5:      {comparison.resolution_A(0.5):.2f} Å\n"
        f"truth FSC 0.143:    {comparison.resolution_A(0.143):.2f} Å\n"
        f"half-map FSC 0.143: {result.half_map_crossings_A['half_map_0.143']:.2f} Å\n"
        f"verdict:            {result.verdict}\n"
        f"(Nyquist limit of the box: {2 * PIXEL_SIZE_A:.2f} Å)\n"
        f"report: {page.resolve()}"
    )
    return 0


def simulate_demo_data(folder: Path, seed: int) -> None:
    """Write the demo's data set, truth included.

    Raises:
        InputError: the folder cannot be made or written.
    """
    import torch

    from cryogan.phantom import phantom_map
    from cryogan.physics.distributions import PoseDistribution
    from cryogan.simulation.in_memory import simulate_particles, write_dataset
    from cryogan.simulation.microscope import random_ctf

    generator = torch.Generator().manual_seed(seed)
    volume = phantom_map(BOX_SIZE, PIXEL_SIZE_A, symmetry="D2")
    simulated = simulate_particles(
        volume,
        pixel_size_A=PIXEL_SIZE_A,
        n=PARTICLES,
        ctf=random_ctf(PARTICLES, generator),
        poses=PoseDistribution(),
        snr_dB=SNR_DB,
        snr_box_size=SNR_BOX_SIZE,
        generator=generator,
    )
    write_dataset(folder, simulated, volume)
