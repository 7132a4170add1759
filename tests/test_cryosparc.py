"""cryoSPARC particle files: conventions, agreement with star files, and bad input."""

import pickle

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.transform import Rotation

from cryogan.errors import InputError
from cryogan.io.cryosparc import read_ctf, read_poses
from cryogan.io.relion_metadata import read_metadata
from cryogan.io.relion_poses import read_poses as read_star_poses
from cryogan.io.relion_writing import write_particles
from cryogan.physics.rotations import matrix_to_euler

COUNT = 20
CTF_FIELDS = {
    "ctf/accel_kv": 200.0,
    "ctf/cs_mm": 2.0,
    "ctf/amp_contrast": 0.07,
    "ctf/df1_A": 15000.0,
    "ctf/df2_A": 14000.0,
    "ctf/df_angle_rad": np.pi / 6,
    "ctf/phase_shift_rad": np.pi / 2,
    "ctf/bfactor": 30.0,
    "ctf/scale": 0.9,
}


def alignment(group="alignments3D", seed=0):
    random = np.random.default_rng(seed)
    return {
        f"{group}/pose": Rotation.random(COUNT, random_state=seed).as_rotvec(),
        f"{group}/shift": random.normal(size=(COUNT, 2)),
        f"{group}/psize_A": np.full(COUNT, 2.5),
        f"{group}/class_posterior": random.random(COUNT),
    }


def ctf_columns():
    return {name: np.full(COUNT, value) for name, value in CTF_FIELDS.items()}


def write_cs(path, columns, dtype="<f4"):
    """A .cs file: a structured array with a field for every column, and `uid`."""
    names = [("uid", "<u8"), *((name, dtype, np.shape(c)[1:]) for name, c in columns.items())]
    records = np.zeros(COUNT, dtype=names)
    for name, column in columns.items():
        records[name] = column
    with path.open("wb") as file:
        np.save(file, records)
    return path


@pytest.mark.parametrize(
    ("vector_deg", "euler_deg"),
    [((0, 40, 0), (0, 40, 0)), ((40, 0, 0), (-90, 40, 90))],
)
def test_rotation_vectors_become_relions_angles(tmp_path, vector_deg, euler_deg):
    """About y by θ: tilt θ. About x by θ: Rx(θ) = Rz(-90°) Ry(θ) Rz(90°)."""
    columns = alignment() | {"alignments3D/pose": np.tile(np.deg2rad(vector_deg), (COUNT, 1))}
    pose = read_poses(write_cs(tmp_path / "p.cs", columns))
    assert matrix_to_euler(pose.rotation)[0].tolist() == pytest.approx(euler_deg, abs=1e-3)


def test_rotation_about_z_turns_the_image_frame(tmp_path):
    columns = alignment() | {"alignments3D/pose": np.tile((0, 0, np.pi / 6), (COUNT, 1))}
    rotation = read_poses(write_cs(tmp_path / "p.cs", columns)).rotation
    cosine, sine = 3**0.5 / 2, 0.5
    expected = torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(rotation[0], expected)


def test_the_star_file_made_of_it_is_what_the_usual_converter_writes(tmp_path):
    """RELION's matrix is the transpose of exp(pose); origins keep the sign of the shift, in Å."""
    columns = alignment()
    path = write_cs(tmp_path / "p.cs", columns | ctf_columns())
    star = tmp_path / "p.star"
    write_particles(
        star,
        image_names="p.mrcs",
        ctf=read_ctf(path),
        pixel_size_A=2.5,
        box_size=64,
        pose=read_poses(path),
    )
    rows = [line.split() for line in star.read_text().splitlines() if "@p.mrcs" in line]
    labels = [line.split()[0] for line in star.read_text().splitlines() if line.startswith("_rln")]
    labels = labels[labels.index("_rlnImageName") :]
    table = {label: [row[i] for row in rows] for i, label in enumerate(labels)}
    euler_deg = np.array(
        [table["_rlnAngleRot"], table["_rlnAngleTilt"], table["_rlnAnglePsi"]], dtype=float
    ).T
    relion_matrix = Rotation.from_euler("ZYZ", euler_deg, degrees=True).inv().as_matrix()
    exponential = Rotation.from_rotvec(columns["alignments3D/pose"]).as_matrix()
    np.testing.assert_allclose(relion_matrix, exponential.transpose(0, 2, 1), atol=1e-5)
    origin_A = np.array([table["_rlnOriginXAngst"], table["_rlnOriginYAngst"]], dtype=float).T
    np.testing.assert_allclose(origin_A, 2.5 * columns["alignments3D/shift"], atol=1e-5)
    torch.testing.assert_close(read_star_poses(star).shift_A, read_poses(path).shift_A)


def test_refined_views_crowd_and_in_plane_angles_do_not(shared_data):
    """R, not its transpose: T20S (D7) has preferred views, the detector's plane has none."""
    rotation = read_poses(shared_data / "formats/poses/t20s_refined_particles.cs").rotation

    def p_value(direction):
        azimuth = torch.atan2(direction[:, 1], direction[:, 0]).numpy()
        return stats.kstest(azimuth, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue

    assert len(rotation) == 11_764
    assert p_value(rotation[:, :, 2]) < 1e-30
    assert p_value(rotation[:, 2, :]) > 1e-3


def test_shift_is_in_pixels_of_the_alignment(tmp_path):
    """A job that bins on the fly gives shifts in its own pixels, not in those of the images."""
    columns = alignment() | {"blob/psize_A": np.full(COUNT, 1.0)}
    shift = torch.from_numpy(columns["alignments3D/shift"]).float()
    pose = read_poses(write_cs(tmp_path / "p.cs", columns))
    torch.testing.assert_close(pose.shift_A, -2.5 * shift)
    del columns["alignments3D/psize_A"]
    pose = read_poses(write_cs(tmp_path / "q.cs", columns))
    torch.testing.assert_close(pose.shift_A, -shift)


def test_several_classes_give_the_pose_of_the_most_probable(tmp_path):
    first, second = alignment("alignments_class_0", 1), alignment("alignments_class_1", 2)
    both = read_poses(write_cs(tmp_path / "both.cs", first | second))
    better = (
        second["alignments_class_1/class_posterior"] > first["alignments_class_0/class_posterior"]
    )
    assert 0 < better.sum() < COUNT
    for columns, chosen in ((first, ~better), (second, better)):
        alone = read_poses(write_cs(tmp_path / "one.cs", columns))
        assert torch.equal(both.rotation[chosen], alone.rotation[chosen])
        assert torch.equal(both.shift_A[chosen], alone.shift_A[chosen])
    refined = alignment(seed=3)
    merged = read_poses(write_cs(tmp_path / "merged.cs", first | second | refined))
    alone = read_poses(write_cs(tmp_path / "refined.cs", refined))
    assert torch.equal(merged.rotation, alone.rotation)


def test_ctf_units(tmp_path):
    ctf = read_ctf(write_cs(tmp_path / "p.cs", ctf_columns()))
    assert len(ctf) == COUNT
    values = [column[0].item() for column in ctf.columns.values()]
    assert values == pytest.approx([15000.0, 14000.0, 30.0, 200.0, 2.0, 0.07, 90.0, 30.0, 0.9, 0])


def test_ctf_fields_that_may_be_absent(tmp_path):
    columns = ctf_columns()
    for name in ("phase_shift_rad", "bfactor", "scale"):
        del columns[f"ctf/{name}"]
    ctf = read_ctf(write_cs(tmp_path / "p.cs", columns))
    assert ctf.phase_shift_deg.tolist() == [0.0] * COUNT
    assert ctf.b_factor_A2.tolist() == [0.0] * COUNT
    assert ctf.scale.tolist() == [1.0] * COUNT


def test_ctf_agrees_with_the_star_file_of_the_same_particles(shared_data):
    formats = shared_data / "formats"
    ours = read_ctf(formats / "cryosparc/empiar_10076_7.cs")
    star = read_metadata(formats / "relion/empiar_10076_7.star").ctf
    for name, column in vars(ours).items():
        torch.testing.assert_close(column, getattr(star, name), rtol=1e-6, atol=1e-4)


def test_many_fields_fit_the_header(tmp_path):
    """A job of 60 classes writes a longer header than NumPy reads by default."""
    columns = {}
    for number in range(60):
        columns |= alignment(f"alignments_class_{number}", number)
    path = write_cs(tmp_path / "p.cs", columns)
    with pytest.raises(ValueError, match="may not be safe"):
        np.load(path)
    assert len(read_poses(path)) == COUNT


def changed(**changes):
    columns = alignment() | ctf_columns()
    for name, value in changes.items():
        field = name.replace("__", "/")
        if value is None:
            del columns[field]
        else:
            columns[field] = value
    return columns


def with_bad(field, particle, value):
    columns = alignment() | ctf_columns()
    columns[field][particle] = value
    return columns


@pytest.mark.parametrize(
    ("read", "columns", "message"),
    [
        (read_poses, ctf_columns(), r"no field alignments3D/pose; give the particles of a 3D"),
        (read_poses, changed(alignments3D__shift=None), "no field alignments3D/shift"),
        (read_poses, changed(alignments3D__psize_A=None), "no field blob/psize_A"),
        (read_poses, changed(alignments3D__pose=np.ones(COUNT)), "pose in .* not 3 numbers a"),
        (read_poses, changed(alignments3D__psize_A=np.ones((COUNT, 2))), "is not 1 number a"),
        (read_poses, with_bad("alignments3D/pose", 6, np.nan), "pose of particle 7 of .* finite"),
        (read_poses, with_bad("alignments3D/shift", 0, np.inf), "shift of particle 1 of .* finite"),
        (read_poses, with_bad("alignments3D/psize_A", 3, 0.0), "psize_A of particle 4 .* is 0,"),
        (read_ctf, alignment(), "no field ctf/df1_A"),
        (read_ctf, changed(ctf__cs_mm=None), "no field ctf/cs_mm"),
        (read_ctf, with_bad("ctf/df_angle_rad", 19, np.nan), "rad of particle 20 of .* finite"),
    ],
)
def test_bad_fields_are_named(tmp_path, read, columns, message):
    with pytest.raises(InputError, match=message):
        read(write_cs(tmp_path / "p.cs", columns))


def test_fields_that_hold_text_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"alignments3D/pose in .* is not 3 numbers"):
        read_poses(write_cs(tmp_path / "p.cs", alignment(), dtype="S8"))


class Detonator:
    """Unpickling it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_files_with_python_objects_are_refused_unloaded(tmp_path):
    """Neither a bare pickle nor an array with a field of objects is ever unpickled."""
    trace = tmp_path / "trace"
    records = np.zeros(2, dtype=[("alignments3D/pose", "<f4", 3), ("blob/path", "O")])
    records["blob/path"] = Detonator(trace)
    path = tmp_path / "p.cs"
    for array in (records, np.array([Detonator(trace)], dtype=object)):
        with path.open("wb") as file:
            np.save(file, array)
        with pytest.raises(InputError, match="holds Python objects, which are never loaded"):
            read_poses(path)
    path.write_bytes(pickle.dumps(Detonator(trace)))
    with pytest.raises(InputError, match="no whole cryoSPARC particle file"):
        read_poses(path)
    assert not trace.exists()


@pytest.mark.parametrize("read", [read_poses, read_ctf])
def test_files_that_are_something_else(tmp_path, read):
    missing = tmp_path / "missing.cs"
    with pytest.raises(InputError, match=r"Cannot read .*No such file"):
        read(missing)
    with pytest.raises(InputError, match=r"Cannot read .*directory"):
        read(tmp_path)
    path = tmp_path / "p.cs"
    for content in (b"", b"data_particles\nloop_\n", b"\x93NUMPY\x01\x00"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="no whole cryoSPARC particle file"):
            read(path)
    whole = write_cs(path, alignment() | ctf_columns()).read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(InputError, match="no whole cryoSPARC particle file"):
        read(path)
    with path.open("wb") as file:
        np.save(file, np.ones((4, 3)))
    with pytest.raises(InputError, match="without cryoSPARC's named fields"):
        read(path)


def test_a_file_without_particles(shared_data):
    with pytest.raises(InputError, match=r"4k_dataset\.cs holds no particle"):
        read_poses(shared_data / "formats/cryosparc/4k_dataset.cs")


def test_a_file_of_2d_classes_only(shared_data):
    with pytest.raises(InputError, match="no field alignments3D/pose"):
        read_poses(shared_data / "formats/cryosparc/cryosparc_J2_particles_exported.cs")
