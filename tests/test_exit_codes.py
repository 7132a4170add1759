"""The verdict in exit codes and `summary.json`: what a script reads."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import cryogan as cg
from cryogan.cli import exit_codes, main
from cryogan.cli.results import print_results
from cryogan.conformations.series import numbered_series
from cryogan.evaluation.comparison import compare_to_truth
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.base import Maps
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.objective import Likelihood
from cryogan.phantom import phantom_map
from cryogan.run.checkpoint import CHECKPOINT, RESULT, save_arrays
from cryogan.run.contents import read_run_contents
from cryogan.run.folder import add_truth
from cryogan.run.results import write_results
from cryogan.run.status import status_of
from cryogan.run.verdict import Verdict
from cryogan.simulation.in_memory import SimulatedSet, write_dataset
from cryogan.watch.state import run_state
from simulated_sets import centred_particles

BOX, PIXEL_A = 16, 12.0
HALVES = {"half_map_0.143", "half_map_0.143_masked"}
QUICK = [
    *("--objective", "likelihood", "--device=cpu", "--max-shift=0", "--sym=D2"),
    *(
        "--likelihood.initialisations=1",
        "--likelihood.initial_attempts=1",
        "--likelihood.initial_batches=6",
    ),
    *("--likelihood.initial_batch_size=150", "--likelihood.initial_rings=[5, 6]"),
    "--likelihood.iterations=2",
]


@dataclass
class Done:
    """A finished job."""

    folder: Path
    objective: Likelihood


def written(
    folder: Path,
    word: str | None,
    held_out_A: float | None = None,
    objective: Likelihood | None = None,
    phase: Callable[[str], None] = lambda what: None,
    **series: Any,
) -> Path:
    """Results of half-maps that agree, with a verdict, and of series if there are any."""
    volume = phantom_map(BOX, PIXEL_A)
    fsc = torch.linspace(1.0, 0.0, BOX // 2 + 1)
    mask = torch.ones_like(volume)
    maps = Maps(volume, volume, volume, mask, fsc, fsc, PIXEL_A, **series)
    verdict = None if word is None else Verdict(word, "why", (1.0, 1.0), (6.0, 6.0), (6.0, 6.0))
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"objective": "likelihood"}))
    spent = {"wall_s": torch.tensor(1.0), "cpu_s": torch.tensor(1.0)}
    save_arrays(folder / RESULT, **spent, images_seen=torch.tensor(300))
    (folder / CHECKPOINT).write_text("a state")
    job = Done(folder, objective or Likelihood())
    write_results(folder, [job], maps, verdict, held_out_A=held_out_A, phase=phase)
    return folder


@pytest.mark.parametrize("word", [None, "structure found", "doubtful"])
def test_a_resolution_is_quoted_where_there_may_be_structure(word, tmp_path):
    summary = json.loads((written(tmp_path / "run", word) / "summary.json").read_text())
    assert set(summary["resolution_A"]) == HALVES
    assert "half_map_crossings_A" not in summary
    assert word is None or next(iter(summary)) == "verdict"
    found = read_run_contents(tmp_path / "run")
    assert found.resolution_A == found.half_map_crossings_A == summary["resolution_A"]


@pytest.mark.parametrize(("held_out_A", "quoted_A"), [(20.0, None), (90.0, 90.0), (None, None)])
def test_no_finer_resolution_is_quoted_than_held_out_images_support(
    held_out_A, quoted_A, tmp_path, capsys
):
    folder = written(tmp_path / "run", "structure found", held_out_A)
    found = read_run_contents(folder)
    halves_A = max(found.resolution_A.values())
    assert 20.0 < halves_A < 90.0
    assert found.held_out_resolution_A == held_out_A
    assert found.quoted_resolution_A == (quoted_A or halves_A)
    print_results(Console(file=sys.stdout, width=200), cg.Reconstruction(folder))
    said, page = capsys.readouterr().out, (folder / "report.html").read_text()
    assert f"resolution to quote: {quoted_A or halves_A:.2f}" in said
    note = "held-out images support the half-maps to 90.00 Å only"
    assert (found.resolution_note, note in said, note in page) == (
        (note, True, True) if quoted_A else ("", False, False)
    )
    assert ("90.0 Å is the resolution to quote" in page) is bool(quoted_A)


def test_half_maps_of_adversarial_training_are_doubted_where_nothing_was_measured(tmp_path):
    folder = written(tmp_path / "run", "structure found")
    (folder / "config.json").write_text(json.dumps({"objective": "adversarial"}))
    assert "share errors" in read_run_contents(folder).resolution_note
    (folder / "config.json").write_text(json.dumps({"objective": "likelihood"}))
    assert read_run_contents(folder).resolution_note == ""


def test_none_is_quoted_without_structure(tmp_path):
    folder = written(tmp_path / "run", "no structure")
    summary = json.loads((folder / "summary.json").read_text())
    assert "resolution_A" not in summary
    assert set(summary["half_map_crossings_A"]) == HALVES
    found = read_run_contents(folder)
    assert found.resolution_A == {}
    assert found.half_map_crossings_A == summary["half_map_crossings_A"]
    truth = cg.Map(phantom_map(BOX, PIXEL_A), PIXEL_A)  # a comparison with the truth is one
    add_truth(folder, compare_to_truth(truth, truth))
    found = read_run_contents(folder)
    assert {name.split("_")[0] for name in found.resolution_A} == {"truth"}
    assert set(found.half_map_crossings_A) == HALVES


def test_status_says_what_is_still_done_at_the_end(tmp_path, capsys):
    """Conformations of half-sets are compared when all else is written, and it may take long."""
    folder, volume = tmp_path / "run", phantom_map(BOX, PIXEL_A)
    series = numbered_series(
        torch.stack((volume, volume.roll(1, 0))), PIXEL_A, torch.ones(2), torch.arange(2.0)[:, None]
    )
    assumptions = Assumptions(latent="uniform")
    objective = Likelihood(LikelihoodConfig(assumptions=assumptions))
    told = []

    def phase(what):
        if "conformations" not in what:
            return
        assert main(["status", str(folder)]) == 0
        said = capsys.readouterr().out
        assert f"not finished: results are written, {what} remains" in said
        assert "resolution to quote: " in said
        assert main(["clean", str(folder), "--checkpoints"]) == 0
        assert (folder / CHECKPOINT).exists()
        state = run_state(folder)
        assert (state["state"], state["stage"]) == ("stopped", what)
        assert state["verdict"][0] == "structure found"
        told.append(what)

    written(
        folder,
        "structure found",
        objective=objective,
        phase=phase,
        conformations=series,
        halves=(series, series),
    )
    assert told == ["comparing the conformations of the half-sets"]
    assert status_of(folder).progress == run_state(folder)["state"] == "finished"
    assert main(["status", str(folder)]) == 0
    assert "likelihood, finished\n" in capsys.readouterr().out
    summary = json.loads((folder / "summary.json").read_text())
    assert "remaining" not in summary
    assert "halves_motion_fsc_0.5_A" in summary["conformations"]


def dataset(folder: Path, snr_dB: float, n: int = 300) -> Path:
    """A particle file of the D2 phantom."""
    generator = torch.Generator().manual_seed(5)
    volume = phantom_map(BOX, PIXEL_A, symmetry="D2")
    found: SimulatedSet = centred_particles(volume, PIXEL_A, n, snr_dB, generator)
    write_dataset(folder, found, volume)
    return folder / "particles.star"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("snr_dB", "n", "verdict"),
    [(2.0, 300, "structure found"), (-60.0, 300, "no structure"), (2.0, 199, None)],
)
def test_the_exit_code_is_that_of_the_verdict(
    snr_dB: float, n: int, verdict: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    star, run = dataset(tmp_path / "set", snr_dB, n), tmp_path / "run"
    command = ["reconstruct", str(star), "-o", str(run), *QUICK]
    if verdict is None:
        command = ["reconstruct", str(star), "-o", str(run), "--objective=simple_objective:Simple"]
    code = main(command)
    said = capsys.readouterr().out
    found = cg.read_run(run)
    assert found.verdict == verdict
    assert code == exit_codes.BY_VERDICT.get(verdict or "structure found")
    assert ("half-map FSC 0.143: " in said.split("verdict")[-1]) is (verdict != "no structure")
    summary = json.loads((run / "summary.json").read_text())
    assert ("goodness_of_fit" in summary) is (verdict == "structure found")
    if verdict == "structure found":
        assert summary["goodness_of_fit"]["images"] == n
        assert (run / "goodness_of_fit.csv").is_file()
    assert main(command) == code  # finished already
    if verdict == "no structure":  # what goes on from it does
        assert main(["refine", str(run), "--device=cpu", "--likelihood.iterations=1"]) == code
        poses = str(tmp_path / "poses.star")
        assert main(["assign", str(star), str(run), "-o", poses, "--device=cpu"]) == 0
        truth = str(tmp_path / "set" / "truth" / "map.mrc")
        assert main(["evaluate", str(run), "--truth", truth]) == 0
