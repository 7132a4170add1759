"""What the report shows of single particles: histograms, thresholds, images beside the map."""

import base64
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cryogan.cli import main
from cryogan.errors import InputError
from cryogan.io.mrc import read_map, write_map, write_stack
from cryogan.io.relion_assigned import write_assigned
from cryogan.phantom import phantom_map
from cryogan.report.page import write_report
from cryogan.simulation.in_memory import SimulatedSet, write_dataset
from simulated_sets import centred_particles
from test_report import Page, make_run_folder, numbers_below

N, SIZE, PIXEL_A = 120, 24, 8.0


@pytest.fixture
def simulated(generator: torch.Generator) -> SimulatedSet:
    return centred_particles(phantom_map(SIZE, PIXEL_A), PIXEL_A, N, math.inf, generator)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = make_run_folder(tmp_path / "run", phantom_map(SIZE, PIXEL_A), PIXEL_A)
    write_map(folder / "map.mrc", phantom_map(SIZE, PIXEL_A), PIXEL_A)
    return folder


COLUMNS = {
    "cryoganAngleSpread": torch.linspace(1.0, 60.0, N),
    "cryoganFitPValue": (torch.arange(N) + 0.5) / N,
    "cryoganParticleProbability": torch.tensor([0.25, 0.75, 0.97]).repeat(N // 3),
    "cryoganContrast": torch.ones(N),
    "cryoganLatent0": torch.linspace(0.1, 0.9, N),
}


@pytest.fixture
def poses(tmp_path: Path, simulated: SimulatedSet) -> Path:
    """A star file as `cryogan assign` writes it, of images without noise at their true poses."""
    data = tmp_path / "set"
    write_dataset(data, simulated, phantom_map(SIZE, PIXEL_A))
    path = tmp_path / "poses.star"
    write_assigned(
        path,
        data / "particles.star",
        simulated.pose,
        log_likelihood=torch.linspace(-3.0, 3.0, N) ** 3,
        columns=COLUMNS,
    )
    return path


def counts(page: Page, title: str) -> tuple[np.ndarray, np.ndarray]:
    """Bin centres and numbers of particles of one histogram."""
    rows = [row for row in numbers_below(page, "particles") if row["curve"] == title]
    return tuple(np.array([float(row[name]) for row in rows]) for name in "xy")


def test_histograms_hold_every_particle(run_folder: Path, poses: Path) -> None:
    page = Page(write_report(run_folder, poses))
    assert page.headings.index("Particles") == page.headings.index("Resolution") + 1
    titles = {row["curve"] for row in numbers_below(page, "particles")}
    assert titles == {
        "spread of the orientation (°)",
        "log-likelihood",
        "p-value of the residual",
        "probability of a particle",
        "latent 0",
    }
    for title in titles:
        assert counts(page, title)[1].sum() == N
    x, y = counts(page, "p-value of the residual")
    np.testing.assert_allclose(x, (np.arange(40) + 0.5) / 40, atol=1e-6)
    assert set(y) == {3.0}  # uniform
    x, y = counts(page, "probability of a particle")
    assert {round(float(p), 2): n for p, n in zip(x, y, strict=True) if n} == {
        0.26: 40.0,
        0.76: 40.0,
        0.96: 40.0,
    }
    assert "The same for all particles: contrast 1." in page.text


def test_the_columns_that_a_lasso_chooses_among(run_folder: Path, poses: Path) -> None:
    text = write_report(run_folder, poses).read_text()
    data = re.search(r'<script type="application/json" id="scatter">(.*?)</script>', text)
    assert data is not None
    found = json.loads(data[1])
    assert (found["file"], found["count"]) == ("poses.star", N)
    assert found["columns"][found["x"]] == "latent 0"
    assert found["columns"][found["y"]] == "spread of the orientation (°)"
    values = found["values"][found["y"]]
    steps = np.frombuffer(base64.b64decode(values["data"]), "<u2")
    decoded = values["low"] + (values["high"] - values["low"]) * steps / 65535
    np.testing.assert_allclose(decoded, COLUMNS["cryoganAngleSpread"], atol=1e-3)


def test_thresholds_are_told_with_their_price(run_folder: Path, poses: Path) -> None:
    """Of 40 particles of probability 0.25, 10 are expected to be some."""
    text = Page(write_report(run_folder, poses)).text.replace("\n", "")
    assert "cryoganParticleProbability>0.1120" + "0" + "0.0" + "41.2" in text
    assert "cryoganParticleProbability>0.5" + "80" + "40" + "10.0" + "11.2" in text
    assert "cryoganParticleProbability>0.9" + "40" + "80" + "40.0" + "1.2" in text
    assert "cryoganFitPValue>0.01 leaves out 1 particles" in text
    assert "1.2 are expected" in text


def pictures(page: Page) -> list[np.ndarray]:
    """The mosaic's, three rows of eight."""
    body = page.source.split("Particles and the map at their poses")[1].split("</section>")[0]
    found = [part.split('"')[0] for part in body.split("data:image/png;base64,")[1:]]
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))).astype(float) for png in found
    ]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_images_stand_above_the_map_at_their_poses(
    run_folder: Path, poses: Path, simulated: SimulatedSet, sign: float
) -> None:
    """Without noise they are the same picture, also where the stack is dark."""
    images = simulated.particles.stack.read(torch.arange(N))
    write_stack(poses.parent / "set" / "particles.mrcs", sign * images, PIXEL_A)
    page = Page(write_report(run_folder, poses))
    shown = pictures(page)
    assert len(shown) == 24
    for image, projection in zip(shown[:8], shown[16:], strict=True):
        assert np.corrcoef(image.ravel(), projection.ravel())[0, 1] > 0.98
    assert not np.allclose(shown[16], shown[17], atol=20.0)
    assert "± 4.5°, p 0.06" in page.text  # rank 7 of 120: the first sixteenth


def test_images_that_are_gone_are_said(run_folder: Path, poses: Path) -> None:
    (poses.parent / "set" / "particles.mrcs").unlink()
    page = Page(write_report(run_folder, poses))
    assert "Left out: the images of particles" in page.text
    assert 'id="particles"' in page.source


def test_images_of_another_width_are_not_shown(run_folder: Path, poses: Path) -> None:
    write_map(run_folder / "map.mrc", read_map(run_folder / "map.mrc").volume, 1.5 * PIXEL_A)
    assert "they are 192 Å wide, the map 288 Å" in Page(write_report(run_folder, poses)).text


def test_other_files_are_refused(run_folder: Path, poses: Path) -> None:
    with pytest.raises(InputError, match="has no cryoganAngleSpread"):
        write_report(run_folder, poses.parent / "set" / "particles.star")
    with pytest.raises(InputError, match="is no star file"):
        write_report(run_folder, run_folder / "map.mrc")
    assert not (run_folder / "report.html").exists()


def test_the_command(run_folder: Path, poses: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run_folder), "--poses", str(poses)]) == 0
    assert "Particles" in Page(run_folder / "report.html").headings
    assert main(["report", str(run_folder), str(run_folder), "--poses", str(poses)]) == 2
    assert "--poses goes with the report of one run" in capsys.readouterr().err
    assert main(["report", str(run_folder), "--poses", "none.star"]) == 2
    assert "There is no file none.star" in capsys.readouterr().err
