"""The files by which RELION's pipeline follows a job: exit markers, abort request, output nodes.

RELION 3.1 knows nodes by a number, RELION 5 by a label; each ignores the column of the other.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryogan.files import write_text

SUCCESS, FAILURE, ABORTED = (
    f"RELION_JOB_EXIT_{word}" for word in ("SUCCESS", "FAILURE", "ABORTED")
)
"""Markers: empty files in the job's folder."""

ABORT_NOW = "RELION_JOB_ABORT_NOW"
"""Written by RELION where the user asks for a job to be aborted."""

NODES = "RELION_OUTPUT_NODES.star"


@dataclass(frozen=True)
class NodeKind:
    """What an output is to RELION.

    Attributes:
        number: in RELION 3.1.
        label: in RELION 5.
    """

    number: int
    label: str


PARTICLES = NodeKind(3, "ParticleGroupMetadata.star.relion")
MAP = NodeKind(6, "DensityMap.mrc")
MASK = NodeKind(7, "Mask3D.mrc")
HALF_MAP = NodeKind(10, "DensityMap.mrc.halfmap")
LOCAL_RESOLUTION = NodeKind(12, "Image3D.mrc.localresmap")


def clear_markers(folder: Path) -> None:
    """Remove what an earlier run of the job has left: exit markers and output nodes."""
    for name in (SUCCESS, FAILURE, ABORTED, NODES):
        (folder / name).unlink(missing_ok=True)


def has_ended(folder: Path) -> bool:
    """Whether an exit marker is there."""
    return any((folder / name).exists() for name in (SUCCESS, FAILURE, ABORTED))


def write_marker(folder: Path, marker: str) -> None:
    """Tell RELION how the job has ended; the request to abort it, if there is one, is answered.

    Raises:
        InputError: the file cannot be written.
    """
    (folder / ABORT_NOW).unlink(missing_ok=True)
    write_text(folder / marker, "")


def is_to_abort(folder: Path) -> bool:
    """Whether the user has asked RELION to abort the job."""
    return os.path.exists(folder / ABORT_NOW)  # noqa: PTH110, since it never raises


def write_nodes(folder: Path, nodes: Mapping[str, NodeKind]) -> None:
    """Write `RELION_OUTPUT_NODES.star`.

    Args:
        folder: of the job, from the project's folder, in which RELION starts jobs.
        nodes: name of a file in the job's folder → what it is.

    Raises:
        InputError: the file cannot be written.
    """
    from cryogan.io.star import write_star  # NumPy, which markers do not need

    columns = {
        "rlnPipeLineNodeName": [(folder / name).as_posix() for name in nodes],
        "rlnPipeLineNodeType": [str(kind.number) for kind in nodes.values()],
        "rlnPipeLineNodeTypeLabel": [kind.label for kind in nodes.values()],
    }
    write_star(folder / NODES, [("output_nodes", columns)])
