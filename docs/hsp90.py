"""Pictures of the simulated Hsp90 sets: the states of both motions, and what images are made of.

python docs/hsp90.py --datadir ../shared/data

Writes docs/images/hsp90_states.png and hsp90_images.png in two minutes, and prints how far apart
the states are. The folder given holds the arms of Hsp90, see the recipe hsp90-continuous.
"""

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from surfaces import ALONG, OUTLINE, View, coverage, render, surface
from torch import Tensor

from cryogan.io.atoms import AtomicModel, model_density, read_model
from cryogan.io.mrc import MrcStack
from cryogan.simulation.dataset import draw_truth, prepare, write_dataset
from cryogan.simulation.description import locate, read_description, settings_of
from cryogan.simulation.microscope import MicroscopeSettings
from cryogan.simulation.molecule import parts_of
from cryogan.simulation.motion import States, path, rmsd
from cryogan.simulation.noise import NoiseSettings
from cryogan.simulation.settings import SimulationSettings

IMAGES = Path(__file__).parent / "images"
SHOWN = (1, 7, 14, 20)  # states
COLUMNS, SEED = 7, 0  # of the images
BOX, PIXEL_A, RESOLUTION_A = 128, 1.5, 8.0  # of the densities
THRESHOLD = 0.16  # of the highest density of state 1


@dataclass(frozen=True)
class Hsp90:
    """The recipe's molecule and one of its motions."""

    settings: SimulationSettings
    model: AtomicModel
    states: States
    moving: Tensor

    @classmethod
    def read(cls, condition: str, datadir: Path) -> "Hsp90":
        description = read_description("hsp90-continuous", condition)
        settings, _ = locate(settings_of(description), description, [datadir])
        model = read_model(*parts_of(settings.molecule.sources[0]))
        motions = settings.molecule.motions
        states, _ = path(model, motions)
        return cls(settings, model, states, model.select(motions[0].atoms))

    def densities(self, state: int, origin_A: Tensor) -> Tensor:
        """(2, D, D, D): what stands still, and what moves."""
        placed = self.model.moved(self.states[state] - origin_A)
        parts = (
            replace(placed, occupancies=torch.where(chosen, placed.occupancies, 0.0))
            for chosen in (~self.moving, self.moving)
        )
        return torch.stack(
            [
                model_density(part, box_size=BOX, pixel_size_A=PIXEL_A, resolution_A=RESOLUTION_A)
                for part in parts
            ]
        )


def states_picture(datadir: Path) -> None:
    """Four states of both motions, along the motion's axis and from a side."""
    figure = Figure(figsize=(11, 10.4), dpi=110)
    left, width, height = 0.03, 0.97 / 4, 0.97 / 4 * 11 / 10.4 * 0.87
    for block, (condition, sides) in enumerate((("motion1", "yx"), ("motion2", "zy"))):
        hsp90 = Hsp90.read(condition, datadir)
        ends_A = torch.cat((hsp90.states[0], hsp90.states[len(hsp90.states) - 1]))
        origin_A = (ends_A.amin(dim=0) + ends_A.amax(dim=0)) / 2
        top = 0.97 - 0.5 * block
        bottoms = [top - (row + 1) * height - 0.005 for row in range(2)]
        for bottom, side in zip(bottoms, sides, strict=True):
            row_label(figure, bottom + height / 2, f"motion {block + 1}, seen along {side}")
        level, outlines = 0.0, {}
        for column, state in enumerate(SHOWN):
            angle = float(hsp90.states.angles_deg[state - 1, 0])
            middle = left + (column + 0.5) * width
            figure.text(middle, top, f"state {state}, {angle:g}°", ha="center", fontsize=12)
            parts = hsp90.densities(state - 1, origin_A)
            level = level or THRESHOLD * float(parts.sum(dim=0).max())
            for bottom, side in zip(bottoms, sides, strict=True):
                axes = figure.add_axes((left + column * width, bottom, width, height))
                axes.imshow(render(parts, PIXEL_A, ALONG[side], level))
                axes.axis("off")
                if side not in outlines:
                    silhouette = surface(parts[1], PIXEL_A, ALONG[side], level)
                    outlines[side] = coverage(silhouette)
                else:
                    axes.contour(
                        outlines[side], [0.5], colors=OUTLINE, linewidths=1.0, linestyles=":"
                    )
    figure.savefig(IMAGES / "hsp90_states.png")


def row_label(figure: Figure, middle: float, text: str) -> None:
    figure.text(0.018, middle, text, rotation=90, va="center", ha="center", fontsize=11)


def images_picture(datadir: Path) -> None:
    """Molecules as the images show them, and sets of one seed: projections, with CTF, noisy."""
    hsp90 = Hsp90.read("motion1", datadir)
    noisy = replace(hsp90.settings, images=COLUMNS, seed=SEED)
    clean = replace(noisy, noise=NoiseSettings(kind="none"))
    perfect = replace(clean, ctf=MicroscopeSettings(kind="none"))
    rows = {
        "projection": images_of(perfect),
        "with CTF": images_of(clean),
        f"with noise, {noisy.noise.snr_dB:g} dB": images_of(noisy),
    }
    prepared = prepare(noisy)
    truth = draw_truth(prepared)
    in_map_A = centre_of_mass_A(prepared.conformations.volume(0), noisy.pixel_size_A)
    origin_A = hsp90.model.centre_of_mass_A - in_map_A  # state 0 is the model as it is
    level = THRESHOLD * float(hsp90.densities(0, origin_A).sum(dim=0).max())
    figure = Figure(figsize=(11, 6.5), dpi=110)
    left, width, height = 0.035, 0.965 / COLUMNS, 0.965 / COLUMNS * 11 / 6.5

    def place(row: int, column: int) -> Axes:
        box = (left + column * width, 0.95 - (row + 1) * height, 0.97 * width, 0.97 * height)
        axes = figure.add_axes(box)
        axes.axis("off")
        return axes

    for row, label in enumerate(("molecule", *rows)):
        row_label(figure, 0.95 - (row + 0.5) * height, label)
    for column, number in enumerate(truth.state.argsort().tolist()):
        state = int(truth.state[number])
        middle = left + (column + 0.485) * width
        figure.text(middle, 0.965, f"state {state + 1}", ha="center", fontsize=11)
        x, y, _ = truth.pose.rotation[number].T  # of the image, in the molecule's frame
        view = View(x, -y, noisy.box_size * noisy.pixel_size_A)
        place(0, column).imshow(render(hsp90.densities(state, origin_A), PIXEL_A, view, level))
        for row, images in enumerate(rows.values(), start=1):
            darkest, brightest = images.quantile(torch.tensor([0.002, 0.998])).tolist()
            place(row, column).imshow(images[number], cmap="gray", vmin=darkest, vmax=brightest)
    figure.savefig(IMAGES / "hsp90_images.png")


def images_of(settings: SimulationSettings) -> Tensor:
    """The images of a set, made as `cryogan simulate` makes them."""
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(prepare(settings), Path(folder))
        stack = MrcStack.open(Path(folder) / "particles.mrcs")
        return stack.read(torch.arange(len(stack)))


def centre_of_mass_A(volume: Tensor, pixel_size_A: float) -> Tensor:
    """(3,) centre x, y, z of a map, from its voxel D // 2."""
    axis = (torch.arange(len(volume)) - len(volume) // 2) * pixel_size_A
    sums = [volume.sum(dim=others) @ axis for others in ((0, 1), (0, 2), (1, 2))]
    return torch.stack(sums) / volume.sum()


def print_distances(datadir: Path) -> None:
    """Root mean square distance of all atoms of two states, without superposition."""
    for condition in ("motion1-fine", "motion1", "motion2-fine", "motion2"):
        states = Hsp90.read(condition, datadir).states
        steps_A = [rmsd(states[k], states[k + 1]) for k in range(len(states) - 1)]
        whole_A = rmsd(states[0], states[len(states) - 1])
        print(
            f"{condition}: {float(states.angles_deg[1, 0]):g}° a state, {min(steps_A):.3f} to "
            f"{max(steps_A):.3f} Å between neighbours, {whole_A:.1f} Å from first to last"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datadir", type=Path, required=True, help="where monoA_snip.pdb lies")
    options = parser.parse_args()
    print_distances(options.datadir)
    images_picture(options.datadir)
    states_picture(options.datadir)
