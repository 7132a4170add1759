"""Maps at chosen latents, or those of particles: known basis volumes are the oracle."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor

import cryogan as cg
from cryogan.cli import main
from cryogan.cli.volumes import rows_of
from cryogan.conformations.basis import fitted_basis
from cryogan.conformations.folder import read_conformations
from cryogan.conformations.latent import make_latent
from cryogan.conformations.series import numbered_series
from cryogan.errors import InputError
from cryogan.io.mrc import read_map
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.run.checkpoint import save_arrays
from cryogan.run.conformations import assigned_latents
from finished_runs import finished

BOX, PIXEL_A = 16, 8.0


def basis_of(count: int) -> Tensor:
    """(count, D, D, D), V₀ the strongest."""
    generator = torch.Generator().manual_seed(4)
    volumes = torch.randn(count, BOX, BOX, BOX, generator=generator)
    return volumes * torch.tensor([4.0] + [1.0] * (count - 1))[:, None, None, None]


def expected(latent: str, basis: Tensor, places: Tensor, classes: int = 2) -> Tensor:
    coefficients = make_latent(latent, classes).coefficients(places, len(basis))
    return torch.einsum("nc,czyx->nzyx", coefficients, basis)


CASES = {
    "uniform": (Assumptions(latent="uniform"), torch.rand(20, 1)),
    "circle": (Assumptions(latent="circle"), torch.arange(20)[:, None] / 20.0),
    "uniform2d": (Assumptions(latent="uniform2d"), make_latent("uniform2d").grid(16)),
    "discrete": (Assumptions(latent="discrete", classes=3), torch.arange(3)[:, None].float()),
}


@pytest.mark.parametrize("objective", ["likelihood", "adversarial"])
@pytest.mark.parametrize("name", CASES)
def test_maps_at_any_latent(name, objective, tmp_path):
    assumptions, latents = CASES[name]
    basis = basis_of(assumptions.volumes)
    maps = expected(name, basis, latents, assumptions.classes)
    finished(tmp_path / "run", assumptions, maps, latents, objective)
    places = torch.rand(5, latents.shape[1])
    if name == "discrete":
        places = torch.tensor([[2.0], [0.0], [2.0]])
    found = cg.volumes(tmp_path / "run", places)
    wanted = expected(name, basis, places, assumptions.classes)
    assert (found.pixel_size_A, len(found)) == (PIXEL_A, len(places))
    torch.testing.assert_close(found.coordinate.float(), places)
    error = (found.volumes - wanted).flatten(1).norm(dim=1) / wanted.flatten(1).norm(dim=1)
    assert float(error.max()) < 1e-3


def test_few_maps_are_no_basis_but_the_run_may_have_kept_it(tmp_path):
    assumptions, latents = Assumptions(latent="circle", basis_volumes=6), torch.rand(5, 1)
    basis = basis_of(7)
    finished(
        tmp_path / "run", assumptions, expected("circle", basis, latents), latents, "likelihood"
    )
    with pytest.raises(InputError, match=r"The 5 maps in .* do not tell 7 basis volumes"):
        cg.volumes(tmp_path / "run", [0.5])
    save_arrays(tmp_path / "run" / "result.npz", basis=torch.stack((0.5 * basis, 1.5 * basis)))
    found = cg.volumes(tmp_path / "run", [0.5]).volumes
    torch.testing.assert_close(found, expected("circle", basis, torch.tensor([[0.5]])))


def test_maps_of_a_network_are_refused(tmp_path):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(20, BOX, BOX, BOX, generator=generator)
    series = numbered_series(maps, PIXEL_A, torch.ones(20), torch.linspace(0, 1, 20)[:, None])
    with pytest.raises(InputError, match="as those of a U-Net do; take the maps in conformations"):
        fitted_basis(series, make_latent("uniform"), 5)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    assumptions, latents = Assumptions(latent="uniform"), torch.linspace(0.05, 0.95, 20)[:, None]
    maps = expected("uniform", basis_of(5), latents)
    finished(tmp_path / "run", assumptions, maps, latents, "likelihood")
    return tmp_path / "run"


def star(path: Path, label: str, values: list[float]) -> Path:
    rows = [f"{number:06d}@s.mrcs {value}" for number, value in enumerate(values, start=1)]
    head = ["data_particles", "", "loop_", "_rlnImageName #1", f"_{label} #2"]
    path.write_text("\n".join(["", *head, *rows, ""]))
    return path


def test_the_command_writes_maps_of_particles(run_folder, tmp_path, capsys):
    poses = star(tmp_path / "poses.star", "cryoganLatent0", [0.1, 0.9, 0.3, 0.5])
    output = tmp_path / "maps"
    command = ["volumes", str(run_folder), "--particles", str(poses), "-o", str(output)]
    assert main([*command, "--rows", "3,1-2"]) == 0
    assert capsys.readouterr().out == f"3 maps and latents.csv in {output}\n"
    found = read_conformations(output)
    assert found.coordinate[:, 0].tolist() == [0.5, 0.9, 0.3]
    wanted = expected("uniform", basis_of(5), torch.tensor([[0.5], [0.9], [0.3]]))
    torch.testing.assert_close(found.volumes, wanted, rtol=1e-3, atol=1e-3)
    rows = (output / "latents.csv").read_text().splitlines()
    assert rows[0] == "volume,z0,weight,row"
    assert [row.split(",")[-1] for row in rows[1:]] == ["3", "1", "2"]
    assert main(command) == 2
    assert "holds maps or latents.csv already" in capsys.readouterr().err


def test_the_command_writes_maps_at_latents(run_folder, tmp_path):
    """The run's own table gives its own maps again."""
    output, table = tmp_path / "maps", run_folder / "conformations" / "latents.csv"
    assert main(["volumes", str(run_folder), "--latents", str(table), "-o", str(output)]) == 0
    for number in (0, 19):
        one, two = (
            read_map(folder / f"vol_{number:03d}.mrc").volume
            for folder in (output, run_folder / "conformations")
        )
        torch.testing.assert_close(one, two, rtol=1e-3, atol=2e-3)


def test_what_cannot_be_asked(run_folder, tmp_path, capsys):
    poses = star(tmp_path / "poses.star", "cryoganLatent0", [0.1] * 4)
    other = star(tmp_path / "other.star", "rlnClassNumber", [1.0] * 4)
    table = tmp_path / "latents.csv"
    table.write_text("z0\n0.2\n1.5\n")
    run = str(run_folder)
    for words, part in (
        ([run, "--particles", str(poses)], "needs a folder to write to; give it with -o"),
        ([run, "-o", "x"], "Give --latents or --particles: one of the two"),
        ([run, "--latents", str(table), "-o", "x"], "Latent 2 is 1.5, which is not within"),
        ([run, "--particles", str(other), "-o", "x"], "lacks cryoganLatent0"),
        ([run, "--particles", str(poses), "--rows", "4", "-o", "x"], "row 4, but there are 4"),
        ([run, "--particles", str(poses), "--rows", "9-3", "-o", "x"], "names no rows at '9-3'"),
        ([str(tmp_path), "--latents", str(table), "-o", "x"], "is no run folder"),
        ([run, "--latents", "no.csv", "-o", "x"], "There is no file no.csv"),
        ([run, "--latents", str(table), "-o", str(tmp_path)], "holds maps or latents.csv already"),
    ):
        assert main(["volumes", *words]) == 2
        message = capsys.readouterr().err
        assert part in message
        assert message.count("\n") == 1
    assert rows_of("0, 5-7") == [0, 5, 6, 7]


def test_a_run_of_one_structure_has_no_latents(run_folder):
    about = json.loads((run_folder / "config.json").read_text())
    about["config"] = asdict(LikelihoodConfig())
    (run_folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="has one structure and no latent"):
        cg.volumes(run_folder, [0.5])


def test_latents_of_classes(tmp_path):
    found = assigned_latents(
        star(tmp_path / "p.star", "rlnClassNumber", [1, 3, 2]), make_latent("discrete", 3)
    )
    assert found[:, 0].tolist() == [0.0, 2.0, 1.0]


def test_many_maps_have_to_be_chosen(run_folder):
    with pytest.raises(InputError, match=r"1,001 particles or latents"):
        cg.volumes(run_folder, torch.full((1001,), 0.5))
