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


def test_results_are_compared_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map more or fewer, another byte, another entry of the summary; times do not count."""
    monkeypatch.syspath_prepend(str(CAMPAIGN.parent))
    from kill_campaign import differing

    found, wanted = tmp_path / "found", tmp_path / "wanted"
    for folder, seconds in ((found, 1.0), (wanted, 2.0)):
        (folder / "half1").mkdir(parents=True)
        (folder / "half1" / "map.mrc").write_bytes(b"map")
        (folder / "log.txt").write_text(str(seconds))
        summary = {"timings_s": {"total": seconds}, "verdict": {"z": 1.0, "wall_s": seconds}}
        (folder / "summary.json").write_text(json.dumps(summary))
    assert differing(found, wanted) == []
    (found / "more.csv").write_text("1")
    (wanted / "fewer.star").write_text("1")
    (found / "half1" / "map.mrc").write_bytes(b"mop")
    (found / "summary.json").write_text(json.dumps({"verdict": {"z": 1.5}}))
    names = ["fewer.star", "half1/map.mrc", "more.csv", "summary.json"]
    assert differing(found, wanted) == names


def test_exit_codes_that_a_hit_may_lead_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command fails where a worker was killed, and only there."""
    monkeypatch.syspath_prepend(str(CAMPAIGN.parent))
    from kill_campaign import ENDED, FAILED, _expected

    for what in ("group", "parent"):
        assert _expected(what, None) == {-9}
        assert _expected(what, 15) == {143}
    assert _expected("worker", None) == {FAILED} | ENDED
    assert _expected("none", None) == ENDED
