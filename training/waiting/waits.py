"""No endless wait for another process: the longest wait, who was lost, and an end that is certain.

Collectives of gloo fail when a process ends; those of NCCL may stand still on the GPU for ever, and
whoever waits for the GPU with them. So each process keeps a `Lifeline` to the first one, which the
system closes when a process ends, and a thread that ends this process when a wait is too long.
"""

import ctypes
import logging
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import NoReturn, TypeVar

import torch.distributed as dist

from smpler.training.waiting.lifeline import Lifeline, Loss

log = logging.getLogger(__name__)

Batch = TypeVar("Batch")

LIMIT_S = 1800.0
"""The longest wait by default."""
GRACE_S = 2.0
"""How much later than `limit_s` the thread ends a wait for other processes."""
LOADER_LOST = ("DataLoader worker", "Pin memory thread exited")
PEER_LOST = ("closed by peer", "reset by peer", "Broken pipe", "likely closed", "ncclRemoteError")
PEER_LATE = ("imed out", "timeout")
OF_GLOO = ("gloo", "caused pair closure")
"""What torch says when a loading process, or another one, has ended, or does not answer."""


class LostProcess(OSError):
    """Another process or a loading process has ended, or does not answer."""


class Waits:
    """The waits of this process for others.

    Args:
        limit_s: the longest wait, seconds.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(self, limit_s: float = LIMIT_S, rank: int = 0, world_size: int = 1):
        self.limit_s, self.rank, self.world_size = limit_s, rank, world_size
        self.lifeline: Lifeline | None = None
        """Set once all processes have come."""
        self.grace_s = GRACE_S
        """`GRACE_S`; more where gloo bounds the waits, for it does not count this one's work."""
        self._wait: tuple[float, bool] | None = None
        """When this process last heard of others, and whether it waits for a loading process."""
        self._over, self._ending = threading.Event(), threading.Lock()

    def start(self) -> None:
        """Watch the waits of this process, until `stop`."""
        threading.Thread(target=self._watch, daemon=True).start()

    def stop(self, regular: bool) -> None:
        """Watch no longer; the others get to know whether this process ends as all of them do."""
        self._over.set()
        if self.lifeline is not None:
            self.lifeline.close(regular)

    @contextmanager
    def bounded(self) -> Generator[None, None, None]:
        """End this process when nothing is heard of the others for `limit_s`, or when one ended."""
        with self._as((time.monotonic(), False) if self.world_size > 1 else None):
            yield

    @contextmanager
    def paused(self) -> Generator[None, None, None]:
        """Let this process work alone for any time, amid what is `bounded`."""
        with self._as(None):
            yield

    def each(self, batches: Iterable[Batch], num_workers: int) -> Iterator[Batch]:
        """Yield batches, and wait `limit_s` at most for those of loading processes.

        Amid what is `bounded`, the time counts anew with each batch.
        """
        batches = iter(batches)
        while True:
            with self._as((time.monotonic(), True) if num_workers else self._wait):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch
            if self._wait is not None:
                self._wait = (time.monotonic(), False)

    @contextmanager
    def _as(self, wait: tuple[float, bool] | None) -> Generator[None, None, None]:
        before, self._wait = self._wait, wait
        try:
            yield
        finally:
            self._wait = None if before is None else (time.monotonic(), before[1])

    def explained(self, error: RuntimeError) -> LostProcess | None:
        """Return torch's error as one sentence if it means a lost process, else None."""
        text = str(error)
        if any(words in text for words in LOADER_LOST):
            how = re.search(r"\) (?:is )?([a-z][^.]*)", str(error.__cause__ or error))
            return LostProcess(
                f"A loading process was ended{f' ({how[1]})' if how else ''}, perhaps because the "
                "memory or /dev/shm is full; use fewer by --num_workers."
            )
        of_torch = isinstance(error, dist.DistError) or any(words in text for words in OF_GLOO)
        if self.world_size == 1 or not of_torch:
            return None
        ended = any(words in text for words in PEER_LOST)
        if not ended and not any(words in text for words in PEER_LATE):
            return None
        self._ending.acquire()  # for ever, if the thread is saying the same
        return LostProcess(self._lost(ended))

    def absent(self, ranks: Iterable[int], place: str) -> LostProcess:
        """Return the error about processes that did not come to a place."""
        return LostProcess(
            f"{self._named(ranks)} did not come to {place} within {self._limit}. Start as many "
            "processes as WORLD_SIZE says, each with its RANK and the same MASTER_ADDR and "
            "MASTER_PORT."
        )

    def _watch(self) -> None:
        """End this process when a wait is too long, or amid what is `bounded` when one ended."""
        while not self._over.is_set():
            known = self.lifeline is None or self.lifeline.loss
            (self._over if known else self.lifeline.lost).wait(min(0.2, self.limit_s / 10))
            wait = self._wait
            if wait is None:
                continue
            since, for_loader = wait
            grace_s = 0 if for_loader else self.grace_s
            late = time.monotonic() > since + self.limit_s + grace_s
            if self.lifeline is not None and self.lifeline.loss:
                self._end(self._lost)
            elif late and for_loader:
                self._end(lambda: f"The loading processes gave no batch within {self._limit}.")
            elif late:
                self._end(partial(self._lost, ended=False))

    def _end(self, sentence: Callable[[], str]) -> None:
        self._ending.acquire()  # for ever, if the main thread is saying the same
        log.error("Error: %s", sentence())
        end_process(2)

    def _lost(self, ended: bool = True) -> str:
        """Return the sentence about the process that was lost."""
        loss = None
        if self.lifeline is not None:
            loss = self.lifeline.loss if self.world_size == 2 else self.lifeline.asked(ended)
        if loss is None:
            loss = Loss((1 - self.rank,) if self.world_size == 2 else (), ended)
        how = "ended; its own output may say why" if loss.ended else "did not answer"
        within = "" if loss.ended else f" within {self._limit}"
        return (
            f"{self._named(loss.ranks)} {how}{within}. Start all processes again; with "
            "--auto_load=1 a training goes on from its last checkpoint."
        )

    def _named(self, ranks: Iterable[int]) -> str:
        names = ", ".join(map(str, sorted(ranks)))
        return f"{f'Process RANK={names}' if names else 'Another process'} of {self.world_size}"

    @property
    def _limit(self) -> str:
        return f"{self.limit_s / 60:g} min (--timeout_minutes)"


def end_with_parent(_: int) -> None:
    """Let a loading process end with the one that it loads for, on Linux.

    It holds copies of that one's connections. While it goes on with the batches that were asked
    for, the other processes do not see them closed.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def end_process(code: int) -> NoReturn:
    """End this process at once, whatever its threads and connections are doing."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def leave(program: Callable[[], int]) -> NoReturn:
    """Run a program and end with its exit code.

    After an error, connections to other processes may never close, and loading processes never
    end: then this process does not wait for them.
    """
    try:
        code = program()
    except Exception:
        if not dist.is_initialized():
            raise
        traceback.print_exc()
        code = 1
    if dist.is_initialized() or multiprocessing.active_children():
        end_process(code)
    sys.exit(code)
