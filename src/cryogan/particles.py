"""The records that travel everywhere: poses, CTF parameters and particle sets."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pose:
    """Orientations and in-plane displacements of n particles.

    A particle image is `p(x, y) = ∫ V(R (x, y, z)) dz`, moved by `shift_A`.

    Attributes:
        rotation: (n, 3, 3) rotation matrices R that take image-frame coordinates (x, y, z) to
            molecule-frame coordinates. R equals the intrinsic ZYZ rotation
            `Rz(rot) Ry(tilt) Rz(psi)` of RELION's Euler angles.
        shift_A: (n, 2) displacement (x, y) of the particle from the image origin, in Å.
            RELION's `rlnOriginXAngst`/`rlnOriginYAngst` have the opposite sign.
    """

    rotation: Tensor
    shift_A: Tensor

    def __len__(self) -> int:
        return self.rotation.shape[0]

    def __getitem__(self, index: Tensor | slice) -> "Pose":
        return Pose(self.rotation[index], self.shift_A[index])

    def to(self, device: torch.device | str) -> "Pose":
        return Pose(self.rotation.to(device), self.shift_A.to(device))


FLIPPED, MULTIPLIED = 1, 2  # what was done to images: see `CTFParams.correction`


@dataclass(frozen=True)
class TransferFilter:
    """What the signal of all images of a set was filtered by, besides the CTFs.

    Attributes:
        gain: (D, D // 2 + 1) real factors of a half spectrum, in `fourier`'s order.
        pixel_size_A: of the images of box D whose spectrum that is.
    """

    gain: Tensor
    pixel_size_A: float

    def to(self, device: torch.device | str) -> "TransferFilter":
        return TransferFilter(self.gain.to(device), self.pixel_size_A)


@dataclass(frozen=True)
class CTFParams:
    """Contrast-transfer-function parameters of n particles; all but `filter` are (n,) tensors.

    Defocus is positive for underfocus. `defocus_angle_deg` is the angle between the x axis and
    the direction of `defocus_u_A`. `amplitude_contrast` is a fraction (0.07, 0.1).
    `correction` says what was done to the images: nothing (0), phases flipped (`FLIPPED`), or
    multiplied by their CTFs (`MULTIPLIED`). `filter`, one for all, is a part of their transfer.
    """

    defocus_u_A: Tensor
    defocus_v_A: Tensor
    defocus_angle_deg: Tensor
    voltage_kV: Tensor
    spherical_aberration_mm: Tensor
    amplitude_contrast: Tensor
    phase_shift_deg: Tensor
    b_factor_A2: Tensor
    scale: Tensor
    correction: Tensor
    filter: TransferFilter | None = None

    @classmethod
    def constant(
        cls,
        n: int,
        *,
        defocus_u_A: float | Tensor,
        defocus_v_A: float | Tensor | None = None,
        defocus_angle_deg: float | Tensor = 0.0,
        voltage_kV: float | Tensor = 300.0,
        spherical_aberration_mm: float | Tensor = 2.7,
        amplitude_contrast: float | Tensor = 0.1,
        phase_shift_deg: float | Tensor = 0.0,
        b_factor_A2: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
        correction: int | Tensor = 0,
    ) -> Self:
        """n parameter sets from scalars or (n,) tensors; `defocus_v_A` defaults to u."""

        def column(value: float | Tensor) -> Tensor:
            return torch.as_tensor(value, dtype=torch.float32).expand(n).clone()

        return cls(
            column(defocus_u_A),
            column(defocus_u_A if defocus_v_A is None else defocus_v_A),
            column(defocus_angle_deg),
            column(voltage_kV),
            column(spherical_aberration_mm),
            column(amplitude_contrast),
            column(phase_shift_deg),
            column(b_factor_A2),
            column(scale),
            torch.as_tensor(correction, dtype=torch.int64).expand(n).clone(),
        )

    @property
    def wavelength_A(self) -> Tensor:
        """(n,) relativistic: 12.2643 / sqrt(V + 0.97845e-6 V²), V in volts."""
        volts = self.voltage_kV * 1e3
        return 12.2643 / torch.sqrt(volts + 0.97845e-6 * volts**2)

    def __len__(self) -> int:
        return self.defocus_u_A.shape[0]

    def __getitem__(self, index: Tensor | slice) -> "CTFParams":
        columns = {name: column[index] for name, column in self.columns.items()}
        return CTFParams(**columns, filter=self.filter)

    def to(self, device: torch.device | str) -> "CTFParams":
        columns = {name: column.to(device) for name, column in self.columns.items()}
        return CTFParams(**columns, filter=self.filter and self.filter.to(device))

    @property
    def columns(self) -> dict[str, Tensor]:
        """The (n,) tensors by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "filter"}


class ImageStack(Protocol):
    """Where the pixels of a particle set come from (memory, or a lazily read file)."""

    @property
    def box_size(self) -> int: ...

    def __len__(self) -> int: ...

    def read(self, index: Tensor) -> Tensor:
        """The images of `index` ((n,) int64) as an (n, D, D) float32 CPU tensor."""
        ...


@dataclass(frozen=True)
class ArrayStack:
    """Images held in memory: an (n, D, D) tensor."""

    images: Tensor

    @property
    def box_size(self) -> int:
        return int(self.images.shape[-1])

    def __len__(self) -> int:
        return self.images.shape[0]

    def read(self, index: Tensor) -> Tensor:
        return self.images[index].float()


@dataclass(frozen=True)
class DerivedStack(ABC):
    """An `ImageStack` of images made from those of `parent`, as many and of the same box."""

    parent: ImageStack

    @property
    def box_size(self) -> int:
        return self.parent.box_size

    def __len__(self) -> int:
        return len(self.parent)

    @abstractmethod
    def read(self, index: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class SubsetStack(DerivedStack):
    """The images of `parent` whose numbers are in `index` ((n,) int64), in that order."""

    index: Tensor

    def __len__(self) -> int:
        return self.index.shape[0]

    def read(self, index: Tensor) -> Tensor:
        return self.parent.read(self.index[index])


@dataclass(frozen=True)
class UnusedColumn:
    """What a particle file says of the images that no objective uses.

    Attributes:
        column: label or labels.
        what: it describes.
        values: in words.
        effect: of leaving it out, in words; empty where it is not known.
    """

    column: str
    what: str
    values: str
    effect: str = ""

    def __str__(self) -> str:
        effect = f"; {self.effect}" if self.effect else ""
        return f"{self.column} is not used: {self.what}, {self.values}{effect}"


@dataclass(frozen=True)
class ParticleSource:
    """The file that particles were read from, and how.

    Attributes:
        path: the particle file.
        rows: (n,) int64 the rows that were chosen, from 0; None for all.
        datadir, strip_prefix: where its images were found.
        pixel_size_A: what the user gave, or None.
        inverted: whether the images on disk are dark and are inverted on reading.
        summary: a few lines for people: what was read, and what was decided on the way.
        reader: name of the reader in `registry.READERS`; None for that of the suffix.
        options: further keyword arguments of the reader.
        sign: contrast of the protein on disk that the user gave; "auto" if it was detected.
        index: (m,) int64 the rows that were asked for; None for all.
        unused: what the file says and is not used.
    """

    path: Path
    rows: Tensor | None
    datadir: Path | None
    strip_prefix: str | None
    pixel_size_A: float | None
    inverted: bool
    summary: str
    reader: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    sign: str = "auto"
    index: Tensor | None = None
    unused: tuple[UnusedColumn, ...] = ()

    @property
    def reading(self) -> dict[str, Any]:
        """Keyword arguments of `read_particles` that were given, without reader and rows.

        Plain values with absolute paths, so that they can be stored.
        """
        given = {
            "datadir": _absolute(self.datadir),
            "strip_prefix": self.strip_prefix,
            "pixel_size_A": self.pixel_size_A,
            "sign": None if self.sign == "auto" else self.sign,
            "passthrough": _absolute(self.options.get("passthrough")),
            "ctf_table": _absolute(self.options.get("ctf_table")),
            "no_ctf": self.options.get("no_ctf") or None,
        }
        return {name: value for name, value in given.items() if value is not None}


def _absolute(path: Any) -> Any:
    """A path, or several, as absolute names; None as it is."""
    if path is None or isinstance(path, str | Path):
        return None if path is None else str(Path(path).absolute())
    return [_absolute(each) for each in path]


@dataclass(frozen=True)
class Particles:
    """A set of particle images (protein bright) and what is known of each; never a pose.

    Attributes:
        stack: the images, box D.
        ctf: CTF parameters, one row an image.
        pixel_size_A: the pixel size of the images.
        source: the file that they were read from; None for images in memory.
        half: (n,) int64, the half-set that each was in before, 1 or 2; None if unknown.
        particle_probability: (n,) that each image shows a particle; None if unknown.
        scale_sd: standard deviation of the logarithm of the images' scales, as far as it is left by
            normalisation.
    """

    stack: ImageStack
    ctf: CTFParams
    pixel_size_A: float
    source: ParticleSource | None = None
    half: Tensor | None = None
    particle_probability: Tensor | None = None
    scale_sd: float = 0.0

    @property
    def box_size(self) -> int:
        return self.stack.box_size

    def __len__(self) -> int:
        return len(self.stack)

    def subset(self, index: Tensor) -> "Particles":
        """The particles of `index` ((n,) int64), still lazily read."""
        known = {
            name: values[index]
            for name in ("half", "particle_probability")
            if (values := getattr(self, name)) is not None
        }
        stack, ctf = SubsetStack(self.stack, index), self.ctf[index]
        return replace(self, stack=stack, ctf=ctf, source=None, **known)
