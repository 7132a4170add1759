"""From what a user writes of poses to distributions, and what is refused."""

import math

import numpy as np
import pytest
import torch

from cryogan.errors import InputError
from cryogan.io.relion_writing import write_particles
from cryogan.particles import CTFParams, Pose
from cryogan.physics.distributions import (
    AngularCentralGaussian,
    Gaussian,
    Listed,
    PoseDistribution,
    SideViews,
    SphereDensity,
    Triangular,
    Uniform,
)
from cryogan.physics.rotations import random_rotations
from cryogan.simulation.poses import pose_distribution
from cryogan.simulation.settings import OrientationSettings, ShiftSettings

NO_SHIFTS = ShiftSettings()


def distribution(orientations=None, shifts=NO_SHIFTS):
    orientations = orientations or OrientationSettings()
    return pose_distribution(orientations, shifts, box_size=64, pixel_size_A=2.5)


def test_nothing_said_is_uniform_and_centred():
    assert distribution() == PoseDistribution(Uniform(), Triangular(0.0))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (OrientationSettings("angular-gaussian", sigma=2.0), AngularCentralGaussian(2.0)),
        (OrientationSettings("angular-gaussian"), AngularCentralGaussian(1.0)),
        (OrientationSettings("cylinder", spread_deg=4.0), SideViews(4.0)),
        (OrientationSettings("cylinder"), SideViews(0.0)),
    ],
)
def test_orientation_kinds(settings, expected):
    assert distribution(settings).orientations == expected


def test_shift_percent_is_of_the_box():
    """3 % of 64 px of 2.5 Å are 4.8 Å."""
    shifts = distribution(shifts=ShiftSettings("triangular", percent=3.0)).shifts
    assert isinstance(shifts, Triangular)
    assert shifts.half_width_A == pytest.approx(4.8)
    assert distribution(shifts=ShiftSettings("gaussian", sigma_A=3.0)).shifts == Gaussian(3.0)


@pytest.mark.parametrize("suffix", [".npy", ".txt"])
def test_healpix_weights(tmp_path, suffix):
    weights = np.arange(48.0)
    path = tmp_path / f"density{suffix}"
    if suffix == ".npy":
        np.save(path, weights)
    else:
        lines = [f"{weight} # cell {cell}" for cell, weight in enumerate(weights)]
        path.write_text("# RING order\n\n" + "\n".join(lines) + "\n")
    orientations = distribution(OrientationSettings("healpix", file=str(path))).orientations
    assert isinstance(orientations, SphereDensity)
    assert orientations.weights.tolist() == weights.tolist()


def test_orientations_of_a_star_file(tmp_path, generator):
    rotation = random_rotations(9, generator)
    path = tmp_path / "poses.star"
    write_particles(
        path,
        image_names="p.mrcs",
        ctf=CTFParams.constant(9, defocus_u_A=1e4),
        pixel_size_A=1.0,
        box_size=64,
        pose=Pose(rotation, torch.ones(9, 2)),
    )
    chosen = distribution(OrientationSettings("file", file=str(path)))
    assert isinstance(chosen.orientations, Listed)
    torch.testing.assert_close(chosen.orientations.rotation, rotation, atol=1e-5, rtol=0)
    assert torch.equal(chosen.sample(5, generator).shift_A, torch.zeros(5, 2))


def test_orientations_of_a_star_file_with_shifts_in_pixels_of_unknown_size(tmp_path):
    """Shifts are not used, so that their unit does not matter."""
    path = tmp_path / "poses.star"
    labels = ("AngleRot", "AngleTilt", "AnglePsi", "OriginX", "OriginY")
    header = "".join(f"_rln{label} #{i}\n" for i, label in enumerate(labels, start=1))
    path.write_text(f"data_\n\nloop_\n{header}0 90 0 1.5 -2\n")
    orientations = distribution(OrientationSettings("file", file=str(path))).orientations
    assert isinstance(orientations, Listed)
    expected = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]])
    torch.testing.assert_close(orientations.rotation, expected, atol=1e-6, rtol=0)


def test_orientations_of_a_cryosparc_file(tmp_path):
    fields = [("alignments3D/pose", "<f4", 3), ("alignments3D/shift", "<f4", 2)]
    records = np.zeros(2, dtype=[*fields, ("blob/psize_A", "<f4")])
    records["alignments3D/pose"][1] = (0.0, math.pi / 2, 0.0)
    records["blob/psize_A"] = 1.0
    path = tmp_path / "poses.cs"
    with path.open("wb") as file:
        np.save(file, records)
    orientations = distribution(OrientationSettings("file", file=str(path))).orientations
    assert isinstance(orientations, Listed)
    expected = torch.tensor(
        [[[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]]
    )
    torch.testing.assert_close(orientations.rotation, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "angular-gaussian", "sigma": 0.0}, r"orientations\.sigma is 0; give a"),
        ({"kind": "angular-gaussian", "sigma": -2.0}, r"orientations\.sigma is -2;"),
        ({"kind": "angular-gaussian", "sigma": math.nan}, r"orientations\.sigma is nan;"),
        ({"kind": "angular-gaussian", "sigma": math.inf}, r"orientations\.sigma is inf;"),
        ({"kind": "cylinder", "spread_deg": -1.0}, r"orientations\.spread_deg is -1;"),
        ({"kind": "cylinder", "spread_deg": 91.0}, r"spread_deg is 91; .* 0 to 90 degrees"),
        ({"kind": "file"}, r"orientations\.file is not given; name a \.star or \.cs"),
        ({"kind": "healpix"}, r"orientations\.file is not given; name a \.npy or text"),
        ({"file": "a.star"}, r"file has no meaning .* set .*kind to file or healpix"),
        ({"sigma": 2.0}, r"sigma has no meaning while orientations\.kind is unif"),
        ({"kind": "cylinder", "sigma": 2.0}, r"set orientations\.kind to angular-gaussian,"),
        ({"kind": "file", "file": "poses.csv"}, r"poses\.csv, whose name ends neither"),
        ({"kind": "sideways"}, r"orientations\.kind is 'sideways'; give one of uniform"),
    ],
)
def test_impossible_orientations_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        OrientationSettings(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (OrientationSettings("file", file="gone.star"), r"gone\.star"),
        (OrientationSettings("file", file="gone.cs"), r"Cannot read gone\.cs: No such file"),
        (OrientationSettings("healpix", file="gone.npy"), r"Cannot read .*gone\.npy: No such file"),
        (OrientationSettings("healpix", file="gone.txt"), r"Cannot read .*gone\.txt: No such file"),
    ],
)
def test_missing_orientations_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        distribution(settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "triangular", "percent": -1.0}, r"shifts\.percent is -1; .* from 0 to 50"),
        ({"kind": "triangular", "percent": 51.0}, r"shifts\.percent is 51;"),
        ({"kind": "triangular", "percent": math.nan}, r"shifts\.percent is nan;"),
        ({"kind": "gaussian", "sigma_A": -0.5}, r"shifts\.sigma_A is -0\.5;"),
        ({"kind": "gaussian", "sigma_A": 81.0}, r"shifts\.sigma_A is 81; .* 0 to 80 Å"),
        ({"percent": 3.0}, r"percent has no meaning .* set shifts\.kind to triangular,"),
        ({"kind": "triangular", "sigma_A": 3.0}, r"shifts\.sigma_A has no meaning while"),
        ({"kind": "normal"}, r"shifts\.kind is 'normal'; give one of none, triangular, gauss"),
    ],
)
def test_bad_shifts_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        distribution(shifts=ShiftSettings(**settings))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n" * 11, "holds 11 weights, but a HEALPix map has 12"),
        ("1\n" * 24, "holds 24 weights"),
        ("# nothing\n", "holds 0 weights"),
        ("0\n" * 12, "All weights .* are 0"),
        ("1\n" * 7 + "-2\n" + "1\n" * 4, r"weight of cell 7 .* is -2;"),
        ("1\n" * 11 + "nan\n", r"weight of cell 11 .* is nan;"),
        ("1\ninf\n" + "1\n" * 10, r"weight of cell 1 .* is inf;"),
        ("1\n\n1 2\n", "Line 3 of .* is not a number"),
        ("\x93NUMPY", "Line 1 of .* is not a number"),
    ],
)
def test_bad_weights_are_refused(tmp_path, text, message):
    path = tmp_path / "weights.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        distribution(OrientationSettings("healpix", file=str(path)))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((4, 3)), "is no list of numbers"),
        (np.array(["1"] * 12), "is no list of numbers"),
        (np.array([None] * 12), "holds Python objects"),
        (np.ones(13), "holds 13 weights"),
    ],
)
def test_bad_weight_arrays_are_refused(tmp_path, array, message):
    path = tmp_path / "weights.npy"
    np.save(path, array)
    with pytest.raises(InputError, match=message):
        distribution(OrientationSettings("healpix", file=str(path)))


def test_a_text_file_called_npy_is_refused(tmp_path):
    path = tmp_path / "weights.npy"
    path.write_text("1\n" * 12)
    with pytest.raises(InputError, match=r"no whole \.npy file"):
        distribution(OrientationSettings("healpix", file=str(path)))


def test_sampling_from_a_real_pose_distribution(shared_data, generator):
    """Views drawn from refined T20S particles: side views, as the file has them."""
    path = shared_data / "formats/poses/t20s_refined_particles.cs"
    poses = distribution(OrientationSettings("file", file=str(path)))
    tilt_deg = torch.rad2deg(torch.acos(poses.sample(4000, generator).rotation[:, 2, 2]))
    assert isinstance(poses.orientations, Listed)
    listed_deg = torch.rad2deg(torch.acos(poses.orientations.rotation[:, 2, 2]))
    quantiles = torch.tensor([0.1, 0.5, 0.9])
    torch.testing.assert_close(
        torch.quantile(tilt_deg, quantiles), torch.quantile(listed_deg, quantiles), atol=1.5, rtol=0
    )
    assert 80.0 < torch.quantile(tilt_deg, quantiles)[1] < 110.0
