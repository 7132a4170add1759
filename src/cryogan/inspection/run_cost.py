"""Memory and CPU time of runs, and why they would be refused."""

from cryogan.data.extent import Extent
from cryogan.errors import InputError
from cryogan.inspection.findings import Memory, TimeEstimate
from cryogan.inspection.images_needed import ImagesNeeded
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.cpu_time import estimate_cpu_time
from cryogan.particles import Particles
from cryogan.registry import OBJECTIVES
from cryogan.run.memory import memory_bound_GB

_OBJECTIVES = ("adversarial", "likelihood")
_WIDEST_PERCENT = 3.0  # of the box: about what remains of shifts once images are centred


def estimate_time(
    particles: Particles, extent: Extent, needed: tuple[ImagesNeeded, ...]
) -> TimeEstimate | None:
    """CPU time of the likelihood, to the resolution that so many particles can reach."""
    reached = [each.resolution_A for each in needed if each.images <= len(particles)]
    if not reached:
        return None
    width_A = particles.box_size * particles.pixel_size_A
    resolution_A = max(min(reached), 2.0 * particles.pixel_size_A)
    spread_A = extent.shift_below_A if extent.shift_sd_A is None else extent.shift_sd_A
    assumptions = Assumptions().with_shifts(min(100.0 * spread_A / width_A, _WIDEST_PERCENT))
    assumptions = assumptions.with_diameter(extent.diameter_A, width_A)
    found = estimate_cpu_time(LikelihoodConfig(assumptions=assumptions), particles, resolution_A)
    return TimeEstimate("likelihood", resolution_A, found.image_s, found.run_s)


def memory_of_objectives(particles: Particles) -> tuple[list[str], tuple[Memory, ...]]:
    """Why runs would be refused, and the memory of those that would not be."""
    refusals, memory = [], []
    for name in _OBJECTIVES:
        objective = OBJECTIVES[name]()
        try:
            objective.check(particles)
            bound_GB = memory_bound_GB(objective, particles)
        except InputError as error:
            refusals.append(f"{name} run: {str(error).rstrip('.')}")
            continue
        if bound_GB is not None:
            memory.append(Memory(name, bound_GB))
    return refusals, tuple(memory)
