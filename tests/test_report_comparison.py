"""The page that compares runs: curves, table, aligned maps, hand, and what is refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import roma
import torch
from torch import Tensor

from cryogan.cli import main
from cryogan.errors import InputError
from cryogan.evaluation.resampling import move_map
from cryogan.io.mrc import write_map
from cryogan.report import write_comparison
from cryogan.report.comparison_figures import half_maps_figure
from cryogan.run.contents import RunContents, read_run_contents
from test_report import BOX, PIXEL_SIZE_A, SECTIONS, Page, blobs, make_run_folder

HEADINGS = ["Runs side by side", "Half-map FSC", "Map sections", "FSC between the maps"]


def chiral() -> Tensor:
    """The three blobs, which have a plane of symmetry, and a fourth beside that plane."""
    z, y, x = torch.meshgrid(*[torch.arange(BOX) - BOX // 2] * 3, indexing="ij")
    return blobs() + torch.exp(-((x - 2) ** 2 + (y + 5) ** 2 + (z + 5) ** 2) / 12.0)


def moved(volume: Tensor, *, mirrored: bool = False) -> Tensor:
    """Turned by 1.2 rad about (1, 2, -1), and shifted."""
    axis = torch.tensor([1.0, 2.0, -1.0])
    rotation = roma.rotvec_to_rotmat(1.2 * axis / axis.norm())
    return move_map(volume, rotation, torch.tensor([1.5, -0.5, 1.0]), mirrored)


def make_run(folder: Path, volume: Tensor, pixel_size_A: float = PIXEL_SIZE_A) -> Path:
    """A finished run whose map is `volume`, without noise."""
    make_run_folder(folder, volume, pixel_size_A, seed=len(folder.name))
    write_map(folder / "map.mrc", volume, pixel_size_A)
    return folder


def changed(file: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def opened(*folders: Path) -> dict[str, RunContents]:
    return {folder.name: read_run_contents(folder) for folder in folders}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs of one map, the second one's turned and shifted."""
    return make_run(tmp_path / "one", chiral()), make_run(tmp_path / "second", moved(chiral()))


def test_page_is_whole_and_self_contained(pair: tuple[Path, Path], tmp_path: Path) -> None:
    before = {file: file.read_bytes() for run in pair for file in run.rglob("*") if file.is_file()}
    path = write_comparison(pair, tmp_path / "page.html")
    assert path == tmp_path / "page.html"
    page = Page(path)
    assert page.headings == HEADINGS
    assert page.addresses
    tables = [a for a in page.addresses if a.startswith("data:text/csv;base64,")]
    pictures = [a for a in page.addresses if a.startswith("data:image/png;base64,")]
    assert len(tables) == 2
    assert len(pictures) == 6  # three sections of two maps
    assert len(page.addresses) == 8
    assert not {"link", "iframe", "object", "embed"} & set(page.tags)
    assert page.source.count("plotly.js v") == 1
    assert {file: file.read_bytes() for file in before} == before
    assert not list(tmp_path.rglob("report.html"))


def test_curves_of_both_runs_are_in_the_page(pair: tuple[Path, Path], tmp_path: Path) -> None:
    runs = opened(*pair)
    source = write_comparison(pair, tmp_path / "page.html").read_text()
    curves = {curve.name: curve for curve in half_maps_figure(runs).data if curve.name}
    assert list(curves) == [
        "one, no mask",
        "one, soft mask",
        "second, no mask",
        "second, soft mask",
    ]
    for name, run in runs.items():
        assert run.fsc is not None
        for column, where in (("half_map", "no mask"), ("half_map_masked", "soft mask")):
            assert list(curves[f"{name}, {where}"].y) == list(run.fsc.curves[column][1:])
            assert f'"name":"{name}, {where}"' in source
    assert len({curve.line.color for curve in curves.values()}) == 2
    legend = half_maps_figure(runs).layout.legend
    assert (legend.yanchor, legend.y > 1) == ("bottom", True)


def test_table_shows_results_and_what_differs(pair: tuple[Path, Path], tmp_path: Path) -> None:
    def assume(config: dict) -> None:
        config["config"]["assumptions"] |= {"symmetry": "C1", "mask_radius": 0.5}
        config["config"]["critic"]["channels"] = 48
        config["particles"]["star"] = "other.star"

    changed(pair[1] / "config.json", assume)
    resolution_A = {"half_map_0.143": 12.3456, "truth_0.5": 15.5}
    changed(pair[1] / "summary.json", lambda summary: summary.update(resolution_A=resolution_A))
    source = write_comparison(pair, tmp_path / "page.html").read_text()
    for name, one, second in (
        ("objective", "adversarial", "adversarial"),
        ("particles", "20,000", "20,000"),
        ("map", "32 px of 4 Å (128.0 Å wide)", "32 px of 4 Å (128.0 Å wide)"),
        ("symmetry", "D2", "C1"),
        ("half-map 1 against half-map 2, FSC = 0.143, no mask", "9.43 Å", "12.35 Å"),
        ("half-map 1 against half-map 2, FSC = 0.143, soft mask", "8.77 Å", "–"),
        ("map against known structure, FSC = 0.5, no mask", "13.25 Å", "15.50 Å"),
        ("CPU time", "1 h 20 min", "1 h 20 min"),
        ("particle file", "data/particles.star", "other.star"),
        ("diameter of the mask", "0.85 of the box (108.8 Å)", "0.5 of the box (64.0 Å)"),
        ("critic.channels", "96", "48"),
    ):
        assert f"<th>{name}</th><td>{one}</td><td>{second}</td>" in source
    for same in ("learning_rate", "seed", "mask&#39;s edge"):
        assert same not in source.split("What differs")[1].split("</section>")[0]


def test_settings_of_one_objective_only_are_left_out(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    def other(config: dict) -> None:
        config |= {"objective": "likelihood", "seed": 8}
        config["config"] |= {"critic": {}, "iterations": 12}

    changed(pair[1] / "config.json", other)
    text = Page(write_comparison(pair, tmp_path / "page.html")).text
    assert "seed78" in text.replace("\n", "")
    assert "iterations" not in text
    assert "Settings that only one of the objectives has are left out" in text


def test_same_runs_differ_in_nothing(tmp_path: Path) -> None:
    runs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        runs.append(make_run(tmp_path / name / "run", chiral()))
    page = Page(write_comparison(runs, tmp_path / "page.html"))
    assert "Nothing: particle file" in page.text
    assert "a/run and b/run" in page.text  # folders of one name


def test_without_structure_no_resolution_is_quoted(pair: tuple[Path, Path], tmp_path: Path) -> None:
    verdict = {"word": "no structure", "reason": "held-out images gain nothing"}
    changed(pair[1] / "summary.json", lambda summary: summary.update(verdict=verdict))
    page = Page(write_comparison(pair, tmp_path / "page.html"))
    assert "second: No structure: held-out images gain nothing." in page.text
    assert "crossing at 9.43 Å, which is no resolution" in page.text
    assert "where its curves cross a threshold is no resolution" in page.text.replace("\n", " ")
    rings = [curve.marker.color for curve in half_maps_figure(opened(*pair)).data if len(curve.x)]
    assert rings.count("white") == 2  # those of the first run
    assert "The maps of one and second are compared, and no resolution is quoted." in page.text
    assert "crossing at" in page.text.split("FSC between the maps")[1]
    assert page.tags.count("b") == 1  # one tile, with the correlation


def test_three_runs(pair: tuple[Path, Path], tmp_path: Path) -> None:
    third = make_run(tmp_path / "third one", moved(moved(chiral())))
    page = Page(write_comparison((*pair, third), tmp_path / "page.html"))
    assert "one, second and third one" in page.text
    assert len(page.addresses) == 9 + 2  # and two tables
    for label in ("second", "third one"):
        for where in ("no mask", "soft mask"):
            assert f'"name":"{label} and one, {where}"' in page.source


def test_text_is_escaped(pair: tuple[Path, Path], tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>&'"
    odd = pair[1].rename(tmp_path / evil)
    changed(odd / "config.json", lambda config: config.update(objective=evil, device=evil))
    page = Page(write_comparison((pair[0], odd), tmp_path / "page.html"))
    assert page.tags.count("img") == 6
    assert "<img src=x" not in page.source
    assert evil in page.text


# What is refused


@pytest.mark.parametrize("absent", ["map.mrc", "fsc.csv", "summary.json"])
def test_a_run_that_is_not_finished(absent: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    (pair[1] / absent).unlink()
    with pytest.raises(InputError, match=f"second has no {absent}: its run is not finished"):
        write_comparison(pair, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_folders_that_cannot_be_compared(pair: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is not a run folder: it has no config"):
        write_comparison((pair[0], tmp_path / "empty"), path)
    with pytest.raises(InputError, match="give two or more"):
        write_comparison(pair[:1], path)
    with pytest.raises(InputError, match="are the same run"):
        write_comparison((pair[0], tmp_path / "empty" / ".." / "one"), path)
    write_map(pair[1] / "map.mrc", torch.zeros(BOX, BOX, BOX), PIXEL_SIZE_A)
    with pytest.raises(InputError, match=r"maps of second and one cannot be compared: .*constant"):
        write_comparison(pair, path)
    assert not path.exists()


@pytest.mark.parametrize("name", ["map.mrc", "report.html", "half1/stats.jsonl"])
def test_a_file_of_a_run_is_not_written_over(
    name: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    (pair[1] / "report.html").write_text("a report")
    before = (pair[1] / name).read_bytes()
    link = tmp_path / "link.html"
    link.symlink_to(pair[1] / name)
    for output in (pair[1] / name, link):
        with pytest.raises(InputError, match=r"would be written over .* another name"):
            write_comparison(pair, output)
    assert (pair[1] / name).read_bytes() == before


def test_an_earlier_comparison_is_written_over(pair: tuple[Path, Path]) -> None:
    page = pair[0] / "comparison.html"
    page.write_text("earlier")
    assert write_comparison(pair, page).read_text() != "earlier"


def test_command(
    pair: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", "one", "second"]) == 0
    assert capsys.readouterr().out == "comparison: comparison.html\n"
    assert Page(tmp_path / "comparison.html").headings == HEADINGS
    assert main(["report", "one", "second", "-o", "new.html"]) == 0
    assert (tmp_path / "new.html").read_bytes()[:15] == b"<!DOCTYPE html>"
    capsys.readouterr()
    assert main(["report", "one"]) == 0
    assert capsys.readouterr().out == "report: one/report.html\n"
    assert Page(tmp_path / "one" / "report.html").headings == list(SECTIONS)
    for arguments, words in (
        (["one", "-o", "new.html"], "The report of one run is one/report.html; leave out --output"),
        (["one", "second", "-o", "nowhere/new.html"], "its folder does not exist"),
        (["one", "nowhere"], "nowhere is no run folder"),
        (["one", "second", "-o", "one/report.html"], "would be written over"),
    ):
        assert main(["report", *arguments]) == 2
        assert words in capsys.readouterr().err


def test_the_particle_file_of_a_run_is_not_written_over(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    star = tmp_path / "particles.star"
    star.write_text("data_particles")
    changed(pair[1] / "config.json", lambda config: config["particles"].update(star=str(star)))
    with pytest.raises(InputError, match="made from"):
        write_comparison(pair, star)
    assert star.read_text() == "data_particles"


def test_a_device_or_a_pipe_is_not_replaced(pair: tuple[Path, Path], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.html"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="no regular file"):
        write_comparison(pair, pipe)
    assert pipe.is_fifo()
