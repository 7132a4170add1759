"""Noise of simulated sets: at the ratio asked for, in the box asked for, and of the right kind."""

import math

import numpy as np
import pytest
import torch

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.io.mrc import MrcStack, write_stack
from cryogan.physics.noise import NoiseModel, radial_spectrum
from cryogan.simulation.noise import gain, open_noise
from cryogan.simulation.settings import NoiseSettings

PIXEL_SIZE_A = 4.0
CLEAN_RMS = 3.7


def rms(images):
    return float(images.square().mean(dtype=torch.float64).sqrt())


def decibel(first, second):
    return 20.0 * math.log10(first / second)


def noise_table(tmp_path):
    """Steep and not monotonic, within the Nyquist frequency of 1/8 Å and beyond it."""
    path = tmp_path / "noise.csv"
    rows = [(0.0, 9.0), (0.02, 4.0), (0.05, 1.0), (0.1, 2.0), (0.2, 0.5), (0.4, 0.5)]
    lines = (f"{frequency},x,{power}\n" for frequency, power in rows)
    path.write_text("spatial_frequency_per_A,comment,power\n" + "".join(lines))
    return path


def wave(size, periods):
    """cos of `periods` periods over the box along x, 1 at the origin pixel."""
    x = torch.arange(size) - size // 2
    return torch.cos(2.0 * torch.pi * periods * x / size).expand(size, size)


def patch_stack(tmp_path, images, pixel_size_A, name="patches.mrcs"):
    write_stack(tmp_path / name, images, pixel_size_A)
    return tmp_path / name


def coloured_patches(tmp_path, n=40, size=99):
    """Patches with an offset, of noise whose power falls with frequency and level varies."""
    generator = torch.Generator().manual_seed(11)
    k = fourier.frequency_grid(size).norm(dim=-1)
    plane = fourier.rfft(torch.randn(n, size, size, generator=generator)) / (0.05 + k)
    level = torch.linspace(0.95, 1.05, n)[:, None, None]
    images = 700.0 + level * fourier.irfft(plane, size)
    return patch_stack(tmp_path, images, PIXEL_SIZE_A * 33 / size)


def opened(tmp_path, kind, box_size=33, pixel_size_A=PIXEL_SIZE_A, **settings):
    if kind == "coloured":
        settings["file"] = str(noise_table(tmp_path))
    if kind == "background":
        settings["file"] = str(coloured_patches(tmp_path))
    return open_noise(
        NoiseSettings(kind=kind, **settings), box_size=box_size, pixel_size_A=pixel_size_A
    )


KINDS = ["white", "coloured", "background"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("snr_dB", [-20.0, 3.0])
def test_noise_is_at_the_ratio_asked_for(tmp_path, generator, kind, snr_dB):
    source = opened(tmp_path, kind)
    noise = gain(source, CLEAN_RMS, snr_dB) * source.model.sample(1500, generator)
    assert noise.shape == (1500, 33, 33)
    assert decibel(CLEAN_RMS, rms(noise)) == pytest.approx(snr_dB, abs=0.05)
    assert source.rms == pytest.approx(source.reference_rms)


@pytest.mark.parametrize("kind", KINDS)
def test_ratio_in_a_larger_box_is_that_of_images_cropped_from_it(tmp_path, generator, kind):
    """Noise made in a box of 99 at -10 dB and Fourier-cropped to 33 (an odd box loses no
    Nyquist row), against noise made in the box of 33 with the ratio meant in that of 99."""
    large = opened(tmp_path, kind, box_size=99, pixel_size_A=PIXEL_SIZE_A / 3)
    made_large = gain(large, CLEAN_RMS, -10.0) * large.model.sample(1500, generator)
    assert decibel(CLEAN_RMS, rms(made_large)) == pytest.approx(-10.0, abs=0.05)
    cropped = fourier.resample(made_large, 33)
    small = opened(tmp_path, kind, snr_box_size=99)
    made_small = gain(small, CLEAN_RMS, -10.0) * small.model.sample(1500, generator)
    assert decibel(rms(cropped), rms(made_small)) == pytest.approx(0.0, abs=0.05)
    torch.testing.assert_close(
        radial_spectrum(made_small)[1:], radial_spectrum(cropped)[1:], rtol=0.15, atol=0.0
    )
    remains = decibel(small.rms, small.reference_rms)
    assert decibel(rms(made_small), rms(made_large)) == pytest.approx(remains, abs=0.05)
    if kind == "white":
        assert remains == pytest.approx(decibel(1.0, 3.0))


def test_no_noise_is_zeros(generator):
    source = open_noise(NoiseSettings(kind="none"), box_size=16, pixel_size_A=2.0)
    assert gain(source, CLEAN_RMS, -10.0) == 0.0
    assert torch.equal(source.model.sample(3, generator), torch.zeros(3, 16, 16))


@pytest.mark.parametrize("box_size", [32, 33])
def test_coloured_noise_has_the_power_of_the_table(tmp_path, generator, box_size):
    """Linear between rows, as is a shell's mean of a linear function; constant beyond them."""
    path = tmp_path / "noise.csv"
    path.write_text("spatial_frequency_per_A,power\n0.03,5\n0.09,1\n")
    source = open_noise(
        NoiseSettings(kind="coloured", file=str(path)), box_size=box_size, pixel_size_A=PIXEL_SIZE_A
    )
    shells = torch.arange(1, (box_size - 1) // 2 + 1)
    k = shells / (box_size * PIXEL_SIZE_A)
    expected = 5.0 - 4.0 * ((k - 0.03) / 0.06).clamp(0.0, 1.0)
    measured = radial_spectrum(source.model.sample(3000, generator))[shells]
    torch.testing.assert_close(measured, expected, rtol=0.05, atol=0.0)


def test_flat_coloured_noise_is_white(tmp_path, generator):
    path = tmp_path / "noise.csv"
    path.write_text("spatial_frequency_per_A,power\n0,4\n1,4\n")
    settings = {"snr_box_size": 96}
    coloured, white = (
        open_noise(NoiseSettings(**s), box_size=32, pixel_size_A=PIXEL_SIZE_A)
        for s in (settings | {"kind": "coloured", "file": str(path)}, settings)
    )
    assert coloured.reference_rms == pytest.approx(2.0 * white.reference_rms)
    assert coloured.rms == pytest.approx(2.0 * white.rms)
    seed = 5
    first, second = (s.model.sample(2, generator.manual_seed(seed)) for s in (coloured, white))
    torch.testing.assert_close(first, 2.0 * second, atol=1e-5, rtol=0.0)


def test_spectrum_of_a_stack_is_measured_and_kept(tmp_path, generator):
    path = coloured_patches(tmp_path, n=300, size=48)
    patches = MrcStack.open(path).read(torch.arange(300))
    source = open_noise(
        NoiseSettings(kind="coloured", file=str(path)),
        box_size=48,
        pixel_size_A=PIXEL_SIZE_A * 33 / 48,
    )
    shells = slice(1, 24)
    made = radial_spectrum(source.model.sample(1000, generator))[shells]
    torch.testing.assert_close(made, radial_spectrum(patches)[shells], rtol=0.1, atol=0.0)


def test_spectrum_of_a_stack_of_other_pixels_is_at_the_same_spatial_frequency(tmp_path):
    """Power at one spatial frequency, 1/20 Å: shell 8 of patches 160 Å wide, 4 of images of 80."""
    path = patch_stack(tmp_path, wave(80, 8.0)[None].clone(), 2.0)
    source = open_noise(
        NoiseSettings(kind="coloured", file=str(path)), box_size=20, pixel_size_A=4.0
    )
    power = source.model.power()
    assert power.argmax() == 4
    # The line between shells 7, 8 and 9 of the patches is half a shell of the images wide.
    assert power[2] < 1e-6 * power[4]
    assert power[6] < 1e-6 * power[4]


def test_background_patches_with_even_numbers_are_used_and_the_others_held_out(tmp_path, generator):
    amplitude = torch.arange(1.0, 8.0)
    images = 50.0 + amplitude[:, None, None] * wave(32, 3.0)
    path = patch_stack(tmp_path, images, PIXEL_SIZE_A)
    source = open_noise(
        NoiseSettings(kind="background", file=str(path)), box_size=32, pixel_size_A=PIXEL_SIZE_A
    )
    held_out = amplitude[1::2, None, None] * wave(32, 3.0)
    torch.testing.assert_close(source.held_out, held_out, atol=1e-4, rtol=0.0)
    sample = source.model.sample(400, generator)
    assert sample.mean((1, 2)).abs().max() < 1e-5
    used = sample.amax((1, 2))
    assert {round(value, 3) for value in used.tolist()} == {1.0, 3.0, 5.0, 7.0}
    along_x = (sample.diff(dim=-2).abs().amax((1, 2)) < 1e-4).float().mean()
    assert along_x.item() == pytest.approx(0.5, abs=0.1)
    assert source.rms == pytest.approx(math.sqrt((1 + 9 + 25 + 49) / 4 / 2), rel=1e-5)


@pytest.mark.parametrize(
    ("patch_size", "pixel_size_A", "header_A"),
    [
        (96, 2.0, 2.0),  # wider and finer
        (64, 2.0, 2.0),  # as wide, finer
        (64, 2.0, 0.0),  # no pixel size: taken to be as wide
        (64, 2.0, 2.01),  # within 1 %
        (40, 4.0, 4.0),  # wider, as fine
        (40, 4.0, 3.98),
        (33, 4.0, 4.0),
    ],
)
def test_background_is_cut_to_the_field_of_view(tmp_path, patch_size, pixel_size_A, header_A):
    """A wave of 128/3 Å is one of 3 periods over images of 32 px of 4 Å, whatever the patches."""
    periods = 3.0 * patch_size * pixel_size_A / 128.0
    images = wave(patch_size, periods).expand(3, -1, -1).clone()
    path = patch_stack(tmp_path, images, header_A)
    source = open_noise(
        NoiseSettings(kind="background", file=str(path)), box_size=32, pixel_size_A=4.0
    )
    torch.testing.assert_close(source.held_out[0], wave(32, 3.0), atol=1e-4, rtol=0.0)


def test_reference_box_counts_what_the_images_box_cannot_hold(tmp_path):
    """Amplitude 1 at 3 periods, 2 at 20: the box 32 holds the first, 48 both, as does 64."""
    images = (wave(64, 3.0) + 2.0 * wave(64, 20.0)).expand(2, -1, -1).clone()
    path = str(patch_stack(tmp_path, images, 2.0))
    for reference, power in ((None, 0.5), (32, 0.5), (48, 2.5), (64, 2.5)):
        source = open_noise(
            NoiseSettings(kind="background", file=path, snr_box_size=reference),
            box_size=32,
            pixel_size_A=4.0,
        )
        assert source.rms == pytest.approx(math.sqrt(0.5), rel=1e-5)
        assert source.reference_rms == pytest.approx(math.sqrt(power), rel=1e-5)


@pytest.mark.parametrize("kind", ["coloured", "background"])
def test_background_of_empiar_10061_at_the_ratio_of_table_1(shared_data, generator, kind):
    """-20 dB in the box of 192, images in that of 64; spectrum of the patches themselves."""
    path = shared_data / "empiar-10061" / "background_192.mrcs"
    settings = NoiseSettings(kind=kind, file=str(path), snr_dB=-20.0, snr_box_size=192)
    source = open_noise(settings, box_size=64, pixel_size_A=3.822)
    noise = gain(source, CLEAN_RMS, -20.0) * source.model.sample(1000, generator)
    patches = MrcStack.open(path).read(torch.arange(0, 101, 2 if kind == "background" else 1))
    patches = patches - patches.mean((1, 2), keepdim=True)
    scale = CLEAN_RMS * 10.0 / rms(patches)
    expected = fourier.resample(scale * patches, 64)
    inside = [rms(fourier.resample(images, 63)) for images in (noise, expected)]  # no Nyquist row
    assert decibel(*inside) == pytest.approx(0.0, abs=0.05)
    shells = slice(2, 31)
    ratio = radial_spectrum(noise)[shells] / radial_spectrum(expected)[shells]
    assert (ratio - 1.0).abs().max() < 0.1


def test_the_same_seed_gives_the_same_noise(tmp_path, generator):
    for kind in KINDS:
        source = opened(tmp_path, kind)
        first, second, other = (
            source.model.sample(4, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
        )
        assert torch.equal(first, second)
        assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"snr_dB": math.inf},
            "noise.snr_dB is inf; give a number from -200 to 200, or noise.kind none",
        ),
        ({"snr_dB": math.nan}, "noise.snr_dB is nan"),
        ({"kind": "coloured"}, "noise.kind is coloured but no noise.file is given"),
        ({"kind": "background"}, "noise.kind is background but no noise.file is given"),
        ({"file": "a.csv"}, "noise.file is given but noise.kind is white"),
        ({"kind": "whit"}, "The noise.kind 'whit' is unknown; did you mean 'white'"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        NoiseSettings(**settings)


def test_reference_box_smaller_than_the_images_is_refused():
    with pytest.raises(InputError, match=r"noise.snr_box_size is 16, smaller than the images' box"):
        open_noise(NoiseSettings(snr_box_size=16), box_size=32, pixel_size_A=4.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frequency,power\n0,1\n", "no column spatial_frequency_per_A"),
        ("spatial_frequency_per_A,power\n0,1\n0.1,-2\n", "negative power"),
        ("spatial_frequency_per_A,power\n0,1\n0.1,x\n", "line 3: a value of"),
        ("spatial_frequency_per_A,power\n0.1,1\n0.1,2\n", "must ascend"),
        ("spatial_frequency_per_A,power\n-0.1,1\n0.1,2\n", "must ascend from 0"),
        ("spatial_frequency_per_A,power\n0,0\n0.1,0\n", "has no power"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, message):
    path = tmp_path / "noise.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        open_noise(NoiseSettings(kind="coloured", file=str(path)), box_size=32, pixel_size_A=4.0)


@pytest.mark.parametrize("kind", ["coloured", "background"])
def test_missing_files_are_refused(tmp_path, kind):
    settings = NoiseSettings(kind=kind, file=str(tmp_path / "none.mrcs"))
    with pytest.raises(InputError, match=r"Cannot read .*none.mrcs"):
        open_noise(settings, box_size=32, pixel_size_A=4.0)


@pytest.mark.parametrize(
    ("count", "size", "header_A", "reference", "message"),
    [
        (1, 32, 4.0, None, "holds one background patch"),
        (4, 31, 4.0, None, "are 124 Å wide, less than the images' 128 Å"),
        (4, 16, 4.0, None, "are 64 Å wide, less than the images' 128 Å"),
        (4, 32, 5.0, None, "have pixels of 5 Å, coarser than the images' 4 Å"),
        (4, 20, 0.0, None, "have pixels of 6.4 Å, coarser than the images' 4 Å"),
        (4, 64, 2.0, 96, "noise.snr_box_size is 96, but .* have 64 px; give at most that"),
        (4, 64, 4.0, 64, "noise.snr_box_size is 64, but .* have 32 px; give at most that"),
    ],
)
def test_unfit_patches_are_refused(tmp_path, generator, count, size, header_A, reference, message):
    images = torch.randn(count, size, size, generator=generator)
    path = str(patch_stack(tmp_path, images, header_A))
    settings = NoiseSettings(kind="background", file=path, snr_box_size=reference)
    with pytest.raises(InputError, match=message):
        open_noise(settings, box_size=32, pixel_size_A=4.0)


@pytest.mark.parametrize("kind", ["coloured", "background"])
def test_constant_patches_are_refused(tmp_path, kind):
    path = str(patch_stack(tmp_path, torch.full((4, 32, 32), 7.0), 4.0))
    with pytest.raises(InputError, match=r"no power|are constant"):
        open_noise(NoiseSettings(kind=kind, file=path), box_size=32, pixel_size_A=4.0)


def test_patches_with_nan_are_refused(tmp_path):
    images = torch.ones(4, 32, 32)
    images[2, 5, 5] = np.nan
    path = str(patch_stack(tmp_path, images, 4.0))
    with pytest.raises(InputError, match=r"Image 3 of .* holds NaN"):
        open_noise(NoiseSettings(kind="background", file=path), box_size=32, pixel_size_A=4.0)


# A noise model of one's own


class Stripes(NoiseModel):
    """Gaussian noise of neighbouring pixels that are alike along x."""

    def __init__(self, box_size: int) -> None:
        self._box_size = box_size

    @property
    def box_size(self) -> int:
        return self._box_size

    def sample(self, n, generator):
        images = torch.randn(n, self._box_size, self._box_size, generator=generator)
        return 7.0 * (images + images.roll(1, -1))


class NeedsMore(Stripes):
    def __init__(self, box_size: int, strength: float) -> None:
        super().__init__(box_size)


class OfAnotherBox(Stripes):
    @property
    def box_size(self) -> int:
        return 8


class Silent(Stripes):
    def sample(self, n, generator):
        return torch.zeros(n, self.box_size, self.box_size)


def own(name: str, **settings) -> NoiseSettings:
    return NoiseSettings(f"{__name__}:{name}", **settings)


@pytest.mark.parametrize("reference", [None, 99])
def test_noise_model_of_ones_own_is_at_the_ratio_asked_for(generator, reference):
    """Made in the reference box and Fourier-cropped: what remains is measured against what was."""
    settings = own("Stripes", snr_box_size=reference)
    source = open_noise(settings, box_size=33, pixel_size_A=PIXEL_SIZE_A)
    assert source.held_out is None
    assert source.reference_rms == pytest.approx(7.0 * math.sqrt(2.0), rel=0.005)
    noise = gain(source, CLEAN_RMS, -10.0) * source.model.sample(1500, generator)
    made = Stripes(reference or 33).sample(1500, generator)
    remains = decibel(rms(fourier.resample(made, 33)), rms(made))
    assert noise.shape == (1500, 33, 33)
    assert decibel(CLEAN_RMS, rms(noise)) == pytest.approx(-10.0 - remains, abs=0.05)
    assert source.rms == pytest.approx(rms(fourier.resample(made, 33)), rel=0.005)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NeedsMore", "cannot be made from a box size alone .*give its other arguments defaults"),
        ("OfAnotherBox", r"samples are of shape \(64, 32, 32\) where \(64, 8, 8\) were asked for"),
        ("Silent", "whose root mean square is 0; correct it"),
        ("PIXEL_SIZE_A", "is no NoiseModel; give a class derived from"),
        ("dict", "cannot be imported"),
    ],
)
def test_noise_models_that_are_none_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        open_noise(own(name), box_size=32, pixel_size_A=PIXEL_SIZE_A)
