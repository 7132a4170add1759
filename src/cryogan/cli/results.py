"""What a command prints when a run has ended."""

from typing import Any

from rich.console import Console

from cryogan.cli import exit_codes
from cryogan.cli.printing import print_json
from cryogan.report import write_report
from cryogan.run.contents import NOTHING, NOTHING_QUOTED, read_run_contents


def print_results(out: Console, result: Any, *, as_json: bool = False) -> int:
    """Verdict, resolution and files of a `cryogan.Reconstruction`.

    Args:
        out: where they are printed in words.
        result: of the run.
        as_json: whether to print them as JSON too, on standard output.

    Returns:
        The exit code: 0, 3 or 4 by the verdict, or that of the signal that interrupted the run.
    """
    code = _print_words(out, result)
    if as_json:
        print_json(record_of(result, code))
    return code


def record_of(result: Any, code: int) -> dict[str, Any]:
    """What `--json` prints: how the run has ended, and its `summary.json`."""
    folder = result.folder
    names = ("map.mrc", "half1.mrc", "half2.mrc", "report.html", "conformations")
    return {
        "folder": folder,
        "finished": result.finished,
        "stopped_by": None if result.stopped_by is None else result.stopped_by.name,
        "exit_code": code,
        "summary": read_run_contents(folder).summary if result.finished else {},
        "files": [folder / name for name in names if result.finished and (folder / name).exists()],
    }


def _print_words(out: Console, result: Any) -> int:
    folder = result.folder
    if result.stopped_by is not None:
        name = result.stopped_by.name
        out.print(f"Interrupted ({name}); run the same command again to resume {folder}.")
        return exit_codes.of_signal(result.stopped_by)
    resolution_A = result.resolution_A
    if result.symmetry_found is not None:
        out.print("symmetry found: {} ({})".format(*result.symmetry_found))
    if result.verdict is not None:
        out.print(f"verdict: {result.verdict}")
    if result.verdict == NOTHING:
        out.print(NOTHING_QUOTED)
    else:
        out.print(
            f"half-map FSC 0.143: {resolution_A['half_map_0.143']:.2f} Å unmasked, "
            f"{resolution_A['half_map_0.143_masked']:.2f} Å masked"
        )
        if result.held_out_resolution_A is not None:
            out.print(f"held-out images:    {result.held_out_resolution_A:.2f} Å")
        if result.resolution_note:
            out.print(f"note: {result.resolution_note}")
        if result.quoted_resolution_A is not None:
            out.print(f"resolution to quote: {result.quoted_resolution_A:.2f} Å")
    for phrase in result.misfits:
        out.print(f"does not fit: {phrase}")
    out.print(f"map:    {folder / 'map.mrc'}\nreport: {write_report(folder)}")
    if (folder / "conformations").is_dir():
        out.print(f"conformations: {folder / 'conformations'}")
    return 0 if result.verdict is None else exit_codes.BY_VERDICT[result.verdict]
