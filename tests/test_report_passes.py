"""The passes of a likelihood run on the report page."""

import json
from dataclasses import asdict

import pytest

from cryogan.likelihood.ascent import AscentConfig
from cryogan.report.page import write_report
from cryogan.report.passes import _complete, _figure

CLIMB = [
    {"phase": "climb", "images_seen": 400, "rings": 5, "evidence": 10.0, "cpu_s": 2.0},
    {"phase": "climb", "images_seen": 800, "rings": 5, "evidence": 11.0, "cpu_s": 4.5},
    {"phase": "wake", "images_seen": 1200, "rings": 6, "evidence": 12.5, "cpu_s": 7.0},
]
REFINE = [
    {
        "phase": "refine", "pass": 1, "images": 5000, "images_seen": 6200, "rings": 15,
        "evidence": 20.25, "half_map_0.143_A": 10.19, "cpu_s": 67.0,
    },
    {
        "phase": "refine", "pass": 2, "images": 20000, "images_seen": 26200, "rings": 31,
        "evidence": 30.5, "half_map_0.143_A": 7.64, "cpu_s": 200.0,
    },
]  # fmt: skip


@pytest.fixture
def run_folder(tmp_path):
    """A likelihood run's log, its last line cut short."""
    settings = json.loads(json.dumps(asdict(AscentConfig())))
    (tmp_path / "config.json").write_text(json.dumps({"config": settings}))
    lines = [json.dumps(record) for record in (*CLIMB, *REFINE)]
    (tmp_path / "stats.jsonl").write_text("\n".join([*lines, '{"phase": "ref']))
    return tmp_path


def test_the_page_has_passes_instead_of_a_game(run_folder):
    page = write_report(run_folder).read_text()
    assert "<h2>Passes</h2>" in page
    assert 'id="passes"' in page
    for title in ("Training", "The molecule appearing", "Real beside simulated images"):
        assert f"<h2>{title}</h2>" not in page


def test_the_table_joins_the_steps_of_a_band_and_counts_their_images(run_folder):
    page = write_report(run_folder).read_text()
    rows = [
        ["climb (2 steps)", "800", "5", "11.0", "–", "4.5 s", "4.5 s"],
        ["wake", "400", "6", "12.5", "–", "2.5 s", "7.0 s"],
        ["pass 1", "5,000", "15", "20.2", "10.19 Å", "1 min 00 s", "1 min 07 s"],
        ["pass 2", "20,000", "31", "30.5", "7.64 Å", "2 min 13 s", "3 min 20 s"],
    ]
    for name, *cells in rows:
        assert f"<th>{name}</th>" + "".join(f"<td>{cell}</td>" for cell in cells) in page


def test_the_page_says_which_starts_there_were(run_folder):
    assert "Starts from random numbers" not in write_report(run_folder).read_text()
    log = run_folder / "stats.jsonl"
    compared = CLIMB[1] | {"starts": [[4.0, 5.25, 3.0], [5.0, 4.5, 4.75]]}
    meet = {"phase": "meet", "images_seen": 800, "half_map_0.5_A": 41.25}
    log.write_text("\n".join(map(json.dumps, (CLIMB[0], compared, meet, *REFINE))))
    page = write_report(run_folder).read_text()
    assert "compared in 5 rings" in page
    assert "half 1 they explain 5.25, 4.00, 3.00, of half 2 5.00, 4.75, 4.50;" in page
    assert "halves agree to 41.2 Å (FSC 0.5)" in page


def test_phases_are_curves_of_their_own_over_cpu_seconds():
    figure = _figure(_complete([*CLIMB, *REFINE]))
    names = [trace.name for trace in figure.data if trace.showlegend]
    assert names == [
        "refine",
        "climb",
        "conformations come out of random numbers",
    ]
    resolution = figure.data[0]
    assert list(resolution.x) == [67.0, 200.0]
    assert list(resolution.y) == [10.19, 7.64]
    colours = {trace.legendgroup: trace.line.color for trace in figure.data}
    assert len(set(colours.values())) == 3


def test_a_run_that_has_only_begun(run_folder):
    (run_folder / "stats.jsonl").unlink()
    assert "tells of no pass" in write_report(run_folder).read_text()
