"""cryogan: 3D structures and their motions from cryo-EM particle images of unknown pose.

    import cryogan as cg

    particles = cg.read_particles("particles.star")
    result = cg.reconstruct(particles, symmetry="D2")
    poses = cg.assign(particles, result)
    cg.write_particles("poses.star", particles, poses)

Names are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cryogan.api import (
        Assigned,
        ParticleCheck,
        Reconstruction,
        assign,
        check,
        downsample,
        evaluate,
        evaluate_particles,
        find_symmetry,
        read_particles,
        read_run,
        reconstruct,
        refine,
        select,
        simulate,
        volumes,
        write_particles,
        write_volumes,
    )
    from cryogan.errors import InputError
    from cryogan.evaluation.fsc import fourier_shell_correlation
    from cryogan.io.mrc import Map, read_map, write_map
    from cryogan.particles import CTFParams, Particles, Pose
    from cryogan.phantom import phantom_map

_PLACES = {
    "Assigned": "cryogan.api",
    "Map": "cryogan.api",
    "ParticleCheck": "cryogan.api",
    "check": "cryogan.api",
    "Reconstruction": "cryogan.api",
    "assign": "cryogan.api",
    "downsample": "cryogan.api",
    "evaluate": "cryogan.api",
    "evaluate_particles": "cryogan.api",
    "find_symmetry": "cryogan.api",
    "read_map": "cryogan.api",
    "read_particles": "cryogan.api",
    "read_run": "cryogan.api",
    "reconstruct": "cryogan.api",
    "refine": "cryogan.api",
    "select": "cryogan.api",
    "simulate": "cryogan.api",
    "volumes": "cryogan.api",
    "write_map": "cryogan.api",
    "write_particles": "cryogan.api",
    "write_volumes": "cryogan.api",
    "InputError": "cryogan.errors",
    "fourier_shell_correlation": "cryogan.evaluation.fsc",
    "CTFParams": "cryogan.particles",
    "Particles": "cryogan.particles",
    "Pose": "cryogan.particles",
    "phantom_map": "cryogan.phantom",
}

__all__ = [
    "Assigned",
    "CTFParams",
    "InputError",
    "Map",
    "ParticleCheck",
    "Particles",
    "Pose",
    "Reconstruction",
    "assign",
    "check",
    "downsample",
    "evaluate",
    "evaluate_particles",
    "find_symmetry",
    "fourier_shell_correlation",
    "phantom_map",
    "read_map",
    "read_particles",
    "read_run",
    "reconstruct",
    "refine",
    "select",
    "simulate",
    "volumes",
    "write_map",
    "write_particles",
    "write_volumes",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'cryogan' has no attribute '{name}'")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
