"""CTFs of simulated sets: drawn as the settings say, from ranges and from real tables."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats

from cryogan.errors import InputError
from cryogan.io.relion_metadata import read_metadata
from cryogan.physics.ctf import ctf
from cryogan.simulation.microscope import draw, perfect_ctf, random_ctf
from cryogan.simulation.settings import MicroscopeSettings

HEADER = "micrograph,defocus_u_A,defocus_v_A,defocus_angle_deg,phase_shift_deg,particles\n"
RELION30 = "formats/relion/sample_particles_relion30.star"
T20S = "formats/poses/t20s_refined_particles.cs"


def columns(params):
    return params.columns


def rows(params):
    """The distinct parameter sets, each as a tuple."""
    return set(zip(*(values.tolist() for values in columns(params).values()), strict=True))


def csv_table(tmp_path, text):
    path = tmp_path / "ctf.csv"
    path.write_text(HEADER + text)
    return MicroscopeSettings(kind="table", table=str(path))


def uniform_p(values, low, high):
    return stats.kstest(values.numpy(), stats.uniform(low, high - low).cdf).pvalue


def test_no_microscope_is_a_ctf_of_one(generator):
    assert torch.equal(ctf(perfect_ctf(2), 32, 3.0), torch.ones(2, 32, 17))
    settings = MicroscopeSettings(kind="none", b_factor_A2=100.0, defocus_spread_A=50.0)
    assert torch.equal(ctf(draw(settings, 2, generator), 32, 3.0), torch.ones(2, 32, 17))


def test_ranges_are_filled_uniformly(generator):
    settings = MicroscopeSettings(
        defocus_A=(9000.0, 21000.0), astigmatism_A=500.0, phase_shift_deg=(30.0, 90.0)
    )
    params = draw(settings, 4000, generator)
    astigmatism = params.defocus_u_A.double() - params.defocus_v_A.double()
    assert uniform_p(params.defocus_u_A, 9000.0, 21000.0) > 1e-3
    assert uniform_p(astigmatism, 0.0, 500.0) > 1e-3
    assert uniform_p(params.defocus_angle_deg, 0.0, 180.0) > 1e-3
    assert uniform_p(params.phase_shift_deg, 30.0, 90.0) > 1e-3
    together = torch.stack((params.defocus_u_A, astigmatism.float(), params.defocus_angle_deg))
    assert torch.corrcoef(together).triu(1).abs().max() < 0.06


def test_optics_are_those_asked_for(generator):
    settings = MicroscopeSettings(
        voltage_kV=200.0,
        spherical_aberration_mm=0.01,
        amplitude_contrast=0.07,
        phase_shift_deg=(90.0, 90.0),
        b_factor_A2=120.0,
    )
    params = draw(settings, 3, generator)
    assert params.voltage_kV.tolist() == [200.0] * 3
    assert params.spherical_aberration_mm.tolist() == pytest.approx([0.01] * 3)
    assert params.amplitude_contrast.tolist() == pytest.approx([0.07] * 3)
    assert params.phase_shift_deg.tolist() == [90.0] * 3
    assert params.b_factor_A2.tolist() == [120.0] * 3


def test_random_stream_of_the_defaults_is_u_astigmatism_and_angle():
    """Data sets made from a seed must stay what they are."""
    params = random_ctf(5, torch.Generator().manual_seed(3))
    uniform = torch.rand(3, 5, generator=torch.Generator().manual_seed(3))
    u = 8000.0 + 17000.0 * uniform[0]
    assert torch.equal(params.defocus_u_A, u)
    assert torch.equal(params.defocus_v_A, u - 300.0 * uniform[1])
    assert torch.equal(params.defocus_angle_deg, 180.0 * uniform[2])


def test_spread_moves_both_defoci_of_a_particle_alike(tmp_path, generator):
    settings = csv_table(tmp_path, "a,10000,9000,10,0,30\n")
    params = draw(dataclasses.replace(settings, defocus_spread_A=200.0), 4000, generator)
    astigmatism = params.defocus_u_A - params.defocus_v_A
    assert (astigmatism - 1000.0).abs().max() < 0.01
    deviation = params.defocus_u_A.numpy() - 10000.0
    assert stats.kstest(deviation, stats.norm(0.0, 200.0).cdf).pvalue > 1e-3


def test_rows_of_a_table_are_drawn_by_weight(tmp_path, generator):
    settings = csv_table(
        tmp_path, "a,10000,9900,10,0,30\nb,20000,19900,-20,5,10\nc,15000,1,0,0,0\n"
    )
    drawn = draw(dataclasses.replace(settings, voltage_kV=200.0), 8000, generator)
    optics = (200.0, *torch.tensor((2.7, 0.1)).tolist())
    assert rows(drawn) == {
        (10000.0, 9900.0, 10.0, *optics, 0.0, 0.0, 1.0, 0),
        (20000.0, 19900.0, -20.0, *optics, 5.0, 0.0, 1.0, 0),
    }
    assert (drawn.defocus_u_A == 10000.0).float().mean().item() == pytest.approx(0.75, abs=0.02)


def test_table_of_empiar_10061(shared_data, generator):
    path = shared_data / "empiar-10061" / "micrograph_ctf.csv"
    n = 20_000
    drawn = draw(MicroscopeSettings(kind="table", table=str(path)), n, generator)
    table = np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding=None)
    u, weight = table["defocus_u_A"], table["particles"]
    assert (len(u), weight.sum()) == (1539, 41123)
    mean = np.average(u, weights=weight)
    deviation = math.sqrt(np.average((u - mean) ** 2, weights=weight))
    assert drawn.defocus_u_A.mean().item() == pytest.approx(mean, abs=4 * deviation / n**0.5)
    assert set(drawn.defocus_u_A.tolist()) <= set(u.astype(np.float32).tolist())


def test_star_table_brings_its_own_optics(shared_data, generator):
    path = shared_data / RELION30
    settings = MicroscopeSettings(
        kind="table", table=str(path), voltage_kV=100.0, amplitude_contrast=0.5, b_factor_A2=80.0
    )
    given = read_metadata(path).ctf
    expected = dataclasses.replace(given, b_factor_A2=given.b_factor_A2 + 80.0)
    drawn = draw(settings, 20 * len(given), generator)
    assert rows(drawn) == rows(expected)


def test_cs_table_brings_its_own_optics(shared_data, generator):
    path = shared_data / T20S
    records = np.load(path)
    drawn = draw(MicroscopeSettings(kind="table", table=str(path)), 5000, generator)
    pairs = {(u, v) for u, v, *_ in rows(drawn)}
    assert pairs <= set(
        zip(records["ctf/df1_A"].tolist(), records["ctf/df2_A"].tolist(), strict=True)
    )
    assert len(pairs) > 3000
    assert set(drawn.voltage_kV.tolist()) == set(records["ctf/accel_kv"].tolist())
    phase = np.rad2deg(records["ctf/phase_shift_rad"])
    assert drawn.phase_shift_deg.max() <= phase.max() + 1e-3


@pytest.mark.parametrize("kind", ["range", "table"])
def test_the_same_seed_gives_the_same_ctfs(tmp_path, kind):
    settings = csv_table(tmp_path, "a,10000,9000,10,0,3\nb,20000,19900,-20,5,1\n")
    if kind == "range":
        settings = MicroscopeSettings(phase_shift_deg=(0.0, 90.0))
    settings = dataclasses.replace(settings, defocus_spread_A=100.0)
    first, second, other = (
        columns(draw(settings, 50, torch.Generator().manual_seed(seed))) for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["defocus_u_A"], other["defocus_u_A"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"defocus_A": (9000.0, 8000.0)}, "ctf.defocus_A is 9000 to 8000; give two numbers"),
        ({"defocus_A": (9000.0, math.nan)}, "ctf.defocus_A is 9000 to nan"),
        ({"phase_shift_deg": (90.0, 0.0)}, "ctf.phase_shift_deg is 90 to 0"),
        ({"astigmatism_A": -1.0}, "ctf.astigmatism_A is -1; give a number from 0"),
        ({"defocus_spread_A": math.inf}, "ctf.defocus_spread_A is inf"),
        ({"b_factor_A2": -5.0}, "ctf.b_factor_A2 is -5"),
        ({"voltage_kV": 0.0}, "ctf.voltage_kV is 0, but voltage lies from 20"),
        ({"spherical_aberration_mm": math.nan}, "ctf.spherical_aberration_mm is nan, but"),
        ({"amplitude_contrast": 1.0}, "ctf.amplitude_contrast is 1; give a fraction"),
        ({"kind": "table"}, "no ctf.table is given"),
        ({"table": "a.csv"}, "ctf.table is given but ctf.kind is range"),
        (
            {"kind": "table", "table": "a.csv", "phase_shift_deg": (0.0, 9.0)},
            "ctf.phase_shift_deg is given but a ctf.table has its own",
        ),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        MicroscopeSettings(**settings)


def test_overfocus_is_possible(generator):
    params = draw(MicroscopeSettings(defocus_A=(-5000.0, -5000.0)), 3, generator)
    assert (params.defocus_v_A <= params.defocus_u_A).all()
    assert params.defocus_u_A.tolist() == [-5000.0] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("micrograph,defocus_u_A,particles\n", "no column defocus_v_A, defocus_angle_deg"),
        (HEADER + "a,1,1,1,1,1\nb,1,x,1,1,1\n", "line 3: a value of"),
        (HEADER + "a,1,1\n", "line 2: a value of"),
        (HEADER + "a,1,1,1,nan,1\n", "line 2: .* not a finite number"),
        (HEADER, "has a header but no row"),
        ("", "no column defocus_u_A"),
        (HEADER + "a,1,1,1,1,-1\n", "column particles .* numbers from 0"),
        (HEADER + "a,1,1,1,1,0\n", "not all of them 0"),
    ],
)
def test_bad_tables_are_refused(tmp_path, generator, text, message):
    path = tmp_path / "ctf.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        draw(MicroscopeSettings(kind="table", table=str(path)), 2, generator)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.csv", "Cannot read the table .*none.csv: No such file"),
        ("none.star", "none.star"),
        ("none.cs", "Cannot read .*none.cs"),
        ("none.txt", "whose kind its name does not tell"),
    ],
)
def test_missing_and_unknown_tables_are_refused(tmp_path, generator, name, message):
    with pytest.raises(InputError, match=message):
        draw(MicroscopeSettings(kind="table", table=str(tmp_path / name)), 2, generator)


def test_binary_file_as_a_table_is_refused(tmp_path, generator):
    path = tmp_path / "ctf.csv"
    path.write_bytes(bytes(range(256)) * 4)
    with pytest.raises(InputError, match=r"Cannot read the table .*: it is not text"):
        draw(MicroscopeSettings(kind="table", table=str(path)), 2, generator)
