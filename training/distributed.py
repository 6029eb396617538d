"""One process or many with the same code: torchrun and torch.distributed.launch set the ranks."""

import logging
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.utils.data import Sampler

from smpler.utils.launcher import launched_rank

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


class SharedError(ValueError):
    """An error that every process raises alike, so that only the first one reports it."""


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
        """Whether there are other processes."""
        return self.world_size > 1

    def shard(self, count: int) -> range:
        """Return the indices of this process's samples: each sample belongs to one process."""
        return range(self.rank, count, self.world_size)

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, in order of ranks, to all of them."""
        if not self.is_distributed:
            return [value]
        values = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def together(self, task: Callable[[], Answer]) -> Answer:
        """Return a task's result on every process; if the task fails on one, all of them stop.

        Raises:
            SharedError: it failed; the message is that of the first process where it did.
        """
        answer, problem = None, None
        try:
            answer = task()
        except (OSError, ValueError) as error:
            problem = sentence(error)
        problems = [text for text in self.gather(problem) if text is not None]
        if problems:
            raise SharedError(problems[0])
        return answer


def sentence(error: Exception) -> str:
    """Return an error's message, without the traceback that a loading process adds to it."""
    text = str(error).strip()
    if not text.startswith("Caught "):
        return text
    return text.splitlines()[-1].partition(": ")[2] or text.splitlines()[-1]


@contextmanager
def start_processes(device: str) -> Generator[Processes, None, None]:
    """Join the processes that the launcher started; without a launcher, be the only process.

    NCCL connects GPUs, gloo CPUs. Without a GPU the CPU takes its place, and one line says so.

    Args:
        device: `cuda` (each process takes its own), `cuda:1`, or `cpu`.

    Raises:
        SharedError: there is no such device.
    """
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    place = pick_device(device, int(os.environ.get("LOCAL_RANK", 0)))
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if world_size > 1:
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    yield Processes(launched_rank(), world_size, place)
    if world_size > 1:  # not after an error: the others may never come
        dist.destroy_process_group()


def pick_device(device: str, local_rank: int) -> torch.device:
    """Return this process's device.

    Args:
        device: see `start_processes`.
        local_rank: number of the process on this machine.

    Raises:
        SharedError: it is neither a GPU that is there nor the CPU.
    """
    try:
        place = torch.device(device)
    except RuntimeError:
        place = None
    if place is None or place.type not in ("cuda", "cpu"):
        raise SharedError(f"--device {device!r} is neither cuda, cuda:NUMBER nor cpu.")
    if place.type == "cpu":
        return place
    if not torch.cuda.is_available():
        log.info("No GPU answers to %s; the CPU does it.", device)
        return torch.device("cpu")
    local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if place.index is not None and local_world_size > 1:
        raise SharedError(
            f"--device {device} is one GPU for {local_world_size} processes; with --device cuda "
            "each takes its own."
        )
    number = local_rank if place.index is None else place.index
    if max(number + 1, local_world_size) > torch.cuda.device_count():
        raise SharedError(
            f"This machine has {torch.cuda.device_count()} GPU(s), but {device} for "
            f"{local_world_size} process(es) was asked for; change --nproc_per_node or --device."
        )
    return torch.device("cuda", number)


class TrainSampler(Sampler[list[int]]):
    """Batches of this process: a new order each epoch, from any batch on, none incomplete.

    The order depends on seed and epoch alone. Batch k of all processes together is the same
    stretch of it, so that a run can be continued in mid-epoch.

    Args:
        count: number of samples.
        batch_size: of one process.
        processes: those that share the samples.
        seed: of the order.

    Raises:
        ValueError: the samples do not fill one batch of all processes.
    """

    def __init__(self, count: int, batch_size: int, processes: Processes, seed: int):
        self.count, self.batch_size, self.processes, self.seed = count, batch_size, processes, seed
        self.epoch = 0
        self.first_batch = 0
        if count < self.images_per_step:
            raise ValueError(
                f"{count} training samples do not fill one batch of {batch_size} on "
                f"{processes.world_size} processes; use a smaller --batch_size."
            )

    @property
    def images_per_step(self) -> int:
        """Number of samples in a batch of all processes together."""
        return self.batch_size * self.processes.world_size

    @property
    def batches_per_epoch(self) -> int:
        """Number of whole batches in an epoch."""
        return self.count // self.images_per_step

    def set_position(self, epoch: int, first_batch: int = 0) -> None:
        """Choose where the next iteration starts."""
        self.epoch, self.first_batch = epoch, first_batch

    def __len__(self) -> int:
        return self.batches_per_epoch - self.first_batch

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        order = torch.randperm(self.count, generator=generator)
        for batch in range(self.first_batch, self.batches_per_epoch):
            stretch = order[batch * self.images_per_step :][: self.images_per_step]
            yield stretch[self.processes.rank :: self.processes.world_size].tolist()
