"""`cryogan status`: what run folders hold, and how far their runs are."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from cryogan.cli.options import require_run
from cryogan.cli.parser import CommandParser


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = CommandParser(
        "status",
        "Say of run folders how far their runs are, which process works in them, the resolution so "
        "far, when a file was last written, and what they take on disk.",
        "cryogan status run run/refine",
        ("--json",),
    )
    add = parser.add_argument
    add("runs", type=str, nargs="+", help="folders of reconstruct or refine")
    add("--json", action="store_true", help="print a JSON list instead")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = make_parser().given(arguments)

    folders = [require_run(name) for name in options.runs]

    from cryogan.run.status import status_of

    if options.get("json"):
        records = [
            asdict(found) | {"progress": found.progress} for found in map(status_of, folders)
        ]
        print(json.dumps(records, indent=2, default=str))
        return 0
    for name in folders:
        found = status_of(name)
        holder = "" if found.holder is None else f", in use by {found.holder}"
        lines = [f"{name}: {found.objective}, {found.progress}{holder}"]
        if found.verdict is not None:
            lines.append(f"verdict: {found.verdict}")
        if found.resolution_A is not None:
            what = "resolution to quote" if found.has_results else "half-map FSC 0.143 so far"
            lines.append(f"{what}: {found.resolution_A:.2f} Å")
        lines.append(f"begun {found.started}, last written {duration(found.changed_s)} ago")
        sizes = [f"{kind} {size / 1e6:.1f} MB" for kind, size in sorted(found.sizes.items())]
        lines.append(", ".join(sizes))
        if found.left_overs:
            lines.append(
                f"{len(found.left_overs)} left-overs of killed processes; cryogan clean {name}"
            )
        print("\n  ".join(lines))
    return 0


def duration(seconds: float) -> str:
    """In the unit that suits.

    Example:
        >>> duration(12.3), duration(7300.0)
        ('12 s', '2.0 h')
    """
    for limit, unit, name in ((120.0, 1.0, "s"), (7200.0, 60.0, "min"), (172_800.0, 3600.0, "h")):
        if seconds < limit:
            value = seconds / unit
            return f"{value:.0f} {name}" if name != "h" else f"{value:.1f} {name}"
    return f"{seconds / 86_400:.1f} days"
