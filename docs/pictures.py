"""Pictures of README and site, from the demo's folder and a simulated set.

make demo
cryogan simulate betagal-64px --condition=-20dB --datadir ../shared/data -o DIR
python docs/pictures.py demo DIR
"""

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import LightSource
from matplotlib.figure import Figure
from skimage.measure import marching_cubes

from cryogan import fourier
from cryogan.conformations.folder import read_conformations
from cryogan.data.statistics import measure
from cryogan.io.mrc import read_map
from cryogan.io.relion import read_particles

IMAGES = Path(__file__).parent / "images"


def demo(folder: Path) -> None:
    """Map and truth as surfaces; below, projections of maps along the path of conformations."""
    figure = Figure(figsize=(10, 5.6), dpi=130)
    for column, (file, title, colour) in enumerate(
        (("map.mrc", "map, without poses", "#4c9bd6"), ("truth_aligned.mrc", "truth", "#e8a33d"))
    ):
        volume = fourier.resample(read_map(folder / "run" / file).volume, 96, 3).numpy()
        vertices, faces, _, _ = marching_cubes(volume, 4.0 * volume.std())
        axes = figure.add_axes((0.5 * column, 0.28, 0.5, 0.72), projection="3d")
        axes.plot_trisurf(
            *vertices.T[::-1],
            triangles=faces,
            color=colour,
            lightsource=LightSource(azdeg=300, altdeg=50),
        )
        axes.set_box_aspect(np.ptp(vertices.T[::-1], axis=1), zoom=1.0)
        axes.view_init(elev=25, azim=35)
        axes.set_title(title, loc="left", y=0.9)
        axes.axis("off")
    maps = read_conformations(folder / "path" / "conformations").volumes
    shown = fourier.resample(maps[torch.linspace(0, len(maps) - 1, 8).long()], 64, 3).sum(1)
    for column, picture in enumerate(shown):
        axes = figure.add_axes((column / len(shown), 0.02, 0.95 / len(shown), 0.22))
        axes.imshow(picture, cmap="gray", vmin=0.0, vmax=float(shown.max()))
        axes.axis("off")
    figure.text(0.005, 0.25, "a path of conformations, poses unknown too: projections of 8 maps")
    figure.savefig(IMAGES / "demo.png")


def spectra(data: Path) -> None:
    """Signal and noise measured without poses, beside the truth."""
    particles = read_particles(data / "particles.star")
    found = measure(particles, None)
    truth = read_map(data / "truth" / "map.mrc").volume
    size = truth.shape[-1]
    signal = fourier.shell_mean(fourier.rfft(truth, 3).abs().square(), size, 3) / size**2
    signal = signal * found.gain**2
    frequency = torch.arange(1, size // 2) / (size * particles.pixel_size_A)
    inside, measured = slice(1, size // 2), found.spectra
    figure = Figure(figsize=(6.4, 3.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.semilogy(frequency, signal[inside], color="#0072B2", lw=5, alpha=0.3, label="signal, true")
    axes.semilogy(frequency, measured.signal[inside], color="#0072B2", label="signal, measured")
    axes.axhline(1.0, color="#D55E00", lw=5, alpha=0.3, label="noise, true")
    axes.semilogy(frequency, measured.noise[inside], color="#D55E00", label="noise, measured")
    axes.set(xlabel="spatial frequency (1/Å)", ylabel="power per coefficient")
    axes.legend(frameon=False)
    figure.savefig(IMAGES / "spectra.png")


if __name__ == "__main__":
    demo(Path(sys.argv[1]))
    spectra(Path(sys.argv[2]))
