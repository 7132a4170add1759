"""Series of conformations against the truth: a molecule of blobs whose arm turns by known angles.

The blobs' centres are moved exactly, so that the series' frame, hand and states are known.
"""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import roma
import torch
from torch import Tensor

from cryogan.cli import main
from cryogan.conformations.folder import read_conformations, read_true_conformations
from cryogan.conformations.series import Series
from cryogan.errors import InputError
from cryogan.evaluation.fsc import fourier_shell_correlation
from cryogan.evaluation.per_image import fsc_auc, per_image_fsc_auc
from cryogan.evaluation.series import diversity, spectra
from cryogan.evaluation.series_comparison import SeriesComparison, compare_series
from cryogan.evaluation.statistics import spearman, wasserstein
from cryogan.io.mrc import write_map
from cryogan.physics.rotations import angle_between, random_rotations

pytestmark = pytest.mark.slow

SIZE, PIXEL_SIZE_A, STATES = 24, 5.0, 6


def atoms(angle_deg: float, *, pseudo_symmetric: bool = False) -> Tensor:
    """Positions (n, 3) in pixels of a chiral body and an arm that turns about its hinge."""
    draw = torch.Generator().manual_seed(7)
    body = 2.4 * torch.randn(30, 3, generator=draw).clamp(-1.7, 1.7)
    arm = 1.0 * torch.randn(14, 3, generator=draw) + torch.tensor([5.0, 1.0, 0.0])
    if pseudo_symmetric:  # C2 about z, but for the arm's angle
        half_turn = torch.tensor([-1.0, -1.0, 1.0])
        body = torch.cat((body[:15], body[:15] * half_turn))
        body = torch.cat((body, arm * half_turn))
    turn = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, math.radians(angle_deg)]))
    hinge = torch.tensor([2.5, 0.0, 0.0])
    return torch.cat((body, (arm - hinge) @ turn.T + hinge))


def density(centres: Tensor) -> Tensor:
    axis = torch.arange(SIZE) - SIZE // 2
    line = torch.exp(-((axis[:, None] - centres[:, None, :]) ** 2) / (2.0 * 1.1**2))
    return torch.einsum("nz,ny,nx->zyx", line[..., 2], line[..., 1], line[..., 0])


def series(
    volumes: list[Tensor], coordinate: Tensor | None = None, weight: Tensor | None = None
) -> Series:
    count = len(volumes)
    weight = torch.ones(count) if weight is None else weight
    if coordinate is None:
        coordinate = torch.linspace(0.0, 1.0, count)[:, None]
    return Series(
        [f"vol_{number:03d}.mrc" for number in range(count)],
        torch.stack(volumes),
        PIXEL_SIZE_A,
        weight.double() / weight.double().sum(),
        coordinate.double(),
    )


ANGLES = torch.linspace(0.0, 75.0, STATES).tolist()


def truth(*, pseudo_symmetric: bool = False) -> Series:
    return series([density(atoms(a, pseudo_symmetric=pseudo_symmetric)) for a in ANGLES])


def recovered(
    states: list[int],
    generator: torch.Generator,
    *,
    mirrored: bool = True,
    pseudo_symmetric: bool = False,
) -> tuple[Series, Tensor]:
    """Some true states in another frame and hand, and the rotation that made it."""
    rotation = random_rotations(1, generator)[0]
    shift = torch.tensor([0.7, -0.4, 0.9])
    sign = -1.0 if mirrored else 1.0
    volumes = []
    for state in states:
        centres = atoms(ANGLES[state], pseudo_symmetric=pseudo_symmetric)
        volumes.append(density(sign * centres @ rotation.T + shift))
    return series(volumes), rotation


@pytest.mark.parametrize(("mirrored", "pseudo_symmetric"), [(True, False), (False, True)])
def test_the_whole_series_is_aligned_by_one_known_transform(
    mirrored: bool, pseudo_symmetric: bool, generator: torch.Generator
) -> None:
    given, rotation = recovered(
        list(range(STATES)), generator, mirrored=mirrored, pseudo_symmetric=pseudo_symmetric
    )
    found = compare_series(given, truth(pseudo_symmetric=pseudo_symmetric))
    assert found.alignment.mirrored == mirrored
    assert float(angle_between(found.alignment.rotation[None], rotation.T[None])) < 0.5
    assert found.best_state.tolist() == found.best_volume.tolist() == list(range(STATES))
    assert found.coverage == found.near_coverage == found.span == 1.0
    assert found.monotonicity == [[pytest.approx(1.0)]]
    assert found.wasserstein == [pytest.approx(0.0, abs=1e-12)]
    assert found.population_error.abs().max() < 1e-9
    assert found.mean_resolution_A() == found.motion_resolution_A == 2 * PIXEL_SIZE_A
    assert found.mean_auc == pytest.approx(0.5, abs=0.002)
    assert found.mean_map_auc < 0.47
    assert found.diversity.amplitude == pytest.approx(found.true_diversity.amplitude, rel=0.02)


@pytest.fixture(scope="module")
def part() -> SeriesComparison:
    """States 4, 3, 3 and 1 of 6, at latents 0 to 1."""
    given, _ = recovered([4, 3, 3, 1], torch.Generator().manual_seed(3))
    return compare_series(given, truth())


def test_part_of_the_path_walked_backwards(part: SeriesComparison) -> None:
    assert part.best_state.tolist() == [4, 3, 3, 1]
    assert part.reached.tolist() == [False, True, False, True, True, False]
    assert part.coverage == pytest.approx(3 / 6)
    assert part.near_coverage == pytest.approx(6 / 6)
    assert part.span == pytest.approx(4 / 6)
    # latent ranks 1 2 3 4 against matched ranks 4 2.5 2.5 1
    assert part.monotonicity[0][0] == pytest.approx(3 / math.sqrt(10))
    assert part.recovered_share.tolist() == pytest.approx([0, 0.25, 0, 0.5, 0.25, 0])
    assert part.wasserstein == [pytest.approx(0.15)]  # |F - G| is 2 1 3 1 2 twelfths, over 5
    own = part.resolution_A()[torch.arange(4), part.best_state]
    assert bool((own == 2 * PIXEL_SIZE_A).all())
    per_state = part.auc[part.best_volume, torch.arange(STATES)]
    assert per_state[[1, 3, 4]].min() > per_state[[0, 2, 5]].max() + 0.01  # found, not found


def test_populations_and_negligible_classes(part: SeriesComparison) -> None:
    """Shares of states 1, 3, 4 are known; 1 % is no tenth of 20 %; one state never occurs."""
    shares = torch.tensor([0.69, 0.2, 0.1, 0.01], dtype=torch.float64)  # of states 4, 3, 3, 1
    true_shares = torch.tensor([0.0, 0.2, 0.1, 0.4, 0.3, 0.0], dtype=torch.float64)
    none = torch.zeros(STATES, 0, dtype=torch.float64)
    found = replace(
        part,
        generated=replace(part.generated, weight=shares),
        truth=replace(part.truth, weight=true_shares, coordinate=none),
    )
    assert found.population_error.tolist() == pytest.approx([0.0, -19.0, -10.0, -10.0, 39.0, 0.0])
    assert found.reached.tolist() == [False, False, False, True, True, False]
    assert found.coverage == pytest.approx(2 / 4)
    assert found.near_coverage is None
    assert found.span is None
    assert found.wasserstein == []
    assert "39.0 the largest" in found.table()


def test_two_true_axes(part: SeriesComparison) -> None:
    """One row of rank correlations a latent axis, one distance a true axis."""
    both = torch.stack((torch.arange(6.0), torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])), dim=-1)
    found = replace(part, truth=replace(part.truth, coordinate=both.double()))
    assert found.monotonicity[0][0] == pytest.approx(3 / math.sqrt(10))
    assert found.monotonicity[0][1] == pytest.approx(math.sqrt(0.6))  # ranks 1, 3, 3, 3
    assert found.wasserstein[1] == pytest.approx(0.25)  # shares of 1: 3/4 against 1/2
    assert found.near_coverage is None


def test_one_blurred_map_repeated_is_a_collapse(generator: torch.Generator) -> None:
    given, _ = recovered(list(range(STATES)), generator)
    found = compare_series(series([given.mean] * 4), truth())
    assert len(set(found.best_state.tolist())) == 1
    assert found.coverage == found.span == pytest.approx(1 / STATES)
    assert found.monotonicity == [[None]]
    assert found.wasserstein[0] >= found.wasserstein_of_one_state[0] > 0.25
    assert found.diversity.amplitude == found.diversity.largest == pytest.approx(0.0, abs=1e-5)
    assert found.true_diversity.amplitude > 0.1
    assert found.motion_resolution_A == pytest.approx(SIZE * PIXEL_SIZE_A)
    # a mean map looks well resolved: only the comparison with the true mean map says otherwise
    assert found.mean_auc == pytest.approx(found.mean_map_auc, abs=0.01)
    assert found.mean_resolution_A() == pytest.approx(found.mean_map_resolution_A, abs=0.5)
    assert "undefined" in found.table()
    assert "never reached" in found.table()


def test_noisy_maps_and_a_truth_on_another_grid(generator: torch.Generator) -> None:
    given, _ = recovered([1, 4], generator)
    noise = torch.randn(given.volumes.shape, generator=generator)
    given = replace(given, volumes=given.volumes + given.volumes.std() * noise)
    true = truth()
    padded = torch.nn.functional.pad(true.volumes, (2, 2) * 3)
    found = compare_series(given, replace(true, volumes=padded))
    assert found.best_state.tolist() == [1, 4]
    assert found.truth.volumes.shape == (STATES, SIZE, SIZE, SIZE)


def test_shell_products_are_the_fsc(
    generator: torch.Generator,
) -> None:
    a, b = torch.randn(2, 2, 17, 17, 17, generator=generator)
    ours = spectra(a).fsc(spectra(b))
    inside = slice(1, 8)  # the last shell has corners beyond the Nyquist sphere
    for i in range(2):
        for k in range(2):
            expected = fourier_shell_correlation(a[i], b[k])
            assert torch.allclose(ours[i, k, inside].float(), expected[inside], atol=1e-5)
    assert spectra(a).number.sum() == pytest.approx(4 / 3 * math.pi * 8.5**3, rel=0.05)


def test_diversity_of_two_maps_is_known() -> None:
    """V ± d of weights p, 1 - p: amplitude 2 sqrt(p (1 - p)) ‖d‖ / ‖V + (2p - 1) d‖."""
    still = density(atoms(0.0))
    wave = torch.randn(SIZE, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    still, wave = _band_limited(still), 0.1 * _band_limited(wave)
    p = 0.2
    found = diversity(series([still + wave, still - wave], weight=torch.tensor([p, 1 - p])))
    norm = float((still + (2 * p - 1) * wave).norm())
    expected = 2.0 * float(wave.norm()) / norm
    assert found.largest == pytest.approx(expected, rel=1e-4)
    assert found.amplitude == pytest.approx(math.sqrt(p * (1 - p)) * expected, rel=1e-4)
    shifted = diversity(series([still + 3.0, still - 2.0]))
    assert shifted.largest < 1e-5  # a constant is no motion


def _band_limited(volume: Tensor) -> Tensor:
    """Without shell 0 and what lies beyond shell 10."""
    spectrum = torch.fft.rfftn(volume)
    k = torch.stack(
        torch.meshgrid(
            torch.fft.fftfreq(SIZE),
            torch.fft.fftfreq(SIZE),
            torch.fft.rfftfreq(SIZE),
            indexing="ij",
        )
    ).norm(dim=0)
    kept = (k > 0) & (k * SIZE < 10)
    limited: Tensor = torch.fft.irfftn(spectrum * kept, s=volume.shape)
    return limited


def test_rank_correlation_by_hand() -> None:
    """Ranks 1, 2½, 2½, 4 and 1, 3, 2, 4: covariance 4½, variances 4½ and 5."""
    a, b = torch.tensor([0.1, 0.5, 0.5, 7.0]), torch.tensor([-3.0, 2.0, 1.0, 2.5])
    assert spearman(a, b) == pytest.approx(math.sqrt(0.9))
    assert spearman(a, -b) == pytest.approx(-math.sqrt(0.9))


@pytest.mark.filterwarnings("error")
def test_rank_correlation_of_what_does_not_vary_is_undefined() -> None:
    assert spearman(torch.arange(4), torch.ones(4)) is None
    assert spearman(torch.ones(1), torch.ones(1)) is None
    assert spearman(torch.zeros(0), torch.zeros(0)) is None


def test_transport_distance_by_hand() -> None:
    """|F - G| is 1/4 from 0 to 1 and 1/2 from 1 to 2; a point of weight 0 does not count."""
    x, p = torch.tensor([1.0, 0.0, 9.0]), torch.tensor([0.75, 0.25, 0.0])
    y, q = torch.tensor([0.0, 2.0]), torch.tensor([0.5, 0.5])
    assert wasserstein(x, p, y, q) == pytest.approx(0.75)
    assert wasserstein(y, q, x, p) == pytest.approx(0.75)


def test_per_image_fsc_of_known_curves() -> None:
    """Curves that fall linearly to 1, 1/2, 0 and -1/2 of FSC at Nyquist: areas known exactly."""
    size = 16
    ends = torch.tensor([[1.0, 0.5], [0.0, -0.5]])
    curves = 1.0 + (ends[..., None] - 1.0) * torch.linspace(0.0, 1.0, size // 2 + 1)
    area = fsc_auc(curves, size)
    assert torch.allclose(area, 0.5 * (1.0 + ends.double()) / 2.0)
    found = per_image_fsc_auc(curves, size, torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1]))
    assert found.mean == pytest.approx((0.5 + 0.375 + 2 * 0.125) / 4)
    assert found.median == pytest.approx((0.125 + 0.375) / 2)
    assert found.per_state.tolist() == pytest.approx([0.5, (0.375 + 2 * 0.125) / 3])
    with pytest.raises(InputError, match="Image 2 is assigned map 2, but there are 2"):
        per_image_fsc_auc(curves, size, torch.tensor([0, 2]), torch.tensor([0, 0]))
    with pytest.raises(InputError, match="2 images have a map but 1"):
        per_image_fsc_auc(curves, size, torch.tensor([0, 0]), torch.tensor([0]))


def write_run(folder: Path, given: Series) -> Path:
    """What a heterogeneous run leaves; returns the run folder."""
    inside = folder / "run" / "conformations"
    inside.mkdir(parents=True)
    rows = ["volume,z0,weight"]
    for number, (volume, name) in enumerate(zip(given.volumes, given.names, strict=True)):
        write_map(inside / name, volume, PIXEL_SIZE_A)
        rows.append(
            f"{name},{float(given.coordinate[number, 0])},{3 * float(given.weight[number])}"
        )
    (inside / "latents.csv").write_text("\n".join(rows) + "\n")
    return folder / "run"


def write_truth(folder: Path, true: Series) -> Path:
    inside = folder / "truth"
    inside.mkdir()
    rows = ["class,map,what,latent_1,share,images"]
    for number, volume in enumerate(true.volumes):
        write_map(inside / f"map_{number:03d}.mrc", volume, PIXEL_SIZE_A)
        rows.append(f'{number + 1},map_{number:03d}.mrc,"a, b",{number / (STATES - 1)},0.1,50')
    (inside / "states.csv").write_text("\n".join(rows) + "\n")
    return inside


def test_the_command_writes_table_matrix_and_picture(
    tmp_path: Path, generator: torch.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    given, _ = recovered([0, 2, 5], generator)
    run, true = write_run(tmp_path, given), write_truth(tmp_path, truth())
    assert main(["evaluate", str(run), "--truth-dir", str(true)]) == 0
    assert (
        "50% of 6 true states are the best match of a map (at most 50%" in capsys.readouterr().out
    )
    written = json.loads((run / "conformations" / "evaluation.json").read_text())
    assert written["coverage"] == pytest.approx(0.5)
    assert written["alignment"]["mirrored"] is True
    assert [m["best_state"] for m in written["maps"]] == [
        "map_000.mrc",
        "map_002.mrc",
        "map_005.mrc",
    ]
    with (run / "conformations" / "matrix.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * STATES
    best = [(r["map"], r["state"]) for r in rows if r["best_state_of_map"] == "1"]
    assert best == list(zip(given.names, [m["best_state"] for m in written["maps"]], strict=True))
    own = [float(r["fsc_0.5_A"]) for r in rows if r["best_state_of_map"] == "1"]
    assert own == [2 * PIXEL_SIZE_A] * 3
    assert (run / "conformations" / "evaluation.png").stat().st_size > 10_000


def test_reading_back_what_was_written(tmp_path: Path, generator: torch.Generator) -> None:
    given, _ = recovered([0, 5], generator)
    folder = write_run(tmp_path, given) / "conformations"
    read = read_conformations(folder)
    assert read.names == given.names
    assert torch.equal(read.volumes, given.volumes)
    assert read.weight.tolist() == pytest.approx([0.5, 0.5])
    assert read.coordinate.tolist() == [[0.0], [1.0]]
    (folder / "latents.csv").unlink()
    assert read_conformations(folder).coordinate.shape == (2, 0)
    true = read_true_conformations(write_truth(tmp_path, truth()))
    assert true.coordinate[:, 0].tolist() == pytest.approx([s / (STATES - 1) for s in range(6)])


def test_without_truth_only_the_diversity_is_told(
    tmp_path: Path, generator: torch.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    given, _ = recovered([0, 5], generator)
    assert main(["evaluate", str(write_run(tmp_path, given))]) == 0
    expected = diversity(given)
    assert f"{expected.amplitude:.3f} of the mean map" in capsys.readouterr().out


def test_bad_folders_are_refused_in_a_sentence(
    tmp_path: Path, generator: torch.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    given, _ = recovered([0, 5], generator)
    run, true = write_run(tmp_path, given), write_truth(tmp_path, truth())

    def complaint(*arguments: str) -> str:
        assert main(["evaluate", *arguments]) == 2
        return capsys.readouterr().err

    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no states.csv" in complaint(str(run), "--truth-dir", str(empty))
    assert "neither latents.csv nor maps" in complaint(str(empty), "--truth-dir", str(true))
    (empty / "config.json").write_text("{}")
    assert "holds no conformations" in complaint(str(empty), "--truth-dir", str(true))
    nowhere = str(tmp_path / "nowhere")
    assert "make it" in complaint(str(run), "--truth-dir", str(true), "-o", nowhere)
    assert "not both" in complaint(str(run), "--truth-dir", str(true), "--truth", nowhere)
    table = run / "conformations" / "latents.csv"
    whole = table.read_text()
    table.write_text(whole.replace("vol_001.mrc", ""))
    assert "name the file of each map" in complaint(str(run))
    table.write_text(whole.replace("weight", "size"))
    assert "no column weight" in complaint(str(run))
    table.write_text(whole.replace("1.5\n", "0\n"))
    assert "not a distribution" in complaint(str(run))
    table.write_text(whole)
    write_map(run / "conformations" / "vol_001.mrc", torch.ones(16, 16, 16), PIXEL_SIZE_A)
    assert "another box or pixel size" in complaint(str(run))
