"""Data parallelism: a group of processes that work on one half-set, over torch.distributed.

Every member draws the same random numbers for a whole batch and keeps its own slice of it. In
adversarial training the gradients of the slices are averaged before every optimiser step; the
likelihood adds what posteriors of the slices say. Losses are means over images and normal equations
sums, so that a group does what one process does with the same batch, within rounding.
"""

import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any, Protocol, Self, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cryogan.errors import InputError


class Sliceable(Protocol):
    """A batch: a tensor, poses, CTF parameters."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice, /) -> Self: ...


Batch = TypeVar("Batch", bound=Sliceable)
Value = TypeVar("Value")


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of one half-set, or of both, seen from one of them; a group of one by default.

    All members call a method together, but for `mine`, `share`, `largest_share`, `check_batch`.

    Attributes:
        rank: number of this process in the group; 0 writes the log and the checkpoints.
        size: number of processes.
        group: torch's group of processes (None for a group of one).
        half: of a group of both half-sets, the processes that work on the same one as this.
    """

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None
    half: "ProcessGroup | None" = None

    @property
    def half_set(self) -> int:
        """Of a group of both half-sets, which one this process works on: 0 or 1."""
        return 2 * self.rank // self.size

    def check_batch(self, batch_size: int) -> None:
        """Raise InputError if a batch cannot be shared equally."""
        if batch_size % self.size:
            raise InputError(
                f"A batch of {batch_size} images cannot be shared equally by {self.size} "
                f"processes; give a --adversarial.batch_size that is a multiple of {self.size}, or "
                "start another number of processes."
            )

    def mine(self, batch: Batch) -> Batch:
        """This process's slice of a whole batch."""
        share = len(batch) // self.size
        return batch[self.rank * share : (self.rank + 1) * share]

    def share(self, values: Tensor, together: int = 1) -> Tensor:
        """This process's part of (n, ...) values: whole runs of `together`, but for the last.

        Of less than one run for each process, parts that differ by one at most.
        """
        ends = self._ends(len(values), together)
        return values[ends[self.rank] : ends[self.rank + 1]]

    def largest_share(self, count: int, together: int = 1) -> int:
        """Length of the longest part of so many values."""
        ends = self._ends(count, together)
        return max(end - begin for begin, end in pairwise(ends))

    def _ends(self, count: int, together: int) -> list[int]:
        if count < self.size * together:
            together = 1
        ends = [count * k // (self.size * together) * together for k in range(self.size)]
        return [*ends, count]

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the group, element by element."""
        return values if self.size == 1 else self.mean(values) * self.size

    def total(self, value: Value | None) -> Value | None:
        """Sum over the group of what has `+`; None where no member has any."""
        if self.size == 1:
            return value
        every: list[Any] = [None] * self.size
        _exchange(lambda: dist.all_gather_object(every, _packed(value), group=self.group))
        values = [found for found in map(_unpacked, every) if found is not None]
        return reduce(add, values) if values else None

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the group, element by element."""
        if self.size == 1:
            return values
        total = values.clone()
        _exchange(lambda: dist.all_reduce(total, group=self.group))
        return total / self.size

    def mean_gradients(self, parameters: Iterable[nn.Parameter | Tensor]) -> None:
        """Replace the parameters' gradients by their means over the group, in one exchange."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        means = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(means, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def any(self, flag: bool) -> bool:
        """Whether the flag of any member is set."""
        return bool(self.mean(torch.tensor(float(flag))) > 0)

    def from_first(self, make: Callable[[], Value]) -> Value:
        """What `make` returns to rank 0, for all: a choice that all have to share."""
        return self.from_rank(0, make)

    def from_rank(self, rank: int, make: Callable[[], Value]) -> Value:
        """What `make` returns to a member, for all."""
        if self.size == 1:
            return make()
        made: list[Any] = [_packed(make()) if self.rank == rank else None]
        _exchange(lambda: dist.broadcast_object_list(made, group=self.group, group_src=rank))
        value: Value = _unpacked(made[0])
        return value


SINGLE_PROCESS = ProcessGroup()


def _packed(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _unpacked(data: bytes) -> Any:
    """Tensors of another process's GPU come to this one's."""
    gpus = range(torch.cuda.device_count())
    here = {f"cuda:{n}": f"cuda:{torch.cuda.current_device()}" for n in gpus}
    return torch.load(io.BytesIO(data), map_location=here, weights_only=False)


def _exchange(exchange: Callable[[], object]) -> None:
    try:
        exchange()
    except RuntimeError as error:  # torch's own errors of communication are such
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise InputError(
            f"The other processes of this half-set cannot be reached ({reason}); look at their "
            "messages, and run the same command again to resume."
        ) from error


@dataclass(frozen=True)
class Launch:
    """The place that torchrun has given this process.

    Attributes:
        rank, size: number of this process, of how many.
        local_rank, local_size: the same on this machine.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int

    @classmethod
    def from_environment(cls) -> "Launch | None":
        """What torchrun sets in RANK, WORLD_SIZE ..., or None if it did not start this process."""
        if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
            return None
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local_rank = int(os.environ.get("LOCAL_RANK", rank))
        return cls(rank, size, local_rank, int(os.environ.get("LOCAL_WORLD_SIZE", size)))

    def check(self, batch_size: int | None, device: str) -> None:
        """Raise InputError if this cannot be two groups that share batches, a GPU for each process.

        Args:
            batch_size: of a group; None if it has none.
            device: what the user asked for: "cpu", "cuda" ...
        """
        if self.size % 2:
            raise InputError(
                f"The number of processes is {self.size}, and half of them work on each half-set; "
                "start an even number (torchrun --nproc-per-node)."
            )
        if batch_size is not None:
            ProcessGroup(size=self.size // 2).check_batch(batch_size)
        if device.startswith("cuda:"):
            raise InputError(
                f"Device '{device}' cannot be shared by {self.size} processes, each of which uses "
                "the GPU of its own number; give --device cuda."
            )
        if device == "cuda" and self.local_size > torch.cuda.device_count():
            raise InputError(
                f"{self.local_size} processes were started on a machine with "
                f"{torch.cuda.device_count()} GPUs; start one for every GPU, or give --device cpu."
            )

    @contextmanager
    def joined(self, device: str) -> Iterator["Placement"]:
        """Meet all other processes: waits until they have called this too.

        Ranks 0 to size / 2 - 1 work on the first half-set, the others the second.
        """
        dist.init_process_group("gloo")
        dist.barrier()
        backend = "gloo"
        if device == "cuda":
            device, backend = f"cuda:{self.local_rank}", "cpu:gloo,cuda:nccl"
            torch.cuda.set_device(device)
        each = self.size // 2
        half, rank = divmod(self.rank, each)
        groups = [  # every process has to take part in making both
            dist.new_group(list(range(first, first + each)), backend=backend) for first in (0, each)
        ]
        mine = ProcessGroup(rank, each, groups[half])
        yield Placement(
            ProcessGroup(self.rank, self.size, dist.group.WORLD, mine), device, self.local_size
        )
        dist.destroy_process_group()


@dataclass(frozen=True)
class Placement:
    """The part of a process that torchrun started.

    Attributes:
        everyone: the processes of both half-sets.
        device: its own.
        local_size: number of processes that share the machine's cores.
    """

    everyone: ProcessGroup
    device: str
    local_size: int

    @property
    def half_set(self) -> int:
        """Number of the half-set that this process works on, 0 or 1."""
        return self.everyone.half_set

    @property
    def group(self) -> ProcessGroup:
        """The processes of that half-set."""
        assert self.everyone.half is not None
        return self.everyone.half

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, which compares the half-maps and writes the results."""
        return self.everyone.rank == 0
