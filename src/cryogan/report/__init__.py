"""From a run folder on disk to one self-contained HTML page."""
