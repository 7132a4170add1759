"""The report page: self-contained, complete, escaped; the meshes and pictures in it true."""

import base64
import csv
import io
import json
import math
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import image as matplotlib_image
from torch import Tensor

from cryogan.errors import InputError
from cryogan.fourier import radius_grid
from cryogan.io.mrc import write_map
from cryogan.report.images import grey_png, grey_range
from cryogan.report.isosurface import (
    Isosurface,
    contour_levels,
    enclosed_volume_A3,
    isosurfaces,
    level_enclosing,
)
from cryogan.report.page import write_report
from cryogan.run.contents import read_run_contents
from cryogan.run.folder import command_line

BOX, PIXEL_SIZE_A = 32, 4.0
SECTIONS = (
    "Structure",
    "Sections and projections",
    "Resolution",
    "Real beside simulated images",
    "Training",
    "The molecule appearing",
    "Details",
)


def blobs(box_size: int = BOX) -> Tensor:
    """Three Gaussians of different sizes, none of them symmetric about the origin."""
    z, y, x = torch.meshgrid(*[torch.arange(box_size) - box_size // 2] * 3, indexing="ij")
    volume = torch.zeros(box_size, box_size, box_size)
    for cx, cy, cz, sigma in ((6, 0, 0, 2.5), (-4, 3, 0, 3.0), (-1, -4, 5, 2.0)):
        volume += torch.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / (2 * sigma**2))
    return volume


def make_run_folder(folder: Path, truth: Tensor, pixel_size_A: float, seed: int = 1) -> Path:
    """A finished run as training writes it, with made-up curves and noisy copies of `truth`."""
    rng = np.random.default_rng(seed)
    box_size = truth.shape[-1]
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps(
            {
                "cryogan_version": "0.1.0",
                "torch_version": "2.13.0",
                "python_version": "3.11.7",
                "device": "cpu",
                "command": "cryogan reconstruct particles.star -o run",
                "started": "2026-11-22T14:00:00",
                "particles": {
                    "star": "data/particles.star",
                    "summary": "20,000 particles\nbox 64 px, 3.822 Å/px\ncontrast: bright",
                    "count": 20000,
                    "box_size": box_size,
                    "pixel_size_A": pixel_size_A,
                },
                "objective": "adversarial",
                "seed": 7,
                "config": {
                    "critic": {"channels": 96, "learning_rate": 0.001},
                    "assumptions": {
                        "symmetry": "D2",
                        "mask_radius": 0.85,
                        "mask_edge": 0.15,
                        "mask_file": None,
                        "max_shift_percent": 2.5,
                    },
                },
                "sources": {
                    "symmetry": "given",
                    "mask_radius": "default",
                    "mask_edge": "default",
                    "mask_file": "default",
                    "max_shift_percent": "the run earlier",
                },
            }
        )
    )
    (folder / "summary.json").write_text(
        json.dumps(
            {
                "resolution_A": {
                    "half_map_0.143": 9.4321,
                    "half_map_0.143_masked": 8.7654,
                    "truth_0.5": 13.2468,
                    "truth_0.143": 11.1357,
                },
                "timings_s": {"total_wall": 2523.4, "total_cpu": 4801.0, "half1": 1190.2},
                "images_seen": 768000,
                "images_per_s": 304.4,
            }
        )
    )
    noise = [0.08 * torch.from_numpy(rng.normal(size=truth.shape)).float() for _ in range(2)]
    halves = [truth + n for n in noise]
    write_map(folder / "half1.mrc", halves[0], pixel_size_A)
    write_map(folder / "half2.mrc", halves[1], pixel_size_A)
    write_map(folder / "map.mrc", (halves[0] + halves[1]) / 2, pixel_size_A)
    write_map(folder / "truth_aligned.mrc", truth, pixel_size_A)
    shells = np.arange(box_size // 2 + 1)
    frequency = shells / (box_size * pixel_size_A)
    names = {"half_map": 9.4321, "half_map_masked": 8.7654, "truth": 11.1357, "truth_masked": 10.5}
    curves = [
        1 / (1 + np.exp(9 * (frequency * r - 1)) / 0.143 * 0.857)
        + 0.01 * rng.normal(size=len(shells))
        for r in names.values()
    ]
    rows = [",".join(["shell", "spatial_frequency_per_A", "resolution_A", *names])]
    for s in shells:
        resolution = "inf" if s == 0 else f"{1 / frequency[s]:.4f}"
        rows.append(
            f"{s},{frequency[s]:.6f},{resolution}," + ",".join(f"{c[s]:.5f}" for c in curves)
        )
    (folder / "fsc.csv").write_text("\n".join(rows) + "\n")
    for half in ("half1", "half2"):
        (folder / half).mkdir()
        _write_stats(folder / half / "stats.jsonl", rng)
    clean = truth.sum(0).numpy() * np.ones((8, 1, 1))
    ctf = clean - np.roll(clean, 2, axis=-1)
    images = {
        "clean": clean,
        "ctf": ctf,
        "noisy": ctf + 3 * rng.normal(size=clean.shape),
        "real": ctf + 3 * rng.normal(size=clean.shape),
        "real_power": np.linspace(9.0, 1.0, box_size // 2 + 1),
        "noisy_power": np.linspace(8.0, 2.0, box_size // 2 + 1),
        "power_images": np.array([1500]),
    }
    np.savez(folder / "half1" / "examples.npz", **images)
    centre = box_size // 2
    grown = [
        w * truth.numpy() + (1 - w) * rng.normal(size=truth.shape) for w in (0.0, 0.3, 0.7, 1.0)
    ]
    np.savez(
        folder / "half1" / "progress.npz",
        images_seen=np.array([0, 10000, 50000, 384000]),
        slices=np.stack([[v[centre], v[:, centre], v[:, :, centre]] for v in grown]),
    )
    return folder


def _write_stats(path: Path, rng: np.random.Generator) -> None:
    with path.open("w") as file:
        for step in range(1, 1001):
            record = {
                "step": step,
                "images_seen": 384 * step,
                "stage": "coarse" if step < 500 else "fine",
                "box_size": 32 if step < 500 else 64,
                "critic_loss": 0.3 + 0.4 * math.exp(-step / 200) + 0.02 * rng.normal(),
                "volume_loss": 0.9 - 0.3 * math.exp(-step / 200) + 0.02 * rng.normal(),
                "distance": 2 * math.exp(-step / 300) + 0.05 * rng.normal(),
                "penalty": 0.1 + 0.01 * rng.normal(),
                "contrast": 1 - math.exp(-step / 100),
                "noise_scale": 1.0,
                "something_new": [1, 2],
            }
            file.write(json.dumps(record) + "\n")
        file.write('{"step": 1001, "images')


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return make_run_folder(tmp_path / "run", blobs(), PIXEL_SIZE_A)


class Page(HTMLParser):
    """Headings, loaded addresses, visible text and the tags of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.source = path.read_text()
        self._inside = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style"):
            return
        self.text += data
        if self._inside == "h2":
            self.headings.append(data.strip())

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


def test_page_is_whole_and_self_contained(run_folder: Path) -> None:
    path = write_report(run_folder)
    assert path == run_folder / "report.html"
    page = Page(path)
    assert page.headings == list(SECTIONS)
    assert "Left out" not in page.text
    assert page.addresses
    kinds = ("data:image/png;base64,", "data:text/csv;base64,")
    assert all(address.startswith(kinds) for address in page.addresses)
    assert not {"link", "iframe", "object", "embed"} & set(page.tags)
    assert "@import" not in page.source.split("<script>")[0]
    assert page.source.count("plotly.js v") == 1
    for figure in ("isosurface", "fsc", "power", "training"):
        assert f'id="{figure}"' in page.source
    assert page.source.count('"showSendToCloud": false') == 4
    assert path.stat().st_size < 12e6
    assert [file.name for file in run_folder.glob(".cryogan-*")] == []


def numbers_below(page: Page, figure: str) -> list[dict[str, str]]:
    """The table that is linked below a figure."""
    after = page.source.split(f'download="{figure}.csv" href="data:text/csv;base64,')[1]
    table = base64.b64decode(after.split('"')[0]).decode()
    return list(csv.DictReader(io.StringIO(table)))


def test_numbers_of_curves_are_in_the_page(run_folder: Path) -> None:
    page = Page(write_report(run_folder))
    run = read_run_contents(run_folder)
    assert run.fsc is not None
    rows = [row for row in numbers_below(page, "fsc") if row["curve"] == "half-map, masked"]
    x, y = (np.array([float(row[name]) for row in rows]) for name in ("x", "y"))
    np.testing.assert_allclose(x, run.fsc.spatial_frequency_per_A[1:], rtol=1e-6)
    np.testing.assert_allclose(y, run.fsc.curves["half_map_masked"][1:], rtol=1e-6)
    assert {row["x_axis"] for row in rows} == {"spatial frequency (1/Å)"}
    assert {row["y_axis"] for row in rows} == {"Fourier shell correlation"}
    assert {row["y_axis"] for row in numbers_below(page, "training")} >= {"distance", "loss"}
    assert 'download="isosurface.csv"' not in page.source


def test_spectra_are_those_of_many_images(run_folder: Path) -> None:
    page = Page(write_report(run_folder))
    assert "Power spectra of 1,500 images of either kind" in page.text
    real = [float(row["y"]) for row in numbers_below(page, "power") if row["curve"] == "real"]
    np.testing.assert_allclose(real, np.linspace(9.0, 1.0, BOX // 2 + 1)[1:-1], rtol=1e-6)


def test_what_never_changes_is_not_drawn(run_folder: Path) -> None:
    curves = {row["curve"] for row in numbers_below(Page(write_report(run_folder)), "training")}
    assert "half1, contrast" in curves
    assert "half1, noise scale" not in curves


def test_the_command_can_be_pasted(run_folder: Path) -> None:
    words = ["/home/me/bin/cryogan", "reconstruct", "my set.star", "--sym", "D2"]
    assert command_line(words) == "cryogan reconstruct 'my set.star' --sym D2"
    assert command_line(["study.py", "a;b"]) == "python study.py 'a;b'"
    config = json.loads((run_folder / "config.json").read_text())
    (run_folder / "config.json").write_text(json.dumps(config | {"command": command_line(words)}))
    page = Page(write_report(run_folder))
    assert "cryogan reconstruct 'my set.star' --sym D2" in page.text
    assert '<pre class="command">' in page.source


def test_numbers_of_the_summary_appear_with_their_definitions(run_folder: Path) -> None:
    text = Page(write_report(run_folder)).text
    for number in ("9.43 Å", "8.77 Å", "13.25 Å", "11.14 Å", "20,000", "768,000", "42 min 03 s"):
        assert number in text
    assert f"boxes of {BOX} px of 4 Å" in text
    assert "agree to 9.4 Å (FSC = 0.143, no mask)." in text
    assert "known structure to 13.2 Å (FSC = 0.5, no mask)." in text
    assert "half-map 1 against half-map 2, FSC = 0.143, soft mask8.77 Å" in text
    assert "seed7" in text
    assert "critic.learning_rate0.001" in text


def test_assumptions_appear_in_angstroms_with_their_sources(run_folder: Path) -> None:
    source = write_report(run_folder).read_text()
    assert "assumptions.symmetry" not in source
    for name, *cells in (
        ("symmetry", "D2", "given"),
        ("diameter of the mask", "0.85 of the box (108.8 Å)", "default"),
        ("width of the mask&#39;s edge", "0.15 of half the box (9.6 Å)", "default"),
        ("mask file", "none", "default"),
        ("largest shift along x and y", "2.5 % of the box (3.2 Å)", "the run earlier"),
    ):
        assert f"<th>{name}</th>" + "".join(f"<td>{cell}</td>" for cell in cells) in source


def test_nyquist_and_disagreement_are_said(run_folder: Path) -> None:
    for value, sentence in (
        (8.0, "the Nyquist limit of the map"),
        (BOX * PIXEL_SIZE_A, "do not agree at any resolution"),
        (math.inf, "do not agree at any resolution"),
    ):
        (run_folder / "summary.json").write_text(
            json.dumps({"resolution_A": {"half_map_0.143": value}})
        )
        assert sentence in Page(write_report(run_folder)).text


def test_what_the_halves_share_outside_the_mask_is_not_the_headline(run_folder: Path) -> None:
    """As where denoised images leave halves an FSC of 0.3 to the end of the box."""
    resolution = {"half_map_0.143": 8.0, "half_map_0.143_masked": 29.7}
    (run_folder / "summary.json").write_text(json.dumps({"resolution_A": resolution}))
    text = Page(write_report(run_folder)).text
    assert "agree to 29.7 Å (FSC = 0.143, soft mask). Without the mask they agree to 8.0 Å" in text


@pytest.mark.parametrize(
    ("absent", "line"),
    [
        ("map.mrc", "the run folder has no map.mrc"),
        ("half2.mrc", "the run folder has no half2.mrc"),
        ("truth_aligned.mrc", "No known structure was given"),
        ("summary.json", "summary.json quotes no resolution"),
        ("fsc.csv", "the run folder has no fsc.csv"),
        ("half1/examples.npz", "the run folder has no examples.npz"),
        ("half1/progress.npz", "the run folder has no progress.npz"),
    ],
)
def test_a_missing_part_is_left_out_and_said(run_folder: Path, absent: str, line: str) -> None:
    (run_folder / absent).unlink()
    page = Page(write_report(run_folder))
    assert page.headings == list(SECTIONS)
    assert line in page.text


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    page = Page(write_report(tmp_path))
    assert page.headings == [
        "Structure",
        "Sections and projections",
        "Resolution",
        "Training",
        "Details",
    ]
    assert "No map has been written yet" in page.text
    assert "no stats.jsonl of the run folder holds numbers to draw" in page.text


def test_a_run_of_another_objective_shows_what_it_has(run_folder: Path) -> None:
    """Its numbers become curves, whatever they are called; the critic is not mentioned."""
    (run_folder / "half1" / "progress.npz").rename(run_folder / "progress.npz")
    for half in ("half1", "half2"):
        shutil.rmtree(run_folder / half)
    config = json.loads((run_folder / "config.json").read_text())
    (run_folder / "config.json").write_text(json.dumps(config | {"objective": "lab.fit:Fit"}))
    records = [{"images_seen": n, "cpu_s": n, "my_<b>loss": 1 / (n + 1)} for n in range(5)]
    (run_folder / "stats.jsonl").write_text("\n".join(map(json.dumps, records)))
    page = Page(write_report(run_folder))
    assert page.headings == [title for title in SECTIONS if not title.startswith("Real")]
    assert "by lab.fit:Fit" in page.text
    assert "critic" not in page.text.replace("critic.", "")
    assert '"text":"my &lt;b&gt;loss"' in page.source.replace("\\u0026", "&")
    assert "384,000" in page.text


def test_a_run_of_one_map(run_folder: Path) -> None:
    (run_folder / "half1").rename(run_folder / "full")
    for name in ("half2/stats.jsonl", "half1.mrc", "half2.mrc", "fsc.csv", "summary.json"):
        (run_folder / name).unlink()
    page = Page(write_report(run_folder))
    assert '"name":"full' in page.source
    assert '"name":"half1' not in page.source
    assert "reproducibility is not known" in page.text


def test_text_is_escaped(run_folder: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&'\""
    config = json.loads((run_folder / "config.json").read_text())
    for key in (
        "cryogan_version",
        "torch_version",
        "python_version",
        "device",
        "command",
        "started",
    ):
        config[key] = evil
    config["particles"] |= {"star": evil, "summary": evil}
    config["objective"] = evil
    config["config"] = {
        evil: evil,
        "nested": {evil: [evil]},
        "assumptions": {"symmetry": evil, evil: [evil]},
    }
    config["sources"] = {"symmetry": evil, evil: evil}
    (run_folder / "config.json").write_text(json.dumps(config))
    summary = json.loads((run_folder / "summary.json").read_text())
    summary["resolution_A"][f"{evil}_0.5"] = 5.0
    summary["timings_s"][evil] = 1.0
    (run_folder / "summary.json").write_text(json.dumps(summary))
    fsc = (run_folder / "fsc.csv").read_text().replace("truth_masked", '"<img src=x>"', 1)
    (run_folder / "fsc.csv").write_text(fsc)
    harmless = Page(write_report(make_run_folder(run_folder.parent / "b", blobs(), PIXEL_SIZE_A)))
    odd_name = run_folder.parent / "<b onclick=alert(3)>run"
    run_folder.rename(odd_name)
    page = Page(write_report(odd_name))
    assert page.tags.count("script") == harmless.tags.count("script")
    assert page.tags.count("img") == harmless.tags.count("img")
    assert "b" in page.tags
    assert page.tags.count("b") == harmless.tags.count("b") + 1  # one more resolution card
    assert evil in page.text
    assert "<img src=x" not in page.source


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("summary.json", "{", "summary.json is not valid JSON"),
        ("config.json", "[1]", "config.json does not hold a JSON object"),
        ("fsc.csv", "a,b\n1,2\n", "fsc.csv line 1 must begin with"),
        (
            "fsc.csv",
            "shell,spatial_frequency_per_A,resolution_A,half_map\n0,0,inf,1\n1,0.1,10\n",
            "fsc.csv line 3 is not 4 numbers",
        ),
        ("half1/examples.npz", "not an archive", "examples.npz is not a readable .npz file"),
    ],
)
def test_a_damaged_file_is_named(run_folder: Path, file: str, content: str, sentence: str) -> None:
    (run_folder / file).write_text(content)
    with pytest.raises(InputError, match=sentence):
        write_report(run_folder)
    assert not (run_folder / "report.html").exists()


def test_a_folder_that_is_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run folder: it has no config"):
        write_report(tmp_path)


def _enclosed_A3(mesh: Isosurface) -> float:
    """Signed volume by the divergence theorem: positive when faces look outwards."""
    a, b, c = (mesh.vertices_A[mesh.faces[:, i]].astype(np.float64) for i in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


def test_isosurface_of_a_ball_has_its_volume_and_looks_outwards() -> None:
    radius_A = 30.0
    ball = torch.sigmoid((radius_A / PIXEL_SIZE_A - radius_grid(BOX, 3)) / 0.8)
    mesh = isosurfaces(ball, PIXEL_SIZE_A, [0.5], max_vertices=100_000)[0]
    exact = 4 / 3 * math.pi * radius_A**3
    assert _enclosed_A3(mesh) == pytest.approx(exact, rel=0.01)
    assert enclosed_volume_A3(ball, 0.5, PIXEL_SIZE_A) == pytest.approx(exact, rel=0.03)
    assert np.linalg.norm(mesh.vertices_A, axis=1) == pytest.approx(radius_A, abs=0.4)


@pytest.mark.parametrize("box_size", [31, 32, 100])
def test_isosurface_lies_where_the_density_is_along_x_y_and_z(box_size: int) -> None:
    z, y, x = torch.meshgrid(*[torch.arange(box_size) - box_size // 2] * 3, indexing="ij")
    volume = torch.exp(-((x - 5) ** 2 + (y + 3) ** 2 + (z - 1) ** 2) / 18.0)
    mesh = isosurfaces(volume, 2.0, [0.5], max_vertices=100_000)[0]
    middle = (mesh.vertices_A.max(0) + mesh.vertices_A.min(0)) / 2
    assert middle == pytest.approx([10.0, -6.0, 2.0], abs=0.15)


def test_isosurface_keeps_to_its_budget_and_its_shape() -> None:
    volume = blobs()
    level = contour_levels(volume)[0]
    fine = isosurfaces(volume, PIXEL_SIZE_A, [level], max_vertices=100_000)[0]
    coarse = isosurfaces(volume, PIXEL_SIZE_A, [level], max_vertices=1500)[0]
    assert len(fine.vertices_A) > 1500 >= len(coarse.vertices_A) > 300
    assert _enclosed_A3(coarse) == pytest.approx(_enclosed_A3(fine), rel=0.05)


def test_contour_levels() -> None:
    volume = blobs()
    levels = contour_levels(volume)
    assert levels == sorted(levels)
    assert volume.mean() < levels[0] < levels[-1] < volume.max()
    assert contour_levels(torch.full((8, 8, 8), 3.0)) == []
    assert isosurfaces(volume, 1.0, [1e3], 1000)[0].vertices_A.shape == (0, 3)


def test_level_enclosing_inverts_enclosed_volume() -> None:
    volume = blobs()
    for level in contour_levels(volume):
        enclosed = enclosed_volume_A3(volume, level, PIXEL_SIZE_A)
        found = level_enclosing(2 * volume + 1, PIXEL_SIZE_A, enclosed)
        assert enclosed_volume_A3(2 * volume + 1, found, PIXEL_SIZE_A) == enclosed


def test_png_decodes_to_the_image(generator: torch.Generator) -> None:
    image = torch.rand(9, 9, generator=generator).double().numpy()
    address = grey_png(image, (0.0, 1.0))
    data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    decoded = matplotlib_image.imread(io.BytesIO(data), format="png")
    assert decoded == pytest.approx(image, abs=0.5 / 255 + 1e-6)


def test_grey_range_ignores_outliers_and_nan() -> None:
    image = np.linspace(0.0, 1.0, 10_000)
    image[:3] = np.nan, 1e9, -1e9
    low, high = grey_range(image)
    assert (low, high) == pytest.approx((0.0, 1.0), abs=0.01)


def test_contents_of_a_run_folder(run_folder: Path) -> None:
    run = read_run_contents(run_folder)
    assert run.objective == "adversarial"
    assert run.settings == {"critic": {"channels": 96, "learning_rate": 0.001}}
    assert run.assumptions["symmetry"] == "D2"
    assert run.sources["max_shift_percent"] == "the run earlier"
    assert run.resolution_A["half_map_0.143_masked"] == 8.7654
    assert run.maps.keys() == {"map", "half1", "half2", "truth"}
    assert run.fsc is not None
    assert list(run.fsc.curves) == ["half_map", "half_map_masked", "truth", "truth_masked"]
    assert {name: len(records) for name, records in run.logs.items()} == {
        "half1": 1000,
        "half2": 1000,
    }
    assert run.progress["slices"].shape == (4, 3, BOX, BOX)
    assert run.examples["real"].shape == (8, BOX, BOX)
    assert run.conformations is None


def test_the_reports_package_is_imported_at_no_cost() -> None:
    code = (
        "import sys, cryogan.report; "
        "print(sorted(sys.modules.keys() & {'torch', 'plotly', 'jinja2', 'PIL', 'skimage'}))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == "[]"
