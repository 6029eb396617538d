"""Two things at a time: a thread beside the main one, and frames that are read ahead.

Networks as small as ours keep few cores busy, so that two of them side by side, with half of the
cores each, are faster than one after the other with all.
"""

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

READ_AHEAD = 4
"""Frames."""
T = TypeVar("T")


class Beside:
    """Runs something beside the main thread; without a thread, at once.

    Args:
        threads: to run it in; None: the main thread.
    """

    def __init__(self, threads: ThreadPoolExecutor | None):
        self.threads = threads

    def start(self, run: Callable[..., T], *arguments: object) -> "Future[T]":
        """Start something; the result is waited for by `result`."""
        if self.threads is not None:
            return self.threads.submit(run, *arguments)
        done: Future[T] = Future()
        done.set_result(run(*arguments))
        return done


@contextmanager
def beside(workers: int = 1) -> Generator[Beside]:
    """Give each worker its share of the cores; with one core, all is done by the main thread.

    Args:
        workers: threads beside the main one.
    """
    cores = torch.get_num_threads()
    if cores < 2:
        yield Beside(None)
        return
    share = max(1, cores // 2)
    torch.set_num_threads(share)
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(share,)) as x:
            yield Beside(x)
    finally:
        torch.set_num_threads(cores)


def read_ahead(items: Iterable[T], count: int = READ_AHEAD) -> Iterator[T]:
    """Yield items that a thread of its own gets some steps ahead; its errors are raised here."""
    waiting: queue.Queue = queue.Queue(count)
    is_over = threading.Event()

    def put(entry: tuple) -> bool:
        """Wait until there is room; say whether anybody still waits for it."""
        while not is_over.is_set():
            try:
                waiting.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def get_all() -> None:
        try:
            for item in items:
                if not put(("item", item)):
                    return
        except BaseException as error:  # whatever it is, it belongs to whoever waits
            put(("error", error))
            return
        put(("end", None))

    thread = threading.Thread(target=get_all, daemon=True)
    thread.start()
    try:
        while True:
            kind, value = waiting.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        is_over.set()
        thread.join()
