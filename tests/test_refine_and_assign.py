"""Reconstruction by likelihood, refinement and assignment, end to end, on a small data set."""

import csv
import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import torch

import cryogan as cg
from cryogan import fourier
from cryogan.cli import main
from cryogan.cli.exit_codes import ENDED
from cryogan.data.halves import split_halves
from cryogan.data.normalisation import normalised
from cryogan.errors import InputError
from cryogan.io import cryosparc
from cryogan.io.mrc import read_map, write_map, write_stack
from cryogan.io.relion_poses import read_poses
from cryogan.io.star import Table, read_star
from cryogan.io.tables import read_columns
from cryogan.models.volume import symmetrise
from cryogan.objectives.adversarial.config import AdversarialConfig
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.likelihood.objective import Likelihood
from cryogan.phantom import phantom_map
from cryogan.physics.rotations import angle_between
from cryogan.run.checkpoint import RESULT, load_arrays
from cryogan.run.folder import read_run
from cryogan.run.halves import make_jobs
from cryogan.run.worker import Job, optimise
from cryogan.simulation.in_memory import write_dataset
from cryogan.symmetry import symmetry_matrices
from simulated_sets import centred_particles

COUNT, BOX, PIXEL_SIZE_A, SEED = 301, 16, 12.0, 3
QUICK = [
    "--likelihood.initial_rings=[5, 6]",
    "--likelihood.initial_batches=3",
    "--likelihood.initial_batch_size=100",
    "--likelihood.iterations=2",
    "--likelihood.subset_size=100",
    "--device=cpu",
]
DIAMETER_A = 153.6
MASK_RADIUS = DIAMETER_A / (BOX * PIXEL_SIZE_A)


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """301 images of the phantom in 16 px of 12 Å, and the truth."""
    folder = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(7)
    volume = phantom_map(BOX, PIXEL_SIZE_A)
    simulated = centred_particles(volume, PIXEL_SIZE_A, COUNT, -5.0, generator)
    write_dataset(folder, simulated, volume)
    return folder


def command(dataset: Path, output: Path, *more: str) -> list[str]:
    star = str(dataset / "particles.star")
    likelihood = ["--objective", "likelihood", "--seed", str(SEED), "--max-shift", "0", *QUICK]
    return ["reconstruct", star, "-o", str(output), *likelihood, *more]


def refining(run: Path, *more: str) -> list[str]:
    return ["refine", str(run), "--device=cpu", "--likelihood.iterations=2", *more]


@pytest.fixture(scope="module")
def reconstructed(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from random numbers; not to be written to."""
    folder = tmp_path_factory.mktemp("run") / "run"
    assert main(command(dataset, folder)) in ENDED
    return folder


@pytest.fixture(scope="module")
def begun(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished adversarial run whose half-maps are the truth with a little noise."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    folder.mkdir()
    truth = read_map(dataset / "truth" / "map.mrc").volume
    generator = torch.Generator().manual_seed(5)
    for name in ("half1", "half2", "map"):
        noise = 0.05 * torch.randn(truth.shape, generator=generator)
        write_map(folder / f"{name}.mrc", truth + noise, PIXEL_SIZE_A)
    write_config(folder, dataset, Assumptions(mask_radius=MASK_RADIUS))
    return folder


@pytest.mark.parametrize("max_shift", ["0", "20%"])
def test_a_run_assigns_in_a_padded_box_of_another_width(
    reconstructed: Path, dataset: Path, max_shift: str, tmp_path: Path
) -> None:
    """Shifts widen it; the noise that the run has measured follows spatial frequency."""
    particles = cg.read_particles(dataset / "particles.star").subset(torch.arange(60))
    found = cg.assign(particles, reconstructed, max_shift=max_shift, device="cpu")
    assert bool(found.assignment.log_likelihood.isfinite().all())


def write_config(folder: Path, dataset: Path, assumptions: Assumptions) -> None:
    """The `config.json` of an adversarial run."""
    about = {
        "objective": "adversarial",
        "particles": {
            "star": str((dataset / "particles.star").resolve()),
            "count": COUNT,
            "box_size": BOX,
        },
        "seed": SEED,
        "config": asdict(AdversarialConfig(penalty_weight=1.0, assumptions=assumptions)),
    }
    (folder / "config.json").write_text(json.dumps(about))


def assuming(begun: Path, folder: Path, assumptions: Assumptions) -> Path:
    """A copy of the run `begun` that has made these assumptions."""
    shutil.copytree(begun, folder, ignore=shutil.ignore_patterns("refine"))
    star = read_run(begun).star
    assert star is not None
    write_config(folder, star.parent, assumptions)
    return folder


@pytest.fixture(scope="module")
def refined(begun: Path) -> Path:
    assert main(refining(begun)) in ENDED
    return begun / "refine"


@pytest.fixture(scope="module")
def assigned(dataset: Path, refined: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    star = tmp_path_factory.mktemp("assigned") / "poses.star"
    arguments = ["assign", str(dataset / "particles.star"), str(refined), "-o", str(star)]
    assert main([*arguments, "--device=cpu"]) == 0
    return star


def refusal(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The sentence with which a command is refused."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("cryogan: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    return error


def records(folder: Path) -> list[dict[str, Any]]:
    """The log without times."""
    lines = (folder / "stats.jsonl").read_text().splitlines()
    timed = ("wall_s", "cpu_s", "images_per_s")
    return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]


def particle_table(star: Path) -> Table:
    return next(table for table in read_star(star) if "rlnImageName" in table)


RESULTS = ("half1.mrc", "half2.mrc", "map.mrc", "fsc.csv")


# Maps


@pytest.mark.parametrize("which", ["reconstructed", "refined"])
def test_the_run_folder_holds_everything(which: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)
    for name in RESULTS[:3]:
        with mrcfile.open(folder / name) as file:
            size = file.data.shape[0]
            assert file.data.shape == (size,) * 3
            assert size <= BOX
            assert float(file.voxel_size.x) == pytest.approx(PIXEL_SIZE_A * BOX / size, rel=1e-5)
            assert np.isfinite(file.data).all()
            assert file.data.std() > 0
    rows = list(csv.DictReader((folder / "fsc.csv").open()))
    assert len(rows) == size // 2 + 1
    assert {"half_map", "half_map_masked"} <= rows[0].keys()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary.get("retries", 0) == 0
    crossing_A = cg.read_run(folder).half_map_crossings_A["half_map_0.143"]
    held_out_A = cg.read_run(folder).held_out_resolution_A
    crossings_A = cg.read_run(folder).half_map_crossings_A.values()
    has = summary.get("verdict", {"word": "no structure"})["word"] != "no structure"
    assert (held_out_A is not None) is has
    assert held_out_A is None or held_out_A >= min(crossings_A) - 1e-6
    assert 2 * PIXEL_SIZE_A <= crossing_A <= BOX * PIXEL_SIZE_A
    about = json.loads((folder / "config.json").read_text())
    assert about["seed"] == SEED
    assert about["particles"]["count"] == COUNT
    log = records(folder)
    assert [record["phase"] for record in log].count("refinement") in (1, 2)
    assert [record["phase"] for record in log].count("initial model") == (
        6 if which == "reconstructed" else 0
    )
    seen = [record["images_seen"] for record in log]
    assert seen == sorted(seen)
    assert summary["images_seen"] == seen[-1]
    assert (folder / "report.html").stat().st_size > 10_000


def test_refined_maps_are_better(begun: Path, refined: Path, dataset: Path) -> None:
    """Correlations with the truth: 0.914 of the noisy map it began with, 0.962 in the end."""
    truth = read_map(dataset / "truth" / "map.mrc").volume

    def correlation(path: Path) -> float:
        return float(torch.corrcoef(torch.stack((read_map(path).volume, truth)).flatten(1))[0, 1])

    before, after = correlation(begun / "map.mrc"), correlation(refined / "map.mrc")
    assert before < 0.92
    assert after > 0.95


def test_what_the_run_assumed_is_kept(refined: Path) -> None:
    about = json.loads((refined / "config.json").read_text())
    assert about["objective"] == "likelihood"
    assert about["config"]["assumptions"]["mask_radius"] == MASK_RADIUS
    assert about["sources"]["mask_radius"].endswith("/run")
    assert about["config"]["iterations"] == 2
    assert about["particles"]["from"].endswith("/run")


def test_what_is_given_replaces_what_the_run_assumed(
    begun: Path, refined: Path, tmp_path: Path
) -> None:
    """Also where it is the default: C1 after D2, and no shifts after some; as if run with it."""
    other = Assumptions("D2", mask_radius=0.5, mask_edge=0.4, max_shift_percent=6.0)
    run = assuming(begun, tmp_path / "run", other)
    given = ["--sym=C1", f"--diameter={DIAMETER_A}", "--mask-edge=0.15", "--max-shift=0"]
    assert main(refining(run, *given)) in ENDED
    about = json.loads((run / "refine" / "config.json").read_text())
    wanted = json.loads((refined / "config.json").read_text())
    assert about["config"] == wanted["config"]
    names = ("symmetry", "mask_radius", "mask_edge", "max_shift_percent")
    assert {about["sources"][name] for name in names} == {"given"}
    assert about["sources"]["latent"] == f"the run {run}"
    for name in RESULTS:
        assert (run / "refine" / name).read_bytes() == (refined / name).read_bytes(), name


def test_symmetry_of_the_run_is_imposed_unless_another_is_given(
    begun: Path, refined: Path, dataset: Path, tmp_path: Path
) -> None:
    """The molecule has none: a D2 map of it is exactly symmetric, and a C1 map is not."""
    operators = symmetry_matrices("D2")[1:]

    def asymmetry(map_: torch.Tensor) -> float:  # where all equivalents are in the box
        map_ = map_ * fourier.soft_disc(map_.shape[-1], map_.shape[-1] / 2 - 2, 1.0, 3)
        return float((symmetrise(map_, operators) - map_).norm() / map_.norm())

    run = assuming(begun, tmp_path / "run", Assumptions("D2", mask_radius=MASK_RADIUS))
    found = cg.refine(run, settings={"iterations": 1}, device="cpu")
    assert found.sources is not None
    assert found.sources["symmetry"] == f"the run {run}"
    assert asymmetry(found.map.volume) < 1e-3
    assert asymmetry(found.halves[0].volume) < 0.03  # unfiltered, up to its outermost shell
    assert asymmetry(read_map(refined / "half1.mrc").volume) > 0.3
    particles = cg.read_particles(dataset / "particles.star", index=torch.arange(50))
    assert cg.assign(particles, run, device="cpu").symmetry == "D2"
    assert cg.assign(particles, run, symmetry="C1", device="cpu").symmetry == "C1"


@pytest.mark.parametrize("lost", [[], ["result.npz", "checkpoint.pt"]])
def test_the_same_command_again_gives_the_same_files(
    lost: list[str], begun: Path, refined: Path, tmp_path: Path
) -> None:
    """From the result if maps are missing, from the start if that is."""
    folder = tmp_path / "refine"
    shutil.copytree(refined, folder)
    for name in (*RESULTS, "summary.json", *lost):
        (folder / name).unlink()
    assert main(refining(begun, "-o", str(folder))) in ENDED
    for name in RESULTS:
        assert (folder / name).read_bytes() == (refined / name).read_bytes(), name
    assert records(folder) == records(refined)


def test_a_finished_run_without_its_result_is_refused(
    begun: Path, refined: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoint says that nothing is left to do: a sentence says what to delete."""
    folder = tmp_path / "refine"
    shutil.copytree(refined, folder)
    (folder / "result.npz").unlink()
    sentence = refusal(capsys, refining(begun, "-o", str(folder)))
    assert f"{folder / 'checkpoint.pt'} is complete but its result is missing" in sentence


def job_of(run: Path, folder: Path) -> Job:
    """The job of a run, to be begun in another folder."""
    folder.mkdir()
    shutil.copy(run / "config.json", folder)
    record = read_run(run)
    assert record.star is not None
    particles, _ = normalised(cg.read_particles(record.star))
    (job,) = make_jobs(particles, folder, record.objective, seed=SEED, device="cpu")
    return job


def after(count: int) -> Callable[[], bool]:
    """Asked at every log record: true at the one of that number."""
    asked = itertools.count(1)
    return lambda: next(asked) == count


def test_a_run_stopped_twice_gives_the_maps_of_one_never_stopped(
    reconstructed: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the initial model, which begins again, and after an EM iteration: maps and log."""
    folder = tmp_path / "run"
    job = job_of(reconstructed, folder)
    for count in (4, 8):
        assert not optimise(job, should_stop=after(count))
        assert not (folder / "result.npz").exists()
        assert len(records(folder)) == count
    assert [record["phase"] for record in records(folder)][5:] == [
        "initial model",
        "half-map comparison",
        "refinement",
    ]
    assert main(command(dataset, folder)) in ENDED
    for name in RESULTS:
        assert (folder / name).read_bytes() == (reconstructed / name).read_bytes(), name
    assert records(folder) == records(reconstructed)
    output = capsys.readouterr().out
    assert "iteration 2: " in output  # what is left to do
    assert "iteration 1: " not in output
    assert "half-maps agree" not in output


def test_the_log_in_words(reconstructed: Path) -> None:
    """Likelihoods of random initialisations are given when they are compared, best first."""
    log = records(reconstructed)
    said = [Likelihood.describe(record) for record in log]
    assert sum("half-maps agree to " in text for text in said) == 1
    (compared,) = [record["initialisations"] for record in log if "initialisations" in record]
    (text,) = [text for text in said if "random initialisations" in text]
    lines = text.splitlines()[1:]
    assert len(compared) == len(lines) == 2
    for line, values in zip(lines, compared, strict=True):
        assert ", ".join(f"{each:.2f}" for each in sorted(values, reverse=True)) in line


def test_other_settings_in_the_same_folder_are_refused(
    begun: Path, refined: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in refined.iterdir() if path.is_file()}
    sentence = refusal(capsys, refining(begun, "--likelihood.subset_size=100"))
    assert "already holds another run" in sentence
    assert before == {path.name: path.read_bytes() for path in refined.iterdir() if path.is_file()}


# Poses


def test_the_star_file_keeps_its_source_and_gains_poses(dataset: Path, assigned: Path) -> None:
    before, after = particle_table(dataset / "particles.star"), particle_table(assigned)
    own = {"rlnRandomSubset", "rlnClassNumber", "rlnLogLikeliContribution", "cryoganAngleSpread"}
    own |= {"cryoganShiftSpreadAngst", "cryoganPeakProbability"}
    own |= {"cryoganParticleProbability", "cryoganContrast", "cryoganFitPValue"}
    own |= {"cryoganPoseInformation"}
    posed = {"rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"}
    assert set(after.columns) == set(before.columns) | own | posed
    for label in set(before.columns) - posed - own - {"rlnImageName"}:
        assert after.columns[label] == before.columns[label], label
    particles = cg.read_particles(assigned)
    original = cg.read_particles(dataset / "particles.star")
    some = torch.tensor([0, 17, COUNT - 1])
    assert torch.equal(particles.stack.read(some), original.stack.read(some))
    peak = np.array(after.columns["cryoganPeakProbability"], dtype=float)
    assert ((peak > 0) & (peak < 1 + 1e-5)).all()
    p_value = np.array(after.columns["cryoganFitPValue"], dtype=float)
    assert ((p_value >= 0) & (p_value <= 1)).all()
    assert 0.0 < np.median(p_value) < 1.0


def test_half_sets_are_those_of_the_run(assigned: Path) -> None:
    first, second = split_halves(COUNT, SEED)
    half = np.array(particle_table(assigned).columns["rlnRandomSubset"], dtype=int)
    assert np.flatnonzero(half == 1).tolist() == sorted(first.tolist())
    assert np.flatnonzero(half == 2).tolist() == sorted(second.tolist())


def test_poses_are_right(dataset: Path, assigned: Path) -> None:
    """The maps are in the frame of the truth; the median error measured is 6.8°."""
    pose, truth = read_poses(assigned), read_poses(dataset / "truth" / "poses.star")
    error_deg = angle_between(pose.rotation, truth.rotation)
    assert float(error_deg.median()) < 10.0
    assert not pose.shift_A.any()
    spread = np.array(particle_table(assigned).columns["cryoganAngleSpread"], dtype=float)
    assert 0.5 < float(error_deg.square().mean().sqrt()) / np.sqrt((spread**2).mean()) < 2.0


def test_viewing_directions_of_the_run_are_told_and_used(
    dataset: Path, refined: Path, assigned: Path, tmp_path: Path
) -> None:
    """Had nearly all views been along +z, images that allow it would have been seen from there."""
    told = json.loads((refined / "summary.json").read_text())["views"]
    table = read_columns(refined / "view_density.csv", ("tilt_deg", "half1", "half2"))
    assert 0.5 < told["evenness"] <= 1.0
    assert float(table[1:].mean()) == pytest.approx(1.0, abs=1e-3)
    assert told["highest"] == pytest.approx(float(table[1:].mean(0).max()), abs=1e-3)
    shutil.copytree(refined, tmp_path / "run")
    weight = torch.where(table[0] < 40.0, 1.0, 1e-6).float().expand(2, -1)
    result = load_arrays(refined / RESULT) | {"view_density": weight / weight.mean()}
    np.savez(tmp_path / "run" / RESULT, **{name: each.numpy() for name, each in result.items()})
    star = tmp_path / "poses.star"
    arguments = [str(dataset / "particles.star"), str(tmp_path / "run"), "-o", str(star)]
    assert main(["assign", *arguments, "--device=cpu"]) == 0
    before, after = (read_poses(each).rotation[:, 2, 2] > 0.77 for each in (assigned, star))
    assert int(after.sum()) > int(before.sum()) + 10
    assert int((before & ~after).sum()) <= 2


def test_the_cs_file_says_the_same(assigned: Path) -> None:
    pose, wanted = cryosparc.read_poses(assigned.with_suffix(".cs")), read_poses(assigned)
    assert float(angle_between(pose.rotation, wanted.rotation).max()) < 0.05
    split = np.load(assigned.with_suffix(".cs"))["alignments3D/split"]
    half = np.array(particle_table(assigned).columns["rlnRandomSubset"], dtype=int)
    assert (split == half - 1).all()


def test_other_particles_are_assigned_with_the_map_of_all(
    dataset: Path, refined: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of another stack: no half-sets, no .cs file; in the order asked for."""
    rows = list(range(200, 0, -4))
    shutil.copy(dataset / "particles.star", tmp_path)
    images = cg.read_particles(dataset / "particles.star").stack.read(torch.arange(COUNT))
    write_stack(tmp_path / "particles.mrcs", 1.5 * images, PIXEL_SIZE_A)
    (tmp_path / "rows.txt").write_text("".join(f"{row}\n" for row in rows))
    star = tmp_path / "poses.star"
    arguments = ["assign", str(tmp_path / "particles.star"), str(refined), "-o", str(star)]
    assert main([*arguments, "--ind", str(tmp_path / "rows.txt"), "--device=cpu"]) == 0
    assert "not the particles of the run" in capsys.readouterr().out
    table = particle_table(star)
    assert "rlnRandomSubset" not in table
    assert not star.with_suffix(".cs").exists()
    truth = read_poses(dataset / "truth" / "poses.star").rotation[rows]
    error_deg = angle_between(read_poses(star).rotation, truth)
    assert float(error_deg.median()) < 10.0


def test_particles_that_were_moved_are_those_of_the_run(
    dataset: Path, refined: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stack and star file, with other names, some rows: known by their content."""
    shutil.copy(dataset / "particles.mrcs", tmp_path / "other.mrcs")
    text = (dataset / "particles.star").read_text().replace("particles.mrcs", "other.mrcs")
    (tmp_path / "moved.star").write_text(text)
    (tmp_path / "rows.txt").write_text("".join(f"{row}\n" for row in range(250, 50, -4)))
    star = tmp_path / "poses.star"
    arguments = ["assign", str(tmp_path / "moved.star"), str(refined), "-o", str(star)]
    assert main([*arguments, "--ind", str(tmp_path / "rows.txt"), "--device=cpu"]) == 0
    assert "each particle against the map of its own half-set" in capsys.readouterr().out
    table = particle_table(star)
    second = set(split_halves(COUNT, SEED)[1].tolist())
    wanted = ["2" if row in second else "1" for row in range(250, 50, -4)]
    assert list(table.columns["rlnRandomSubset"]) == wanted


# Refusals


def test_what_is_no_finished_run_is_refused(
    dataset: Path, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    star = str(dataset / "particles.star")
    output = str(tmp_path / "poses.star")
    assert "no run folder" in refusal(capsys, ["refine", str(tmp_path)])
    assert "no run folder" in refusal(capsys, ["assign", star, str(tmp_path), "-o", output])
    partial = tmp_path / "partial"
    shutil.copytree(begun, partial, ignore=shutil.ignore_patterns("half2.mrc", "refine"))
    for arguments in (["refine", str(partial)], ["assign", star, str(partial), "-o", output]):
        sentence = refusal(capsys, arguments)
        assert "no half2.mrc" in sentence
        assert "not finished" in sentence
    shutil.copy(begun / "half2.mrc", partial)
    (partial / "config.json").write_text('{"seed": 1}')
    assert "cannot be understood" in refusal(capsys, ["refine", str(partial)])
    with pytest.raises(InputError, match="cannot be understood"):
        read_run(partial)
    assert not (partial / "refine").exists()
    assert not (tmp_path / "poses.star").exists()


def test_a_run_is_refined_with_its_own_particles(
    dataset: Path, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.txt").write_text("".join(f"{row}\n" for row in range(250)))
    output = tmp_path / "out"
    extra = ["--ind", str(tmp_path / "rows.txt"), "-o", str(output)]
    sentence = refusal(capsys, refining(begun, *extra))
    assert "301 particles but 250" in sentence
    assert not output.exists()


def test_maps_of_another_field_of_view_are_refused(
    dataset: Path, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(begun, run, ignore=shutil.ignore_patterns("refine"))
    for name in RESULTS[:3]:
        write_map(run / name, read_map(begun / name).volume, 1.1 * PIXEL_SIZE_A)
    assert "211.2 Å wide but the particles 192.0 Å" in refusal(capsys, refining(run))
    assert not (run / "refine").exists()


def test_poses_need_a_folder_to_be_written_to(
    dataset: Path, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    star = str(dataset / "particles.star")
    output = tmp_path / "none" / "poses.star"
    sentence = refusal(capsys, ["assign", star, str(begun), "-o", str(output)])
    assert str(output) in sentence
    assert "does not exist" in sentence


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--ind", "FEW"], "give at least 200"),
        (["--sym", "Q9"], "'Q9'"),
        (["--ascent.symmetry", "C1"], "--sym"),
    ],
)
def test_what_the_likelihood_cannot_do_is_refused_before_anything_is_written(
    extra: list[str],
    words: str,
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "few.txt").write_text("".join(f"{row}\n" for row in range(199)))
    output = tmp_path / "run"
    extra = [str(tmp_path / "few.txt") if word == "FEW" else word for word in extra]
    assert words in refusal(capsys, command(dataset, output, *extra))
    assert not output.exists()


@pytest.mark.parametrize("name", ["refine", "assign"])
def test_an_unknown_symmetry_is_refused_before_particles_are_read(
    name: str, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    star, output = tmp_path / "particles.star", tmp_path / "out.star"
    star.write_text("no particles")
    arguments = {
        "refine": ["refine", str(begun), "--particles", str(star), "-o", str(output)],
        "assign": ["assign", str(star), str(begun), "-o", str(output)],
    }[name]
    assert "'Q9'" in refusal(capsys, [*arguments, "--sym", "Q9"])
    assert str(star) in refusal(capsys, arguments)
    assert not output.exists()
