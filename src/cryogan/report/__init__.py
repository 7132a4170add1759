"""From a run folder on disk to one self-contained HTML page.

Importing this package costs nothing; figures and templates are imported when a page is written.
"""

from pathlib import Path


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into a run folder and return its path (see `report.page`)."""
    from cryogan.report import page

    return page.write_report(run_folder)
