"""The iterations of a likelihood run on the report page."""

import json

import pytest

from cryogan.report.iterations import iteration_figure, with_images
from cryogan.report.page import write_report

INITIAL = [
    {
        "phase": "initial model", "images_seen": 400, "rings": 5, "log_likelihood": 10.0,
        "cpu_s": 2.0,
    },
    {
        "phase": "initial model", "images_seen": 800, "rings": 5, "log_likelihood": 11.0,
        "cpu_s": 4.5,
    },
    {
        "phase": "conformations", "images_seen": 1200, "rings": 6, "log_likelihood": 12.5,
        "cpu_s": 7.0,
    },
]  # fmt: skip
REFINEMENT = [
    {
        "phase": "refinement", "iteration": 1, "images": 5000, "images_seen": 6200, "rings": 15,
        "log_likelihood": 20.25, "half_map_0.143_A": 10.19, "cpu_s": 67.0,
    },
    {
        "phase": "refinement", "iteration": 2, "images": 20000, "images_seen": 26200, "rings": 31,
        "log_likelihood": 30.5, "half_map_0.143_A": 7.64, "cpu_s": 200.0,
    },
]  # fmt: skip


@pytest.fixture
def run_folder(tmp_path):
    """A likelihood run's log, its last line cut short."""
    (tmp_path / "config.json").write_text(json.dumps({"objective": "likelihood", "config": {}}))
    lines = [json.dumps(record) for record in (*INITIAL, *REFINEMENT)]
    (tmp_path / "stats.jsonl").write_text("\n".join([*lines, '{"phase": "ref']))
    return tmp_path


def test_the_page_has_iterations_instead_of_training_curves(run_folder):
    page = write_report(run_folder).read_text()
    assert "<h2>Iterations</h2>" in page
    assert 'id="iterations"' in page
    for title in ("Training", "The molecule appearing", "Real beside simulated images"):
        assert f"<h2>{title}</h2>" not in page


def test_the_table_joins_the_steps_of_a_band_and_counts_their_images(run_folder):
    page = write_report(run_folder).read_text()
    rows = [
        ["initial model (2 steps)", "800", "5", "11.0", "–", "4.5 s", "4.5 s"],
        ["conformations", "400", "6", "12.5", "–", "2.5 s", "7.0 s"],
        ["iteration 1", "5,000", "15", "20.2", "10.19 Å", "1 min 00 s", "1 min 07 s"],
        ["iteration 2", "20,000", "31", "30.5", "7.64 Å", "2 min 13 s", "3 min 20 s"],
    ]
    for name, *cells in rows:
        assert f"<th>{name}</th>" + "".join(f"<td>{cell}</td>" for cell in cells) in page


def test_the_page_says_which_initialisations_were_compared(run_folder):
    assert "initialisations" not in write_report(run_folder).read_text()
    log = run_folder / "stats.jsonl"
    compared = INITIAL[1] | {"initialisations": [[4.0, 5.25, 3.0], [5.0, 4.5, 4.75]]}
    halves = {"phase": "half-map comparison", "images_seen": 800, "half_map_0.5_A": 41.25}
    log.write_text("\n".join(map(json.dumps, (INITIAL[0], compared, halves, *REFINEMENT))))
    page = " ".join(write_report(run_folder).read_text().split())
    assert "Random initialisations were compared in 5 rings." in page
    assert "half-set 1: 5.25, 4.00, 3.00; half-set 2: 5.00, 4.75, 4.50." in page
    assert "half-sets agree to 41.2 Å (FSC = 0.5)" in page


def test_phases_are_curves_of_their_own_over_cpu_seconds():
    figure = iteration_figure(with_images([*INITIAL, *REFINEMENT]))
    names = [trace.name for trace in figure.data if trace.showlegend]
    assert names == ["refinement", "initial model", "conformations"]
    resolution = figure.data[0]
    assert list(resolution.x) == [67.0, 200.0]
    assert list(resolution.y) == [10.19, 7.64]
    colours = {trace.legendgroup: trace.line.color for trace in figure.data}
    assert len(set(colours.values())) == 3


def test_a_log_of_comparisons_alone(run_folder):
    record = {"phase": "half-map comparison", "images_seen": 800, "half_map_0.5_A": 41.25}
    (run_folder / "stats.jsonl").write_text(json.dumps(record))
    assert "stats.jsonl holds no iteration" in write_report(run_folder).read_text()


def test_a_run_that_has_only_begun(run_folder):
    (run_folder / "stats.jsonl").unlink()
    page = write_report(run_folder).read_text()
    assert "no stats.jsonl of the run folder holds numbers to draw" in page
