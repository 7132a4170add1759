"""Stages of a command: what each has found, and how long it took."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Stages:
    """What each stage has found, and how long it took.

    Attributes:
        say: prints the name of a stage that begins.
        clock: seconds.
        rows: name, what was found, seconds.

    Example:
        >>> from cryogan.cli.stages import Stages
        >>> times = iter([0.0, 61.7, 61.7, 70.0])
        >>> stages = Stages(lambda words: None, lambda: next(times))
        >>> with stages.stage("simulation") as found:
        ...     found("20 images")
        >>> with stages.stage("map") as found:
        ...     found("doubtful")
        ...     found("33 Å")
        >>> print(stages.table())
        simulation              62 s  20 images
        map                      8 s  doubtful; 33 Å
        total                   70 s
    """

    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    rows: list[tuple[str, str, float]] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[str], None]]:
        """A stage; the function yielded takes what it has found."""
        self.say(f"\n{name} ...")
        found: list[str] = []
        began = self.clock()
        yield found.append
        self.rows.append((name, "; ".join(found), self.clock() - began))

    def table(self) -> str:
        """All stages, and the sum of their seconds."""
        rows = [*self.rows, ("total", "", sum(seconds for _, _, seconds in self.rows))]
        lines = (f"{name:<21}{seconds:>5.0f} s  {found}" for name, found, seconds in rows)
        return "\n".join(line.rstrip() for line in lines)
