"""From run folders on disk to one self-contained HTML page: of one run, or comparing several.

Importing this package costs nothing; figures and templates are imported when a page is written.
"""

from collections.abc import Sequence
from pathlib import Path


def write_report(run_folder: Path, poses: Path | None = None) -> Path:
    """Write `report.html` into a run folder and return its path (see `report.page`)."""
    from cryogan.report import page

    return page.write_report(run_folder, poses)


def write_comparison(folders: Sequence[Path], path: Path) -> Path:
    """Write a page that compares finished runs and return its path (see `report.comparison`)."""
    from cryogan.report import comparison

    return comparison.write_comparison(folders, path)
