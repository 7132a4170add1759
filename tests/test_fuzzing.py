"""Thousands of damaged files: each is read, or refused in one sentence; nothing else happens.

A mutant is its number: `mutant(valid, number)` gives the same bytes in every run.
"""

import math
import pickle
import random
import re
import resource
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from cryogan.cli import main
from cryogan.errors import InputError
from cryogan.io import cryosparc, relion_poses, relion_writing
from cryogan.io.atoms import model_density, read_model
from cryogan.io.mrc import MrcStack, read_map, write_map, write_stack
from cryogan.io.particle_files import read_particles
from cryogan.io.result_groups import write_group
from cryogan.io.row_numbers import read_row_numbers
from cryogan.particles import CTFParams, Particles, Pose
from cryogan.physics.rotations import random_rotations
from cryogan.registry import READERS
from cryogan.simulation.plan import plan
from cryogan.simulation.poses import pose_distribution
from cryogan.simulation.settings import OrientationSettings, ShiftSettings

N, BOX, PIXEL_SIZE_A = 6, 16, 1.5
MEMORY_BYTES = 2**30
HANG_S = 10

# Mutations

_NUMBERS = [
    *(
        "0",
        "-1",
        "1",
        "1e30",
        "-1e30",
        "1e-30",
        "1e999",
        "nan",
        "inf",
        "-inf",
        "0x10",
        "1_0",
        "１２",
    ),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775809", "9" * 400, "--1"),
    *("1.", ".5", "1,5", "true", "null", "''", "~", "[]", "{}", "&a", "*a", "10000001@", "None"),
]
_INTEGERS = [0, 1, -1, 2, 3, 255, 2**15, 2**16, 2**24, 2**31 - 1, -(2**31), 101, 16]
_FLOATS = [0.0, -1.0, 1e-30, 1e30, -1e30, math.nan, math.inf, -math.inf, 6e13, 1.0]


def flipped(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def inserted(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    added = rng.choice((rng.randbytes(rng.randint(1, 9)), b"\0", b"\n", b" ", b"\xff\xfe", b"\r"))
    return data[:at] + added + data[at:]


def removed(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randint(1, 40) :]


def with_a_part_twice(data: bytes, rng: random.Random) -> bytes:
    start, stop = sorted(rng.randrange(len(data)) for _ in range(2))
    return data[:stop] + data[start:]


def with_a_line_twice(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    lines.insert(rng.randrange(len(lines)), rng.choice(lines))
    return b"".join(lines)


def with_lines_swapped(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]
    return b"".join(lines)


def with_words_swapped(data: bytes, rng: random.Random) -> bytes:
    words = list(re.finditer(rb"[^\s:,\[\]{}]+", data))
    if len(words) < 2:
        return flipped(data, rng)
    first, second = sorted(rng.sample(words, 2), key=lambda word: word.start())
    middle = data[first.end() : second.start()]
    swapped = second.group() + middle + first.group()
    return data[: first.start()] + swapped + data[second.end() :]


def with_another_number(data: bytes, rng: random.Random) -> bytes:
    numbers = list(re.finditer(rb"-?\d+(\.\d+)?(e-?\d+)?", data))
    if not numbers:
        return flipped(data, rng)
    chosen = rng.choice(numbers)
    return data[: chosen.start()] + rng.choice(_NUMBERS).encode() + data[chosen.end() :]


def with_extreme_fields(data: bytes, rng: random.Random) -> bytes:
    """32-bit fields of a header, or anywhere else, set to what they should never be."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        end = rng.choice((100, 224, 1024, len(data)))
        at = 4 * rng.randrange(max(1, min(end, len(data)) // 4))
        kind, values = rng.choice((("i", _INTEGERS), ("f", _FLOATS)))
        field = struct.pack(rng.choice("<<<>") + kind, rng.choice(values))
        changed[at : at + 4] = field
    return bytes(changed)


_ANY = (flipped, truncated, inserted, removed, with_a_part_twice)
_TEXT = (
    *_ANY,
    *(with_a_line_twice, with_lines_swapped, with_words_swapped),
    *(with_another_number, with_another_number),
)
_BINARY = (*_ANY, with_extreme_fields, with_extreme_fields, with_extreme_fields)
_HEADED = (*_BINARY, with_words_swapped, with_another_number, with_another_number)


def mutant(
    valid: bytes, number: int, mutations: tuple[Callable[[bytes, random.Random], bytes], ...]
) -> tuple[str, bytes]:
    """What was done, and the damaged file."""
    rng = random.Random(number)
    names = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        mutation = rng.choice(mutations)
        names.append(mutation.__name__)
        valid = mutation(valid or b"\0", rng)
    return " and ".join(names), valid


# What is accepted must be possible


def assert_ctf_is_possible(ctf: CTFParams) -> None:
    for low, high, values in (
        (-1e6, 1e6, ctf.defocus_u_A),
        (-1e6, 1e6, ctf.defocus_v_A),
        (-1e6, 1e6, ctf.defocus_angle_deg),
        (10.0, 3000.0, ctf.voltage_kV),
        (-100.0, 100.0, ctf.spherical_aberration_mm),
        (0.0, 1.0, ctf.amplitude_contrast),
        (-1e6, 1e6, ctf.phase_shift_deg),
        (-1e6, 1e6, ctf.b_factor_A2),
        (-1e6, 1e6, ctf.scale),
    ):
        assert bool(((values >= low) & (values <= high)).all()), f"CTF: {values.tolist()}"


def assert_poses_are_possible(pose: Pose) -> None:
    gram = pose.rotation @ pose.rotation.mT
    assert float((gram - torch.eye(3)).abs().max()) < 1e-3
    assert bool(pose.shift_A.isfinite().all())


def assert_particles_are_possible(particles: Particles) -> None:
    assert 0.01 <= particles.pixel_size_A <= 1000.0
    assert particles.box_size > 8
    assert 1 <= len(particles) == len(particles.ctf)
    assert_ctf_is_possible(particles.ctf)
    images = particles.stack.read(torch.arange(len(particles)))
    assert bool(images.isfinite().all())


# Readers, one a kind of file


def use_particles(path: Path) -> None:
    assert_particles_are_possible(read_particles(path))


def use_star_poses(path: Path) -> None:
    assert_poses_are_possible(relion_poses.read_poses(path))


def use_stack_of_star(path: Path) -> None:
    """The stack is damaged, the star file is whole."""
    particles = read_particles(path.with_name("good.star"))
    assert_particles_are_possible(particles)
    assert len(particles) == N


def use_cs(path: Path) -> None:
    ctf = cryosparc.read_ctf(path)
    columns = (value for value in vars(ctf).values() if value is not None)
    assert all(bool(torch.isfinite(column).all()) for column in columns)
    assert_poses_are_possible(cryosparc.read_poses(path))
    if ".cs" in READERS:
        use_particles(path)


def use_map(path: Path) -> None:
    found = read_map(path)
    assert 0.01 <= found.pixel_size_A <= 1000.0
    assert found.volume.shape == found.volume.shape[:1] * 3
    assert bool(found.volume.isfinite().all())


def use_stack(path: Path) -> None:
    stack = MrcStack.open(path)
    assert bool(stack.read(torch.arange(len(stack))).isfinite().all())


def use_rows(path: Path) -> None:
    rows = read_row_numbers(path)
    assert len(rows) > 0
    assert rows.dtype == torch.bool or len(rows.unique()) == len(rows)


def use_ctf_table(path: Path) -> None:
    assert_particles_are_possible(read_particles(path.with_name("a.mrcs"), ctf_table=path))


def use_list(path: Path) -> None:
    assert_particles_are_possible(read_particles(path, no_ctf=True))


def use_weights(path: Path) -> None:
    orientations = OrientationSettings("healpix", file=str(path))
    made = pose_distribution(orientations, ShiftSettings(), box_size=BOX, pixel_size_A=1.0)
    pose = made.sample(4, torch.Generator().manual_seed(0))
    assert_poses_are_possible(pose)


def use_model(path: Path) -> None:
    model = read_model(path)
    centred = model.moved(model.positions_A - model.centre_of_mass_A)
    assert bool(model_density(centred, box_size=16, pixel_size_A=3.0).isfinite().all())


def use_recipe(path: Path) -> None:
    made = plan(str(path), path.parent / "set")
    assert math.isfinite(made.settings.pixel_size_A)
    assert math.isfinite(made.settings.noise.snr_dB)


def use_configuration(path: Path) -> None:
    """No particle file is there, so that every configuration ends in one sentence."""
    if main(["reconstruct", "none.star", "-o", "run", "--config", str(path)]) == 2:
        raise InputError("as the command says.")


# Valid files

RECIPE = """title: A set
about: |
  Two lines of
  text.
settings:
  molecule: {sources: [phantom], hinge_deg: [0.0, 20.0], hinge_states: 3, populations: [1, 2, 3]}
  box_size: 32
  pixel_size_A: 5.0
  images: 100
  orientations: {kind: angular-gaussian, sigma: 2.0}
  shifts: {kind: triangular, percent: 5.0}
  ctf: {kind: range, defocus_A: [5000.0, 15000.0], astigmatism_A: 0.0, phase_shift_deg: [0, 90]}
  noise: {kind: white, snr_dB: -10.0}
  padding: 2.0
  seed: 1
conditions:
  loud: {noise: {snr_dB: -20}}
  quiet: {}
needs:
  5a1a.cif: https://www.rcsb.org/structure/5A1A
"""
MODEL = "".join(
    f"ATOM  {i:5d}  {atom:<3s} ALA A{1 + i // 4:4d}    {i:8.3f}{i / 2:8.3f}{-i:8.3f}  1.00 20.00"
    f"          {atom[0]:>2s}\n"
    for i, atom in enumerate(("N", "CA", "C", "O") * 3)
)
MMCIF_LABELS = (
    *("group_PDB", "id", "type_symbol", "label_atom_id", "label_comp_id", "label_asym_id"),
    *("label_seq_id", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy", "B_iso_or_equiv"),
    *("label_alt_id", "auth_seq_id", "auth_asym_id", "pdbx_PDB_model_num"),
)
MMCIF = (
    "data_x\nloop_\n"
    + "".join(f"_atom_site.{label}\n" for label in MMCIF_LABELS)
    + "".join(
        f"ATOM {i} C CA ALA A {i} {i}.0 {i / 2} -{i} 1.0 20.0 . {i} A 1\n" for i in range(1, 9)
    )
)
CONFIGURATION = """objective: adversarial
preset: paper
seed: 3
sym: D2
diameter: 120.0
apix: 1.5
max_shift: 5%
adversarial:
  batch_size: 32
  volume_lr: 0.02
  stages:
  - {box_size: 16, images: 100000, padding: 2.0}
likelihood:
  full_iterations: 3
"""


def save_valid_files(folder: Path) -> None:
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(N, BOX, BOX, generator=generator)
    ctf = CTFParams.constant(
        N,
        defocus_u_A=torch.linspace(10000.0, 20000.0, N),
        defocus_v_A=torch.linspace(9000.0, 21000.0, N),
        voltage_kV=torch.tensor([200.0, 300.0] * (N // 2)),
        phase_shift_deg=10.0,
    )
    pose = Pose(random_rotations(N, generator), torch.randn(N, 2, generator=generator))
    write_stack(folder / "a.mrcs", images, PIXEL_SIZE_A)
    for name in ("good.star", "p31.star"):
        relion_writing.write_particles(
            folder / name,
            image_names="a.mrcs",
            ctf=ctf,
            pixel_size_A=PIXEL_SIZE_A,
            box_size=BOX,
            pose=pose,
        )
    labels = (
        *("ImageName", "DefocusU", "DefocusV", "DefocusAngle", "Voltage", "SphericalAberration"),
        *("AmplitudeContrast", "DetectorPixelSize", "Magnification", "AngleRot", "AngleTilt"),
        *("AnglePsi", "OriginX", "OriginY"),
    )
    (folder / "p30.star").write_text(
        "data_\n\nloop_\n"
        + "".join(f"_rln{label} #{i}\n" for i, label in enumerate(labels, 1))
        + "".join(
            f"{i:06d}@a.mrcs 12000 11000 30.5 300 2.7 0.1 1.5 10000 10.5 20 -30 0.5 -2\n"
            for i in range(1, N + 1)
        )
    )
    half = torch.tensor([1, 2] * (N // 2))
    particles = read_particles(folder / "good.star")
    cryosparc.write_particles(folder / "p.cs", particles, pose, half=half)
    write_map(folder / "m.mrc", torch.randn(12, 12, 12, generator=generator), PIXEL_SIZE_A)
    write_stack(folder / "s.mrcs", images[:3], PIXEL_SIZE_A)
    header = bytearray((folder / "s.mrcs").read_bytes()[:1024])
    header[12:16] = bytes(4)
    header[152:160] = struct.pack("<ii", 1146047817, 0)
    (folder / "imod.mrcs").write_bytes(header + bytes(range(256)) * 3)
    np.save(folder / "rows.npy", np.array([4, 0, 2, 1]))
    np.save(folder / "weights.npy", np.linspace(0.0, 1.0, 48))
    (folder / "rows.pkl").write_bytes(pickle.dumps(np.array([4, 0, 2, 1])))
    (folder / "rows.txt").write_text("4\n0\n2\n1\n")
    (folder / "list.txt").write_text("a.mrcs\ns.mrcs\n")
    labels = "defocus_u_A,defocus_v_A,defocus_angle_deg,voltage_kV,spherical_aberration_mm,"
    rows = "12000,11000,30.5,300,2.7,0.1\n" * N
    (folder / "ctf.csv").write_text(f"{labels}amplitude_contrast\n{rows}")
    write_group(folder / "p.csg", folder / "p.cs", ["blob", "ctf", "alignments3D"], N)
    (folder / "model.pdb").write_text(MODEL)
    (folder / "model.cif").write_text(MMCIF)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "options.yaml").write_text(CONFIGURATION)


KINDS = {
    "star 3.1": ("p31.star", _TEXT, use_particles, 700),
    "star 3.0": ("p30.star", _TEXT, use_particles, 500),
    "poses of star": ("p30.star", _TEXT, use_star_poses, 300),
    "cs": ("p.cs", _HEADED, use_cs, 600),
    "map": ("m.mrc", _BINARY, use_map, 500),
    "stack": ("s.mrcs", _BINARY, use_stack, 300),
    "stack of IMOD": ("imod.mrcs", _BINARY, use_stack, 200),
    "stack of a star": ("a.mrcs", _BINARY, use_stack_of_star, 300),
    "rows": ("rows.npy", _HEADED, use_rows, 400),
    "rows of a pickle": ("rows.pkl", _HEADED, use_rows, 300),
    "rows as text": ("rows.txt", _TEXT, use_rows, 200),
    "list of stacks": ("list.txt", _TEXT, use_list, 100),
    "CTF table": ("ctf.csv", _TEXT, use_ctf_table, 200),
    "group of cryoSPARC": ("p.csg", _TEXT, use_particles, 200),
    "weights": ("weights.npy", _HEADED, use_weights, 300),
    "PDB": ("model.pdb", _TEXT, use_model, 200),
    "mmCIF": ("model.cif", _TEXT, use_model, 200),
    "recipe": ("recipe.yaml", _TEXT, use_recipe, 500),
    "configuration": ("options.yaml", _TEXT, use_configuration, 150),
}


class Hang(BaseException):
    """Not an Exception, which a reader might catch."""


@contextmanager
def limits() -> Iterator[None]:
    """What takes too much memory or time raises."""

    def stop(*_: object) -> None:
        raise Hang(f"longer than {HANG_S} s")

    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    allowed = pages * resource.getpagesize() + MEMORY_BYTES
    handler = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (allowed, before[1]))
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGALRM, handler)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def faults(kind: str, folder: Path, numbers: range) -> list[str]:
    """The mutants of a kind that are neither read nor refused as they should be."""
    name, mutations, use, _ = KINDS[kind]
    path = folder / name
    valid = path.read_bytes()
    use(path) if kind != "configuration" else None
    before = contents(folder)
    found = []
    with limits():
        for number in numbers:
            what, damaged = mutant(valid, number, mutations)
            path.write_bytes(damaged)
            signal.alarm(HANG_S)
            try:
                use(path)
            except InputError as error:
                if "\n" in str(error) or not str(error).endswith("."):
                    found.append(f"{number} ({what}): no sentence: {error!r}")
            except (Exception, Hang, SystemExit) as error:
                found.append(f"{number} ({what}): {type(error).__name__}: {error}"[:300])
            signal.alarm(0)
            if len(list(folder.iterdir())) != len(before):
                found.append(f"{number} ({what}): wrote a file")
                break
    path.write_bytes(valid)
    assert contents(folder) == before
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_refused(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    monkeypatch.chdir(tmp_path)
    save_valid_files(tmp_path)
    found = faults(kind, tmp_path, range(KINDS[kind][3]))
    assert found == []


def test_enough_mutants_of_every_kind() -> None:
    assert sum(count for *_, count in KINDS.values()) >= 4000
    whole = b"some 12 words and numbers 1.5\n" * 40
    made = {mutant(whole, number, _HEADED)[1] for number in range(300)}
    assert len(made - {whole}) > 250
