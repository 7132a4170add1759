"""The maps of a run at any latent: the basis volumes behind the maps that it has written."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan.conformations.latent import Latent
from cryogan.conformations.series import Series
from cryogan.errors import InputError

_MISFIT = 0.02  # of what the maps differ by
_AT_ONCE = 8  # maps


@dataclass(frozen=True)
class ConformationBasis:
    """Conformations `V(z) = V₀ + Σ_k φ_k(z) V_k`.

    Attributes:
        latent: of z, with the functions φ.
        volumes: (C, D, D, D) V₀, V₁ ...
        pixel_size_A: of all.
    """

    latent: Latent
    volumes: Tensor
    pixel_size_A: float

    def maps(self, latent: Tensor) -> Iterator[Tensor]:
        """Maps (D, D, D) at latents (n, dimension), one after the other.

        Raises:
            InputError: a latent is not of the run's kind, or is out of its range.
        """
        self.check(latent)
        for some in torch.split(latent.float(), _AT_ONCE):
            coefficients = self.latent.coefficients(some, len(self.volumes)).to(self.volumes)
            yield from torch.einsum("nc,czyx->nzyx", coefficients, self.volumes)

    def check(self, latent: Tensor) -> None:
        """Refuse latents (n, dimension) that no map belongs to.

        Raises:
            InputError: which, and why.
        """
        dimension = self.latent.dimension
        if latent.ndim != 2 or latent.shape[1] != dimension or len(latent) == 0:
            raise InputError(
                f"The latents have the shape {tuple(latent.shape)}, but the run has {dimension} "
                f"number{'s' * (dimension > 1)} for each map; give one row a map."
            )
        if self.latent.is_discrete:
            last = self.latent.classes - 1
            wrong = (latent != latent.round()) | (latent < 0) | (latent > last)
            words = f"a class, counted from 0: give whole numbers up to {last}"
        else:
            wrong = ~((latent >= 0) & (latent <= 1))  # NaN too
            words = "within the latent: give numbers from 0 to 1"
        if bool(wrong.any()):
            row = int(wrong.any(dim=1).nonzero()[0])
            values = ", ".join(f"{value:g}" for value in latent[row].tolist())
            raise InputError(f"Latent {row + 1} is {values}, which is not {words}.")


def fitted_basis(series: Series, latent: Latent, count: int) -> ConformationBasis | None:
    """The basis of `count` volumes of which the maps of a series are made.

    Args:
        series: maps with their latents.
        latent: of them.
        count: C.

    Returns:
        The basis; None if the maps are too few to tell, or lie where functions are alike.

    Raises:
        InputError: the maps are not of such a basis.
    """
    coefficients = latent.coefficients(series.coordinate.float(), count).double()
    if int(torch.linalg.matrix_rank(coefficients, rtol=1e-4)) < count:
        return None
    maps = series.volumes.double().flatten(1)
    basis = torch.linalg.pinv(coefficients) @ maps
    misfit = (coefficients @ basis - maps).norm()
    differ = (maps - maps.mean(0)).norm()
    if float(misfit) > _MISFIT * float(differ) and float(misfit) > 1e-5 * float(maps.norm()):
        raise InputError(
            f"The maps differ by {float(misfit / differ):.0%} of their variation from any {count} "
            "basis volumes, as those of a U-Net do; take the maps in conformations/."
        )
    shape = (count, *series.volumes.shape[1:])
    return ConformationBasis(latent, basis.float().view(shape), series.pixel_size_A)
