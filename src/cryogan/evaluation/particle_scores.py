"""What `particle_evaluation` finds: scores of single particles, as text and as numbers."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from cryogan.evaluation.classes import adjusted_rand_index, class_accuracy
from cryogan.evaluation.cryobench import Areas
from cryogan.evaluation.latent_scores import LatentScores


@dataclass(frozen=True)
class ParticleScores:
    """What was found for the particles of a run.

    Attributes:
        box_size, pixel_size_A: of the maps that were compared.
        per_image: areas under the FSC of the maps at images' latents, images at equal steps.
        per_conformation: of each true state, at the latent nearest to the mean of its images.
        mean_map: as per_image, of the true mean map: what one map of all can reach.
        pose_error_deg: (m,) of the particles that count.
        shown: (n,) bool, which these are: of classes that were aligned each on its own, those in
            the class of their molecule; otherwise all.
        table: (classes, K) numbers of images, of classes; None otherwise.
        latents: None for classes, or if the truth has no coordinates.
        own_alignments: whether each class was aligned on its own.
        symmetry: of the true molecules, by which pose errors are reduced.
    """

    box_size: int
    pixel_size_A: float
    per_image: Areas
    per_conformation: Areas
    mean_map: Areas
    pose_error_deg: Tensor
    shown: Tensor
    table: Tensor | None
    latents: LatentScores | None
    own_alignments: bool
    symmetry: tuple[str, ...]

    @cached_property
    def accuracy(self) -> float | None:
        """Share of images in the right class; None without classes."""
        return None if self.table is None else class_accuracy(self.table)[0]

    @cached_property
    def rand_index(self) -> float | None:
        """Adjusted Rand index; None without classes."""
        return None if self.table is None else adjusted_rand_index(self.table)

    def text(self) -> str:
        """The scores as a plain-text table."""
        rows = []
        for name, areas in (
            ("per-image FSC area", self.per_image),
            ("per-conformation", self.per_conformation),
            ("true mean map", self.mean_map),
        ):
            rows.append(
                (
                    name,
                    f"mean {areas.mean:.3f} (std {areas.std:.3f}), median {areas.median:.3f}, "
                    f"{len(areas.area)} {'states' if areas is self.per_conformation else 'images'}",
                )
            )
        largest = (self.box_size // 2 - 1) / self.box_size
        rows.append(("", f"at most {largest:.3f} in this box; CryoBench's shells and mask"))
        if self.accuracy is not None and self.rand_index is not None:
            rows.append(
                (
                    "classes",
                    f"{self.accuracy:.1%} of images in the right one, adjusted Rand index "
                    f"{self.rand_index:.3f}",
                )
            )
        if self.latents is not None:
            rows += self.latents.rows()
        if len(self.pose_error_deg):
            error = self.pose_error_deg
            which = "" if bool(self.shown.all()) else f" of {len(error):,} in the right class"
            rows.append(
                (
                    "pose error",
                    f"median {error.median():.2f}°, 90 % below {error.quantile(0.9):.2f}°{which}",
                )
            )
        how = "each class on its own" if self.own_alignments else "one alignment for all maps"
        rows.append(
            (
                "compared in",
                f"a box of {self.box_size} px of {self.pixel_size_A:.4g} Å, {how}",
            )
        )
        return "\n".join(f"{name:<24}{text}" for name, text in rows)

    def record(self) -> dict[str, Any]:
        """All numbers, for `particles.json`."""
        found: dict[str, Any] = {
            "box_size": self.box_size,
            "pixel_size_A": self.pixel_size_A,
            "largest_area": (self.box_size // 2 - 1) / self.box_size,
        }
        for name in ("per_image", "per_conformation", "mean_map"):
            areas: Areas = getattr(self, name)
            found[name] = {
                "mean": areas.mean,
                "std": areas.std,
                "median": areas.median,
                "rows": areas.rows.tolist(),
                "states": areas.state.tolist(),
                "areas": areas.area.tolist(),
            }
        if self.table is not None:
            found["classes"] = {
                "accuracy": self.accuracy,
                "adjusted_rand_index": self.rand_index,
                "images": self.table.tolist(),
            }
        if self.latents is not None:
            found["latents"] = self.latents.record()
        if len(self.pose_error_deg):
            found["pose_error_deg"] = {
                "median": float(self.pose_error_deg.median()),
                "quantile_0.9": float(self.pose_error_deg.quantile(0.9)),
                "particles": len(self.pose_error_deg),
                "symmetry": list(self.symmetry),
            }
        return found
