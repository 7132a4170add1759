"""Moving picture of a path of conformations: recovered maps in their order, beside the true states.

cryogan simulate cryobench-igg-1d --condition centred --scale 0.25 --images 8000 --seed 11 \
    --datadir ../shared/data -o SET
cryogan reconstruct SET/particles.star -o RUN --latent circle --basis-volumes 8 --max-shift 0
python docs/moving_picture.py RUN SET/truth

Beside each recovered map is the true state that it resembles most. One rotation, shift, hand and
scale serve the whole series. Orange is where the *true* states differ from one another.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from hsp90_conformations import Stage, scale_to
from matplotlib.figure import Figure
from PIL import Image
from surfaces import ALONG, render

from cryogan.conformations.folder import (
    conformations_folder,
    read_conformations,
    read_true_conformations,
)
from cryogan.evaluation.series_comparison import compare_series

FIELD_A, FRAME_MS = 200.0, 150
VIEW = replace(ALONG["x"], field_A=FIELD_A)


def frames(run: Path, truth: Path) -> Iterator[Image.Image]:
    """A picture of every map of the path."""
    found = read_conformations(conformations_folder(run))
    comparison = compare_series(found, read_true_conformations(truth))
    true, pixel_size_A = comparison.truth.volumes, comparison.truth.pixel_size_A
    best = true[comparison.best_state]
    stage = Stage.of(true, pixel_size_A)
    for pair in zip(scale_to(comparison.generated.volumes, best), best, strict=True):
        figure = Figure(figsize=(6.0, 3.1), dpi=80)
        for column, (title, volume) in enumerate(zip(("recovered", "true"), pair, strict=True)):
            axes = figure.add_axes((0.5 * column, 0.0, 0.5, 0.92))
            picture = render(
                stage.parts(volume, pixel_size_A), stage.pixel_size_A, VIEW, stage.level
            )
            axes.imshow(picture)
            axes.set_title(title, fontsize=11)
            axes.axis("off")
        with BytesIO() as png:
            figure.savefig(png)
            yield Image.open(png).convert("RGB").quantize(64)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("truth", type=Path)
    default = Path(__file__).parent / "images" / "moving.gif"
    parser.add_argument("-o", "--output", type=Path, default=default)
    options = parser.parse_args()
    first, *others = frames(options.run, options.truth)
    first.save(
        options.output,
        save_all=True,
        append_images=others,
        duration=FRAME_MS,
        loop=0,
        optimize=True,
    )


if __name__ == "__main__":
    main()
