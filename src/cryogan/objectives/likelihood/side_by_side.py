"""Both half-sets at the same time: in two threads of a process, or by two groups of processes."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cryogan.objectives.data_parallel import ProcessGroup

Value = TypeVar("Value")


class SideBySide(Protocol):
    """Where the work on half-set 0 and that on half-set 1 are done.

    All processes of a run call the methods in the same order, and have the same results.
    """

    def both(self, work: Callable[[int], Value]) -> tuple[Value, Value]:
        """What `work` gives for half-sets 0 and 1."""
        ...

    def once(self, work: Callable[[], Value]) -> Value:
        """What `work` gives, done by one process for all."""
        ...


@contextmanager
def side_by_side(group: ProcessGroup) -> Iterator[SideBySide]:
    """Threads of a group of one; otherwise every process works on the half-set of its own group."""
    if group.half is not None:
        yield _Processes(group)
        return
    with ThreadPoolExecutor(2) as pool:
        yield _Threads(pool)


@dataclass(frozen=True)
class _Threads:
    pool: Executor

    def both(self, work: Callable[[int], Value]) -> tuple[Value, Value]:
        first, second = self.pool.map(work, (0, 1))
        return first, second

    def once(self, work: Callable[[], Value]) -> Value:
        return work()


@dataclass(frozen=True)
class _Processes:
    group: ProcessGroup

    def both(self, work: Callable[[int], Value]) -> tuple[Value, Value]:
        mine = work(self.group.half_set)
        first = self.group.from_rank(0, lambda: mine)
        return first, self.group.from_rank(self.group.size // 2, lambda: mine)

    def once(self, work: Callable[[], Value]) -> Value:
        return self.group.from_first(work)
