"""`cryogan relion`: an External job of RELION: particles in; maps, mask and poses out as nodes."""

import argparse
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from jsonargparse import Namespace

import cryogan
from cryogan.cli import exit_codes
from cryogan.cli.outputs import add_overwrite, is_ours, require_outputs
from cryogan.cli.parser import CommandParser
from cryogan.cli.stopping import stopped_when
from cryogan.errors import InputError
from cryogan.files import atomic_path
from cryogan.io import relion_jobs as jobs

POSES = "run_data.star"
MAPS = {
    "map.mrc": ("run_class001.mrc", jobs.MAP),
    "half1.mrc": ("run_half1_class001_unfil.mrc", jobs.HALF_MAP),
    "half2.mrc": ("run_half2_class001_unfil.mrc", None),  # RELION finds it by its name
    "mask.mrc": ("mask.mrc", jobs.MASK),
    "local_resolution.mrc": ("run_locres.mrc", jobs.LOCAL_RESOLUTION),
}
"""File of a run → its name in the job's folder, and what it is to RELION."""

ABORT_EVERY_S = 2.0
"""Seconds between looks for the request to abort."""

RUN = "cryogan"  # the run folder inside the job's

_OTHER_INPUTS = ("--in_movies", "--in_mics", "--in_coords")
_OF_A_JOB = ("job.star", "run.job")
"""Files, one or the other of which RELION has in the folder of a job."""


def make_parser() -> CommandParser:
    """The command's parser, for the options that RELION gives; all others are passed on."""
    parser = CommandParser(
        "relion",
        "An External job of RELION 3.1 or 5: give 'cryogan relion' as the executable, and any "
        "option of cryogan reconstruct as a parameter (sym, diameter, resolution ...). "
        "Reconstructs, then assigns poses, "
        f"and writes run_class001.mrc, the half-maps, mask.mrc and {POSES} for the jobs that "
        "follow. With a reference map only poses against it. No structure is a failure: its maps "
        "are written, without poses, and no job goes on from them. "
        "Run again, it goes on. Exit code: 0 success, otherwise that of cryogan reconstruct.",
        "cryogan relion --o External/job003/ --in_parts Extract/job002/particles.star --sym D2",
        ("--o", "--in_parts", "--in_mask", "--in_3dref", "--j", "--overwrite"),
    )
    add = parser.add_argument
    add("--o", type=str, metavar="FOLDER", help="the job's folder")
    add("--in_parts", type=str, metavar="FILE", help="particle file")
    add("--in_mask", type=str, metavar="FILE", help="soft mask, as --mask of reconstruct")
    add(
        "--in_3dref",
        type=str,
        metavar="FILE",
        help="assign poses against this map (cryogan assign --reference), and reconstruct none",
    )
    add("--j", type=str, metavar="N", help="threads (default: OMP_NUM_THREADS, or all cores)")
    add("--pipeline_control", type=str, help="RELION may add this; of no effect")
    for name in _OTHER_INPUTS:
        add(name, type=str, help="refused: particles are needed")
    add_overwrite(parser)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command; RELION's markers tell how it has ended, whatever happens."""
    try:
        options, passed_on, folder = _understood(arguments)
    except Exception as error:
        _refused(arguments, error)
        raise
    poses_only = options.get("in_3dref") is not None
    at_work = False
    try:
        work = _work(options, passed_on, folder)
        at_work = True
        with stopped_when(lambda: jobs.is_to_abort(folder), ABORT_EVERY_S):
            code = work()
        return _ended(folder, code, poses_only=poses_only)
    except KeyboardInterrupt:
        _end(folder, jobs.ABORTED, _interrupted(poses_only))
        raise
    except BaseException as error:
        if at_work:
            _remove_poses(folder)
        _end(folder, jobs.FAILURE, _of_error(error))
        raise


def _understood(arguments: Sequence[str]) -> tuple[Namespace, list[str], Path]:
    """The command's options, those passed on, and the job's folder without earlier markers.

    Raises:
        InputError: something is missing, or the folder holds outputs of another program.
    """
    parser = make_parser()
    own, passed_on = parser.told_apart(arguments)
    options = parser.given(own)
    if options.get("o") is None or options.get("in_parts") is None:
        raise InputError(
            "cryogan relion needs the job's folder (--o) and a particle file (--in_parts), as "
            "RELION gives them."
        )
    folder = Path(options.o)
    if folder.is_dir():
        maps = [folder / name for name, _ in MAPS.values()]
        require_outputs(options, [*_of_poses(folder), *maps])
        jobs.clear_markers(folder)
    return options, passed_on, folder


def _refused(arguments: Sequence[str], error: Exception) -> None:
    """Mark a job of RELION's as failed; one that has ended before has its marker."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--o", nargs="?")
    given = early.parse_known_args(list(arguments))[0].o
    if not given:
        return
    folder = Path(given)
    if any((folder / name).is_file() for name in _OF_A_JOB) and not jobs.has_ended(folder):
        _tell(folder, jobs.FAILURE, _of_error(error))


def _of_poses(folder: Path) -> list[Path]:
    """The star file and what may be beside it."""
    return [(folder / POSES).with_suffix(suffix) for suffix in (".star", ".cs", ".csg")]


def _remove_poses(folder: Path) -> None:
    """Remove poses of an earlier success, so that nothing goes on from them."""
    ours = [path for path in _of_poses(folder) if path.is_file() and is_ours(path)]
    for path in ours:
        with suppress(OSError):
            path.unlink()


def _of_error(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _interrupted(poses_only: bool) -> str:
    goes_on = "all poses are assigned anew" if poses_only else "the run goes on"
    return f"interrupted; continue the job, and {goes_on}"


def _work(options: Namespace, passed_on: list[str], folder: Path) -> Callable[[], int]:
    """Check all that is given; what is left is to be called.

    Raises:
        InputError: an option or file is wrong.
    """
    from cryogan.cli import reconstruct
    from cryogan.cli.options import require_file

    for name in _OTHER_INPUTS:
        if options.get(name.removeprefix("--")) is not None:
            raise InputError(
                f"cryogan takes particles, not {name}; give a particle file as the job's input "
                "and leave the others empty."
            )
    for word in passed_on:
        if word.partition("=")[0] in ("-o", "--output"):
            raise InputError(f"{word} is set by the job's folder (--o); leave it out.")
    particles = str(require_file(options.in_parts))
    threads = options.get("j")
    if threads is not None:
        if not threads.isdecimal() or int(threads) < 1:
            raise InputError(f"--j is {threads}; give 1 or more threads.")
        os.environ["OMP_NUM_THREADS"] = threads
    poses = ["-o", str(folder / POSES), *(["--overwrite"] if options.get("overwrite") else [])]
    reference = options.get("in_3dref")
    if reference is not None:
        require_file(reference)
        if options.get("in_mask") is not None:
            raise InputError(
                "Poses against a reference map need no mask; leave one of the job's inputs empty."
            )
        _make(folder)
        return lambda: _assign([particles, "--reference", reference, *poses, *passed_on])
    if options.get("in_mask") is not None:
        require_file(options.in_mask)
        passed_on = ["--mask", options.in_mask, *passed_on]
    found = reconstruct.options_of([particles, *passed_on])
    shared = reconstruct.for_assign(found)
    _make(folder)
    run_folder = str(folder / RUN)

    def work() -> int:
        code = reconstruct.run([particles, "-o", run_folder, *passed_on])
        if code in exit_codes.ENDED:
            _copy_maps(folder)
        if code not in (0, exit_codes.BY_VERDICT["doubtful"]):
            return code
        return _assign([particles, run_folder, *poses, *shared]) or code

    return work


def _assign(arguments: list[str]) -> int:
    from cryogan.cli import assign

    return assign.run(arguments)


def _copy_maps(folder: Path) -> None:
    """The run's maps under the names that RELION gives them."""
    for source, (name, _) in MAPS.items():
        if (folder / RUN / source).is_file():
            with atomic_path(folder / name) as temporary:
                shutil.copyfile(folder / RUN / source, temporary)


def _make(folder: Path) -> None:
    """The job's folder, where RELION has not made it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"Cannot make the job's folder {folder}: {error.strerror}; give another with --o."
        ) from error


def _ended(folder: Path, code: int, *, poses_only: bool) -> int:
    """Say and mark how the job has ended; the exit code."""
    if code not in exit_codes.ENDED:
        _end(folder, jobs.ABORTED, _interrupted(poses_only))
        return code
    word = next(word for word, known in exit_codes.BY_VERDICT.items() if known == code)
    if word == "no structure":
        _remove_poses(folder)
        _end(
            folder,
            jobs.FAILURE,
            "no structure: the maps explain held-out images no better than noise; they are "
            f"written to look at, without poses, and no job goes on from them ({folder / RUN} has "
            "the report)",
        )
        return code
    kinds = {POSES: jobs.PARTICLES}
    if not poses_only:
        kinds |= {name: kind for name, kind in MAPS.values() if kind is not None}
    there = {name: kind for name, kind in kinds.items() if (folder / name).is_file()}
    jobs.write_nodes(folder, there)
    if word == "doubtful":
        print("warning: the verdict is doubtful; look at the map before another job uses it")
    if not poses_only:
        from cryogan.run.contents import read_run_contents
        from cryogan.run.half_sets import are_dark

        if are_dark(folder / RUN):
            print(
                "warning: the protein is dark in these images, and RELION takes bright ones; "
                "invert them (relion_preprocess --invert_contrast) before another job refines them"
            )
        if word == "structure found" and read_run_contents(folder / RUN).verdict is None:
            word = "too few particles for a verdict"
    _end(folder, jobs.SUCCESS, "poses against the reference map" if poses_only else word)
    return 0


def _end(folder: Path, marker: str, what: str) -> None:
    """Tell how the job has ended, if its folder is there; nodes are those of a success only."""
    if not folder.is_dir():
        return
    if marker != jobs.SUCCESS:
        jobs.clear_markers(folder)
    _tell(folder, marker, what)


def _tell(folder: Path, marker: str, what: str) -> None:
    """Write the marker, for which RELION waits; then say the same in `run.out` and the note."""
    jobs.write_marker(folder, marker)
    ending = f"{marker.rpartition('_')[2].lower()}: {what}"
    with suppress(OSError):
        print(f"RELION job: {ending}", flush=True)
    with suppress(OSError), (folder / "note.txt").open("a") as note:
        note.write(f" ++++ cryogan {cryogan.__version__}, {time.strftime('%c')}: {ending}\n")
