"""`cryogan demo`: a made-up protein from simulated images to map, poses and motion, with times."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryogan.cli.options import require_seed
from cryogan.cli.parser import CommandParser
from cryogan.cli.printing import add_quiet, progress_console
from cryogan.cli.stages import Stages
from cryogan.errors import Interrupted
from cryogan.objectives.adversarial.config import Stage

if TYPE_CHECKING:
    from rich.console import Console

LIKELIHOOD = {"initialisations": 1}
ADVERSARIAL = {"stages": (Stage(32, 25_600, padding=4.0),)}
"""Shorter than is good for real particles."""


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = CommandParser(
        "demo",
        "Simulate images of a made-up protein and of one that moves; reconstruct the first by the "
        "likelihood and by adversarial training, without poses, then assign poses; reconstruct "
        "the path of conformations of the second; compare all with the truth. The last lines say "
        "what was found and how long each stage took.",
        "cryogan demo -o demo",
        ("--output", "--seed"),
    )
    parser.add_argument("-o", "--output", type=str, help="folder to write to (default: demo)")
    parser.add_argument("--seed", type=int, help="of images and reconstructions (default: 0)")
    add_quiet(parser)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command: 0, whatever the verdicts are."""
    options = make_parser().given(arguments)
    folder, seed = Path(options.get("output") or "demo"), require_seed(options)

    import cryogan
    from cryogan.api.demonstration import errors_of_poses_deg, simulate_demo
    from cryogan.report import write_report

    out = progress_console(options)
    stages = Stages(out.print)

    def reconstruct(particles: Any, name: str, **chosen: Any) -> Any:
        common = {"max_shift": 0.0, "seed": seed, "device": "cpu"}
        return _reconstructed(out, particles, folder / name, **common, **chosen)

    with stages.stage("simulation") as found:
        still, moving = simulate_demo(folder, seed)
        found(f"{len(still):,} images of a protein, {len(moving):,} of one that moves")
    truth = folder / "still" / "truth"
    with stages.stage("likelihood") as found:
        result = reconstruct(still, "run", symmetry="D2", settings=LIKELIHOOD)
        comparison = cryogan.evaluate(result, truth=truth / "map.mrc")
        found(_of_map(result, comparison))
    with stages.stage("poses") as found:
        poses = cryogan.assign(still, result, device="cpu")
        cryogan.write_particles(folder / "poses.star", still, poses)
        error = errors_of_poses_deg(poses, comparison.alignment, truth)
        found(f"error: median {error.median():.1f}°, 90 % below {error.quantile(0.9):.1f}°")
        pages = [write_report(result.folder, folder / "poses.star")]
    with stages.stage("conformations") as found:
        path = reconstruct(moving, "path", latent="uniform", settings=LIKELIHOOD)
        motion = cryogan.evaluate(path, truth_conformations=folder / "moving" / "truth")
        found(f"{path.verdict}; path of {len(motion.generated)} maps, {_of_path(motion)}")
        pages.append(write_report(path.folder))
    with stages.stage("adversarial training") as found:
        trained = reconstruct(
            still, "adversarial", objective="adversarial", symmetry="D2", settings=ADVERSARIAL
        )
        found(_of_map(trained, cryogan.evaluate(trained, truth=truth / "map.mrc")))
        pages.append(write_report(trained.folder))
    out.print("\n" + stages.table())
    for page in pages:
        out.print(f"report: {page.resolve()}")
    return 0


def _reconstructed(out: "Console", particles: Any, folder: Path, **options: Any) -> Any:
    """The run, shown as it goes.

    Raises:
        Interrupted: it was.
    """
    import cryogan
    from cryogan.cli.display import run_display

    with run_display(out) as display:
        result = cryogan.reconstruct(particles, folder=folder, **display._asdict(), **options)
    if result.stopped_by is not None:
        raise Interrupted(result.stopped_by)
    return result


def _of_map(result: Any, comparison: Any) -> str:
    """Verdict, and the FSC with the truth, which is recorded."""
    from cryogan.api import record_truth

    record_truth(result, comparison)
    resolution_A = comparison.resolution_A(0.5)
    return f"{result.verdict}; FSC with the truth 0.5 at {resolution_A:.1f} Å"


def _of_path(motion: Any) -> str:
    """How the order of the maps agrees with the true one."""
    (rho,) = motion.monotonicity[0]
    order = "no order" if rho is None else f"order agrees with the true one: rho {rho:.2f}"
    return f"{order}; {motion.coverage:.0%} of {len(motion.truth)} true states reached"
