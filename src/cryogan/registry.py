"""Named choices (critics, latents, readers ...) that users extend without touching the package.

A choice has a short name, or is anything importable, named as `package.module:attribute`: that
works on the command line, in `config.json` and in worker processes alike. `docs/extending.md` has a
runnable example of each kind.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cryogan.errors import InputError

if TYPE_CHECKING:
    from cryogan.conformations.latent import Latent
    from cryogan.io.particle_files import Reader
    from cryogan.models.base import VolumeModel
    from cryogan.models.critics import CriticFactory
    from cryogan.objectives.base import Objective
    from cryogan.physics.noise import NoiseFactory

T = TypeVar("T")


class Registry(Generic[T]):
    """Choices of one kind by name; built-in ones are imported when they are asked for.

    Args:
        kind: what they are, for error messages: "critic".
        built_in: name → `package.module:attribute`.

    Example:
        >>> from cryogan.registry import Registry
        >>> numbers = Registry("number", {"pi": "math:pi"})
        >>> numbers["pi"]
        3.141592653589793
        >>> numbers["math:e"]
        2.718281828459045
        >>> numbers.add("zero", 0)
        >>> sorted(numbers)
        ['pi', 'zero']
    """

    def __init__(self, kind: str, built_in: Mapping[str, str]) -> None:
        self.kind = kind
        self.added: dict[str, T] = {}
        self._built_in = dict(built_in)

    def __iter__(self) -> Iterator[str]:
        return iter(self._built_in | self.added)

    def add(self, name: str, choice: T) -> None:
        """Add a choice in this process and those that work for it, if it can be pickled.

        An importable one needs no name (see the module).
        """
        self.added[name] = choice

    def check(self, name: str) -> None:
        """Refuse a name that cannot stand for a choice, importing nothing.

        Raises:
            InputError: the name is neither known nor of the form module:attribute.
        """
        if name not in self and not all(name.partition(":")):
            close = difflib.get_close_matches(name, self, 1)
            hint = f"did you mean '{close[0]}'? Known" if close else "known"
            raise InputError(
                f"The {self.kind} '{name}' is unknown; {hint} are {', '.join(self)}, and "
                "anything importable as package.module:attribute."
            )

    def __getitem__(self, name: str) -> T:
        """The choice of that name.

        Raises:
            InputError: there is none, or it cannot be imported.
        """
        self.check(name)
        if name in self.added:
            return self.added[name]
        chosen: T = _imported(self._built_in.get(name, name), self.kind)
        return chosen

    def name_of(self, choice: Any) -> str:
        """The name by which a class or function is found again, in any process.

        Example:
            >>> from cryogan.registry import Registry
            >>> from fractions import Fraction
            >>> Registry("number", {"ratio": "fractions:Fraction"}).name_of(Fraction)
            'ratio'
            >>> Registry("number", {}).name_of(Fraction)
            'fractions:Fraction'
        """
        place = f"{choice.__module__}:{choice.__qualname__}"
        return next((name for name, found in self._built_in.items() if found == place), place)


def _imported(place: str, kind: str) -> Any:
    module, _, attribute = place.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"The {kind} '{place}' cannot be imported ({error}); give package.module:attribute "
            "of something that Python finds (PYTHONPATH)."
        ) from error


CRITICS: Registry[CriticFactory] = Registry(
    "critic",
    {
        "template": "cryogan.models.critics:template_critic",
        "compact": "cryogan.models.critics:compact_critic",
        "paper": "cryogan.models.critics:paper_critic",
    },
)
VOLUME_MODELS: Registry[type[VolumeModel]] = Registry(
    "volume model",
    {
        "volume": "cryogan.models.volume:Volume",
        "subspace": "cryogan.models.subspace:Subspace",
        "unet": "cryogan.models.unet:UNet",
    },
)
LATENTS: Registry[type[Latent]] = Registry(
    "latent",
    {
        "uniform": "cryogan.conformations.latent:Line",
        "uniform2d": "cryogan.conformations.latent:Square",
        "circle": "cryogan.conformations.latent:Circle",
        "discrete": "cryogan.conformations.latent:Classes",
    },
)
NOISE_MODELS: Registry[NoiseFactory] = Registry(
    "noise model", {"white": "cryogan.physics.noise:white_noise"}
)
READERS: Registry[Reader] = Registry(
    "reader of particle files",
    {
        ".star": "cryogan.io.relion:read_particles",
        ".cs": "cryogan.io.cryosparc.reading:read_particles",
        ".csg": "cryogan.io.cryosparc.reading:read_particles",
        ".mrcs": "cryogan.io.bare_stacks:read_particles",
        ".mrc": "cryogan.io.bare_stacks:read_particles",
        ".txt": "cryogan.io.bare_stacks:read_particles",
    },
)
OBJECTIVES: Registry[type[Objective]] = Registry(
    "objective",
    {
        "adversarial": "cryogan.objectives.adversarial.objective:Adversarial",
        "likelihood": "cryogan.objectives.likelihood.objective:Likelihood",
    },
)
DEFAULT_OBJECTIVE = "likelihood"
"""Of `cryogan reconstruct`: the best of the measured routes (docs/results.md)."""

_ALL: tuple[Registry[Any], ...] = (
    CRITICS,
    VOLUME_MODELS,
    LATENTS,
    NOISE_MODELS,
    READERS,
    OBJECTIVES,
)


def added_choices() -> dict[str, dict[str, Any]]:
    """Kind → what has been added in this process, for those that work for it."""
    return {registry.kind: dict(registry.added) for registry in _ALL if registry.added}


def add_choices(choices: Mapping[str, Mapping[str, Any]]) -> None:
    """Add what `added_choices` has found in another process."""
    for registry in _ALL:
        registry.added.update(choices.get(registry.kind, {}))
