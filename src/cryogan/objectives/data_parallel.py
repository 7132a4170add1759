"""Data parallelism: a group of processes that work on one half-set, over torch.distributed.

Every member draws the same random numbers for a whole batch and keeps its own slice of it; the
gradients of the slices are averaged before every optimiser step. A loss is a mean over images,
so that a group does what one process does with the same batch, within rounding.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
    """The processes of one half-set, seen from one of them; a group of one by default.

    Every method but `mine` and `check_batch` has to be called by all members.

    Attributes:
        rank: number of this process in the group; 0 writes the log and the checkpoints.
        size: number of processes.
        group: torch's group of processes (None for a group of one).
    """

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None

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
        if self.size == 1:
            return make()
        made: list[Any] = [make() if self.rank == 0 else None]
        _exchange(lambda: dist.broadcast_object_list(made, group=self.group, group_src=0))
        value: Value = made[0]
        return value


SINGLE_PROCESS = ProcessGroup()


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
        yield Placement(half, ProcessGroup(rank, each, groups[half]), device, self.local_size)
        dist.destroy_process_group()


@dataclass(frozen=True)
class Placement:
    """The part of a process that torchrun started.

    Attributes:
        half: number of its half-set, 0 or 1.
        group: the processes of that half-set.
        device: its own.
        local_size: number of processes that share the machine's cores.
    """

    half: int
    group: ProcessGroup
    device: str
    local_size: int

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, which compares the half-maps and writes the results."""
        return self.half == 0 and self.group.rank == 0
