"""`benchmarks/kill_tasks.py`: SIGKILL at any time, inside writes too."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).parent.parent / "benchmarks" / "kill_tasks.py"


@pytest.mark.slow
def test_killed_tasks_end_as_those_that_nobody_kills(tmp_path: Path) -> None:
    """Five kills or more of each objective: not a bit differs, and no temporary file is left."""
    done = subprocess.run(
        [sys.executable, str(CAMPAIGN), "--work", str(tmp_path), "--kills", "5"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    kills = [row for row in rows if row["kill"] != "end"]
    ends = [row for row in rows if row["kill"] == "end"]
    assert len(kills) >= 10
    assert {row["case"] for row in kills} == {"adversarial", "likelihood"}
    assert any(row["inside"] is not None for row in kills)
    assert [row["problem"] for row in ends] == [""] * len(ends)
