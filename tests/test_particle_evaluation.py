"""Scores of particles: known maps, latents and poses in another frame and hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import cryogan as cg
from cryogan.cli import main
from cryogan.conformations.basis import ConformationBasis
from cryogan.conformations.latent import make_latent
from cryogan.conformations.series import Series
from cryogan.evaluation.alignment import Alignment
from cryogan.evaluation.assigned_particles import AssignedParticles
from cryogan.evaluation.particle_evaluation import score_particles
from cryogan.io.mrc import write_map
from cryogan.io.relion_writing import write_particles
from cryogan.objectives.assumptions import Assumptions
from cryogan.particles import CTFParams, Pose
from cryogan.physics.rotations import random_rotations
from finished_runs import finished

SIZE, PIXEL_A, STATES, IMAGES = 24, 5.0, 8, 400
HALF_TURN = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))
LARGEST = 11 / 24


def blobs(seed: int, count: int = 40, spread: float = 3.0) -> Tensor:
    """(count, 3) centres in pixels."""
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(count, 3, generator=generator).clamp(-1.7, 1.7)


def density(centres: Tensor) -> Tensor:
    axis = torch.arange(SIZE) - SIZE // 2
    line = torch.exp(-((axis[:, None] - centres[:, None, :]) ** 2) / (2.0 * 1.1**2))
    return torch.einsum("nz,ny,nx->zyx", line[..., 2], line[..., 1], line[..., 0])


def truth_of(volumes: Tensor, coordinate: Tensor, circular: tuple[bool, ...]) -> Series:
    count = len(volumes)
    return Series(
        [f"map_{number:03d}.mrc" for number in range(count)],
        volumes,
        PIXEL_A,
        torch.full((count,), 1.0 / count, dtype=torch.float64),
        coordinate.double(),
        circular,
    )


class Circle:
    """States on a circle: a body, and two sets of blobs that come and go.

    The run has them turned by `turn`, mirrored if it is of the other hand.
    """

    def __init__(self, *, mirrored: bool) -> None:
        generator = torch.Generator().manual_seed(11)
        self.turn = random_rotations(1, generator)[0]
        self.mirrored = mirrored
        self.parts = [blobs(1, 60), blobs(2, 12) + 2.0, blobs(3, 12) - 2.0]
        self.space = make_latent("circle")
        self.places = torch.arange(STATES)[:, None] / STATES
        self.true_rotation = random_rotations(IMAGES, generator)
        self.state = torch.arange(IMAGES) % STATES
        sign = -1.0 if mirrored else 1.0
        moved = [sign * part @ self.turn for part in self.parts]  # rows: turnᵀ x
        self.basis = ConformationBasis(self.space, self._basis(moved), PIXEL_A)
        shown = self.true_rotation @ HALF_TURN if mirrored else self.true_rotation
        self.rotation = self.turn.T @ shown
        self.alignment = Alignment(self.turn, torch.zeros(3), mirrored, 1.0)

    @staticmethod
    def _basis(parts: list[Tensor]) -> Tensor:
        body, *rest = map(density, parts)
        return torch.stack((body, *(0.5 * each for each in rest)))

    @property
    def truth(self) -> Series:
        coefficients = self.space.coefficients(self.places, 3)
        volumes = torch.einsum("nc,czyx->nzyx", coefficients, self._basis(self.parts))
        return truth_of(volumes, self.places, (True,))

    def particles(self, latent: Tensor) -> AssignedParticles:
        return AssignedParticles(
            latent.double(), self.rotation.double(), self.state, self.true_rotation.double()
        )


@pytest.mark.parametrize("mirrored", [False, True])
def test_right_latents_and_poses_have_the_largest_scores(mirrored):
    given = Circle(mirrored=mirrored)
    latent = given.places[given.state]
    found = score_particles(given.basis, given.truth, given.particles(latent), given.alignment)
    assert found.per_image.rows.tolist() == given.state.argsort(stable=True)[::4].tolist()
    assert found.per_image.state.tolist() == sorted(given.state.tolist())[::4]
    assert found.per_image.mean == pytest.approx(LARGEST, abs=2e-3)
    assert found.per_image.std < 1e-3
    assert found.per_conformation.mean == pytest.approx(LARGEST, abs=2e-3)
    assert len(found.per_conformation.area) == STATES
    assert found.mean_map.mean < LARGEST - 0.01
    assert float(found.pose_error_deg.max()) < 0.1
    assert found.latents is not None
    assert found.latents.circular == pytest.approx(1.0)
    assert found.accuracy is None
    assert found.latents.imbalance[1][1] < 0.2  # the truth tells the latent of a state
    text = found.text()
    for part in ("per-image FSC area", "circular correlation    1.000", "one alignment for all"):
        assert part in text
    json.dumps(found.record())


def test_latents_that_say_nothing_score_as_chance(generator):
    given = Circle(mirrored=False)
    latent = torch.rand(IMAGES, 1, generator=generator)
    found = score_particles(given.basis, given.truth, given.particles(latent), given.alignment)
    right = score_particles(
        given.basis, given.truth, given.particles(given.places[given.state]), given.alignment
    )
    assert found.per_image.mean < right.per_image.mean - 0.02
    assert found.latents is not None
    assert found.latents.circular < 0.15
    assert found.latents.imbalance[1] == pytest.approx((1.0, 1.0), abs=0.15)
    assert found.latents.similarity[0.1][0] == pytest.approx(0.1 + 0.9 / 8, abs=0.05)


def test_the_latent_of_a_circle_has_its_mean_on_the_circle():
    """Latents 0.97 and 0.03 have their mean at 0, not at 0.5."""
    given = Circle(mirrored=False)
    noise = torch.where(torch.arange(IMAGES) % 16 < 8, 0.03, -0.03)[:, None]
    latent = (given.places[given.state] + noise) % 1.0
    latent[8] = 0.0  # one image of state 0 that is just right
    found = score_particles(given.basis, given.truth, given.particles(latent), given.alignment)
    assert int(found.per_conformation.rows[0]) == 8
    assert float(found.per_conformation.area[0]) == pytest.approx(LARGEST, abs=2e-3)


class Molecules:
    """Three different molecules, each class in a frame and hand of its own; the second has C2."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(5)
        half = blobs(21, 25)
        self.parts = [
            blobs(20, 50),
            torch.cat((half, half * torch.tensor([-1.0, -1.0, 1.0]))),
            blobs(22, 50, 2.5),
        ]
        self.state = torch.randint(0, 3, (IMAGES,), generator=generator)
        self.of_state = torch.tensor([2, 0, 1])  # class of each state
        turns = random_rotations(3, generator)
        mirrored = [True, False, True]
        true = random_rotations(IMAGES, generator)
        shown = true.clone()
        shown[self.state == 1] = HALF_TURN @ true[self.state == 1]  # the symmetric copy
        rotation = torch.empty_like(true)
        maps = torch.empty(3, SIZE, SIZE, SIZE)
        for state in range(3):
            number, mine = int(self.of_state[state]), self.state == state
            sign = -1.0 if mirrored[state] else 1.0
            maps[number] = density(sign * self.parts[state] @ turns[state])
            rotation[mine] = turns[state].T @ (
                shown[mine] @ HALF_TURN if mirrored[state] else shown[mine]
            )
        self.maps = maps
        self.truth = truth_of(
            torch.stack([density(part) for part in self.parts]), torch.zeros(3, 0), ()
        )
        latent = self.of_state[self.state][:, None].double()
        self.particles = AssignedParticles(latent, rotation.double(), self.state, true.double())
        self.space = make_latent("discrete", 3)
        inverse = torch.linalg.inv(self.space.coefficients(torch.arange(3)[:, None].float(), 3))
        self.basis = ConformationBasis(
            self.space, torch.einsum("cn,nzyx->czyx", inverse, maps), PIXEL_A
        )


@pytest.mark.slow
def test_classes_that_share_no_frame_are_aligned_each_on_its_own():
    """A tenth of the images in a wrong class: they count as wrong, and not in the poses."""
    given = Molecules()
    latent = given.particles.latent.clone()
    wrong = torch.arange(IMAGES) < 40
    latent[wrong] = (latent[wrong] + 1) % 3
    found = score_particles(given.basis, given.truth, replace(given.particles, latent=latent), None)
    assert found.accuracy == pytest.approx(0.9)
    assert found.own_alignments
    assert found.per_image.median == pytest.approx(LARGEST, abs=4e-3)
    assert found.per_conformation.mean == pytest.approx(LARGEST, abs=4e-3)
    assert found.mean_map.mean < 0.8 * LARGEST
    assert sorted(found.symmetry) == ["C1", "C1", "C2"]
    assert int(found.shown.sum()) == len(found.pose_error_deg) == 360
    assert float(found.pose_error_deg.quantile(0.99)) < 1.5
    text = found.text()
    assert "of 360 in the right class" in text
    assert "each class on its own" in text


# From files


def write_set(folder: Path, given: Circle) -> None:
    """The folder `truth` of a simulation."""
    folder.mkdir()
    truth = given.truth
    rows = ["class,map,what,latent_1_circular,share,images"]
    for number, (name, volume) in enumerate(zip(truth.names, truth.volumes, strict=True)):
        write_map(folder / name, volume, PIXEL_A)
        rows.append(f"{number + 1},{name},x,{number / STATES:.6f},0.125,{IMAGES // STATES}")
    (folder / "states.csv").write_text("\n".join(rows) + "\n")
    write_poses(folder / "poses.star", given.true_rotation, {"rlnClassNumber": given.state + 1})


def write_poses(path: Path, rotation: Tensor, columns: dict[str, Tensor]) -> None:
    write_particles(
        path,
        image_names="particles.mrcs",
        ctf=CTFParams.constant(len(rotation), defocus_u_A=1e4),
        pixel_size_A=PIXEL_A,
        box_size=SIZE,
        pose=Pose(rotation.float(), torch.zeros(len(rotation), 2)),
        extra={name: [str(v) for v in values.tolist()] for name, values in columns.items()},
    )


@pytest.mark.slow
def test_evaluate_writes_the_scores_of_particles(tmp_path, capsys):
    given = Circle(mirrored=True)
    write_set(tmp_path / "truth", given)
    latents = (torch.arange(20)[:, None] + 0.5) / 20
    maps = torch.stack(list(given.basis.maps(latents)))
    assumptions = Assumptions(latent="circle", basis_volumes=2)
    finished(tmp_path / "run", assumptions, maps, latents, pixel_size_A=PIXEL_A)
    write_poses(
        tmp_path / "poses.star",
        given.rotation,
        {"cryoganLatent0": given.places[given.state][:, 0]},
    )
    command = ["evaluate", str(tmp_path / "run"), "--truth-dir", str(tmp_path / "truth")]
    command += ["--particles", str(tmp_path / "poses.star")]
    assert main([*command, "--images", "20"]) == 0
    printed = capsys.readouterr().out
    assert "per-image FSC area" in printed
    assert "circular correlation    1.000" in printed
    series = json.loads((tmp_path / "run" / "conformations" / "evaluation.json").read_text())
    assert series["circular_correlation"] > 0.9  # of maps that lie between the states
    assert series["span"] is None
    assert series["coverage_within_one_state"] == 1.0
    found = json.loads((tmp_path / "run" / "conformations" / "particles.json").read_text())
    assert len(found["per_image"]["rows"]) == 20
    assert found["per_image"]["mean"] == pytest.approx(LARGEST, abs=0.01)
    assert found["pose_error_deg"]["median"] < 1.0
    assert found["latents"]["circular_correlation"] == pytest.approx(1.0)


def test_what_cannot_be_evaluated(tmp_path, capsys):
    given = Circle(mirrored=False)
    write_set(tmp_path / "truth", given)
    assumptions = Assumptions(latent="circle", basis_volumes=2)
    latents = torch.arange(4)[:, None] / 4.0
    maps = torch.stack(list(given.basis.maps(latents)))
    finished(tmp_path / "run", assumptions, maps, latents, pixel_size_A=PIXEL_A)
    poses = tmp_path / "poses.star"
    other = torch.cat((given.rotation, given.rotation[:1]))
    write_poses(poses, other, {"cryoganLatent0": torch.full((IMAGES + 1,), 0.5)})
    run, truth = str(tmp_path / "run"), str(tmp_path / "truth")
    for words, part in (
        ([run, "--particles", str(poses)], "--particles goes with --truth-dir"),
        ([truth, "--truth-dir", truth, "--particles", str(poses)], "is no run folder"),
        ([run, "--truth-dir", truth, "--particles", "no.star"], "There is no file no.star"),
        ([run, "--truth-dir", truth, "--images", "5"], "--images goes with --particles"),
    ):
        assert main(["evaluate", *words]) == 2
        assert part in capsys.readouterr().err
    with pytest.raises(cg.InputError, match=r"poses.star lacks image 401 of particles.mrcs"):
        cg.evaluate_particles(run, poses, truth_conformations=truth)
    (tmp_path / "truth" / "poses.star").unlink()
    with pytest.raises(cg.InputError, match=r"holds no poses\.star"):
        cg.evaluate_particles(run, poses, truth_conformations=truth)
