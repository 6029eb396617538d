"""One process or many with the same code: torchrun and torch.distributed.launch set the ranks."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import Sampler


@dataclass(frozen=True)
class Processes:
    """This process among all that train or evaluate together."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and logs."""
        return self.rank == 0

    @property
    def is_distributed(self) -> bool:
        """Whether there are others."""
        return self.world_size > 1

    def shard(self, count: int) -> range:
        """Return this process's share of so many samples: each sample belongs to one process."""
        return range(self.rank, count, self.world_size)

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, in order of ranks, to all of them."""
        if not self.is_distributed:
            return [value]
        values = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait for the others."""
        if self.is_distributed:
            dist.barrier()


@contextmanager
def start_processes(device: str) -> Iterator[Processes]:
    """Join the processes that the launcher started; without one, be the only process.

    NCCL connects GPUs, gloo CPUs. A GPU that is not there becomes the CPU, said in one line.

    Args:
        device: `cuda` (each process takes its own), `cuda:1`, or `cpu`.
    """
    rank, world_size, local_rank = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    place = torch.device(device)
    if place.type == "cuda" and not torch.cuda.is_available():
        if rank == 0:
            logging.getLogger(__name__).warning("No GPU answers to %s; the CPU does it.", device)
        place = torch.device("cpu")
    if place.type == "cuda" and place.index is None:
        place = torch.device("cuda", local_rank)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if world_size > 1:
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Processes(rank, world_size, place)
    finally:
        if world_size > 1:
            dist.destroy_process_group()


class TrainSampler(Sampler[list[int]]):
    """Batches of this process: a new order each epoch, from any batch on, none incomplete.

    The order depends on seed and epoch alone. Batch k of all processes together is the same
    stretch of it, so that a run can be continued in mid-epoch.

    Args:
        count: number of samples.
        batch_size: of one process.
        processes: who shares the samples.
        seed: of the order.
    """

    def __init__(self, count: int, batch_size: int, processes: Processes, seed: int):
        self.count, self.batch_size, self.processes, self.seed = count, batch_size, processes, seed
        self.epoch = 0
        self.first_batch = 0
        if count < batch_size * processes.world_size:
            raise ValueError(
                f"{count} training samples do not fill one batch of {batch_size} on "
                f"{processes.world_size} processes; use a smaller --batch_size."
            )

    @property
    def batches_per_epoch(self) -> int:
        """Number of whole batches in an epoch."""
        return self.count // (self.batch_size * self.processes.world_size)

    def set_position(self, epoch: int, first_batch: int = 0) -> None:
        """Choose where the next iteration starts."""
        self.epoch, self.first_batch = epoch, first_batch

    def __len__(self) -> int:
        return self.batches_per_epoch - self.first_batch

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        order = torch.randperm(self.count, generator=generator)
        together = self.batch_size * self.processes.world_size
        for batch in range(self.first_batch, self.batches_per_epoch):
            stretch = order[batch * together : (batch + 1) * together]
            yield stretch[self.processes.rank :: self.processes.world_size].tolist()
