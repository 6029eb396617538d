"""One process or many with the same code: torchrun and torch.distributed.launch set the ranks."""

import logging
import os
import socket
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.utils.data import Sampler

from smpler.training.waiting.lifeline import Lifeline
from smpler.training.waiting.waits import LIMIT_S, Waits
from smpler.utils.flags import sentence
from smpler.utils.launcher import launched_local_rank, launched_processes, launched_rank

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
    waits: Waits = field(default_factory=Waits)
    """What bounds the waits for the others, and for loading processes."""

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
        with self.waits.bounded():
            dist.all_gather_object(values, value)
        return values

    @contextmanager
    def own_work(self) -> Generator[None, None, None]:
        """Let this process write or draw alone, for any time, amid what bounds its waits."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # so that nothing in it waits for the others
        with self.waits.paused():
            yield

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


@contextmanager
def start_processes(device: str, limit_s: float = LIMIT_S) -> Generator[Processes, None, None]:
    """Join the processes that the launcher started; without a launcher, be the only process.

    NCCL connects GPUs, gloo CPUs. Without a GPU the CPU takes its place, and one line says so.

    Args:
        device: `cuda` (each process takes its own), `cuda:1`, or `cpu`.
        limit_s: the longest wait for another process or a loading process, seconds.

    Raises:
        SharedError: there is no such device.
        LostProcess: another process did not come, ended or does not answer, or a loading process;
            where an error cannot say so, the process ends with the sentence and exit code 2.
    """
    rank, world_size = launched_rank(), launched_processes()
    place = pick_device(device, launched_local_rank())
    if place.type == "cuda":
        torch.cuda.set_device(place)
    waits = Waits(limit_s, rank, world_size)
    waits.start()
    regular = False
    try:
        if world_size > 1:
            with waits.bounded():
                _join(waits, place.type)
        yield Processes(rank, world_size, place, waits)
        if world_size > 1:  # not after an error: the others may never come
            with waits.bounded():
                dist.destroy_process_group()
        regular = True
    except SharedError:
        regular = True
        raise
    except RuntimeError as error:
        lost = waits.explained(error)
        if lost is None:
            raise
        raise lost from None
    finally:
        waits.stop(regular)


def _join(waits: Waits, device_type: str) -> None:
    """Meet the other processes at MASTER_ADDR:MASTER_PORT, and connect with them.

    Raises:
        LostProcess: one of them did not come.
        SharedError: no place is named.
        ValueError: somebody else is there.
    """
    rank, world_size, limit = waits.rank, waits.world_size, timedelta(seconds=waits.limit_s)
    host, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise SharedError(
            f"WORLD_SIZE={world_size} needs MASTER_ADDR and MASTER_PORT, where the processes meet "
            f"(they are {host!r} and {port!r}); torchrun sets them."
        )
    until, minutes = time.monotonic() + waits.limit_s, waits.limit_s / 60
    log.info("Waiting for %d processes at %s:%s, at most %g min.", world_size, host, port, minutes)
    # torchrun keeps the store, otherwise the first process does
    is_keeper = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    if not is_keeper and not _reached(host, int(port), until):
        raise waits.absent([0], f"{host}:{port}")
    try:
        store = dist.TCPStore(
            host, int(port), world_size, is_keeper, limit, False, multi_tenant=True
        )
    except dist.DistNetworkError as error:
        reason = str(error).partition(". ")[0]
        raise ValueError(
            f"The processes cannot meet at {host}:{port} ({reason}); choose another MASTER_PORT."
        ) from None
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"attempt {attempt}", store)
    _meet(waits, store, f"{host}:{port}", until)
    waits.lifeline = Lifeline(rank, world_size)
    waits.lifeline.open(store, host)
    if device_type == "cuda":  # NCCL ends a wait by an abort; ours comes before
        backend, limit = "nccl", limit + timedelta(minutes=1)
    else:
        backend = "gloo"
    dist.init_process_group(backend, timeout=limit, world_size=world_size, rank=rank, store=store)
    if backend == "gloo":
        waits.grace_s = waits.limit_s


def _meet(waits: Waits, store: dist.Store, place: str, until: float) -> None:
    """Wait until all processes have come, at most until a time of `time.monotonic`."""
    store.set(f"came/{waits.rank}", "")
    absent, pause_s = set(range(waits.world_size)), 0.01
    while absent := {rank for rank in absent if not store.check([f"came/{rank}"])}:
        if store.check(["absent"]):  # another process has waited long enough
            raise waits.absent(map(int, store.get("absent").split()), place)
        if time.monotonic() > until:
            store.set("absent", " ".join(map(str, absent)))
            time.sleep(0.5)  # so that the others can read it
            raise waits.absent(absent, place)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.2)


def _reached(host: str, port: int, until: float) -> bool:
    """Return whether the first process listens before a time of `time.monotonic`."""
    quiet_until = time.monotonic() + min(5, (until - time.monotonic()) / 2)
    while time.monotonic() < until:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return True
        except OSError as error:
            time.sleep(0.2)
            if quiet_until and time.monotonic() > quiet_until:
                quiet_until = None
                # as an error, for others than the first process say nothing else
                log.error("Waiting for process RANK=0 at %s:%d (%s).", host, port, error.strerror)
    return False


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
