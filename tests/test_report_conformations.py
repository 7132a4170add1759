"""The conformations on the report page: what the viewer is given, what it does, and the figures."""

import base64
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from browser import CHROMIUM
from cryogan.conformations.folder import read_conformation_folder, write_conformations
from cryogan.conformations.series import Series
from cryogan.errors import InputError
from cryogan.report.conformation_figures import (
    amplitudes_figure,
    density_figure,
    difference_figure,
    path_length,
)
from cryogan.report.isosurface import enclosed_volume_A3
from cryogan.report.page import write_report
from cryogan.report.voxel_series import voxel_series

BOX, PIXEL_SIZE_A = 24, 5.0


def blob(x: float, y: float, z: float, sigma: float = 2.5, box_size: int = BOX) -> Tensor:
    """A Gaussian centred at (x, y, z) pixels from the origin."""
    axis = torch.arange(box_size) - box_size // 2
    zs, ys, xs = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.exp(-((xs - x) ** 2 + (ys - y) ** 2 + (zs - z) ** 2) / (2 * sigma**2))


def moving(count: int, box_size: int = BOX) -> Tensor:
    """(n, D, D, D) a body that stands still and a part that moves along x in equal steps."""
    scale = box_size / BOX
    at = torch.linspace(-5.0, 5.0, count) * scale
    body = blob(0.0, -4.0 * scale, 0.0, 3.0 * scale, box_size)
    return torch.stack([body + blob(x, 4.0 * scale, 2.0, 2.0 * scale, box_size) for x in at])


LATENTS = {
    "path": (torch.arange(8) + 0.5)[:, None] / 8,
    "classes": torch.arange(3)[:, None],
    "grid": torch.cartesian_prod(torch.arange(3) / 3, torch.arange(2) / 2),
}


def make_folder(folder: Path, kind: str, *, box_size: int = BOX, count: int | None = None) -> Path:
    """A run folder that holds nothing but settings and conformations of a kind."""
    latents = LATENTS[kind] if count is None else (torch.arange(count)[:, None] + 0.5) / count
    volumes = moving(len(latents), box_size)
    weight = 1.0 + torch.arange(len(latents)).double()
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    write_conformations(
        folder / "conformations",
        Series(
            [f"vol_{number:03d}.mrc" for number in range(len(volumes))],
            volumes,
            PIXEL_SIZE_A * BOX / box_size,
            weight / weight.sum(),
            latents.double(),
        ),
        path=kind == "path",
    )
    return folder


def data_of(page: str) -> dict:
    """What the page hands to the viewer."""
    return json.loads(re.search(r'<script [^>]*id="series">(.*?)</script>', page)[1])


def test_bytes_of_a_series_show_each_map_where_it_is():
    """Middle of mass within the molecule, and enclosed volume, of every map."""
    volumes = torch.stack([blob(5, -3, 1), blob(-4, 2, 6)])
    found = voxel_series(volumes, PIXEL_SIZE_A)
    bytes_ = np.frombuffer(base64.b64decode(found.data), np.uint8)
    grids = torch.from_numpy(bytes_.copy()).view(2, *(found.side,) * 3).float()
    for grid, middle in zip(grids, ((5, -3, 1), (-4, 2, 6)), strict=True):
        level = 0.5
        inside = (grid >= 255 * (level - found.low) / (found.high - found.low)).nonzero()
        centred = (inside.double().mean(0) - found.side // 2) * found.voxel_size_A
        assert centred.flip(0).tolist() == pytest.approx(
            [PIXEL_SIZE_A * value for value in middle], abs=0.3 * PIXEL_SIZE_A
        )
        enclosed = len(inside) * found.voxel_size_A**3
        exact = 4 / 3 * math.pi * (2.5 * PIXEL_SIZE_A * math.sqrt(2 * math.log(2))) ** 3
        assert enclosed == pytest.approx(exact, rel=0.03)


def test_flat_maps_have_no_surface(tmp_path):
    assert voxel_series(torch.ones(2, 16, 16, 16), 1.0) is None


@pytest.mark.parametrize(("kind", "grid"), [("path", [8]), ("classes", [3]), ("grid", [3, 2])])
def test_the_page_plays_every_kind_of_latent(kind, grid, tmp_path):
    folder = make_folder(tmp_path / "run", kind)
    page = write_report(folder).read_text()
    data = data_of(page)
    count = math.prod(grid)
    assert (data["kind"], data["grid"]) == (kind, grid)
    assert page.count('class="state"') == page.count('class="play"') == len(grid)
    assert [len(pictures) for pictures in data["sections"]] == [6] * count
    assert len({pictures[0] for pictures in data["sections"]}) == count
    total = count * (count + 1) / 2
    for number, label in enumerate(data["labels"]):
        assert f"{100 * (number + 1) / total:.1f} % of the particles" in label
    for figure in ("differences", "amplitudes", "density"):
        assert f'id="{figure}"' in page


def test_a_large_series_makes_a_page_below_10_MB(tmp_path):
    folder = make_folder(tmp_path / "run", "path", box_size=96, count=20)
    shutil.copy(folder / "conformations" / "vol_010.mrc", folder / "map.mrc")
    assert write_report(folder).stat().st_size < 10e6


def test_tables_are_optional_and_other_runs_have_no_section(tmp_path):
    folder = make_folder(tmp_path / "run", "path")
    for name in ("differences.csv", "pca.csv"):
        (folder / "conformations" / name).unlink()
        assert f"conformations/ has no {name}" in write_report(folder).read_text()
    (folder / "conformations" / "latents.csv").unlink()
    assert "<h2>Conformations</h2>" not in write_report(folder).read_text()


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("latents.csv", "volume,z0\nvol_000.mrc,0.5\n", "has no column weight"),
        ("latents.csv", "volume,weight\nvol_000.mrc,0\n", "are not a distribution"),
        (
            "latents.csv",
            "volume,weight\nvol_000.mrc,x\n",
            "line 2: a value of weight is not a finite",
        ),
        ("latents.csv", "volume,weight\nno.mrc,1\n", "no.mrc"),
        ("latents.csv", "", "has no column weight"),
        ("pca.csv", "volume,pc1\nvol_000.mrc,1\n", "and the rows that latents.csv asks for"),
        ("differences.csv", "volume,vol_000.mrc\nvol_000.mrc,nan\n", "does not have the column"),
        (
            "differences.csv",
            "\n".join(["volume,vol_000.mrc", *(f"vol_{n:03d}.mrc,nan" for n in range(8))]),
            "line 2: a value of vol_000.mrc is not a finite number",
        ),
    ],
)
def test_a_damaged_table_is_named(file, content, sentence, tmp_path):
    folder = make_folder(tmp_path / "run", "path")
    (folder / "conformations" / file).write_text(content)
    with pytest.raises(InputError, match=sentence):
        write_report(folder)


def test_names_cannot_end_the_data(tmp_path):
    folder = make_folder(tmp_path / "run", "path")
    inside = folder / "conformations"
    evil = "<!--<script>alert(1).mrc"
    (inside / "vol_000.mrc").rename(inside / evil)
    for name in ("latents.csv", "differences.csv", "pca.csv"):
        (inside / name).write_text((inside / name).read_text().replace("vol_000.mrc", evil))
    page = write_report(folder).read_text()
    assert evil not in page
    assert "&lt;!--&lt;script&gt;alert(1).mrc" in page


@pytest.mark.parametrize(
    ("latents", "kind"),
    [
        ([[0.1], [0.5]], "path"),
        ([[0.0], [1.0], [2.0]], "classes"),
        ([[], []], "path"),
        ([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], "grid"),
        ([[0.0, 0.0], [0.3, 1.0], [1.0, 0.2]], "path"),
    ],
)
def test_the_latents_tell_the_kind(latents, kind, tmp_path):
    volumes = moving(len(latents))
    series = Series(
        [f"{number}.mrc" for number in range(len(volumes))],
        volumes,
        PIXEL_SIZE_A,
        torch.full((len(volumes),), 1 / len(volumes)).double(),
        torch.tensor(latents).double(),
    )
    write_conformations(tmp_path / "c", series, path=False)
    found = read_conformation_folder(tmp_path / "c")
    assert found.series.kind == kind
    density_figure(found)
    amplitudes_figure(found)


def test_figures_show_the_tables(tmp_path):
    found = read_conformation_folder(make_folder(tmp_path / "run", "path") / "conformations")
    series = found.series
    matrix = difference_figure(found).data[0].z
    volumes = series.volumes.flatten(1)
    norm = (series.mean - series.mean.mean()).norm()
    expected = torch.cdist(volumes, volumes) / norm
    assert np.asarray(matrix) == pytest.approx(expected.numpy(), abs=5e-3)
    first, *_ = amplitudes_figure(found).data
    assert first.name.startswith("component 1 (")
    assert list(first.x) == pytest.approx(LATENTS["path"][:, 0].tolist())
    over_latent, along_path = density_figure(found).data
    assert sum(over_latent.y) == pytest.approx(100.0)
    steps = [float(expected[n, n + 1]) for n in range(7)]
    assert np.diff(along_path.x) == pytest.approx(steps, abs=5e-3)


def test_path_length_sums_neighbouring_differences():
    differences = np.array([[0, 1, 9], [1, 0, 2.5], [9, 2.5, 0]], dtype=float)
    assert path_length(differences).tolist() == [0.0, 1.0, 3.5]


DRIVER = """<script>
var seen = [];
new MutationObserver(function () {
  seen.push(document.querySelector("input.state").value);
  if (seen.length !== 12) return;
  this.disconnect();
  document.querySelector("button.play").click();
  var threshold = document.getElementById("threshold");
  threshold.value = LEVEL;
  threshold.dispatchEvent(new Event("input"));
  document.querySelector("h1").textContent = seen.join(" ");
}).observe(document.getElementById("state-label"), { childList: true });
document.querySelector("button.play").click();
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium to run the page's JavaScript in")
def test_the_viewer_plays_to_and_fro_and_measures_what_it_encloses(tmp_path):
    """Maps after pressing play, and the enclosed volume, in a browser that cannot draw surfaces."""
    folder = make_folder(tmp_path / "run", "path")
    page = write_report(folder)
    level = 0.6
    page.write_text(page.read_text().replace("</body>", DRIVER.replace("LEVEL", str(level))))
    result = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--disable-3d-apis", f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=10000", "--dump-dom", page.resolve().as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    seen = [int(text) for text in re.search("<h1>([0-9 ]+)</h1>", result.stdout)[1].split()]
    assert seen == [1, 2, 3, 4, 5, 6, 7, 6, 5, 4, 3, 2]
    assert re.search('<p [^>]*id="no-renderer">', result.stdout)  # it is not hidden
    found = re.search(r'id="threshold-label">(.*?) σ · encloses ([\d,]+) Å³', result.stdout)
    volume = moving(8)[seen[-1]]
    assert float(found[2].replace(",", "")) == pytest.approx(
        enclosed_volume_A3(volume, level, PIXEL_SIZE_A), rel=0.06
    )
