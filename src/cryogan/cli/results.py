"""What a command prints when a run has ended."""

from typing import Any

from rich.console import Console

from cryogan.report import write_report


def print_results(out: Console, result: Any) -> int:
    """Resolution and files of a `cryogan.Reconstruction`: 0, or 130 if it was interrupted."""
    folder = result.folder
    if not result.finished:
        out.print(f"Interrupted; run the same command again to resume {folder}.")
        return 130
    resolution_A = result.resolution_A
    if result.verdict is not None:
        out.print(f"verdict: {result.verdict}")
    if result.verdict == "no structure":
        out.print("No resolution is quoted: held-out images are explained no better by the maps.")
    else:
        out.print(
            f"half-map FSC 0.143: {resolution_A['half_map_0.143']:.2f} Å unmasked, "
            f"{resolution_A['half_map_0.143_masked']:.2f} Å masked"
        )
    out.print(f"map:    {folder / 'map.mrc'}\nreport: {write_report(folder)}")
    if (folder / "conformations").is_dir():
        out.print(f"conformations: {folder / 'conformations'}")
    return 0
