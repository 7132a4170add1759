"""Junk among the images: which images are junk, of what kind, and what they show.

Everything is drawn once for the whole set; `spoil` then turns images of whole molecules into junk.
Images of broken molecules are formed from maps cut by `half_map`, of which there are a few.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.particles import CTFParams, Pose
from cryogan.physics.ctf import ctf as ctf_of
from cryogan.physics.distributions import Uniform
from cryogan.physics.imaging import form_images
from cryogan.randomness import generator_for
from cryogan.simulation.flaw_settings import JUNK_KINDS, JunkSettings

NONE, EMPTY, TWO, EDGE, BROKEN, AGGREGATE = range(1 + len(JUNK_KINDS))
KIND_WORDS = ("none", *JUNK_KINDS)
"""What a kind is called, by its number."""

HALVES = 8
"""Planes by which the molecules of a set are broken: the number of its halves."""

EDGE_STRENGTH = 3.0
"""Root mean square of the edge of a film, relative to the molecule whose place it takes."""

_TWO_DIAMETERS = (0.8, 1.2)  # distance of the second molecule
_AGGREGATE_DIAMETERS = (0.3, 0.8)  # distance of the others from the first
_AGGREGATE_OTHERS = (2, 5)  # number of the others: 2, 3 or 4
_EDGE_REACH = 0.25  # of the box: largest distance of an edge from the centre
_EDGE_WIDTH = 1 / 32  # of the box: softness of an edge
_CUT_WIDTH = 1 / 32  # of the box: softness of the plane that breaks a molecule
_DENSE = 0.1  # of a map's maximum: voxels above belong to the molecule


@dataclass(frozen=True)
class Junk:
    """What was drawn for n images.

    Attributes:
        kind: (n,) int64, index of `KIND_WORDS`; 0 is no junk.
        other_of: (m,) int64, the image in which each of m further molecules lies.
        other_rotation: (m, 3, 3), their orientations.
        other_offset: (m, 2), their distance x, y from the image's own molecule in diameters.
        edge: (n, 2), angle in radians and distance from the centre, in boxes, of every edge.
        half: (n,) int64, which half the molecule of a broken image is.
        normal: (HALVES, 3) unit vectors along which the halves lie.
    """

    kind: Tensor
    other_of: Tensor
    other_rotation: Tensor
    other_offset: Tensor
    edge: Tensor
    half: Tensor
    normal: Tensor


def draw_junk(settings: JunkSettings, n: int, seed: int) -> Junk:
    """Which of n images are junk; each is, independently, with probability `settings.share`.

    Example:
        >>> from cryogan.simulation.flaw_settings import JunkSettings
        >>> from cryogan.simulation.junk import KIND_WORDS, draw_junk
        >>> junk = draw_junk(JunkSettings(share=1.0, empty=0, edge=0, broken=0), 5, seed=0)
        >>> {KIND_WORDS[kind] for kind in junk.kind.tolist()} <= {"two", "aggregate"}
        True
    """
    weights = torch.tensor(settings.weights, dtype=torch.float64)
    probability = torch.cat([weights.new_tensor([1.0]), weights / weights.sum()])
    probability *= weights.new_tensor([1.0 - settings.share, *[settings.share] * len(JUNK_KINDS)])
    kind = torch.multinomial(probability, n, True, generator=generator_for(seed, "junk"))

    generator = generator_for(seed, "junk", "others")
    count = torch.randint(*_AGGREGATE_OTHERS, (n,), generator=generator)
    count = torch.where(kind == AGGREGATE, count, (kind == TWO).long())
    other_of = torch.repeat_interleave(torch.arange(n), count)
    uniform = torch.rand(len(other_of), 2, generator=generator)
    low, high = torch.tensor([_TWO_DIAMETERS, _AGGREGATE_DIAMETERS])[
        (kind[other_of] == AGGREGATE).long()
    ].T
    distance = low + (high - low) * uniform[:, 0]
    angle = 2.0 * math.pi * uniform[:, 1]
    offset = distance[:, None] * torch.stack([angle.cos(), angle.sin()], dim=-1)

    edge = torch.rand(n, 2, generator=generator_for(seed, "junk", "edges"))
    edge = edge * torch.tensor([2.0 * math.pi, 2.0 * _EDGE_REACH]) - torch.tensor(
        [0.0, _EDGE_REACH]
    )
    generator = generator_for(seed, "junk", "halves")
    half = torch.randint(HALVES, (n,), generator=generator)
    normal = torch.nn.functional.normalize(torch.randn(HALVES, 3, generator=generator), dim=-1)
    rotation = Uniform().sample(len(other_of), generator_for(seed, "junk", "orientations"))
    return Junk(kind, other_of, rotation, offset, edge, half, normal)


def half_map(volume: Tensor, normal: Tensor) -> Tensor:
    """The half (D, D, D) of a map that lies along `normal` ((3,): x, y, z) from its centre.

    The cut is a plane through voxel D // 2, soft over about a sixteenth of the box.
    """
    box_size = volume.shape[-1]
    axis = torch.arange(box_size, dtype=torch.float32) - box_size // 2
    x, y, z = (component * axis for component in normal.float())
    distance = z[:, None, None] + y[None, :, None] + x[None, None, :]
    return volume * torch.sigmoid(distance / (_CUT_WIDTH * box_size / 2.0))


def diameter_A(volume: Tensor, pixel_size_A: float) -> float:
    """Diameter of the ball that has the radius of gyration of the molecule in a map.

    A ball of radius r has the radius of gyration sqrt(3 / 5) r. Voxels above a tenth of the map's
    maximum are the molecule.

    Example:
        >>> from cryogan import fourier
        >>> from cryogan.simulation.junk import diameter_A
        >>> round(diameter_A((fourier.radius_grid(64, 3) <= 20).float(), 2.0))
        80
    """
    box_size = volume.shape[-1]
    mass = torch.where(volume >= _DENSE * volume.max(), volume, 0.0).double()
    mass = mass / mass.sum()
    axis = torch.arange(box_size, dtype=torch.float64)
    variance = 0.0
    for dim in range(3):
        line = mass.sum(dim=[other for other in range(3) if other != dim])
        variance += float((line * axis.square()).sum() - (line * axis).sum().square())
    return 2.0 * math.sqrt(5.0 / 3.0 * variance) * pixel_size_A


def spoil(
    images: Tensor,
    index: Tensor,
    junk: Junk,
    spectrum: Tensor,
    pose: Pose,
    ctf: CTFParams,
    *,
    diameter_A: float,
    pixel_size_A: float,
) -> Tensor:
    """Images of whole molecules, those of them that are junk replaced or added to.

    Further molecules and edges are formed in a field twice as wide, so that what leaves the image
    on one side does not enter it on the other. Images of broken molecules stay as they are.

    Args:
        images: (b, D, D), noise-free.
        index: (b,), which images of the set they are.
        junk: of the set.
        spectrum: `volume_spectrum` of the molecule that they all show.
        pose: of the set.
        ctf: of the set.
        diameter_A: of the molecule.
        pixel_size_A: of the images.
    """
    images = images.clone()
    kind = junk.kind[index]
    images[kind == EMPTY] = 0.0
    box_size = images.shape[-1]
    for place in _parts(kind == EDGE, len(index)):
        at = index[place]
        film = _in_wide_field(_edges(junk.edge[at], 2 * box_size), ctf[at], pixel_size_A)
        rms = images[place].square().mean(dim=(1, 2), keepdim=True).sqrt()
        film = film - film.mean(dim=(1, 2), keepdim=True)
        images[place] = EDGE_STRENGTH * rms * film / film.square().mean((1, 2), True).sqrt()
    place_of = torch.full((len(junk.kind),), -1)
    place_of[index] = torch.arange(len(index))
    for other in _parts(place_of[junk.other_of] >= 0, len(index)):
        at = junk.other_of[other]
        shift_A = pose.shift_A[at] + diameter_A * junk.other_offset[other]
        molecules = form_images(
            spectrum,
            Pose(junk.other_rotation[other], shift_A),
            ctf_of(ctf[at], 2 * box_size, pixel_size_A),
            box_size=2 * box_size,
            pixel_size_A=pixel_size_A,
        )
        images.index_add_(0, place_of[at], fourier.crop_or_pad(molecules, box_size))
    return images


def _parts(chosen: Tensor, batch: int) -> tuple[Tensor, ...]:
    """Indices of what is chosen, as many at a time as fit the memory of a batch of images."""
    index = chosen.nonzero()[:, 0]
    return torch.split(index, max(1, batch // 4)) if len(index) > 0 else ()


def _edges(edge: Tensor, size: int) -> Tensor:
    """(m, size, size) soft steps from -½ to ½, for a box of half that size.

    Beyond the corners of that box they fall to 0 softly: the field is periodic.
    """
    box_size = size / 2.0
    axis = torch.arange(size, dtype=torch.float32) - size // 2
    angle, distance = edge.unbind(-1)
    x = angle.cos()[:, None, None] * axis[None, None, :]
    y = angle.sin()[:, None, None] * axis[None, :, None]
    beyond = x + y - box_size * distance[:, None, None]
    step = torch.sigmoid(beyond / (_EDGE_WIDTH * box_size / 2.0)) - 0.5
    return step * fourier.soft_disc(size, 0.75 * box_size, 0.25 * box_size)


def _in_wide_field(wide: Tensor, ctf: CTFParams, pixel_size_A: float) -> Tensor:
    """(m, D, D) centres of (m, 2 D, 2 D) objects seen through the microscope."""
    size = wide.shape[-1]
    seen = fourier.irfft(fourier.rfft(wide) * ctf_of(ctf, size, pixel_size_A), size)
    return fourier.crop_or_pad(seen, size // 2)
