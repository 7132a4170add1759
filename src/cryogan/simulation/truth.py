"""What is true of every image of a simulated set, and the files that tell it."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cryogan.files import write_text
from cryogan.io.relion_writing import write_particles
from cryogan.particles import CTFParams, Pose
from cryogan.simulation.junk import KIND_WORDS, Junk
from cryogan.simulation.molecule import MoleculeStates
from cryogan.simulation.settings import SimulationSettings


@dataclass(frozen=True)
class Truth:
    """What was drawn for every image.

    Attributes:
        state: (n,) int64, number of the conformation.
        pose: n poses.
        ctf: n CTFs.
        contrast: (n,), what the signal is multiplied by.
        noise_level: (n,), what the noise is multiplied by; its root mean square is 1.
        defocus_error_A: (n,), defocus in particles.star minus true defocus.
        junk: which images are junk, and what they show.
    """

    state: Tensor
    pose: Pose
    ctf: CTFParams
    contrast: Tensor
    noise_level: Tensor
    defocus_error_A: Tensor
    junk: Junk

    @property
    def recorded_ctf(self) -> CTFParams:
        """The CTFs that particles.star tells."""
        return replace(
            self.ctf,
            defocus_u_A=self.ctf.defocus_u_A + self.defocus_error_A,
            defocus_v_A=self.ctf.defocus_v_A + self.defocus_error_A,
        )


def micrographs(settings: SimulationSettings) -> Tensor:
    """(n,) int64, the number of every image's micrograph, from 0."""
    return torch.arange(settings.images) // (settings.particles_per_micrograph or 1)


def micrograph_names(settings: SimulationSettings) -> dict[str, list[str]]:
    """The column rlnMicrographName, if the settings have micrographs."""
    if settings.particles_per_micrograph is None:
        return {}
    numbers = micrographs(settings).tolist()
    return {"rlnMicrographName": [f"micrograph_{number + 1:06d}.mrc" for number in numbers]}


def map_name(made: MoleculeStates, number: int) -> str:
    """File name of the map of one conformation."""
    return "map.mrc" if len(made) == 1 else f"map_{number:03d}.mrc"


def write_states(folder: Path, made: MoleculeStates, truth: Truth) -> None:
    """`truth/states.csv`: class, map, what it is, latents, share requested, number of images.

    Latents are `latent_1` and so on; of circles, where 1 is 0 again, `latent_1_circular`.
    """
    axes = [
        f"latent_{axis}{'_circular' * is_circular}"
        for axis, is_circular in enumerate(made.circular, start=1)
    ]
    counts = torch.bincount(truth.state, minlength=len(made)).tolist()
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("class", "map", "what", *axes, "share", "images"))
    for number, name in enumerate(made.names):
        latent = (f"{value:.6f}" for value in made.latent[number].tolist())
        share = f"{float(made.population[number]):.6f}"
        cells = (number + 1, map_name(made, number), name, *latent, share)
        table.writerow((*cells, counts[number]))
    write_text(folder / "truth" / "states.csv", text.getvalue())


def truth_columns(
    made: MoleculeStates, settings: SimulationSettings, truth: Truth
) -> dict[str, list[str]]:
    """Columns of `truth/poses.star`: class, latents, and what the settings let differ."""
    latent = made.latent[truth.state]
    columns = {"rlnClassNumber": [str(state + 1) for state in truth.state.tolist()]}
    numbers = {f"cryoganLatent{axis + 1}": latent[:, axis] for axis in range(latent.shape[1])}
    for label, differs, values in (
        ("cryoganContrast", settings.contrast.spread > 0, truth.contrast),
        ("cryoganNoiseLevel", settings.noise.spread > 0, truth.noise_level),
        ("cryoganDefocusError", settings.ctf.wrong_share > 0, truth.defocus_error_A),
    ):
        if differs:
            numbers[label] = values
    for label, values in numbers.items():
        columns[label] = [f"{value:.6f}" for value in values.tolist()]
    if settings.junk.share > 0:
        columns["cryoganJunk"] = [KIND_WORDS[kind] for kind in truth.junk.kind.tolist()]
    return columns


def write_stars(
    folder: Path,
    pose: Pose,
    ctf: CTFParams,
    *,
    box_size: int,
    pixel_size_A: float,
    recorded_ctf: CTFParams | None = None,
    common: Mapping[str, Sequence[str]] | None = None,
    extra: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """`truth/poses.star` with poses and `extra` columns; then `particles.star` without.

    Both name the stack relative to `folder`: programs that read the former are to run there.
    `particles.star` has `recorded_ctf` in place of `ctf`, if given; both have `common` columns.
    """
    common = dict(common or {})
    for name, known, told, columns in (
        ("truth/poses.star", pose, ctf, common | dict(extra or {})),
        ("particles.star", None, recorded_ctf or ctf, common),
    ):
        write_particles(
            folder / name,
            image_names="particles.mrcs",
            ctf=told,
            pixel_size_A=pixel_size_A,
            box_size=box_size,
            pose=known,
            extra=columns,
        )
