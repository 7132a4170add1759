"""`cryogan cryosparc` against a stand-in for cryosparc-tools that enforces its order of calls."""

import json
import re
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cryogan.cli import main
from cryogan.io import cryosparc
from cryogan.io.cryosparc import external_job
from cryogan.io.cryosparc.poses import ALIGNMENT_FIELDS
from cryogan.io.mrc import read_map, write_map, write_stack
from cryogan.io.particle_files import read_particles as read_any
from cryogan.io.relion import read_particles
from cryogan.objectives.assumptions import Assumptions
from cryogan.particles import Pose
from cryogan.physics.rotations import random_rotations
from finished_runs import finished

DATATYPES = {"particle": {"blob", "ctf", "alignments3D"}, "volume": {"blob"}, "mask": {"blob"}}
"""cryoSPARC's types of results for each type of output: particle.ctf, volume.blob ..."""

FIELDS = {
    "blob": [("path", "O"), ("shape", "<u4", (3,)), ("psize_A", "<f4")],
    "alignments3D": [
        (name.partition("/")[2], kind.lstrip("23"), (int(kind[0]),) if kind[0] in "23" else ())
        for name, kind in ALIGNMENT_FIELDS.items()
    ],
}
SUMMARY = {
    "verdict": {"word": "structure found", "reason": "held-out images"},
    "resolution_A": {"half_map_0.143": 21.5, "half_map_0.143_masked": 18.25},
    "held_out_resolution_A": 24.0,
}
FSC = """shell,spatial_frequency_per_A,resolution_A,half_map,half_map_masked
0,0,inf,1,1
1,0.015625,64,0.9,0.95
2,0.03125,32,0.6,0.7
3,0.046875,21.3,0.14,0.3
4,0.0625,16,0.0,0.1
"""
COUNT = 4
SOURCE = """
data_optics

loop_
_rlnOpticsGroup #1
_rlnVoltage #2
_rlnSphericalAberration #3
_rlnAmplitudeContrast #4
_rlnImagePixelSize #5
1 300 2.7 0.1 2.0

data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
1@J1/a.mrcs 1 1e4 9e3 10
2@J1/a.mrcs 1 2e4 1e4 20
3@J1/a.mrcs 1 3e4 2e4 30
4@J1/a.mrcs 1 4e4 3e4 40
"""


class Dataset:
    """As far as it is used: columns by name, all of one length."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns["uid"])

    def fields(self) -> list[str]:
        return list(self.columns)

    def __getitem__(self, name: str) -> Any:
        return self.columns[name]

    def __setitem__(self, name: str, values: Any) -> None:
        assert name in self.columns, f"{name} was not allocated"
        assert len(values) == len(self), name
        expected = self.columns[name]
        if expected.dtype != object:
            assert np.shape(values) == expected.shape, name
        self.columns[name] = np.array(values, dtype=expected.dtype)

    def save(self, path: Path) -> None:
        kinds = [(n, c.dtype, c.shape[1:]) for n, c in self.columns.items()]
        records = np.zeros(len(self), dtype=kinds)
        for name, values in self.columns.items():
            records[name] = values
        with Path(path).open("wb") as file:
            np.save(file, records)


class Job:
    """An External job: building, then running, then completed or failed."""

    def __init__(self, server: "Server") -> None:
        self.server, self.uid, self.status = server, "J9", "building"
        self.inputs: dict[str, list[str]] = {}
        self.outputs: dict[str, dict[str, Any]] = {}
        self.saved: dict[str, Dataset] = {}
        self.lines: list[str] = []
        self.plots: list[str] = []
        self.error: str | None = None

    @property
    def folder(self) -> Path:
        return self.server.folder / self.uid

    def refresh(self) -> "Job":
        return self

    def connect(
        self, target: str, job: str, output: str, *, slots: list[str], title: str = ""
    ) -> bool:
        assert self.status == "building"
        if (job, output) != ("J1", "particles"):
            raise ValueError(f"Source job {job} does not have output {output}")
        assert slots
        self.inputs[target] = slots
        return True

    def add_output(
        self,
        type: str,
        name: str,
        slots: list[Any],
        passthrough: str | None = None,
        title: str = "",
    ) -> str:
        assert self.status == "building"
        assert re.fullmatch(r"[A-Za-z][0-9A-Za-z_]*", name)
        assert passthrough is None or passthrough in self.inputs
        kinds = {s if isinstance(s, str) else s["name"]: _kind(s) for s in slots}
        assert set(kinds.values()) <= DATATYPES[type]
        self.outputs[name] = {"slots": kinds, "passthrough": passthrough}
        return name

    def start(self, status: str) -> None:
        assert self.status == "building"
        assert status == "running"
        self.status = status

    def load_input(self, name: str, slots: list[str]) -> Dataset:
        assert self.status == "running"
        assert set(slots) <= set(self.inputs[name])
        wanted = {"uid"} | {n for n in self.server.particles if n.partition("/")[0] in slots}
        return Dataset({n: c for n, c in self.server.particles.items() if n in wanted})

    def alloc_output(self, name: str, alloc: Any) -> Dataset:
        assert self.status == "running"
        uids = np.arange(alloc, dtype="<u8") if isinstance(alloc, int) else np.asarray(alloc)
        columns: dict[str, Any] = {"uid": uids}
        for slot, kind in self.outputs[name]["slots"].items():
            for field, *dtype in FIELDS[kind]:
                shape = (len(uids), *(dtype[1] if len(dtype) > 1 else ()))
                columns[f"{slot}/{field}"] = np.zeros(shape, dtype=dtype[0])
        return Dataset(columns)

    def save_output(self, name: str, dataset: Dataset) -> None:
        assert self.status == "running", "outputs can be saved between start and stop only"
        assert name not in self.saved
        for field, values in dataset.columns.items():
            if field.endswith("/path"):
                assert all((self.server.folder / value).is_file() for value in values)
        self.saved[name] = dataset

    def upload(self, target: str, source: Path, *, overwrite: bool = False) -> None:
        assert self.status == "running"
        (self.folder / target).write_bytes(Path(source).read_bytes())

    def log(self, text: str) -> str:
        assert self.status == "running"
        self.lines.append(text)
        return "event"

    def log_plot(self, figure: Path, text: str) -> str:
        assert self.status == "running"
        assert Path(figure).read_bytes()[:4] == b"\x89PNG"
        self.plots.append(text)
        return "event"

    def stop(self, error: str = "") -> None:
        assert self.status in ("running", "killed")
        self.status, self.error = ("failed" if error else "completed"), error


def _kind(slot: Any) -> str:
    return slot if isinstance(slot, str) else slot["dtype"]


class Server:
    """A project P1 with the particles of J1 and a workspace W1."""

    def __init__(self, folder: Path, particles: dict[str, Any]) -> None:
        self.folder, self.particles = folder, particles
        self.dir = folder
        self.jobs: list[Job] = []

    def find_project(self, uid: str) -> "Server":
        if uid != "P1":
            raise ValueError(f"*** [API] (GET ..., code 404) no project {uid}\nResponse data: ...")
        return self

    def create_external_job(self, workspace: str, title: str = "") -> Job:
        assert workspace == "W1"
        self.jobs.append(Job(self))
        self.jobs[-1].folder.mkdir(exist_ok=True)
        return self.jobs[-1]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """cryosparc.tools is replaced; particles as `io.cryosparc` writes them, checked elsewhere."""
    generator = torch.Generator().manual_seed(3)
    folder = tmp_path / "project"
    (folder / "J1").mkdir(parents=True)
    write_stack(folder / "J1" / "a.mrcs", torch.randn(COUNT, 8, 8, generator=generator), 2.0)
    star = folder / "particles.star"
    star.write_text(SOURCE)
    pose = Pose(random_rotations(COUNT, generator), torch.zeros(COUNT, 2))
    half = torch.tensor([1, 2, 2, 1])
    particles = read_particles(star, sign="bright")
    cryosparc.write_particles(folder / "all.cs", particles, pose, half=half)
    records = np.load(folder / "all.cs")
    columns = {name: records[name] for name in records.dtype.names}
    columns["blob/path"] = np.array([b"J1/a.mrcs"] * COUNT)
    found = Server(folder, columns)
    tools = types.ModuleType("cryosparc.tools")
    tools.CryoSPARC = lambda *url: found  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cryosparc", types.ModuleType("cryosparc"))
    monkeypatch.setitem(sys.modules, "cryosparc.tools", tools)
    return found


@pytest.fixture
def run_code(monkeypatch: pytest.MonkeyPatch, server: Server) -> list[int]:
    """`reconstruct` replaced, as is `assign`, which leaves particle 2 out; the code is in the list.

    They read what they are given as the commands do.
    """
    code = [0]

    def reconstruct(arguments: list[str]) -> int:
        star, output = arguments[0], Path(arguments[2])
        project_dir = arguments[arguments.index("--datadir") + 1]
        read = read_any(star, datadir=project_dir, sign="bright")
        known = read_particles(server.folder / "particles.star", sign="bright")
        rows = torch.arange(COUNT)
        assert torch.equal(read.stack.read(rows), known.stack.read(rows))
        assert torch.equal(read.ctf.defocus_u_A, known.ctf.defocus_u_A)
        if not output.exists():
            finished(output, Assumptions(), torch.rand(2, 8, 8, 8), torch.zeros(2, 1))
            write_map(output / "mask.mrc", torch.rand(8, 8, 8), 8.0)
            (output / "summary.json").write_text(json.dumps(SUMMARY))
            (output / "fsc.csv").write_text(FSC)
        return code[0]

    def assign(arguments: list[str]) -> int:
        records = np.load(arguments[0])
        assert "alignments3D/pose" not in records.dtype.names
        kept = np.array([0, 2, 3])
        whole = np.load(server.folder / "all.cs")
        with Path(arguments[arguments.index("-o") + 1]).open("wb") as file:
            np.save(file, whole[kept])
        return 0

    monkeypatch.setattr("cryogan.cli.reconstruct.run", reconstruct)
    monkeypatch.setattr("cryogan.cli.assign.run", assign)
    return code


ASK = ["cryosparc", "--project", "P1", "--workspace", "W1", "--job", "J1"]


def test_results_are_saved(run_code: list[int], server: Server) -> None:
    assert main([*ASK, "--sym", "D2"]) == 0
    (job,) = server.jobs
    assert (job.status, job.error) == ("completed", "")
    assert job.inputs == {"particles": ["blob", "ctf"]}
    assert set(job.saved) == {"particles", "volume", "mask"} == set(job.outputs)
    assert job.outputs["particles"]["passthrough"] == "particles"
    whole = np.load(server.folder / "all.cs")[[0, 2, 3]]
    saved = job.saved["particles"]
    assert saved["uid"].tolist() == whole["uid"].tolist()
    for name in ALIGNMENT_FIELDS:
        assert np.array_equal(saved[name], whole[name]), name
    volume, run = job.saved["volume"], job.folder / "cryogan" / "run"
    for slot, file in (("map", "map"), ("map_half_A", "half1"), ("map_half_B", "half2")):
        stored = read_map(server.folder / volume[f"{slot}/path"][0])
        assert torch.equal(stored.volume, read_map(run / f"{file}.mrc").volume)
        assert volume[f"{slot}/psize_A"].tolist() == [stored.pixel_size_A]
        assert volume[f"{slot}/shape"].tolist() == [[8, 8, 8]]
    assert job.saved["mask"]["mask/path"].tolist() == ["J9/mask.mrc"]


def test_the_log_has_verdict_resolutions_and_fsc(run_code: list[int], server: Server) -> None:
    """The resolution to quote is the coarsest, here that of held-out images."""
    assert main(ASK) == 0
    (job,) = server.jobs
    assert job.lines[1:] == [
        "verdict: structure found",
        "half_map_0.143: 21.50 Å",
        "half_map_0.143_masked: 18.25 Å",
        "held-out images: 24.00 Å",
        "resolution to quote: 24.00 Å",
    ]
    assert job.plots == ["Half-map FSC"]


def test_results_do_not_hang_on_the_log(
    run_code: list[int],
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def lost(job: Job, figure: Path, text: str) -> str:
        assert set(job.saved) == {"particles", "volume", "mask"}
        raise ConnectionError("no connection")

    monkeypatch.setattr(Job, "log_plot", lost)
    assert main(ASK) == 0
    assert server.jobs[0].status == "completed"
    assert "log verdict and resolutions (no connection)" in capsys.readouterr().out


def test_a_doubtful_map_is_saved_too(run_code: list[int], server: Server) -> None:
    run_code[0] = 3
    assert main(ASK) == 3
    assert server.jobs[0].status == "completed"
    assert "volume" in server.jobs[0].saved


def test_no_structure_fails_the_job(
    run_code: list[int], server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    run_code[0] = 4
    assert main(ASK) == 4
    assert server.jobs[0].status == "failed"
    assert "no better than noise" in str(server.jobs[0].error)
    assert server.jobs[0].saved == {}
    assert "failed: no structure" in capsys.readouterr().out


def test_an_interrupted_run_says_how_to_go_on(
    run_code: list[int], server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    run_code[0] = 143
    assert main(ASK) == 143
    assert server.jobs[0].status == "failed"
    assert f"with -o {server.folder / 'J9' / 'cryogan'} to go on" in str(server.jobs[0].error)
    assert "to go on" in capsys.readouterr().out


def test_a_run_goes_on_in_its_folder_only(
    run_code: list[int], server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my run"
    run_code[0] = 143
    assert main([*ASK, "-o", str(folder)]) == 143
    assert f"with -o '{folder}' to go on" in capsys.readouterr().out
    run_code[0] = 0
    assert main([*ASK, "-o", str(folder), "--particles", "others"]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert main([*ASK, "-o", str(folder)]) == 0
    assert [job.status for job in server.jobs] == ["failed", "completed"]


def test_errors_fail_the_job(
    run_code: list[int], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryogan.errors import InputError

    def refuse(arguments: list[str]) -> int:
        raise InputError("The box is too small.")

    monkeypatch.setattr("cryogan.cli.reconstruct.run", refuse)
    assert main(ASK) == 2
    assert server.jobs[0].error == "The box is too small."


def test_killing_the_job_stops_the_run(
    run_code: list[int], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    def endless(arguments: list[str]) -> int:
        server.jobs[0].status = "killed"
        time.sleep(60)
        return 0

    monkeypatch.setattr("cryogan.cli.reconstruct.run", endless)
    monkeypatch.setattr("cryogan.cli.cryosparc.ASK_EVERY_S", 0.02)
    assert main(ASK) == 143


def test_half_sets_are_asked_for_if_they_are_kept(
    run_code: list[int], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryogan.cli.reconstruct.run", lambda arguments: 4)
    assert main([*ASK, "--keep-halves"]) == 4
    assert server.jobs[0].inputs == {"particles": ["blob", "ctf", "alignments3D"]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--project", "7"], "needs --project P and a number, not 7"),
        (["--project", "P2"], "no project P2"),
        (["--job", "J2"], "does not have output particles"),
        (["--particles", "picked"], "does not have output picked"),
        (["--sim", "D2"], "no option --sim"),
        (["--datadir", "x"], "does not go with cryogan cryosparc"),
        (["--project-dir", "nowhere"], "is not reachable from here"),
    ],
)
def test_what_is_refused(
    arguments: list[str],
    words: str,
    run_code: list[int],
    server: Server,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*ASK, *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert all(job.status == "building" for job in server.jobs)


def test_other_folders_are_left_alone(
    run_code: list[int], server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also that of particles and a run of somebody's own."""
    mine = tmp_path / "mine"
    mine.mkdir()
    shutil.copy(server.folder / "all.cs", mine / "particles.cs")
    (mine / "run").mkdir()
    (mine / "run" / "config.json").write_text("{}")
    assert main([*ASK, "-o", str(mine)]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert (mine / "particles.cs").read_bytes() == (server.folder / "all.cs").read_bytes()
    assert server.jobs == []


def test_without_cryosparc_tools_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cryosparc", None)
    assert main(ASK) == 2
    assert "pip install 'cryogan[cryosparc]'" in capsys.readouterr().err


def test_cryosparc_tools_take_our_calls(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The classes of cryosparc-tools, where it is installed, on a stand-in for its server."""
    monkeypatch.delitem(sys.modules, "cryosparc")
    monkeypatch.delitem(sys.modules, "cryosparc.tools")
    controllers = pytest.importorskip("cryosparc.controllers.job")
    tools_dataset = pytest.importorskip("cryosparc.dataset").Dataset
    namespace = types.SimpleNamespace
    stored: dict[str, Any] = {}
    spec = namespace(type="snowflake", inputs=namespace(root={}), outputs=namespace(root={}))
    model = namespace(project_uid="P1", uid="J9", spec=spec, status="running")
    outputs = namespace(root={"particles": namespace(type="particle")})
    source = namespace(spec=namespace(outputs=outputs))

    def add_output(project: str, job: str, name: str, given: Any) -> Any:
        assert {slot.dtype for slot in given.slots} <= DATATYPES[given.type]
        spec.outputs.root[name] = given
        return model

    def add_input(project: str, job: str, name: str, given: Any) -> Any:
        assert [slot.name for slot in given.slots] == ["blob", "ctf"]
        spec.inputs.root[name] = given
        return model

    def fields(project: str, job: str, name: str, params: Any) -> list[Any]:
        slots = spec.outputs.root[name].slots
        return [
            (f"{slot.name}/{field}", *kind) for slot in slots for field, *kind in FIELDS[slot.dtype]
        ]

    def load(project: str, job: str, name: str, slots: list[str]) -> Any:
        return tools_dataset(
            {n: c for n, c in server.particles.items() if n.partition("/")[0] in ("uid", *slots)}
        )

    def save(project: str, job: str, name: str, dataset: Any, version: int) -> Any:
        stored[name] = dataset
        return model

    api = namespace(
        jobs=namespace(
            find_one=lambda project, job: source,
            add_external_input=add_input,
            add_external_output=add_output,
            connect=lambda *arguments, **named: model,
            load_input=load,
            get_output_fields=fields,
            save_output=save,
        )
    )
    uploaded: dict[str, Path] = {}

    def upload(project: str, target: Any, source: Path, overwrite: bool) -> None:
        uploaded[str(target)] = source

    job = controllers.ExternalJobController(namespace(api=api, upload=upload), model)
    external_job.connect(job, "J1", "particles", half_sets=False)
    assert spec.outputs.root["particles"].passthrough == "particles"
    path = tmp_path / "particles.cs"
    assert external_job.save_particles(job, path, half_sets=False) == COUNT
    read = read_any(path, datadir=server.folder, sign="bright")
    assert torch.equal(read.ctf.defocus_u_A, torch.tensor([1e4, 2e4, 3e4, 4e4]))
    for name in ("map", "half1", "half2", "mask"):
        write_map(tmp_path / f"{name}.mrc", torch.rand(8, 8, 8), 2.0)
    external_job.save_results(job, tmp_path, server.folder / "all.cs")
    assert set(uploaded) == {f"J9/{name}.mrc" for name in ("map", "half1", "half2", "mask")}
    assert stored["volume"]["map_half_A/path"].tolist() == ["J9/half1.mrc"]
    assert stored["mask"]["mask/shape"].tolist() == [[8, 8, 8]]
    whole = np.load(server.folder / "all.cs")
    assert np.array_equal(stored["particles"]["alignments3D/pose"], whole["alignments3D/pose"])
    assert np.array_equal(stored["particles"]["uid"], whole["uid"])


def test_without_a_login_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """By cryosparc-tools itself, where it is installed; nothing is asked over the network."""
    pytest.importorskip("cryosparc.tools")
    assert main([*ASK, "--url", "http://localhost:9"]) == 2
    assert "CryoSPARC did not let us connect" in capsys.readouterr().err
