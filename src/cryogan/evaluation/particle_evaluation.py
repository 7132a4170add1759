"""Maps, latents, classes and poses of single particles against the truth: CryoBench's scores."""

import torch
from torch import Tensor

from cryogan.conformations.basis import ConformationBasis
from cryogan.conformations.series import Series
from cryogan.evaluation.alignment import Alignment, align, apply_alignment
from cryogan.evaluation.assigned_particles import AssignedParticles
from cryogan.evaluation.classes import contingency
from cryogan.evaluation.cryobench import (
    Areas,
    area_under_fsc,
    cryobench_fsc,
    images_at_equal_steps,
    images_of_states,
)
from cryogan.evaluation.latent_scores import embedded, score_latents
from cryogan.evaluation.masks import soft_mask
from cryogan.evaluation.particle_scores import ParticleScores
from cryogan.evaluation.pose_errors import in_frame_of_truth, pose_errors_deg
from cryogan.evaluation.resampling import resample_map
from cryogan.evaluation.symmetry_search import find_symmetry
from cryogan.symmetry import symmetry_matrices


def score_particles(
    basis: ConformationBasis,
    truth: Series,
    particles: AssignedParticles,
    alignment: Alignment | None,
    *,
    images: int = 100,
    operators: Tensor | None = None,
    seed: int = 0,
) -> ParticleScores:
    """Score the maps, latents, classes and poses of particles.

    Args:
        basis: gives the map at a particle's latent.
        truth: K states; any box and pixel size.
        particles: n.
        alignment: what moves the basis' maps into the frame of the truth; None for classes that
            share no frame: each is then aligned on its own to the state that most of its images
            show.
        images: number of images whose maps are compared, at equal steps of the
            images ordered by state.
        operators: (g, 3, 3) of the symmetry of all true states, in their frame; None for C1. With
            `alignment` None the symmetry of each true map is found.
        seed: of the random order of images of one state.

    Raises:
        InputError: a map cannot be aligned, or a latent is out of range.
    """
    size, pixel_size_A = basis.volumes.shape[-1], basis.pixel_size_A
    states = _Resampled(truth, size, pixel_size_A)
    space = basis.latent
    table = None
    if space.is_discrete:
        table = contingency(particles.latent[:, 0], particles.state, space.classes, len(truth))
    if alignment is None:
        assert table is not None
        frames = _own_frames(basis, states, table)
    else:
        frames = dict.fromkeys(range(space.classes), alignment) if space.is_discrete else {}
    maps = _Maps(basis, frames, alignment, states)
    by_state = particles.state.argsort(stable=True)  # the order of the published sets
    rows = by_state[images_at_equal_steps(len(particles), images)]
    nearest = images_of_states(embedded(space, particles.latent), particles.state, len(truth))
    mean_areas = {
        state: states.area(states.mean, state) for state in set(particles.state[rows].tolist())
    }
    error, shown, names = _pose_errors(particles, frames, alignment, states, table, operators)
    return ParticleScores(
        box_size=size,
        pixel_size_A=pixel_size_A,
        per_image=maps.areas(particles, rows),
        per_conformation=maps.areas(particles, nearest),
        mean_map=Areas(
            rows,
            particles.state[rows],
            torch.tensor(
                [mean_areas[state] for state in particles.state[rows].tolist()],
                dtype=torch.float64,
            ),
        ),
        pose_error_deg=error,
        shown=shown,
        table=table,
        latents=score_latents(space, particles.latent, truth, particles.state, seed=seed),
        own_alignments=alignment is None,
        symmetry=names,
    )


class _Resampled:
    """True states on the grid of the maps, one at a time, with their mean and mask."""

    def __init__(self, truth: Series, size: int, pixel_size_A: float) -> None:
        self._truth, self._size, self.pixel_size_A = truth, size, pixel_size_A
        weight = truth.weight / truth.weight.sum()
        covered: Tensor | None = None
        mean: Tensor | None = None
        for number, share in enumerate(weight.tolist()):
            if share > 0:
                volume = self[number]
                covered = volume if covered is None else torch.maximum(covered, volume)
                mean = share * volume if mean is None else mean + share * volume
        assert covered is not None
        assert mean is not None
        self.mean, self.mask = mean, soft_mask(covered, pixel_size_A)

    def __getitem__(self, state: int) -> Tensor:
        volume = self._truth.volumes[state].float()
        return resample_map(volume, self._truth.pixel_size_A, self.pixel_size_A, self._size)

    def area(self, volume: Tensor, state: int) -> float:
        """Under the FSC of a map with a true state, inside the mask."""
        return float(area_under_fsc(cryobench_fsc(volume, self[state], self.mask), self._size))


class _Maps:
    """Areas under the FSC of maps at latents, each computed once."""

    def __init__(
        self,
        basis: ConformationBasis,
        frames: dict[int, Alignment],
        alignment: Alignment | None,
        states: _Resampled,
    ) -> None:
        self._basis, self._frames, self._alignment = basis, frames, alignment
        self._states = states
        self._known: dict[tuple[float, ...], float] = {}

    def areas(self, particles: AssignedParticles, rows: Tensor) -> Areas:
        state = particles.state[rows]
        areas = [
            self._area(latent, true)
            for latent, true in zip(particles.latent[rows], state.tolist(), strict=True)
        ]
        return Areas(rows, state, torch.tensor(areas, dtype=torch.float64))

    def _area(self, latent: Tensor, state: int) -> float:
        key = (*latent.tolist(), float(state))
        if key not in self._known:
            (volume,) = self._basis.maps(latent[None])
            frame = self._alignment if not self._frames else self._frames[int(latent[0])]
            assert frame is not None
            moved = apply_alignment(volume, frame, self._basis.pixel_size_A)
            self._known[key] = self._states.area(moved, state)
        return self._known[key]


def _own_frames(
    basis: ConformationBasis, states: _Resampled, table: Tensor
) -> dict[int, Alignment]:
    """What moves each class onto the state that most of its images show."""
    volumes = basis.maps(torch.arange(len(table))[:, None].float())
    return {
        number: align(volume, states[int(images.argmax())], basis.pixel_size_A)
        for number, (volume, images) in enumerate(zip(volumes, table, strict=True))
    }


def _pose_errors(
    particles: AssignedParticles,
    frames: dict[int, Alignment],
    alignment: Alignment | None,
    states: _Resampled,
    table: Tensor | None,
    operators: Tensor | None,
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Errors (m,) of the particles that count, which these are (n,) bool, and symmetries."""
    if alignment is not None:
        turned = in_frame_of_truth(particles.rotation, alignment)
        error, _ = pose_errors_deg(turned, particles.true_rotation, operators)
        return error, torch.ones(len(particles), dtype=torch.bool), ()
    assert table is not None
    shown = torch.zeros(len(particles), dtype=torch.bool)
    error = torch.zeros(len(particles), dtype=torch.float64)
    names = []
    for number, images in enumerate(table):
        state = int(images.argmax())
        mine = (particles.latent[:, 0] == number) & (particles.state == state)
        if not bool(mine.any()):
            continue
        group, found = _symmetry_of(states[state], states.pixel_size_A)
        names.append(group)
        turned = in_frame_of_truth(particles.rotation[mine], frames[number])
        error[mine], _ = pose_errors_deg(turned, particles.true_rotation[mine], found)
        shown |= mine
    return error[shown], shown, tuple(names)


def _symmetry_of(volume: Tensor, pixel_size_A: float) -> tuple[str, Tensor]:
    """Point group of a true map, and its operators (g, 3, 3) in the map's frame."""
    found = find_symmetry(volume[None], pixel_size_A)
    turn = found.frames[0].rotation.double()
    return found.group, turn.T @ symmetry_matrices(found.group).double() @ turn
