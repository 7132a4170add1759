"""The background of particle images: pixels outside a circle, and the plane that fits them.

Extraction programs subtract a background and divide by its standard deviation, measured outside a
circle of 75 % of the box (RELION's default). Images that have not been through it carry an offset,
a ramp and a scale of their own, which no image model explains.
"""

import torch
from torch import Tensor

RADIUS = 0.375  # of the box


def background_mask(box_size: int, device: torch.device | str = "cpu") -> Tensor:
    """(D, D) bool, pixels further than 0.375 D from the origin of the image."""
    x = torch.arange(box_size, device=device) - box_size // 2
    return x[:, None].square() + x[None].square() > (RADIUS * box_size) ** 2


def plane_basis(box_size: int) -> Tensor:
    """(3, D, D) float64: 1, x / D, y / D, with x and y from the origin of the image."""
    x = (torch.arange(box_size, dtype=torch.float64) - box_size // 2) / box_size
    y, across = torch.meshgrid(x, x, indexing="ij")
    return torch.stack((torch.ones_like(y), across, y))


def fit_plane(images: Tensor, used: Tensor | None = None) -> Tensor:
    """Least-squares offset and slopes of the background: (n, 3), for `plane_basis`.

    Args:
        images: (n, D, D).
        used: (n, D, D) bool, pixels that count; all by default.
    """
    box_size = images.shape[-1]
    inside = background_mask(box_size)
    basis = plane_basis(box_size)[:, inside]  # (3, P)
    values = images[:, inside].double()
    if used is None:
        plane: Tensor = values @ torch.linalg.pinv(basis)
        return plane
    weight = used[:, inside].double()
    normal = torch.einsum("np,ap,bp->nab", weight, basis, basis)
    return torch.einsum("nab,nb->na", torch.linalg.pinv(normal), (weight * values) @ basis.T)


def level(images: Tensor, plane: Tensor | None = None) -> Tensor:
    """Images (n, D, D) less the plane of their background, in their own precision.

    Example:
        >>> import torch
        >>> ramp = torch.arange(16.0).expand(2, 16, 16)
        >>> bool(level(ramp).abs().max() < 1e-5)
        True
    """
    plane = fit_plane(images) if plane is None else plane
    basis = plane_basis(images.shape[-1])
    flat: Tensor = images.double() - torch.einsum("na,ayx->nyx", plane, basis)
    return flat.to(images.dtype)
