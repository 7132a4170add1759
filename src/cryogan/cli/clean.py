"""`cryogan clean`: remove what killed processes have left in run folders."""

from collections.abc import Sequence

from cryogan.cli.options import require_run
from cryogan.cli.parser import CommandParser


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = CommandParser(
        "clean",
        "Remove from run folders the temporary files that killed processes have left there (a run "
        "that is resumed does so itself). Nothing is removed while a process works in a folder.",
        "cryogan clean run",
        ("--checkpoints",),
    )
    add = parser.add_argument
    add("runs", type=str, nargs="+", help="folders of reconstruct or refine")
    add(
        "--checkpoints",
        action="store_true",
        help="also the checkpoints of finished runs, without which assign writes no critic scores",
    )
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = make_parser().given(arguments)
    folders = [require_run(name) for name in options.runs]

    from cryogan.run.lock import RUN_LOCK, locked
    from cryogan.run.status import removable, status_of

    for name in folders:
        with locked(name / RUN_LOCK):
            found = removable(status_of(name), bool(options.get("checkpoints")))
            freed = sum(path.stat().st_size for path in found)
            for path in found:
                path.unlink(missing_ok=True)
        print(f"{name}: {len(found)} files removed ({freed / 1e6:.1f} MB)")
    return 0
