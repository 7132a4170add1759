"""`cryogan cryosparc`: particles of a cryoSPARC job in; an External job with map and poses out."""

import json
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from cryogan.cli import exit_codes
from cryogan.cli.parser import CommandParser
from cryogan.cli.stopping import stopped_when
from cryogan.errors import InputError
from cryogan.files import write_text

_INSTALL = (
    "There is no cryosparc-tools here; install it with pip install 'cryogan[cryosparc]', or "
    "pip install cryosparc-tools~=5.0.0 with the first two numbers of your CryoSPARC's version."
)
ASK_EVERY_S = 30.0
"""Seconds between looks whether the job has been killed."""
SOURCE = "cryosparc_source.json"
"""In the folder of particles, run and poses: the output that the particles come from."""


def make_parser() -> CommandParser:
    """The command's parser, for its own options; all others are passed on."""
    parser = CommandParser(
        "cryosparc",
        "Reconstruct the particles of a cryoSPARC job, assign poses, and save both as a new "
        "External job with the outputs particles (alignments3D, the rest passed through), volume "
        "(map and half-maps) and mask. All other "
        "options are those of cryogan reconstruct. No structure: the job fails, with no outputs. "
        "Where CryoSPARC is and who you are comes from python -m cryosparc.tools login, or from "
        "CRYOSPARC_BASE_URL, CRYOSPARC_EMAIL and CRYOSPARC_PASSWORD. The project's folder must be "
        "reachable from here.",
        "cryogan cryosparc --project P1 --workspace W1 --job J42 --sym D2",
        ("--project", "--workspace", "--job", "--particles", "--output", "--project-dir", "--url"),
    )
    add = parser.add_argument
    add("--project", type=str, metavar="P1", help="project")
    add("--workspace", type=str, metavar="W1", help="workspace of the new job")
    add("--job", type=str, metavar="J42", help="job that the particles come from")
    add("--particles", type=str, metavar="NAME", help="its output (default: particles)")
    add(
        "-o",
        "--output",
        type=str,
        metavar="FOLDER",
        help="where the run is kept (default: cryogan in the new job's folder); give that of an "
        "interrupted run to continue it in a new job",
    )
    add(
        "--project-dir",
        type=str,
        metavar="FOLDER",
        help="the project's folder, where it has another path here than on the master",
    )
    add("--url", type=str, help="CryoSPARC's address, such as http://host:39000")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command; 3 and 4 by the verdict, as `cryogan reconstruct`."""
    parser = make_parser()
    own, passed_on = parser.told_apart(arguments)
    options = parser.given(own)
    for name, letter in (("project", "P"), ("workspace", "W"), ("job", "J")):
        given = options.get(name)
        if given is None or not re.fullmatch(rf"{letter}\d+", given):
            raise InputError(
                f"cryogan cryosparc needs --{name} {letter} and a number"
                f"{'' if given is None else f', not {given}'}, as CryoSPARC shows it."
            )
    from cryogan.cli import reconstruct

    given = reconstruct.options_of(["particles.cs", *passed_on])
    for name in ("datadir", "passthrough", "reader"):
        if given.get(name) is not None:
            raise InputError(f"--{name} does not go with cryogan cryosparc; leave it out.")
    client = _client(options.get("url"))
    with _asking("open the project and make an External job there"):
        project = client.find_project(options.project)
        folder = Path(options.get("project_dir") or str(project.dir))
    if not folder.is_dir():
        raise InputError(
            f"The project's folder {folder} is not reachable from here; run this where it is, or "
            "give its path here with --project-dir."
        )
    if options.get("output") is not None:
        _make(Path(options.output), _source(options))
    job = _new_job(project, options, half_sets=bool(given.get("keep_halves")))
    output = Path(options.get("output") or folder / str(job.uid) / "cryogan")
    again = f"-o {shlex.quote(str(output))}"
    interrupted, stop = f"interrupted; give the same command with {again} to go on", ""
    try:
        with _asking("start the External job"):
            job.start("running")
        with stopped_when(_stopped(job), ASK_EVERY_S):
            _make(output, _source(options))
            code = _work(job, output, folder, passed_on, given)
        if code == exit_codes.BY_VERDICT["no structure"]:
            stop = (
                "no structure: the maps explain held-out images no better than noise "
                f"({output / 'run'} has them and the report)"
            )
        elif code not in exit_codes.ENDED:
            stop = interrupted
    except KeyboardInterrupt:
        stop = interrupted
        raise
    except BaseException as error:
        stop = str(error) or type(error).__name__
        raise
    finally:
        if stop:
            print(f"External job {job.uid} failed: {stop}", flush=True)
        with suppress(Exception) if stop else _asking("end the External job"):
            job.stop(stop)
    return code


def _client(url: str | None) -> Any:
    """The connection to CryoSPARC."""
    try:
        from cryosparc.tools import CryoSPARC
    except ImportError as error:
        raise InputError(_INSTALL) from error
    with _asking("connect"):
        return CryoSPARC(url) if url else CryoSPARC()


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """Errors of cryosparc-tools, of whatever class they are, in one sentence."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".;:")
        raise InputError(
            f"CryoSPARC did not let us {what} ({said}); check the names, its version against that "
            "of cryosparc-tools, and that python -m cryosparc.tools login has been run."
        ) from error


def _new_job(project: Any, options: Namespace, *, half_sets: bool) -> Any:
    from cryogan.io.cryosparc.external_job import connect

    with _asking("make an External job and connect the particles"):
        job = project.create_external_job(
            options.workspace, title=f"cryogan: {options.job} {options.get('particles') or ''}"
        )
        connect(job, options.job, options.get("particles") or "particles", half_sets=half_sets)
    print(f"External job: {options.project} {job.uid}", flush=True)
    return job


def _stopped(job: Any) -> Callable[[], bool]:
    """Whether somebody has killed the job in CryoSPARC."""

    def asked() -> bool:
        try:
            return str(job.refresh().status) in ("killed", "failed")
        except Exception:  # a moment without connection
            return False

    return asked


def _work(job: Any, output: Path, project_dir: Path, passed_on: list[str], given: Namespace) -> int:
    """Particles, run, poses and what is saved of them; the exit code of the run."""
    from cryogan.cli import assign, reconstruct
    from cryogan.io.cryosparc.external_job import save_particles, save_results

    particles, run_folder, poses = (
        str(output / name) for name in ("particles.cs", "run", "poses.cs")
    )
    with _asking("load the particles"):
        save_particles(job, Path(particles), half_sets=bool(given.get("keep_halves")))
        job.log(f"cryogan works in {output}")
    shared = reconstruct.for_assign(given)
    reading = ["--datadir", str(project_dir)]
    code = reconstruct.run([particles, "-o", run_folder, *reading, *passed_on])
    if code not in exit_codes.ENDED or code == exit_codes.BY_VERDICT["no structure"]:
        return code
    code = assign.run([particles, run_folder, "-o", poses, *reading, *shared]) or code
    with _asking("save the results"):
        save_results(job, Path(run_folder), Path(poses))
    try:
        with _asking("log verdict and resolutions"):
            _log(job, Path(run_folder), output / "fsc.png")
    except InputError as error:  # the results are saved
        print(f"warning: {error}", flush=True)
    return code


def _source(options: Namespace) -> str:
    """The output that the particles come from, as the folder of its run has it."""
    names = {name: options.get(name) for name in ("project", "job", "particles")}
    return json.dumps(names | {"particles": names["particles"] or "particles"}) + "\n"


def _make(output: Path, source: str) -> None:
    """The folder of particles, run and poses: a new or empty one, or that of the same source."""
    mark = output / SOURCE
    try:
        if output.is_dir() and any(output.iterdir()):
            if not mark.is_file() or mark.read_text(errors="replace") != source:
                raise InputError(
                    f"{output} holds something else than a run of these particles; give another "
                    "folder with -o."
                )
            return
        output.mkdir(parents=True, exist_ok=True)
        write_text(mark, source)
    except OSError as error:
        raise InputError(
            f"Cannot make {output}: {error.strerror}; give a folder that you may write to with -o."
        ) from error


def _log(job: Any, run_folder: Path, picture: Path) -> None:
    """Verdict, resolutions and FSC in the job's log."""
    import cryogan
    from cryogan.evaluation.plots import plot_fsc

    found = cryogan.read_run(run_folder)
    job.log(f"verdict: {found.verdict or 'none, of so few particles'}")
    known = {
        **found.resolution_A,
        "held-out images": found.held_out_resolution_A,
        "resolution to quote": found.quoted_resolution_A,
    }
    for name, value in known.items():
        if value is not None:
            job.log(f"{name}: {value:.2f} Å")
    plot_fsc(picture, found.map.pixel_size_A, found.fsc, found.map.volume.shape[-1])
    job.log_plot(picture, "Half-map FSC")
